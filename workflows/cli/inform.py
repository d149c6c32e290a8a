"""`scenelift info` and `scenelift models`: what a scene is, what a model is."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING, Any

from scenelift.models.catalog import CLOSED, PAN, classical_names
from scenelift.models.fitted import METHODS, VISUAL
from scenelift.models.shipped import card, work
from scenelift.workflows.cli.console import table

if TYPE_CHECKING:  # the list of models does not wait for GDAL
    from scenelift.pipeline.scenes.scenes import Scene, SceneSource

DEFAULTS = ("sr-x2", "sr-x4", "denoise")
"""Networks whose training a scene is compared with."""
REFERENCE = "sr-x2"
"""Network whose speed is 1."""
VARIANTS = {"taught": "classifier", "gan": "for the eye"}
"""What networks of these endings were tuned for."""
DOES = {"denoise": "noise", "dehaze": "haze"}
"""Tasks by what they take away."""
KINDS = {
    2: "an enhanced scene; after each band the standard deviation of its error",
    3: "an enhanced scene; after each band a lower and an upper bound of the true value",
    4: "an enhanced scene; after each band the standard deviation of its error, a lower and an upper bound",
}
"""What an output holds, by how many bands it has for each of the input."""
NARROW = 0.1
"""Range of transfers below which a network was trained for one sensor's blur."""


def describe_scene(source: SceneSource) -> dict[str, Any]:
    """Return a scene's facts as plain values; of one that does not say where it is, too."""
    from scenelift.pipeline.addresses import without_secrets
    from scenelift.pipeline.errors import UnplacedError
    from scenelift.pipeline.jobs.checks import no_image
    from scenelift.pipeline.jobs.fingerprints import json_number
    from scenelift.pipeline.scenes.scenes import PIXELS, crs_name
    from scenelift.workflows.conditions import band_names, scene_conditions
    from scenelift.workflows.familiarity import unfamiliar
    from scenelift.workflows.multigrid import one_grid, open_to_show

    unplaced = None
    try:
        scene = open_to_show(source)
    except UnplacedError as error:
        scene, unplaced = open_to_show(dataclasses.replace(source, crs=PIXELS)), str(error)
    grid, made, refused = scene.grid, _made(scene), unplaced or no_image(scene)
    told = conditions = None
    if not (no_image(scene) or (made and not made["every"])):
        told = _without_errors(one_grid(scene), made["every"] if made else 1)
        conditions = scene_conditions(told)
    return {
        "files": [without_secrets(path) for path in source.paths],
        "width": grid.width,
        "height": grid.height,
        "dtype": scene.dtype,
        "crs": None if unplaced else crs_name(grid.crs),
        "transform": list(grid.transform)[:6],
        "ground_sample_distance": list(grid.resolution),
        "corners": {} if unplaced else {name: list(xy) for name, xy in grid.corners.items()},
        "nodata": json_number(scene.nodata),
        "mask": scene.mask_kind,
        "product": scene.product,
        "made": made and {name: value for name, value in made.items() if name != "every"},
        "hidden": _hidden(scene),
        "classes": [layer.name for layer in scene.classes],
        "times": list(scene.times),
        "time": scene.tags.get("ACQUISITIONDATETIME") if scene.times else None,
        "bands": [
            dataclasses.asdict(b)
            | {"nodata": json_number(b.nodata), "ground_sample_distance": [side * p.ratio for side in grid.resolution]}
            for b, p in zip(scene.bands, scene.placements, strict=True)
        ],
        "tags": scene.tags,
        "notes": [*(() if no_image(scene) else scene.notes), *([f"enhance refuses it: {refused}"] if refused else [])],
        "conditions": conditions.to_dict() | {"lines": list(conditions.lines())} if conditions else {"lines": []},
        "unfamiliar": unfamiliar(DEFAULTS, band_names(told), conditions) if told and conditions else [],
    }


def _made(scene: Scene) -> dict[str, Any] | None:
    """Return what an output of ours is, by its provenance; None of any other scene.

    "every": which bands are the image, each so-manieth; 0: none of them.
    """
    from scenelift.pipeline.outputs.readback import provenance_of

    found = provenance_of(scene)
    try:
        names = [model["name"] for model in found["models"]]
        last, spec = found["models"][-1], found["models"][-1]["spec"]
        every = 0 if spec["out_bands"] else spec["out_per_band"]
        kind = KINDS.get(every, "an enhanced scene")
        if not every:
            kind = "a map of classes" if last.get("classes") else "a scene, a band a class or whatever the model finds"
        elif names[-1].partition(":")[0] in VISUAL:
            kind = "a picture for the eye: its values are no reflectance"
        facts = {"kind": kind, "software": str(found["software"]), "models": names, "input": found["input"]["files"]}
    except (KeyError, TypeError, AttributeError, IndexError):  # of another program, or nothing
        return None
    return facts | {"every": every}


def _without_errors(scene: Scene, every: int) -> Scene:
    """Return a scene without the bands that say how far off the others may be."""
    from scenelift.pipeline.scenes.opening import open_scene

    image = tuple(number for number in scene.numbers if (number - 1) % every == 0)
    if not image or image == scene.numbers:
        return scene
    return open_scene(dataclasses.replace(scene.source, bands=image))


def _hidden(scene: Scene) -> dict[str, Any] | None:
    """Return what the mask hides; None without one."""
    if scene.mask is None:
        return None
    rule, shares = scene.mask.rule, scene.mask.shares()
    classes = {"classes": list(rule.numbers), "means": rule.describe()}
    return {"kind": rule.kind, **classes, "share": shares.masked, "share_of_data": shares.of_data}


def print_scene(facts: dict[str, Any]) -> None:
    """Print :func:`describe_scene` for people."""
    gsd = facts["ground_sample_distance"]
    rows = [
        ["size", f"{facts['width']} x {facts['height']} px, {len(facts['bands'])} bands, {facts['dtype']}"],
        ["CRS", facts["crs"] or "none"],
        *([["ground sample distance", f"{gsd[0]:g} x {gsd[1]:g}"]] if facts["crs"] else []),
        ["transform", _transform(facts)],
        *([["product", facts["product"]]] if facts["product"] else []),
        *_origin(facts["made"]),
        *([name, f"{x:.6f}, {y:.6f}"] for name, (x, y) in facts["corners"].items()),
        ["missing pixels", facts["mask"] if facts["nodata"] is None else f"nodata {', '.join(_nodata(facts))}"],
    ]
    if hidden := facts["hidden"]:
        told = f"{hidden['kind']} ({hidden['means']}): {100 * hidden['share']:.1f} % of all pixels, "
        rows.append(["masked by", told + f"{100 * hidden['share_of_data']:.1f} % of those with data"])
    if len(facts["times"]) > 1:
        rows.append(["times", f"{', '.join(facts['times'])}; here {facts['time']}, --time chooses"])
    if facts["classes"]:
        rows.append(
            ["classes", f"{', '.join(facts['classes'])}: left out; --keep-classes copies them beside an output"]
        )
    rows += [["bands of", f"{size}: {', '.join(names)}"] for size, names in _by_size(facts).items()]
    rows += [["sharpness", line] for line in facts["conditions"]["lines"]]
    rows += [["not seen in training", line] for line in facts["unfamiliar"]]
    rows += [["note", note] for note in facts["notes"]]
    table(facts["files"][0], ["", ""], rows)
    bands = [
        [
            str(i),
            band["description"] or "",
            "none: classes or flags" if band["flags"] else f"DN x {band['scale']:g} {band['offset']:+g}",
            "" if band["flags"] else "declared" if band["declared"] else "assumed",
            band["color"],
        ]
        for i, band in enumerate(facts["bands"], start=1)
    ]
    table("bands", ["", "name", "reflectance", "", "colour"], bands)


def _origin(made: dict[str, Any] | None) -> list[list[str]]:
    if made is None:
        return []
    return [["this is", made["kind"]], ["made by", f"{made['software']}: {' then '.join(made['models'])}"]]


def _transform(facts: dict[str, Any]) -> str:
    unplaced = facts["crs"] is None and facts["transform"] == [1, 0, 0, 0, 1, 0]
    return "none" if unplaced else ", ".join(f"{v:.12g}" for v in facts["transform"])


def _by_size(facts: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the bands by the size of their pixels; nothing where all have one."""
    found: dict[str, list[str]] = {}
    for number, band in enumerate(facts["bands"], start=1):
        size = " x ".join(f"{side:g}" for side in band["ground_sample_distance"])
        found.setdefault(size, []).append(band["description"] or f"band {number}")
    return found if len(found) > 1 else {}


def _nodata(facts: dict[str, Any]) -> list[str]:
    """Return the bands' nodata values, each once."""
    values = (band["nodata"] for band in facts["bands"])
    return list(dict.fromkeys("none" if v is None else f"{float(v):g}" for v in values))


def print_models(facts: list[dict[str, Any]], name: str | None) -> None:
    """Print the list of models, or one model's card."""
    if name is not None:
        print(json.dumps(facts[0]["card"] or facts[0], indent=2))
        return
    tasks = "super-resolution", "denoise", "sharpening"
    order = {task: number for number, task in enumerate(tasks)}
    facts = sorted(facts, key=lambda f: (order.get(f["task"], len(order)), f["scale"], len(f["name"]), f["name"]))
    table("models", ["name", "for", "bands", "gain", "MB", "speed"], [_row(f) for f in facts])
    for text in (
        "gain: over the best method without learning, on places that were not trained on, with the blur and the noise "
        f"of the training. speed: pixels of all bands for the same arithmetic; {REFERENCE} is 1.",
        "Which to take: sr-x2 or sr-x4, which are told the blur and the noise of any scene; -sentinel2 for Sentinel-2 "
        "as it is delivered; denoise before it if it is noisy; -lean where time is short; -taught for classifiers; "
        f"-gan for the eye alone; sharpen for Sentinel-2's 20 m bands, {PAN} for Landsat. Without -rgb a network takes "
        "any bands, and leaves red, green and blue to its -rgb network if there is one.",
        f"Without learning: {', '.join(classical_names())} (any factor: -x3, -x4), {CLOSED} and {PAN}.",
        f"Fitted to the whole scene: {', '.join(METHODS)} ({', '.join(VISUAL)} for the eye alone).",
        "Your own: a .safetensors checkpoint, an ONNX file, or module.path:factory. Of one: scenelift models NAME.",
    ):
        print(textwrap.fill(text, 79, break_long_words=False, break_on_hyphens=False))


def _row(facts: dict[str, Any]) -> list[str]:
    """Return what the list of models says of one."""
    about = facts["card"] or {}
    bands = {None: "each", 3: "RGB"}.get(facts["bands"], str(facts["bands"]))
    size = f"{2 * about['parameters'] / 1e6:.1f}" if "parameters" in about else ""
    return [facts["name"], _purpose(facts, about), bands, _gain(about), size, _speed(facts, about)]


def _purpose(facts: dict[str, Any], about: dict[str, Any]) -> str:
    """Return what a model does, and for which imagery."""
    if facts["task"] == "sharpening":
        return "30 m to 15 m" if facts["name"] == PAN else "20, 60 m to 10 m"
    if facts["task"] == "landcover":
        return "classes, 10 m"
    does = f"x{facts['scale']}" if facts["scale"] > 1 else DOES.get(facts["task"], facts["task"])
    if (variant := facts["name"].rsplit("-", 1)[-1]) in VARIANTS:
        return f"{does}, {VARIANTS[variant]}"
    low, high = about.get("seen", {}).get("mtf", (0, 1))
    return f"{does}, Sentinel-2" if high - low < NARROW else f"{does}, any sensor"


def _gain(about: dict[str, Any]) -> str:
    """Return what a card says that a model gains, with its unit."""
    found = about.get("validation", {})
    if "psnr_db" in found:
        others = [value for key, value in found.items() if key.endswith("_db") and key != "psnr_db"]
        return f"{found['psnr_db'] - max(others):+.1f} dB"
    if "accuracy" in found:
        return f"{100 * found['accuracy']:.0f} %"
    gains = [each["network sre"] - each["closed sre"] for each in found.values() if isinstance(each, dict)]
    return f"{sum(gains) / len(gains):+.1f} dB" if gains else ""


def _speed(facts: dict[str, Any], about: dict[str, Any]) -> str:
    """Return how many output pixels (of all bands) a model makes for the arithmetic of one of `REFERENCE`'s."""
    own, other = work(facts["bands"], about), work(None, card(REFERENCE) or {})
    return f"{other / own:.1f}" if own and other else ""
