"""Whole images through networks and classical methods, mirrored at their edges as the engine does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.catalog import checkpoint_path
from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.classical.classical import CLASSICAL
from scenelift.models.errors import ModelError
from scenelift.models.precision import to_precision
from scenelift.models.spec import ModelSpec
from scenelift.models.training.tasks import apply_whole
from scenelift.models.wrappers import blend, self_ensemble

Images = NDArray[np.float32]
"""(N, C, H, W) reflectance."""


@dataclass(frozen=True)
class Answer:
    """What a method made of the images."""

    images: Images
    """(N, C, scale·H, scale·W)."""
    spread: Images | None = None
    """Standard deviation over the eight symmetries, where they were averaged."""


def run_classical(method: Any, images: Images) -> Images:
    """Run a classical enhancer on whole images, mirrored at their edges."""
    halo = method.spec.halo
    padded = np.pad(images, ((0, 0), (0, 0), (halo, halo), (halo, halo)), mode="reflect")
    answer: Images = method(padded)
    return answer


def load_network(name: str) -> tuple[nn.Module, ModelSpec]:
    """Load a shipped model, a checkpoint, or a blend of two, written FIRST~SECOND@SHARE.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    pair, _, share = name.partition("@")
    first, _, second = pair.partition("~")
    if not second:
        return _load(name)
    try:
        part = float(share)
    except ValueError:
        raise ModelError(f"a blend is written FIRST~SECOND@SHARE, got {name!r}") from None
    (one, spec), (other, _) = _load(first), _load(second)
    return blend(one, other, part), spec


def check_network(name: str, scale: int) -> None:
    """Refuse what does not turn images into images ``scale`` times as large.

    Raises
    ------
    ModelError
    """
    if name in CLASSICAL:
        return
    spec = load_network(name)[1]
    if spec.task == "landcover" or spec.out_bands is not None:
        raise ModelError(f"{name} makes no images: give a network that enhances")
    if spec.scale != scale:
        raise ModelError(f"{name} does not enlarge by {scale}" if scale > 1 else f"{name} is no denoiser")


def _load(name: str) -> tuple[nn.Module, ModelSpec]:
    path = checkpoint_path(name)
    if path is None:
        raise ModelError(f"no model {name!r} among the shipped ones, and no such checkpoint")
    return load_checkpoint(path, valid=True)


@torch.inference_mode()
def answer_of(
    name: str, images: Images, sigma: NDArray[np.float32] | None, precision: str = "fp32", *, tta: bool = False
) -> Answer:
    """Run a network on whole images, one at a time.

    Parameters
    ----------
    name : str
        As for `load_network`.
    images : ndarray
        (N, C, H, W) float32 reflectance.
    sigma : ndarray, optional
        (N, C) noise level, for denoisers.
    precision : {"fp32", "bf16"}
    tta : bool
        Average over the eight turned and mirrored images.
    """
    module, spec = load_network(name)
    together = spec.bands or 1
    if spec.bands is not None and spec.bands != images.shape[1]:
        raise ModelError(f"{name} wants {spec.bands} bands together, the images have {images.shape[1]}")
    if spec.needs_noise and sigma is None:
        raise ModelError(f"{name} is a denoiser and needs a noise level")
    ready = to_precision(module, precision).to(memory_format=torch.channels_last)
    found, spreads = [], []
    for index, image in enumerate(torch.from_numpy(images)):
        x = image.reshape(-1, together, *image.shape[1:])
        rest = _levels(sigma, index, together) if spec.needs_noise else ()

        def forward(turned: Tensor, rest: tuple[Tensor, ...] = rest) -> Tensor:
            return apply_whole(ready, spec.halo, (turned, *rest), spec.multiple_of)

        mean, spread = self_ensemble(forward, x) if tta else (forward(x), None)
        found.append(mean.reshape(len(image), *mean.shape[2:]))
        if spread is not None:
            spreads.append(spread.reshape(len(image), *spread.shape[2:]))
    return Answer(torch.stack(found).numpy(), torch.stack(spreads).numpy() if spreads else None)


def run_network(name: str, images: Images, sigma: NDArray[np.float32] | None = None, precision: str = "fp32") -> Images:
    """Return the images alone of `answer_of`."""
    return answer_of(name, images, sigma, precision).images


def _levels(sigma: Any, index: int, together: int) -> tuple[Tensor, ...]:
    level = torch.from_numpy(sigma[index])
    return (level if together == 1 else level.mean().reshape(1),)
