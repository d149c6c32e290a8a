"""The Python interface where people use it: in a script, a notebook, a pool of processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.builders import noise_image, write_raster
from support.jobs import pixels

import scenelift
from scenelift.pipeline.errors import COMMAND_LINE, worded

ROOT = Path(__file__).resolve().parents[3]
IMAGE = noise_image(1, (1, 40, 50))
WANTED = IMAGE.repeat(2, 1).repeat(2, 2)
CALL = 'enhance("scene.tif", "better.tif", "nearest-x2", EnhanceSettings(block=32, expect=False), ClusterSettings(1))'
IMPORTS = """
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.workflows.enhance import EnhanceSettings, enhance
"""
NOTEBOOK = """
import asyncio

async def cell():
    return {call}

asyncio.run(cell())
"""
POOL = """
import concurrent.futures, multiprocessing

def one(name):
    enhance("scene.tif", name, "nearest-x2", EnhanceSettings(block=32, expect=False), ClusterSettings(0))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        list(pool.map(one, ["better.tif", "other.tif"]))
"""
DAEMONS = """
import multiprocessing

def one(name):
    {call}

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.map(one, ["better.tif"])
"""


def script(folder: Path, text: str, *, as_file: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a text as a script beside a scene; or as what has no file, like the cells of a notebook."""
    write_raster(folder / "scene.tif", IMAGE)
    (folder / "script.py").write_text(text, encoding="utf-8")
    command = [sys.executable, *(["script.py"] if as_file else ["-c", text])]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def test_the_example_of_the_readme_is_a_script_that_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    check = """
import numpy
assert better.shape == (1, 80, 100)
made = scenelift.open("better.tif").values  # rounded to DN
assert numpy.array_equal(numpy.rint(better.values / 1e-4).clip(0), numpy.rint(made / 1e-4))
"""
    done = script(tmp_path, example + check)
    assert done.returncode == 0, done.stderr


REFUSED = {
    "Settings(block=0)": "block must be from 1 to 65536, got 0",
    "Settings(require_gain=float('nan'))": "require_gain must be a number of dB, got nan",
    "Settings(interval=3)": "interval must be from 0.5 to 0.99, got 3",
    "Crop(window=(0, 0, 2, 2), bbox_crs='EPSG:4326')": "bbox_crs says what bbox or geometry is in: give",
    "enhance('scene.tif', 'taken.tif', 'nearest-x2')": "choose another name or add overwrite=True",
    "open('https://example.org/a.tif')": "add remote=True to read from the network",
    "enhance('scene.tif', 'scene.tif', 'nearest-x2', Settings(crop=Crop((0, 0, 99, 9))))": "the input itself",
    "enhance('scene.tif', 'x.tif', 'nearest-x2', Settings(crop=Crop((0, 0, 99, 9))))": "window 0,0,99,9 reaches beyond",
}
"""Calls, and what they are told, in the words of Python."""


@pytest.mark.parametrize("call", REFUSED)
def test_errors_name_settings_as_python_has_them(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "scene.tif", IMAGE)
    (tmp_path / "taken.tif").write_bytes(b"")
    names = {name: getattr(scenelift, name) for name in ("Crop", "Settings", "enhance", "open")}
    with pytest.raises((scenelift.SceneliftError, scenelift.ModelError)) as refused:
        eval(call, names)
    assert REFUSED[call] in str(refused.value) and "--" not in str(refused.value)
    monkeypatch.setenv(COMMAND_LINE, "1")
    assert str(refused.value) == refused.value.args[0]


def test_commands_in_messages_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "b is damaged: restore it with `scenelift verify b --repair`, or --no-shards --mask-classes x--y (a --tta)"
    assert worded(text).endswith("`scenelift verify b --repair`, or shards=False mask_classes x--y (a tta=True)")
    monkeypatch.setenv(COMMAND_LINE, "1")
    assert worded(text) == text


def test_a_script_without_a_guard_is_told_so_in_one_line(tmp_path: Path) -> None:
    done = script(tmp_path, IMPORTS + CALL)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert "UsageError" in last and 'if __name__ == "__main__"' in last and "script.py" in last
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.tif", "script.py"]


def test_a_notebook_whose_event_loop_runs(tmp_path: Path) -> None:
    done = script(tmp_path, IMPORTS + NOTEBOOK.format(call=CALL), as_file=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(pixels(tmp_path / "better.tif"), WANTED)


def test_processes_of_a_pool_enhance_one_scene_each(tmp_path: Path) -> None:
    done = script(tmp_path, IMPORTS + POOL)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "better.tif").read_bytes() == (tmp_path / "other.tif").read_bytes()
    assert np.array_equal(pixels(tmp_path / "better.tif"), WANTED)


def test_a_process_that_may_have_no_children_is_told_so(tmp_path: Path) -> None:
    done = script(tmp_path, IMPORTS + DAEMONS.format(call=CALL))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "UsageError" in last and "workers=0" in last
    assert not (tmp_path / "better.tif").exists()


def test_netcdf_is_read_by_its_coordinates_with_netcdf4_alone(tmp_path: Path) -> None:
    pytest.importorskip("netCDF4", reason="needs the package netCDF4")
    from support.inputs import Cube

    from scenelift.pipeline.scenes.opening import open_scene
    from scenelift.pipeline.scenes.scenes import SceneSource
    from scenelift.pipeline.scenes.zarrs import netcdf_engine
    from scenelift.pipeline.tiles import Window

    cube = Cube(IMAGE, ("lat", "lon"), ("x", "y"), down=False, place="both")
    path = tmp_path / "a.nc"
    cube.dataset().to_netcdf(path, engine="netcdf4", format="NETCDF4")
    assert netcdf_engine(str(path)) in ("netcdf4", "h5netcdf")
    scene = open_scene(SceneSource((str(path),)))
    assert scene.grid.transform.almost_equals(cube.transform, 1e-6)
    assert np.array_equal(scene.read_dn(Window(0, 0, *scene.grid.shape))[0], IMAGE)
