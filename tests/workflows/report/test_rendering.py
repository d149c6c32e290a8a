"""Pages: whatever a file says comes out as text, never as HTML."""

from __future__ import annotations

from pathlib import Path

import jinja2
import numpy as np
import pytest

from scenelift.workflows.report.charts import Line, line_chart
from scenelift.workflows.report.rendering import render

HOSTILE = "<script>alert('x')</script>&\"'"


def test_what_is_put_into_a_template_is_escaped_and_what_is_missing_is_an_error(tmp_path: Path) -> None:
    template = tmp_path / "page.html"
    template.write_text('<p title="{{ text }}">{{ text }}</p>')
    found = render(template, text=HOSTILE)
    assert "<script>" not in found and found.count("&lt;script&gt;") == 2
    assert found.count('"') == 2, "only those of the attribute"
    with pytest.raises(jinja2.UndefinedError):
        render(template)


def test_names_of_bands_are_escaped_in_charts() -> None:
    chart = line_chart(HOSTILE, HOSTILE, [Line(HOSTILE, "before", np.arange(3.0), np.arange(3.0))])
    assert "<script>" not in chart and chart.count("&lt;script&gt;") == 4
    assert '<polyline class="before" points="' in chart
