"""What a run is validated on: fixed pairs of degraded and clean patches from sites it is never trained on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scenelift.models.classical.classical import classical
from scenelift.models.degradations import DEFAULT_MTF, EUROSAT, white_noise
from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.fitted.running import on_images
from scenelift.models.networks.architectures import build
from scenelift.models.sensing.blurs import Blur, decimate
from scenelift.models.training.haze import Dehazing
from scenelift.models.training.known import Known, KnownDenoising, KnownSuperResolution
from scenelift.models.training.tasks import BlindSuperResolution, Inputs, SuperResolution, Task
from scenelift.models.whole import Images, run_whole
from scenelift.pipeline.scores.registry import decibels
from scenelift.workflows.training.images import PatchSet, balanced, check_bands
from scenelift.workflows.training.recipe import Recipe, make_spec, make_task

VALIDATION_SIGMA = 0.0162
"""Noise of validation pairs: 15 levels of the 8-bit stretch."""
VALIDATION_SEED = 0
"""Whatever the seed of a training: runs beside each other are validated on the same images and the same noise."""


def validation_pairs(recipe: Recipe, task: Task, held_out: list[PatchSet]) -> tuple[Inputs, Tensor]:
    """Return fixed inputs and targets: class-balanced patches, one band in turn for band-agnostic networks."""
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
    target = torch.cat(clean)
    generator = torch.Generator().manual_seed(VALIDATION_SEED + 2)
    if isinstance(task, SuperResolution):
        return task.fixed(target, DEFAULT_MTF), target
    if isinstance(task, BlindSuperResolution):
        return tuple(case.degrade(target, task.scale, generator) for case in BLIND_CASES), target
    if isinstance(task, Dehazing):
        return task.degrade(target, generator), target
    if isinstance(task, KnownSuperResolution | KnownDenoising):
        return task.validated(target, generator)
    sigma = torch.full((len(target), 1, 1, 1), VALIDATION_SIGMA)
    return (target + sigma * torch.randn(target.shape, generator=generator), sigma), target


@dataclass(frozen=True)
class BlindCase:
    """A blur and a noise level that networks for any sensor are validated on."""

    blur: Blur
    sigma: float = 0.0

    def degrade(self, target: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        kernel = self.blur.kernel(scale)
        return white_noise(decimate(target, scale, [[kernel] * target.shape[1]] * len(target)), self.sigma, generator)


BLIND_CASES = (
    BlindCase(Blur("gaussian", 0.26)),
    BlindCase(Blur("gaussian", 0.10)),
    BlindCase(Blur("gaussian", 0.40)),
    BlindCase(Blur("area")),
    BlindCase(Blur("bicubic")),
    BlindCase(Blur("gaussian", 0.26), 2 * EUROSAT.level),
)


def blind_cases(bands: int) -> list[Known]:
    """Return the blur and the noise of each of `BLIND_CASES`, the same in all bands."""
    return [Known((case.blur,) * bands, (case.sigma,) * bands) for case in BLIND_CASES]


def _told_validator(
    recipe: Recipe, cases: Sequence[Known], pairs: Inputs, target: Tensor, device: str
) -> Callable[[dict[str, Tensor]], float]:
    """Return what gives the mean PSNR over cases, the network told the blur and the noise of each."""
    module = build(recipe.arch, valid=True)
    spec = dataclasses.replace(make_spec(recipe, module, {}), needs_blur=False, needs_noise=False)

    def validate(state: dict[str, Tensor]) -> float:
        module.load_state_dict(state)
        found = []
        for case, low in zip(cases, pairs, strict=True):
            plain = module.fold(case.blur, case.noise)  # type: ignore[operator]
            method = TorchEnhancer(plain, spec, device, threads=torch.get_num_threads())
            found.append(psnr(run_whole(method, low.numpy()), target.numpy(), spec.scale))
        return sum(found) / len(found)

    return validate


def _haze_validator(recipe: Recipe, pairs: Inputs, target: Tensor, device: str) -> Callable[[dict[str, Tensor]], float]:
    """Return what gives the mean PSNR over patches of hazy scenes, the network told the numbers of each."""
    module = build(recipe.arch, valid=True)
    spec = dataclasses.replace(make_spec(recipe, module, {}), needs_statistics=False)
    scenes = _scenes(pairs)

    def validate(state: dict[str, Tensor]) -> float:
        module.load_state_dict(state)
        made = []
        for at in scenes:
            plain = module.fold_statistics(pairs[1][at.start].tolist())  # type: ignore[operator]
            method = TorchEnhancer(plain, spec, device, threads=torch.get_num_threads())
            made.append(run_whole(method, pairs[0][at].numpy()))
        return psnr(np.concatenate(made), target.numpy(), 1)

    return validate


def _scenes(pairs: Inputs) -> list[slice]:
    """Return which patches are of one scene: those after each other that are told the same numbers."""
    told = pairs[1]
    starts = [0, *(i for i in range(1, len(told)) if not torch.equal(told[i], told[i - 1])), len(told)]
    return [slice(start, stop) for start, stop in itertools.pairwise(starts)]


def make_validator(
    recipe: Recipe, pairs: Inputs, target: Tensor, device: str = "cpu"
) -> Callable[[dict[str, Tensor]], float]:
    """Return what gives the mean PSNR (dB) of a state's network on the validation pairs, run as the engine does."""
    task = make_task(recipe)
    if isinstance(task, BlindSuperResolution):
        return _told_validator(recipe, blind_cases(target.shape[1]), pairs, target, device)
    if isinstance(task, KnownSuperResolution) and task.told:
        return _told_validator(recipe, task.cases(), pairs, target, device)
    if recipe.task == "dehaze":
        return _haze_validator(recipe, pairs, target, device)
    module = build(recipe.arch, valid=True)
    spec = make_spec(recipe, module, {})
    low, *noise = (part.numpy() for part in pairs)
    sigma = noise[0].reshape(len(low), 1) if noise else None

    def validate(state: dict[str, Tensor]) -> float:
        module.load_state_dict(state)
        method = TorchEnhancer(module, spec, device, threads=torch.get_num_threads())
        return psnr(run_whole(method, low, sigma), target.numpy(), spec.scale)

    return validate


def baselines(task: Task, pairs: Inputs, target: Tensor) -> dict[str, float]:
    """Return the PSNR (dB, mean over patches) of what needs no network on the validation pairs."""
    low = pairs[0].numpy()
    if isinstance(task, SuperResolution | BlindSuperResolution | KnownSuperResolution):
        restored = {n: run_whole(classical(n, task.scale), low) for n in ("bicubic", "lanczos", "ibp")}
    elif isinstance(task, Dehazing):
        names = ("dark-object", "dark-channel")
        restored = {n: np.concatenate([on_images(n, low[at]) for at in _scenes(pairs)]) for n in names}
        restored = {"hazy": low} | restored
    elif isinstance(task, KnownDenoising):  # there is no clean image: the target is noisy, too
        restored = {"noisy": low}
    else:
        restored = {"noisy": low}
        restored |= {n: run_whole(classical(n, 1, VALIDATION_SIGMA), low) for n in ("bilateral", "wavelet")}
    return {f"{n}_db": round(psnr(images, target.numpy(), task.scale), 3) for n, images in restored.items()}


def psnr(restored: Images, reference: Images, scale: int) -> float:
    """Return the PSNR (dB, full scale 0.275, mean over patches), ``scale`` pixels left out on every side."""
    inner = (..., slice(scale, -scale), slice(scale, -scale))
    error = np.square(restored[inner].astype(np.float64) - reference[inner]).mean((1, 2, 3))
    return float(decibels(error / EUROSAT.peak**2).mean())
