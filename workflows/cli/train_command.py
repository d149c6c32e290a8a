"""What the training commands say while they work and at the end; a run that never began leaves no folder."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from scenelift.models.errors import ModelError
from scenelift.models.training.processes import is_main_process, is_one_of_several, launch
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli.console import bar
from scenelift.workflows.landcover.settings import OwnScene
from scenelift.workflows.settings import TrainingRun
from scenelift.workflows.training.recipe import LandcoverRecipe, Recipe, load_recipe
from scenelift.workflows.training.runs import reseeded, run_folder
from scenelift.workflows.training.segmenter import own_scene
from scenelift.workflows.training.train import train


def run_training(recipe: str | None, run: TrainingRun, data: Path | None = None, own: OwnScene | None = None) -> str:
    """Train with a progress bar; return what the command line says last, nothing if rank 0 says it.

    Parameters
    ----------
    recipe : str, optional
        Path of a recipe, or the name of one that ships.
    run : TrainingRun
    data : Path, optional
        Folder that the recipe's paths are relative to.
    own : OwnScene, optional
        Instead of a recipe, a labelled scene of the user's own.

    Raises
    ------
    UsageError
        If neither or both of a recipe and a scene are given, or something of the latter is missing.
    ModelError, typer.Exit
        As `trained`.
    """
    target = trained(_chosen_recipe(recipe, own or OwnScene()), run, data)
    if target is None:
        return ""
    card = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    said = f"{target}: validation {listed(card['validation'])}\nlog and figure in {target_run(card['recipe'], run)}"
    return said if "parent" not in card else f"{said}\n{_verdict(card)}"


def trained(recipe: Recipe | LandcoverRecipe, run: TrainingRun, data: Path | None = None) -> Path | None:
    """Train a recipe with a progress bar; return the checkpoint, None if another process of several stores it.

    A seed other than the recipe's own has a run folder of its own, so that several stand side by side.

    Raises
    ------
    ModelError
        As `train`.
    typer.Exit
        If several processes have trained instead of this one, with their exit status.
    """
    chosen = reseeded(recipe, run.seed)
    if run.processes > 1 and not is_one_of_several():
        raise typer.Exit(launch([sys.executable, "-m", "scenelift", *sys.argv[1:]], run.processes))
    folder = target_run(chosen.name, run)
    with bar(chosen.name, quiet=not (is_main_process() and sys.stderr.isatty())) as move:
        try:
            target = train(
                chosen,
                folder,
                data=data,
                weights=run.output,
                resume=run.resume,
                threads=run.threads,
                device=run.device,
                progress=lambda step, total, loss: move(step, total, f"{chosen.name} loss {loss:.4f}"),
                say=lambda line: print(line, file=sys.stderr),
            )
        except ModelError:
            with suppress(OSError):  # not empty: a run that began keeps its state
                folder.rmdir()
            raise
    return target if is_main_process() else None


def target_run(name: str, run: TrainingRun) -> Path:
    """Return the folder of a run."""
    return run.run or run_folder(name, run.seed)


def _verdict(card: dict[str, Any]) -> str:
    """Return one line: whether the training helped, on places that neither network has seen."""
    name, gain = card["parent"]["name"], card["validation"]["psnr_db"] - card["parent"]["psnr_db"]
    if gain <= 0:
        return f"did not help: {name} is {-gain:.2f} dB better on the validation places; keep {name}"
    return f"{gain:.2f} dB better than {name} on the validation places"


def _chosen_recipe(recipe: str | None, own: OwnScene) -> Recipe | LandcoverRecipe:
    """Return the recipe of that name, or the one that trains on a scene of the user's own; errors as `run_training`."""
    if (recipe is None) == (own == OwnScene()):
        raise UsageError("give either a recipe, or --task segmentation with --scene and --labels")
    if recipe is not None:
        return load_recipe(recipe)
    if own.task != "segmentation":
        raise UsageError(f"--task must be segmentation, got {own.task!r}; classifiers are trained from recipes")
    if own.scene is None or own.labels is None:
        raise UsageError("--task segmentation needs --scene (a raster) and --labels (the raster of its labels)")
    return own_scene(own.scene, own.labels, own.steps, own.classes)


def listed(scores: dict[str, float]) -> str:
    """Return validation scores in words."""
    if "psnr_db" in scores:
        named = ", ".join(f"{name.removesuffix('_db')} {value:.2f}" for name, value in scores.items())
        return f"PSNR in dB: {named.replace('psnr', 'network')}"
    return "scores: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
