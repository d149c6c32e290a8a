"""Class maps: the same for every way of cutting the scene, named and coloured, at the scene's own place."""

import json
from importlib.metadata import version

import numpy as np
import pytest
import rasterio
from support.builders import UTM, noise_image, untrained_classifier, write_raster
from support.processes import call

from scenelift.models.errors import ModelError
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.enhance import enhance, resume
from scenelift.workflows.landcover.classify import classify
from scenelift.workflows.settings import EnhanceSettings

NAMES = ("Forest", "River & lake", "Rock")
HERE = ClusterSettings(0)
MODEL = "support.builders:landcover_net"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    rng = np.random.default_rng(0)
    values = noise_image(1, (3, 90, 75), high=4000) + rng.integers(0, 8000, (3, 12, 10)).repeat(8, 1).repeat(8, 2)[
        :, :90, :75
    ].astype("uint16")
    values[:, 30:45, 20:50] = 0
    profile = {"driver": "GTiff", "height": 90, "width": 75, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=UTM, **profile) as out:
        out.write(values)
    return path


def run(scene, output, model=MODEL, probabilities=False, cluster=HERE, **settings):
    return classify(
        SceneSource((str(scene),)),
        output,
        model,
        EnhanceSettings(precision="fp32", **settings),
        cluster,
        probabilities=probabilities,
    )


def test_a_class_map_is_the_same_however_the_scene_is_cut(scene, tmp_path):
    maps = []
    cuts = [{"block": 1024}, {"block": 32}, {"block": 17}, {"block": 40, "batch": 3}]
    for number, cut in enumerate(cuts):
        path = tmp_path / f"{number}.tif"
        run(scene, path, **cut)
        with rasterio.open(path) as made:
            maps.append(made.read(1))
    assert len(np.unique(maps[0])) == 4  # three classes and what has no data
    for other in maps[1:]:
        assert np.array_equal(maps[0], other)


def test_what_a_mask_hides_has_no_class_and_decides_none(scene, tmp_path):
    clouds = np.zeros((1, 45, 38), "uint8")
    clouds[0, 3:9, 20:30] = 1
    mask = write_raster(tmp_path / "mask.tif", clouds, UTM @ UTM.scale(2))
    hidden = clouds[0].repeat(2, 0).repeat(2, 1)[:90, :75] == 1
    found = []
    for seed in (1, 2):
        with rasterio.open(scene) as origin:
            values, profile = origin.read(), origin.profile
        values[:, hidden] = noise_image(seed, (3, 90, 75))[:, hidden]
        with rasterio.open(tmp_path / f"{seed}.tif", "w", **profile) as out:
            out.write(values)
        source = SceneSource((str(tmp_path / f"{seed}.tif"),), mask=str(mask))
        classify(source, tmp_path / f"map{seed}.tif", MODEL, EnhanceSettings(precision="fp32"), HERE)
        with rasterio.open(tmp_path / f"map{seed}.tif") as made:
            found.append(made.read(1))
    assert np.array_equal(*found)
    assert np.array_equal(found[0] == 255, hidden | (values == 0).any(axis=0))


def test_a_class_map_has_names_colours_and_place(scene, tmp_path):
    path = tmp_path / "map.tif"
    run(scene, path)
    with rasterio.open(path) as made, rasterio.open(scene) as origin:
        assert made.dtypes == ("uint8",)
        assert made.nodata == 255
        assert (made.crs, made.transform) == (origin.crs, origin.transform)
        assert made.colorinterp[0].name == "palette"
        assert made.colormap(1)[0][:3] == (30, 105, 50)
        assert made.tags(1)["CLASS_1"] == "River & lake"
        found = made.read(1)
        assert np.array_equal(found == 255, (origin.read() == 0).any(axis=0))
    side = (tmp_path / "map.tif.aux.xml").read_text()
    assert "<Category>River &amp; lake</Category>" in side


def test_going_on_with_a_map_names_its_classes_too(scene, tmp_path):
    path, names = tmp_path / "map.tif", tmp_path / "map.tif.aux.xml"
    run(scene, path)
    written = names.read_bytes()
    names.unlink()
    resume(path)
    assert names.read_bytes() == written
    names.write_text("names of another map")
    run(scene, path, overwrite=True)
    assert names.read_bytes() == written


def test_probabilities_add_up_and_their_maximum_is_the_map(scene, tmp_path):
    run(scene, tmp_path / "map.tif")
    run(scene, tmp_path / "shares.tif", probabilities=True)
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(tmp_path / "shares.tif") as shares:
        values, named = shares.read(), made.read(1)
        assert shares.descriptions == NAMES
    known = named != 255
    assert np.isnan(values[:, ~known]).all()
    assert np.allclose(values[:, known].sum(0), 1, atol=1e-5)
    assert np.array_equal(values[:, known].argmax(0), named[known])


def test_a_chain_equals_its_steps(scene, tmp_path):
    run(scene, tmp_path / "chain.tif", f"nearest-x2,{MODEL}")
    with rasterio.open(tmp_path / "chain.tif") as made:
        assert made.shape == (180, 150)
        assert made.transform.a == 5
        chained = made.read(1)
    from scenelift.workflows.enhance import enhance

    enhance(str(scene), tmp_path / "fine.tif", "nearest-x2", EnhanceSettings(), HERE)
    run(tmp_path / "fine.tif", tmp_path / "steps.tif")
    with rasterio.open(tmp_path / "steps.tif") as made:
        assert np.array_equal(made.read(1), chained)


def test_zarr_maps_name_their_values_and_keep_classes_in_the_pyramid(scene, tmp_path):
    import zarr

    run(scene, tmp_path / "map.zarr", f"nearest-x8,{MODEL}")
    group = zarr.open_group(str(tmp_path / "map.zarr"), mode="r")
    assert group["data"].attrs["flag_meanings"] == "Forest River_&_lake Rock"
    quarters = np.stack([group["data"][0, row::2, col::2] for row in (0, 1) for col in (0, 1)])
    votes = np.stack([(quarters == quarter).sum(0) for quarter in quarters])
    votes[quarters == 255] = 0
    assert np.array_equal(group["2/data"][0], np.take_along_axis(quarters, votes.argmax(0)[None], 0)[0])


def test_a_map_on_dask_workers_is_the_same(scene, tmp_path):
    run(scene, tmp_path / "here.tif")
    run(scene, tmp_path / "there.tif", cluster=ClusterSettings(2), block=32)
    (tmp_path / "site.toml").write_text('[cluster]\nkind = "local"\nworkers = 2\n')
    options = ("--cluster", "site.toml", "--precision", "fp32", "--block", 32)
    said = call(tmp_path, "classify", scene, "-o", "cluster.tif", "-m", MODEL, *options)
    assert "classified" in said and "enhanced" not in said
    maps = []
    for name in ("here", "there", "cluster"):
        with rasterio.open(tmp_path / f"{name}.tif") as made:
            maps.append(made.read(1))
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[0], maps[2])


def test_a_classifier_of_images_makes_the_same_map_for_every_cut(scene, tmp_path):
    path = untrained_classifier(tmp_path / "tiny.safetensors", NAMES)
    run(scene, tmp_path / "one.tif", str(path), probabilities=True)
    run(scene, tmp_path / "other.tif", str(path), probabilities=True, block=33)
    with rasterio.open(tmp_path / "one.tif") as one, rasterio.open(tmp_path / "other.tif") as other:
        assert np.array_equal(one.read(), other.read(), equal_nan=True)


def test_what_cannot_be_classified_is_said(scene, tmp_path):
    with pytest.raises(ModelError, match="names no classes"):
        run(scene, tmp_path / "x.tif", "sr-x2-fast")
    with pytest.raises(UsageError, match=r"wants 3 bands together, .* gives 2"):
        classify(SceneSource((str(scene),), bands=(1, 2)), tmp_path / "x.tif", MODEL, EnhanceSettings(), HERE)
    assert not (tmp_path / "x.tif").exists()


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
def test_info_says_what_an_output_of_ours_is(scene, tmp_path, suffix):
    probabilities, classes, deviations, bounds = (tmp_path / f"{name}.{suffix}" for name in "pcdb")
    run(scene, classes)
    run(scene, probabilities, probabilities=True)
    enhance(scene, deviations, "sr-x2-lean", EnhanceSettings(uncertainty=True, expect=False), HERE)
    enhance(scene, bounds, "nearest-x2,sr-x2-lean", EnhanceSettings(interval=0.9, expect=False), HERE)
    told = {path.stem: json.loads(call(tmp_path, "info", path, "--json")) for path in tmp_path.glob(f"?.{suffix}")}
    assert told["c"]["made"]["kind"] == "a map of classes" and told["c"]["made"]["models"] == [MODEL]
    assert told["p"]["made"]["kind"].startswith("a scene, a band a class")
    for name in "cp":
        assert told[name]["conditions"] == {"lines": []} and told[name]["unfamiliar"] == []
    assert any("enhance refuses it: band 1 is no image" in note for note in told["c"]["notes"])
    assert told["d"]["made"]["kind"].endswith("after each band the standard deviation of its error")
    assert told["b"]["made"]["kind"].endswith("after each band a lower and an upper bound of the true value")
    assert told["b"]["made"] | {"kind": ""} == {
        "kind": "", "software": f"scenelift {version('scenelift')}", "models": ["nearest-x2", "sr-x2-lean"],
        "input": ["scene.tif"],
    }  # fmt: skip
    for name, count in (("d", 6), ("b", 9)):
        assert len(told[name]["bands"]) == count and len(told[name]["conditions"]["blur"]) == 3
        assert not any("uncertainty" in line or "bound" in line for line in told[name]["unfamiliar"])
    text = " ".join(call(tmp_path, "info", classes).replace("│", " ").split())
    assert "this is a map of classes made by" in text and "none: classes or flags" in text and "DN x" not in text
    assert json.loads(call(tmp_path, "info", scene, "--json"))["made"] is None
