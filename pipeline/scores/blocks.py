"""One block's share of a score: read it with its halo, sum it, write its part of the error map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.scores.areas import Area
from scenelift.pipeline.scores.pairs import Pair, Triple, open_pair, open_triple
from scenelift.pipeline.scores.scores import Convention, Statistics, block_statistics
from scenelift.pipeline.tiles import TileGrid, Window


@dataclass(frozen=True)
class MapPart:
    """Where blocks write their part of an error map."""

    store: Path
    output: Output

    def write(self, window: Window, error: np.ndarray) -> None:
        """Write the mean over bands of errors (C, H, W), NaN where there are none."""
        count = np.isfinite(error).sum(axis=0)
        mean = np.where(count, np.nansum(error, axis=0) / np.maximum(count, 1), np.nan)
        ZarrSink.open(self.store, self.output).write(window, mean[None].astype(np.float32), None)


@dataclass(frozen=True)
class ScoreJob:
    """Everything a worker must know."""

    token: str
    reference: SceneSource
    test: SceneSource | None
    """None: the reference is scored by itself."""
    convention: Convention
    border: int
    block: int
    map: MapPart | None
    input: SceneSource | None = None
    """The coarse scene that ``test`` was made of, if scores are to look at it."""


@dataclass(frozen=True)
class BlockScore:
    """What one block contributes."""

    index: int
    pixels: int
    rss: int
    """Memory of the worker's process after the block, bytes."""
    sums: Statistics


def blocks_of(scene: Scene, job: ScoreJob) -> TileGrid:
    """Return the blocks that a scene is scored by."""
    height, width = scene.grid.shape
    return TileGrid((height, width), (min(job.block, height), min(job.block, width)))


Opened = Scene | Pair | Triple
_opened: dict[str, Opened] = {}


def open_scored(reference: SceneSource, test: SceneSource | None, coarse: SceneSource | None) -> Opened:
    """Open what is scored: one scene, two, or two and the coarse one that the second was made of.

    Raises
    ------
    UsageError, SceneError
        If they do not fit together or cannot be read.
    """
    if test is None:
        return open_scene(reference)
    return open_pair(reference, test) if coarse is None else open_triple(reference, test, coarse)


def _open(job: ScoreJob) -> Opened:
    found = _opened.get(job.token)
    if found is None:
        found = open_scored(job.reference, job.test, job.input)
        _opened.clear()
        _opened[job.token] = found
    return found


def score_block(job: ScoreJob, index: int) -> BlockScore:
    """Sum block number `index` of a job, and write its part of the error map."""
    opened = _open(job)
    pair = opened.pair if isinstance(opened, Triple) else opened
    scene = pair.reference if isinstance(pair, Pair) else pair
    target = blocks_of(scene, job)[index]
    core = target.row, target.col, target.stop_row, target.stop_col
    area = Area.around(core, scene.grid.shape, job.convention.halo)
    if isinstance(pair, Pair):
        x, y, valid = pair.read(area)
        valid = valid & _inside(area, scene.grid.shape, job.border)
        if job.map:
            job.map.write(target, np.where(valid, np.abs(y - x), np.nan)[(slice(None), *area.owned())])
        coarse = opened.read_coarse(area) if isinstance(opened, Triple) else None
        sums = block_statistics(x, y, valid, area, job.convention, coarse)
    else:
        region = pair.read(Window(*area.origin, *area.shape))
        valid = region.valid & _inside(area, scene.grid.shape, job.border)
        sums = block_statistics(None, region.values, valid, area, job.convention)
    return BlockScore(index, target.size, psutil.Process().memory_info().rss, sums)


def _inside(area: Area, shape: tuple[int, int], border: int) -> np.ndarray:
    """Return which pixels of an area lie at least ``border`` from the scene's edge."""
    at = [start + np.arange(size) for start, size in zip(area.origin, area.shape, strict=True)]
    rows, columns = ((a >= border) & (a < size - border) for a, size in zip(at, shape, strict=True))
    return rows[:, None] & columns[None, :]
