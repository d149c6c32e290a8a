"""Train the estimator of blur and noise: ``python -m scenelift.workflows.training.estimator --data DIR -o FILE``.

It learns from patches of EuroSAT and of scenes of several sensors, from scenes made sharper (shrunk by two first) and
softer (their own blur must not be taken for the one to be found), and from drawn shapes as sharp as pixels can be.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.catalog import find, load, with_settings
from scenelift.models.sensing.blurs import KINDS, Blur, decimate
from scenelift.models.sensing.estimation import CANDIDATES
from scenelift.models.training.estimation import Draw, dead_leaves, examples, fit, store
from scenelift.models.whole import run_whole
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.images import PatchSampler
from scenelift.workflows.training.recipe import Recipe, Source, load_recipe

EXAMPLES = 40_000
SCENES = (
    "s2/at_ftw.tif",
    "s2/rustenburg.tif",
    "s2/suriname.tif",
    "s2/in_bangalore.tif",
    "s2_20m/australia_*.tif",
    "s2_20m/durban_*.tif",
    "s2_20m/kempen_10m.tif",
    "s2_20m/malmo_10m.tif",
    "s2_20m/usa_*.tif",
    "landsat_pan/navarra_*.tif",
    "landsat_pan/liverpool_*.tif",
    "landsat_pan/fgf5_*.tif",
    "landcover/nc_wake_lsat7_2002.tif",
    "naip/train_*-[0-5].npz",
)
"""Many sensors and ways of processing: what a blur looks like depends on what is blurred."""
SHARES = (0.33, 0.19, 0.14, 0.08, 0.13, 0.13)
"""Of EuroSAT's patches, of small and large ones of scenes, of scenes made softer and sharper, of drawn shapes."""
MEASURED_ON = 24
"""Patches, and as many drawn ones, on which the cost of a wrong guess is measured."""


def draws(data: Path) -> list[tuple[Draw, float]]:
    """Return the sources of clean patches, and how often each is drawn from."""
    recipe = load_recipe("sr-x2")
    assert isinstance(recipe, Recipe)
    zips = tuple(source for source in recipe.data.train if source.path.endswith(".zip"))
    scenes = tuple(Source(path) for path in SCENES)

    def sampler(sources: tuple[Source, ...], side: int) -> PatchSampler:
        chosen = replace(recipe, data=replace(recipe.data, train=sources, side=side))
        return PatchSampler(read_data(chosen, data)[0], 1, side)

    eurosat, small, large = sampler(zips, 64), sampler(scenes, 64), sampler(scenes, 128)

    def softer(count: int, generator: torch.Generator) -> Tensor:
        mtf = 0.05 + 0.55 * float(torch.rand(1, generator=generator))
        return decimate(small(count, 1.0, generator), 1, [[Blur("gaussian", mtf).kernel(1)]] * count)

    def sharper(count: int, generator: torch.Generator) -> Tensor:
        kind = KINDS[1 + int(torch.randint(len(KINDS) - 1, (1,), generator=generator))]
        return decimate(large(count, 1.0, generator), 2, [[Blur(kind).kernel(2)]] * count)

    def drawn(count: int, generator: torch.Generator) -> Tensor:
        side = 64 if torch.rand(1, generator=generator) < 0.6 else 128
        return dead_leaves(count, side, generator)

    samplers = [functools.partial(_draw, each) for each in (eurosat, small, large)]
    return list(zip([*samplers, softer, sharper, drawn], SHARES, strict=True))


def _draw(sampler: PatchSampler, count: int, generator: torch.Generator) -> Tensor:
    return sampler(count, 1.0, generator)


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


def train_estimator(
    data: Annotated[Path, typer.Option(help="Folder that the recipe's paths start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights to write (.safetensors).")],
    count: Annotated[int, typer.Option("--examples", help="Sets of patches to learn from.")] = EXAMPLES,
    seed: int = 0,
) -> None:
    """Train the estimator of blur and noise."""
    torch.set_num_threads(1)
    sources = draws(data)
    weights = fit(*examples(sources, count, seed + 1), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    measured_on = [sources[0][0](MEASURED_ON, generator), dead_leaves(MEASURED_ON, 64, generator)]
    weights["regret"] = np.mean([regrets("sr-x2", clean) for clean in measured_on], 0)
    store(output, weights)


if __name__ == "__main__":
    typer.run(train_estimator)
