"""How much of the measured differences of lines is stripes: Wiener's filter for all bands and lines together.

Stripes are white: each line is off by itself, and each band. Ground is the stronger, the slower it changes across the
lines, and bands share it. So fine changes say how strong stripes are, groups of rows that differ say how much ground is
in their mean, and what is more than stripes at a frequency is ground, too. A scene without stripes stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from scenelift.models.fitted.detectors import Steps

Array = NDArray[np.float64]
FINE = 0.25
"""Frequency across the lines, as a share of the highest, above which the strength of the stripes is found."""
SLOW = 0.04
"""Frequency below which all steps are taken alike: what changes so slowly need not be of the ground's texture."""
MORE = 1.8
"""Variance of a mean over what its groups of rows say: weights follow pixels, which pulls each group to the mean."""
TRUST = 0.3
"""How much the groups of rows count for the ground at a frequency, beside all that is found there."""
SMOOTH = 13
"""The ground is smoothed over a window of all frequencies over this, twice."""
ROUNDS, LEAST = 30, 1e-14
"""Steps in which strength and ground are found, and the least variance."""
FEWEST_STEPS = 8
"""Steps that must be known."""
NEAR, MOST = 1e-4, 60
"""Where the solution for all lines ends: its error as a share, its steps."""


def believed(steps: Steps) -> tuple[Array, list[float]]:
    """Return what each line is off, (bands, lines), as far as it is believed, and the share of each band's."""
    bands, lines = len(steps.means), steps.means.shape[1] + 1
    told = steps.information.any((1, 2))
    if told.sum() < FEWEST_STEPS or len(steps.apart) < 2:
        return np.zeros((bands, lines)), [0.0] * bands
    levels = np.pad(np.cumsum(steps.means, axis=1), ((0, 0), (1, 0)))  # without a jump where nothing tells of a step
    measured = fft.dct(levels, norm="ortho")[:, 1:]
    frequency = np.arange(1, lines) / lines
    high = 2 * np.sin(np.pi * frequency / 2)  # what a step has of a level
    groups = fft.dct(steps.apart, norm="ortho")
    ground = MORE * _smooth(np.einsum("gbf,gcf->fbc", groups, groups))
    fine = frequency > FINE
    strength = np.mean(measured[:, fine] ** 2, axis=1) + LEAST
    for _ in range(ROUNDS):
        found, gain, _ = _filtered(measured[:, fine], (ground / high[:, None, None] ** 2)[fine], strength)
        strength = np.mean(found**2, axis=1) + strength * (1 - np.einsum("fbb->b", gain) / fine.sum()) + LEAST
    apart = ground
    for _ in range(ROUNDS):
        found, gain, unsure = _filtered(measured, ground / high[:, None, None] ** 2, strength)
        rest = (measured - found) * high
        all_there = np.einsum("bf,cf->fbc", rest, rest) + unsure * high[:, None, None] ** 2
        ground = (TRUST * apart + _smooth(all_there)) / (1 + TRUST)
    slow, slow_found, found = (
        fft.idct(np.pad(part, ((0, 0), (1, 0))), norm="ortho")
        for part in (np.where(frequency < SLOW, measured, 0), np.where(frequency < SLOW, found, 0), found)
    )
    fast = replace(steps, means=np.where(told, steps.means - np.diff(slow, axis=1), 0.0))
    off = _solved(fast, ground, strength, found - slow_found) + slow_found
    return off, [float(share) for share in np.einsum("fbb->b", gain) / len(gain)]


def _smooth(spectrum: Array) -> Array:
    """Return a spectrum (frequencies, bands, bands) smoothed over frequencies."""
    for _ in range(2):
        spectrum = ndimage.uniform_filter1d(spectrum, max(5, len(spectrum) // SMOOTH), axis=0, mode="reflect")
    return spectrum


def _filtered(measured: Array, noise: Array, strength: Array) -> tuple[Array, Array, Array]:
    """Return what of each frequency is stripes, the gains by which it was found, and its covariance."""
    bands = np.identity(len(measured))
    gain = (strength * bands) @ np.linalg.inv(noise + (strength + LEAST) * bands)
    return np.einsum("fbc,cf->bf", gain, measured), gain, strength * bands - gain * strength


def _solved(steps: Steps, ground: Array, strength: Array, start: Array) -> Array:
    """Return what each line is off, by steps of which some tell more than others, from a solution for steps alike.

    The ground in the steps, divided by what each step's information says of it, has one spectrum all over the scene.
    Conjugate gradients, preconditioned by the solution for steps alike.
    """
    lines = start.shape[1]
    told = steps.information.any((1, 2))
    values, turned = np.linalg.eigh(steps.information)
    root = np.einsum("lab,lb,lcb->lac", turned, np.sqrt(np.maximum(values, 0)), turned)
    usual_values, usual_turned = np.linalg.eigh(np.linalg.inv(steps.information[told]).mean(0))
    usual = usual_turned @ np.diag(usual_values**-0.5) @ usual_turned.T
    inverse = np.linalg.inv(usual @ ground @ usual + LEAST * np.identity(len(start)))

    def weighted(means: Array) -> Array:
        """Return the steps by their inverse covariance, as what they pull at each line."""
        spectrum = np.einsum("fab,bf->af", inverse, fft.dct(np.einsum("lab,bl->al", root, means), norm="ortho"))
        pulled = np.einsum("lab,bl->al", root, fft.idct(spectrum, norm="ortho"))
        return -np.diff(np.pad(pulled, ((0, 0), (1, 1))), axis=1)

    def applied(off: Array) -> Array:
        return weighted(np.diff(off, axis=1)) + off / strength[:, None]

    high = 4 * np.sin(np.pi * np.arange(lines) / lines / 2) ** 2
    alike = np.linalg.inv(ground + LEAST * np.identity(len(start)))
    alike = high[:, None, None] * np.concatenate([alike[:1], alike]) + np.diag(1 / strength)
    alike = np.linalg.inv(alike)

    def preconditioned(rest: Array) -> Array:
        return fft.idct(np.einsum("fab,bf->af", alike, fft.dct(rest, norm="ortho")), norm="ortho")

    wanted = weighted(steps.means)
    off, rest = start, wanted - applied(start)
    near = preconditioned(rest)
    way, size = near, float((rest * near).sum())
    enough = NEAR**2 * float((wanted * preconditioned(wanted)).sum())
    for _ in range(MOST):
        if size <= enough:
            break
        moved = applied(way)
        length = size / float((way * moved).sum())
        off, rest = off + length * way, rest - length * moved
        near = preconditioned(rest)
        size, before = float((rest * near).sum()), size
        way = near + size / before * way
    return off
