"""What sharpened bands are worth to a map: ``cd tests && python -m tools.landcover SCENE LABELS --fine … --coarse …``.

Some bands of a labelled scene are made coarser, as if another sensor had seen them, brought back in several ways, and
given to a classifier beside the bands that stayed fine: a forest that sees one pixel at a time, or a U-Net
that sees around it. Folds are blocks of the scene; no pixel is learned from within a gap of the blocks that are mapped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from scenelift.models.catalog import CLOSED
from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.sharpening.classical import METHODS, Task
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.fitting import fit
from scenelift.models.sharpening.layout import BandGrid, coarse
from scenelift.models.sharpening.network import Sharpener
from scenelift.models.sharpening.projection import observe, replicate
from scenelift.models.shipped import shipped
from scenelift.models.training.confusion import Confusion
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.products.bands import wavelength
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.pipeline.tiles import Window
from scenelift.workflows.conditions import band_names
from scenelift.workflows.evidence.segmentation import block_counts, miou_difference
from scenelift.workflows.multigrid import UNKNOWN_MTF
from scenelift.workflows.settings import split_names
from scenelift.workflows.sharpening.compare import run_whole
from scenelift.workflows.training.pixels import read_rasters

Image = NDArray[np.float32]
Labels = NDArray[np.int64]
CUBIC, INTACT = "all bands, cubic", "all bands as they were"
TREES, LEAF = 100, 3
"""Of the random forest: trees, and least pixels of a leaf."""
STEPS, BATCH, SIDE, RATE = 150, 8, 64, 1e-3
"""Of the U-Net's training: steps, patches a step, their side, and the highest learning rate."""
STRIDE = 32
"""What the sides of an image must be multiples of for the U-Net."""


@dataclass(frozen=True)
class Split:
    """How pixels are learned from and mapped."""

    block: int = 64
    """Side of a block, pixels."""
    folds: int = 5
    gap: int = 8
    """Pixels around the blocks that are mapped which are not learned from."""
    each: int = 1000
    """Pixels of a class that are learned from, at most."""
    seed: int = 0

    def of(self, shape: tuple[int, ...]) -> Labels:
        """Return the fold (H, W) of each pixel, the same for a whole block."""
        rows, cols = (-(-side // self.block) for side in shape)
        order = np.random.default_rng(self.seed).permutation(rows * cols) % self.folds
        number = order.reshape(rows, cols).repeat(self.block, 0).repeat(self.block, 1)
        return np.asarray(number[: shape[0], : shape[1]], np.int64)

    def learned(self, labels: Labels, mapped: NDArray[np.bool_], fold: int) -> NDArray[np.int64]:
        """Return the flat places of the pixels that are learned from: so many of every class, none near the mapped."""
        near = ndimage.maximum_filter(mapped, 2 * self.gap + 1)
        usable = np.where(near, -1, labels).ravel()
        rng = np.random.default_rng([self.seed, fold])
        drawn = [rng.permutation(np.flatnonzero(usable == k))[: self.each] for k in range(int(labels.max()) + 1)]
        return np.sort(np.concatenate(drawn))


@dataclass(frozen=True)
class Arm:
    """One set of bands and how well the scene is mapped by it."""

    name: str
    bands: int
    confusion: Confusion
    over_cubic: Interval | None
    """Difference of the mean IoU to cubic interpolation, with its 95 % interval over blocks."""


Classify = Callable[[Image, Labels, NDArray[np.int64], NDArray[np.bool_]], Labels]
"""Given values (C, H, W), labels (H, W), flat places to learn from and a mask of what to map: its classes, flat."""


def versions(values: Image, layout: Sequence[BandGrid]) -> dict[str, Image]:
    """Return the images (C, H, W) that a classifier is given, by the name of the arm.

    Parameters
    ----------
    values : ndarray of float32, shape (bands, H, W)
        Fine bands, then those that are made coarser; sides are multiples of the ratio.
    layout : sequence of BandGrid
        How they are to lie.
    """
    layout, at = tuple(layout), coarse(tuple(layout))
    bands = [layout[i] for i in at]
    shape = tuple(side // bands[0].ratio for side in values.shape[1:])
    seen = observe(values[at], bands, (shape[0], shape[1]))
    fine = values[: len(values) - len(bands)]
    images = np.concatenate([fine, replicate(seen, bands[0], values.shape[1:])])
    coefficients = fit([images], layout)
    found = {"fine bands alone": fine, CUBIC: np.concatenate([fine, METHODS["cubic"](Task(layout, images, seen))])}
    if len(fine) > 3:
        found = {"red, green, blue": fine[:3]} | found
    found[f"all bands, {CLOSED}"] = run_whole(ClosedForm(layout, coefficients), images)
    network, _ = load_checkpoint(shipped()["sharpen"], valid=True)
    if isinstance(network, DetailNetwork) and network.guides == len(fine):
        found["all bands, sharpen"] = run_whole(Sharpener(layout, coefficients, network), images)
    return found | {INTACT: values}


def by_forest(values: Image, labels: Labels, learned: NDArray[np.int64], mapped: NDArray[np.bool_]) -> Labels:
    """Classify pixels by their bands alone, by a random forest (Breiman, Machine Learning 45, 2001)."""
    pixels = values.reshape(len(values), -1).T
    forest = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=0, n_jobs=1)
    forest.fit(pixels[learned], labels.ravel()[learned])
    return np.asarray(forest.predict(pixels[mapped.ravel()]), np.int64)


def by_network(values: Image, labels: Labels, learned: NDArray[np.int64], mapped: NDArray[np.bool_]) -> Labels:
    """Classify pixels by a U-Net (Ronneberger et al., MICCAI 2015) on a ResNet-18, from random weights."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pixels = values.reshape(len(values), -1)[:, learned]
    mean, spread = (x[:, None, None] for x in (pixels.mean(1), pixels.std(1) + 1e-6))
    image = torch.from_numpy(((values - mean) / spread).astype(np.float32))
    wanted = torch.full((labels.size,), -1)
    wanted[learned] = torch.from_numpy(labels.ravel()[learned])
    wanted = wanted.reshape(labels.shape)
    counts = torch.bincount(wanted[wanted >= 0], minlength=int(labels.max()) + 1).float()
    weight = (counts.sum() / counts.clamp(min=1)).sqrt()  # rare classes count for more, not for as much
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=len(values), classes=len(counts))
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for _ in range(STEPS):
        patches, truths = [], []
        for _ in range(BATCH):
            row, col = (int(rng.integers(side - SIDE + 1)) for side in labels.shape)
            at = (..., slice(row, row + SIDE), slice(col, col + SIDE))
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            x, y = (torch.rot90(v.flip(-1) if flip else v, turns, (-2, -1)) for v in (image[at], wanted[at]))
            patches.append(x)
            truths.append(y)
        truth = torch.stack(truths)
        if bool((truth >= 0).any()):
            loss = F.cross_entropy(network(torch.stack(patches)), truth, weight, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    lacks = [-side % STRIDE for side in labels.shape]
    with torch.no_grad():
        found = network.eval()(F.pad(image[None], (0, lacks[1], 0, lacks[0]), mode="reflect")).argmax(1)[0].numpy()
    return np.asarray(found[: labels.shape[0], : labels.shape[1]][mapped], np.int64)


CLASSIFIERS: dict[str, Classify] = {"forest": by_forest, "unet": by_network}


def run_arms(
    images: dict[str, Image], labels: Labels, classes: tuple[str, ...], split: Split, classify: Classify = by_forest
) -> list[Arm]:
    """Map the scene by every arm, fold by fold, and score the maps.

    Parameters
    ----------
    images : dict
        Values (C, H, W) by the name of the arm; `CUBIC` is among them.
    labels : ndarray of int, shape (H, W)
        Index into the classes, -1 where there is no label.
    classes : tuple of str
    split : Split
    classify : function
    """
    folds = split.of(labels.shape)
    counts: dict[str, NDArray[np.int64]] = {}
    for name, values in images.items():
        predicted = np.full(labels.shape, -1, np.int64)
        for fold in range(split.folds):
            mapped = (folds == fold) & (labels >= 0)
            if mapped.any():
                learned = split.learned(labels, folds == fold, fold)
                predicted[mapped] = classify(values, labels, learned, mapped)
        counts[name] = np.stack(block_counts(labels, predicted, classes, split.block))
    return [
        Arm(
            name,
            len(images[name]),
            Confusion(stack.sum(0), classes),
            None if name == CUBIC else miou_difference(stack, counts[CUBIC]),
        )
        for name, stack in counts.items()
    ]


def read_labelled(scene: Path, labels: Path, names: Sequence[str], ratio: int) -> tuple[Image, Labels, tuple[str, ...]]:
    """Return chosen bands (C, H, W), labels (H, W) and what these are called, cut to whole coarse pixels.

    Raises
    ------
    UsageError
        If there is no such band.
    ModelError
        If scene and labels do not fit.
    """
    image, known = read_rasters(scene, labels, None)
    opened = open_scene(SceneSource((str(scene),), tuple(names)))
    values = opened.read(Window(0, 0, *opened.grid.shape)).values
    height, width = (side // ratio * ratio for side in image.labels.shape)
    return values[:, :height, :width], image.labels[:height, :width], tuple(map(str, known))


def to_markdown(arms: Sequence[Arm]) -> str:
    """Return the table."""
    lines = ["| arm | bands | accuracy % | balanced accuracy % | mIoU % | mIoU over cubic, points |", "|" + "---|" * 6]
    for arm in arms:
        s, gap = arm.confusion.scores(), arm.over_cubic
        cell = "" if gap is None else f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        figures = " | ".join(f"{100 * s[name]:.1f}" for name in ("accuracy", "balanced_accuracy", "miou"))
        lines.append(f"| {arm.name} | {arm.bands} | {figures} | {cell} |")
    return "\n".join(lines)


def measure(
    scene: Annotated[Path, typer.Argument(help="A raster whose bands are all fine.")],
    labels: Annotated[Path, typer.Argument(help="The raster of its labels, on the same grid.")],
    fine: Annotated[str, typer.Option(help="Bands that stay fine: blue, green, red, then others.")],
    coarser: Annotated[str, typer.Option("--coarse", help="Bands that are made coarser.")],
    ratio: Annotated[int, typer.Option(help="How much coarser.")] = 2,
    block: Annotated[int, typer.Option(help="Side of a block, pixels.")] = Split.block,
    gap: Annotated[int, typer.Option(help="Pixels between what is learned from and what is mapped.")] = Split.gap,
    each: Annotated[int, typer.Option(help="Pixels of a class that are learned from.")] = Split.each,
    classifier: Annotated[str, typer.Option(help=f"Any of: {', '.join(CLASSIFIERS)}.")] = "forest",
    seed: Annotated[int, typer.Option(help="Of blocks, pixels and trees.")] = Split.seed,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Map land cover from fine bands, and from coarser ones brought back in several ways; print the table."""
    torch.set_num_threads(1)
    names = (*split_names(fine), *split_names(coarser))
    values, known, classes = read_labelled(scene, labels, names, ratio)
    at, count = (ratio - 1) / 2, len(split_names(fine))
    called = band_names(open_scene(SceneSource((str(scene),), names)))
    layout = [
        BandGrid(1, name=name, wavelength=wavelength(name, {}))
        if i < count
        else BandGrid(ratio, at, at, UNKNOWN_MTF, name, wavelength(name, {}))
        for i, name in enumerate(called)
    ]
    split = Split(block, gap=gap, each=each, seed=seed)
    arms = run_arms(versions(values, layout), known, classes, split, CLASSIFIERS[classifier])
    print(json.dumps([_plain(arm) for arm in arms]) if as_json else to_markdown(arms))


def _plain(arm: Arm) -> dict[str, Any]:
    gap = arm.over_cubic
    over = None if gap is None else [gap.mean, gap.low, gap.high]
    return {"arm": arm.name, "bands": arm.bands, **arm.confusion.scores(), "miou_over_cubic": over}


if __name__ == "__main__":
    typer.run(measure)
