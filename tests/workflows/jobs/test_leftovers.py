"""SIGKILL at any moment of a command leaves nothing unfinished under a final name; then the command is given again."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from support.builders import noise_image, write_raster
from support.faults import same
from support.processes import call, kill_tree, start
from support.trainings import textured

RECIPE = """
name = "tiny"
task = "denoise"
arch = { kind = "denoiser", bands = 1, channels = 8, blocks = 1 }
degradation = { sigma_max = 0.06 }
data = { side = 32, train = [{ path = "scene.tif" }] }
plan = { batch = 2, validate_every = 2, phases = [{ steps = 4 }] }
"""


NET = "support.builders:landcover_net"
CASES: dict[str, tuple[list[object], str]] = {
    "score": (["score", "scene.tif", "other.tif", "--map", "error.tif"], "error.tif"),
    "tiles": (["tiles", "scene.tif", "-o", "tiles", "--size", 64], "tiles"),
    "tiles in a tar": (["tiles", "scene.tif", "-o", "tiles", "--size", 64, "--format", "webdataset"], "tiles"),
    "train": (
        ["train", "tiny.toml", "--device", "cpu", "--data", ".", "--threads", 1, "--resume", "-o", "t.safetensors"],
        "t.safetensors",
    ),
    "classify": (["classify", "scene.tif", "-o", "map.tif", "-m", NET, "--workers", 0], "map.tif"),
    "submit": (["submit", "--dry-run", "--", "enhance", "scene.tif", "-o", "out.tif"], "out.tif"),
}
"""Commands, and the name under which each puts what it makes."""


def alike(one: Path, other: Path) -> bool:
    """Whether two outputs are the same; of checkpoints, whose headers tell the minutes it took, the weights."""
    if one.suffix != ".safetensors":
        return same(one, other)
    weights = [load_file(path) for path in (one, other)]
    return weights[0].keys() == weights[1].keys() and all((weights[0][k] == weights[1][k]).all() for k in weights[0])


def prepare(folder: Path) -> Path:
    folder.mkdir()
    image = textured(3, 288)
    write_raster(folder / "scene.tif", image, nodata=0)
    write_raster(folder / "other.tif", image + noise_image(2, image.shape, high=50), nodata=0)
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


def kill_at_random_moments(tmp_path: Path, name: str, times: int) -> None:
    (command, final), rng = CASES[name], random.Random(name)
    undisturbed = prepare(tmp_path / "undisturbed")
    began = time.monotonic()
    call(undisturbed, *command)
    seconds, wanted = time.monotonic() - began, undisturbed / final
    assert wanted.exists() or name == "submit"
    for number in range(times):
        folder = prepare(tmp_path / str(number))
        started = start(folder, *command)
        time.sleep(rng.uniform(0, seconds))
        kill_tree(started.pid)
        started.process.join()
        made = folder / final
        assert not made.exists() or alike(made, wanted), f"{final} is there, and not whole"
        if not made.exists():
            call(folder, *command)
        assert made.exists() == wanted.exists()
        assert not made.exists() or alike(made, wanted)


@pytest.mark.parametrize("name", CASES)
def test_a_kill_leaves_nothing_unfinished_under_a_final_name(tmp_path: Path, name: str) -> None:
    kill_at_random_moments(tmp_path, name, times=2)


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_many_kills_leave_nothing_unfinished_under_a_final_name(tmp_path: Path, name: str) -> None:
    kill_at_random_moments(tmp_path, name, times=40)
