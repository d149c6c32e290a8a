"""Other people's inputs, kind by kind as in docs/inputs.md: read as their writer meant, or refused in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from support.builders import UTM, noise_image, write_raster
from support.inputs import CRS, EXAMPLES, Case, Cube

from scenelift.pipeline.addresses import decoded, local_path, without_secrets
from scenelift.pipeline.errors import SceneError, TimesError, UsageError
from scenelift.pipeline.jobs.checks import check_image, doubts, no_image
from scenelift.pipeline.outputs.outputs import opaque, output_of, recoded_alpha
from scenelift.pipeline.scenes.inputs import input_digest
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.cli.inform import describe_scene


def scene_of(*paths: object, **how: object) -> Scene:
    return open_scene(SceneSource(tuple(map(str, paths)), **how))  # type: ignore[arg-type]


def whole(scene: Scene) -> Window:
    return Window(0, 0, *scene.grid.shape)


# masks and missing data


def test_masks_that_differ_by_band_become_nodata_of_each(tmp_path: Path) -> None:
    case = Case("uint16", (6, 7), 2, UTM, None, "none", "each file", 5)
    scene = scene_of(*case.write(tmp_path / "in"))
    assert scene.mask_kind == "nodata" and scene.nodata == 0 and any("differ by band" in n for n in scene.notes)


def test_a_mask_file_with_a_plane_for_each_band(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (2, 20, 30)))
    planes = np.full((2, 20, 30), 255, np.uint8)
    planes[0, :4], planes[1, 9:] = 0, 0
    write_raster(tmp_path / "a.tif.msk", planes, tags={f"INTERNAL_MASK_FLAGS_{i}": "0" for i in (1, 2)})
    scene = scene_of(path)
    assert np.array_equal(scene.read(whole(scene)).valid, planes != 0)
    assert scene.nodata == 0 and not output_of(scene, [], (20, 30)).mask
    write_raster(tmp_path / "a.tif.msk", planes)
    with pytest.raises(SceneError, match="which bands"):
        scene_of(path)


def test_alpha_counts_for_the_bands_of_its_own_file(tmp_path: Path) -> None:
    colors = [ColorInterp.gray, ColorInterp.alpha]
    paths = []
    for i in range(2):
        values = noise_image(i, (2, 9, 9))
        values[1] = 65535
        values[1, i] = 0
        paths.append(write_raster(tmp_path / f"{i}.tif", values, colorinterp=colors))
    scene = scene_of(*paths)
    valid = scene.read(whole(scene)).valid
    assert scene.alpha is None and not valid[0, 0].any() and not valid[1, 1].any() and valid.sum() == 2 * 72


def test_an_alpha_band_that_is_named_is_data(tmp_path: Path) -> None:
    values = noise_image(2, (4, 9, 9), "uint8")
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write_raster(tmp_path / "a.tif", values, colorinterp=colors)
    scene = scene_of(path, bands=(1, 2, 3, 4))
    assert scene.alpha is None and scene.bands[3].color == "undefined"
    assert np.array_equal(scene.read_dn(whole(scene))[0], values)
    assert any("--bands 1,2,3,4" in line for line in doubts(scene_of(path), network=False))
    values[3] = np.where(values[3] > 99, 255, 0)
    write_raster(path, values, colorinterp=colors)
    assert doubts(scene_of(path), network=False) == []


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    was=st.sampled_from(["uint8", "uint16", "int16"]),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    seed=st.integers(0, 999),
)
def test_alpha_in_another_data_type(was: str, dtype: str, seed: int) -> None:
    alpha = np.random.default_rng(seed).integers(0, opaque(was), 40, endpoint=True).astype(was)
    alpha[:3] = 0, 1, int(opaque(was))
    made = recoded_alpha(alpha, dtype)
    assert made.dtype == dtype and np.array_equal(made > 0, alpha > 0)
    assert made[2] == opaque(dtype)
    back = recoded_alpha(made, was).astype(float)
    assert (np.abs(back - alpha) <= 1 + opaque(was) / opaque(dtype)).all() or dtype == "float32"


@pytest.mark.parametrize(
    ("name", "how"),
    [("LC09_L2SP_190027_20240501_QA_PIXEL.TIF", {}), ("T33TUN_20240501_SCL_20m.tif", {}), ("a.tif", {"palette": 1})],
)
def test_classes_and_flags_are_no_image(tmp_path: Path, name: str, how: dict[str, int]) -> None:
    path = write_raster(tmp_path / name, noise_image(1, (1, 9, 9), "uint8"))
    if how:
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    assert no_image(scene_of(path))
    with pytest.raises(UsageError, match="band 1 is no image"):
        check_image(scene_of(path))
    for fine in ("LC09_L2SP_190027_20240501_02_T1_SR_B4.TIF", "quality.tif", "SCLera.tif"):
        assert no_image(scene_of(write_raster(tmp_path / fine, noise_image(1, (1, 9, 9))))) is None


def test_flags_of_a_store_are_left_out_and_told(tmp_path: Path) -> None:
    data = Cube(noise_image(1, (1, 5, 6)), ("y", "x"), ("y", "x"), True, "both").dataset()
    data["mask"] = data["red"].astype("uint8") % 2
    data["scene_class"] = data["mask"].assign_attrs(flag_values=[0, 1], flag_meanings="land water")
    data.to_zarr(tmp_path / "a.zarr", zarr_format=3)
    scene = scene_of(tmp_path / "a.zarr")
    assert scene.read(whole(scene)).valid.all() and [b.description for b in scene.bands] == ["red"]
    assert any("mask, scene_class" in note for note in scene.notes)
    data[["scene_class"]].to_zarr(tmp_path / "b.zarr", zarr_format=3)
    assert no_image(scene_of(tmp_path / "b.zarr"))


def test_a_side_car_that_decides_pixels_is_part_of_the_input(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (1, 9, 9)))
    beside, seen = tmp_path / "a.tif.aux.xml", [input_digest(SceneSource((str(path),)))]
    looked = "<PAMDataset><PAMRasterBand band='1'><Metadata><MDI key='STATISTICS_MEAN'>3</MDI></Metadata>{}"
    looked += "</PAMRasterBand></PAMDataset>"
    for inside in ("", "<NoDataValue>7</NoDataValue>", "<NoDataValue>8</NoDataValue>"):
        beside.write_text(looked.format(inside))
        seen.append(input_digest(SceneSource((str(path),))))
    assert seen[0] == seen[1] and len(set(seen)) == 3
    beside.write_text('<!DOCTYPE x [<!ENTITY a "b">]><PAMDataset/>')
    with pytest.raises(SceneError, match="XML entities"):
        scene_of(path)


# structure and place


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d.assign_coords(x=d.x.where(d.x < 500_030, d.x + 500)), "not evenly spaced"),
        (lambda d: d.assign_coords(x=d.x.assign_attrs(units="degrees_east")), "one of them is wrong"),
        (lambda d: xr.concat([d, d], "time"), r"2 steps along time \(1, 2\)"),
        (lambda d: d.isel(y=[0], x=[0]), "no pixel size"),
    ],
)
def test_stores_whose_place_cannot_be_told_are_refused(tmp_path: Path, change, word: str) -> None:  # type: ignore[no-untyped-def]
    data = Cube(noise_image(1, (1, 5, 6)), ("y", "x"), ("y", "x"), True, "coordinates").dataset()
    change(data).to_zarr(tmp_path / "a.zarr", zarr_format=3)
    with pytest.raises(SceneError, match=word):
        scene_of(tmp_path / "a.zarr")


@pytest.mark.parametrize("stacked", [True, False])
def test_one_of_a_cube_s_times_is_read(tmp_path: Path, stacked: bool) -> None:
    """(time, band, y, x), and one variable a band; times in numbers since a day, as CF has them."""
    values = noise_image(3, (3, 2, 5, 6), "int16")
    one = Cube(values[0, :1], ("y", "x"), ("y", "x"), True, "coordinates").dataset()
    time = ("time", np.array([0, 30, 31], "int32"), {"units": "days since 2024-04-30", "calendar": "standard"})
    coords = {"time": time, "y": one.y, "x": one.x, "spatial_ref": one.spatial_ref}
    dims, attrs = ("time", "band", "y", "x"), {"grid_mapping": "spatial_ref"}
    data = xr.Dataset({"data": (dims, values, attrs)}, coords | {"band": ["B04", "B08"]})
    if not stacked:
        each = {name: (("time", "y", "x"), values[:, n], attrs) for n, name in enumerate(("B04", "B08"))}
        data = xr.Dataset(each, coords)
    path = tmp_path / "cube.zarr"
    data.to_zarr(path, zarr_format=3)
    for wanted, index in (("2", 1), ("2024-05-31", 2), ("2024-04", 0)):
        scene = scene_of(path, time=wanted)
        assert np.array_equal(scene.read_dn(whole(scene))[0], values[index])
        assert [b.description for b in scene.bands] == ["B04", "B08"]
        assert scene.times == ("2024-04-30", "2024-05-30", "2024-05-31")
        assert scene.tags["ACQUISITIONDATETIME"] == scene.times[index]
    several = r"has 3 steps along time \(2024-04-30, 2024-05-30, 2024-05-31\).* time 2024-04-30 or time 1"
    with pytest.raises(TimesError, match=several) as refused:
        scene_of(path)
    assert "\n" not in str(refused.value)
    for wanted, why in (("2024-05", "several times begin so"), ("4", "it has the numbers 1 to 3"), ("2023", "1 to 3")):
        with pytest.raises(UsageError, match=f"time {wanted}: no single time of .*{why}: 2024-04-30"):
            scene_of(path, time=wanted)
    facts = describe_scene(SceneSource((str(path),)))
    assert facts["times"] == ["2024-04-30", "2024-05-30", "2024-05-31"] and facts["time"] == "2024-04-30"
    assert describe_scene(SceneSource((str(path),), time="3"))["time"] == "2024-05-31"
    if stacked:
        data.to_netcdf(tmp_path / "cube.nc", engine="scipy")
        scene = scene_of(tmp_path / "cube.nc", time="2024-05-31")
        assert np.array_equal(scene.read_dn(whole(scene))[0], values[2])
    plain = write_raster(tmp_path / "a.tif", values[0])
    with pytest.raises(UsageError, match=r"time 1: a.tif has no dimension of time: leave it out"):
        scene_of(plain, time="1")


def test_kilometres_are_metres(tmp_path: Path) -> None:
    data = Cube(noise_image(1, (1, 5, 6)), ("y", "x"), ("y", "x"), True, "coordinates").dataset()
    thousands = {name: (data[name] / 1000).assign_attrs(units="km") for name in ("x", "y")}
    data.assign_coords(thousands).to_zarr(tmp_path / "a.zarr", zarr_format=3)
    assert scene_of(tmp_path / "a.zarr").grid.transform.almost_equals(UTM, 1e-6)


def test_bands_are_named_by_their_coordinate(tmp_path: Path) -> None:
    data = Cube(noise_image(1, (3, 5, 6)), ("y", "x"), ("y", "x", "band"), True, "both").dataset()
    data.assign_coords(band=["B04", "B03", "B02"]).to_zarr(tmp_path / "a.zarr", zarr_format=3)
    assert [b.description for b in scene_of(tmp_path / "a.zarr").bands] == ["B04", "B03", "B02"]


@pytest.mark.parametrize("value", [np.nan, -9999, 1e9])
def test_nodata_that_integers_lack_marks_nothing_and_is_told(tmp_path: Path, value: float) -> None:
    data = Cube(noise_image(1, (1, 5, 6)), ("y", "x"), ("y", "x"), True, "both").dataset()
    data["red"].attrs["nodata"] = value
    data.to_zarr(tmp_path / "a.zarr", zarr_format=3)
    scene = scene_of(tmp_path / "a.zarr")
    assert scene.read(whole(scene)).valid.all() and any("cannot occur" in note for note in scene.notes)


# numbers


@pytest.mark.parametrize(("scales", "dtype"), [(None, "float32"), ([1.0], "uint16"), ([0.01], "uint16")])
def test_what_cannot_be_reflectance_is_never_given_to_a_network(tmp_path: Path, scales, dtype: str) -> None:  # type: ignore[no-untyped-def]
    values = np.full((1, 30, 30), 2500, dtype)
    path = write_raster(tmp_path / "a.tif", values, scales=scales, offsets=[-1.0] if scales else None)
    with pytest.raises(UsageError, match=r"cannot be reflectance.*scale"):
        doubts(scene_of(path), network=True)
    assert "--scale" in doubts(scene_of(path), network=False)[0]
    assert doubts(scene_of(path, scale=1e-4), network=True) == []
    assert doubts(scene_of(write_raster(tmp_path / "b.tif", (values / 1e4).astype("float32"))), network=True) == []


def test_what_is_assumed_is_told(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (2, 9, 9)))
    assert any("0.0001" in note and "--scale" in note for note in scene_of(path).notes)
    assert scene_of(path, scale=1e-4).notes == ()


def test_a_scale_of_zero_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (1, 9, 9)), scales=[0.0], offsets=[1.0])
    with pytest.raises(UsageError, match="scale"):
        scene_of(path)


def test_a_catalogue_speaks_where_the_file_is_silent(tmp_path: Path) -> None:
    silent = write_raster(tmp_path / "a.tif", noise_image(1, (2, 9, 9)))
    told = ((1e-4, -0.1, 0.0), (2e-4, None, None))
    scene = scene_of(silent, told=told)
    assert [(b.scale, b.offset, b.nodata) for b in scene.bands] == [(1e-4, -0.1, 0.0), (2e-4, 0.0, None)]
    loud = write_raster(tmp_path / "b.tif", noise_image(1, (2, 9, 9)), scales=[1e-3] * 2, offsets=[0.0] * 2, nodata=3)
    scene = scene_of(loud, told=told)
    assert [(b.scale, b.nodata) for b in scene.bands] == [(1e-3, 3)] * 2
    assert any("not the catalogue's" in note for note in scene.notes)


# place


def test_grids_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    paths = [
        write_raster(tmp_path / f"{i}.tif", noise_image(i, (1, 9, 9)), transform=Affine(30 + off, 0, 6e5, 0, -30, 5e6))
        for i, off in enumerate((0, 4e-15, 1e-3, 1.0))
    ]
    assert len(scene_of(paths[0], paths[1]).bands) == 2
    for other in paths[3:]:
        with pytest.raises(SceneError, match="its pixels are"):
            scene_of(paths[0], other)


def test_points_and_polynomials_are_not_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    gcps = [rasterio.control.GroundControlPoint(r, c, 10 + c / 9, 50 - r / 9) for r, c in ((0, 0), (0, 9), (9, 0))]
    with rasterio.open(
        path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", gcps=gcps, crs="EPSG:4326"
    ) as f:
        f.write(np.ones((1, 9, 9), "uint8"))
    for crs in (None, "EPSG:4326"):
        with pytest.raises(UsageError, match=r"ground control points alone.*gdalwarp"):
            scene_of(path, crs=crs)


def test_pages_of_a_tiff_are_not_lost(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (1, 9, 9)))
    with rasterio.open(path, "r") as first:
        profile = first.profile | {"APPEND_SUBDATASET": "YES"}
    with rasterio.open(path, "w", **profile) as second:
        second.write(noise_image(2, (1, 9, 9)))
    with pytest.raises(SceneError, match="2 pages"):
        scene_of(path)


# opening


def test_names_of_files_as_urls(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "my scene.tif", noise_image(1, (1, 9, 9)))
    for name in (f"file://{path}", f"file://localhost{path}", f"file://{tmp_path}/my%20scene.tif"):
        assert scene_of(name).source.paths == (str(path),)
    odd = write_raster(tmp_path / "100%25.tif", noise_image(1, (1, 9, 9)))
    assert local_path(f"file://{odd}") == decoded(str(odd)) == str(odd)


@given(secret=st.text("abcXYZ019%=-_.~+&", min_size=1, max_size=20).map(lambda text: f"SECRET{text}"))
def test_signatures_never_outlive_an_address(secret: str) -> None:
    for text in (
        f"https://host/a b/s.tif?sig={secret}",
        f"cannot read https://me:{secret}@host/s.tif: 403",
        f"s3://k/o#{secret}",
        f"['https://one/a?{secret}', 'https://two/b?{secret}']",
    ):
        assert "SECRET" not in without_secrets(text)
    assert without_secrets("cannot read https://host/a b.tif: 403") == "cannot read https://host/a b.tif: 403"
    assert without_secrets("what? /tmp/a?b.tif") == "what? /tmp/a?b.tif"


def test_what_file_managers_leave_is_no_data(tmp_path: Path) -> None:
    group = zarr.open_group(
        str(tmp_path / "a.zarr"),
        mode="w",
        zarr_format=3,
        attributes={"proj:code": CRS, "spatial:transform": list(UTM)[:6]},
    )
    group.create_array("red", shape=(4, 5), dtype="uint8", dimension_names=("y", "x"))[...] = 7
    before = input_digest(SceneSource((str(tmp_path / "a.zarr"),)))
    (tmp_path / "a.zarr" / ".DS_Store").touch()
    (tmp_path / "a.zarr" / "red" / "._zarr.json").write_text(json.dumps({}))
    assert input_digest(SceneSource((str(tmp_path / "a.zarr"),))) == before
    assert scene_of(tmp_path / "a.zarr").grid.shape == (4, 5)
