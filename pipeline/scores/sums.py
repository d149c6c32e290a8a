"""Sums that add: the form every score takes until the last block has been seen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Sums:
    """Base of records whose fields are arrays or records of sums; ``+`` adds field by field.

    Addition is associative and commutative up to float64 rounding, so blocks may be summed in any order and
    grouping. A field that is None was not measured; it must be None on both sides.
    """

    def __add__(self, other: Self) -> Self:
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return type(self)(**{name: None if mine is None else mine + theirs for name, mine, theirs in pairs})


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return ``top / bottom`` in float64, NaN where nothing was counted (``bottom`` is 0)."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
