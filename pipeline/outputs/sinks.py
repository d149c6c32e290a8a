"""Zarr stores that blocks are written to, each by one task, in whole shards that no other task touches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from scenelift.pipeline.errors import SinkError, UsageError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.files import sync
from scenelift.pipeline.outputs.compression import cog_compression
from scenelift.pipeline.outputs.geozarr import array_attributes, group_attributes, write_coordinates
from scenelift.pipeline.outputs.halving import coarsen
from scenelift.pipeline.outputs.outputs import CHUNK, Output
from scenelift.pipeline.outputs.tiffs.tiles import BY_BLOCKS, TiffTile, overview_count, tile_side
from scenelift.pipeline.scenes.zarrs import MASK
from scenelift.pipeline.tiles import Window

DATA = "data"


class Blocks(Enum):
    """How a store keeps its blocks."""

    FINAL = "final"
    """As the output will: the store becomes it."""
    TILES = "tiles"
    """As tiles of a Cloud-Optimized GeoTIFF, with those of the coarser levels that lie in one block each; where blocks
    are not made of whole tiles, or tiles need GDAL, as `SCRATCH`."""
    SCRATCH = "scratch"
    """Compressed by LZ4, which takes two thirds of Zstandard's time: an output of another format is made of them."""


@dataclass(frozen=True)
class Level:
    """One resolution of a store: its values (band, y, x) and, where there is one, its mask (y, x)."""

    data: zarr.Array[Any]
    mask: zarr.Array[Any] | None
    shape: tuple[int, int]
    """Height and width; arrays of tiles are larger, as their last tiles are whole."""

    @property
    def tiles(self) -> TiffTile | None:
        """How tiles are made, if its chunks are tiles."""
        return self.data.serializer if isinstance(self.data.serializer, TiffTile) else None

    def arrays(self) -> list[zarr.Array[Any]]:
        """Return both."""
        return [self.data, *([] if self.mask is None else [self.mask])]

    def put(self, window: Window, values: NDArray[np.generic], mask: NDArray[np.uint8] | None) -> None:
        """Write whole chunks of both."""
        for array, part in ((self.data, values), (self.mask, mask)):
            if array is not None and part is not None:
                whole = part if self.tiles is None else self.tiles.filled_up(part, array.chunks[-1])
                at = slice(window.row, window.row + whole.shape[-2]), slice(window.col, window.col + whole.shape[-1])
                put(array, (*[slice(None)] * (part.ndim - 2), *at), whole)


class ZarrSink:
    """A Zarr v3 group: ``data`` (band, y, x), optionally ``mask`` (y, x), coordinates, and coarser levels.

    Chunks are compressed and carry a checksum, so a flipped bit is an error and never a pixel. With `shards`, the
    chunks of one block lie in one file.
    """

    def __init__(self, path: Path, group: zarr.Group, output: Output, threads: int = 1) -> None:
        self.path = path
        self.threads = threads
        """So many threads of this process may make an output of it; the bytes do not depend on them."""
        self.group = group
        self.output = output
        self.whole = level_of(group, output.grid.shape)
        self.coarser = {
            factor: level_of(group[str(factor)], output.grid.coarsened(factor).shape)
            for factor in _own_factors(output, self.whole.tiles is not None)
            if str(factor) in group
        }
        """Levels that are written with the blocks, by their factor."""

    @property
    def data(self) -> zarr.Array[Any]:
        """The values, (band, y, x)."""
        return self.whole.data

    @classmethod
    def create(cls, path: Path, output: Output, *, shards: bool = True, blocks: Blocks = Blocks.FINAL) -> ZarrSink:
        """Make an empty store: every pixel missing.

        Raises
        ------
        SinkError
            If the folder cannot be written.
        """
        whole = not any(length % tile_side(output.grid.shape) for length in output.block)
        if blocks is Blocks.TILES and not (whole and cog_compression(output) in BY_BLOCKS):
            blocks = Blocks.SCRATCH
        try:
            group = zarr.open_group(str(path), mode="w-", zarr_format=3, attributes=group_attributes(output))
            own = [] if blocks is Blocks.SCRATCH else _own_factors(output, blocks is Blocks.TILES)
            for factor in (1, *own):
                block = output.block[0] // factor, output.block[1] // factor
                level = group if factor == 1 else group.create_group(str(factor))
                side = tile_side(output.grid.shape) if blocks is Blocks.TILES else CHUNK
                chunk = (side, side) if factor > 1 or blocks is Blocks.TILES else output.chunk
                make_level(level, output.grid.coarsened(factor).shape, chunk, block if shards else None, output, blocks)
            if blocks is not Blocks.TILES:
                group[DATA].attrs.update(array_attributes(output))
                write_coordinates(group, output.grid, output.bands)
        except OSError as error:
            raise SinkError.of(path, error) from error
        return cls(path, group, output)

    @classmethod
    def open(cls, path: Path, output: Output, threads: int = 1) -> ZarrSink:
        """Open a store made by :meth:`create`, for writing blocks, or for making an output of it in threads."""
        return cls(path, zarr.open_group(str(path), mode="r+", use_consolidated=False), output, threads)

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
        if self.whole.mask is not None and mask is None:
            raise UsageError("this store keeps a mask, but the block came without one")
        try:
            self.whole.put(window, values, mask)
            for factor, level in self.coarser.items():
                values, mask = coarsen(self.output, values.__getitem__, mask)
                level.put(window.coarsened(factor), values, mask)
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
        if self.whole.mask is None:
            raise UsageError(f"{self.path} has no mask; ask its output whether there is one")
        return np.asarray(self.whole.mask[window.slices()])

    def _check(self, window: Window) -> None:
        height, width = self.output.grid.shape
        for start, stop, side, length in (
            (window.row, window.stop_row, self.output.block[0], height),
            (window.col, window.stop_col, self.output.block[1], width),
        ):
            if start % side or (stop % side and stop != length) or stop > length:
                raise UsageError(
                    f"{window} is not made of whole {self.output.block} blocks of a {height} x {width} array"
                )

    def files(self, window: Window) -> list[str]:
        """Return the files that a block owns, relative to the store; those of nothing but fill value do not exist."""
        return [
            "/".join([array.path, "c", *map(str, (*plane, row, col))])
            for factor, level in {1: self.whole, **self.coarser}.items()
            for part in [window.coarsened(factor)]
            for array in level.arrays()
            for plane in _planes(array)
            for row in _touched(part.row, part.stop_row, (array.shards or array.chunks)[-2])
            for col in _touched(part.col, part.stop_col, (array.shards or array.chunks)[-1])
        ]


def level_factors(shape: tuple[int, int]) -> list[int]:
    """Return by how much the levels of a Zarr store are coarser: 2, 4, … until the larger side is at most a chunk."""
    factors: list[int] = []
    side = max(shape)
    while side > CHUNK:
        side = -(-side // 2)
        factors.append(2 ** (len(factors) + 1))
    return factors


def _own_factors(output: Output, tiles: bool) -> list[int]:
    """Return the factors of the coarser levels of which each block makes whole chunks."""
    shape = output.grid.shape
    side, factors = CHUNK, level_factors(shape)
    if tiles:
        side, factors = tile_side(shape), [2**level for level in range(1, overview_count(shape) + 1)]
    return [factor for factor in factors if not any(length % (side * factor) for length in output.block)]


def _planes(array: zarr.Array[Any]) -> list[tuple[int, ...]]:
    """Return the leading chunk indices of an array: none for (y, x), one a band or one for all for (band, y, x)."""
    if array.ndim == 2:
        return [()]
    return [(index,) for index in range(-(-array.shape[0] // (array.shards or array.chunks)[0]))]


def _touched(start: int, stop: int, side: int) -> range:
    return range(start // side, -(-stop // side))


def level_of(group: Any, shape: tuple[int, int]) -> Level:
    """Return the arrays of a group, of a level of that height and width."""
    return Level(array_of(group, DATA), array_of(group, MASK) if MASK in group else None, shape)


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
    shape: tuple[int, int],
    chunk: tuple[int, int],
    block: tuple[int, int] | None,
    output: Output,
    blocks: Blocks = Blocks.FINAL,
) -> Level:
    """Make the empty arrays of one level; ``block`` is the size of its shards, None for none."""
    level, bands = shape, len(output.bands)
    tiles = TiffTile(cog_compression(output), output.bands[-1].color == "alpha")
    plain = BytesCodec(endian="little" if np.dtype(output.dtype).itemsize > 1 else None)
    together = blocks is Blocks.TILES  # all bands of a tile
    if together:
        shape = -(-shape[0] // chunk[0]) * chunk[0], -(-shape[1] // chunk[1]) * chunk[1]
    group.create_array(
        DATA,
        shape=(bands, *shape),
        chunks=(bands if together else 1, *chunk),
        shards=(bands, *block) if block else None,
        dtype=output.dtype,
        fill_value=np.asarray(output.missing).astype(output.dtype).item(),
        compressors=_codecs(output, np.dtype(output.dtype).itemsize, blocks),
        serializer=tiles if together else plain,
        dimension_names=("band", "y", "x"),
    )
    if output.mask:
        group.create_array(
            MASK,
            shape=shape,
            chunks=chunk,
            shards=block or None,
            dtype="uint8",
            fill_value=0,
            compressors=_codecs(output, 1, blocks),
            serializer=tiles if together else "auto",
            dimension_names=("y", "x"),
        )
    return level_of(group, level)


def _codecs(output: Output, size: int, blocks: Blocks) -> list[Any]:
    """Return how chunks of values of so many bytes are compressed; each way finds a flipped bit."""
    if blocks is Blocks.TILES:
        return []
    if blocks is Blocks.SCRATCH:
        return [BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=size), Crc32cCodec()]
    if output.compress == "deflate":
        return [GzipCodec(level=5)]  # has a checksum of its own
    return [ZstdCodec(level=1, checksum=True)]


def provenance_text(output: Output) -> str:
    """Return the provenance as JSON with sorted keys: the same text for the same job."""
    return json.dumps(output.provenance, sort_keys=True)
