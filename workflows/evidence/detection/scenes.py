"""Detectors of one number a pixel (an index, a probability) on a scene before and after, against a map of labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import TileGrid, Window
from scenelift.workflows.evidence.detection.rates import Detections, best_threshold, check_both, count, edges_of

FARTHEST = 16
"""Times that a scene's grid may be finer or coarser than the labels'."""
LOOKED_AT = 400_000
"""Samples that quantiles and the threshold are found from."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Detector:
    """What is looked for, and the number that a pixel is detected by."""

    difference: tuple[int, int] | None = None
    """1-based bands a and b: the number is (a - b) / (a + b) of their reflectances."""
    band: int = 1
    """Otherwise the number is this band's."""
    positive: tuple[int, ...] = ()
    """Labels of what is looked for; none: all but 0."""
    threshold: float | None = None
    """Numbers above it detect; None: the best one for the first scene."""
    place: int = 64
    """Label pixels a side of a place: what is drawn as one where intervals are made."""

    def __post_init__(self) -> None:
        if self.place < 1:
            raise UsageError(f"--place must be at least 1 pixel, got {self.place}")
        if self.difference is not None and self.difference[0] == self.difference[1]:
            raise UsageError(f"--difference needs two bands that differ, got {self.difference[0]},{self.difference[1]}")
        if min(self.difference or (self.band,)) < 1:
            raise UsageError("bands are counted from 1: see --difference and --band")

    @property
    def bands(self) -> tuple[int, ...]:
        """The bands that are looked at."""
        return self.difference or (self.band,)

    @property
    def title(self) -> str:
        """What the number is."""
        a, *more = self.bands
        return f"(band {a} - band {more[0]}) / (band {a} + band {more[0]})" if more else f"band {a}"


@dataclass(frozen=True)
class Detected:
    """What detectors found in samples of the same places."""

    arms: dict[str, Detections]
    """The first is what the others are compared with."""
    threshold: float
    samples: int
    places: int


def detect(sources: Sequence[SceneSource], labels: SceneSource, detector: Detector) -> Detected:
    """Count how a detector's numbers are spread in every scene, where all scenes and the labels have data.

    Parameters
    ----------
    sources : sequence of SceneSource
        The scene before, then what was made of it.
    labels : SceneSource
        One band of whole numbers, on the grid of the scenes or one some whole times finer or coarser. A finer scene's
        numbers are averaged over a label's pixel, a coarser one's are repeated.
    detector : Detector

    Raises
    ------
    UsageError
        If grids or bands do not fit, or the labels leave nothing to tell apart.
    """
    truth = open_scene(labels)
    if len(truth.bands) != 1 or truth.dtype == "float32":
        raise UsageError(
            f"{truth.name} holds {len(truth.bands)} bands of {truth.dtype}: labels are one of whole numbers"
        )
    scenes = [open_scene(source) for source in sources]
    factors = [_factor(scene, truth, detector) for scene in scenes]
    names = _names(scenes)
    grid = TileGrid(truth.grid.shape, (min(detector.place, truth.grid.height), min(detector.place, truth.grid.width)))
    step = max(1, math.ceil(truth.grid.height * truth.grid.width / LOOKED_AT))
    looked_at = [(a[:, ::step], p[::step]) for a, p in _samples(scenes, factors, truth, detector, grid)]
    numbers, present = (np.concatenate(parts, axis=-1) for parts in zip(*looked_at, strict=True))
    check_both(int(present.sum()), int((~present).sum()))
    threshold = best_threshold(numbers[0], present) if detector.threshold is None else detector.threshold
    edges = [edges_of(row, threshold) for row in numbers]
    parts: list[list[Detections]] = [[] for _ in scenes]
    samples = 0
    for values, known in _samples(scenes, factors, truth, detector, grid):
        if not len(known):
            continue
        samples += len(known)
        here = np.zeros(len(known), np.int64)
        for own, row, own_edges in zip(parts, values, edges, strict=True):
            own.append(count(row, known, here, own_edges, 1))
    arms = {
        name: Detections(e, *(np.concatenate([getattr(p, f) for p in own]) for f in ("present", "absent")))
        for name, own, e in zip(names, parts, edges, strict=True)
    }
    return Detected(arms, threshold, samples, len(parts[0]))


def _samples(
    scenes: Sequence[Scene], factors: Sequence[float], truth: Scene, detector: Detector, grid: TileGrid
) -> Iterator[tuple[Values, NDArray[np.bool_]]]:
    """Yield, place by place, every scene's numbers (scenes, n) and which of them are of what is looked for (n,)."""
    for window in grid:
        labels, valid = truth.read_dn(window)
        kept, rows = valid[0].copy(), []
        for scene, factor in zip(scenes, factors, strict=True):
            values, known = _numbers(scene, factor, window, detector)
            kept &= known & np.isfinite(values)
            rows.append(values)
        found = labels[0][kept]
        yield (
            np.stack([row[kept] for row in rows]),
            np.isin(found, detector.positive) if detector.positive else found != 0,
        )


def _numbers(scene: Scene, factor: float, window: Window, detector: Detector) -> tuple[Values, NDArray[np.bool_]]:
    """Return the numbers and which are known, (H, W), on the labels' grid."""
    finer = max(1, round(factor))
    coarser = max(1, round(1 / factor))
    row, col = window.row // coarser, window.col // coarser
    height, width = -(-window.stop_row // coarser) - row, -(-window.stop_col // coarser) - col
    region = scene.read(Window(row, col, height, width).scaled(finer))
    chosen = [band - 1 for band in detector.bands]
    values: Values = region.values[chosen].astype(np.float64)
    known: NDArray[np.bool_] = np.logical_and.reduce(region.valid[chosen])
    number: Values = values[0]
    if len(chosen) == 2:
        total = values[0] + values[1]
        known = known & (total != 0)
        number = (values[0] - values[1]) / np.where(total == 0, 1, total)
    if coarser > 1:
        rows, cols = (
            np.arange(first, first + side) // coarser - start
            for first, side, start in ((window.row, window.height, row), (window.col, window.width, col))
        )
        return number[np.ix_(rows, cols)], known[np.ix_(rows, cols)]
    cells = window.height, finer, window.width, finer
    return number.reshape(cells).mean(axis=(1, 3)), np.logical_and.reduce(known.reshape(cells), axis=(1, 3))


def _factor(scene: Scene, truth: Scene, detector: Detector) -> float:
    """Return how many times finer a scene's grid is than the labels', below 1 if it is coarser."""
    if max(detector.bands) > len(scene.bands):
        raise UsageError(f"{scene.name} has {len(scene.bands)} bands, there is no band {max(detector.bands)}")
    finer, coarser = scene.grid.times_finer(truth.grid), truth.grid.times_finer(scene.grid)
    if finer and finer <= FARTHEST:
        return finer
    if coarser and coarser <= FARTHEST:
        return 1 / coarser
    raise UsageError(
        f"labels {truth.name} ({truth.grid.width} x {truth.grid.height} px) do not lie on the grid of {scene.name} "
        f"({scene.grid.width} x {scene.grid.height} px), nor on one some whole times finer or coarser: warp them onto "
        "it first"
    )


def _names(scenes: Sequence[Scene]) -> list[str]:
    names = [scene.name for scene in scenes]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]
