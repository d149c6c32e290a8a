"""Laying a Cloud-Optimized GeoTIFF: the header that GDAL wrote for an empty one, then the tiles, coarsest first."""

from __future__ import annotations

import errno
import functools
import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import deflate
import numpy as np
import zarr

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.ordered import in_order
from scenelift.pipeline.outputs.sinks import Level
from scenelift.pipeline.outputs.tiffs.directories import Directory, directories
from scenelift.pipeline.outputs.tiffs.tiles import TiffTile, check, checked

CLAIMS = b"LAYOUT=IFDS_BEFORE_DATA", b"BLOCK_ORDER=ROW_MAJOR", b"SIZE_AS_UINT4", b"LAST_4_BYTES_REPEATED"
"""What GDAL's header says of how tiles are laid (its COG driver's "ghost area")."""
BEGINNING = 600
"""Bytes in which it says so."""
INTERLEAVED = b"MASK_INTERLEAVED_WITH_IMAGERY=YES"
BEFORE, AFTER = 4, 4
"""Bytes of a tile's size before it, and of its end said again after it (GDAL's claims above)."""
CHECKSUM = 4
"""Bytes after a tile of a store, see `TiffTile.pack`."""
RUN = 1 << 23
"""Bytes moved at once."""
ABSENT = 2**64 - 1
"""Of a shard's chunk that is all fill value (Zarr 3, codec "sharding_indexed")."""


class _Tile(NamedTuple):
    """Where the bytes of a tile lie."""

    path: Path | None
    """File of the store; None for a tile without data."""
    start: int
    """First byte there."""
    size: int
    """Bytes; in the store four more follow, their checksum."""
    content: bytes
    """Of a tile without data."""


class _Run(NamedTuple):
    """Tiles that lie one after the other in the file."""

    at: int
    """First byte there, of the size before the first tile."""
    tiles: tuple[_Tile, ...]

    @property
    def length(self) -> int:
        """Bytes there."""
        return sum(BEFORE + tile.size + AFTER for tile in self.tiles)


def lay(template: bytes, store: Path, levels: Sequence[Level], path: Path, threads: int = 1) -> None:
    """Write a file of a header and tiles, and read its bytes back.

    How long each tile is, is known before one is moved: so the header is right from the start, and threads move runs
    of tiles to their places. They hold a run each, whatever the size of the file.

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
    threads : int
        At most so many move tiles at once; the bytes do not depend on it.

    Raises
    ------
    SinkError
        If a tile is damaged, or the file does not read back as it was written.
    """
    images = list(directories(template))
    header = _header(template, images)
    tiles: list[_Tile] = []
    end = len(header)
    for level in reversed(levels):
        of_level = [each for each in images if each.shape == level.shape]
        arrays = level.arrays()
        planes = [next(each for each in of_level if each.mask == (array.ndim == 2)) for array in arrays]
        places: list[list[tuple[int, int]]] = [[] for _ in planes]
        for both in zip(*(_tiles(store, level, array) for array in arrays), strict=True):
            for tile, place in zip(both, places, strict=True):  # a tile, then its part of the mask
                place.append((end + BEFORE, tile.size))
                tiles.append(tile)
                end += BEFORE + tile.size + AFTER
        for plane, place in zip(planes, places, strict=True):
            _record(header, plane, place)
    with path.open("wb+") as file:
        file.truncate(end)
        file.write(header)
        file.flush()
        runs, sums = list(_runs(len(header), tiles)), []
        for checksum in in_order(functools.partial(_move, file.fileno()), runs, threads):
            sums.append(checksum)
            commit_point("tiles-laid")
        if not _reads_back(file.fileno(), header, runs, sums, threads):
            raise SinkError(f"{path.name} reads back wrong: give the same command again")


def _runs(at: int, tiles: Sequence[_Tile]) -> Iterator[_Run]:
    """Yield runs of tiles of about ``RUN`` bytes each."""
    first, length = 0, 0
    for number, tile in enumerate(tiles, start=1):
        length += BEFORE + tile.size + AFTER
        if length >= RUN or number == len(tiles):
            yield _Run(at, tuple(tiles[first:number]))
            first, at, length = number, at + length, 0


def _move(file: int, run: _Run) -> int:
    """Write a run of tiles to its place; return the checksum of its bytes."""
    laid = memoryview(bytearray(run.length))
    at = 0
    for tile in run.tiles:
        first, last = at + BEFORE, at + BEFORE + tile.size
        laid[at:first] = tile.size.to_bytes(BEFORE, "little")
        if tile.path is None:
            laid[first:last] = tile.content
        else:  # its checksum comes to lie where its end is said again
            _fill(laid[first : last + CHECKSUM], tile.path, tile.start)
            check(laid[first:last], laid[last : last + CHECKSUM])
        at = last + AFTER
        laid[last:at] = laid[last - AFTER : last]
    if os.pwrite(file, laid, run.at) != len(laid):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return int(deflate.crc32(laid))


def _reads_back(file: int, header: bytes | bytearray, runs: Sequence[_Run], sums: Sequence[int], threads: int) -> bool:
    """Return whether header and runs of tiles are in the file as they were written."""

    def checksum(run: _Run) -> int:
        return int(deflate.crc32(os.pread(file, run.length, run.at)))

    return os.pread(file, len(header), 0) == header and list(in_order(checksum, runs, threads)) == sums


def _header(template: bytes, images: list[Directory]) -> bytearray:
    """Return what lies before the first tile: GDAL writes some, as of masks at the edge, that are all missing."""
    begun = template[:BEGINNING]
    if not all(claim in begun for claim in CLAIMS) or (any(i.mask for i in images) and INTERLEAVED not in begun):
        raise SinkError("this version of GDAL lays Cloud-Optimized GeoTIFFs in another way; see the supported ones")
    starts = [start for image in images for start in image.offsets.read(template) if start]
    return bytearray(template[: min(starts) - 4] if starts else template)


def _record(header: bytearray, plane: Directory, place: list[tuple[int, int]]) -> None:
    """Write down where the tiles of an image start, and how long they are."""
    try:
        plane.offsets.write(header, [start for start, _ in place])
        plane.counts.write(header, [size for _, size in place])
    except struct.error as error:
        raise SinkError(f"tiles do not fit into the header that GDAL made for them: {error}") from error


def _tiles(store: Path, level: Level, array: zarr.Array[Any]) -> Iterator[_Tile]:
    """Yield the tiles of an array row by row."""
    rows, cols = (length // side for length, side in zip(array.shape[-2:], array.chunks[-2:], strict=True))
    index = functools.lru_cache(maxsize=None)(functools.partial(_index, store, array))
    for row in range(rows):
        for col in range(cols):
            yield _chunk(store, array, row, col, index) or _empty(level, array, row, col)
        if array.shards and (row + 1) % (array.shards[-2] // array.chunks[-2]) == 0:
            index.cache_clear()


def _chunk(store: Path, array: zarr.Array[Any], row: int, col: int, index: Any) -> _Tile | None:
    """Return where a chunk lies; None where all of it is fill value."""
    if array.shards is None:
        path = _file(store, array, row, col)
        try:
            return _Tile(path, 0, path.stat().st_size - CHECKSUM, b"")
        except FileNotFoundError:
            return None
    high, wide = (shard // chunk for shard, chunk in zip(array.shards[-2:], array.chunks[-2:], strict=True))
    path, places = index(row // high, col // wide)
    start, count = (int(number) for number in places[row % high, col % wide])
    return None if start == ABSENT else _Tile(path, start, count - CHECKSUM, b"")


def _index(store: Path, array: zarr.Array[Any], row: int, col: int) -> tuple[Path, Any]:
    """Return a shard's file, and where its chunks lie: (rows, columns, 2), first byte and number of bytes."""
    shape = tuple(shard // chunk for shard, chunk in zip(array.shards or (), array.chunks, strict=True))[-2:]
    path, content = _file(store, array, row, col), bytearray(16 * math.prod(shape))
    try:
        before = path.stat().st_size - len(content) - 4  # the last four are a checksum
        _fill(memoryview(content), path, before)
    except FileNotFoundError:
        return path, np.full((*shape, 2), ABSENT, np.uint64)
    places = np.frombuffer(content, "<u8").reshape(*shape, 2)
    start, count = places[..., 0], places[..., 1]
    if not ((start == ABSENT) | ((start < before) & (count <= before) & (start + count <= before))).all():
        raise SinkError(f"{path} is cut off: give the same command again")
    return path, places


def _fill(content: memoryview, path: Path, start: int) -> None:
    """Read bytes of a file; raises `SinkError` where it holds fewer."""
    file = os.open(path, os.O_RDONLY)
    try:
        if start < 0 or os.preadv(file, [content], start) != len(content):
            raise SinkError(f"{path} is cut off: give the same command again")
    finally:
        os.close(file)


def _file(store: Path, array: zarr.Array[Any], row: int, col: int) -> Path:
    return store.joinpath(array.path, "c", *(["0"] if array.ndim == 3 else []), str(row), str(col))


def _empty(level: Level, array: zarr.Array[Any], row: int, col: int) -> _Tile:
    """Return the tile of a chunk in which every pixel of the image is fill value."""
    side = array.chunks[-1]
    inside = tuple(min(side, length - side * at) for length, at in zip(level.shape, (row, col), strict=True))
    fill = np.asarray(array.fill_value).astype(array.dtype)
    assert level.tiles is not None
    content = _made_empty(level.tiles, (*array.chunks[:-2], *inside), side, str(array.dtype), fill.tobytes())
    return _Tile(None, 0, len(content), content)


@functools.lru_cache(maxsize=8)
def _made_empty(codec: TiffTile, shape: tuple[int, ...], side: int, dtype: str, fill: bytes) -> bytes:
    pixels = np.full(shape, np.frombuffer(fill, dtype)[0])
    return checked(codec.pack(codec.filled_up(pixels, side)))
