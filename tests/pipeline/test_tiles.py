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


def pixels(window: Window) -> set[tuple[int, int]]:
    """Return every pixel of a window: what a window is, as a set."""
    rows, cols = range(window.row, window.row + window.height), range(window.col, window.col + window.width)
    return {(row, col) for row in rows for col in cols}


spots = st.integers(-9, 9)
windows = st.builds(Window, spots, spots, st.integers(0, 9), st.integers(0, 9))


@given(one=windows, other=windows, margin=st.integers(0, 4))
def test_windows_are_sets_of_pixels(one: Window, other: Window, margin: int) -> None:
    assert pixels(one.intersect(other)) == pixels(one) & pixels(other)
    assert pixels(one.clip((5, 7))) == {(r, c) for r, c in pixels(one) if 0 <= r < 5 and 0 <= c < 7}
    assert one.size == len(pixels(one)) and one.shape == (one.height, one.width)
    reach = range(-margin, margin + 1)
    grown = {(row + dr, col + dc) for row, col in pixels(one) for dr in reach for dc in reach}
    if one.size:
        assert pixels(one.expand(margin)) == grown
    both = Window.from_bounds(one.row, one.col, other.stop_row, other.stop_col)
    assert pixels(both) == {
        (row, col) for row in range(one.row, other.stop_row) for col in range(one.col, other.stop_col)
    }


@given(one=windows, origin=windows)
def test_slices_pick_the_pixels_of_a_window_out_of_an_array(one: Window, origin: Window) -> None:
    wide = one.expand(3)
    image = np.arange(wide.size).reshape(wide.shape)
    where = {image[row - wide.row, col - wide.col] for row, col in pixels(one)}
    assert set(image[one.slices(wide)].ravel()) == where
    rows, cols = one.slices()
    assert (rows.start, rows.stop, cols.start, cols.stop) == (one.row, one.stop_row, one.col, one.stop_col)


@given(window=windows, k=st.integers(1, 4))
def test_coarser_windows_are_the_cells_that_touch(window: Window, k: int) -> None:
    assert pixels(window.coarsened(k)) == {(row // k, col // k) for row, col in pixels(window)} or not window.size
    assert pixels(window.scaled(k)) == {
        (k * row + dr, k * col + dc) for row, col in pixels(window) for dr in range(k) for dc in range(k)
    }


@given(shape=st.tuples(sizes, sizes), cell=st.tuples(sizes, sizes), window=windows)
def test_a_cover_is_made_of_whole_cells(shape: tuple[int, int], cell: tuple[int, int], window: Window) -> None:
    grid = TileGrid(shape, cell)
    cover, cells = grid.cover(window), grid.covering(window)
    assert cover.size == sum(c.size for c in cells)
    if cells:
        assert (cover.row, cover.col) == (cells[0].row, cells[0].col)
        assert all(c.intersect(cover) == c and c.shape == cell for c in cells)
    else:
        assert cover == Window(window.row, window.col, 0, 0)
    assert len(grid) == len(list(grid)) == np.prod(grid.counts)
    for index in (-1, len(grid)):
        with pytest.raises(IndexError, match=f"cell {index} of {len(grid)}"):
            grid[index]


@given(shape=st.tuples(sizes, sizes), patch=st.integers(1, 99), multiple=st.sampled_from([1, 2, 4, 8, 48]))
def test_patches_are_as_small_as_the_scene_but_whole_steps(shape: tuple[int, int], patch: int, multiple: int) -> None:
    step = int(np.lcm(32, multiple))
    for side, length in zip(patch_shape(shape, patch, multiple), shape, strict=True):
        assert side == patch or (side % step == 0 and side < patch and length <= side < length + step)


@pytest.mark.parametrize(
    ("shape", "patch", "multiple", "expected"),
    [((1000, 40), 256, 1, (256, 64)), ((64, 64), 256, 1, (64, 64)), ((10, 5000), 256, 64, (64, 256))],
)
def test_patch_shape_depends_on_scene_and_model_alone(shape, patch, multiple, expected) -> None:  # type: ignore[no-untyped-def]
    assert patch_shape(shape, patch, multiple) == expected


def test_impossible_windows_are_refused() -> None:
    for shape in ((-1, 3), (3, -1)):
        with pytest.raises(UsageError, match=f"negative size, got {shape[0]} x {shape[1]}"):
            Window(0, 0, *shape)
    for shape in ((0, 5), (5, 0)):
        with pytest.raises(UsageError, match=f"a scene needs at least one pixel, got {shape[0]} x {shape[1]}"):
            TileGrid(shape, (2, 2))
        with pytest.raises(UsageError, match=f"a cell needs at least one pixel, got {shape[0]} x {shape[1]}"):
            TileGrid((2, 2), shape)
