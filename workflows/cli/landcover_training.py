"""The land-cover trainings as the command line starts them, with a progress bar."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scenelift.models.errors import ModelError
from scenelift.workflows.training.classifier import train_landcover
from scenelift.workflows.training.landcover_recipe import LANDCOVER_RECIPES, LandcoverRecipe, load_landcover_recipe
from scenelift.workflows.training.runs import reseeded, run_folder
from scenelift.workflows.training.segmenter import own_scene, train_segmenter

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


def run_training(
    recipe: str | None,
    run: Path | None,
    data: Path | None,
    weights: Path | None,
    threads: int | None,
    resume: bool,
    device: str,
    own: OwnScene | None = None,
    seed: int | None = None,
) -> str:
    """Train with a progress bar, from a recipe or on a scene of the user's own; return what is said last.

    A ``seed`` other than the recipe's own has a run folder of its own.

    Raises
    ------
    ModelError
        If neither or both of ``recipe`` and ``own`` are given, or as the trainings.
    """
    if (recipe is None) == (own is None):
        known = ", ".join(sorted(p.stem for p in LANDCOVER_RECIPES.glob("*.toml")))
        raise ModelError(f"give a recipe (TOML, or one of {known}), or --task segmentation with --scene and --labels")
    chosen = own.recipe() if own is not None else load_landcover_recipe(str(recipe))
    train = train_segmenter if chosen.segments else train_landcover
    folder = run or run_folder(chosen.name, seed)
    chosen = reseeded(chosen, seed)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=ERRORS
    ) as bar:
        line = bar.add_task(chosen.name, total=None)

        def advance(step: int, total: int, loss: float) -> None:
            bar.update(line, completed=step, total=total, description=f"{chosen.name} loss {loss:.4f}")

        target = train(
            chosen, folder, data=data, weights=weights, resume=resume, threads=threads, device=device, progress=advance
        )
    scores = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))["validation"]
    named = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
    return f"{target}: validation: {named}\nlog and figure in {folder}"
