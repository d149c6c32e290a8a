"""The figures of an evaluation table, and the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from scenelift.models.networks.perception import FEATURES, LPIPS, Distance, distances, frechet_distance
from scenelift.models.training.losses import ssim_loss
from scenelift.models.whole import Answer, Images
from scenelift.pipeline.scores.bootstrap import interval
from scenelift.workflows.evidence.score import plain

SSIM_RANGE = 0.3
"""Reflectance that SSIM takes as full scale; 1.0 would flatter every method."""


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
    features: float | None = None
    """Distance to the truth by the features of a trunk (see `scenelift.models.networks.features`); lower is nearer."""
    frechet: float | None = None
    """Fréchet distance of the trunk's features between the answers and the truths, as sets (the form of FID)."""
    lpips: float | None = None
    """LPIPS, where its weights are installed."""
    spearman: float | None = None
    """Rank correlation of the self-ensemble's spread with the absolute error."""


def make_rows(
    answers: dict[str, tuple[Answer, float]],
    truth: Images,
    peak: float,
    border: int,
    reference: str,
    residual: dict[str, float],
    places: NDArray[np.int64] | None = None,
    features: bool = False,
) -> list[Row]:
    """Score answers against the truth.

    Parameters
    ----------
    answers : dict
        Method to (answer, seconds).
    truth : ndarray
        (N, C, H, W).
    peak : float
        Full scale of PSNR, reflectance.
    border : int
        Pixels left out on every side.
    reference : str
        Method that the others are compared with, image by image.
    residual : dict
        Method to low-resolution consistency.
    places : ndarray of int, shape (N,), optional
        Which images are drawn together where intervals are made (of one scene); default: each by itself.
    features : bool
        Measure the feature distances and LPIPS where their weights are installed.
    """
    inner = (..., slice(border, -border), slice(border, -border))
    base = decibel(squared_error(answers[reference][0].images, truth, border), peak)
    target = torch.from_numpy(truth[inner])
    seen = distances() if features else {}
    rows = []
    for name, (answer, seconds) in answers.items():
        error = squared_error(answer.images, truth, border)
        psnr = decibel(error, peak)
        image = torch.from_numpy(answer.images[inner])
        rows.append(
            Row(
                name,
                psnr=float(psnr.mean()),
                pooled=float(decibel(error.mean(), peak)),
                ssim=_mean(_ssim, image, target),
                against=None if name in (reference, "truth") else paired(psnr - base, places),
                consistency=residual.get(name),
                seconds=seconds,
                features=_mean(seen[FEATURES], image, target) if FEATURES in seen else None,
                frechet=frechet_distance(image, target) if features else None,
                lpips=_mean(seen[LPIPS], image, target) if LPIPS in seen else None,
                spearman=_spearman(answer, truth, inner),
            )
        )
    return rows


def _mean(measure: Distance, image: torch.Tensor, target: torch.Tensor, batch: int = 50) -> float:
    """Return the mean over images of a measure that takes batches, so that memory does not grow with the images."""
    parts = [measure(image[i : i + batch], target[i : i + batch]) for i in range(0, len(image), batch)]
    return float(torch.cat(parts).mean())


def _ssim(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 1 - ssim_loss(image, target, SSIM_RANGE).expand(len(image))


def _spearman(answer: Answer, truth: Images, inner: Any) -> float | None:
    if answer.spread is None:
        return None
    error = np.abs(answer.images[inner] - truth[inner]).ravel()
    step = max(1, error.size // 500_000)
    return float(spearmanr(answer.spread[inner].ravel()[::step], error[::step]).statistic)


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


def paired(differences: NDArray[np.float64], places: NDArray[np.int64] | None = None) -> tuple[float, float, float]:
    """Return the mean of paired differences and its 95 % interval, by bootstrap over images, or over places."""
    found = interval(differences, places)
    return found.mean, found.low, found.high


def to_markdown(rows: Sequence[Row], reference: str) -> str:
    """Return the table as Markdown; columns without a figure are left out."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("method", lambda r: r.method),
        ("PSNR dB", lambda r: f"{r.psnr:.2f}"),
        ("pooled", lambda r: f"{r.pooled:.2f}"),
        ("SSIM", lambda r: f"{r.ssim:.4f}"),
        (f"against {reference} (95 %)", _gap),
        ("consistency", lambda r: "" if r.consistency is None else f"{r.consistency:.1e}"),
        ("features", lambda r: "" if r.features is None else f"{r.features:.3f}"),
        ("Fréchet", lambda r: "" if r.frechet is None else f"{r.frechet:.3f}"),
        ("LPIPS", lambda r: "" if r.lpips is None else f"{r.lpips:.3f}"),
        ("spread/error", lambda r: "" if r.spearman is None else f"{r.spearman:.2f}"),
        ("s", lambda r: f"{r.seconds:.0f}"),
    ]
    shown = [(title, cell) for title, cell in columns if any(cell(row) for row in rows)]
    lines = [[title for title, _ in shown], ["---"] * len(shown)]
    lines += [[cell(row) for _, cell in shown] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gap(row: Row) -> str:
    if row.against is None:
        return ""
    mean, low, high = row.against
    return f"{mean:+.2f} ({low:+.2f}..{high:+.2f})"


def print_rows(rows: Sequence[Row], title: str, peak: float, reference: str, as_json: bool) -> None:
    """Print a table for people, or one JSON object."""
    if as_json:
        facts = [{name: plain(value) for name, value in asdict(row).items()} for row in rows]
        print(json.dumps({"sample": title, "peak": peak, "rows": facts}))
    else:
        print(f"{title}; full scale {peak:.4g} reflectance\n\n{to_markdown(rows, reference)}")
