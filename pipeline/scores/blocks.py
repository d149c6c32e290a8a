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
from scenelift.pipeline.scores.areas import HALO, Area
from scenelift.pipeline.scores.pairs import Pair, open_pair
from scenelift.pipeline.scores.scores import Convention, block_statistics
from scenelift.pipeline.scores.sums import Sums
from scenelift.pipeline.scores.texture import texture_sums
from scenelift.pipeline.tiles import TileGrid, Window


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
    map_store: Path | None
    map_output: Output | None


@dataclass(frozen=True)
class BlockScore:
    """What one block contributes."""

    index: int
    pixels: int
    rss: int
    """Memory of the worker's process after the block, bytes."""
    sums: Sums


def blocks_of(scene: Scene, job: ScoreJob) -> TileGrid:
    """Return the blocks that a scene is scored by."""
    height, width = scene.grid.shape
    return TileGrid((height, width), (min(job.block, height), min(job.block, width)))


_opened: dict[str, Pair | Scene] = {}


def _open(job: ScoreJob) -> Pair | Scene:
    found = _opened.get(job.token)
    if found is None:
        found = open_pair(job.reference, job.test) if job.test else open_scene(job.reference)
        _opened.clear()
        _opened[job.token] = found
    return found


def score_block(job: ScoreJob, index: int) -> BlockScore:
    """Sum block number `index` of a job, and write its part of the error map."""
    opened = _open(job)
    scene = opened.reference if isinstance(opened, Pair) else opened
    target = blocks_of(scene, job)[index]
    core = target.row, target.col, target.stop_row, target.stop_col
    area = Area.around(core, scene.grid.shape, HALO if job.convention.windows else 0)
    if isinstance(opened, Pair):
        x, y, valid = opened.read(area)
        valid = valid & _inside(area, scene.grid.shape, job.border)
        if job.map_store and job.map_output:
            _write_map(job.map_store, job.map_output, target, area, np.where(valid, np.abs(y - x), np.nan))
        sums: Sums = block_statistics(x, y, valid, area, job.convention)
    else:
        region = opened.read(Window(*area.origin, *area.shape))
        valid = region.valid & np.isfinite(region.values) & _inside(area, scene.grid.shape, job.border)
        image = np.where(valid, region.values, 0).astype(np.float64)
        sums = texture_sums(image, valid, area, job.convention.ranges(len(image)))
    return BlockScore(index, target.size, psutil.Process().memory_info().rss, sums)


def _inside(area: Area, shape: tuple[int, int], border: int) -> np.ndarray:
    """Return which pixels of an area lie at least ``border`` from the scene's edge."""
    at = [start + np.arange(size) for start, size in zip(area.origin, area.shape, strict=True)]
    rows, columns = ((a >= border) & (a < size - border) for a, size in zip(at, shape, strict=True))
    return rows[:, None] & columns[None, :]


def _write_map(store: Path, output: Output, target: Window, area: Area, error: np.ndarray) -> None:
    part = error[(slice(None), *area.owned())]
    count = np.isfinite(part).sum(axis=0)
    mean = np.where(count, np.nansum(part, axis=0) / np.maximum(count, 1), np.nan)
    ZarrSink.open(store, output.block).write(target, mean[None].astype(np.float32), None)
