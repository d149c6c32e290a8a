"""Arrays that are computed when someone asks: every block from a window of another array, by Dask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.tiles import Window

Task = Callable[[NDArray[np.generic], Window, Window], NDArray[np.generic]]
"""Called with the pixels of a window, that window, and the block to make of them."""


def is_lazy(array: Any) -> bool:
    """Whether an array is one of Dask's."""
    return hasattr(array, "__dask_graph__")


def lazily(
    array: Any, rows: Sequence[Sequence[tuple[Window, Window]]], task: Task, bands: int, scale: int, dtype: str
) -> Any:
    """Return the array that `task` makes block by block, as a Dask array.

    Parameters
    ----------
    array : dask.array.Array, shape (C, H, W)
        In chunks of any shape.
    rows : sequence of sequences of (Window, Window)
        Rows of blocks, each with the window that it is made from; both on the array's grid.
    task : callable
        Picklable.
    bands : int
        Of the result.
    scale : int
        Pixels of the result for one of the array, along each axis.
    dtype : str
        Of the result.
    """
    import dask
    import dask.array

    call = dask.delayed(task, pure=True)

    def block(wide: Window, target: Window) -> Any:
        pixels = array[:, wide.row : wide.stop_row, wide.col : wide.stop_col]
        shape = bands, target.height * scale, target.width * scale
        return dask.array.from_delayed(call(pixels, wide, target), shape, np.dtype(dtype))

    return dask.array.block([[block(wide, target) for wide, target in row] for row in rows])


def stacked(arrays: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Put Dask arrays of one shape together along new first axes of the given lengths."""
    import dask.array

    return dask.array.stack(arrays).reshape(*shape, *arrays[0].shape)
