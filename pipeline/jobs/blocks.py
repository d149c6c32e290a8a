"""What a worker does: read one block with its context, enhance it, write it, report in a few numbers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from scenelift.pipeline.cluster import worker_index
from scenelift.pipeline.enhance import Enhancer, context, enhance_region
from scenelift.pipeline.files import file_checksum, pixel_checksum
from scenelift.pipeline.jobs.journal import Commit
from scenelift.pipeline.jobs.plan import EnhanceJob
from scenelift.pipeline.outputs.outputs import Output, recoded_alpha
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.regions import Region
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.pipeline.tiles import TileGrid, Window, patch_shape


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
    worker: str
    """Host and process that did it."""
    checksum: str
    """Of the stored values and mask."""
    files: dict[str, str | None]
    """Checksum of each file of the block, read back after writing; None: no file, all fill value."""

    def commit(self) -> Commit:
        """Return what the journal keeps."""
        facts = {"read_s": self.read_s, "model_s": self.model_s, "write_s": self.write_s}
        facts = {name: round(seconds, 4) for name, seconds in facts.items()}
        return Commit(self.index, self.checksum, self.files, {**facts, "worker": self.worker, "rss": self.rss})


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


OPEN_JOBS = 4
"""Jobs whose files a process keeps open: where scenes of an archive overlap, their blocks come mixed."""
_opened: dict[str, _Opened] = {}
_opening = threading.Lock()


def open_job(job: EnhanceJob) -> _Opened:
    """Open a job's files and load its models in this process; later calls return the same."""
    with _opening:
        found = _opened.pop(job.token, None)
        if found is None:
            sink = ZarrSink.open(job.store, job.output.block)
            found = _Opened(open_scene(job.source), sink, tuple(m.load(worker_index()) for m in job.models))
        _opened[job.token] = found  # the last one is the last to go
        while len(_opened) > OPEN_JOBS:
            del _opened[next(iter(_opened))]
        return found


@dataclass(frozen=True)
class _Effort:
    """How much memory a try may take."""

    batch: int
    """Patches given to a model at once."""
    strips: bool = False
    """Whether the block is done one row of patches at a time."""


def _ladder(batch: int) -> list[_Effort]:
    """Return tries that take less and less memory: the batch, half of it, ... one patch, one row of patches."""
    return [*(_Effort(batch >> halvings) for halvings in range(batch.bit_length())), _Effort(1, strips=True)]


def process_block(job: EnhanceJob, index: int, low_memory: bool = False) -> BlockRecord:
    """Enhance block number `index` of a job and write it to the job's store.

    Doing it twice, here or elsewhere, writes the same bytes. Out of memory, it is tried again with half the batch, and
    at last in strips of one row of patches; neither changes a byte, since patches keep their shape.

    Parameters
    ----------
    job : EnhanceJob
    index : int
    low_memory : bool
        Begin with the smallest batch and strips at once: for blocks whose worker was killed for its memory.
    """
    opened = open_job(job)
    *larger, least = _ladder(job.batch)
    for effort in () if low_memory else larger:
        with contextlib.suppress(MemoryError):
            return _process(job, opened, index, effort)
    return _process(job, opened, index, least)


def _process(job: EnhanceJob, opened: _Opened, index: int, effort: _Effort) -> BlockRecord:
    target = TileGrid(opened.scene.grid.shape, job.block)[index]
    cpu = time.process_time()
    enhancers = [_Timed(e) for e in opened.enhancers]
    pieces = _strips(opened.scene, target, enhancers[0].spec) if effort.strips else [target]
    alone = len(pieces) == 1
    made = [_enhance_part(job, opened.scene, piece, enhancers, effort.batch, alone) for piece in pieces]
    parts = [part for part in made if part is not None]
    window = target.scaled(job.scale)
    skipped = not any(part.valid for part in parts)
    pixels, files, clock = pixel_checksum(), {}, time.perf_counter()
    if not skipped:
        values, mask = _joined(job.output, window, parts)
        opened.sink.write(window, values, mask, durable=job.checked)
        if job.checked:
            pixels = pixel_checksum(values, mask)
            files = {name: file_checksum(opened.sink.path / name) for name in opened.sink.files(window)}
    return BlockRecord(
        index=index,
        pixels=window.size,
        skipped=skipped,
        read_s=sum(part.read_s for part in parts),
        model_s=sum(e.seconds for e in enhancers),
        write_s=time.perf_counter() - clock,
        cpu_s=time.process_time() - cpu,
        rss=psutil.Process().memory_info().rss,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        checksum=pixels,
        files=files,
    )


class _Part(NamedTuple):
    """A finished part of a block."""

    window: Window
    """On the output grid."""
    values: NDArray[np.generic]
    mask: NDArray[np.uint8] | None
    valid: bool
    """Whether any pixel has data."""
    read_s: float


def _strips(scene: Scene, target: Window, spec: Any) -> list[Window]:
    """Cut a block into strips of one row of patches, or less where the block is lower than a patch."""
    height = patch_shape(scene.grid.shape, spec.patch, spec.multiple_of)[0]
    starts = range(target.row // height * height, target.stop_row, height)
    return [Window(row, target.col, height, target.width).intersect(target) for row in starts]


def _enhance_part(
    job: EnhanceJob, scene: Scene, part: Window, enhancers: list[_Timed], batch: int, alone: bool
) -> _Part | None:
    """Read and enhance one part of a block; None for a whole block (`alone`) without data."""
    clock = time.perf_counter()
    if alone and scene.hides(part):
        return None
    wide = context(scene.grid.shape, part, [e.spec for e in enhancers], scene.masked)[0]
    region = scene.read(wide)
    read_s = time.perf_counter() - clock
    if alone and not region.crop(part).valid.any():
        return None
    result = enhance_region(region, part, scene.grid.shape, enhancers, masked=scene.masked, batch=batch)
    values, mask = _stored(scene, job.output, result, part, job.scale), _mask(job.output, result)
    return _Part(part.scaled(job.scale), values, mask, bool(region.crop(part).valid.any()), read_s)


def _joined(output: Output, window: Window, parts: list[_Part]) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None]:
    """Put the parts of a block together."""
    if len(parts) == 1:
        return parts[0].values, parts[0].mask
    values = np.empty((len(output.bands), *window.shape), output.dtype)
    mask = np.empty(window.shape, np.uint8) if output.mask else None
    for part in parts:
        rows, cols = part.window.slices(window)
        values[:, rows, cols] = part.values
        if mask is not None and part.mask is not None:
            mask[rows, cols] = part.mask
    return values, mask


def _stored(scene: Scene, output: Output, result: Region, target: Window, scale: int) -> NDArray[np.generic]:
    """Return the values to store: the enhanced bands in the output's dtype, and the alpha band behind them."""
    values = output.encode(result.values, result.valid)
    plane = None if len(output.bands) == len(values) else scene.read_alpha(target)
    if plane is None:
        return values
    alpha = recoded_alpha(plane, output.dtype)
    return np.concatenate([values, alpha.repeat(scale, axis=0).repeat(scale, axis=1)[None]])


def _mask(output: Output, result: Region) -> NDArray[np.uint8] | None:
    """Return the internal mask: 255 where any band has data."""
    return np.where(result.valid.any(axis=0), np.uint8(255), np.uint8(0)) if output.mask else None
