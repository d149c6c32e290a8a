"""Sharpening with a network: the closed form, what a network adds to it, and the coarse band's word on the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.networks.sharpener import DetailNetwork, facts_of
from scenelift.models.sharpening.closed import ClosedForm, Predicted, project
from scenelift.models.sharpening.layout import BandGrid, coarse, whole_periods
from scenelift.models.sharpening.projection import whole_float32

LIMIT = 10.0
"""Inputs are held within so many times their usual size: clouds and glints stay in the range that was trained."""


class Sharpener(nn.Module):
    """The closed form, and before its last step a network's correction of it.

    Parameters
    ----------
    layout, coefficients
        As for `ClosedForm`.
    network : DetailNetwork
        Unpadded.

    Raises
    ------
    ModelError
        If it is another kind of network, or one for another number of guides.
    """

    def __init__(self, layout: Sequence[BandGrid], coefficients: dict[str, Any], network: nn.Module) -> None:
        super().__init__()
        self.inputs = Inputs(layout, coefficients)
        closed = self.inputs.closed
        if not isinstance(network, DetailNetwork):
            raise ModelError(f"sharpening needs a network of the kind 'sharpener', got {type(network).__name__}")
        if network.guides != len(closed.guides):
            raise ModelError(f"the network is for {network.guides} guides, the scene has {len(closed.guides)}")
        self.layout, self.network = closed.layout, network
        self.halo = whole_periods(closed.layout, max(map(self._reach, range(len(closed.groups)))))
        """Fine pixels on every side that are used up; a multiple of the period."""

    def _network_halo(self, number: int) -> int:
        ratio = self.inputs.closed.projection(number).ratio
        return -(-self.network.halo // ratio) * ratio

    def _reach(self, number: int) -> int:
        closed = self.inputs.closed
        return closed.projection(number).halo + self._network_halo(number) + closed.correction(number).halo

    def forward(self, x: Tensor) -> Tensor:
        """Return the core with all bands at fine resolution, as `ClosedForm.forward`."""
        out = crop(x, self.halo).clone()
        for number, group in enumerate(self.inputs.closed.groups):
            out[:, group] = self._sharpen(crop(x, self.halo - self._reach(number)), number)
        return out

    def _sharpen(self, x: Tensor, number: int) -> Tensor:
        """Return the bands of one grid; ``x`` reaches as far as they need."""
        closed, halo = self.inputs.closed, self._network_halo(number)
        predicted, inputs = self.inputs(x, number)
        found = self.network(inputs.flatten(0, 1), self.inputs.facts(number).repeat(len(x), 1)).float()
        found = crop(found, halo - self.network.halo)
        with whole_float32(x.device):
            added = found.reshape(*predicted.sharp.shape[:2], *found.shape[2:]) * self.inputs.unit(number)
            last = closed.correction(number)
            seen = last.pick(crop(x[:, closed.groups[number]], closed.projection(number).halo + halo))
            return project(last, crop(predicted.sharp, halo) + added, seen)


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
        order = {index: row for row, index in enumerate(coarse(self.closed.layout))}
        for number, group in enumerate(self.closed.groups):
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
            facts = torch.tensor([facts_of(self.closed.layout[i].mtf, self.closed.layout[i].ratio) for i in group])
            self.register_buffer(f"facts_{number}", facts, persistent=False)

    def facts(self, number: int) -> Tensor:
        """Return what the network is told of the bands of a grid, (bands, FACTS)."""
        return self.get_buffer(f"facts_{number}")

    def unit(self, number: int) -> Tensor:
        """Return the size of each band's detail, (bands, 1, 1): what the network's output is in units of."""
        return self.get_buffer(f"detail_{number}")[:, 0]

    def forward(self, x: Tensor, number: int) -> tuple[Predicted, Tensor]:
        """Return the closed form before its last step, and the network's inputs (N, bands, 2 guides + 2, H', W').

        Parameters
        ----------
        x : Tensor
            (N, bands, H, W) as for `ClosedForm.forward`; results are smaller by the halo of ``projection(number)``.
        number : int
            Which grid's bands.
        """
        with whole_float32(x.device):
            found = self.closed.predict(x, number)

            def relative(values: Tensor, name: str) -> Tensor:
                return values / self.get_buffer(f"{name}_{number}").clamp(min=1e-6)

            parts = [
                relative(found.detail, "guide_detail"),
                relative(found.guides, "guide_level") - 1,
                relative((found.sharp - found.smooth)[:, :, None], "detail"),
                relative(found.smooth[:, :, None], "level") - 1,
            ]
            return found, torch.cat(parts, 2).clamp(-LIMIT, LIMIT)
