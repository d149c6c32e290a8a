"""`scenelift archive --dry-run`: how long a run would take and how much disk it needs, for a small part of its cost."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scenelift.models.catalog import find, interpolates, load_spec
from scenelift.models.shipped import card, work
from scenelift.pipeline.cluster import Cluster, ClusterSettings, open_cluster
from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.files import check_writable
from scenelift.pipeline.outputs.geotiffs import write_geotiff
from scenelift.pipeline.scenes.multigrid import own_grid
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.tiles import Window
from scenelift.workflows.archive.entries import Entry
from scenelift.workflows.archive.filters import Filters
from scenelift.workflows.archive.record import read_record
from scenelift.workflows.archive.settings import ArchiveSettings, Folder
from scenelift.workflows.archive.survey import Survey, Wanted, survey
from scenelift.workflows.settings import Reading

TINY = 64
"""Side of the crop that shows what a scene costs whatever its size."""
LARGER = 256
"""Largest side of the crop that shows what a pixel costs."""
CANDIDATES = 3
"""Scenes that are tried, as the middle of one may be empty."""
LEAST = 0.5
"""Share of a crop that must hold data: empty blocks cost nothing."""
COPIES = 3.0
"""A scene under way may lie on the disk as blocks, as a plain GeoTIFF and as a COG."""
WORTH = 60.0
"""CPU seconds from which on a run is worth measuring, which takes 5 to 6."""
RATE = 1.2e11
"""Multiplications a second of a core with AMX, in bfloat16; cores without take two to four times as long."""
SCENE, PIXEL = 0.7, 1.2e-7
"""CPU seconds of a scene, and of an output pixel of one band, beside the network (two cores with AMX)."""
TRIED = 1.3
"""What the network does for a scene of usual size, tries one level coarser included, over the scene itself."""
START = 3.0
"""Seconds until the first block is begun: libraries, models, workers."""


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
    """Of the whole run on this machine, if nothing else runs there."""
    output_bytes: int
    """Of all outputs: at the compression measured, else at most."""
    scratch_bytes: int
    """Needed besides while the largest scenes are under way."""
    measured: dict[str, float] = field(default_factory=dict)
    """What the estimate is made from (`_Costs`); empty where the run is too short to be measured: its time is then that
    of a known machine."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def estimate(
    entries: Sequence[Entry],
    output: Path,
    settings: ArchiveSettings,
    cluster: ClusterSettings | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Estimate:
    """Say what :func:`archive` would do with the same arguments; nothing is written below `output`.

    A run that would take long is measured: crops of one scene go through the same engine, in this process (with
    a scheduler: on its workers) and into a temporary folder, a very small one, which tells what a scene costs whatever
    its size, and a larger one, which tells what a pixel costs. They stand for all scenes.

    Parameters
    ----------
    entries : sequence of Entry
    output : Path
    settings : ArchiveSettings
    cluster : ClusterSettings, optional
    say : callable, optional
        Told what is being done.
    """
    settings.check()
    target = output.absolute()
    check_writable(next(folder for folder in (target, *target.parents) if folder.exists()))
    say(f"looking at {len(entries)} scene{'s' * (len(entries) != 1)}")
    found = survey(entries, output, settings)
    cluster = cluster or ClusterSettings()
    known = _known(found.wanted, settings)
    if known is None or known > WORTH:
        costs = _measure(found.wanted, settings, cluster, say)
        seconds = costs.start + sum(costs.of(w, settings) for w in found.wanted) / costs.side_by_side(found.wanted)
    else:
        costs = _Costs()
        seconds = START + known / min(cluster.own_threads, max(1, sum(w.blocks for w in found.wanted)))
    largest = sorted((w.nbytes for w in found.wanted), reverse=True)[: 1 if cluster.in_process else 4]
    return Estimate(
        scenes=len(found.wanted),
        before=len(found.before),
        skipped=found.skipped,
        unusable=found.unusable,
        blocks=sum(w.blocks for w in found.wanted),
        megapixels=round(sum(w.pixels for w in found.wanted) / 1e6, 3),
        seconds=round(seconds if found.wanted else 0.0, 1),
        output_bytes=round(sum(w.nbytes for w in found.wanted) * costs.compression),
        scratch_bytes=round(COPIES * sum(largest)),
        measured=asdict(costs) if costs.start else {},
    )


def _known(wanted: Sequence[Wanted], settings: ArchiveSettings) -> float | None:
    """Return the CPU seconds of a run by the arithmetic of its networks; None where that is not known."""
    if settings.enhance.extras():
        return None
    each, grid = 0.0, 1.0
    for name in settings.models:
        spec = load_spec(find(name))
        own = 0.0 if interpolates(name) else work(spec.bands, card(name) or {}) * spec.scale**2
        if not own and not interpolates(name):
            return None
        each += own * grid
        grid *= spec.scale**2
    return sum(SCENE + w.read * (TRIED * each / RATE + PIXEL * grid) for w in wanted)


@dataclass(frozen=True)
class _Costs:
    start: float = 0.0
    """Seconds until the first scene is begun."""
    scene: float = 0.0
    """Seconds a scene takes of one processor."""
    megapixel: float = 0.0
    """Seconds that a million pixels, read by the models, take of one processor."""
    compression: float = 1.0
    """Bytes on the disk over bytes in memory."""
    processors: int = 1
    """That work side by side."""

    def of(self, wanted: Wanted, settings: ArchiveSettings) -> float:
        """Return the seconds that a scene takes of one processor."""
        return self.scene + self.megapixel * _seen(wanted, settings) / 1e6

    def side_by_side(self, wanted: Sequence[Wanted]) -> int:
        """Return how many processors have something to do."""
        return max(1, min(self.processors, sum(w.blocks for w in wanted)))


def _seen(wanted: Wanted, settings: ArchiveSettings) -> int:
    """Return how many pixels of all bands go through the models, for the output and for trying them out before."""
    from scenelift.workflows.expect import pixels_tried

    scale = math.isqrt(wanted.pixels // math.prod(wanted.shape))
    tried = scale > 1 and (settings.enhance.expect or settings.enhance.require_gain is not None)
    return wanted.read + tried * pixels_tried(wanted.shape, scale) * (wanted.read // math.prod(wanted.shape))


def _measure(
    wanted: Sequence[Wanted], settings: ArchiveSettings, cluster: ClusterSettings, say: Callable[[str], None]
) -> _Costs:
    """Put crops of one scene through the engine.

    Raises
    ------
    SceneError
        If none of the scenes that are tried can be enhanced.
    """
    if not wanted:
        return _Costs()
    plain = replace(settings, reading=Reading(), filters=Filters(), share=False, publish=None)
    by_size = sorted(wanted, key=lambda w: w.read)
    middle = len(by_size) // 2
    # a batch system is not asked for a job only to say how long others may take
    there = cluster if cluster.scheduler else ClusterSettings(workers=0)
    why = ""
    with tempfile.TemporaryDirectory(prefix="scenelift-plan-") as name, open_cluster(there) as place:
        for chosen in by_size[middle : middle + CANDIDATES]:
            say(f"measuring on a crop of {chosen.entry.id}")
            folder = Path(name, str(len(list(Path(name).iterdir()))))
            try:
                return _Trial(chosen, folder, plain, there, place, whole=cluster).costs()
            except SceneError as error:
                why = str(error)
    raise SceneError(f"cannot measure: {why}")


@dataclass(frozen=True)
class _Run:
    """What enhancing one crop took and made."""

    seconds: float
    """Of one processor."""
    seen: int
    compression: float


@dataclass(frozen=True)
class _Trial:
    """Crops of one scene, enhanced."""

    scene: Wanted
    folder: Path
    settings: ArchiveSettings
    cluster: ClusterSettings
    """Where the crops are done."""
    place: Cluster
    whole: ClusterSettings
    """Where the run would be."""

    def costs(self) -> _Costs:
        """Compare a small crop with a larger one, when libraries and models are loaded.

        Raises
        ------
        SceneError
            If a crop cannot be enhanced, or holds no data.
        """
        self.folder.mkdir()
        clock = time.perf_counter()
        self._timed("first", TINY)
        first = time.perf_counter() - clock
        small, large = self._timed("small", TINY), self._timed("large", LARGER)
        pixel = 0.0
        if large.seen > 2 * small.seen:
            pixel = max(0.0, (large.seconds - small.seconds) / (large.seen - small.seen))
        scene = max(0.0, large.seconds - large.seen * pixel)
        start = max(0.1, first - small.seconds) + (0 if self.whole.in_process else START / 2)
        return _Costs(start, scene, pixel * 1e6, large.compression, self._processors())

    def _timed(self, name: str, side: int) -> _Run:
        from scenelift.workflows.archive.run import archive

        entry, output = _crop(self.scene, self.folder / f"{name}.tif", side), self.folder / name
        # threads of this process share the work, so its CPU seconds count; a GPU's and other machines' are waited for
        clock = time.perf_counter if self.place.slots or self._on_gpu else time.process_time
        begun = clock()
        summary = archive([entry], output, self.settings, self.cluster, place=self.place)
        seconds = clock() - begun
        for reason in summary.failures.values():
            raise SceneError(f"a crop of {self.scene.entry.id} fails: {reason}")
        if not summary.done:
            raise SceneError(f"a crop of {self.scene.entry.id} is no image")
        crop = survey([entry], output / "nothing", self.settings).wanted[0]
        record = read_record(Folder(output).records, entry.id)
        size = crop.nbytes if record is None or record.bytes is None else record.bytes
        return _Run(seconds, _seen(crop, self.settings), size / crop.nbytes)

    @property
    def _on_gpu(self) -> bool:
        return bool(self.whole.gpus) or self.whole.kind == "cuda"

    def _processors(self) -> int:
        """Return how many tasks run side by side, counted as they were timed."""
        whole = self.whole
        if whole.scheduler:
            return self.place.slots
        if self._on_gpu:
            return max(1, whole.local_workers)
        return whole.threads * (whole.maximum or whole.workers or 1) if whole.queued else whole.own_threads


def _crop(wanted: Wanted, path: Path, side: int) -> Entry:
    """Cut the middle out of a scene."""
    return Entry(path.stem, _cut(wanted, path, (side, side)))


def _cut(wanted: Wanted, path: Path, shape: tuple[int, int]) -> tuple[str, ...]:
    """Write the middle of a scene, each of its grids as a raster of its own; return their paths."""
    scene = open_scene(wanted.source)
    step = math.lcm(*(placement.ratio for placement in scene.placements))
    height, width = (min(a, b) for a, b in zip(shape, wanted.shape, strict=True))
    row, col = ((n - side) // 2 // step * step for n, side in zip(wanted.shape, (height, width), strict=True))
    window = Window(row, col, height, width)
    values, valid = scene.read_dn(window)
    if valid.mean() < LEAST:
        raise SceneError(f"the middle of {wanted.entry.id} holds no data")
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
