"""`scenelift enhance`: one scene in, one better scene out."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from scenelift.models.catalog import ModelRef, find, verify, with_settings
from scenelift.models.enhancer import pick_device, pick_precision
from scenelift.pipeline.cluster import ClusterSettings, open_cluster
from scenelift.pipeline.cogs import write_cog
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import SinkError, UsageError
from scenelift.pipeline.outputs import Output, output_of
from scenelift.pipeline.scenes import Scene, SceneSource, open_scene
from scenelift.pipeline.sinks import Pyramid, ZarrSink
from scenelift.pipeline.tiles import TileGrid, patch_shape
from scenelift.workflows.blocks import BlockRecord, EnhanceJob, open_job, process_block
from scenelift.workflows.noise import scene_noise

BLOCK = 1024
"""Side of a block in input pixels: some seconds of work, a few hundred tasks a scene."""


@dataclass(frozen=True)
class EnhanceSettings:
    """How to enhance; `tile`, `block`, `batch` never change a pixel of the result."""

    tile: int | None = None
    """Side of what a model gets at once, input pixels; rounded up to whole patches. None: one patch."""
    block: int = BLOCK
    """Side of a block (task, unit of writing), input pixels."""
    batch: int | None = None
    """Tiles given to the model at once. None: chosen for the device."""
    device: str = "auto"
    precision: str = "auto"
    dtype: str | None = None
    """Data type of the output; None: as the input."""
    noise: float | None = None
    """Noise level in the input's own units (DN), for models that take one; None: estimated once per band."""
    tta: bool = False
    """Average networks over the eight symmetries of the square: better, eight times the work."""
    uncertainty: bool = False
    """Follow each band of the last model by the spread over those eight answers."""
    consistency: int = 0
    """Back-projection steps after super-resolution: the result, blurred and decimated, gives the input again."""
    realism: float | None = None
    """0 to 1: between a generator and its adversarially tuned twin."""
    shards: bool = True
    """Whether a Zarr output keeps the chunks of a block in one file (GDAL reads that from 3.13 on)."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, value, most in (
            ("tile", self.tile, 65536),
            ("block", self.block, 65536),
            ("batch", self.batch, 4096),
        ):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"--{name} must be from 1 to {most}, got {value}")
        if not 0 <= self.consistency <= 20:
            raise UsageError(f"--consistency must be from 0 to 20 steps, got {self.consistency}")
        if self.realism is not None and not 0 <= self.realism <= 1:
            raise UsageError(f"--realism must be from 0 to 1, got {self.realism}")
        if self.noise is not None and not (math.isfinite(self.noise) and self.noise >= 0):
            raise UsageError(f"--noise must be a number from 0 up, got {self.noise}")


@dataclass(frozen=True)
class EnhanceSummary:
    """What was done, for people and machines."""

    output: str
    models: list[str]
    width: int
    height: int
    bands: int
    scale: int
    blocks: int
    skipped: int
    seconds: float
    """Of the whole job, from the call to the published output."""
    blocks_seconds: float
    """From the first block handed out to the last one written."""
    blocks_cpu_seconds: float
    """CPU time of all processes in the blocks: a yardstick that a busy machine does not stretch."""
    megapixels_per_second: float
    """Output pixels (all bands) per second, in millions."""
    model_share: float
    """Fraction of the workers' busy time spent in the models."""
    peak_memory_mb: float
    """Largest resident memory of any one process after a block."""
    device: str
    precision: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


Progress = Callable[[int, BlockRecord | None], None]
"""Called with the number of blocks and None at the start, then with each record."""


def enhance(
    source: SceneSource | str | Path,
    output: str | Path,
    models: str | Enhancer | Sequence[str | Enhancer] = "sr-x2",
    settings: EnhanceSettings | None = None,
    cluster: ClusterSettings | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> EnhanceSummary:
    """Enhance a scene.

    Parameters
    ----------
    source : SceneSource, str or Path
        The scene.
    output : str or Path
        ``*.tif`` for a Cloud-Optimized GeoTIFF, ``*.zarr`` for a Zarr group.
    models : str, Enhancer or sequence of them
        Names as `scenelift.models.catalog.find` takes them, or enhancers; run one after the other.
    settings : EnhanceSettings, optional
    cluster : ClusterSettings, optional
    progress : callable, optional
    announce : callable, optional
        Given lines worth telling a person (the dashboard's address).

    Returns
    -------
    EnhanceSummary

    Raises
    ------
    UsageError
        For whatever a changed argument mends: unknown model, wrong band count, output exists.
    SceneError, SinkError, ModelError
        If the input cannot be read, the output not written, or a model not used.
    """
    settings, cluster = settings or EnhanceSettings(), cluster or ClusterSettings()
    if not isinstance(source, SceneSource):
        source = SceneSource((str(source),))
    # workers may run in another folder
    source = replace(source, paths=tuple(os.path.abspath(p) for p in source.paths))  # noqa: PTH100 - "a.nc:name" too
    path = check_output(Path(output), source, settings.overwrite)
    started = time.perf_counter()
    scene = open_scene(source)
    device = pick_device(settings.device)
    precision = pick_precision(settings.precision, device)
    refs = _resolve(models, scene, settings, device, precision, cluster)
    work = path.with_name(f".{path.name}.scenelift")
    job = _plan(scene, refs, work / "store.zarr", settings)
    records = []
    try:
        work.mkdir()
    except FileExistsError:
        shutil.rmtree(work)
        work.mkdir()
    except OSError as error:
        raise UsageError(f"cannot write in {path.parent}: {error.strerror}") from None
    try:
        store = ZarrSink.create(job.store, job.output, shards=settings.shards)
        blocks = TileGrid(scene.grid.shape, job.block)
        with open_cluster(cluster) as place:
            if place.dashboard and announce:
                announce(f"dashboard: {place.dashboard}")
            place.prepare(functools.partial(open_job, job))
            if progress:
                progress(len(blocks), None)
            clock = time.perf_counter()
            for record in place.run(functools.partial(process_block, job), range(len(blocks))):
                records.append(record)
                if progress:
                    progress(len(blocks), record)
            blocks_seconds = time.perf_counter() - clock
        _finish(store, job.output, work, path, settings)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _summary(path, job, records, time.perf_counter() - started, blocks_seconds, device, precision)


def check_output(path: Path, source: SceneSource, overwrite: bool) -> Path:
    """Check that an output can be written where it is wanted; return its absolute path.

    Raises
    ------
    UsageError
        If the suffix is unknown, the folder is missing, the output exists and may not be replaced, or is the input.
    """
    if path.suffix.lower() not in (".tif", ".tiff", ".zarr"):
        raise UsageError(f"output {path} must end in .tif (Cloud-Optimized GeoTIFF) or .zarr")
    path = path.absolute()
    if not path.parent.is_dir():
        raise UsageError(f"no such folder for the output: {path.parent}")
    if path.resolve() in {Path(p).resolve() for p in source.paths}:
        raise UsageError(f"output {path} is the input itself")
    if path.exists() and not overwrite:
        raise UsageError(f"output {path} exists; choose another name or add --overwrite")
    return path


def _resolve(
    models: str | Enhancer | Sequence[str | Enhancer],
    scene: Scene,
    settings: EnhanceSettings,
    device: str,
    precision: str,
    cluster: ClusterSettings,
) -> tuple[ModelRef | Enhancer, ...]:
    """Turn names into references that carry every setting of the run, and check the halo of each model."""
    listed = [models] if isinstance(models, str) or not isinstance(models, Sequence) else list(models)
    names = [part for m in listed for part in (m.split(",") if isinstance(m, str) else [m])]
    if not names or "" in names:
        raise UsageError("no model given; `scenelift models` lists them")
    noise: tuple[float, ...] | None = None
    resolved: list[ModelRef | Enhancer] = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            resolved.append(name)
            continue
        noise = noise or scene_noise(scene, settings.noise)
        ref = with_settings(find(name), device=device, precision=precision, threads=cluster.threads, noise=noise)
        ref = with_settings(
            ref,
            tta=settings.tta,
            uncertainty=settings.uncertainty and index == len(names) - 1,
            consistency=settings.consistency,
            realism=settings.realism if index == len(names) - 1 else None,
        )
        verify(ref)
        resolved.append(ref)
    return tuple(resolved)


def _plan(scene: Scene, refs: tuple[ModelRef | Enhancer, ...], store: Path, settings: EnhanceSettings) -> EnhanceJob:
    specs = [(verify(r) if isinstance(r, ModelRef) else r.spec) for r in refs]
    sides = [min(settings.block, length) for length in scene.grid.shape]
    block = sides[0], sides[1]
    patch = patch_shape(scene.grid.shape, specs[0].patch, specs[0].multiple_of)
    per_tile = math.ceil((settings.tile or 1) / patch[0]) * math.ceil((settings.tile or 1) / patch[1])
    provenance = {
        "software": f"scenelift {version('scenelift')}",
        "models": [_model_provenance(r) for r in refs],
        "input": {"files": [Path(p).name for p in scene.source.paths], "sha256": input_digest(scene.source)},
        "bands": list(scene.source.bands) if scene.source.bands else None,
    }
    output = output_of(scene, specs, block, dtype=settings.dtype, provenance=provenance)
    batch = (settings.batch or 8) * per_tile
    return EnhanceJob(uuid.uuid4().hex, scene.source, refs, store, output, block, batch)


def _model_provenance(model: ModelRef | Enhancer) -> dict[str, Any]:
    if not isinstance(model, ModelRef):
        return {"name": model.spec.name}
    noise = [round(s, 9) for s in model.noise] if model.noise else None
    device = model.device.partition(":")[0]
    facts = {"name": model.name, "sha256": model.digest, "precision": model.precision, "device": device, "noise": noise}
    extras = {"tta": model.tta, "uncertainty": model.uncertainty, "consistency": model.consistency}
    return (
        facts | {k: v for k, v in extras.items() if v} | ({} if model.realism is None else {"realism": model.realism})
    )


def input_digest(source: SceneSource) -> str:
    """Return the SHA-256 over the contents of all input files, in order (in a folder: sorted by name)."""
    total = hashlib.sha256()
    for name in source.paths:
        path = Path(name.rpartition(":")[0] if ".nc:" in name else name)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as handle:
                total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def _finish(store: ZarrSink, output: Output, work: Path, path: Path, settings: EnhanceSettings) -> None:
    """Make the finished output beside its place, then move it there in one step."""
    try:
        if path.suffix.lower() == ".zarr":
            for _ in Pyramid(store, output, shards=settings.shards).build():
                pass
            if path.exists():
                path.rename(work / "replaced")
            store.path.rename(path)
        else:
            made = work / path.name
            write_cog(store, output, made)
            made.replace(path)
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error


def _summary(
    path: Path,
    job: EnhanceJob,
    records: list[BlockRecord],
    seconds: float,
    blocks_seconds: float,
    device: str,
    precision: str,
) -> EnhanceSummary:
    out = job.output
    busy = sum(r.read_s + r.model_s + r.write_s for r in records)
    rss = max([psutil.Process().memory_info().rss, *(r.rss for r in records)])
    return EnhanceSummary(
        output=str(path),
        models=[m.name if isinstance(m, ModelRef) else m.spec.name for m in job.models],
        width=out.grid.width,
        height=out.grid.height,
        bands=len(out.bands),
        scale=out.block[0] // job.block[0],
        blocks=len(records),
        skipped=sum(r.skipped for r in records),
        seconds=round(seconds, 3),
        blocks_seconds=round(blocks_seconds, 3),
        blocks_cpu_seconds=round(sum(r.cpu_s for r in records), 3),
        megapixels_per_second=round(math.prod(out.shape) / 1e6 / seconds, 3),
        model_share=round(sum(r.model_s for r in records) / busy, 4) if busy else 0.0,
        peak_memory_mb=round(rss / 2**20, 1),
        device=device,
        precision=precision,
    )
