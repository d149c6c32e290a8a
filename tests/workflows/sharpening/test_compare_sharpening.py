"""Ways of sharpening compared: places paired by georeference, Wald's protocol, and the figures on real places."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from scipy import ndimage

from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.sharpening.classical import METHODS, Task, cubic, enlarge
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.fitting import fit, shift_of_guides
from scenelift.models.sharpening.layout import BandGrid, coarse
from scenelift.models.sharpening.projection import observe
from scenelift.models.shipped import shipped
from scenelift.pipeline.errors import GridsError, UsageError
from scenelift.workflows.sharpening.compare import (
    SharpenSettings,
    compare_sharpening,
    run_whole,
    score_trial,
)
from scenelift.workflows.sharpening.places import degrade, find_places, read_place
from scenelift.workflows.sharpening.train import HELD_OUT, gains

DATA = Path(os.environ.get("SCENELIFT_DATA", "/nowhere"))
REAL = pytest.mark.skipif(
    "SCENELIFT_DATA" not in os.environ, reason="SCENELIFT_DATA does not name a folder with real scenes"
)


def write(path: Path, values: np.ndarray, left: float, top: float, size: float, names: tuple[str, ...]) -> Path:
    transform = Affine(size, 0, left, 0, -size, top)
    profile = {"driver": "GTiff", "dtype": "uint16", "crs": "EPSG:32633", "transform": transform}
    count, height, width = values.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as file:
        file.write(values.astype(np.uint16))
        file.descriptions = names
    return path


def texture(bands: int, height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.standard_normal((bands, height, width)), (0, 0.7, 0.7))
    broad = ndimage.gaussian_filter(rng.standard_normal((bands, height, width)), (0, 6, 6))
    return 2000 + 250 * fine + 2500 * broad


def write_pair(folder: Path, name: str, seed: int, aside: int = 0) -> None:
    """Write a place whose coarse grid begins ``aside`` fine pixels left of and above the fine one."""
    fine = texture(4, 130, 142, seed)
    mixed = np.tensordot([[0.2, 0.3, 0.1, 0.4], [-0.2, 0.5, 0.5, 0.1]], fine, 1)
    at = 0.5 - aside
    start = 0 if at >= 0 else 1  # a coarse pixel whose centre lies before the fine grid is not made
    band = BandGrid(2, at + 2 * start, at + 2 * start, 0.3)
    low = observe(mixed.astype(np.float32), [dataclasses.replace(band, mtf=m) for m in (0.38, 0.34)], (64, 70))
    write(folder / f"{name}_10m.tif", fine, 500_000, 5_000_000, 10, ("B02", "B03", "B04", "B08"))
    origin = 500_000 + 10 * (band.row - 0.5), 5_000_000 - 10 * (band.row - 0.5)
    write(folder / f"{name}_20m.tif", low, *origin, 20, ("B05", "B06"))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    write_pair(folder, "aligned", 0)
    write_pair(folder, "aside", 1, aside=1)
    return folder


def test_grids_are_paired_by_georeference(places: Path):
    found = {name: read_place(name, files) for name, files in find_places([places])}
    assert list(found) == ["aligned", "aside"]
    for name, at in (("aligned", 0.5), ("aside", 0.5)):  # what both cover begins with a whole coarse pixel
        assert found[name].guides.shape == (4, 128, 140)
        band = found[name].coarse[0].bands[0]
        assert (band.ratio, band.row, band.col, band.name) == (2, at, at, "B05")
        assert band.mtf == pytest.approx(0.38)
        assert shift_of_guides([found[name].stack()], found[name].layout) == []


def test_wald_s_trial_holds_the_truth_and_what_a_coarser_sensor_would_see(places: Path):
    name, files = find_places([places])[0]
    place = read_place(name, files)
    trial = degrade(place, 2)
    np.testing.assert_array_equal(trial.truth, place.coarse[0].values[:, :64, :70])
    np.testing.assert_array_equal(trial.images[trial.guides :, ::2, ::2], trial.seen)
    bands = [trial.layout[i] for i in coarse(trial.layout)]
    assert [b.ratio for b in bands] == [2, 2]
    np.testing.assert_allclose(trial.seen, observe(trial.truth, bands, trial.seen.shape[1:]), atol=1e-6)


def test_what_does_not_belong_together_is_refused(places: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="no pair of grids found"):
        find_places([tmp_path])
    values = np.full((1, 40, 40), 1000)
    fine = write(tmp_path / "odd_10m.tif", values, 500_000, 5_000_000, 10, ("B02",))
    low = write(tmp_path / "odd_20m.tif", values[:, :16, :16], 500_003, 5_000_000, 25, ("B05",))
    with pytest.raises(GridsError, match=r"grids of .*odd_10m.tif .* and .*odd_20m.tif .* do not fit"):
        read_place("odd", [fine, low])
    write(tmp_path / "pan_pan.tif", values, 500_000, 5_000_000, 15, ("B8",))
    write(tmp_path / "pan_ms.tif", values[:, :20, :20], 500_000, 5_000_000, 30, ("B2",))
    with pytest.raises(UsageError, match="compared apart"):
        compare_sharpening(SharpenSettings((places, tmp_path)))


def test_the_command_writes_a_table_and_the_closed_form_wins(places: Path, tmp_path: Path):
    command = [sys.executable, "-m", "scenelift", "compare", "--task", "sharpen", str(places)]
    done = subprocess.run([*command, "-o", str(tmp_path), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["places"] == ["aligned", "aside"]
    assert list(found["methods"]) == ["cubic", "back-projection", "glp-mtf", "sharpen-closed"]
    sre = {method: np.mean(scores["sre"]) for method, scores in found["methods"].items()}
    assert max(sre, key=lambda method: sre[method]) == "sharpen-closed"
    assert sre["sharpen-closed"] > sre["cubic"] + 15
    page = (tmp_path / "sharpening.md").read_text()
    assert "| sharpen-closed |" in page
    assert "scenelift compare --task sharpen" in page
    assert len((tmp_path / "sharpening.csv").read_text().splitlines()) == 1 + 4 * 2


def test_what_the_mask_hides_counts_nowhere(places: Path, tmp_path: Path):
    """A cloud changes no score if it is hidden, in whatever numbers it comes."""
    name, files = find_places([places])[0]
    hidden = np.zeros((1, 130, 142), np.uint8)
    hidden[0, 8:20, 12:29] = 1
    (tmp_path / "masks").mkdir()
    write(tmp_path / "masks" / f"{name}.tif", hidden, 500_000, 5_000_000, 10, ("cloud",))
    found = []
    for value in (0, 9000):
        folder = tmp_path / str(value)
        folder.mkdir()
        for file, ratio in zip(files, (1, 2), strict=True):
            with rasterio.open(file) as scene:
                profile, values, names = scene.profile, scene.read(), scene.descriptions
            rows, cols = 8 // ratio, 12 // ratio
            values[:, rows : rows + 12 // ratio, cols : cols - -17 // ratio] = value
            with rasterio.open(folder / file.name, "w", **profile) as scene:
                scene.write(values)
                scene.descriptions = names
        settings = SharpenSettings((folder,), mask=str(tmp_path / "masks"), mask_classes=("1",))
        found.append(compare_sharpening(settings).values)
    for key, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][key], err_msg=str(key))
        assert np.isfinite(values).all(), key
    assert found[0]["sharpen-closed", "sre"] > found[0]["cubic", "sre"] + 10
    place = read_place(name, files, str(tmp_path / "masks"))
    assert np.isnan(place.guides[:, 8:20, 12:29]).all() and np.isnan(place.guides).sum() == 4 * 12 * 17
    assert np.isnan(place.coarse[0].values).sum() == 2 * 6 * 9  # a coarse pixel that saw some of it is hidden whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "sharpen"], "nothing to compare"),
        (["--task", "sharpen", "--mask-classes", "cloud"], "nothing to compare"),
        (["--task", "sharp"], "--task must be restore"),
        (["somewhere"], "without --task sharpen"),
        (["--task", "sharpen", "nowhere", "--ratio", "1"], "--ratio must be from 2 to 12, got 1"),
    ],
)
def test_wrong_commands_are_named(arguments: list[str], message: str, tmp_path: Path):
    command = [sys.executable, "-m", "scenelift", "compare", *arguments, "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_cubic_interpolation_keeps_planes_and_its_place():
    for band in (BandGrid(2, 0.5, 1.5), BandGrid(2, 0.0, 1.0), BandGrid(6, 2.5, 0.5), BandGrid(3, 1.0, 2.0)):
        rows, cols = (at + band.ratio * np.arange(20) for at in (band.row, band.col))
        values = (2 * rows[:, None] + 3 * cols)[None].astype(np.float32)
        found = enlarge(values, band, (20 * band.ratio, 20 * band.ratio))[0]
        at = np.arange(20 * band.ratio)
        inner = slice(4 * band.ratio, -4 * band.ratio)
        np.testing.assert_allclose(found[inner, inner], (2 * at[:, None] + 3 * at)[inner, inner], atol=1e-3)


def test_every_method_leaves_constant_images_alone():
    layout = (BandGrid(1), BandGrid(2, 0.5, 0.5), BandGrid(2, 0.5, 0.5, 0.2))
    images = np.full((3, 32, 32), 0.25, np.float32)
    task = Task(layout, images, images[1:, ::2, ::2])
    for name, method in METHODS.items():
        np.testing.assert_allclose(method(task), 0.25, atol=1e-4, err_msg=name)
    assert cubic(task).shape == (2, 32, 32)


EVIDENCE = {"iceland": 33.57, "australia": 35.5, "usa": 37.28, "malmo": 33.78}
"""SRE of regression with ten steps of back-projection, measured before any of this was written."""


@REAL
@pytest.mark.parametrize("name", EVIDENCE)
def test_real_places_are_sharpened_as_well_as_by_ten_steps_of_back_projection(name: str):
    place = read_place(name, dict(find_places([DATA / "s2_20m"]))[name][:2])
    trial = degrade(place, 2)
    found = run_whole(ClosedForm(trial.layout, fit([trial.images], trial.layout)), trial.images)
    np.testing.assert_array_equal(found[:4], trial.images[:4])
    measured = score_trial(trial, found[4:])
    assert measured["sre"] > EVIDENCE[name]
    assert measured["again"] < 1e-4  # reflectance: 1 DN
    plain = score_trial(trial, cubic(Task(trial.layout, trial.images, trial.seen)))
    assert measured["sre"] > plain["sre"] + 9
    assert shift_of_guides([place.stack()], place.layout) == []
    moved = place.stack()
    moved[:4] = np.roll(moved[:4], (1, 0), (1, 2))
    (line,) = shift_of_guides([moved], place.layout)
    assert line.startswith("guides seem shifted by (+1, +0) pixels against B05")


@REAL
def test_real_pansharpening_beats_brovey_and_gram_schmidt():
    for name, files in find_places([DATA / "landsat_pan"]):
        trial = degrade(read_place(name, files), 2)
        found = run_whole(ClosedForm(trial.layout, fit([trial.images], trial.layout)), trial.images)
        mine = score_trial(trial, found[1:])["ergas"]
        task = Task(trial.layout, trial.images, trial.seen)
        for other in ("brovey", "gram-schmidt", "glp-mtf"):
            assert mine < 0.85 * score_trial(trial, METHODS[other](task))["ergas"], (name, other)


@REAL
@pytest.mark.parametrize("name", ["iceland", "australia", "malmo", "usa"])
def test_the_shipped_network_beats_the_closed_form_where_it_has_not_learned(name: str):
    network, _ = load_checkpoint(shipped()["sharpen"])
    files = [DATA / "s2_20m" / f"{name}_{size}.tif" for size in ("10m", "20m")]
    for ratio, least in ((2, 0.2), (6, 0.8)):
        found = gains(network, [degrade(read_place(name, files), ratio)], HELD_OUT)[f"{name} x{ratio}"]
        assert found["network sre"] > found["closed sre"] + least
        assert found["network ergas"] < found["closed ergas"] and found["network sam"] < found["closed sam"]
