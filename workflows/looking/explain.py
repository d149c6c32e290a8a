"""`scenelift explain`: why a network made a pixel, and what of its surroundings no sensor could have told it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.composite import ByBands
from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.errors import ModelError
from scenelift.models.explaining.attribution import Deletion, deletion_test, integrated_gradients
from scenelift.models.explaining.support import Support, support
from scenelift.models.sensing.blurs import Blur
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import context, enhance_region
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.files import check_writable, write_durably
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import TileGrid, Window, patch_shape
from scenelift.workflows.choosing.prepared import Prepared, prepare
from scenelift.workflows.conditions import scene_conditions
from scenelift.workflows.settings import EnhanceSettings

EDGE = 12
"""Input pixels beyond that in which the sensor's blur reaches over the edge of what is split."""
AROUND = 32
"""Input pixels on every side of the point that are split into what is determined and what is added."""

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Point:
    """An output pixel."""

    col: int
    row: int
    band: int = 1
    """1-based."""


@dataclass(frozen=True, eq=False)
class Explained:
    """Why a pixel has its value."""

    model: str
    point: Point
    value: float
    """Reflectance of the pixel, as the whole job makes it."""
    plain: float
    """What the network makes of a patch without structure: the attributions sum to the difference."""
    attribution: Image
    """By how much each input pixel moved the value, reflectance, (bands seen, S, S)."""
    corner: tuple[int, int]
    """Row and column in the scene of the attribution's first pixel."""
    reach: float
    """Distance in input pixels within which 90 % of the absolute attribution lies."""
    deletion: Deletion
    support: Support
    """Around the point."""
    window: Window
    """What of the input that is about."""
    before: Image
    """(bands, H, W) of the window."""

    @property
    def at(self) -> tuple[int, int]:
        """Row and column of the point in the images of `support`."""
        scale = self.support.added.shape[1] // self.window.height
        return self.point.row - self.window.row * scale, self.point.col - self.window.col * scale

    @property
    def parts(self) -> dict[str, float]:
        """What the pixel's value is the sum of, by the name in `support`."""
        here = (self.point.band - 1, *self.at)
        return {name: float(getattr(self.support, name)[here]) for name in ("determined", "corrected", "added")}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: attributions are summed over bands."""
        return {
            "model": self.model,
            "col": self.point.col,
            "row": self.point.row,
            "band": self.point.band,
            "value": self.value,
            "without_structure": self.plain,
            "attribution_sum": float(self.attribution.sum(dtype=np.float64)),
            "reach": self.reach,
            "deletion": {**vars(self.deletion), "ratio": self.deletion.ratio},
            "parts_here": self.parts,
            "around": self.support.shares(),
            "attribution_corner": list(self.corner),
            "attribution": np.round(self.attribution.sum(axis=0), 8).tolist(),
        }

    def describe(self) -> str:
        """Return some lines for people."""
        shares, parts = self.support.shares(), self.parts
        return "\n".join(
            [
                f"{self.model} makes {self.value:.4f} of band {self.point.band} at column {self.point.col}, row "
                f"{self.point.row}; {self.plain:.4f} without structure around it",
                f"90 % of what moved it lies within {self.reach:.1f} input pixels",
                f"deleting the pixels named moves it {self.deletion.ratio:.1f} times as far as deleting as many at "
                f"random (p = {self.deletion.p:.2f})",
                f"of the value the input determines {parts['determined']:.4f}, {parts['corrected']:+.4f} departs from "
                f"the input, {parts['added']:+.4f} is added unseen by the sensor",
                f"around it the added part is {shares['added']:.5f} (root mean square), {shares['share_added']:.1%} of "
                f"the detail; the departure {shares['corrected']:.5f}",
            ]
        )


def explain(
    source: SceneSource, model: str, point: Point, *, blur: str = "auto", noise: float | None = None
) -> Explained:
    """Explain one pixel of what a network makes of a scene.

    Parameters
    ----------
    source : SceneSource
    model : str
        One network; not a chain.
    point : Point
        Of the output.
    blur, noise
        As `EnhanceSettings` has them.

    Raises
    ------
    UsageError, SceneError, ModelError
        If the scene or the model cannot be used, the model has no gradients, or the point lies outside or has no data.
    """
    settings = EnhanceSettings(device="cpu", precision="fp32", blur=blur, noise=noise, expect=False)
    prepared = prepare(source, model, settings, ClusterSettings(0))
    if len(prepared.models) != 1 or prepared.sharpened:
        raise UsageError(f"explain takes one network that runs on one grid, got {model!r}: name a single one with -m")
    enhancer, scene = prepared.models[0].handle.load(), prepared.scene
    spec = enhancer.spec
    if not isinstance(enhancer, TorchEnhancer | ByBands) or model.endswith(".onnx") or spec.out_bands:
        raise UsageError(f"{model} cannot be explained: it must be a network that enhances, and no ONNX file")
    height, width = scene.grid.shape
    if not (0 <= point.row < height * spec.scale and 0 <= point.col < width * spec.scale):
        raise UsageError(
            f"--at {point.col},{point.row} lies outside of the output, which has {width * spec.scale} columns and "
            f"{height * spec.scale} rows"
        )
    if not 1 <= point.band <= len(scene.bands):
        raise UsageError(f"--band must be from 1 to {len(scene.bands)}, got {point.band}")
    patch, value, here = _patch(scene, enhancer, point)
    function, seen, channel, margin = _network(enhancer, point.band - 1, len(scene.bands))
    size = spec.multiple_of
    corner = [n // spec.scale // size * size for n in here]
    cut = tuple(slice(c + margin, c + size + 2 * spec.halo - margin) for c in corner)
    seen_patch = torch.from_numpy(np.ascontiguousarray(patch[list(seen)][:, *cut]))
    at = (channel, here[0] - corner[0] * spec.scale, here[1] - corner[1] * spec.scale)
    found = integrated_gradients(function, seen_patch, at)
    deletion = deletion_test(function, seen_patch, at, found)
    plain = value - float(found.sum(dtype=torch.float64))
    first = tuple(
        p // spec.scale - n // spec.scale + c + margin - spec.halo
        for p, n, c in zip((point.row, point.col), here, corner, strict=True)
    )
    attribution = found.numpy()
    middle = (point.row // spec.scale - first[0], point.col // spec.scale - first[1])
    window, before, parts = _around(prepared, enhancer, point, blur)
    return Explained(
        model,
        point,
        value,
        plain,
        attribution,
        (first[0], first[1]),
        _reach(attribution, middle),
        deletion,
        parts,
        window,
        before,
    )


class _Recorder:
    """An enhancer that keeps what the engine gave it and what it made of that."""

    def __init__(self, enhancer: Any) -> None:
        self.spec, self._enhancer = enhancer.spec, enhancer
        self.patches: list[Image] = []
        self.made: list[Image] = []

    def __call__(self, patches: Image) -> Image:
        made: Image = self._enhancer(patches)
        self.patches.append(patches.copy())
        self.made.append(made.copy())
        return made


def _patch(scene: Scene, enhancer: Any, point: Point) -> tuple[Image, float, tuple[int, int]]:
    """Return the engine's own patch (C, P + 2 halo, ...) with the point, its value, and where it is in the core."""
    spec, recorder = enhancer.spec, _Recorder(enhancer)
    row, col = point.row // spec.scale, point.col // spec.scale
    target = Window(row, col, 1, 1)
    region = scene.read(context(scene.grid.shape, target, [spec], scene.masked)[0])
    made = enhance_region(region, target, scene.grid.shape, [recorder], masked=scene.masked)
    inside = point.band - 1, point.row - row * spec.scale, point.col - col * spec.scale
    if not made.valid[inside] or not recorder.patches:
        raise UsageError(f"{scene.name} has no data at --at {point.col},{point.row}: choose another pixel")
    lattice = TileGrid(scene.grid.shape, patch_shape(scene.grid.shape, spec.patch, spec.multiple_of))
    start = lattice.cover(target)
    here = point.row - start.row * spec.scale, point.col - start.col * spec.scale
    value = float(recorder.made[0][(0, point.band - 1, *here)])
    return recorder.patches[0][0], value, here


def _network(enhancer: Any, band: int, bands: int) -> tuple[Any, tuple[int, ...], int, int]:
    """Return what makes a band, the bands that it sees, its channel, and how much less context it needs."""
    if isinstance(enhancer, TorchEnhancer):
        return *enhancer.network_of(band, bands), 0
    part, members = next((part, members) for part, members in enhancer.parts if band in members)
    if not isinstance(part, TorchEnhancer):
        raise ModelError(f"{enhancer.spec.name} makes band {band + 1} without a network: there is nothing to explain")
    function, seen, channel = part.network_of(list(members).index(band), len(members))
    return function, tuple(members[i] for i in seen), channel, enhancer.spec.halo - part.spec.halo


def _reach(attribution: Image, middle: tuple[int, int]) -> float:
    weight = np.abs(attribution).sum(axis=0)
    rows, cols = np.indices(weight.shape)
    distance = np.hypot(rows - middle[0], cols - middle[1]).ravel()
    order = np.argsort(distance, kind="stable")
    covered = np.cumsum(weight.ravel()[order])
    return float(distance[order][np.searchsorted(covered, 0.9 * covered[-1])]) if covered[-1] else 0.0


def _around(prepared: Prepared, enhancer: Any, point: Point, blur: str) -> tuple[Window, Image, Support]:
    """Return the window around the point, its pixels, and the result split by the sensor."""
    scene, spec = prepared.scene, enhancer.spec
    window = Window(point.row // spec.scale, point.col // spec.scale, 1, 1).expand(AROUND).clip(scene.grid.shape)
    wide = window.expand(EDGE).clip(scene.grid.shape)
    region = scene.read(context(scene.grid.shape, wide, [spec], scene.masked)[0])
    made = enhance_region(region, wide, scene.grid.shape, [enhancer], masked=scene.masked)
    here = scene.read(wide)
    before, after = (_filled(r.values, r.valid) for r in (here, made))
    if spec.scale == 1:
        parts = support(before, after, [Blur()] * len(before))
    else:
        known = prepared.conditions or scene_conditions(scene, blur)
        parts = support(before, after, known.blur)
    rows, cols = window.slices(wide)
    fine = window.scaled(spec.scale).slices(wide.scaled(spec.scale))
    inner = (part[:, *fine] for part in (parts.determined, parts.corrected, parts.added))
    return window, before[:, rows, cols], Support(*inner)


def _filled(values: Image, valid: NDArray[np.bool_]) -> Image:
    """Return values with each band's mean where there is no data."""
    means = [float(v[m].mean()) if m.any() else 0.0 for v, m in zip(values, valid, strict=True)]
    return np.where(valid, values, np.array(means, np.float32)[:, None, None])


def write_explanation(found: Explained, path: Path) -> None:
    """Write a picture (.png) or everything that was found (.json).

    Raises
    ------
    UsageError
        If the name ends otherwise.
    """
    check_output(path)
    data = json.dumps(found.to_dict()).encode() + b"\n" if path.suffix.lower() == ".json" else _picture(found)
    write_durably(path, data)


def check_output(path: Path) -> None:
    """Refuse a name that no explanation can be written to."""
    if path.suffix.lower() not in (".png", ".json"):
        raise UsageError(f"the explanation {path} must end in .png or .json")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"no such folder for the explanation: {path.parent}; make it first")
    check_writable(path.absolute().parent)


def _picture(found: Explained) -> bytes:
    """Draw the band before and after, what moved the point, and what was added around it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    band, (row, col) = found.point.band - 1, found.at
    whole = found.support.determined + found.support.corrected + found.support.added
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4)
    low, high = np.percentile(found.before[band], (2, 98))
    height, width = whole.shape[1:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes[0].imshow(found.before[band], cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest")
    axes[1].imshow(whole[band], cmap="gray", vmin=low, vmax=high)
    moved = found.attribution.sum(axis=0)
    span = float(np.abs(moved).max()) or 1.0
    size = moved.shape[0]
    corner = found.corner
    where = (corner[1] - 0.5, corner[1] + size - 0.5, corner[0] + size - 0.5, corner[0] - 0.5)
    drawn = axes[2].imshow(moved, cmap="RdBu_r", vmin=-span, vmax=span, extent=where)
    figure.colorbar(drawn, ax=axes[2], label="reflectance")
    added = found.support.added[band]
    most = float(np.percentile(np.abs(added), 99.5)) or 1e-6
    drawn = axes[3].imshow(added, cmap="RdBu_r", vmin=-most, vmax=most)
    figure.colorbar(drawn, ax=axes[3], label="reflectance")
    for axis in (axes[0], axes[1], axes[3]):
        axis.plot(col, row, "+", color="#d62728", markersize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    titles = ("input", found.model, "input pixels that moved the point", "added, unseen by the sensor")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
