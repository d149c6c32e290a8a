"""Scenes through ONNX files: by any blocks and workers the same bytes, resumed, and in chains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
import torch
from support.builders import noise_image, write_raster
from support.jobs import pixels, run, scenelift
from torch import nn


def written(path: Path) -> Path:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.PixelShuffle(2)).eval()
    options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {2: "h", 3: "w"}}, "dynamo": False}
    torch.onnx.export(module, (torch.rand(1, 1, 32, 32),), str(path), **options)
    return path


def test_the_same_bytes_by_any_blocks_and_workers(tmp_path: Path) -> None:
    model = written(tmp_path / "net.onnx")
    scene = write_raster(tmp_path / "in.tif", noise_image(1, (2, 300, 270)), nodata=0)
    scenelift("enhance", scene, "-o", tmp_path / "a.tif", "-m", model, "--workers", 0, "--no-expect")
    two = "--workers", 2, "--block", 64, "--batch", 1, "--no-expect"
    scenelift("enhance", scene, "-o", tmp_path / "b.tif", "-m", model, *two)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as made:
        told = json.loads(made.tags()["SCENELIFT"])["models"][0]
    assert told["name"] == "net.onnx" and told["spec"]["halo"] == 2 and len(told["sha256"]) == 64


def test_in_a_chain(tmp_path: Path) -> None:
    model = written(tmp_path / "net.onnx")
    scene = write_raster(tmp_path / "in.tif", noise_image(2, (1, 90, 80)))
    run(scene, tmp_path / "a.tif", f"median,{model}")
    run(scene, tmp_path / "b.tif", f"median,{model}", block=32)
    assert np.array_equal(pixels(tmp_path / "a.tif"), pixels(tmp_path / "b.tif"))
    assert pixels(tmp_path / "a.tif").shape == (1, 180, 160)
