"""Haze and stripes put on images, taken off, and measured: the same images and figures whoever asks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.trainings import images

from scenelift.models.fitted.running import on_images
from scenelift.models.sensing.atmosphere import Air
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.evidence.cases import HAZY, Degradation, restore
from scenelift.workflows.evidence.compare import CompareSettings
from scenelift.workflows.evidence.landcover import INTACT, make_arms
from scenelift.workflows.evidence.metrics import measure
from scenelift.workflows.evidence.samples import read_sample
from scenelift.workflows.evidence.simulated import evaluate_haze, evaluate_stripes

torch.set_num_threads(1)
RGB = ("B04", "B03", "B02")


def test_haze_has_one_psnr_whoever_measures_it(tmp_path):
    sample = read_sample(images(tmp_path / "images.zip", each=10), 10)
    rows = {row.method: row for row in evaluate_haze(sample, ["dehaze"], Air(0.3))}
    arms = make_arms(Degradation(haze=0.3), sample.images, ["dehaze"])
    assert list(arms) == [INTACT, HAZY, "dark-object", "dark-channel", "dehaze"]
    for name, restored in arms.items():
        if name != INTACT:
            pairs = zip(sample.images, restored, strict=True)
            own = [measure(x, y, 1, sample.peak, ("psnr",))["psnr"] for x, y in pairs]
            assert np.mean(own) == pytest.approx(rows[name].psnr, rel=1e-12)


def test_a_method_is_fitted_to_each_scene_by_itself():
    case = Degradation(haze=0.5)
    clean = np.random.default_rng(0).random((20, 3, 24, 24), np.float32) * 0.2
    low, sigma = case.apply(clean, RGB, seed=2)
    assert (low > clean).all() and (sigma == 0).all()
    np.testing.assert_array_equal(low, case.apply(clean, RGB, seed=2)[0])
    scenes = case.scenes(len(low))
    assert np.bincount(scenes).tolist() == [10, 10]
    found = dict(restore(case, low, sigma, (HAZY, "dark-object", "dehaze")))
    assert found[HAZY] is low
    np.testing.assert_array_equal(found["dark-object"][scenes == 1], on_images("dark-object", low[scenes == 1]))
    low[scenes == 0] += 0.1
    again = dict(restore(case, low, sigma, ("dehaze",)))["dehaze"]
    np.testing.assert_array_equal(again[scenes == 1], found["dehaze"][scenes == 1])
    assert not np.array_equal(again[scenes == 0], found["dehaze"][scenes == 0])


def test_haze_is_not_for_images_one_by_one():
    with pytest.raises(UsageError, match=r"haze0\.3 is taken off whole scenes: use scenelift evaluate haze"):
        CompareSettings(cases=(Degradation(haze=0.3),))


@pytest.mark.parametrize(("name", "share", "left"), [("freestate", 0.01, 0.1), ("southsudan", 0.03, 0.03)])
def test_stripes_leave_real_scenes_and_what_has_none_stays(name, share, left):
    """A small version of the tables in docs/contrast.md, on places by which nothing was chosen."""
    path = Path(os.environ.get("SCENELIFT_DATA", "")) / f"s2/{name}.tif"
    if not path.is_file():
        pytest.skip(f"SCENELIFT_DATA does not name a folder with s2/{name}.tif")
    (row,) = evaluate_stripes([path], share=share)
    assert row.found == "gain" and row.left < left and row.gain_db > 10
    assert abs(row.texture_db) < 0.005 and row.changed < 2e-4
