"""The folder of a training run, its threads and its seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scenelift.models.errors import ModelError
from scenelift.pipeline.files import make_folder


def open_run(run: Path, threads: int | None) -> None:
    """Make a training run's folder and set its CPU threads.

    Raises
    ------
    ModelError, UsageError
        If the folder cannot be made, or there is less than one thread.
    """
    if threads is not None:
        if threads < 1:
            raise ModelError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    make_folder(run)


def run_folder(name: str, seed: int | None) -> Path:
    """Return the default folder of a run; a seed given by the user has its own folder."""
    return Path("runs") / (name if seed is None else f"{name}-seed{seed}")


def reseeded(recipe: Any, seed: int | None) -> Any:
    """Return a recipe with another seed in its schedule; unchanged for None."""
    return recipe if seed is None else replace(recipe, plan=replace(recipe.plan, seed=seed))
