"""Where pixels are on Earth."""

from __future__ import annotations

from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.tiles import Window


@dataclass(frozen=True)
class GeoGrid:
    """A pixel grid: shape, affine transform and coordinate reference system.

    Rotated, sheared and south-up transforms are grids like any other: nothing here assumes a north-up raster.
    """

    crs: CRS
    """Coordinate reference system."""
    transform: Affine
    """Maps (column, row) of pixel corners to coordinates of the CRS."""
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(f"a grid needs at least one pixel, got {self.height} x {self.width}")
        if self.transform.is_degenerate:
            raise UsageError(
                f"the affine transform {tuple(self.transform)[:6]} maps the grid onto a line or a point: "
                "pixels must have a width and a height"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def is_rectilinear(self) -> bool:
        """Whether rows and columns run along the axes of the CRS, so that 1-D x and y coordinates exist."""
        return self.transform.b == 0 and self.transform.d == 0

    @property
    def resolution(self) -> tuple[float, float]:
        """Ground sample distance along rows and columns, in units of the CRS."""
        t = self.transform
        return (t.a**2 + t.d**2) ** 0.5, (t.b**2 + t.e**2) ** 0.5

    @property
    def corners(self) -> dict[str, tuple[float, float]]:
        """Coordinates of the four outer corners, named as gdalinfo does."""
        at = {"upper left": (0, 0), "lower left": (0, self.height)}
        at |= {"upper right": (self.width, 0), "lower right": (self.width, self.height)}
        return {name: self.transform @ corner for name, corner in at.items()}

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x, largest y of the four corners."""
        xs, ys = zip(*self.corners.values(), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def scaled(self, factor: int) -> GeoGrid:
        """Return the grid `factor` times as fine: same upper-left corner, same CRS."""
        return GeoGrid(self.crs, self.transform @ Affine.scale(1 / factor), self.height * factor, self.width * factor)

    def coarsened(self, factor: int) -> GeoGrid:
        """Return the grid `factor` times as coarse; the last row and column may reach beyond this one."""
        shape = -(-self.height // factor), -(-self.width // factor)
        return GeoGrid(self.crs, self.transform @ Affine.scale(factor), *shape)

    def window(self, window: Window) -> GeoGrid:
        """Return the grid of a window of this one."""
        shift = Affine.translation(window.col, window.row)
        return GeoGrid(self.crs, self.transform @ shift, window.height, window.width)

    def same_as(self, other: GeoGrid, tolerance: float = 1e-3) -> bool:
        """Whether both put every pixel at the same place, within `tolerance` of a pixel."""
        if self.shape != other.shape or self.crs != other.crs:
            return False
        back = ~self.transform
        pairs = zip(self.corners.values(), other.corners.values(), strict=True)
        return all(abs(a - b) <= tolerance for mine, its in pairs for a, b in zip(back @ mine, back @ its, strict=True))
