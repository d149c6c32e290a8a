"""From probabilities to names: which outputs of a network are classes, and the most probable of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.spec import ModelSpec


class Named(nn.Module):
    """A network that answers with the number of the most probable class.

    Parameters
    ----------
    module : Module
        (N, C, ..) to probabilities (N, K, P, Q).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        """Return (N, 1, P, Q): the first of the most probable classes, as float."""
        # equal maxima go to the lowest number, on every device
        return torch.argmax(self.module(x, *rest), 1, keepdim=True).float()


def with_labels(module: nn.Module, spec: ModelSpec, *, named: bool) -> tuple[nn.Module, ModelSpec]:
    """Write a network's class names into its spec, and let it answer with classes if they are to be ``named``.

    Raises
    ------
    ModelError
        If classes are wanted of a network that knows none.
    """
    labels = tuple(getattr(module, "classes", ())) or spec.labels
    if not named:
        return module, replace(spec, labels=labels)
    if spec.task != "landcover" or not labels:
        raise ModelError(f"{spec.name} names no classes: the last model of a class map must be one for land cover")
    return Named(module), replace(spec, labels=labels, out_bands=1)
