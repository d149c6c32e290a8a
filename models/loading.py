"""A classifier of images by its shipped name or its checkpoint."""

from __future__ import annotations

import torch

from scenelift.models.catalog import checkpoint_path
from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.classifier import Classifier
from scenelift.models.spec import ModelSpec

MODEL = "landcover-eurosat"


def load_classifier(name: str) -> tuple[Classifier, ModelSpec]:
    """Load a classifier of images by its shipped name or checkpoint.

    Raises
    ------
    ModelError
        If there is none, or it is another kind of network.
    """
    path = checkpoint_path(name)
    if path is None:
        raise ModelError(f"no classifier {name!r}: give a shipped one ({MODEL}) or a .safetensors checkpoint")
    module, spec = load_checkpoint(path, valid=False)
    if not isinstance(module, Classifier):
        raise ModelError(f"{name} is no classifier of images but a network for {spec.task}")
    return module.to(memory_format=torch.channels_last), spec
