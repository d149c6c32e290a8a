"""Train the estimator of blur and noise: ``python -m scenelift.workflows.training.estimator --data DIR -o FILE``.

It learns from EuroSAT's images, from scenes of several sensors (an example is of one band of one place, as it is when
a scene is asked about), from scenes made sharper (shrunk by two first) and softer (their own blur must not be taken for
the one to be found), and from drawn shapes as sharp as pixels can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.catalog import find, with_settings
from scenelift.models.loading import load
from scenelift.models.sensing.blurs import KINDS, Blur, decimate
from scenelift.models.sensing.estimation import CANDIDATES, FLAT
from scenelift.models.training.estimation import Draw, dead_leaves, examples, fit, store
from scenelift.models.whole import run_whole
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.images import PatchSampler
from scenelift.workflows.training.recipe import Recipe, load_recipe

Array = NDArray[np.float32]

EUROSAT, DRAWN, EACH = 9_000, 4_500, 2_000
"""Examples of EuroSAT, of drawn shapes, and of each place."""
PLACES = (
    ("s2/at_ftw.tif",),
    ("s2/rustenburg.tif",),
    ("s2/suriname.tif",),
    ("s2/in_bangalore.tif",),
    ("s2/us_va_eastern_shore_10m.tif", "s2/us_va_eastern_shore_20m.tif"),
    ("s2/es_boadella_20200113.tif",),
    ("s2_20m/iceland_*.tif",),
    ("s2_20m/australia_*.tif",),
    ("s2_20m/usa_*.tif",),
    ("s2_20m/malmo_10m.tif", "s2_20m/malmo_20m.tif"),
    ("s2_20m/kempen_*.tif",),
    ("s2_20m/durban_*.tif",),
    ("s2_20m/coastal_10m.tif", "s2_20m/coastal_20m.tif"),
    ("landsat_pan/navarra_*.tif",),
    ("landsat_pan/salih_*.tif",),
    ("landsat_pan/liverpool_*.tif",),
    ("landsat_pan/fgf5_*.tif",),
    ("landsat_pan/fgf6_*.tif",),
    ("landcover/nc_wake_lsat7_2002.tif",),
    ("naip/train_*.npz",),
)
"""Many sensors and ways of processing: what a blur looks like depends on what is blurred."""
SMALL, LARGE, SOFTER, SHARPER = 0.35, 0.27, 0.15, 0.23
"""Shares of a place's small and large patches, and of those made softer and sharper."""
BRIGHT = 0.4
"""Reflectance that the brightest thousandth of an image of digital numbers is taken for."""
MEASURED_ON = 24
"""Patches, and as many drawn ones, on which the cost of a wrong guess is measured."""


def of_eurosat(data: Path) -> Draw:
    """Return what draws images of the training split."""
    recipe = load_recipe("sr-x2")
    assert isinstance(recipe, Recipe)
    zips = tuple(source for source in recipe.data.train if source.path.endswith(".zip"))
    chosen = replace(recipe, data=replace(recipe.data, train=zips, side=64))
    sampler = PatchSampler(read_data(chosen, data)[0], 1, 64)
    return lambda count, generator: sampler(count, 1.0, generator)


def of_place(bands: Sequence[Array]) -> list[tuple[Draw, float]]:
    """Return what draws patches of a place, as they are, softer and sharper, and how often each is drawn from."""
    small, large = (_patches(bands, side) for side in (64, 128))

    def softer(count: int, generator: torch.Generator) -> Tensor:
        mtf = 0.05 + 0.55 * float(torch.rand(1, generator=generator))
        return decimate(small(count, generator), 1, [[Blur("gaussian", mtf).kernel(1)]] * count)

    def sharper(count: int, generator: torch.Generator) -> Tensor:
        kind = KINDS[1 + int(torch.randint(len(KINDS) - 1, (1,), generator=generator))]
        return decimate(large(count, generator), 2, [[Blur(kind).kernel(2)]] * count)

    return [(small, SMALL), (large, LARGE), (softer, SOFTER), (sharper, SHARPER)]


def drawn(count: int, generator: torch.Generator) -> Tensor:
    """Draw shapes (count, 1, side, side)."""
    return dead_leaves(count, 64 if torch.rand(1, generator=generator) < 0.6 else 128, generator)


def _patches(bands: Sequence[Array], side: int) -> Draw:
    """Return what draws patches of one band; large bands are drawn from more often."""
    usable = [band for band in bands if min(band.shape) >= side]
    sizes = np.array([band.size for band in usable], float)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        band = usable[int(torch.multinomial(torch.tensor(sizes / sizes.sum()), 1, generator=generator))]
        found: list[Array] = []
        tries = 0
        while len(found) < count:
            row, col = (int(torch.randint(n - side + 1, (1,), generator=generator)) for n in band.shape)
            patch = band[row : row + side, col : col + side]
            tries += 1
            if tries < 50 * count and ((patch <= 0).mean() > 0.01 or patch.std() < FLAT):
                continue
            found.append(np.rot90(patch, int(torch.randint(4, (1,), generator=generator))).copy())
        return torch.from_numpy(np.stack(found))[:, None]

    return draw


def read_bands(data: Path, patterns: Sequence[str]) -> list[Array]:
    """Return the bands (H, W) of a place's images as reflectance, of digital numbers as something like it."""
    bands: list[Array] = []
    for path in (path for pattern in patterns for path in sorted(data.glob(pattern))):
        if path.suffix == ".npz":
            with np.load(path) as file:
                bands += [band for name in ("naip_new", "naip_old") for band in file[name] * np.float32(BRIGHT / 255)]
            continue
        scene = open_scene(SceneSource((str(path),), crs="EPSG:32633"))  # where it lies does not matter
        values = scene.read_dn(Window(0, 0, *scene.grid.shape))[0].astype(np.float32)
        known = scene.dtype == "uint16" and path.parent.name.startswith("s2")
        bands += list(values * np.float32(1e-4 if known else BRIGHT / np.quantile(values, 0.999)))
    return bands


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
    data: Annotated[Path, typer.Option(help="Folder with the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights to write (.safetensors).")],
    share: Annotated[float, typer.Option(help="Share of the examples to learn from.", min=0.001, max=1)] = 1.0,
    without: Annotated[list[str] | None, typer.Option(help="Leave a place out, by the start of its paths.")] = None,
    seed: int = 0,
) -> None:
    """Train the estimator of blur and noise."""
    torch.set_num_threads(1)
    eurosat = of_eurosat(data)
    left_out = tuple(without or ())
    kept = [patterns for patterns in PLACES if not (left_out and patterns[0].startswith(left_out))]
    places = [of_place(bands) for patterns in kept if (bands := read_bands(data, patterns))]
    sources: list[tuple[list[tuple[Draw, float]], int, int]] = []
    sources += [([(eurosat, 1.0)], EUROSAT, 7), ([(drawn, 1.0)], DRAWN, 8)]
    sources += [(draws, EACH, 100 + number) for number, draws in enumerate(places)]
    made = [examples(draws, max(1, round(share * count)), seed + own) for draws, count, own in sources]
    x, y, sigma = (np.concatenate(parts) for parts in zip(*made, strict=True))
    weights = fit(x, y, sigma, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    measured_on = [eurosat(MEASURED_ON, generator), dead_leaves(MEASURED_ON, 64, generator)]
    weights["regret"] = np.mean([regrets("sr-x2", clean) for clean in measured_on], 0)
    store(output, weights)


if __name__ == "__main__":
    typer.run(train_estimator)
