"""A torch dataset of windows of a scene, read when they are asked for: nothing is cut, nothing is copied."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window


class Sample(TypedDict):
    """One window."""

    image: Tensor
    """(C, S, S) float32 reflectance, 0 where there is no data."""
    valid: Tensor
    """(S, S) bool, where every band has data."""
    at: Tensor
    """(2,) row and column of the upper-left pixel."""


class SceneWindows(Dataset[Sample]):
    """Windows of an enhanced Zarr, or of any scene that `scenelift enhance` reads.

    Each process opens the scene for itself on its first window, so it works with any number of loader workers.

    Parameters
    ----------
    source : SceneSource or path
    side : int
        Pixels a side.
    stride : int, optional
        Pixels from one window to the next; default: the side. The last row and column are moved inside.

    Raises
    ------
    UsageError
        If the scene is smaller than a window.
    """

    def __init__(self, source: SceneSource | str | Path, side: int = 64, stride: int | None = None) -> None:
        self.source = source if isinstance(source, SceneSource) else SceneSource((str(source),))
        self.side = side
        self._scene: Scene | None = None
        shape = open_scene(self.source).grid.shape
        if side < 1 or min(shape) < side:
            raise UsageError(f"{self.source.paths[0]} is {shape[1]} x {shape[0]} px: no window of {side} fits")
        rows, cols = (_starts(n, side, stride or side) for n in shape)
        self.corners = [(row, col) for row in rows for col in cols]

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> Sample:
        if self._scene is None:
            self._scene = open_scene(self.source)
        row, col = self.corners[index]
        region = self._scene.read(Window(row, col, self.side, self.side))
        values = np.where(region.valid, region.values, np.float32(0))
        return {
            "image": torch.from_numpy(values),
            "valid": torch.from_numpy(region.valid.all(axis=0)),
            "at": torch.tensor([row, col]),
        }

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_scene": None}  # open files stay behind


def _starts(length: int, side: int, stride: int) -> list[int]:
    starts = list(range(0, length - side + 1, stride))
    return starts if starts[-1] + side == length else [*starts, length - side]
