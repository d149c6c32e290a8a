"""Stripes of push-broom sensors: what each detector's line is off, found in the whole scene, and taken off again.

A detector draws one line through the scene: a column, a row, or a slanted line where the scene was turned onto a map.
Its gain or offset is off a little, and all lines' together are stripes. Neighbouring lines see nearly the same ground,
so the robust mean of their difference along the whole scene is that of the detectors; differences over several
distances, put together by least squares, give what each line is off. Both halves of the scene are measured by
themselves: how far they differ says how much of each frequency across the lines is believed (Wiener's filter, stripes
being white). What changes slowly across the lines is ground as likely as detector, and stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, sparse
from scipy.sparse import linalg

from scenelift.models.fitted.views import View, pack, unpack

Array = NDArray[np.float64]
LAGS = (1, 2, 4, 8)
"""Distances of the lines that are compared."""
SLOW = 10.0
"""Standard deviation, in lines, of the Gaussian that tells what changes slowly."""
MOST_ROWS, STRIP = 1024, 8
"""Rows that are looked at, spread over the scene, and how many of them lie together."""
WIDE = 3.0
"""Width of the biweight, in robust standard deviations."""
DARKEST = 2e-3
"""Reflectance below which a pixel tells nothing of a gain."""
BETWEEN = (1 / 6, 2 / 3, 1 / 6)
"""What becomes of a line whose pixels lie between two, and are put between two again: mean over all fractions."""
STEEPEST = 0.5
"""Largest slant that is searched for, lines per row."""


def fit_destripe(view: View, options: dict[str, float]) -> dict[str, Any]:
    """Find what each line is off.

    Returns
    -------
    dict
        "along": "columns" or "rows"; "slant": lines that a stripe moves per row; "kind": "gain" (the lines are
        natural logarithms of gains), "offset" (reflectance) or "none"; "lines": their number; "first": line of the
        first pixel; "share" of what was measured that was believed, from the least ground to the most.
    """
    rows, slant = bool(options["rows"]), float(options["slant"])
    if options["search"]:
        rows, slant = search(view)
    values, at = _rows(view, rows)
    side, width = view.shape if not rows else view.shape[::-1]
    first = min(0.0, slant * (side - 1))
    lines = int(np.ceil(width + abs(slant) * (side - 1))) + 1
    straight = np.stack([_straighten(plane.astype(np.float64), at, slant, first, lines) for plane in values])
    straight[:, ~np.isfinite(straight).all(0)] = np.nan
    kind, shares, found, least = "none", [0.0] * view.bands, np.zeros((view.bands, lines)), np.inf
    for tried in ("gain", "offset"):
        seen = np.log(np.where((straight > DARKEST).all(0), straight, np.nan)) if tried == "gain" else straight
        estimate, believed = _of_all_bands(seen)
        if slant:  # a pixel between two lines was shared out twice, which has blurred them: half of that is undone
            estimate = 2 * estimate - ndimage.convolve1d(estimate, BETWEEN, axis=1, mode="nearest")
        corrected = straight * np.exp(-estimate)[:, None] if tried == "gain" else straight - estimate[:, None]
        left = sum(map(_stripiness, corrected))
        if any(believed) and left < least:
            kind, shares, found, least = tried, [round(share, 3) for share in believed], estimate, left
    along = "rows" if rows else "columns"
    facts = {"along": along, "slant": round(slant, 6), "first": round(first, 6), "lines": lines, "kind": kind}
    strength = [float(f"{np.std(line):.3g}") for line in found]
    return facts | {"share": shares, "strength": strength, "_lines": pack(found)}


def _of_all_bands(seen: Array) -> tuple[Array, list[float]]:
    """Return what each line of each band is off, (bands, lines), and the shares of what was measured that are believed.

    Bands show the same ground, and stripes of their own: in sums and differences of bands in which the ground has
    nothing in common, most of it stands in the first, and the others tell their stripes by little ground.
    """
    steps = np.diff(seen, axis=2).reshape(len(seen), -1)
    steps = steps[:, np.isfinite(steps).all(0)]
    if steps.shape[1] < STRIP * len(seen):
        return np.zeros((len(seen), seen.shape[2])), [0.0] * len(seen)
    limit = 3 * np.maximum(1.4826 * np.median(np.abs(steps), axis=1, keepdims=True), 1e-9)
    _, turned = np.linalg.eigh(np.cov(np.clip(steps, -limit, limit)).reshape(len(seen), -1))
    made = [_estimate(mode) for mode in np.einsum("bm,brl->mrl", turned, seen)]
    return turned @ np.stack([estimate for estimate, _ in made]), [share for _, share in made]


def run_destripe(
    patches: NDArray[np.float32], fitted: dict[str, Any], options: dict[str, float], origins: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Take off what each pixel's line is off, between two lines a mean of both."""
    bands, out = patches.shape[1], np.empty_like(patches)
    lines = unpack(fitted["_lines"], (bands, fitted["lines"])).astype(np.float32)
    turned = fitted["along"] == "rows"
    for n, (row, col) in enumerate(origins):
        r, c = np.arange(row, row + patches.shape[2]), np.arange(col, col + patches.shape[3])
        across, along = (r[:, None], c[None, :]) if turned else (c[None, :], r[:, None])
        at = across + fitted["slant"] * along - fitted["first"]
        low = np.clip(np.floor(at), 0, fitted["lines"] - 2).astype(np.int64)
        share = np.clip(at - low, 0, 1).astype(np.float32)
        for band, plane in enumerate(patches[n]):
            off = lines[band][low] * (1 - share) + lines[band][low + 1] * share
            out[n, band] = plane * np.exp(-off) if fitted["kind"] == "gain" else plane - off
    return out


def _rows(view: View, turned: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (bands, R, W) rows (columns, if turned) spread over the scene, and the number of each."""
    side, width = view.shape if not turned else view.shape[::-1]
    if side <= MOST_ROWS:
        starts, strip = list(range(0, side, STRIP)), STRIP
    else:
        count, strip = MOST_ROWS // STRIP, STRIP
        starts = [(side - strip) * i // (count - 1) for i in range(count)]
    parts, at = [], []
    for start in starts:
        length = min(strip, side - start)
        part = view.read(0, start, width, length) if turned else view.read(start, 0, length, width)
        parts.append(part.transpose(0, 2, 1) if turned else part)
        at.append(np.arange(start, start + length))
    return np.concatenate(parts, 1), np.concatenate(at)


def _straighten(plane: Array, at: NDArray[np.int64], slant: float, first: float, lines: int) -> Array:
    """Return (R, lines): each row moved so that a line is a column; NaN where it has no data."""
    if slant == 0:
        return np.pad(plane, ((0, 0), (0, lines - plane.shape[1])), constant_values=np.nan)
    out = np.full((len(plane), lines), np.nan)
    for number, (row, values) in enumerate(zip(at, plane, strict=True)):
        where = np.arange(lines) + first - slant * row
        low = np.floor(where).astype(np.int64)
        inside = (low >= 0) & (low + 1 < len(values))
        share = (where - low)[inside]
        out[number, inside] = values[low[inside]] * (1 - share) + values[low[inside] + 1] * share
    return out


def _location(differences: Array) -> tuple[Array, Array, Array]:
    """Return the robust mean of each column (Tukey's biweight, one step), its variance, and the number of values."""
    columns = np.ascontiguousarray(differences.T)
    count = np.isfinite(columns).sum(1)
    empty = count < STRIP
    middle = _median(columns, count)
    rest = columns - middle[:, None]
    spread = np.maximum(1.4826 * _median(np.abs(rest), count), 1e-6)
    ratio = np.nan_to_num(rest / (WIDE * spread[:, None]), nan=1.0)
    weight = np.where(np.abs(ratio) < 1, (1 - ratio**2) ** 2, 0.0)
    moved = (weight * np.nan_to_num(rest)).sum(1)
    location = middle + moved / np.maximum(weight.sum(1), 1e-9)
    return np.where(empty, 0.0, location), spread**2, np.where(empty, 0, count)


def _median(rows: Array, count: NDArray[np.int64]) -> Array:
    """Return the median of the values of each row that are not NaN, of which there are so many; 0 where none is."""
    ordered = np.sort(rows, 1)  # NaN at the end
    at = np.arange(len(rows))
    low, high = ordered[at, np.maximum(count - 1, 0) // 2], ordered[at, np.minimum(count // 2, rows.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2, 0.0)


def _solve(straight: Array) -> tuple[Array, Array]:
    """Return what each line is off, slow changes left out, and how many rows have told."""
    lines = straight.shape[1]
    system, right = sparse.csc_matrix((lines, lines)), np.zeros(lines)
    told = np.isfinite(straight).sum(0)
    for lag in (lag for lag in LAGS if lag < lines):
        location, variance, count = _location(straight[:, lag:] - straight[:, :-lag])
        weight = count / (np.maximum(variance, 1e-12) * lag**2)  # differences that overlap tell the same
        difference = sparse.diags([-np.ones(lines - lag), np.ones(lines - lag)], [0, lag], (lines - lag, lines))
        weighted = difference.T @ sparse.diags(weight)
        system, right = system + weighted @ difference, right + weighted @ location
    ridge = 1e-6 * max(float(system.diagonal().max()), 1e-12)
    solved = linalg.spsolve((system + ridge * sparse.identity(lines)).tocsc(), right)
    known = (told >= STRIP).astype(np.float64)
    slow = ndimage.gaussian_filter1d(solved * known, SLOW, mode="reflect")
    slow /= np.maximum(ndimage.gaussian_filter1d(known, SLOW, mode="reflect"), 1e-6)
    return np.where(told >= STRIP, solved - slow, 0.0), told


def _estimate(straight: Array) -> tuple[Array, float]:
    """Return what each line is off, as far as both halves of the scene say so, and the share of it that is believed."""
    middle = len(straight) // 2
    (one, some), (other, more) = (_solve(half) for half in (straight[:middle], straight[middle:]))
    both = (some >= STRIP) & (more >= STRIP)
    if both.sum() < 8:
        return np.zeros_like(one), 0.0
    first, second = (fft.dct(np.where(both, x, 0.0), norm="ortho") for x in (one, other))
    stripes = float(np.mean(first * second))  # white: the same at all frequencies
    if stripes <= 0:
        return np.zeros_like(one), 0.0
    width = max(2.0, len(first) / 64)
    noise = ndimage.gaussian_filter1d((first - second) ** 2 / 4, width, mode="reflect")
    believed = stripes / (stripes + noise)
    mean = (some * one + more * other) / np.maximum(some + more, 1)
    return fft.idct(believed * fft.dct(mean, norm="ortho"), norm="ortho"), float(believed.mean())


def _stripiness(straight: Array) -> float:
    """Return the energy of the stripes that are left, in the dark and in the bright half of the pixels."""
    left = 0.0
    level = _median(straight, np.isfinite(straight).sum(1))[:, None]
    for part in (straight <= level, straight > level):
        location, _, count = _location(np.where(part[:, 1:], straight[:, 1:] - straight[:, :-1], np.nan))
        left += float((location**2 * (count > 0)).sum() / max(1, (count > 0).sum()))
    return left


def search(view: View) -> tuple[bool, float]:
    """Return whether the stripes run along rows rather than columns, and their slant, from coarse to fine."""
    best = (0.0, False, 0.0)
    for turned in (False, True):
        side, width = view.shape if not turned else view.shape[::-1]
        near, step, slants = 0.0, 1 / 128, np.arange(-STEEPEST, STEEPEST + 1e-9, 1 / 128)
        ratio = 0.0
        for wanted in (64, 512, 4096):
            length = min(wanted, side)
            start, most = (side - length) // 2, min(width, 2048)
            left = (width - most) // 2
            part = view.read(left, start, most, length) if turned else view.read(start, left, length, most)
            part = part.transpose(0, 2, 1) if turned else part
            scores = _scores(np.diff(part.astype(np.float64), axis=2), slants)
            near = float(slants[int(np.argmax(scores))])
            if wanted == 64:
                ratio = float(scores.max() / max(float(np.median(scores)), 1e-30))
            if length < wanted:
                break
            step /= 8
            slants = near + step * np.arange(-10, 11)
        best = max(best, (ratio, turned, near))
    return best[1], best[2]


def _scores(differences: Array, slants: Array) -> Array:
    """Return the energy of the mean differences along lines of each slant."""
    bands, rows, columns = differences.shape
    plain = differences.reshape(bands, -1)
    known = np.isfinite(plain)
    plain = np.where(known, plain, 0)
    typical = [np.median(np.abs(p[k])) if k.any() else 0.0 for p, k in zip(plain, known, strict=True)]
    limit = 3 * np.maximum(np.array(typical), 1e-9)
    plain = np.clip(plain, -limit[:, None], limit[:, None]) / limit[:, None]
    r, c = np.divmod(np.arange(rows * columns), columns)
    scores = []
    for slant in slants:
        line = np.rint(c + slant * r).astype(np.int64)
        line -= line.min()
        counts = [np.bincount(line, k) for k in known]
        sums = [np.bincount(line, p) for p in plain]
        scores.append(sum(float((s**2 / np.maximum(n, 1)).sum()) for s, n in zip(sums, counts, strict=True)))
    return np.array(scores)
