"""The wheel: what is in it works without the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("pipeline", "models", "workflows", "pyproject.toml", "README.md", "LICENSE")
USE = """
import numpy as np
import scenelift
assert scenelift.__file__.startswith({place!r}), scenelift.__file__
assert len(scenelift.list_models()) > 5
assert scenelift.apply(np.zeros((1, 20, 30), np.float32), "sr-x2").shape == (1, 40, 60)
from scenelift.workflows.training.recipe import load_recipe
assert load_recipe("sr-x2").name
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel that was built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        path = ROOT / part
        ignored = shutil.ignore_patterns("__pycache__")
        (shutil.copytree(path, source / part, ignore=ignored) if path.is_dir() else shutil.copy(path, source / part))
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist", "-v"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "warning" in line.lower() or "!!" in line]
    assert [line for line in said if "byte-compiling is disabled" not in line] == []
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(source / "installed")
    return source / "installed"


def test_a_wheel_holds_all_that_is_needed_and_nothing_beside_the_package(installed: Path, tmp_path: Path) -> None:
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"scenelift"}
    assert (installed / "scenelift" / "py.typed").is_file()
    env = os.environ | {"PYTHONPATH": str(installed)}
    code = USE.format(place=str(installed))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = [sys.executable, "-m", "scenelift", "--version"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.startswith("scenelift ")
