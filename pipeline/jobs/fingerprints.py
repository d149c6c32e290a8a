"""The fingerprint of a job: everything that decides the bytes of its output, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from scenelift.pipeline.enhance import Spec
from scenelift.pipeline.jobs.plan import ModelHandle
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.scenes.scenes import Scene


def contract(spec: Spec) -> dict[str, Any]:
    """Return the part of a model's spec that decides what it makes of a scene."""
    names = ("scale", "halo", "bands", "out_bands", "out_per_band", "multiple_of", "patch")
    return {name: getattr(spec, name) for name in names}


def json_number(value: float | None) -> float | str | None:
    """Return a number as JSON can tell it: NaN, which is not itself either, and infinity as texts."""
    return value if value is None or math.isfinite(value) else repr(value)


def fingerprint(
    scene: Scene, models: Sequence[ModelHandle], output: Output, format_name: str, shards: bool, software: Sequence[str]
) -> dict[str, Any]:
    """Return everything that decides the bytes, as plain JSON values.

    Parameters
    ----------
    scene : Scene
    models : sequence of ModelHandle
    output : Output
    format_name : str
        Name of the output's format.
    shards : bool
    software : sequence of str
        Distributions whose versions count.
    """
    outline = output.provenance.get("settings", {}).get("outline")
    reading = asdict(scene.source)
    del reading["paths"], reading["limits"]
    told = reading.pop("told")
    if told:  # as a fingerprint without a catalogue always was
        reading["told"] = [[json_number(value) for value in facts] for facts in told]
    if reading["extent"] is None:  # as it was before scenes could have several grids
        del reading["extent"]
    if reading["time"] is None:
        del reading["time"]
    del reading["mask"], reading["mask_classes"]
    if scene.mask is not None:  # the content of a file is part of the input
        reading["mask"] = {"kind": scene.mask.rule.kind, "classes": list(scene.mask.rule.numbers)}
    reading["bands"] = list(scene.source.bands) if scene.source.bands else None
    reading["nodata"] = json_number(reading["nodata"])
    return {
        "software": {name: version(name) for name in software},
        "input": output.provenance["input"],
        "reading": reading,
        "models": {str(number): model.identity() for number, model in enumerate(models, start=1)},
        "output": {
            "format": format_name,
            "shape": list(output.shape),
            "dtype": output.dtype,
            "nodata": None if output.nodata is None else repr(output.nodata),
            "mask": output.mask,
            "crs": output.grid.crs.to_wkt(),
            "transform": [float(v) for v in tuple(output.grid.transform)[:6]],
            "block": list(output.block),
            "shards": shards,
            **({} if output.compress is None else {"compress": output.compress}),
            **({} if outline is None else {"outline": outline}),
        },
    }
