"""What a method is fitted to: a scene, or an image, that can be looked at by windows."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
STEP = 1e-6
"""Reflectance of one step of packed numbers."""


class View(Protocol):
    """A scene as a method sees it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        ...

    @property
    def bands(self) -> int:
        """Number of bands."""
        ...

    @property
    def sample(self) -> Sequence[Values]:
        """Reflectance of a fixed sample of windows, (C, h, w) each, NaN where there is no data."""
        ...

    def read(self, row: int, col: int, height: int, width: int) -> Values:
        """Return the reflectance (C, height, width) of one window, NaN where there is no data."""
        ...


@dataclass(frozen=True)
class ImageView:
    """An image in memory, (C, H, W) reflectance, NaN where there is no data."""

    values: Values

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.values)

    @property
    def sample(self) -> Sequence[Values]:
        """The image itself."""
        return [self.values]

    def read(self, row: int, col: int, height: int, width: int) -> Values:
        """Return one window."""
        return self.values[:, row : row + height, col : col + width]


def pixels(view: View) -> list[NDArray[np.float32]]:
    """Return the sample's pixels of each band that have data, (n,) each; one pixel of 0 where no pixel has."""
    found = []
    for band in range(view.bands):
        plain = np.concatenate([window[band].ravel() for window in view.sample])
        plain = plain[np.isfinite(plain)]
        found.append(plain if len(plain) else np.zeros(1, np.float32))
    return found


def rounded(values: Any, digits: int = 5) -> list[float]:
    """Return numbers to so many significant digits: another processor's last bits must not make another job."""
    return [float(f"{float(v):.{digits}g}") for v in values]


def pack(values: NDArray[np.floating]) -> str:
    """Return an array's numbers as text, to the nearest `STEP`."""
    whole = np.rint(np.asarray(values, np.float64) / STEP).astype("<i4")
    return base64.b64encode(zlib.compress(whole.tobytes(), 9)).decode("ascii")


def unpack(text: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the array that `pack` made a text of."""
    whole = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4")
    return whole.reshape(shape) * STEP
