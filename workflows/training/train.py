"""`scenelift train`: recipe and data in; weights, log, figure and model card out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.checkpoint import save_checkpoint
from scenelift.models.enhancer import pick_device
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.receptive import seam_error
from scenelift.models.training.adversarial import AdversarialTrainer
from scenelift.models.training.schedule import resolve
from scenelift.models.training.team import join
from scenelift.models.training.trainer import Trainer
from scenelift.workflows.training.cards import draw_losses, write_card
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.images import Mixture
from scenelift.workflows.training.recipe import Recipe, make_spec, make_task
from scenelift.workflows.training.runs import begin, open_run
from scenelift.workflows.training.validation import baselines, make_validator, validation_pairs

Report = Callable[[int, int, float], None]


def train(
    recipe: Recipe,
    run: Path,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    resume: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    progress: Report | None = None,
) -> Path:
    """Train a recipe's network and write its checkpoint.

    Parameters
    ----------
    recipe : Recipe
    run : path
        Folder of this run: state to resume from, log.csv, loss.png, recipe.json.
    data : path, optional
        Folder that the recipe's paths are relative to; default: the environment variable SCENELIFT_DATA.
    weights : path, optional
        Where the checkpoint goes; default: NAME.safetensors in ``run``. Its card is written beside it.
    resume : bool
        Take up a state found in ``run``; the result is that of an uninterrupted run.
    threads : int, optional
        CPU threads.
    device : str
        "auto", "cpu" or "cuda".
    progress : callable, optional
        Called with (step, steps, loss).

    Raises
    ------
    ModelError
        If there is too little data, the loss is not finite, or nothing can be written.
    """
    if weights is not None and not weights.parent.is_dir():
        raise ModelError(f"there is no folder {weights.parent} to write {weights.name} to")
    started = open_run(run, threads)
    train_set, held_out = read_data(recipe, data, run)
    bands = int(recipe.arch.get("bands", 1))
    mixture = Mixture(train_set, bands, recipe.data.side, recipe.data.gains, recipe.data.gammas)
    task = make_task(recipe)
    torch.manual_seed(recipe.plan.seed)
    module = build(recipe.arch)
    begin(module, recipe, task, mixture)
    pairs, truth = validation_pairs(recipe, task, held_out)
    plan = resolve(recipe.plan, sum(len(patches.values) for patches, _ in train_set))
    validate = make_validator(recipe, pairs, truth)
    run_identity = identity(recipe, (patches.values for patches in (*(p for p, _ in train_set), *held_out)))
    parts = (module, task, mixture, plan, run, validate, run_identity)
    judged = recipe.adversarial
    team, where = join(pick_device(device))
    trainer = Trainer(*parts, where, team) if judged is None else AdversarialTrainer(*parts, judged, bands, where, team)
    if not (resume and trainer.resume()) and team.leads:
        (run / "log.csv").unlink(missing_ok=True)
    try:
        trainer.run(None if progress is None else lambda step, loss: progress(step, plan.steps, loss))
    except ModelError as error:
        raise ModelError(f"{error}{_rescue(trainer, recipe, run) if team.leads else ''}") from None
    target = weights or run / f"{recipe.name}.safetensors"
    team.leave()
    if not team.leads:
        return target
    kept = _as_stored(trainer.best)  # the card tells what the stored half-precision weights do
    facts = {
        "recipe": recipe.name,
        "recipe_digest": identity(recipe),
        "trained_on": [source.path for source in recipe.data.train],
        "validated_on": [source.path for source in recipe.data.validation] or "a tenth of the training places",
        "split": "by place: validation places are never trained on",
        "patches": sum(len(patches.values) for patches, _ in train_set),
        "steps": trainer.step,
        "seed": recipe.plan.seed,
        "minutes_of_this_process": round((time.monotonic() - started) / 60, 1),
        "validation": {"psnr_db": round(validate(kept), 3), **baselines(task, pairs, truth)},
    }
    _store(target, recipe, module, kept, facts)
    write_card(target, recipe, facts)
    draw_losses(run)
    return target


def _rescue(trainer: Trainer, recipe: Recipe, run: Path) -> str:
    """Keep the best weights of a run that failed, where there are any and the disk still takes them."""
    if trainer.best_score == -math.inf:
        return ""
    path = run / f"{recipe.name}-so-far.safetensors"
    facts = {"steps": trainer.step, "validation": {"psnr_db": round(trainer.best_score, 3)}}
    try:
        _store(path, recipe, trainer.module, trainer.best, facts)
    except ModelError:
        return ""
    return f"; the best weights so far are in {path}"


def _as_stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a checkpoint in half precision keeps of weights, in float32 again."""
    return {name: value.half().float() if value.is_floating_point() else value for name, value in state.items()}


def _store(
    path: Path, recipe: Recipe, module: torch.nn.Module, state: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    """Write a checkpoint in half precision: half the bytes, and the PSNR is the same to the hundredth of a dB."""
    module.cpu().load_state_dict(state)
    spec = make_spec(recipe, module, facts)
    if recipe.arch["kind"] == "autoencoder":  # looks farther than any sensible halo: say what the seam costs instead
        spec = dataclasses.replace(spec, halo_kind="measured", seam_error=seam_error(module.eval(), spec))
    save_checkpoint(path, module.half(), spec, recipe.arch)


def identity(recipe: Any, arrays: Iterable[NDArray[np.generic]] = ()) -> str:
    """Return the digest of everything in the recipe that is not a default, and of the data, wherever they lie.

    Parameters
    ----------
    recipe : dataclass
    arrays : iterable of ndarray
        All that is trained and validated on, in a fixed order.
    """
    found = hashlib.sha256(json.dumps(_chosen(recipe), sort_keys=True).encode())
    for array in arrays:
        found.update(repr((array.shape, str(array.dtype))).encode())
        for start in range(0, len(array), 1024):  # mapped arrays may be larger than memory
            found.update(np.ascontiguousarray(array[start : start + 1024]).data)
    return found.hexdigest()


def _chosen(settings: Any) -> Any:
    """Return what of nested settings differs from the defaults: new settings then leave old digests alone."""
    if isinstance(settings, tuple):
        return [_chosen(value) for value in settings]
    if not dataclasses.is_dataclass(settings):
        return settings
    values = {f.name: (getattr(settings, f.name), f.default) for f in dataclasses.fields(settings)}
    return {name: _chosen(value) for name, (value, default) in values.items() if value != default}
