"""Sums of a block that can be added; scores are made of the total once, at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from scenelift.pipeline.scores.areas import Area


@dataclass(frozen=True, eq=False)
class Coarse:
    """What a test image was made of, on a coarser grid with the same upper-left corner of the scene."""

    values: np.ndarray
    """Shape (C, h, w), in the unit of the others: the coarse pixels that touch the block's area."""
    factor: int
    """Test pixels per coarse pixel along each axis."""
    valid: np.ndarray
    """Boolean, same shape: pixels that are data."""

    @classmethod
    def whole(cls, values: np.ndarray, factor: int) -> Self:
        """Return an image whose finite pixels are data."""
        return cls(values, factor, np.isfinite(values))


@dataclass(frozen=True, eq=False)
class Block:
    """What is measured: part of a pair of images. Where one image is measured, it is ``test``."""

    reference: np.ndarray
    """Float64, shape (C, H, W): the block's core and its halo; invalid pixels are 0."""
    test: np.ndarray
    """The same of the image that is scored."""
    valid: np.ndarray
    """Boolean, shape (C, H, W): pixels that are data in both."""
    area: Area
    """Which pixels, cells and windows the block owns."""
    ranges: np.ndarray
    """Full scale of each band in the images' unit, shape (C,)."""
    coarse: Coarse | None = None
    """What ``test`` was made of, if it is known: scores of the kind "input" look at it."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Base of records whose fields are arrays of sums; ``+`` adds field by field.

    Addition is associative and commutative up to float64 rounding, so blocks may be summed in any order and
    grouping.
    """

    def __add__(self, other: Self) -> Self:
        names = [f.name for f in dataclasses.fields(self)]
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @staticmethod
    def weighted(parts: Sequence[Sums], weights: np.ndarray) -> Sums:
        """Return the sums of parts, each counted ``weights`` (draws, parts) times, as arrays (draws, ...)."""
        names = [f.name for f in dataclasses.fields(parts[0])]
        stacks = {name: np.stack([getattr(part, name) for part in parts]) for name in names}
        return type(parts[0])(**{name: np.tensordot(weights, stack, 1) for name, stack in stacks.items()})


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return ``top / bottom`` in float64, NaN where nothing was counted (``bottom`` is 0)."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
