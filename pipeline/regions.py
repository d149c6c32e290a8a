"""Pixels of a scene in memory: what reading gives and models work on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.tiles import Window


@dataclass(frozen=True)
class Region:
    """Pixels of a scene in memory."""

    window: Window
    """Where they lie in the scene."""
    values: NDArray[np.float32]
    """Reflectance, shape (C, height, width)."""
    valid: NDArray[np.bool_]
    """False where there is no data, shape (C, height, width)."""

    def __post_init__(self) -> None:
        if self.values.shape != self.valid.shape or self.values.shape[1:] != self.window.shape:
            raise UsageError(
                f"a region of {self.window.shape} pixels got values {self.values.shape}, mask {self.valid.shape}"
            )

    def crop(self, window: Window) -> Region:
        """Return the part at `window`, which must lie inside."""
        rows, cols = window.slices(self.window)
        return Region(window, self.values[:, rows, cols], self.valid[:, rows, cols])

    def with_nan(self) -> NDArray[np.float32]:
        """Return the values, NaN where there is no data."""
        return np.where(self.valid, self.values, np.float32("nan"))

    @property
    def whole(self) -> bool:
        """Whether every pixel has data."""
        one = tuple(slice(1) if step == 0 else slice(None) for step in self.valid.strides)
        return bool(self.valid[one].all())  # of what is the same along an axis, the first is enough
