"""Laying a Cloud-Optimized GeoTIFF: the header that GDAL wrote for an empty one, then the tiles, coarsest first."""

from __future__ import annotations

import functools
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.outputs.sinks import Level
from scenelift.pipeline.outputs.tiffs.directories import Directory, directories
from scenelift.pipeline.outputs.tiffs.tiles import TiffTile, checked

CLAIMS = b"LAYOUT=IFDS_BEFORE_DATA", b"BLOCK_ORDER=ROW_MAJOR", b"SIZE_AS_UINT4", b"LAST_4_BYTES_REPEATED"
"""What GDAL's header says of how tiles are laid (its COG driver's "ghost area")."""
BEGINNING = 600
"""Bytes in which it says so."""
INTERLEAVED = b"MASK_INTERLEAVED_WITH_IMAGERY=YES"
ABSENT = 2**64 - 1
"""Of a shard's chunk that is all fill value (Zarr 3, codec "sharding_indexed")."""


class _Laid(NamedTuple):
    start: int
    size: int
    checksum: int


def lay(template: bytes, store: Path, levels: Sequence[Level], path: Path) -> None:
    """Write a file of a header and tiles, and read its bytes back.

    Parameters
    ----------
    template : bytes
        A Cloud-Optimized GeoTIFF without any tile, of the same sizes.
    store : Path
        Folder with the levels' arrays.
    levels : sequence of Level
        Of tiles (`TiffTile`), finest first.
    path : Path
        Replaced if it exists.

    Raises
    ------
    SinkError
        If a tile is damaged, or the file does not read back as it was written.
    """
    images = list(directories(template))
    header = _header(template, images)
    laid: list[_Laid] = []
    with path.open("wb") as file:
        file.write(header)
        for level in reversed(levels):
            of_level = [each for each in images if each.shape == level.shape]
            arrays = level.arrays()
            planes = [next(each for each in of_level if each.mask == (array.ndim == 2)) for array in arrays]
            places: list[list[_Laid]] = [[] for _ in planes]
            for row in zip(*(_tiles(store, level, array) for array in arrays), strict=True):
                for tile, place in zip(row, places, strict=True):  # a tile, then its part of the mask
                    start = file.tell() + 4
                    file.write(len(tile).to_bytes(4, "little") + tile + tile[-4:])
                    place.append(_Laid(start, len(tile), zlib.crc32(tile)))
            commit_point("level-laid")
            for plane, place in zip(planes, places, strict=True):
                _record(header, plane, place)
                laid += place
        file.seek(0)
        file.write(header)
    _read_back(path, header, laid)


def _header(template: bytes, images: list[Directory]) -> bytearray:
    """Return what lies before the first tile: GDAL writes some, as of masks at the edge, that are all missing."""
    begun = template[:BEGINNING]
    if not all(claim in begun for claim in CLAIMS) or (any(i.mask for i in images) and INTERLEAVED not in begun):
        raise SinkError("this version of GDAL lays Cloud-Optimized GeoTIFFs in another way; see the supported ones")
    starts = [start for image in images for start in image.offsets.read(template) if start]
    return bytearray(template[: min(starts) - 4] if starts else template)


def _record(header: bytearray, plane: Directory, place: list[_Laid]) -> None:
    try:
        plane.offsets.write(header, [each.start for each in place])
        plane.counts.write(header, [each.size for each in place])
    except struct.error as error:
        raise SinkError(f"tiles do not fit into the header that GDAL made for them: {error}") from error


def _read_back(path: Path, header: bytes | bytearray, laid: list[_Laid]) -> None:
    with path.open("rb") as file:
        right = file.read(len(header)) == header
        for each in laid:
            file.seek(each.start - 4)
            right = right and int.from_bytes(file.read(4), "little") == each.size
            right = right and zlib.crc32(file.read(each.size)) == each.checksum
    if not right:
        raise SinkError(f"{path.name} reads back wrong: give the same command again")


def _tiles(store: Path, level: Level, array: zarr.Array[Any]) -> Iterator[bytes]:
    """Yield the tiles of an array row by row."""
    rows, cols = (length // side for length, side in zip(array.shape[-2:], array.chunks[-2:], strict=True))
    chunk = functools.lru_cache(maxsize=None)(functools.partial(_index, store, array))
    for row in range(rows):
        for col in range(cols):
            found = _chunk(store, array, row, col, chunk)
            yield checked(found) if found is not None else _empty(level, array, row, col)
        if array.shards and (row + 1) % (array.shards[-2] // array.chunks[-2]) == 0:
            chunk.cache_clear()


def _chunk(store: Path, array: zarr.Array[Any], row: int, col: int, index: Any) -> bytes | None:
    """Return the bytes of a chunk; None where all of it is fill value."""
    if array.shards is None:
        try:
            return _file(store, array, row, col).read_bytes()
        except FileNotFoundError:
            return None
    high, wide = (shard // chunk for shard, chunk in zip(array.shards[-2:], array.chunks[-2:], strict=True))
    path, places = index(row // high, col // wide)
    start, count = (int(number) for number in places[row % high, col % wide])
    if start == ABSENT:
        return None
    with path.open("rb") as file:
        file.seek(start)
        return bytes(file.read(count))


def _index(store: Path, array: zarr.Array[Any], row: int, col: int) -> tuple[Path, Any]:
    """Return a shard's file, and where its chunks lie: (rows, columns, 2), first byte and number of bytes."""
    shape = tuple(shard // chunk for shard, chunk in zip(array.shards or (), array.chunks, strict=True))[-2:]
    path, size = _file(store, array, row, col), 16 * math.prod(shape) + 4  # the last four are a checksum
    try:
        with path.open("rb") as file:
            file.seek(-size, os.SEEK_END)
            return path, np.frombuffer(file.read(size - 4), "<u8").reshape(*shape, 2)
    except FileNotFoundError:
        return path, np.full((*shape, 2), ABSENT, np.uint64)


def _file(store: Path, array: zarr.Array[Any], row: int, col: int) -> Path:
    return store.joinpath(array.path, "c", *(["0"] if array.ndim == 3 else []), str(row), str(col))


def _empty(level: Level, array: zarr.Array[Any], row: int, col: int) -> bytes:
    """Return the tile of a chunk in which every pixel of the image is fill value."""
    side = array.chunks[-1]
    inside = tuple(min(side, length - side * at) for length, at in zip(level.shape, (row, col), strict=True))
    fill = np.asarray(array.fill_value).astype(array.dtype)
    assert level.tiles is not None
    return _made_empty(level.tiles, (*array.chunks[:-2], *inside), side, str(array.dtype), fill.tobytes())


@functools.lru_cache(maxsize=8)
def _made_empty(codec: TiffTile, shape: tuple[int, ...], side: int, dtype: str, fill: bytes) -> bytes:
    pixels = np.full(shape, np.frombuffer(fill, dtype)[0])
    return checked(codec.pack(codec.filled_up(pixels, side)))
