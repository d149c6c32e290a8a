"""What a job will do, decided before anything is written: its blocks and its output."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenelift.models.catalog import ModelRef, checkpoint_path, find, load, verify, with_realism, with_settings
from scenelift.models.enhancer import gpu_count, pick_device
from scenelift.models.precision import PRECISIONS, pick_precision
from scenelift.pipeline.addresses import file_name, without_secrets
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.journal import read_fingerprint
from scenelift.pipeline.outputs.outputs import as_classes, as_shares, output_of
from scenelift.pipeline.scenes.inputs import input_digest, input_stamps
from scenelift.pipeline.scenes.limits import Limits, absolute
from scenelift.pipeline.scenes.noise import scene_noise
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.safe_manifest import check_manifest
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import TileGrid, patch_shape
from scenelift.workflows.jobs.blocks import EnhanceJob
from scenelift.workflows.jobs.checks import check_image, doubts
from scenelift.workflows.jobs.fingerprints import contract, fingerprint, json_number, model_provenance
from scenelift.workflows.settings import EnhanceSettings


@dataclass(frozen=True)
class Plan:
    """A job that can start, go on or be verified."""

    path: Path
    """Where the output goes, absolute."""
    job: EnhanceJob
    settings: EnhanceSettings
    cluster: ClusterSettings
    fingerprint: dict[str, Any]
    """Everything that decides the bytes of the output."""
    command: dict[str, Any]
    """The arguments, as plain values, for `scenelift resume`; empty if a model was given as an object."""
    blocks: TileGrid
    """Blocks on the input grid."""
    device: str
    precision: str
    stamps: tuple[str, ...]
    """State of the input's files when they were read for the fingerprint."""
    notes: tuple[str, ...] = ()
    """What was assumed of the input or left out: lines for people."""

    @property
    def work(self) -> Path:
        """Folder beside the output that holds the journal, and everything else until the output is complete."""
        return work_folder(self.path)


def work_folder(path: Path) -> Path:
    """Return the hidden folder that belongs to an output."""
    return path.with_name(f".{path.name}.scenelift")


def check_output(path: Path, source: SceneSource) -> Path:
    """Check that an output could be written where it is wanted; return its absolute path.

    Raises
    ------
    UsageError
        If the suffix is unknown, the folder is missing, or the output is the input.
    """
    if path.suffix.lower() not in (".tif", ".tiff", ".zarr"):
        raise UsageError(f"output {path} must end in .tif (Cloud-Optimized GeoTIFF) or .zarr")
    path = Path(os.path.abspath(path))  # noqa: PTH100 - drops "..", which Path.absolute keeps
    if not path.parent.is_dir():
        raise UsageError(f"no such folder for the output: {path.parent}")
    if path.resolve() in {Path(p).resolve() for p in source.paths}:
        raise UsageError(f"output {path} is the input itself")
    return path


def make_plan(
    source: SceneSource,
    path: Path,
    models: str | Enhancer | Sequence[str | Enhancer],
    settings: EnhanceSettings,
    cluster: ClusterSettings,
) -> Plan:
    """Open the scene, resolve the models, and describe job, output and fingerprint; writes nothing."""
    # workers may run in another folder, and so may who resumes
    source = replace(source, paths=tuple(absolute(p) for p in source.paths))
    path = check_output(path, source)
    names = _names(models)
    scene = open_scene(source)
    stamps = input_stamps(source)
    if len(source.paths) == 1 and source.paths[0].upper().endswith(".SAFE"):
        check_manifest(Path(source.paths[0]), sorted({Path(reader.path) for reader, _ in scene.readers}))
    check_image(scene)
    device = pick_device(settings.device, cluster.elsewhere)
    precision = _precision(settings.precision, device, path)
    here = device if gpu_count() else "cpu"  # workers may have what this machine has not
    refs = _resolve(names, scene, settings, here, precision, cluster)
    learnt = any(isinstance(n, str) and (n.endswith(".safetensors") or checkpoint_path(n)) for n in names)
    notes = (*scene.notes, *doubts(scene, network=learnt))
    specs = [(load(r) if isinstance(r, ModelRef) else r).spec for r in refs]
    refs = tuple(with_settings(r, device=device) if isinstance(r, ModelRef) else r for r in refs)
    block = min(settings.block, scene.grid.height), min(settings.block, scene.grid.width)
    provenance = {
        "software": f"scenelift {version('scenelift')}",
        "models": [model_provenance(r) | {"spec": contract(s)} for r, s in zip(refs, specs, strict=True)],
        "input": {"files": [file_name(p) for p in scene.source.paths], "sha256": input_digest(scene.source)},
        "bands": list(scene.source.bands) if scene.source.bands else None,
        "settings": {
            "dtype": settings.dtype,
            **{name: getattr(source, name) for name in ("scale", "offset", "crs")},
            "nodata": json_number(source.nodata),
        },
    }
    output = output_of(scene, specs, block, dtype=settings.dtype, provenance=provenance)
    if getattr(specs[-1], "task", "") == "landcover":
        output = as_classes(output, getattr(specs[-1], "labels", ())) if settings.classes else as_shares(output)
    if settings.allow_holes and output.dtype != "float32" and output.nodata is None and not output.mask:
        raise UsageError(f"--allow-holes: {scene.name} has no nodata value to mark holes with; give one with --nodata")
    patch = patch_shape(scene.grid.shape, specs[0].patch, specs[0].multiple_of)
    per_tile = math.ceil((settings.tile or 1) / patch[0]) * math.ceil((settings.tile or 1) / patch[1])
    store = work_folder(path) / "store.zarr"
    job = EnhanceJob(uuid.uuid4().hex, source, refs, store, output, block, (settings.batch or 8) * per_tile)
    return Plan(
        path=path,
        job=job,
        settings=settings,
        cluster=cluster,
        fingerprint=fingerprint(scene, refs, output, settings.shards, path),
        command=_command(source, names, settings, cluster),
        blocks=TileGrid(scene.grid.shape, block),
        device=device,
        precision=precision,
        stamps=stamps,
        notes=notes,
    )


def _precision(wanted: str, device: str, path: Path) -> str:
    """Return "fp32" or "bf16"; "auto" stays what it was for a job begun on a machine with another processor."""
    if wanted == "auto" and (begun := read_fingerprint(work_folder(path))) is not None:
        known = {model.get("precision") for model in begun["models"].values()} & set(PRECISIONS)
        if len(known) == 1:
            return str(known.pop())
    return pick_precision(wanted, device)


def _names(models: str | Enhancer | Sequence[str | Enhancer]) -> list[str | Enhancer]:
    listed = [models] if isinstance(models, str) or not isinstance(models, Sequence) else list(models)
    names = [part for m in listed for part in (m.split(",") if isinstance(m, str) else [m])]
    if not names or "" in names:
        raise UsageError("no model given; `scenelift models` lists them")
    return [os.path.abspath(n) if isinstance(n, str) and n.endswith(".safetensors") else n for n in names]  # noqa: PTH100


def _resolve(
    names: list[str | Enhancer],
    scene: Scene,
    settings: EnhanceSettings,
    device: str,
    precision: str,
    cluster: ClusterSettings,
) -> tuple[ModelRef | Enhancer, ...]:
    """Turn names into references that carry every setting of the run, and check the halo of each model."""
    noise: tuple[float, ...] | None = None
    resolved: list[ModelRef | Enhancer] = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            resolved.append(name)
            continue
        noise = noise or scene_noise(scene, settings.noise)
        last = index == len(names) - 1
        ref = with_settings(
            find(name),
            device=device,
            precision=precision,
            threads=cluster.threads,
            noise=noise,
            tta=settings.tta,
            uncertainty=settings.uncertainty and last,
            consistency=settings.consistency,
            classes=settings.classes and last,
        )
        ref = with_realism(ref, settings.realism if last else None)
        spec = verify(ref)
        if ref.uncertainty and spec.out_per_band == 1:
            raise UsageError(f"--uncertainty needs a network as the last model: {name} has no spread to tell it by")
        resolved.append(ref)
    return tuple(resolved)


def _command(
    source: SceneSource, names: list[str | Enhancer], settings: EnhanceSettings, cluster: ClusterSettings
) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in names):
        return {}
    known = replace(source, paths=tuple(without_secrets(p) for p in source.paths))
    signed = {} if known == source else {"signed": True}  # a signature is a credential: it is not kept
    parts = signed | {"source": asdict(known), "settings": asdict(settings), "cluster": asdict(cluster)}
    return {"models": names, **parts}


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
    source: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in command["source"].items()}
    source["limits"] = Limits(**source.get("limits", {}))
    settings = EnhanceSettings(**command["settings"])
    return make_plan(SceneSource(**source), path, command["models"], settings, ClusterSettings.of(command["cluster"]))
