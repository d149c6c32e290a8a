"""HTML from templates; whatever is put into one is escaped, unless the template marks it as HTML."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **facts: Any) -> str:
    """Return a template's text with facts put in."""
    return _environment(template.parent).get_template(template.name).render(facts)


@functools.cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
