"""What a worker does: read one block with its context, enhance it, write it, report in a few numbers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from scenelift.models.catalog import ModelRef, load
from scenelift.pipeline.cluster import worker_index
from scenelift.pipeline.enhance import Enhancer, Region, context, enhance_region
from scenelift.pipeline.outputs import Output
from scenelift.pipeline.scenes import Scene, SceneSource, open_scene
from scenelift.pipeline.sinks import ZarrSink
from scenelift.pipeline.tiles import TileGrid, Window


@dataclass(frozen=True)
class EnhanceJob:
    """Everything a worker must know; small and picklable, the weights stay behind."""

    token: str
    """Unique to this run: workers keep files open for one job at a time."""
    source: SceneSource
    models: tuple[ModelRef | Enhancer, ...]
    store: Path
    output: Output
    block: tuple[int, int]
    """Height and width of a block, input pixels."""
    batch: int
    """Patches given to a model at once."""


@dataclass(frozen=True)
class BlockRecord:
    """What is left of a block once it is written."""

    index: int
    pixels: int
    """Output pixels."""
    skipped: bool
    """True if no pixel of the block had data."""
    read_s: float
    model_s: float
    write_s: float
    cpu_s: float
    """CPU time of the worker's process, all its threads."""
    rss: int
    """Memory of the worker's process after the block, bytes."""


class _Timed:
    """An enhancer that adds up the seconds spent in it."""

    def __init__(self, enhancer: Enhancer) -> None:
        self._enhancer = enhancer
        self.seconds = 0.0

    @property
    def spec(self) -> Any:
        return self._enhancer.spec

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        start = time.perf_counter()
        try:
            return self._enhancer(patches)
        finally:
            self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class _Opened:
    """A job's files and models, open in this process."""

    scene: Scene
    sink: ZarrSink
    enhancers: tuple[Enhancer, ...]


_opened: dict[str, _Opened] = {}
_opening = threading.Lock()


def open_job(job: EnhanceJob) -> _Opened:
    """Open a job's files and load its models in this process; later calls return the same."""
    with _opening:
        if job.token not in _opened:
            _opened.clear()
            sink = ZarrSink.open(job.store, job.output.block)
            _opened[job.token] = _Opened(open_scene(job.source), sink, load_all(job.models))
        return _opened[job.token]


def load_all(models: tuple[ModelRef | Enhancer, ...]) -> tuple[Enhancer, ...]:
    """Load references; enhancers given directly are used as they are."""
    return tuple(load(_on_own_device(m)) if isinstance(m, ModelRef) else m for m in models)


def _on_own_device(ref: ModelRef) -> ModelRef:
    """Send each worker process of a machine to the GPU of its own number."""
    from dataclasses import replace

    return replace(ref, device=f"cuda:{worker_index()}") if ref.device == "cuda" else ref


def process_block(job: EnhanceJob, index: int) -> BlockRecord:
    """Enhance block number `index` of a job and write it to the job's store.

    Doing it twice, here or elsewhere, writes the same bytes.
    """
    opened = open_job(job)
    scene = opened.scene
    target = TileGrid(scene.grid.shape, job.block)[index]
    enhancers = [_Timed(e) for e in opened.enhancers]

    clock, cpu = time.perf_counter(), time.process_time()
    wide = context(scene.grid.shape, target, [e.spec for e in enhancers], scene.masked)[0]
    region = scene.read(wide)
    read_s, clock = time.perf_counter() - clock, time.perf_counter()

    scale = int(np.prod([e.spec.scale for e in enhancers]))
    window = target.scaled(scale)
    if not region.crop(target).valid.any():
        return _record(index, window, skipped=True, read_s=read_s)
    result = enhance_region(region, target, scene.grid.shape, enhancers, masked=scene.masked, batch=job.batch)
    clock = time.perf_counter()
    opened.sink.write(window, _stored(scene, job.output, result, target, scale), _mask(job.output, result))
    write_s = time.perf_counter() - clock
    model_s = sum(e.seconds for e in enhancers)
    cpu_s = time.process_time() - cpu
    return _record(index, window, read_s=read_s, model_s=model_s, write_s=write_s, cpu_s=cpu_s)


def _record(index: int, window: Window, **values: Any) -> BlockRecord:
    times = {"skipped": False, "read_s": 0.0, "model_s": 0.0, "write_s": 0.0, "cpu_s": 0.0} | values
    return BlockRecord(index=index, pixels=window.size, rss=psutil.Process().memory_info().rss, **times)


def _stored(scene: Scene, output: Output, result: Region, target: Window, scale: int) -> NDArray[np.generic]:
    """Return the values to store: the enhanced bands in the output's dtype, and the alpha band behind them."""
    values = output.encode(result.values, result.valid)
    if scene.alpha is None:
        return values
    alpha = scene.alpha[0].read(scene.alpha[1], target)[0].astype(output.dtype)
    return np.concatenate([values, alpha.repeat(scale, axis=0).repeat(scale, axis=1)[None]])


def _mask(output: Output, result: Region) -> NDArray[np.uint8] | None:
    """Return the internal mask: 255 where any band has data."""
    return np.where(result.valid.any(axis=0), np.uint8(255), np.uint8(0)) if output.mask else None
