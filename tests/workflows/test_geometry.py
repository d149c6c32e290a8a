"""A part of a scene by a geometry: inside it equals the whole bit for bit, outside pixels are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.warp import transform
from support.archives import scene, table
from support.builders import ROTATED, SOUTH_UP, UTM, integer_net, noise_image, write_raster
from support.jobs import holed_scene, pixels, run, scenelift
from support.processes import call

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outlines import outline_on
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.archive.filters import Filters
from scenelift.workflows.landcover.classify import classify
from scenelift.workflows.settings import Crop, EnhanceSettings

corner = st.integers(-6, 90).map(lambda at: at / 2) | st.integers(-24, 360).map(lambda at: at / 8)
"""Of corners, in pixels: often on their edges. None so close to another that rounding decides what crosses."""


@st.composite
def shapes(draw: st.DrawFn) -> Any:
    """Draw polygons that may cross themselves, lines, points, and several of them; in pixels of a grid of 40 x 30."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        corners = draw(st.lists(st.tuples(corner, corner), min_size=1, max_size=7))
        polygon = len(corners) > 2 and draw(st.booleans())
        parts.append(
            shapely.Polygon(corners)
            if polygon
            else shapely.LineString(corners * 2)
            if len(corners) > 1
            else shapely.Point(corners[0])
        )
    return shapely.GeometryCollection(parts) if len(parts) > 1 else parts[0]


def on_ground(shape: Any, place: Affine) -> Any:
    return shapely.transform(shape, lambda at: np.array([place @ tuple(point) for point in at]).reshape(at.shape))


@settings(max_examples=150)
@given(shape=shapes(), place=st.sampled_from([UTM, SOUTH_UP, ROTATED]), data=st.data())
def test_an_outline_is_the_pixels_that_it_touches(shape: Any, place: Affine, data: st.DataObject) -> None:
    grid = GeoGrid(CRS.from_epsg(32633), place, 30, 40)
    valid = shapely.make_valid(shape)
    whole = shapely.box(0, 0, 40, 30)
    try:
        outline = outline_on(grid, on_ground(shape, place).wkt)
    except UsageError:
        assert valid.intersection(whole.buffer(-1e-2)).is_empty
        return
    window = outline.window
    inside = outline.inside(Window(0, 0, 30, 40))
    assert inside[window.slices()].any() and window.clip(grid.shape) == window
    near = 1e-2
    for row, col in np.ndindex(30, 40):
        pixel = shapely.box(col, row, col + 1, row + 1)
        if inside[row, col]:
            assert pixel.buffer(near).intersects(valid)
        elif window.row <= row < window.stop_row and window.col <= col < window.stop_col:
            assert not pixel.buffer(-near).intersects(valid)
    row, col = data.draw(st.integers(0, 29)), data.draw(st.integers(0, 39))
    part = Window(row, col, 30 - row, 40 - col)
    assert np.array_equal(outline.inside(part), inside[row:, col:])


def test_edges_of_pixels_are_met_exactly_and_no_window_shows() -> None:
    for place in (UTM, SOUTH_UP, ROTATED, Affine(0.1, 0, 5e5, 0, -0.1, 5e6)):
        grid = GeoGrid(CRS.from_epsg(32633), place, 1300, 1400)
        corners = [(3, 5), (1100, 5), (1100, 7), (600, 7), (600, 1200), (3, 1200)]
        outline = outline_on(grid, on_ground(shapely.Polygon(corners), place).wkt)
        assert outline.window == Window(5, 3, 1195, 1097)
        wanted = np.zeros(grid.shape, bool)
        wanted[5:7, 3:1100] = wanted[5:1200, 3:600] = True
        assert np.array_equal(outline.inside(Window(0, 0, *grid.shape)), wanted)
        across = Window(509, 509, 8, 300)
        assert np.array_equal(outline.inside(across), wanted[across.slices()])
        point = outline_on(grid, on_ground(shapely.Point(7, 9), place).wkt)
        assert point.window == Window(9, 7, 1, 1) and point.inside(point.window).all()


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SceneSource, NDArray[Any]]]:
    """Scenes that mark missing pixels in each way, and what is made of them."""
    folder = tmp_path_factory.mktemp("whole")
    values, opaque = noise_image(1, (2, 70, 90)), np.full((1, 70, 90), 65535, "uint16")
    values[:, 20:30, 20:40] = 0  # a value like others where nothing says that it is missing
    opaque[0, :9] = 0
    colors = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    mask = (opaque[0] > 0).astype("uint8") * 255
    paths = {
        "nothing": write_raster(folder / "nothing.tif", values),
        "nodata": holed_scene(folder / "nodata.tif", 100),
        "mask": write_raster(folder / "mask.tif", values, mask=mask),
        "alpha": write_raster(folder / "alpha.tif", np.concatenate([values, opaque]), colorinterp=colors),
        "NaN": write_raster(folder / "NaN.tif", values.astype("float32")),
    }
    found = {}
    for kind, path in paths.items():
        source = SceneSource((str(path),))
        run(source, folder / "out.tif", integer_net(2, 2, 32), overwrite=True)
        found[kind] = source, pixels(folder / "out.tif")
    return found


@settings(max_examples=40)
@given(
    shape=shapes(),
    kind=st.sampled_from(["nothing", "nodata", "mask", "alpha", "NaN"]),
    block=st.sampled_from([17, 64, 1024]),
    suffix=st.sampled_from([".tif", ".zarr"]),
)
def test_inside_a_geometry_the_part_equals_the_whole_and_outside_pixels_are_missing(
    wholes: dict[str, tuple[SceneSource, NDArray[Any]]],
    tmp_path_factory: pytest.TempPathFactory,
    shape: Any,
    kind: str,
    block: int,
    suffix: str,
) -> None:
    source, whole = wholes[kind]
    before = open_scene(source)
    try:
        crop = Crop(geometry=on_ground(shape, UTM).wkt)
        outline = crop.outline_on(before.grid)
    except UsageError:
        return
    assert outline is not None
    out = tmp_path_factory.mktemp("part") / f"part{suffix}"
    run(source, out, integer_net(2, 2, 32), block=block, crop=crop)
    made = open_scene(SceneSource((str(out),)))
    window = crop.on(before.grid) or Window(0, 0, *before.grid.shape)
    fine = window.scaled(2)
    assert made.grid.same_as(before.grid.scaled(2).window(fine))
    inside = outline.inside(window).repeat(2, 0).repeat(2, 1)
    values, valid = made.read_dn(Window(0, 0, *made.grid.shape))
    wanted = whole[: len(values)][(slice(None), *fine.slices())]
    assert np.array_equal(values[:, inside], wanted[:, inside], equal_nan=kind == "NaN")
    assert not valid[:, ~inside].any()
    known = before.read(window).valid.repeat(2, 1).repeat(2, 2)
    assert np.array_equal(valid[:, inside], known[:, inside])
    assert made.mask_kind == {"nothing": "mask", "NaN": "none"}.get(kind, kind)


FIELD = [(14.995, 45.155), (15.003, 45.152), (15.001, 45.148), (14.995, 45.155)]


def geojson(kind: str = "Polygon") -> dict[str, Any]:
    shape = {"type": "Polygon", "coordinates": [FIELD]}
    if kind == "Polygon":
        return shape
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    nowhere = {"type": "Feature", "properties": {}, "geometry": None}
    return feature if kind == "Feature" else {"type": "FeatureCollection", "features": [nowhere, feature]}


def test_a_geometry_is_taken_from_a_file_or_a_text_in_any_crs(tmp_path: Path) -> None:
    grid = GeoGrid(CRS.from_epsg(32633), UTM, 400, 400)
    shape = shapely.segmentize(shapely.Polygon(FIELD), 1e-5)
    there = shapely.transform(shape, lambda at: np.column_stack(transform("EPSG:4326", grid.crs, *at.T)))
    wkt = Crop(geometry=there.wkt).outline_on(grid)
    assert wkt is not None and wkt.window.size < 400 * 400
    marks = wkt.inside(Window(0, 0, 400, 400))
    (tmp_path / "field.wkt").write_text(f"SRID=32633;{there.wkt}\n")
    (tmp_path / "point (1).geojson").write_bytes(b"\xef\xbb\xbf" + json.dumps(geojson("FeatureCollection")).encode())
    utm = json.loads(shapely.to_geojson(there)) | {
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    }
    ways = {
        "geometry": Crop(geometry=json.dumps(geojson())),
        "feature": Crop(geometry=json.dumps(geojson("Feature"))),
        "file": Crop(geometry=str(tmp_path / "point (1).geojson")),
        "path": Crop(geometry=tmp_path / "field.wkt"),  # type: ignore[arg-type]
        "crs member": Crop(geometry=json.dumps(utm)),
        "crs given": Crop(geometry=shapely.Polygon(FIELD).wkt, bbox_crs="EPSG:4326"),
        "height": Crop(geometry=json.dumps(geojson()).replace("45.155]", "45.155, 12.0]")),
    }
    for name, crop in ways.items():
        found = crop.outline_on(grid)
        assert found is not None, name
        # followed by other points along its sides, it may touch another pixel at its rim
        assert (found.inside(Window(0, 0, 400, 400)) != marks).sum() <= 4, name
        assert Crop(geometry=crop.geometry, bbox_crs=crop.bbox_crs) == crop  # as a journal brings it back


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--geometry", "no.geojson"], "--geometry no.geojson: no such file; name a file of GeoJSON or WKT"),
        (["--geometry", "scene.tif"], "--geometry scene.tif is neither GeoJSON nor WKT ("),
        (["--geometry", '{"type": "Polygon"}'], "--geometry is neither GeoJSON nor WKT ("),
        (["--geometry", "POLYGON((0 0, 1"], "--geometry is neither GeoJSON nor WKT ("),
        (["--geometry", "POLYGON EMPTY"], "--geometry is empty: it has no place"),
        (["--geometry", '{"type": "FeatureCollection", "features": []}'], "--geometry is empty: it has no place"),
        (["--geometry", "POINT(NaN 1)"], "--geometry has coordinates that are no finite numbers"),
        (
            ["--geometry", "POINT(0 0)"],
            "--geometry, taken to be in the scene's CRS, does not meet the scene, whose bounds in its CRS are 500000,",
        ),
        (
            ["--geometry", '{"type": "Point", "coordinates": [1, 2]}'],
            "--geometry, taken to be in EPSG:4326, does not meet",
        ),
        (
            ["--geometry", '{"type": "Point", "coordinates": [500000, 5000000]}'],
            "--geometry in EPSG:4326 has coordinates that are no degrees, such as 500000 5000000: name their CRS",
        ),
        (
            [
                "--geometry",
                '{"type": "Point", "coordinates": [105, 0]}',
            ],  # a quarter of the globe from the middle of the zone
            "--geometry in EPSG:4326 has no place in EPSG:32633",
        ),
        (["--geometry", "POINT(1 2)", "--bbox-crs", "EPSG:0"], "--geometry: there is no CRS 'EPSG:0'"),
        (["--geometry", "POINT(1 2)", "--window", "0,0,1,1"], "--window and --geometry name one part each"),
        (["--geometry", "POINT(1 2)", "--bbox", "0,0,1,1"], "--bbox and --geometry name one part each"),
    ],
)
def test_a_geometry_that_is_none_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    write_raster(tmp_path / "scene.tif", noise_image(1, (1, 40, 50)))
    done = scenelift("enhance", "scene.tif", "-o", "a.tif", "-m", "nearest-x2", *words, cwd=tmp_path, ok=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_job_on_a_geometry_goes_on_without_its_file_and_is_another_job_than_its_window(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", noise_image(1, (1, 60, 50)))
    triangle = on_ground(shapely.Polygon([(5, 5), (45, 20), (10, 50)]), UTM)
    (tmp_path / "field.wkt").write_text(triangle.wkt)
    command = "enhance", "scene.tif", "-o", "a.tif", "-m", "nearest-x2", "--block", 16, "--json"
    done = json.loads(scenelift(*command, "--geometry", "field.wkt", cwd=tmp_path).stdout)
    assert (done["width"], done["height"]) == (80, 90) and 0 < done["skipped"] < done["blocks"]
    assert any("that --geometry does not touch are missing" in note for note in done["notes"])
    before = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "field.wkt").unlink()
    again = json.loads(scenelift("resume", "a.tif", "--json", cwd=tmp_path).stdout)
    assert again["resumed"] == again["blocks"]
    (tmp_path / "a.tif").write_bytes(before[:-40] + bytes(40))
    assert "repaired" in scenelift("verify", "a.tif", "--repair", cwd=tmp_path).stdout
    assert (tmp_path / "a.tif").read_bytes() == before
    window = scenelift(*command, "--window", "5,5,40,45", cwd=tmp_path, ok=False)
    moved = shapely.transform(triangle, lambda at: at + 0.01 * (at - at.mean(0)))
    other = scenelift(*command, "--geometry", moved.wkt, cwd=tmp_path, ok=False)
    for refused in (window, other):
        assert refused.returncode == 2 and "add --overwrite" in refused.stderr, refused.stderr
    run(
        SceneSource((str(tmp_path / "scene.tif"),)),
        tmp_path / "b.tif",
        "nearest-x2",
        block=16,
        crop=Crop(geometry=triangle.wkt),
    )
    assert (tmp_path / "b.tif").read_bytes() == before


def test_an_archive_does_the_scenes_that_touch_a_geometry(tmp_path: Path) -> None:
    scene(tmp_path / "in" / "here.tif")
    (tmp_path / "area.geojson").write_text(json.dumps(geojson("FeatureCollection")))
    how = "archive", "in", "-m", "nearest-x2", "--workers", 0, "--scores", "none", "--geometry"
    call(tmp_path, *how, "area.geojson", "-o", "out")
    assert {row["status"] for row in table(tmp_path / "out").values()} == {"done"}
    call(tmp_path, *how, "POINT(3 45)", "-o", "elsewhere")
    assert {row["reason"] for row in table(tmp_path / "elsewhere").values()} == {"outside --geometry"}
    assert "no such file" in call(tmp_path, *how, "none.geojson", "-o", "x", code=2)
    assert "are no degrees" in call(tmp_path, *how, "POINT(500000 5000000)", "-o", "x", code=2)
    assert Filters(geometry="SRID=32633;POINT(500000 5000000)").box == pytest.approx((15, 45.15, 15, 45.15), abs=0.01)
    assert EnhanceSettings(crop=Crop()).outline_on(GeoGrid(CRS.from_epsg(32633), UTM, 4, 4)) is None


def test_a_class_map_and_zarr_mark_what_is_outside(tmp_path: Path) -> None:
    values = noise_image(1, (3, 60, 50))
    write_raster(tmp_path / "scene.tif", values)
    triangle = on_ground(shapely.Polygon([(5, 5), (45, 20), (10, 50)]), UTM)
    crop = Crop(geometry=triangle.wkt)
    source = SceneSource((str(tmp_path / "scene.tif"),))
    how = EnhanceSettings(crop=crop, precision="fp32")
    classify(source, tmp_path / "map.tif", "support.builders:landcover_net", how, ClusterSettings(0))
    grid = open_scene(source).grid
    outline = crop.outline_on(grid)
    assert outline is not None
    with rasterio.open(tmp_path / "map.tif") as made:
        assert np.array_equal(made.read(1) == 255, ~outline.inside(outline.window))
    run(source, tmp_path / "out.zarr", "nearest-x2", crop=crop)
    mask = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)["mask"].to_numpy()
    assert np.array_equal(mask != 0, outline.inside(outline.window).repeat(2, 0).repeat(2, 1))
