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
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.workflows.evidence.cases import CLASSICAL, SHARPEN, Degradation, restore
from scenelift.workflows.evidence.landcover import INTACT
from scenelift.workflows.landcover.blocks import block_counts, miou_difference
from scenelift.workflows.training.pixels import LabelledImage
from scenelift.workflows.training.recipe import LandcoverRecipe, Recipe
from scenelift.workflows.training.segmenter import Segmentation, classes_of


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


def to_markdown(arms: Sequence[SegmentArm], title: str) -> str:
    """Return the table."""
    lines = [title, "", "| arm | mIoU % | pixel accuracy % | mIoU over bicubic, points |", "|---|---|---|---|"]
    for arm in arms:
        s, gap = arm.confusion.scores(), arm.over_bicubic
        cell = "" if gap is None else f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        lines.append(f"| {arm.name} | {100 * s['miou']:.1f} | {100 * s['accuracy']:.1f} | {cell} |")
    return "\n".join(lines)
