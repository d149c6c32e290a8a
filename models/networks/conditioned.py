"""A super-resolution network that is told the blur and the noise of each band, and folds into a plain one.

Blur and noise are constants of a scene. They scale and shift the output of every convolution (FiLM: Perez et al.,
AAAI 2018), which for constants is a convolution with other weights. So a scene runs through an ordinary `Generator`, at
an ordinary one's cost, and stays exact under tiling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.networks.generator import TAPS, Generator
from scenelift.models.networks.layers import GAIN, MEAN, PaddingMode, ResidualBlock, wrong_bands
from scenelift.models.networks.upsampling import PhaseUpsampler
from scenelift.models.sensing.blurs import FREQUENCIES, Blur
from scenelift.models.sensing.wiener import interpolation_filters

FACTS = len(FREQUENCIES) + 2
"""Numbers that a network is told of each band."""
QUIET = 2e-4
"""Noise (reflectance) below which levels hardly differ: a 16-bit Sentinel-2 image of calm water."""


def condition_of(responses: Tensor, sigma: Tensor) -> Tensor:
    """Return what a network is told.

    Parameters
    ----------
    responses : Tensor
        (N, C, 4) transfer of each band's blur, see `scenelift.models.sensing.blurs.response`.
    sigma : Tensor
        (N, C) standard deviation of the noise, reflectance.

    Returns
    -------
    Tensor
        (N, C · FACTS), of order one.
    """
    level = torch.log2(1 + sigma / QUIET)[..., None]
    told = torch.cat([2 * responses - 1, level / 2 - 1, torch.exp(-level)], -1)
    return told.flatten(1)


class ConditionedGenerator(nn.Module):
    """A `Generator` whose convolutions are scaled and shifted by what is known of blur and noise.

    Parameters
    ----------
    bands, scale, channels, blocks
        As for `Generator`.
    code : int
        Numbers into which blur and noise are coded.
    valid, padding
        As for `Generator`.
    """

    def __init__(
        self,
        bands: int = 1,
        scale: int = 2,
        channels: int = 64,
        blocks: int = 8,
        code: int = 16,
        *,
        valid: bool = False,
        padding: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        self.arguments = {"bands": bands, "scale": scale, "channels": channels, "blocks": blocks}
        self.network = Generator(bands, scale, channels, blocks, valid=valid, padding=padding)
        del self.network.skip  # the linear path is computed, not learned
        self.bands, self.scale, self.valid, self.padding = bands, scale, valid, padding
        self.halo = self.network.halo
        """Receptive radius in input pixels."""
        self.code = nn.Sequential(nn.Linear(bands * FACTS, 64), nn.SiLU(), nn.Linear(64, code), nn.SiLU())
        self.modulation = nn.Linear(code, 2 * sum(conv.out_channels for conv in self._convs()))
        with torch.no_grad():  # at first, a network that is told nothing
            self.modulation.weight.zero_()
            self.modulation.bias.zero_()

    def _convs(self) -> Iterator[nn.Conv2d]:
        """Yield the convolutions in the order in which they are run."""
        yield from (
            m for part in ("head", "body", "tail") for m in getattr(self.network, part).modules() if _is_conv(m)
        )

    def _turns(self, condition: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield scale and shift (N, F) of each convolution."""
        sizes = [conv.out_channels for conv in self._convs()]
        scales, shifts = self.modulation(self.code(condition)).chunk(2, 1)
        yield from zip((1 + scales).split(sizes, 1), shifts.split(sizes, 1), strict=True)

    def forward(self, x: Tensor, base: Tensor, condition: Tensor) -> Tensor:
        """Return the enlarged images of a batch, each with its own blur and noise: for training (padded form).

        Parameters
        ----------
        x : Tensor
            (N, C, H, W) reflectance.
        base : Tensor
            (N, C, sH, sW): ``x`` enlarged by the least-squares filters, see `linear`.
        condition : Tensor
            (N, C · FACTS), see `condition_of`.
        """
        turns = self._turns(condition)

        def run(conv: nn.Module, values: Tensor) -> Tensor:
            scale, shift = next(turns)
            y = conv(values)
            return torch.addcmul(shift.to(y.dtype)[..., None, None], y, scale.to(y.dtype)[..., None, None])

        net = self.network
        features = run(net.head, (x - MEAN) * GAIN)
        y = features
        *blocks, last = net.body
        for block in blocks:
            assert isinstance(block, ResidualBlock)
            y = y + run(block.second, block.act(run(block.first, y)))
        y = run(last, y) + features
        detail = F.pixel_shuffle(run(net.tail, y), self.scale)
        return base + detail.to(base.dtype) / GAIN

    @torch.no_grad()
    def fold(self, blurs: Sequence[Blur], noise: Sequence[float]) -> Generator:
        """Return the plain network for one scene; its buffer ``condition`` (bands, FACTS) says what it was told.

        Parameters
        ----------
        blurs : sequence of Blur
            One a band.
        noise : sequence of float
            Standard deviation of the noise in each band, reflectance.

        Raises
        ------
        ModelError
            If there are more or fewer than the network has bands.
        """
        if not len(blurs) == len(noise) == self.bands:
            have = len(blurs) if len(blurs) == len(noise) else f"{len(blurs)} blurs and {len(noise)} noise levels"
            raise wrong_bands(self.bands, have)
        responses = torch.tensor([b.transfers(self.scale) for b in blurs])
        condition = condition_of(responses[None], torch.tensor([list(noise)], dtype=torch.float32))
        filters = [linear_filters(b, self.scale, s) for b, s in zip(blurs, noise, strict=True)]
        return self._folded(condition, torch.cat(filters)[:, None])

    @torch.no_grad()
    def fold_as(self, other: Generator) -> Generator:
        """Return the plain network for the scene that another network was folded for."""
        return self._folded(other.get_buffer("condition").reshape(1, -1), other.state_dict()["skip.weight"])

    def _folded(self, condition: Tensor, filters: Tensor) -> Generator:
        plain = Generator(**self.arguments, valid=self.valid, padding=self.padding)
        state = {name: value.clone() for name, value in self.network.state_dict().items()}
        names = {id(m): name for name, m in self.network.named_modules()}
        for conv, (scale, shift) in zip(self._convs(), self._turns(condition), strict=True):
            name = names[id(conv)]
            state[f"{name}.weight"] *= scale[0][:, None, None, None]
            state[f"{name}.bias"] = state[f"{name}.bias"] * scale[0] + shift[0]
        plain.skip = PhaseUpsampler(self.scale, TAPS, self.bands, valid=self.valid)
        plain.load_state_dict(state | {"skip.weight": filters})
        plain.register_buffer("condition", condition.reshape(self.bands, FACTS), persistent=False)
        return plain.eval()


def linear_filters(blur: Blur, scale: int, sigma: float) -> Tensor:
    """Return the (scale², TAPS, TAPS) filters of the linear path for one band."""
    return torch.from_numpy(interpolation_filters(blur.kernel(scale), scale, TAPS, sigma))


def linear(x: Tensor, scale: int, filters: Tensor) -> Tensor:
    """Enlarge every band of every image by its own filters, edges continued by reflection.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    scale : int
    filters : Tensor
        (N, C, scale², taps, taps).
    """
    n, c, height, width = x.shape
    taps = filters.shape[-1]
    padded = F.pad(x, (taps // 2,) * 4, mode="reflect").reshape(n * c, 1, height + taps - 1, width + taps - 1)
    if x.is_cuda:  # where convolutions of many groups take long
        y = filters.reshape(n * c, scale**2, taps**2) @ F.unfold(padded, taps)
    else:
        y = F.conv2d(padded.reshape(1, n * c, *padded.shape[2:]), filters.reshape(-1, 1, taps, taps), groups=n * c)
    y = y.reshape(n * c, scale**2, height, width)
    return F.pixel_shuffle(y, scale).reshape(n, c, height * scale, width * scale)


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)
