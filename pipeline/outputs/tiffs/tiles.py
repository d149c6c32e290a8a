"""The tiles of a GeoTIFF as bytes: whoever has the pixels compresses them, and they are laid one after the other later.

Deflate and Zstandard are applied here, with TIFF's predictors (TIFF 6.0, section 14; TIFF Technical Note 3 for floating
point) as GDAL applies them, and by the same library for deflate: GDAL's own writing of rasters must not be done in
several threads, since any thread may flush what another is writing from GDAL's one cache. LERC and JPEG are left to
GDAL, one tile at a time.
"""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import dataclass
from typing import Any

import deflate
import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.outputs.compression import COG, LOSSY, one_tile
from scenelift.pipeline.outputs.tiffs.directories import directories

SIDE = 512
"""Usual side of a tile, pixels."""
MEAN_OFF = 4.0
"""Levels of 255 by which lossy compression may shift the mean of a tile: it changes details, not means."""
BY_BLOCKS = "deflate", "zstd"
"""Compressions that need no GDAL: tiles are made with the blocks."""
MASKS = 6
"""Level of deflate for masks."""
_gdal = threading.Lock()


def overview_count(shape: tuple[int, int]) -> int:
    """Return how many overviews there are: until the longer side fits a tile, as long as the shorter one can halve."""
    wanted = math.ceil(math.log2(max(shape) / SIDE))
    return max(0, min(wanted, math.floor(math.log2(min(shape)))))


def tile_side(shape: tuple[int, int]) -> int:
    """Return the side of a tile: another than the usual where a level is taller than a tile and just as wide.

    Validators take tiles as wide as an image for strips.
    """
    levels = [(-(-shape[0] // 2**level), -(-shape[1] // 2**level)) for level in range(overview_count(shape) + 1)]
    taken = {width for height, width in levels if max(height, width) > SIDE}
    return next((side for side in (SIDE, 256, 1024, 128, 2048, 64, 4096) if side not in taken), SIDE)


@dataclass(frozen=True)
class TiffTile(ArrayBytesCodec):
    """How Zarr keeps a chunk (C, side, side) of an image, or (side, side) of its mask: as a tile, and a checksum."""

    compress: str
    """One of `compression.COG`."""
    alpha: bool = False
    """Whether the last band is transparency, of which some compressions make use."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TiffTile:
        """Return the codec that a store's metadata name."""
        return cls(**data["configuration"])

    def to_dict(self) -> dict[str, Any]:
        """Return what a store's metadata say of it."""
        return {"name": NAME, "configuration": {"compress": self.compress, "alpha": self.alpha}}

    def filled_up(self, pixels: NDArray[np.generic], side: int) -> NDArray[np.generic]:
        """Return pixels (…, H, W) filled up to whole tiles as GDAL does it: a lossy one must not blur at an edge."""
        beyond = [(0, -length % side) for length in pixels.shape[-2:]]
        if not any(after for _, after in beyond):
            return pixels
        lossy = pixels.ndim == 3 and self.compress in LOSSY
        return np.pad(pixels, [*[(0, 0)] * (pixels.ndim - 2), *beyond], "edge" if lossy else "constant")

    def pack(self, pixels: NDArray[np.generic]) -> bytes:
        """Compress a tile, read it back, and add the checksum of its bytes.

        Raises
        ------
        SinkError
            If it does not read back as it was made.
        """
        if pixels.ndim == 3 and self.compress not in BY_BLOCKS:
            tile, right = self._by_gdal(pixels)
        else:
            plain = differences(pixels)
            tile = self._squeezed(plain, mask=pixels.ndim == 2)
            right = self._plain(tile, len(plain), mask=pixels.ndim == 2) == plain
        if not right:
            raise SinkError(f"a tile compressed by {self.compress} reads back wrong")
        return tile + deflate.crc32(tile).to_bytes(4, "little")

    def unpack(self, chunk: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.generic]:
        """Return the pixels of a chunk; raises `SinkError` where its bytes are others than those that were written."""
        mask = len(shape) == 2
        size = math.prod(shape) // 8 if mask else math.prod(shape) * dtype.itemsize
        return sums(self._plain(checked(chunk), size, mask), shape, dtype)

    def _squeezed(self, plain: bytes, mask: bool) -> bytes:
        if mask or self.compress == "deflate":
            return bytes(deflate.zlib_compress(plain, MASKS if mask else COG["deflate"]["LEVEL"]))
        return bytes(zstd.compress(plain, COG["zstd"]["LEVEL"]))

    def _plain(self, tile: bytes, size: int, mask: bool) -> bytes:
        if mask or self.compress == "deflate":
            return bytes(deflate.zlib_decompress(tile, size))
        return bytes(zstd.decompress(tile))

    def _by_gdal(self, pixels: NDArray[np.generic]) -> tuple[bytes, bool]:
        """Return a tile, and whether it reads back right."""
        import rasterio.io

        with _gdal:
            file = one_tile(pixels, self.compress, self.alpha)
            with rasterio.io.MemoryFile(file) as memory, memory.open() as opened:
                found = opened.read()
        (only,) = directories(file)
        (start,), (count,) = only.offsets.read(file), only.counts.read(file)
        if self.compress in LOSSY:
            off = found.mean(axis=(1, 2), dtype=np.float64) - pixels.mean(axis=(1, 2), dtype=np.float64)
            right = bool(np.abs(off).max() <= MEAN_OFF)
        else:
            right = np.array_equal(found, pixels, equal_nan=pixels.dtype.kind == "f")
        return file[start : start + count], right

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: Any) -> Buffer:
        made = await asyncio.to_thread(self.pack, chunk_array.as_numpy_array())
        found: Buffer = chunk_spec.prototype.buffer.from_bytes(made)
        return found

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: Any) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        pixels = await asyncio.to_thread(self.unpack, chunk_bytes.to_bytes(), chunk_spec.shape, dtype)
        found: NDBuffer = chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)
        return found

    def compute_encoded_size(self, _input_byte_length: int, _chunk_spec: Any) -> int:
        """Refuse to say: the size depends on the pixels."""
        raise NotImplementedError


NAME = "scenelift.tiff-tile"
register_codec(NAME, TiffTile)


def checked(chunk: bytes) -> bytes:
    """Return the tile of a chunk, without the checksum; raises as `check` does."""
    check(chunk[:-4], chunk[-4:])
    return chunk[:-4]


def check(tile: bytes | memoryview, checksum: bytes | memoryview) -> None:
    """Compare a tile with the checksum that it was stored with.

    Raises
    ------
    SinkError
        If its bytes are others than those that were written.
    """
    if deflate.crc32(tile).to_bytes(4, "little") != checksum:
        raise SinkError("a tile is damaged: give the same command again")


def differences(pixels: NDArray[np.generic]) -> bytes:
    """Return what of a tile is compressed: each value less the one before it in its row and band.

    Of floating point, the bytes of a row are sorted by their weight first, and each is taken less the one so many bands
    before it. Of a mask (H, W) it is its bits.
    """
    if pixels.ndim == 2:
        return np.packbits(pixels != 0, axis=1).tobytes()
    count, height, width = pixels.shape
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if pixels.dtype.kind == "f":
        weights = rows.astype(">f4").view(np.uint8).reshape(height, width * count, 4)
        rows = np.ascontiguousarray(weights.transpose(0, 2, 1)).reshape(height, 4 * width, count)
    found = rows.copy()
    found[:, 1:] -= rows[:, :-1]
    return found.astype(found.dtype.newbyteorder("<"), copy=False).tobytes()


def sums(plain: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.generic]:
    """Return the pixels that `differences` were taken of."""
    if len(shape) == 2:
        bits = np.unpackbits(np.frombuffer(plain, np.uint8)).reshape(shape)
        return np.asarray(bits * np.uint8(255))
    count, height, width = shape
    if dtype.kind != "f":
        rows = np.frombuffer(plain, dtype.newbyteorder("<")).reshape(height, width, count)
        return np.ascontiguousarray(rows.cumsum(axis=1, dtype=dtype).transpose(2, 0, 1))
    weights = np.frombuffer(plain, np.uint8).reshape(height, 4 * width, count).cumsum(axis=1, dtype=np.uint8)
    values = np.ascontiguousarray(weights.reshape(height, 4, width * count).transpose(0, 2, 1)).view(">f4")
    return np.ascontiguousarray(values.reshape(height, width, count).transpose(2, 0, 1).astype(dtype))
