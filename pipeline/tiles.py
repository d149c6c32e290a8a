"""Windows on a pixel grid and how a scene is cut: integers only, no I/O.

A scene is cut twice. *Blocks* are the unit of scheduling and writing: each owns whole output chunks. *Patches* are
the unit of the model: fixed-size windows on a lattice anchored at the scene's upper-left corner. The lattice does not
move with the blocks, so a pixel is always computed from the same patch, whatever the block size or the worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError

SAMPLES, SAMPLE_SIDE = 4, 256
"""Windows along each axis of the sample of a scene, and their side: plenty for a few numbers a band."""


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels, half-open: rows ``row .. row + height``, columns ``col .. col + width``.

    May reach outside the scene (negative rows, a halo beyond the edge); :meth:`clip` brings it back.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise UsageError(f"a window cannot have a negative size, got {self.height} x {self.width}")

    @property
    def stop_row(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @classmethod
    def from_bounds(cls, row: int, col: int, stop_row: int, stop_col: int) -> Self:
        """Make a window from its first row and column and the first beyond it; empty where they cross."""
        return cls(row, col, max(0, stop_row - row), max(0, stop_col - col))

    def expand(self, margin: int) -> Window:
        """Grow by `margin` pixels on every side."""
        return Window(self.row - margin, self.col - margin, self.height + 2 * margin, self.width + 2 * margin)

    def intersect(self, other: Window) -> Window:
        """Return the common part, empty if there is none."""
        return Window.from_bounds(
            max(self.row, other.row),
            max(self.col, other.col),
            min(self.stop_row, other.stop_row),
            min(self.stop_col, other.stop_col),
        )

    def clip(self, shape: tuple[int, int]) -> Window:
        """Return the part inside a scene of `shape` (height, width)."""
        return self.intersect(Window(0, 0, *shape))

    def scaled(self, factor: int) -> Window:
        """Return the same place on a grid `factor` times as fine."""
        return Window(self.row * factor, self.col * factor, self.height * factor, self.width * factor)

    def coarsened(self, factor: int) -> Window:
        """Return the smallest window on a grid `factor` times as coarse that covers this one."""
        return Window.from_bounds(
            self.row // factor, self.col // factor, -(-self.stop_row // factor), -(-self.stop_col // factor)
        )

    def moved(self, row: int, col: int) -> Window:
        """Return the window so many rows further down and columns further right."""
        return Window(self.row + row, self.col + col, self.height, self.width)

    def slices(self, origin: Window | None = None) -> tuple[slice, slice]:
        """Return row and column slices into an array whose first pixel is that of `origin` (default: the scene)."""
        row, col = (origin.row, origin.col) if origin else (0, 0)
        return slice(self.row - row, self.stop_row - row), slice(self.col - col, self.stop_col - col)


@dataclass(frozen=True)
class TileGrid:
    """A scene of `shape` cut into cells of `cell` pixels, anchored at the upper-left corner."""

    shape: tuple[int, int]
    """Height and width of the scene, pixels."""
    cell: tuple[int, int]
    """Height and width of a cell, pixels."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise UsageError(f"a scene needs at least one pixel, got {self.shape[0]} x {self.shape[1]}")
        if min(self.cell) < 1:
            raise UsageError(f"a cell needs at least one pixel, got {self.cell[0]} x {self.cell[1]}")

    @property
    def counts(self) -> tuple[int, int]:
        """Number of cell rows and cell columns."""
        return -(-self.shape[0] // self.cell[0]), -(-self.shape[1] // self.cell[1])

    def __len__(self) -> int:
        rows, cols = self.counts
        return rows * cols

    def __iter__(self) -> Iterator[Window]:
        """Yield the cells row by row, clipped to the scene."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Window:
        """Return cell number `index` (row-major), clipped to the scene."""
        if not 0 <= index < len(self):
            raise IndexError(f"cell {index} of {len(self)}")
        row, col = divmod(index, self.counts[1])
        return Window(row * self.cell[0], col * self.cell[1], *self.cell).clip(self.shape)

    def covering(self, window: Window) -> list[Window]:
        """Return the whole cells that touch `window`; those at the lower and right edge may reach outside the scene."""
        inside = window.clip(self.shape)
        if not inside.size:
            return []
        height, width = self.cell
        rows = range(inside.row // height, -(-inside.stop_row // height))
        cols = range(inside.col // width, -(-inside.stop_col // width))
        return [Window(row * height, col * width, height, width) for row in rows for col in cols]

    def cover(self, window: Window) -> Window:
        """Return the bounding window of :meth:`covering`."""
        cells = self.covering(window)
        if not cells:
            return Window(window.row, window.col, 0, 0)
        first, last = cells[0], cells[-1]
        return Window.from_bounds(first.row, first.col, last.stop_row, last.stop_col)


def reflect(start: int, stop: int, length: int, reach: int) -> NDArray[np.intp]:
    """Return the pixel indices that a window reads when the scene is mirrored at its edges.

    The edge pixel is not repeated (index -1 reads 1), and a window wider than the scene mirrors again and again.

    Parameters
    ----------
    start, stop : int
        First index and the first beyond; may lie outside ``0 .. length``.
    length : int
        Size of the scene along this axis, at least 1.
    reach : int
        How far beyond the edge the mirror image is wanted; farther indices repeat the last wanted one. What lies
        farther than the halo cannot reach a pixel of the scene, so nothing more has to be read for it.

    Returns
    -------
    ndarray of int, shape (stop - start,)
        Indices in ``0 .. length``.
    """
    indices = np.clip(np.arange(start, stop), -reach, length - 1 + reach)
    if length == 1:
        return np.zeros_like(indices)
    period = 2 * (length - 1)
    indices = np.abs(indices) % period
    return np.where(indices < length, indices, period - indices)


def patch_shape(shape: tuple[int, int], patch: int, multiple_of: int = 1) -> tuple[int, int]:
    """Return the patch size for a scene: `patch`, or less where the scene itself is smaller.

    Depends on nothing but the scene and the model, so it is the same on every worker and for every block size.
    Small scenes are rounded up to a multiple of 32 (and of `multiple_of`) pixels.
    """
    step = int(np.lcm(32, multiple_of))
    height, width = (min(patch, -(-length // step) * step) for length in shape)
    return height, width


def sample_windows(shape: tuple[int, int], multiple_of: int = 1) -> list[Window]:
    """Return up to 16 windows of 256 pixels a side, spread evenly over a scene, that start at multiples of a number."""
    rows, cols = (
        [
            round(p) // multiple_of * multiple_of
            for p in np.linspace(0, max(0, n - SAMPLE_SIDE), min(SAMPLES, -(-n // SAMPLE_SIDE)))
        ]
        for n in shape
    )
    return [Window(row, col, SAMPLE_SIDE, SAMPLE_SIDE).clip(shape) for row in rows for col in cols]
