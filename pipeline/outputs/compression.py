"""How an output is compressed: what each format can do, what fits which pixels, and what changes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.outputs import Output

QUALITY = 90
"""Of JPEG, 1 to 100."""
COG: Mapping[str, Mapping[str, Any]] = {
    "deflate": {"COMPRESS": "DEFLATE", "LEVEL": 6, "PREDICTOR": "YES"},
    "zstd": {"COMPRESS": "ZSTD", "LEVEL": 9, "PREDICTOR": "YES"},
    "lerc": {"COMPRESS": "LERC", "MAX_Z_ERROR": 0},
    "jpeg": {"COMPRESS": "JPEG", "QUALITY": QUALITY},
}
"""Creation options of GDAL's COG driver, the default first."""
_PLAIN_NAMES: Mapping[str, Mapping[str, str]] = {
    "deflate": {"LEVEL": "ZLEVEL"},
    "zstd": {"LEVEL": "ZSTD_LEVEL"},
    "lerc": {},
    "jpeg": {"QUALITY": "JPEG_QUALITY"},
}
"""What the driver of plain GeoTIFFs calls them."""
CHOICES: Mapping[str, tuple[str, ...]] = {"tif": tuple(COG), "zarr": ("zstd", "deflate")}
"""By the format's name, the default first."""
LOSSY = ("jpeg",)


def compression_of(format_name: str, wanted: str | None, output: Output) -> str | None:
    """Return how an output is to be compressed; None: as its format does by default.

    Parameters
    ----------
    format_name : str
        `Format.name`.
    wanted : str or None
        One of ``COG``; None: the default.
    output : Output

    Raises
    ------
    UsageError
        If the format has no such compression, or it cannot hold these pixels.
    """
    check_compression(format_name, wanted)
    if wanted is None:
        return None
    if wanted in LOSSY and (reason := _no_picture(output)):
        raise UsageError(f"--compress {wanted} is for pictures, and {reason}; deflate, zstd and lerc keep every pixel")
    return None if wanted == CHOICES[format_name][0] else wanted


def cog_compression(output: Output) -> str:
    """Return by what a Cloud-Optimized GeoTIFF of an output is compressed, one of ``COG``."""
    return output.compress or next(iter(COG))


def one_tile(pixels: NDArray[np.generic], name: str, alpha: bool = False) -> bytes:
    """Compress pixels as a GeoTIFF of one tile, by one thread, as GDAL's COG driver would compress that tile.

    Parameters
    ----------
    pixels : ndarray, shape (C, side, side), or (side, side) of a mask
        A mask (0 and 255) is stored as bits, and never lossily.
    name : str
        One of ``COG``.
    alpha : bool
        Whether the last band is transparency.
    """
    import rasterio.io

    how: dict[str, Any] = {"COMPRESS": "DEFLATE", "NBITS": 1}
    if pixels.ndim == 2:
        pixels = (pixels != 0).astype(np.uint8)[None]
    else:
        how = {_PLAIN_NAMES[name].get(option, option): value for option, value in COG[name].items()}
        if "PREDICTOR" in how:
            how["PREDICTOR"] = 3 if pixels.dtype.kind == "f" else 2
        if name == "jpeg" and len(pixels) == 3:
            how["PHOTOMETRIC"] = "YCBCR"
        if alpha:
            how["ALPHA"] = "YES"
    count, height, width = pixels.shape
    profile = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name, "INTERLEAVE": "PIXEL"}
    profile |= {"tiled": True, "blockxsize": width, "blockysize": height, "transform": Affine.scale(10)}
    with rasterio.io.MemoryFile() as memory:
        with memory.open(driver="GTiff", **profile, **how) as file:
            file.write(pixels)
        return bytes(memory.getbuffer())


def check_compression(format_name: str, wanted: str | None) -> None:
    """Refuse a compression that a format has not; raises as `compression_of` does."""
    choices = CHOICES.get(format_name, ())
    if wanted is not None and wanted not in choices:
        told = f"one of {', '.join(choices)}" if choices else "left out"
        raise UsageError(f"--compress for {format_name} must be {told}, got {wanted!r}")


def _no_picture(output: Output) -> str | None:
    """Return why an output cannot be stored lossily; None if it can."""
    if output.dtype != "uint8":
        return f"the output is {output.dtype}, not uint8"
    if output.categories:
        return "classes must not be blurred"
    if any(band.color == "alpha" for band in output.bands):
        return "an alpha band must not be blurred"
    if output.nodata is not None:
        return f"missing pixels are marked by the value {output.nodata:g}, which blurring would lose"
    if len(output.bands) not in (1, 3):
        return f"the output has {len(output.bands)} bands, not 1 or 3"
    return None


def notes_on(compress: str | None) -> tuple[str, ...]:
    """Return what people must know of a compression."""
    if compress is None or compress not in LOSSY:
        return ()
    return (f"compressed by {compress.upper()} (quality {QUALITY}), which changes pixels: to look at, not to measure",)
