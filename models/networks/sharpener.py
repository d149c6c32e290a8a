"""The network that adds what a linear prediction from the guides cannot know to a sharpened band."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scenelift.models.networks.layers import PaddingMode, ResidualBlock, check_range, conv3, crop

CENTRES = (705.0, 740.0, 783.0, 865.0, 1612.0, 2196.0)
"""Wavelengths, nm, that the network knows: Sentinel-2's bands at 20 m."""
GUIDES = (493.0, 560.0, 665.0, 833.0)
"""Wavelengths, nm, of the guides that the shipped network has learned from, in this order."""
ASIDE = 0.1
"""Natural logarithm of how far from these a guide may lie."""
WIDTH = 0.045
"""Natural logarithm of how far from these a band may lie and still be taken for much the same."""
FACTS = 2 + len(CENTRES)
"""Numbers that the network is told of a band: its MTF, how coarse it is, and how near its wavelength is to each."""


class DetailNetwork(nn.Module):
    """Residual network at the fine resolution, for one coarse band at a time.

    Plain 3x3 convolutions without normalisation (Lim et al., CVPRW 2017); what is known of the band scales and
    shifts the first layer's features. What goes in and comes out is relative to constants of the scene.

    Parameters
    ----------
    guides : int
        Fine bands. Inputs are their details, their levels, the detail that is found without the network, what of that
        is local, and the band's level.
    channels, blocks : int
        Width and number of residual blocks.
    valid : bool
        Unpadded: (N, C, P + 2 halo, P + 2 halo) gives (N, 1, P, P). Otherwise sizes are kept.
    padding : {"zeros", "reflect", "replicate"}
        How the padded form pads.
    """

    def __init__(
        self,
        guides: int = 4,
        channels: int = 32,
        blocks: int = 3,
        *,
        valid: bool = False,
        padding: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        check_range("guides", guides, 1, 16)
        check_range("channels", channels, 1, 256)
        check_range("blocks", blocks, 1, 16)
        self.guides, self.valid = guides, valid
        self.inputs = inputs_of(guides)
        self.halo = 2 * blocks + 2
        """Receptive radius in fine pixels."""
        self.head = conv3(self.inputs, channels, valid=valid, padding=padding)
        self.told = nn.Linear(FACTS, 2 * channels)
        self.body = nn.Sequential(*(ResidualBlock(channels, valid=valid, padding=padding) for _ in range(blocks)))
        self.tail = conv3(channels, 1, valid=valid, padding=padding)
        with torch.no_grad():  # what it is given alone is the starting point
            self.told.weight.mul_(0.3)
            self.told.bias.zero_()
            self.tail.weight.mul_(0.01)
            self.tail.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, facts: Tensor) -> Tensor:
        """Return the missing detail, (N, 1, H, W), in units of the band's own.

        Parameters
        ----------
        x : Tensor
            (N, `inputs_of` guides, H, W), see `scenelift.models.sharpening.network`.
        facts : Tensor
            (N, FACTS), as of `facts_of`.
        """
        return self.tail(self.features(x, facts))

    def features(self, x: Tensor, facts: Tensor) -> Tensor:
        """Return what the last layer adds up, (N, channels, H, W); unpadded, all but one pixel of the halo is gone."""
        gain, shift = self.told(facts)[:, :, None, None].chunk(2, 1)
        first = self.head(x) * (1 + gain) + shift
        body = self.body(first)
        return body + (crop(first, self.halo - 2) if self.valid else first)


def inputs_of(guides: int) -> int:
    """Return the number of maps that the network sees of a band."""
    return 2 * guides + 3


def facts_of(mtf: float, ratio: int, wavelength: float) -> list[float]:
    """Return what the network is told of a band, of order one; no wavelength (0) is near to none."""
    near = [math.exp(-((math.log(wavelength / at) / WIDTH) ** 2) / 2) if wavelength else 0.0 for at in CENTRES]
    return [(mtf - 0.3) / 0.1, (ratio - 2) / 4, *near]
