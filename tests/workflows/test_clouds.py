"""Clouds found in the pixels: what is needed is said, and what is found hides them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from support.builders import noise_image, write_raster
from support.products import METRES, write_safe

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
def test_clouds_of_a_product_without_a_mask_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 768
    planes = {}
    for band, metres in METRES.items():
        n = side * 10 // metres
        values = np.random.default_rng(0).normal(1400 if band != "B08" else 3500, 60, (n, n))
        bright = slice(n // 4, n // 2)
        values[bright, bright] = np.random.default_rng(1).normal(7500, 300, (n // 2 - n // 4,) * 2)
        planes[band] = values.round().clip(1).astype("uint16")
    folder, _ = write_safe(tmp_path / "S2A.SAFE", "L1C", side, None, planes)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = with_clouds(SceneSource((str(folder),), mask="clouds"))
    scene = open_scene(source)
    assert scene.mask is not None and scene.mask.rule == Rule("clouds", (1, 2))
    (made,) = (tmp_path / "cache" / "scenelift" / "clouds").iterdir()
    assert source.mask == str(made)
    hidden = scene.mask.read(Window(0, 0, side, side))
    assert hidden[side * 5 // 16 : side * 7 // 16, side * 5 // 16 : side * 7 // 16].mean() > 0.9
    assert 0.03 < scene.mask.shares().masked < 0.2
    before = made.stat().st_mtime_ns
    again = with_clouds(SceneSource((str(folder),), mask="clouds", mask_classes=("cloud",)))
    assert again.mask == source.mask and made.stat().st_mtime_ns == before
    named = write_raster(tmp_path / "a.tif", noise_image(0, (2, 20, 20)), descriptions=["B04", "B03"])
    with pytest.raises(UsageError, match=r"needs blue, green, red and near infrared: a.tif has no band 'blue'"):
        with_clouds(SceneSource((str(named),), mask="clouds"))
