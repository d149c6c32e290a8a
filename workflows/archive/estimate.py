"""`scenelift archive --dry-run`: how long a run would take and how much disk it needs, from runs on small crops."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scenelift.pipeline.cluster import Cluster, ClusterSettings, open_cluster
from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.outputs.geotiffs import write_geotiff
from scenelift.pipeline.scenes.multigrid import own_grid
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.tiles import Window
from scenelift.workflows.archive.entries import Entry
from scenelift.workflows.archive.filters import Filters
from scenelift.workflows.archive.run import archive
from scenelift.workflows.archive.settings import ArchiveSettings
from scenelift.workflows.archive.survey import Survey, Wanted, survey
from scenelift.workflows.settings import BLOCK, Reading

TINY = 64
"""Side of the crops that show what a scene costs whatever its size."""
LARGER = 512
"""Largest side of the crops that show what a pixel costs: whole patches of every shipped model."""
COPIES = 3.0
"""A scene under way may lie on the disk as blocks, as a plain GeoTIFF and as a COG."""


@dataclass(frozen=True)
class Estimate:
    """What a run would do and need."""

    scenes: int
    before: int
    skipped: dict[str, str]
    unusable: dict[str, str]
    blocks: int
    megapixels: float
    """Output pixels (all bands count once), in millions."""
    seconds: float
    """Of the whole run on this machine, as busy as it is now."""
    output_bytes: int
    """Of all outputs, at the compression measured."""
    scratch_bytes: int
    """Needed besides while the largest scenes are under way."""
    measured: dict[str, float] = field(default_factory=dict)
    """Start, seconds a scene and seconds a megapixel that the estimate is made from."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def estimate(
    entries: Sequence[Entry], output: Path, settings: ArchiveSettings, cluster: ClusterSettings | None = None
) -> Estimate:
    """Say what :func:`archive` would do with the same arguments; nothing is written below `output`.

    Crops of some of the scenes go through the same engine, on the same cluster, into a temporary folder: very small
    ones, which tell what a scene costs whatever its size, then larger ones, which tell what a pixel costs.

    Parameters
    ----------
    entries : sequence of Entry
    output : Path
    settings : ArchiveSettings
    cluster : ClusterSettings, optional
    """
    settings.check()
    found = survey(entries, output, settings)
    cluster = cluster or ClusterSettings()
    pixels = sum(w.pixels for w in found.wanted)
    costs = _measure(found.wanted, settings, cluster) if found.wanted else _Costs()
    largest = sorted((w.nbytes for w in found.wanted), reverse=True)[: 1 if cluster.in_process else 4]
    return Estimate(
        scenes=len(found.wanted),
        before=len(found.before),
        skipped=found.skipped,
        unusable=found.unusable,
        blocks=sum(w.blocks for w in found.wanted),
        megapixels=round(pixels / 1e6, 3),
        seconds=round(costs.start + len(found.wanted) * costs.scene + pixels / 1e6 * costs.megapixel, 1),
        output_bytes=round(sum(w.nbytes for w in found.wanted) * costs.compression),
        scratch_bytes=round(COPIES * sum(largest)),
        measured=asdict(costs),
    )


@dataclass(frozen=True)
class _Costs:
    start: float = 0.0
    """Seconds until the first scene is done."""
    scene: float = 0.0
    """Seconds a scene."""
    megapixel: float = 0.0
    """Seconds a million output pixels."""
    compression: float = 1.0
    """Bytes on the disk over bytes in memory."""


def _measure(wanted: list[Wanted], settings: ArchiveSettings, cluster: ClusterSettings) -> _Costs:
    plain = replace(settings, reading=Reading(), filters=Filters(), share=False, publish=None)
    with tempfile.TemporaryDirectory(prefix="scenelift-plan-") as name:
        folder, clock = Path(name), time.perf_counter()
        with open_cluster(cluster) as place:
            opened = time.perf_counter() - clock
            crew = max(1, place.slots)
            few, many = 2 * crew, 6 * crew
            side = min(settings.enhance.block or BLOCK, LARGER)
            tiny = _crops(wanted, folder / "tiny", many, TINY)
            larger = _crops(wanted, folder / "larger", many, side)
            first = _timed(tiny[:crew], folder / "warm", plain, cluster, place)
            small = _slope([_timed(tiny[:n], folder / f"small-{n}", plain, cluster, place) for n in (few, many)])
            large = _slope([_timed(larger[:n], folder / f"large-{n}", plain, cluster, place) for n in (few, many)])
    if large.megapixels > 2 * small.megapixels:
        more = large.megapixels - small.megapixels
        megapixel = max(0.0, (large.each - small.each) / more)
        scene = max(0.0, small.each - small.megapixels * megapixel)
    else:  # scenes so small that pixels hardly count
        scene, megapixel = large.each, 0.0
    return _Costs(opened + first.seconds, scene, megapixel, large.compression)


@dataclass(frozen=True)
class _Run:
    """What a short run shows."""

    scenes: int
    seconds: float
    megapixels: float
    """Of all outputs."""
    compression: float


@dataclass(frozen=True)
class _Slope:
    """What one more scene costs the machine, all workers together."""

    each: float
    megapixels: float
    """Of a scene's output."""
    compression: float


def _slope(runs: list[_Run]) -> _Slope:
    """Compare a short run with a longer one: the wait until all workers are busy, and at the end, drops out."""
    few, many = runs
    each = max(0.0, many.seconds - few.seconds) / (many.scenes - few.scenes)
    return _Slope(each, many.megapixels / many.scenes, many.compression)


def _timed(
    entries: list[Entry], output: Path, settings: ArchiveSettings, cluster: ClusterSettings, place: Cluster
) -> _Run:
    clock = time.perf_counter()
    summary = archive(entries, output, settings, cluster, place=place)
    seconds = time.perf_counter() - clock
    if summary.failed:
        name, reason = next(iter(summary.failures.items()))
        raise SceneError(f"cannot measure: a crop of {name} fails: {reason}")
    found = survey(entries, output / "nothing", settings)
    size = sum(path.stat().st_size for path in (output / "scenes").rglob("*") if path.is_file())
    return _Run(len(entries), seconds, summary.megapixels, size / max(1, sum(w.nbytes for w in found.wanted)))


def _crops(wanted: list[Wanted], folder: Path, count: int, side: int) -> list[Entry]:
    """Cut the middle out of scenes spread over the archive's sizes, as often as is needed."""
    folder.mkdir()
    by_size = sorted(wanted, key=lambda w: w.pixels)
    made = []
    for number in range(count):
        chosen = by_size[min(len(by_size) - 1, (2 * number + 1) * len(by_size) // (2 * count))]
        path = folder / f"{number}-{chosen.entry.id}.tif"
        made.append(Entry(path.stem, _cut(chosen, path, (side, side))))
    return made


def _cut(wanted: Wanted, path: Path, shape: tuple[int, int]) -> tuple[str, ...]:
    """Write the middle of a scene, each of its grids as a raster of its own; return their paths."""
    scene = open_scene(wanted.source)
    step = math.lcm(*(placement.ratio for placement in scene.placements))
    height, width = (min(a, b) for a, b in zip(shape, wanted.shape, strict=True))
    row, col = ((n - side) // 2 // step * step for n, side in zip(wanted.shape, (height, width), strict=True))
    window = Window(row, col, height, width)
    values, _ = scene.read_dn(window)
    paths: list[str] = []
    for placement in dict.fromkeys(scene.placements):
        members = [i for i, its in enumerate(scene.placements) if its == placement]
        names = [scene.bands[i].description or "" for i in members]
        own = values[members, int(placement.row) :: placement.ratio, int(placement.col) :: placement.ratio]
        file = path if placement.ratio == 1 else path.with_name(f"{path.stem}-{len(paths)}{path.suffix}")
        write_geotiff(file, own, own_grid(scene.grid.window(window), placement), scene.nodata, names)
        paths.append(str(file))
    return tuple(paths)


__all__ = ["Estimate", "Survey", "estimate", "survey"]
