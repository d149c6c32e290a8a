"""Learning to restore images: super-resolution and denoising, with pairs of degraded and clean patches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.receptive import seam_error
from scenelift.models.spec import ModelSpec
from scenelift.models.training.adversarial import restoration_objective
from scenelift.models.training.initialization import begin
from scenelift.models.training.objectives import Objective, PixelLoss, Term
from scenelift.models.training.schedule import Schedule
from scenelift.models.training.tasks import Inputs, Task
from scenelift.models.training.trainer import Weights
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.images import PatchSampler, PatchSet
from scenelift.workflows.training.recipe import RECIPES, Recipe, load_recipe, make_spec, make_task
from scenelift.workflows.training.validation import baselines, make_validator, validation_pairs

LICENCE = "Apache-2.0 (weights and code); training data: EuroSAT (MIT), Copernicus Sentinel data (free and open)"
AERIAL = ", NAIP (public domain)"


@dataclass(frozen=True)
class Restoration:
    """A `Problem` of `scenelift.workflows.training.train`."""

    recipe: Recipe
    task: Task
    sampler: PatchSampler
    held_out: list[PatchSet]
    began: Weights | None = None
    """Weights to begin with instead of those of the recipe's start."""
    terms: tuple[Term, ...] = ()
    """Losses beside the pixels', instead of those of the recipe."""
    device: str = "cpu"
    """Where validation runs."""
    column = "validation_db"
    limits = (
        "The target it learned from is the image itself (Wald's protocol) or a clean image with added noise; finer "
        "detail than the sensor saw is a guess. Not for measurements at the scale of a single new pixel."
    )

    @classmethod
    def read(cls, recipe: Recipe, data: Path | None, run: Path | None = None) -> Restoration:
        """Read the recipe's data; patches are kept in nameless files in ``run``."""
        train_set, held_out = read_data(recipe, data, run)
        bands = int(recipe.arch.get("bands", 1))
        sampler = PatchSampler(train_set, bands, recipe.data.side, recipe.data.gains, recipe.data.gammas)
        return cls(recipe, make_task(recipe), sampler, held_out)

    @property
    def arch(self) -> dict[str, Any]:
        """The recipe's architecture."""
        return self.recipe.arch

    @property
    def licence(self) -> str:
        """That of the shipped data, for a shipped recipe."""
        name = self.recipe.name
        shipped = (RECIPES / f"{name}.toml").is_file() and load_recipe(name).data == self.recipe.data
        if not shipped:
            return "that of your data"
        return LICENCE + AERIAL * any(source.path.startswith("naip/") for source in self.recipe.data.train)

    @property
    def samples(self) -> int:
        """Number of training patches."""
        return sum(len(patches.values) for patches in self.sampler.sets)

    def arrays(self) -> Iterable[NDArray[np.generic]]:
        """Return all patches."""
        return (patches.values for patches in (*self.sampler.sets, *self.held_out))

    def begin(self, module: nn.Module) -> None:
        """Fit the linear path and take over the weights of the recipe's start."""
        if self.began is not None:
            module.load_state_dict(self.began)
        else:
            begin(module, self.recipe.plan.seed, self.recipe.start, self.task, self.sampler)

    @functools.cached_property
    def pairs(self) -> tuple[Inputs, Tensor]:
        """Fixed inputs and targets of the validation places."""
        return validation_pairs(self.recipe, self.task, self.held_out)

    @functools.cached_property
    def validate(self) -> Callable[[Weights], float]:
        """Mean PSNR (dB) over fixed validation pairs."""
        return make_validator(self.recipe, *self.pairs, self.device)

    def scores(self, state: Weights) -> dict[str, float]:
        """Return the PSNR (dB) of the network and of classical methods."""
        return {"psnr_db": round(self.validate(state), 3), **baselines(self.task, *self.pairs)}

    def finished(self, state: Weights) -> Weights:
        """Return them as they are."""
        return state

    def objective(self, schedule: Schedule, device: str) -> Objective:
        """Return the pixel loss, with a discriminator or teacher if the recipe names one."""
        self.validate  # noqa: B018 - built first: shipped recipes draw a discriminator's weights after this network's
        if self.terms:
            return PixelLoss(self.task, self.sampler, self.terms)
        bands = int(self.recipe.arch.get("bands", 1))
        return restoration_objective(self.task, self.sampler, schedule, self.recipe.adversarial, bands, device)

    def spec(self, module: nn.Module, record: dict[str, Any]) -> ModelSpec:
        """Return the spec; an autoencoder's has a measured halo."""
        spec = make_spec(self.recipe, module, record)
        if self.recipe.arch["kind"] != "autoencoder":
            return spec
        # it looks farther than any sensible halo: say what the seam costs instead
        return dataclasses.replace(spec, halo_kind="measured", seam_error=seam_error(module.eval(), spec))

    def facts(self) -> dict[str, Any]:
        """Return sources, split and number of patches."""
        return {
            "trained_on": [source.path for source in self.recipe.data.train],
            "validated_on": [source.path for source in self.recipe.data.validation] or "a tenth of the training places",
            "split": "by place: validation places are never trained on",
            "patches": self.samples,
            "seen": seen(self.task, self.sampler),
        }


def seen(task: Task, sampler: PatchSampler, count: int = 1024) -> dict[str, list[float]]:
    """Return the ranges of what a network was shown: 0.5 to 99.5 percent of the degraded patches.

    Returns
    -------
    dict
        "brightness" and "contrast": mean and standard deviation of a patch of a band, reflectance. "mtf": transfers at
        Nyquist, for super-resolution. "noise": standard deviations, reflectance.
    """
    generator = torch.Generator().manual_seed(0)
    patches = torch.cat([task.degrade(sampler(64, 1.0, generator), generator)[0] for _ in range(count // 64)])
    ranges = {"brightness": patches.mean((2, 3)), "contrast": patches.std((2, 3))}
    found = {name: np.quantile(values.numpy(), (0.005, 0.995)) for name, values in ranges.items()}
    return {name: [float(f"{value:.3g}") for value in values] for name, values in found.items()} | task.conditions()
