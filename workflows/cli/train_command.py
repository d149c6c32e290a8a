"""What the training commands say while they work and at the end; a run that never began leaves no folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scenelift.models.errors import ModelError
from scenelift.models.training.processes import is_main_process
from scenelift.workflows.training.recipe import LandcoverRecipe, Recipe, adaptation, load_recipe
from scenelift.workflows.training.runs import reseeded, run_folder
from scenelift.workflows.training.segmenter import own_scene
from scenelift.workflows.training.train import train

ERRORS = Console(stderr=True)


@dataclass(frozen=True)
class OwnScene:
    """A raster and its labels, to train a segmenter on."""

    task: str | None
    scene: Path | None
    labels: Path | None
    classes: tuple[str, ...] = ()
    steps: int = 300

    def recipe(self) -> LandcoverRecipe:
        """Return the recipe, or raise ModelError if something is missing."""
        if self.task != "segmentation":
            raise ModelError(f"--task must be segmentation, got {self.task!r}; classifiers are trained from recipes")
        if self.scene is None or self.labels is None:
            raise ModelError("--task segmentation needs --scene (a raster) and --labels (the raster of its labels)")
        return own_scene(self.scene, self.labels, self.steps, self.classes)


def restoration_recipe(
    recipe: str | None,
    task: str | None,
    scenes: Sequence[str] = (),
    steps: int = 600,
    bands: tuple[int, ...] | None = None,
) -> Recipe | LandcoverRecipe:
    """Return the recipe of that name, or the one that adapts a shipped model to scenes.

    Raises
    ------
    ModelError
        If neither or both of ``recipe`` and ``task`` are given, or scenes without a task.
    """
    if (recipe is None) == (task is None):
        raise ModelError("give either a recipe, or --task with --scenes")
    if recipe is not None and (scenes or bands):
        raise ModelError("--scenes and --bands go with --task; a recipe names its own data")
    return load_recipe(recipe) if recipe is not None else adaptation(str(task), scenes, steps, bands)


def landcover_recipe(recipe: str | None, own: OwnScene | None) -> Recipe | LandcoverRecipe:
    """Return the recipe of that name, or the one for a scene of the user's own.

    Raises
    ------
    ModelError
        If neither or both are given, or the scene or its labels are missing.
    """
    if (recipe is None) == (own is None):
        raise ModelError("give either a recipe, or --task segmentation with --scene and --labels")
    return own.recipe() if own is not None else load_recipe(str(recipe))


def run_training(recipe: Recipe | LandcoverRecipe, run: Path | None, seed: int | None, **settings: Any) -> str:
    """Train with a progress bar; return what the command line says last, nothing if rank 0 says it.

    Parameters
    ----------
    recipe : Recipe or LandcoverRecipe
    run : path, optional
        Folder of the run; default: that of the recipe's name and the seed.
    seed : int, optional
        Instead of the recipe's own.
    settings
        As for `train`: data, weights, resume, threads, device.

    Raises
    ------
    ModelError
        As `train`.
    """
    folder = run or run_folder(recipe.name, seed)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=ERRORS,
        disable=not (is_main_process() and ERRORS.is_terminal),
    ) as bar:
        line = bar.add_task(recipe.name, total=None)

        def advance(step: int, total: int, loss: float) -> None:
            bar.update(line, completed=step, total=total, description=f"{recipe.name} loss {loss:.4f}")

        try:
            target = train(reseeded(recipe, seed), folder, progress=advance, **settings)
        except ModelError:
            with suppress(OSError):  # not empty: a run that began keeps its state
                folder.rmdir()
            raise
    if not is_main_process():
        return ""
    scores = json.loads(target.with_suffix(".json").read_text())["validation"]
    return f"{target}: validation {_listed(scores)}\nlog and figure in {folder}"


def _listed(scores: dict[str, float]) -> str:
    if "psnr_db" in scores:
        named = ", ".join(f"{name.removesuffix('_db')} {value:.2f}" for name, value in scores.items())
        return f"PSNR in dB: {named.replace('psnr', 'network')}"
    return "scores: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
