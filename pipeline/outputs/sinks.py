"""Zarr stores that blocks are written to, each by one task, in whole shards that no other task touches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from scenelift.pipeline.errors import SinkError, UsageError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.files import sync
from scenelift.pipeline.outputs.geozarr import array_attributes, group_attributes, write_coordinates
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.scenes.zarrs import MASK
from scenelift.pipeline.tiles import Window

DATA = "data"


class ZarrSink:
    """A Zarr v3 group: ``data`` (band, y, x), optionally ``mask`` (y, x), coordinates, and a pyramid.

    Chunks are compressed and carry a checksum, so a flipped bit is an error and never a pixel. With `shards`, the
    chunks of one block lie in one file.
    """

    def __init__(self, path: Path, group: zarr.Group, block: tuple[int, int], threads: int = 1) -> None:
        self.path = path
        self.threads = threads
        """So many threads of this process may make an output of it; the bytes do not depend on them."""
        self.group = group
        self.block = block
        self.data: zarr.Array[Any] = array_of(group, DATA)
        self.mask: zarr.Array[Any] | None = array_of(group, MASK) if MASK in group else None

    @classmethod
    def create(cls, path: Path, output: Output, *, shards: bool = True, kept: bool = True) -> ZarrSink:
        """Make an empty store: every pixel missing.

        Parameters
        ----------
        path : Path
        output : Output
        shards : bool
        kept : bool
            Whether it becomes the output; else an output of another format is made of it, and it is compressed by LZ4,
            which takes two thirds of Zstandard's time.

        Raises
        ------
        SinkError
            If the folder cannot be written.
        """
        try:
            group = zarr.open_group(str(path), mode="w-", zarr_format=3, attributes=group_attributes(output))
            make_level(group, output.shape, output.chunk, output.block if shards else None, output, kept=kept)
            group[DATA].attrs.update(array_attributes(output))
            write_coordinates(group, output.grid, output.bands)
        except OSError as error:
            raise SinkError.of(path, error) from error
        return cls(path, group, output.block)

    @classmethod
    def open(cls, path: Path, block: tuple[int, int], threads: int = 1) -> ZarrSink:
        """Open a store made by :meth:`create`, for writing blocks, or for making an output of it in threads."""
        return cls(path, zarr.open_group(str(path), mode="r+", use_consolidated=False), block, threads)

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
            put(self.data, (slice(None), rows, cols), values)
            if self.mask is not None:
                if mask is None:
                    raise UsageError("this store keeps a mask, but the block came without one")
                put(self.mask, (rows, cols), mask)
            commit_point("block-written")
            for name in self.files(window) if durable else ():  # zarr's local store leaves that to the kernel
                sync(self.path / name)
            commit_point("block-synced")
        except OSError as error:
            raise SinkError.of(self.path, error) from error

    def tidy(self) -> None:
        """Delete what workers left that were killed while they wrote: files that zarr would have renamed."""
        for half in self.path.rglob("*.partial"):
            half.unlink(missing_ok=True)

    def read(self, window: Window) -> NDArray[np.generic]:
        """Read values back, (C, height, width)."""
        rows, cols = window.slices()
        return np.asarray(self.data[:, rows, cols])

    def read_mask(self, window: Window) -> NDArray[np.uint8]:
        """Read the mask back: 255 valid, 0 missing; (height, width)."""
        if self.mask is None:
            raise UsageError(f"{self.path} has no mask; ask its output whether there is one")
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


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group by name.

    Raises
    ------
    SinkError
        If there is none.
    """
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise SinkError(f"{group.store_path} holds no array named {name}")
    return array


def put(array: zarr.Array[Any], at: tuple[slice, ...], values: NDArray[np.generic]) -> None:
    """Write whole chunks, beginning with the first value of one; those of nothing but fill value leave no file.

    Zarr compares each value with the fill value, which takes longer than to compress it. A chunk that begins with
    another value needs no comparison.
    """
    first, fill = values[..., :: array.chunks[-2], :: array.chunks[-1]], array.fill_value
    if not np.any(np.isnan(first) if fill != fill else first == fill) and hasattr(array, "with_config"):  # zarr 3.1.6
        array = array.with_config({"write_empty_chunks": True})
    array[at] = values


def make_level(
    group: zarr.Group,
    shape: tuple[int, int, int],
    chunk: tuple[int, int],
    block: tuple[int, int] | None,
    output: Output,
    *,
    kept: bool = True,
) -> None:
    """Make the empty arrays of one level of the pyramid; ``block`` is the size of its shards, None for none."""
    serializer = BytesCodec(endian="little" if np.dtype(output.dtype).itemsize > 1 else None)
    group.create_array(
        DATA,
        shape=shape,
        chunks=(1, *chunk),
        shards=(shape[0], *block) if block else None,
        dtype=output.dtype,
        fill_value=np.asarray(output.missing).astype(output.dtype).item(),
        compressors=_codecs(output, np.dtype(output.dtype).itemsize, kept),
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
            compressors=_codecs(output, 1, kept),
            dimension_names=("y", "x"),
        )


def _codecs(output: Output, size: int, kept: bool) -> list[Any]:
    """Return how chunks of values of so many bytes are compressed; each way finds a flipped bit."""
    if not kept:
        return [BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=size), Crc32cCodec()]
    if output.compress == "deflate":
        return [GzipCodec(level=5)]  # has a checksum of its own
    return [ZstdCodec(level=1, checksum=True)]


def provenance_text(output: Output) -> str:
    """Return the provenance as JSON with sorted keys: the same text for the same job."""
    return json.dumps(output.provenance, sort_keys=True)
