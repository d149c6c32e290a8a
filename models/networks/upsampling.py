"""The linear path around a super-resolution network: one filter per output phase."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.networks.layers import crop


def _keys_weights(offset: float, taps: int, a: float = -0.5) -> np.ndarray:
    """Return (taps,) float64 weights of Keys' cubic convolution at ``offset`` pixels from the middle tap.

    R. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981, eq. 15.
    """
    d = np.abs(np.arange(taps) - taps // 2 - offset)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


class PhaseUpsampler(nn.Module):
    """Linear interpolation with one ``taps`` x ``taps`` filter for each of the scale² output phases.

    It starts as bicubic interpolation; ``fit`` replaces that by the least-squares filters for a degradation,
    which for a known blur is about what iterative back-projection reaches. Bands are filtered alike and apart.
    Always float32: this path carries the radiometry.

    Parameters
    ----------
    scale : int
        Output pixels per input pixel.
    taps : int
        Odd side of the filters in input pixels.
    groups : int
        1: one set of filters for all bands; otherwise one set for each of so many bands.
    valid : bool
        Unpadded: ``taps // 2`` input pixels are lost on every side.
    """

    def __init__(self, scale: int, taps: int = 11, groups: int = 1, *, valid: bool = False) -> None:
        super().__init__()
        self.scale, self.taps, self.groups, self.valid = scale, taps, groups, valid
        rows = [_keys_weights((p + 0.5) / scale - 0.5, taps) for p in range(scale)]
        filters = np.stack([np.outer(rows[i], rows[j]) for i in range(scale) for j in range(scale)])
        weight = torch.tensor(filters[:, None], dtype=torch.float32).repeat(groups, 1, 1, 1)
        self.weight = nn.Parameter(weight)  # (groups·s², 1, taps, taps)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, sH, sW)
        return F.pixel_shuffle(self.phases(x), self.scale)

    def phases(self, x: Tensor) -> Tensor:
        """Return the output before its pixels are put in their places, (N, C·s², H, W)."""
        n, c = x.shape[:2]
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype).reshape(n * c // self.groups, self.groups, *x.shape[2:])
            if not self.valid:
                x = F.pad(x, (self.taps // 2,) * 4, mode="reflect")
            y = F.conv2d(x, self.weight, groups=self.groups)
        return y.reshape(n, c * self.scale**2, *y.shape[2:])

    @torch.no_grad()
    def fit(self, low: Tensor, high: Tensor, ridge: float = 1e-4) -> None:
        """Set the filters to the least-squares solution of ``high`` from windows of ``low``.

        Parameters
        ----------
        low : Tensor
            (N, 1, H, W) float32 images, fixed normalisation.
        high : Tensor
            (N, 1, sH, sW) float32 images they came from.
        ridge : float
            Pull towards bicubic, relative to the mean power of the windows' taps.
        """
        t, r = self.taps, self.taps // 2
        mean = low.mean()  # the filters must keep a constant a constant: solve around the mean, then set the sum
        start = self.weight.double().reshape(-1, t * t).T
        gram, pull = torch.zeros(t * t, t * t, dtype=torch.float64), torch.zeros_like(start)
        for x, y in zip(low.split(1), high.split(1), strict=True):  # sums over images: memory is that of one
            columns = F.unfold((x - mean).double(), t).transpose(1, 2).reshape(-1, t * t)
            target = crop(F.pixel_unshuffle((y - mean).double(), self.scale), r)
            target = target.permute(0, 2, 3, 1).reshape(-1, self.scale**2)
            gram += columns.T @ columns
            pull += columns.T @ (target - columns @ start)
        gram += torch.eye(t * t, dtype=gram.dtype) * (ridge * gram.diagonal().mean())
        solved = start + torch.linalg.solve(gram, pull)
        solved += (1 - solved.sum(0)) / (t * t)
        self.weight.copy_(solved.T.reshape_as(self.weight))
