"""The frame: two lists of dependencies that agree, imports that are declared, folders that refuse a wrong name."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = CONFIGURATION["project"]
ROOMS = ("pipeline", "models", "workflows")
MOST_FILES = 16
"""Most Python files of a folder: more, and nobody knows any longer where to look."""
CONDA_NAMES = {"torch": "pytorch", "dask": "dask-core", "matplotlib": "matplotlib-base", "netCDF4": "netcdf4"}
IMPORT_NAMES = {
    "pillow": "PIL",
    "pystac-client": "pystac_client",
    "ukis-csmask": "ukis_csmask",
    "dask-cuda": "dask_cuda",
    "dask-jobqueue": "dask_jobqueue",
    "pywavelets": "pywt",
    "rio-cogeo": "rio_cogeo",
    "scikit-image": "skimage",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}
# Dask's dashboard is empty without the first, its TLS needs the second; fsspec finds two more, torch the last
NOT_IMPORTED = {"bokeh", "cryptography", "aiohttp", "s3fs", "tensorboard"}
OPTIONAL = ("jobqueue", "cuda", "lpips", "remote", "stac", "clouds", "onnx", "openvino", "tensorboard")


def requirements(*extras: str) -> dict[str, str]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {re.split(r"[<>=~!\[]", line)[0]: line for line in lines}


def test_environment_yml_lists_the_same_as_pyproject() -> None:
    wanted = {
        re.sub(r"^[\w.-]+", lambda m: CONDA_NAMES.get(m[0], m[0]), line)
        for line in requirements("test", "check", "docs").values()
    }
    lines = (ROOT / "environment.yml").read_text().splitlines()
    listed = {m[1] for line in lines if (m := re.match(r"\s+- ([\w.-]+(?:>=[\w.]+)?)$", line))}
    listed -= {"conda-forge", "pip"}
    assert f"python{PROJECT['requires-python']}" in listed
    assert listed - {"python>=3.11"} == wanted


def imported(folder: str) -> set[str]:
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"scenelift", "click"}  # click is typer's own


def test_every_import_is_declared_and_every_declaration_used() -> None:
    declared = {IMPORT_NAMES.get(name, name) for name in requirements(*OPTIONAL)}
    used = set().union(*map(imported, ROOMS))
    assert used <= declared
    assert declared - used - NOT_IMPORTED == set()


def folders(top: str) -> list[Path]:
    """A folder and all below it that hold files of the project."""
    below = [path for path in (ROOT / top).rglob("*") if path.is_dir() and path.name != "__pycache__"]
    return [ROOT / top, *(path for path in below if any(file.is_file() for file in path.iterdir()))]


def test_every_folder_is_a_declared_package() -> None:
    found = {f"scenelift.{'.'.join(path.relative_to(ROOT).parts)}" for room in ROOMS for path in folders(room)}
    found = found - {"scenelift.workflows.api"} | {"scenelift"}  # the folder that is the package itself
    assert set(CONFIGURATION["tool"]["setuptools"]["packages"]) == found


@pytest.mark.parametrize("top", [*ROOMS, "tests"])
def test_no_room_is_too_full(top: str) -> None:
    files = {path: [file for file in path.glob("*.py") if file.name != "__init__.py"] for path in folders(top)}
    full = {str(path.relative_to(ROOT)): len(found) for path, found in files.items() if len(found) > MOST_FILES}
    assert not full


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_refuses_to_be_imported_under_its_folder_name(room: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"scenelift.{room}" in done.stderr


def test_the_package_has_one_name_only() -> None:
    done = subprocess.run([sys.executable, "-c", "import scenelift.workflows.api"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "import it under that name" in done.stderr


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FAULTS = "faults"
"""Helpers of this name do harm to real runs and raise unless the run survives it: hours of them are counted, too."""


def calls(node: ast.AST) -> set[str]:
    """Return the names of the functions that are called in a node, without what they belong to."""
    found = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    return {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in found}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_every_test_says_what_must_hold(path: Path) -> None:
    """By an assertion of its own, an expected error, or a function of its file or of the faults that has one."""
    tree = ast.parse(path.read_text())
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    def says(node: ast.FunctionDef, seen: tuple[str, ...] = ()) -> bool:
        if any(isinstance(inner, ast.Assert) for inner in ast.walk(node)):
            return True
        called = calls(node)
        if any(name.startswith("assert_") or name in ("raises", "check_halo", "check") for name in called):
            return True
        if any(isinstance(inner, ast.Name) and inner.id.startswith(FAULTS) for inner in ast.walk(node)):
            return True
        return any(says(functions[name], (*seen, name)) for name in called & functions.keys() - {*seen})

    silent = [name for name, node in functions.items() if name.startswith("test_") and not says(node)]
    assert not silent


def test_helpers_hide_no_assertions() -> None:
    helpers = [p for p in (ROOT / "tests" / "support").glob("*.py") if not p.name.startswith(FAULTS)]
    hidden = {p.name for p in helpers for node in ast.walk(ast.parse(p.read_text())) if isinstance(node, ast.Assert)}
    assert not hidden


def test_properties_are_tested_as_such() -> None:
    functions = [node for path in TESTS for node in ast.walk(ast.parse(path.read_text()))]
    drawn = [f for f in functions if isinstance(f, ast.FunctionDef) for d in f.decorator_list if "given" in calls(d)]
    assert len(drawn) >= 30
