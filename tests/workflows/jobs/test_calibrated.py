"""Uncertainty and bounds of a job: bands and their names, exact tiling, and what happens without an error model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from support.builders import noise_image, write_raster
from support.jobs import pixels, run, scenelift

from scenelift.models.calibration import ErrorModel
from scenelift.models.checkpoint import checkpoint_digest
from scenelift.models.error_files import errors_path, save_errors
from scenelift.models.errors import ModelError
from scenelift.models.shipped import shipped
from scenelift.pipeline.outputs.outputs import pictures
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource

FACTOR = 1.5


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A checkpoint with an error model beside it whose bounds are ``FACTOR`` standard deviations away at any level."""
    path = Path(shutil.copy(shipped()["sr-x2-fast"], tmp_path / "mine.safetensors"))
    made_up(path)
    return path


def made_up(path: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    errors = ErrorModel(0)
    errors.factors.fill_(FACTOR)
    with torch.no_grad():
        errors.layers[-1].bias.fill_(-3.0)
    save_errors(errors_path(path), errors, checkpoint_digest(path))


def test_deviation_and_bounds_stand_beside_each_band(tmp_path: Path, network: Path) -> None:
    path = write_raster(
        tmp_path / "in.tif",
        noise_image(3, (2, 90, 70)),
        descriptions=["B04", ""],
        scales=[1e-4] * 2,
        offsets=[-0.1, 0.0],
    )
    for number, block in enumerate((100, 33)):
        options = ("--block", block, "--precision", "fp32", "--workers", 0)
        out = tmp_path / f"{number}.tif"
        scenelift("enhance", path, "-o", out, "-m", network, "--uncertainty", "--interval", 0.9, *options)
    assert (tmp_path / "0.tif").read_bytes() == (tmp_path / "1.tif").read_bytes()
    run(path, tmp_path / "plain.tif", str(network), precision="fp32")
    with rasterio.open(tmp_path / "0.tif") as made:
        kinds = ("", " uncertainty", " lower bound", " upper bound")
        assert made.descriptions == (*(f"B04{kind}" for kind in kinds), None, *(f"band 2{kind}" for kind in kinds[1:]))
        assert made.offsets == (-0.1, 0.0, -0.1, -0.1, 0.0, 0.0, 0.0, 0.0)
        values = made.read().astype(float)
    assert np.array_equal(values[::4], pixels(tmp_path / "plain.tif")), "the network's own bands are what they were"
    inside = values[2::4] > 0  # where the data type holds the lower bound, and with it the others
    assert inside.any()
    np.testing.assert_allclose((values[::4] - values[2::4])[inside], FACTOR * values[1::4][inside], atol=1 + FACTOR / 2)
    np.testing.assert_allclose((values[3::4] - values[::4])[inside], FACTOR * values[1::4][inside], atol=1 + FACTOR / 2)
    assert pictures(open_scene(SceneSource((str(tmp_path / "0.tif"),))).bands) == [0, 4]


def test_bounds_alone_are_two_bands(tmp_path: Path, network: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 60, 50)), descriptions=["B04"])
    run(path, tmp_path / "out.tif", str(network), interval=0.8)
    with rasterio.open(tmp_path / "out.tif") as made:
        assert made.descriptions == ("B04", "B04 lower bound", "B04 upper bound")
        low, high = made.read(2), made.read(3)
        provenance = json.dumps(made.tags())
    assert (low <= high).all() and (low < high).any()
    assert checkpoint_digest(errors_path(network)) in provenance and "interval" in provenance


def test_precision_and_chains_and_ensembles_go_with_bounds(tmp_path: Path, network: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 60, 50)), descriptions=["B04"])
    made = {}
    for name, model, options in (
        ("plain", str(network), {}),
        ("half", str(network), {"precision": "bf16"}),
        ("tta", str(network), {"tta": True}),
        ("chain", f"denoise-fast,{network}", {"noise": 0.01}),
    ):
        run(path, tmp_path / f"{name}.tif", model, **({"precision": "fp32"} | options), uncertainty=True, interval=0.9)
        made[name] = pixels(tmp_path / f"{name}.tif").astype(float)
    assert all(values.shape == (4, 120, 100) for values in made.values())
    assert np.abs(made["half"] - made["plain"])[0].max() < 200 and not np.array_equal(made["half"], made["plain"])
    run(path, tmp_path / "mean.tif", str(network), tta=True, precision="fp32")
    assert np.array_equal(made["tta"][0], pixels(tmp_path / "mean.tif")[0]), "the ensemble's mean has the bounds"
    assert not np.array_equal(made["tta"][0], made["plain"][0])


def test_without_an_error_model_uncertainty_is_a_spread_and_says_so(tmp_path: Path, network: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 60, 50)), descriptions=["B04"])
    good = run(path, tmp_path / "a.tif", str(network), uncertainty=True)
    assert not [note for note in good.notes if "not calibrated" in note]
    errors_path(network).unlink()
    spread = run(path, tmp_path / "b.tif", str(network), uncertainty=True)
    (note,) = [note for note in spread.notes if "not calibrated" in note]
    assert "spread over eight" in note and "has no error model" in note
    with rasterio.open(tmp_path / "b.tif") as made:
        assert made.descriptions == ("B04", "B04 uncertainty")
    done = scenelift("enhance", path, "-o", tmp_path / "c.tif", "-m", network, "--interval", 0.9, ok=False)
    assert done.returncode == 2 and "--interval" in done.stderr and "has no error model" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "c.tif").exists()


def test_an_error_model_of_another_network_is_not_used(tmp_path: Path, network: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 60, 50)))
    shutil.copy(shipped()["sr-x2-sentinel2"], network)
    spread = run(path, tmp_path / "a.tif", str(network), uncertainty=True)
    assert any("another version of the network" in note for note in spread.notes)
    with pytest.raises(ModelError, match=r"interval.*another version of the network"):
        run(path, tmp_path / "b.tif", str(network), interval=0.9)


def test_a_changed_error_model_is_another_job(tmp_path: Path, network: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (1, 60, 50)))
    run(path, tmp_path / "a.tif", str(network), interval=0.9)
    before = (tmp_path / "a.tif").stat().st_mtime_ns
    run(path, tmp_path / "a.tif", str(network), interval=0.9)
    assert (tmp_path / "a.tif").stat().st_mtime_ns == before, "the same job is done already"
    for changed in ({"interval": 0.8}, {}):
        with pytest.raises(Exception, match="overwrite=True"):
            run(path, tmp_path / "a.tif", str(network), **changed)
    made_up(network, seed=1)
    with pytest.raises(Exception, match="overwrite=True"):
        run(path, tmp_path / "a.tif", str(network), interval=0.9)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("nearest-x2", {"interval": 0.9}, "only shipped networks and checkpoints"),
        ("sr-x2-rgb", {"interval": 0.9, "realism": 0.5}, "leave realism out"),
        ("sr-x2-rgb", {"interval": 0.9, "strength": 0.5}, "leave strength out"),
        ("mine", {"interval": 0.3}, "from 0.5 to 0.99"),
        ("mine", {"interval": 1.0}, "from 0.5 to 0.99"),
    ],
)
def test_bounds_that_cannot_be_had_are_refused(
    tmp_path: Path, network: Path, model: str, options: dict[str, float], words: str
) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(3, (3, 40, 40)))
    with pytest.raises(ModelError, match=words):
        run(path, tmp_path / "out.tif", str(network) if model == "mine" else model, **options)


CALIBRATED = [name for name, path in shipped().items() if errors_path(path).is_file()]


@pytest.mark.parametrize("name", CALIBRATED)
def test_what_ships_belongs_to_its_network_and_says_what_it_holds(name: str) -> None:
    path = shipped()[name]
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["error_model"]
    assert card["sha256"] == checkpoint_digest(errors_path(path))
    for level, share in card["measured"]["all"]["coverage"].items():
        assert share == pytest.approx(float(level), abs=0.03)
    assert card["measured"]["all"]["rank_correlation"] > 0.5


@pytest.mark.skipif("SCENELIFT_DATA" not in os.environ, reason="SCENELIFT_DATA does not name a folder with real scenes")
@pytest.mark.skipif("sr-x2-rgb" not in CALIBRATED, reason="sr-x2-rgb has no error model")
def test_bounds_hold_on_a_real_scene_that_was_coarsened(tmp_path: Path) -> None:
    """Wald's protocol on a place that nothing was fitted on, all bands of it: colours together, the rest alone."""
    with rasterio.open(Path(os.environ["SCENELIFT_DATA"]) / "s2/us_va_eastern_shore_10m.tif") as scene:
        truth = scene.read(window=((600, 856), (300, 556))).astype(float)
    low = truth.reshape(len(truth), 128, 2, 128, 2).mean((2, 4)).round().astype("uint16")
    path = write_raster(tmp_path / "in.tif", low, descriptions=["B02", "B03", "B04", "B08"])
    options = ("--blur", "area", "--noise", 0, "--uncertainty", "--interval", 0.9)
    done = scenelift("enhance", path, "-o", tmp_path / "out.tif", "-m", "sr-x2", *options)
    assert "not calibrated" not in done.stdout + done.stderr
    made = pixels(tmp_path / "out.tif").astype(float)
    assert len(made) == 16
    held = (made[2::4] <= truth) & (truth <= made[3::4])
    assert 0.8 < held.mean() < 0.99
