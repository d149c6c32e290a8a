"""Opening a scene: what its files must be, and how what they do not say is made up for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.limits import Limits
from scenelift.pipeline.scenes.rasters import Reader, open_raster
from scenelift.pipeline.scenes.safe import find_bands
from scenelift.pipeline.scenes.scenes import Band, Scene, SceneSource
from scenelift.pipeline.scenes.zarrs import ZarrRaster, is_zarr

DTYPES = ("uint8", "uint16", "int16", "float32")
ASSUMED_SCALE = {"uint8": 1 / 255, "uint16": 1e-4, "int16": 1e-4, "float32": 1.0}
"""DN to reflectance where a file declares no scale: Sentinel-2's and Landsat's habit of reflectance x 10000."""


@dataclass(frozen=True)
class _Safe:
    """What a Sentinel-2 product's metadata adds to its bare JPEG 2000 files."""

    quantification: float | None = None
    offset: float | None = None
    nodata: float | None = None
    tags: dict[str, str] = field(default_factory=dict)


def open_scene(source: SceneSource) -> Scene:
    """Open a scene and check that it can be enhanced.

    Raises
    ------
    SceneError
        If a file is missing, unreadable, of no supported driver or data type, or its bands do not share one grid.
    UsageError
        If a band number does not exist, or the raster has no CRS and none is given.
    """
    files, safe = _open_files(source)
    first = files[0]
    _check_grids(files)
    readers, alphas = _pick_bands(files, source)
    dtypes = sorted({f.dtypes[i - 1] for f, i in readers})
    if len(dtypes) > 1 or dtypes[0] not in DTYPES:
        raise SceneError(f"{first.path} holds {', '.join(dtypes)}; supported is one of {', '.join(DTYPES)}")
    dtype = dtypes[0]
    single = len(files) == 1
    bands = tuple(_band(f, i, dtype, source, safe, single) for f, i in readers)
    nodata = next((band.nodata for band in bands if band.nodata is not None), None)
    kind = (
        "alpha" if alphas else "nodata" if nodata is not None else "mask" if any(f.has_mask for f in files) else "none"
    )
    return Scene(
        source=source,
        readers=tuple(readers),
        alpha=alphas[0] if alphas else None,
        grid=GeoGrid(_crs(first, source), first.transform, *first.shape),
        dtype=dtype,
        bands=bands,
        nodata=nodata,
        mask_kind=kind,
        tags=first.tags | safe.tags,
        tag_domains=first.tag_domains,
    )


def _check_grids(files: list[Reader]) -> None:
    first = files[0]
    for other in files[1:]:
        if (other.shape, other.transform) != (first.shape, first.transform) or other.crs != first.crs:
            raise SceneError(
                f"{other.path} is not on the grid of {first.path} "
                f"({other.shape} against {first.shape} pixels): bands of one scene must share it"
            )


def _pick_bands(files: list[Reader], source: SceneSource) -> tuple[list[tuple[Reader, int]], list[tuple[Reader, int]]]:
    """Return the bands wanted, in the order wanted, and the alpha bands: each an open file and a 1-based index."""
    every = [(f, i) for f in files for i in range(1, f.count + 1)]
    readers = [(f, i) for f, i in every if f.colors[i - 1] != "alpha"]
    alphas = [(f, i) for f, i in every if f.colors[i - 1] == "alpha"]
    if source.bands is not None:
        for band in source.bands:
            if not 1 <= band <= len(readers):
                raise UsageError(f"band {band} does not exist: {files[0].path} has bands 1 to {len(readers)}")
        readers = [readers[band - 1] for band in source.bands]
    if not readers:
        raise SceneError(f"{files[0].path} has no band but alpha")
    return readers, alphas


def _open_files(source: SceneSource) -> tuple[list[Reader], _Safe]:
    if not source.paths:
        raise UsageError("no input given")
    paths, safe = list(source.paths), _Safe()
    if len(paths) == 1 and paths[0].rstrip("/").upper().endswith(".SAFE"):
        found = find_bands(Path(paths[0]))
        paths = [str(p) for p in found.paths]
        safe = _Safe(found.quantification, found.offset, 0.0, found.tags)
    readers: list[Reader] = [_open(p, source.limits) for p in paths]
    return readers, safe


def _open(path: str, limits: Limits) -> Reader:
    if not is_zarr(path):
        return open_raster(path, limits)
    store = ZarrRaster(path)
    limits.check(path, store.shape, store.count, store.chunk_bytes)
    return store


def _crs(reader: Reader, source: SceneSource) -> CRS:
    if source.crs is not None:
        try:
            return CRS.from_user_input(source.crs)
        except (CRSError, ValueError):
            raise UsageError(f"{source.crs!r} is no coordinate reference system; try e.g. EPSG:32633") from None
    if reader.crs is None:
        hint = " (it has ground control points: warp it first)" if reader.has_gcps else ""
        raise UsageError(f"{reader.path} has no coordinate reference system{hint}; give one with --crs EPSG:…")
    if reader.transform.is_identity:
        raise UsageError(
            f"{reader.path} has a coordinate reference system but no affine transform, so nobody knows where its "
            "pixels are; georeference it first, or give --crs to go on with pixel coordinates"
        )
    return reader.crs


def has_value(dtype: str, value: float) -> bool:
    """Whether a data type can store a value as it is."""
    if dtype == "float32":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and bool(limits.min <= value <= limits.max)


def _nodata(reader: Reader, index: int, dtype: str, source: SceneSource, safe: _Safe) -> float | None:
    """Return the value that marks missing pixels of a band: the user's, the product's or the band's own."""
    given = source.nodata if source.nodata is not None else safe.nodata
    nodata = given if given is not None else reader.nodata[index - 1]
    if nodata is not None and not has_value(dtype, nodata):
        raise UsageError(f"nodata value {nodata:g} does not exist in {dtype} ({reader.path})")
    return nodata


def _band(reader: Reader, index: int, dtype: str, source: SceneSource, safe: _Safe, single: bool) -> Band:
    scale, offset = reader.scales[index - 1], reader.offsets[index - 1]
    declared = (scale, offset) != (1.0, 0.0)
    if not declared:
        scale = ASSUMED_SCALE[dtype]
    if safe.quantification:
        scale, declared = 1 / safe.quantification, True
    if source.scale is not None:
        scale, declared = source.scale, True
    if not (np.isfinite(scale) and scale > 0):
        raise UsageError(f"scale must be a positive number, got {scale:g} ({reader.path})")
    dn_offset = source.offset if source.offset is not None else safe.offset
    if dn_offset is not None:
        offset, declared = dn_offset * scale, True
    if not np.isfinite(offset):
        raise UsageError(f"offset must be a finite number, got {offset:g} ({reader.path})")
    return Band(
        description=reader.descriptions[index - 1] or (None if single else Path(reader.path).stem),
        scale=scale,
        offset=offset,
        declared=declared,
        color=reader.colors[index - 1],
        tags=reader.band_tags[index - 1],
        nodata=_nodata(reader, index, dtype, source, safe),
    )
