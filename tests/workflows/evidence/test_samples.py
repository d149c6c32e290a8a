"""What tables of quality are made on: the same draws of a zip and a folder, all of a scene, intervals over places."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from affine import Affine
from support.builders import UTM, write_raster
from support.jobs import scenelift
from support.products import write_safe, zipped
from support.trainings import images, textured

from scenelift.models.errors import ModelError
from scenelift.pipeline.scores.bootstrap import interval
from scenelift.workflows.evidence.cases import Degradation
from scenelift.workflows.evidence.evaluate import evaluate
from scenelift.workflows.evidence.samples import read_sample
from scenelift.workflows.training.sources import read_source


def test_a_folder_of_images_gives_what_its_zip_gives(tmp_path):
    archive = images(tmp_path / "images.zip")
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(tmp_path / "folder")
    of_zip, of_folder = read_sample(archive, each=3, seed=2), read_sample(tmp_path / "folder", each=3, seed=2)
    np.testing.assert_array_equal(of_zip.images, of_folder.images)
    assert of_zip.bands == of_folder.bands and of_zip.places is of_folder.places is None
    assert of_folder.title == "folder, 6 images, seed 2"


def test_patches_of_a_scene_come_from_all_over_it_and_never_from_where_it_has_no_data(tmp_path):
    side, steps = 64, 12
    rows, cols = np.mgrid[:steps, :steps]
    number = (rows * steps + cols + 1).repeat(side, 0).repeat(side, 1)
    values = np.stack([number * 50 + np.arange(side).repeat(steps).reshape(-1) % 7]).astype(np.uint16)
    values[:, : side * steps // 2, : side * steps // 2] = 0  # a quarter without data
    path = write_raster(tmp_path / "scene.tif", values, nodata=0)
    every = read_source(path, side)
    assert len(every.values) == steps * steps * 3 // 4
    drawn = read_source(path, side, most=36)
    cells = (drawn.values[:, 0, 0, 0] // 50) - 1
    assert len(set(cells)) == 36
    assert len(set(cells // steps)) > 8 and len(set(cells % steps)) > 8
    assert list(cells) == sorted(cells)
    assert not np.array_equal(cells, read_source(path, side, most=36, seed=1).values[:, 0, 0, 0] // 50 - 1)


def test_several_scenes_share_a_table_whose_intervals_are_over_places(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number in range(3):
        east = Affine(UTM.a, 0, UTM.c + 1e5 * number, 0, UTM.e, UTM.f)
        write_raster(folder / f"{number}.tif", textured(2, 256, number), east)
    sample = read_sample(folder, each=1)
    assert sample.images.shape == (9, 2, 64, 64)  # 10 patches of all together
    assert sample.places.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert sample.title == "3 sources (0.tif, 1.tif, 2.tif), 9 patches of 3 places, seed 0"
    assert read_sample(folder / "0.tif", each=1).places is None
    mixed = read_sample([folder / "0.tif", folder / "1.tif", folder / "2.tif"], each=1)
    np.testing.assert_array_equal(mixed.images, sample.images)
    again = write_raster(tmp_path / "again.tif", textured(2, 256, 5), UTM)  # another date of the first place
    assert read_sample([folder, again], each=2).places.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [0] * 5
    assert read_sample([folder / "0.tif", again], each=1).places is None
    with_images = read_sample([folder, images(tmp_path / "images.zip", side=64)], each=1, bands=(1, 2))
    assert with_images.places.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3, 4]
    gaps = np.repeat([0.0, 1.0, 2.0], 3) + np.tile([-0.01, 0, 0.01], 3)
    by_scene, by_patch = interval(gaps, sample.places), interval(gaps)
    assert by_scene.mean == pytest.approx(by_patch.mean)
    assert by_scene.high - by_scene.low > 1.3 * (by_patch.high - by_patch.low)
    small = dataclasses.replace(sample, images=np.ascontiguousarray(sample.images[..., :24, :24]))
    over_places, over_patches = (
        {row.method: row.against for row in evaluate(drawn, [], Degradation(noise=25))}["wavelet"]
        for drawn in (small, dataclasses.replace(small, places=None))
    )
    assert over_places.mean == over_patches.mean and over_places != over_patches


def test_a_mask_keeps_patches_clear(tmp_path):
    values = textured(1, 256)
    path = write_raster(tmp_path / "scene.tif", values)
    clouds = np.zeros((1, 128, 128), np.uint8)
    clouds[0, 40, 40] = 2
    mask = str(write_raster(tmp_path / "mask.tif", clouds, UTM @ Affine.scale(2)))
    every, clear = read_source(path, 64), read_source(path, 64, mask=mask)
    assert len(every.values) == 16 and len(clear.values) == 15
    kept = [patch.tobytes() for patch in clear.values]
    assert [n for n, patch in enumerate(every.values) if patch.tobytes() not in kept] == [4 + 1]
    assert len(read_sample(path, each=2, mask=mask).images) == 15
    assert len(read_sample(path, each=2, mask=mask, mask_classes=("1",)).images) == 16
    folder, _ = write_safe(tmp_path / "S2.SAFE", "L2A", side=132, scl=np.uint8([[4, 9]]).repeat(66, 0).repeat(33, 1))
    assert len(read_source(folder, 64).values) == 4
    assert len(read_source(zipped(folder), 64, mask="scl").values) == 2
    with pytest.raises(ModelError, match=r"images.zip holds images without a place: leave it out"):
        read_sample(images(tmp_path / "images.zip"), mask=mask)


def test_sources_that_do_not_go_together_are_told_apart(tmp_path):
    two = write_raster(tmp_path / "two.tif", textured(2, 128), descriptions=["B02", "B03"])
    other = write_raster(tmp_path / "other.tif", textured(2, 128), descriptions=["B02", "B08"])
    three = write_raster(tmp_path / "three.tif", textured(3, 128))
    with pytest.raises(ModelError, match=r"2 bands, 64 x 64 pixels.*3 bands.*apart or choose bands"):
        read_sample([two, three])
    with pytest.raises(ModelError, match=r"the bands B02, B03.*B02, B08: evaluate them apart"):
        read_sample([two, other])
    assert read_sample([two, other], bands=(1,)).bands == ("B02",)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="holds no scenes, zips or images"):
        read_sample(empty)
    (empty / "class").mkdir()
    (empty / "class/broken.png").write_bytes(b"no image")
    with pytest.raises(ModelError, match=r"cannot decode the image .*class/broken.png"):
        read_sample(empty)


def test_the_command_line_takes_folders_and_scenes(tmp_path):
    (tmp_path / "scenes").mkdir()
    for number in range(2):
        write_raster(tmp_path / f"scenes/{number}.tif", textured(1, 128, number))
    write_raster(tmp_path / "third.tif", textured(1, 128, 2))

    def run(*words):
        return scenelift("evaluate", *words, cwd=tmp_path, ok=False)

    data = ["--each", "1", "--data", "scenes", "--data", "third.tif"]
    done = run("sr", "-m", "sr-x2-fast", *data, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["sample"].startswith("3 sources") and len(found["rows"]) == 6
    assert found["rows"][-1]["psnr"] == "infinity"
    for words, message in (
        (("sr", "-m", "sr-x2-fast", "--scale", "1"), "scales must be from 2 to 8"),
        (("sr", "-m", "landcover-eurosat"), "makes no images"),
        (("denoise", "-m", "sr-x2-fast"), "is no denoiser"),
    ):
        bad = run(*words, *data)
        assert bad.returncode == 2 and message in bad.stderr and bad.stderr.count("\n") == 1
