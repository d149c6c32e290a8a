"""The coarser levels of a Zarr store, for whoever looks at a scene from afar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.geozarr import array_attributes, group_attributes, level_attributes, write_coordinates
from scenelift.pipeline.outputs import Output
from scenelift.pipeline.scenes import beside
from scenelift.pipeline.sinks import DATA, ZarrSink, array_of, make_level
from scenelift.pipeline.tiles import TileGrid


class Pyramid:
    """The coarser levels of a store, each half the size of the one before, in groups named by their factor."""

    SMALLEST = 512

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

    def build(self) -> Iterator[int]:
        """Write the levels one after the other, yielding each factor; memory holds one block at a time."""
        finer: Any = self._sink.data
        for factor in self.factors:
            grid = self._output.grid.coarsened(factor)
            shape = len(self._output.bands), *grid.shape
            group = self._sink.group.create_group(str(factor), attributes=level_attributes(grid))
            block = min(2048, -(-grid.height // 512) * 512), min(2048, -(-grid.width // 512) * 512)
            make_level(group, shape, (512, 512), block if self._shards else None, self._output)
            group[DATA].attrs.update(array_attributes(self._output))
            write_coordinates(group, grid)
            coarse = array_of(group, DATA)
            missing = np.asarray(self._output.missing).astype(self._output.dtype)
            has_missing = self._output.nodata is not None or self._output.dtype == "float32" or self._output.mask
            for window in TileGrid(grid.shape, block):
                rows, cols = window.scaled(2).clip(finer.shape[1:]).slices()
                values = np.asarray(finer[:, rows, cols])
                coarse[(slice(None), *window.slices())] = (
                    values[:, ::2, ::2] if self._output.categories else halve(values, missing if has_missing else None)
                )
            finer = coarse
            yield factor
        self._sink.group.attrs.update(group_attributes(self._output, self.factors))


def halve(values: NDArray[np.generic], missing: NDArray[np.generic] | None) -> NDArray[np.generic]:
    """Average 2 x 2 pixels, leaving missing ones out; where all four are missing the result is missing.

    Parameters
    ----------
    values : ndarray, shape (C, H, W)
    missing : 0-d array or None
        The value that marks missing pixels (NaN too).

    Returns
    -------
    ndarray, shape (C, ceil(H / 2), ceil(W / 2)), same dtype; integers rounded to nearest
    """
    return np.stack([_halve_band(band, missing) for band in values])  # one band at a time keeps float64 copies small


def _halve_band(band: NDArray[np.generic], missing: NDArray[np.generic] | None) -> NDArray[np.generic]:
    padded = np.pad(band, [(0, side % 2) for side in band.shape], mode="edge")
    total = np.zeros([side // 2 for side in padded.shape], np.float64)
    count = np.zeros(total.shape, np.uint8)
    for row in (0, 1):
        for col in (0, 1):
            part = padded[row::2, col::2]
            known = np.ones(part.shape, bool)
            if missing is not None:
                known = ~np.isnan(part) if np.isnan(missing) else part != missing
            total += np.where(known, part, 0)
            count += known
    mean = total / np.maximum(count, 1)
    if np.issubdtype(band.dtype, np.integer):
        mean = np.rint(mean)
    out = mean.astype(band.dtype)
    if missing is not None:
        out[(count > 0) & (out == missing)] = beside(missing)
        out[count == 0] = missing
    return out
