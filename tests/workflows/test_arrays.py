"""Arrays in and out: the durable job on a file with the same pixels says what must come back, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from dask.distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from support.builders import integer_net, noise_image, write_raster
from support.jobs import holed_scene, pixels, run
from support.products import write_safe

import scenelift
from scenelift.pipeline.scenes.scenes import SceneSource

CHAIN = "denoise-fast,sr-x2-fast"
HERE = scenelift.Cluster(workers=0)
QUIET = scenelift.Settings(expect=False, block=128)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene in reflectance with holes, and what the durable job makes of it."""
    folder = tmp_path_factory.mktemp("arrays")
    values = (noise_image(1, (3, 150, 190)) * 1e-4).astype(np.float32)
    values[:, 40:70, 100:120] = np.nan
    values[1, 3:9] = np.nan
    names = ["B02", "B03", "B04"]
    scenelift.enhance(
        write_raster(folder / "scene.tif", values, descriptions=names), folder / "made.tif", CHAIN, QUIET, HERE
    )
    return folder


@pytest.mark.parametrize("chunks", [None, {"band": 1, "y": 37, "x": 190}, {"y": 64, "x": 100}])
def test_a_dataarray_gives_what_the_job_gives_however_it_is_chunked(place: Path, chunks: dict[str, int] | None) -> None:
    scene = scenelift.open(place / "scene.tif", chunks=chunks)
    for block in (64, 1024):
        made = scenelift.apply(scene, CHAIN, scenelift.Settings(block=block))
        assert (made.chunks is None) == (chunks is None)
        assert np.array_equal(made.values, pixels(place / "made.tif"), equal_nan=True)
    with rioxarray.open_rasterio(place / "made.tif") as wanted:
        assert made.rio.transform() == wanted.rio.transform() and made.rio.crs == wanted.rio.crs
        assert np.allclose(made.x, wanted.x) and np.allclose(made.y, wanted.y)
    assert list(made.band.values) == ["B02", "B03", "B04"] and made.dims == ("band", "y", "x")


def test_integers_stay_integers_with_their_scale_and_nodata(tmp_path: Path) -> None:
    path = holed_scene(tmp_path / "in.tif", 100)
    with rioxarray.open_rasterio(path) as raw:
        named = raw.assign_coords(band=["B02", "B03", "B04", "B08"])  # what rioxarray drops
        scenelift.enhance(path, tmp_path / "out.tif", CHAIN, QUIET, HERE)
        made = scenelift.apply(named, CHAIN)
    assert made.dtype == np.uint16
    assert np.array_equal(made.values, pixels(tmp_path / "out.tif"))


def test_every_kind_comes_back_as_its_kind(place: Path) -> None:
    values = scenelift.open(place / "scene.tif").values
    names = ["B02", "B03", "B04"]
    wanted = pixels(place / "made.tif")
    assert np.array_equal(scenelift.apply(values, CHAIN, bands=names), wanted, equal_nan=True)
    double = scenelift.apply(values.astype(np.float64), CHAIN, bands=names)
    assert double.dtype == np.float64 and np.array_equal(double, wanted, equal_nan=True)
    dataset = xr.Dataset({name: (("y", "x"), band) for name, band in zip(names, values, strict=True)})
    dataset["crs"] = 32633
    made = scenelift.apply(dataset, CHAIN)
    assert isinstance(made, xr.Dataset) and set(made.data_vars) == {*names, "crs"}
    assert all(np.array_equal(made[n], w, equal_nan=True) for n, w in zip(names, wanted, strict=True))
    net = integer_net(2, 1, 32)
    assert scenelift.apply(values[0], net).shape == (300, 380)


def test_each_date_of_a_cube_is_a_scene_of_its_own(place: Path) -> None:
    scene = scenelift.open(place / "scene.tif")
    cube = xr.concat([scene, scene * 0.5, scene[::-1, ::-1].assign_coords(band=scene.band, y=scene.y)], "time")
    cube = cube.chunk({"time": 1, "band": 3, "y": 80, "x": 80}).transpose("time", "y", "x", "band")
    made = scenelift.apply(cube, CHAIN)
    assert made.dims == ("time", "y", "x", "band") and made.chunks is not None
    for index in range(3):
        one = scenelift.apply(cube[index].compute(), CHAIN)
        assert np.array_equal(made[index].values, one.values, equal_nan=True)
    assert np.array_equal(made[0].transpose("band", "y", "x"), pixels(place / "made.tif"), equal_nan=True)


def test_a_client_of_dask_computes_the_same(place: Path) -> None:
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster):
        scene = scenelift.open(place / "scene.tif", chunks={"y": 60, "x": 77})
        made = scenelift.apply(scene, CHAIN, scenelift.Settings(block=70)).compute()
    assert np.array_equal(made.values, pixels(place / "made.tif"), equal_nan=True)


@given(
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    chunks=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    block=st.integers(1, 50),
    scale=st.integers(1, 3),
    hole=st.booleans(),
)
def test_chunks_and_blocks_never_show(
    side: tuple[int, int], chunks: tuple[int, int], block: int, scale: int, hole: bool
) -> None:
    values = noise_image(2, (2, *side), "float32")
    if hole:
        values[0, side[0] // 2, side[1] // 3] = np.nan
    net, settings = integer_net(scale, 2, 16), scenelift.Settings(block=block)
    whole = scenelift.apply(values, net)
    lazy = xr.DataArray(values, dims=("band", "y", "x")).chunk({"y": chunks[0], "x": chunks[1]})
    made = scenelift.apply(lazy, net, settings)
    assert np.array_equal(made.compute(scheduler="synchronous").values, whole, equal_nan=True)
    assert np.array_equal(scenelift.apply(values, net, settings), whole, equal_nan=True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1, 2], "takes a DataArray"),
        (np.zeros(4), "shape"),
        (np.zeros((2, 4, 4), np.int64), "convert it first"),
        (xr.DataArray(np.zeros((4, 4)), dims=("a", "b")), "dimensions y and x"),
        (xr.Dataset({"a": ("t", np.zeros(4))}), "dimensions y and x"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(wrong: object, said: str) -> None:
    with pytest.raises(scenelift.UsageError, match=said) as stop:
        scenelift.apply(wrong, "nearest-x2")
    assert "\n" not in str(stop.value)


def test_floats_that_are_no_reflectance_are_refused_as_in_files_unless_a_scale_is_given() -> None:
    dn = noise_image(1, (3, 40, 40)).astype("float32")
    with pytest.raises(scenelift.UsageError, match=r"cannot be reflectance \(float32, no scale is declared"):
        scenelift.apply(dn, "sr-x2-fast")
    told = scenelift.apply(dn, "sr-x2-fast", scale=1e-4)
    np.testing.assert_allclose(told * 1e-4, scenelift.apply(dn * np.float32(1e-4), "sr-x2-fast"), atol=1e-4)
    assert scenelift.apply(dn, "sr-x2-fast", scale=1.0).shape == (3, 80, 80)
    assert scenelift.apply(dn, "bicubic-x2").shape == (3, 80, 80)  # which any numbers may be


def test_the_package_says_what_it_has_and_imports_nothing_for_it(tmp_path: Path) -> None:
    code = """
import sys
import warnings
import scenelift
assert not {"numpy", "torch", "dask", "rasterio", "xarray"} & set(sys.modules), "heavy"
assert set(dir(scenelift)) == set(scenelift.__all__)
for name in scenelift.__all__:
    assert getattr(scenelift, name) is not None
assert {m["name"] for m in scenelift.list_models()} >= {"sr-x2", "denoise", "pansharpen"}
assert scenelift.load("nearest-x2").spec.scale == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'enhnace'"):
        scenelift.enhnace  # type: ignore[attr-defined]  # noqa: B018


def test_a_scene_that_is_opened_is_read_when_it_is_used(place: Path) -> None:
    scene = scenelift.open(place / "scene.tif")
    wanted = pixels(place / "scene.tif")
    assert np.array_equal(scene[1:, 5:60:7, -30:].values, wanted[1:, 5:60:7, -30:], equal_nan=True)
    assert np.array_equal(scene.sel(band="B03")[10, ::-1].values, wanted[1, 10, ::-1], equal_nan=True)
    assert scene.isel(y=slice(0, 0)).values.shape == (3, 0, 190)
    assert scene.rio.crs.to_epsg() == 32633


def test_bands_are_chosen_by_name_in_outputs_too(tmp_path: Path) -> None:
    """Names, common names and wavelengths are coordinates of what is opened, and of the stores that are written."""
    folder, planes = write_safe(tmp_path / "S2A.SAFE", "L1C")
    scene = scenelift.open(folder)
    assert scene.center_wavelength.sel(band="B08").item() == 0.842
    by_colour = scene.set_index(band="common_name").sel(band="red")
    assert np.array_equal(by_colour.values, scene.sel(band="B04").values)
    assert scenelift.apply(scene, "nearest-x2").sel(band="B04").common_name == "red"
    run(SceneSource((str(folder),)), tmp_path / "o.zarr", "nearest-x2", shards=False)
    stored = xr.open_zarr(tmp_path / "o.zarr")["data"]
    assert stored.band.values.tolist() == ["B02", "B03", "B04", "B08"]
    assert stored.sel(band="B04").common_name == "red" and stored.center_wavelength.attrs["units"] == "um"
    assert np.array_equal(stored.sel(band="B04")[::2, ::2], planes["B04"])
    again = scenelift.open(tmp_path / "o.zarr")
    assert np.array_equal(again.sel(band="B04")[::2, ::2], scene.sel(band="B04"))
    assert again.common_name.values.tolist() == ["blue", "green", "red", "nir"]
    run(SceneSource((str(folder),)), tmp_path / "o.tif", "nearest-x2")
    with rasterio.open(tmp_path / "o.tif") as made:
        assert made.descriptions[2] == "B04"
        assert made.tags(3)["common_name"] == "red" and made.tags(3)["center_wavelength"] == "0.665"


@pytest.mark.skipif(
    tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) < (3, 12), reason="GDAL before 3.12 reads no Zarr 3"
)
def test_gdal_opens_a_store_as_one_dataset(tmp_path: Path) -> None:
    folder, _ = write_safe(tmp_path / "S2A.SAFE", "L1C")
    run(SceneSource((str(folder),)), tmp_path / "o.zarr", "nearest-x2", shards=False)
    with rasterio.open(tmp_path / "o.zarr") as store:
        assert store.count == 4 and store.shape == (120, 120)


def test_mypy_understands_the_interface(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs mypy")
    (tmp_path / "user.py").write_text(
        "from typing import Any\n\nimport numpy as np\nimport scenelift\n"
        "made: np.ndarray[Any, Any] = scenelift.apply(np.zeros((3, 4, 4), np.float32), 'sr-x2')\n"
        "summary = scenelift.enhance('a.tif', 'b.tif', settings=scenelift.Settings(block=512))\n"
        "print(summary.seconds, scenelift.open('a.tif').dims, scenelift.__version__)\n"
        "scenelift.enhance(1, 'b.tif')\n"
    )
    root = Path(__file__).parents[2]
    typing = tmp_path / "typing" / "scenelift"
    typing.mkdir(parents=True)
    for room in ("pipeline", "models", "workflows"):
        (typing / room).symlink_to(root / room)
    for name in ("__init__.py", "py.typed"):
        (typing / name).symlink_to(root / "workflows" / "api" / name)
    env = os.environ | {"MYPYPATH": str(typing.parent)}
    flags = ["--strict", "--ignore-missing-imports", "--follow-imports=silent", "--no-incremental"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, "user.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    errors = [line for line in done.stdout.splitlines() if line.startswith("user.py")]
    assert len(errors) == 1 and "user.py:8" in errors[0], done.stdout


def test_a_plain_open_zarr_has_the_crs_and_no_warning(tmp_path: Path) -> None:
    path = holed_scene(tmp_path / "in.tif", 300)
    scenelift.enhance(path, tmp_path / "out.zarr", "nearest-x2", QUIET, HERE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(tmp_path / "out.zarr")
        coarser = xr.open_zarr(tmp_path / "out.zarr", group="2")
    for level, size in ((found, 5.0), (coarser, 10.0)):
        assert list(level.data_vars) == ["data"] and "spatial_ref" in level.data.coords
        assert level.data.rio.crs.to_epsg() == 32633
        assert level.data.rio.transform().a == size
