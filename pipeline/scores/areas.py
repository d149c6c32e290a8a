"""Which pixels of an array a block owns, at every level of a pyramid fixed to the scene's upper-left corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from scenelift.pipeline.errors import UsageError

LEVELS = 5
"""Scales of the multi-scale measures: 1, 2, 4, 8 and 16 pixels a cell."""
ALIGNMENT = 2 ** (LEVELS - 1)
"""Cells of the coarsest level start at multiples of this."""
HALO = 6 * ALIGNMENT
"""Context in pixels that an 11 x 11 window at the coarsest level needs: five cells, and one for alignment."""


@dataclass(frozen=True)
class Area:
    """A block's core inside the array that was read for it, in pixels of the scene.

    Every window, cell or coefficient of a scene belongs to the one block whose core holds its anchor pixel, so
    sums over any partition of a scene into cores count each of them exactly once.
    """

    origin: tuple[int, int]
    """Row and column in the scene of the array's first pixel."""
    shape: tuple[int, int]
    """Height and width of the array."""
    core: tuple[int, int, int, int]
    """First row, first column, end row and end column of the core, in the scene."""

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Self:
        """Return the area of a whole scene of ``shape``: its core is everything."""
        return cls((0, 0), shape, (0, 0, *shape))

    @classmethod
    def around(cls, core: tuple[int, int, int, int], scene: tuple[int, int], halo: int = HALO) -> Self:
        """Return the area to read for a core of a scene: the core, its halo, cut at the scene's edge.

        Parameters
        ----------
        core : tuple of int
            First row, first column, end row, end column.
        scene : tuple of int
            Height and width of the scene.
        halo : int
            Context in pixels; ``HALO`` covers every measure, 0 the per-pixel ones.
        """
        row, column, bottom, right = core
        if not (0 <= row < bottom <= scene[0] and 0 <= column < right <= scene[1]):
            raise UsageError(f"a core {core} does not lie in a scene of {scene[0]} x {scene[1]} pixels")
        top = max(0, (row - halo) // ALIGNMENT * ALIGNMENT)
        left = max(0, (column - halo) // ALIGNMENT * ALIGNMENT)
        end_row, end_column = min(scene[0], bottom + halo), min(scene[1], right + halo)
        return cls((top, left), (end_row - top, end_column - left), core)

    def __post_init__(self) -> None:
        if self.origin[0] % ALIGNMENT or self.origin[1] % ALIGNMENT:
            raise UsageError(f"an area must start at multiples of {ALIGNMENT} pixels, got {self.origin}")

    def owned(self, level: int = 0, shift: int = 0) -> tuple[slice, slice]:
        """Return the slices, in an array of ``level``, of what the core owns.

        Parameters
        ----------
        level : int
            0 for pixels, 1 for cells of 2 x 2 pixels and so on.
        shift : int
            How many cells the array's first value lies after the area's first cell (5 after an 11-wide
            filter that keeps whole windows only and is anchored at its centre; 0 if at its first cell).
        """
        step = 2**level
        row, column, bottom, right = self.core
        return (
            _slice(row, bottom, self.origin[0], step, shift),
            _slice(column, right, self.origin[1], step, shift),
        )


def _slice(first: int, end: int, origin: int, step: int, shift: int) -> slice:
    start = -(-first // step) - origin // step - shift
    stop = -(-end // step) - origin // step - shift
    return slice(max(0, start), max(0, stop))


def cells(values: np.ndarray) -> np.ndarray:
    """Return the four pixels of each 2 x 2 cell, shape (4, H // 2, W // 2): NW, NE, SW, SE; an odd rest is cut."""
    height, width = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    even, odd = values[0:height:2, :width], values[1:height:2, :width]
    return np.stack([even[:, 0::2], even[:, 1::2], odd[:, 0::2], odd[:, 1::2]])


def halve(values: np.ndarray) -> np.ndarray:
    """Return the mean of each 2 x 2 cell (for booleans: whether all four are true), shape (H // 2, W // 2)."""
    quads = cells(values)
    return np.logical_and.reduce(quads) if values.dtype == bool else np.mean(quads, axis=0)
