"""A Cloud-Optimized GeoTIFF from a store: tiles that workers compressed, laid behind a header that GDAL writes."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # copy() lets GDAL's own errors through
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window as RioWindow

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.files import sync
from scenelift.pipeline.ordered import in_order
from scenelift.pipeline.outputs.categories import colormap, pam_xml
from scenelift.pipeline.outputs.compression import COG, cog_compression
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.pyramids import copy_window, halve_window
from scenelift.pipeline.outputs.readback import ReadableScene, open_as_scene
from scenelift.pipeline.outputs.sinks import Blocks, Level, ZarrSink, make_level, provenance_text
from scenelift.pipeline.outputs.tiffs.laying import lay
from scenelift.pipeline.outputs.tiffs.tiles import BY_BLOCKS, SIDE, overview_count, tile_side
from scenelift.pipeline.scenes.rasters import GDAL_OPTIONS
from scenelift.pipeline.tiles import TileGrid

STEP = 1 << 26
"""Bytes of pixels held at once by all threads together, unless one tile for each is more."""


class CloudOptimizedGeoTiff:
    """The format of `*.tif`: see `scenelift.pipeline.outputs.formats.Format`."""

    name = "tif"
    title = "Cloud-Optimized GeoTIFF"
    suffixes = (".tif", ".tiff")
    blocks = Blocks.TILES

    def make(self, store: ZarrSink, output: Output, path: Path, shards: bool) -> Path:
        """Write the file."""
        write_cog(store, output, path, shards)
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


def write_cog(store: ZarrSink, output: Output, path: Path, shards: bool = True) -> None:
    """Write `store` as a Cloud-Optimized GeoTIFF and check it.

    GDAL writes a file of the same description without a tile; its header is taken over, and the store's tiles are laid
    behind it. Tiles that no block made (of the coarsest levels; all, where blocks are not made of whole tiles) are made
    first, in as many threads as the store allows; the bytes are the same for any number. All temporary files lie beside
    `path`; nothing is there under its name unless it reads back right.

    Raises
    ------
    SinkError
        If the disk refuses, or the file does not read back as it was written.
    """
    made = path.with_name(path.name + ".cog.tif")
    try:
        with _gdal():
            template = _template(output, path)
            commit_point("temporary-written")
            lay(template, store.path, _levels(store, output, shards), made, store.threads)
            commit_point("output-written")
            _check_cog(output, made)
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


def _levels(store: ZarrSink, output: Output, shards: bool) -> list[Level]:
    """Return the levels of a store as tiles, finest first; those that no block made are made."""
    side = tile_side(output.grid.shape)
    step = _step(output, side, store.threads)

    def made(factor: int, exact: Level, blocks: Blocks) -> Level:
        """Make a level of the same pixels, or of half the resolution."""
        shape = output.grid.coarsened(factor).shape
        group = store.group.create_group(f"{blocks.value}/{factor}", overwrite=True)
        shard = (step, step) if shards else None
        level = make_level(group, shape, (side, side), shard, output, blocks)
        make = copy_window if exact.shape == shape else functools.partial(halve_window, output)
        for _ in in_order(functools.partial(make, exact, level), TileGrid(shape, (step, step)), store.threads):
            commit_point("window-written")
        return level

    exact, by_gdal = store.whole, cog_compression(output) not in BY_BLOCKS
    levels = [exact if exact.tiles else made(1, exact, Blocks.TILES)]
    for number in range(1, overview_count(output.grid.shape) + 1):
        factor = 2**number
        if by_gdal:  # its tiles are not read again
            exact = made(factor, exact, Blocks.SCRATCH)
            levels.append(made(factor, exact, Blocks.TILES))
        else:
            levels.append(store.coarser.get(factor) or made(factor, levels[-1], Blocks.TILES))
    return levels


def _step(output: Output, side: int, threads: int) -> int:
    """Return the side of a window, one or more tiles: less where many bands or threads share the memory."""
    step, held = max(side, 2048), len(output.bands) * np.dtype(output.dtype).itemsize * (threads + 1)
    while step > side and step * step * held > STEP:
        step //= 2
    return step


def _gdal() -> rasterio.Env:
    """Return GDAL's options for publishing: it looks for coarser levels beside a file."""
    return rasterio.Env(**(GDAL_OPTIONS | {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}), GDAL_TIFF_INTERNAL_MASK=True)


def _full_or_failed(path: Path, error: Exception) -> SinkError:
    """GDAL does not say why a write failed: a disk with less room than a tile has surely run full."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < 1 << 20:
            return SinkError.of(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    return SinkError(f"cannot write {path}: {error}")


def _template(output: Output, path: Path) -> bytes:
    """Return a Cloud-Optimized GeoTIFF of an output's description in which every tile is missing."""
    side, count = tile_side(output.grid.shape), overview_count(output.grid.shape)
    plain, made = path.with_name(path.name + ".plain.tif"), path.with_name(path.name + ".plain.cog.tif")
    _write_description(output, plain)
    level = plain
    for number in range(1, count + 1):  # GDAL looks for the coarser levels of a file in one of its name and ".ovr"
        level = level.with_name(level.name + ".ovr")
        with rasterio.open(level, "w", **_profile(output, output.grid.coarsened(2**number).shape)) as out:
            _begin_mask(output, out)
    rasterio.shutil.copy(
        plain,
        made,
        driver="COG",
        **COG[cog_compression(output)],
        BLOCKSIZE=side,
        BIGTIFF="IF_SAFER",
        SPARSE_OK=True,
        OVERVIEWS="FORCE_USE_EXISTING" if count else "NONE",
    )
    return made.read_bytes()


def _tags(tags: dict[str, str]) -> dict[str, str]:
    """Return tags without those that are named like arguments of rasterio's function, which would be taken for them."""
    return {name: text for name, text in tags.items() if name not in ("self", "bidx", "ns")}


def _write_description(output: Output, path: Path) -> None:
    """Write a GeoTIFF without pixels that says all that an output's file says."""
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
        _begin_mask(output, out)


def _begin_mask(output: Output, out: Any) -> None:
    if output.mask:
        out.write_mask(np.zeros((1, 1), np.uint8), window=RioWindow(0, 0, 1, 1))


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
    }


def _color_interpretation(output: Output) -> list[ColorInterp]:
    """Return the bands' colours; GDAL's own default (grey) where the input says nothing or no longer fits."""
    colors = [ColorInterp[b.color] for b in output.bands]
    if all(c == ColorInterp.undefined for c in colors):
        return [ColorInterp.gray, *[ColorInterp.undefined] * (len(colors) - 1)]
    return colors


def _check_cog(output: Output, path: Path) -> None:
    """Check that GDAL takes a file for what it is to be; that its bytes are right was found when they were laid."""
    valid, errors = _validated(path)
    if not valid:
        raise SinkError(f"{path.name} is not a valid Cloud-Optimized GeoTIFF: {'; '.join(errors)}")
    with rasterio.open(path) as made:
        if made.crs != output.grid.crs or not made.transform.almost_equals(output.grid.transform, 1e-9):
            raise SinkError(f"{path.name} does not carry the CRS and transform it was given")


def _validated(path: Path) -> tuple[bool, list[str]]:
    """Return whether a file is a Cloud-Optimized GeoTIFF, and what makes it none."""
    from rio_cogeo.cogeo import cog_validate  # a quarter of a second, which an output as Zarr does not wait for

    valid, errors, _ = cog_validate(path, strict=False, quiet=True)
    return valid, errors
