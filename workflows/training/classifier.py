"""`scenelift landcover train`: recipe and labelled data in; weights, log, figure and card out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scenelift.models.checkpoint import load_checkpoint, save_checkpoint
from scenelift.models.enhancer import pick_device
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.classifier import Classifier, start_from_imagenet
from scenelift.models.spec import ModelSpec
from scenelift.models.training.confusion import Confusion
from scenelift.models.training.labelled import LabelledTrainer
from scenelift.models.training.schedule import resolve
from scenelift.workflows.training.cards import draw_losses, save_card
from scenelift.workflows.training.labelled_images import BalancedDraws, LabelledImages, read_labelled
from scenelift.workflows.training.landcover_recipe import LandcoverRecipe
from scenelift.workflows.training.runs import open_run, start_weights, take_over
from scenelift.workflows.training.sources import DATA_VARIABLE
from scenelift.workflows.training.train import identity

LIMITS = (
    "Knows the classes, places and seasons it was trained on and names one of them whatever it is shown. "
    "Its probabilities are not calibrated."
)
BATCH = 50
"""Images classified at once."""

Report = Callable[[int, int, float], None]


def train_landcover(
    recipe: LandcoverRecipe,
    run: Path,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    resume: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    progress: Report | None = None,
) -> Path:
    """Train an image classifier and write its checkpoint and card.

    Parameters are those of `scenelift.workflows.training.train.train`.

    Raises
    ------
    ModelError
        If data are missing or wrong, the loss is not finite, or nothing can be written.
    """
    started = open_run(run, threads)
    learned, held_out = read_split(recipe, data)
    arch = recipe.arch | {"classes": list(learned.classes)}
    torch.manual_seed(recipe.plan.seed)
    module = build(arch)
    begin(module, recipe)
    watched = held_out.balanced(recipe.data.each)

    def validate(state: dict[str, Tensor]) -> float:
        judged = build(arch)
        judged.load_state_dict(state)
        return confusion_of(judged.eval(), watched).scores()["balanced_accuracy"]

    plan = resolve(recipe.plan, len(learned))
    trainer = LabelledTrainer(
        module,
        BalancedDraws(learned),
        plan,
        run,
        validate,
        identity(recipe, (array for part in (learned, held_out) for array in (part.values, part.labels))),
        recipe.augment,
        device=pick_device(device),
    )
    if not (resume and trainer.resume()):
        (run / "log.csv").unlink(missing_ok=True)
    trainer.run(None if progress is None else lambda step, loss: progress(step, plan.steps, loss))
    module.cpu().load_state_dict(trainer.best)
    target = weights or run / f"{recipe.name}.safetensors"
    facts = {
        "recipe": recipe.name,
        "recipe_digest": identity(recipe),
        "trained_on": [recipe.data.train],
        "validated_on": [recipe.data.validation or "a tenth of the training images"],
        "images": len(learned),
        "steps": trainer.step,
        "seed": recipe.plan.seed,
        "minutes_of_this_process": round((time.monotonic() - started) / 60, 1),
    }
    save_checkpoint(target, module.half(), make_spec(recipe, module, facts), arch)
    stored, _ = load_checkpoint(target, valid=False)  # the card tells what the stored half-precision weights do
    facts["validation"] = {k: round(v, 4) for k, v in confusion_of(stored, held_out).scores().items()}
    save_card(target, recipe.note, LIMITS, recipe.licence, facts)
    draw_losses(run)
    return target


def read_split(recipe: LandcoverRecipe, data: Path | None) -> tuple[LabelledImages, LabelledImages]:
    """Return training and validation images; without validation images, a tenth of each class is kept aside."""
    folder = data or Path(os.environ.get(DATA_VARIABLE, "."))
    learned = read_labelled(folder / recipe.data.train, recipe.classes or None)
    if recipe.data.validation:
        return learned, read_labelled(folder / recipe.data.validation, learned.classes)
    aside = np.zeros(len(learned), bool)
    for k in range(len(learned.classes)):
        group = np.flatnonzero(learned.labels == k)
        aside[group[-max(1, len(group) // 10) :]] = True
    return learned.select(np.flatnonzero(~aside)), learned.select(np.flatnonzero(aside))


def begin(module: nn.Module, recipe: LandcoverRecipe) -> None:
    """Give the network its starting weights."""
    if recipe.start == "imagenet":
        if not isinstance(module, Classifier):
            raise ModelError(f"recipe {recipe.name!r}: only classifiers start from 'imagenet' here")
        start_from_imagenet(module)
    elif recipe.start:
        take_over(module, start_weights(recipe.start))


@torch.inference_mode()
def probabilities(module: nn.Module, images: Tensor) -> Tensor:
    """Return (n, classes) for (n, C, H, W) reflectance."""
    parts = [
        module(images[at : at + BATCH].contiguous(memory_format=torch.channels_last)).softmax(1)
        for at in range(0, len(images), BATCH)
    ]
    return torch.cat(parts)


def confusion_of(module: nn.Module, images: LabelledImages) -> Confusion:
    """Classify labelled images and count."""
    total = Confusion.empty(images.classes)
    for at in range(0, len(images), 10 * BATCH):
        part = slice(at, at + 10 * BATCH)
        named = probabilities(module, images.reflectance(part)).argmax(1).numpy()
        total += Confusion.of(images.labels[part], named, images.classes)
    return total


def make_spec(recipe: LandcoverRecipe, module: Any, record: dict[str, Any]) -> ModelSpec:
    """Return the contract of the map form with the engine."""
    return ModelSpec(
        name=recipe.name,
        task="landcover",
        halo=int(module.halo),
        bands=int(recipe.arch.get("bands", 3)),
        out_bands=len(module.classes),
        multiple_of=int(module.step),
        patch=recipe.patch,
        record=record,
    )
