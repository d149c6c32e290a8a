"""How a scene is read, and which part of it: what commands on scenes have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.settings.parsing import INPUT, numbers, split_names

if TYPE_CHECKING:
    from scenelift.pipeline.grids import GeoGrid
    from scenelift.pipeline.outlines import Outline
    from scenelift.pipeline.tiles import Window

MASK = (
    "Read clouds and the like as missing: scl (Sentinel-2 L2A), qa_pixel (Landsat), clouds (found in the pixels), "
    "or a raster whose non-zero pixels are hidden."
)
MASK_CLASSES = (
    "Classes of the mask that are hidden, by name or number: cloud,shadow. Default: cloud, cirrus, shadow, snow, "
    "saturated, nodata."
)
"""What ``--mask`` and ``--mask-classes`` take."""


@dataclass(frozen=True)
class Reading:
    """How the numbers of a scene are read; see `SceneSource`."""

    bands: str | None = option(
        None, "Bands in the order wanted, by number or name: 4,3,2 or B04,B03,B02 or red,green,blue.", panel=INPUT
    )
    scale: float | None = option(None, "Reflectance per DN, if the file does not say (or is wrong).", panel=INPUT)
    offset: float | None = option(
        None, "Added to the DN before scaling; -1000 for Sentinel-2 L2A since 2022.", panel=INPUT
    )
    nodata: float | None = option(None, "Value of missing pixels, if the file does not say.", panel=INPUT)
    crs: str | None = option(None, "Coordinate reference system for a raster without one.", panel=INPUT)
    extent: str | None = option(
        None, "Of several grids, for a sharpener: common (default; what all of them cover) or union.", panel=INPUT
    )
    mask: str | None = option(None, MASK, panel=INPUT)
    mask_classes: tuple[str, ...] = option((), MASK_CLASSES, panel=INPUT, parse=split_names)
    time: str | None = option(
        None, "Of a cube of several times: which, by number from 1 or as it begins: 2024-05-01.", panel=INPUT
    )


def _parse_window(text: str) -> tuple[int, ...]:
    like = "COL,ROW,WIDTH,HEIGHT in whole pixels, such as 512,0,256,256"
    return numbers("--window", like, int, 4, text, text.replace(",", " ").split())


def _parse_bbox(text: str) -> tuple[float, ...]:
    like = "W,S,E,N, four numbers in the scene's CRS or that of --bbox-crs"
    return numbers("--bbox", like, float, 4, text, text.replace(",", " ").split())


@dataclass(frozen=True)
class Crop:
    """A part of a scene: what is made of it equals that part of the whole output, bit for bit.

    Whatever is found of a scene (its blur, its noise, the gain to expect) is found in the whole scene all the same.
    """

    window: tuple[int, int, int, int] | None = option(
        None, "Make this part only: COL,ROW,WIDTH,HEIGHT, input pixels.", panel=INPUT, parse=_parse_window
    )
    bbox: tuple[float, float, float, float] | None = option(
        None, "Make this part only: W,S,E,N in the scene's CRS.", panel=INPUT, parse=_parse_bbox
    )
    geometry: str | None = option(
        None,
        "Make this part only: a file of GeoJSON or WKT, or either itself; pixels that it does not touch are missing. "
        "GeoJSON is in degrees, WKT in the scene's CRS.",
        panel=INPUT,
    )
    """As text; a file is read at once, and what it holds is kept."""
    bbox_crs: str | None = option(None, "CRS of --bbox or --geometry, if another: EPSG:4326 for degrees.", panel=INPUT)

    def __post_init__(self) -> None:
        parts = [name for name in ("window", "bbox", "geometry") if getattr(self, name) is not None]
        if len(parts) > 1:
            raise UsageError(f"--{parts[0]} and --{parts[1]} name one part each: leave one of them out")
        if self.bbox_crs is not None and parts not in (["bbox"], ["geometry"]):
            raise UsageError("--bbox-crs says what --bbox or --geometry is in: give one of them too")
        if self.geometry is not None:
            from scenelift.pipeline.outlines import read_geometry

            wkt, crs = read_geometry(str(self.geometry))
            object.__setattr__(self, "geometry", wkt)
            object.__setattr__(self, "bbox_crs", self.bbox_crs or crs)
        if self.window is not None and (min(self.window[:2]) < 0 or min(self.window[2:]) < 1):
            wanted = "must begin at column and row 0 or later and have at least one pixel"
            raise UsageError(f"--window {wanted}, got {_listed(self.window)}")
        if self.bbox is not None and not (self.bbox[0] < self.bbox[2] and self.bbox[1] < self.bbox[3]):
            raise UsageError(f"--bbox must be W,S,E,N with W below E and S below N, got {_listed(self.bbox)}")

    def on(self, grid: GeoGrid) -> Window | None:
        """Return the window of a scene's grid that is meant; None: all of it.

        Raises
        ------
        UsageError
            If it does not lie in the scene.
        """
        if self.bbox is not None:
            found = grid.window_of(self.bbox, self.bbox_crs)
            if not found.size:
                where = f"the scene, whose bounds in its CRS are {_listed(grid.bounds)}"
                raise UsageError(f"--bbox {_listed(self.bbox)} does not meet {where}")
        elif outline := self.outline_on(grid):
            found = outline.window
        elif self.window is not None:
            from scenelift.pipeline.tiles import Window

            col, row, width, height = self.window
            found = Window(row, col, height, width)
            if found.clip(grid.shape) != found:
                size = f"{grid.width} columns and {grid.height} rows"
                raise UsageError(f"--window {_listed(self.window)} reaches beyond the scene, which has {size}")
        else:
            return None
        return None if found.shape == grid.shape else found

    def outline_on(self, grid: GeoGrid) -> Outline | None:
        """Return the pixels of a scene's grid that the geometry touches; None without one. Raises as `on` does."""
        if self.geometry is None:
            return None
        from scenelift.pipeline.outlines import outline_on

        return outline_on(grid, self.geometry, self.bbox_crs)


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:.10g}" for number in numbers)
