"""LPIPS (Zhang et al., CVPR 2018), where its package and its trunk's weights are already on this machine.

The package ``lpips`` carries the learned channel weights; the AlexNet trunk (ImageNet, torchvision) does not travel in
any package. Nothing is downloaded here: put the file where torch looks for it (`trunk_file`) to have the column.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scenelift.models.degradations import EUROSAT

TRUNK = "alexnet-owt-7be5be79.pth"
"""What torchvision calls the weights of AlexNet."""


def trunk_file() -> Path:
    """Return where torch keeps the trunk, whether it is there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / TRUNK


def lpips_available() -> bool:
    """Whether LPIPS can be measured without a network."""
    return importlib.util.find_spec("lpips") is not None and trunk_file().is_file()


class Lpips:
    """LPIPS 0.1 on AlexNet."""

    def __init__(self) -> None:
        # the package pulls in torchvision: only for whoever has the weights
        import lpips

        self._net: Any = lpips.LPIPS(net="alex", verbose=False)

    @torch.inference_mode()
    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Return (N,) distances of (N, 3, H, W) images in reflectance, 0.275 shown as white."""
        distance: Tensor = self._net(prediction / EUROSAT.peak * 2 - 1, truth / EUROSAT.peak * 2 - 1)
        return distance.flatten()
