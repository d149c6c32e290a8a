"""float64 is read as float32, missing pixels are told before anything is rounded: the same scene, the same pixels."""

from __future__ import annotations

import json
from pathlib import Path

import dask.array
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from support.builders import integer_net, noise_image, write_raster
from support.inputs import LOWEST
from support.jobs import run, scenelift

import scenelift as package
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window

READ = "float64 is read as float32: 7 digits are kept, values beyond 3.4e38 are missing"
MARKS = [None, float("nan"), -9999.0, 0.0, 0.1, 1e6, LOWEST, float(np.finfo(np.float32).min), -3.40282347e38]


def numbers(seed: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return reflectance that float32 holds as it is, some of it not a number."""
    random = np.random.default_rng(seed)
    made = random.uniform(-0.1, 1.5, shape).astype(np.float32).astype(np.float64)
    made[random.random(shape) < 0.05] = np.nan
    return made


def stored(path: Path, values: NDArray[np.float64], mark: float | None, scale: float) -> Path:
    if path.suffix != ".zarr":
        return write_raster(path, values, nodata=mark, scales=[scale] * len(values), offsets=[-0.1] * len(values))
    height, width = values.shape[1:]
    places = {"y": 5e6 - 10 * np.arange(height) - 5, "x": 5e5 + 10 * np.arange(width) + 5}
    data = xr.DataArray(values, places, ("band", "y", "x"), name="red").rio.write_crs("EPSG:32633")
    data = data.assign_attrs(scale_factor=scale, add_offset=-0.1)
    data.encoding["_FillValue"] = mark
    data.to_zarr(path, zarr_format=3, consolidated=False)
    return path


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(3, 60), st.integers(3, 60)),
    mark=st.sampled_from(MARKS),
    suffixes=st.tuples(st.sampled_from([".tif", ".zarr"]), st.sampled_from([".tif", ".zarr"])),
    block=st.sampled_from([17, 1024]),
    dtype=st.sampled_from([None, "uint16", "float32"]),
    seed=st.integers(0, 2**31),
)
def test_a_scene_in_float64_gives_what_it_gives_in_float32(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    mark: float | None,
    suffixes: tuple[str, str],
    block: int,
    dtype: str | None,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("scenes")
    values = numbers(seed, shape)
    if mark is not None:
        values[np.random.default_rng(seed + 1).random(shape) < 0.2] = mark
    double = stored(folder / f"double{suffixes[0]}", values, mark, 0.5)
    lacking = mark is not None and not abs(mark) <= 3.4028236e38  # which float32 marks by NaN
    plain = np.where(values == mark, np.nan, values) if lacking else values
    with np.errstate(over="ignore"):
        held = float("nan") if lacking else None if mark is None else float(np.float32(mark))
    single = write_raster(
        folder / "single.tif", plain.astype(np.float32), nodata=held, scales=[0.5] * shape[0], offsets=[-0.1] * shape[0]
    )
    net, out = integer_net(2, 2, 16), folder / f"out{suffixes[1]}"
    summary = run(double, out, net, block=block, dtype=dtype)
    run(single, folder / "wanted.tif", net, dtype=dtype)
    assert READ in summary.notes
    found, wanted = (open_scene(SceneSource((str(path),))) for path in (out, folder / "wanted.tif"))
    assert found.dtype == wanted.dtype == (dtype or "float32")
    assert found.bands[0].scale == wanted.bands[0].scale and found.bands[0].offset == wanted.bands[0].offset
    everything = Window(0, 0, *found.grid.shape)
    for a, b in zip(found.read_dn(everything), wanted.read_dn(everything), strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype != bool)
    assert repr(found.nodata) == repr(wanted.nodata) or mark == 0.1  # 0.1 in float32 is another number


@pytest.mark.parametrize("mark", [-9999.0, 0.1, LOWEST])
def test_only_the_nodata_value_itself_is_missing_and_nothing_becomes_it(tmp_path: Path, mark: float) -> None:
    near = np.nextafter(mark, 0.0)  # in float32 they are one number, or it lacks both
    values = np.array([[[mark, near, 0.25, 1e39, -1e300, np.inf, 1e-300]]])
    scene = open_scene(SceneSource((str(write_raster(tmp_path / "in.tif", values, nodata=mark)),)))
    dn, valid = scene.read_dn(Window(0, 0, 1, 7))
    assert dn.dtype == np.float32 and scene.dtype == "float32"
    assert valid[0, 0].tolist() == [False, mark != LOWEST, True, False, False, False, True]
    missing = np.float32(scene.nodata)
    assert (dn[valid] != missing).all() and dn[0, 0, 2] == np.float32(0.25)
    assert dn[0, 0, 0] == missing or (np.isnan(dn[0, 0, 0]) and np.isnan(missing))
    given_by_hand = write_raster(tmp_path / "plain.tif", values)
    other = open_scene(SceneSource((str(given_by_hand),), nodata=mark)).read_dn(Window(0, 0, 1, 7))
    assert np.array_equal(other[1], valid)


def test_bands_in_float64_and_float32_are_one_scene_and_others_are_refused(tmp_path: Path) -> None:
    values = numbers(1, (1, 20, 30))
    double, single = (write_raster(tmp_path / f"{t}.tif", values.astype(t)) for t in ("float64", "float32"))
    scene = open_scene(SceneSource((str(double), str(single))))
    dn, valid = scene.read_dn(Window(0, 0, 20, 30))
    assert np.array_equal(dn[0], dn[1], equal_nan=True) and np.array_equal(valid[0], valid[1])
    write_raster(tmp_path / "long.tif", noise_image(1, (1, 20, 30)).astype("int64"))
    done = scenelift("info", "float64.tif", "long.tif", cwd=tmp_path, ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds float64, int64; supported is one of uint8, uint16, int16, float32, float64" in done.stderr


def test_alpha_in_float64_masks_and_is_kept(tmp_path: Path) -> None:
    values = np.nan_to_num(numbers(1, (2, 20, 30)))
    values[1] = 1.0
    values[1, :5], values[1, 5:7] = 0.0, 1e-300  # what can be seen at all never vanishes
    path = write_raster(tmp_path / "in.tif", values, colorinterp=[ColorInterp.gray, ColorInterp.alpha])
    run(path, tmp_path / "out.tif", "nearest-x2")
    with rasterio.open(tmp_path / "out.tif") as made:
        assert made.dtypes == ("float32", "float32") and made.colorinterp[1] == ColorInterp.alpha
        assert np.array_equal(made.read(2) > 0, (values[1] > 0).repeat(2, 0).repeat(2, 1))


def test_the_commands_take_it_and_going_on_makes_the_same_bytes(tmp_path: Path) -> None:
    values = numbers(3, (1, 60, 80))
    values[0, :9, :9] = LOWEST
    write_raster(tmp_path / "in.tif", values, nodata=LOWEST)
    command = "enhance", "in.tif", "-o", "out.tif", "-m", "sr-x2-lean", "--no-expect", "--workers", 0, "--json"
    told = json.loads(scenelift(*command, cwd=tmp_path).stdout)
    assert READ in told["notes"]
    before = (tmp_path / "out.tif").read_bytes()
    assert json.loads(scenelift(*command, cwd=tmp_path).stdout)["resumed"] == 1
    (tmp_path / "out.tif").write_bytes(before[:-40] + bytes(40))
    assert "repaired" in scenelift("verify", "out.tif", "--repair", cwd=tmp_path).stdout
    assert (tmp_path / "out.tif").read_bytes() == before
    with rasterio.open(tmp_path / "out.tif") as made:
        assert made.dtypes == ("float32",) and np.isnan(made.nodata)
        assert np.isnan(made.read(1)[:18, :18]).all()
    about = json.loads(scenelift("info", "in.tif", "--json", cwd=tmp_path).stdout)
    assert about["dtype"] == "float32" and about["bands"][0]["nodata"] == LOWEST and READ in about["notes"]
    score = json.loads(scenelift("score", "in.tif", "in.tif", "--json", cwd=tmp_path).stdout)
    assert score["scores"]["pixels"] == int(np.isfinite(np.where(values == LOWEST, np.nan, values)).sum())


@pytest.mark.parametrize("mark", [None, -9999.0, 0.1, LOWEST])
def test_arrays_in_float64_come_back_with_the_nodata_value_they_had(mark: float | None) -> None:
    values = numbers(5, (2, 30, 40))
    if mark is not None:
        values[:, 3:9, 10:14] = mark
    net = integer_net(1, 2, 16)
    plain = np.where(values == mark, np.nan, values).astype(np.float32)
    wanted = package.apply(plain, net).astype(np.float64)
    if mark is not None:
        wanted[np.isnan(wanted)] = mark
    attributes = {} if mark is None else {"_FillValue": mark}
    array = xr.DataArray(values, dims=("band", "y", "x"), attrs=attributes)
    for given_array in (array, array.copy(data=dask.array.from_array(values, chunks=(2, 11, 13)))):
        made = package.apply(given_array, net).compute(scheduler="synchronous")
        assert made.dtype == np.float64 and np.array_equal(made.values, wanted, equal_nan=True)
