"""What a super-resolution job may be expected to gain, measured on the scene itself one level coarser.

Wald's protocol (Wald, Ranchin and Mangolini, PE&RS 63(6), 1997) on a few windows: blur them as the scene is blurred,
keep every k-th pixel, bring the noise back to the scene's level, run the job's own models, and compare with the window.
The same once more, two levels coarser, says which way the gain goes from level to level.
Where the blur was estimated, every window is blurred by another of the blurs that the scene may have, as often as they
are likely, while the models are told the estimate: so a doubtful estimate is seen in the interval.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.classical.classical import classical
from scenelift.models.sensing.blurs import Blur, decimate, middle_transfer
from scenelift.pipeline.enhance import Enhancer, Region, enhance_region
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.scenes import Readable, read_ahead
from scenelift.pipeline.scores.bootstrap import Interval, sums
from scenelift.pipeline.tiles import Window
from scenelift.workflows.conditions import Conditions

REFERENCES = ("bicubic", "lanczos", "ibp")
"""Methods without learning that a job is compared with."""
OURS = "ours"
COARSE = 128
"""Side of a window, coarse pixels."""
SHARE = 0.02
"""Share of the scene's pixels that are tried."""
FEWEST, MOST = 4, 16
"""Windows tried of a scene."""
MIN_COARSE = 24
LEAST = 24
"""Side below which a window is not shrunk again, coarse pixels."""
RULE = (0.68, 0.19, 0.49)
"""Gain = 0.68 g1 + 0.19 (g1 - g2) + 0.49 min(max(g1, 0), 1), of gains (dB) one and two levels coarser. Fitted (least
absolute deviations) on 208 crops of 45 places that the estimator of blur had not seen, shrunk by every blur and
resampling, half of them noisy. By the estimator of today, of places left out of its training, it is within 0.5 dB in
62 % of 416, and too high by 0.1 dB on the mean; more features (blur, its doubt, the predicted error) did not help."""
RULE_ERRS = (0.8, 0.5)
"""By how much (dB) the rule may err, and how much more for each dB promised above the first: the interval then held the
true gain of 93 % of 120 crops, half of them of places left out of the estimator's training."""
MOST_RATIO = 4.0
"""By how much coarse detail may stand out more than fine detail."""


@dataclass(frozen=True)
class Doubt:
    """A resampling that may have made the pixels, though the models are told another blur."""

    blur: str
    chance: float
    """Its probability, 0 to 1."""
    gain_db: float
    """What the job would then gain over Lanczos, tried one level coarser."""

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.gain_db:+.1f} dB if the pixels were made by {self.blur} ({self.chance:.0%} likely)"


@dataclass(frozen=True)
class Expectation:
    """Gain in PSNR, and how well the result agrees with what it was made from."""

    gain_db: dict[str, Interval]
    """Over each of ``REFERENCES``: mean over windows with its 95 % interval."""
    consistency: float
    """Root mean square difference (reflectance) between the input and the blurred, decimated result."""
    windows: int
    seconds: float
    doubts: tuple[Doubt, ...] = ()
    """Where the blur was estimated: what it may be as well, and would cost the job its gain."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @property
    def worse(self) -> bool:
        """Whether the job is not expected to beat Lanczos."""
        return self.gain_db["lanczos"].mean <= 0

    def describe(self) -> str:
        """Return one line for people."""
        gains = ", ".join(f"{self.gain_db[name]} dB over {name}" for name in REFERENCES)
        verdict = "expected gain "
        if self.worse:
            verdict = "EXPECTED TO BE WORSE THAN LANCZOS: "
        elif self.gain_db["lanczos"].low < 0 or self.doubts:
            verdict = "NOT SURE TO BE BETTER THAN LANCZOS: "
        doubts = "".join(f"; {doubt.describe()}: give --blur if you know it" for doubt in self.doubts)
        return f"{verdict}{gains} ({self.windows} windows one level coarser){doubts}"


def expect(
    scene: Readable, enhancers: Sequence[Enhancer], conditions: Conditions, seconds: float = math.inf
) -> Expectation | None:
    """Try a chain of models on the scene one level coarser.

    Parameters
    ----------
    scene : Readable
    enhancers : sequence of Enhancer
        The job's models, told the scene's conditions.
    conditions : Conditions
    seconds : float
        After so many no further window is begun, once there are two.

    Returns
    -------
    Expectation or None
        None if the scene holds no window to try it on: too small, masked, or flat everywhere.

    Raises
    ------
    UsageError
        If the chain does not enlarge: there is no coarser level to try it on.
    """
    started, scale = time.monotonic(), int(np.prod([e.spec.scale for e in enhancers]))
    if scale == 1:
        raise UsageError("only what enlarges can be tried one level coarser: add a super-resolution model")
    plausible = conditions.plausible(MOST)
    trials: list[_Trial] = []
    first: list[NDArray[np.float32]] = []
    for number, fine in enumerate(_windows(scene, scale)):
        if number >= 2 and time.monotonic() - started > seconds:
            break
        trials.append(_try(fine, enhancers, plausible[number], conditions.noise, scale, number))
        first += [fine] if number < 2 else []
    if not trials:
        return None
    gains = {name: _gain(name, trials) for name in REFERENCES}
    consistency = float(np.sqrt(np.mean([trial.residual for trial in trials])))
    doubts = [_doubt(*other, first, enhancers, conditions.noise, scale) for other in conditions.others()]
    costly = tuple(doubt for doubt in doubts if doubt.gain_db <= 0)
    return Expectation(gains, consistency, len(trials), time.monotonic() - started, costly)


def _doubt(
    blur: Blur,
    chance: float,
    windows: Sequence[NDArray[np.float32]],
    enhancers: Sequence[Enhancer],
    noise: Sequence[float],
    scale: int,
) -> Doubt:
    """Try the models, told what they are told, on windows that were shrunk in another way."""
    trials = [_try(fine, enhancers, [blur] * len(fine), noise, scale, number, 1) for number, fine in enumerate(windows)]
    theirs, ours = (sum(trial.levels[0][key] for trial in trials) for key in ("lanczos", OURS))
    return Doubt(blur.describe(), chance, round(float(10 * np.log10(theirs / ours).mean()), 2))


@dataclass(frozen=True)
class _Trial:
    """What one window gave."""

    levels: tuple[dict[str, NDArray[np.float64]], ...]
    """Mean squared error of each band by method, one level coarser and, where the window is large enough, two."""
    residual: float
    """Mean squared difference between the input and the degraded result."""


def _try(
    fine: NDArray[np.float32],
    enhancers: Sequence[Enhancer],
    blurs: Sequence[Blur],
    noise: Sequence[float],
    scale: int,
    seed: int,
    depth: int = 2,
) -> _Trial:
    """Run the models and the classical methods on a window (C, H, W) that was shrunk, once and so on to `depth`."""
    kernels = [blur.kernel(scale) for blur in blurs]
    levels: list[dict[str, NDArray[np.float64]]] = []
    residual = 0.0
    while not levels or (len(levels) < depth and min(fine.shape[1:]) >= LEAST * scale):
        low = decimate(torch.from_numpy(fine)[None], scale, [kernels])[0].numpy()
        low = low + _missing_noise(fine, low, kernels, noise, seed)
        ours = run_chain(enhancers, low)
        if not levels:
            again = decimate(torch.from_numpy(ours)[None], scale, [kernels])[0].numpy()
            residual = float(np.mean((again - low) ** 2))
        errors = {OURS: squared_errors(ours, fine, scale, noise)}
        for name in REFERENCES:
            known: Any = {"mtf": middle_transfer(blurs, scale)} if name == "ibp" else {}
            errors[name] = squared_errors(run_chain([classical(name, scale, **known)], low), fine, scale, noise)
        levels.append(errors)
        height, width = (n // scale * scale for n in low.shape[1:])
        fine = low[:, :height, :width]
    return _Trial(tuple(levels), residual)


def _gain(name: str, trials: Sequence[_Trial]) -> Interval:
    """Return the gain (dB) that the scene itself promises, from those one and two levels coarser.

    All windows count together, as in the PSNR of a whole scene. The interval is over draws of windows, and wider by
    what the rule errs.
    """
    depth = min(len(trial.levels) for trial in trials)
    whole, drawn = [], []
    for level in range(depth):
        theirs, ours = (np.stack([trial.levels[level][key] for trial in trials]) for key in (name, OURS))
        top, bottom = sums(len(trials), 0, theirs, ours)
        drawn.append(10 * np.log10(top / bottom).mean(1))
        whole.append(np.atleast_1d(10 * np.log10(theirs.sum(0) / ours.sum(0)).mean()))
    gain = float(_rule(whole)[0])
    low, high = np.percentile(_rule(drawn), [2.5, 97.5])
    errs = RULE_ERRS[0] + RULE_ERRS[1] * max(gain - 1, 0)
    return Interval(gain, gain - math.hypot(gain - float(low), errs), gain + math.hypot(float(high) - gain, errs))


def _rule(gains: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the gain (dB) of the scene from those one and, where it was tried, two levels coarser."""
    first, last = gains[0], gains[-1]
    share, slope, more = RULE
    return share * first + slope * (first - last) + more * np.clip(first, 0, 1)


def pixels_tried(shape: tuple[int, int], scale: int) -> int:
    """Return how many pixels of a band the models make something of when a scene of this shape is tried.

    Parameters
    ----------
    shape : (int, int)
        Height and width.
    scale : int
        By which the models enlarge.
    """
    coarse, windows = _plan_windows(shape, scale)
    levels = [coarse] + [coarse // scale] * (coarse >= LEAST * scale)
    return windows * sum(side**2 for side in levels)


def _plan_windows(shape: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return the side of a window in coarse pixels, and how many are tried; none of a scene that is too small."""
    coarse = min(COARSE, max(min(shape) // (2 * scale), MIN_COARSE))  # small scenes: several windows too
    if min(shape) < coarse * scale:
        return coarse, 0
    return coarse, int(np.clip(SHARE * math.prod(shape) / (coarse * scale) ** 2, FEWEST, MOST))


def _windows(scene: Readable, scale: int) -> Iterator[NDArray[np.float32]]:
    """Yield windows (C, H, W) without missing pixels, spread over the scene."""
    height, width = scene.grid.shape
    coarse, wanted = _plan_windows(scene.grid.shape, scale)
    if not wanted:
        return
    side = coarse * scale
    each = int(np.ceil(np.sqrt(2 * wanted)))
    rows, cols = (sorted({round(p) for p in np.linspace(0, n - side, each)}) for n in (height, width))
    corners = [(row, col) for row in rows for col in cols]
    order = np.random.default_rng(0).permutation(len(corners))
    regions = read_ahead(scene, (Window(*corners[int(index)], side, side) for index in order))
    useful = (r.values for r in regions if r.valid.all() and r.values.std((1, 2)).max() > 1e-3)
    yield from itertools.islice(useful, wanted)


def _missing_noise(
    fine: NDArray[np.float32],
    low: NDArray[np.float32],
    kernels: Sequence[NDArray[np.float64]],
    noise: Sequence[float],
    seed: int,
) -> NDArray[np.float32]:
    """Return the noise to add to a coarse window, so that its detail stands out of the noise as the scene's does.

    Blurring took noise away, and shrinking made the detail coarser, which is stronger.
    """
    sigma = np.asarray(noise)
    left = sigma * np.array([(k**2).sum() for k in kernels])  # of white noise, in standard deviations
    ratio = np.sqrt(np.clip(_detail(low, left) / _detail(fine, sigma), 1, MOST_RATIO**2))
    missing = np.sqrt(np.maximum((ratio * sigma) ** 2 - left**2, 0))
    return (missing[:, None, None] * np.random.default_rng(seed).standard_normal(low.shape)).astype(np.float32)


def _detail(image: NDArray[np.float32], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of differences of neighbours in each band, less that of the noise."""
    found = sum(np.mean(np.diff(image.astype(np.float64), axis=axis) ** 2, (1, 2)) for axis in (1, 2)) / 2
    return np.maximum(found - 2 * sigma**2, 0.1 * found) + 1e-12


def run_chain(enhancers: Sequence[Enhancer], image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run models one after the other over a whole image (C, H, W) of reflectance, as the engine does."""
    whole = Window(0, 0, *image.shape[1:])
    region = Region(whole, image, np.ones(image.shape, bool))
    return enhance_region(region, whole, whole.shape, enhancers, masked=False).values


def squared_errors(
    image: NDArray[np.float32], fine: NDArray[np.float32], border: int, noise: Sequence[float]
) -> NDArray[np.float64]:
    """Return the mean squared error of each band, less what the noise of the window itself makes of it."""
    inner = (slice(None), slice(border, -border), slice(border, -border))
    found = np.mean((image[inner] - fine[inner]).astype(np.float64) ** 2, (1, 2))
    return np.maximum(found - np.square(noise), 0.05 * found) + 1e-14
