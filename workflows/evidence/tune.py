"""Choose the classical methods' parameters on validation images: ``python -m scenelift.workflows.evidence.tune``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from scenelift.models.classical.classical import classical
from scenelift.pipeline.scores.scores import Convention, block_statistics, scores
from scenelift.workflows.evaluation_images import (
    LEVEL,
    Image,
    enhance_image,
    shrunk,
    validation_images,
    with_noise,
)

FULL_SCALE = 255 * LEVEL
NOISE = (5, 15, 25)
"""Levels of noise, 8-bit."""
LOOKS = 4

GRIDS: dict[str, dict[str, list[float | str]]] = {
    "ibp": {"kernel": ["bilinear", "bicubic", "lanczos"], "steps": [2, 4, 8, 12], "gain": [1.0, 1.5]},
    "bilateral": {"color": [1.5, 2.0, 2.5, 3.0, 4.0], "spatial": [0.8, 1.2, 1.6, 2.0]},
    "wavelet": {"family": ["haar", "db2", "sym4"], "shifts": [1, 3], "gain": [0.9, 1.0, 1.1]},
    "nlm": {"strength": [0.4, 0.6, 0.8, 1.0], "size": [3, 5], "distance": [5, 8]},
    "tv": {"weight": [0.7, 0.8, 0.9, 1.0], "steps": [30, 60, 100]},
    "wiener": {"size": [3, 5, 7, 9], "gain": [1.0, 1.2, 1.4, 1.6]},
    "median": {"size": [3, 5]},
    "lee": {"size": [7, 9, 11, 13, 15]},
}
"""What is tried; the method's defaults are the best of it."""


def trials(name: str, images: list[Image]) -> Iterator[tuple[dict[str, float | str], list[float]]]:
    """Yield every combination of a method's grid with its PSNR (dB, mean of images) for each degradation."""
    pairs = _degraded(name, images)
    for values in itertools.product(*GRIDS[name].values()):
        params = dict(zip(GRIDS[name], values, strict=True))
        yield params, [_score(name, params, sigma, scale, rows) for sigma, scale, rows in pairs]


def _degraded(name: str, images: list[Image]) -> list[tuple[float | None, int, list[tuple[Image, Image]]]]:
    if name == "ibp":
        return [(None, scale, [(x, shrunk(x, scale)) for x in images]) for scale in (2, 4)]
    if name == "lee":
        draws = [np.random.default_rng(i).gamma(LOOKS, 1 / LOOKS, x.shape) for i, x in enumerate(images)]
        return [(None, 1, [(x, (x * draw).astype(np.float32)) for x, draw in zip(images, draws, strict=True)])]
    levels = [level * LEVEL for level in NOISE]
    return [(s, 1, [(x, with_noise(x, s, seed=i)) for i, x in enumerate(images)]) for s in levels]


def _score(
    name: str, params: dict[str, float | str], sigma: float | None, scale: int, pairs: list[tuple[Image, Image]]
) -> float:
    fixed: dict[str, float | str] = {"looks": LOOKS} if name == "lee" else {}
    method = classical(name, scale, sigma, **params, **fixed)
    convention = Convention(FULL_SCALE, windows=False)
    values = []
    for truth, degraded in pairs:
        border = (slice(None), slice(scale, -scale), slice(scale, -scale))
        sums = block_statistics(truth[border], enhance_image(method, degraded)[border], convention=convention)
        values.append(scores(sums, convention).psnr)
    return float(np.mean(values))


def main(each: int = 3) -> None:
    """Print each method's combinations, best first."""
    images, _ = validation_images(each)
    for name in GRIDS:
        ranked = sorted(trials(name, images), key=lambda trial: -float(np.mean(trial[1])))
        for params, values in ranked[:4]:
            print(f"{name:10} {np.mean(values):.3f}  {' '.join(f'{v:.2f}' for v in values)}  {params}", flush=True)


if __name__ == "__main__":
    main()
