"""Drawing patches of places: of one band or two mixed, near each other or not, as they are, softer and sharper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.sensing.blurs import KINDS, Blur, decimate
from scenelift.models.sensing.estimation import FLAT
from scenelift.models.training.estimation import Draw, dead_leaves
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.recipe import Recipe, load_recipe

Array = NDArray[np.float32]

LUMA = (0.3, 0.59, 0.11)
"""Of JPEG images only what is bright and dark is sharp: colours have half the resolution."""
SMALL, LARGE, SOFTER = 0.35, 0.27, 0.15
"""Shares of a place's small and large patches and of those made softer; the others are made sharper."""
FEW_CLASSES, FEW = 0.7, 3
"""Share of the examples of EuroSAT that are of few classes, and how many at most: a scene is of one kind of land."""
MIXED, MOST = 0.4, 0.8
"""Share of a place's examples to whose band another is added, and how much of it at most (of its deviation)."""
NEAR = 0.5
"""Share of a place's examples whose patches lie near each other, as those of a small scene do."""


def of_eurosat(data: Path) -> Draw:
    """Return what draws images of the training split, often of a few classes alone."""
    recipe = load_recipe("sr-x2")
    assert isinstance(recipe, Recipe)
    zips = tuple(source for source in recipe.data.train if source.path.endswith(".zip"))
    ((images, _),) = read_data(replace(recipe, data=replace(recipe.data, train=zips, side=64)), data)[0]
    labels = np.array(images.labels)
    members = [np.flatnonzero(labels == label) for label in sorted(set(images.labels))]

    def draw(count: int, generator: torch.Generator) -> Tensor:
        few, many, *shares = torch.rand(5, generator=generator).tolist()
        classes = torch.randperm(len(members), generator=generator).tolist()
        classes = classes[: 1 + int(FEW * many)] if few < FEW_CLASSES else classes
        picks = torch.rand(count, 2, generator=generator).tolist()
        own = [members[classes[int(len(classes) * which)]] for which, _ in picks]
        at = np.array([each[int(len(each) * place)] for each, (_, place) in zip(own, picks, strict=True)])
        weights = torch.tensor(LUMA) * (0.6 + 0.8 * torch.tensor(shares))
        return torch.einsum("nchw,c->nhw", images.reflectance(at), weights / weights.sum())[:, None]

    return draw


def of_place(bands: Sequence[Array]) -> Draw:
    """Return what draws patches of a place."""
    small = _patches(bands, 64)
    if max(min(band.shape) for band in bands) < 128:
        return small
    large = _patches(bands, 128)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        which, strong, resampled = torch.rand(3, generator=generator).tolist()
        if which < SMALL + LARGE:
            return (small if which < SMALL else large)(count, generator)
        if which < SMALL + LARGE + SOFTER:
            softer = Blur("gaussian", 0.05 + 0.55 * strong).kernel(1)
            return decimate(small(count, generator), 1, [[softer]] * count)
        sharper = Blur(KINDS[1 + int((len(KINDS) - 1) * resampled)]).kernel(2)
        return decimate(large(count, generator), 2, [[sharper]] * count)

    return draw


def drawn(count: int, generator: torch.Generator) -> Tensor:
    """Draw shapes (count, 1, side, side)."""
    return dead_leaves(count, 64 if torch.rand(1, generator=generator) < 0.6 else 128, generator)


def _patches(bands: Sequence[Array], side: int) -> Draw:
    """Return what draws patches of one band, or of two; large bands are drawn from more often."""
    usable = [band for band in bands if min(band.shape) >= side]
    sizes = torch.tensor([float(band.size) for band in usable])

    def draw(count: int, generator: torch.Generator) -> Tensor:
        band = usable[int(torch.multinomial(sizes / sizes.sum(), 1, generator=generator))]
        mates = [other for other in usable if other is not band and other.shape == band.shape]
        mixed, which, much = torch.rand(3, generator=generator).tolist()
        mate = mates[int(len(mates) * which)] if mates and mixed < MIXED else None
        found: list[Array] = []
        (top, left), (height, width) = (0, 0), band.shape
        if torch.rand(1, generator=generator) < NEAR:
            near = int(side * max(2.0, 1.5 * math.sqrt(count)))
            height, width = min(height, near), min(width, near)
            top, left = (_place(n - m, generator) for n, m in zip(band.shape, (height, width), strict=True))
        tries = 0
        while len(found) < count:
            if tries == 20 + 2 * count:  # a dark or empty corner
                (top, left), (height, width) = (0, 0), band.shape
            row, col = top + _place(height - side, generator), left + _place(width - side, generator)
            at = np.s_[row : row + side, col : col + side]
            patch = band[at]
            tries += 1
            if tries < 50 * count and ((patch <= 0).mean() > 0.01 or patch.std() < FLAT):
                continue
            if mate is not None:
                patch = _mixed(patch, mate[at], MOST * (2 * much - 1))
            patch = np.rot90(patch, int(torch.randint(4, (1,), generator=generator)))
            found.append((patch[:, ::-1] if torch.rand(1, generator=generator) < 0.5 else patch).copy())
        return torch.from_numpy(np.stack(found))[:, None]

    return draw


def _place(room: int, generator: torch.Generator) -> int:
    return int(torch.randint(room + 1, (1,), generator=generator))


def _mixed(patch: Array, other: Array, share: float) -> Array:
    """Add a share of the detail of another band: what it shows is real, and new."""
    detail = (other - other.mean()) * np.float32(share * patch.std() / (other.std() + 1e-6))
    found: Array = np.maximum(patch + detail, np.float32(1e-4))
    return found
