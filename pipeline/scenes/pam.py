"""GDAL's sidecar ``NAME.aux.xml``: nodata, scale, offset and georeferencing of a raster. Statistics are not read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.grids import crs_of

ENDING = ".aux.xml"
MOST = 16 << 20
"""Bytes; a side-car with tables of attributes may be large, but not this large."""


@dataclass(frozen=True)
class BandFacts:
    """What is said of one band; None: nothing."""

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None


@dataclass(frozen=True)
class SideCar:
    """Facts that decide pixels or place."""

    bands: dict[int, BandFacts]
    """By 1-based number."""
    transform: Affine | None
    crs: CRS | None
    has_gcps: bool

    @property
    def key(self) -> str:
        """Text that is the same for the same facts; empty if there are none."""
        crs = self.crs.to_wkt() if self.crs else None
        facts = (sorted(self.bands.items()), self.transform and tuple(self.transform)[:6], crs, self.has_gcps)
        return repr(facts) if any(facts) else ""


def read_sidecar(raster: Path) -> SideCar | None:
    """Return the facts of the side-car of a raster; None if there is none.

    Raises
    ------
    SceneError
        If it is no XML that can be trusted: a file that decides pixels is not passed over.
    """
    path = raster.with_name(raster.name + ENDING)
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MOST:
            raise SceneError(f"{path} is larger than any side-car of a raster: remove it")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if not path.parent.is_dir() or error.errno in (36, 2):  # a name too long to have anything beside it
            return None
        raise SceneError(f"cannot read {path}: {error.strerror}") from None
    if "<!ENTITY" in text or "<!DOCTYPE" in text:
        raise SceneError(f"{path} defines XML entities, which side-cars never do: remove it")
    try:
        root = ElementTree.fromstring(text)
        return _facts(root)
    except (ElementTree.ParseError, ValueError) as error:
        raise SceneError(f"cannot read {path}, which may decide pixels: {error}; repair or remove it") from None


def _facts(root: ElementTree.Element) -> SideCar:
    bands = {}
    for node in root.iter("PAMRasterBand"):
        facts = BandFacts(*(_number(node.findtext(tag)) for tag in ("NoDataValue", "Scale", "Offset")))
        if facts != BandFacts():
            bands[int(node.get("band", "0"))] = facts
    place = root.findtext("GeoTransform")
    transform = Affine.from_gdal(*(float(v) for v in place.split(","))) if place else None
    crs = root.findtext("SRS")
    try:
        found = crs_of(crs.strip()) if crs and crs.strip() else None
    except CRSError:
        raise ValueError("its SRS is no coordinate reference system") from None
    return SideCar(bands, transform, found, root.find("GCPList") is not None)


def _number(text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    text = text.strip()
    special = re.fullmatch(r"(?i)([-+]?)(?:1\.#)?(nan|ind|qnan|inf)", text)
    if special:
        return float("nan") if special[2].lower() != "inf" else float(special[1] + "inf")
    return float(text)
