"""Masks: brought to the scene's grid by georeference, and what they hide is missing for everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from support.builders import UTM, noise_image, write_raster
from support.eopf import write_eopf
from support.jobs import pixels, run, scenelift
from support.landsat import write_landsat
from support.products import write_safe

from scenelift.pipeline.errors import GridsError, UsageError
from scenelift.pipeline.scenes.masks import Rule
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window


def scene_of(path: Path, **how) -> Scene:  # type: ignore[no-untyped-def]
    return open_scene(SceneSource((str(path),), **how))


def whole(scene: Scene) -> Window:
    return Window(0, 0, *scene.grid.shape)


def mask_of(folder: Path, values: np.ndarray, transform: Affine, name: str = "mask.tif") -> str:
    return str(write_raster(folder / name, values[None], transform, tiled=False))


@given(ratio=st.integers(1, 6), row=st.integers(-9, 9), col=st.integers(-9, 9), seed=st.integers(0, 99))
def test_a_fine_pixel_takes_the_mask_s_pixel_that_covers_its_centre(
    tmp_path_factory: pytest.TempPathFactory, ratio: int, row: int, col: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("mask")
    path = write_raster(folder / "a.tif", noise_image(seed, (2, 12, 10)), tiled=False)
    values = np.random.default_rng(seed).integers(0, 2, (7, 9)).astype("uint8")
    at = UTM @ Affine.translation(col / 2, row / 2) @ Affine.scale(ratio)  # moved by half fine pixels
    scene = scene_of(path, mask=mask_of(folder, values, at))
    expected = np.ones((12, 10), bool)
    for y in range(12):
        for x in range(10):  # the pixel whose half-open span holds the centre; a border belongs to the one before
            i, j = (int(np.ceil((c + 0.5 - s / 2) / ratio)) - 1 for c, s in ((y, row), (x, col)))
            if 0 <= i < 7 and 0 <= j < 9:
                expected[y, x] = values[i, j] != 0
    assert scene.mask is not None and np.array_equal(scene.mask.read(whole(scene)), expected)
    assert np.array_equal(scene.mask.read(Window(3, 2, 5, 4)), expected[3:8, 2:6])
    assert np.array_equal(scene.read(whole(scene)).valid[0], ~expected)
    assert scene.mask.shares().masked == pytest.approx(expected.mean())


@given(placed=st.tuples(st.integers(0, 11), st.integers(0, 11)), seed=st.integers(0, 99))
def test_a_coarse_pixel_is_hidden_where_the_mask_touches_it(
    tmp_path_factory: pytest.TempPathFactory, placed: tuple[int, int], seed: int
) -> None:
    """Also one cut off by the scene's edge, and whatever window is read."""
    folder = tmp_path_factory.mktemp("mask")
    fine = write_raster(folder / "a_10m.tif", noise_image(seed, (1, 24, 24)), tiled=False)
    low = UTM @ Affine.translation(1, 1) @ Affine.scale(2)
    coarse = write_raster(folder / "a_20m.tif", noise_image(seed, (1, 12, 12)), low, tiled=False)
    values = np.zeros((24, 24), "uint8")
    values[placed] = 1
    source = SceneSource((str(fine), str(coarse)), extent="common", mask=mask_of(folder, values, UTM))
    scene = open_scene(source)
    valid = scene.read(whole(scene)).valid
    row, col = (i - 1 for i in placed)  # the common extent begins one pixel further in
    if row >= 0 and col >= 0:
        assert np.argwhere(~valid[0]).tolist() == [[row, col]]
        block = [[y, x] for y in (row // 2 * 2, row // 2 * 2 + 1) for x in (col // 2 * 2, col // 2 * 2 + 1)]
        assert np.argwhere(~valid[1]).tolist() == block
        part = Window(row, col, 1, 1)
        assert not scene.read(part).valid.any()
    else:
        assert valid.all()


def hidden_scene(folder: Path, seed: int, masked: np.ndarray) -> Path:
    """A scene of two bands whose pixels under the mask depend on a seed, and those beside it do not."""
    values = noise_image(1, (2, 40, 36))
    values[:, masked] = noise_image(seed, (2, 40, 36))[:, masked]
    return write_raster(folder / f"s{seed}.tif", values, tiled=False)


@pytest.mark.parametrize("model", ["lanczos-x2", "sr-x2"])
def test_what_the_mask_hides_changes_no_byte_of_the_output(tmp_path: Path, model: str) -> None:
    values = np.zeros((20, 18), "uint8")
    values[3:9, 4:11] = 1
    path, found = mask_of(tmp_path, values, UTM @ Affine.scale(2)), []
    for seed in (2, 3):
        scene = hidden_scene(tmp_path, seed, values.repeat(2, 0).repeat(2, 1) != 0)
        run(SceneSource((str(scene),), mask=path), tmp_path / f"o{seed}.tif", model, block=16)
        found.append(pixels(tmp_path / f"o{seed}.tif"))
    assert np.array_equal(*found) and (found[0][:, 12:36, 16:44] == 0).all() and (found[0][:, :12] > 0).all()


def test_nothing_of_a_cloud_reaches_sharpened_bands(tmp_path: Path) -> None:
    scl = np.full((30, 30), 4, "uint8")
    scl[5:9, 6:12] = 9
    cloudy = scl.repeat(2, 0).repeat(2, 1) == 9
    _, planes = write_safe(tmp_path / "plain.SAFE", "L2A", scl=scl)
    found = []
    for seed in (2, 3):
        changed = {}
        for band, values in planes.items():
            ratio = 60 // len(values)
            # as a sensor sees it: what of the cloud lies in a coarse pixel is in its value
            touched = cloudy.reshape(len(values), ratio, len(values), ratio).any((1, 3))
            changed[band] = np.where(touched, values + 500 * seed, values).astype("uint16")
        folder, _ = write_safe(tmp_path / f"{seed}.SAFE", "L2A", scl=scl, planes=changed)
        run(SceneSource((str(folder),), mask="scl"), tmp_path / f"o{seed}.tif", "sharpen-closed")
        found.append(pixels(tmp_path / f"o{seed}.tif"))
    assert np.array_equal(*found) and (found[0][:, cloudy] == 0).all() and (found[0][1] > 0).sum() == (~cloudy).sum()


def test_layers_of_products_are_masks_with_their_own_classes(tmp_path: Path) -> None:
    scl = np.tile(np.arange(12, dtype="uint8"), (30, 3))[:, :30]
    quality = np.full((40, 40), 21824, "uint16")
    quality[:10] |= 1 << 3
    quality[10:20] |= 1 << 4
    safe, _ = write_safe(tmp_path / "S2A.SAFE", "L2A", scl=scl)
    store, _ = write_eopf(tmp_path / "S2.zarr", scl=scl)
    landsat, _ = write_landsat(tmp_path / "LC08", quality=quality)
    usual = {0, 1, 3, 8, 9, 10, 11}
    for path in (safe, store):
        for classes, numbers in (((), usual), (("cloud", "shadow"), {3, 8, 9}), (("10", "snow"), {10, 11})):
            scene = scene_of(path, mask="scl", mask_classes=classes)
            assert scene.mask is not None
            expected = np.isin(scl, list(numbers)).repeat(2, 0).repeat(2, 1)
            assert np.array_equal(scene.mask.read(whole(scene)), expected)
            assert scene.mask.shares().masked == pytest.approx(expected.mean())
    scene = scene_of(safe, mask="scl")
    assert scene.mask is not None and scene.mask.rule.describe() == "nodata, saturated, shadow, cloud, cirrus, snow"
    missing = (scl == 0).mean()
    shares = scene.mask.shares()
    assert shares.missing == pytest.approx(missing)
    assert shares.of_data == pytest.approx((np.isin(scl, list(usual)).mean() - missing) / (1 - missing))
    for classes, rows in (((), 20), (("cloud",), 10), (("4",), 10), (("snow",), 0)):
        scene = scene_of(landsat, mask="qa_pixel", mask_classes=classes)
        assert scene.mask is not None and scene.mask.read(whole(scene)).sum() == 40 * rows
    fine = scene_of(landsat, mask="qa_pixel", extent="common")
    assert fine.mask is not None and fine.mask.axes[0].ratio == 2


def test_a_file_called_like_a_layer_has_its_classes(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(0, (1, 8, 8)), tiled=False)
    named = mask_of(tmp_path, np.full((8, 8), 4, "uint8"), UTM, "T33_SCL_20m.tif")
    plain = mask_of(tmp_path, np.full((8, 8), 4, "uint8"), UTM)
    assert scene_of(path, mask=named).read(Window(0, 0, 8, 8)).valid.all()
    assert not scene_of(path, mask=plain).read(Window(0, 0, 8, 8)).valid.any()
    assert scene_of(path, mask=plain, mask_classes=("3",)).read(Window(0, 0, 8, 8)).valid.all()


def test_what_cannot_be_a_mask_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(0, (1, 8, 8)), tiled=False)
    zeros = np.zeros((8, 8), "uint8")
    cases = [
        ({"mask": "scl"}, UsageError, "a.tif is no product of Sentinel-2 or Landsat, which has none; name a raster"),
        ({"mask": str(tmp_path / "none.tif")}, UsageError, "no such file"),
        ({"mask_classes": ("cloud",)}, UsageError, "give mask too"),
        ({"mask": mask_of(tmp_path, zeros, UTM @ Affine.scale(0.5), "f.tif")}, GridsError, "must be 1 to 60 times"),
        ({"mask": mask_of(tmp_path, zeros, UTM @ Affine.translation(0.2, 0), "s.tif")}, GridsError, "0.200 columns"),
        ({"mask": mask_of(tmp_path, zeros, UTM), "mask_classes": ("cloud",)}, UsageError, "must be whole numbers"),
    ]
    for how, error, why in cases:
        with pytest.raises(error, match=why) as found:
            scene_of(path, **how)
        assert "\n" not in str(found.value)
    with pytest.raises(UsageError, match=r"must be nodata"):
        Rule.of("scl", ("clowd",))


def test_the_choice_is_told_recorded_and_part_of_the_job(tmp_path: Path) -> None:
    scl = np.full((30, 30), 4, "uint8")
    scl[:15] = 8
    folder, _ = write_safe(tmp_path / "S2A.SAFE", "L2A", scl=scl)
    how = ("--mask", "scl", "--workers", 0, "-m", "lanczos-x2", "--block", 30)
    done = scenelift("enhance", folder, "-o", "o.tif", *how, "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["blocks"] == 4 and told["skipped"] == 2  # wholly masked blocks
    assert "masked by scl (nodata, saturated, shadow, cloud, cirrus, snow): 50.0 % of the scene" in told["notes"]
    told = json.loads(scenelift("info", "o.tif", "--json", cwd=tmp_path).stdout)["tags"]["SCENELIFT"]
    assert json.loads(told)["mask"]["kind"] == "scl" and json.loads(told)["mask"]["share"] == 0.5
    refused = scenelift("enhance", folder, "-o", "o.tif", *how[2:], cwd=tmp_path, ok=False)
    assert refused.returncode == 2 and "made with other input or settings" in refused.stderr
    told = json.loads(scenelift("info", folder, "--mask", "scl", "--json", cwd=tmp_path).stdout)
    assert told["hidden"]["share"] == 0.5
    tiles = scenelift("tiles", folder, "--mask", "scl", "--size", 15, "-o", "tiles", "--json", cwd=tmp_path)
    assert json.loads(tiles.stdout)["tiles"] == 8
    scores = scenelift("score", folder, folder, "--mask", "scl", "--pixels-only", "--json", cwd=tmp_path)
    assert json.loads(scores.stdout)["scores"]["pixels"] == 60 * 30 * 4
