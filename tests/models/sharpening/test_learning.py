"""The sharpening network is trained on what the closed form lacks, and is stored and loaded like every other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from scenelift.models.checkpoint import load_checkpoint, save_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.sharpening.adapting import fit_network
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.fitting import fit
from scenelift.models.sharpening.layout import BandGrid
from scenelift.models.sharpening.learning import Schedule, example, train
from scenelift.models.sharpening.network import Sharpener
from scenelift.models.sharpening.projection import mirrored, observe, replicate
from scenelift.models.spec import ModelSpec

LAYOUT = (BandGrid(1, mtf=0.3), BandGrid(2, 0.5, 0.5, 0.3))


def scene(seed: int, side: int = 96, sign: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return a guide and a coarse band that is a steep function of it, and that band's truth."""
    noise = np.random.default_rng(seed).standard_normal((1, side, side))
    guide = (0.3 + 0.4 * ndimage.gaussian_filter(noise, (0, 1.2, 1.2))).astype(np.float32)
    truth = (0.2 + sign * 0.1 * np.tanh(12 * (guide - 0.3))).astype(np.float32)
    seen = observe(truth, LAYOUT[1:], (side // 2, side // 2))
    return np.concatenate([guide, replicate(seen, LAYOUT[1], (side, side))]), truth


def error(module, images: np.ndarray, truth: np.ndarray) -> float:
    halo = module.halo
    with torch.no_grad():
        found = module(torch.from_numpy(mirrored(images, halo, (halo, halo)))[None])[0, 1:].numpy()
    return float(np.sqrt(((found - truth) ** 2).mean()))


def test_a_trained_network_finds_what_no_regression_does_and_survives_a_checkpoint(tmp_path: Path):
    torch.manual_seed(0)
    network = DetailNetwork(1, 16, 1)
    examples = [example(*scene(seed), LAYOUT) for seed in (0, 1)]
    losses: list[float] = []
    plan = Schedule(steps=300, batch=8, side=32, rate=4e-3, average=0.98)
    trained = train(examples, network, plan, report=lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.7 * losses[0]
    path = tmp_path / "sharpen.safetensors"
    arch = {"kind": "sharpener", "guides": 1, "channels": 16, "blocks": 1}
    save_checkpoint(path, trained, ModelSpec("sharpen", "sharpening", halo=trained.halo), arch)
    stored, spec = load_checkpoint(path)
    assert spec.task == "sharpening"
    assert isinstance(stored, DetailNetwork)
    images, truth = scene(7)
    coefficients = fit([images], LAYOUT)
    closed = error(ClosedForm(LAYOUT, coefficients), images, truth)
    assert error(Sharpener(LAYOUT, coefficients, stored), images, truth) < 0.85 * closed


def test_training_is_the_same_for_the_same_seed_and_ends_in_time():
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        plan = Schedule(steps=3, batch=2, side=24)
        found.append(train([example(*scene(0), LAYOUT)], DetailNetwork(1, 4, 1), plan, seed=1))
    for one, other in zip(found[0].parameters(), found[1].parameters(), strict=True):
        assert torch.equal(one, other)
    network = DetailNetwork(1, 4, 1)
    before = [p.clone() for p in network.parameters()]
    train([example(*scene(0), LAYOUT)], network, Schedule(steps=10**6, batch=1, side=24, seconds=1e-9))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_another_network_and_one_for_other_guides_are_refused():
    images, _ = scene(0)
    with pytest.raises(ModelError, match="kind 'sharpener', got Conv2d"):
        Sharpener(LAYOUT, fit([images], LAYOUT), torch.nn.Conv2d(1, 1, 3))
    with pytest.raises(ModelError, match="network is for 4 guides, the scene has 1"):
        Sharpener(LAYOUT, fit([images], LAYOUT), DetailNetwork(4, 4, 1, valid=True))


def test_the_last_layer_follows_the_scene_and_not_what_is_hidden_or_too_little():
    torch.manual_seed(0)
    plan = Schedule(steps=150, batch=8, side=32, rate=4e-3, average=0.95)
    network = train([example(*scene(seed), LAYOUT) for seed in (0, 1)], DetailNetwork(1, 16, 1), plan)
    valid = DetailNetwork(1, 16, 1, valid=True)
    valid.load_state_dict(network.state_dict())

    images, truth = scene(3, 192, -1)  # follows its guide the other way round
    found = fit_network([images], LAYOUT, valid)
    assert {key: value for key, value in found.items() if key != "last_layer"} == fit([images], LAYOUT)
    as_learned = error(Sharpener(LAYOUT, fit([images], LAYOUT), valid), images, truth)
    assert error(Sharpener(LAYOUT, found, valid), images, truth) < 0.95 * as_learned
    # what has no data is not looked at: whatever lay there
    holed = images.copy()
    holed[:, 60:80, 100:130] = np.nan
    of_holed = fit_network([holed], LAYOUT, valid)["last_layer"][0]
    assert of_holed is not None
    assert np.isfinite(of_holed).all()
    assert of_holed != found["last_layer"][0]
    # windows too small to tell anything, none, and bands six times as coarse change nothing
    assert fit_network([images[:, :40, :40]], LAYOUT, valid)["last_layer"] == [None]
    assert fit_network([np.full_like(images, np.nan)], LAYOUT, valid)["last_layer"] == [None]
    sixfold = (LAYOUT[0], BandGrid(6, 2.5, 2.5, 0.3))
    assert fit_network([images], sixfold, valid)["last_layer"] == [None]
