"""What `scenelift train` says while it works and at the end; a run that never began leaves no folder."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scenelift.models.errors import ModelError
from scenelift.models.training.team import is_leader
from scenelift.workflows.training.recipe import adaptation, load_recipe
from scenelift.workflows.training.runs import reseeded, run_folder
from scenelift.workflows.training.train import train

ERRORS = Console(stderr=True)


def run_training(
    recipe: str | None,
    task: str | None,
    scenes: list[str],
    run: Path | None,
    data: Path | None,
    weights: Path | None,
    steps: int,
    threads: int | None,
    resume: bool,
    device: str = "auto",
    seed: int | None = None,
    bands: tuple[int, ...] | None = None,
) -> str:
    """Train with a progress bar, from a recipe's name or by adaptation; return what the command line says last.

    A ``seed`` other than the recipe's own has a run folder of its own, so that several stand side by side.

    Raises
    ------
    ModelError
        If neither or both of ``recipe`` and ``task`` are given, or as `train`.
    """
    if (recipe is None) == (task is None):
        raise ModelError("give either a recipe, or --task with --scenes")
    if recipe is not None and (scenes or bands):
        raise ModelError("--scenes and --bands go with --task; a recipe names its own data")
    chosen = load_recipe(recipe) if recipe is not None else adaptation(str(task), scenes, steps, bands)
    folder = run or run_folder(chosen.name, seed)
    chosen = reseeded(chosen, seed)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=ERRORS,
        disable=not (is_leader() and ERRORS.is_terminal),
    ) as bar:
        line = bar.add_task(chosen.name, total=None)

        def advance(step: int, total: int, loss: float) -> None:
            bar.update(line, completed=step, total=total, description=f"{chosen.name} loss {loss:.4f}")

        try:
            target = train(
                chosen,
                folder,
                data=data,
                weights=weights,
                resume=resume,
                threads=threads,
                device=device,
                progress=advance,
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
