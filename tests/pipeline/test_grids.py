"""Grids: finer, coarser and cut ones put every pixel where the first one put it, whatever the affine transform."""

from __future__ import annotations

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import array_bounds
from support.builders import ROTATED, SOUTH_UP, UTM

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.tiles import Window

ZONE = CRS.from_epsg(32633)
sides = st.integers(1, 200)
factors = st.integers(1, 8)


@st.composite
def transforms(draw: st.DrawFn) -> Affine:
    """Draw any affine transform that keeps areas: turned, sheared, mirrored, of any pixel size."""
    scale = Affine.scale(draw(st.floats(1e-4, 1e3)), draw(st.floats(1e-4, 1e3)) * draw(st.sampled_from([1, -1])))
    place = Affine.translation(draw(st.floats(-1e6, 1e6)), draw(st.floats(-1e7, 1e7)))
    return place @ Affine.rotation(draw(st.floats(0, 360))) @ Affine.shear(draw(st.floats(-60, 60))) @ scale


grids = st.builds(GeoGrid, st.just(ZONE), transforms(), sides, sides)


@st.composite
def windows(draw: st.DrawFn, shape: tuple[int, int]) -> Window:
    row, col = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    return Window(row, col, draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col)))


@given(grid=grids, factor=factors)
def test_a_finer_grid_covers_the_same_ground(grid: GeoGrid, factor: int) -> None:
    fine = grid.scaled(factor)
    assert fine.shape == (grid.height * factor, grid.width * factor) and fine.crs == grid.crs
    for col, row in ((0, 0), (grid.width, grid.height), (0, grid.height), (1, 2)):
        assert fine.transform @ (factor * col, factor * row) == pytest.approx(grid.transform @ (col, row))
    assert fine.resolution == pytest.approx([side / factor for side in grid.resolution])
    assert fine.coarsened(factor).same_as(grid)


@given(grid=grids, factor=factors)
def test_a_coarser_grid_covers_all_of_it_and_less_than_one_pixel_more(grid: GeoGrid, factor: int) -> None:
    coarse = grid.coarsened(factor)
    for mine, wide in zip(grid.shape, coarse.shape, strict=True):
        assert 0 <= wide * factor - mine < factor
    assert coarse.transform @ (3, 2) == pytest.approx(grid.transform @ (3 * factor, 2 * factor))
    if not (grid.height % factor or grid.width % factor):
        assert coarse.scaled(factor).same_as(grid)


@given(data=st.data(), grid=grids, factor=factors)
def test_cutting_and_refining_can_change_places(data: st.DataObject, grid: GeoGrid, factor: int) -> None:
    window = data.draw(windows(grid.shape))
    assert grid.window(window).scaled(factor).same_as(grid.scaled(factor).window(window.scaled(factor)))


@given(data=st.data(), grid=grids)
def test_a_window_of_a_window_lies_where_it_lies_in_the_whole(data: st.DataObject, grid: GeoGrid) -> None:
    outer = data.draw(windows(grid.shape))
    inner = data.draw(windows(outer.shape))
    both = Window(outer.row + inner.row, outer.col + inner.col, *inner.shape)
    cut = grid.window(outer).window(inner)
    assert cut.same_as(grid.window(both))
    assert cut.transform @ (0, 0) == pytest.approx(grid.transform @ (both.col, both.row))
    assert grid.window(Window(0, 0, *grid.shape)).same_as(grid)


@given(grid=grids, shift=st.floats(0.01, 3), share=st.floats(-0.4, 0.4))
def test_grids_are_the_same_within_a_tolerance_of_a_pixel(grid: GeoGrid, shift: float, share: float) -> None:
    for col, row in ((share * 1e-3, 0), (0, share * 1e-3)):
        near = GeoGrid(grid.crs, grid.transform @ Affine.translation(col, row), *grid.shape)
        assert grid.same_as(near) and near.same_as(grid)
    for col, row in ((shift, 0), (0, -shift)):
        far = GeoGrid(grid.crs, grid.transform @ Affine.translation(col, row), *grid.shape)
        assert not grid.same_as(far)
        assert grid.same_as(far, tolerance=4)
    assert not grid.same_as(GeoGrid(CRS.from_epsg(32634), grid.transform, *grid.shape))
    assert not grid.same_as(GeoGrid(grid.crs, grid.transform, grid.height + 1, grid.width))


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP])
def test_bounds_are_rasterios(transform: Affine) -> None:
    grid = GeoGrid(ZONE, transform, 30, 41)
    found = array_bounds(30, 41, transform)
    assert grid.bounds == (found[0], min(found[1::2]), found[2], max(found[1::2]))
    assert grid.is_rectilinear and not GeoGrid(ZONE, ROTATED, 30, 41).is_rectilinear
    assert grid.resolution == (10, 10)


def test_pixels_are_so_many_metres_in_any_unit() -> None:
    feet, degrees = CRS.from_epsg(2229), CRS.from_epsg(4326)
    assert GeoGrid(ZONE, UTM, 30, 41).metres == 10
    assert GeoGrid(feet, Affine(30, 0, 0, 0, -30, 0), 30, 41).metres == pytest.approx(9.144, rel=1e-4)
    wide = Affine(1.3e-4, 0, 16, 0, -9e-5, 48)  # 10 m at 48 degrees north, both ways
    assert GeoGrid(degrees, wide, 30, 41).metres == pytest.approx(10, rel=0.01)


@given(grid=grids)
def test_bounds_hold_every_corner(grid: GeoGrid) -> None:
    left, bottom, right, top = grid.bounds
    xs, ys = zip(*grid.corners.values(), strict=True)
    assert (left, right, bottom, top) == (min(xs), max(xs), min(ys), max(ys))
    assert grid.corners["upper right"] == pytest.approx(grid.transform @ (grid.width, 0))
    assert grid.corners["lower left"] == pytest.approx(grid.transform @ (0, grid.height))


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one pixel, got 0 x 5"):
        GeoGrid(ZONE, UTM, 0, 5)
    with pytest.raises(UsageError, match="at least one pixel, got 5 x 0"):
        GeoGrid(ZONE, UTM, 5, 0)
    with pytest.raises(UsageError, match="onto a line or a point"):
        GeoGrid(ZONE, Affine(1, 2, 0, 2, 4, 0), 5, 5)
