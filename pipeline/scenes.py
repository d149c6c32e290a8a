"""A scene: a georeferenced raster in one file or in one file per band, read by windows.

`SceneSource` says where a scene is and how its numbers are to be read; it is small and picklable and travels to
workers. `Scene` is what is found there: grid, bands, radiometry, mask, metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from scenelift.pipeline.enhance import Region
from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.limits import Limits
from scenelift.pipeline.rasters import Reader, open_raster
from scenelift.pipeline.safe import find_bands
from scenelift.pipeline.tiles import Window
from scenelift.pipeline.zarrs import ZarrRaster, is_zarr

DTYPES = ("uint8", "uint16", "int16", "float32")
ASSUMED_SCALE = {"uint8": 1 / 255, "uint16": 1e-4, "int16": 1e-4, "float32": 1.0}
"""DN to reflectance where a file declares no scale: Sentinel-2's and Landsat's habit of reflectance x 10000."""


@dataclass(frozen=True)
class SceneSource:
    """Where a scene is, and how the user wants it read."""

    paths: tuple[str, ...]
    """One raster, several rasters of one grid, a `.SAFE` folder or a Zarr store."""
    bands: tuple[int, ...] | None = None
    """1-based band numbers in the order wanted, over all files; None: every band that is not alpha."""
    scale: float | None = None
    """Reflectance per DN; None: as the file says, else by data type."""
    offset: float | None = None
    """Added to the DN before scaling (Sentinel-2 L2A since baseline 04.00: -1000); None: as the file says."""
    nodata: float | None = None
    """Value that marks missing pixels; None: as the file says."""
    crs: str | None = None
    """Coordinate reference system for a raster that has none."""
    limits: Limits = field(default_factory=Limits)
    """What the files may ask for; changes no pixel."""


@dataclass(frozen=True)
class Band:
    """One band as it is stored."""

    description: str | None
    """Name, e.g. "B04"."""
    scale: float
    """Reflectance (or unit of the band) per DN."""
    offset: float
    """Reflectance at DN 0."""
    declared: bool
    """Whether scale and offset come from the file or the user; False: assumed from the data type."""
    color: str = "undefined"
    """Colour interpretation, GDAL's name."""
    tags: dict[str, str] = field(default_factory=dict)
    """Metadata of the band."""


@dataclass(frozen=True)
class Scene:
    """A raster as it was found; read with :meth:`read`."""

    source: SceneSource
    readers: tuple[tuple[Reader, int], ...]
    """For each band, the open file and the 1-based index in it."""
    alpha: tuple[Reader, int] | None
    """The alpha band, if there is one."""
    grid: GeoGrid
    dtype: str
    bands: tuple[Band, ...]
    nodata: float | None
    mask_kind: str
    """"none", "nodata", "mask" (internal or side-car) or "alpha"."""
    tags: dict[str, str]
    """Metadata of the file."""
    tag_domains: dict[str, dict[str, str]]
    """Further metadata domains, e.g. IMAGERY."""

    @property
    def name(self) -> str:
        """Short name for messages."""
        return Path(self.source.paths[0]).name

    @property
    def masked(self) -> bool:
        """Whether a pixel of this scene can be without data."""
        return self.mask_kind != "none" or self.dtype == "float32"

    @cached_property
    def _radiometry(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale = np.array([b.scale for b in self.bands], np.float32)[:, None, None]
        offset = np.array([b.offset for b in self.bands], np.float32)[:, None, None]
        return scale, offset

    def read_dn(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read stored values and the mask.

        Parameters
        ----------
        window : Window
            Inside the scene.

        Returns
        -------
        values : ndarray, shape (C, height, width), the scene's dtype
        valid : ndarray of bool, same shape

        Raises
        ------
        SceneError
            If the file is truncated or damaged.
        """
        values = np.empty((len(self.bands), *window.shape), self.dtype)
        valid = np.empty(values.shape, bool)
        for i, (reader, index) in enumerate(self.readers):
            values[i], valid[i] = reader.read(index, window)
        if self.nodata is not None and not np.isnan(self.nodata):
            valid &= values != np.asarray(self.nodata).astype(self.dtype)
        if self.dtype == "float32":
            valid &= np.isfinite(values)
        if self.alpha is not None:
            valid &= self.alpha[0].read(self.alpha[1], window)[0] != 0
        return values, valid

    def read(self, window: Window) -> Region:
        """Read reflectance: ``DN * scale + offset`` in float32, per band; nothing is clipped."""
        values, valid = self.read_dn(window)
        scale, offset = self._radiometry
        return Region(window, values.astype(np.float32) * scale + offset, valid)

    def describe(self) -> str:
        """Return one line for people: size, bands, data type, ground sample distance, CRS."""
        height, width = self.grid.shape
        sx, sy = self.grid.resolution
        return (
            f"{self.name}: {width} x {height} px, {len(self.bands)} bands, {self.dtype}, "
            f"{sx:g} x {sy:g} {self.grid.crs.units_factor[0]}, {crs_name(self.grid.crs)}"
        )


def beside(missing: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the nearest value that is not the nodata value `missing` (a 0-d array): one up, or down at the top."""
    if np.issubdtype(missing.dtype, np.floating):
        return np.nextafter(missing, np.asarray(np.inf, missing.dtype))
    value = int(missing)
    return np.asarray(value + 1 if value < np.iinfo(str(missing.dtype)).max else value - 1, missing.dtype)


def crs_name(crs: CRS) -> str:
    """Return "EPSG:32618" where the CRS has a code, else its name."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else crs.to_wkt().split('"')[1]


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
    for other in files[1:]:
        if (other.shape, other.transform) != (first.shape, first.transform) or other.crs != first.crs:
            raise SceneError(
                f"{other.path} is not on the grid of {first.path} "
                f"({other.shape} against {first.shape} pixels): bands of one scene must share it"
            )
    readers = [(f, i) for f in files for i in range(1, f.count + 1) if f.colors[i - 1] != "alpha"]
    alphas = [(f, i) for f in files for i in range(1, f.count + 1) if f.colors[i - 1] == "alpha"]
    if source.bands is not None:
        for band in source.bands:
            if not 1 <= band <= len(readers):
                raise UsageError(f"band {band} does not exist: {first.path} has bands 1 to {len(readers)}")
        readers = [readers[band - 1] for band in source.bands]
    if not readers:
        raise SceneError(f"{first.path} has no band but alpha")
    dtypes = sorted({f.dtypes[i - 1] for f, i in readers})
    if len(dtypes) > 1 or dtypes[0] not in DTYPES:
        raise SceneError(f"{first.path} holds {', '.join(dtypes)}; supported is one of {', '.join(DTYPES)}")
    dtype = dtypes[0]
    nodata = source.nodata if source.nodata is not None else safe.nodata
    if nodata is None:
        nodata = next((f.nodata[i - 1] for f, i in readers if f.nodata[i - 1] is not None), None)
    _check_nodata(nodata, dtype, first.path)
    kind = (
        "alpha" if alphas else "nodata" if nodata is not None else "mask" if any(f.has_mask for f in files) else "none"
    )
    single = len(files) == 1
    return Scene(
        source=source,
        readers=tuple(readers),
        alpha=alphas[0] if alphas else None,
        grid=GeoGrid(_crs(first, source), first.transform, *first.shape),
        dtype=dtype,
        bands=tuple(_band(f, i, dtype, source, safe.quantification, safe.offset, single) for f, i in readers),
        nodata=nodata,
        mask_kind=kind,
        tags=first.tags | safe.tags,
        tag_domains=first.tag_domains,
    )


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


@dataclass(frozen=True)
class _Safe:
    """What a Sentinel-2 product's metadata adds to its bare JPEG 2000 files."""

    quantification: float | None = None
    offset: float | None = None
    nodata: float | None = None
    tags: dict[str, str] = field(default_factory=dict)


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


def _check_nodata(nodata: float | None, dtype: str, path: str) -> None:
    if nodata is None or dtype == "float32":
        return
    limits = np.iinfo(dtype)
    if nodata != int(nodata) or not limits.min <= nodata <= limits.max:
        raise UsageError(f"nodata value {nodata:g} does not exist in {dtype} ({path})")


def _band(
    reader: Reader,
    index: int,
    dtype: str,
    source: SceneSource,
    quantification: float | None,
    dn_offset: float | None,
    single: bool,
) -> Band:
    scale, offset = reader.scales[index - 1], reader.offsets[index - 1]
    declared = (scale, offset) != (1.0, 0.0)
    if not declared:
        scale = ASSUMED_SCALE[dtype]
    if quantification:
        scale, declared = 1 / quantification, True
    if source.scale is not None:
        scale, declared = source.scale, True
    if not (np.isfinite(scale) and scale > 0):
        raise UsageError(f"scale must be a positive number, got {scale:g} ({reader.path})")
    dn_offset = source.offset if source.offset is not None else dn_offset
    if dn_offset is not None:
        offset, declared = dn_offset * scale, True
    return Band(
        description=reader.descriptions[index - 1] or (None if single else Path(reader.path).stem),
        scale=scale,
        offset=offset,
        declared=declared,
        color=reader.colors[index - 1],
        tags=reader.band_tags[index - 1],
    )
