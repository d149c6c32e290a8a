"""Raster files that GDAL opens, through a short list of trusted drivers; windowed reads only."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RioWindow

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.limits import MASK_ENDING, Limits, check_remote, gdal_name, is_remote, side_cars
from scenelift.pipeline.tiles import Window

DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "netCDF", "PNG", "JPEG", "HFA", "ENVI", "SAFE")
"""Drivers a file may be opened with. VRT and the like are not among them: they read other files and the network."""

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": 64,  # MB; the default, 5% of RAM in every process, is what makes workers fat
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no other file is looked for, nor asked for on a server
    "GDAL_NUM_THREADS": 1,
    "GDAL_PAM_ENABLED": "NO",  # never write .aux.xml beside the user's files
}
_BESIDE = GDAL_OPTIONS | {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
"""Lets GDAL try names beside a raster. With these it opens masks and headers, but overviews only if asked for them."""

# A scene without a place is told of in one line elsewhere, and a mask needs none. Not in a `with` around each opening:
# that is not safe among threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"scenelift\.pipeline\.scenes\.rasters")


class Reader(Protocol):
    """A raster file of any kind; one entry per band in each of the tuples."""

    path: str
    shape: tuple[int, int]
    count: int
    transform: Affine
    crs: CRS | None
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    colors: tuple[str, ...]
    tags: dict[str, str]
    tag_domains: dict[str, dict[str, str]]
    band_tags: tuple[dict[str, str], ...]
    has_mask: bool
    has_gcps: bool
    chunk_bytes: int
    """Largest piece that is decoded at once."""

    def read(self, index: int, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read one band (1-based): values and validity, shape (height, width)."""
        ...


class RasterFile:
    """A file opened with rasterio; every thread gets a handle of its own, since GDAL's are not shared safely."""

    def __init__(self, path: str, name: str, drivers: Sequence[str] = DRIVERS, beside: bool = False) -> None:
        self.path = path
        self._name = name
        self._drivers = drivers
        self._options = _BESIDE if beside else GDAL_OPTIONS
        self._local = threading.local()
        with rasterio.Env(**self._options):
            d = self._handle
            self.shape: tuple[int, int] = d.shape
            self.count: int = d.count
            self.transform: Affine = d.transform
            self.crs: CRS | None = d.crs
            self.dtypes: tuple[str, ...] = d.dtypes
            self.nodata: tuple[float | None, ...] = d.nodatavals
            self.scales: tuple[float, ...] = d.scales
            self.offsets: tuple[float, ...] = d.offsets
            self.descriptions: tuple[str | None, ...] = d.descriptions
            self.colors = tuple(c.name for c in d.colorinterp)
            self.tags: dict[str, str] = {k: v for k, v in d.tags().items() if k != "AREA_OR_POINT"}
            self.tag_domains = {ns: d.tags(ns=ns) for ns in ("IMAGERY", "RPC") if d.tags(ns=ns)}
            self.band_tags = tuple(
                {k: v for k, v in d.tags(i).items() if not k.startswith("STATISTICS_")} for i in d.indexes
            )
            # no flag at all: a mask for each band
            self.has_mask = any(
                not f or (MaskFlags.per_dataset in f and MaskFlags.alpha not in f) for f in d.mask_flag_enums
            )
            self.has_gcps = bool(d.gcps[0])
            together = self.count if d.profile.get("interleave") == "pixel" else 1
            sizes = [h * w * np.dtype(_stored(t)).itemsize for (h, w), t in zip(d.block_shapes, d.dtypes, strict=True)]
            self.chunk_bytes: int = max(sizes, default=0) * together

    @property
    def _handle(self) -> Any:
        handle = getattr(self._local, "handle", None)
        if handle is None:
            try:
                # rasterio.open takes one driver; the class behind it takes the allow-list
                handle = DatasetReader(self._name, driver=list(self._drivers))
            except RasterioIOError as error:
                raise SceneError(f"cannot open {self.path} as a raster: {_first_line(error)}") from None
            self._local.handle = handle
        return handle

    def read(self, index: int, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read one band (1-based): values and validity, shape (height, width)."""
        rio = RioWindow(window.col, window.row, window.width, window.height)
        try:
            with rasterio.Env(**self._options):
                values = self._handle.read(index, window=rio)
                if not self.has_mask:  # nodata and alpha are the scene's to apply, over all files
                    return values, np.ones(values.shape, bool)
                return values, self._handle.read_masks(index, window=rio) != 0
        except RasterioError as error:
            raise SceneError(
                f"cannot read {self.path}, band {index}, rows {window.row}-{window.stop_row}, columns {window.col}-"
                f"{window.stop_col}: {_first_line(error)}; the file may be truncated or damaged"
            ) from None


def open_raster(path: str, limits: Limits | None = None) -> RasterFile:
    """Open a raster file; for netCDF, ``file.nc:variable`` names one of several variables.

    Raises
    ------
    UsageError
        If it is on the network and that is not allowed.
    SceneError
        If there is no such file, its format is not supported, or it declares an absurd size.
    """
    limits = limits or Limits()
    if is_remote(path):
        check_remote(path, limits)
        return _within(RasterFile(path, gdal_name(path)), limits)
    file, _, variable = path.rpartition(":") if ".nc:" in path else (path, "", "")
    if not Path(file).exists():
        raise SceneError(f"no such file: {file}")
    if Path(file).is_dir():
        raise SceneError(f"{file} is a folder that is neither a .SAFE product nor a Zarr store")
    if not Path(file).is_file():
        raise SceneError(f"{file} is not a regular file")
    name = f'netcdf:"{file}":{variable}' if variable else str(Path(file))
    beside = side_cars(Path(file))
    masks = _masks(file, beside, limits)  # before GDAL meets them
    raster = RasterFile(path, name, beside=bool(beside))
    if raster.count == 0:
        choices = _subdatasets(raster)
        raise SceneError(f"{file} holds several variables, name one: " + ", ".join(f"{file}:{v}" for v in choices))
    for mask in masks:
        if mask.shape != raster.shape:
            raise SceneError(f"{mask.path} is {mask.shape} pixels, the raster it should mask {raster.shape}: remove it")
    return _within(raster, limits)


def _masks(file: str, beside: list[Path], limits: Limits) -> list[RasterFile]:
    """Open the masks among side-cars, as TIFFs: GDAL by itself would take any driver, on to other files and servers."""
    masks = []
    for path in beside:
        if not path.is_file():
            raise SceneError(f"{path}, beside {file}, is not a regular file")
        if path.name.lower().endswith(MASK_ENDING):
            try:
                masks.append(_within(RasterFile(str(path), str(path), drivers=("GTiff",)), limits))
            except SceneError as error:
                raise SceneError(f"{path} is no mask for {file}, mend or remove it: {error}") from None
    return masks


def _within(raster: RasterFile, limits: Limits) -> RasterFile:
    limits.check(raster.path, raster.shape, raster.count, raster.chunk_bytes)
    return raster


def write_geotiff(
    path: Path,
    values: NDArray[np.generic],
    grid: GeoGrid,
    nodata: float | None,
    names: Sequence[str] = (),
    bands: Sequence[Any] = (),
) -> None:
    """Write a small raster in one go, tiled and compressed; for any size see `scenelift.pipeline.outputs.cogs`.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    values : ndarray, shape (C, H, W)
    grid : GeoGrid
        Of the same height and width.
    nodata : float or None
    names : sequence of str
        Band descriptions.
    bands : sequence of Band
        Whose declared scales and offsets are written; as many as there are values.
    """
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    profile |= {"count": len(values), "height": grid.height, "width": grid.width, "dtype": values.dtype}
    with rasterio.open(path, "w", crs=grid.crs, transform=grid.transform, nodata=nodata, **profile) as out:
        out.write(values)
        for index, name in enumerate(names[: len(values)], start=1):
            out.set_band_description(index, name)
        if any(band.declared for band in bands):
            out.scales = [band.scale if band.declared else 1.0 for band in bands]
            out.offsets = [band.offset if band.declared else 0.0 for band in bands]


def _subdatasets(raster: RasterFile) -> list[str]:
    return [name.rpartition(":")[2] for name in raster._handle.subdatasets]


def _stored(dtype: str) -> str:
    """Return a numpy name for GDAL's own types."""
    return {"complex_int16": "int32", "complex_int32": "int64"}.get(dtype, dtype)


def _first_line(error: BaseException) -> str:
    """Return what GDAL complained about first; rasterio wraps that in "see previous exception"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
