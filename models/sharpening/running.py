"""A sharpener put to work on the layout of a scene: its contract with the engine, its fit, and the enhancer itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.errors import ModelError
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.sharpening.adapting import fit_network
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.fitting import fit, shift_of_guides
from scenelift.models.sharpening.layout import BandGrid, guides, period
from scenelift.models.sharpening.network import Sharpener
from scenelift.models.spec import ModelSpec

PATCH = 256
"""Side of a sharpener's patches, or what is just below and fits the grids."""
MOST_SHIFTED = 4
"""Windows of a scene on which the guides are tried one pixel aside, which costs nine fits."""


def sharpening_spec(module: ClosedForm | Sharpener, name: str) -> ModelSpec:
    """Return the contract of a `ClosedForm` or a `Sharpener`, which follows from its layout."""
    step = period(module.layout)
    return ModelSpec(
        name,
        "sharpening",
        halo=module.halo,
        bands=len(module.layout),
        multiple_of=step,
        patch=PATCH // step * step,
        guides=tuple(guides(module.layout)),
    )


def fit_to(
    layout: Sequence[BandGrid], samples: Sequence[NDArray[np.float32]], network: nn.Module | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the coefficients of a scene's sharpening, as of `fit` or `fit_network`, and warnings.

    Parameters
    ----------
    layout : sequence of BandGrid
    samples : sequence of ndarray of float32, shape (bands, H, W)
        As for `fit`.
    network : Module, optional
        That is to sharpen: what it is fitted with comes too.

    Raises
    ------
    ModelError
        If there is no band to be guided by, or none to sharpen.
    """
    found = fit_network(samples, layout, network) if isinstance(network, DetailNetwork) else fit(samples, layout)
    return found, shift_of_guides(samples[:: -(-len(samples) // MOST_SHIFTED)], layout)


def closed_form(
    layout: Sequence[BandGrid], coefficients: dict[str, Any], name: str, device: str, threads: int
) -> TorchEnhancer:
    """Return the closed form as an enhancer."""
    module = ClosedForm(layout, coefficients)
    return TorchEnhancer(module, sharpening_spec(module, name), device, "fp32", threads)


def with_network(
    layout: Sequence[BandGrid],
    coefficients: dict[str, Any],
    network: tuple[nn.Module, ModelSpec],
    name: str,
    device: str,
    precision: str,
    threads: int,
) -> TorchEnhancer:
    """Return the closed form with a network on top as an enhancer.

    Raises
    ------
    ModelError
        If the network sharpens nothing, or is one for other guides.
    """
    loaded, about = network
    if not isinstance(loaded, DetailNetwork):
        raise ModelError(f"{name} must be a network that sharpens, got one for {about.task}")
    module = Sharpener(layout, coefficients, loaded)
    spec = dataclasses.replace(sharpening_spec(module, about.name), record=about.record)
    return TorchEnhancer(module, spec, device, precision, threads)
