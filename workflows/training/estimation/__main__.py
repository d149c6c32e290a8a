"""Train the estimator of blur and noise: ``python -m scenelift.workflows.training.estimation --data DIR -o FILE``.

It learns from EuroSAT's images, from places of several sensors (an example is of one place, as it is when a scene is
asked about), from places made sharper (shrunk by two first) and softer (their own blur must not be taken for the one
to be found), and from drawn shapes as sharp as pixels can be.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.catalog import find, with_settings
from scenelift.models.loading import load
from scenelift.models.sensing.blurs import decimate
from scenelift.models.sensing.estimation import CANDIDATES
from scenelift.models.training.estimation import dead_leaves, fit, store
from scenelift.models.whole import run_whole
from scenelift.workflows.training.estimation.parts import Part, parts, remembered
from scenelift.workflows.training.estimation.patches import of_eurosat

MEASURED_ON = 24
"""Patches, and as many drawn ones, on which the cost of a wrong guess is measured."""


def regrets(name: str, clean: Tensor) -> NDArray[np.float32]:
    """Return what a wrong guess costs: dB lost where a blur (row) is taken for another (column).

    Parameters
    ----------
    name : str
        A band-agnostic ×2 network that is told the blur.
    clean : Tensor
        (N, 1, H, W) reflectance.
    """
    inner = (..., slice(2, -2), slice(2, -2))
    models = [load(with_settings(find(name), blur=(blur,), noise=(0.0,))) for blur in CANDIDATES]
    found = np.zeros((len(CANDIDATES),) * 2, np.float32)
    for row, blur in enumerate(CANDIDATES):
        low = decimate(clean, 2, [[blur.kernel(2)]] * len(clean)).numpy()
        for column, model in enumerate(models):
            errors = np.square((run_whole(model, low) - clean.numpy())[inner]).mean((1, 2, 3)) + 1e-9
            found[row, column] = 10 * np.log10(errors).mean()
    return found - np.diag(found)[:, None]


def _regret(data: Path, seed: int) -> NDArray[np.float32]:
    generator = torch.Generator().manual_seed(seed)
    measured_on = [of_eurosat(data)(MEASURED_ON, generator), dead_leaves(MEASURED_ON, 64, generator)]
    found: NDArray[np.float32] = np.mean([regrets("sr-x2", clean) for clean in measured_on], 0)
    return found


def train_estimator(
    data: Annotated[Path, typer.Option(help="Folder with the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights to write (.safetensors).")],
    packages: Annotated[
        Path | None, typer.Option(help="Folder with the archives of packages that carry real scenes, see places.py.")
    ] = None,
    share: Annotated[float, typer.Option(help="Share of the examples to learn from.", min=0.001)] = 1.0,
    without: Annotated[list[str] | None, typer.Option(help="Leave a place out, by the start of its name.")] = None,
    processes: Annotated[int, typer.Option(help="Processes that make examples; the result is the same.", min=1)] = 1,
    kept: Annotated[
        Path | None, typer.Option("--examples", help="Folder that keeps the examples: those in it are not made again.")
    ] = None,
    seed: int = 0,
) -> None:
    """Train the estimator of blur and noise."""
    torch.set_num_threads(1)
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
    left_out = tuple(without or ("\0",))
    wanted = [each for each in parts(data, packages, kept, share, seed) if not each.name.startswith(left_out)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        made = list(pool.map(Part.make, wanted))
    x, y, sigma = (np.concatenate(parts) for parts in zip(*made, strict=True))
    weights = fit(x, y, sigma, seed=seed + 1)  # other draws than the examples
    (weights["regret"],) = remembered(kept, f"regret-{seed}", lambda: [_regret(data, seed)])
    store(output, weights)


if __name__ == "__main__":
    typer.run(train_estimator)
