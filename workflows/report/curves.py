"""The curves of a report: how values are distributed, and power over frequency."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.regions import Region
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.pipeline.tiles import Window
from scenelift.workflows.report.charts import Line
from scenelift.workflows.report.evidence import BLOCK, Triple

BINS = 64


def histograms(triple: Triple) -> list[list[Line]]:
    """Return, for each band, the distribution of values before, after and in truth."""
    bands = len(triple.before.bands)
    values = [_values(triple.before.read(block), band) for block in triple.blocks() for band in range(bands)]
    charts: list[list[Line]] = []
    for band in range(bands):
        mine = np.concatenate(values[band::bands])
        if not mine.size:
            charts.append([])
            continue
        low, high = np.percentile(mine, (0.1, 99.9))
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
        scenes = [("before", triple.before, 1), ("after", triple.after, triple.pair.factor)]
        scenes += [("truth", triple.truth, triple.pair.factor)] if triple.truth else []
        charts.append([_histogram(label, s, f, triple.blocks(), band, edges) for label, s, f in scenes])
    return charts


def _values(region: Region, band: int) -> NDArray[np.float32]:
    return region.values[band][region.valid[band]]


def _histogram(
    label: str, scene: Scene, factor: int, blocks: list[Window], band: int, edges: NDArray[np.float64]
) -> Line:
    counts = np.zeros(BINS)
    for block in blocks:
        counts += np.histogram(_values(scene.read(block.scaled(factor)), band), edges)[0]
    return Line(label, label, (edges[:-1] + edges[1:]) / 2, counts / max(counts.sum(), 1))


def spectra(triple: Triple) -> list[Line]:
    """Return the power of each frequency (cycles per pixel before), means over blocks, directions and bands."""
    scenes = [("before", triple.before, 1), ("after", triple.after, triple.pair.factor)]
    scenes += [("truth", triple.truth, triple.pair.factor)] if triple.truth else []
    return [line for label, scene, factor in scenes if (line := _spectrum(label, scene, factor, triple.blocks()))]


def _spectrum(label: str, scene: Scene, factor: int, blocks: list[Window]) -> Line | None:
    total, count = np.zeros(0), 0
    for image in _whole_blocks(scene, factor, blocks):
        side = image.shape[-1]
        window = np.hanning(side)
        power = np.abs(np.fft.fft2((image - image.mean()) * np.outer(window, window))) ** 2 / side**2 / factor**2
        steps = np.fft.fftfreq(side) * side
        radius = np.hypot(steps[:, None], steps[None, :]).round().astype(int)
        rings = np.bincount(radius.ravel(), power.ravel())[: side // 2]
        total = rings / np.bincount(radius.ravel())[: side // 2] + (total if count else 0)
        count += 1
    if not count:
        return None
    frequency = np.arange(1, len(total)) / (len(total) * 2) * factor
    return Line(label, label, frequency, np.maximum(total[1:] / count, 1e-20))


def _whole_blocks(scene: Scene, factor: int, blocks: list[Window]) -> Iterator[NDArray[np.float64]]:
    for block in blocks:
        if block.shape != (BLOCK, BLOCK):
            continue
        region = scene.read(block.scaled(factor))
        if region.valid.all():
            yield region.values.mean(axis=0, dtype=np.float64)
