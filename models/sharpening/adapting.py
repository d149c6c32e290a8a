"""What the network's last layer is changed by in a scene: how the scene's own bands follow what the network sees.

One scale lower the truth is known (Wald et al., PE&RS 63(6), 1997), in every scene: what the network leaves there is
regressed on the features that its last layer adds up. The regression is drawn towards no change (ridge): another
scale is not quite the one that is to be found, however many pixels there are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.networks.layers import crop
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.sharpening.closed import grids_of
from scenelift.models.sharpening.fitting import LOWER, OwnGrid, fit, rounded
from scenelift.models.sharpening.layout import BandGrid, check_layout, coarse, guides
from scenelift.models.sharpening.network import Inputs, lacking
from scenelift.models.sharpening.projection import coarsened

RIDGE = 0.25
"""How strongly changes are drawn to none, in units of the features' mean squares: about the best on eight places."""
FEW = 1000
"""Pixels that count as much as a ridge of one: a handful of pixels changes nothing."""
ASIDE = 8
"""Coarse pixels beside an edge or a hole that tell nothing: what is seen there is continued, not known."""
LEAST_SIDE = 4 * ASIDE
"""Coarse pixels along each axis of a window that is used."""
MOST_WINDOWS = 8
"""Windows that are used, evenly taken from all: every one runs through the network in double precision."""


@dataclass(frozen=True)
class _Lower:
    """A window of the scene one scale lower."""

    images: NDArray[np.float32]
    """(bands, H, W): guides, then the bands of one grid, replicated."""
    truth: NDArray[np.float32]
    """(bands of the grid, H, W)."""
    known: NDArray[np.bool_]
    """(H, W)."""


def fit_network(
    samples: Sequence[NDArray[np.float32]], layout: Sequence[BandGrid], network: DetailNetwork
) -> dict[str, Any]:
    """Find what a scene's sharpening by a network is fitted with.

    Parameters
    ----------
    samples, layout
        As for `scenelift.models.sharpening.fitting.fit`.
    network : DetailNetwork
        Unpadded.

    Returns
    -------
    dict
        As of `fit`, and ``last_layer``: for each coarse band, what is added to the weights of the network's last layer
        at its centre, one a feature, and to its bias. None for bands that are not twice as coarse, whose own
        scale tells too little of the one that is wanted, and where no window tells enough.

    Raises
    ------
    ModelError
        As `fit`.
    """
    layout = check_layout(layout)
    found = fit(samples, layout)
    if network.guides != len(guides(layout)):  # which `Sharpener` refuses in words
        return found
    changes: dict[int, list[float] | None] = {}
    windows = samples[:: -(-len(samples) // MOST_WINDOWS)] if samples else ()
    for group in grids_of(layout):
        if layout[group[0]].ratio != LOWER:
            continue
        own, one_lower = OwnGrid(layout, group), _lower_layout(layout, group)
        lower = [each for each in (_lower(sample, own, one_lower) for sample in windows) if each is not None]
        if lower:
            changes |= zip(group, _changes(lower, one_lower, network), strict=True)
    return found | {"last_layer": [changes.get(i) for i in coarse(layout)]}


def _lower_layout(layout: tuple[BandGrid, ...], group: Sequence[int]) -> tuple[BandGrid, ...]:
    centre = (LOWER - 1) / 2
    bands = [replace(layout[i], ratio=LOWER, row=centre, col=centre) for i in group]
    return (*(layout[i] for i in guides(layout)), *bands)


def _lower(sample: NDArray[np.float32], own: OwnGrid, layout: tuple[BandGrid, ...]) -> _Lower | None:
    """Take a grid's own pixels for the fine ones: guides are brought onto it, and its bands are made coarser."""
    pixels = own.pixels(sample, LEAST_SIDE)
    if pixels is None:
        return None
    seen, led = pixels
    both = torch.cat([led, seen], 1)[0].numpy().astype(np.float32)
    known = np.asarray(np.isfinite(both).all(0))
    if not known.any():
        return None
    both = np.where(known, both, both[:, known].mean(1)[:, None, None]).astype(np.float32)
    count = led.shape[1]
    images, _, truth = coarsened(both[count:], both[:count], layout[count:])
    return _Lower(images, truth, _inside(known))


def _inside(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pixels have nothing but known ones around them."""
    holes = F.pad(torch.from_numpy(~known)[None, None].float(), (ASIDE,) * 4, value=1.0)
    return ~F.max_pool2d(holes, 2 * ASIDE + 1, stride=1)[0, 0].bool().numpy()


def _changes(
    windows: Sequence[_Lower], layout: tuple[BandGrid, ...], network: DetailNetwork
) -> list[list[float] | None]:
    """Return the changes of every band of one grid."""
    with torch.no_grad():
        known = [np.where(w.known, w.images, np.nan) for w in windows]
        seen_by = Inputs(layout, fit(known, layout)).double()
        double = copy.deepcopy(network).double()
        bands, size = len(layout) - network.guides, network.tail.in_channels + 1
        xx, xy = torch.zeros(bands, size, size).double(), torch.zeros(bands, size).double()
        count = 0
        for window in windows:
            inputs, missing = lacking(seen_by, window.images, window.truth, network.halo)
            at = torch.from_numpy(window.known)
            count += int(at.sum())
            for band in range(bands):
                features = double.features(inputs[band : band + 1], seen_by.facts(0)[band : band + 1])
                left = missing[band] - double.tail(features)[0, 0]
                x = torch.cat([crop(features, 1)[0, :, at], torch.ones(1, int(at.sum())).double()])
                xx[band] += x @ x.T
                xy[band] += x @ left[at]
    if not count:
        return [None] * bands
    return [_drawn(each / count, of / count, RIDGE + FEW / count) for each, of in zip(xx, xy, strict=True)]


def _drawn(xx: Tensor, xy: Tensor, ridge: float) -> list[float] | None:
    usual = xx.diagonal().mean()
    if not float(usual) > 0 or not bool(torch.isfinite(xx).all() and torch.isfinite(xy).all()):
        return None
    return rounded(torch.linalg.solve(xx + ridge * usual * torch.eye(len(xx)).double(), xy).numpy())
