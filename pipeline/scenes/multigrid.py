"""Files of several grids as one scene: each band is read on the finest grid, its pixels repeated, nothing resampled.

Files are paired by their georeference, never by array index. A fine pixel gets the value of the coarse pixel that
covers its centre, so every coarse value can be found again, bit for bit, at the place that `Placement` tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from scenelift.pipeline.errors import GridsError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.rasters import Reader
from scenelift.pipeline.tiles import Window

EXTENTS = ("common", "union")
"""What ground a scene of several grids covers: what all of them do, or what any does."""
RATIOS = (1, 2, 3, 6)
"""How many times as coarse as the finest a grid may be."""
COARSEST = 60
"""How many times as coarse as a scene a mask may be."""
TOLERANCE = 1e-3
"""Part of a fine pixel by which pixels may lie off their place: programs round differently."""


@dataclass(frozen=True)
class Placement:
    """Where the pixels of a band lie on the finest grid of its scene, whose pixel i has its centre at i.

    Pixel k has its centre at ``row + ratio * k``, ``col + ratio * k``; the scene has its value at the whole part of
    that, and at all fine pixels whose centres it covers (at its upper and left edge they belong to the one before).
    """

    ratio: int = 1
    """Fine pixels along each axis of one pixel."""
    row: float = 0.0
    """A multiple of 0.5 in [0, ratio)."""
    col: float = 0.0


@dataclass(frozen=True)
class Axis:
    """One axis of a file on a fine grid, in half fine pixels: integers, so that nothing is rounded."""

    ratio: int
    edge: int
    """Where its first pixel begins, half fine pixels from the edge of fine pixel 0."""
    count: int
    """Its pixels."""

    @property
    def covered(self) -> tuple[int, int]:
        """The fine pixels whose centres it covers: the first, and the first beyond; `edge` belongs to none of them."""
        return (self.edge + 1) // 2, (self.edge - 1 + 2 * self.ratio * self.count) // 2 + 1

    @property
    def centre(self) -> float:
        """Where the first pixel that is not above 0 has its centre; fine pixel i has it at i."""
        return ((self.edge + self.ratio - 1) % (2 * self.ratio)) / 2

    def moved(self, start: int) -> Axis:
        """Return the axis as seen from fine pixel `start`."""
        return Axis(self.ratio, self.edge - 2 * start, self.count)

    def indices(self, start: int, stop: int) -> NDArray[np.intp]:
        """Return for fine pixels the pixel that covers each; outside of ``0 .. count`` there is none."""
        centres = 2 * np.arange(start, stop) + 1
        return -((self.edge - centres) // (2 * self.ratio)) - 1


class OnFinestGrid:
    """A file read on another grid than its own, each of its pixels repeated; see `Reader`."""

    def __init__(self, reader: Reader, axes: tuple[Axis, Axis], shape: tuple[int, int], transform: Affine) -> None:
        self.reader = reader
        self._axes = axes
        self.placement = Placement(axes[0].ratio, axes[0].centre, axes[1].centre)
        self.path = reader.path
        self.shape = shape
        self.count = reader.count
        self.transform = transform
        self.crs = reader.crs
        self.dtypes = reader.dtypes
        self.nodata = reader.nodata
        self.scales = reader.scales
        self.offsets = reader.offsets
        self.descriptions = reader.descriptions
        self.colors = reader.colors
        self.tags = reader.tags
        # rational polynomials count the lines of the file
        self.tag_domains = {name: tags for name, tags in reader.tag_domains.items() if name != "RPC"}
        self.band_tags = reader.band_tags
        self.flags = reader.flags
        covers = all(a.covered[0] <= 0 and a.covered[1] >= n for a, n in zip(axes, shape, strict=True))
        self.has_mask = reader.has_mask or not covers
        self.mask_per_band = reader.mask_per_band
        self.has_gcps = reader.has_gcps
        self.notes = reader.notes
        self.times = reader.times
        self.chunk_bytes = reader.chunk_bytes
        self.slow_tiles = tuple((height * axes[0].ratio, width * axes[1].ratio) for height, width in reader.slow_tiles)

    def read(self, indexes: Sequence[int], window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands, see `Reader`; where the file has none, they are not valid."""
        rows = self._axes[0].indices(window.row, window.stop_row)
        cols = self._axes[1].indices(window.col, window.stop_col)
        inside = [(i >= 0) & (i < axis.count) for i, axis in zip((rows, cols), self._axes, strict=True)]
        if not (inside[0].any() and inside[1].any()):
            shape = len(indexes), *window.shape
            return np.zeros(shape, self.dtypes[indexes[0] - 1]), np.zeros(shape, bool)
        (top, bottom), (left, right) = (
            (i[known][0], i[known][-1]) for i, known in zip((rows, cols), inside, strict=True)
        )
        part = Window.from_bounds(int(top), int(left), int(bottom) + 1, int(right) + 1)
        values, valid = self.reader.read(indexes, part)
        at = np.ix_(range(len(indexes)), np.clip(rows, top, bottom) - top, np.clip(cols, left, right) - left)
        return values[at], valid[at] & inside[0][:, None] & inside[1][None]


def on_finest(files: Sequence[Reader], extent: str) -> tuple[list[Reader], Reader]:
    """Return files of one or several grids as files of the finest, and the one whose grid that is.

    Parameters
    ----------
    files : sequence of Reader
    extent : str
        One of `EXTENTS`: the ground that the common grid covers.

    Raises
    ------
    GridsError
        If a grid does not fit the finest one: another coordinate reference system or direction, another ratio than 2,
        3 or 6, a shift of other than whole fine pixels (half ones too where the ratio is 2), or nothing in common.
    """
    finest = min(range(len(files)), key=lambda i: (round(_size(files[i]), 6), i))
    fine = files[finest]
    axes = [_axes(fine, other) for other in files]
    common, union = (
        [tuple(choose(a[axis].covered[end] for a in axes) for end, choose in enumerate(pick)) for axis in (0, 1)]
        for pick in ((max, min), (min, max))
    )
    if any(stop <= start for start, stop in common):
        other = next((o for o, a in zip(files, axes, strict=True) if not _meet(a, axes[finest])), files[-1])
        raise GridsError(_refusal(fine, other, "they have no ground in common"))
    (top, bottom), (left, right) = common if extent == "common" else union
    shape, transform = (bottom - top, right - left), fine.transform @ Affine.translation(left, top)
    moved = [(a[0].moved(top), a[1].moved(left)) for a in axes]
    plain = [Axis(1, 0, n) for n in shape]
    placed: list[Reader] = [
        file if list(its) == plain and file.shape == shape else OnFinestGrid(file, its, shape, transform)
        for file, its in zip(files, moved, strict=True)
    ]
    return placed, placed[finest]


def own_grid(fine: GeoGrid, placement: Placement) -> GeoGrid:
    """Return the grid of those of a band's own pixels whose values stand where the placement says, in its scene."""
    ratio, starts = placement.ratio, (placement.row, placement.col)
    height, width = (max(0, (n - 1 - int(at)) // ratio + 1) for n, at in zip(fine.shape, starts, strict=True))
    row, col = (at + (1 - ratio) / 2 for at in starts)
    return GeoGrid(fine.crs, fine.transform @ Affine.translation(col, row) @ Affine.scale(ratio), height, width)


def placement_of(reader: Reader) -> Placement:
    """Return where the pixels of a file lie on the grid that it is read on."""
    return reader.placement if isinstance(reader, OnFinestGrid) else Placement()


class _Place(NamedTuple):
    """A grid that a file is laid on."""

    path: str
    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None


def lay_on(grid: GeoGrid, other: Reader, name: str) -> tuple[Axis, Axis]:
    """Return rows and columns of a file on a grid at least as fine.

    Parameters
    ----------
    grid : GeoGrid
    other : Reader
    name : str
        Of what lies on the grid, for messages.

    Raises
    ------
    GridsError
        If its pixels are not some whole times as large along the same directions, or it lies aside by other than whole
        or half fine pixels.
    """
    return _axes(_Place(name, grid.shape, grid.transform, grid.crs), other, range(1, COARSEST + 1))


def _size(reader: Reader) -> float:
    return math.log(abs(reader.transform.determinant)) if not reader.transform.is_degenerate else math.inf


def _meet(one: tuple[Axis, Axis], other: tuple[Axis, Axis]) -> bool:
    pairs = [(a.covered, b.covered) for a, b in zip(one, other, strict=True)]
    return all(max(a[0], b[0]) < min(a[1], b[1]) for a, b in pairs)


def _axes(fine: Reader | _Place, other: Reader, ratios: Sequence[int] = RATIOS) -> tuple[Axis, Axis]:
    """Return rows and columns of a file on the grid of another; with other ratios than `RATIOS` half pixels always."""
    if other.crs != fine.crs and not (fine.crs and other.crs and fine.crs.to_epsg() == other.crs.to_epsg() is not None):
        raise GridsError(_refusal(fine, other, "their coordinate reference systems differ"))
    if fine.transform.is_degenerate or other.transform.is_degenerate:
        raise GridsError(_refusal(fine, other, "a transform that maps pixels onto a line or a point is no grid"))
    lies = ~fine.transform @ other.transform
    ratio = round(lies.a)
    if ratio not in ratios or _off(lies, other.shape, Affine(ratio, 0, lies.c, 0, ratio, lies.f)) > TOLERANCE:
        wanted = _listed(RATIOS[1:]) if ratios is RATIOS else f"{ratios[0]} to {ratios[-1]}"
        raise GridsError(_refusal(fine, other, f"pixels must be {wanted} times as large along the same directions"))
    half = 1 if ratio == 2 or ratios is not RATIOS else 2
    row, col = (half * round(2 * at / half) for at in (lies.f, lies.c))
    if _off(lies, other.shape, Affine(ratio, 0, col / 2, 0, ratio, row / 2)) > TOLERANCE:
        wanted = "whole pixels" if half == 2 else "whole or half pixels"
        shift = f"one lies {lies.c:+.3f} columns and {lies.f:+.3f} rows of the finer off"
        raise GridsError(_refusal(fine, other, f"{shift}, and {wanted} are needed"))
    return Axis(ratio, row, other.shape[0]), Axis(ratio, col, other.shape[1])


def _off(lies: Affine, shape: tuple[int, int], ideal: Affine) -> float:
    """Return how far at most corners lie off their ideal place, fine pixels."""
    corners = [(col, row) for col in (0, shape[1]) for row in (0, shape[0])]
    return max(abs(a - b) for at in corners for a, b in zip(lies @ at, ideal @ at, strict=True))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}"


def _refusal(fine: Reader | _Place, other: Reader, problem: str) -> str:
    return f"the grids of {_told(fine)} and {_told(other)} do not fit: {problem}"


def _told(reader: Reader | _Place) -> str:
    t = reader.transform
    sizes = math.hypot(t.a, t.d), math.hypot(t.b, t.e)
    crs = "no CRS" if reader.crs is None else reader.crs.to_string()[:60]
    rows, cols = reader.shape
    return f"{reader.path} ({cols} x {rows} pixels of {sizes[0]:g} x {sizes[1]:g} at {t.c:.10g}, {t.f:.10g}, {crs})"
