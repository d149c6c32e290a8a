"""What can be done around any network: self-ensemble, its spread as uncertainty, consistency with the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from scenelift.models.degradations import mtf_decimate, mtf_kernel
from scenelift.models.upsampling import keys_weights


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
    mean, spread : Tensor
        (N, C', H', W'); the spread is the standard deviation over the eight answers, a map of uncertainty.
    """
    answers = torch.stack([turn_back(forward(turn(x, way).contiguous()), way) for way in range(8)])
    return answers.mean(0), answers.std(0, unbiased=False)


def back_project(answer: Tensor, low: Tensor, scale: int, mtf: float | Sequence[float], steps: int) -> Tensor:
    """Correct an answer until the sensor's blur and decimation of it give the input again.

    Iterative back-projection (Irani and Peleg, CVGIP 53(3), 1991): the low-resolution residual is enlarged
    bicubically and added, ``steps`` times.

    Parameters
    ----------
    answer : Tensor
        (N, C, scale·H, scale·W) reflectance.
    low : Tensor
        (N, C, H, W) reflectance, the network's input.
    scale : int
    mtf : float or sequence of float
        Transfer at Nyquist, one value or one a band.
    steps : int
    """
    for _ in range(steps):
        residual = low - mtf_decimate(answer, scale, mtf)
        answer = answer + F.interpolate(residual, scale_factor=scale, mode="bicubic", align_corners=False)
    return answer


def back_projection_halo(scale: int, mtf: float, steps: int) -> int:
    """Return the input pixels beyond a core on which ``steps`` of ``back_project`` depend.

    A step reaches out by the blur's half length and by two pixels of the bicubic enlargement.
    """
    blur = -(-(len(mtf_kernel(mtf, scale)) - scale) // (2 * scale))
    return steps * (blur + len(keys_weights(0.0, 5)) // 2)
