"""For which reasons tests may be skipped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

WITHOUT = "(nothing installed) "
"""How a line begins that counts only where the machine lets nothing be installed."""


def read_allowed(path: Path, installed: bool) -> list[str]:
    """Return the beginnings of reasons that are allowed; each line of the file has one, `#`, and why it is allowed.

    Raises
    ------
    ValueError
        If a line does not say why.
    """
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text, mark, why = line.partition(" # ")
        if not line.strip() or line.startswith("#"):
            continue
        if not mark or not why.strip():
            raise ValueError(f"{path.name} does not say why {line!r} is allowed")
        if not text.startswith(WITHOUT):
            found.append(text.strip())
        elif not installed:
            found.append(text.removeprefix(WITHOUT).strip())
    return found


def unallowed(reasons: Mapping[str, str], allowed: list[str]) -> dict[str, str]:
    """Return the tests, with their reasons, that were skipped for none of the reasons allowed."""
    return {test: why for test, why in reasons.items() if not any(why.startswith(text) for text in allowed)}
