"""The figures of a report: scores with intervals, histograms, spectra, where the difference is largest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.models.classical.classical import classical
from scenelift.pipeline.enhance import Enhancer, Region, context, enhance_region
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.scores.areas import Area
from scenelift.pipeline.scores.bootstrap import Interval, ratio_interval
from scenelift.pipeline.scores.pairs import Pair, open_pair
from scenelift.pipeline.scores.scores import Convention, Statistics, block_statistics
from scenelift.pipeline.scores.texture import TextureSums, texture_sums
from scenelift.pipeline.tiles import TileGrid, Window

BLOCK = 128
"""Side of a block in pixels of the scene before."""
MOST = 64
"""Blocks looked at, spread evenly; of a small scene all are."""
CROP = 64
"""Side of a zoomed crop in pixels of the scene before."""
CROPS = 3
RANGE = 0.3
"""Full scale of the scores, reflectance."""


@dataclass(frozen=True)
class Triple:
    """A scene before and after, and the truth if there is one."""

    pair: Pair
    """Before, and after on its grid or a finer one."""
    truth: Scene | None

    @property
    def before(self) -> Scene:
        """The scene that went in."""
        return self.pair.reference

    @property
    def after(self) -> Scene:
        """The scene that came out."""
        return self.pair.test

    def blocks(self) -> list[Window]:
        """Return the blocks looked at, on the grid before."""
        grid = TileGrid(self.before.grid.shape, (BLOCK, BLOCK))
        at = np.unique(np.linspace(0, len(grid) - 1, min(MOST, len(grid))).round().astype(int))
        return [grid[int(i)] for i in at]


def open_triple(before: SceneSource, after: SceneSource, truth: SceneSource | None) -> Triple:
    """Open the scenes of a report.

    Raises
    ------
    UsageError
        If they do not lie on grids that fit; see :func:`scenelift.pipeline.scores.pairs.open_pair`.
    """
    pair = open_pair(before, after)
    if truth is None:
        return Triple(pair, None)
    if open_pair(truth, after).factor != 1:
        raise UsageError(f"the truth {open_scene(truth).name} must lie on the grid of {pair.test.name}")
    return Triple(pair, open_scene(truth))


@dataclass(frozen=True)
class Score:
    """One cell of a table."""

    name: str
    value: Interval
    digits: int


def truth_table(triple: Triple) -> dict[str, list[Score]]:
    """Return the scores against the truth: of the scene after, and of what needs no model; empty without a truth."""
    if triple.truth is None:
        return {}
    factor = triple.pair.factor
    simple: dict[str, Enhancer | None] = {"before": None}
    if factor > 1:
        simple = {f"{name} of the scene before": classical(name, factor) for name in ("nearest", "bicubic")}
    parts: dict[str, list[Statistics]] = {name: [] for name in ("after", *simple)}
    convention = Convention(RANGE, ratio=factor)
    for block in triple.blocks():
        fine = block.scaled(factor)
        core = fine.row, fine.col, fine.stop_row, fine.stop_col
        area = Area.around(core, triple.truth.grid.shape)
        window = Window(*area.origin, *area.shape)
        truth = triple.truth.read(window)
        for name in parts:
            region = triple.after.read(window) if name == "after" else _simple(triple, window, simple[name])
            valid = truth.valid & region.valid
            parts[name].append(block_statistics(truth.values, region.values, valid, area, convention))
    return {name: _scores(blocks) for name, blocks in parts.items()}


def _simple(triple: Triple, window: Window, enhancer: Enhancer | None) -> Region:
    if enhancer is None:
        return triple.before.read(window)
    scene, factor = triple.before, triple.pair.factor
    coarse = window.coarsened(factor)
    wide = context(scene.grid.shape, coarse, [enhancer.spec], scene.masked)[0]
    done = enhance_region(scene.read(wide), coarse, scene.grid.shape, [enhancer], masked=scene.masked)
    return done.crop(window)


def _scores(blocks: list[Statistics]) -> list[Score]:
    def column(part: str, name: str) -> NDArray[np.float64]:
        return np.stack([np.atleast_2d(getattr(getattr(block, part), name))[0] for block in blocks])

    relative = column("pixels", "squared").sum(axis=1, keepdims=True) / RANGE**2
    error = ratio_interval(relative, column("pixels", "pixels").sum(axis=1, keepdims=True))
    with np.errstate(divide="ignore"):
        psnr = Interval(*(float(-10 * np.log10(x)) for x in (error.mean, error.high, error.low)))
    degrees = ratio_interval(np.degrees(column("pixels", "angle")), column("pixels", "angles"))
    return [
        Score("PSNR, dB", psnr, 2),
        Score("SSIM", ratio_interval(column("similarity", "ssim"), column("similarity", "windows")), 4),
        Score("VIF", ratio_interval(column("information", "kept"), column("information", "total")), 3),
        Score("MAE, reflectance", ratio_interval(column("pixels", "absolute"), column("pixels", "pixels")), 5),
        Score("spectral angle, degrees", degrees, 3),
    ]


def texture_table(triple: Triple) -> dict[str, list[Score]]:
    """Return what needs no truth: noise, sharpness and contrast of each scene, over all of its blocks."""
    scenes = {"before": (triple.before, 1), "after": (triple.after, triple.pair.factor)}
    if triple.truth:
        scenes["truth"] = (triple.truth, triple.pair.factor)
    return {name: _texture(triple, scene, factor) for name, (scene, factor) in scenes.items()}


def _texture(triple: Triple, scene: Scene, factor: int) -> list[Score]:
    blocks: list[TextureSums] = []
    for block in triple.blocks():
        fine = block.scaled(factor)
        area = Area.around((fine.row, fine.col, fine.stop_row, fine.stop_col), scene.grid.shape)
        region = scene.read(Window(*area.origin, *area.shape))
        valid = region.valid & np.isfinite(region.values)
        image = np.where(valid, region.values, 0).astype(np.float64)
        blocks.append(texture_sums(image, valid, area, np.full(len(image), RANGE)))
    total = blocks[0]
    for other in blocks[1:]:
        total = total + other

    def overall(values: NDArray[np.float64]) -> Interval:
        known = values[np.isfinite(values)]
        mean = float(known.mean()) if known.size else float("nan")
        return Interval(mean, mean, mean)

    sobel = ratio_interval(np.stack([b.gradient for b in blocks]), np.stack([b.gradients for b in blocks]))
    detail = ratio_interval(np.stack([b.detail for b in blocks]), np.stack([b.details for b in blocks]))
    return [
        Score("noise estimate, reflectance", overall(total.noise * RANGE), 5),
        Score("signal to noise", overall(total.signal_to_noise), 1),
        Score("contrast (RMS, of full scale)", overall(total.rms_contrast), 4),
        Score("Tenengrad (of full scale, squared)", sobel, 6),
        Score("high-frequency energy", detail, 6),
    ]


def consistency(triple: Triple) -> list[Score]:
    """Return how far the scene after, averaged back to the grid before, is from the scene before."""
    plain = Convention(RANGE, windows=False)
    parts = []
    for block in triple.blocks():
        area = Area.around((block.row, block.col, block.stop_row, block.stop_col), triple.before.grid.shape, 0)
        parts.append(block_statistics(*triple.pair.read(area), area, plain).pixels)
    count = np.stack([p.pixels for p in parts])
    squared = ratio_interval(np.stack([p.squared for p in parts]), count)
    rmse = Interval(*(float(np.sqrt(x)) for x in (squared.mean, squared.low, squared.high)))
    bias = ratio_interval(np.stack([p.error for p in parts]), count)
    return [Score("RMSE, reflectance", rmse, 5), Score("bias, reflectance", bias, 6)]


def busiest(triple: Triple) -> list[Window]:
    """Return the windows (grid before) where the scene after differs most from plain interpolation."""
    factor = triple.pair.factor
    enhancer = classical("bicubic", factor) if factor > 1 else None
    found: list[tuple[float, Window]] = []
    for block in triple.blocks():
        cells = [Window(block.row + r, block.col + c, CROP, CROP) for r in (0, CROP) for c in (0, CROP)]
        for cell in (c.clip(triple.before.grid.shape) for c in cells):
            if min(cell.shape) < 16:
                continue
            fine = cell.scaled(factor)
            after, plain = triple.after.read(fine), _simple(triple, fine, enhancer)
            both = after.valid & plain.valid
            if both.mean() > 0.9:
                gap = np.where(both, after.values - plain.values, 0)
                found.append((float(np.square(gap).mean()), cell))
    found.sort(key=lambda item: (-item[0], item[1]))
    return [window for _, window in found[:CROPS]]
