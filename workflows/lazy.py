"""A scene as what xarray reads when it is indexed."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window


@functools.lru_cache(maxsize=8)
def _opened(source: SceneSource) -> Scene:
    """Open a scene once in each process."""
    return open_scene(source)


class SceneArray(BackendArray):
    """Reflectance of a scene, NaN where there is no data; picklable.

    Parameters
    ----------
    source : SceneSource
    shape : (int, int, int)
        Bands, height and width.
    """

    def __init__(self, source: SceneSource, shape: tuple[int, int, int]) -> None:
        self.source = source
        self.shape = shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        spans = [np.arange(side)[part] for side, part in zip(self.shape[1:], key[1:], strict=True)]
        (top, height), (left, width) = ((int(np.min(s)), int(np.ptp(s)) + 1) if np.size(s) else (0, 0) for s in spans)
        if not (height and width):
            return np.zeros(self.shape, np.float32)[key]
        region = _opened(self.source).read(Window(top, left, height, width))
        values = region.with_nan()
        rows, cols = spans[0] - top, spans[1] - left
        found: NDArray[np.float32] = values[key[0]][..., rows, :][..., cols]
        return found
