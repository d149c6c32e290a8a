"""The network that adds what a linear prediction from the guides cannot know to a sharpened band."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scenelift.models.networks.layers import PaddingMode, ResidualBlock, check_range, conv3, crop

FACTS = 2
"""Numbers that the network is told of a band: its MTF and how coarse it is."""


class DetailNetwork(nn.Module):
    """Residual network at the fine resolution, for one coarse band at a time.

    Plain 3x3 convolutions without normalisation (Lim et al., CVPRW 2017); what is known of the band shifts the first
    layer's features. What goes in and comes out is relative to constants of the scene.

    Parameters
    ----------
    guides : int
        Fine bands. Inputs are their details, their levels, the detail found in closed form and the band's level.
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
        self.inputs = 2 * guides + 2
        self.halo = 2 * blocks + 2
        """Receptive radius in fine pixels."""
        self.head = conv3(self.inputs, channels, valid=valid, padding=padding)
        self.told = nn.Linear(FACTS, channels)
        self.body = nn.Sequential(*(ResidualBlock(channels, valid=valid, padding=padding) for _ in range(blocks)))
        self.tail = conv3(channels, 1, valid=valid, padding=padding)
        with torch.no_grad():  # the closed form alone is the starting point
            self.tail.weight.mul_(0.01)
            self.tail.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, facts: Tensor) -> Tensor:
        """Return the missing detail, (N, 1, H, W), in units of the band's own.

        Parameters
        ----------
        x : Tensor
            (N, 2 guides + 2, H, W), see `scenelift.models.sharpening.network`.
        facts : Tensor
            (N, 2), as of `facts_of`.
        """
        features = self.head(x) + self.told(facts)[:, :, None, None]
        body = self.body(features)
        trunk = crop(features, self.halo - 2) if self.valid else features
        return self.tail(body + trunk)


def facts_of(mtf: float, ratio: int) -> list[float]:
    """Return what the network is told of a band, of order one."""
    return [(mtf - 0.3) / 0.1, (ratio - 2) / 4]
