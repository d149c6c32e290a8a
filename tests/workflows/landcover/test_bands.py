"""What sharpened bands are worth to a map: folds that keep their distance, arms that differ by their bands alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from support.builders import write_raster
from tools import landcover
from tools.landcover import CUBIC, INTACT, Split, by_forest, by_network, run_arms, versions

from scenelift.models.sharpening.layout import BandGrid
from scenelift.workflows.evidence.segmentation import block_counts


def scene(side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Small fields of three classes that the fifth band alone tells apart, whose outlines the fine bands show."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (side // 3, side // 3)).repeat(3, 0).repeat(3, 1)
    fine = np.stack([0.1 + 0.05 * ((labels == k) - 0.3) for k in (0, 1, 2, 0)])
    fine += rng.normal(0, 0.012, fine.shape)  # too noisy to name every class by
    last = 0.1 + 0.1 * labels[None] + rng.normal(0, 0.005, (1, side, side))
    return np.concatenate([fine, last]).astype(np.float32), labels.astype(np.int64)


TESTS = Path(__file__).parents[2]
LAYOUT = (*(BandGrid(1) for _ in range(4)), BandGrid(2, 0.5, 0.5, 0.3))


def test_nothing_is_learned_near_what_is_mapped() -> None:
    split = Split(block=16, folds=3, gap=5, each=200)
    labels = scene()[1]
    folds = split.of(labels.shape)
    assert set(np.unique(folds)) == {0, 1, 2}
    assert all(len(np.unique(folds[r : r + 16, c : c + 16])) == 1 for r in range(0, 96, 16) for c in range(0, 96, 16))
    for fold in range(3):
        learned = split.learned(labels, folds == fold, fold)
        far = ndimage.distance_transform_cdt(folds != fold, "chessboard").ravel()[learned]
        assert far.min() > 5 and np.bincount(labels.ravel()[learned]).max() <= 200
    assert np.array_equal(split.learned(labels, folds == 0, 0), split.learned(labels, folds == 0, 0))


def test_arms_hold_the_bands_they_name() -> None:
    values, _ = scene()
    found = versions(values, LAYOUT)
    assert list(found) == [
        *("red, green, blue", "fine bands alone", CUBIC, "all bands, sharpen-closed", "all bands, sharpen", INTACT)
    ]
    assert [len(images) for images in found.values()] == [3, 4, 5, 5, 5, 5]
    for images in found.values():
        assert np.array_equal(images[:3], values[:3]) and images.shape[1:] == values.shape[1:]
    error = {name: np.abs(images[-1] - values[-1]).mean() for name, images in found.items() if len(images) == 5}
    assert error[INTACT] == 0 < error["all bands, sharpen-closed"] < error[CUBIC]


def test_maps_are_scored_block_by_block() -> None:
    values, labels = scene()
    labels[:7] = -1

    def by_last_band(values, labels, learned, mapped):  # type: ignore[no-untyped-def]
        centres = [np.median(values[-1].ravel()[learned][labels.ravel()[learned] == k]) for k in range(3)]
        return np.abs(values[-1][mapped][None] - np.array(centres)[:, None]).argmin(0)

    images = {CUBIC: np.roll(values, 1, 1), INTACT: values}
    cubic, intact = run_arms(images, labels, tuple("abc"), Split(16, 3, 2, 300), by_last_band)
    assert cubic.over_cubic is None and intact.over_cubic is not None
    assert intact.confusion.counts.sum() == (labels >= 0).sum() and intact.confusion.scores()["miou"] > 0.99
    gap = intact.confusion.scores()["miou"] - cubic.confusion.scores()["miou"]
    assert intact.over_cubic.mean == pytest.approx(gap) and 0 < intact.over_cubic.low < gap < intact.over_cubic.high
    halves = block_counts(labels, labels, tuple("abc"), 48)
    assert len(halves) == 4 and sum(halves).sum() == (labels >= 0).sum()


def test_the_network_sees_what_is_around_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landcover, "STEPS", 30)
    monkeypatch.setattr(landcover, "BATCH", 4)
    labels = np.random.default_rng(0).integers(0, 2, (3, 3)).repeat(32, 0).repeat(32, 1)
    rows, cols = np.indices(labels.shape)
    squares = np.where(labels == 1, rows + cols, rows // 2 + cols // 2) % 2  # one pixel alone says nothing
    values = squares.astype(np.float32)[None]
    mapped = cols >= 64
    learned = np.flatnonzero(~mapped.ravel())
    right = {how: (how(values, labels, learned, mapped) == labels[mapped]).mean() for how in (by_forest, by_network)}
    assert right[by_forest] < 0.7 and right[by_network] > 0.8


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    values, labels = scene()
    names = ["B02", "B03", "B04", "B08", "B11"]
    image = write_raster(tmp_path / "a.tif", np.rint(values * 10000).clip(1).astype("uint16"), descriptions=names)
    truth = write_raster(tmp_path / "labels.tif", labels[None].astype("uint8"), nodata=255)
    how = ["--fine", "blue,green,red,nir", "--coarse", "B11", "--block", "32", "--gap", "2", "--each", "40", "--json"]
    command = [sys.executable, "-m", "tools.landcover", str(image), str(truth), *how]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    arms = {row["arm"]: row for row in json.loads(done.stdout)}
    assert len(arms) == 6 and arms[CUBIC]["miou_over_cubic"] is None
    assert arms[INTACT]["miou"] > arms["red, green, blue"]["miou"]
