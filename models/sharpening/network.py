"""Sharpening with a network: the closed form, what this place and a network add to it, and the coarse band's word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.networks.sharpener import ASIDE, GUIDES, DetailNetwork, facts_of
from scenelift.models.sharpening.closed import ClosedForm, Predicted, project
from scenelift.models.sharpening.layout import BandGrid, coarse, whole_periods
from scenelift.models.sharpening.local import REACH, LocalGains
from scenelift.models.sharpening.projection import mirrored, whole_float32

Image = NDArray[np.float32]
LEAST = 1e-6
"""Reflectance that counts as a band's usual size if it is smaller."""
LIMIT = 10.0
"""Inputs are held within so many times their usual size: clouds and glints stay in the range that was trained."""


class Sharpener(nn.Module):
    """The closed form, and before its last step what its gains are here and a network's correction.

    Parameters
    ----------
    layout, coefficients
        As for `ClosedForm`; those of `scenelift.models.sharpening.adapting.fit_network` change the last layer too.
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
            raise ModelError(
                f"the network is for {network.guides} guides, the scene has {len(closed.guides)}; use -m sharpen-closed"
            )
        _check_guides([closed.layout[i] for i in closed.guides])
        self.layout, self.network = closed.layout, network
        changes = coefficients.get("last_layer") or [None] * len(coarse(closed.layout))
        for number, rows in enumerate(closed.rows):
            weights, biases = zip(*(_changed_last(network, changes[row]) for row in rows), strict=True)
            self.register_buffer(f"last_weights_{number}", torch.stack(weights), persistent=False)
            self.register_buffer(f"last_biases_{number}", torch.stack(biases), persistent=False)
        self.halo = whole_periods(closed.layout, max(map(self._reach, range(len(closed.groups)))))
        """Fine pixels on every side that are used up; a multiple of the period."""

    def _network_halo(self, number: int) -> int:
        ratio = self.inputs.closed.projection(number).ratio
        return -(-self.network.halo // ratio) * ratio

    def _reach(self, number: int) -> int:
        closed = self.inputs.closed
        return self.inputs.halo(number) + self._network_halo(number) + closed.correction(number).halo

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
        facts = self.inputs.facts(number).repeat(len(x), 1)
        # one by one and channels last: 0.4 GB less in a worker with two coarse grids, and half the time
        bands = zip(inputs.flatten(0, 1).split(1), facts.split(1), strict=True)
        count = len(closed.groups[number])
        each = [
            self._detail(maps.contiguous(memory_format=torch.channels_last), told, number, index % count)
            for index, (maps, told) in enumerate(bands)
        ]
        found = torch.cat(each).float()
        found = crop(found, halo - self.network.halo)
        with whole_float32(x.device):
            added = found.reshape(*predicted.sharp.shape[:2], *found.shape[2:]) * self.inputs.unit(number)
            last = closed.correction(number)
            seen = last.pick(crop(x[:, closed.groups[number]], self.inputs.halo(number) + halo))
            return project(last, crop(predicted.sharp, halo) + added, seen)

    def _detail(self, maps: Tensor, told: Tensor, number: int, band: int) -> Tensor:
        """Return what the network finds for one band of a grid, by the band's own last layer."""
        weights, biases = (self.get_buffer(f"last_{part}_{number}") for part in ("weights", "biases"))
        return F.conv2d(self.network.features(maps, told), weights[band : band + 1], biases[band : band + 1])


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
        for number, (group, rows) in enumerate(zip(self.closed.groups, self.closed.rows, strict=True)):
            each = {
                "guide_detail": [coefficients["guide_detail"][row] for row in rows],
                "guide_level": [coefficients["guide_level"] for _ in rows],
                "detail": [[coefficients["detail"][row]] for row in rows],
                "level": [[coefficients["level"][row]] for row in rows],
            }
            for name, values in each.items():
                scale = torch.tensor(values, dtype=torch.float32)[:, :, None, None]
                self.register_buffer(f"{name}_{number}", scale, persistent=False)
            facts = torch.tensor([_facts(self.closed.layout[i]) for i in group])
            self.register_buffer(f"facts_{number}", facts, persistent=False)
        own = [self.closed.layout[i] for i in self.closed.guides]
        known = all(band.wavelength for band in own)
        self.order = sorted(range(len(own)), key=lambda i: own[i].wavelength) if known else list(range(len(own)))
        """Of the guides as the network sees them: from the shortest wavelength to the longest."""
        groups = [[self.closed.layout[i] for i in group] for group in self.closed.groups]
        self.local = nn.ModuleList(LocalGains(bands, own) for bands in groups)

    def facts(self, number: int) -> Tensor:
        """Return what the network is told of the bands of a grid, (bands, FACTS)."""
        return self.get_buffer(f"facts_{number}")

    def unit(self, number: int) -> Tensor:
        """Return the size of each band's detail, (bands, 1, 1): what the network's output is in units of."""
        return self.get_buffer(f"detail_{number}")[:, 0]

    def halo(self, number: int) -> int:
        """Return the fine pixels on every side that are used up for the bands of a grid."""
        projection, local = self.closed.projection(number), self._local(number)
        return max(projection.halo, projection.ratio * (max(projection.margin, local.margin) + REACH))

    def _local(self, number: int) -> LocalGains:
        found = self.local[number]
        assert isinstance(found, LocalGains)
        return found

    def forward(self, x: Tensor, number: int) -> tuple[Predicted, Tensor]:
        """Return what the network adds to, and what it sees, (N, bands, `inputs_of` guides, H', W').

        Parameters
        ----------
        x : Tensor
            (N, bands, H, W) as for `ClosedForm.forward`; results are smaller by ``halo(number)``.
        number : int
            Which grid's bands.
        """
        with whole_float32(x.device):
            found = self.closed.predict(crop(x, self.halo(number) - self.closed.projection(number).halo), number)
            local = self._changed(x, number, found.detail)
            found = replace(found, sharp=found.sharp + local)

            def relative(values: Tensor, name: str) -> Tensor:
                return values / self.get_buffer(f"{name}_{number}").clamp(min=LEAST)

            parts = [
                relative(found.detail, "guide_detail")[:, :, self.order],
                (relative(found.guides, "guide_level") - 1)[:, :, self.order],
                relative((found.sharp - found.smooth)[:, :, None], "detail"),
                relative(local[:, :, None], "detail"),
                relative(found.smooth[:, :, None], "level") - 1,
            ]
            return found, torch.cat(parts, 2).clamp(-LIMIT, LIMIT)

    def _changed(self, x: Tensor, number: int, detail: Tensor) -> Tensor:
        """Return what the guides' details (N, bands, guides, H', W') count for more here, (N, bands, H', W')."""
        closed, local = self.closed, self._local(number)
        projection = closed.projection(number)
        margin = max(projection.margin, local.margin)
        wide = crop(x, self.halo(number) - projection.ratio * (margin + REACH))
        seen = projection.pick(crop(wide[:, closed.groups[number]], projection.ratio * (margin - projection.margin)))
        fine = crop(wide[:, closed.guides], projection.ratio * (margin - local.margin))
        scale = self.get_buffer(f"guide_detail_{number}").clamp(min=LEAST)
        details, levels = local.levels(seen, fine)
        gains = closed.gains(levels[:, :, 1:], number)
        changes = local.on_fine(
            local.changes(details, gains, scale), margin + REACH - 1, projection.ratio * (margin + REACH)
        )
        usual = (detail / scale).clamp(-LIMIT, LIMIT)  # the edge of a bright roof is not how its field follows
        return (changes * usual).sum(2)


def lacking(module: Inputs, images: Image, truth: Image, beyond: int = 0) -> tuple[Tensor, Tensor]:
    """Return what a network sees of an image whose truth is known, and what the closed form lacks of that.

    Parameters
    ----------
    module : Inputs
        Of one coarse grid.
    images : ndarray of float32, shape (bands, H, W)
        As `ClosedForm` takes them, without holes; continued by reflection.
    truth : ndarray of float32, shape (coarse bands, H, W)
    beyond : int
        Pixels on every side by which the first result reaches further.

    Returns
    -------
    Tensor
        (coarse bands, inputs, H + 2 beyond, W + 2 beyond).
    Tensor
        (coarse bands, H, W), in units of each band's detail.
    """
    closed, dtype = module.closed, module.unit(0).dtype
    first, last = module.halo(0), closed.correction(0)
    reach = max(beyond, last.halo)
    wide = torch.from_numpy(mirrored(images, first + reach, (first + reach,) * 2))[None].to(dtype)
    with torch.no_grad():
        found, inputs = module(wide, 0)
        used = reach - last.halo
        seen = last.pick(crop(wide[:, closed.groups[0]], first + used))
        sharp = project(last, crop(found.sharp, used), seen)[0]
        missing = (torch.from_numpy(truth).to(dtype) - sharp) / module.unit(0).clamp(min=LEAST)
        return crop(inputs, reach - beyond)[0], missing


def _changed_last(network: DetailNetwork, change: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Return weights (channels, 3, 3) and bias of the last layer for a band."""
    weights, bias = network.tail.weight.detach()[0].float().clone(), network.tail.bias
    assert bias is not None
    bias = bias.detach()[0].float().clone()
    if change is not None:
        told = torch.tensor(change, dtype=torch.float32)
        weights[:, 1, 1] += told[:-1]
        bias += told[-1]
    return weights, bias


def _facts(band: BandGrid) -> list[float]:
    return facts_of(band.mtf, band.ratio, band.wavelength)


def _check_guides(guides: Sequence[BandGrid]) -> None:
    """Refuse guides of which it is known that they are of other wavelengths than those that were learned from."""
    if len(guides) != len(GUIDES) or not all(band.wavelength for band in guides):
        return
    for band, wanted in zip(sorted(guides, key=lambda band: band.wavelength), GUIDES, strict=True):
        if abs(math.log(band.wavelength / wanted)) > ASIDE:
            listed = ", ".join(f"{at:g}" for at in GUIDES)
            raise ModelError(
                f"the network knows guides near {listed} nm, {band.name or 'one'} lies at {band.wavelength:g} nm; "
                "use -m sharpen-closed"
            )
