"""What the training commands say while they work and at the end; a run that never began leaves no folder."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import typer

from scenelift.models.errors import ModelError
from scenelift.models.training.processes import is_main_process, is_one_of_several, launch
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli.console import bar
from scenelift.workflows.cli.options import band_numbers
from scenelift.workflows.settings import Adaptation, OwnScene, TrainingRun
from scenelift.workflows.training.recipe import LandcoverRecipe, Recipe, adaptation, load_recipe
from scenelift.workflows.training.runs import reseeded, run_folder
from scenelift.workflows.training.segmenter import own_scene
from scenelift.workflows.training.train import train


def run_training(recipe: str | None, own: Adaptation | OwnScene, run: TrainingRun) -> str:
    """Train with a progress bar; return what the command line says last, nothing if rank 0 says it.

    A seed other than the recipe's own has a run folder of its own, so that several stand side by side.

    Parameters
    ----------
    recipe : str, optional
        Path of a recipe, or the name of one that ships.
    own : Adaptation or OwnScene
        Instead of a recipe, scenes of the user's own.
    run : TrainingRun

    Raises
    ------
    UsageError
        If neither or both of a recipe and scenes are given, or something of the latter is missing.
    ModelError
        As `train`.
    typer.Exit
        If several processes have trained instead of this one, with their exit status.
    """
    chosen = reseeded(_chosen_recipe(recipe, own), run.seed)
    wanted = own.require_gain if isinstance(own, Adaptation) else None
    if wanted is not None and not getattr(chosen, "start", None):
        raise UsageError(f"--require-gain compares with what a training begins as, and {chosen.name} begins as nothing")
    if run.processes > 1 and not is_one_of_several():
        raise typer.Exit(launch([sys.executable, "-m", "scenelift", *sys.argv[1:]], run.processes))
    folder = run.run or run_folder(chosen.name, run.seed)
    with bar(chosen.name, quiet=not (is_main_process() and sys.stderr.isatty())) as move:
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
                say=lambda line: print(line, file=sys.stderr),
            )
        except ModelError:
            with suppress(OSError):  # not empty: a run that began keeps its state
                folder.rmdir()
            raise
    if not is_main_process():
        return ""
    card = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    said = f"{target}: validation {_listed(card['validation'])}\nlog and figure in {folder}"
    if "parent" not in card:
        return said
    said, gain = f"{said}\n{_verdict(card)}", _gain(card)
    if wanted is not None and gain < wanted:
        print(said)
        raise typer.Exit(3)
    return said


def _gain(card: dict[str, Any]) -> float:
    """Return by how much (dB) a network is better than the one it began as, on places that neither has seen."""
    return float(card["validation"]["psnr_db"] - card["parent"]["psnr_db"])


def _verdict(card: dict[str, Any]) -> str:
    """Return one line: whether the training helped."""
    name, gain = card["parent"]["name"], _gain(card)
    if gain <= 0:
        return f"did not help: {name} is {-gain:.2f} dB better on the validation places; keep {name}"
    return f"{gain:.2f} dB better than {name} on the validation places"


def _chosen_recipe(recipe: str | None, own: Adaptation | OwnScene) -> Recipe | LandcoverRecipe:
    """Return the recipe of that name, or the one that trains on scenes of the user's own; errors as `run_training`."""
    adapts = isinstance(own, Adaptation)
    if (recipe is None) == (own.task is None if adapts else own == OwnScene()):
        scenes = "--task with --scenes" if adapts else "--task segmentation with --scene and --labels"
        raise UsageError(f"give either a recipe, or {scenes}")
    if recipe is not None:
        if isinstance(own, Adaptation) and (own.scenes or own.bands):
            raise UsageError("--scenes and --bands go with --task; a recipe names its own data")
        return load_recipe(recipe)
    if isinstance(own, Adaptation):
        return adaptation(str(own.task), own.scenes, own.steps, band_numbers(own.bands))
    if own.task != "segmentation":
        raise UsageError(f"--task must be segmentation, got {own.task!r}; classifiers are trained from recipes")
    if own.scene is None or own.labels is None:
        raise UsageError("--task segmentation needs --scene (a raster) and --labels (the raster of its labels)")
    return own_scene(own.scene, own.labels, own.steps, own.classes)


def _listed(scores: dict[str, float]) -> str:
    if "psnr_db" in scores:
        named = ", ".join(f"{name.removesuffix('_db')} {value:.2f}" for name, value in scores.items())
        return f"PSNR in dB: {named.replace('psnr', 'network')}"
    return "scores: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
