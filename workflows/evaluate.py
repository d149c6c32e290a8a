"""`scenelift evaluate sr|denoise`: tables of quality for shipped models, checkpoints and classical methods."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.catalog import checkpoint_path
from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.classical import CLASSICAL, classical
from scenelift.models.degradations import (
    SENTINEL2_MTF,
    SENTINEL2_NOISE,
    bicubic_decimate,
    mtf_decimate,
    sentinel2_sigma,
)
from scenelift.models.errors import ModelError
from scenelift.models.extras import back_project, self_ensemble
from scenelift.models.losses import ssim_loss
from scenelift.models.noise import estimate_noise
from scenelift.models.precision import to_precision
from scenelift.models.tasks import apply_whole
from scenelift.workflows.evaluation_images import data_folder
from scenelift.workflows.patches import EIGHT_BIT_GAIN, balanced
from scenelift.workflows.sources import read_source

Images = NDArray[np.float32]
"""(N, C, H, W) reflectance."""

SSIM_RANGE = 0.3
SCENE_SIDE = 128
SR_BASELINES = ("nearest", "bicubic", "lanczos", "ibp")
DENOISE_BASELINES = ("bilateral", "wavelet", "nlm", "tv")
RGB = ("B04", "B03", "B02")


@dataclass(frozen=True)
class Sample:
    """The images a table is about."""

    images: Images
    bands: tuple[str, ...]
    """Name of each band; decides the MTF and the noise model."""
    peak: float
    """Reflectance that PSNR takes as full scale."""
    title: str


@dataclass(frozen=True)
class Row:
    """One method's figures."""

    method: str
    psnr: float
    """dB, mean over images."""
    pooled: float
    """dB, of the mean squared error over all images."""
    ssim: float
    against: tuple[float, float, float] | None
    """Mean paired PSNR difference to the table's reference method, and its 95 % bootstrap interval."""
    consistency: float | None
    """Mean absolute difference between the degraded answer and the input, reflectance."""
    seconds: float


def read_sample(data: Path | None = None, each: int = 60, seed: int = 0) -> Sample:
    """Return the images to evaluate on.

    Parameters
    ----------
    data : path, optional
        A zip of images in class folders (``each`` of every class are drawn), or a raster, cut into patches.
        Default: EuroSAT's validation split below SCENELIFT_DATA.
    each, seed : int
        Images a class, and the seed of the draw; for a raster 10 x ``each`` patches at most are used.
    """
    path = data or data_folder() / "eurosat_rgb_val.zip"
    if not path.exists():
        raise ModelError(f"no images at {path}")
    patches = read_source(path, SCENE_SIDE)
    if not len(patches.values):
        raise ModelError(f"{path} has no patch of {SCENE_SIDE} valid pixels to evaluate on")
    if path.suffix.lower() == ".zip":
        at = balanced(patches.labels, each, seed)
        images = patches.reflectance(at).numpy()
        bands = RGB if images.shape[1] == 3 else ("",) * images.shape[1]
        return Sample(images, bands, 255 * EIGHT_BIT_GAIN, f"{path.name}, {len(images)} images, seed {seed}")
    images = patches.reflectance(slice(0, 10 * each)).numpy()
    names = patches.bands or ("",) * images.shape[1]
    return Sample(images, names, 255 * EIGHT_BIT_GAIN, f"{path.name}, {len(images)} patches")


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
        Shipped names or checkpoints; classical baselines are always in the table.
    scale : int
    degradation : {"mtf", "bicubic"}
        Gaussian by each band's MTF, or antialiased bicubic.
    precision : {"fp32", "bf16"}
    tta : bool
        Average over the eight turned and mirrored images.
    consistency : int
        Back-projection steps after the network.
    """
    height, width = (n - n % scale for n in sample.images.shape[2:])
    truth = torch.from_numpy(sample.images[..., :height, :width])
    mtf = [SENTINEL2_MTF.get(band, 0.26) for band in sample.bands]
    if degradation not in ("mtf", "bicubic"):
        raise ModelError(f"degradation must be mtf or bicubic, not {degradation!r}")

    def degrade(x: torch.Tensor) -> torch.Tensor:
        return mtf_decimate(x, scale, mtf) if degradation == "mtf" else bicubic_decimate(x, scale)

    low = degrade(truth).numpy()
    answers: dict[str, tuple[Images, float]] = {}
    for name in (*SR_BASELINES, *models):
        started = time.perf_counter()
        if name in CLASSICAL:
            answer = run_classical(classical(name, scale), low)
        else:
            answer = run_network(name, low, None, precision, tta=tta)
            if answer.shape != tuple(truth.shape):
                raise ModelError(f"{name} does not enlarge by {scale}")
            if consistency:
                answer = back_project(torch.from_numpy(answer), torch.from_numpy(low), scale, mtf, consistency).numpy()
        answers[name] = answer, time.perf_counter() - started
    answers["truth"] = truth.numpy(), 0.0
    residual = {
        name: float((degrade(torch.from_numpy(a)) - torch.from_numpy(low)).abs().mean())
        for name, (a, _) in answers.items()
    }
    return _rows(answers, truth.numpy(), sample.peak, scale, "ibp", residual)


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
) -> list[Row]:
    """Score denoising; the reference for paired differences is the noisy input.

    Parameters
    ----------
    sample : Sample
    models : sequence of str
        Shipped names or checkpoints; classical filters are always in the table.
    level : float, optional
        White noise in levels of the 8-bit stretch (reflectance 0.00108 each). None: Sentinel-2A's
        signal-dependent noise, ``times`` as strong.
    times : float
        Factor on the sensor's noise.
    auto : bool
        Networks get an estimated level for each image and band instead of the true one.
    precision, tta
        As in ``evaluate_sr``.
    seed : int
        Of the noise.
    """
    clean = torch.from_numpy(sample.images)
    if level is not None:
        sigma_map = torch.full_like(clean, level * EIGHT_BIT_GAIN)
    else:
        bands = [band if band in SENTINEL2_NOISE else "B03" for band in sample.bands]
        sigma_map = times * sentinel2_sigma(clean, bands)
    generator = torch.Generator().manual_seed(seed)
    noisy = (clean + sigma_map * torch.randn(clean.shape, generator=generator)).numpy()
    sigma = sigma_map.square().mean((2, 3)).sqrt().numpy()  # (N, C)
    told = np.array([[estimate_noise(b) for b in x] for x in noisy], np.float32) if auto else sigma
    answers: dict[str, tuple[Images, float]] = {"noisy": (noisy, 0.0)}
    for name in (*DENOISE_BASELINES, *models):
        started = time.perf_counter()
        if name in CLASSICAL:
            each = [
                run_classical(classical(name, 1, float(s.mean())), x[None])[0]
                for x, s in zip(noisy, sigma, strict=True)
            ]
            answer = np.stack(each)
        else:
            answer = run_network(name, noisy, told, precision, tta=tta)
        answers[name] = answer, time.perf_counter() - started
    return _rows(answers, sample.images, sample.peak, 2, "noisy", {})


def run_classical(method: Any, images: Images) -> Images:
    """Run a classical enhancer on whole images, mirrored at their edges."""
    halo = method.spec.halo
    padded = np.pad(images, ((0, 0), (0, 0), (halo, halo), (halo, halo)), mode="reflect")
    answer: Images = method(padded)
    return answer


@torch.inference_mode()
def run_network(
    name: str, images: Images, sigma: NDArray[np.float32] | None, precision: str = "fp32", *, tta: bool = False
) -> Images:
    """Run a checkpoint on whole images, one at a time, as the engine would.

    Parameters
    ----------
    name : str
        A shipped model or the path of a checkpoint.
    images : ndarray
        (N, C, H, W) float32 reflectance.
    sigma : ndarray, optional
        (N, C) noise level, for denoisers.
    precision : {"fp32", "bf16"}
    tta : bool
        Average over the eight turned and mirrored images.

    Returns
    -------
    ndarray
        (N, C, scale·H, scale·W) float32.
    """
    path = checkpoint_path(name)
    if path is None:
        raise ModelError(f"no model {name!r} among the shipped ones, and no such checkpoint")
    module, spec = load_checkpoint(path, valid=True)
    if spec.bands is not None and spec.bands != images.shape[1]:
        raise ModelError(f"{name} wants {spec.bands} bands together, the images have {images.shape[1]}")
    ready = to_precision(module, precision).to(memory_format=torch.channels_last)
    together = spec.bands or 1
    answers = []
    for index, image in enumerate(torch.from_numpy(images)):
        x = image.reshape(-1, together, *image.shape[1:])
        rest: tuple[torch.Tensor, ...] = ()
        if spec.needs_noise:
            if sigma is None:
                raise ModelError(f"{name} is a denoiser and needs a noise level")
            level = torch.from_numpy(sigma[index])
            rest = (level if together == 1 else level.mean().repeat(1),)

        def forward(turned: torch.Tensor, rest: tuple[torch.Tensor, ...] = rest) -> torch.Tensor:
            return apply_whole(ready, spec.halo, (turned, *rest), spec.multiple_of)

        y = self_ensemble(forward, x)[0] if tta else forward(x)
        answers.append(y.reshape(image.shape[0], *y.shape[2:]))
    return torch.stack(answers).numpy()


def _rows(
    answers: dict[str, tuple[Images, float]],
    truth: Images,
    peak: float,
    border: int,
    reference: str,
    residual: dict[str, float],
) -> list[Row]:
    errors = {name: squared_error(a, truth, border) for name, (a, _) in answers.items()}
    rows = []
    for name, (answer, seconds) in answers.items():
        psnr = decibel(errors[name], peak)
        gap = None if name in (reference, "truth") else paired(psnr - decibel(errors[reference], peak))
        inner = (..., slice(border, -border), slice(border, -border))
        ssim = 1 - float(ssim_loss(torch.from_numpy(answer[inner]), torch.from_numpy(truth[inner]), SSIM_RANGE))
        pooled = float(decibel(errors[name].mean(), peak))
        rows.append(Row(name, float(psnr.mean()), pooled, ssim, gap, residual.get(name), seconds))
    return rows


def squared_error(answer: Images, truth: Images, border: int) -> NDArray[np.float64]:
    """Return (N,) mean squared error of each image over all bands, ``border`` pixels left out on every side."""
    inner = (..., slice(border, -border), slice(border, -border))
    difference = answer[inner].astype(np.float64) - truth[inner]
    error: NDArray[np.float64] = np.square(difference).mean((1, 2, 3))
    return error


def decibel(error: Any, peak: float) -> Any:
    """Return the PSNR of mean squared errors; infinite for zero."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(peak**2 / np.asarray(error))


def paired(differences: NDArray[np.float64], draws: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of paired differences and its 95 % interval, by bootstrap over images."""
    rng = np.random.default_rng(seed)
    n = len(differences)
    means = np.array([differences[rng.integers(0, n, n)].mean() for _ in range(draws)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def to_markdown(rows: Sequence[Row], reference: str) -> str:
    """Return the table as Markdown."""
    lines = [
        f"| method | PSNR dB | pooled | SSIM | against {reference} (95 %) | consistency | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gap = "" if row.against is None else f"{row.against[0]:+.2f} ({row.against[1]:+.2f}..{row.against[2]:+.2f})"
        kept = "" if row.consistency is None else f"{row.consistency:.1e}"
        figures = f"{row.psnr:.2f} | {row.pooled:.2f} | {row.ssim:.4f} | {gap} | {kept} | {row.seconds:.0f}"
        lines.append(f"| {row.method} | {figures} |")
    return "\n".join(lines)


def print_rows(rows: Sequence[Row], sample: Sample, reference: str, as_json: bool) -> None:
    """Print a table for people, or one JSON object."""
    if as_json:
        print(json.dumps({"sample": sample.title, "peak": sample.peak, "rows": [asdict(row) for row in rows]}))
    else:
        print(f"{sample.title}; full scale {sample.peak:.4g} reflectance\n\n{to_markdown(rows, reference)}")
