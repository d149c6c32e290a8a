"""Scenes of several grids: bands are paired by georeference, and no coarse value is resampled."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from support.builders import ROTATED, SOUTH_UP, UTM, noise_image, write_raster
from support.products import write_safe

from scenelift.pipeline.errors import GridsError, SceneError, UsageError
from scenelift.pipeline.scenes.multigrid import Placement, own_grid
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window


@pytest.fixture
def data_folder() -> Path:
    folder = Path(os.environ.get("SCENELIFT_DATA", ""))
    if not (folder / "s2_20m").is_dir():
        pytest.skip("SCENELIFT_DATA does not name a folder with scenes of several grids")
    return folder


def scene_of(*paths: Path, extent: str | None = "common", **options) -> Scene:  # type: ignore[no-untyped-def]
    return open_scene(SceneSource(tuple(str(p) for p in paths), extent=extent, **options))


def whole(scene: Scene) -> Window:
    return Window(0, 0, *scene.grid.shape)


def coarse_transform(fine: Affine, ratio: int, row: float, col: float) -> Affine:
    """Of a grid `ratio` times as coarse whose first pixel begins `row`, `col` fine pixels after the fine one's."""
    return fine @ Affine.translation(col, row) @ Affine.scale(ratio)


def covering(at: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the pixel of a file that covers each place (from its edge), -1 for none; borders go to the lower."""
    found = np.ceil(np.round(at, 6)).astype(int) - 1
    return np.where((found >= 0) & (found < count), found, -1)


@st.composite
def pairs(draw):  # type: ignore[no-untyped-def]
    ratio = draw(st.sampled_from([2, 3, 6]))
    steps = st.integers(-14, 14)
    row, col = (draw(steps) / (2 if ratio == 2 else 1) for _ in "rc")
    fine = draw(st.tuples(st.integers(4, 40), st.integers(4, 40)))
    coarse = draw(st.tuples(st.integers(2, 16), st.integers(2, 16)))
    return ratio, row, col, fine, coarse, draw(st.sampled_from([UTM, ROTATED, SOUTH_UP])), draw(st.integers(0, 2**32))


@settings(max_examples=60)
@given(case=pairs(), extent=st.sampled_from(["common", "union"]), fine_first=st.booleans())
def test_windows_hold_what_covers_their_pixels(tmp_path_factory, case, extent, fine_first):  # type: ignore[no-untyped-def]
    ratio, row, col, fine_shape, coarse_shape, transform, seed = case
    folder = tmp_path_factory.mktemp("g")
    fine, coarse = noise_image(seed, (2, *fine_shape)), noise_image(seed + 1, (1, *coarse_shape))
    paths = [
        write_raster(folder / "fine.tif", fine, transform=transform),
        write_raster(folder / "coarse.tif", coarse, transform=coarse_transform(transform, ratio, row, col)),
    ]
    paths = paths if fine_first else paths[::-1]
    # all fine pixels anywhere near, by the map coordinates of their centres alone
    reach = np.arange(-120, 160)
    rows = (
        covering((reach + 0.5 - row) / ratio, coarse_shape[0]),
        covering((reach + 0.5 - col) / ratio, coarse_shape[1]),
    )
    both = [(reach >= 0) & (reach < n) for n in fine_shape]
    spans, apart = [], False
    for own, other in zip(both, rows, strict=True):
        kept = own & (other >= 0) if extent == "common" else own | (other >= 0)
        apart |= not (own & (other >= 0)).any()
        spans.append((reach[kept][0], reach[kept][-1] + 1) if kept.any() else (0, 0))
    if apart:
        with pytest.raises(GridsError, match="no ground in common"):
            scene_of(*paths, extent=extent)
        return
    scene = scene_of(*paths, extent=extent)
    (top, bottom), (left, right) = spans
    assert scene.grid.shape == (bottom - top, right - left)
    np.testing.assert_allclose(scene.grid.transform @ (0, 0), transform @ (left, top))
    if not scene.read_dn(whole(scene))[1].all():
        assert scene.masked and scene.mask_kind == "nodata" and scene.nodata == 0
    bands = (0, 1, 2) if fine_first else (1, 2, 0)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        r, c = (int(rng.integers(0, n)) for n in scene.grid.shape)
        window = Window(r, c, int(rng.integers(1, 12)), int(rng.integers(1, 12))).clip(scene.grid.shape)
        values, valid = scene.read_dn(window)
        for y in range(window.height):
            for x in range(window.width):
                at = top + window.row + y, left + window.col + x
                inside = 0 <= at[0] < fine_shape[0] and 0 <= at[1] < fine_shape[1]
                k = rows[0][at[0] - reach[0]], rows[1][at[1] - reach[0]]
                assert valid[bands[0], y, x] == valid[bands[1], y, x] == inside
                assert valid[bands[2], y, x] == (min(k) >= 0)
                if inside:
                    assert values[bands[1], y, x] == fine[1][at]
                if min(k) >= 0:
                    assert values[bands[2], y, x] == coarse[0][k]


@settings(max_examples=40)
@given(case=pairs())
def test_coarse_values_stand_where_the_placement_says(tmp_path_factory, case):  # type: ignore[no-untyped-def]
    ratio, row, col, fine_shape, coarse_shape, transform, seed = case
    folder = tmp_path_factory.mktemp("g")
    coarse = noise_image(seed, (1, *coarse_shape))
    paths = (
        write_raster(folder / "coarse.tif", coarse, transform=coarse_transform(transform, ratio, row, col)),
        write_raster(folder / "fine.tif", noise_image(seed, (1, *fine_shape)), transform=transform),
    )
    try:
        scene = scene_of(*paths)
    except GridsError:
        return
    place = scene.placements[0]
    assert scene.placements[1] == Placement() and scene.guides == (1,) and scene.coarse == {ratio: (0,)}
    assert place.ratio == ratio and 0 <= place.row < ratio and 0 <= place.col < ratio
    values = scene.read_dn(whole(scene))[0][0]
    if place.row < scene.grid.height and place.col < scene.grid.width:
        own = own_grid(scene.grid, place)
        assert values[int(place.row) :: ratio, int(place.col) :: ratio].shape == own.shape
        np.testing.assert_allclose(
            own.transform @ (0.5, 0.5), scene.grid.transform @ (place.col + 0.5, place.row + 0.5)
        )
        assert own.resolution == pytest.approx([ratio * side for side in scene.grid.resolution])
    back = ~coarse_transform(transform, ratio, row, col) @ scene.grid.transform
    for y in np.arange(place.row, scene.grid.height, ratio):
        for x in np.arange(place.col, scene.grid.width, ratio):
            centre = back @ (x + 0.5, y + 0.5)
            assert np.allclose(np.mod(centre, 1), 0.5)  # it is the centre of a coarse pixel, bit for bit
            assert values[int(y), int(x)] == coarse[0, int(centre[1]), int(centre[0])]


def test_three_grids_meet_on_the_finest(tmp_path: Path) -> None:
    fine, mid, low = (noise_image(i, (n, s, s)) for i, (n, s) in enumerate([(2, 48), (1, 23), (1, 8)]))
    paths = [
        write_raster(tmp_path / "60.tif", low, transform=coarse_transform(UTM, 6, 0, 0)),
        write_raster(tmp_path / "20.tif", mid, transform=coarse_transform(UTM, 2, 1, -1)),
        write_raster(tmp_path / "10.tif", fine, transform=UTM),
    ]
    scene = scene_of(*paths)
    assert scene.grid.shape == (46, 45) and scene.coarse == {2: (1,), 6: (0,)} and scene.guides == (2, 3)
    assert scene.placements[:2] == (Placement(6, 1.5, 2.5), Placement(2, 0.5, 1.5))
    values = scene.read_dn(whole(scene))[0]
    assert np.array_equal(values[2:], fine[:, 1:47, :45])
    assert np.array_equal(values[1], mid[0].repeat(2, 0).repeat(2, 1)[:46, 1:46])
    assert np.array_equal(values[0], low[0].repeat(6, 0).repeat(6, 1)[1:47, :45])
    with pytest.raises(GridsError, match="is not on the grid of"):
        scene_of(*paths, extent=None)


def test_the_sample_of_a_scene_begins_with_a_whole_pixel_of_every_grid(tmp_path: Path) -> None:
    paths = (
        write_raster(tmp_path / "10.tif", noise_image(0, (1, 600, 288)), transform=UTM),
        write_raster(tmp_path / "20.tif", noise_image(1, (1, 300, 144)), transform=coarse_transform(UTM, 2, 0, 0)),
        write_raster(tmp_path / "60.tif", noise_image(2, (1, 100, 48)), transform=coarse_transform(UTM, 6, 0, 0)),
    )
    windows = [region.window for region in scene_of(*paths).sample]
    assert [(w.row, w.col) for w in windows] == [(r, c) for r in (0, 168, 342) for c in (0, 30)]
    assert all(w.shape == (256, 256) for w in windows)
    alone = [region.window for region in scene_of(paths[0], extent=None).sample]
    assert [(w.row, w.col) for w in alone] == [(r, c) for r in (0, 172, 344) for c in (0, 32)]


def test_masks_nodata_alpha_scale_and_offset_stay_each_grid_s_own(tmp_path: Path) -> None:
    fine, coarse = noise_image(1, (1, 24, 24)), noise_image(2, (2, 12, 12))
    coarse[0, 3, 4] = 7
    coarse[1, 5, 5:] = 0  # alpha
    paths = (
        write_raster(tmp_path / "f.tif", fine, scales=[1e-4], offsets=[-0.1], nodata=0),
        write_raster(
            tmp_path / "c.tif",
            coarse,
            transform=coarse_transform(UTM, 2, 0, 0),
            scales=[2e-4, 1.0],
            offsets=[0.5, 0.0],
            nodata=7,
            descriptions=["B11", "alpha"],
            colorinterp=[ColorInterp.undefined, ColorInterp.alpha],
        ),
    )
    scene = scene_of(*paths)
    region = scene.read(whole(scene))
    known = (coarse[0] != 7) & (coarse[1] != 0)
    assert np.array_equal(region.valid[1], known.repeat(2, 0).repeat(2, 1)) and region.valid[0].all()
    np.testing.assert_allclose(region.values[0], fine[0] * 1e-4 - 0.1, atol=1e-6)
    replicated = coarse[0].repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(region.values[1][region.valid[1]], (replicated * 2e-4 + 0.5)[region.valid[1]], rtol=1e-5)
    assert [b.description for b in scene.bands] == ["f", "B11"] and scene.mask_kind == "nodata"
    masked = write_raster(
        tmp_path / "m.tif",
        coarse[:1],
        transform=coarse_transform(UTM, 2, 0, 0),
        mask=np.where(np.arange(144).reshape(12, 12) % 5, 255, 0).astype("uint8"),
    )
    valid = scene_of(paths[0], masked).read_dn(whole(scene))[1]
    assert np.array_equal(valid[1], (np.arange(144).reshape(12, 12) % 5 != 0).repeat(2, 0).repeat(2, 1))


def test_a_file_of_which_no_band_is_wanted_decides_no_grid(tmp_path: Path) -> None:
    values = noise_image(1, (2, 12, 12))
    paths = (
        write_raster(tmp_path / "c.tif", values, transform=coarse_transform(UTM, 2, 0, 0)),
        write_raster(tmp_path / "f.tif", noise_image(2, (1, 24, 24))),
    )
    scene = scene_of(*paths, bands=(2,))
    assert scene.grid.shape == (12, 12) and scene.placements == (Placement(),) and scene.coarse == {}
    assert np.array_equal(scene.read_dn(whole(scene))[0][0], values[1])


@pytest.mark.parametrize(
    ("transform", "crs", "why"),
    [
        (coarse_transform(UTM, 2, 0, 0), "EPSG:32634", "coordinate reference systems differ"),
        (UTM @ Affine.scale(1.5), "EPSG:32633", "2, 3 or 6 times as large"),
        (UTM @ Affine.scale(4), "EPSG:32633", "2, 3 or 6 times as large"),
        (UTM @ Affine.scale(2, 3), "EPSG:32633", "2, 3 or 6 times as large"),
        (UTM @ Affine.scale(2.001), "EPSG:32633", "2, 3 or 6 times as large"),
        (UTM @ Affine.rotation(0.3) @ Affine.scale(2), "EPSG:32633", "along the same directions"),
        (UTM @ Affine.translation(0, 20) @ Affine.scale(2, -2), "EPSG:32633", "along the same directions"),
        (coarse_transform(UTM, 2, 0, 0.25), "EPSG:32633", "whole or half pixels are needed"),
        (coarse_transform(UTM, 3, 0.5, 0), "EPSG:32633", "whole pixels are needed"),
        (coarse_transform(UTM, 6, 0, 0.5), "EPSG:32633", "whole pixels are needed"),
        (coarse_transform(UTM, 2, 400, 0), "EPSG:32633", "no ground in common"),
    ],
)
def test_grids_that_do_not_fit_are_refused_in_one_line_with_both_names(
    tmp_path: Path, transform: Affine, crs: str, why: str
) -> None:
    fine = write_raster(tmp_path / "fine.tif", noise_image(1, (1, 24, 24)))
    coarse = write_raster(tmp_path / "coarse.tif", noise_image(2, (1, 12, 12)), transform=transform, crs=crs)
    with pytest.raises(GridsError, match=why) as caught:
        scene_of(coarse, fine)
    line = str(caught.value)
    assert "\n" not in line and caught.value.exit_code == 2
    for name in (
        "fine.tif (24 x 24 pixels of 10 x 10 at 500000, 5000000, EPSG:32633)",
        "coarse.tif (12 x 12 pixels of",
    ):
        assert name in line


def test_programs_round_transforms_differently(tmp_path: Path) -> None:
    fine = write_raster(tmp_path / "fine.tif", noise_image(1, (1, 24, 24)))
    off = coarse_transform(UTM, 2, 0, 0) @ Affine.translation(3e-4, -3e-4)
    coarse = write_raster(tmp_path / "coarse.tif", noise_image(2, (1, 12, 12)), transform=off)
    assert scene_of(coarse, fine).placements[0] == Placement(2, 0.5, 0.5)


def test_data_types_must_be_one_and_an_extent_a_known_one(tmp_path: Path) -> None:
    fine = write_raster(tmp_path / "f.tif", noise_image(1, (1, 24, 24)))
    coarse = write_raster(
        tmp_path / "c.tif", noise_image(2, (1, 12, 12), "uint8"), transform=coarse_transform(UTM, 2, 0, 0)
    )
    with pytest.raises(SceneError, match="holds uint16, uint8"):
        scene_of(fine, coarse)
    with pytest.raises(UsageError, match="common, union"):
        scene_of(fine, extent="all")


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_a_product_gives_all_its_bands_or_those_of_10_m(tmp_path: Path, level: str) -> None:
    folder, planes = write_safe(tmp_path / "S2A.SAFE", level, offset=-1000)
    scene = scene_of(folder)
    names = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    assert [band.description for band in scene.bands] == names
    assert scene.coarse == {2: (4, 5, 6, 8, 10, 11), 6: (0, 9)} and scene.grid.shape == (60, 60)
    region = scene.read(whole(scene))
    for name, values in zip(names, region.values, strict=True):
        side = 60 // len(planes[name])
        expected = (planes[name].astype(float) - 1000) / 10000
        np.testing.assert_allclose(values, expected.repeat(side, 0).repeat(side, 1), atol=1e-6)
    plain = scene_of(folder, extent=None)
    assert [band.description for band in plain.bands] == ["B02", "B03", "B04", "B08"]
    (next(folder.rglob("*_B8A*.jp2"))).unlink()
    scene_of(folder, extent=None)
    with pytest.raises(SceneError, match="20 m file of band B8A, found 0"):
        scene_of(folder)


def test_real_grids_one_pixel_apart_and_half_a_pixel_apart(data_folder: Path) -> None:
    pair = data_folder / "s2_20m" / "iceland_20m.tif", data_folder / "s2_20m" / "iceland_10m.tif"
    scene = scene_of(*pair)
    assert set(scene.placements) == {Placement(2, 1.5, 1.5), Placement()}
    with rasterio.open(pair[0]) as coarse, rasterio.open(pair[1]) as fine:
        got = scene.read_dn(whole(scene))[0]
        assert np.array_equal(got[6:], fine.read()[:, : scene.grid.height, : scene.grid.width])
        assert np.array_equal(got[:6, 1::2, 1::2], coarse.read()[:, 1:210, 1:210])
    for place in ("navarra", "salih", "liverpool", "fgf5"):
        scene = scene_of(*(data_folder / "landsat_pan" / f"{place}_{kind}.tif" for kind in ("ms", "pan")))
        (placement,) = {scene.placements[i] for i in scene.coarse[2]}
        assert placement.ratio == 2 and placement.row % 1 == placement.col % 1 == 0
