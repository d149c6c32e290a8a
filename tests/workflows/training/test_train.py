"""The training workflow on small files: what is read, what is left out, what is refused, what a run leaves behind."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.builders import write_raster
from support.jobs import scenelift
from support.processes import call, kill_tree, start, wait_until
from support.trainings import images, settings, textured

from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.training.initialization import take_over
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.workflows.cli.train_command import run_training
from scenelift.workflows.enhance import enhance
from scenelift.workflows.settings import TrainingRun
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.images import PatchSampler, PatchSet, balanced, read_images
from scenelift.workflows.training.recipe import RECIPES, load_recipe, make_task
from scenelift.workflows.training.sources import read_source
from scenelift.workflows.training.train import digest, train

torch.set_num_threads(1)


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", textured(side=512))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_whole(path):
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert make_task(recipe).scale == recipe.arch.get("scale", 1)
    assert recipe.data.validation, "a shipped model is validated on other places"
    assert not {s.path for s in recipe.data.train} & {s.path for s in recipe.data.validation}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "test: unknown key colour"),
        ({"plan": {"phases": [{"steps": 3, "speed": 1}]}}, "unknown key plan.phases[0].speed; known are steps, epochs"),
        ({"plan": {"phases": [{"step": 3}]}}, "test: unknown key plan.phases[0].step; did you mean steps?"),
        (
            {"plan": {"phases": {"steps": 3}}},
            "plan.phases must be a list of tables, got one table; write [[",
        ),
        (
            {"data": {"train": [{"path": "x", "bands": ["red"]}]}},
            'train[0].bands[0] must be a whole number, got "red"',
        ),
        ({"data": {"train": [{"path": "x", "bands": 3}]}}, "test: data.train[0].bands must be a list, got 3"),
        (
            {"data": {"train": [{"path": "x"}], "gains": ["a", "b"]}},
            'gains[0] must be a number, got "a" (and 1 more)',
        ),
        ({"start": 5}, "test: start must be a text, got 5"),
        ({"plan": {"batch": "many", "phases": [{"steps": 3}]}}, 'test: plan.batch must be a whole number, got "many"'),
        ({"task": "paint"}, "task must be"),
        ({"arch": {"kind": "generator", "channels": -1}}, "channels must be"),
        ({"data": {"side": 8}}, "test: data.train is missing"),
        ({"degradation": {"fog": 1}}, "unknown key degradation.fog; known are scale, mtf"),
    ],
)
def test_wrong_recipes_are_refused(change, message, scene, tmp_path):
    with pytest.raises(ModelError, match=re.escape(message)):
        settings(scene, **change)


def test_missing_and_broken_recipe_files(tmp_path):
    with pytest.raises(ModelError, match="give a TOML file or one of"):
        load_recipe("nothing")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ModelError, match="is not TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_masked_and_constant_patches_are_left_out(tmp_path):
    values = textured(1, 64)
    values[:, :16, :32] = 0  # nodata
    values[:, 48:, 48:] = 777  # constant
    path = write_raster(tmp_path / "holed.tif", values, nodata=0)
    patches = read_source(path, 16)
    assert len(patches.values) == 16 - 2 - 1
    assert float(patches.reflectance(slice(None)).min()) > 0.03
    assert patches.gain == 1e-4


def test_scale_and_offset_of_a_scene_reach_the_patches(tmp_path):
    values = textured(1, 32)
    path = write_raster(tmp_path / "scaled.tif", values, scales=[2e-4], offsets=[-0.1])
    found = read_source(path, 32).reflectance(slice(None))[0].numpy()
    np.testing.assert_allclose(found, values * 2e-4 - 0.1, atol=0.51e-4)


def test_zips_give_reflectance_classes_and_places(tmp_path):
    patches = read_images(images(tmp_path / "images.zip"))
    assert patches.values.shape == (16, 3, 32, 32)
    assert set(patches.labels) == {"Forest", "River"}
    assert float(patches.reflectance(slice(None)).max()) <= 255 * EUROSAT.level
    chosen = balanced(patches.labels, 3, seed=1)
    assert [patches.labels[i] for i in chosen] == ["Forest"] * 3 + ["River"] * 3
    assert np.array_equal(chosen, balanced(patches.labels, 3, seed=1))
    assert read_images(tmp_path / "images.zip", (2,)).values.shape[1] == 1


def test_arrays_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", first=textured(2, 40), second=textured(2, 33, seed=1))
    patches = read_source(tmp_path / "a.npz", 16)
    assert patches.values.shape == (8, 2, 16, 16)


@pytest.mark.parametrize("name", ["a.zip", "a.npz", "a.tif"])
def test_unreadable_sources_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no such thing")
    with pytest.raises(ModelError, match=name):
        read_source(tmp_path / name, 16)


def test_a_subset_is_of_places_and_always_the_same():
    patches = PatchSet(np.zeros((30, 1, 8, 8), np.uint8), 1.0, np.repeat(np.arange(10), 3))
    some = patches.indices(0.3)
    assert len(some) == 9 and len(set(patches.places[some])) == 3
    assert set(some) <= set(patches.indices(0.6))
    assert len(patches.indices(1.0)) == 30


def test_samples_are_repeatable_turned_and_scaled():
    patches = PatchSet(np.arange(2 * 3 * 64).reshape(2, 3, 8, 8).astype(np.uint16), 0.5, np.arange(2))
    single = PatchSampler([(patches, 1.0)], 1, 8, (0.5, 2.0))
    draws = [single(64, 1.0, torch.Generator().manual_seed(s)) for s in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    plain = PatchSampler([(patches, 1.0)], 1, 8)(64, 1.0, torch.Generator().manual_seed(0))
    sums = {float(p.sum()) for p in patches.reflectance(slice(None)).reshape(-1, 8, 8)}
    assert {float(x.sum()) for x in plain} == sums
    assert PatchSampler([(patches, 1.0)], 3, 4)(5, 1.0, torch.Generator().manual_seed(0)).shape == (5, 3, 4, 4)
    with pytest.raises(ModelError, match="3 bands, the network wants 4"):
        PatchSampler([(patches, 1.0)], 4, 8)
    with pytest.raises(ModelError, match="at least 9 pixels a side, got 8"):
        PatchSampler([(patches, 1.0)], 1, 9)


def test_too_little_data_is_one_line(tmp_path):
    path = write_raster(tmp_path / "small.tif", textured(1, 64))
    with pytest.raises(ModelError, match=r"usable patches of 32 pixels .* needs at least 64"):
        read_data(settings(path), None)
    with pytest.raises(ModelError, match="no training data at"):
        read_data(settings(tmp_path / "none.tif"), None)
    with pytest.raises(ModelError, match="2 bands, the network wants 3"):
        scene = write_raster(tmp_path / "two.tif", textured(side=512))
        arch = {"kind": "generator", "channels": 4, "blocks": 1, "scale": 2, "bands": 3}
        train(settings(scene, arch=arch), tmp_path / "run")


def test_a_run_leaves_weights_card_log_and_figure(tmp_path, scene):
    run = tmp_path / "run"
    seen = []
    weights = train(settings(scene), run, progress=lambda *facts: seen.append(facts))
    module, spec = load_checkpoint(weights)
    assert (spec.name, spec.scale, spec.halo, spec.bands) == ("tiny", 2, module.halo, None)
    assert {value.dtype for value in load_file(weights).values()} == {torch.float16}, "half the bytes"
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["steps"] == 6 and set(card["validation"]) == {"psnr_db", "bicubic_db", "lanczos_db", "ibp_db"}
    assert card["validation"]["psnr_db"] > card["validation"]["bicubic_db"], "the fitted linear path alone does that"
    assert (run / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert len((run / "log.csv").read_text().splitlines()) == 3
    assert [s[:2] for s in seen] == [(i, 6) for i in range(1, 7)]


def test_a_run_that_is_given_more_steps_goes_on_and_its_card_says_so(tmp_path, scene):
    def trained(steps, **more):
        plan = {"batch": 4, "validate_every": steps // 2, "precision": "fp32", "phases": [{"steps": steps}]} | more
        lines = []
        card = train(settings(scene, plan=plan), tmp_path / "run", say=lines.append).with_suffix(".json")
        return json.loads(card.read_text()), lines

    card, lines = trained(4)
    assert "steps_given" not in card and lines == []
    card, lines = trained(8)
    assert (card["steps"], card["steps_given"]) == (8, [4, 8]) and lines == ["goes on at step 4 of 4, now to 8"]
    with pytest.raises(ModelError, match="another recipe or other data"):
        trained(16, batch=8)


TINY = """
name = "tiny"
task = "super-resolution"
[arch]
kind = "generator"
channels = 16
blocks = 1
scale = 2
[data]
side = 32
validation_count = 20
train = [{{ path = "{scene}" }}]
[plan]
batch = 4
validate_every = 2
optimizer = "muon"
precision = "fp32"
phases = [{{ steps = {steps} }}]
"""


def test_two_processes_take_the_steps_of_one(tmp_path, scene):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.format(scene=scene, steps=4))
    alone = train(load_recipe(str(recipe)), tmp_path / "alone")
    shared = "train", "--device", "cpu", "--processes", "2"
    done = scenelift(*shared, recipe, "--run", tmp_path / "both")
    assert done.stdout.count("validation PSNR") == 1, "only the first process speaks"
    weights = [load_checkpoint(path)[0].state_dict() for path in (alone, tmp_path / "both" / "tiny.safetensors")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=2e-3, atol=1e-5)  # stored in half precision
    recipe.write_text(recipe.read_text().replace("batch = 4", "batch = 3"))
    odd = scenelift(*shared, recipe, cwd=tmp_path, ok=False)
    assert odd.returncode != 0 and "a batch of 3 cannot be shared by 2 processes" in odd.stderr
    assert "Traceback" not in odd.stderr


def test_a_training_killed_by_the_system_ends_with_the_same_weights(tmp_path, scene):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.format(scene=scene, steps=60))
    command = "train", recipe, "--device", "cpu"
    call(tmp_path, *command, "--run", "whole")
    victim = start(tmp_path, *command, "--run", "cut")
    assert wait_until((tmp_path / "cut" / "state.safetensors").exists, victim), "it ended before it could be killed"
    kill_tree(victim.pid)
    assert victim.wait() == -9
    assert not (tmp_path / "cut" / "tiny.safetensors").exists()
    call(tmp_path, *command, "--run", "cut")
    for name in ("tiny.safetensors", "state.safetensors"):  # the state in float32, with the optimiser's
        first, second = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_zarr_scenes_are_read_like_tiffs(tmp_path, scene):
    store = tmp_path / "scene.zarr"
    enhance(scene, store, "median", cluster=ClusterSettings(0))
    of_zarr, of_tiff = read_source(store, 32), read_source(scene, 32)
    assert of_zarr.values.shape == of_tiff.values.shape
    gap = of_zarr.reflectance(slice(None)) - of_tiff.reflectance(slice(None))
    assert gap.abs().mean() < 0.02, "a median filter moves values a little, not more"


def test_a_finished_run_is_not_trained_again(tmp_path, scene):
    first = train(settings(scene), tmp_path / "run").read_bytes()
    seen = []
    weights = train(settings(scene), tmp_path / "run", progress=lambda *facts: seen.append(facts))
    assert not seen
    assert load_checkpoint(weights)[0].state_dict().keys()
    assert len(first) == len(weights.read_bytes())


def test_a_run_that_fails_leaves_its_best_weights(tmp_path, scene):
    phases = [{"steps": 3, "rate": 1e-3}, {"steps": 9, "rate": 1e30, "warmup": 1}]
    recipe = settings(scene, plan={"batch": 4, "validate_every": 3, "phases": phases, "precision": "fp32"})
    with pytest.raises(ModelError, match=r"the loss became .* best weights so far are in .*tiny-so-far"):
        train(recipe, tmp_path / "run")
    module = load_checkpoint(tmp_path / "run" / "tiny-so-far.safetensors")[0]
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())


def test_fine_tuning_takes_over_what_fits(tmp_path, scene):
    first = train(settings(scene), tmp_path / "one")
    arch = {"kind": "generator", "channels": 16, "blocks": 1, "scale": 4}
    plan = {"batch": 4, "validate_every": 1, "phases": [{"steps": 1, "rate": 1e-9}], "ema": 0.0}
    second = train(settings(scene, arch=arch, degradation={"scale": 4}, plan=plan, start=str(first)), tmp_path / "two")
    old, new = (load_checkpoint(p)[0].state_dict() for p in (first, second))
    torch.testing.assert_close(old["body.0.first.weight"], new["body.0.first.weight"], rtol=0, atol=1e-6)
    assert old["tail.weight"].shape != new["tail.weight"].shape


@pytest.mark.parametrize("kind", ["generator", "denoiser"])
def test_a_deeper_network_begins_as_the_shallower_one(kind):
    torch.manual_seed(3)
    arch = {"kind": kind, "bands": 2, "channels": 8}
    shallow, deep = build({**arch, "blocks": 2}), build({**arch, "blocks": 5})
    with torch.no_grad():
        for weights in shallow.parameters():
            weights.normal_(0, 0.1)
    take_over(deep, shallow.state_dict())
    inputs = torch.rand(2, 2, 16, 16), *([torch.tensor([0.01, 0.02])] if kind == "denoiser" else [])
    assert torch.equal(shallow(*inputs), deep(*inputs))
    assert all(bool(block.first.weight.any()) for block in list(deep.body)[:-1])  # what is zero twice never learns


def test_an_autoencoder_states_its_seam(tmp_path, scene):
    arch = {"kind": "autoencoder", "width": 8, "halo": 16}
    plan = {"batch": 2, "validate_every": 1, "phases": [{"steps": 1}]}
    spec = load_checkpoint(train(settings(scene, task="denoise", arch=arch, plan=plan), tmp_path / "run"))[1]
    assert spec.halo_kind == "measured" and spec.seam_error > 0 and spec.multiple_of == 8 and spec.needs_noise


def test_a_seed_of_ones_own_is_another_run(tmp_path, scene, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(
        f"""
        name = "tiny"
        task = "denoise"
        arch = {{ kind = "denoiser", bands = 1, channels = 8, blocks = 1 }}
        degradation = {{ sigma_max = 0.06 }}
        data = {{ side = 32, train = [{{ path = "{scene}" }}] }}
        plan = {{ batch = 2, validate_every = 2, phases = [{{ steps = 2 }}] }}
        """
    )
    for seed in (None, 7):
        run_training("tiny.toml", TrainingRun(threads=1, device="cpu", seed=seed))
    cards = [json.loads((tmp_path / f"runs/{name}/tiny.json").read_text()) for name in ("tiny", "tiny-seed7")]
    assert [card["seed"] for card in cards] == [0, 7]
    assert cards[0]["sha256"] != cards[1]["sha256"]
    assert cards[0]["validation"]["noisy_db"] == cards[1]["validation"]["noisy_db"]  # validated on the same noise


def test_the_digest_changes_with_the_recipe_alone(scene):
    recipe = settings(scene)
    assert digest(recipe) == digest(settings(scene))
    assert digest(recipe) != digest(dataclasses.replace(recipe, plan=dataclasses.replace(recipe.plan, seed=1)))


def test_command_line_explains(tmp_path):
    for words, message in (
        (("sr-x2", "denoise"), "unexpected extra argument"),
        (("sr-x2", "--threads", "0"), "--threads must be at least 1"),
        (("no-recipe",), "no recipe 'no-recipe'"),
    ):
        bad = scenelift("train", *words, cwd=tmp_path, ok=False)
        assert bad.returncode == 2 and message in bad.stderr and bad.stderr.count("\n") == 1, bad.stderr
    assert not list(tmp_path.iterdir())  # a run that never began leaves no folder
