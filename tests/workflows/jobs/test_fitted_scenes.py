"""Methods fitted to the whole scene, in jobs: by any blocks and workers the same bytes, resumed, in chains, told of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.builders import write_raster
from support.jobs import holed_scene, pixels, run, scenelift

from scenelift.models.fitted.running import fit, fitted_method
from scenelift.models.fitted.views import ImageView
from scenelift.pipeline.errors import UsageError


def told(path: Path, number: int = 0) -> dict:
    with rasterio.open(path) as made:
        return json.loads(made.tags()["SCENELIFT"])["models"][number]


@pytest.mark.parametrize(
    "name", ["stretch", "gamma", "clahe:tiles=3", "dark-object", "dark-channel", "destripe:slant=0.1"]
)
def test_no_block_decides_a_pixel(tmp_path: Path, name: str) -> None:
    scene = holed_scene(tmp_path / "in.tif")
    run(scene, tmp_path / "a.tif", name)
    run(scene, tmp_path / "b.tif", name, block=160, batch=3)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    facts = told(tmp_path / "a.tif")
    assert facts["fitted"]["bands"] == 4
    assert facts["product"] == ("visual" if name[:5] in ("stret", "gamma", "clahe") else "reflectance")


def test_a_job_equals_the_method_on_the_whole_image(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = (1000 + 800 * random.random((2, 300, 310))).astype("uint16")
    scene = write_raster(tmp_path / "in.tif", values, scales=[1e-4] * 2)
    for name in ("clahe", "destripe"):
        run(scene, tmp_path / "out.tif", name, block=100, overwrite=True)
        image = (values * np.float32(1e-4)).astype(np.float32)
        made = fitted_method(name, fit(name, ImageView(image)))
        whole = made(image[None], np.zeros((1, 2), np.int64))[0]
        np.testing.assert_allclose(pixels(tmp_path / "out.tif") * 1e-4, whole, atol=1.5e-4)


def test_workers_are_told_the_numbers_and_a_chain_is_fitted_to_what_comes_before(tmp_path: Path) -> None:
    scene = holed_scene(tmp_path / "in.tif")
    chain = "dark-object,nearest-x2,stretch:low=0:high=100"
    scenelift("enhance", scene, "-o", tmp_path / "a.tif", "-m", chain, "--workers", 0)
    scenelift("enhance", scene, "-o", tmp_path / "b.tif", "-m", chain, "--workers", 2, "--block", 64)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    added, limits = told(tmp_path / "a.tif")["fitted"]["added"], told(tmp_path / "a.tif", 2)["fitted"]
    with rasterio.open(scene) as read:
        bands = zip(read.read(), read.scales, read.offsets, strict=True)
        least = [float(band[band > 0].min()) * scale + offset for band, scale, offset in bands]
    np.testing.assert_allclose(np.array(least) - added, limits["low"], atol=1e-4)


def test_another_number_is_another_job(tmp_path: Path) -> None:
    scene = holed_scene(tmp_path / "in.tif")
    run(scene, tmp_path / "a.tif", "stretch")
    with pytest.raises(UsageError, match="overwrite=True"):
        run(scene, tmp_path / "a.tif", "stretch:low=1")


def test_a_wrong_number_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    done = scenelift("enhance", tmp_path / "none.tif", "-o", tmp_path / "a.tif", "-m", "stretch:low=60", ok=False)
    assert done.returncode == 2
    scene = holed_scene(tmp_path / "in.tif")
    done = scenelift("enhance", scene, "-o", tmp_path / "a.tif", "-m", "stretch:low=60", ok=False)
    assert done.returncode == 2 and "low must be a number from 0 to 49" in done.stderr
