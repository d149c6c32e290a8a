"""Zarr stores that blocks are written to, each by one task, in whole shards that nobody else touches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ZstdCodec

from scenelift.pipeline.checksums import sync
from scenelift.pipeline.errors import SinkError, UsageError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.geozarr import array_attributes, group_attributes, level_attributes, write_coordinates
from scenelift.pipeline.outputs import Output
from scenelift.pipeline.scenes import beside
from scenelift.pipeline.tiles import TileGrid, Window
from scenelift.pipeline.zarrs import MASK

DATA = "data"


class ZarrSink:
    """A Zarr v3 group: ``data`` (band, y, x), optionally ``mask`` (y, x), coordinates, and a pyramid.

    Chunks are compressed with Zstandard and carry a checksum, so a flipped bit is an error and never a pixel. With
    `shards`, the chunks of one block lie in one file.
    """

    def __init__(self, path: Path, group: zarr.Group, block: tuple[int, int]) -> None:
        self.path = path
        self._group = group
        self.block = block
        self.data: zarr.Array[Any] = _array(group, DATA)
        self.mask: zarr.Array[Any] | None = _array(group, MASK) if MASK in group else None

    @classmethod
    def create(cls, path: Path, output: Output, *, shards: bool = True) -> ZarrSink:
        """Make an empty store: every pixel missing.

        Raises
        ------
        SinkError
            If the folder cannot be written.
        """
        try:
            group = zarr.open_group(str(path), mode="w-", zarr_format=3, attributes=group_attributes(output))
            _make_level(group, output.shape, output.chunk, output.block if shards else None, output)
            group[DATA].attrs.update(array_attributes(output))
            write_coordinates(group, output.grid)
        except OSError as error:
            raise SinkError.of(path, error) from error
        return cls(path, group, output.block)

    @classmethod
    def open(cls, path: Path, block: tuple[int, int]) -> ZarrSink:
        """Open a store made by :meth:`create`, for writing blocks."""
        return cls(path, zarr.open_group(str(path), mode="r+"), block)

    def write(
        self, window: Window, values: NDArray[np.generic], mask: NDArray[np.uint8] | None, durable: bool = True
    ) -> None:
        """Write one block and (if `durable`) push it to the disk.

        Raises
        ------
        UsageError
            If the window does not own whole chunks: two such writers would lose each other's pixels.
        SinkError
            If the disk refuses (full, read-only, gone).
        """
        self._check(window)
        rows, cols = window.slices()
        try:
            self.data[:, rows, cols] = values
            if self.mask is not None:
                if mask is None:
                    raise UsageError("this store keeps a mask, but the block came without one")
                self.mask[rows, cols] = mask
            commit_point("block-written")
            for name in self.files(window) if durable else ():  # zarr's local store leaves that to the kernel
                sync(self.path / name)
            commit_point("block-synced")
        except OSError as error:
            raise SinkError.of(self.path, error) from error

    def read(self, window: Window) -> NDArray[np.generic]:
        """Read values back, (C, height, width)."""
        rows, cols = window.slices()
        return np.asarray(self.data[:, rows, cols])

    def read_mask(self, window: Window) -> NDArray[np.uint8]:
        """Read the mask back: 255 valid, 0 missing; (height, width)."""
        if self.mask is None:
            raise UsageError(f"{self.path} keeps no mask")
        return np.asarray(self.mask[window.slices()])

    def _check(self, window: Window) -> None:
        height, width = self.data.shape[1:]
        for start, stop, side, length in (
            (window.row, window.stop_row, self.block[0], height),
            (window.col, window.stop_col, self.block[1], width),
        ):
            if start % side or (stop % side and stop != length) or stop > length:
                raise UsageError(f"{window} is not made of whole {self.block} blocks of a {height} x {width} array")

    def files(self, window: Window) -> list[str]:
        """Return the files that a block owns, relative to the store; those of nothing but fill value do not exist."""
        return [
            "/".join([name, "c", *map(str, (*plane, row, col))])
            for name, array in ((DATA, self.data), (MASK, self.mask))
            if array is not None
            for plane in _planes(array)
            for row in _touched(window.row, window.stop_row, (array.shards or array.chunks)[-2])
            for col in _touched(window.col, window.stop_col, (array.shards or array.chunks)[-1])
        ]


def _planes(array: zarr.Array[Any]) -> list[tuple[int, ...]]:
    """Return the leading chunk indices of an array: none for (y, x), one a band or one for all for (band, y, x)."""
    if array.ndim == 2:
        return [()]
    return [(index,) for index in range(-(-array.shape[0] // (array.shards or array.chunks)[0]))]


def _touched(start: int, stop: int, side: int) -> range:
    return range(start // side, -(-stop // side))


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise SinkError(f"{group.store_path} holds no array named {name}")
    return array


def _make_level(
    group: zarr.Group,
    shape: tuple[int, int, int],
    chunk: tuple[int, int],
    block: tuple[int, int] | None,
    output: Output,
) -> None:
    codec = ZstdCodec(level=1, checksum=True)
    serializer = BytesCodec(endian="little" if np.dtype(output.dtype).itemsize > 1 else None)
    group.create_array(
        DATA,
        shape=shape,
        chunks=(1, *chunk),
        shards=(shape[0], *block) if block else None,
        dtype=output.dtype,
        fill_value=np.asarray(output.missing).astype(output.dtype).item(),
        compressors=[codec],
        serializer=serializer,
        dimension_names=("band", "y", "x"),
    )
    if output.mask:
        group.create_array(
            MASK,
            shape=shape[1:],
            chunks=chunk,
            shards=block or None,
            dtype="uint8",
            fill_value=0,
            compressors=[codec],
            dimension_names=("y", "x"),
        )


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
            group = self._sink._group.create_group(str(factor), attributes=level_attributes(grid))
            block = min(2048, -(-grid.height // 512) * 512), min(2048, -(-grid.width // 512) * 512)
            _make_level(group, shape, (512, 512), block if self._shards else None, self._output)
            group[DATA].attrs.update(array_attributes(self._output))
            write_coordinates(group, grid)
            coarse = _array(group, DATA)
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
        self._sink._group.attrs.update(group_attributes(self._output, self.factors))


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


def provenance_text(output: Output) -> str:
    """Return the provenance as JSON with sorted keys: the same text for the same job."""
    return json.dumps(output.provenance, sort_keys=True)
