"""`scenelift evaluate sr|denoise`: tables of quality for shipped models, checkpoints and classical methods."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from scenelift.models.errors import ModelError
from scenelift.models.extras import Consistency, Extra, Uncertainty
from scenelift.models.networks.perception import frechet_distance
from scenelift.models.whole import Images, load_method, run_whole, spec_of
from scenelift.workflows.conditions import image_noise
from scenelift.workflows.evidence.cases import CLASSICAL, DENOISE, INPUT, REFERENCE, SHARPEN, Degradation
from scenelift.workflows.evidence.metrics import Row, inside, psnrs, row_of
from scenelift.workflows.evidence.samples import Sample

BASELINES = {SHARPEN: ("nearest", "bicubic", "lanczos", "ibp"), DENOISE: (INPUT, "bilateral", "wavelet", "nlm", "tv")}
"""Methods without learning that a table holds."""
COMPARED = {SHARPEN: "ibp", DENOISE: INPUT}
"""Method that the others are compared with, image by image."""
ALONE = " alone"
"""Behind the name of a network that stands in the table without the back-projection that the others have after them."""


def evaluate(
    sample: Sample,
    models: Sequence[str],
    degradation: Degradation,
    *,
    precision: str = "fp32",
    extras: tuple[Extra, ...] = (),
    auto: bool = False,
    seed: int = 0,
    baselines: bool = True,
) -> list[Row]:
    """Degrade images, restore them by every method, and score them against what they were.

    Parameters
    ----------
    sample : Sample
    models : sequence of str
        Shipped names, checkpoints, blends (FIRST~SECOND@SHARE), or chains of methods with commas ("bilateral,denoise"):
        what each of their parts does alone is in the table, too.
    degradation : Degradation
    precision : {"fp32", "bf16"}
    extras : tuple of Extra
        What is done around the networks; the correlation of `Uncertainty` with the error is a column. Networks with
        `Consistency` are in the table without it, too.
    auto : bool
        Networks get an estimated noise level for each image and band instead of the true one (in a chain, those after
        the first always do).
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
    told = _noise_of(low) if auto else sigma
    parts = {name: _parts(name, degradation, extras) for name in models}
    tried = (part for name in models for part in (*parts[name], name))
    predictions: dict[str, tuple[Images, Images | None, float]] = {}
    for name in dict.fromkeys((*(BASELINES[degradation.task] if baselines else (compared,)), *tried)):
        started, classical = time.perf_counter(), name in CLASSICAL[degradation.task]
        found: tuple[Images, Images | None] = low, None
        if name != INPUT:
            found = _restored(name, degradation.scale, low, sigma if classical else told, precision, extras)
        predictions[name] = *found, time.perf_counter() - started
    if degradation.task == SHARPEN:
        predictions[REFERENCE] = reference, None, 0.0
    common = reference, degradation.scale, sample.peak
    known = {compared, *(part for name in models for part in parts[name])}
    psnr = {name: psnrs(reference, predictions[name][0], degradation.scale, sample.peak) for name in known}
    best = {name: max(own, key=lambda part: float(psnr[part].mean())) for name, own in parts.items() if own}
    return [
        row_of(
            name,
            out,
            *common,
            baseline=None if name in (compared, REFERENCE) else psnr[compared],
            part=psnr[best[name]] if name in best else None,
            places=sample.places,
            consistency=_residual(degradation, out, low, sample.bands) if degradation.scale > 1 else None,
            seconds=seconds,
            frechet=_frechet(out, reference, degradation.scale),
            spearman=_correlation(out, deviation, reference, degradation.scale),
        )
        for name, (out, deviation, seconds) in predictions.items()
    ]


def _noise_of(images: Images) -> NDArray[np.float32]:
    """Return the noise of each image and band, as it is estimated from it."""
    return np.array([[image_noise(band) for band in image] for image in images], np.float32)


def _parts(name: str, degradation: Degradation, extras: Sequence[Extra]) -> tuple[str, ...]:
    """Return what of a hybrid undoes the degradation by itself: methods of a chain, a network and back-projection."""
    steps = name.split(",")
    if len(steps) > 1:
        return tuple(dict.fromkeys(step for step in steps if _scale_of(step, degradation) == degradation.scale))
    if degradation.scale > 1 and any(isinstance(extra, Consistency) and extra.steps for extra in extras):
        return "ibp", name + ALONE
    return ()


def _restored(
    name: str,
    scale: int,
    low: Images,
    noise: NDArray[np.float32],
    precision: str,
    extras: tuple[Extra, ...],
) -> tuple[Images, Images | None]:
    """Return what a method or a chain makes of degraded images, and the standard deviation of it if it has one."""
    out, steps = low, name.removesuffix(ALONE).split(",")
    if name.endswith(ALONE):
        extras = tuple(extra for extra in extras if not isinstance(extra, Consistency))
    for number, step in enumerate(steps):
        around = extras if number == len(steps) - 1 else tuple(extra for extra in extras if not extra.last)
        level = noise if number == 0 else _noise_of(out)
        if step in CLASSICAL[SHARPEN] or step in CLASSICAL[DENOISE]:
            out = run_whole(load_method(step, scale if step in CLASSICAL[SHARPEN] else 1), out, level)
        else:
            out = run_whole(load_method(step, precision=precision, extras=around, images=out), out, level)
    sure = out.shape[1] > low.shape[1] and any(isinstance(extra, Uncertainty) for extra in extras)
    return (out[:, ::2], out[:, 1::2]) if sure else (out, None)


def _scale_of(step: str, degradation: Degradation) -> int:
    """Return by how much a method enlarges; classical ones by what is wanted."""
    if step in CLASSICAL[SHARPEN]:
        return degradation.scale
    return 1 if step in CLASSICAL[DENOISE] else spec_of(step).scale


def _check(name: str, degradation: Degradation, bands: int) -> None:
    steps = name.split(",")
    for step in steps:
        if step in CLASSICAL[SHARPEN] or step in CLASSICAL[DENOISE]:
            continue
        spec = spec_of(step)
        if spec.task == "landcover" or spec.out_bands is not None:
            raise ModelError(f"{step} makes no images: give a network that enhances")
        if spec.bands not in (None, bands):
            raise ModelError(f"{step} wants {spec.bands} bands together, the images have {bands}: choose --bands")
    scale = math.prod(_scale_of(step, degradation) for step in steps)
    if scale != degradation.scale:
        lacks = f"does not enlarge by {degradation.scale}" if degradation.scale > 1 else "is no denoiser"
        raise ModelError(f"{name} {lacks}: its scale is {scale}")


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
