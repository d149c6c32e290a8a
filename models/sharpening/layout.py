"""How the grids of a scene's bands lie to each other: what a sharpener must know before it sees a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scenelift.models.errors import ModelError

MAX_RATIO = 16


@dataclass(frozen=True)
class BandGrid:
    """Where the pixels of one band lie on the fine grid, and how its sensor blurs.

    Fine pixel i has its centre at i. Pixel k of a coarse band has its centre at ``row + ratio * k`` and
    ``col + ratio * k``: 0.5 for twice as coarse and aligned, 1.5 for grids that are one fine pixel apart, 2.5 for six
    times as coarse, 0.0 for Landsat's panchromatic band, whose grid lies half a fine pixel aside.
    """

    ratio: int
    """Fine pixels along each axis of one pixel; 1: a guide, a band on the fine grid itself."""
    row: float = 0.0
    """Row of the centre of the first coarse pixel whose centre is not above row 0; a multiple of 0.5 in [0, ratio)."""
    col: float = 0.0
    """The same of its column."""
    mtf: float = 0.3
    """Transfer of the sensor at this band's own Nyquist frequency."""
    name: str = ""
    wavelength: float = 0.0
    """Of the band's centre, nm; 0: unknown."""

    def __post_init__(self) -> None:
        who = f"band {self.name or '?'}"
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int) or not 1 <= self.ratio <= MAX_RATIO:
            raise ModelError(f"{who}: the ratio must be an integer from 1 to {MAX_RATIO}, got {self.ratio!r}")
        for axis, at in (("row", self.row), ("col", self.col)):
            if not (0 <= at < self.ratio and float(2 * at).is_integer()):
                raise ModelError(f"{who}: {axis} must be a multiple of 0.5 from 0 to below {self.ratio}, got {at!r}")
        if self.ratio == 1 and (self.row, self.col) != (0, 0):
            raise ModelError(f"{who}: a guide lies on the fine grid itself, got row {self.row}, col {self.col}")
        if not 0.005 <= self.mtf < 1:
            raise ModelError(f"{who}: the MTF at Nyquist must lie between 0.005 and 1, got {self.mtf!r}")


def guides(layout: Sequence[BandGrid]) -> list[int]:
    """Return the numbers of the bands on the fine grid."""
    return [i for i, band in enumerate(layout) if band.ratio == 1]


def coarse(layout: Sequence[BandGrid]) -> list[int]:
    """Return the numbers of the bands that are to be sharpened."""
    return [i for i, band in enumerate(layout) if band.ratio > 1]


def period(layout: Sequence[BandGrid]) -> int:
    """Return the least common multiple of the ratios: patches must start at multiples of it."""
    return math.lcm(*(band.ratio for band in layout))


def whole_periods(layout: Sequence[BandGrid], reach: int) -> int:
    """Return a number of fine pixels that is at least `reach` and a multiple of the layout's period."""
    step = period(layout)
    return -(-reach // step) * step


def check_layout(layout: Sequence[BandGrid]) -> tuple[BandGrid, ...]:
    """Return the layout as a tuple.

    Raises
    ------
    ModelError
        If there is no band on the fine grid to be guided by, or none to sharpen.
    """
    if not guides(layout):
        raise ModelError("sharpening needs at least one band on the fine grid as a guide, the scene has none")
    if not coarse(layout):
        raise ModelError("there is nothing to sharpen: all bands lie on one grid")
    return tuple(layout)
