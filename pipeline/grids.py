"""Where pixels are on Earth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.tiles import Window


def crs_of(text: object) -> CRS:
    """Return the coordinate reference system that a text, a number or a table of attributes names.

    Raises
    ------
    CRSError, ValueError, TypeError
        If there is none; PROJ, which writes its own line on standard error for that, is kept quiet.
    """
    with rasterio.Env():
        return CRS.from_user_input(text)


EDGE = 1e-4
"""Part of a pixel by which bounds may lie beyond its edge and still end there: numbers are typed rounded."""
DEGREE = 111_320
"""Metres of a degree of latitude."""


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
    def metres(self) -> float:
        """Ground sample distance along columns, which of degrees does not depend on the latitude, metres."""
        return self.resolution[1] * (DEGREE if self.crs.is_geographic else float(self.crs.units_factor[1]))

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

    def times_finer(self, coarse: GeoGrid) -> int | None:
        """Return how many whole times finer than another grid of the same place this one is, None if it is none."""
        factor = round(self.width / coarse.width)
        return factor if factor >= 1 and coarse.scaled(factor).same_as(self) else None

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

    def window_of(self, bounds: tuple[float, float, float, float], crs: str | None = None) -> Window:
        """Return the smallest window that covers bounds, cut at the edges; empty where they do not meet.

        Parameters
        ----------
        bounds : (float, float, float, float)
            As `bounds`. Where they lie on the edge of a pixel, but for rounding, the window ends there.
        crs : str, optional
            What they are in; default: the grid's own.

        Raises
        ------
        UsageError
            If there is no such coordinate reference system, or the bounds have no place in this one.
        """
        if crs is not None:
            try:
                given = crs_of(crs)
            except (RasterioError, ValueError):
                raise UsageError(f"--bbox-crs must be a CRS such as EPSG:4326, got {crs!r}") from None
            try:
                bounds = transform_bounds(given, self.crs, *bounds, densify_pts=21)
            except (RasterioError, ValueError) as error:
                raise UsageError(f"bounds in {crs} have no place in the scene's CRS: {error}") from None
            if not all(map(math.isfinite, bounds)):
                raise UsageError(f"bounds in {crs} have no place in the scene's CRS: is that what they are in?")
        x0, y0, x1, y1 = bounds
        cols, rows = zip(*(~self.transform @ (x, y) for x in (x0, x1) for y in (y0, y1)), strict=True)
        first = [math.floor(min(along) + EDGE) for along in (rows, cols)]
        last = [math.ceil(max(along) - EDGE) for along in (rows, cols)]
        return Window.from_bounds(*first, *last).clip(self.shape)

    def same_as(self, other: GeoGrid, tolerance: float = 1e-3) -> bool:
        """Whether both put every pixel at the same place, within `tolerance` of a pixel."""
        if self.shape != other.shape or self.crs != other.crs:
            return False
        back = ~self.transform
        pairs = zip(self.corners.values(), other.corners.values(), strict=True)
        return all(abs(a - b) <= tolerance for mine, its in pairs for a, b in zip(back @ mine, back @ its, strict=True))
