"""`scenelift evaluate segmentation`: what coarser pixels cost a segmenter, and what super-resolution wins back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.segmenter import Segmenter
from scenelift.models.shipped import checkpoint_path
from scenelift.models.training.confusion import Confusion
from scenelift.models.whole import spec_of
from scenelift.pipeline.scores.bootstrap import Interval, draws
from scenelift.workflows.evidence.cases import CLASSICAL, SHARPEN, Degradation, restore
from scenelift.workflows.evidence.landcover import INTACT
from scenelift.workflows.training.pixels import LabelledImage
from scenelift.workflows.training.recipe import LandcoverRecipe, Recipe
from scenelift.workflows.training.segmenter import Segmentation, classes_of

BLOCK = 32
"""Side of the blocks that are drawn with replacement, pixels."""


@dataclass(frozen=True)
class SegmentArm:
    """One arm's result."""

    name: str
    confusion: Confusion
    over_bicubic: Interval | None
    """Difference of the mean IoU to the bicubic arm, with its 95 % interval over blocks."""


def run_segmentation(
    recipe: Recipe | LandcoverRecipe, weights: str, networks: Sequence[str], scale: int = 4, data: Path | None = None
) -> list[SegmentArm]:
    """Coarsen the validation strips of a segmenter's recipe, restore them by every method, and segment them.

    Parameters
    ----------
    recipe : LandcoverRecipe
        Its validation strips are used.
    weights : str
        The segmenter, trained on intact images.
    networks : sequence of str
        Super-resolution networks of that scale.
    scale : int
    data : path, optional
        Folder the recipe's paths start from.

    Raises
    ------
    ModelError
        If the segmenter is none, knows other classes, or a network has another scale.
    """
    if not (isinstance(recipe, LandcoverRecipe) and recipe.segments):
        raise ModelError(f"recipe {recipe.name!r} trains no segmenter: give one whose arch.kind is landcover-segmenter")
    path = checkpoint_path(weights)
    module = None if path is None else load_checkpoint(path, valid=False)[0]
    if not isinstance(module, Segmenter):
        raise ModelError(f"{weights} is no segmenter: train one with `scenelift landcover train`")
    for name in networks:
        if spec_of(name).scale != scale:
            raise ModelError(f"{name} does not enlarge by {scale}: leave it out, or give another scale")
    learned = Segmentation.read(recipe, data)
    if learned.classes != module.classes:
        raise ModelError(f"{weights} knows {', '.join(module.classes)}, the labels {', '.join(learned.classes)}")
    counts: dict[str, list[NDArray[np.int64]]] = {}
    for image in learned.validation:
        intact = _cropped(image, scale)
        for name, values in _make_versions(intact.values, networks, scale).items():
            predicted = classes_of(module, values)
            counts.setdefault(name, []).extend(block_counts(intact.labels, predicted, learned.classes))
    stacks = {name: np.stack(blocks) for name, blocks in counts.items()}
    return [
        SegmentArm(
            name,
            Confusion(stack.sum(0), learned.classes),
            None if name == "bicubic" else miou_difference(stack, stacks["bicubic"]),
        )
        for name, stack in stacks.items()
    ]


def _cropped(image: LabelledImage, scale: int) -> LabelledImage:
    height, width = (n - n % scale for n in image.labels.shape)
    return LabelledImage(image.values[:, :height, :width], image.labels[:height, :width], image.name)


def _make_versions(values: NDArray[np.float32], networks: Sequence[str], scale: int) -> dict[str, NDArray[np.float32]]:
    """Return the intact image (C, H, W) and what each method makes of its coarsened form."""
    case = Degradation(scale)
    low, sigma = case.apply(values[None], ("",) * len(values))
    methods = (*CLASSICAL[SHARPEN][2:], *networks)
    return {INTACT: values, **{name: images[0] for name, images in restore(case, low, sigma, methods)}}


def block_counts(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: tuple[str, ...], side: int = BLOCK
) -> list[NDArray[np.int64]]:
    """Return the confusion (K, K) of each block of ``side`` pixels; they add up to the whole image's."""
    height, width = labels.shape
    parts = [
        (slice(row, row + side), slice(col, col + side))
        for row in range(0, height, side)
        for col in range(0, width, side)
    ]
    return [Confusion.of(labels[part], predicted[part], classes).counts for part in parts]


def miou_difference(one: NDArray[np.int64], other: NDArray[np.int64], seed: int = 0) -> Interval:
    """Return the difference of two mean IoUs with its 95 % interval over draws of blocks, the same for both.

    Parameters
    ----------
    one, other : ndarray of int, shape (blocks, K, K)
    seed : int
    """
    drawn = draws(len(one), seed)
    gaps = _miou(np.tensordot(drawn, one, 1)) - _miou(np.tensordot(drawn, other, 1))
    low, high = np.nanpercentile(gaps, [2.5, 97.5])
    return Interval(float(_miou(one.sum(0)) - _miou(other.sum(0))), float(low), float(high))


def _miou(counts: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean IoU over the classes that occur, of (…, K, K) counts."""
    c = np.asarray(counts, np.float64)
    hit = np.diagonal(c, axis1=-2, axis2=-1)
    union = c.sum(-1) + c.sum(-2) - hit
    shares = np.where(union > 0, hit / np.maximum(union, 1e-9), np.nan)
    return np.asarray(np.nanmean(shares, axis=-1))


def to_markdown(arms: Sequence[SegmentArm], title: str) -> str:
    """Return the table."""
    lines = [title, "", "| arm | mIoU % | pixel accuracy % | mIoU over bicubic, points |", "|---|---|---|---|"]
    for arm in arms:
        s, gap = arm.confusion.scores(), arm.over_bicubic
        cell = "" if gap is None else f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        lines.append(f"| {arm.name} | {100 * s['miou']:.1f} | {100 * s['accuracy']:.1f} | {cell} |")
    return "\n".join(lines)
