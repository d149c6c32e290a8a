"""Adaptation: pairs with the scenes' own blur and noise, a verdict on scenes kept aside, no file where it is bad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from support.builders import write_raster
from support.jobs import scenelift
from support.trainings import images, textured

from scenelift.models.checkpoint import checkpoint_digest, load_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.sensing.blurs import Blur
from scenelift.models.shipped import shipped
from scenelift.models.training.known import Known, KnownDenoising, KnownSuperResolution
from scenelift.pipeline.errors import UnfitError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.conditions import scene_conditions
from scenelift.workflows.derived.adapt import adaptation, publish
from scenelift.workflows.derived.settings import Adaptation
from scenelift.workflows.training.recipe import make_task

torch.set_num_threads(1)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", textured(side=256))


def test_pairs_are_made_with_the_scenes_own_blur_and_noise(scene: Path) -> None:
    recipe, notes = adaptation("sr-x2", Adaptation((str(scene),), steps=10))
    task = make_task(recipe)
    assert isinstance(task, KnownSuperResolution) and task.told
    found = scene_conditions(open_scene(SceneSource((str(scene),))))  # what the network will be told of the scene
    pairs = zip(found.blur, found.noise, strict=True)
    assert task.known == tuple(dict.fromkeys(Known((blur,), (noise,)) for blur, noise in pairs))
    assert recipe.start == "sr-x2" and recipe.plan.steps == 10 and recipe.data.validation == ()
    assert notes[0].startswith("blur of the scenes (estimated)")
    given, notes = adaptation("sr-x2-fast", Adaptation((str(scene),), blur="area"))
    task = make_task(given)
    assert isinstance(task, KnownSuperResolution) and not task.told and task.known[0].blur == (Blur("area"),)
    assert "(given)" in notes[0]


def test_images_without_a_place_tell_their_blur_too(tmp_path: Path) -> None:
    recipe, _ = adaptation("sr-x2-rgb", Adaptation((str(images(tmp_path / "images.zip", each=4, side=64)),)))
    task = make_task(recipe)
    assert isinstance(task, KnownSuperResolution) and len(task.known[0].blur) == 3


def test_denoisers_learn_from_the_noise_of_the_scenes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = 2000 + rng.normal(0, 100, (1, 256, 256))  # 0.01 reflectance
    noisy = write_raster(tmp_path / "noisy.tif", values.astype(np.uint16))
    task = make_task(adaptation("denoise", Adaptation((str(noisy),)))[0])
    assert isinstance(task, KnownDenoising) and task.noise[0] == pytest.approx(0.01, rel=0.1)


def test_bands_are_chosen_by_name_in_every_scene(tmp_path: Path) -> None:
    one = write_raster(tmp_path / "a.tif", textured(3, 64), descriptions=("B2", "B3", "B4"))
    other = write_raster(tmp_path / "b.tif", textured(4, 64), descriptions=("B4", "B3", "B2", "B5"))
    recipe, _ = adaptation("sr-x2-rgb", Adaptation((str(one), str(other)), bands="B4, B3,B2"))
    assert [source.bands for source in recipe.data.train] == [(3, 2, 1), (1, 2, 3)]
    with pytest.raises(ModelError, match=r"b\.tif .*B8"):
        adaptation("sr-x2-rgb", Adaptation((str(other),), bands="B8"))
    with pytest.raises(ModelError, match=r"b\.tif has 4 bands, sr-x2-rgb wants 3 together"):
        adaptation("sr-x2-rgb", Adaptation((str(other),)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lanczos-x2", "lanczos-x2 is a method without weights and cannot be adapted"),
        ("sharpen", "sharpen is a network for sharpening and cannot be adapted"),
        ("sr-x9", "unknown model 'sr-x9'"),
        ("a.onnx", "is an ONNX file and cannot be adapted"),
    ],
)
def test_what_cannot_be_adapted_is_refused(scene: Path, name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        adaptation(name, Adaptation((str(scene),)))
    with pytest.raises(ModelError, match="needs scenes, got none"):
        adaptation("sr-x2", Adaptation())


@pytest.mark.parametrize(
    ("gain", "wanted", "force", "written"),
    [(0.2, None, False, True), (0.0, None, False, False), (0.2, 0.5, False, False), (-0.1, None, True, True)],
)
def test_what_does_not_help_is_not_written(
    tmp_path: Path, gain: float, wanted: float | None, force: bool, written: bool
) -> None:
    made, out = tmp_path / "made.safetensors", tmp_path / "mine.safetensors"
    made.write_bytes(b"weights")
    card = {"parent": {"name": "sr-x2", "psnr_db": 30.0}, "validation": {"psnr_db": 30.0 + gain}}
    made.with_suffix(".json").write_text(json.dumps(card))
    settings = Adaptation(require_gain=wanted, force=force)
    if written:
        assert f"{gain:+.2f} dB to sr-x2" in publish(made, out, settings)
        assert json.loads(out.with_suffix(".json").read_text())["adapted_from"]["forced"] == force
    else:
        with pytest.raises(UnfitError, match=r"was not written \(force=True writes it; it is kept as"):
            publish(made, out, settings)
    assert out.exists() == out.with_suffix(".json").exists() == written


def test_command_line_adapts_and_explains(tmp_path: Path) -> None:
    def run(*args: object) -> object:
        return scenelift(*args, cwd=tmp_path, ok=False)

    (tmp_path / "junk.tif").write_bytes(b"no raster")
    for words, message in (
        (("sr-x2-fast", "--scenes", "junk.tif"), "adapt needs -o"),
        (("sr-x2-fast", "--scenes", "junk.tif", "-o", "mine.safetensors"), "junk.tif as images"),
        (("sr-x2-fast", "--scenes", "junk.tif", "-o", "mine.tif"), "ends in .safetensors"),
    ):
        bad = run("adapt", *words)
        assert bad.returncode == 2 and message in bad.stderr and bad.stderr.count("\n") == 1, bad.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["junk.tif"]  # a run that never began leaves no folder
    big = write_raster(tmp_path / "big.tif", textured(1, 432))
    other = write_raster(tmp_path / "other.tif", textured(1, 288, 1), Affine(10, 0, 9e5, 0, -10, 5e6))
    words = ("adapt", "sr-x2-fast", "--scenes", big, other, "--bands", "1", "--steps", 2, "--threads", 1)
    done = run(*words, "-o", "mine.safetensors", "--force")
    assert done.returncode == 0, done.stderr
    assert "blur of the scenes (estimated)" in done.stderr and "validation PSNR" in done.stderr
    assert load_checkpoint(tmp_path / "mine.safetensors")[1].name == "sr-x2-fast-adapted"
    card = json.loads((tmp_path / "mine.json").read_text())
    parent = card["parent"]
    assert f"sr-x2-fast as it is: PSNR {parent['psnr_db']:.2f} dB" in done.stderr
    assert parent["sha256"] == checkpoint_digest(shipped()["sr-x2-fast"])
    gain = card["validation"]["psnr_db"] - parent["psnr_db"]
    assert f"mine.safetensors: {gain:+.2f} dB to sr-x2-fast" in done.stdout
    again = run(*words, "-o", "other.safetensors", "--require-gain", 50)  # nothing is trained again
    assert again.returncode == 4 and "--require-gain asks for 50" in again.stderr
    assert not (tmp_path / "other.safetensors").exists()
