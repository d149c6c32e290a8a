"""`scenelift evaluate sr|denoise`: tables of quality for shipped models, checkpoints and classical methods."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from scenelift.models.errors import ModelError
from scenelift.models.extras import Consistency, Uncertainty
from scenelift.models.networks.perception import frechet_distance
from scenelift.models.whole import Images, load_method, run_whole, spec_of
from scenelift.pipeline.scenes.noise import estimate_noise
from scenelift.workflows.evidence.cases import CLASSICAL, DENOISE, INPUT, REFERENCE, SHARPEN, Degradation
from scenelift.workflows.evidence.metrics import Row, inside, measure, row_of
from scenelift.workflows.evidence.samples import Sample

BASELINES = {SHARPEN: ("nearest", "bicubic", "lanczos", "ibp"), DENOISE: (INPUT, "bilateral", "wavelet", "nlm", "tv")}
"""Methods without learning that a table holds."""
COMPARED = {SHARPEN: "ibp", DENOISE: INPUT}
"""Method that the others are compared with, image by image."""


def evaluate(
    sample: Sample,
    models: Sequence[str],
    degradation: Degradation,
    *,
    precision: str = "fp32",
    tta: bool = False,
    consistency: int = 0,
    auto: bool = False,
    seed: int = 0,
    baselines: bool = True,
) -> list[Row]:
    """Degrade images, restore them by every method, and score them against what they were.

    Parameters
    ----------
    sample : Sample
    models : sequence of str
        Shipped names, checkpoints, or blends (FIRST~SECOND@SHARE).
    degradation : Degradation
    precision : {"fp32", "bf16"}
    tta : bool
        Average over the eight turned and mirrored images.
    consistency : int
        Back-projection steps after the network.
    auto : bool
        Networks get an estimated noise level for each image and band instead of the true one.
    seed : int
        Of the noise.
    baselines : bool
        Whether the classical methods, some slower than the networks, are in the table.

    Raises
    ------
    ModelError
        If a model does not undo the degradation, or takes other bands.
    """
    for name in models:
        _check(name, degradation, len(sample.bands))
    compared = COMPARED[degradation.task]
    reference = degradation.cut(sample.images)
    low, sigma = degradation.apply(reference, sample.bands, sample.level, seed)
    extras = (Consistency(consistency), *((Uncertainty(),) if tta else ()))
    told = np.array([[estimate_noise(b) for b in x] for x in low], np.float32) if auto else sigma
    predictions: dict[str, tuple[Images, Images | None, float]] = {}
    for name in (*(BASELINES[degradation.task] if baselines else (compared,)), *models):
        started, out, deviation = time.perf_counter(), low, None
        if name in CLASSICAL[degradation.task]:
            out = run_whole(load_method(name, degradation.scale), low, sigma)
        elif name != INPUT:
            method = load_method(name, precision=precision, extras=extras, images=low)
            out = run_whole(method, low, told)
            out, deviation = (out[:, ::2], out[:, 1::2]) if tta else (out, None)
        predictions[name] = out, deviation, time.perf_counter() - started
    if degradation.task == SHARPEN:
        predictions[REFERENCE] = reference, None, 0.0
    common = reference, degradation.scale, sample.peak
    pairs = zip(reference, predictions[compared][0], strict=True)
    base = np.array([measure(x, y, *common[1:], ("psnr",))["psnr"] for x, y in pairs])
    return [
        row_of(
            name,
            out,
            *common,
            baseline=None if name in (compared, REFERENCE) else base,
            places=sample.places,
            consistency=_residual(degradation, out, low, sample.bands) if degradation.scale > 1 else None,
            seconds=seconds,
            frechet=_frechet(out, reference, degradation.scale),
            spearman=_correlation(out, deviation, reference, degradation.scale),
        )
        for name, (out, deviation, seconds) in predictions.items()
    ]


def _check(name: str, degradation: Degradation, bands: int) -> None:
    if name in CLASSICAL[degradation.task]:
        return
    spec = spec_of(name)
    if spec.task == "landcover" or spec.out_bands is not None:
        raise ModelError(f"{name} makes no images: give a network that enhances")
    if spec.scale != degradation.scale:
        lacks = f"does not enlarge by {degradation.scale}" if degradation.scale > 1 else "is no denoiser"
        raise ModelError(f"{name} {lacks}: its scale is {spec.scale}")
    if spec.bands not in (None, bands):
        raise ModelError(f"{name} wants {spec.bands} bands together, the images have {bands}: choose them by --bands")


def _residual(degradation: Degradation, out: Images, low: Images, bands: Sequence[str]) -> float:
    """Return the low-resolution consistency: how far the prediction, degraded again, is from the input."""
    again = degradation.shrink(torch.from_numpy(out), bands).numpy()
    return float(np.abs(again - low).mean())


def _frechet(out: Images, reference: Images, scale: int) -> float | None:
    if reference.shape[1] != 3:
        return None
    mine, theirs = (torch.from_numpy(inside(images, scale)) for images in (out, reference))
    return frechet_distance(mine, theirs)


def _correlation(out: Images, deviation: Images | None, reference: Images, scale: int) -> float | None:
    """Return the rank correlation of the ensemble's standard deviation with the absolute error."""
    if deviation is None:
        return None
    error = inside(np.abs(out - reference), scale).ravel()
    step = max(1, error.size // 500_000)
    pair: tuple[NDArray[np.float32], NDArray[np.float32]] = inside(deviation, scale).ravel()[::step], error[::step]
    return float(spearmanr(*pair).statistic)
