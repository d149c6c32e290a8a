"""`scenelift evaluate sr|denoise`: tables of quality for shipped models, checkpoints and classical methods."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from scenelift.models.classical.classical import CLASSICAL, classical
from scenelift.models.degradations import (
    SENTINEL2_MTF,
    SENTINEL2_NOISE,
    bicubic_decimate,
    mtf_decimate,
    sentinel2_sigma,
)
from scenelift.models.errors import ModelError
from scenelift.models.whole import Answer, answer_of, check_network, run_classical
from scenelift.models.wrappers import back_project
from scenelift.pipeline.scenes.noise_estimate import estimate_noise
from scenelift.workflows.evidence.metrics import Row, make_rows
from scenelift.workflows.evidence.samples import Sample
from scenelift.workflows.training.images import RGB

SR_BASELINES = ("nearest", "bicubic", "lanczos", "ibp")
DENOISE_BASELINES = ("bilateral", "wavelet", "nlm", "tv")


def evaluate_sr(
    sample: Sample,
    models: Sequence[str],
    scale: int,
    *,
    degradation: str = "mtf",
    precision: str = "fp32",
    tta: bool = False,
    consistency: int = 0,
) -> list[Row]:
    """Score super-resolution by Wald's protocol; the reference for paired differences is back-projection.

    Parameters
    ----------
    sample : Sample
        Cut to multiples of ``scale``.
    models : sequence of str
        Shipped names, checkpoints, or blends (FIRST~SECOND@SHARE); classical baselines are always in the table.
    scale : int
    degradation : {"mtf", "bicubic"}
        Gaussian by each band's MTF, or antialiased bicubic.
    precision : {"fp32", "bf16"}
    tta : bool
        Average over the eight turned and mirrored images.
    consistency : int
        Back-projection steps after the network.
    """
    if not 2 <= scale <= 8:
        raise ModelError(f"--scale must be from 2 to 8, got {scale}")
    for name in models:
        check_network(name, scale)
    height, width = (n - n % scale for n in sample.images.shape[2:])
    truth = torch.from_numpy(sample.images[..., :height, :width])
    mtf = [SENTINEL2_MTF.get(band, 0.26) for band in sample.bands]
    if degradation not in ("mtf", "bicubic"):
        raise ModelError(f"degradation must be mtf or bicubic, not {degradation!r}")

    def degrade(x: torch.Tensor) -> torch.Tensor:
        return mtf_decimate(x, scale, mtf) if degradation == "mtf" else bicubic_decimate(x, scale)

    low = degrade(truth).numpy()
    answers: dict[str, tuple[Answer, float]] = {}
    for name in (*SR_BASELINES, *models):
        started = time.perf_counter()
        if name in CLASSICAL:
            answer = Answer(run_classical(classical(name, scale), low))
        else:
            answer = answer_of(name, low, None, precision, tta=tta)
            if consistency:
                image = torch.from_numpy(answer.images)
                image = back_project(image, torch.from_numpy(low), scale, mtf, consistency)
                answer = Answer(image.numpy(), answer.spread)
        answers[name] = answer, time.perf_counter() - started
    answers["truth"] = Answer(truth.numpy()), 0.0
    residual = {
        name: float((degrade(torch.from_numpy(a.images)) - torch.from_numpy(low)).abs().mean())
        for name, (a, _) in answers.items()
    }
    return make_rows(answers, truth.numpy(), sample.peak, scale, "ibp", residual, sample.places, sample.bands == RGB)


def evaluate_denoise(
    sample: Sample,
    models: Sequence[str],
    *,
    level: float | None = None,
    times: float = 1.0,
    auto: bool = False,
    precision: str = "fp32",
    tta: bool = False,
    seed: int = 0,
    baselines: bool = True,
) -> list[Row]:
    """Score denoising; the reference for paired differences is the noisy input.

    Parameters
    ----------
    sample : Sample
    models : sequence of str
        Shipped names or checkpoints.
    level : float, optional
        White noise in levels of 255 (reflectance 0.00108 each; of an 8-bit scene read as 0 to 1, 1 / 255). None:
        Sentinel-2A's signal-dependent noise, ``times`` as strong.
    times : float
        Factor on the sensor's noise.
    auto : bool
        Networks get an estimated level for each image and band instead of the true one.
    precision, tta
        As in ``evaluate_sr``.
    seed : int
        Of the noise.
    baselines : bool
        Whether the classical filters, slower than the networks, are in the table.
    """
    for name in models:
        check_network(name, 1)
    clean = torch.from_numpy(sample.images)
    if level is not None:
        sigma_map = torch.full_like(clean, level * sample.level)
    else:
        bands = [band if band in SENTINEL2_NOISE else "B03" for band in sample.bands]
        sigma_map = times * sentinel2_sigma(clean, bands)
    generator = torch.Generator().manual_seed(seed)
    noisy = (clean + sigma_map * torch.randn(clean.shape, generator=generator)).numpy()
    sigma = sigma_map.square().mean((2, 3)).sqrt().numpy()  # (N, C)
    told = np.array([[estimate_noise(b) for b in x] for x in noisy], np.float32) if auto else sigma
    answers: dict[str, tuple[Answer, float]] = {"noisy": (Answer(noisy), 0.0)}
    for name in (*(DENOISE_BASELINES if baselines else ()), *models):
        started = time.perf_counter()
        if name in CLASSICAL:
            each = zip(noisy, sigma.mean(1), strict=True)
            images = [run_classical(classical(name, 1, float(s)), x[None])[0] for x, s in each]
            answer = Answer(np.stack(images))
        else:
            answer = answer_of(name, noisy, told, precision, tta=tta)
        answers[name] = answer, time.perf_counter() - started
    return make_rows(answers, sample.images, sample.peak, 2, "noisy", {}, sample.places)
