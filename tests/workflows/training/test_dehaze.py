"""A network that takes haze away: trained for a few steps, and run on a scene whose percentiles it is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from support.builders import write_raster
from support.jobs import run
from support.trainings import images, settings

from scenelift.models.errors import ModelError
from scenelift.workflows.training.recipe import load_recipe
from scenelift.workflows.training.train import train

torch.set_num_threads(1)
ARCH = {"kind": "dehazer", "bands": 3, "channels": 4, "dilations": [1], "smooth": 1}


def test_a_trained_network_runs_on_a_scene(tmp_path: Path) -> None:
    recipe = settings(images(tmp_path / "images.zip", each=40), task="dehaze", arch=ARCH, degradation={"together": 2})
    path = train(recipe, tmp_path / "run")
    card = json.loads(path.with_suffix(".json").read_text())
    assert {"psnr_db", "hazy_db", "dark-object_db"} <= set(card["validation"])
    values = np.random.default_rng(0).integers(500, 2500, (3, 120, 130)).astype("uint16")
    scene = write_raster(tmp_path / "in.tif", values, scales=[1e-4] * 3)
    run(scene, tmp_path / "a.tif", str(path))
    run(scene, tmp_path / "b.tif", str(path), block=40)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as made:
        facts = json.loads(made.tags()["SCENELIFT"])["models"][0]
    assert facts["product"] == "reflectance"
    wanted = np.percentile(values[1] * 1e-4, (0.1, 50))
    np.testing.assert_allclose(np.array(facts["fitted"]["percentiles"])[[7, 10]], wanted, atol=1e-4)


def test_the_recipe_and_the_task_fit_each_other(tmp_path: Path) -> None:
    assert load_recipe("dehaze").task == "dehaze"
    with pytest.raises(ModelError, match=r"dehaze wants arch\.kind dehazer"):
        settings(tmp_path, task="dehaze", arch={"kind": "denoiser"})
