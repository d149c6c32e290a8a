"""Parts of a grid of any shape: geometries as GeoJSON or WKT, and which pixels they touch."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # transform() lets GDAL's own errors through
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid, crs_of
from scenelift.pipeline.tiles import Window

DEGREES = "EPSG:4326"
"""What GeoJSON is in, unless it says otherwise (RFC 7946, 4)."""
MOST = 32 << 20
"""Bytes of a file with a geometry."""
STEPS = 512
"""Along a geometry's longer side, lines are followed by so many points into another CRS."""
SNAP = 4096
"""Parts of a pixel to which corners are rounded: numbers are typed rounded, and edges of pixels are meant."""
SLIVER = 1 / (2 * SNAP)
"""Part of a pixel that an area must reach into it to touch it: neighbours that share an edge with it are not."""
_WKT = re.compile(
    r"\s*(?:SRID=(\d+);)?\s*((?:MULTI)?(?:POINT|LINESTRING|POLYGON)|GEOMETRYCOLLECTION)\s*[ZM]*\s*(?:\(|EMPTY)", re.I
)


def read_geometry(given: str) -> tuple[str, str | None]:
    """Return a geometry as WKT, and the CRS that it names; None: none.

    Parameters
    ----------
    given : str
        GeoJSON (a geometry, a feature or a collection of them), WKT, or the name of a file that holds either.

    Raises
    ------
    UsageError
        If there is no such file, or it holds no geometry.
    """
    what = "--geometry"
    if not (given.lstrip().startswith("{") or _WKT.match(given)):
        what, given = f"--geometry {given}", _read(given)
    try:
        if match := _WKT.match(given):
            shape = shapely.from_wkt(given[match.start(2) :])
            crs = match[1] and f"EPSG:{match[1]}"
        else:
            data = json.loads(given)
            shape = shapely.geometrycollections([shapely.from_geojson(json.dumps(one)) for one in _parts(data)])
            crs = _crs_of(data)
    except (shapely.GEOSException, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{what} is neither GeoJSON nor WKT ({reason}); ogr2ogr -f GeoJSON OUT IN converts other files"
        ) from None
    if shape.is_empty:
        raise UsageError(f"{what} is empty: it has no place")
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise UsageError(f"{what} has coordinates that are no finite numbers")
    return shapely.to_wkt(shapely.force_2d(shape), rounding_precision=-1), crs


def degrees_of(given: str) -> str:
    """Return a geometry, given as to `read_geometry`, as WKT in degrees; WKT without a CRS is in degrees."""
    wkt, crs = read_geometry(given)
    return str(_reprojected(shapely.from_wkt(wkt), crs or DEGREES, CRS.from_epsg(4326)).wkt)


def bounds_of(wkt: str) -> tuple[float, float, float, float]:
    """Return smallest x and y, largest x and y of a geometry."""
    west, south, east, north = shapely.from_wkt(wkt).bounds
    return float(west), float(south), float(east), float(north)


def touches(wkt: str, boxes: list[tuple[float, float, float, float]]) -> bool:
    """Whether a geometry touches any of some boxes, each its bounds."""
    shape = shapely.make_valid(shapely.from_wkt(wkt))
    return any(shapely.intersects(shape, shapely.box(*box)) for box in boxes)


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MOST + 1)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UsageError(f"--geometry {name[:200]}: {reason}; name a file of GeoJSON or WKT, or give either") from None
    if len(content) > MOST:
        raise UsageError(f"--geometry {name} has more than {MOST >> 20} MB: simplify it first (ogr2ogr -simplify)")
    return content.decode("utf-8-sig", errors="replace")


def _parts(data: Any) -> Iterator[Any]:
    """Yield the geometries of GeoJSON; features may have none."""
    if data["type"] == "FeatureCollection":
        for feature in data["features"]:
            yield from _parts(feature)
    elif data["type"] == "Feature":
        if data["geometry"] is not None:
            yield data["geometry"]
    else:
        yield data


def _crs_of(data: dict[str, Any]) -> str:
    """Return the CRS that a member names, as GeoJSON had it before RFC 7946 and programs still write it."""
    return DEGREES if data.get("crs") is None else str(data["crs"]["properties"]["name"])


@dataclass(frozen=True)
class Outline:
    """A part of a grid: the pixels that a geometry touches; small and picklable."""

    wkb: bytes
    """In pixels of the grid, columns and rows from its corner; nothing of it lies beyond."""
    shape: tuple[int, int]
    """Height and width of the grid."""

    @property
    def digest(self) -> str:
        """What tells one from another."""
        return hashlib.sha256(self.wkb).hexdigest()

    @property
    def window(self) -> Window:
        """The smallest window that covers it."""
        left, top, right, bottom = shapely.from_wkb(self.wkb).bounds
        row, col = math.floor(top), math.floor(left)
        # a point or a line on the edge of pixels belongs to those behind
        stops = max(math.ceil(bottom), row + 1), max(math.ceil(right), col + 1)
        return Window.from_bounds(row, col, *stops).clip(self.shape)

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of a window of the grid it touches, (height, width); the same in every window.

        Squares that it covers are filled, those that it meets are cut into four, down to pixels.
        """
        areas, others = _prepared(self.wkb)
        found = np.zeros(window.shape, bool)
        side = 1 << (max(window.shape) - 1).bit_length()
        rows, cols = np.array([window.row]), np.array([window.col])
        while rows.size:
            ends = cols + side, rows + side
            met = shapely.intersects(areas, shapely.box(cols + SLIVER, rows + SLIVER, *(e - SLIVER for e in ends)))
            met |= shapely.intersects(others, shapely.box(cols, rows, *(e - SLIVER for e in ends)))
            full = met & ((side == 1) | shapely.covers(areas, shapely.box(cols, rows, *ends)))
            for row, col in zip(rows[full] - window.row, cols[full] - window.col, strict=True):
                found[row : row + side, col : col + side] = True
            side //= 2
            rows, cols = (
                np.concatenate([at + step for step in steps])
                for at, steps in ((rows[met & ~full], (0, 0, side, side)), (cols[met & ~full], (0, side, 0, side)))
            )
            within = (rows < window.stop_row) & (cols < window.stop_col)
            rows, cols = rows[within], cols[within]
        return found


@functools.lru_cache(maxsize=4)
def _prepared(wkb: bytes) -> tuple[Any, Any]:
    """Return what has an area, and the lines and points."""
    parts = [shapely.from_wkb(wkb)]
    while any(hasattr(part, "geoms") for part in parts):
        parts = [inner for part in parts for inner in getattr(part, "geoms", [part])]
    areas = shapely.union_all([part for part in parts if shapely.get_dimensions(part) == 2])
    others = shapely.geometrycollections([part for part in parts if shapely.get_dimensions(part) in (0, 1)])
    others = shapely.union_all(others)
    shapely.prepare([areas, others])
    return areas, others


@functools.lru_cache(maxsize=4)
def outline_on(grid: GeoGrid, wkt: str, crs: str | None = None) -> Outline:
    """Return what a geometry covers of a grid.

    Parameters
    ----------
    grid : GeoGrid
    wkt : str
    crs : str, optional
        What it is in; default: the grid's own.

    Raises
    ------
    UsageError
        If there is no such CRS, it has no place in the grid's, or does not meet the grid.
    """
    shape = shapely.from_wkt(wkt)
    if crs is not None:
        shape = _reprojected(shape, crs, grid.crs)
    to_pixels = ~grid.transform
    a, b, c, d, e, f = tuple(to_pixels)[:6]
    turned = shapely.transform(shape, lambda at: at @ np.array([[a, d], [b, e]]) + (c, f))
    snapped = shapely.make_valid(shapely.transform(turned, lambda at: np.round(at * SNAP) / SNAP))
    met = shapely.intersection(snapped, shapely.box(0, 0, grid.width, grid.height))
    found = None if met.is_empty else Outline(shapely.to_wkb(met, byte_order=1), grid.shape)
    if found is None or not found.window.size:
        bounds = ",".join(f"{number:.10g}" for number in grid.bounds)
        place = "in the scene's CRS" if crs is None else f"in {crs}"
        raise UsageError(
            f"--geometry, taken to be {place}, does not meet the scene, whose bounds in its CRS are {bounds}"
        )
    return found


def _reprojected(shape: Any, crs: str, to: CRS) -> Any:
    try:
        given = crs_of(crs)
    except (RasterioError, ValueError):
        raise UsageError(f"--geometry: there is no CRS {crs!r}; name one with --bbox-crs EPSG:…") from None
    west, south, east, north = shape.bounds
    if given.is_geographic and (max(-west, east) > 360 or max(-south, north) > 90):
        raise UsageError(
            f"--geometry in {crs} has coordinates that are no degrees, such as {west:.10g} {south:.10g}: "
            "name their CRS (a crs member in GeoJSON, SRID=…; before WKT; enhance has --bbox-crs)"
        )
    if given == to:
        return shape
    if step := max(east - west, north - south) / STEPS:
        shape = shapely.segmentize(shape, step)
    try:
        xs, ys = transform(given, to, *shapely.get_coordinates(shape).T)
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        raise UsageError(f"--geometry in {crs} has no place in {_name(to)}: {error}") from None
    there = np.column_stack([xs, ys])
    if not np.isfinite(there).all():
        raise UsageError(f"--geometry in {crs} has no place in {_name(to)}: cut it to the scene first")
    return shapely.set_coordinates(shape, there)


def _name(crs: CRS) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else "the scene's CRS"
