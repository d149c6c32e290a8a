"""What lies between a scene and its pixels: kernels that blur before sampling, and what is known of them.

A blur is described at the coarse grid, where it matters: by its transfer at the Nyquist frequency (MTF) and its kind.
All kernels are separable and centred on a coarse pixel, which covers ``scale`` fine pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError

if TYPE_CHECKING:  # who only names a blur does not wait for torch
    from torch import Tensor

KINDS = ("gaussian", "area", "bicubic", "lanczos")
DEFAULT_MTF = 0.26
"""Transfer at the Nyquist frequency of a band that nothing is known of: the middle of Sentinel-2's 10 m bands."""
MTF_RANGE = (0.05, 0.60)
"""Transfers at Nyquist that the conditioned networks are trained for."""
LEAST = 0.005
"""Smallest transfer at Nyquist of a Gaussian: a stronger blur would be wider than the windows it is tried on."""
FREQUENCIES = (0.5, 1.0, 1.5, 2.0)
"""Multiples of the coarse Nyquist frequency at which a network is told the transfer."""


@dataclass(frozen=True)
class Blur:
    """One band's blur: a Gaussian of some MTF, or what resampling by a common library does."""

    kind: str = "gaussian"
    """"gaussian"; "area" (mean of the covered pixels); "bicubic" or "lanczos" (antialiased, as Pillow shrinks)."""
    mtf: float = DEFAULT_MTF
    """Transfer at the coarse Nyquist frequency of a Gaussian; the other kinds have their own."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ModelError(f"blur must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not LEAST <= self.mtf < 1:
            raise ModelError(f"the MTF at Nyquist must lie between {LEAST} and 1, got {self.mtf}")

    def describe(self) -> str:
        """Return the blur in words."""
        return f"MTF {self.mtf:.2f}" if self.kind == "gaussian" else f"{self.kind} resampling"

    def at_nyquist(self, scale: int) -> float:
        """Return the transfer at the coarse Nyquist frequency."""
        return self.mtf if self.kind == "gaussian" else self.transfers(scale)[1]

    def transfers(self, scale: int) -> tuple[float, ...]:
        """Return what networks are told of it: the transfer at ``FREQUENCIES`` times the coarse Nyquist frequency."""
        return _transfers(self.kind, self.mtf if self.kind == "gaussian" else 0.0, scale)

    def kernel(self, scale: int) -> NDArray[np.float64]:
        """Return the (taps,) weights on fine pixels, summing to one; of even length for even scales."""
        return _kernel(self.kind, self.mtf if self.kind == "gaussian" else 0.0, scale)


def middle_transfer(blurs: Sequence[Blur], scale: int) -> float:
    """Return the transfer at the coarse Nyquist frequency of one Gaussian that stands for the blurs of all bands."""
    return min(max(float(np.mean([blur.at_nyquist(scale) for blur in blurs])), 0.05), 0.9)


def gaussian_sigma(mtf: float, scale: int) -> float:
    """Return the standard deviation, in fine pixels, of the Gaussian with that transfer at coarse Nyquist.

    exp(-2 pi² sigma² f²) = m at f = 1 / (2 s) gives sigma = s sqrt(-2 ln m) / pi (Aiazzi et al., PE&RS 72(5), 2006:
    MTF-matched filters for Wald's protocol).
    """
    return scale * math.sqrt(-2 * math.log(mtf)) / math.pi


@functools.cache
def _kernel(kind: str, mtf: float, scale: int) -> NDArray[np.float64]:
    if kind == "gaussian":
        sigma = gaussian_sigma(mtf, scale)
        at = _positions(math.ceil(4 * sigma), scale)
        weights = np.exp(-(at**2) / (2 * sigma**2))
    elif kind == "area":
        weights = np.ones(scale)
    elif kind == "bicubic":  # Keys' kernel (a = -0.5), widened by the scale
        x = np.abs(_positions(2 * scale, scale)) / scale
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    else:
        x = _positions(3 * scale, scale) / scale
        weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    found: NDArray[np.float64] = weights / weights.sum()
    return found


@functools.cache
def _transfers(kind: str, mtf: float, scale: int) -> tuple[float, ...]:
    return tuple(response(_kernel(kind, mtf, scale), scale).tolist())


def _positions(half: int, scale: int) -> NDArray[np.float64]:
    taps = 2 * half + scale % 2
    found: NDArray[np.float64] = np.arange(taps, dtype=np.float64) - (taps - 1) / 2
    return found


def response(kernel: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Return the transfer of a kernel at ``FREQUENCIES`` times the coarse Nyquist frequency, shape (4,)."""
    at = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    cycles = np.asarray(FREQUENCIES) / (2 * scale)  # a fine pixel
    found: NDArray[np.float64] = np.cos(2 * np.pi * cycles[:, None] * at) @ kernel
    return found


def decimate(x: Tensor, scale: int, kernels: list[list[NDArray[np.float64]]]) -> Tensor:
    """Blur every band of every image by its own kernel and keep every ``scale``-th pixel.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W), sides multiples of ``scale``; edges are continued by reflection.
    scale : int
    kernels : list of list of ndarray
        N lists of C kernels, see `Blur.kernel`.

    Returns
    -------
    Tensor
        (N, C, H / scale, W / scale).
    """
    return decimate_by(x, scale, stacked(kernels))


def stacked(kernels: list[list[NDArray[np.float64]]]) -> Tensor:
    """Return N lists of C kernels as (N, C, taps), those that are shorter between zeros."""
    import torch

    taps = max(len(k) for row in kernels for k in row)
    weights = np.zeros((len(kernels), len(kernels[0]), taps))
    for image, row in enumerate(kernels):
        for band, kernel in enumerate(row):
            start = (taps - len(kernel)) // 2
            weights[image, band, start : start + len(kernel)] = kernel
    return torch.from_numpy(weights)


def decimate_by(x: Tensor, scale: int, kernels: Tensor) -> Tensor:
    """Do as `decimate` with kernels (N, C, taps), see `stacked`."""
    import torch.nn.functional as F

    n, c, taps = kernels.shape
    weights = kernels.to(x).reshape(n * c, 1, taps)
    reach = (taps - scale) // 2
    flat = F.pad(x, (reach,) * 4, mode="reflect").reshape(1, n * c, x.shape[2] + 2 * reach, x.shape[3] + 2 * reach)
    rows = F.conv2d(flat, weights[..., None], stride=(scale, 1), groups=n * c)
    low = F.conv2d(rows, weights[:, :, None], stride=(1, scale), groups=n * c)
    return low.reshape(n, c, *low.shape[2:])
