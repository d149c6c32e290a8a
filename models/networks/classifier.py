"""Which class of land cover a small image shows: EfficientNet-Lite0's stages, features of several depths, one layer.

The last stage and the 1280-channel head of the ImageNet network are left out: they hold a third of its weights, and
at 10 m a 64-pixel image shows textures and shapes, not objects.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.models.networks.features import trunk_weights

STAGES = 6
DEPTHS = (16, 24, 40, 80, 112, 192)
"""Channels after each stage of EfficientNet-Lite0 that may be used."""


class Classifier(nn.Module):
    """An image classifier; its unpadded form is a map of such classifications.

    Parameters
    ----------
    classes : sequence of str
        Names, in the order of the outputs.
    bands : int
        Bands of the image; 3 can start from ImageNet.
    window : int
        Side of the images it was trained on, pixels of the scene.
    side : int
        Side to which they are interpolated before the first convolution.
    stages : int
        Stages kept, 1 to 6.
    white : float
        Reflectance shown to the network as 1; 0 is shown as -1.
    step : int
        Side of the cells of the map form: each is named by the window centred on it.
    valid : bool
        False: (N, bands, window, window) to logits (N, classes).
        True: (N, bands, P + 2·halo, Q + 2·halo) to probabilities (N, classes, P, Q), constant over cells.

    Raises
    ------
    ValueError
        If a size does not fit.
    """

    def __init__(
        self,
        classes: tuple[str, ...] | list[str],
        bands: int = 3,
        window: int = 64,
        side: int = 96,
        stages: int = STAGES,
        white: float = EUROSAT.peak,
        step: int = 16,
        valid: bool = False,
    ) -> None:
        super().__init__()
        _check(list(classes), bands, window, side, stages, step)
        # timm pulls in torchvision: seconds of import, only for whoever classifies. Not under the device "meta", on
        # which a checkpoint is tried out first: torch 2.6 computes numbers as parts of it are loaded.
        with torch.device("cpu"):
            import timm

        net: Any = timm.create_model("efficientnet_lite0", pretrained=False, in_chans=bands)
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.stages = nn.ModuleList(list(net.blocks)[:stages])
        pooled = DEPTHS[max(0, stages - 3) : stages]
        self.head = nn.Linear(sum(pooled), len(classes))
        self.taps = len(pooled)
        self.classes, self.bands, self.window, self.side, self.white = tuple(classes), bands, window, side, white
        self.step, self.valid = step, valid
        self.margin = (window - step) // 2
        self.halo = -(-self.margin // step) * step  # whole cells, as the lattice of patches wants it

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images, or the map of probabilities; see `valid`."""
        return self._map(x) if self.valid else self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """Return (N, classes) for (N, bands, H, W) reflectance."""
        return self.head(torch.cat([y.mean((2, 3)) for y in self.features(x)[-self.taps :]], 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what stem and stages make of (N, bands, H, W) reflectance, each (N, C_i, H_i, W_i)."""
        if x.shape[-1] != self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        seen = [self.stem(x / self.white * 2 - 1)]
        for stage in self.stages:
            seen.append(stage(seen[-1]))
        return seen

    def _map(self, x: Tensor) -> Tensor:
        inner = [size - 2 * self.halo for size in x.shape[2:]]
        rows, cols = (size // self.step for size in inner)
        out = x.new_empty(len(x), len(self.classes), *inner)
        # One window at a time: its shape, and so the kernel that computes it, is the same wherever it lies.
        for row in range(rows):
            for col in range(cols):
                top, left = row * self.step, col * self.step
                up, beside = top + self.halo - self.margin, left + self.halo - self.margin
                seen = x[:, :, up : up + self.window, beside : beside + self.window]
                shares = self.logits(seen.contiguous(memory_format=torch.channels_last)).softmax(1)
                out[:, :, top : top + self.step, left : left + self.step] = shares[:, :, None, None]
        return out


def start_from_imagenet(module: Classifier) -> int:
    """Copy the ImageNet weights of the kept stages; return how many tensors were copied.

    Raises
    ------
    ModelError
        If the weights are not installed, or the network does not take three bands.
    """
    own = module.state_dict()
    given = {}
    for name, value in trunk_weights().items():
        name = name.replace("conv_stem.", "stem.0.").replace("bn1.", "stem.1.") if "blocks" not in name else name
        given[name.replace("blocks.", "stages.", 1)] = value
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if len(fitting) != len(own) - 2:  # all but the new layer's weight and bias
        raise ModelError(f"only {len(fitting)} of {len(own) - 2} tensors fit: ImageNet weights want 3 bands")
    module.load_state_dict(own | fitting)
    return len(fitting)


def _check(classes: list[str], bands: int, window: int, side: int, stages: int, step: int) -> None:
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"classes must be at least two different names, got {classes}")
    if bands < 1 or not 1 <= stages <= STAGES:
        raise ValueError(f"bands must be at least 1 and stages from 1 to {STAGES}, got {bands} and {stages}")
    if window < 8 or side < 32:
        raise ValueError(f"window must be at least 8 and side at least 32, got {window} and {side}")
    if not 1 <= step <= window or (window - step) % 2:
        raise ValueError(f"step must lie from 1 to the window and leave the same on both sides of it, got {step}")
