"""Filling of pixels without data, against ring-by-ring means by scipy's convolution."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, convolve

from scenelift.pipeline.nodata import fill_nodata

AROUND = np.ones((3, 3))
AROUND[1, 1] = 0


def oracle(values: np.ndarray, valid: np.ndarray, reach: int) -> np.ndarray:
    """Fill one band: in each round every pixel that touches known ones becomes their mean."""
    known, filled = valid.copy(), np.where(valid, values, 0).astype(np.float64)
    for _ in range(reach if valid.any() else 0):
        total = convolve(np.where(known, filled, 0), AROUND, mode="constant")
        count = convolve(known.astype(np.float64), AROUND, mode="constant")
        ring = (count > 0.5) & ~known
        filled[ring] = (total[ring] / count[ring]).astype(np.float32)
        known |= ring
    return filled


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14)))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    valid = rng.random(shape) >= draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))
    values = rng.uniform(0, 1, shape).astype(np.float32)
    values[~valid] = draw(st.sampled_from([np.nan, np.inf, -9999.0, 0.0]))
    return values, valid


@given(image=images(), reach=st.integers(0, 6))
def test_holes_are_filled_ring_by_ring_with_the_mean_of_what_is_known(image, reach: int) -> None:  # type: ignore[no-untyped-def]
    values, valid = image
    before, mask = values.copy(), valid.copy()
    filled = fill_nodata(values, valid, reach)
    wanted = np.stack([oracle(band, known, reach) for band, known in zip(values, valid, strict=True)])
    np.testing.assert_allclose(filled, wanted, rtol=1e-6)
    assert np.array_equal(filled[valid], values[valid])
    assert np.array_equal(values, before, equal_nan=True) and np.array_equal(valid, mask), (
        "its arguments are left alone"
    )
    assert filled.dtype == np.float32


@given(image=images(), reach=st.integers(0, 6))
def test_a_mean_never_leaves_the_range_and_reaches_no_farther(image, reach: int) -> None:  # type: ignore[no-untyped-def]
    values, valid = image
    filled = fill_nodata(values, valid, reach)
    for band, known, found in zip(values, valid, filled, strict=True):
        near = binary_dilation(known, np.ones((3, 3)), iterations=reach) if reach else known
        assert (found[~near] == 0).all()
        if known.any():
            assert band[known].min() - 1e-6 <= found[near].min() and found[near].max() <= band[known].max() + 1e-6


@given(image=images(), reach=st.integers(1, 3), data=st.data())
def test_what_a_pixel_becomes_depends_on_its_surroundings_alone(image, reach: int, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    values, valid = image
    height, width = values.shape[1:]
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    top, left = max(0, row - reach), max(0, col - reach)
    part = np.s_[:, top : row + reach + 1, left : col + reach + 1]
    whole = fill_nodata(values, valid, reach)[:, row, col]
    alone = fill_nodata(values[part], valid[part], reach)[:, row - top, col - left]
    assert np.array_equal(whole, alone)
