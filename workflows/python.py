"""What people call from Python beside `enhance` and `apply`: names and paths in, plain things out."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelift.models.catalog import CLOSED, PAN, find, installed, load_spec
from scenelift.models.loading import verify as checked
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.models.shipped import card, shipped

if TYPE_CHECKING:
    from scenelift.pipeline.enhance import Enhancer
    from scenelift.workflows.evidence.score import ScoreReport


def list_models(name: str | None = None) -> list[dict[str, Any]]:
    """Return the specs of the shipped and installed models and of sharpeners, or of the one named, each with its card.

    Parameters
    ----------
    name : str, optional
        A shipped or installed name, a checkpoint or ``module.path:factory``.

    Returns
    -------
    list of dict
        Plain values: the fields of `scenelift.Spec`, "digest" (SHA-256) and "card".

    Raises
    ------
    ModelError
        If there is no such model.

    Examples
    --------
    >>> import scenelift
    >>> [model] = scenelift.list_models("sr-x2-rgb")
    >>> model["bands"], model["scale"], model["card"]["licence"].partition(" ")[0]
    (3, 2, 'Apache-2.0')
    """
    names = [name] if name else [*shipped(), *installed(), CLOSED, PAN]
    return [{**json.loads(load_spec(find(n)).to_json()), "digest": find(n).digest, "card": card(n)} for n in names]


def load(name: str, *, noise: float | None = None) -> Enhancer:
    """Load a model ready to be called on patches, on the CPU.

    Parameters
    ----------
    name : str
        As for `enhance`.
    noise : float, optional
        Standard deviation of the noise (reflectance), for models that are told it.

    Returns
    -------
    Enhancer
        Its ``spec`` says what it wants; it maps float32 reflectance (N, C, P + 2 halo, P + 2 halo) to the cores,
        (N, C', scale P, scale P).

    Raises
    ------
    ModelError
        If there is no such model, or it cannot be loaded.

    Examples
    --------
    >>> import numpy as np
    >>> import scenelift
    >>> model = scenelift.load("sr-x2-fast")
    >>> patches = np.full((1, 4, 64 + 2 * model.spec.halo, 64 + 2 * model.spec.halo), 0.1, np.float32)
    >>> model(patches).shape
    (1, 4, 128, 128)
    """
    ref = find(name)
    if noise is not None:
        ref = dataclasses.replace(ref, noise=(noise,))
    checked(ref)
    loaded: Enhancer = ref.load()
    return loaded


def export(
    name: str,
    path: str | Path,
    *,
    blur: str | None = None,
    noise: float | None = None,
    gain: float = 1.0,
    offset: float = 0.0,
) -> list[str]:
    """Write a model as an ONNX file, with its contract in the metadata.

    Parameters
    ----------
    name : str
        As for `enhance`; of an ONNX file, a copy is written with the contract that was measured.
    path : str or Path
        ``*.onnx``.
    blur : str, optional
        What a network that is told the blur is told for good: one blur for all bands, or one a band, with commas; see
        `scenelift.models.sensing.sensors.parse_blur`. Default: Sentinel-2's.
    noise : float, optional
        What a network that is told the noise is told for good, standard deviation, reflectance.
    gain, offset : float
        Of an ONNX file: it sees gain · reflectance + offset.

    Returns
    -------
    list of str
        What was written, and what was assumed: lines for people.

    Raises
    ------
    ModelError, UsageError
        If the model cannot be written, or ONNX Runtime makes something else of it.
    """
    from scenelift.models.enhancer import TorchEnhancer
    from scenelift.models.onnx.exporting import declare, export_onnx
    from scenelift.pipeline.errors import UsageError
    from scenelift.workflows.derived.telling import told_for_good

    path = Path(path)
    if path.suffix != ONNX:
        raise UsageError(f"an export ends in {ONNX}, got {path}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"no such folder for the export: {path.parent}; make it first")
    if not gain or not math.isfinite(gain + offset):
        raise UsageError(f"--gain must be a number other than 0 and --offset a number, got {gain} and {offset}")
    if noise is not None and not 0 <= noise < math.inf:
        raise UsageError(f"--noise must be a standard deviation from 0 up, got {noise:g}")
    if name.endswith(ONNX):
        return [declare(Path(name), path, gain, offset)]
    if (gain, offset) != (1.0, 0.0):
        raise UsageError("--gain and --offset are for ONNX files: the networks of this program see reflectance")
    ref, notes = told_for_good(find(name), blur, noise)
    loaded = ref.load()
    checked(ref)
    if not isinstance(loaded, TorchEnhancer) or len(loaded.modules) > 1:
        raise UsageError(f"{name} is no single network: only networks can be exported")
    return [export_onnx(loaded, path, noise).describe(), *notes]


def score(
    reference: str | Path, test: str | Path | None = None, *, coarse: str | Path | None = None, **settings: Any
) -> ScoreReport:
    """Score a scene against a reference, or by itself, in this process.

    Parameters
    ----------
    reference : str or Path
    test : str or Path, optional
        On the reference's grid, or on one some whole times as fine.
    coarse : str or Path, optional
        What `test` was super-resolved from: then opensr-test's measures are among the scores.
    **settings
        Fields of `scenelift.workflows.settings.ScoreSettings`: data_range, ratio, border, windows, block, names.

    Returns
    -------
    ScoreReport
        ``.values["psnr"]`` and the like; ``.to_dict()`` gives plain values.

    Raises
    ------
    UsageError, SceneError
        If the scenes cannot be read or compared.

    Examples
    --------
    >>> import scenelift
    >>> report = scenelift.score("scene.tif", "scene.tif", windows=False)
    >>> report.values["rmse"]
    0.0
    """
    from scenelift.pipeline.cluster import ClusterSettings
    from scenelift.pipeline.scenes.scenes import SceneSource
    from scenelift.workflows.evidence.score import score as run
    from scenelift.workflows.settings import ScoreSettings

    other, low = (None if name is None else SceneSource((str(name),)) for name in (test, coarse))
    here = ClusterSettings(workers=0)
    return run(SceneSource((str(reference),)), other, ScoreSettings(**settings), here, coarse=low)


def train(recipe: str | Path, run: str | Path, **options: Any) -> Path:
    """Train a network from a recipe and write its checkpoint; a stopped run goes on where it was.

    Parameters
    ----------
    recipe : str or Path
        A TOML file, or the name of a recipe that ships.
    run : str or Path
        Folder for the run's state, log and figure.
    **options
        data, weights, resume, threads, device, progress: see `scenelift.workflows.training.train.train`.

    Returns
    -------
    Path
        Of the checkpoint.

    Raises
    ------
    ModelError
        If there is too little data, the loss is not finite, or nothing can be written.
    """
    from scenelift.workflows.training.recipe import load_recipe
    from scenelift.workflows.training.train import train as begin

    return begin(load_recipe(str(recipe)), Path(run), **options)
