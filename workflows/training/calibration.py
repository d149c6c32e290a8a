"""Fit and measure error models: ``python -m scenelift.workflows.training.calibration --data DIR sr-x2 denoise``.

For every network three kinds of places: an error model is fitted on those that the network learned from, its bounds are
set on half of those that it was validated on, and what is reported is measured on the other half. The files are
NAME.errors beside NAME.safetensors; what was measured goes into the model card NAME.json.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from torch import Tensor, nn

from scenelift.models.calibration import REACH, ErrorModel, conformal_factors, noise_facts
from scenelift.models.checkpoint import checkpoint_digest, load_checkpoint, write_atomically
from scenelift.models.degradations import EUROSAT, white_noise
from scenelift.models.error_files import errors_path, save_errors
from scenelift.models.errors import ModelError
from scenelift.models.networks.conditioned import FACTS, ConditionedGenerator
from scenelift.models.networks.layers import ResidualBlock, crop, mirror
from scenelift.models.precision import pick_precision
from scenelift.models.sensing.blurs import Blur, decimate
from scenelift.models.shipped import checkpoint_path
from scenelift.models.training.calibration import fit
from scenelift.models.training.tasks import BlindSuperResolution, Denoising, Inputs, Task
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.images import PatchSampler, PatchSet, rank
from scenelift.workflows.training.recipe import Recipe, load_recipe, make_task

FITTED, CALIBRATED, MEASURED = 1500, 1000, 150
"""Patches to fit on, to set the bounds on, and to measure with in each case."""
BATCH = 16
CONTEXT = 10
"""Input pixels around a patch, mirrored: what is farther away hardly changes what a network makes of it."""
PIXELS = 256
"""Pixels of each band of a patch that are looked at."""
SHOWN = (0.5, 0.8, 0.9, 0.95, 0.99)

Degrade = Callable[[Tensor, torch.Generator], Inputs]


@dataclass(frozen=True)
class Errors:
    """Pixels and how far off the network is there."""

    features: Tensor
    """(n, F), see `ErrorModel.features`."""
    absolute: Tensor
    """(n,) |prediction - truth|, reflectance."""


@dataclass(frozen=True)
class Subject:
    """A network, what it was trained for, and its places."""

    name: str
    path: Path
    network: nn.Module
    recipe: Recipe
    task: Task
    train: PatchSampler
    held_out: tuple[PatchSet, ...]

    @classmethod
    def read(cls, name: str, data: Path | None) -> Subject:
        """Load a network and the data of its recipe.

        Raises
        ------
        ModelError
            If there is no such checkpoint, or it was not trained by a recipe for restoring images.
        """
        path = checkpoint_path(name)
        if path is None:
            raise ModelError(f"{name} is no network: give a shipped one, or a .safetensors checkpoint")
        network, spec = load_checkpoint(path, valid=False)
        if pick_precision("auto", "cpu") == "bf16":  # as jobs do
            halve(network)
        recipe = load_recipe(str(spec.record.get("recipe", spec.name)))
        if not isinstance(recipe, Recipe):
            raise ModelError(f"{name} was not trained to restore images: there is no error of a pixel")
        task = make_task(recipe)
        if not isinstance(task, BlindSuperResolution | Denoising):
            raise ModelError(f"{name} is not told blur or noise; there are error models for networks that are")
        learned, held_out = read_data(recipe, data)
        bands = int(recipe.arch.get("bands", 1))
        sampler = PatchSampler(learned, bands, recipe.data.side, recipe.data.gains, recipe.data.gammas)
        return cls(name, path, network, recipe, task, sampler, tuple(held_out))

    @property
    def facts(self) -> int:
        """Numbers that the network is told of each band."""
        return 2 if isinstance(self.task, Denoising) else FACTS

    def held_out_patches(self, half: int, count: int) -> Tensor:
        """Return (count, bands, side, side) reflectance of one half (0 or 1) of the validation places."""
        bands, side = self.train.bands, self.recipe.data.side
        parts = []
        for patches in self.held_out:
            turns = {place: turn for turn, place in enumerate(sorted(set(patches.places.tolist()), key=rank))}
            order = np.array([turns[place] for place in patches.places.tolist()])  # files come class by class
            at = np.argsort(order, kind="stable")
            at = at[order[at] % 2 == half][: -(-count // len(self.held_out))]
            if not len(at):
                raise ModelError(f"{self.name}: one place to validate on; bounds and measurement need two")
            whole = patches.reflectance(at)[..., :side, :side]
            if bands == 1:
                turn = torch.arange(len(whole)) % whole.shape[1]
                whole = whole[torch.arange(len(whole)), turn][:, None]
            parts.append(whole[:, :bands])
        return torch.cat(parts)

    @torch.no_grad()
    def errors(self, clean: Tensor, degrade: Degrade, generator: torch.Generator) -> Errors:
        """Degrade patches, restore them as the engine would, and compare."""
        found = [self._errors(part, degrade, generator) for part in clean.split(BATCH)]
        return Errors(torch.cat([f.features for f in found]), torch.cat([f.absolute for f in found]))

    def _errors(self, clean: Tensor, degrade: Degrade, generator: torch.Generator) -> Errors:
        inputs = degrade(clean, generator)
        low = inputs[0]
        at = mirror(low.shape[-1], CONTEXT)
        wide = low[..., at[:, None], at]
        if isinstance(self.network, ConditionedGenerator):
            reference, condition = inputs[1:]
            none = wide.new_zeros(*wide.shape[:2], *(self.task.scale * side for side in wide.shape[2:]))
            prediction = reference + crop(self.network(wide, none, condition), self.task.scale * CONTEXT)
            facts = condition.reshape(*low.shape[:2], FACTS)
        else:
            reference, sigma = inputs
            prediction = crop(self.network(wide, sigma), CONTEXT)
            facts = noise_facts(sigma.reshape(-1, 1).expand(-1, low.shape[1]))
        features = ErrorModel(self.facts).features(prediction, reference, facts)
        absolute = crop(prediction - clean, REACH).abs().reshape(len(features), 1, *features.shape[2:])
        every = torch.cat([features, absolute], 1).flatten(2)  # (N · C, F + 1, pixels)
        chosen = torch.randint(every.shape[2], (len(every), 1, PIXELS), generator=generator)
        rows = every.gather(2, chosen.expand(-1, every.shape[1], -1)).transpose(1, 2).flatten(0, 1)
        return Errors(rows[:, :-1], rows[:, -1])


class Half(nn.Module):
    """A convolution in bfloat16 on a float32 stream."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(x.to(torch.bfloat16))
        return found.float()


def halve(network: nn.Module) -> None:
    """Compute the residual blocks in bfloat16, as `scenelift.models.precision.to_precision` does for plain networks."""
    for block in [part for part in network.modules() if isinstance(part, ResidualBlock)]:
        block.first, block.second = Half(block.first), Half(block.second)  # type: ignore[assignment]


def cases(task: Task) -> Iterator[tuple[str, Degrade]]:
    """Yield the kinds of degradation that are reported, in words, and how patches are degraded."""
    if isinstance(task, Denoising):
        for levels in (5, 15, 25, 50):
            yield f"noise of {levels} levels", functools.partial(_noisy, levels * EUROSAT.level)
        return
    assert isinstance(task, BlindSuperResolution)
    blurs = [Blur("gaussian", mtf) for mtf in (0.26, 0.1, 0.2, 0.35, 0.5)] + [Blur("area"), Blur("bicubic")]
    for blur in blurs:
        yield blur.describe(), functools.partial(_blurred, task, blur, 0.0)
    yield "MTF 0.26, noise of 2 levels", functools.partial(_blurred, task, blurs[0], 2 * EUROSAT.level)


def _noisy(sigma: float, clean: Tensor, generator: torch.Generator) -> Inputs:
    spread = torch.full((len(clean), 1, 1, 1), sigma)
    return white_noise(clean, spread, generator), spread


def _blurred(task: BlindSuperResolution, blur: Blur, sigma: float, clean: Tensor, generator: torch.Generator) -> Inputs:
    each, kernel = [blur] * clean.shape[1], blur.kernel(task.scale)
    low = white_noise(decimate(clean, task.scale, [[kernel] * len(each)] * len(clean)), sigma, generator)
    return (low, *task.told(low, [each] * len(clean), [[sigma] * len(each)] * len(clean)))


@torch.no_grad()
def deviations(errors: ErrorModel, found: Errors) -> Tensor:
    """Return the (n,) standard deviations that the error model tells."""
    return errors.log_deviation(found.features[..., None, None]).exp().flatten()


def calibrate(errors: ErrorModel, found: Errors) -> None:
    """Scale the standard deviations to the errors of places that were not fitted, and set the bounds there."""
    ratio = found.absolute / deviations(errors, found)
    size = ratio.square().mean().sqrt()
    with torch.no_grad():
        errors.last_bias.add_(size.log())
        errors.factors.copy_(conformal_factors(ratio / size))


def measure(errors: ErrorModel, found: Errors) -> dict[str, Any]:
    """Return what the bounds hold and what the standard deviations are worth.

    Returns
    -------
    dict
        "coverage": share of the true values between the bounds, by level; "rank_correlation": Spearman's, of standard
        deviation and absolute error; "ratio": root mean square of error / standard deviation; "half_width": median half
        distance of the bounds at .9, reflectance.
    """
    deviation = deviations(errors, found)
    ratio = found.absolute / deviation
    return {
        "coverage": {f"{level}": round(float((ratio <= errors.factor(level)).float().mean()), 4) for level in SHOWN},
        "rank_correlation": round(float(spearmanr(deviation, found.absolute).statistic), 3),
        "ratio": round(float(ratio.square().mean().sqrt()), 3),
        "half_width": float(f"{float(deviation.median()) * errors.factor(0.9):.3g}"),
    }


def joined(parts: list[Errors]) -> Errors:
    """Return all pixels of several samples."""
    return Errors(torch.cat([p.features for p in parts]), torch.cat([p.absolute for p in parts]))


def calibrate_network(subject: Subject, counts: tuple[int, int, int], seed: int) -> tuple[ErrorModel, dict[str, Any]]:
    """Fit the error model of one network; return it and what it is worth on places of neither kind."""
    generator = torch.Generator().manual_seed(seed)
    fitted, calibrated, measured = counts
    shown = subject.errors(subject.train(fitted, 1.0, generator), subject.task.degrade, generator)
    errors = ErrorModel(subject.facts)
    fit(errors, shown.features, shown.absolute, seed)
    held_out = subject.held_out_patches(0, calibrated)
    calibrate(errors, subject.errors(held_out, subject.task.degrade, generator))
    other = subject.held_out_patches(1, measured)
    found = {name: subject.errors(other, degrade, generator) for name, degrade in cases(subject.task)}
    rows = {name: measure(errors, each) for name, each in (found | {"all": joined(list(found.values()))}).items()}
    return errors.eval(), {"patches": [fitted, len(held_out), len(other)], "seed": seed, "measured": rows}


def table(name: str, facts: dict[str, Any]) -> str:
    """Return what was measured as a Markdown table."""
    head = [
        "case",
        *(f"bounds at {level}" for level in SHOWN),
        "rank correlation",
        "error / deviation",
        "half width at 0.9",
    ]
    lines = [f"{name}, {facts['patches'][2]} patches of places not used before", ""]
    lines += [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for case, row in facts["measured"].items():
        shares = [f"{share:.3f}" for share in row["coverage"].values()]
        cells = [case, *shares, f"{row['rank_correlation']:.2f}", f"{row['ratio']:.2f}", f"{row['half_width']:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def calibrate_networks(
    names: Annotated[list[str], typer.Argument(help="Shipped networks, or checkpoints.")],
    data: Annotated[Path | None, typer.Option(help="Folder that the recipes' paths start from.")] = None,
    count: Annotated[
        tuple[int, int, int], typer.Option(help="Patches to fit on, to set bounds on, to measure with.")
    ] = (FITTED, CALIBRATED, MEASURED),
    seed: int = 0,
) -> None:
    """Fit the error models of networks, and write them and what they are worth beside the networks."""
    torch.set_num_threads(1)
    for name in names:
        subject = Subject.read(name, data)
        errors, facts = calibrate_network(subject, count, seed)
        path = errors_path(subject.path)
        save_errors(path, errors, checkpoint_digest(subject.path))
        card = subject.path.with_suffix(".json")
        known = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        known["error_model"] = {"sha256": checkpoint_digest(path), **facts}
        write_atomically(card, (json.dumps(known, indent=2) + "\n").encode())
        print(table(name, facts), flush=True)


if __name__ == "__main__":
    typer.run(calibrate_networks)
