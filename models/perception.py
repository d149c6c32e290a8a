"""Distances as an eye might see them: those whose weights are on this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from scenelift.models.features import Trunk, feature_distance, trunk_available
from scenelift.models.lpips import Lpips, lpips_available

FEATURES, LPIPS = "features", "lpips"

Distance = Callable[[Tensor, Tensor], Tensor]
"""Takes (N, 3, H, W) answers and truths in reflectance, returns (N,); lower is nearer."""


@functools.cache
def distances() -> dict[str, Distance]:
    """Return the distances that can be measured here, by name."""
    found: dict[str, Distance] = {}
    if trunk_available():
        found[FEATURES] = torch.inference_mode()(functools.partial(feature_distance, Trunk()))
    if lpips_available():
        found[LPIPS] = Lpips()
    return found
