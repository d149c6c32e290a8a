"""A scene: a georeferenced raster in one file or in one file per band, read by windows.

`SceneSource` says where a scene is and how its numbers are to be read; it is small and picklable and travels to
workers. `Scene` is what is found there: grid, bands, radiometry, mask, metadata.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from scenelift.pipeline.addresses import file_name, local_path
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.ordered import in_order
from scenelift.pipeline.regions import Region
from scenelift.pipeline.scenes.limits import Limits
from scenelift.pipeline.scenes.masks import LAYERS, SceneMask
from scenelift.pipeline.scenes.multigrid import Placement
from scenelift.pipeline.scenes.products.kinds import ClassLayer
from scenelift.pipeline.scenes.rasters import Reader
from scenelift.pipeline.tiles import TileGrid, Window, sample_windows

PIXELS = 'LOCAL_CS["pixels",UNIT["metre",1]]'
"""Coordinate reference system of what has none; as `SceneSource.crs` it lets any raster be opened, to be looked at."""

READERS = 4
"""Threads that read windows of a scene before its blocks are begun."""
AT_ONCE = 1 << 27
"""Bytes that they decode at once: fewer read where one piece of a file is large."""
TILES = 288 << 20
"""Bytes of decoded tiles that a process of blocks keeps at most."""
STRIP = 6144
"""Pixels that a strip is wide at most: the tiles at its sides are decoded for its neighbour, too."""


@dataclass(frozen=True)
class SceneSource:
    """Where a scene is, and how the user wants it read."""

    paths: tuple[str, ...]
    """One raster, several rasters, a product (a `.SAFE` folder or zip, a Landsat folder or tar) or a Zarr store."""
    bands: tuple[int | str, ...] | None = None
    """The files' own bands in the order wanted: 1-based numbers over all files, an alpha band counted too (named here
    it is data), or names (of the band, its common name or colour); None: every band that is not alpha."""
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
    told: tuple[tuple[float | None, float | None, float | None], ...] = ()
    """Scale, offset (both to reflectance) and nodata of each band of the files as a catalogue tells them; used where
    the files say nothing. Empty: no catalogue does."""
    extent: str | None = None
    """Which ground a scene of several grids covers, on the finest: "common", what all bands do, or "union"; None: all
    bands share one grid, and of a product of several grids one is read: Sentinel-2's 10 m bands, Landsat's 30 m."""
    mask: str | None = None
    """What hides pixels, which are then read as missing: "scl" or "qa_pixel" (layers of the product), or a raster."""
    mask_classes: tuple[str, ...] = ()
    """Names or numbers of the mask's classes that hide a pixel; none: the usual ones, of a raster every value but 0."""
    time: str | None = None
    """Which of a cube's times is read: its number from 1, or how its ISO 8601 text begins."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(local_path(path) for path in self.paths))
        object.__setattr__(self, "mask", self.mask and local_path(self.mask))
        object.__setattr__(self, "mask_classes", tuple(self.mask_classes))
        object.__setattr__(self, "told", tuple(tuple(facts) for facts in self.told))

    @property
    def mask_file(self) -> str | None:
        """The raster that is the mask; None where that is a layer of the product."""
        return None if self.mask is None or self.mask.lower() in LAYERS else self.mask


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
    nodata: float | None = None
    """Value that marks its missing pixels where it is stored; an output has one for all its bands."""
    flags: str | None = None
    """Why it must not be averaged (it holds classes or flags), None for an image."""


class Readable(Protocol):
    """What can be read by windows like a scene: one, or what a model makes of one."""

    @property
    def source(self) -> SceneSource: ...
    @property
    def grid(self) -> GeoGrid: ...
    @property
    def bands(self) -> tuple[Band, ...]: ...
    @property
    def coarse(self) -> Mapping[int, tuple[int, ...]]: ...
    @property
    def sensor(self) -> str | None: ...
    @property
    def sample(self) -> tuple[Region, ...]: ...
    def read(self, window: Window) -> Region: ...


@dataclass(frozen=True)
class Strips:
    """How the blocks of a scene are done whose tiles are slow to decode: strip by strip, each from top to bottom."""

    width: int
    """Pixels, whole blocks."""
    kept: int
    """Bytes of decoded tiles that a process keeps meanwhile, so that few are decoded twice."""

    def order(self, blocks: TileGrid, numbers: Iterable[int]) -> list[int]:
        """Return numbers of blocks in the order in which they are to be done."""
        return sorted(numbers, key=lambda number: (blocks[number].col // self.width, number))


@dataclass(frozen=True)
class Scene:
    """A raster as it was found; read with :meth:`read`."""

    source: SceneSource
    readers: tuple[tuple[Reader, int], ...]
    """For each band, the open file and the 1-based index in it."""
    alphas: tuple[tuple[Reader, int] | None, ...]
    """For each band, the alpha band that masks it."""
    alpha: tuple[Reader, int] | None
    """The alpha band that an output has too: the one that masks all bands."""
    grid: GeoGrid
    dtype: str
    bands: tuple[Band, ...]
    nodata: float | None
    """Value that marks missing pixels from here on: of the bands' own values the first."""
    mask_kind: str
    """"none", "nodata", "mask" (internal or side-car) or "alpha"; masks that differ by band are "nodata", the only kind
    that an output can have for each band."""
    tags: dict[str, str]
    """Metadata of the file."""
    tag_domains: dict[str, dict[str, str]]
    """Further metadata domains, e.g. IMAGERY."""
    notes: tuple[str, ...] = ()
    """What was assumed or left out: lines for people."""

    numbers: tuple[int, ...] = ()
    """Of the bands, as `SceneSource.bands` counts them."""
    hidden: tuple[int, ...] = ()
    """Of the alpha bands that are not among them."""
    placements: tuple[Placement, ...] = ()
    """Of each band, where its own pixels lie on the grid."""
    product: str = ""
    """What product it was recognized as, for people; empty for other files."""
    sensor: str | None = None
    """"sentinel-2" or "landsat", of a product."""
    mask: SceneMask | None = None
    """What else makes pixels missing: clouds and the like."""
    classes: tuple[ClassLayer, ...] = ()
    """Layers of classes and flags that are not among the bands."""
    times: tuple[str, ...] = ()
    """Of a cube, of which the scene is one: ISO 8601."""

    @property
    def name(self) -> str:
        """Short name for messages."""
        return file_name(self.source.paths[0])

    @property
    def masked(self) -> bool:
        """Whether a pixel of this scene can be without data."""
        return self.mask_kind != "none" or self.dtype == "float32"

    @property
    def guides(self) -> tuple[int, ...]:
        """0-based numbers of the bands whose own grid this is."""
        return tuple(i for i, placement in enumerate(self.placements) if placement.ratio == 1)

    @property
    def coarse(self) -> dict[int, tuple[int, ...]]:
        """0-based numbers of the bands of coarser grids, by how many times coarser these are."""
        ratios = sorted({p.ratio for p in self.placements if p.ratio > 1})
        return {r: tuple(i for i, p in enumerate(self.placements) if p.ratio == r) for r in ratios}

    @cached_property
    def _radiometry(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale = np.array([b.scale for b in self.bands], np.float32)[:, None, None]
        offset = np.array([b.offset for b in self.bands], np.float32)[:, None, None]
        return scale, offset

    def read_dn(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read stored values and the mask, missing pixels marked by the scene's nodata value in all bands.

        In a band that has another nodata value of its own, a valid pixel that has the scene's moves one step off.

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
        values, valid = self._read_stored(window)
        if self.nodata is not None:
            missing = np.asarray(self.nodata).astype(self.dtype)
            for band, plane, known in zip(self.bands, values, valid, strict=True):
                if repr(band.nodata) != repr(self.nodata):  # NaN is NaN here
                    plane[known & (plane == missing)] = beside(missing)
                    plane[~known] = missing
        return values, valid

    @cached_property
    def _together(self) -> list[tuple[Reader, list[int]]]:
        """Bands (0-based) that are read together: of one file and data type."""
        found: dict[tuple[int, str], list[int]] = {}
        for i, (reader, index) in enumerate(self.readers):
            found.setdefault((id(reader), reader.dtypes[index - 1]), []).append(i)
        return [(self.readers[members[0]][0], members) for members in found.values()]

    def _read_stored(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        values = np.empty((len(self.bands), *window.shape), self.dtype)
        valid = np.empty(values.shape, bool)
        for reader, members in self._together:
            planes, its = reader.read([self.readers[i][1] for i in members], window)
            for i, plane, known in zip(members, planes, its, strict=True):
                nodata = self.bands[i].nodata
                if nodata is not None and not np.isnan(nodata):
                    known = known & (plane != _of_type(nodata, plane.dtype))  # before anything is rounded
                values[i] = _as_float32(plane, known, nodata) if plane.dtype == np.float64 else plane
                valid[i] = known
        if self.dtype == "float32":
            valid &= np.isfinite(values)
        if self.mask is not None:
            for placement in dict.fromkeys(self.placements):
                hidden = self.mask.read_coarse(window, placement)
                if hidden.any():
                    valid[[i for i, its in enumerate(self.placements) if its == placement]] &= ~hidden
        for alpha in dict.fromkeys(a for a in self.alphas if a is not None):
            opaque = alpha[0].read([alpha[1]], window)[0][0] != 0
            valid[[i for i, a in enumerate(self.alphas) if a == alpha]] &= opaque
        return values, valid

    def hides(self, window: Window) -> bool:
        """Whether the mask hides a window wholly, so that it need not be read."""
        return self.mask is not None and bool(self.mask.read(window).all())

    def read_alpha(self, window: Window) -> NDArray[np.generic] | None:
        """Read the alpha band that an output has too, 0 where a mask hides the pixel; None if there is none."""
        if self.alpha is None:
            return None
        plane, known = (planes[0] for planes in self.alpha[0].read([self.alpha[1]], window))
        if self.mask is not None:
            known = known & ~self.mask.read(window)
        if plane.dtype == np.float64:
            plane = _as_float32(plane, plane != 0, 0.0)
        return np.where(known, plane, np.zeros_like(plane))  # a mask beside it counts too

    def read(self, window: Window) -> Region:
        """Read reflectance: ``DN * scale + offset`` in float32, per band; nothing is clipped."""
        values, valid = self._read_stored(window)
        scale, offset = self._radiometry
        return Region(window, values.astype(np.float32) * scale + offset, valid)

    @cached_property
    def sample(self) -> tuple[Region, ...]:
        """Reflectance of up to 16 windows of 256 pixels a side, always the same: what is found of a scene before any
        block is cut is found in these, which are read once. They begin with a whole pixel of every grid."""
        step = math.lcm(*(placement.ratio for placement in self.placements))
        return tuple(read_ahead(self, sample_windows(self.grid.shape, step)))

    def strips(self, block: tuple[int, int]) -> Strips | None:
        """Return in which strips blocks are to be done where tiles are slow to decode; None where they are not.

        Parameters
        ----------
        block : (int, int)
            Height and width of a block, pixels.
        """
        slow = [(*reader.slow_tiles[n - 1], i) for i, (reader, n) in enumerate(self.readers) if reader.slow_tiles]
        if not slow:
            return None
        a_pixel = sum(np.dtype(self.dtype).itemsize / self.placements[i].ratio ** 2 for *_, i in slow)
        rows = min(self.grid.height, max(block[0], *(height for height, *_ in slow)))
        tile = min(self.grid.width, max(width for _, width, _ in slow))

        def needed(width: int) -> int:
            # From the first block that touches a tile to the last one, three rows of blocks touch as many rows of
            # tiles, those beside the strip too, and a block of all bands comes in between.
            beside = min(2, -(-self.grid.width // width) - 1)
            return round(rows * (3 * (min(width, self.grid.width) + beside * tile) + 2 * tile) * a_pixel)

        widths = range(max(2, STRIP // block[1]) * block[1], block[1], -block[1])
        width = next((width for width in widths if needed(width) <= TILES), widths[-1])
        return Strips(width, min(TILES, needed(width)))

    @property
    def is_byte(self) -> bool:
        """Whether 0 to 255 are read as 0 to 1: of an 8-bit image where neither file nor user says otherwise."""
        return self.dtype == "uint8" and not self.bands[0].declared

    def describe(self) -> str:
        """Return one line for people: size, bands, data type, ground sample distance, CRS."""
        height, width = self.grid.shape
        sx, sy = self.grid.resolution
        return (
            f"{self.name}: {width} x {height} px, {len(self.bands)} bands, {self.dtype}, "
            f"{sx:g} x {sy:g} {self.grid.crs.units_factor[0]}, {crs_name(self.grid.crs)}"
        )


def read_ahead(scene: Readable, windows: Iterable[Window]) -> Iterator[Region]:
    """Yield windows of a scene in their order; of one that is read from files, several are read at once.

    What is slow to decode (JPEG 2000) or to come (from a server) is waited for once, not window by window.
    """
    threads = 1
    if isinstance(scene, Scene):
        largest = max(1, *(reader.chunk_bytes for reader, _ in scene.readers))
        threads = min(READERS, max(1, AT_ONCE // largest))
    return in_order(scene.read, windows, threads)


def _of_type(value: Any, dtype: Any) -> NDArray[np.generic]:
    with np.errstate(over="ignore"):
        return np.asarray(value).astype(dtype)


def _as_float32(plane: NDArray[np.generic], known: NDArray[np.bool_], nodata: float | None) -> NDArray[np.generic]:
    """Round float64 to float32: what is too large becomes infinite, and no known pixel becomes the nodata value."""
    made = _of_type(plane, np.float32)
    if nodata is not None:
        missing = _of_type(nodata, np.float32)
        made[known & np.isfinite(made) & (made == missing)] = beside(missing)
    return made


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


def no_crs() -> CRS:
    """Return the coordinate reference system of what has none: arrays."""
    return CRS.from_wkt(PIXELS)  # an empty one does not travel to workers
