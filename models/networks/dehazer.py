"""A network that takes haze away by a line for each pixel, which it finds from the surroundings and the whole scene.

In the manner of Zero-DCE (Guo et al., CVPR 2020), but a line instead of a polynomial, since haze is one: what is added
and by how much contrast is damped change slowly from pixel to pixel, so gain and offset are smoothed over a fixed
window. Numbers of the whole scene (percentiles of each band) scale and shift the convolutions; for one scene they are
constants, and what is left looks no farther than its halo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.networks.layers import GAIN, check_range, crop, wrong_bands
from scenelift.models.spec import PERCENTILES

STATISTICS = len(PERCENTILES)
"""Numbers of each band of the scene that it is told."""
FLOOR = 0.01
"""Reflectance that the darkest pixels of a clear scene have."""
MOST_GAIN = 1.5
"""Natural logarithm of the largest gain."""
MOST_OFFSET = 0.3
"""Largest difference of the offset to that of the scene's darkest pixels, reflectance."""


class Dehazer(nn.Module):
    """Line by line from a hazy scene to a clear one.

    Parameters
    ----------
    bands : int
        Bands taken together.
    channels : int
    dilations : sequence of int
        Of the convolutions after the first.
    smooth : int
        Radius of the window over which gain and offset are averaged, pixels.
    valid : bool
        Unpadded: (N, C, H, W) gives (N, C, H - 2 halo, W - 2 halo).
    """

    def __init__(
        self,
        bands: int = 3,
        channels: int = 24,
        dilations: Sequence[int] = (1, 2, 4, 8),
        smooth: int = 6,
        *,
        valid: bool = False,
    ) -> None:
        super().__init__()
        check_range("bands", bands, 1, 64)
        check_range("channels", channels, 1, 512)
        check_range("smooth", smooth, 0, 64)
        for dilation in dilations:
            check_range("dilations", dilation, 1, 64)
        self.bands, self.channels, self.smooth, self.valid = bands, channels, smooth, valid
        self.dilations = tuple(dilations)
        self.halo = 1 + sum(self.dilations) + smooth
        """Receptive radius in input pixels."""
        sides = (1, *self.dilations)
        self.convs = nn.ModuleList(
            nn.Conv2d(bands if i == 0 else channels, channels, 3, padding=0 if valid else d, dilation=d)
            for i, d in enumerate(sides)
        )
        self.tail = nn.Conv2d(channels, 2 * bands, 1)
        self.code = nn.Sequential(nn.Linear(bands * STATISTICS, 64), nn.SiLU(), nn.Linear(64, 32), nn.SiLU())
        self.modulation = nn.Linear(32, 2 * channels * len(sides))
        self.line = nn.Linear(32, 2 * bands)
        with torch.no_grad():  # at first: dark-object subtraction
            for part in (self.tail, self.modulation, self.line):
                part.weight.mul_(0.01)
                nn.init.zeros_(cast(Tensor, part.bias))

    def forward(self, x: Tensor, statistics: Tensor) -> Tensor:
        """Return the clear images of a batch, each of a scene with its own numbers.

        Parameters
        ----------
        x : Tensor
            (N, C, H, W) reflectance.
        statistics : Tensor
            (N, C · 7) percentiles of each band of the scene, reflectance.
        """
        return self._run(x, *self._told(statistics))

    def _told(self, statistics: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scales and shifts of the convolutions, (N, L, F) each; line (N, 2 C); dark (N, C)."""
        n = len(statistics)
        dark = statistics.reshape(n, self.bands, STATISTICS)[..., 0] - FLOOR
        code = self.code((statistics - 0.1) * GAIN)
        scales, shifts = self.modulation(code).reshape(n, 2, len(self.convs), self.channels).unbind(1)
        return 1 + scales, shifts, self.line(code), dark

    def _run(self, x: Tensor, scales: Tensor, shifts: Tensor, line: Tensor, dark: Tensor) -> Tensor:
        base = x - dark[:, :, None, None].to(x.dtype)
        y = base * GAIN
        for number, conv in enumerate(self.convs):
            y = conv(y) * scales[:, number, :, None, None].to(y.dtype) + shifts[:, number, :, None, None].to(y.dtype)
            y = F.relu(y)
        y = self.tail(y) + line[:, :, None, None].to(y.dtype)
        if self.smooth:
            side = 2 * self.smooth + 1
            window = torch.full((1, 1, side), 1 / side, dtype=y.dtype, device=y.device)
            pad = 0 if self.valid else self.smooth
            weight = window.expand(y.shape[1], 1, side)
            y = F.conv2d(y, weight[..., None], padding=(pad, 0), groups=y.shape[1])
            y = F.conv2d(y, weight[:, :, None], padding=(0, pad), groups=y.shape[1])
        gain, offset = y.chunk(2, 1)
        gain, offset = torch.exp(MOST_GAIN * torch.tanh(gain)), MOST_OFFSET * torch.tanh(offset)
        inner = crop(base, self.halo) if self.valid else base
        return (inner - offset.to(x.dtype)) * gain.to(x.dtype)

    @torch.no_grad()
    def fold_statistics(self, statistics: Sequence[float]) -> nn.Module:
        """Return the network for one scene.

        Parameters
        ----------
        statistics : sequence of float
            (C · 7) percentiles of each band of the scene, reflectance.

        Raises
        ------
        ModelError
            If they are those of another number of bands.
        """
        if len(statistics) != self.bands * STATISTICS:
            raise wrong_bands(self.bands, len(statistics) // STATISTICS)
        return Told(self, self._told(torch.tensor([list(statistics)], dtype=torch.float32)))


class Told(nn.Module):
    """A dehazer that has been told the numbers of its scene."""

    def __init__(self, network: Dehazer, told: Sequence[Tensor]) -> None:
        super().__init__()
        self.network, self.halo = network, network.halo
        for name, value in zip(("scales", "shifts", "line", "dark"), told, strict=True):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Return the clear image, (N, C, H, W) or without the halo."""
        told = (self.get_buffer(name) for name in ("scales", "shifts", "line", "dark"))
        return self.network._run(x, *told)
