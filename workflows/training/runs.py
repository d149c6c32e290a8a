"""A training run: its folder, threads and seed, and the card and the figure that it leaves."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scenelift.models.checkpoint import checkpoint_digest, read_metadata, write_atomically
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
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


def save_card(weights: Path, use: str, limits: str, licence: str, facts: dict[str, Any]) -> Path:
    """Write NAME.json beside a checkpoint: what it is, how it was made, what it scored.

    Parameters
    ----------
    weights : path
        The checkpoint.
    use, limits, licence : str
        What it is for, where it should not be trusted, on what terms it may be used.
    facts : dict
        What the run knows: data, split, steps, validation table.
    """
    spec, arch = read_metadata(weights)
    module = build(arch)
    card = {
        "name": spec.name,
        "task": spec.task,
        "scale": spec.scale,
        "bands": "each on its own" if spec.bands is None else f"{spec.bands} together",
        "use": use,
        "limits": limits,
        "licence": licence,
        "architecture": arch,
        "parameters": sum(p.numel() for p in module.parameters()),
        "halo": spec.halo,
        "sha256": checkpoint_digest(weights),
        **facts,
    }
    path = weights.with_suffix(".json")
    write_atomically(path, (json.dumps(card, indent=2) + "\n").encode())
    return path


def draw_losses(run: Path) -> Path:
    """Draw the training loss and the validation figure of a run from its log.csv into loss.png."""
    # matplotlib without a display, imported here so that only training pays for it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next((name for name in rows[0] if name.startswith("validation_")), "validation_db") if rows else ""
    label = "validation PSNR, dB" if column == "validation_db" else column.replace("_", " ")
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.add_subplot()
    left.plot(steps, [float(row["loss"]) for row in rows], "C0.-", label="training loss")
    left.set(xlabel="step", ylabel="training loss")
    right = left.twinx()
    right.plot(steps, [float(row[column]) for row in rows], "C1.-", label=label)
    right.set_ylabel(label)
    figure.legend(loc="outside upper center", ncols=2)
    FigureCanvasAgg(figure).print_png(str(run / "loss.png"))
    return run / "loss.png"
