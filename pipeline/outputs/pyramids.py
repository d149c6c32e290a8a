"""The coarser levels of a Zarr store, for viewing a scene at a low zoom."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.geozarr import array_attributes, group_attributes, level_attributes, write_coordinates
from scenelift.pipeline.outputs.ordered import in_order
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.readback import ReadableScene, open_as_scene
from scenelift.pipeline.outputs.sinks import DATA, ZarrSink, array_of, make_level, put
from scenelift.pipeline.scenes.scenes import beside
from scenelift.pipeline.scenes.zarrs import MASK
from scenelift.pipeline.tiles import TileGrid, Window

CHUNK = 512


class GeoZarr:
    """The format of `*.zarr`, the store itself with coarser levels: see `scenelift.pipeline.outputs.formats.Format`."""

    name = "zarr"
    title = "zarr"
    suffixes = (".zarr",)
    keeps_blocks = True

    def make(self, store: ZarrSink, output: Output, path: Path, shards: bool) -> Path:
        """Build the coarser levels into the store."""
        for _ in Pyramid(store, output, shards=shards).build():
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr's own: consolidated metadata is an extension of version 3
            zarr.consolidate_metadata(str(store.path))  # what xarray looks for first
        commit_point("pyramid-built")
        return store.path

    def open(self, path: Path, recorded: dict[str, Any]) -> ReadableScene:
        """Open it as a scene."""
        return open_as_scene(path, recorded)

    def flaws(self, path: Path) -> list[str]:
        """Return nothing: what opens has the structure."""
        return []

    def beside(self, output: Output) -> dict[str, bytes]:
        """Return nothing: attributes hold all there is to tell."""
        return {}


class _Level(NamedTuple):
    data: zarr.Array[Any]
    mask: zarr.Array[Any] | None


class Pyramid:
    """The coarser levels of a store, each half the size of the one before, in groups named by their factor."""

    SMALLEST = 512
    STEP = 1 << 27
    """Bytes of a level made at once, all bands together, unless one chunk of each is more."""

    def __init__(self, sink: ZarrSink, output: Output, *, shards: bool) -> None:
        self._sink = sink
        self._output = output
        self._shards = shards

    @property
    def factors(self) -> list[int]:
        """Reduction factors of the levels: 2, 4, … until the larger side is at most 512 pixels."""
        factors: list[int] = []
        side = max(self._output.grid.shape)
        while side > self.SMALLEST:
            side = -(-side // 2)
            factors.append(2 ** (len(factors) + 1))
        return factors

    def step(self, grid: GeoGrid) -> tuple[int, int]:
        """Return height and width of what is made at once (and of a shard): less where there are many bands."""
        item = len(self._output.bands) * np.dtype(self._output.dtype).itemsize
        side = 2048
        while side > CHUNK and side * side * item > self.STEP:
            side //= 2
        height, width = (min(side, -(-length // CHUNK) * CHUNK) for length in grid.shape)
        return height, width

    def build(self) -> Iterator[int]:
        """Write the levels one after the other, yielding each factor; memory holds few steps at a time."""
        item = len(self._output.bands) * np.dtype(self._output.dtype).itemsize
        threads = max(1, min(self._sink.threads, 2 * self.STEP // (math.prod(self.step(self._output.grid)) * item)))
        finer = _Level(self._sink.data, self._sink.mask)
        for factor in self.factors:
            grid = self._output.grid.coarsened(factor)
            shape = len(self._output.bands), *grid.shape
            group = self._sink.group.create_group(str(factor), attributes=level_attributes(grid))
            step = self.step(grid)
            make_level(group, shape, (CHUNK, CHUNK), step if self._shards else None, self._output)
            group[DATA].attrs.update(array_attributes(self._output))
            write_coordinates(group, grid, self._output.bands)
            coarse = _Level(array_of(group, DATA), array_of(group, MASK) if self._output.mask else None)
            # a step is whole chunks, and a shard where there are some: no two threads write to one file
            for _ in in_order(functools.partial(self._coarsen, finer, coarse), TileGrid(grid.shape, step), threads):
                pass
            finer = coarse
            yield factor
        self._sink.group.attrs.update(group_attributes(self._output, self.factors))

    def _coarsen(self, finer: _Level, coarse: _Level, window: Window) -> None:
        """Make one window of a level from the next finer one, reading one band at a time."""
        fine = window.scaled(2).clip((finer.data.shape[1], finer.data.shape[2])).slices()
        mask = None if finer.mask is None else np.asarray(finer.mask[fine])
        values, seen = coarsen(
            self._output, lambda index: np.asarray(finer.data[(slice(index, index + 1), *fine)])[0], mask
        )
        if coarse.mask is not None and seen is not None:
            put(coarse.mask, window.slices(), seen)
        put(coarse.data, (slice(None), *window.slices()), values)


def coarsen(
    output: Output, band: Callable[[int], NDArray[np.generic]], mask: NDArray[np.uint8] | None
) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None]:
    """Make a window of a coarser level of an output from the next finer one.

    Parameters
    ----------
    output : Output
    band : function
        Returns a band's values in the finer window, shape (H, W), by its 0-based index.
    mask : ndarray of uint8, shape (H, W), or None
        The finer window's mask, if the output has one.

    Returns
    -------
    values : ndarray, shape (C, ceil(H / 2), ceil(W / 2))
    mask : ndarray of uint8, shape (ceil(H / 2), ceil(W / 2)), or None
        255 where any of four pixels has data.
    """
    count, has_alpha = len(output.bands), output.bands[-1].color == "alpha"
    alpha = band(count - 1) if has_alpha else None
    known = mask != 0 if mask is not None else alpha != 0 if alpha is not None else None
    missing = np.asarray(output.missing).astype(output.dtype)
    marker = missing if output.nodata is not None or output.dtype == "float32" else None
    made = []
    for index in range(count):
        values = alpha if alpha is not None and index == count - 1 else band(index)
        if output.categories:
            made.append(values[::2, ::2])
        elif values is alpha and known is not None:
            made.append(_halve_alpha(values[None], _any(known)))
        else:
            made.append(_halve_band(values, marker, known))
    seen = None if mask is None or known is None else np.where(_any(known), np.uint8(255), np.uint8(0))
    return np.stack(made), seen


def halve(
    values: NDArray[np.generic], missing: NDArray[np.generic] | None, known: NDArray[np.bool_] | None = None
) -> NDArray[np.generic]:
    """Average 2 x 2 pixels, leaving missing ones out; where all four are missing the result is missing.

    Parameters
    ----------
    values : ndarray, shape (C, H, W)
    missing : 0-d array or None
        The value that marks missing pixels (NaN too).
    known : ndarray of bool, shape (H, W), optional
        False where a mask says that there is no data.

    Returns
    -------
    ndarray, shape (C, ceil(H / 2), ceil(W / 2)), same dtype; integers rounded to nearest, 0 where nothing is known
    and no value marks that
    """
    return np.stack([_halve_band(band, missing, known) for band in values])  # one by one keeps float64 copies small


def _halve_band(
    band: NDArray[np.generic], missing: NDArray[np.generic] | None, known: NDArray[np.bool_] | None
) -> NDArray[np.generic]:
    if band.dtype.kind in "iu" and band.dtype.itemsize <= 2 and known is None and not _has(band, missing):
        return _halve_whole(band, missing)
    total = np.zeros([-(-side // 2) for side in band.shape], np.float64)
    count = np.zeros(total.shape, np.uint8)
    masks = [None] * 4 if known is None else _quarters(known)
    for part, mask in zip(_quarters(band), masks, strict=True):
        use = np.ones(part.shape, bool) if mask is None else mask.copy()
        if missing is not None:
            use &= ~np.isnan(part) if np.isnan(missing) else part != missing
        np.add(total, part, out=total, where=use)
        count += use
    np.divide(total, count, out=total, where=count > 0)
    if np.issubdtype(band.dtype, np.integer):
        np.rint(total, out=total)
    out = total.astype(band.dtype)
    if missing is not None:
        out[(count > 0) & (out == missing)] = beside(missing)
        out[count == 0] = missing
    return out


def _has(band: NDArray[np.generic], missing: NDArray[np.generic] | None) -> bool:
    return missing is not None and bool((band == missing).any())


def _halve_whole(band: NDArray[np.generic], missing: NDArray[np.generic] | None) -> NDArray[np.generic]:
    """Average 2 x 2 integers of at most 16 bits, of which none is missing: exact in 32 bits, ties to even."""
    one, two, three, four = _quarters(band)
    total = one.astype(np.int32)
    for part in (two, three, four):
        total += part
    total += 1 + ((total >> 2) & 1)
    total >>= 2
    out = total.astype(band.dtype)
    if missing is not None:
        out[out == missing] = beside(missing)
    return out


def _halve_alpha(alpha: NDArray[np.generic], seen: NDArray[np.bool_]) -> NDArray[np.generic]:
    """Average transparency; what can be seen at all (`seen`, of the result) never becomes wholly transparent."""
    nan = np.asarray(np.nan, alpha.dtype) if np.issubdtype(alpha.dtype, np.floating) else None
    out = halve(alpha, nan)[0]
    out[seen & (out == 0)] = 1
    return out


def _any(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where at least one of 2 x 2 pixels is known."""
    return np.logical_or.reduce(_quarters(known))


def _quarters(plane: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the four pixels of each 2 x 2, as planes of half the size; an odd last row or column counts twice."""
    odd = [(0, side % 2) for side in plane.shape]
    padded = np.pad(plane, odd, mode="edge") if any(map(any, odd)) else plane
    return [padded[row::2, col::2] for row in (0, 1) for col in (0, 1)]
