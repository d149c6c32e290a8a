"""Where a grid lies on the globe, in degrees."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # transform() lets GDAL's own errors through
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform, transform_bounds

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.tiles import Window


@dataclass(frozen=True)
class Place:
    """A box of longitudes and latitudes, degrees east and north (WGS 84)."""

    west: float
    south: float
    east: float
    north: float

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle; a box across the date line has its middle there."""
        east = self.east if self.east >= self.west else self.east + 360
        longitude = (self.west + east) / 2
        return (longitude + 180) % 360 - 180, (self.south + self.north) / 2


def place_of(grid: GeoGrid) -> Place:
    """Return the box around a grid; one across the date line has west > east (RFC 7946, 5.2).

    Raises
    ------
    SceneError
        If its coordinates cannot be turned into longitudes and latitudes.
    """
    with _told(grid):
        west, south, east, north = transform_bounds(grid.crs, "EPSG:4326", *grid.bounds)
    if max(abs(west), abs(east)) > 180:  # longitudes from 0 to 360
        if east - west >= 360:
            return Place(-180.0, south, 180.0, north)
        west, east = _turned(west), _turned(east)
        west, east = (-180.0 if west == 180 else west), (180.0 if east == -180 else east)
    return Place(west, south, east, north)


def footprint_of(grid: GeoGrid) -> list[tuple[float, float]]:
    """Return the corners of a grid as longitude and latitude, from the upper left counter-clockwise on the ground.

    Longitudes are from -180 to 180, so those of a scene across the date line jump.

    Raises
    ------
    SceneError
        If its coordinates cannot be turned into longitudes and latitudes.
    """
    corners = [(_turned(x) if abs(x) > 180 else x, y) for x, y in _corners(grid)]
    return [(round(x, 7), round(y, 7)) for x, y in corners]


def geometry_of(grid: GeoGrid) -> dict[str, Any]:
    """Return the footprint as GeoJSON: cut in two at the date line, around the pole where it holds one.

    Raises
    ------
    SceneError
        If its coordinates cannot be turned into longitudes and latitudes.
    """
    lon, lat = _outline(grid)
    if abs(lon[-1] - lon[0]) > 180:
        return _as_geojson(shapely.Polygon(_around_pole(lon, lat)))
    ring = shapely.make_valid(shapely.Polygon(_corners(grid)))
    first = math.floor((ring.bounds[0] + 180) / 360)
    if ring.bounds[2] - ring.bounds[0] >= 360:
        return _as_geojson(shapely.box(-180, ring.bounds[1], 180, ring.bounds[3]))
    if ring.bounds[2] <= 360 * first + 180:
        return _as_geojson(_shifted(ring, first))
    turns = (first, first + 1)
    halves = [_shifted(ring & shapely.box(360 * n - 180, -90, 360 * n + 180, 90), n) for n in turns]
    return _as_geojson(shapely.union_all(halves))


def _shifted(shape: shapely.Geometry, turns: int) -> shapely.Geometry:
    return shapely.transform(shape, lambda at: at - (360 * turns, 0))


def _as_geojson(shape: shapely.Geometry) -> dict[str, Any]:
    """Return a shape as GeoJSON: outer rings counter-clockwise, seven decimals."""
    rounded = shapely.transform(shapely.orient_polygons(shape), lambda at: np.round(at, 7))
    found: dict[str, Any] = json.loads(shapely.to_geojson(rounded))
    return found


def _turned(longitude: float) -> float:
    return (longitude + 180) % 360 - 180


EDGE = 20
"""Points along each edge that longitudes are followed by, so that none jumps by half the globe."""


def _outline(grid: GeoGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitudes, which do not jump at the date line, and latitudes along the edges: UL, LL, LR, UR, UL."""
    share = np.arange(EDGE) / EDGE
    zero, one = np.zeros(EDGE), np.ones(EDGE)
    cols = np.append(np.concatenate([zero, share, one, 1 - share]), 0.0) * grid.width
    rows = np.append(np.concatenate([share, one, 1 - share, zero]), 0.0) * grid.height
    t = grid.transform
    xs, ys = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    with _told(grid):
        east, north = transform(grid.crs, "EPSG:4326", xs, ys)
    return np.unwrap(np.asarray(east, float), period=360), np.asarray(north, float)


def _corners(grid: GeoGrid) -> list[tuple[float, float]]:
    """Return the corners from the upper left counter-clockwise on the ground; longitudes do not jump."""
    lon, lat = _outline(grid)
    ring = [(float(x), float(y)) for x, y in zip(lon[:-1:EDGE], lat[:-1:EDGE], strict=True)]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
    return ring if area >= 0 else [ring[0], *ring[:0:-1]]


def _around_pole(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return a ring of all longitudes, from an outline around a pole to that pole."""
    pole = 90.0 if lat.mean() > 0 else -90.0
    points = sorted({(_turned(x), y) for x, y in zip(lon[:-1].tolist(), lat[:-1].tolist(), strict=True)})
    seam = float(np.interp(180.0, [points[-1][0], points[0][0] + 360], [points[-1][1], points[0][1]]))
    ring = [(-180.0, seam), *(p for p in points if abs(p[0]) < 180), (180.0, seam), (180.0, pole), (-180.0, pole)]
    return ring if pole > 0 else ring[::-1]


def boxes_of(grid: GeoGrid, windows: Sequence[Window]) -> NDArray[np.float64]:
    """Return the boxes around windows of a grid: (n, 4) west, south, east, north, degrees (WGS 84).

    Raises
    ------
    SceneError
        If its coordinates cannot be turned into longitudes and latitudes.
    """
    if not windows:
        return np.zeros((0, 4))
    cols = np.array([(w.col, w.stop_col, w.stop_col, w.col) for w in windows], float)
    rows = np.array([(w.row, w.row, w.stop_row, w.stop_row) for w in windows], float)
    t = grid.transform
    xs, ys = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    with _told(grid):
        east, north = transform(grid.crs, "EPSG:4326", xs.ravel(), ys.ravel())
    lon, lat = np.reshape(east, xs.shape), np.reshape(north, xs.shape)
    return np.stack([lon.min(1), lat.min(1), lon.max(1), lat.max(1)], axis=1)


@contextmanager
def _told(grid: GeoGrid) -> Iterator[None]:
    try:
        yield
    except (RasterioError, CRSError, CPLE_BaseError):
        name = grid.crs.to_wkt().split('"')[1]
        raise SceneError(
            f"longitudes and latitudes cannot be told from the coordinate reference system {name!r}; "
            "give the scene the one it was made in"
        ) from None
