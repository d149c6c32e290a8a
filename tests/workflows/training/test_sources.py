"""What training and tables take in: every promised kind of source, and one line for every broken one."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.builders import write_raster
from support.trainings import images, settings, textured

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.workflows.evidence.samples import read_sample
from scenelift.workflows.training.data import read_data
from scenelift.workflows.training.images import PatchSampler, PatchSet, read_images
from scenelift.workflows.training.recipe import Source, recipe_from
from scenelift.workflows.training.sources import find_sources, read_source
from scenelift.workflows.training.train import train


def zipped(path, *pictures):
    with zipfile.ZipFile(path, "w") as archive:
        for number, picture in enumerate(pictures):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            archive.writestr(f"class/{number}.png", buffer.getvalue())
    return path


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(20, 200, shape, dtype=np.uint8)


def test_flat_arrays_and_half_precision_are_read_and_gaps_left_out(tmp_path):
    whole = textured(1, 64)[0]
    np.savez(tmp_path / "flat.npz", whole)
    assert read_source(tmp_path / "flat.npz", 32).values.shape == (4, 1, 32, 32)
    half = (whole * 1e-4).astype(np.float16)
    half[5, 5] = np.nan
    np.savez(tmp_path / "half.npz", half)
    found = read_source(tmp_path / "half.npz", 32)
    assert found.gain == 1 and len(found.values) == 3


def test_bands_are_chosen_before_constant_ones_are_left_out(tmp_path):
    clear = np.dstack([noise(32, 32, 3), np.full((32, 32), 255, np.uint8)])
    path = zipped(tmp_path / "alpha.zip", Image.fromarray(clear), Image.fromarray(clear))
    with pytest.raises(ModelError, match="a band is constant or empty; choose others by bands"):
        read_images(path)
    assert read_images(path, (1, 2, 3)).values.shape == (2, 3, 32, 32)


def test_palettes_are_colours_and_sizes_must_agree(tmp_path):
    colours = Image.fromarray(noise(32, 32, 3)).quantize(64)
    found = read_images(zipped(tmp_path / "palette.zip", colours))
    np.testing.assert_array_equal(found.values[0].transpose(1, 2, 0), np.asarray(colours.convert("RGB")))
    sizes = [Image.fromarray(noise(side, side, 3)) for side in (40, 32, 32)]
    with pytest.raises(ModelError, match=r"2 of 3 bands, 32 x 32 pixels and others, e.g. 3 bands, 40 x 40"):
        read_images(zipped(tmp_path / "sizes.zip", *sizes))


def test_broken_archives_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", textured(1, 64))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"cut\.npz"):
        read_source(tmp_path / "cut.npz", 32)


def test_names_with_brackets_and_absolute_patterns_find_their_files(tmp_path):
    odd = write_raster(tmp_path / "scene[1].tif", textured(1, 64))
    other = write_raster(tmp_path / "scene2.tif", textured(1, 64))
    assert [path for path, _ in find_sources((Source(str(odd)),))] == [odd]
    assert [path for path, _ in find_sources((Source(str(tmp_path / "*.tif")),))] == sorted([odd, other])
    (tmp_path / "deep").mkdir()
    below = write_raster(tmp_path / "deep/third.tif", textured(1, 64))
    assert [path for path, _ in find_sources((Source("**/*.tif"),), tmp_path)] == sorted([below, odd, other])


def test_samples_of_wide_and_high_images_reach_all_of_them():
    wide = np.tile(np.arange(200, dtype=np.uint16), (3, 1, 64, 1))
    for values in (wide, wide.transpose(0, 1, 3, 2)):
        patches = PatchSet(values, 1.0, np.arange(3))
        drawn = PatchSampler([(patches, 1.0)], 1, 48)(200, 1.0, torch.Generator().manual_seed(0))
        assert float(drawn.max()) > 190 and float(drawn.min()) < 10
        with pytest.raises(ModelError, match="at least 65 pixels a side, got 64"):
            PatchSampler([(patches, 1.0)], 1, 65)


def test_a_network_of_several_bands_takes_no_others_first_ones():
    patches = PatchSet(np.zeros((4, 4, 8, 8), np.uint8), 1.0, np.arange(4))
    with pytest.raises(ModelError, match="4 bands, the network wants 3 together: choose them by bands"):
        PatchSampler([(patches, 1.0)], 3, 8)
    assert PatchSampler([(patches, 1.0)], 1, 8)(2, 1.0, torch.Generator()).shape == (2, 1, 8, 8)


def test_one_zip_is_validated_on_all_of_its_classes(tmp_path):
    labels = tuple(f"class{i}" for i in range(10))
    archive = images(tmp_path / "own.zip", labels, each=40)
    _, held_out = read_data(settings(archive), None)
    kept = held_out[0]
    assert len(kept.values) == 40 and len(set(kept.labels)) >= 8


def test_validation_takes_what_training_takes(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", textured(side=320))
    odd = zipped(tmp_path / "odd.zip", *(Image.fromarray(noise(45, 51, 3, seed=i)) for i in range(3)))
    empty = write_raster(tmp_path / "empty.tif", np.zeros((2, 64, 64), np.uint16), nodata=0)
    small = write_raster(tmp_path / "small.tif", textured(side=64, seed=1))
    sources = [{"path": str(path)} for path in (odd, empty, small)]
    data = {"side": 32, "train": [{"path": str(scene)}], "validation": sources, "validation_count": 6}
    denoiser = {"kind": "denoiser", "channels": 8, "blocks": 1}
    recipe = settings(scene, task="denoise", arch=denoiser, data=data)
    assert train(recipe, tmp_path / "run").is_file()
    nothing = settings(scene, data=data | {"validation": [{"path": str(empty)}]})
    with pytest.raises(ModelError, match="no usable patch of 32 pixels to validate on"):
        read_data(nothing, None)


def test_other_data_is_another_training(tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number in range(3):
        write_raster(scenes / f"{number}.tif", textured(side=320, seed=number))
    weights = train(settings(scenes), tmp_path / "run")
    before = load_file(weights)
    for name, tensor in load_file(train(settings(scenes), tmp_path / "run")).items():
        assert torch.equal(tensor, before[name])
    (scenes / "2.tif").unlink()
    with pytest.raises(ModelError, match="another recipe or other data; use another run folder, or resume=False"):
        train(settings(scenes), tmp_path / "run")
    train(settings(scenes), tmp_path / "run", resume=False)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in load_file(weights).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": {"phases": [{"steps": 5}, {"steps": 1, "loss": "log_mse"}]}}, "loss must be one of"),
        ({"name": "my/model"}, "name must not be empty or hold a path"),
        ({"arch": {"kind": "denoiser"}, "task": "denoise", "patch": 125}, "must be multiples of"),
        ({"degradation": {"scale": 2, "mtf": 0.26}}, "mtf must be a list"),
        ({"data": {"side": 0, "train": [{"path": "x"}]}}, "data.side must be from 8"),
        ({"data": {"gains": [0, 1], "train": [{"path": "x"}]}}, "data.gains must be two numbers above 0"),
        ({"data": {"gammas": [-1, 2], "train": [{"path": "x"}]}}, "data.gammas must be two numbers above 0"),
        ({"data": {"train": []}}, "data.train must name at least one source"),
        (
            {"data": {"train": [{"path": "x", "bands": [0]}]}},
            "bands of the source x must be numbers from 1 up, got .0.",
        ),
        ({"data": {"train": [{"path": "x", "bands": [1, 1]}]}}, "bands of the source x must differ, got .1, 1."),
        ({"plan": {"phases": [{"steps": 1}], "optimizer": "sgd"}}, "optimizer must be one of adam, .*, got 'sgd'"),
        ({"plan": {"phases": [{"steps": 1}], "batch": 0}}, "batch must be at least 1, got 0"),
        ({"plan": {"phases": [{"steps": 1}], "ema": 1.0}}, "ema must be from 0 to below 1, got 1.0"),
        ({"plan": {"phases": [{"steps": 1}], "clip": -1.0}}, "clip must be above 0, got -1.0"),
        ({"plan": {"phases": [{"steps": 1, "warmup": -1}]}}, "mirror and warmup must not be below 0, got 0 and -1"),
        ({"plan": {"phases": [{"steps": 1, "rate": 0.0}]}}, "rate must be a finite number above 0, got 0.0"),
        (
            {"plan": {"phases": [{"steps": 1, "epochs": 2.0}]}},
            "steps or epochs above 0, got steps 1 and epochs 2",
        ),
        ({"adversarial": {"weight": -1.0}}, "adversarial.weight must not be below 0, got -1.0"),
        ({"adversarial": {"discriminator": "vgg"}}, "adversarial.discriminator must be one of .*, got 'vgg'"),
        ({"data": {"gains": [1.0], "train": [{"path": "x"}]}}, r"data\.gains\[1\] is missing"),
        ({"data": {"train": [{"path": "x", "weight": 0}]}}, "must be above 0"),
    ],
)
def test_what_could_not_be_stored_at_the_end_is_refused_at_the_beginning(change, message):
    whole = {
        "name": "tiny",
        "task": "super-resolution",
        "arch": {"kind": "generator", "channels": 8, "blocks": 1, "scale": 2},
        "data": {"train": [{"path": "x"}]},
        "plan": {"phases": [{"steps": 6}]},
    }
    with pytest.raises(ModelError, match=message):
        recipe_from(whole | change, "test")


def test_weights_for_a_folder_that_is_not_there_are_refused_before_training(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", textured(side=320))
    with pytest.raises(ModelError, match="no such folder for the weights"):
        train(settings(scene), tmp_path / "run", weights=tmp_path / "nowhere/mine.safetensors")
    assert not (tmp_path / "run").exists()


def test_the_card_of_ones_own_data_does_not_speak_of_eurosats_licence(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", textured(side=320))
    other = write_raster(tmp_path / "other.tif", textured(side=96, seed=1))
    data = {"side": 32, "train": [{"path": str(scene)}], "validation": [{"path": str(other)}], "validation_count": 4}
    card = train(settings(scene, data=data), tmp_path / "run").with_suffix(".json").read_text()
    assert "that of your data" in card and "EuroSAT" not in card


def test_levels_of_an_8_bit_scene_are_its_own(tmp_path):
    bytes_ = noise(1, 128, 128)
    scene = write_raster(tmp_path / "bytes.tif", bytes_)
    np.savez(tmp_path / "bytes.npz", bytes_)
    of_scene, of_array = read_sample(scene, each=1), read_sample(tmp_path / "bytes.npz", each=1)
    assert (of_scene.level, of_scene.peak) == (pytest.approx(1 / 255), pytest.approx(1))
    assert of_array.level == pytest.approx(EUROSAT.level)
    np.testing.assert_allclose(of_scene.images / of_scene.peak, of_array.images / of_array.peak, atol=2e-4)
    with pytest.raises(ModelError, match="8-bit scene read as 0 to 1: evaluate them apart"):
        read_sample([scene, tmp_path / "bytes.npz"])
