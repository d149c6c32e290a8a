"""Where a grid lies on the globe, in degrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
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
    """Return the box around a grid.

    Raises
    ------
    SceneError
        If its coordinates cannot be turned into longitudes and latitudes.
    """
    with _told(grid):
        return Place(*transform_bounds(grid.crs, "EPSG:4326", *grid.bounds))


def footprint_of(grid: GeoGrid) -> list[tuple[float, float]]:
    """Return the corners of a grid as longitude and latitude, from the upper left counter-clockwise on the ground.

    Raises
    ------
    SceneError
        If its coordinates cannot be turned into longitudes and latitudes.
    """
    corners = [grid.corners[name] for name in ("upper left", "lower left", "lower right", "upper right")]
    with _told(grid):
        east, north = transform(grid.crs, "EPSG:4326", *zip(*corners, strict=True))
    ring = [(round(float(x), 7), round(float(y), 7)) for x, y in zip(east, north, strict=True)]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
    return ring if area >= 0 else [ring[0], *ring[:0:-1]]


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
