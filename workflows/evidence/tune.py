"""Choose the classical methods' parameters on validation images: ``python -m scenelift.workflows.evidence.tune``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scenelift.models.classical.classical import classical
from scenelift.models.whole import Images, run_whole
from scenelift.workflows.evidence.cases import Degradation
from scenelift.workflows.evidence.metrics import measure
from scenelift.workflows.evidence.samples import Sample, read_sample

NOISE = ("noise5", "noise15", "noise25")
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


Degraded = tuple[int, Images, NDArray[np.float32]]
"""Scale, images (N, C, H, W), and their noise (N, C)."""


def trials(name: str, sample: Sample) -> Iterator[tuple[dict[str, float | str], list[float]]]:
    """Yield every combination of a method's grid with its PSNR (dB, mean of images) for each degradation."""
    degraded = list(_degraded(name, sample))
    for values in itertools.product(*GRIDS[name].values()):
        params = dict(zip(GRIDS[name], values, strict=True))
        yield params, [_score(name, params, sample, *images) for images in degraded]


def _degraded(name: str, sample: Sample) -> Iterator[Degraded]:
    if name == "lee":
        draw = np.random.default_rng(0).gamma(LOOKS, 1 / LOOKS, sample.images.shape).astype(np.float32)
        yield 1, sample.images * draw, np.zeros(sample.images.shape[:2], np.float32)
        return
    for case in (Degradation(2), Degradation(4)) if name == "ibp" else map(Degradation.parse, NOISE):
        yield case.scale, *case.apply(sample.images, sample.bands, sample.level)


def _score(
    name: str, params: dict[str, float | str], sample: Sample, scale: int, low: Images, sigma: NDArray[np.float32]
) -> float:
    fixed: dict[str, float | str] = {"looks": LOOKS} if name == "lee" else {}
    restored = run_whole(classical(name, scale, None, **params, **fixed), low, sigma)
    pairs = zip(sample.images, restored, strict=True)
    return float(np.mean([measure(x, y, scale, sample.peak, ("psnr",))["psnr"] for x, y in pairs]))


def main(each: int = 3) -> None:
    """Print each method's combinations, best first."""
    sample = read_sample(each=each)
    for name in GRIDS:
        ranked = sorted(trials(name, sample), key=lambda trial: -float(np.mean(trial[1])))
        for params, values in ranked[:4]:
            print(f"{name:10} {np.mean(values):.3f}  {' '.join(f'{v:.2f}' for v in values)}  {params}", flush=True)


if __name__ == "__main__":
    main()
