"""What a run learns from and is validated on: never the same ground, and never more in memory than one scene."""

import tracemalloc

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from support.builders import write_raster
from support.trainings import images, settings, textured

from scenelift.models.errors import ModelError
from scenelift.workflows.training import data as datasets
from scenelift.workflows.training.data import on_disk, read_data
from scenelift.workflows.training.images import PatchSet
from scenelift.workflows.training.sources import read_source
from scenelift.workflows.training.splitting import select, split


def moved(east, north=0):
    """Return the transform of a raster so many metres east and north of the usual one."""
    return Affine(10, 0, 500_000 + east, 0, -10, 5_000_000 + north)


def recipe_of(*paths, **data):
    sources = [{"path": str(path)} for path in paths]
    return settings(paths[0], data={"side": 32, "train": sources} | data)


def contents(sets):
    return {patch.tobytes() for patches in sets for patch in patches.values}


def shares_ground(one, other):
    west, south, east, north = (np.minimum if i > 1 else np.maximum for i in range(4))
    a, b = one.boxes[:, None], other.boxes[None]
    wide = east(a[..., 2], b[..., 2]) - west(a[..., 0], b[..., 0])
    high = north(a[..., 3], b[..., 3]) - south(a[..., 1], b[..., 1])
    return bool(((wide > 1e-5) & (high > 1e-5)).any())  # a metre: boxes of turned grids touch


def test_of_scenes_apart_the_smaller_is_kept_aside(tmp_path):
    first = write_raster(tmp_path / "first.tif", textured(2, 512))
    second = write_raster(tmp_path / "second.tif", textured(2, 256, seed=5), transform=moved(9_000))
    training, held_out = read_data(recipe_of(first, second), None)
    assert [len(p.values) for p, _ in training] == [256] and [len(p.values) for p in held_out] == [64]


def test_one_scene_keeps_a_strip_aside(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", textured(2, 512))
    training, held_out = read_data(recipe_of(scene), None)
    counts = len(training[0][0].values), len(held_out[0].values)
    assert counts[0] >= 0.75 * 256 and counts[1] >= 0.05 * 256
    assert not contents([training[0][0]]) & contents(held_out)
    assert not shares_ground(training[0][0], held_out[0])


def test_another_date_of_a_place_is_not_another_place(tmp_path):
    dates = [write_raster(tmp_path / f"{i}.tif", textured(2, 512, seed=i)) for i in range(3)]
    training, held_out = read_data(recipe_of(*dates), None)
    assert len(training) == len(held_out) == 3, "every date gives both: the strip is of the ground"
    assert not any(shares_ground(kept, aside) for kept, _ in training for aside in held_out)


def test_what_overlaps_a_scene_kept_aside_goes_with_it(tmp_path):
    big = write_raster(tmp_path / "big.tif", textured(2, 512))
    small = write_raster(tmp_path / "small.tif", textured(2, 256, seed=5), transform=moved(1_600, -1_600))
    training, held_out = read_data(recipe_of(big, small), None)
    assert len(training) == 1 and len(held_out) == 2
    assert len(training[0][0].values) < 256 - 49
    assert not any(shares_ground(training[0][0], aside) for aside in held_out)


def test_named_validation_scenes_are_not_trained_on_by_another_name(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", textured(2, 512))
    copy = write_raster(tmp_path / "copy.tif", textured(2, 256, seed=1))
    training, held_out = read_data(recipe_of(scene, validation=[{"path": str(copy)}]), None)
    (kept, _), *others = training
    assert not others and 256 - 81 <= len(kept.values) <= 256 - 64, "that ground, at most with its neighbours"
    assert len(held_out[0].values) == 64 and not shares_ground(kept, held_out[0])
    with pytest.raises(ModelError, match=r"only 0 usable patches .* 256 of 256 lie where it validates"):
        read_data(recipe_of(scene, validation=[{"path": str(scene)}]), None)


def test_images_of_unknown_place_are_split_by_image(tmp_path):
    training, held_out = read_data(recipe_of(images(tmp_path / "images.zip", each=60)), None)
    assert len(training[0][0].values) == 108 and len(held_out[0].values) == 12
    assert not set(training[0][0].places) & set(held_out[0].places)


def test_a_scene_of_no_place_on_earth_can_be_trained_on(tmp_path):
    local = 'LOCAL_CS["plan of a field",UNIT["metre",1]]'
    scene = write_raster(tmp_path / "local.tif", textured(2, 512), crs=local)
    training, held_out = read_data(recipe_of(scene), None)
    assert len(training[0][0].values) + len(held_out[0].values) == 256


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=25), st.data())
def test_no_ground_is_on_both_sides(scenes, data):
    sets = []
    for place, (count, west, south) in enumerate(scenes):
        at = np.array(data.draw(st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=count, max_size=count)))
        corner = at + np.array([west, south])
        boxes = np.concatenate([corner, corner + 0.05], axis=1)
        sets.append(PatchSet(np.zeros((count, 1, 2, 2)), 1.0, np.full(count, place), boxes=boxes))
    learned, validated = split(sets)
    kept = [select(p, m) for p, m in zip(sets, learned, strict=True)]
    aside = [select(p, m) for p, m in zip(sets, validated, strict=True)]
    assert any(len(p.values) for p in aside)
    assert not any(shares_ground(a, b) for a in kept for b in aside)


def test_patches_lie_in_a_file_of_no_name(tmp_path):
    sets = [
        PatchSet(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1), 1.0, np.arange(5)),
        PatchSet(np.zeros((0, 2, 3, 3), np.int16), 1.0, np.zeros(0, np.int64)),
        PatchSet(np.random.default_rng(0).normal(size=(7, 2, 3, 3)), 2.0, np.arange(7), ("a",) * 7),
    ]
    kept = on_disk(iter(sets), tmp_path)
    assert not list(tmp_path.iterdir())
    for before, after in zip(sets, kept, strict=True):
        np.testing.assert_array_equal(before.values, after.values)
        assert (before.gain, before.labels, before.values.dtype) == (after.gain, after.labels, after.values.dtype)
        assert not after.values.flags.owndata
    with pytest.raises(ModelError, match=r"cannot keep training patches in .*nowhere"):
        on_disk(iter(sets), tmp_path / "nowhere")


def test_memory_holds_one_set_at_a_time(tmp_path):
    one = 4 << 20

    def sets():
        for place in range(12):
            yield PatchSet(np.full((64, 1, 256, 256), place, np.uint8), 1.0, np.full(64, place))

    tracemalloc.start()
    try:
        kept = on_disk(sets(), tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * one
    assert [int(p.values[63, 0, 255, 255]) for p in kept] == list(range(12))


def test_of_many_scenes_fewer_patches_each(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "TOTAL_PATCHES", 200)
    paths = [
        write_raster(tmp_path / f"{i}.tif", textured(1, 512, seed=i), transform=moved(9_000 * i)) for i in range(4)
    ]
    training, held_out = read_data(recipe_of(*paths), None)
    counts = [len(p.values) for p in [*(p for p, _ in training), *held_out]]
    assert len(counts) == 4 and all(40 <= n <= 50 for n in counts)


def test_boxes_are_where_the_patches_are(tmp_path):
    patches = read_source(write_raster(tmp_path / "scene.tif", textured(1, 64)), 32)
    west, south, _, north = patches.boxes.T
    assert len(patches.boxes) == 4
    np.testing.assert_allclose(west[[0, 2]], 15, atol=1e-6)  # UTM 33's central meridian has 500 km east
    np.testing.assert_allclose(north - south, 320 / 111_132, rtol=0.01)
    assert north[0] > north[2] and west[1] > west[0]
