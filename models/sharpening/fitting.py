"""What is found once a scene: how the guides' detail becomes a coarse band's, and whether the grids fit together.

The truth is not known at the fine scale, but one scale lower it is (Wald et al., PE&RS 63(6), 1997): the coarse band is
blurred and sampled by two, the guides are brought to the coarse grid, and the detail that is then missing is regressed
on theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.sharpening.closed import grids_of, standardized
from scenelift.models.sharpening.layout import BandGrid, check_layout, coarse, guides
from scenelift.models.sharpening.projection import Projection

LOWER = 2
"""How much coarser than the coarse band the fit is made: the scales next to those that are to be found."""
RADIUS = 3
"""Of the interpolation in the fit: less than in a scene, so that small samples have something left."""
EDGE = 6
"""Coarse pixels at a sample's edge that are left out where there are plenty."""
RIDGE = 1e-6
CONTEXT_RIDGE = 1e-3
"""Of the coefficients that depend on the levels, relative to the square of what they multiply."""
LEAST = 10
"""Pixels for each coefficient, without which none depends on the levels."""
DIGITS = 6
"""Significant digits of the coefficients, so that they do not differ between processors."""
SHIFT_GAIN = 0.05
"""Share by which shifted guides must explain more before a shift is believed."""


@dataclass
class _Normal:
    """Normal equations of one band's regression, summed over samples."""

    guides: int
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: float = 0.0
    count: int = 0

    def add(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Add pixels: ``x`` (guides, n), ``y`` (n,)."""
        self.xx += x @ x.T
        self.xy += x @ y
        self.yy += float(y @ y)
        self.count += len(y)

    def solve(self) -> NDArray[np.float64]:
        """Return the coefficients, those of the context drawn towards zero."""
        scale = np.sqrt(np.diag(self.xx))
        if not scale.max() > 0:
            return np.zeros(len(self.xx))
        if self.count < LEAST * len(scale) > LEAST * self.guides:  # too few to tell contexts apart
            few = _Normal(
                self.guides, self.xx[: self.guides, : self.guides], self.xy[: self.guides], self.yy, self.count
            )
            return np.concatenate([few.solve(), np.zeros(len(scale) - self.guides)])
        scale = np.where(scale > 0, scale, 1.0)
        ridge = np.where(np.arange(len(self.xx)) < self.guides, RIDGE, CONTEXT_RIDGE)
        found: NDArray[np.float64] = np.linalg.solve(self.xx / scale / scale[:, None] + np.diag(ridge), self.xy / scale)
        return found / scale

    def unexplained(self) -> float:
        """Return the share of the variance that the regression leaves."""
        return 1.0 - float(self.solve() @ self.xy) / self.yy if self.yy > 0 else 1.0


def fit(samples: Sequence[NDArray[np.float32]], layout: Sequence[BandGrid]) -> dict[str, Any]:
    """Find the coefficients of a scene's sharpening.

    Parameters
    ----------
    samples : sequence of ndarray of float32, shape (bands, H, W)
        Windows on the fine grid, coarse bands replicated, that start at multiples of the layout's period; NaN where
        there is no data. Always the same ones for a scene: the result decides the output.
    layout : sequence of BandGrid

    Returns
    -------
    dict
        Plain numbers: ``regression``, for each coarse band one coefficient a guide; ``context``, for each coarse band
        and each guide's level those by which they change; ``detail`` and ``guide_detail``, root mean squares of the
        detail one scale lower of each coarse band and, for each, of the guides; ``level`` and ``guide_level``, means;
        ``guide_spread``, standard deviations. Zeros where the samples hold no pixel that can be used.

    Raises
    ------
    ModelError
        If the layout cannot be sharpened, or samples do not fit it.
    """
    layout = _checked(samples, layout)
    mean, spread = _levels(samples, layout)
    found = _normals(samples, layout, context=(mean, spread))
    rows, count = [found[i] for i in coarse(layout)], len(guides(layout))
    solved = [row.solve() for row in rows]
    return {
        "regression": [rounded(each[:count]) for each in solved],
        "context": [[rounded(part) for part in each[count:].reshape(count, count)] for each in solved],
        "detail": rounded(np.array([np.sqrt(row.yy / max(1, row.count)) for row in rows])),
        "guide_detail": [rounded(np.sqrt(np.diag(row.xx)[:count] / max(1, row.count))) for row in rows],
        "level": rounded(mean[coarse(layout)]),
        "guide_level": rounded(mean[guides(layout)]),
        "guide_spread": rounded(spread[guides(layout)]),
    }


def shift_of_guides(samples: Sequence[NDArray[np.float32]], layout: Sequence[BandGrid]) -> list[str]:
    """Return a warning for each coarse grid that guides moved by a pixel would explain clearly better.

    Parameters
    ----------
    samples, layout
        As for `fit`.
    """
    layout = _checked(samples, layout)
    moves = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    left = {move: {i: normal.unexplained() for i, normal in _normals(samples, layout, move).items()} for move in moves}
    lines = []
    for group in grids_of(layout):
        mean = {move: float(np.mean([left[move][i] for i in group])) for move in moves}
        best = min(moves, key=lambda move: mean[move])
        if best != (0, 0) and mean[best] < (1 - SHIFT_GAIN) * mean[0, 0]:
            names = ", ".join(layout[i].name or f"band {i + 1}" for i in group)
            lines.append(
                f"guides seem shifted by ({best[0]:+d}, {best[1]:+d}) pixels against {names}: moved back they would "
                f"leave {100 * mean[best]:.0f} % of its detail unexplained instead of {100 * mean[0, 0]:.0f} %; "
                "check the georeference of the two"
            )
    return lines


def _checked(samples: Sequence[NDArray[np.float32]], layout: Sequence[BandGrid]) -> tuple[BandGrid, ...]:
    layout = check_layout(layout)
    for sample in samples:
        if sample.ndim != 3 or len(sample) != len(layout):
            raise ModelError(f"a sample must be (bands, height, width) of {len(layout)} bands, got {sample.shape}")
    return layout


Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and standard deviation of every band."""


def _normals(
    samples: Sequence[NDArray[np.float32]],
    layout: tuple[BandGrid, ...],
    move: tuple[int, int] = (0, 0),
    context: Moments | None = None,
) -> dict[int, _Normal]:
    """Return the normal equations of every coarse band; without a context those of the guides' detail alone."""
    count = len(guides(layout))
    size = count if context is None else count * (1 + count)
    found = {i: _Normal(count, np.zeros((size, size)), np.zeros(size)) for i in coarse(layout)}
    for group in grids_of(layout):
        tools = _Tools(layout, group, context)
        for sample in samples:
            for index, x, y in tools.details(sample, move):
                found[index].add(x, y)
    return found


class OwnGrid:
    """The filters that bring one grid's bands, and the guides, onto that grid's own pixels."""

    def __init__(self, layout: tuple[BandGrid, ...], group: Sequence[int]) -> None:
        first = layout[group[0]]
        self.group, self.guides, self.ratio = group, guides(layout), first.ratio
        self.bands = Projection([layout[i] for i in group]).double()
        at = first.ratio, first.row, first.col
        self.down = Projection([BandGrid(*at, layout[i].mtf) for i in self.guides]).double()
        self.margin = max(self.bands.margin, self.down.margin)

    def pixels(
        self, sample: NDArray[np.float32], least: int, move: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Tensor] | None:
        """Return the coarse pixels of the bands and those that their sensor would see of the guides, in float64.

        Parameters
        ----------
        sample : ndarray of float32, shape (bands, H, W)
            As for `fit`.
        least : int
            Coarse pixels along each axis, below which the sample is of no use.
        move : (int, int)
            Fine pixels by which the guides are taken further on.

        Returns
        -------
        (Tensor, Tensor) or None
            (1, bands of the grid, h, w) and (1, guides, h, w); h and w are multiples of `LOWER`.
        """
        if min(sample.shape[1:]) // self.ratio - 2 * self.margin < least:
            return None
        x = torch.from_numpy(np.ascontiguousarray(sample, np.float64))[None]
        seen = crop(self.bands.pick(x[:, self.group]), self.margin - self.bands.margin)
        led = crop(self.down.observe(_moved(x[:, self.guides], move)), self.margin - self.down.margin)
        rows, cols = (side // LOWER * LOWER for side in seen.shape[2:])
        return seen[:, :, :rows, :cols], led[:, :, :rows, :cols]


class _Tools:
    """The filters that bring one grid's bands and the guides one scale lower."""

    def __init__(self, layout: tuple[BandGrid, ...], group: list[int], context: Moments | None) -> None:
        self.own = OwnGrid(layout, group)
        leaders = self.own.guides
        self.context = None if context is None else [torch.from_numpy(v[leaders])[:, None, None] for v in context]
        centre = (LOWER - 1) / 2
        self.lower = [
            Projection([BandGrid(LOWER, centre, centre, layout[i].mtf)] * (1 + len(leaders)), RADIUS).double()
            for i in group
        ]

    def details(
        self, sample: NDArray[np.float32], move: tuple[int, int]
    ) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
        """Yield each band's number, the guides' detail (guides, n) and its own (n,) one scale lower."""
        found = self.own.pixels(sample, 2 * LOWER, move)
        if found is None:
            return
        seen, led = found
        for number, (index, lower) in enumerate(zip(self.own.group, self.lower, strict=True)):
            stack = torch.cat([seen[:, number : number + 1], led], 1)
            wide = _mirrored(stack, lower.halo)
            detail = (stack - lower.interpolate(lower.observe(wide)))[0]
            if self.context:
                level = standardized(stack[0, 1:] - detail[1:], *self.context)
                products = (level[:, None] * detail[1:]).flatten(0, 1)  # by level, then by guide
                detail = torch.cat([detail, products])
            edge = EDGE if min(seen.shape[2:]) > 4 * EDGE else 0
            flat = crop(detail, edge).flatten(1).numpy()
            flat = flat[:, np.isfinite(flat).all(axis=0)]
            yield index, flat[1:], flat[0]


def _moved(x: Tensor, move: tuple[int, int]) -> Tensor:
    """Return fine pixels taken ``move`` further on."""
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows, cols = (1 + step for step in move)
    return wide[:, :, rows : rows + x.shape[2], cols : cols + x.shape[3]]


def _mirrored(x: Tensor, halo: int) -> Tensor:
    """Continue an image by reflection, as often as it takes; sides stay multiples of ``LOWER``."""
    for axis in (2, 3):
        size = x.shape[axis]
        at = torch.arange(-halo, size + halo) % (2 * size)
        x = x.index_select(axis, torch.minimum(at, 2 * size - 1 - at))
    return x


def _levels(samples: Sequence[NDArray[np.float32]], layout: tuple[BandGrid, ...]) -> Moments:
    """Return mean and standard deviation of every band; zeros for one without data."""
    found = []
    for band in range(len(layout)):
        values = np.concatenate([np.asarray(s[band], np.float64).ravel() for s in samples])
        known = values[np.isfinite(values)]
        found.append((float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0))
    mean, spread = np.array(found).T
    return mean, spread


def rounded(values: NDArray[np.float64]) -> list[float]:
    """Return numbers of a fit as they are kept: ``DIGITS`` significant digits."""
    return [float(f"{value:.{DIGITS}g}") for value in values]
