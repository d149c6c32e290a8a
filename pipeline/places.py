"""Where a grid lies on the globe, in degrees."""

from __future__ import annotations

from dataclasses import dataclass

from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.grids import GeoGrid


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
    try:
        return Place(*transform_bounds(grid.crs, "EPSG:4326", *grid.bounds))
    except RasterioError as error:
        raise SceneError(f"cannot tell where the scene lies: {error}") from None


def footprint_of(grid: GeoGrid) -> list[tuple[float, float]]:
    """Return the corners of a grid as longitude and latitude, from the upper left counter-clockwise on the ground.

    Raises
    ------
    SceneError
        If its coordinates cannot be turned into longitudes and latitudes.
    """
    corners = [grid.corners[name] for name in ("upper left", "lower left", "lower right", "upper right")]
    try:
        east, north = transform(grid.crs, "EPSG:4326", *zip(*corners, strict=True))
    except RasterioError as error:
        raise SceneError(f"cannot tell where the scene lies: {error}") from None
    ring = [(round(float(x), 7), round(float(y), 7)) for x, y in zip(east, north, strict=True)]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
    return ring if area >= 0 else [ring[0], *ring[:0:-1]]
