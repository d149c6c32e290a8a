"""What a run is judged by: fixed pairs of degraded and clean patches from places it never sees."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scenelift.models.classical.classical import classical
from scenelift.models.networks.architectures import build
from scenelift.models.training.tasks import Inputs, SuperResolution, Task, apply_whole
from scenelift.models.whole import run_classical
from scenelift.workflows.training.images import PatchSet, balanced, check_bands
from scenelift.workflows.training.recipe import Recipe

VALIDATION_SIGMA = 0.0162
"""Noise of validation pairs: 15 levels of the 8-bit stretch."""
VALIDATION_SEED = 0
"""Whatever the seed of a training: runs beside each other are judged on the same images and the same noise."""
PEAK = 0.275
"""Reflectance that validation PSNR takes as full scale."""


def validation_pairs(recipe: Recipe, task: Task, held_out: list[PatchSet]) -> tuple[Inputs, Tensor]:
    """Return fixed inputs and truths: class-balanced patches, one band in turn for band-agnostic networks."""
    bands = int(recipe.arch.get("bands", 1))
    clean = []
    each = max(1, recipe.data.validation_count // max(1, len(held_out)))
    for patches in held_out:
        check_bands(patches, bands)
        groups = max(1, len(set(patches.labels)))
        at = balanced(patches.labels, max(1, each // groups), VALIDATION_SEED)
        whole = patches.reflectance(at)[..., : recipe.data.side, : recipe.data.side]
        if bands == 1:
            turn = torch.arange(len(whole)) % whole.shape[1]
            clean.append(whole[torch.arange(len(whole)), turn][:, None])
        else:
            clean.append(whole[:, :bands])
    truth = torch.cat(clean)
    generator = torch.Generator().manual_seed(VALIDATION_SEED + 2)
    if isinstance(task, SuperResolution):
        return task.fixed(truth, 0.265), truth
    sigma = torch.full((len(truth), 1, 1, 1), VALIDATION_SIGMA)
    return (truth + sigma * torch.randn(truth.shape, generator=generator), sigma), truth


def make_validator(recipe: Recipe, pairs: Inputs, truth: Tensor) -> Callable[[dict[str, Tensor]], float]:
    twin = build(recipe.arch, valid=True).eval().to(memory_format=torch.channels_last)
    scale, multiple = recipe.arch.get("scale", 1), int(getattr(twin, "factor", 1))

    @torch.no_grad()
    def validate(state: dict[str, Tensor]) -> float:
        twin.load_state_dict(state)
        parts = [
            apply_whole(twin, int(twin.halo), tuple(p[i : i + 4] for p in pairs), multiple)  # type: ignore[arg-type]
            for i in range(0, len(truth), 4)
        ]
        return psnr(torch.cat(parts), truth, scale)

    return validate


def baselines(task: Task, pairs: Inputs, truth: Tensor) -> dict[str, float]:
    """Return the PSNR (dB, peak 0.275, mean over patches) of what needs no network on the validation pairs."""
    low = pairs[0].numpy()
    if isinstance(task, SuperResolution):
        answers = {n: run_classical(classical(n, task.scale), low) for n in ("bicubic", "lanczos", "ibp")}
    else:
        answers = {"noisy": low}
        answers |= {n: run_classical(classical(n, 1, VALIDATION_SIGMA), low) for n in ("bilateral", "wavelet")}
    return {f"{n}_db": round(psnr(torch.from_numpy(a), truth, task.scale), 3) for n, a in answers.items()}


def psnr(answer: Tensor, truth: Tensor, scale: int) -> float:
    inner = slice(scale, -scale)
    error = (answer - truth)[..., inner, inner].square().mean((1, 2, 3))
    return float((10 * torch.log10(PEAK**2 / error)).mean())
