"""A Cloud-Optimized GeoTIFF from a finished store: one streaming writer, block rows at a time, then checked."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import SubElement, tostring

import numpy as np
import rasterio
import rasterio.shutil
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # copy() lets GDAL's own errors through
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.windows import Window as RioWindow

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.files import pixel_checksum, sync
from scenelift.pipeline.outputs.categories import colormap, pam_xml
from scenelift.pipeline.outputs.compression import COG, LOSSY
from scenelift.pipeline.outputs.ordered import in_order
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.pyramids import coarsen
from scenelift.pipeline.outputs.readback import ReadableScene, open_as_scene
from scenelift.pipeline.outputs.sinks import ZarrSink, provenance_text
from scenelift.pipeline.scenes.rasters import GDAL_OPTIONS
from scenelift.pipeline.tiles import TileGrid, Window

SIDE = 512
"""Side of a COG tile, pixels."""
STEP = 1 << 26
"""Bytes of pixels held at once by all threads together, unless one tile for each is more."""
MEAN_OFF = 4.0
"""Levels of 255 by which lossy compression may shift the mean of a tile: it changes details, not means."""


class CloudOptimizedGeoTiff:
    """The format of `*.tif`: see `scenelift.pipeline.outputs.formats.Format`."""

    name = "tif"
    title = "Cloud-Optimized GeoTIFF"
    suffixes = (".tif", ".tiff")
    keeps_blocks = False

    def make(self, store: ZarrSink, output: Output, path: Path, shards: bool) -> Path:
        """Write the file."""
        write_cog(store, output, path)
        return path

    def open(self, path: Path, recorded: dict[str, Any]) -> ReadableScene:
        """Open it as a scene."""
        return open_as_scene(path, recorded)

    def flaws(self, path: Path) -> list[str]:
        """Return what makes it no Cloud-Optimized GeoTIFF."""
        valid, errors = _validated(path)
        return [] if valid else [f"no valid Cloud-Optimized GeoTIFF: {'; '.join(errors)}"]

    def beside(self, output: Output) -> dict[str, bytes]:
        """Return GDAL's side-car with the names of a class map's values, which a GeoTIFF has no place for."""
        return {".aux.xml": pam_xml(output.categories).encode()} if output.categories else {}


def write_cog(store: ZarrSink, output: Output, path: Path) -> None:
    """Write `store` as a Cloud-Optimized GeoTIFF and check it pixel by pixel.

    Written in two steps, both streaming: tiled temporary GeoTIFFs, one a level (the coarser ones averaged), then GDAL's
    COG layout. All temporary files lie beside `path`; nothing is there under its name unless it reads back right.
    Each step has as many threads as the store allows; the bytes are the same for any number.

    Raises
    ------
    SinkError
        If the disk refuses, or the file does not read back as it was written.
    """
    plain = path.with_name(path.name + ".plain.tif")
    made = path.with_name(path.name + ".cog.tif")
    try:
        with _gdal():
            sums = _write_plain(store, output, plain)
            commit_point("temporary-written")
            source = plain if output.categories else _with_overviews(output, plain, store.threads)
            options = _cog_options(output, source is not plain)
            rasterio.shutil.copy(source, made, driver="COG", NUM_THREADS=store.threads, **options)
            commit_point("output-written")
            _check_cog(sums, output, made, store.threads)
            if output.compress in LOSSY:
                _check_picture(store, output, made)
        commit_point("output-made")
        sync(made)
        made.replace(path)
    except (RasterioError, CPLE_BaseError, SystemError) as error:  # some of these are OSErrors too, without a number
        raise _full_or_failed(path, error) from error
    except OSError as error:
        raise SinkError.of(path, error) from error
    finally:
        for leftover in (made, *path.parent.glob(f"{path.name}.plain.*"), *path.parent.glob(f"{path.name}.*.tmp*")):
            leftover.unlink(missing_ok=True)


def _gdal() -> rasterio.Env:
    """Return GDAL's options for publishing, which every thread must be given for itself."""
    return rasterio.Env(**GDAL_OPTIONS, GDAL_TIFF_INTERNAL_MASK=True)


def _full_or_failed(path: Path, error: Exception) -> SinkError:
    """GDAL does not say why a write failed: a disk with less room than a tile has surely run full."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < 1 << 20:
            return SinkError.of(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    return SinkError(f"cannot write {path}: {error}")


def _cog_options(output: Output, overviews_made: bool) -> dict[str, Any]:
    count = _overviews(output.grid.shape)
    if not count:  # GDAL takes a count of 0 for a fault where it would want overviews
        overviews = {"OVERVIEWS": "NONE"}
    elif overviews_made:
        overviews = {"OVERVIEWS": "FORCE_USE_EXISTING"}
    else:
        overviews = {"OVERVIEW_COUNT": str(count)}
    return {
        **COG[output.compress or next(iter(COG))],
        "BLOCKSIZE": _tile_side(output.grid.shape, count),
        "BIGTIFF": "IF_SAFER",
        "OVERVIEW_RESAMPLING": "MODE" if output.categories else "AVERAGE",
        **overviews,
    }


def _tile_side(shape: tuple[int, int], overviews: int) -> int:
    """Return the side of a tile: another than the usual where a level is taller than a tile and just as wide.

    Validators take tiles as wide as an image for strips.
    """
    levels = [(-(-shape[0] // 2**level), -(-shape[1] // 2**level)) for level in range(overviews + 1)]
    taken = {width for height, width in levels if max(height, width) > SIDE}
    return next((side for side in (SIDE, 256, 1024, 128, 2048, 64, 4096) if side not in taken), SIDE)


def _overviews(shape: tuple[int, int]) -> int:
    """Return how many overviews there are: until the longer side fits a tile, as long as the shorter one can halve."""
    wanted = math.ceil(math.log2(max(shape) / SIDE))
    return max(0, min(wanted, math.floor(math.log2(min(shape)))))


def _tags(tags: dict[str, str]) -> dict[str, str]:
    """Return tags without those that are named like arguments of rasterio's function, which would be taken for them."""
    return {name: text for name, text in tags.items() if name not in ("self", "bidx", "ns")}


def _write_plain(store: ZarrSink, output: Output, path: Path) -> list[str]:
    """Write the tiled temporary file; return the checksum of each strip's values and mask as they left the store."""

    def stored(window: Window) -> tuple[Window, NDArray[np.generic], NDArray[np.uint8] | None, str]:
        values, mask = store.read(window), store.read_mask(window) if output.mask else None
        return window, values, mask, pixel_checksum(values, mask)

    with rasterio.open(path, "w", **_profile(output, output.grid.shape)) as out:
        out.colorinterp = _color_interpretation(output)
        out.scales = [b.scale if b.declared else 1.0 for b in output.bands]
        out.offsets = [b.offset if b.declared else 0.0 for b in output.bands]
        out.update_tags(**(_tags(output.tags) | {"SCENELIFT": provenance_text(output)}))  # an enhanced scene has one
        for domain, tags in output.tag_domains.items():
            out.update_tags(ns=domain, **_tags(tags))
        for index, band in enumerate(output.bands, start=1):
            if band.description:
                out.set_band_description(index, band.description)
            out.update_tags(index, **_tags(band.tags))
        if output.categories:
            out.write_colormap(1, colormap(output.categories))
            out.update_tags(1, **{f"CLASS_{i}": category.name for i, category in enumerate(output.categories)})
        sums = []
        for window, values, mask, checksum in in_order(stored, _strips(output, store.threads), store.threads):
            _put(out, window, values, mask)
            sums.append(checksum)
            commit_point("window-written")
    return sums


def _put(out: DatasetWriter, window: Window, values: NDArray[np.generic], mask: NDArray[np.uint8] | None) -> None:
    out.write(values, window=_rio(window))
    if mask is not None:
        out.write_mask(mask, window=_rio(window))


def _profile(output: Output, shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "count": len(output.bands),
        "dtype": output.dtype,
        "crs": output.grid.crs,
        "transform": output.grid.transform,
        "nodata": output.nodata,
        "tiled": True,
        "blockxsize": SIDE,
        "blockysize": SIDE,
        "BIGTIFF": "IF_SAFER",
        "SPARSE_OK": True,
        "INTERLEAVE": "BAND",  # what reads one band reads no other
    }


def _with_overviews(output: Output, plain: Path, threads: int) -> Path:
    """Write the coarser levels of a temporary file beside it, and a VRT that tells GDAL where they are.

    GDAL would make them band by band: where a row of tiles with all their bands is more than its cache, it reads and
    decodes every tile once a band.
    """
    levels: list[Path] = []
    for level in range(1, _overviews(output.grid.shape) + 1):
        made = plain.with_suffix(f".{2**level}.tif")
        _write_coarser(output, levels[-1] if levels else plain, made, output.grid.coarsened(2**level).shape, threads)
        levels.append(made)
    vrt = plain.with_suffix(".vrt")
    rasterio.shutil.copy(plain, vrt, driver="VRT")
    root = fromstring(vrt.read_bytes())
    for band in root.iter("VRTRasterBand"):
        number = band.get("band")
        for made in levels:
            overview = SubElement(band, "Overview")
            SubElement(overview, "SourceFilename", relativeToVRT="1").text = made.name
            SubElement(overview, "SourceBand").text = number or "mask,1"
    vrt.write_bytes(tostring(root))
    return vrt


def _write_coarser(output: Output, finer: Path, path: Path, shape: tuple[int, int], threads: int) -> None:
    """Write a level at half the resolution of another, window by window."""

    def made(window: Window) -> tuple[Window, NDArray[np.generic], NDArray[np.uint8] | None]:
        with _gdal(), rasterio.open(finer) as source:  # each thread has a handle of its own
            fine = _rio(window.scaled(2).clip(source.shape))
            bands = source.read(window=fine)
            mask = source.read_masks(1, window=fine) if output.mask else None
        return window, *coarsen(output, bands.__getitem__, mask)

    side = max(SIDE, _side(output, threads) // 2)
    with rasterio.open(path, "w", **_profile(output, shape)) as out:
        for window, values, mask in in_order(made, TileGrid(shape, (side, side)), threads):
            _put(out, window, values, mask)


def _color_interpretation(output: Output) -> list[ColorInterp]:
    """Return the bands' colours; GDAL's own default (grey) where the input says nothing or no longer fits."""
    colors = [ColorInterp[b.color] for b in output.bands]
    if all(c == ColorInterp.undefined for c in colors):
        return [ColorInterp.gray, *[ColorInterp.undefined] * (len(colors) - 1)]
    return colors


def _strips(output: Output, threads: int) -> TileGrid:
    """Cut the raster into windows of whole TIFF tiles that are whole blocks' rows where those divide."""
    side = _side(output, threads)
    return TileGrid(output.grid.shape, (side, side))


def _side(output: Output, threads: int) -> int:
    """Return the side of a window, one or more tiles: less where many bands or threads share the memory."""
    side, held = 2048, len(output.bands) * np.dtype(output.dtype).itemsize * (threads + 1)
    while side > SIDE and side * side * held > STEP:
        side //= 2
    return side


def _rio(window: Window) -> RioWindow:
    return RioWindow(window.col, window.row, window.width, window.height)


def _check_cog(sums: Sequence[str], output: Output, path: Path, threads: int) -> None:
    """Read every pixel of the finished file back: a threaded writer on a full disk may raise nothing."""

    def found(window: Window) -> str:
        with _gdal(), rasterio.open(path) as made:
            mask = made.read_masks(1, window=_rio(window)) if output.mask else None
            return pixel_checksum(made.read(window=_rio(window)), mask)

    valid, errors = _validated(path)
    if not valid:
        raise SinkError(f"{path.name} is not a valid Cloud-Optimized GeoTIFF: {'; '.join(errors)}")
    with rasterio.open(path) as made:
        if made.crs != output.grid.crs or not made.transform.almost_equals(output.grid.transform, 1e-9):
            raise SinkError(f"{path.name} does not carry the CRS and transform it was given")
    if output.compress in LOSSY:
        return
    windows = _strips(output, threads)
    for window, wanted, checksum in zip(windows, sums, in_order(found, windows, threads), strict=True):
        if checksum != wanted:
            raise _full_or_failed(path, RasterioError(f"it reads back wrong at {window}"))


def _check_picture(store: ZarrSink, output: Output, path: Path) -> None:
    """Compare the mean of every tile of a lossily compressed file, and its mask, with the store."""

    def check(window: Window) -> None:
        with _gdal(), rasterio.open(path) as made:
            found, wanted = made.read(window=_rio(window)).astype(float), store.read(window).astype(float)
            known = np.ones(window.shape, bool)
            if output.mask:
                mask = store.read_mask(window)
                known = mask != 0
                if not np.array_equal(made.read_masks(1, window=_rio(window)), mask):
                    raise _full_or_failed(path, RasterioError(f"its mask reads back wrong at {window}"))
        off = np.abs((found - wanted).mean(axis=(1, 2), where=known[None])) if known.any() else np.zeros(1)
        if off.max() > MEAN_OFF:
            raise _full_or_failed(path, RasterioError(f"it reads back wrong at {window}"))

    for _ in in_order(check, TileGrid(output.grid.shape, (SIDE, SIDE)), store.threads):
        pass


def _validated(path: Path) -> tuple[bool, list[str]]:
    """Return whether a file is a Cloud-Optimized GeoTIFF, and what makes it none."""
    from rio_cogeo.cogeo import cog_validate  # a quarter of a second, which an output as Zarr does not wait for

    valid, errors, _ = cog_validate(path, strict=False, quiet=True)
    return valid, errors
