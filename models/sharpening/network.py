"""Sharpening with a network: the closed form, what a network adds to it, and the coarse band's word on the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.networks.sharpener import DetailNetwork, facts_of
from scenelift.models.sharpening.closed import ClosedForm, project
from scenelift.models.sharpening.layout import BandGrid, coarse, period
from scenelift.models.sharpening.projection import Projection

LAST_RADIUS = 3
"""Of the last correction: what the network adds hardly changes what the coarse band sees."""
LIMIT = 10.0
"""Inputs are held within so many times their usual size: clouds and glints stay in the range that was trained."""


class Sharpener(nn.Module):
    """The closed form, and a network's correction of it that the coarse bands agree with.

    Parameters
    ----------
    layout, coefficients
        As for `ClosedForm`.
    network : DetailNetwork
        Unpadded.

    Raises
    ------
    ModelError
        If the network is for another number of guides.
    """

    def __init__(self, layout: Sequence[BandGrid], coefficients: dict[str, Any], network: DetailNetwork) -> None:
        super().__init__()
        self.inputs = Inputs(layout, coefficients)
        closed = self.inputs.closed
        if network.guides != len(closed.guides):
            raise ModelError(f"the network is for {network.guides} guides, the scene has {len(closed.guides)}")
        self.layout, self.network = closed.layout, network
        self.last = nn.ModuleList(Projection([closed.layout[i] for i in group], LAST_RADIUS) for group in closed.groups)
        step = period(closed.layout)
        self.halo = max(-(-self._reach(number) // step) * step for number in range(len(closed.groups)))
        """Fine pixels on every side that are used up; a multiple of the period."""

    def _network_halo(self, number: int) -> int:
        ratio = self.inputs.projection(number).ratio
        return -(-self.network.halo // ratio) * ratio

    def _reach(self, number: int) -> int:
        last = self.last[number]
        assert isinstance(last, Projection)
        return self.inputs.projection(number).halo + self._network_halo(number) + last.halo

    def forward(self, x: Tensor) -> Tensor:
        """Return the core with all bands at fine resolution, as `ClosedForm.forward`."""
        out = crop(x, self.halo).clone()
        for number, group in enumerate(self.inputs.closed.groups):
            out[:, group] = self._sharpen(crop(x, self.halo - self._reach(number)), number)
        return out

    def _sharpen(self, x: Tensor, number: int) -> Tensor:
        """Return the bands of one grid; ``x`` reaches as far as they need."""
        closed, inputs = self.inputs(x, number)  # (N, bands, H, W), (N, bands, inputs, H, W)
        found = self.network(inputs.flatten(0, 1), self.inputs.facts(number).repeat(len(x), 1))
        found = crop(found.float(), self._network_halo(number) - self.network.halo)
        group, last = self.inputs.closed.groups[number], self.last[number]
        assert isinstance(last, Projection)
        with torch.autocast(x.device.type, enabled=False):
            added = found.reshape(*closed.shape[:2], *found.shape[2:]) * self.inputs.unit(number)
            predicted = crop(closed, self._network_halo(number)) + added
            used = self.inputs.projection(number).halo + self._network_halo(number)
            return project(last, predicted, last.pick(crop(x[:, group], used)))


class Inputs(nn.Module):
    """What the network sees of each coarse band, relative to constants of the scene.

    Parameters
    ----------
    layout, coefficients
        As for `ClosedForm`.
    """

    def __init__(self, layout: Sequence[BandGrid], coefficients: dict[str, Any]) -> None:
        super().__init__()
        self.closed = ClosedForm(layout, coefficients)
        closed = self.closed
        order = {index: row for row, index in enumerate(coarse(closed.layout))}
        count = len(closed.guides)
        self.by_guide = nn.ModuleList()
        for number, group in enumerate(closed.groups):
            bands = [closed.layout[i] for i in group]
            self.by_guide.append(Projection([band for band in bands for _ in range(count)]))
            rows = [order[i] for i in group]
            each = {
                "guide_detail": [coefficients["guide_detail"][row] for row in rows],
                "guide_level": [coefficients["guide_level"] for _ in rows],
                "detail": [[coefficients["detail"][row]] for row in rows],
                "level": [[coefficients["level"][row]] for row in rows],
            }
            for name, values in each.items():
                scale = torch.tensor(values, dtype=torch.float32)[:, :, None, None]
                self.register_buffer(f"{name}_{number}", scale, persistent=False)
            facts = torch.tensor([facts_of(band.mtf, band.ratio) for band in bands])
            self.register_buffer(f"facts_{number}", facts, persistent=False)

    def projection(self, number: int) -> Projection:
        """Return the filters of a grid."""
        found = self.closed.projections[number]
        assert isinstance(found, Projection)
        return found

    def facts(self, number: int) -> Tensor:
        """Return what the network is told of the bands of a grid, (bands, FACTS)."""
        return self.get_buffer(f"facts_{number}")

    def unit(self, number: int) -> Tensor:
        """Return the size of each band's detail, (bands, 1, 1): what the network's output is in units of."""
        return self.get_buffer(f"detail_{number}")[:, 0]

    def forward(self, x: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return the closed form and the network's inputs.

        Parameters
        ----------
        x : Tensor
            (N, bands, H, W) as for `ClosedForm.forward`.
        number : int
            Which grid's bands.

        Returns
        -------
        closed : Tensor
            (N, bands of the grid, H', W'), smaller by the halo of ``projection(number)`` on every side.
        inputs : Tensor
            (N, bands of the grid, 2 guides + 2, H', W').
        """
        closed, projection, by_guide = self.closed, self.projection(number), self.by_guide[number]
        assert isinstance(by_guide, Projection)
        group = closed.groups[number]
        with torch.autocast(x.device.type, enabled=False):
            sharp = closed.sharpen(x, number)
            smooth = projection.interpolate(projection.pick(x[:, group]))
            guides = x[:, closed.guides].repeat(1, len(group), 1, 1)  # (N, bands x guides, H, W)
            fine = projection.crop(guides)
            detail = fine - by_guide.interpolate(by_guide.observe(guides))

            def relative(values: Tensor, name: str) -> Tensor:
                scale = self.get_buffer(f"{name}_{number}")
                return values.reshape(len(x), *scale.shape[:2], *values.shape[2:]) / scale.clamp(min=1e-6)

            parts = [
                relative(detail, "guide_detail"),
                relative(fine, "guide_level") - 1,
                relative(sharp - smooth, "detail"),
                relative(smooth, "level") - 1,
            ]
            return sharp, torch.cat(parts, 2).clamp(-LIMIT, LIMIT)
