"""Sharpening in closed form: what the fine bands predict, corrected until the coarse band would see what it saw.

A coarse band is taken for a fine one that its sensor blurred and sampled (A). A linear combination of the guides, Q =
sum of a_j P_j, gives the detail; what A of it leaves unexplained is interpolated (K) and added:

    S = Q + K (C - A Q)

It is regression-based detail injection with MTF-matched filters (Aiazzi et al., PE&RS 72(5), 2006; Vivone et al., IEEE
TIP 27(7), 2018), with the residual kriged as in area-to-point regression kriging (Wang et al., RSE 156, 2015). Since K
is exact for A (up to its finite radius), S agrees with the coarse band whatever the guides say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.sharpening.layout import BandGrid, check_layout, coarse, guides, period
from scenelift.models.sharpening.projection import Projection


def grids_of(layout: Sequence[BandGrid]) -> list[list[int]]:
    """Return the numbers of the coarse bands, those of one grid together."""
    found: dict[tuple[int, float, float], list[int]] = {}
    for index in coarse(layout):
        band = layout[index]
        found.setdefault((band.ratio, band.row, band.col), []).append(index)
    return list(found.values())


class ClosedForm(nn.Module):
    """Sharpens the coarse bands of one layout; see the module's text.

    Parameters
    ----------
    layout : sequence of BandGrid
    coefficients : dict
        As of `scenelift.models.sharpening.fitting.fit`.

    Raises
    ------
    ModelError
        If the layout has no guide or no coarse band, or the coefficients are not for it.
    """

    def __init__(self, layout: Sequence[BandGrid], coefficients: dict[str, Any]) -> None:
        super().__init__()
        self.layout = check_layout(layout)
        self.guides = guides(layout)
        self.groups = grids_of(layout)
        rows = coefficients["regression"]
        wanted = len(coarse(layout)), len(self.guides)
        if len(rows) != wanted[0] or any(len(row) != wanted[1] for row in rows):
            raise ModelError(f"coefficients are for other bands: {len(rows)} rows, the layout asks for {wanted}")
        by_band = dict(zip(coarse(layout), rows, strict=True))
        self.projections = nn.ModuleList(Projection([layout[i] for i in group]) for group in self.groups)
        for number, group in enumerate(self.groups):
            weights = torch.tensor([by_band[i] for i in group], dtype=torch.float32)[:, :, None, None]
            self.register_buffer(f"weights_{number}", weights, persistent=False)
        step = period(layout)
        self.halo = max(-(-self._halo(number) // step) * step for number in range(len(self.groups)))
        """Fine pixels on every side that are used up; a multiple of the period."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the core with all bands at fine resolution, (N, bands, H - 2 halo, W - 2 halo).

        Parameters
        ----------
        x : Tensor
            (N, bands, H, W) reflectance on the fine grid, coarse bands replicated.
        """
        with torch.autocast(x.device.type, enabled=False):
            h = self.halo
            out = crop(x, h).clone()
            for number, group in enumerate(self.groups):
                out[:, group] = self.sharpen(crop(x, h - self._halo(number)), number)
            return out

    def _halo(self, number: int) -> int:
        return self.projections[number].halo  # type: ignore[return-value]

    def sharpen(self, x: Tensor, number: int) -> Tensor:
        """Return the bands of one grid, smaller than ``x`` by the halo of its projection on every side."""
        projection = self.projections[number]
        assert isinstance(projection, Projection)
        predicted = nn.functional.conv2d(x[:, self.guides], self.get_buffer(f"weights_{number}"))
        return project(projection, predicted, projection.pick(x[:, self.groups[number]]))


def project(projection: Projection, predicted: Tensor, seen: Tensor) -> Tensor:
    """Return a prediction corrected so that the sensor would see in it what it saw.

    Parameters
    ----------
    projection : Projection
    predicted : Tensor
        (N, bands, H, W) fine pixels.
    seen : Tensor
        Coarse pixels, as of ``projection.pick``.

    Returns
    -------
    Tensor
        (N, bands, H - 2 halo, W - 2 halo).
    """
    return projection.crop(predicted) + projection.interpolate(seen - projection.observe(predicted))
