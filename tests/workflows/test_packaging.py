"""Source distribution and wheel: what is in them works without the clone; what images are built from; licences."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
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


def run_quietly(command: list[str], folder: Path) -> None:
    """Run what builds; it must end well and warn of nothing."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "warning" in line.lower() or "!!" in line]
    assert [line for line in said if "byte-compiling is disabled" not in line] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel that was built from the source distribution, as others build it."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        path = ROOT / part
        ignored = shutil.ignore_patterns("__pycache__")
        (shutil.copytree(path, source / part, ignore=ignored) if path.is_dir() else shutil.copy(path, source / part))
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    run_quietly([sys.executable, "-c", build], source)
    (packed_source,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(packed_source) as packed_files:
        packed_files.extractall(source / "unpacked", filter="data")
    (unpacked,) = (source / "unpacked").iterdir()
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist", "-v"]
    run_quietly(command, unpacked)
    (wheel,) = (unpacked / "dist").glob("*.whl")
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


def test_images_are_built_from_all_that_a_wheel_is() -> None:
    recipe = (ROOT / "Containerfile").read_text(encoding="utf-8")
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", recipe, re.MULTILINE) for word in line.split()}
    definition = (ROOT / "apptainer.def").read_text(encoding="utf-8")
    files = definition.partition("%files\n")[2].partition("\n\n")[0].split()[::2]
    assert copied == {*files} == {*PARTS}
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8").split()
    assert not {*PARTS} & {*ignored}
    for text in (recipe, definition):
        assert "libexpat1" in text and re.search(r"python:3\.(1[1-9])-slim", text)


def test_every_dependency_is_on_the_page_of_licences() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| (.+?) \| [\w-]+ \|$", page, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=]", line)[0].lower() for line in project["dependencies"]}
    assert wanted <= rows.keys()
    assert "not named" not in rows.values()
