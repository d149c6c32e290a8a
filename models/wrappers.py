"""The modules behind the extras: self-ensemble and its deviation, consistency with the input, and less of a network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.degradations import DEFAULT_MTF, mtf_decimate, mtf_kernel
from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.spec import ModelSpec

BICUBIC = 2
"""Input pixels on every side that bicubic interpolation depends on."""


def turn(x: Tensor, way: int) -> Tensor:
    """Return the ``way``-th of the eight turned and mirrored forms of (..., H, W)."""
    x = torch.rot90(x, way % 4, (-2, -1))
    return x.flip(-1) if way >= 4 else x


def turn_back(x: Tensor, way: int) -> Tensor:
    """Undo ``turn``."""
    x = x.flip(-1) if way >= 4 else x
    return torch.rot90(x, -(way % 4), (-2, -1))


def self_ensemble(forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Average a network over the eight symmetries of the square.

    Geometric self-ensemble (Timofte et al., CVPR 2016; "EDSR+"). The halo a network needs does not change: a
    square window around a pixel stays one when it is turned.

    Parameters
    ----------
    forward : callable
        (N, C, H, W) to (N, C', H', W').
    x : Tensor
        (N, C, H, W).

    Returns
    -------
    mean, deviation : Tensor
        (N, C', H', W'); the standard deviation over the eight predictions is a map of uncertainty.
    """
    predictions = torch.stack([turn_back(forward(turn(x, way).contiguous()), way) for way in range(8)])
    return predictions.mean(0), predictions.std(0, unbiased=False)


def back_project(prediction: Tensor, low: Tensor, scale: int, mtf: float | Sequence[float], steps: int) -> Tensor:
    """Correct a prediction until the sensor's blur and decimation of it give the input again.

    Iterative back-projection (Irani and Peleg, CVGIP 53(3), 1991): the low-resolution residual is enlarged
    bicubically and added, ``steps`` times.

    Parameters
    ----------
    prediction : Tensor
        (N, C, scale·H, scale·W) reflectance.
    low : Tensor
        (N, C, H, W) reflectance, the network's input.
    scale : int
    mtf : float or sequence of float
        Transfer at Nyquist, one value or one a band.
    steps : int
    """
    for _ in range(steps):
        residual = low - mtf_decimate(prediction, scale, mtf)
        prediction = prediction + F.interpolate(residual, scale_factor=scale, mode="bicubic", align_corners=False)
    return prediction


def back_projection_halo(scale: int, mtf: float, steps: int) -> int:
    """Return the input pixels beyond a core on which ``steps`` of ``back_project`` depend.

    A step reaches out by the blur's half length and by two pixels of the bicubic enlargement.
    """
    blur = -(-(len(mtf_kernel(mtf, scale)) - scale) // (2 * scale))
    return steps * (blur + 2)


class Ensembled(nn.Module):
    """A network averaged over the eight symmetries; optionally followed by the standard deviation as further bands.

    Parameters
    ----------
    module : Module
        Unpadded or padded network; what it takes after the image is handed on.
    uncertainty : bool
        Append the standard deviation over the eight predictions: band 1, its deviation, band 2, its deviation...
    """

    def __init__(self, module: nn.Module, uncertainty: bool = False) -> None:
        super().__init__()
        self.module, self.uncertainty = module, uncertainty

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C or 2C, H', W')
        mean, deviation = self_ensemble(lambda turned: self.module(turned, *rest), x)
        if not self.uncertainty:
            return mean
        return torch.stack([mean, deviation], 2).flatten(1, 2)


class Cropped(nn.Module):
    """A network of somebody's own that may return the whole patch: what is outside the core is cut off."""

    def __init__(self, module: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.module, self.scale, self.halo = module, spec.scale, spec.halo

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:  # (N, C, P + 2·halo, ..) -> (N, C, scale·P, scale·P)
        out = self.module(x, *rest)
        return crop(out, self.halo * self.scale) if out.shape[-1] == x.shape[-1] * self.scale else out


class Consistent(nn.Module):
    """An unpadded super-resolution network whose predictions are corrected by back-projection.

    It needs ``back_projection_halo`` pixels more on every side: the correction's edges are cut off with them, so
    tiles stay exact.

    Parameters
    ----------
    module : Module
        (N, C, P + 2·halo, P + 2·halo) to (N, C, scale·P, scale·P).
    halo, scale : int
        Of the network.
    mtf : float
        Transfer at Nyquist of the sensor.
    steps : int
        Back-projections.
    """

    def __init__(self, module: nn.Module, halo: int, scale: int, mtf: float = DEFAULT_MTF, steps: int = 1) -> None:
        super().__init__()
        self.module, self.inner, self.scale, self.mtf, self.steps = module, halo, scale, mtf, steps
        self.margin = back_projection_halo(scale, mtf, steps)
        self.halo = halo + self.margin
        """Context in input pixels on every side."""

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:  # (N, C, P + 2·halo, ..) -> (N, C, scale·P, scale·P)
        prediction = self.module(x, *rest)
        corrected = back_project(prediction, crop(x, self.inner), self.scale, self.mtf, self.steps)
        return crop(corrected, self.margin * self.scale)


class Adjusted(nn.Module):
    """An unpadded network whose result is changed by what its input shows around it.

    Parameters
    ----------
    module : Module
        (N, C, P + 2·halo, P + 2·halo) to (N, C, scale·P, scale·P).
    spec : ModelSpec
        Of the network.
    reach : int
        Input pixels beyond the core that the change depends on.
    change : callable
        Given the result, and the input with so much context; returns the result changed.
    """

    def __init__(
        self, module: nn.Module, spec: ModelSpec, reach: int, change: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.module, self.inner, self.reach, self.change = module, spec.halo, reach, change
        self.halo = max(spec.halo, reach)
        """Context in input pixels on every side."""

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:  # (N, C, P + 2·halo, ..) -> (N, C, scale·P, scale·P)
        found = self.module(crop(x, self.halo - self.inner), *rest)
        return self.change(found, crop(x, self.halo - self.reach))


def weakened(module: nn.Module, spec: ModelSpec, share: float) -> Adjusted:
    """Make a network's change of its input smaller: what it adds to bicubic enlargement (Keys, IEEE TASSP 29(6), 1981).

    Parameters
    ----------
    module : Module
    spec : ModelSpec
        Of the network.
    share : float
        1 gives the network, 0 bicubic interpolation, or the input where nothing is enlarged.
    """
    reach = 0 if spec.scale == 1 else BICUBIC

    def change(found: Tensor, near: Tensor) -> Tensor:
        if reach:
            wide = F.interpolate(near, scale_factor=spec.scale, mode="bicubic", align_corners=False)
            near = crop(wide, reach * spec.scale)
        return torch.lerp(near, found, share)

    return Adjusted(module, spec, reach, change)


def clamped(module: nn.Module, spec: ModelSpec) -> Adjusted:
    """Hold a network within the least and the largest of the 3 x 3 input pixels around each new one."""

    def change(found: Tensor, near: Tensor) -> Tensor:
        least, most = -F.max_pool2d(-near, 3, 1), F.max_pool2d(near, 3, 1)
        low, high = (F.interpolate(edge, scale_factor=spec.scale, mode="nearest") for edge in (least, most))
        return torch.minimum(torch.maximum(found, low), high)

    return Adjusted(module, spec, 1, change)


RELATED = 0.5
"""How far apart kernels lie at most, relative to their norm, if one network was trained on from the other: the shipped
ones lie 0.08 to 0.25 apart, networks of two trainings 0.8 to 1.1."""


def blend(first: nn.Module, second: nn.Module, share: float) -> nn.Module:
    """Return a network between two of one architecture, or between one and another that looks no farther.

    Where one was trained on from the other, its weights lie between theirs (network interpolation): from a PSNR-trained
    generator to its adversarially trained variant this draws the perception-distortion curve (ESRGAN, Wang et al.,
    ECCVW 2018, section 3.4). Weights of two trainings that have no more than that in common mean nothing between
    (at half way, 3 to 5 dB are lost), and those of other depths have no middle: then both networks run, and their
    images are averaged.

    Parameters
    ----------
    first, second : Module
    share : float
        0 gives ``first``, 1 gives ``second``.

    Raises
    ------
    ModelError
        If the share is none, or the second network is of another kind, or looks farther than the first.
    """
    if not 0 <= share <= 1:
        raise ModelError(f"the share of a blend must be from 0 to 1, got {share}")
    states = first.state_dict(), second.state_dict()
    skip, other = states[0].get("skip.weight"), states[1].get("skip.weight")
    if skip is not None and other is not None and len(skip) > len(other):  # a filter for each band against one for all
        states[1]["skip.weight"] = other.repeat(len(skip) // len(other), 1, 1, 1)
    if {k: v.shape for k, v in states[0].items()} != {k: v.shape for k, v in states[1].items()}:
        ends = [(s["head.weight"].shape[1], len(s["tail.weight"])) for s in states if "head.weight" in s]
        if type(first) is not type(second) or len(set(ends)) != 1 or _farther(first, second) <= 0:
            raise ModelError("only networks of one architecture can be blended, or a deeper one with a shallower one")
        return _Averaged(first, second, share)
    if 0 < share < 1 and _apart(*states) > RELATED:
        return _Averaged(first, second, share)
    blended = copy.deepcopy(first)
    blended.load_state_dict({name: torch.lerp(states[0][name], states[1][name], share) for name in states[0]})
    return blended


def _apart(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the norm of the difference of two networks' kernels over that of the first's, the linear path left out."""
    kernels = [name for name, value in first.items() if value.ndim == 4 and not name.startswith("skip.")]
    off = sum(float((first[name] - second[name]).square().sum()) for name in kernels)
    return math.sqrt(off / max(sum(float(first[name].square().sum()) for name in kernels), 1e-30))


class _Averaged(nn.Module):
    """Two networks' images, averaged."""

    def __init__(self, first: nn.Module, second: nn.Module, share: float) -> None:
        super().__init__()
        self.first, self.second, self.share = first, second, share
        self.border = _farther(first, second) if getattr(first, "valid", False) else 0

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        return torch.lerp(self.first(x, *inputs), self.second(crop(x, self.border), *inputs), self.share)


def _farther(first: nn.Module, second: nn.Module) -> int:
    """Return how many pixels farther the first network looks than the second; 0 where they do not say."""
    return int(getattr(first, "halo", 0)) - int(getattr(second, "halo", 0))
