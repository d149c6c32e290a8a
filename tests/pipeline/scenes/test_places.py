"""Where grids lie on Earth, and what is said where nobody can know."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from support.builders import ROTATED, UTM

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.places import boxes_of, footprint_of, geometry_of, place_of
from scenelift.pipeline.tiles import Window

UTM33 = CRS.from_epsg(32633)


@pytest.mark.parametrize("transform", [UTM, ROTATED], ids=["north-up", "rotated"])
def test_the_box_of_a_whole_grid_is_its_place(transform):
    grid = GeoGrid(UTM33, transform, 300, 200)
    west, south, east, north = boxes_of(grid, [Window(0, 0, 300, 200)])[0]
    place = place_of(grid)  # of the bounds, so a little wider where the grid is rotated
    outer = np.array([west - place.west, south - place.south, place.east - east, place.north - north])
    assert (outer > -1e-6).all() and (outer < 1e-3).all()
    lon, lat = zip(*footprint_of(grid), strict=True)
    np.testing.assert_allclose([west, south, east, north], [min(lon), min(lat), max(lon), max(lat)], atol=1e-7)


def test_windows_lie_where_they_were_cut():
    grid = GeoGrid(CRS.from_epsg(4326), Affine(0.5, 0, 10, 0, -0.5, 50), 8, 8)
    boxes = boxes_of(grid, [Window(0, 0, 2, 2), Window(2, 4, 2, 2)])
    np.testing.assert_allclose(boxes, [[10, 49, 11, 50], [12, 48, 13, 49]])
    assert boxes_of(grid, []).shape == (0, 4)


def test_coordinates_of_no_place_on_earth_are_named():
    grid = GeoGrid(CRS.from_wkt('LOCAL_CS["plan of a field",UNIT["metre",1]]'), UTM, 8, 8)
    for ask in (place_of, footprint_of, lambda g: boxes_of(g, [Window(0, 0, 2, 2)])):
        with pytest.raises(SceneError, match="coordinate reference system 'plan of a field'"):
            ask(grid)


def rings_of(geometry):  # type: ignore[no-untyped-def]
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return [np.array(part[0]) for part in parts]


def area_of(ring):  # type: ignore[no-untyped-def]
    """Area of a closed ring in square degrees, positive counter-clockwise."""
    x, y = ring.T
    return 0.5 * float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def test_a_scene_across_the_date_line_lies_on_both_sides():
    grid = GeoGrid(CRS.from_epsg(32701), Affine(1000, 0, 177_000, 0, -1000, 8_100_000), 60, 60)
    west, east = sorted(rings_of(geometry_of(grid)), key=lambda ring: -ring[:, 0].max())
    assert west[:, 0].max() == 180 and east[:, 0].min() == -180
    assert west[:, 0].min() > 179 and east[:, 0].max() < -179
    assert area_of(west) > 0 and area_of(east) > 0
    place = place_of(grid)
    assert place.west > 179 and place.east < -179
    corners = footprint_of(grid)
    assert {x > 0 for x, _ in corners} == {True, False}


@pytest.mark.parametrize("west", [-160, 200, 560])
def test_longitudes_of_any_turn_are_one_place(west):
    grid = GeoGrid(CRS.from_epsg(4326), Affine(0.1, 0, west, 0, -0.1, 20), 60, 60)
    place = place_of(grid)
    assert (place.west, place.south, place.east, place.north) == pytest.approx((-160, 14, -154, 20))
    (ring,) = rings_of(geometry_of(grid))
    assert ring[:, 0].min() == pytest.approx(-160) and area_of(ring) == pytest.approx(36)


@pytest.mark.parametrize(("west", "width"), [(-180, 360), (0, 360)])
def test_the_whole_world_is_one_box(west, width):
    grid = GeoGrid(CRS.from_epsg(4326), Affine(1, 0, west, 0, -1, 60), 120, width)
    (ring,) = rings_of(geometry_of(grid))
    assert area_of(ring) == pytest.approx(360 * 120)


@pytest.mark.parametrize(("code", "pole"), [(3413, 90), (3031, -90)])
def test_a_scene_with_a_pole_reaches_it(code, pole):
    grid = GeoGrid(CRS.from_epsg(code), Affine(10_000, 0, -500_000, 0, -10_000, 500_000), 100, 100)
    (ring,) = rings_of(geometry_of(grid))
    assert ring[:, 0].min() == -180 and ring[:, 0].max() == 180 and pole in ring[:, 1]
    assert area_of(ring) == pytest.approx(360 * 5, rel=0.2)
