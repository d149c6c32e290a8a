"""What a restored image is measured by, and tables of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.networks.perception import FEATURES, LPIPS, distances
from scenelift.models.whole import Images
from scenelift.pipeline.scores.bootstrap import Interval, interval
from scenelift.pipeline.scores.registry import decibels
from scenelift.pipeline.scores.scores import Convention, block_statistics, scores
from scenelift.pipeline.scores.sums import Coarse
from scenelift.workflows.evidence.score import plain

PERCEPTUAL = {FEATURES: ("features", 3), LPIPS: ("LPIPS", 3)}
"""Distances by networks, where their weights are installed: heading and decimals. No sums over blocks: no `Score`."""
SHOWN = ("psnr", "ssim")
"""Scores of an evaluation's table."""


def measure(
    reference: NDArray[np.float32],
    restored: NDArray[np.float32],
    scale: int,
    data_range: float,
    names: tuple[str, ...] | None = None,
    border: int | None = None,
    coarse: NDArray[np.float32] | None = None,
) -> dict[str, float]:
    """Return the scores of one image.

    Parameters
    ----------
    reference, restored : ndarray of float32, shape (C, H, W)
        Reflectance.
    scale : int
        Of the super-resolution, 1 for others.
    data_range : float
        Full scale, reflectance.
    names : sequence of str, optional
        Scores wanted; default: all that are known, and the perceptual distances of colour images.
    border : int, optional
        Pixels left out on every side; default: the scale, but at least 2.
    coarse : ndarray of float32, shape (C, H / scale, W / scale), optional
        What was super-resolved: then opensr-test's measures are among the scores. Not with a border of one's own.
    """
    x, y = (inside(image, scale, border) for image in (reference, restored))
    summed = None if names is None else tuple(name for name in names if name not in PERCEPTUAL)
    convention = Convention(data_range, scale, summed)
    low = None if coarse is None else Coarse.whole(inside(coarse, scale, max(2, scale) // scale), scale)
    values = scores(block_statistics(x, y, convention=convention, coarse=low), convention).values
    if len(x) == 3:
        wanted = {n: d for n, d in distances().items() if names is None or n in names}
        pair = [torch.from_numpy(image)[None] for image in (y, x)]
        values |= {name: float(distance(*pair)) for name, distance in wanted.items()}
    return values


def inside(images: NDArray[np.float32], scale: int, border: int | None = None) -> NDArray[np.float32]:
    """Return images (..., H, W) without the pixels of the border, by default the scale but at least 2."""
    edge = max(2, scale) if border is None else border
    return np.ascontiguousarray(images[..., edge : images.shape[-2] - edge, edge : images.shape[-1] - edge])


def psnrs(reference: Images, restored: Images, scale: int, data_range: float) -> NDArray[np.float64]:
    """Return the PSNR (N,) of each of images (N, C, H, W), see `measure`."""
    pairs = zip(reference, restored, strict=True)
    return np.array([measure(x, y, scale, data_range, ("psnr",))["psnr"] for x, y in pairs])


@dataclass(frozen=True)
class Row:
    """One method's figures."""

    method: str
    psnr: float
    """dB, mean over images."""
    pooled: float
    """dB, of the mean squared error over all images."""
    ssim: float
    against: Interval | None
    """Mean paired PSNR difference to the table's baseline, and its 95 % bootstrap interval."""
    consistency: float | None
    """Mean absolute difference between the degraded prediction and the input, reflectance."""
    seconds: float
    features: float | None = None
    """Distance to the reference by the features of a trunk; lower is nearer."""
    frechet: float | None = None
    """Fréchet distance of the trunk's features between predictions and references, as sets (the form of FID)."""
    lpips: float | None = None
    """LPIPS, where its weights are installed."""
    spearman: float | None = None
    """Rank correlation of the self-ensemble's standard deviation with the absolute error."""
    beyond: Interval | None = None
    """Mean paired PSNR difference of a hybrid to the best of its parts alone, and its interval."""


def row_of(
    method: str,
    restored: Images,
    reference: Images,
    scale: int,
    data_range: float,
    baseline: NDArray[np.float64] | None = None,
    places: NDArray[np.int64] | None = None,
    part: NDArray[np.float64] | None = None,
    **more: Any,
) -> Row:
    """Measure a method's images.

    Parameters
    ----------
    method : str
    restored, reference : ndarray of float32, shape (N, C, H, W)
    scale, data_range
        As for `measure`.
    baseline : ndarray, shape (N,), optional
        PSNR of each image by the method to compare with.
    places : ndarray of int, shape (N,), optional
        Which images are drawn together where intervals are made (of one scene); default: each by itself.
    part : ndarray, shape (N,), optional
        PSNR of each image by the best part of a hybrid.
    **more
        Fields of the row measured otherwise.
    """
    names = (*SHOWN, *PERCEPTUAL)
    each = [measure(x, y, scale, data_range, names) for x, y in zip(reference, restored, strict=True)]
    values = {name: np.array([figures[name] for figures in each]) for name in each[0]}
    psnr = values["psnr"]
    return Row(
        method,
        pooled=float(decibels(np.asarray(np.mean(10 ** (-psnr / 10))))),
        against=None if baseline is None else interval(psnr - baseline, places),
        beyond=None if part is None else interval(psnr - part, places),
        **{name: float(column.mean()) for name, column in values.items()},
        **more,
    )


def to_markdown(rows: Sequence[Row], baseline: str) -> str:
    """Return the table as Markdown; columns without a figure are left out."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("method", lambda r: r.method),
        ("PSNR dB", lambda r: f"{r.psnr:.2f}"),
        ("pooled", lambda r: f"{r.pooled:.2f}"),
        ("SSIM", lambda r: f"{r.ssim:.4f}"),
        (f"against {baseline} (95 %)", lambda r: _gap(r.against)),
        ("against its best part", lambda r: _gap(r.beyond)),
        ("consistency", lambda r: "" if r.consistency is None else f"{r.consistency:.1e}"),
        ("features", lambda r: "" if r.features is None else f"{r.features:.3f}"),
        ("Fréchet", lambda r: "" if r.frechet is None else f"{r.frechet:.3f}"),
        ("LPIPS", lambda r: "" if r.lpips is None else f"{r.lpips:.3f}"),
        ("deviation/error", lambda r: "" if r.spearman is None else f"{r.spearman:.2f}"),
        ("s", lambda r: f"{r.seconds:.0f}"),
    ]
    shown = [(title, cell) for title, cell in columns if any(cell(row) for row in rows)]
    lines = [[title for title, _ in shown], ["---"] * len(shown)]
    lines += [[cell(row) for _, cell in shown] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gap(gap: Interval | None) -> str:
    return "" if gap is None else f"{gap.mean:+.2f} ({gap.low:+.2f}..{gap.high:+.2f})"


def print_rows(rows: Sequence[Row], title: str, peak: float, baseline: str, as_json: bool) -> None:
    """Print a table for people, or one JSON object."""
    if as_json:
        facts = [
            {k: list(astuple(v)) if isinstance(v, Interval) else plain(v) for k, v in vars(r).items()} for r in rows
        ]
        print(json.dumps({"sample": title, "peak": peak, "rows": facts}))
    else:
        print(f"{title}; full scale {peak:.4g} reflectance\n\n{to_markdown(rows, baseline)}")
