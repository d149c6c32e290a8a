"""The fingerprint of a job: everything that decides the bytes of its output, and nothing else."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import pickle
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenelift.models.catalog import ModelRef
from scenelift.pipeline.enhance import Enhancer, Spec
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.scenes.scenes import Scene


def model_provenance(model: ModelRef | Enhancer) -> dict[str, Any]:
    """Return what an output says about a model that made it: weights, settings, noise levels."""
    if not isinstance(model, ModelRef):
        return {"name": model.spec.name}
    noise = [round(s, 9) for s in model.noise] if model.noise else None
    device = model.device.partition(":")[0]
    name = Path(model.name).name if model.name.endswith(".safetensors") else model.name
    facts = {"name": name, "sha256": model.digest, "precision": model.precision, "device": device, "noise": noise}
    extras = {
        "classes": model.classes,
        "tta": model.tta,
        "uncertainty": model.uncertainty,
        "consistency": model.consistency,
    }
    twin = {} if model.realism is None else {"realism": model.realism, "twin_sha256": model.twin}
    return facts | {k: v for k, v in extras.items() if v} | twin


def contract(spec: Spec) -> dict[str, Any]:
    """Return the part of a model's spec that decides what it makes of a scene."""
    names = ("scale", "halo", "bands", "out_bands", "out_per_band", "multiple_of", "patch")
    return {name: getattr(spec, name) for name in names}


def json_number(value: float | None) -> float | str | None:
    """Return a number as JSON can tell it: NaN, which is not itself either, and infinity as texts."""
    return value if value is None or math.isfinite(value) else repr(value)


def fingerprint(
    scene: Scene, refs: tuple[ModelRef | Enhancer, ...], output: Output, shards: bool, path: Path
) -> dict[str, Any]:
    """Return everything that decides the bytes, as plain JSON values."""
    reading = asdict(scene.source)
    del reading["paths"], reading["limits"]
    told = reading.pop("told")
    if told:  # as a fingerprint without a catalogue always was
        reading["told"] = [[json_number(value) for value in facts] for facts in told]
    reading["bands"] = list(scene.source.bands) if scene.source.bands else None
    reading["nodata"] = json_number(reading["nodata"])
    return {
        "software": {name: version(name) for name in ("scenelift", "torch")},
        "input": output.provenance["input"],
        "reading": reading,
        "models": {str(number): _identity(ref) for number, ref in enumerate(refs, start=1)},
        "output": {
            "format": "zarr" if path.suffix.lower() == ".zarr" else "tif",
            "shape": list(output.shape),
            "dtype": output.dtype,
            "nodata": None if output.nodata is None else repr(output.nodata),
            "mask": output.mask,
            "crs": output.grid.crs.to_wkt(),
            "transform": [float(v) for v in tuple(output.grid.transform)[:6]],
            "block": list(output.block),
            "shards": shards,
        },
    }


def _identity(model: ModelRef | Enhancer) -> dict[str, Any]:
    """Return what tells one model from another that could be mistaken for it."""
    if isinstance(model, ModelRef):
        return model_provenance(model) | {"code": _code_digest(model.name)}
    try:
        content = pickle.dumps(model)
    except (pickle.PicklingError, AttributeError, TypeError):
        content = repr(model.spec).encode()
    return {"name": model.spec.name, "sha256": hashlib.sha256(content).hexdigest()}


def _code_digest(name: str) -> str | None:
    """Return the SHA-256 of the module that holds a factory; None for other kinds of models."""
    module = name.partition(":")[0]
    if ":" not in name or name.endswith(".safetensors"):
        return None
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return None
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
