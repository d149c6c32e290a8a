"""What networks are told about a scene, and what a job says it may gain: on a real scene shrunk in known ways."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine
from support.builders import write_raster
from support.jobs import pixels, scenelift

from scenelift.models.catalog import find, with_colour, with_settings
from scenelift.models.errors import ModelError
from scenelift.models.loading import load
from scenelift.models.sensing.blurs import Blur, decimate
from scenelift.models.sensing.estimation import CANDIDATES
from scenelift.models.sensing.sensors import parse_blur, sensor_of
from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UnfitError, UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows import expect as workflow
from scenelift.workflows.choosing.prepared import Prepared, prepare
from scenelift.workflows.conditions import Conditions, colour_bands, noise_of, scene_conditions
from scenelift.workflows.demo import packaged_scene
from scenelift.workflows.enhance import enhance, planned, resume
from scenelift.workflows.expect import expect
from scenelift.workflows.familiarity import unfamiliar
from scenelift.workflows.settings import EnhanceSettings

torch.set_num_threads(1)
HERE = ClusterSettings(workers=0)
NAMES = ("B02", "B03", "B04", "B08")


def landscape(side=512):
    """The middle of the demo's Sentinel-2 scene, (1, 4, side, side) reflectance."""
    bands = []
    for path in packaged_scene():
        with rasterio.open(path) as band:
            bands.append(band.read(1, window=((700, 700 + side), (1150, 1150 + side))))
    return torch.from_numpy(np.stack(bands).astype(np.float32) * 1e-4)[None]


def write(path, blur, side=512, names=NAMES, sigma=0.0):
    low = decimate(landscape(side), 2, [[blur.kernel(2)] * 4])[0].numpy()
    low = low + sigma * np.random.default_rng(1).standard_normal(low.shape)
    dn = np.rint(low * 10_000).clip(1, 65535).astype(np.uint16)
    profile = {"driver": "GTiff", "count": 4, "height": dn.shape[1], "width": dn.shape[2], "dtype": "uint16"}
    profile |= {"crs": "EPSG:32632", "transform": Affine(10, 0, 5e5, 0, -10, 5e6), "photometric": "MINISBLACK"}
    with rasterio.open(path, "w", **profile) as out:
        out.write(dn)
        out.descriptions = names
        out.scales, out.offsets = (1e-4,) * 4, (0.0,) * 4
    return open_scene(SceneSource((str(path),)))


def test_the_blur_is_given_published_or_estimated(tmp_path):
    scene = write(tmp_path / "a.tif", Blur("area"))
    assert scene_conditions(scene, "0.31").blur == (Blur("gaussian", 0.31),) * 4
    assert scene_conditions(scene, "0.1,area,bicubic,0.5").blur[1:3] == (Blur("area"), Blur("bicubic"))
    published = scene_conditions(scene, "sentinel-2")
    assert published.origin == "sentinel-2, published"
    assert published.blur[0] == Blur("gaussian", 0.275)
    assert scene_conditions(scene).origin == "estimated"
    known = replace(scene, sensor="sentinel-2")
    assert scene_conditions(known).blur == published.blur
    assert scene_conditions(known, published=False).blur == scene_conditions(scene).blur
    assert scene_conditions(scene, noise=25.0).noise == pytest.approx((0.0025,) * 4)


def test_strong_blur_is_told_from_weak_and_noise_from_none(tmp_path):
    soft = scene_conditions(write(tmp_path / "soft.tif", Blur("gaussian", 0.1)))
    crisp = scene_conditions(write(tmp_path / "crisp.tif", Blur("gaussian", 0.45)))
    noisy = scene_conditions(write(tmp_path / "noisy.tif", Blur("gaussian", 0.3), sigma=0.004))
    assert max(b.mtf for b in soft.blur) < 0.25
    assert all(b.kind != "gaussian" or b.mtf > 0.3 for b in crisp.blur)
    assert max(crisp.noise) < 0.0008
    assert noisy.noise == pytest.approx((0.004,) * 4, rel=0.35)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sentinel2", "did you mean sentinel-2"),
        ("0.2,0.3", "2 values, the scene has 4"),
        ("2", "between 0.005 and 1"),
        ("1e-99", "between 0.005 and 1"),
    ],
)
def test_a_blur_that_cannot_be_is_one_line(text, words):
    with pytest.raises(ModelError, match=words):
        parse_blur(text, list(NAMES))


def test_platforms_of_products_are_known():
    assert sensor_of("Sentinel-2B") == "sentinel-2"
    assert sensor_of("LANDSAT_8") is None


def test_red_green_and_blue_go_through_the_joint_network_and_the_rest_band_by_band(tmp_path):
    scene = write(tmp_path / "a.tif", Blur("area"), side=256)
    assert colour_bands(scene) == (2, 1, 0)
    assert colour_bands(write(tmp_path / "b.tif", Blur("area"), side=256, names=("1", "2", "3", "4"))) is None
    files = [f"T33UUP_20240501T100031_{code}_10m" for code in ("B02", "B03", "B04", "B08")]  # as they are delivered
    assert colour_bands(write(tmp_path / "c.tif", Blur("area"), side=256, names=files)) == (2, 1, 0)
    assert colour_bands(write(tmp_path / "d.tif", Blur("area"), side=256, names=("Blue", "green", "RED", "nir"))) == (
        2,
        1,
        0,
    )
    assert (
        colour_bands(write(tmp_path / "e.tif", Blur("area"), side=256, names=("B04", "B04_10m", "B03", "B02"))) is None
    )
    told = with_settings(find("sr-x2"), blur=(Blur("area"),) * 4, noise=(0.0,) * 4)
    both, alone = load(with_colour(told, (2, 1, 0))), load(told)
    halo = both.spec.halo
    patch = np.random.default_rng(0).random((1, 4, 32 + 2 * halo, 32 + 2 * halo), np.float32) * 0.3
    joint = load(with_settings(find("sr-x2-rgb"), blur=(Blur("area"),) * 3, noise=(0.0,) * 3))
    out = both(patch)
    assert np.array_equal(out[:, [2, 1, 0]], joint(patch[:, [2, 1, 0]]))
    assert np.array_equal(out[:, 3], alone(patch)[:, 3])


def test_a_job_tells_its_networks_says_so_and_is_better_than_lanczos(tmp_path):
    write(tmp_path / "in.tif", Blur("area"))
    summary = enhance(tmp_path / "in.tif", tmp_path / "out.tif", "sr-x2", EnhanceSettings(precision="fp32"), HERE)
    assert any(note.startswith("blur ") for note in summary.notes)
    assert sum("dB over lanczos" in note for note in summary.notes) == 1
    assert summary.expected["gain_db"]["lanczos"]["mean"] > 0
    with rasterio.open(tmp_path / "out.tif") as out:
        told = json.loads(out.tags()["SCENELIFT"])["conditions"]
        ours = out.read() * 1e-4
    assert told["origin"] == "estimated"
    assert len(told["blur"]) == len(told["noise"]) == 4
    lanczos = tmp_path / "lanczos.tif"
    enhance(tmp_path / "in.tif", lanczos, "lanczos-x2", cluster=HERE)
    with rasterio.open(lanczos) as out:
        theirs = out.read() * 1e-4
    truth, inner = landscape()[0].numpy(), (slice(None), slice(8, -8), slice(8, -8))
    errors = [np.mean((image[inner] - truth[inner]) ** 2) for image in (ours, theirs)]
    assert errors[0] < errors[1]


def test_sharp_edges_over_soft_texture_are_not_taken_for_a_strong_blur(tmp_path):
    """Shapes as sharp as pixels can be, shrunk by the mean of areas: sharper than any photograph of the Earth."""
    rng = np.random.default_rng(3)
    shapes = np.kron(rng.uniform(0.03, 0.3, (32, 32)), np.ones((16, 16)))
    texture = np.cumsum(np.cumsum(rng.standard_normal((512, 512)), 0), 1)
    truth = (shapes * (1 + 0.05 * texture / texture.std()))[None].astype(np.float32)
    low = decimate(torch.from_numpy(truth)[None], 2, [[Blur("area").kernel(2)]])[0].numpy()
    profile = {"driver": "GTiff", "count": 1, "height": 256, "width": 256, "dtype": "float32", "crs": "EPSG:32632"}
    with rasterio.open(tmp_path / "in.tif", "w", transform=Affine(10, 0, 5e5, 0, -10, 5e6), **profile) as out:
        out.write(low)
    results = {}
    for name in ("sr-x2", "lanczos-x2"):
        summary = enhance(tmp_path / "in.tif", tmp_path / f"{name}.tif", name, EnhanceSettings(precision="fp32"), HERE)
        with rasterio.open(tmp_path / f"{name}.tif") as out:
            results[name] = float(np.mean((out.read() - truth)[:, 8:-8, 8:-8] ** 2))
        if name == "sr-x2":
            promised = summary.expected["gain_db"]["lanczos"]["low"]
    gain = 10 * np.log10(results["lanczos-x2"] / results["sr-x2"])
    assert gain > 0 or promised <= 0  # never worse without a word


def test_the_blurs_a_scene_may_have_are_tried_as_often_as_they_are_likely(tmp_path):
    chances = np.zeros(len(CANDIDATES))
    chances[[3, 9]] = 0.25, 0.75
    unsure = Conditions((CANDIDATES[3],), (0.0,), "estimated", chances=(tuple(chances),))
    tried = [blur for (blur,) in unsure.plausible(16)]
    assert tried.count(CANDIDATES[3]) in (4, 5)
    assert tried.count(CANDIDATES[9]) + tried.count(CANDIDATES[3]) == 16
    assert Conditions((Blur(),), (0.0,), "given").plausible(3) == [(Blur(),)] * 3


def test_a_network_says_what_it_has_not_seen(tmp_path):
    scene = write(tmp_path / "a.tif", Blur("area"), side=256)
    found = scene_conditions(scene)
    assert not unfamiliar(["sr-x2", "lanczos-x2"], NAMES, found)
    bright = replace(found, statistics={"brightness": (0.1, 0.1, 0.1, 2.0), "contrast": (0.01,) * 4})
    (line,) = unfamiliar(["sr-x2"], NAMES, bright)
    assert "mean reflectance of B08 is 2," in line
    flat = replace(found, statistics={"brightness": (0.1,) * 4, "contrast": (0.0,) * 4})
    (line,) = unfamiliar(["sr-x2"], NAMES, flat)
    assert "of B02 is 0, far below what it was trained on" in line
    (line,) = unfamiliar(["sr-x2-fast"], NAMES, replace(found, blur=(Blur("area"),) * 4))
    assert "area resampling" in line
    assert "sr-x2" in line
    (line,) = unfamiliar(["denoise"], NAMES, found, (0.01, 0.01, 0.3, 0.02))
    assert "noise (standard deviation) of B04 is 0.3, 5.0 times above" in line
    summary = enhance(tmp_path / "a.tif", tmp_path / "out.tif", "sr-x2-fast", cluster=HERE)
    assert any("sr-x2-fast was trained for blurs" in note for note in summary.notes)


@pytest.mark.parametrize("sigma", [0.0, 0.002, 0.006, 0.02, 0.06])
def test_noise_is_found_in_a_textured_scene_weak_or_strong(tmp_path, sigma):
    found = scene_conditions(write(tmp_path / "a.tif", Blur("area"), sigma=sigma)).noise
    assert np.median(found) == pytest.approx(sigma, rel=0.25, abs=0.0004)
    assert max(found) < 0.0008 + 1.5 * sigma


def test_noise_stronger_than_a_denoiser_knows_is_taken_away(tmp_path):
    write(tmp_path / "clean.tif", Blur("area"))
    write(tmp_path / "noisy.tif", Blur("area"), sigma=0.2)
    done = enhance(tmp_path / "noisy.tif", tmp_path / "out.tif", "denoise", EnhanceSettings(precision="fp32"), HERE)
    assert any("times above what it was trained on (0 to 0.06)" in note for note in done.notes)
    clean, noisy, made = (pixels(tmp_path / f"{name}.tif").astype(float) for name in ("clean", "noisy", "out"))
    assert np.square(made - clean).mean() < 0.12 * np.square(noisy - clean).mean()  # dark pixels were cut off at 0


def test_of_two_estimates_of_noise_each_counts_where_it_is_right():
    for tiles in (4, 400):
        assert noise_of(0.0003, 0.008, tiles) == 0.0003  # fine texture has no small eigenvalues
        assert noise_of(0.009, 0.03, tiles) == 0.03  # the network was not shown so much
        levels = [noise_of(each, each, tiles) for each in np.linspace(0, 0.05, 200)]
        assert levels == sorted(levels)
    assert noise_of(0.0045, 0.006, 4) > noise_of(0.0045, 0.006, 400)  # of a small image it finds too little


def test_denoising_first_does_a_clean_scene_no_harm(tmp_path):
    truth = landscape()[0].numpy()
    write(tmp_path / "a.tif", Blur("area"))
    errors = {}
    for models in ("sr-x2-fast", "denoise-fast,sr-x2-fast"):
        enhance(tmp_path / "a.tif", tmp_path / "o.tif", models, EnhanceSettings(), HERE)
        with rasterio.open(tmp_path / "o.tif") as out:
            errors[models] = np.square(out.read()[:, 8:-8, 8:-8] * 1e-4 - truth[:, 8:-8, 8:-8]).mean()
        (tmp_path / "o.tif").unlink()
        shutil.rmtree(work_folder(tmp_path / "o.tif"), ignore_errors=True)
    assert errors["denoise-fast,sr-x2-fast"] < 1.02 * errors["sr-x2-fast"]


def test_back_projection_is_told_the_blur_as_networks_are(tmp_path):
    write(tmp_path / "a.tif", Blur("area"), side=256)
    prepared = prepare(SceneSource((str(tmp_path / "a.tif"),)), "ibp-x2", EnhanceSettings(blur="area"), HERE)
    assert prepared.models[0].handle.load().mtf == pytest.approx(Blur("area").at_nyquist(2))
    promised = expect(prepared.scene, [prepared.models[0].handle.load()], prepared.conditions)
    assert promised.gain_db["ibp"].mean == pytest.approx(0, abs=1e-6)


def test_the_noise_that_a_denoiser_is_told_is_printed(tmp_path):
    scene = write(tmp_path / "a.tif", Blur("area"), side=128, sigma=0.004)
    for given, origin in ((None, "estimated: --noise says otherwise"), (12.0, "given")):
        levels = scene_conditions(scene, noise=given).noise
        settings = EnhanceSettings(noise=given)
        notes = planned(tmp_path / "a.tif", tmp_path / "o.tif", "denoise-lean", settings, HERE).notes
        (line,) = [note for note in notes if "takes away noise" in note]
        assert line.startswith(f"denoise-lean takes away noise of {min(levels):.4f}") and line.endswith(f"({origin})")
    plan = planned(tmp_path / "a.tif", tmp_path / "o.tif", "median", EnhanceSettings(), HERE)
    assert not any("takes away noise" in note for note in plan.notes)


def test_noise_is_told_from_least_to_most_and_denoising_first_is_not_advised_to_who_does(tmp_path):
    told = Conditions((Blur(),) * 3, (9.5, 11.25, 0.5), "given")
    assert told.describe().endswith("noise 0.5000 to 11.2500 reflectance")
    write(tmp_path / "a.tif", Blur("area"), side=128)
    settings = EnhanceSettings(noise=200.0)
    for models, advised in (("sr-x2-lean", True), ("denoise-lean,sr-x2-lean", False), ("sr-x2-lean,median", True)):
        notes = planned(tmp_path / "a.tif", tmp_path / "o.tif", models, settings, HERE).notes
        assert any(note.endswith("denoise first") for note in notes) == advised, models


def test_a_joint_network_says_how_many_bands_the_scene_has(tmp_path):
    write(tmp_path / "a.tif", Blur("area"), side=96)
    with pytest.raises(ModelError, match="the network takes 3 bands, the scene has 4: choose them with bands"):
        planned(tmp_path / "a.tif", tmp_path / "o.tif", "sr-x2-rgb-lean", EnhanceSettings(), HERE)


def test_another_model_is_refused_by_its_name_alone(tmp_path):
    write(tmp_path / "a.tif", Blur("area"), side=96)
    enhance(tmp_path / "a.tif", tmp_path / "o.tif", "lanczos-x2", EnhanceSettings(), HERE)
    with pytest.raises(UsageError, match=r"settings: models were lanczos-x2, now median\. Choose another name"):
        enhance(tmp_path / "a.tif", tmp_path / "o.tif", "median", EnhanceSettings(), HERE)


def test_too_little_to_be_gained_stops_before_the_work(tmp_path):
    write(tmp_path / "in.tif", Blur("area"), side=256)
    done = scenelift("enhance", "in.tif", "-o", "out.tif", "--require-gain", 30, "--workers", 0, cwd=tmp_path, ok=False)
    assert done.returncode == 4
    assert done.stderr.startswith("scenelift: expected gain over Lanczos is")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*out.tif*"))


@pytest.mark.parametrize(
    ("model", "code", "why"),
    [("lanczos-x2", 4, "in.tif has no window to try models on: too small"), ("median", 2, "only what enlarges")],
)
def test_what_cannot_be_tried_says_why(tmp_path, model, code, why):
    write(tmp_path / "in.tif", Blur("area"), side=32)
    done = scenelift("expect", "in.tif", "-m", model, "--workers", 0, cwd=tmp_path, ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1) and why in done.stderr


def test_what_was_expected_is_said_again_when_the_job_goes_on(tmp_path, monkeypatch):
    write(tmp_path / "in.tif", Blur("area"), side=256)
    settings = EnhanceSettings(blur="0.3", precision="fp32")
    before = enhance(tmp_path / "in.tif", tmp_path / "out.tif", "ibp-x2", settings, HERE)
    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "expect", None)  # it is read, not tried again
        for again in (
            resume(tmp_path / "out.tif"),
            enhance(tmp_path / "in.tif", tmp_path / "out.tif", "ibp-x2", settings, HERE),
        ):
            assert again.expected == before.expected is not None
            assert again.notes == before.notes and "dB over lanczos" in before.notes[-1]
    other = replace(settings, overwrite=True, dtype="float32")
    assert enhance(tmp_path / "in.tif", tmp_path / "out.tif", "ibp-x2", other, HERE).expected is not None


def test_what_only_interpolates_is_not_tried_unless_a_gain_is_wanted(tmp_path):
    write(tmp_path / "in.tif", Blur("area"), side=256)
    assert enhance(tmp_path / "in.tif", tmp_path / "out.tif", "bicubic-x2", EnhanceSettings(), HERE).expected is None
    with pytest.raises(UnfitError, match="require_gain asks for 30"):
        wanted = EnhanceSettings(require_gain=30)
        enhance(tmp_path / "in.tif", tmp_path / "other.tif", "bicubic-x2", wanted, HERE)


def test_a_gain_is_wanted_only_of_what_enlarges(tmp_path):
    write(tmp_path / "in.tif", Blur("area"), side=256)
    with pytest.raises(UsageError, match="require_gain needs a model that enlarges, got median: add one"):
        enhance(tmp_path / "in.tif", tmp_path / "out.tif", "median", EnhanceSettings(require_gain=1), HERE)
    write(tmp_path / "in.tif", Blur("area"), side=64)
    with pytest.raises(UnfitError, match=r"require_gain: in\.tif has no window to try the gain on"):
        enhance(tmp_path / "in.tif", tmp_path / "out.tif", "bicubic-x2", EnhanceSettings(require_gain=1), HERE)
    assert not list(tmp_path.glob("*out.tif*"))


def test_bands_that_tell_the_error_do_not_keep_a_job_from_being_tried(tmp_path):
    source = write(tmp_path / "in.tif", Blur("gaussian", 0.2), side=256).source
    gains = []
    for uncertainty in (False, True):
        settings = EnhanceSettings(precision="fp32", blur="0.2", uncertainty=uncertainty)
        found = prepare(source, "sr-x2", settings, HERE).expect(settings)
        assert found is not None
        gains.append(found.gain_db)
    assert gains[0] == gains[1]


def test_expect_is_a_command_of_its_own(tmp_path):
    write(tmp_path / "in.tif", Blur("gaussian", 0.2), side=256)
    facts = json.loads(scenelift("expect", "in.tif", "--json", "--blur", "0.2", cwd=tmp_path).stdout)
    assert set(facts["gain_db"]) == {"bicubic", "lanczos", "ibp"}
    assert facts["windows"] > 1
    assert 0 < facts["consistency"] < 0.01
    words = ("expect", "in.tif", "--blur", "0.2", "-m", "bicubic-x2", "--require-gain", 30)
    done = scenelift(*words, cwd=tmp_path, ok=False)
    assert done.returncode == 4
    assert "--require-gain asks for 30" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_likely_resampling_that_would_cost_the_gain_is_named(tmp_path):
    scene = write(tmp_path / "in.tif", Blur("area"), side=384)
    told = Blur("gaussian", 0.2)
    models = [load(with_settings(find("sr-x2"), blur=(told,) * 4, noise=(0.0,) * 4))]
    area = CANDIDATES.index(Blur("area"))
    chances = np.zeros(len(CANDIDATES))
    chances[[3, area]] = 0.8, 0.2
    unsure = Conditions((told,) * 4, (0.0,) * 4, "estimated", chances=(tuple(chances),) * 4)
    assert unsure.others() == [(Blur("area"), 0.2)]
    (doubt,) = expect(scene, models, unsure).doubts
    assert (doubt.blur, doubt.chance) == ("area resampling", 0.2)
    assert doubt.gain_db < -1  # what is sharp is sharpened
    line = expect(scene, models, unsure).describe()
    assert line.startswith("NOT SURE") and "by area resampling (20% likely): give --blur" in line
    chances[[3, area]] = 0.99, 0.01
    sure = replace(unsure, chances=(tuple(chances),) * 4)
    assert sure.others() == [] and expect(scene, models, sure).doubts == ()
    assert Conditions((Blur("area"),), (0.0,), "estimated", chances=(tuple(chances),)).others() == []


@pytest.mark.parametrize("shape", [(40, 60), (70, 90), (128, 300), (512, 512), (700, 1400)])
def test_how_much_is_tried_is_known_before(shape, tmp_path, monkeypatch):
    tried, models, run = [], [load(find("bicubic-x2"))], workflow.run_chain

    def counted(enhancers, image):
        tried.append(image[0].size if enhancers is models else 0)
        return run(enhancers, image)

    monkeypatch.setattr(workflow, "run_chain", counted)
    write_raster(tmp_path / "in.tif", np.random.default_rng(0).integers(500, 3000, (1, *shape)).astype("uint16"))
    scene = open_scene(SceneSource((str(tmp_path / "in.tif"),)))
    expect(scene, models, Conditions((Blur("area"),), (0.0,), "given"))
    assert sum(tried) == workflow.pixels_tried(shape, 2)
