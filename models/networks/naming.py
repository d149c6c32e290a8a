"""From probabilities to the most probable class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Named(nn.Module):
    """A network that returns the number of the most probable class.

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
