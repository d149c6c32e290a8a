"""Sentinel-2 in EOPF's Zarr layout: ``/measurements/reflectance/r10m|r20m|r60m/bXX``, a group for each grid.

Scale, offset and fill value stand in the attributes of each array, its place in ``proj:epsg`` (or ``proj:code``, or a
CF grid mapping) and ``proj:transform``. GeoZarr stores made from it have the same groups.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.scenes.products.bands import SENTINEL2
from scenelift.pipeline.scenes.products.kinds import Layer, Product, ProductBand
from scenelift.pipeline.scenes.products.safe import NEEDS_SHARPENER, RESOLUTIONS

BANDS = "measurements/reflectance"
SCL = "conditions/mask/l2a_classification"


def is_eopf(path: str) -> bool:
    """Whether a folder is a store of that layout."""
    return (Path(path) / BANDS / "r10m").is_dir()


def find_eopf(path: str, every: bool) -> Product:
    """Find the bands of a store, each at the resolution it was taken in.

    Parameters
    ----------
    path : str
    every : bool
        Whether all bands are wanted, or those of 10 m.

    Raises
    ------
    SceneError
        If it lacks a band.
    """
    wanted = [band for band, metres in RESOLUTIONS.items() if every or metres == 10]
    bands = []
    for band in wanted:
        group = Path(path, BANDS, f"r{RESOLUTIONS[band]}m")
        if not (group / band.lower()).is_dir():
            raise SceneError(f"{path} has no {BANDS}/{group.name}/{band.lower()}: fetch the product again")
        bands.append(ProductBand(band, Layer(str(group), variable=band.lower()), spectral=SENTINEL2[band]))
    layers = [Path(path, SCL, f"r{metres}m") for metres in (20, 60)]
    found = next((Layer(str(group), variable="scl") for group in layers if (group / "scl").is_dir()), None)
    level = "Level-2A" if (Path(path) / SCL).is_dir() else "Level-1C"
    return Product(
        kind=f"Sentinel-2 {level} (EOPF Zarr)",
        bands=tuple(bands),
        tags=_tags(path),
        masks={"scl": found} if found else {},
        others={} if every else {b: NEEDS_SHARPENER for b in RESOLUTIONS if b not in wanted},
        sensor="sentinel-2",
    )


def _tags(path: str) -> dict[str, str]:
    """Return acquisition metadata of the store's own STAC item; nothing if it has none."""
    told: Any = {}
    for name in (".zattrs", "zarr.json"):
        try:
            told = json.loads(Path(path, name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        told = told.get("attributes", told) if isinstance(told, dict) else {}
        break
    item = told.get("stac_discovery") if isinstance(told, dict) else None
    facts = item.get("properties") if isinstance(item, dict) else None
    if not (isinstance(item, dict) and isinstance(facts, dict)):
        return {}
    found = {
        "PRODUCT_URI": item.get("id"),
        "SPACECRAFT_NAME": facts.get("platform"),
        "ACQUISITIONDATETIME": facts.get("datetime") or facts.get("start_datetime"),
        "CLOUD_COVERAGE_ASSESSMENT": facts.get("eo:cloud_cover"),
        "PROCESSING_BASELINE": facts.get("processing:version"),
    }
    return {key: str(value) for key, value in found.items() if value is not None}
