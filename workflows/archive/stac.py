"""The STAC item of a finished scene: where it lies, how its numbers are read, what it was made from and by what."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pystac

from scenelift.pipeline.addresses import file_name, without_secrets
from scenelift.pipeline.files import file_checksum, write_durably
from scenelift.pipeline.scenes.places import geometry_of, place_of
from scenelift.pipeline.scenes.products.bands import COMMON, WAVELENGTH, wavelength
from scenelift.pipeline.scenes.quicklooks import SIDE, channels, overview, stretch_of
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.workflows.archive.entries import Entry, date_from, id_from
from scenelift.workflows.archive.record import SceneRecord

EXTENSIONS = {
    name: f"https://stac-extensions.github.io/{name}/v{number}/schema.json"
    for name, number in {"projection": "2.0.0", "raster": "2.0.0", "processing": "1.2.0", "file": "2.1.0"}.items()
}
RENDER = "https://stac-extensions.github.io/render/v2.0.0/schema.json"
EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
COG = str(pystac.MediaType.COG)
ZARR = "application/vnd+zarr"
COLLECTION = "scenes"
UNDATED = "1970-01-01T00:00:00Z"
"""Start of the time in which a scene was taken if its date is unknown."""
INSTRUMENTS = {
    "sentinel-2": ["msi"],
    "landsat-9": ["oli", "tirs"],
    "landsat-8": ["oli", "tirs"],
    "landsat-7": ["etm+"],
    "landsat-5": ["tm"],
    "landsat-4": ["tm"],
}
"""By how the platform's name begins."""


def item_of(entry: Entry, record: SceneRecord, scene: Scene, models: list[str], folder: Path) -> pystac.Item:
    """Describe a finished output.

    Parameters
    ----------
    entry : Entry
    record : SceneRecord
        Of the finished scene.
    scene : Scene
        The output, opened.
    models : list of str
        Names, in the order they ran.
    folder : Path
        Where the output lies, and the item will.
    """
    known, output = record.date is not None, folder / Path(str(record.output)).name
    place = place_of(scene.grid)
    item = pystac.Item(
        id=record.id,
        geometry=geometry_of(scene.grid),
        bbox=[round(v, 7) for v in (place.west, place.south, place.east, place.north)],
        datetime=date_from(record.date, record.id),
        start_datetime=None if known else date_from(UNDATED, ""),
        end_datetime=None if known else date_from(record.finished, ""),
        properties=_properties(record, scene, models) | _platform(scene),
        stac_extensions=[*EXTENSIONS.values(), *([EO] if _has_eo(record, scene) else [])],
    )
    if output.is_file():
        item.properties["renders"] = {"visual": _render(scene, output)}
        item.stac_extensions.append(RENDER)
    item.add_asset("data", _data(record, scene, folder))
    picture = folder / f"{record.id}.png"
    item.add_asset(
        "thumbnail",
        pystac.Asset(f"./{picture.name}", media_type="image/png", roles=["thumbnail"], extra_fields=_file(picture)),
    )
    item.add_links(_links(entry, record, models, folder))
    return item


def _has_eo(record: SceneRecord, scene: Scene) -> bool:
    return record.cloud_cover is not None or any(COMMON in band.tags or WAVELENGTH in band.tags for band in scene.bands)


def write_item(item: pystac.Item, path: Path) -> None:
    """Write an item beside its output."""
    write_durably(path, json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), indent=1).encode())


def _properties(record: SceneRecord, scene: Scene, models: list[str]) -> dict[str, Any]:
    code = scene.grid.crs.to_epsg()
    found: dict[str, Any] = {
        "proj:code": f"EPSG:{code}" if code else None,
        "proj:shape": list(scene.grid.shape),
        "proj:transform": [float(v) for v in tuple(scene.grid.transform)[:6]],
        "proj:bbox": list(scene.grid.bounds),
        "processing:software": {"scenelift": version("scenelift")},
        "processing:lineage": f"{' then '.join(models)} over {', '.join(map(file_name, record.inputs))}",
        "processing:datetime": record.finished,
        "scenelift:scores": record.scores,
    }
    if record.expected is not None:
        found["scenelift:expected"] = record.expected
    if not code:
        found["proj:wkt2"] = scene.grid.crs.to_wkt(version="WKT2_2019")
    if (metres := _metres(scene)) is not None:
        found["gsd"] = metres
    if record.cloud_cover is not None:
        found["eo:cloud_cover"] = record.cloud_cover
    return found


def _platform(scene: Scene) -> dict[str, Any]:
    """Return what a product says that it was taken by, in STAC's spelling: sentinel-2a, landsat-8."""
    name = scene.tags.get("SPACECRAFT_NAME", "").lower().replace("_", "-")
    seen = next((found for start, found in INSTRUMENTS.items() if name.startswith(start)), [])
    return {key: value for key, value in {"platform": name, "instruments": seen}.items() if value}


def _render(scene: Scene, path: Path) -> dict[str, Any]:
    """Return how the picture beside the output shows it: which bands, and which numbers are black and white."""
    bands = [index + 1 for index in channels(scene)]
    stretch = stretch_of(overview(path, bands, SIDE))
    ranges = [
        [round(float(low), 4), round(float(high), 4)] for low, high in zip(stretch.low, stretch.high, strict=True)
    ]
    return {"title": "as in the thumbnail", "assets": ["data"], "bidx": bands, "rescale": ranges}


def _data(record: SceneRecord, scene: Scene, folder: Path) -> pystac.Asset:
    path = folder / Path(str(record.output)).name
    extra: dict[str, Any] = {"bands": _bands(scene)}
    if path.is_file():
        extra |= {"file:checksum": f"1220{record.sha256}", "file:size": record.bytes}
    else:
        extra |= {"scenelift:sha256": record.sha256}  # a folder has no checksum of its own: this is over those inside
    media = COG if path.is_file() else ZARR
    return pystac.Asset(f"./{path.name}", title="enhanced scene", media_type=media, roles=["data"], extra_fields=extra)


def classes_asset(path: Path) -> pystac.Asset:
    """Describe a copy of classes beside an output."""
    media, facts = str(pystac.MediaType.GEOTIFF), _file(path)
    return pystac.Asset(f"./{path.name}", title="classes", media_type=media, roles=["metadata"], extra_fields=facts)


def _bands(scene: Scene) -> list[dict[str, Any]]:
    bands = []
    for number, band in enumerate(scene.bands, start=1):
        facts: dict[str, Any] = {"name": band.description or f"band{number}", "data_type": scene.dtype}
        if scene.nodata is not None:
            facts["nodata"] = "nan" if scene.nodata != scene.nodata else scene.nodata
        facts |= {"raster:scale": band.scale, "raster:offset": band.offset}
        if (metres := _metres(scene)) is not None:
            facts["raster:spatial_resolution"] = metres
        if common := band.tags.get(COMMON):
            facts["eo:common_name"] = common
        if nanometres := wavelength("", band.tags):
            facts["eo:center_wavelength"] = round(nanometres / 1000, 4)
        bands.append(facts)
    return bands


def _metres(scene: Scene) -> float | None:
    """Return the size of a pixel in metres; None where the reference system counts degrees."""
    crs = scene.grid.crs
    return None if crs.is_geographic else round(scene.grid.resolution[0] * crs.units_factor[1], 6)


def _file(path: Path) -> dict[str, Any]:
    return {"file:checksum": f"1220{file_checksum(path)}", "file:size": path.stat().st_size}


def _links(entry: Entry, record: SceneRecord, models: list[str], folder: Path) -> list[pystac.Link]:
    inputs = [p if "://" in p else _address(p, folder) for p in record.inputs]
    source = [without_secrets(entry.item)] if entry.item else inputs
    made = [pystac.Link("derived_from", href, title="input") for href in source]
    made += [
        pystac.Link("derived_from", f"../../models/{id_from(name)}.json", "application/geo+json", f"model {name}")
        for name in models
    ]
    around = {"root": "../../catalog.json", "parent": "../../collection.json", "collection": "../../collection.json"}
    return made + [pystac.Link(rel, href, "application/json") for rel, href in around.items()]


def _address(path: str, folder: Path) -> str:
    """Return how an item names an input: relative if it lies beside the archive, so that both can move together."""
    whole = os.path.abspath(path)  # noqa: PTH100 - drops "..", which Path.absolute keeps
    beside = Path(whole).is_relative_to(folder.absolute().parents[2])
    return os.path.relpath(whole, folder) if beside else whole
