"""What a job will do, decided before anything is written: its blocks and its output."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scenelift.pipeline.addresses import file_name, without_secrets, work_folder
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.checks import doubts
from scenelift.pipeline.jobs.fingerprints import contract, fingerprint, json_number
from scenelift.pipeline.jobs.journal import read_fingerprint
from scenelift.pipeline.jobs.plan import EnhanceJob, Plan
from scenelift.pipeline.outputs.classes import classes_path, lay_classes
from scenelift.pipeline.outputs.compression import compression_of, notes_on
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.outputs import Output, as_classes, as_shares, cropped, output_of
from scenelift.pipeline.scenes.inputs import input_digest
from scenelift.pipeline.scenes.products.kinds import ClassLayer
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.settings import read_table
from scenelift.pipeline.tiles import TileGrid, patch_shape
from scenelift.workflows.choosing.models import is_network
from scenelift.workflows.choosing.prepared import Prepared, prepare
from scenelift.workflows.refusals import check_output
from scenelift.workflows.settings import EnhanceSettings

SOFTWARE = "scenelift", "torch"
"""Distributions whose versions decide the bytes of an output."""
MOST_PATCHES, BATCH_BYTES = 8, 1 << 26
"""Patches given to a model at once, and what it may make of them in float32, unless its threads need more."""


def make_plan(
    source: SceneSource,
    path: Path,
    models: str | Enhancer | Sequence[str | Enhancer],
    settings: EnhanceSettings,
    cluster: ClusterSettings,
) -> Plan:
    """Open the scene, choose where and how the models run, load them, describe the output; writes nothing."""
    path = check_output(path, source.paths)
    return plan_prepared(prepare(source, models, settings, cluster, path), path, settings, cluster)


def plan_prepared(prepared: Prepared, path: Path, settings: EnhanceSettings, cluster: ClusterSettings) -> Plan:
    """Describe the output and the blocks of a prepared job; writes nothing."""
    scene, conditions = prepared.scene, prepared.conditions
    told = () if conditions is None else conditions.lines(denoised=prepared.denoises_first)
    learnt = any(map(is_network, prepared.names))
    output = _describe(prepared, settings)
    output = replace(output, compress=compression_of(format_of(path).name, settings.compress, output))
    job = _job(prepared, output, settings, path, cluster)
    classes = _classes(scene, output, settings, path)
    return Plan(
        path=path,
        job=job,
        blocks=TileGrid(job.part(scene.grid.shape).shape, job.block),
        strips=scene.strips(job.block),
        cluster=prepared.cluster,
        fingerprint=fingerprint(scene, job.models, output, format_of(path).name, settings.shards, SOFTWARE),
        command=_command(scene.source, prepared.names, settings, cluster),
        stamps=prepared.stamps,
        notes=(
            *_masked(prepared),
            *(["pixels that --geometry does not touch are missing"] if job.outline else []),
            *_left_out(scene, settings),
            *scene.notes,
            *doubts(scene, network=learnt),
            *_repeated(prepared, job),
            *told,
            *prepared.warnings,
            *([settings.choice] if settings.choice else []),
            *notes_on(output.compress),
        ),
        device=prepared.device,
        precision=", ".join(dict.fromkeys(model.precision for model in prepared.models)),
        classes=classes,
        shards=settings.shards,
        overwrite=settings.overwrite,
        allow_holes=settings.allow_holes,
    )


def _mask_facts(prepared: Prepared) -> dict[str, Any]:
    """Return what provenance says of the mask; nothing if there is none."""
    mask, hidden = prepared.scene.mask, prepared.hidden
    if mask is None or hidden is None:
        return {}
    file = {"file": file_name(prepared.scene.source.mask or "")} if prepared.scene.source.mask_file else {}
    classes = {"classes": list(mask.rule.numbers), "means": mask.rule.describe()}
    return {"mask": {"kind": mask.rule.kind, **file, **classes, "share": round(hidden.masked, 6)}}


def _masked(prepared: Prepared) -> list[str]:
    """Return what a summary says of the mask."""
    mask, hidden = prepared.scene.mask, prepared.hidden
    if mask is None or hidden is None:
        return []
    return [f"masked by {mask.rule.kind} ({mask.rule.describe()}): {100 * hidden.masked:.1f} % of the scene"]


def _classes(scene: Scene, output: Output, settings: EnhanceSettings, path: Path) -> tuple[ClassLayer, ...]:
    """Return the layers of classes to copy beside the output.

    Raises
    ------
    UsageError
        If one is wanted and there is none, or a copy would replace something else.
    GridsError
        If one does not fit the output's grid.
    """
    if not settings.keep_classes:
        return ()
    if not scene.classes:
        raise UsageError(
            f"--keep-classes: {scene.name} has no layer of classes (SCL of Level-2A, QA_PIXEL, or a class map among "
            "several inputs): leave it out"
        )
    inputs, ours = {Path(p).resolve() for p in scene.source.paths}, read_fingerprint(work_folder(path)) is not None
    for layer in scene.classes:
        copy = classes_path(path, layer)
        if copy.resolve() in inputs or (copy.exists() and not ours and not settings.overwrite):
            raise UsageError(f"--keep-classes would replace {copy}: choose another name for the output")
        lay_classes(layer, output.grid, scene.source.limits)
    return scene.classes


def _repeated(prepared: Prepared, job: EnhanceJob) -> list[str]:
    """Return what a summary says of blocks so small that patches are computed for several of them."""
    (height, width), scale = prepared.scene.grid.shape, 1
    made = (height, width) if job.window is None else job.window.shape
    for spec in (model.spec for model in prepared.models):
        patch = patch_shape((height * scale, width * scale), spec.patch, spec.multiple_of)
        least = [min(-(-side // scale), whole) for side, whole in zip(patch, made, strict=True)]
        if job.block[0] < least[0] or job.block[1] < least[1]:
            size = f"{job.block[1]} x {job.block[0]} pixels"
            repeated = (
                f"blocks of {size} are smaller than the patches of {spec.name}, which are computed more than once"
            )
            return [f"{repeated}: --block {max(least)} does less work"]
        scale *= spec.scale
    return []


def _left_out(scene: Scene, settings: EnhanceSettings) -> list[str]:
    """Return what a summary says of layers of classes."""
    names = ", ".join(layer.name for layer in scene.classes)
    if not names:
        return []
    if settings.keep_classes:
        return [f"classes copied beside the output by nearest neighbour: {names}"]
    return [f"classes left out: {names}; --keep-classes copies them beside the output"]


def _sized(output: Output, scene: Scene, settings: EnhanceSettings) -> Output:
    """Return the output with blocks as large as the settings say, none larger than what is made."""
    scale = output.grid.height // scene.grid.height
    side = settings.side(len(output.bands) * np.dtype(output.dtype).itemsize * scale**2)
    part = settings.window_on(scene.grid)
    height, width = part.shape if part else scene.grid.shape
    return replace(output, block=(min(side, height) * scale, min(side, width) * scale))


def _job(
    prepared: Prepared, output: Output, settings: EnhanceSettings, path: Path, cluster: ClusterSettings
) -> EnhanceJob:
    """Return what the workers are told."""
    scale = math.prod(model.spec.scale for model in prepared.models)
    return EnhanceJob(
        token=uuid.uuid4().hex,
        source=prepared.scene.source,
        models=tuple(model.handle for model in prepared.models),
        store=work_folder(path) / "store.zarr",
        output=output,
        block=(output.block[0] // scale, output.block[1] // scale),
        batch=settings.batch or _batch(prepared, output, cluster),
        window=settings.window_on(prepared.scene.grid),
        outline=settings.outline_on(prepared.scene.grid),
    )


def _batch(prepared: Prepared, output: Output, cluster: ClusterSettings) -> int:
    """Return how many patches a model gets at once: on a CPU as many as its threads need, and no more than fits."""
    if prepared.device != "cpu":
        return MOST_PATCHES
    spec = prepared.models[-1].spec
    one = len(output.bands) * (spec.patch * spec.scale) ** 2 * np.dtype(np.float32).itemsize
    return max(cluster.threads, min(MOST_PATCHES, BATCH_BYTES // one))


def _describe(prepared: Prepared, settings: EnhanceSettings) -> Output:
    """Describe the output that the models make of the scene.

    Raises
    ------
    UsageError
        If there can be none, or none that shows failed blocks where that is asked for.
    """
    scene, specs = prepared.scene, [model.spec for model in prepared.models]
    source, conditions, part = scene.source, prepared.conditions, settings.window_on(scene.grid)
    outline = settings.outline_on(scene.grid)
    provenance = {
        "software": f"scenelift {version('scenelift')}",
        "models": [m.handle.provenance() | {"spec": contract(m.spec)} for m in prepared.models],
        "input": {"files": [file_name(p) for p in source.paths], "sha256": input_digest(source)},
        "bands": list(source.bands) if source.bands else None,
        **({} if conditions is None else {"conditions": conditions.to_dict()}),
        "settings": {
            "dtype": settings.dtype,
            **{name: getattr(source, name) for name in ("scale", "offset", "crs")},
            "nodata": json_number(source.nodata),
            **{name: value for name in ("extent", "time") if (value := getattr(source, name)) is not None},
            **({} if part is None else {"window": [part.col, part.row, part.width, part.height]}),
            **({} if outline is None else {"outline": outline.digest}),
        },
        **_mask_facts(prepared),
        **({"choice": settings.choice} if settings.choice else {}),
    }
    output = output_of(scene, specs, scene.grid.shape, dtype=settings.dtype, provenance=provenance)
    output = _sized(output, scene, settings)
    if part is not None:
        output = cropped(output, part.scaled(output.grid.height // scene.grid.height))
    if outline is not None and scene.alpha is None and output.nodata is None and output.dtype != "float32":
        output = replace(output, mask=True)  # a nodata value would move the pixels that have it
    if getattr(specs[-1], "task", "") == "landcover":
        output = as_classes(output, getattr(specs[-1], "labels", ())) if settings.classes else as_shares(output)
    if settings.allow_holes and output.dtype != "float32" and output.nodata is None and not output.mask:
        raise UsageError(f"--allow-holes: {scene.name} has no nodata value to mark holes with; give one with --nodata")
    return output


def _command(
    source: SceneSource, names: Sequence[str | Enhancer], settings: EnhanceSettings, cluster: ClusterSettings
) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in names):
        return {}
    known = replace(source, paths=tuple(without_secrets(p) for p in source.paths))
    signed = {} if known.paths == source.paths else {"signed": True}  # a signature is a credential: it is not kept
    parts = signed | {"source": asdict(known), "settings": asdict(settings), "cluster": asdict(cluster)}
    return {"models": list(names), **parts}


def plan_of(path: Path, command: dict[str, Any]) -> Plan:
    """Make the plan of a recorded command again.

    Raises
    ------
    UsageError
        If the job was started from Python with a model that has no name.
    """
    if not command:
        raise UsageError(f"{path} was made by a model given as a Python object: call `enhance` with it again")
    if command.get("signed"):
        raise UsageError(f"{path} was made from a signed address, and signatures are not kept: give its command again")
    where = f"the journal of {path}"
    settings = {name: value for name, value in command["settings"].items() if name != "tile"}  # of version 0.1
    return make_plan(
        read_table(SceneSource, command["source"], where),
        path,
        command["models"],
        read_table(EnhanceSettings, settings, where),
        ClusterSettings.of(command["cluster"], where),
    )
