"""Where a grid lies on the globe, in degrees."""

from __future__ import annotations

from dataclasses import dataclass

from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

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
