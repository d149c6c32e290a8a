"""Discriminators for adversarial training; they never see a user's scene."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from scenelift.models.networks.layers import GAIN, MEAN, check_range


def _conv(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, side, stride, padding=(side - 1) // 2, bias=False)
    return spectral_norm(conv)


class UNetDiscriminator(nn.Module):
    """U-Net with spectral normalisation: one verdict a pixel.

    After Real-ESRGAN (Wang et al., ICCVW 2021); spectral normalisation by Miyato et al., ICLR 2018.

    Parameters
    ----------
    bands : int
        Bands of the images.
    channels : int
        Width at full resolution; doubled at each of three steps down.
    """

    def __init__(self, bands: int = 1, channels: int = 32) -> None:
        super().__init__()
        check_range("bands", bands, 1, 64)
        c = check_range("channels", channels, 1, 256)
        self.head = nn.Conv2d(bands, c, 3, padding=1)
        self.down = nn.ModuleList(_conv(c * 2**i, c * 2 ** (i + 1), 4, 2) for i in range(3))
        self.up = nn.ModuleList(_conv(c * 2 ** (i + 1), c * 2**i) for i in (2, 1, 0))
        self.last = nn.Sequential(_conv(c, c), nn.LeakyReLU(0.2), nn.Conv2d(c, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) reflectance, sides multiples of 8 -> (N, 1, H, W)
        y = F.leaky_relu(self.head((x - MEAN) * GAIN), 0.2)
        kept = []
        for conv in self.down:
            kept.append(y)
            y = F.leaky_relu(conv(y), 0.2)
        for conv, bridge in zip(self.up, reversed(kept), strict=True):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = F.leaky_relu(conv(y), 0.2) + bridge
        return self.last(y)


class PatchDiscriminator(nn.Module):
    """PatchGAN: one verdict for each overlapping patch (Isola et al., CVPR 2017), spectrally normalised.

    Parameters
    ----------
    bands : int
        Bands of the images.
    channels : int
        Width of the first layer.
    """

    def __init__(self, bands: int = 1, channels: int = 32) -> None:
        super().__init__()
        check_range("bands", bands, 1, 64)
        c = check_range("channels", channels, 1, 256)
        self.layers = nn.Sequential(
            nn.Conv2d(bands, c, 4, 2, 1),
            nn.LeakyReLU(0.2),
            _conv(c, 2 * c, 4, 2),
            nn.LeakyReLU(0.2),
            _conv(2 * c, 4 * c, 4, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * c, 1, 4, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) reflectance -> (N, 1, H/4 - 2, W/4 - 2)
        return self.layers((x - MEAN) * GAIN)
