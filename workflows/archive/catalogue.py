"""The STAC catalogue of an archive: one collection of its scenes, one of the models that made them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
from pystac.extensions.mlm import InputStructure, MLMExtension, ModelInput, ModelOutput, ResultStructure, TaskType

import scenelift.models.classical.classical as methods
from scenelift.models.catalog import find, load_spec
from scenelift.models.shipped import card, checkpoint_path
from scenelift.models.spec import ModelSpec
from scenelift.pipeline.files import write_durably
from scenelift.workflows.archive.entries import date_from, id_from
from scenelift.workflows.archive.record import DONE, SceneRecord
from scenelift.workflows.archive.stac import COLLECTION, EXTENSIONS, UNDATED

WORLD = [-180.0, -90.0, 180.0, 90.0]
ALWAYS = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""A model is for any place and time, and STAC wants that said."""


def write_catalogue(root: Path, records: Sequence[SceneRecord], models: Sequence[str]) -> None:
    """Write ``catalog.json``, ``collection.json`` with a link to each finished scene, and ``models/``.

    Links are relative, so that the folder can be moved. Nothing is written that has not changed.
    """
    done = [record for record in records if record.status == DONE and record.footprint]
    if not done:
        return
    (root / "models").mkdir(exist_ok=True)
    items = {id_from(name): model_item(name) for name in models}
    for name, item in items.items():
        _write(root / "models" / f"{name}.json", item)
    known = sorted({p.stem for p in (root / "models").glob("*.json")} - {"collection"})
    around = pystac.Extent(pystac.SpatialExtent([WORLD]), pystac.TemporalExtent([[*ALWAYS]]))
    catalogue = pystac.Catalog("scenelift-archive", "Enhanced scenes, and the models that made them.")
    catalogue.add_links([_link("root", "./catalog.json"), _link("child", "./collection.json")])
    catalogue.add_links([_link("child", "./models/collection.json")])
    _write(root / "catalog.json", catalogue)
    machines = pystac.Collection("models", "The models that made the scenes.", around, license="other")
    machines.add_links([_link("root", "../catalog.json"), _link("parent", "../catalog.json")])
    machines.add_links([_link("item", f"./{name}.json") for name in known])
    _write(root / "models" / "collection.json", machines)
    _write(root / "collection.json", _scenes(done))


def _scenes(done: Sequence[SceneRecord]) -> pystac.Collection:
    ys = [y for record in done for _, y in record.footprint]
    west, east = _longitudes([[x for x, _ in record.footprint] for record in done])
    dates = sorted(date for record in done if (date := date_from(record.date or UNDATED, record.id)))
    extent = pystac.Extent(
        pystac.SpatialExtent([[west, min(ys), east, max(ys)]]),
        pystac.TemporalExtent([[dates[0], dates[-1]]]),
    )
    made = pystac.Collection(COLLECTION, "Scenes enhanced by scenelift.", extent, license="other")
    made.add_links([_link("root", "./catalog.json"), _link("parent", "./catalog.json")])
    made.add_links([_link("item", f"./scenes/{r.id}/{r.id}.json") for r in sorted(done, key=lambda r: r.id)])
    return made


def _longitudes(scenes: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return west and east of the box around scenes, west > east where it crosses the date line as one of them does."""
    spans = []
    for xs in scenes:
        near = [x - 360 * round((x - xs[0]) / 360) for x in xs]  # of one scene, no corner is half the globe away
        spans.append((min(near), max(near)))
    if all(west >= -180 and east <= 180 for west, east in spans):
        return min(west for west, _ in spans), max(east for _, east in spans)
    turned = sorted((west % 360, west % 360 + east - west) for west, east in spans)
    reach, gaps = turned[0][1], []
    for west, east in turned[1:]:
        gaps.append((west - reach, reach, west))
        reach = max(reach, east)
    gaps.append((turned[0][0] + 360 - reach, reach, turned[0][0]))
    gap, east, west = max(gaps)
    if gap <= 0:
        return -180.0, 180.0
    return (west + 180) % 360 - 180, (east + 180) % 360 - 180


def model_item(name: str) -> pystac.Item:
    """Describe a model with the machine-learning-model extension."""
    spec = load_spec(find(name))
    ring = [[-180.0, -90.0], [180.0, -90.0], [180.0, 90.0], [-180.0, 90.0], [-180.0, -90.0]]
    item = pystac.Item(
        id=id_from(name),
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=WORLD,
        datetime=None,
        start_datetime=ALWAYS[0],
        end_datetime=ALWAYS[1],
        properties={"description": _description(name, spec)},
        stac_extensions=[EXTENSIONS["file"]],
    )
    task = TaskType.SUPER_RESOLUTION if spec.scale > 1 else TaskType.REGRESSION
    side = spec.patch + 2 * spec.halo
    shapes = (
        [-1, spec.bands or -1, side, side],
        [-1, spec.out_bands or spec.bands or -1, *[spec.patch * spec.scale] * 2],
    )
    order = ["batch", "bands", "y", "x"]
    data_type: Any = "float32"
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=name,
        architecture=str((card(name) or {}).get("architecture", "see the card")),
        tasks=[task],
        input=[ModelInput.create("reflectance", [], InputStructure.create(shapes[0], order, data_type))],
        output=[ModelOutput.create("reflectance", [task], ResultStructure.create(shapes[1], order, data_type))],
        framework="pytorch",
        pretrained=checkpoint_path(name) is not None,
    )
    item.add_asset("model", _weights(name))
    item.add_links([_link("root", "../catalog.json"), _link("parent", "./collection.json")])
    item.add_links([_link("collection", "./collection.json")])
    item.collection_id = "models"
    return item


def _description(name: str, spec: ModelSpec) -> str:
    return str((card(name) or {}).get("note") or f"{name}: {spec.task}, x{spec.scale}, halo of {spec.halo} pixels")


def _weights(name: str) -> pystac.Asset:
    path = checkpoint_path(name)
    facts: dict[str, Any] = {"mlm:artifact_type": "safetensors"}
    if path is None:
        path = Path(methods.__file__)
        facts = {"mlm:artifact_type": "python"}
    else:
        facts |= {"file:checksum": f"1220{find(name).digest}", "file:size": path.stat().st_size}
    return pystac.Asset(str(path.absolute()), title=name, roles=["mlm:model"], extra_fields=facts)


def _link(rel: str, href: str) -> pystac.Link:
    return pystac.Link(rel, href, "application/geo+json" if rel == "item" else "application/json")


def _write(path: Path, made: pystac.STACObject) -> None:
    content = json.dumps(made.to_dict(include_self_link=False, transform_hrefs=False), indent=1).encode()
    if not (path.is_file() and path.read_bytes() == content):
        write_durably(path, content)
