"""What a job will do, decided before anything is written: its blocks and its output."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenelift.models.catalog import (
    ModelRef,
    find,
    is_denoiser,
    precision_for,
    verify,
    wants_blur,
    with_colour,
    with_settings,
)
from scenelift.models.enhancer import Translated, gpu_count, pick_device
from scenelift.models.extras import WEIGHTS
from scenelift.models.precision import PRECISIONS, pick_precision
from scenelift.models.shipped import checkpoint_path
from scenelift.pipeline.addresses import file_name, without_secrets
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import Enhancer, Spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.checks import check_image, doubts
from scenelift.pipeline.jobs.fingerprints import contract, fingerprint, json_number
from scenelift.pipeline.jobs.journal import read_fingerprint
from scenelift.pipeline.jobs.plan import EnhanceJob, ModelHandle, Plan, work_folder
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.outputs import Output, as_classes, as_shares, output_of
from scenelift.pipeline.scenes.inputs import input_digest, input_stamps
from scenelift.pipeline.scenes.limits import absolute
from scenelift.pipeline.scenes.noise import scene_noise
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.safe import check_manifest
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.settings import read_table
from scenelift.pipeline.tiles import TileGrid
from scenelift.workflows.conditions import Conditions, colour_bands, scene_conditions
from scenelift.workflows.expect import Expectation, expect
from scenelift.workflows.settings import EnhanceSettings

SOFTWARE = "scenelift", "torch"
"""Distributions whose versions decide the bytes of an output."""
LEFT_BY_DENOISING = 0.25
"""Share of the noise (standard deviation) that a network after a denoiser is told."""


@dataclass(frozen=True)
class GivenModel:
    """A model given as an object, as a `ModelHandle`."""

    enhancer: Enhancer

    @property
    def name(self) -> str:
        """Name of the enhancer's spec."""
        return self.enhancer.spec.name

    def load(self, worker: int = 0) -> Enhancer:
        """Return the enhancer; torch's ways to run out of memory become MemoryError."""
        return Translated(self.enhancer)

    def provenance(self) -> dict[str, Any]:
        """Return the name: nothing else is known."""
        return {"name": self.name}

    def identity(self) -> dict[str, Any]:
        """Return what tells one object from another that could be mistaken for it."""
        try:
            content = pickle.dumps(self.enhancer)
        except (pickle.PicklingError, AttributeError, TypeError):
            content = repr(self.enhancer.spec).encode()
        return {"name": self.name, "sha256": hashlib.sha256(content).hexdigest()}


@dataclass(frozen=True)
class Runtime:
    """Where models run, and how precisely."""

    device: str
    """Where the blocks are done: "cpu" or "cuda"."""
    here: str
    """Where this process can run a model: the workers may have what this machine has not."""
    precision: str
    """As it was asked for."""
    threads: int
    begun: Mapping[str, Any]
    """What an unfinished or finished job of the same output says about its models, by number."""

    @classmethod
    def choose(cls, settings: EnhanceSettings, cluster: ClusterSettings, path: Path) -> Runtime:
        """Choose the device for "auto"."""
        device = pick_device(settings.device, cluster.elsewhere)
        pick_precision(settings.precision, device)  # refuses an unknown one, whatever the models are
        begun = read_fingerprint(work_folder(path)) or {}
        here = device if gpu_count() else "cpu"
        return cls(device, here, settings.precision, cluster.threads, begun.get("models", {}))

    def precision_of(self, ref: ModelRef, number: int) -> str:
        """Return "fp32" or "bf16"; "auto" stays what it was for a job begun on a machine with another processor."""
        before = self.begun.get(str(number), {})
        if self.precision == "auto" and before.get("sha256") == ref.digest and before.get("precision") in PRECISIONS:
            return str(before["precision"])
        return precision_for(ref.name, self.precision, self.device)


@dataclass(frozen=True)
class _Chosen:
    """A model of the chain, ready to travel."""

    handle: ModelHandle
    spec: Spec
    precision: str


def check_output(path: Path, source: SceneSource) -> Path:
    """Check that an output could be written where it is wanted; return its absolute path.

    Raises
    ------
    UsageError
        If the suffix is unknown, the folder is missing, or the output is the input.
    """
    format_of(path)
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
    """Open the scene, choose where and how the models run, load them, describe the output; writes nothing."""
    source, names = _absolute(source), _names(models)
    path = check_output(path, source)
    scene, stamps = _open(source)
    check_image(scene)
    runtime = Runtime.choose(settings, cluster, path)
    conditions = _conditions(names, scene, settings)
    chosen = _resolve(names, scene, settings, runtime, conditions)
    told = () if conditions is None else conditions.lines()
    notes = (*scene.notes, *doubts(scene, network=any(map(_is_learnt, names))), *told)
    output = _describe(scene, chosen, settings, conditions)
    job = _job(scene, chosen, output, settings, path)
    return Plan(
        path=path,
        job=job,
        blocks=TileGrid(scene.grid.shape, _block(scene, settings)),
        cluster=cluster,
        fingerprint=fingerprint(scene, job.models, output, format_of(path).name, settings.shards, SOFTWARE),
        command=_command(source, names, settings, cluster),
        stamps=stamps,
        notes=notes,
        device=runtime.device,
        precision=", ".join(dict.fromkeys(c.precision for c in chosen)),
        shards=settings.shards,
        overwrite=settings.overwrite,
        allow_holes=settings.allow_holes,
    )


def _absolute(source: SceneSource) -> SceneSource:
    """Return the source with absolute paths: workers may run in another folder, and so may who resumes."""
    return replace(source, paths=tuple(absolute(p) for p in source.paths))


def _open(source: SceneSource) -> tuple[Scene, tuple[str, ...]]:
    """Open a scene, check a product's files against its manifest, and return the state of the files too."""
    scene, stamps = open_scene(source), input_stamps(source)
    if len(source.paths) == 1 and source.paths[0].upper().endswith(".SAFE"):
        check_manifest(Path(source.paths[0]), sorted({Path(reader.path) for reader, _ in scene.readers}))
    return scene, stamps


def _block(scene: Scene, settings: EnhanceSettings) -> tuple[int, int]:
    return min(settings.block, scene.grid.height), min(settings.block, scene.grid.width)


def _job(scene: Scene, chosen: list[_Chosen], output: Output, settings: EnhanceSettings, path: Path) -> EnhanceJob:
    """Return what the workers are told."""
    return EnhanceJob(
        token=uuid.uuid4().hex,
        source=scene.source,
        models=tuple(c.handle for c in chosen),
        store=work_folder(path) / "store.zarr",
        output=output,
        block=_block(scene, settings),
        batch=settings.batch or 8,
    )


def _describe(scene: Scene, chosen: list[_Chosen], settings: EnhanceSettings, conditions: Conditions | None) -> Output:
    """Describe the output that the models make of the scene.

    Raises
    ------
    UsageError
        If there can be none, or none that shows failed blocks where that is asked for.
    """
    source, specs = scene.source, [c.spec for c in chosen]
    provenance = {
        "software": f"scenelift {version('scenelift')}",
        "models": [c.handle.provenance() | {"spec": contract(c.spec)} for c in chosen],
        "input": {"files": [file_name(p) for p in source.paths], "sha256": input_digest(source)},
        "bands": list(source.bands) if source.bands else None,
        **({} if conditions is None else {"conditions": conditions.to_dict()}),
        "settings": {
            "dtype": settings.dtype,
            **{name: getattr(source, name) for name in ("scale", "offset", "crs")},
            "nodata": json_number(source.nodata),
        },
    }
    output = output_of(scene, specs, _block(scene, settings), dtype=settings.dtype, provenance=provenance)
    if getattr(specs[-1], "task", "") == "landcover":
        output = as_classes(output, getattr(specs[-1], "labels", ())) if settings.classes else as_shares(output)
    if settings.allow_holes and output.dtype != "float32" and output.nodata is None and not output.mask:
        raise UsageError(f"--allow-holes: {scene.name} has no nodata value to mark holes with; give one with --nodata")
    return output


def _is_learnt(name: str | Enhancer) -> bool:
    """Whether a name is that of a trained network."""
    return isinstance(name, str) and (name.endswith(".safetensors") or checkpoint_path(name) is not None)


def _names(models: str | Enhancer | Sequence[str | Enhancer]) -> list[str | Enhancer]:
    listed = [models] if isinstance(models, str) or not isinstance(models, Sequence) else list(models)
    names = [part for m in listed for part in (m.split(",") if isinstance(m, str) else [m])]
    if not names or "" in names:
        raise UsageError("no model given; `scenelift models` lists them")
    return [os.path.abspath(n) if isinstance(n, str) and n.endswith(".safetensors") else n for n in names]  # noqa: PTH100


def try_coarser(
    source: SceneSource,
    models: str | Sequence[str | Enhancer],
    settings: EnhanceSettings,
    cluster: ClusterSettings,
    seconds: float = math.inf,
) -> Expectation | None:
    """Try models on a scene one level coarser; None if they do not enlarge, or there is nothing to try them on.

    Raises
    ------
    UsageError, SceneError, ModelError
        As `make_plan`.
    """
    source, names = _absolute(source), _names(models)
    scene, _ = _open(source)
    runtime = replace(Runtime.choose(settings, cluster, Path("none.tif")), begun={})
    conditions = scene_conditions(scene, settings.blur, settings.noise)
    chosen = _resolve(names, scene, settings, runtime, conditions)
    if math.prod(c.spec.scale for c in chosen) == 1 or chosen[-1].spec.out_bands or chosen[-1].spec.out_per_band > 1:
        return None
    return expect(scene, [c.handle.load() for c in chosen], conditions, seconds)


def _conditions(names: list[str | Enhancer], scene: Scene, settings: EnhanceSettings) -> Conditions | None:
    """Return what networks are told of the scene, None if none of them asks."""
    if not any(isinstance(name, str) and wants_blur(name) for name in names):
        return None
    return scene_conditions(scene, settings.blur, settings.noise)


def _resolve(
    names: list[str | Enhancer],
    scene: Scene,
    settings: EnhanceSettings,
    runtime: Runtime,
    conditions: Conditions | None,
) -> list[_Chosen]:
    """Turn names into references that carry every setting of the run, and check the halo of each model."""
    noise: tuple[float, ...] | None = None
    denoised, extras = False, settings.extras()
    chosen: list[_Chosen] = []
    for number, name in enumerate(names, start=1):
        if not isinstance(name, str):
            chosen.append(_Chosen(GivenModel(name), name.spec, "fp32"))
            continue
        noise = noise or scene_noise(scene, settings.noise)
        last, ref = number == len(names), find(name)
        ref = with_settings(
            ref,
            device=runtime.here,
            precision=runtime.precision_of(ref, number),
            threads=runtime.threads,
            noise=noise,
            extras=tuple(extra.bound(ref.name) for extra in extras if last or not extra.last),
        )
        if not any(extra.stage == WEIGHTS for extra in extras):
            ref = with_colour(ref, colour_bands(scene))
        if conditions is not None and wants_blur(name):
            left = LEFT_BY_DENOISING if denoised else 1.0
            ref = with_settings(ref, blur=conditions.blur, noise=tuple(left * sigma for sigma in conditions.noise))
        denoised = denoised or is_denoiser(name)
        spec = verify(ref)
        for extra in ref.extras:
            if spec.out_per_band < extra.out_per_band:
                raise UsageError(f"--{extra.name} needs a network as the last model, got {name}")
        chosen.append(_Chosen(with_settings(ref, device=runtime.device), spec, ref.precision))
    return chosen


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
    where = f"the journal of {path}"
    settings = {name: value for name, value in command["settings"].items() if name != "tile"}  # of version 0.1
    return make_plan(
        read_table(SceneSource, command["source"], where),
        path,
        command["models"],
        read_table(EnhanceSettings, settings, where),
        ClusterSettings.of(command["cluster"], where),
    )
