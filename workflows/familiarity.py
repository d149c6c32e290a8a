"""How far a scene lies from what a network was trained on: its card says what that was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenelift.models.shipped import card
from scenelift.workflows.conditions import Conditions

QUANTITIES = {"brightness": "mean reflectance", "contrast": "standard deviation within 32 pixels"}
"""What is compared of each band, and its name for people."""
NAMES = QUANTITIES | {"noise": "noise (standard deviation)"}
FAR = 100.0
"""Ratio from which on no number is told."""
SLACK = 0.02
"""By how much a transfer may lie outside of those trained for: as far as an estimate errs."""


@dataclass(frozen=True)
class Distance:
    """One quantity of a scene that a network has not seen."""

    model: str
    quantity: str
    band: str
    value: float
    seen: tuple[float, float]
    """Range (0.5 to 99.5 percent of the training patches)."""

    def describe(self) -> str:
        """Return one line for people."""
        low, high = self.seen
        far, side = _far(self), "above" if self.value > high else "below"
        by = f"{far:.1f} times" if far < FAR else "far"  # of a flat scene the ratio says nothing
        return (
            f"{self.model} has not seen such a scene: {NAMES[self.quantity]} of {self.band} is "
            f"{self.value:.3g}, {by} {side} what it was trained on ({low:.3g} to {high:.3g})"
        )


def unfamiliar(
    names: Sequence[Any], bands: Sequence[str], conditions: Conditions, noise: Sequence[float] = ()
) -> list[str]:
    """Return a line for each network and quantity that lies outside what the network was trained on.

    Parameters
    ----------
    names : sequence
        Models of a job; those without a card, or whose card does not say, are passed over.
    bands : sequence of str
        Names of the scene's bands.
    conditions : Conditions
        With the scene's statistics, blur and noise.
    noise : sequence of float
        What denoisers are told of each band, standard deviation, reflectance.
    """
    lines = []
    for name in names:
        about = card(name) if isinstance(name, str) else None
        seen = (about or {}).get("seen")
        if not about or not seen:
            continue
        for quantity in QUANTITIES:
            found = list(_outside(name, quantity, seen[quantity], bands, conditions.statistics.get(quantity, ())))
            lines += [max(found, key=_far).describe()] if found else []
        if about["task"] == "denoise" and "noise" in seen and noise:
            found = list(_outside(name, "noise", seen["noise"], bands, noise))
            lines += [max(found, key=_far).describe()] if found else []
        if about["task"] == "super-resolution" and "mtf" in seen:
            lines += _blurred(name, seen["mtf"], about["scale"], conditions)
    return lines


def _outside(
    name: str, quantity: str, seen: Sequence[float], bands: Sequence[str], values: Sequence[float]
) -> Iterator[Distance]:
    low, high = seen
    for band, value in zip(bands, values, strict=True):
        if np.isfinite(value) and not low <= value <= high:
            yield Distance(name, quantity, band, value, (low, high))


def _far(distance: Distance) -> float:
    low, high = distance.seen
    return distance.value / high if distance.value > high else low / max(distance.value, 1e-9)


def _blurred(name: str, seen: Sequence[float], scale: int, conditions: Conditions) -> list[str]:
    """Return a line if a network that is told no blur was trained for another one than the scene's."""
    low, high = seen
    outside = [b for b in conditions.blur if not low - SLACK <= b.at_nyquist(scale) <= high + SLACK]
    if not outside:
        return []
    worst = max(outside, key=lambda b: abs(b.at_nyquist(scale) - (low + high) / 2))
    at = worst.at_nyquist(scale)
    return [
        f"{name} was trained for blurs of MTF {low:.2f} to {high:.2f}, this scene's is {at:.2f} ({worst.describe()}, "
        f"{conditions.origin}): take a network that is told the blur (sr-x2, sr-x4)"
    ]
