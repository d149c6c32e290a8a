"""What can be refused before torch, GDAL or a cluster is touched: a wrong name, a missing file, a hopeless output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scenelift.models.catalog import find
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.pipeline.addresses import local_path, work_folder
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.formats import check_suffix
from scenelift.pipeline.scenes.limits import Limits, check_remote, is_remote


def refuse_inputs(paths: Sequence[str], remote: bool = False) -> None:
    """Refuse inputs that are not there.

    Parameters
    ----------
    paths : sequence of str
        As `SceneSource.paths`.
    remote : bool
        Whether they may lie on the network.

    Raises
    ------
    UsageError
    """
    for path in map(local_path, paths):
        if is_remote(path):
            check_remote(path, Limits(remote=remote))
            continue
        file = path.rpartition(":")[0] if ".nc:" in path else path
        if not os.path.exists(file):  # noqa: PTH110 - of a name that is too long, Path.exists raises
            raise UsageError(f"no such file: {file}; name one that exists")


def model_names(models: Any) -> list[Any]:
    """Return names and objects one by one.

    Parameters
    ----------
    models : str, Enhancer or sequence of them
        Several names may stand in one text, with commas between.

    Raises
    ------
    UsageError
        If there is none.
    """
    listed = [models] if isinstance(models, str) or not isinstance(models, Sequence) else list(models)
    names = [part for m in listed for part in (m.split(",") if isinstance(m, str) else [m])]
    if not names or "" in names:
        raise UsageError("no model given; `scenelift models` lists them")
    return [os.path.abspath(n) if isinstance(n, str) and n.endswith((".safetensors", ONNX)) else n for n in names]  # noqa: PTH100


def refuse_models(models: Any) -> None:
    """Refuse names of models that there are not; what a factory returns is seen when it is called.

    Raises
    ------
    UsageError, ModelError
    """
    for name in model_names(models):
        if isinstance(name, str):
            find(name)


def check_output(path: Path, inputs: Sequence[str]) -> Path:
    """Check that an output could be written where it is wanted; return its absolute path.

    Parameters
    ----------
    path : Path
    inputs : sequence of str
        Paths of the scene.

    Raises
    ------
    UsageError
        If the suffix is unknown, the folder is missing, the output is the input, or a folder that is no output.
    """
    check_suffix(path)
    path = Path(os.path.abspath(path))  # noqa: PTH100 - drops "..", which Path.absolute keeps
    if not path.parent.is_dir():
        raise UsageError(f"no such folder for the output: {path.parent}; make it first")
    if path.resolve() in {Path(p).resolve() for p in inputs}:
        raise UsageError(f"output {path} is the input itself: choose another name")
    if path.is_dir() and not _may_be_output(path):
        raise UsageError(f"output {path} is a folder that scenelift did not make: choose another name")
    return path


def _may_be_output(folder: Path) -> bool:
    """Whether a folder under an output's name may be an earlier output, which --overwrite removes: any Zarr store."""
    suffix = folder.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return False
    if suffix != ".zarr" or work_folder(folder).is_dir():  # a format of another package; a job that was begun
        return True
    marks = "zarr.json", ".zgroup", ".zarray", ".zmetadata"
    return not any(folder.iterdir()) or any((folder / name).is_file() for name in marks)


def refuse_unstarted(output: Path) -> None:
    """Refuse to resume what was never begun.

    Raises
    ------
    UsageError
        If there is no journal beside the output.
    """
    work = work_folder(Path(output).absolute())
    if not work.is_dir():
        raise UsageError(f"nothing to resume: {work} holds no journal; start with `scenelift enhance`")


def refuse_absent(output: Path) -> None:
    """Refuse to verify what is not there and was never begun.

    Raises
    ------
    UsageError
    """
    path = Path(output).absolute()
    if not path.exists() and not work_folder(path).is_dir():
        raise UsageError(f"no such file: {path}; name an output that exists")
