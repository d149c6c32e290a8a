"""Arrays that are computed when someone asks: every block from a part of another array, by Dask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Piece(NamedTuple):
    """A block, and what it is made from."""

    rows: slice
    """Of the array that it is made from."""
    cols: slice
    shape: tuple[int, int]
    """Height and width of the block."""
    told: tuple[Any, ...]
    """Further arguments of the task."""


def is_lazy(array: Any) -> bool:
    """Whether an array is one of Dask's."""
    return hasattr(array, "__dask_graph__")


def lazily(array: Any, pieces: Sequence[Sequence[Piece]], task: Callable[..., Any], bands: int, dtype: str) -> Any:
    """Return the array that ``task(pixels, *told)`` makes block by block, as a Dask array.

    Parameters
    ----------
    array : dask.array.Array, shape (C, H, W)
        In chunks of any shape.
    pieces : sequence of sequences of Piece
        Rows of blocks.
    task : callable
        Picklable.
    bands : int
        Of the result.
    dtype : str
        Of the result.
    """
    import dask
    import dask.array

    call = dask.delayed(task, pure=True)

    def block(piece: Piece) -> Any:
        made = call(array[:, piece.rows, piece.cols], *piece.told)
        return dask.array.from_delayed(made, (bands, *piece.shape), np.dtype(dtype))

    return dask.array.block([[block(piece) for piece in row] for row in pieces])


def stacked(arrays: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Put Dask arrays of one shape together along new first axes of the given lengths."""
    import dask.array

    return dask.array.stack(arrays).reshape(*shape, *arrays[0].shape)
