"""What `scenelift train` says while it works and at the end; a run that never began leaves no folder."""

from __future__ import annotations

import json
import sys
from contextlib import suppress

from scenelift.models.errors import ModelError
from scenelift.models.training.team import is_leader
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli.console import bar
from scenelift.workflows.cli.options import band_numbers
from scenelift.workflows.settings import Adaptation, OwnScene, TrainingRun
from scenelift.workflows.training.classifier import train_landcover
from scenelift.workflows.training.landcover_recipe import LANDCOVER_RECIPES, LandcoverRecipe, load_landcover_recipe
from scenelift.workflows.training.recipe import adaptation, load_recipe
from scenelift.workflows.training.runs import reseeded, run_folder
from scenelift.workflows.training.segmenter import own_scene, train_segmenter
from scenelift.workflows.training.train import train


def run_training(recipe: str | None, adapted: Adaptation, run: TrainingRun) -> str:
    """Train with a progress bar, from a recipe's name or by adaptation; return what the command line says last.

    A seed other than the recipe's own has a run folder of its own, so that several stand side by side.

    Raises
    ------
    UsageError
        If neither or both of a recipe and a task are given.
    ModelError
        As `train`.
    """
    bands = band_numbers(adapted.bands)
    if (recipe is None) == (adapted.task is None):
        raise UsageError("give either a recipe, or --task with --scenes")
    if recipe is not None and (adapted.scenes or bands):
        raise UsageError("--scenes and --bands go with --task; a recipe names its own data")
    if recipe is not None:
        chosen = load_recipe(recipe)
    else:
        chosen = adaptation(str(adapted.task), adapted.scenes, adapted.steps, bands)
    folder = run.run or run_folder(chosen.name, run.seed)
    chosen = reseeded(chosen, run.seed)
    with bar(chosen.name, quiet=not (is_leader() and sys.stderr.isatty())) as move:
        try:
            target = train(
                chosen,
                folder,
                data=run.data,
                weights=run.output,
                resume=run.resume,
                threads=run.threads,
                device=run.device,
                progress=lambda step, total, loss: move(step, total, f"{chosen.name} loss {loss:.4f}"),
            )
        except ModelError:
            with suppress(OSError):  # not empty: a run that began keeps its state
                folder.rmdir()
            raise
    if not is_leader():
        return ""
    facts = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    scores = ", ".join(f"{name.removesuffix('_db')} {value:.2f}" for name, value in facts["validation"].items())
    return f"{target}: validation PSNR in dB: {scores.replace('psnr', 'network')}\nlog and figure in {folder}"


def run_landcover_training(recipe: str | None, own: OwnScene, run: TrainingRun) -> str:
    """Train with a progress bar, from a recipe or on a scene of the user's own; return what is said last.

    A seed other than the recipe's own has a run folder of its own.

    Raises
    ------
    UsageError
        If neither or both of a recipe and an own scene are given, or of the latter something is missing.
    ModelError
        As the trainings.
    """
    if (recipe is None) == (own == OwnScene()):
        known = ", ".join(sorted(p.stem for p in LANDCOVER_RECIPES.glob("*.toml")))
        raise UsageError(f"give a recipe (TOML, or one of {known}), or --task segmentation with --scene and --labels")
    chosen = load_landcover_recipe(recipe) if recipe is not None else _recipe_of(own)
    fit = train_segmenter if chosen.segments else train_landcover
    folder = run.run or run_folder(chosen.name, run.seed)
    chosen = reseeded(chosen, run.seed)
    with bar(chosen.name) as move:
        target = fit(
            chosen,
            folder,
            data=run.data,
            weights=run.output,
            resume=run.resume,
            threads=run.threads,
            device=run.device,
            progress=lambda step, total, loss: move(step, total, f"{chosen.name} loss {loss:.4f}"),
        )
    scores = json.loads(target.with_suffix(".json").read_text())["validation"]
    named = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
    return f"{target}: validation: {named}\nlog and figure in {folder}"


def _recipe_of(own: OwnScene) -> LandcoverRecipe:
    if own.task != "segmentation":
        raise UsageError(f"--task must be segmentation, got {own.task!r}; classifiers are trained from recipes")
    if own.scene is None or own.labels is None:
        raise UsageError("--task segmentation needs --scene (a raster) and --labels (the raster of its labels)")
    return own_scene(own.scene, own.labels, own.steps, own.classes)
