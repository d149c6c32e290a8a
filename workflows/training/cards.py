"""The model card and the figure a training run leaves beside its weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from scenelift.models.checkpoint import checkpoint_digest, read_metadata, write_atomically
from scenelift.models.networks.architectures import build
from scenelift.workflows.training.recipe import RECIPES, Recipe, load_recipe

LICENCE = "Apache-2.0 (weights and code); training data: EuroSAT (MIT), Copernicus Sentinel data (free and open)"
LIMITS = (
    "The truth it learned from is the image itself (Wald's protocol) or a clean image with added noise; finer "
    "detail than the sensor saw is a guess. Not for measurements at the scale of a single new pixel."
)


def write_card(weights: Path, recipe: Recipe, facts: dict[str, Any]) -> Path:
    """Write NAME.json beside a checkpoint of a recipe; see `save_card`."""
    shipped = (RECIPES / f"{recipe.name}.toml").is_file() and load_recipe(recipe.name).data == recipe.data
    licence = LICENCE if shipped else "that of your data"
    return save_card(weights, recipe.note, LIMITS, licence, facts)


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
    judged = next((name for name in rows[0] if name.startswith("validation_")), "validation_db") if rows else ""
    label = "validation PSNR, dB" if judged == "validation_db" else judged.replace("_", " ")
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.add_subplot()
    left.plot(steps, [float(row["loss"]) for row in rows], "C0.-", label="training loss")
    left.set(xlabel="step", ylabel="training loss")
    right = left.twinx()
    right.plot(steps, [float(row[judged]) for row in rows], "C1.-", label=label)
    right.set_ylabel(label)
    figure.legend(loc="outside upper center", ncols=2)
    FigureCanvasAgg(figure).print_png(str(run / "loss.png"))
    return run / "loss.png"
