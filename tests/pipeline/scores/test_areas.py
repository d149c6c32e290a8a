"""Which pixels a block owns: over any partition every pixel and every cell is owned exactly once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scenelift.pipeline.scores.areas import ALIGNMENT, HALO, LEVELS, Area, cells, halve

sides = st.integers(1, 150)
Core = tuple[int, int, int, int]


@st.composite
def partitions(draw: st.DrawFn) -> tuple[tuple[int, int], list[Core]]:
    """Draw a scene and cut it at any rows and columns."""
    shape = draw(st.tuples(sides, sides))
    edges = [sorted({0, side, *draw(st.lists(st.integers(0, side), max_size=3))}) for side in shape]
    rows, cols = (list(pairwise(e)) for e in edges)
    return shape, [(top, left, bottom, right) for top, bottom in rows for left, right in cols]


@given(
    partition=partitions(),
    level=st.integers(0, LEVELS - 1),
    shift_and_halo=st.sampled_from([(0, 0), (0, 1), (0, HALO), (5, HALO)]),
)
def test_every_cell_has_one_owner(
    partition: tuple[tuple[int, int], list[Core]], level: int, shift_and_halo: tuple[int, int]
) -> None:
    (shape, cores), (shift, halo) = partition, shift_and_halo
    step = 2**level
    owners = np.zeros([-(-side // step) + 1 for side in shape], int)
    for core in cores:
        area = Area.around(core, shape, halo)
        rows, cols = area.owned(level, shift)
        first = area.origin[0] // step + shift, area.origin[1] // step + shift
        owners[first[0] + rows.start : first[0] + rows.stop, first[1] + cols.start : first[1] + cols.stop] += 1
    inside = owners[shift : -(-shape[0] // step), shift : -(-shape[1] // step)]
    assert (inside == 1).all()
    assert owners.sum() == inside.sum()


@given(partition=partitions(), halo=st.integers(0, HALO))
def test_what_is_read_holds_the_core_and_its_halo_and_little_more(
    partition: tuple[tuple[int, int], list[Core]], halo: int
) -> None:
    shape, cores = partition
    for core in cores:
        area = Area.around(core, shape, halo)
        for axis in (0, 1):
            start, stop = area.origin[axis], area.origin[axis] + area.shape[axis]
            wanted = max(0, core[axis] - halo), min(shape[axis], core[axis + 2] + halo)
            assert start % ALIGNMENT == 0 and stop == wanted[1]
            assert wanted[0] - ALIGNMENT < start <= wanted[0]
    assert Area.whole(shape) == Area.around((0, 0, *shape), shape)


@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99))
def test_halving_is_the_mean_of_four(shape: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).random(shape)
    quads, means, both = cells(values), halve(values), halve(values > 0.3)
    assert quads.shape == (4, shape[0] // 2, shape[1] // 2)
    for row, col in np.ndindex(*means.shape):
        quad = values[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
        assert quads[:, row, col].tolist() == quad.ravel().tolist()
        np.testing.assert_allclose(means[row, col], quad.mean())
        assert both[row, col] == (quad > 0.3).all()
