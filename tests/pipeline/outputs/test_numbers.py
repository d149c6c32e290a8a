"""The numbers of an output mean what those of its input meant: in another data type, from afar, on a finer grid."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from support.builders import IntegerNet, integer_net, noise_image, write_raster
from support.jobs import run

from scenelift.models.spec import ModelSpec
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.halving import halve
from scenelift.pipeline.outputs.outputs import Output, as_shares, output_of
from scenelift.pipeline.outputs.pyramids import Pyramid
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.radiometry import ASSUMED_SCALE, DTYPES
from scenelift.pipeline.scenes.scenes import Band, SceneSource
from scenelift.pipeline.tiles import TileGrid, Window

SAME = IntegerNet(ModelSpec("same", "other", scale=1, halo=0, patch=32), 0)
"""A model that changes nothing."""
SIZE = 40, 50
HOLE = np.s_[:, 5:9, 7:20]


def scene_of(path: Path):  # type: ignore[no-untyped-def]
    return open_scene(SceneSource((str(path),)))


def whole(path: Path):  # type: ignore[no-untyped-def]
    scene = scene_of(path)
    return scene, scene.read(Window(0, 0, *scene.grid.shape))


def stored(dtype: str, scale: float, offset: float = 0.0) -> NDArray[np.generic]:
    """Return reflectance from 0.02 to 0.95 as a file would hold it."""
    reflectance = np.random.default_rng(0).uniform(0.02, 0.95, (2, *SIZE))
    values = (reflectance - offset) / scale
    return (values if dtype == "float32" else values.round()).astype(dtype)


def check_same_numbers(given: Path, made: Path, dtype: str) -> None:
    (_, before), (after_scene, after) = whole(given), whole(made)
    assert after_scene.dtype == dtype
    assert np.array_equal(after.valid, before.valid) and 0 < after.valid.mean() < 1
    gap = np.abs(after.values.astype(np.float64) - before.values)[before.valid]
    step = 0 if dtype == "float32" else after_scene.bands[0].scale
    assert gap.max() <= 0.5 * step + 1e-6
    assert step <= 1.001 * max(ASSUMED_SCALE[dtype] % 1, scene_of(given).bands[0].scale % 1)


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
@pytest.mark.parametrize(("was", "dtype"), list(itertools.product(DTYPES, DTYPES)))
def test_reflectance_survives_every_change_of_data_type(tmp_path: Path, was: str, dtype: str, suffix: str) -> None:
    values, missing = stored(was, ASSUMED_SCALE[was]), 0
    values[HOLE] = missing
    path = write_raster(tmp_path / "in.tif", values, nodata=missing)
    run(path, tmp_path / f"out{suffix}", SAME, dtype=dtype)
    check_same_numbers(path, tmp_path / f"out{suffix}", dtype)


@pytest.mark.parametrize(
    ("was", "scale", "offset"),
    [("uint16", 2.75e-5, -0.2), ("uint16", 1e-4, -0.1), ("float32", 1e-4, -0.1), ("float32", 0.01, 0.0)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_declared_scales_survive_too(tmp_path: Path, was: str, scale: float, offset: float, dtype: str) -> None:
    values = stored(was, scale, offset)
    values[HOLE] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0, scales=[scale] * 2, offsets=[offset] * 2)
    run(path, tmp_path / "out.tif", SAME, dtype=dtype)
    check_same_numbers(path, tmp_path / "out.tif", dtype)


def test_the_old_numbers_are_kept_where_the_new_type_holds_them(tmp_path: Path) -> None:
    values = noise_image(3, (2, *SIZE))
    path = write_raster(tmp_path / "in.tif", values, scales=[2e-4] * 2)
    run(path, tmp_path / "out.tif", SAME, dtype="float32")
    with rasterio.open(tmp_path / "out.tif") as made:
        assert np.allclose(made.read(), values, rtol=1e-6)
        assert made.scales == (2e-4, 2e-4)


def test_five_hundredths_are_five_hundred(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((1, *SIZE), 0.05, "float32"))
    run(path, tmp_path / "out.tif", SAME, dtype="uint16")
    with rasterio.open(tmp_path / "out.tif") as made:
        assert (made.read() == 500).all()
        assert made.scales == (1e-4,)


@pytest.mark.parametrize("nodata", [None, float("nan")])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_nan_becomes_a_value_that_says_missing(tmp_path: Path, nodata: float | None, dtype: str) -> None:
    values = stored("float32", 1.0)
    values[0, 5:9, 7:20] = np.nan  # in one band only: no mask of all bands could say so
    path = write_raster(tmp_path / "in.tif", values, nodata=nodata)
    run(path, tmp_path / "out.tif", SAME, dtype=dtype)
    check_same_numbers(path, tmp_path / "out.tif", dtype)


@pytest.mark.parametrize("nodata", [-9999, 0.5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_a_nodata_value_that_the_new_type_lacks_becomes_its_lowest(tmp_path: Path, nodata: float, dtype: str) -> None:
    values = stored("float32", 1.0)
    values[0, 5:9, 7:20] = nodata
    path = write_raster(tmp_path / "in.tif", values, nodata=nodata)
    run(path, tmp_path / "out.tif", SAME, dtype=dtype)
    check_same_numbers(path, tmp_path / "out.tif", dtype)
    if nodata == 0.5 or dtype != "int16":  # which has -9999
        assert scene_of(tmp_path / "out.tif").nodata == np.iinfo(dtype).min


@settings(max_examples=8, deadline=None)
@given(short=st.integers(1, 3), long=st.integers(1, 1500), down=st.booleans(), zarr_too=st.booleans())
def test_every_shape_can_be_published(tmp_path_factory, short: int, long: int, down: bool, zarr_too: bool) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("shape")
    values = noise_image(0, (1, long, short) if down else (1, short, long))
    path = write_raster(folder / "in.tif", values, tiled=False)
    for suffix in (".tif", ".zarr") if zarr_too else (".tif",):
        run(path, folder / f"out{suffix}", SAME)
        assert np.array_equal(whole(folder / f"out{suffix}")[0].read_dn(Window(0, 0, *values.shape[1:]))[0], values)


def test_tags_that_are_named_like_arguments_cost_nothing(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(0, (1, 9, 9)), tags={"qqqq": "3", "zz": "utm", "kept": "yes"})
    path.write_bytes(path.read_bytes().replace(b'"qqqq"', b'"bidx"').replace(b'"zz"', b'"ns"'))
    assert scene_of(path).tags["ns"] == "utm"
    run(path, tmp_path / "out.tif", SAME)
    assert scene_of(tmp_path / "out.tif").tags["kept"] == "yes"


def test_bands_that_a_model_makes_fit_their_data_type(tmp_path: Path) -> None:
    scene = scene_of(write_raster(tmp_path / "in.tif", noise_image(0, (2, *SIZE))))
    spec = ModelSpec("three", "other", halo=0, patch=32, bands=2, out_bands=3)
    made = output_of(scene, [spec], SIZE)
    assert [(b.scale, b.declared) for b in made.bands] == [(1e-4, True)] * 3
    assert [b.scale for b in as_shares(made).bands] == [1.0] * 3


def rpc(side: float) -> RPC:
    one = [1.0] + 19 * [0.0]
    facts = {f"{n}_{kind}_coeff": one for n in ("line", "samp") for kind in ("num", "den")}
    facts |= {f"{n}_{kind}": 1.0 for n in ("height", "lat", "long") for kind in ("off", "scale")}
    return RPC(line_off=side / 2, line_scale=side / 2, samp_off=side / 4, samp_scale=side / 3, **facts)


def test_rpcs_follow_the_grid(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(0, (1, 96, 96)))
    with rasterio.open(path, "r+") as file:
        file.rpcs = rpc(96)
    run(path, tmp_path / "same.tif", SAME)
    run(path, tmp_path / "out.tif", integer_net(2, 1, 32))
    with rasterio.open(tmp_path / "same.tif") as made:
        assert (made.rpcs.line_off, made.rpcs.line_scale, made.rpcs.samp_off, made.rpcs.samp_scale) == (48, 48, 24, 32)
    with rasterio.open(tmp_path / "out.tif") as made:
        # the centre of the old pixel 48 lies between the centres of the new pixels 96 and 97
        assert (made.rpcs.line_off, made.rpcs.line_scale) == (96.5, 96)
        assert (made.rpcs.samp_off, made.rpcs.samp_scale) == (48.5, 64)
        assert made.rpcs.lat_off == 1 and made.rpcs.line_num_coeff[0] == 1


def shares(path: Path) -> list[float]:
    """Return the share of pixels that the mask of each level says is valid."""
    group = zarr.open_group(str(path), mode="r")
    return [float((group[f"{level}mask"][:] != 0).mean()) for level in ("", "2/", "4/")]


def test_coarse_levels_of_a_masked_scene_are_not_empty(tmp_path: Path) -> None:
    mask = np.full((1200, 1100), 255, np.uint8)
    mask[:400, :200] = 0
    values = np.where(mask, 40, 9000)[None].astype("uint16")
    values[:, 800:, 800:] = 0  # without a nodata value, zero is a number like any other
    path = write_raster(tmp_path / "in.tif", values, mask=mask)
    run(path, tmp_path / "m.zarr", SAME)
    assert shares(tmp_path / "m.zarr") == pytest.approx([(mask != 0).mean()] * 3)
    group = zarr.open_group(str(tmp_path / "m.zarr"), mode="r")
    for level in (2, 4):
        known = group[f"{level}/mask"][:] != 0
        assert known[200 * 2 // level * 2 :].all()
        assert set(np.unique(group[f"{level}/data"][:][:, known])) == {0, 40}


def test_transparent_pixels_are_averaged_into_nothing(tmp_path: Path) -> None:
    alpha = np.full((601, 601), 255, np.uint8)
    alpha[:301] = 0  # cuts through pixels of the coarser level
    values = np.where(alpha, 100, 0).astype("uint8")
    colors = [ColorInterp.gray, ColorInterp.alpha]
    path = write_raster(tmp_path / "in.tif", np.stack([values, alpha]), colorinterp=colors)
    run(path, tmp_path / "a.zarr", SAME)
    data, clear = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["2/data"][:]
    assert (data[150:] == 100).all() and (data[:150] == 0).all()
    assert (clear[:150] == 0).all() and (clear[150] == 128).all() and (clear[151:] == 255).all()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    density=st.sampled_from([0.0, 0.4, 1.0]),
    dtype=st.sampled_from(["uint8", "float32", "int16"]),
    seed=st.integers(0, 99),
)
def test_halving_asks_the_mask_and_nothing_else(shape, density, dtype, seed) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, shape).astype(dtype)
    known = rng.random(shape[1:]) >= density
    got = halve(values, None, known)
    for row, col in np.ndindex(*got.shape[1:]):
        quad = np.s_[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
        for band in range(shape[0]):
            inside = values[band][quad][known[quad]]
            assert got[band, row, col] == pytest.approx(inside.mean() if inside.size else 0, abs=0.5)


def test_many_bands_take_smaller_steps_to_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(write_raster(tmp_path / "in.tif", noise_image(0, (3, 700, 1300))))
    levels = []
    for number, most in enumerate((1 << 27, 1)):
        monkeypatch.setattr(Pyramid, "STEP", most)
        out = output_of(scene, [SAME.spec], (256, 512))
        sink = ZarrSink.create(tmp_path / f"{number}.zarr", out)
        for window in TileGrid(out.grid.shape, out.block):
            sink.write(window, scene.read_dn(window)[0], None)
        assert list(Pyramid(sink, out, shards=True).build()) == [2, 4]
        levels.append([sink.group[f"{level}/data"] for level in (2, 4)])
    assert [level.shards for level in levels[0]] == [(3, 512, 1024), (3, 512, 512)]
    assert [level.shards for level in levels[1]] == [(3, 512, 512)] * 2
    assert all(np.array_equal(a[:], b[:]) for a, b in zip(*levels, strict=True))


def test_a_step_of_a_hyperspectral_scene_stays_small(tmp_path: Path) -> None:
    bands = tuple(Band(None, 1e-4, 0.0, True) for _ in range(224))
    scene = scene_of(write_raster(tmp_path / "in.tif", noise_image(0, (1, *SIZE))))
    grid = GeoGrid(scene.grid.crs, scene.grid.transform, 8192, 8192)
    out = Output(grid, "uint16", bands, 0, False, (512, 512))
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    height, width = Pyramid(sink, out, shards=True).step(grid.coarsened(2))
    assert height * width * 224 * 2 <= 1 << 27
