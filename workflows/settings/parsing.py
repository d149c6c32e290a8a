"""What several settings share: headings of ``--help``, and lists of names and of numbers as users write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from scenelift.pipeline.errors import UsageError

INPUT, MODEL, OUTPUT, WHERE, STOPS = "Input", "Model", "Output", "Where it runs", "When it stops"
"""Headings of ``--help``, in this order."""

Device = Literal["auto", "cpu", "cuda"]


def band_list(text: str) -> tuple[int, ...]:
    """Return the 1-based bands that --bands names, in its order.

    Raises
    ------
    UsageError
        If a part is not a number from 1 up.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--bands must be numbers such as 4,3,2, got {text!r}")
    return tuple(int(part) for part in parts)


def numbers(flag: str, like: str, kind: type[Any], count: int, text: str, parts: Sequence[str]) -> tuple[Any, ...]:
    """Return the numbers of an option, of which there are so many.

    Parameters
    ----------
    flag, like : str
        The option, and what it must be, for the message.
    kind : type
        int or float.
    count : int
    text : str
        As it was given.
    parts : sequence of str
        The same, split.

    Raises
    ------
    UsageError
        If they are more or fewer, or no numbers.
    """
    try:
        found = tuple(map(kind, parts))
        whole = len(found) == count and all(map(math.isfinite, found))
    except (ValueError, OverflowError):
        whole = False
    if not whole:
        raise UsageError(f"{flag} must be {like}, got {text!r}")
    return found


def split_names(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas, empty ones left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
