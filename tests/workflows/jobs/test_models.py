"""Which network a job runs: shipped, changed, blended with its twin, one's own; and what it can do besides."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.builders import noise_image, write_raster
from support.jobs import holed_scene, pixels, run, scenelift

from scenelift.models import precision
from scenelift.models import shipped as shipped_networks
from scenelift.models.catalog import find, with_settings
from scenelift.models.errors import ModelError
from scenelift.models.extras import Realism
from scenelift.models.loading import load
from scenelift.models.sensing.blurs import Blur
from scenelift.models.shipped import shipped
from scenelift.pipeline.errors import UsageError

NAMED = {
    "default": ["sr-x2-lean"],
    "lean": ["denoise-lean", "sr-x2-lean"],
    "best": ["denoise", "sr-x2"],
    "named": ["denoise", "sr-x2"],
}
FACTORY = """
import torch
from scenelift.models.spec import ModelSpec

def good():
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 1, 5, padding=2), ModelSpec("mine", "other", halo=2)

def short():
    return torch.nn.Conv2d(1, 1, 5, padding=2), ModelSpec("mine", "other", halo=1)

def measured():
    spec = ModelSpec("mine", "other", halo=1, halo_kind="measured", seam_error=0.01)
    return torch.nn.Conv2d(1, 1, 5, padding=2), spec

def three():
    return torch.nn.Conv2d(3, 3, 1), ModelSpec("mine", "other", bands=3)
"""


def test_bring_your_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models.py").write_text(FACTORY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = write_raster(tmp_path / "in.tif", noise_image(1, (1, 90, 70)))
    scenelift("enhance", path, "-o", tmp_path / "a.tif", "-m", "own_models:good", "--workers", 0)
    scenelift("enhance", path, "-o", tmp_path / "b.tif", "-m", "own_models:good", "--workers", 2, "--block", 33)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    done = scenelift("enhance", path, "-o", tmp_path / "c.tif", "-m", "own_models:short", ok=False)
    assert done.returncode == 2 and "halo" in done.stderr
    scenelift("enhance", path, "-o", tmp_path / "c.tif", "-m", "own_models:measured", "--workers", 0)
    done = scenelift("enhance", path, "-o", tmp_path / "d.tif", "-m", "own_models:three", ok=False)
    assert done.returncode == 2 and "wants 3 bands" in done.stderr


def test_quality_takes_the_smaller_or_the_larger_network_of_each_name(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 50)))
    for name, words in {
        "default": [],
        "lean": ["-m", "denoise,sr-x2", "--quality", "lean"],
        "best": ["-m", "denoise-lean,sr-x2-lean", "--quality", "best"],
        "named": ["-m", "denoise,sr-x2"],
    }.items():
        scenelift("enhance", path, "-o", tmp_path / f"{name}.tif", *words, "--workers", 0, "--no-expect")
    made = {name: json.loads(rasterio.open(tmp_path / f"{name}.tif").tags()["SCENELIFT"])["models"] for name in NAMED}
    assert {name: [model["name"] for model in models] for name, models in made.items()} == NAMED
    assert (tmp_path / "best.tif").read_bytes() == (tmp_path / "named.tif").read_bytes()
    for models, quality in (("lanczos-x2", "best"), ("median,sr-x2-fast", "lean")):
        done = scenelift("enhance", path, "-o", tmp_path / "o.tif", "-m", models, "--quality", quality, ok=False)
        assert done.returncode == 2 and f"--quality {quality}: " in done.stderr and "comes in two sizes" in done.stderr
    assert not (tmp_path / "o.tif").exists()


def test_shipped_models_equal_one_whole_image_pass(tmp_path: Path) -> None:
    """Lattice against a single patch that holds the whole image: what the halo promises, measured in DN."""
    path = write_raster(tmp_path / "in.tif", pixels(holed_scene(tmp_path / "all.tif", 300))[:2], nodata=0)
    run(path, tmp_path / "a.tif", "sr-x2", precision="fp32", blur="0.3,area", noise=0)
    told = {"blur": (Blur("gaussian", 0.3), Blur("area")), "noise": (0.0, 0.0)}
    whole = load(with_settings(find("sr-x2"), precision="fp32", **told))
    from dataclasses import replace

    big = type(whole)(whole.modules, replace(whole.spec, patch=1024))
    run(path, tmp_path / "b.tif", big)
    difference = np.abs(pixels(tmp_path / "a.tif").astype(int) - pixels(tmp_path / "b.tif").astype(int))
    assert difference.max() <= 1  # a kernel that adds in another order moves a value across a rounding edge
    assert (difference > 0).mean() < 1e-4


def test_a_changed_checkpoint_is_noticed() -> None:
    ref = with_settings(find("sr-x2"), digest="0" * 64)
    with pytest.raises(ModelError, match="has changed"):
        load(ref)
    blended = Realism(0.5).bound("sr-x2-rgb")
    assert blended.digest == find("sr-x2-rgb-taught").digest
    other = dataclasses.replace(blended, digest="0" * 64)
    with pytest.raises(ModelError, match=r"sr-x2-rgb-taught.* has changed"):
        load(with_settings(find("sr-x2-rgb"), extras=(other,)))


def test_a_job_whose_twin_was_exchanged_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, out = write_raster(tmp_path / "in.tif", noise_image(3, (3, 40, 40))), tmp_path / "out.tif"
    run(scene, out, "sr-x2-rgb", realism=0.5, precision="fp32")
    other = shipped() | {"sr-x2-rgb-taught": shipped()["sr-x2-rgb-sentinel2"]}
    monkeypatch.setattr(shipped_networks, "shipped", lambda: other)
    with pytest.raises(UsageError, match="overwrite=True"):
        run(scene, out, "sr-x2-rgb", realism=0.5, precision="fp32")


def test_less_of_a_network_is_the_same_in_any_blocks_and_said(tmp_path: Path) -> None:
    scene, chain = write_raster(tmp_path / "in.tif", noise_image(1, (1, 100, 90))), "denoise-fast,sr-x2-fast"
    less = {"strength": 0.5, "clamp": True, "precision": "fp32"}
    run(scene, tmp_path / "all.tif", chain, precision="fp32")
    run(scene, tmp_path / "whole.tif", chain, **less)
    run(scene, tmp_path / "blocks.tif", chain, block=33, **less)
    whole = pixels(tmp_path / "whole.tif")
    assert np.array_equal(whole, pixels(tmp_path / "blocks.tif"))
    assert not np.array_equal(whole, pixels(tmp_path / "all.tif"))
    told = json.loads(rasterio.open(tmp_path / "whole.tif").tags()["SCENELIFT"])
    assert all(model["strength"] == 0.5 and model["clamp"] is True for model in told["models"])


def test_automatic_precision_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, out = write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 50))), tmp_path / "out.tif"
    assert run(scene, out, "sr-x2-fast", precision="bf16").precision == "bf16"
    hardware(monkeypatch, "fp32")
    again = run(scene, out, "sr-x2-fast", precision="auto")
    assert (again.precision, again.resumed) == ("bf16", 1)
    assert run(scene, tmp_path / "other.tif", "sr-x2-fast", precision="auto").precision == "fp32"


def hardware(monkeypatch: pytest.MonkeyPatch, best: str) -> None:
    """Be on a machine where this precision is the fastest."""
    monkeypatch.setattr(precision, "pick_precision", lambda wanted, device: best if wanted == "auto" else wanted)


OWN_NETWORK = '''
import torch
from scenelift.models.spec import ModelSpec

def sharper():
    """A network of large weights that cancel: exact in float32, far off in bfloat16."""
    net = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        net.weight.fill_(-3.07).view(-1)[4] = 25.56
    return net, ModelSpec("sharper", "other", scale=1, halo=1, patch=32, bands=None)
'''


def test_only_shipped_networks_run_in_half_precision_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_mine.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copyfile(shipped()["sr-x2-fast"], tmp_path / "mine.safetensors")
    scene = write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 50)))
    hardware(monkeypatch, "bf16")
    own = "nets_of_mine:sharper"
    chosen = {
        model: run(scene, tmp_path / f"{number}.tif", model).precision
        for number, model in enumerate(["sr-x2-fast", own, f"{tmp_path}/mine.safetensors", f"{own},sr-x2-fast"])
    }
    assert list(chosen.values()) == ["bf16", "fp32", "fp32", "fp32, bf16"]
    run(scene, tmp_path / "single.tif", own, precision="fp32")
    assert np.array_equal(pixels(tmp_path / "1.tif"), pixels(tmp_path / "single.tif"))
    assert run(scene, tmp_path / "half.tif", own, precision="bf16").precision == "bf16"
    off = np.abs(pixels(tmp_path / "half.tif").astype(int) - pixels(tmp_path / "single.tif").astype(int))
    assert off.max() > 1  # what would have been taken for the result


@pytest.mark.parametrize("extra", [{"tta": True}, {"consistency": 2}, {"uncertainty": True}])
def test_extras_are_exact_under_tiling_too(tmp_path: Path, extra: dict) -> None:  # type: ignore[type-arg]
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 90, 70)), descriptions=["B04"])
    for number, block in enumerate((100, 33)):
        run(path, tmp_path / f"{number}.tif", "sr-x2-fast", block=block, precision="fp32", **extra)
    assert (tmp_path / "0.tif").read_bytes() == (tmp_path / "1.tif").read_bytes()
    run(path, tmp_path / "plain.tif", "sr-x2-fast", precision="fp32")
    assert not np.array_equal(pixels(tmp_path / "0.tif")[0], pixels(tmp_path / "plain.tif")[0])
    with rasterio.open(tmp_path / "0.tif") as made:
        expected = ("B04", "B04 uncertainty") if "uncertainty" in extra else ("B04",)
        assert made.descriptions == expected


@pytest.mark.parametrize("model", ["sr-x2-rgb", "sr-x2-rgb-sentinel2", "sr-x4", "sr-x4-rgb", "denoise-rgb"])
def test_realism_runs_from_a_network_to_its_twin(tmp_path: Path, model: str) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (3, 40, 40)))
    settings = {"precision": "fp32", "noise": 20.0} if model.startswith("denoise") else {"precision": "fp32"}
    taught = "sr-x4-gan" if model == "sr-x4" else f"{model.removesuffix('-sentinel2')}-taught"
    for name, chosen, realism in (("0", model, 0.0), ("1", model, 1.0), ("a", model, None), ("b", taught, None)):
        run(path, tmp_path / f"{name}.tif", chosen, realism=realism, **settings)
    made = {name: pixels(tmp_path / f"{name}.tif")[0] for name in "01ab"}
    np.testing.assert_array_equal(made["0"], made["a"])
    np.testing.assert_allclose(made["1"].astype(float), made["b"], atol=1)
    assert not np.array_equal(made["0"], made["1"])


def test_uncertainty_is_told_of_any_network_and_refused_where_there_is_none(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sure_models.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 40, 40)))
    run(path, tmp_path / "own.tif", "sure_models:good", uncertainty=True)
    values = pixels(tmp_path / "own.tif")
    assert values.shape == (2, 40, 40) and values[1].max() > 0, "the kernel is not symmetric: its eight answers differ"
    with pytest.raises(UsageError, match=r"uncertainty=True needs a network.*nearest-x2"):
        run(path, tmp_path / "out.tif", "nearest-x2", uncertainty=True)


def test_realism_needs_a_twin(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 40, 40)))
    with pytest.raises(ModelError, match="perceptual variant"):
        run(path, tmp_path / "out.tif", "sr-x2", realism=0.5)
