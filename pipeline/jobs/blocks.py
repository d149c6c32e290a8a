"""What a worker does: read one block with its context, enhance it, write it, report in a few numbers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from scenelift.pipeline.cluster import worker_index
from scenelift.pipeline.enhance import Enhancer, context, enhance_pieces
from scenelift.pipeline.files import file_checksum, pixel_checksum
from scenelift.pipeline.jobs.journal import Commit
from scenelift.pipeline.jobs.plan import EnhanceJob
from scenelift.pipeline.outputs.outputs import Output, recoded_alpha
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.rasters import keep_tiles
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

    def __call__(self, patches: NDArray[np.float32], *where: NDArray[np.int64]) -> NDArray[np.float32]:
        start = time.perf_counter()
        try:
            return self._enhancer(patches, *where)
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
            scene, sink = open_scene(job.source), ZarrSink.open(job.store, job.output)
            if strips := scene.strips(job.block):
                keep_tiles(strips.kept)
            found = _Opened(scene, sink, tuple(m.load(worker_index()) for m in job.models))
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
    scene, part = opened.scene, job.part(opened.scene.grid.shape)
    block = TileGrid(part.shape, job.block)[index]  # as it lies in the output
    target = block.moved(part.row, part.col)  # as it lies in the scene
    cpu = time.process_time()
    enhancers = [_Timed(e) for e in opened.enhancers]
    made = _Made(job.output, target.scaled(job.scale))
    for strip in _strips(scene, target, enhancers[0].spec) if effort.strips else [target]:
        _enhance_part(job, scene, strip, enhancers, effort.batch, made)
    window = block.scaled(job.scale)
    pixels, files, clock = pixel_checksum(), {}, time.perf_counter()
    if made.values is not None:
        if len(job.output.bands) > made.bands and (alpha := scene.read_alpha(target)) is not None:
            alpha = recoded_alpha(alpha, job.output.dtype)
            if job.outline is not None:
                alpha = np.where(job.outline.inside(target), alpha, np.zeros_like(alpha))
            made.values[-1] = alpha.repeat(job.scale, axis=0).repeat(job.scale, axis=1)
        opened.sink.write(window, made.values, made.mask, durable=job.checked)
        if job.checked:
            pixels = pixel_checksum(made.values, made.mask)
            files = {name: file_checksum(opened.sink.path / name) for name in opened.sink.files(window)}
    return BlockRecord(
        index=index,
        pixels=window.size,
        skipped=made.values is None,
        read_s=made.read_s,
        model_s=sum(e.seconds for e in enhancers),
        write_s=time.perf_counter() - clock,
        cpu_s=time.process_time() - cpu,
        rss=psutil.Process().memory_info().rss,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        checksum=pixels,
        files=files,
    )


@dataclass
class _Made:
    """A block as it is put together, in the numbers that are stored."""

    output: Output
    window: Window
    """On the output's grid as if it were of the whole scene."""
    values: NDArray[np.generic] | None = None
    """None as long as no pixel has data."""
    mask: NDArray[np.uint8] | None = None
    """255 where any band has data; None where the output has no mask, too."""
    bands: int = 0
    """How many of the bands the models made."""
    read_s: float = 0.0

    def begin(self) -> NDArray[np.generic]:
        """Return the values, which are all missing at first."""
        if self.values is None:
            shape = len(self.output.bands), *self.window.shape
            self.values = np.full(shape, np.asarray(self.output.missing).astype(self.output.dtype))
            self.mask = np.zeros(self.window.shape, np.uint8) if self.output.mask else None
        return self.values


def _strips(scene: Scene, target: Window, spec: Any) -> list[Window]:
    """Cut a block into strips of one row of patches, or less where the block is lower than a patch."""
    height = patch_shape(scene.grid.shape, spec.patch, spec.multiple_of)[0]
    starts = range(target.row // height * height, target.stop_row, height)
    return [Window(row, target.col, height, target.width).intersect(target) for row in starts]


def _enhance_part(
    job: EnhanceJob, scene: Scene, part: Window, enhancers: list[_Timed], batch: int, made: _Made
) -> None:
    """Read and enhance one part of a block, and store each patch of it as it comes."""
    clock = time.perf_counter()
    inside = None if job.outline is None else job.outline.inside(part)
    if scene.hides(part) or (inside is not None and not inside.any()):
        return
    wide = context(scene.grid.shape, part, [e.spec for e in enhancers], scene.masked)[0]
    region = scene.read(wide)
    made.read_s += time.perf_counter() - clock
    if not region.crop(part).valid.any():
        return
    values, output = made.begin(), job.output
    kept = None if inside is None else inside.repeat(job.scale, axis=0).repeat(job.scale, axis=1)
    for piece in enhance_pieces(region, part, scene.grid.shape, enhancers, masked=scene.masked, batch=batch):
        rows, cols = piece.window.slices(made.window)
        made.bands = len(piece.values)
        valid = None if piece.whole else piece.valid
        if kept is not None:
            valid = piece.valid & kept[piece.window.slices(part.scaled(job.scale))]
        values[: len(piece.values), rows, cols] = output.encode(piece.values, valid)
        if made.mask is not None:
            seen = piece.valid if valid is None else valid
            made.mask[rows, cols] = np.where(seen.any(axis=0), np.uint8(255), np.uint8(0))
