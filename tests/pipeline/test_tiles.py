"""Windows, cells and mirror indices: integers, checked against numpy's own ideas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.tiles import TileGrid, Window, patch_shape, reflect

sizes = st.integers(1, 70)


@given(height=sizes, width=sizes, rows=sizes, cols=sizes)
def test_stitch_of_split_is_the_image(height: int, width: int, rows: int, cols: int) -> None:
    image = np.arange(height * width).reshape(height, width)
    out = np.full_like(image, -1)
    seen = np.zeros_like(image)
    for window in TileGrid((height, width), (rows, cols)):
        out[window.slices()] = image[window.slices()]
        seen[window.slices()] += 1
    assert (out == image).all()
    assert (seen == 1).all()


@given(n=st.integers(1, 40), start=st.integers(-90, 90), length=st.integers(0, 150), reach=st.integers(0, 80))
def test_reflect_is_numpy_reflect_within_reach(n: int, start: int, length: int, reach: int) -> None:
    got = reflect(start, start + length, n, reach)
    assert got.min(initial=0) >= 0 and got.max(initial=0) < n
    oracle = np.pad(np.arange(n), 400, mode="reflect")
    for position, index in zip(range(start, start + length), got, strict=True):
        if -reach <= position < n + reach:
            assert index == oracle[position + 400]


def test_reflect_never_reads_farther_than_reach_from_the_edge() -> None:
    assert reflect(290, 600, 300, 10).min() == 300 - 1 - 10


@given(
    shape=st.tuples(sizes, sizes),
    cell=st.tuples(sizes, sizes),
    row=st.integers(-10, 80),
    col=st.integers(-10, 80),
    height=st.integers(0, 50),
    width=st.integers(0, 50),
)
def test_covering_cells_are_those_that_touch(shape, cell, row, col, height, width) -> None:  # type: ignore[no-untyped-def]
    grid = TileGrid(shape, cell)
    window = Window(row, col, height, width)
    inside = window.clip(shape)
    touching = [c for c in grid if c.intersect(inside).size]
    assert [(c.row, c.col) for c in grid.covering(window)] == [(c.row, c.col) for c in touching]
    if touching:
        assert inside.intersect(grid.cover(window)) == inside


@given(row=st.integers(-50, 50), height=st.integers(1, 50), k=st.integers(1, 5))
def test_coarsened_covers_and_scaled_inverts(row: int, height: int, k: int) -> None:
    window = Window(row, row, height, height)
    assert window.scaled(k).coarsened(k) == window
    wide = window.coarsened(k).scaled(k)
    assert wide.intersect(window) == window
    assert wide.height - window.height < 2 * k


@pytest.mark.parametrize(
    ("shape", "patch", "multiple", "expected"),
    [((1000, 40), 256, 1, (256, 64)), ((64, 64), 256, 1, (64, 64)), ((10, 5000), 256, 64, (64, 256))],
)
def test_patch_shape_depends_on_scene_and_model_alone(shape, patch, multiple, expected) -> None:  # type: ignore[no-untyped-def]
    assert patch_shape(shape, patch, multiple) == expected


def test_impossible_windows_are_refused() -> None:
    with pytest.raises(UsageError, match="negative size"):
        Window(0, 0, -1, 3)
    with pytest.raises(UsageError, match="at least one pixel"):
        TileGrid((0, 5), (2, 2))
