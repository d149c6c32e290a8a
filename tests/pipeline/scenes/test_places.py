"""Where grids lie on Earth, and what is said where nobody can know."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from support.builders import ROTATED, UTM

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.places import boxes_of, footprint_of, place_of
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
