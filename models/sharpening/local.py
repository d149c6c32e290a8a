"""How a band follows its guides here, and not only in the scene on the mean.

The regression of the closed form leaves a remainder one scale lower, where the truth is known. Regressed once more on
the guides' details, in a window around each coarse pixel and drawn towards no change, it tells by how much the guides'
detail counts for more or less in this field than elsewhere (ridge regression in a moving window, as in context-based
injection: Aiazzi et al., IEEE TGRS 40(10), 2002). Every filter here is the same for all pixels, so that patches
may start anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.networks.layers import crop
from scenelift.models.sharpening.filters import blur, first_fine, interpolation
from scenelift.models.sharpening.fitting import LOWER, RADIUS
from scenelift.models.sharpening.layout import BandGrid
from scenelift.models.sharpening.projection import Projection

SMOOTHED = 5
"""Coarse pixels on either side that the smooth level depends on: further ones weigh less than a hundredth."""
WINDOW, SPREAD = 4, 1.5
"""Coarse pixels on either side, and standard deviation, of the window."""
RIDGE = 0.5
"""How strongly changes are drawn to none, in units of the guides' mean squared details."""
REACH = SMOOTHED + WINDOW + 1
"""Coarse pixels on either side that a change depends on; one more for the interpolation onto the fine grid."""


class LocalGains(nn.Module):
    """Changes of a grid's regression coefficients from place to place.

    Parameters
    ----------
    bands : sequence of BandGrid
        Of one coarse grid.
    guides : sequence of BandGrid
    """

    def __init__(self, bands: Sequence[BandGrid], guides: Sequence[BandGrid]) -> None:
        super().__init__()
        first, self.guides = bands[0], len(guides)
        self.ratio = first.ratio
        self.down = Projection([BandGrid(first.ratio, first.row, first.col, guide.mtf) for guide in guides])
        self._starts = [first_fine(first.ratio, at) for at in (first.row, first.col)]
        levels = torch.tensor(np.array([_smoothing(band.mtf) for band in bands]), dtype=torch.float32)
        self.register_buffer("level", levels.repeat_interleave(1 + self.guides, 0), persistent=False)
        at = torch.arange(-WINDOW, WINDOW + 1.0)
        window = torch.exp(-(at**2) / (2 * SPREAD**2))
        self.register_buffer("window", (window / window.sum())[None], persistent=False)
        self.margin = self.down.margin

    def levels(self, seen: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Return details and levels (N, bands, 1 + guides, h, w) of each band, and of the guides as it sees them.

        Parameters
        ----------
        seen : Tensor
            (N, bands, h', w') the coarse pixels, without ``margin``.
        fine : Tensor
            (N, guides, H, W) the guides.
        """
        led = self.down.observe(fine)
        count = seen.shape[1]
        stack = torch.cat([seen[:, :, None], led[:, None].expand(-1, count, -1, -1, -1)], 2)
        level = _separable(stack.flatten(1, 2), self.get_buffer("level")).unflatten(1, (count, 1 + self.guides))
        return crop(stack, SMOOTHED) - level, level

    def changes(self, detail: Tensor, gains: Tensor, scale: Tensor) -> Tensor:
        """Return the change of each guide's gain (N, bands, guides, h - 2 WINDOW, w - 2 WINDOW), in units of 1 / scale.

        Parameters
        ----------
        detail : Tensor
            (N, bands, 1 + guides, h, w) as of `levels`.
        gains : Tensor
            (N, bands, guides, h, w) by which the closed form multiplies the guides' details.
        scale : Tensor
            (bands, guides, 1, 1) usual sizes of these.
        """
        left = detail[:, :, 0] - (gains * detail[:, :, 1:]).sum(2)
        led = detail[:, :, 1:] / scale
        count = self.guides
        pairs = torch.cat([led[:, :, :, None] * led[:, :, None], (led * left[:, :, None])[:, :, :, None]], 3)
        summed = _separable(pairs.flatten(1, 3), self.get_buffer("window")).unflatten(1, (-1, count, count + 1))
        normal = summed.permute(0, 1, 4, 5, 2, 3)  # (N, bands, h, w, guides, guides + 1)
        ridge = RIDGE * torch.eye(count, device=normal.device)
        found: Tensor = torch.linalg.solve(normal[..., :count] + ridge, normal[..., count])
        return found.permute(0, 1, 4, 2, 3)

    def on_fine(self, coarse: Tensor, first: int, halo: int) -> Tensor:
        """Bring what was found for coarse pixels (N, ..., h, w) onto the fine grid, linearly between them.

        Parameters
        ----------
        coarse : Tensor
            Its first pixel is number ``first`` of the patch.
        first, halo : int
            ``halo``: fine pixels of the patch that the result does without on every side.
        """
        shape = coarse.shape
        wide = F.interpolate(coarse.flatten(1, -3), scale_factor=self.ratio, mode="bilinear", align_corners=False)
        rows, cols = (halo - (start + self.ratio * first) for start in self._starts)
        size = [self.ratio * (side + 2 * first) - 2 * halo for side in shape[-2:]]
        return wide[:, :, rows : rows + size[0], cols : cols + size[1]].unflatten(1, shape[1:-2])


def _separable(x: Tensor, taps: Tensor) -> Tensor:
    """Filter every channel (N, C, h, w) along both axes, without padding, by its own taps or by the same ones."""
    count = x.shape[1]
    kernel = taps.expand(count, -1)[:, None]
    x = F.conv2d(x, kernel[..., None], groups=count)
    return F.conv2d(x, kernel[:, :, None], groups=count)


def _smoothing(mtf: float) -> NDArray[np.float64]:
    """Return the taps of what is interpolated of a band that was made coarser, on the mean over its places."""
    taps, weights = blur(mtf, LOWER, (LOWER - 1) / 2), interpolation(mtf, LOWER, (LOWER - 1) / 2, RADIUS)
    span = LOWER * (RADIUS + len(taps.weights))
    found = np.zeros(2 * span + 1)
    for impulse in range(LOWER):
        for index, weight in enumerate(taps.weights):
            at, aside = divmod(impulse - taps.first - index, LOWER)
            if aside:
                continue
            for phase in range(LOWER):
                for step in range(-RADIUS, RADIUS + 1):
                    pixel = LOWER * (at - step) + phase
                    found[span + pixel - impulse] += weight * weights[phase, step + RADIUS] / LOWER
    found = found[span - SMOOTHED : span + SMOOTHED + 1]
    return found / found.sum()
