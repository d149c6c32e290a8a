"""Super-resolution generators: an EDSR-like one, and one of residual-in-residual dense blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.networks.layers import GAIN, MEAN, PaddingMode, ResidualBlock, check_range, conv3, crop
from scenelift.models.networks.upsampling import PhaseUpsampler

TAPS = 11


class Generator(nn.Module):
    """Residual network at low resolution, one PixelShuffle, and a linear filter bank as global skip.

    After EDSR (Lim et al., CVPRW 2017: no normalisation), with the upsampler reduced to one sub-pixel
    convolution (Shi et al., CVPR 2016), which is where most of EDSR's cost lies.

    Parameters
    ----------
    bands : int
        Bands seen together; 1 for a band-agnostic network.
    scale : int
        2, 3 or 4 (1 to 8 are accepted).
    channels, blocks : int
        Width and number of residual blocks.
    valid : bool
        Unpadded: (N, C, P + 2·halo, P + 2·halo) gives (N, C, scale·P, scale·P). Otherwise sizes are kept.
    padding : {"zeros", "reflect", "replicate"}
        How the padded form pads.
    """

    def __init__(
        self,
        bands: int = 1,
        scale: int = 2,
        channels: int = 64,
        blocks: int = 8,
        *,
        valid: bool = False,
        padding: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        check_range("bands", bands, 1, 64)
        check_range("scale", scale, 1, 8)
        check_range("channels", channels, 1, 512)
        check_range("blocks", blocks, 1, 64)
        self.bands, self.scale, self.valid = bands, scale, valid
        self.halo = 2 * blocks + 3
        """Receptive radius in input pixels: one for each 3x3 convolution on the longest path."""
        self.head = conv3(bands, channels, valid=valid, padding=padding)
        self.body = nn.Sequential(
            *(ResidualBlock(channels, valid=valid, padding=padding) for _ in range(blocks)),
            conv3(channels, channels, valid=valid, padding=padding),
        )
        self.tail = conv3(channels, bands * scale**2, valid=valid, padding=padding)
        taps = min(TAPS, 2 * self.halo + 1)
        self.skip = PhaseUpsampler(scale, taps, valid=valid)
        with torch.no_grad():  # the linear path alone is the starting point
            self.tail.weight.mul_(0.01)
            self.tail.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) reflectance
        base = crop(x, self.halo - self.skip.taps // 2) if self.valid else x
        features = self.head((x - MEAN) * GAIN)  # (N, F, H, W)
        body = self.body(features)
        trunk = crop(features, self.halo - 2) if self.valid else features
        detail = self.tail(body + trunk)  # (N, C·s², H, W)
        return F.pixel_shuffle(self.skip.phases(base) + detail.to(base.dtype) / GAIN, self.scale)  # (N, C, sH, sW)


class DenseBlock(nn.Module):
    """Five densely connected 3x3 convolutions (RRDB's inner block)."""

    margin = 5

    def __init__(self, channels: int, growth: int, *, valid: bool = False, padding: PaddingMode = "zeros") -> None:
        super().__init__()
        self.valid = valid
        self.convs = nn.ModuleList(
            conv3(channels + i * growth, growth if i < 4 else channels, valid=valid, padding=padding) for i in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        known = [x]
        for i, conv in enumerate(self.convs):
            y = conv(torch.cat(known, 1))
            if i < 4:
                y = F.leaky_relu(y, 0.2)
            known = [crop(k, 1) for k in known] if self.valid else known
            known.append(y)
        return known[0] + 0.2 * known[-1]


class DenseResidual(nn.Module):
    """Three dense blocks in one scaled residual: the RRDB of ESRGAN."""

    margin = 3 * DenseBlock.margin

    def __init__(self, channels: int, growth: int, *, valid: bool = False, padding: PaddingMode = "zeros") -> None:
        super().__init__()
        self.valid = valid
        self.blocks = nn.Sequential(*(DenseBlock(channels, growth, valid=valid, padding=padding) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        return (crop(x, self.margin) if self.valid else x) + 0.2 * self.blocks(x)


class DenseGenerator(nn.Module):
    """Generator of residual-in-residual dense blocks, in the manner of ESRGAN (Wang et al., ECCVW 2018).

    Its receptive radius grows by 15 pixels a block: few blocks keep the halo, and so the tiling, exact.

    Parameters
    ----------
    bands, scale : int
        As for ``Generator``.
    channels, growth, blocks : int
        Width, channels each dense convolution adds, number of RRDBs.
    valid, padding
        As for ``Generator``.
    """

    def __init__(
        self,
        bands: int = 1,
        scale: int = 4,
        channels: int = 32,
        growth: int = 16,
        blocks: int = 2,
        *,
        valid: bool = False,
        padding: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        check_range("bands", bands, 1, 64)
        check_range("scale", scale, 1, 8)
        check_range("channels", channels, 1, 256)
        check_range("growth", growth, 1, 128)
        check_range("blocks", blocks, 1, 24)
        self.bands, self.scale, self.valid = bands, scale, valid
        self.halo = DenseResidual.margin * blocks + 3
        """Receptive radius in input pixels."""
        self.head = conv3(bands, channels, valid=valid, padding=padding)
        self.body = nn.Sequential(
            *(DenseResidual(channels, growth, valid=valid, padding=padding) for _ in range(blocks)),
            conv3(channels, channels, valid=valid, padding=padding),
        )
        self.tail = conv3(channels, bands * scale**2, valid=valid, padding=padding)
        self.skip = PhaseUpsampler(scale, TAPS, valid=valid)
        with torch.no_grad():
            self.tail.weight.mul_(0.01)
            self.tail.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) reflectance
        base = crop(x, self.halo - self.skip.taps // 2) if self.valid else x
        features = self.head((x - MEAN) * GAIN)
        body = self.body(features)
        trunk = crop(features, self.halo - 2) if self.valid else features
        detail = self.tail(body + trunk)
        return F.pixel_shuffle(self.skip.phases(base) + detail.to(base.dtype) / GAIN, self.scale)
