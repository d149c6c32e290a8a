"""The table of scores; tests/workflows/test_extending.py adds one from another package."""

from __future__ import annotations

import pytest

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.registry import columns, known_scores, register


def test_names_are_taken_once_and_every_page_has_its_columns():
    with pytest.raises(UsageError, match="'psnr' already"):
        register(known_scores()["psnr"])
    assert [score.name for score in columns("archive")] == ["psnr", "tenengrad", "noise", "snr"]
    assert {"psnr", "ssim", "vif"} <= {score.name for score in columns("compare")} & {s.name for s in columns("report")}
