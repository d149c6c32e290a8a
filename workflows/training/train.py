"""One training for every kind of recipe: recipe and data in; weights, log, figure and model card out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scenelift.models.checkpoint import checkpoint_digest, read_metadata, save_checkpoint
from scenelift.models.enhancer import pick_device
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.shipped import checkpoint_path
from scenelift.models.spec import ModelSpec
from scenelift.models.training.objectives import Objective
from scenelift.models.training.processes import join
from scenelift.models.training.schedule import Schedule, resolve
from scenelift.models.training.trainer import Run, Trainer, Weights
from scenelift.workflows.training.classifier import Classification
from scenelift.workflows.training.recipe import LandcoverRecipe, Recipe
from scenelift.workflows.training.restoration import Restoration
from scenelift.workflows.training.runs import draw_losses, open_run, save_card
from scenelift.workflows.training.segmenter import Segmentation

Progress = Callable[[int, int, float], None]


class Problem(Protocol):
    """What a network learns, with its data read: restoration, classification or segmentation."""

    @property
    def recipe(self) -> Any:
        """The recipe that is trained."""
        ...

    @property
    def arch(self) -> dict[str, Any]:
        """The recipe's architecture, with what the data decide (classes, bands)."""
        ...

    @property
    def column(self) -> str:
        """Validation column of log.csv."""
        ...

    @property
    def limits(self) -> str:
        """For the card: where the network should not be trusted."""
        ...

    @property
    def licence(self) -> str:
        """For the card: the terms of the weights."""
        ...

    @property
    def samples(self) -> int:
        """Training samples of an epoch."""
        ...

    def arrays(self) -> Iterable[NDArray[np.generic]]:
        """Return all that is trained and validated on, in a fixed order."""
        ...

    def begin(self, module: nn.Module) -> None:
        """Give the network its starting weights."""
        ...

    def validate(self, state: Weights) -> float:
        """Return a score of the weights, better when higher."""
        ...

    def scores(self, state: Weights) -> dict[str, float]:
        """Return all that the card tells of the weights."""
        ...

    def finished(self, state: Weights) -> Weights:
        """Return trained weights as they are stored: a classifier's are calibrated first."""
        ...

    def objective(self, schedule: Schedule, device: str) -> Objective:
        """Return what is minimised."""
        ...

    def spec(self, module: nn.Module, record: dict[str, Any]) -> ModelSpec:
        """Return the contract of the trained network with the engine."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what the card tells of the data."""
        ...


def train(
    recipe: Recipe | LandcoverRecipe,
    run: Path,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    resume: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Train a recipe's network and write its checkpoint.

    Parameters
    ----------
    recipe : Recipe or LandcoverRecipe
    run : path
        Folder of this run: state to resume from, log.csv, loss.png.
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
    say : callable, optional
        Given a line worth telling a person: what the network that it begins as scores.

    Raises
    ------
    ModelError
        If there is too little data, the loss is not finite, or nothing can be written.
    """
    if weights is not None and weights.suffix != ".safetensors":
        raise ModelError(f"a trained network ends in .safetensors, got --output {weights}")
    if weights is not None and not weights.parent.is_dir():
        raise ModelError(f"no such folder for the weights: {weights.parent}; make it, or choose another --output")
    open_run(run, threads)
    kind: Any = Restoration
    if isinstance(recipe, LandcoverRecipe):
        kind = Segmentation if recipe.segments else Classification
    problem = kind.read(recipe, data, run)
    if isinstance(problem, Restoration):
        problem = dataclasses.replace(problem, device=pick_device(device))
    return fit(problem, run, weights=weights, resume=resume, device=device, progress=progress, say=say)


def fit(
    problem: Problem,
    run: Path,
    *,
    weights: Path | None = None,
    resume: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Train the network of a problem whose data are read; parameters and errors as for `train`."""
    started, recipe = time.monotonic(), problem.recipe
    torch.manual_seed(recipe.plan.seed)
    module = build(problem.arch)
    problem.begin(module)
    schedule = resolve(recipe.plan, problem.samples)
    group, where = join(pick_device(device))
    objective = problem.objective(schedule, where)
    parent = _parent(problem, module) if group.is_main else None
    if parent and say is not None:
        say(f"{parent['name']} as it is: PSNR {parent['psnr_db']:.2f} dB on the validation places")
    files = Run(run, digest(recipe, problem.arrays(), of_any_length=True), problem.validate, problem.column)
    trainer = Trainer(module, objective, schedule, files, where, group)
    if not (resume and trainer.resume()) and group.is_main:
        files.log.unlink(missing_ok=True)
    if len(trainer.lengths) > 1 and say is not None and group.is_main:
        say(f"goes on at step {trainer.step} of {trainer.lengths[-2]}, now to {trainer.lengths[-1]}")
    try:
        trainer.train(None if progress is None else lambda step, loss: progress(step, schedule.steps, loss))
    except ModelError as error:
        raise ModelError(f"{error}{_rescue(trainer, problem, run) if group.is_main else ''}") from None
    group.destroy()
    target = weights or run / f"{recipe.name}.safetensors"
    if not group.is_main:
        return target
    kept = _as_stored(problem.finished(trainer.best))  # the card tells what the stored half-precision weights do
    facts = {
        "recipe": recipe.name,
        "recipe_digest": digest(recipe),
        **problem.facts(),
        **({} if parent is None else {"parent": parent}),
        "steps": trainer.step,
        **({"steps_given": trainer.lengths} if len(trainer.lengths) > 1 else {}),
        "seed": recipe.plan.seed,
        "trained_on_machine": _machine(trainer),
        "minutes_of_this_process": round((time.monotonic() - started) / 60, 1),
        "validation": problem.scores(kept),
    }
    _store(target, problem, module, kept, facts)
    save_card(target, recipe.note, problem.limits, problem.licence, facts)
    draw_losses(run)
    return target


def _machine(trainer: Trainer) -> str:
    """Return what the last steps were taken on, in words."""
    cuda = trainer.device.type == "cuda"
    where = torch.cuda.get_device_name(trainer.device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    return f"{where}, {'bfloat16' if trainer.bf16 else 'float32'}"


def _parent(problem: Problem, module: nn.Module) -> dict[str, Any] | None:
    """Return the network that a restoration goes on from, and what it scores; None if it is new or of another shape."""
    recipe = problem.recipe
    weights = checkpoint_path(recipe.start) if isinstance(recipe, Recipe) and recipe.start else None
    if weights is None or read_metadata(weights)[1] != problem.arch:
        return None
    score = problem.validate(_as_stored(module.state_dict()))
    return {"name": recipe.start, "sha256": checkpoint_digest(weights), "psnr_db": round(score, 3)}


def _rescue(trainer: Trainer, problem: Problem, run: Path) -> str:
    """Keep the best weights of a run that failed, where there are any and the disk still takes them."""
    if trainer.best_score == -math.inf:
        return ""
    path = run / f"{problem.recipe.name}-so-far.safetensors"
    facts = {"steps": trainer.step, problem.column: round(trainer.best_score, 4)}
    try:
        _store(path, problem, trainer.module, trainer.best, facts)
    except ModelError:
        return ""
    return f"; the best weights so far are in {path}"


def _as_stored(state: Weights) -> Weights:
    """Return what a checkpoint in half precision keeps of weights, in float32 again."""
    return {k: v.cpu().half().float() if v.is_floating_point() else v.cpu() for k, v in state.items()}


def _store(path: Path, problem: Problem, module: nn.Module, state: Weights, facts: dict[str, Any]) -> None:
    """Write a checkpoint in half precision: half the bytes, and the PSNR is the same to the hundredth of a dB."""
    module.cpu().load_state_dict(state)
    spec = problem.spec(module, facts)
    save_checkpoint(path, module.half(), spec, problem.arch)


LENGTHS = ("steps", "epochs", "warmup")
"""Settings of a phase that change when it gets more steps."""


def digest(recipe: Any, arrays: Iterable[NDArray[np.generic]] = (), of_any_length: bool = False) -> str:
    """Return the digest of everything in the recipe that is not a default, and of the data, wherever they lie.

    Parameters
    ----------
    recipe : dataclass
    arrays : iterable of ndarray
        All that is trained and validated on, in a fixed order.
    of_any_length : bool
        Leave out how long the last phase and its warm-up are, and how often is validated: a training may be given
        more steps.
    """
    chosen = _chosen(recipe)
    if of_any_length:
        for settings, names in ((chosen["plan"]["phases"][-1], LENGTHS), (chosen["plan"], ("validate_every",))):
            for name in names:
                settings.pop(name, None)
    found = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
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
