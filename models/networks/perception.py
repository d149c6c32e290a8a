"""Distances as an eye might see them: those whose weights are on this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from scenelift.models.networks.features import Trunk, feature_distance, frechet, pooled, trunk_available
from scenelift.models.networks.lpips import Lpips, lpips_available

FEATURES, LPIPS = "features", "lpips"

Distance = Callable[[Tensor, Tensor], Tensor]
"""Takes (N, 3, H, W) predictions and truths in reflectance, returns (N,); lower is nearer."""


@functools.cache
def trunk() -> Trunk:
    """Return the trunk of the feature distances, loaded once."""
    return Trunk()


@torch.inference_mode()
def frechet_distance(predictions: Tensor, truths: Tensor, batch: int = 50) -> float | None:
    """Return the Fréchet distance of the features of two sets of (N, 3, H, W) images; None without the trunk."""
    if not trunk_available() or len(predictions) < 2:
        return None
    sets = (torch.cat([pooled(trunk(), part) for part in images.split(batch)]) for images in (predictions, truths))
    return frechet(*sets)


@functools.cache
def distances() -> dict[str, Distance]:
    """Return the distances that can be measured here, by name."""
    found: dict[str, Distance] = {}
    if trunk_available():
        found[FEATURES] = torch.inference_mode()(functools.partial(feature_distance, trunk()))
    if lpips_available():
        found[LPIPS] = Lpips()
    return found
