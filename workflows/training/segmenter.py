"""Training a segmenter: `scenelift landcover train --task segmentation --scene X --labels Y`, or from a recipe."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.checkpoint import load_checkpoint, save_checkpoint
from scenelift.models.enhancer import TorchEnhancer, pick_device
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.segmenter import STRIDE, start_segmenter_from_imagenet
from scenelift.models.receptive import seam_error
from scenelift.models.spec import ModelSpec
from scenelift.models.training.confusion import Confusion
from scenelift.models.training.labelled import LabelledTrainer
from scenelift.models.training.schedule import Phase, Plan
from scenelift.models.whole import run_whole
from scenelift.workflows.training.cards import draw_losses, save_card
from scenelift.workflows.training.landcover_recipe import Labelled, LandcoverRecipe
from scenelift.workflows.training.pixels import LabelledImage, PixelDraws, read_arrays, read_rasters
from scenelift.workflows.training.runs import open_run
from scenelift.workflows.training.sources import DATA_VARIABLE
from scenelift.workflows.training.train import identity

LIMITS = "Knows the classes, sensor, place and season it was trained on; validated on a strip of the same images."


@dataclass(frozen=True)
class Learned:
    """What a segmenter learns from and is judged on."""

    train: list[LabelledImage]
    validation: list[LabelledImage]
    classes: tuple[str, ...]


def own_scene(scene: Path, labels: Path, steps: int, classes: tuple[str, ...] = ()) -> LandcoverRecipe:
    """Return a recipe for a raster and labels of the user's own."""
    return LandcoverRecipe(
        name=f"landcover-{scene.stem}",
        arch={"kind": "landcover-segmenter"},
        data=Labelled(str(scene.absolute()), labels=str(labels.absolute())),
        plan=Plan(
            (Phase(steps, rate=1e-3, warmup=20),), batch=8, optimizer="adamw", precision="fp32", ema=0.98, clip=5.0,
            validate_every=max(1, min(50, steps)),
        ),
        classes=classes,
        start="imagenet",
        note=f"Trained on {scene.name} and its labels {labels.name}.",
    )  # fmt: skip


def read_learned(recipe: LandcoverRecipe, data: Path | None) -> Learned:
    """Read the recipe's rasters or arrays and split each image: its last quarter of columns is for validation."""
    folder = data or Path(os.environ.get(DATA_VARIABLE, "."))
    values, names = _values(recipe.classes)
    path = folder / recipe.data.train
    if recipe.data.train.endswith(".npz"):
        files = sorted(folder.glob(recipe.data.train)) if "*" in recipe.data.train else [path]
        image, _, labels = (recipe.data.labels or "image:labels").partition(":")
        images, known = read_arrays(files, image, labels, values)
    else:
        if not recipe.data.labels:
            raise ModelError(f"recipe {recipe.name!r}: a raster needs the raster of its labels (data.labels)")
        one, known = read_rasters(path, folder / recipe.data.labels, values)
        images = [one]
    halves = [image.split() for image in images]
    return Learned([a for a, _ in halves], [b for _, b in halves], names or tuple(map(str, known)))


def _values(classes: tuple[str, ...]) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Split "5=forest" into the label's number and the class's name; nothing given: what the labels hold."""
    if not classes:
        return None, ()
    pairs = [name.partition("=") for name in classes]
    if not all(sign and number.strip().lstrip("-").isdigit() and name.strip() for number, sign, name in pairs):
        raise ModelError(f"classes of labels are given as NUMBER=NAME, got {', '.join(classes)}")
    return tuple(int(number) for number, _, _ in pairs), tuple(name.strip() for _, _, name in pairs)


def train_segmenter(
    recipe: LandcoverRecipe,
    run: Path,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    resume: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    progress: Any = None,
) -> Path:
    """Train a segmenter and write its checkpoint and card; parameters are those of `train_landcover`."""
    started = open_run(run, threads)
    learned = read_learned(recipe, data)
    bands = len(learned.train[0].values)
    wanted = recipe.arch.get("bands", bands)
    if wanted != bands:
        raise ModelError(f"recipe {recipe.name!r} is for {wanted} bands, the images have {bands}")
    arch = recipe.arch | {"classes": list(learned.classes), "bands": bands}
    torch.manual_seed(recipe.plan.seed)
    module: Any = build(arch)
    if recipe.start == "imagenet":
        start_segmenter_from_imagenet(module)

    def validate(state: dict[str, Tensor]) -> float:
        judged = build(arch)
        judged.load_state_dict(state)
        return segmented(judged.eval(), learned.validation, learned.classes).scores()["miou"]

    draws = PixelDraws(learned.train, min(recipe.data.side, _least(learned.train)), len(learned.classes))
    images = (*learned.train, *learned.validation)
    data_identity = identity(recipe, (array for image in images for array in (image.values, image.labels)))
    trainer = SegmenterTrainer(
        module, draws, recipe.plan, run, validate, data_identity, recipe.augment, device=pick_device(device)
    )
    if not (resume and trainer.resume()):
        (run / "log.csv").unlink(missing_ok=True)
    trainer.run(None if progress is None else lambda step, loss: progress(step, recipe.plan.steps, loss))
    module.cpu().load_state_dict(trainer.best)
    facts = {
        "recipe": recipe.name,
        "recipe_digest": identity(recipe),
        "trained_on": [Path(recipe.data.train).name],
        "validated_on": "the last quarter of every image's columns, never trained on, beside what was",
        "steps": trainer.step,
        "seed": recipe.plan.seed,
        "minutes_of_this_process": round((time.monotonic() - started) / 60, 1),
    }
    target = weights or run / f"{recipe.name}.safetensors"
    save_checkpoint(target, module.half(), _spec(recipe, build(arch, valid=True), arch, facts), arch)
    stored, _ = load_checkpoint(target, valid=False)
    scores = segmented(stored, learned.validation, learned.classes).scores()
    facts["validation"] = {k: round(v, 4) for k, v in scores.items()}
    save_card(target, recipe.note, LIMITS, recipe.licence, facts)
    draw_losses(run)
    return target


class SegmenterTrainer(LabelledTrainer):
    """A trainer whose validation is the mean intersection over union."""

    figure = "validation_miou"


def _least(images: list[LabelledImage]) -> int:
    """Return the largest side, a multiple of the encoder's stride, that fits into every image."""
    side = min(min(image.labels.shape) for image in images) // STRIDE * STRIDE
    if side < STRIDE:
        raise ModelError(f"images must be at least {STRIDE} pixels a side after a quarter is kept for validation")
    return side


def _spec(recipe: LandcoverRecipe, module: Any, arch: dict[str, Any], record: dict[str, Any]) -> ModelSpec:
    spec = ModelSpec(
        name=recipe.name,
        task="landcover",
        halo=int(module.halo),
        halo_kind="measured",
        seam_error=0.0,
        bands=int(arch["bands"]),
        out_bands=len(arch["classes"]),
        multiple_of=STRIDE,
        patch=max(STRIDE, recipe.patch // STRIDE * STRIDE),
        labels=tuple(arch["classes"]),
        record=json.loads(json.dumps(record)),
    )
    return replace(spec, seam_error=seam_error(module.eval(), spec))


def classes_of(module: nn.Module, values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the most probable class of each pixel (H, W) of an image (C, H, W), continued to whole strides."""
    spec = ModelSpec("segmenter", "landcover", bands=len(values), out_bands=2, multiple_of=STRIDE)
    found: NDArray[np.int64] = run_whole(TorchEnhancer(module, spec), values[None])[0].argmax(0)
    return found


def segmented(module: nn.Module, images: list[LabelledImage], classes: tuple[str, ...]) -> Confusion:
    """Segment labelled images and count."""
    total = Confusion.empty(classes)
    for image in images:
        total += Confusion.of(image.labels, classes_of(module, image.values), classes)
    return total
