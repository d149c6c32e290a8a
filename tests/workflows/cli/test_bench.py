"""`scenelift bench`: engine beside bare network, where the seconds go, and what the machine can do at most."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.builders import noise_image, write_raster
from support.jobs import Run

from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.bench.ceilings import ceilings, sample

CEILINGS = {"matmul", "conv", "conv bf16", "memory", "disk", "zstd", "deflate"}


def test_stages_add_up_and_ceilings_are_measured(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenelift.workflows.bench.ceilings.SECONDS", 0.01)
    monkeypatch.setattr("scenelift.workflows.bench.ceilings.BUFFER", 1 << 20)
    path = write_raster(tmp_path / "scene.tif", noise_image(1, (2, 96, 80)))
    words = ["bench", path, "-m", "sr-x2-fast", "--runs", "1", "--workers", "0"]
    code, said, err = run(*words, "--picture", tmp_path / "bench.png", "--json")
    assert code == 0, err
    facts = json.loads(said)
    assert set(facts["ceilings"]) == CEILINGS and all(most > 0 for most in facts["ceilings"].values())
    stages = facts["stages_s"]
    whole = stages["preparing"] + stages["blocks"] + stages["publishing"]
    assert whole == pytest.approx(facts["whole_command_s"], abs=0.01)
    inside = stages["reading"] + stages["model"] + stages["writing"]
    assert 0 < stages["model"] < inside < stages["blocks"] + 0.01  # one process, one thread: nothing runs beside it
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    code, said, err = run(*words)
    assert code == 0 and "GFLOP/s" in said and "in the blocks: model" in said, err
    assert {each.name for each in tmp_path.iterdir()} == {"scene.tif", "bench.png"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--picture", "bench.jpg"], "the picture bench.jpg must end in .png"),
        (["--picture", "none/bench.png"], "no such folder for the picture: none; make it first"),
        (["--picture", "bench.png", "--peers"], "give it without --peers and --journal"),
        (["--runs", "0"], "--runs must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_drawn_or_timed_is_said_at_once(more: list[str], words: str, tmp_path: Path, run: Run) -> None:
    path = write_raster(tmp_path / "scene.tif", noise_image(1, (2, 32, 32)))
    code, out, err = run("bench", path, *more)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_codecs_take_pixels_of_any_type(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenelift.workflows.bench.ceilings.SECONDS", 0.0)
    monkeypatch.setattr("scenelift.workflows.bench.ceilings.BUFFER", 1 << 12)
    values = noise_image(1, (3, 40, 50), dtype)
    scene = open_scene(SceneSource((str(write_raster(tmp_path / "scene.tif", values)),)))
    part = sample(scene)
    rows = 4096 // (3 * 50 * np.dtype(dtype).itemsize)
    assert np.array_equal(part, values[:, :rows])
    found = ceilings("cpu", tmp_path, part)
    assert found["zstd"] > 0 and found["deflate"] > 0 and [each.name for each in tmp_path.iterdir()] == ["scene.tif"]
