"""`scenelift plan`: how long a run would take and how much room it needs, from a short run on crops of its scenes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scenelift.pipeline.cluster import Cluster, ClusterSettings, open_cluster
from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.rasters import write_geotiff
from scenelift.pipeline.scenes import open_scene
from scenelift.pipeline.tiles import Window
from scenelift.workflows.archive.entries import Entry
from scenelift.workflows.archive.filters import Filters
from scenelift.workflows.archive.run import archive
from scenelift.workflows.archive.settings import ArchiveSettings, Reading
from scenelift.workflows.archive.survey import Survey, Wanted, survey

TINY = 64
"""Side of the crops that show what a scene costs whatever its size."""
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
    """Seconds until the first scene can begin."""
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
            tiny = _crops(wanted, folder / "tiny", 2 * crew + 2, (TINY, TINY))
            first = _timed(tiny, folder / "warm", plain, cluster, place)
            again = _timed(tiny, folder / "again", plain, cluster, place)
            side = settings.enhance.block
            larger = _crops(wanted, folder / "larger", crew + 1, (side, side * (1 if cluster.in_process else 2)))
            full = _timed(larger, folder / "full", plain, cluster, place)
    scene = again.seconds / len(tiny)
    small, large = again.megapixels / len(tiny), full.megapixels / len(larger)
    if large > 2 * small:
        megapixel = max(0.0, (full.seconds / len(larger) - scene) / (large - small))
    else:  # scenes so small that pixels hardly count
        scene, megapixel, small = full.seconds / len(larger), 0.0, 0.0
    scene = max(0.0, scene - small * megapixel)
    return _Costs(opened + max(0.0, first.seconds - again.seconds), scene, megapixel, full.compression)


@dataclass(frozen=True)
class _Run:
    seconds: float
    megapixels: float
    compression: float


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
    return _Run(seconds, summary.megapixels, size / max(1, sum(w.nbytes for w in found.wanted)))


def _crops(wanted: list[Wanted], folder: Path, count: int, shape: tuple[int, int]) -> list[Entry]:
    """Cut the middle out of scenes spread over the archive's sizes, as often as is needed."""
    folder.mkdir()
    by_size = sorted(wanted, key=lambda w: w.pixels)
    made = []
    for number in range(count):
        chosen = by_size[min(len(by_size) - 1, (2 * number + 1) * len(by_size) // (2 * count))]
        path = folder / f"{number}-{chosen.entry.id}.tif"
        _cut(chosen, path, shape)
        made.append(Entry(path.stem, (str(path),)))
    return made


def _cut(wanted: Wanted, path: Path, shape: tuple[int, int]) -> None:
    scene = open_scene(wanted.source)
    height, width = (min(a, b) for a, b in zip(shape, wanted.shape, strict=True))
    window = Window((wanted.shape[0] - height) // 2, (wanted.shape[1] - width) // 2, height, width)
    values, _ = scene.read_dn(window)
    names = [band.description or "" for band in scene.bands]
    write_geotiff(path, values, scene.grid.window(window), scene.nodata, names)


__all__ = ["Estimate", "Survey", "estimate", "survey"]
