"""What goes before a classifier: chosen by what was measured, refused where it surely harms, and said either way."""

import csv
import json
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from support.builders import UTM, noise_image, untrained_classifier, write_raster

from scenelift.models.checkpoint import checkpoint_digest
from scenelift.models.errors import ModelError
from scenelift.models.shipped import CLASSIFIER, load_classifier, shipped
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import COMMAND_LINE, UnfitError, UsageError
from scenelift.pipeline.outputs.readback import provenance_of
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.cli import app as cli
from scenelift.workflows.conditions import image_noise, images_conditions
from scenelift.workflows.enhance import resume
from scenelift.workflows.evidence.landcover import shipped_classifiers
from scenelift.workflows.landcover.chains import (
    Chains,
    Row,
    Seen,
    chains_path,
    choose,
    read_chains,
    unmeasured,
    write_chains,
)
from scenelift.workflows.landcover.classify import classify
from scenelift.workflows.landcover.measuring import degraded, measure
from scenelift.workflows.landcover.predict import predict
from scenelift.workflows.landcover.settings import AUTO, MeasureSettings, split_chain
from scenelift.workflows.settings import EnhanceSettings
from scenelift.workflows.training.labelled_images import read_labelled

torch.set_num_threads(1)

HERE = ClusterSettings(0)
NAMES = ("Forest", "River", "Rock")
GOOD, BAD = "denoise-rgb-lean", "denoise-lean"
CLEAN, SHARP = 0.0004, 0.5


def row(noise=CLEAN, mtf=SHARP, gains=None, **settings):
    gains = {GOOD: (0.1, -1.0, 1.2), BAD: (-4.0, -6.0, -2.0)} if gains is None else gains
    return Row(
        **{"coarse": 1, "blur": 0.0, "added": noise, "accuracy": 90.0} | settings, noise=noise, mtf=mtf, gains=gains
    )


HELPS = {GOOD: (20.0, 15.0, 25.0), BAD: (30.0, -1.0, 61.0)}
ROWS = (row(), row(0.012, gains=HELPS), row(0.012, 0.15, gains={GOOD: (3.0, 1.0, 5.0)}, blur=1.0))


@pytest.fixture
def classifier(tmp_path):
    """A classifier of windows of 32 pixels that was trained on nothing, and its measurement."""
    path = untrained_classifier(tmp_path / "tiny.safetensors", NAMES)
    write_chains(chains_path(path), chains_of(path, ROWS))
    return str(path)


def chains_of(path, rows):
    networks = {name: checkpoint_digest(shipped()[name]) for name in (GOOD, BAD)}
    return Chains(checkpoint_digest(path), "val.zip, 24 images", 10.0, 32, networks, tuple(rows))


def decide(chains, before, seen, force=False):
    return choose(before, "mine.safetensors", chains, lambda: seen, before, force)


def test_a_measurement_reads_back_and_is_of_these_weights_alone(classifier):
    found = read_chains(classifier)
    assert found == chains_of(classifier, ROWS) and found.names == (GOOD, BAD)
    assert len(chains_path(Path(classifier)).read_text().splitlines()) < 20, "one row a line"
    write_chains(chains_path(Path(classifier)), replace(found, classifier="0" * 64))
    assert read_chains(classifier) is None
    for damaged in ("{", '{"classifier": 3}'):
        chains_path(Path(classifier)).write_text(damaged)
        with pytest.raises(ModelError, match=r"tiny.chains is no readable measurement.*measure again"):
            read_chains(classifier)
    assert read_chains("support.builders:landcover_net") is None


def test_auto_takes_what_helps_most_for_sure(classifier):
    chains = read_chains(classifier)
    clean = decide(chains, (AUTO,), Seen(0.0003, SHARP))
    assert clean.names == () and "auto chose no enhancement: none surely helps at noise 0.0003" in clean.note
    noisy = decide(chains, (AUTO,), Seen(0.014, SHARP))
    assert noisy.names == (GOOD,), "the other may be chance"
    assert f"auto chose {GOOD}: +20.0 points of balanced accuracy [+15.0, +25.0] at noise 0.0140" in noisy.note
    assert "(by what was measured at 0.0120), where mine.safetensors has 90.0 % without" in noisy.note
    blurred = decide(chains, (AUTO,), Seen(0.014, 0.14))
    assert "+3.0 points" in blurred.note


def test_between_two_levels_of_noise_what_both_say_counts(classifier):
    rows = (row(0.001, accuracy=90.0, gains={GOOD: (-6, -8, -4)}), row(0.003, accuracy=80.0, gains={GOOD: (10, 2, 18)}))
    chains = chains_of(classifier, rows)
    found, levels = chains.at(Seen(0.002, SHARP))
    assert levels == (0.001, 0.003) and found.gains == {GOOD: (2, -3, 7)} and found.accuracy == 85
    assert decide(chains, (AUTO,), Seen(0.002, SHARP)).names == (), "no sure gain"
    assert decide(chains, (AUTO,), Seen(0.0028, SHARP)).names == (GOOD,)
    assert chains.at(Seen(0.001, SHARP)) == (rows[0], (0.001,))
    assert [chains.at(Seen(noise, SHARP))[0] for noise in (0.0, 0.5)] == list(rows), "beyond all, the last counts"


def test_where_noise_hides_the_blur_pixels_are_taken_for_sharp(classifier):
    rows = (row(0.025, 0.64, {GOOD: (9, 8, 10)}), row(0.025, 0.63, {GOOD: (1, 0.5, 2)}, blur=1.0))
    assert "+9.0" in decide(chains_of(classifier, rows), (AUTO,), Seen(0.025, 0.60)).note


def test_a_chain_that_surely_harms_is_refused_unless_forced(classifier, monkeypatch):
    chains = read_chains(classifier)
    with pytest.raises(UnfitError, match=rf"{BAD} lowers accuracy, -4.0 points .*nothing was done.*force=True"):
        decide(chains, (BAD,), Seen(CLEAN, SHARP))
    monkeypatch.setenv(COMMAND_LINE, "1")
    with pytest.raises(UnfitError, match=r"-m auto,mine.safetensors choose, or go on with --force") as refused:
        decide(chains, (BAD,), Seen(CLEAN, SHARP))
    assert refused.value.exit_code == 4
    assert decide(chains, (BAD,), Seen(CLEAN, SHARP), force=True).names == (BAD,)
    assert decide(chains, (GOOD,), Seen(CLEAN, SHARP)).names == (GOOD,), "it may harm, and may not"
    assert decide(chains, (BAD,), Seen(0.012, SHARP)).names == (BAD,)


def test_what_was_not_measured_is_said(classifier):
    chains = read_chains(classifier)
    other = decide(chains, ("sr-x2",), Seen(CLEAN, SHARP))
    assert other.names == ("sr-x2",) and f"was not measured; measured were {GOOD}; {BAD}" in other.note
    coarse = decide(chains, (AUTO,), Seen(CLEAN, SHARP, 3.0))
    assert coarse.names == () and "was not measured at pixels of 30 m: none is made" in coarse.note
    assert decide(chains, (BAD,), Seen(CLEAN, SHARP, 3.0)).names == (BAD,)
    stale = replace(chains, networks=chains.networks | {GOOD: "0" * 64})
    assert decide(stale, (AUTO,), Seen(0.012, SHARP)).names == () and stale.names == (BAD,)
    alone = unmeasured(("sr-x2",), classifier)
    assert f"`scenelift landcover measure {classifier} --data IMAGES` does" in alone.note
    assert unmeasured((), classifier).note == ""
    with pytest.raises(UsageError, match="auto cannot choose: what enhancement does to"):
        unmeasured((AUTO,), "module.path:factory")


def test_a_classifier_alone_is_left_alone_and_told_what_would_help(classifier):
    chains = read_chains(classifier)
    assert decide(chains, (), Seen(CLEAN, SHARP)).note == ""
    told = decide(chains, (), Seen(0.012, SHARP))
    assert told.names == () and told.note.startswith(f"-m auto,mine.safetensors would take {GOOD}: +20.0 points")


def test_windows_of_a_scene_have_gains_of_their_own(classifier):
    rows = (row(gains={GOOD: (5, 4, 6)}, windows={GOOD: (-5, -6, -4)}),)
    chains = chains_of(classifier, rows)
    assert decide(chains, (AUTO,), Seen(CLEAN, SHARP)).names == (GOOD,)
    assert decide(chains, (AUTO,), Seen(CLEAN, SHARP, windows=True)).names == ()


def test_auto_stands_alone_before_a_classifier():
    assert split_chain("auto") == ((AUTO,), CLASSIFIER)
    assert split_chain("auto,mine.safetensors") == ((AUTO,), "mine.safetensors")
    assert split_chain("a,b,c") == (("a", "b"), "c")
    for wrong in ("auto,denoise,landcover-eurosat", "denoise,auto"):
        with pytest.raises(UsageError, match="auto stands alone before the classifier"):
            split_chain(wrong)


@pytest.fixture
def noisy(tmp_path):
    """A scene of 10 m with a noise of 0.012."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(800, 2500, (3, 12, 12)).repeat(8, 1).repeat(8, 2)
    values = smooth + rng.normal(0, 120, smooth.shape)
    return write_raster(tmp_path / "scene.tif", values.astype("uint16"), UTM, descriptions=("B04", "B03", "B02"))


def made(scene, output, chain, **settings):
    return classify(SceneSource((str(scene),)), output, chain, EnhanceSettings(precision="fp32"), HERE, **settings)


def test_a_scene_is_classified_by_what_was_chosen_and_its_map_says_why(noisy, classifier, tmp_path):
    summary = made(noisy, tmp_path / "map.tif", f"auto,{classifier}")
    assert summary.models == [GOOD, classifier]
    (why,) = [note for note in summary.notes if "auto chose" in note]
    assert f"auto chose {GOOD}: +" in why
    with rasterio.open(tmp_path / "map.tif") as found:
        chosen = found.read()
    made(noisy, tmp_path / "same.tif", f"{GOOD},{classifier}")
    with rasterio.open(tmp_path / "same.tif") as found:
        assert np.array_equal(found.read(), chosen)
    recorded = provenance_of(open_scene(SceneSource((str(tmp_path / "map.tif"),))))
    assert recorded["choice"] == why and [m["name"] for m in recorded["models"]] == [GOOD, "tiny.safetensors"]
    again = resume(tmp_path / "map.tif")
    assert again.resumed == again.blocks and why in again.notes
    assert made(noisy, tmp_path / "map.tif", f"auto,{classifier}").resumed == again.blocks


def test_a_harmful_chain_is_refused_before_anything_is_written(noisy, classifier, tmp_path):
    harms = (row(0.012, gains={GOOD: (-20.0, -25.0, -15.0)}),)
    write_chains(chains_path(Path(classifier)), chains_of(classifier, harms))
    before = sorted(tmp_path.iterdir())
    for chain in (GOOD, "denoise-lean"):  # which gives red, green and blue to the same network
        with pytest.raises(UnfitError, match=f"{GOOD} lowers accuracy"):
            made(noisy, tmp_path / "map.tif", f"{chain},{classifier}")
    assert sorted(tmp_path.iterdir()) == before
    assert made(noisy, tmp_path / "map.tif", f"{GOOD},{classifier}", force=True).models == [GOOD, classifier]
    assert made(noisy, tmp_path / "auto.tif", f"auto,{classifier}").models == [classifier]


def test_wrong_bands_are_said_before_anything_of_the_choice(classifier, tmp_path):
    scene = write_raster(tmp_path / "two.tif", noise_image(1, (2, 64, 64)), UTM)
    with pytest.raises(UsageError, match="wants 3 bands together"):
        made(scene, tmp_path / "map.tif", f"auto,{classifier}")


@pytest.fixture
def images(tmp_path):
    """A zip of noisy images of one colour each."""
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number in range(12):
            level = rng.uniform(60, 200, 3)
            with archive.open(f"{NAMES[number % 3]}/{number}.png", "w") as file:
                noisy = rng.normal(level, 11.1, (32, 32, 3))  # 0.012 reflectance
                Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "PNG")
    return tmp_path / "images.zip"


def test_images_are_classified_by_what_was_chosen(images, classifier, tmp_path):
    said = []
    predict([images], tmp_path / "auto.csv", f"auto,{classifier}", say=said.append)
    assert len(said) == 1 and f"auto chose {GOOD}: +" in said[0]
    predict([images], tmp_path / "fixed.csv", f"{GOOD},{classifier}")
    predict([images], tmp_path / "plain.csv", classifier, say=said.append)
    assert said[1].startswith(f"-m auto,{classifier} would take {GOOD}")
    auto, fixed, plain = ((tmp_path / f"{name}.csv").read_text() for name in ("auto", "fixed", "plain"))
    assert auto == fixed != plain
    facts = json.loads((tmp_path / "auto.csv.json").read_text())
    assert facts["choice"] == said[0] and [m["name"] for m in facts["models"]] == [GOOD, classifier]
    assert facts["models"][1]["sha256"] == checkpoint_digest(classifier)
    assert not (tmp_path / "plain.csv.json").exists()


def test_what_harms_images_or_is_for_scenes_is_refused(images, classifier, tmp_path):
    harms = (row(0.012, gains={BAD: (1, 0.5, 2), GOOD: (-20.0, -25.0, -15.0)}),)
    write_chains(chains_path(Path(classifier)), chains_of(classifier, harms))
    with pytest.raises(UnfitError, match=f"{GOOD} lowers accuracy"):
        predict([images], tmp_path / "out.csv", f"{BAD},{classifier}")  # red, green, blue go through the other
    assert not (tmp_path / "out.csv").exists()
    assert sum(predict([images], tmp_path / "out.csv", f"{GOOD},{classifier}", force=True).values()) == 12
    for name, why in (("destripe", "is fitted to a whole scene"), ("sharpen", "is fitted to a whole scene")):
        with pytest.raises(UsageError, match=why):
            predict([images], tmp_path / "out.csv", f"{name},{classifier}")
    with pytest.raises(ModelError, match="cannot stand before"):
        predict([images], tmp_path / "out.csv", f"{CLASSIFIER},{classifier}")
    write_raster(tmp_path / "grey.tif", noise_image(1, (1, 32, 32)), UTM)
    with pytest.raises(ModelError, match=r"grey.tif has 1 bands, the classifier takes 3"):
        predict([tmp_path / "grey.tif"], tmp_path / "out.csv", f"auto,{classifier}")


def test_measuring_writes_what_is_chosen_by(images, classifier, tmp_path, monkeypatch, capsys):
    words = ["landcover", "measure", classifier, "--data", str(images), "-m", GOOD, "--each", "0", "--pixel", "5"]
    monkeypatch.setattr(sys, "argv", ["scenelift", *words])
    monkeypatch.setenv(COMMAND_LINE, "1")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "**tiny** (images.zip, 12 images, seed 0;" in said and "| 5 m, blurred by 1 px, noise 0.003 |" in said
    found = read_chains(classifier)
    assert (
        (found.pixel, found.side) == (5, 32)
        and found.names == (GOOD,)
        and found.images == "images.zip, 12 images, seed 0"
    )
    assert {r.coarse for r in found.rows} == {1, 2} and {r.blur for r in found.rows} == {0.0, 1.0}
    assert all(low <= mean <= high for r in found.rows for mean, low, high in r.gains.values())
    assert not any(r.windows for r in found.rows), "nothing enlarges"
    enlarged = MeasureSettings(images, 2, chains=("sr-x2-rgb-lean",))
    (again,) = measure((classifier,), enlarged, lambda text: None).values()
    assert all(set(r.windows) == ({"sr-x2-rgb-lean"} if r.coarse == 1 else set()) for r in again.rows)
    with pytest.raises(ModelError, match="only networks with weights can be measured, got 'median'"):
        measure((classifier,), MeasureSettings(images, chains=("median",)), lambda text: None)


def test_images_are_seen_as_windows_of_a_scene():
    rng = np.random.default_rng(2)
    clean = rng.uniform(0.05, 0.2, (40, 3, 8, 8)).astype(np.float32).repeat(8, 2).repeat(8, 3)
    for noise in (0.012, 0.02):
        found = images_conditions(list(degraded(clean, 1, 0.0, noise, 0)))
        assert found.noise == pytest.approx((noise,) * 3, rel=0.25)
    assert degraded(clean, 2, 0.0, 0.0, 0).shape == (40, 3, 32, 32)
    assert image_noise(degraded(clean[:1], 1, 1.0, 0.0, 0)[0, 0]) < 0.002


@pytest.mark.parametrize("name", shipped_classifiers())
def test_shipped_classifiers_are_measured_with_what_ships(name):
    """Fails when a classifier or an enhancer is replaced: then `scenelift landcover measure` must run again."""
    chains = read_chains(name)
    assert chains is not None and set(chains.networks) == set(",".join(chains.names).split(","))
    assert chains.pixel == 10 and {(r.coarse, r.blur) for r in chains.rows} == {(1, 0.0), (1, 1.0), (2, 0.0)}
    strong, _ = chains.at(Seen(0.03, SHARP))
    assert strong.gains["denoise-rgb-taught"][1] > 5
    coarse = decide(chains, (AUTO,), Seen(CLEAN, 0.28, 2.0))
    assert coarse.names and "on pixels 2 times as large" in coarse.note
    with pytest.raises(UnfitError, match="sr-x2-rgb lowers accuracy"):  # half as much ground in a window
        decide(chains, ("sr-x2-rgb",), Seen(CLEAN, SHARP, windows=True))
    assert decide(chains, (AUTO,), Seen(CLEAN, SHARP, windows=True)).names == ()


def test_auto_names_more_noisy_images_rightly(tmp_path):
    """On EuroSAT's validation images, which the shipped measurement was made on too."""
    archive = Path(os.environ.get("SCENELIFT_DATA", "")) / "eurosat_rgb_val.zip"
    if not archive.is_file():
        pytest.skip("SCENELIFT_DATA does not name a folder with eurosat_rgb_val.zip")
    sample = read_labelled(archive, load_classifier(CLASSIFIER)[0].classes).balanced(6, seed=5)
    values = degraded(sample.reflectance().numpy(), 1, 0.0, 0.02, 1)
    for name, label, image in zip(sample.names, sample.labels, values, strict=True):
        folder = tmp_path / "images" / sample.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        write_raster(folder / f"{Path(name).stem}.tif", image, UTM)
    right = {}
    for model in (CLASSIFIER, f"auto,{CLASSIFIER}"):
        predict([tmp_path / "images"], tmp_path / "out.csv", model)
        with (tmp_path / "out.csv").open(newline="") as file:
            right[model] = np.mean([r["class"] == Path(r["name"]).parent.name for r in csv.DictReader(file)])
    assert right[f"auto,{CLASSIFIER}"] > right[CLASSIFIER] + 0.2
