"""The figures of a report: scores with intervals, histograms, spectra, where the difference is largest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenelift.models.classical.classical import classical
from scenelift.pipeline.enhance import Enhancer, context, enhance_region
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.regions import Region
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.scores.areas import HALO, Area
from scenelift.pipeline.scores.bootstrap import Interval, score_intervals
from scenelift.pipeline.scores.pairs import Pair, open_pair
from scenelift.pipeline.scores.registry import Score, columns, known_scores
from scenelift.pipeline.scores.scores import REFLECTANCE_RANGE, Convention, Statistics, block_statistics
from scenelift.pipeline.tiles import TileGrid, Window

BLOCK = 128
"""Side of a block in pixels of the scene before."""
MOST = 64
"""Blocks looked at, spread evenly; of a small scene all are."""
CROP = 64
"""Side of a zoomed crop in pixels of the scene before."""
CROPS = 3


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
    bands, made = len(open_scene(before).bands), open_scene(after)
    if bands != len(made.bands):  # which open_pair says, too, but names an option that a report does not have
        raise UsageError(
            f"a report compares a scene with what it was made from, band by band: {made.name} has {len(made.bands)} "
            f"bands (of classes, or of uncertainty?), that has {bands}; name an enhanced scene without them"
        )
    pair = open_pair(before, after)
    if truth is None:
        return Triple(pair, None)
    if open_pair(truth, after).factor != 1:
        raise UsageError(f"the truth {open_scene(truth).name} must lie on the grid of {pair.test.name}")
    return Triple(pair, open_scene(truth))


Row = list[tuple[Score, Interval]]
"""What a table says of one scene."""


def truth_table(triple: Triple) -> dict[str, Row]:
    """Return the scores against the truth: of the scene after, and of what needs no model; empty without one."""
    if triple.truth is None:
        return {}
    factor = triple.pair.factor
    simple: dict[str, Enhancer | None] = {"before": None}
    if factor > 1:
        simple = {f"{name} of the scene before": classical(name, factor) for name in ("nearest", "bicubic")}
    shown = [score for score in columns("report") if score.kind == "pair"]
    convention = Convention(REFLECTANCE_RANGE, factor, tuple(score.name for score in shown))
    parts: dict[str, list[Statistics]] = {name: [] for name in ("after", *simple)}
    for block in triple.blocks():
        area = _area(block.scaled(factor), triple.truth)
        window = Window(*area.origin, *area.shape)
        truth = triple.truth.read(window)
        for name in parts:
            region = triple.after.read(window) if name == "after" else _simple(triple, window, simple[name])
            valid = truth.valid & region.valid
            parts[name].append(block_statistics(truth.values, region.values, valid, area, convention))
    return {name: _row(blocks, shown, convention) for name, blocks in parts.items()}


def _area(core: Window, scene: Scene, halo: int = HALO) -> Area:
    return Area.around((core.row, core.col, core.stop_row, core.stop_col), scene.grid.shape, halo)


def _row(blocks: list[Statistics], shown: list[Score], convention: Convention) -> Row:
    found = score_intervals(blocks, shown, convention)
    return [(score, found[score.name]) for score in shown]


def _simple(triple: Triple, window: Window, enhancer: Enhancer | None) -> Region:
    if enhancer is None:
        return triple.before.read(window)
    scene, factor = triple.before, triple.pair.factor
    coarse = window.coarsened(factor)
    wide = context(scene.grid.shape, coarse, [enhancer.spec], scene.masked)[0]
    done = enhance_region(scene.read(wide), coarse, scene.grid.shape, [enhancer], masked=scene.masked)
    return done.crop(window)


def texture_table(triple: Triple) -> dict[str, Row]:
    """Return what needs no truth: noise, sharpness and contrast of each scene, over all of its blocks."""
    scenes = {"before": (triple.before, 1), "after": (triple.after, triple.pair.factor)}
    if triple.truth:
        scenes["truth"] = (triple.truth, triple.pair.factor)
    shown = [score for score in columns("report") if score.kind != "pair"]
    convention = Convention(REFLECTANCE_RANGE, names=tuple(score.name for score in shown))
    rows = {}
    for name, (scene, factor) in scenes.items():
        blocks = []
        for block in triple.blocks():
            area = _area(block.scaled(factor), scene)
            region = scene.read(Window(*area.origin, *area.shape))
            blocks.append(block_statistics(None, region.values, region.valid, area, convention))
        rows[name] = _row(blocks, shown, convention)
    return rows


def consistency(triple: Triple) -> Row:
    """Return how far the scene after, averaged back to the grid before, is from the scene before."""
    shown = [known_scores()[name] for name in ("rmse", "bias")]
    convention = Convention(REFLECTANCE_RANGE, names=("rmse", "bias"))
    parts = []
    for block in triple.blocks():
        area = _area(block, triple.before, 0)
        parts.append(block_statistics(*triple.pair.read(area), area, convention))
    return _row(parts, shown, convention)


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
