"""Methods without weights whose numbers are found once in the whole scene: contrast, haze, stripes."""

from __future__ import annotations

import re

from scenelift.models.errors import ModelError

METHODS: dict[str, dict[str, float]] = {
    "stretch": {"low": 2.0, "high": 98.0},
    "gamma": {"exponent": 0.0},
    "clahe": {"tiles": 8, "clip": 2.0},
    "dark-object": {"percent": 0.1, "floor": 0.01},
    "dark-channel": {"strength": 0.9, "least": 0.2},
    "destripe": {"slant": 0.0, "rows": 0.0, "search": 0.0},
}
"""The methods, and the numbers that a user may give each as NAME:KEY=VALUE, with their defaults."""
LIMITS: dict[tuple[str, str], tuple[float, float]] = {
    ("stretch", "low"): (0, 49),
    ("stretch", "high"): (51, 100),
    ("gamma", "exponent"): (0, 10),
    ("clahe", "tiles"): (1, 32),
    ("clahe", "clip"): (1, 64),
    ("dark-object", "percent"): (0, 10),
    ("dark-object", "floor"): (0, 0.2),
    ("dark-channel", "strength"): (0, 1),
    ("dark-channel", "least"): (0.05, 1),
    ("destripe", "slant"): (-1, 1),
    ("destripe", "rows"): (0, 1),
    ("destripe", "search"): (0, 1),
}
"""Smallest and largest value of each number."""
WHOLE = {"tiles", "rows", "search"}
"""Numbers that must be whole."""
VISUAL = ("stretch", "gamma", "clahe")
"""Methods whose product is for the eye: its values are no reflectance any longer."""


def method_of(name: str) -> str | None:
    """Return the method that a name such as "stretch:low=1" begins with; None if it is none of these."""
    head = name.partition(":")[0]
    return head if head in METHODS else None


def parameters(name: str) -> dict[str, float]:
    """Return the numbers of a method by its name, defaults where it says nothing.

    Raises
    ------
    ModelError
        If there is no such number, or its value is out of range.
    """
    method, *parts = name.split(":")
    values = dict(METHODS[method])
    for part in parts:
        key, _, text = part.partition("=")
        if key not in values:
            raise ModelError(f"{method} has no number {key!r}: give {' or '.join(f'{k}=NUMBER' for k in values)}")
        low, high = LIMITS[method, key]
        known = re.fullmatch(r"-?\d+(\.\d*)?([eE]-?\d+)?|-?\.\d+", text)
        if not known or not low <= float(text) <= high or (key in WHOLE and float(text) % 1):
            kind = "a whole number" if key in WHOLE else "a number"
            raise ModelError(f"{method}: {key} must be {kind} from {low:g} to {high:g}, got {text!r}")
        values[key] = float(text)
    return values
