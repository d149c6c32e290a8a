"""How far off a network may be at each pixel: a small model of its error, and bounds that hold where it was not fitted.

The standard deviation comes from what can be seen around a pixel: contrast, edges, brightness, how far the network went
from the linear estimate, and what it was told of blur and noise. The bounds are split-conformal (Papadopoulos et al.,
ECML 2002; Lei et al., JASA 113(523), 2018): quantiles of |error| / standard deviation on places that neither the
network nor this model was fitted on. They hold for as large a share of the pixels of further such places, whatever the
error's distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import GAIN, crop
from scenelift.models.networks.upsampling import PhaseUpsampler
from scenelift.models.spec import ModelSpec

REACH = 4
"""Output pixels around one that its standard deviation depends on."""
FLOOR = 1e-4
"""Reflectance below which contrasts count as none: a digital number of Sentinel-2."""
LEVELS = tuple(round(0.5 + 0.01 * i, 2) for i in range(50))
"""Shares of pixels for which there are bounds."""
QUIET = 2e-4
LOCAL = 9
"""Numbers that are found around a pixel."""


def local_features(prediction: Tensor, reference: Tensor) -> Tensor:
    """Return what is seen around each pixel of each band.

    Parameters
    ----------
    prediction, reference : Tensor
        (N, C, H, W) reflectance: the network's, and the linear estimate (the input, for networks that do not enlarge).

    Returns
    -------
    Tensor
        (N · C, LOCAL, H - 2 REACH, W - 2 REACH), of order one.
    """
    flat = prediction.reshape(-1, 1, *prediction.shape[2:])
    away = flat - reference.reshape(flat.shape)
    parts = [flat, flat.square(), away.square()]
    near, wide = (_means(torch.cat(parts, 1), side) for side in (3, 2 * REACH + 1))
    inner = crop(flat, REACH)
    near = crop(near, REACH - 1)
    across = crop(flat[..., 2:, 1:-1] - flat[..., :-2, 1:-1], REACH - 1)
    along = crop(flat[..., 1:-1, 2:] - flat[..., 1:-1, :-2], REACH - 1)
    squares = [
        crop(away, REACH).square(),
        near[:, 2:3],
        wide[:, 2:3],
        near[:, 1:2] - near[:, :1].square(),
        wide[:, 1:2] - wide[:, :1].square(),
        (across.square() + along.square()) / 4,
        (inner - near[:, :1]).square(),
    ]
    contrasts = torch.log(torch.cat(squares, 1).clamp(min=0) + FLOOR**2) / 2 - math.log(10 * FLOOR)
    brightness = torch.cat([inner * GAIN, wide[:, :1] * GAIN], 1).clamp(-1, 10)
    return torch.cat([contrasts, brightness], 1)


def _means(x: Tensor, side: int) -> Tensor:
    """Return the means over windows of ``side`` x ``side`` pixels that lie wholly inside."""
    return F.avg_pool2d(F.avg_pool2d(x, (side, 1), 1), (1, side), 1)


class ErrorModel(nn.Module):
    """Tells the standard deviation of a network's error at each pixel of each band, and bounds for it.

    Parameters
    ----------
    facts : int
        Numbers that the network is told of each band (blur, noise).
    hidden : int
        Width of the two hidden layers.
    """

    middle: Tensor
    width: Tensor
    factors: Tensor

    def __init__(self, facts: int, hidden: int = 16) -> None:
        super().__init__()
        self.facts = facts
        self.layers = nn.Sequential(
            nn.Conv2d(LOCAL + facts, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, 1, 1),
        )
        self.register_buffer("middle", torch.zeros(LOCAL + facts))
        self.register_buffer("width", torch.ones(LOCAL + facts))
        self.register_buffer("factors", torch.full((len(LEVELS),), torch.nan))

    @property
    def last_bias(self) -> Tensor:
        """Offset of the logarithm of all standard deviations, (1,)."""
        bias = self.layers[-1].bias
        assert isinstance(bias, Tensor)
        return bias

    def log_deviation(self, features: Tensor) -> Tensor:
        """Return (N, 1, H, W): natural logarithm of the standard deviation for (N, LOCAL + facts, H, W) features."""
        middle, width = (v[:, None, None] for v in (self.middle, self.width))
        found: Tensor = self.layers((features - middle) / width)
        return found.clamp(-14, 3)

    def features(self, prediction: Tensor, reference: Tensor, facts: Tensor) -> Tensor:
        """Return all that the standard deviation is told by, see `local_features`.

        Parameters
        ----------
        prediction, reference : Tensor
            (N, C, H, W) reflectance.
        facts : Tensor
            (N or 1, C, facts) what the network was told.
        """
        local = local_features(prediction, reference)
        told = facts.to(local).expand(*prediction.shape[:2], self.facts).reshape(len(local), self.facts, 1, 1)
        return torch.cat([local, told.expand(-1, -1, *local.shape[2:])], 1)

    def forward(self, prediction: Tensor, reference: Tensor, facts: Tensor) -> Tensor:
        """Return the standard deviation, (N, C, H - 2 REACH, W - 2 REACH), reflectance."""
        found = self.log_deviation(self.features(prediction, reference, facts)).exp()
        return found.reshape(*prediction.shape[:2], *found.shape[2:])

    def factor(self, level: float) -> float:
        """Return the standard deviations to either side between which that share of the errors lies.

        Parameters
        ----------
        level : float
            From .5 to .99; between hundredths, the next higher one's is returned.
        """
        check_level(level)
        return float(self.factors[math.ceil(round(100 * (level - LEVELS[0]), 6))])


def check_level(level: float) -> None:
    """Refuse a share of pixels for which no bounds are known.

    Raises
    ------
    ModelError
    """
    if not LEVELS[0] <= level <= LEVELS[-1]:
        raise ModelError(
            f"the share of pixels between the bounds must be from {LEVELS[0]} to {LEVELS[-1]}, got {level}"
        )


def noise_facts(sigma: Tensor) -> Tensor:
    """Return (..., 2) numbers of order one that tell a noise level (standard deviation, reflectance)."""
    level = torch.log2(1 + sigma / QUIET)[..., None]
    return torch.cat([level / 2 - 1, torch.exp(-level)], -1)


def conformal_factors(scores: Tensor, levels: Sequence[float] = LEVELS) -> Tensor:
    """Return split-conformal quantiles: the ceil((n + 1) · level)-th smallest of n scores.

    Parameters
    ----------
    scores : Tensor
        (n,) |error| / standard deviation of pixels that were not fitted.
    levels : sequence of float
        Between 0 and 1.

    Raises
    ------
    ModelError
        If there are too few scores for a level.
    """
    ordered = scores.flatten().double().sort().values
    ranks = [math.ceil((len(ordered) + 1) * level) for level in levels]
    if max(ranks) > len(ordered):
        raise ModelError(f"{len(ordered)} pixels are too few for bounds that {max(levels):.0%} of the errors keep")
    return ordered[torch.tensor(ranks) - 1]


class Calibrated(nn.Module):
    """An unpadded network, each band followed by its standard deviation and by its bounds, as asked for.

    It needs ``margin`` input pixels more on every side, so tiles stay exact.

    Parameters
    ----------
    module : Module
        (N, C, P + 2·halo, ..) to (N, C, scale·P, ..), or the whole of an ensemble of such.
    spec : ModelSpec
        Its contract.
    errors : ErrorModel
    deviation : bool
        Append the standard deviation.
    level : float, optional
        Append the bounds between which this share of the true values lies.
    """

    facts: Tensor | None

    def __init__(
        self, module: nn.Module, spec: ModelSpec, errors: ErrorModel, deviation: bool = True, level: float | None = None
    ) -> None:
        super().__init__()
        self.module, self.errors, self.scale, self.inner = module, errors, spec.scale, spec.halo
        self.margin = margin_of(spec)
        self.halo = spec.halo + self.margin
        """Context in input pixels on every side."""
        self.deviation = deviation
        self.factor: float | None = None
        if level is not None:
            self.set_level(level)
        self.linear = next((part for part in module.modules() if isinstance(part, PhaseUpsampler)), None)
        if (self.linear is None) != (spec.scale == 1):
            raise ModelError(f"{spec.name}: an error model needs the linear path of the network, and there is none")
        told = next((c for part in module.modules() if (c := getattr(part, "condition", None)) is not None), None)
        self.register_buffer("facts", None if told is None else told.clone(), persistent=False)

    def set_level(self, level: float) -> None:
        """Append bounds as well, between which this share of the true values lies."""
        self.factor = self.errors.factor(level)

    def _facts(self, x: Tensor, rest: tuple[Tensor, ...]) -> Tensor:
        if self.facts is not None:
            return self.facts[None]
        if not rest:
            return x.new_zeros(1, x.shape[1], 0)
        return noise_facts(rest[0].reshape(len(x), -1).expand(-1, x.shape[1]))

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:  # (N, C, P + 2·halo, ..) -> (N, C·(1 to 4), scale·P, ..)
        prediction = self.module(x, *rest)
        reference = crop(x, self.inner)
        if self.linear is not None:
            reference = self.linear(crop(x, self.inner - self.linear.taps // 2))
        spare = self.margin * self.scale - REACH
        with torch.autocast(x.device.type, enabled=False):
            parts = (crop(v.to(x.dtype), spare) for v in (prediction, reference))
            deviation = self.errors(*parts, self._facts(x, rest))
        middle = crop(prediction, self.margin * self.scale)
        out = [middle, deviation] if self.deviation else [middle]
        if self.factor is not None:
            out += [middle - self.factor * deviation, middle + self.factor * deviation]
        return torch.stack(out, 2).flatten(1, 2)


def margin_of(spec: ModelSpec) -> int:
    """Return the input pixels on every side that the error model needs beyond the network's halo."""
    step = spec.multiple_of
    return -(-REACH // (spec.scale * step)) * step
