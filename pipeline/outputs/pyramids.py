"""The coarser levels of a Zarr store, for viewing a scene at a low zoom."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.ordered import in_order
from scenelift.pipeline.outputs.geozarr import array_attributes, group_attributes, level_attributes, write_coordinates
from scenelift.pipeline.outputs.halving import coarsen
from scenelift.pipeline.outputs.outputs import CHUNK, Output
from scenelift.pipeline.outputs.readback import ReadableScene, open_as_scene
from scenelift.pipeline.outputs.sinks import DATA, Blocks, Level, ZarrSink, level_factors, make_level
from scenelift.pipeline.tiles import TileGrid, Window


class GeoZarr:
    """The format of `*.zarr`, the store itself with coarser levels: see `scenelift.pipeline.outputs.formats.Format`."""

    name = "zarr"
    title = "zarr"
    suffixes = (".zarr",)
    blocks = Blocks.FINAL

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


class Pyramid:
    """The coarser levels of a store, each half the size of the one before, in groups named by their factor."""

    STEP = 1 << 27
    """Bytes of a level made at once, all bands together, unless one chunk of each is more."""

    def __init__(self, sink: ZarrSink, output: Output, *, shards: bool) -> None:
        self._sink = sink
        self._output = output
        self._shards = shards

    def step(self, grid: GeoGrid) -> tuple[int, int]:
        """Return height and width of what is made at once (and of a shard): less where there are many bands."""
        item = len(self._output.bands) * np.dtype(self._output.dtype).itemsize
        side = 2048
        while side > CHUNK and side * side * item > self.STEP:
            side //= 2
        height, width = (min(side, -(-length // CHUNK) * CHUNK) for length in grid.shape)
        return height, width

    def build(self) -> Iterator[int]:
        """Write those levels that blocks did not, one after the other, and describe all; yield each factor.

        Memory holds few steps at a time.
        """
        item = len(self._output.bands) * np.dtype(self._output.dtype).itemsize
        threads = max(1, min(self._sink.threads, 2 * self.STEP // (math.prod(self.step(self._output.grid)) * item)))
        finer, factors = self._sink.whole, level_factors(self._output.grid.shape)
        for factor in factors:
            grid = self._output.grid.coarsened(factor)
            group = self._sink.group.require_group(str(factor))
            coarse = self._sink.coarser.get(factor)
            if coarse is None:
                step = self.step(grid)
                coarse = make_level(group, grid.shape, (CHUNK, CHUNK), step if self._shards else None, self._output)
                # a step is whole chunks, and a shard where there are some: no two threads write to one file
                make = functools.partial(halve_window, self._output, finer, coarse)
                for _ in in_order(make, TileGrid(grid.shape, step), threads):
                    pass
            group.attrs.update(level_attributes(grid))
            group[DATA].attrs.update(array_attributes(self._output))
            write_coordinates(group, grid, self._output.bands)
            finer = coarse
            yield factor
        self._sink.group.attrs.update(group_attributes(self._output, factors))


def copy_window(one: Level, other: Level, window: Window) -> None:
    """Make one window of a level from another of the same resolution."""
    at = window.slices()
    mask = None if one.mask is None else np.asarray(one.mask[at])
    other.put(window, np.asarray(one.data[(slice(None), *at)]), mask)


def halve_window(output: Output, finer: Level, coarse: Level, window: Window) -> None:
    """Make one window of a level from the next finer one; where a chunk is of one band, one band at a time."""
    fine = window.scaled(2).clip(finer.shape).slices()
    mask = None if finer.mask is None else np.asarray(finer.mask[fine])

    def band(index: int) -> NDArray[np.generic]:
        return np.asarray(finer.data[(slice(index, index + 1), *fine)])[0]

    together = finer.data.chunks[0] > 1
    values = np.asarray(finer.data[(slice(None), *fine)]) if together else np.empty(0)
    coarse.put(window, *coarsen(output, values.__getitem__ if together else band, mask))
