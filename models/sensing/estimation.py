"""How blurred and how noisy a band is, from its pixels alone.

Spectrum, gradients and the profiles of edges of many small tiles, pooled, go through a small fully connected network
that was trained on images degraded in known ways. Everything is numpy in float64, so that the same pixels give the same
numbers on every machine but for the last bits, and these are rounded away.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from scenelift.models.sensing.blurs import KINDS, Blur

WEIGHTS = Path(__file__).with_suffix(".safetensors")
Array = NDArray[np.float64]

TILE = 32
"""Side of the tiles whose statistics are pooled; smaller images are one tile."""
MIN_SIDE = 16
MAX_TILES = 512
EDGES = (0.05, 0.11, 0.17, 0.23, 0.29, 0.35, 0.41, 0.47, 0.55, 0.72)
"""Limits of the rings of the spectrum, cycles a pixel."""
QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
FLOOR = 1e-9
FLAT = 3e-4
"""Standard deviation (reflectance) below which a tile tells nothing: calm water, the inside of clouds."""
BRIGHT = 0.5
"""Mean reflectance above which a tile is taken for cloud, and left out if enough others remain."""
MIN_TILES = 16
TRANSFERS = tuple(round(0.05 * i, 2) for i in range(1, 13))
"""Transfers at Nyquist between which Gaussian blurs are told apart."""
SIGMA_UNIT = 2e-4
DOUBT = 0.02
"""Probability shared by all candidates: no blur is impossible. On places left out of the training the probabilities are
otherwise right as they are (of divisors of the logits from 1 to 2, 1 has the best likelihood and the least cost)."""
ALIKE = 0.06
"""Standard deviation by which the transfers of one sensor's bands differ."""
OTHERS = 3
"""Bands that count for a band beside its own pixels, at most: all show the same ground."""
DOUBT_OF_ALL = 0.05
"""As ``DOUBT``, of what the bands say together. On left-out places (300 crops of one to four bands) 71 % of the choices
lie within .05 of the true transfer; 66 % where each band is told by its own pixels alone."""
CANDIDATES = (*(Blur("gaussian", mtf) for mtf in TRANSFERS), *(Blur(kind) for kind in KINDS[1:]))
"""Blurs between which an estimate decides."""


def features(tiles: Array) -> Array:
    """Return what tells blur and noise of a set of tiles.

    Parameters
    ----------
    tiles : ndarray
        (n, H, W) reflectance of one band, no missing pixels; H, W at least ``MIN_SIDE``.

    Returns
    -------
    ndarray, shape (F,)
    """
    centred = tiles - tiles.mean((1, 2), keepdims=True)
    spread = centred.std((1, 2)) + 1e-6
    size = np.log2([tiles.shape[1] / TILE])  # what small tiles show is coarser
    return np.concatenate(
        [_spectrum(centred), _gradients(centred, spread), _edges(centred), _noise(centred, spread), size]
    )


@functools.cache
def _rings(height: int, width: int) -> tuple[Array, Array]:
    """Return the Hann window (H, W) and the masks (R, H, W / 2 + 1) of rings and corners of the spectrum."""
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    fy, fx = np.abs(np.fft.fftfreq(height))[:, None], np.abs(np.fft.rfftfreq(width))[None]
    radius = np.hypot(fy, fx)
    rings = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(EDGES)]
    low, high = np.minimum(fy, fx), np.maximum(fy, fx)
    rings += [(high > 0.42) & (low < 0.12), (low > 0.26) & (high < 0.4), (low > 0.4), (high > 0.44) & (low < 0.06)]
    masks = np.stack(rings).astype(np.float64)
    return window, masks / masks.sum((1, 2), keepdims=True)


def _spectrum(centred: Array) -> Array:
    window, masks = _rings(*centred.shape[1:])
    power = np.abs(np.fft.rfft2(centred * window)) ** 2
    rings = np.einsum("nhw,rhw->nr", power, masks) + FLOOR**2
    pooled = np.log(rings.mean(0))
    middle = np.median(np.log(rings), 0)
    busy = np.log(rings[np.argsort(rings[:, 1])[-max(1, len(rings) // 4) :]].mean(0))
    return np.concatenate([kind - kind[1] for kind in (pooled, middle, busy)]) / 3


def _gradients(centred: Array, spread: Array) -> Array:
    x = centred / spread[:, None, None]
    both = (x, x.transpose(0, 2, 1))
    orders = [np.concatenate([np.abs(np.diff(axis, n, 2)).ravel() for axis in both]) for n in (1, 2, 3)]
    energies = np.array([np.mean(order**2) for order in orders]) + FLOOR
    found = [np.log(np.quantile(order, QUANTILES) + 1e-4) for order in orders]
    lag = [np.mean([(a[:, :, k:] * a[:, :, :-k]).mean() for a in (np.diff(b, 1, 2) for b in both)]) for k in (1, 2, 3)]
    return np.concatenate([*found, np.log(energies[1:] / energies[:-1]), np.array(lag) / energies[0]])


def _edges(centred: Array) -> Array:
    """Return the mean profile of the strongest steps: gradients beside the peak over the peak."""
    profiles = []
    for x in (centred, centred.transpose(0, 2, 1)):
        steps = np.diff(x, 1, 2)
        inner = steps[:, :, 4:-4]
        size = np.abs(inner)
        peak = (size >= np.abs(steps[:, :, 3:-5])) & (size >= np.abs(steps[:, :, 5:-3]))
        strong = peak & (size >= np.quantile(size, 0.96)) & (size > 0)
        n, i, j = np.nonzero(strong)
        top = inner[n, i, j]
        profiles.append(
            np.stack([(steps[n, i, j + 4 + k] + steps[n, i, j + 4 - k]) / (2 * top) for k in (1, 2, 3, 4)], 1)
        )
    every = np.concatenate(profiles)
    if len(every) < 4:
        return np.zeros(12)
    return np.concatenate([every.mean(0), np.quantile(every, 0.25, 0), np.quantile(every, 0.75, 0)])


def _noise(centred: Array, spread: Array) -> Array:
    """Return levels of what is left after removing planes of 3 x 3 pixels (Immerkaer, CVIU 64(2), 1996)."""
    x = centred
    rows = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
    residual = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    level = np.sqrt((residual**2).mean((1, 2))) / 6 + 1e-6
    middle = np.median(np.abs(residual), (1, 2)) / 6 / 0.6745 + 1e-6
    quiet = np.quantile(level, (0.05, 0.25, 0.5, 0.9))
    calm = np.quantile(middle, (0.05, 0.25, 0.5, 0.9))
    return np.log2(np.concatenate([quiet, calm, np.quantile(spread, (0.05, 0.5, 0.95))]) / 1e-3) / 3


@dataclass(frozen=True)
class BlurEstimate:
    """What was found in a band."""

    blur: Blur
    sigma: float
    """Standard deviation of the noise, reflectance."""
    certainty: float
    """Probability of the kind of blur that was chosen, 0 to 1."""
    chances: tuple[float, ...]
    """Probability of each of ``CANDIDATES``."""


def estimate_blur(bands: Sequence[Array]) -> tuple[BlurEstimate | None, ...]:
    """Return the blur and the noise of each band of a scene; the bands have one kind of blur, and much the same.

    Of the blurs that a band may have, the one is chosen that costs least on average if a network is told it: too strong
    a blur costs far more (what was sharp is sharpened again) than too weak a one.

    Parameters
    ----------
    bands : sequence of ndarray
        For each band (n, H, W) tiles without missing pixels, reflectance, see `cut_tiles`.

    Returns
    -------
    tuple of BlurEstimate or None
        None for a band with nothing to tell it by: no tile, or only flat ones.
    """
    found = [_chances(tiles) for tiles in bands]
    known = [each for each in found if each is not None]
    if not known:
        return (None,) * len(bands)
    pooled = _pooled(np.array([chances for chances, _ in known]))
    costs = pooled @ _weights()["regret"]
    choices = np.mean([[cost[: len(TRANSFERS)].min(), *cost[len(TRANSFERS) :]] for cost in costs], 0)
    which = int(choices.argmin())
    certainty = round(float(_of_kinds(pooled.mean(0))[which]), 3)
    chosen = iter(
        BlurEstimate(_chosen(cost, which), sigma, certainty, tuple(np.round(chances, 4).tolist()))
        for cost, chances, (_, sigma) in zip(costs, pooled, known, strict=True)
    )
    return tuple(each and next(chosen) for each in found)


def _pooled(chances: Array) -> Array:
    """Return the probabilities (bands, candidates) of each band given all: a sensor's bands are blurred much alike."""
    logs = np.log(chances)
    if len(chances) > 1:
        told = np.log(chances @ _alike() + 1e-4)
        logs += min(1, OTHERS / (len(chances) - 1)) * (told.sum(0) - told)
    return (1 - DOUBT_OF_ALL) * np.array([_softmax(row) for row in logs]) + DOUBT_OF_ALL / len(CANDIDATES)


@functools.cache
def _alike() -> Array:
    """Return how likely a band has one blur (column) if another has another (row): of one kind, with transfers near."""
    transfer = np.array([blur.at_nyquist(2) for blur in CANDIDATES])
    kind = np.array([KINDS.index(blur.kind) for blur in CANDIDATES])
    near = np.exp(-((transfer[:, None] - transfer) ** 2) / (2 * ALIKE**2)) * (kind[:, None] == kind)
    return near / near.sum(1, keepdims=True)


def quantile(chances: Sequence[float], at: float) -> Blur:
    """Return the blur at a quantile (0 to 1) of a band's ``CANDIDATES``, the strongest blur first."""
    order = sorted(range(len(CANDIDATES)), key=lambda index: CANDIDATES[index].at_nyquist(2))
    below = np.cumsum([chances[index] for index in order])
    return CANDIDATES[order[min(int(np.searchsorted(below, at * below[-1])), len(order) - 1)]]


def _of_kinds(chances: Array) -> Array:
    """Return the probability of each of ``KINDS``."""
    return np.concatenate([[chances[: len(TRANSFERS)].sum()], chances[len(TRANSFERS) :]])


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    found: Array = powers / powers.sum()
    return found


def _chosen(cost: Array, which: int) -> Blur:
    """Return the cheapest blur of a kind; between transfers where a parabola through three costs has its bottom."""
    if which:
        return Blur(KINDS[which])
    at = int(cost[: len(TRANSFERS)].argmin())
    step = 0.0
    if 0 < at < len(TRANSFERS) - 1:
        left, middle, right = cost[at - 1 : at + 2]
        bend = left - 2 * middle + right
        step = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return Blur("gaussian", round(float(TRANSFERS[at] + step * (TRANSFERS[1] - TRANSFERS[0])), 3))


def outputs(x: Array, weights: dict[str, Array]) -> Array:
    """Run the network on the features (F,) of one set of tiles; return logits of the blurs, and the noise's code."""
    x = np.clip((x - weights["mean"]) / weights["deviation"], -5, 5)
    for layer in ("first", "second"):
        x = weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"]
        x = x / (1 + np.exp(-x))  # SiLU
    found: Array = weights["last.weight"] @ x + weights["last.bias"]
    return found


def _chances(tiles: Array) -> tuple[Array, float] | None:
    """Return the probabilities of the Gaussians and the other kinds, and the noise; None if nothing is to be seen."""
    if not len(tiles) or min(tiles.shape[1:]) < MIN_SIDE:
        return None
    busy = tiles[tiles.std((1, 2)) > FLAT]
    clear = busy[busy.mean((1, 2)) < BRIGHT]
    busy = clear if len(clear) >= MIN_TILES else busy
    if not len(busy):
        return None
    logits = outputs(features(busy.astype(np.float64)), _weights())
    chances = (1 - DOUBT) * _softmax(logits[:-1]) + DOUBT / len(CANDIDATES)
    return chances, round((2 ** max(float(logits[-1]), 0.0) - 1) * SIGMA_UNIT, 6)


def cut_tiles(values: NDArray[np.floating], valid: NDArray[np.bool_] | None = None) -> Array:
    """Cut a band (H, W) into tiles without missing pixels; of more than ``MAX_TILES`` every n-th is kept."""
    height, width = values.shape
    side = min(TILE, height, width)
    rows, cols = height // side, width // side

    def cut(array: NDArray[np.generic]) -> NDArray[np.generic]:
        whole = array[: rows * side, : cols * side].reshape(rows, side, cols, side)
        return whole.transpose(0, 2, 1, 3).reshape(-1, side, side)

    tiles = cut(values).astype(np.float64)
    if valid is not None:
        tiles = tiles[cut(valid).all((1, 2))]
    return tiles[:: max(1, -(-len(tiles) // MAX_TILES))]


@functools.cache
def _weights() -> dict[str, Array]:
    with safe_open(WEIGHTS, framework="numpy") as file:
        return {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118 - no dict
