"""Sharpening in closed form: what the fine bands predict, corrected until the coarse band would see what it saw.

A coarse band is taken for a fine one that its sensor blurred and sampled (A); K interpolates what it saw (C). The
detail D_j = P_j - K A P_j that the guides have beyond it is injected by regression, with coefficients that depend on
the ground, for which the guides' smooth levels L_m = K A P_m stand:

    S = K C + sum over j of (a_j + sum over m of b_jm L_m) D_j,   then S + K (C - A S)

It is regression-based detail injection with MTF-matched filters (Aiazzi et al., PE&RS 72(5), 2006; Vivone et al., IEEE
TIP 27(7), 2018), adaptive to the context (Aiazzi et al., IEEE TGRS 40(10), 2002) by coefficients that are a function
of the levels instead of a window's statistics; the residual is kriged as in area-to-point regression kriging (Wang et
al., RSE 156, 2015). The last step makes S agree with the coarse band whatever the guides say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.sharpening.layout import BandGrid, check_layout, coarse, guides, whole_periods
from scenelift.models.sharpening.projection import Projection, whole_float32

LAST_RADIUS = 3
"""Coarse pixels of the last correction: what is added by then hardly changes what the coarse band sees."""
MOST_SPREADS = 3.0
"""Standard deviations from the mean beyond which a level counts as this far: clouds are no context of their own."""


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
        order = {index: row for row, index in enumerate(coarse(layout))}
        self.rows = [[order[i] for i in group] for group in self.groups]
        """For each grid, which of the coarse bands its bands are: what a scene is fitted with goes by these."""
        self.projections, self.by_guide, self.last = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number, group in enumerate(self.groups):
            bands = [self.layout[i] for i in group]
            self.projections.append(Projection(bands))
            self.by_guide.append(Projection([band for band in bands for _ in self.guides]))
            self.last.append(Projection(bands, LAST_RADIUS))
            weights = [[rows[row], *coefficients["context"][row]] for row in self.rows[number]]
            # (bands, 1 + levels, guides): with five axes it would be taken for a kernel and put into another format
            self._keep(f"weights_{number}", weights, 0)
        self._keep("mean", coefficients["guide_level"], 2)
        self._keep("spread", coefficients["guide_spread"], 2)
        self.halo = whole_periods(layout, max(map(self._reach, range(len(self.groups)))))
        """Fine pixels on every side that are used up; a multiple of the period."""

    def _keep(self, name: str, values: list[Any], axes: int) -> None:
        tensor = torch.tensor(values, dtype=torch.float32)
        self.register_buffer(name, tensor.reshape(*tensor.shape, *(1,) * axes), persistent=False)

    def projection(self, number: int) -> Projection:
        """Return the filters of a grid."""
        found = self.projections[number]
        assert isinstance(found, Projection)
        return found

    def correction(self, number: int) -> Projection:
        """Return the filters of a grid for the last step."""
        found = self.last[number]
        assert isinstance(found, Projection)
        return found

    def _reach(self, number: int) -> int:
        return self.projection(number).halo + self.correction(number).halo

    def forward(self, x: Tensor) -> Tensor:
        """Return the core with all bands at fine resolution, (N, bands, H - 2 halo, W - 2 halo).

        Parameters
        ----------
        x : Tensor
            (N, bands, H, W) reflectance on the fine grid, coarse bands replicated.
        """
        with whole_float32(x.device):
            out = crop(x, self.halo).clone()
            for number, group in enumerate(self.groups):
                wide = crop(x, self.halo - self._reach(number))
                last, used = self.correction(number), self.projection(number).halo
                found = self.predict(wide, number)
                out[:, group] = project(last, found.sharp, last.pick(crop(wide[:, group], used)))
            return out

    def predict(self, x: Tensor, number: int) -> Predicted:
        """Return the bands of one grid before the last step, and what they were made of.

        Parameters
        ----------
        x : Tensor
            (N, bands, H, W). Results are smaller by the halo of ``projection(number)`` on every side.
        number : int
            Which grid's bands.
        """
        projection, by_guide = self.projection(number), self.by_guide[number]
        assert isinstance(by_guide, Projection)
        group, count = self.groups[number], len(self.guides)
        smooth = projection.interpolate(projection.pick(x[:, group]))
        guides = x[:, self.guides].repeat(1, len(group), 1, 1)  # (N, bands x guides, H, W)
        fine = projection.crop(guides)
        level = by_guide.interpolate(by_guide.observe(guides))
        shape = len(x), len(group), count, *fine.shape[2:]
        detail, level = (fine - level).reshape(shape), level.reshape(shape)
        gains = self.gains(level, number)
        return Predicted(smooth + (gains * detail).sum(2), smooth, fine.reshape(shape), detail)

    def gains(self, level: Tensor, number: int) -> Tensor:
        """Return by what the guides' details are multiplied, (N, bands, guides, H, W), where their levels are these."""
        context = standardized(level, self.get_buffer("mean"), self.get_buffer("spread"))
        weights = self.get_buffer(f"weights_{number}")[..., None, None]  # (bands, 1 + levels, guides, 1, 1)
        more = sum(context[:, :, m, None] * weights[:, 1 + m] for m in range(len(self.guides)))
        return weights[:, 0] + more


@dataclass(frozen=True)
class Predicted:
    """Bands of one grid before the last step."""

    sharp: Tensor
    """(N, bands, H, W)."""
    smooth: Tensor
    """What was interpolated of the coarse bands, same shape."""
    guides: Tensor
    """(N, bands, guides, H, W)."""
    detail: Tensor
    """What each guide has beyond what the band's sensor would see of it, same shape."""


def standardized(level: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return levels relative to their mean and spread in the scene, held within ``MOST_SPREADS``; 0 without spread."""
    known = spread > 0
    return torch.where(known, (level - mean) / torch.where(known, spread, 1), 0).clamp(-MOST_SPREADS, MOST_SPREADS)


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
