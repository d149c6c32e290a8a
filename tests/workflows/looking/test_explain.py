"""Why a pixel is what it is: of the shipped networks on a scene, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.builders import write_raster
from support.jobs import pixels, run, scenelift

from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.looking.explain import Point, explain


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Two bands of structure with detail and little noise; no data in the corner."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2, 90, 110)), (0, 1.2, 1.2))
    values = np.clip(2000 + 2500 * smooth + 20 * rng.standard_normal(smooth.shape), 1, None).astype("uint16")
    values[:, 70:, 90:] = 0
    return write_raster(tmp_path / "scene.tif", values, nodata=0, descriptions=["B03", "B04"])


@pytest.mark.parametrize(("model", "scale"), [("sr-x2-lean", 2), ("denoise", 1)])
def test_the_value_is_the_whole_jobs_and_the_parts_sum_to_it(tmp_path: Path, scene: Path, model: str, scale: int):
    source = SceneSource((str(scene),))
    run(source, tmp_path / "out.tif", model, dtype="float32", precision="fp32", device="cpu")
    whole = pixels(tmp_path / "out.tif") / 10_000  # digital numbers, with their fractions
    for point in (Point(50 * scale, 40 * scale + scale - 1, 2), Point(110 * scale - 1, 0)):
        found = explain(source, model, point)
        at = (point.band - 1, point.row, point.col)
        assert found.value == pytest.approx(whole[at], abs=1e-7)
        parts = [
            getattr(found.support, name)[(point.band - 1, *found.at)] for name in ("determined", "corrected", "added")
        ]
        assert sum(parts) == pytest.approx(found.value, abs=1e-5)
        assert found.plain == pytest.approx(open_scene(source).read(found.window).values.mean(), abs=0.1)
        assert found.deletion.attributed[0] > 2 * found.deletion.random[0]  # of many pixels some add, some take away
        # what moved it lies around it
        size = found.attribution.shape[1]
        for value, corner in zip((point.row, point.col), found.corner, strict=True):
            assert corner <= value // scale < corner + size
        assert found.reach < size / 2
        assert (found.support.added == 0).all() == (scale == 1)
        if scale > 1 and found.window.row > 0 and found.window.stop_row < 90:  # nor does the window's edge add anything
            rows = np.sqrt(np.mean(found.support.added**2, axis=(0, 2)))
            assert rows[[0, 1, -2, -1]].max() < 3 * np.median(rows)


def test_the_command_writes_a_picture_or_everything(tmp_path: Path, scene: Path):
    done = scenelift("explain", scene, "-m", "sr-x2-lean", "--at", "61,30", "--band", "2", "-o", tmp_path / "why.png")
    assert "times as far as deleting as many at random" in " ".join(done.stdout.split())
    assert Image.open(tmp_path / "why.png").size[0] > 1000
    done = scenelift("explain", scene, "-m", "sr-x2-lean", "--at", "61,30", "--json", "-o", tmp_path / "why.json")
    facts = json.loads(done.stdout)
    assert facts == json.loads((tmp_path / "why.json").read_text())
    assert facts["attribution_sum"] == pytest.approx(facts["value"] - facts["without_structure"], abs=1e-6)
    assert np.sum(facts["attribution"]) == pytest.approx(facts["attribution_sum"], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "sr-x2-lean", "--at", "5"], "--at must be a column and a row of the output such as 512,300, got '5'"),
        (["-m", "sr-x2-lean", "--at", "220,0"], "--at 220,0 lies outside of the output, which has 220 columns and 180"),
        (["-m", "sr-x2-lean", "--at", "5,5", "--band", "3"], "--band must be from 1 to 2, got 3"),
        (["-m", "sr-x2-lean", "--at", "200,160"], "has no data at --at 200,160: choose another pixel"),
        (["-m", "lanczos-x2", "--at", "5,5"], "lanczos-x2 cannot be explained"),
        (["-m", "denoise,sr-x2-lean", "--at", "5,5"], "explain takes one network"),
        (["-m", "sr-x2-lean", "--at", "5,5", "-o", "why.tif"], "must end in .png or .json"),
    ],
)
def test_what_cannot_be_explained_is_refused(scene: Path, words: list[str], message: str):
    done = scenelift("explain", scene, *words, ok=False)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
