"""Networks by kind: what a checkpoint's header may ask for, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.autoencoder import Autoencoder
from scenelift.models.networks.classifier import Classifier
from scenelift.models.networks.conditioned import ConditionedGenerator
from scenelift.models.networks.dehazer import Dehazer
from scenelift.models.networks.denoiser import Denoiser
from scenelift.models.networks.discriminator import PatchDiscriminator, UNetDiscriminator
from scenelift.models.networks.generator import DenseGenerator, Generator
from scenelift.models.networks.segmenter import Segmenter
from scenelift.models.networks.sharpener import DetailNetwork

KINDS: dict[str, Callable[..., nn.Module]] = {
    "generator": Generator,
    "conditioned-generator": ConditionedGenerator,
    "dense-generator": DenseGenerator,
    "denoiser": Denoiser,
    "dehazer": Dehazer,
    "autoencoder": Autoencoder,
    "sharpener": DetailNetwork,
    "unet-discriminator": UNetDiscriminator,
    "patch-discriminator": PatchDiscriminator,
    "landcover-classifier": Classifier,
    "landcover-segmenter": Segmenter,
}


def build(arch: dict[str, Any], *, valid: bool = False) -> nn.Module:
    """Build a network from its description.

    Parameters
    ----------
    arch : dict
        ``{"kind": KIND}`` and keyword arguments of that kind's constructor, as stored in a checkpoint.
    valid : bool
        Unpadded convolutions, for tiles that carry their halo.

    Raises
    ------
    ModelError
        If the kind is unknown, an argument is unknown or out of range.
    """
    arguments = dict(arch)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"architecture kind must be one of {', '.join(KINDS)}, got {kind!r}")
    constructor = KINDS[kind]
    accepted = set(inspect.signature(constructor).parameters) - {"valid"}
    if unknown := sorted(set(arguments) - accepted):
        raise ModelError(f"unknown key {unknown[0]} of architecture {kind!r}; known are {', '.join(sorted(accepted))}")
    if "valid" in inspect.signature(constructor).parameters:
        arguments["valid"] = valid
    try:
        return constructor(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"architecture {kind!r}: {error}") from None
