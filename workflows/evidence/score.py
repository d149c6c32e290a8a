"""`scenelift score`: how close a scene is to a reference, or how noisy and sharp it is by itself, block by block."""

from __future__ import annotations

import functools
import math
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import Cluster, ClusterSettings, cores, open_cluster
from scenelift.pipeline.cluster.attempts import Call, Failed, attempt_here
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.files import check_writable
from scenelift.pipeline.jobs.journal import read_fingerprint
from scenelift.pipeline.ordered import in_order
from scenelift.pipeline.outputs.cogs import write_cog
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.sinks import Blocks, ZarrSink
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Band, Scene, SceneSource
from scenelift.pipeline.scores.blocks import (
    BlockScore,
    MapPart,
    ScoreJob,
    blocks_of,
    open_scored,
    score_block,
)
from scenelift.pipeline.scores.pairs import Pair, Triple
from scenelift.pipeline.scores.registry import pixel_names, without_input
from scenelift.pipeline.scores.scores import REFLECTANCE_RANGE, Convention, Statistics, scores
from scenelift.workflows.settings import ScoreSettings

BYTE_RANGE = 1.0
"""Full scale for 8-bit images, whose 0 to 255 are read as 0 to 1."""
THREADS = 4
"""Most blocks that one process has in hand at once: each is read as float64, with its halo."""


@dataclass(frozen=True)
class ScoreReport:
    """The scores of a scene."""

    reference: str
    test: str | None
    factor: int
    bands: tuple[str, ...]
    data_range: float
    blocks: int
    seconds: float
    peak_memory_mb: float
    values: dict[str, Any] = field(default_factory=dict)
    """Scores over all bands."""
    by_band: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Scores band by band."""
    map: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, where infinity is the text "infinity" and what cannot be measured is null."""
        facts = {k: v for k, v in vars(self).items() if k not in ("values", "by_band", "bands")}
        rows = [{"band": name} | {k: plain(v[i]) for k, v in self.by_band.items()} for i, name in enumerate(self.bands)]
        return facts | {"scores": {k: plain(v) for k, v in self.values.items()}, "bands": rows}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for all bands and one for each, for a table."""
        common = {"reference": self.reference, "test": self.test, "data_range": self.data_range}
        each = [{"band": name} | {k: v[i] for k, v in self.by_band.items()} for i, name in enumerate(self.bands)]
        return [common | row for row in [{"band": "all", **self.values}, *each]]


def plain(value: Any) -> Any:
    """Return a value that JSON has: null for NaN, "infinity" for infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinity"
    return value


Progress = Callable[[int, BlockScore | None], None]
"""Called with the number of blocks and None at the start, then with each block's record."""


def score(
    reference: SceneSource,
    test: SceneSource | None = None,
    settings: ScoreSettings | None = None,
    cluster: ClusterSettings | None = None,
    error_map: Path | None = None,
    progress: Progress | None = None,
    place: Cluster | None = None,
    coarse: SceneSource | None = None,
) -> ScoreReport:
    """Score a scene against a reference, or by itself.

    Blocks are summed in the order of their numbers, so the result has the same bits for any number of workers.

    Parameters
    ----------
    reference : SceneSource
    test : SceneSource, optional
        On the reference's grid, or on one some whole times as fine: its means over reference pixels are then
        compared (low-resolution consistency). None: noise, sharpness and contrast of the reference alone.
    settings : ScoreSettings, optional
    cluster : ClusterSettings, optional
    error_map : Path, optional
        Cloud-Optimized GeoTIFF to write: mean absolute error over bands, reflectance.
    progress : callable, optional
    place : Cluster, optional
        One that is open already; `cluster` is then ignored.
    coarse : SceneSource, optional
        What `test` was super-resolved from: then opensr-test's measures are scores, too.

    Raises
    ------
    UsageError
        If the scenes cannot be compared; see :func:`scenelift.pipeline.scores.pairs.open_pair`.
    """
    settings, started = settings or ScoreSettings(), time.perf_counter()
    if coarse is not None and (test is None or not settings.windows):
        raise UsageError("--input needs two scenes, and --windows: its measures are of tiles of a truth and a result")
    opened = open_scored(reference, test, coarse)
    pair = opened.pair if isinstance(opened, Triple) else opened if isinstance(opened, Pair) else None
    scene = pair.reference if pair else open_scene(reference)
    if 2 * settings.border >= min(scene.grid.shape):
        rows, columns = scene.grid.shape
        raise UsageError(f"--border {settings.border} leaves nothing of {columns} x {rows} pixels: give less")
    usual = BYTE_RANGE if scene.is_byte else REFLECTANCE_RANGE
    full_scale = usual if settings.data_range is None else settings.data_range
    names = settings.names or (None if settings.windows or pair is None else pixel_names())
    if names is None and coarse is None:
        names = without_input()
    convention = Convention(full_scale, settings.ratio, names)
    total, records = Statistics(), list[BlockScore]()
    with _error_map(error_map, pair, settings.block) as part:
        job = ScoreJob(uuid.uuid4().hex, reference, test, convention, settings.border, settings.block, part, coarse)
        for record in _in_order(job, scene, place or cluster or ClusterSettings(0), progress):
            total = total + record.sums if records else record.sums
            records.append(replace(record, sums=Statistics()))
    found = scores(total, convention)
    return ScoreReport(
        reference=scene.name,
        test=pair.test.name if pair else None,
        factor=pair.factor if pair else 1,
        bands=tuple(band.description or f"band {i}" for i, band in enumerate(scene.bands, start=1)),
        data_range=full_scale,
        blocks=len(records),
        seconds=round(time.perf_counter() - started, 3),
        peak_memory_mb=round(max(psutil.Process().memory_info().rss, *(r.rss for r in records)) / 2**20, 1),
        values={"pixels": found.pixels, **found.values},
        by_band=found.bands,
        map=str(error_map) if error_map else None,
    )


@contextmanager
def _error_map(path: Path | None, pair: Pair | None, block: int) -> Iterator[MapPart | None]:
    """Give blocks a place for their part of an error map; publish it at the end, and leave nothing where that fails."""
    if path is None:
        yield None
        return
    if pair is None:
        raise UsageError("--map needs two scenes: there is no error without a reference")
    _check_map(path, pair)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    grid = pair.reference.grid
    side = min(block, grid.height), min(block, grid.width)
    output = Output(grid, "float32", (Band("absolute error", 1.0, 0.0, True),), float("nan"), False, side)
    part = MapPart(work / "store.zarr", output)
    try:
        ZarrSink.create(part.store, output, blocks=Blocks.TILES)
        yield part
        write_cog(ZarrSink.open(part.store, output, cores()), output, work / path.name)
        (work / path.name).replace(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_map(path: Path, pair: Pair) -> None:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"the error map {path} must end in .tif")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"no such folder for the error map: {path.absolute().parent}; make it first")
    check_writable(path.absolute().parent)
    sources = {*pair.reference.source.paths, *pair.test.source.paths}
    if path.resolve() in {Path(p).resolve() for p in sources}:
        raise UsageError(f"the error map {path} is one of the inputs: choose another name")
    if read_fingerprint(work_folder(path)) is not None:
        raise UsageError(f"the error map {path} is the output of an enhancement: choose another name")


def _in_order(
    job: ScoreJob, scene: Scene, where: Cluster | ClusterSettings, progress: Progress | None
) -> Iterator[BlockScore]:
    """Yield the blocks' records by number; those that finish early wait."""
    blocks = blocks_of(scene, job)
    if progress:
        progress(len(blocks), None)
    waiting: dict[int, BlockScore] = {}
    following = 0
    with open_cluster(where) if isinstance(where, ClusterSettings) else nullcontext(where) as place:
        for record in _scored(functools.partial(score_block, job), len(blocks), place):
            if progress:
                progress(len(blocks), record)
            waiting[record.index] = record
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def _scored(task: Callable[[int], BlockScore], count: int, place: Cluster) -> Iterator[BlockScore]:
    """Yield the blocks' records in any order; where there are no workers, some threads of this process make them."""
    if not place.in_process:
        yield from place.run(task, range(count))
        return
    boxed = Call(task)
    for found in in_order(lambda item: attempt_here(item, boxed), range(count), min(cores(), THREADS)):
        if isinstance(found, Failed):
            raise found.error()
        yield found
