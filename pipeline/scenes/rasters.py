"""Raster files that GDAL opens, through a short list of trusted drivers; windowed reads only."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
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

from scenelift.pipeline.addresses import file_name, without_secrets
from scenelift.pipeline.errors import SceneError, UnreachableError, UsageError
from scenelift.pipeline.scenes.categorical import flagged_by_color, flagged_by_name
from scenelift.pipeline.scenes.limits import (
    MASK_ENDING,
    Limits,
    check_remote,
    gdal_name,
    is_remote,
    responds,
    sidecar_files,
)
from scenelift.pipeline.scenes.pam import BandFacts, SideCar, read_sidecar
from scenelift.pipeline.scenes.zarrs import XarrayRaster, bands_named, netcdf_engine, open_netcdf
from scenelift.pipeline.tiles import TileGrid, Window

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

# Missing georeferencing is reported by open_scene; masks do not need it. Not in a `with` around each opening:
# that is not safe among threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"scenelift\.pipeline\.scenes\.rasters")


SLOW_TILES = ("JP2OpenJPEG",)
"""Drivers whose tiles take longer to decode than most networks take for them."""


class _Tiles:
    """Decoded tiles of any files, the last ones used; none before somebody says how many bytes there may be."""

    def __init__(self) -> None:
        self.most = 0
        self._kept: OrderedDict[tuple[int, ...], NDArray[np.generic]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, ...], decode: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
        """Return a tile; two threads may decode the same at once."""
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
        made = decode()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += made.nbytes
            while self._bytes > self.most:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return made


_tiles = _Tiles()
_numbers = itertools.count()


def keep_tiles(most: int) -> None:
    """Keep decoded tiles of formats that are slow to decode in this process from now on: so many bytes, or more.

    A block needs the edges of the tiles around its own; without this each tile is decoded for up to nine blocks.
    """
    _tiles.most = max(_tiles.most, most)


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
    flags: tuple[str | None, ...]
    """Why a band holds classes or flags and no image; None for an image."""
    has_mask: bool
    mask_per_band: bool
    """Whether each band has a mask of its own."""
    has_gcps: bool
    notes: tuple[str, ...]
    """What a person should know of how the file was read."""
    times: tuple[str, ...]
    """When the steps along its dimension of time were, one of which is read; none without one."""
    chunk_bytes: int
    """Largest piece that is decoded at once."""
    slow_tiles: tuple[tuple[int, int], ...]
    """Height and width of each band's tiles, where they take long to decode; else empty."""

    def read(self, indexes: Sequence[int], window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands (1-based) of one data type.

        Returns
        -------
        values : ndarray, shape (C, height, width)
        valid : ndarray of bool, same shape, not to be written to
        """
        ...


class RasterFile:
    """A file opened with rasterio; every thread gets a handle of its own, since GDAL's are not shared safely."""

    notes: tuple[str, ...] = ()
    times: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        name: str,
        drivers: Sequence[str] = DRIVERS,
        beside: bool = False,
        sidecar: SideCar | None = None,
    ) -> None:
        self.path = without_secrets(path)
        self._name = name
        self._drivers = drivers
        self._options = _BESIDE if beside else GDAL_OPTIONS
        self._local = threading.local()
        self._number = next(_numbers)
        with rasterio.Env(**self._options):
            d = self._handle
            self.shape: tuple[int, int] = d.shape
            self.count: int = d.count
            self.transform: Affine = d.transform
            self.crs: CRS | None = d.crs
            self.dtypes: tuple[str, ...] = d.dtypes
            told = sidecar or SideCar({}, None, None, False)
            facts = [told.bands.get(index, BandFacts()) for index in d.indexes]
            self.transform = told.transform or self.transform
            self.crs = told.crs or self.crs
            self.nodata: tuple[float | None, ...] = tuple(
                f.nodata if own is None else own for f, own in zip(facts, d.nodatavals, strict=True)
            )
            self.scales: tuple[float, ...] = tuple(
                f.scale if own == 1 and f.scale is not None else own for f, own in zip(facts, d.scales, strict=True)
            )
            self.offsets: tuple[float, ...] = tuple(
                f.offset if own == 0 and f.offset is not None else own for f, own in zip(facts, d.offsets, strict=True)
            )
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
            self.mask_per_band = any(not f for f in d.mask_flag_enums) and self.count > 1
            self.has_gcps = bool(d.gcps[0]) or told.has_gcps
            stem = Path(file_name(path)).stem
            self.flags = tuple(
                flagged_by_color(color)
                or (flagged_by_name(stem, text) if np.dtype(_stored(kind)).kind in "iu" else None)
                for color, text, kind in zip(self.colors, self.descriptions, self.dtypes, strict=True)
            )
            self.pages = [n for n in d.subdatasets if n.startswith("GTIFF_DIR:")]
            together = self.count if d.profile.get("interleave") == "pixel" else 1
            sizes = [h * w * np.dtype(_stored(t)).itemsize for (h, w), t in zip(d.block_shapes, d.dtypes, strict=True)]
            self.chunk_bytes: int = max(sizes, default=0) * together
            self.slow_tiles: tuple[tuple[int, int], ...] = d.block_shapes if d.driver in SLOW_TILES else ()

    def palette(self, index: int) -> dict[int, tuple[int, int, int, int]]:
        """Return the colours of a band (1-based) that has a palette: red, green, blue, alpha by value."""
        with rasterio.Env(**self._options):
            return dict(self._handle.colormap(index))

    @property
    def _handle(self) -> Any:
        handle = getattr(self._local, "handle", None)
        if handle is None:
            try:
                # rasterio.open takes one driver; the class behind it takes the allow-list
                handle = DatasetReader(self._name, driver=list(self._drivers))
            except RasterioIOError as error:
                raise SceneError(
                    without_secrets(f"cannot open {self.path} as a raster: {_first_line(error)}{_advice(error)}")
                ) from None
            except UnicodeEncodeError:
                raise SceneError(f"cannot open {os.fsencode(self.path)!r}: its name is not UTF-8; rename it") from None
            self._local.handle = handle
        return handle

    def read(self, indexes: Sequence[int], window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands; see `Reader`. Together, since where a file interleaves them GDAL decodes all for each one."""
        rio = RioWindow(window.col, window.row, window.width, window.height)
        try:
            with rasterio.Env(**self._options):
                if self.slow_tiles and _tiles.most:
                    values = np.stack([self._from_tiles(index, window) for index in indexes])
                else:
                    values = self._handle.read(list(indexes), window=rio)
                if not self.has_mask:  # nodata and alpha are the scene's to apply, over all files
                    return values, np.broadcast_to(True, values.shape)
                return values, self._handle.read_masks(list(indexes), window=rio) != 0
        except (RasterioError, SceneError) as error:  # the latter of opening it again, in another thread
            if is_remote(self.path) and not responds(self.path):
                raise UnreachableError(
                    f"cannot read {without_secrets(self.path)}: its server does not respond; what is done is kept, "
                    "give the same command again once it does"
                ) from None
            if isinstance(error, SceneError):
                raise
            raise SceneError(
                f"cannot read {without_secrets(self.path)}, {bands_named(indexes)}, "
                f"rows {window.row}-{window.stop_row}, columns {window.col}-{window.stop_col}: {_first_line(error)}; "
                "the file may be truncated or damaged"
            ) from None

    def _from_tiles(self, index: int, window: Window) -> NDArray[np.generic]:
        """Read a band of a window by whole tiles, which are kept."""
        side, window = self.slow_tiles[index - 1], window.clip(self.shape)
        lattice = TileGrid(self.shape, (min(side[0], self.shape[0]), min(side[1], self.shape[1])))
        values = np.empty((window.height, window.width), self.dtypes[index - 1])
        for cell in lattice.covering(window):
            tile = cell.clip(self.shape)
            rio = RioWindow(tile.col, tile.row, tile.width, tile.height)
            key = self._number, index, tile.row, tile.col
            decoded = _tiles.get(key, functools.partial(self._handle.read, index, window=rio))
            part = tile.intersect(window)
            values[part.slices(window)] = decoded[part.slices(tile)]
        return values


def open_raster(path: str, limits: Limits | None = None, time: str | None = None) -> RasterFile | XarrayRaster:
    """Open a raster file; for netCDF, ``file.nc:variable`` names one of several variables.

    A netCDF file is read by its coordinates where xarray can, at the time chosen; else by GDAL, which takes dimensions
    by their order.

    Raises
    ------
    UsageError
        If there is no such file, it holds several variables, or it is on the network and that is not allowed.
    SceneError
        If its format is not supported, it declares an absurd size, or has several pages.
    """
    limits = limits or Limits()
    if is_remote(path):
        check_remote(path, limits)
        return _within(RasterFile(path, gdal_name(path)), limits)
    file, _, variable = path.rpartition(":") if ".nc:" in path else (path, "", "")
    if not Path(file).exists():
        raise UsageError(f"no such file: {file}; name one that exists")
    if Path(file).is_dir():
        raise UsageError(f"{file} is a folder that is neither a .SAFE product nor a Zarr store: name a file in it")
    if not Path(file).is_file():
        raise SceneError(f"{file} is not a regular file: name one that is")
    if file.lower().endswith(".nc") and (engine := netcdf_engine(file)):
        found = open_netcdf(file, variable or None, engine, time)
        limits.check(path, found.shape, found.count, found.chunk_bytes)
        return found
    name = f'netcdf:"{file}":{variable}' if variable else str(Path(file))
    beside = sidecar_files(Path(file))
    masks = _masks(file, beside, limits)  # before GDAL meets them
    raster = RasterFile(path, name, beside=bool(beside), sidecar=read_sidecar(Path(file)))
    if raster.count == 0:
        choices = _subdatasets(raster)
        raise UsageError(f"{file} holds several variables, name one: " + ", ".join(f"{file}:{v}" for v in choices))
    if len(raster.pages) > 1:
        raise SceneError(
            f"{file} has {len(raster.pages)} pages, and a scene is one: store the one you mean in a file of its own "
            f"(gdal_translate GTIFF_DIR:1:{file} page1.tif)"
        )
    for mask in masks:
        if mask.shape != raster.shape:
            raise SceneError(f"{mask.path} is {mask.shape} pixels, the raster it should mask {raster.shape}: remove it")
    if masks and not raster.has_mask:
        raise SceneError(
            f"{masks[0].path} does not say which bands it masks (INTERNAL_MASK_FLAGS): remove or repair it"
        )
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
                raise SceneError(f"{path} is no mask for {file}; repair or remove it: {error}") from None
    return masks


def _within(raster: RasterFile, limits: Limits) -> RasterFile:
    limits.check(raster.path, raster.shape, raster.count, raster.chunk_bytes)
    return raster


def _subdatasets(raster: RasterFile) -> list[str]:
    return [name.rpartition(":")[2] for name in raster._handle.subdatasets]


def _stored(dtype: str) -> str:
    """Return a numpy name for GDAL's own types."""
    return {"complex_int16": "int32", "complex_int32": "int64"}.get(dtype, dtype)


def _advice(error: BaseException) -> str:
    """Return what helps against what GDAL complained about; nothing where that is not certain."""
    line = _first_line(error)
    if "Failed to read directory" in line:  # of a TIFF that ends before it
        return "; the file is cut off or damaged: fetch or copy it again"
    return " Name a raster, such as a GeoTIFF" if "not recognized as being in a supported" in line else ""


def _first_line(error: BaseException) -> str:
    """Return what GDAL complained about first; rasterio wraps that in "see previous exception"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
