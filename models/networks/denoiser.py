"""The denoiser: a residual network on half-resolution pixels that is told how noisy its input is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import (
    GAIN,
    MEAN,
    Normalization,
    ResidualBlock,
    check_range,
    conv3,
    crop,
)

STRONGEST = 0.06
"""Noise (reflectance) that the networks were trained up to; an image with more is looked at with less contrast."""


class Denoiser(nn.Module):
    """Pixel-unshuffle, noise-level map, residual blocks, pixel-shuffle; it predicts the noise in units of its level.

    What is taken away is the network's prediction times the noise level, so that a scene with next to no noise is left
    alone, however unlike the training data it is. Where the noise is stronger than ``STRONGEST``, image and level are
    scaled down until it is not: of 0.12, `denoise` brings EuroSAT to 24.5 dB, and to 10.0 without that.

    The layout of FFDNet (Zhang et al., IEEE TIP 27(9), 2018) with residual blocks, without which it is hard
    to train.

    Parameters
    ----------
    bands : int
        Bands seen together; 1 for a band-agnostic network.
    channels, blocks : int
        Width and number of residual blocks.
    factor : int
        Pixel-unshuffle factor: the network works on ``factor``-fold coarser pixels.
    norm : {"none", "batch"}
        Normalisation inside the blocks.
    act : str
        Activation inside the blocks.
    skips : bool
        Whether blocks, trunk and input are bridged by identities; without, the network predicts the image.
    valid : bool
        Unpadded: (N, C, P + 2·halo, P + 2·halo) gives (N, C, P, P). Otherwise zeros are padded and sizes kept.
    """

    def __init__(
        self,
        bands: int = 1,
        channels: int = 64,
        blocks: int = 8,
        factor: int = 2,
        *,
        norm: Normalization = "none",
        act: str = "relu",
        skips: bool = True,
        valid: bool = False,
    ) -> None:
        super().__init__()
        check_range("bands", bands, 1, 64)
        check_range("channels", channels, 1, 512)
        check_range("blocks", blocks, 1, 64)
        check_range("factor", factor, 1, 4)
        self.bands, self.factor, self.skips, self.valid = bands, factor, skips, valid
        self.halo = factor * (2 * blocks + 3)
        """Receptive radius in input pixels, counted from the edge of a factor x factor cell."""
        self.head = conv3(bands * factor**2 + bands, channels, valid=valid)
        self.body = nn.Sequential(
            *(ResidualBlock(channels, valid=valid, norm=norm, act=act, skip=skips) for _ in range(blocks)),
            conv3(channels, channels, valid=valid),
        )
        self.tail = conv3(channels, bands * factor**2, valid=valid)
        with torch.no_grad():
            self.tail.weight.mul_(0.01)
            self.tail.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the denoised bands.

        Parameters
        ----------
        x : Tensor
            (N, C, H, W) reflectance, H and W multiples of ``factor``.
        sigma : Tensor
            (N,), (N, 1, 1, 1) or (N, C, 1, 1) standard deviation of the noise, reflectance.
        """
        level = self._levels(sigma, x)  # (N, C, 1, 1)
        gain = GAIN / (level / STRONGEST).clamp(min=1)
        cells = F.pixel_unshuffle((x - MEAN) * gain, self.factor)  # (N, C·f², H/f, W/f)
        features = self.head(torch.cat([cells, (level * gain).expand(-1, -1, *cells.shape[2:])], 1))
        body = self.body(features)
        if self.skips:
            body = body + (crop(features, self.halo // self.factor - 2) if self.valid else features)
        prediction = F.pixel_shuffle(self.tail(body), self.factor).to(x.dtype)
        if not self.skips:
            return prediction / gain + MEAN
        return (crop(x, self.halo) if self.valid else x) - prediction * level

    def _levels(self, sigma: Tensor, x: Tensor) -> Tensor:  # (N, C, 1, 1)
        if sigma.numel() not in (len(x), len(x) * self.bands):
            raise ModelError(f"sigma must hold one value a sample or a band, got shape {tuple(sigma.shape)}")
        return sigma.to(x).reshape(len(x), -1, 1, 1).expand(-1, self.bands, -1, -1)
