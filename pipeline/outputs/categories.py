"""Classes of a map: numbers with names and colours, in the raster and beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

MISSING = 255
"""Value of a class map's pixels without data."""
MAX_CLASSES = 250

COLORS = {
    "annualcrop": (230, 190, 70), "crop": (230, 190, 70), "cropland": (230, 190, 70), "agriculture": (230, 190, 70),
    "forest": (30, 105, 50), "tree": (30, 105, 50), "trees": (30, 105, 50), "tree canopy": (30, 105, 50),
    "herbaceousvegetation": (150, 190, 90), "herbaceous": (150, 190, 90), "low vegetation": (150, 200, 90),
    "highway": (90, 90, 95), "road": (90, 90, 95), "roads": (90, 90, 95),
    "industrial": (150, 60, 130), "developed": (200, 60, 60), "impervious": (170, 60, 80),
    "pasture": (190, 220, 120), "grass": (190, 220, 120), "permanentcrop": (170, 110, 40),
    "residential": (220, 80, 70), "river": (70, 130, 220), "sealake": (20, 60, 150), "water": (30, 80, 190),
    "shrub": (165, 150, 90), "shrubland": (165, 150, 90), "barren": (190, 175, 155), "wetland": (90, 160, 160),
    "sediment": (205, 185, 150),
}  # fmt: skip
"""Colours that maps of such classes usually have; other classes get one of `OTHERS`."""
OTHERS = (
    (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0),
    (166, 86, 40), (247, 129, 191), (120, 120, 120), (0, 170, 170), (200, 200, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Category:
    """One class of a map; its value is its place in the list."""

    name: str
    color: tuple[int, int, int]
    """Red, green, blue, 0 to 255."""


def categories_of(names: Sequence[str]) -> tuple[Category, ...]:
    """Return classes with colours: usual ones for well-known names, different ones for the others."""
    others = (color for color in OTHERS * (len(names) // len(OTHERS) + 1))
    return tuple(Category(name, COLORS.get(name.lower()) or next(others)) for name in names)


def colormap(categories: Sequence[Category]) -> dict[int, tuple[int, int, int, int]]:
    """Return value to (red, green, blue, alpha), as rasterio writes it; what has no data is transparent."""
    return {i: (*c.color, 255) for i, c in enumerate(categories)} | {MISSING: (0, 0, 0, 0)}


def pam_xml(categories: Sequence[Category]) -> str:
    """Return GDAL's ``.aux.xml``: names and a raster attribute table, which a GeoTIFF has no place for."""
    names = "".join(f"<Category>{escape(c.name)}</Category>" for c in categories)
    # usage codes of GDAL's attribute tables: 5 value, 2 name, 6-8 red, green, blue
    fields = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    columns = "".join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(fields)
    )
    rows = "".join(
        f'<Row index="{i}"><F>{i}</F><F>{escape(c.name)}</F>{"".join(f"<F>{part}</F>" for part in c.color)}</Row>'
        for i, c in enumerate(categories)
    )
    table = f'<GDALRasterAttributeTable tableType="thematic">{columns}{rows}</GDALRasterAttributeTable>'
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames>{table}</PAMRasterBand>'
    return f"<PAMDataset>{band}</PAMDataset>\n"
