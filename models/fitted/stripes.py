"""Stripes of push-broom sensors: what each detector's line is off, found in the whole scene, and taken off again.

A detector draws one line through the scene: a column, a row, or a slanted line where the scene was turned onto a map.
Its gain or offset is off a little, and all lines' together are stripes. Neighbouring lines see nearly the same ground,
so the robust mean of their difference along the whole scene is that of the two detectors, and the differences add up to
what each line is off. Bands show the same ground, and stripes of their own: the covariance of the bands around a pixel
says in which sums of them the ground is even there, and how much the pixel tells of each. Both halves of the scene are
measured by themselves: how far they differ says how much of each frequency across the lines is believed (Wiener's
filter, stripes being white). What changes slowly across the lines is ground as likely as detector, and stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from scenelift.models.fitted.views import View, pack, unpack

Array = NDArray[np.float64]
SLOW = 10.0
"""Standard deviation, in lines, of the Gaussian that tells what changes slowly."""
LARGE, NEAR = 5.0, 5
"""A step so many times the usual one is an edge of the ground, if the lines so near on both sides are as far apart."""
MOST_ROWS, STRIP = 1024, 8
"""Rows that are looked at, spread over the scene, and how many of them lie together."""
WIDE, STEPS = 3.0, 2
"""Width of the biweight, in standard deviations, and its steps."""
AROUND = 4
"""Side of the blocks that tell how even the ground is there, pixels: a whole fraction of `STRIP`."""
EVEN, LOADING = 0.1, 0.02
"""Least unevenness: of a band, as a share of the usual; of any sum of bands, as a share of the variance of all."""
ROUNDS, LEAST = 30, 1e-14
"""Steps in which the strength of the stripes is found, and the least variance."""
AT_ONCE = 1 << 22
"""Numbers of differences that are weighted at once."""
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
        first pixel; "share" of each band's measurement that was believed.
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
        estimate, believed = _estimate(seen)
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


def _means(steps: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the robust mean of each line of (bands, rows, lines), and which lines tell none (they are 0).

    Steps of Tukey's biweight from the medians, in which each pixel counts by the inverse of the bands' covariance
    in its block: of what differs from the line's mean, so no stripe is in it.
    """
    known = np.asarray(np.isfinite(steps).all(0))
    count = known.sum(0)
    middle = np.stack([_median(np.ascontiguousarray(np.where(known, band, np.nan).T), count) for band in steps])
    if not known.any():
        return middle, count < STRIP
    usual = 1.4826 * np.median(np.abs(steps - middle[:, None])[:, known], axis=1)
    floor = np.diag((EVEN * usual) ** 2 + 1e-12)
    width = AROUND * max(1, AT_ONCE // (steps.size // steps.shape[2] * AROUND))
    for start in range(0, steps.shape[2], width):
        part = slice(start, start + width)
        for _ in range(STEPS):
            rest = np.where(known[:, part], steps[..., part] - middle[:, None, part], 0.0)
            middle[:, part] += _weighted(rest, known[:, part], floor)
    return np.where(count < STRIP, 0.0, middle), count < STRIP


def _weighted(rest: Array, known: NDArray[np.bool_], floor: Array) -> Array:
    """Return the mean of each line (bands, lines), every pixel weighted by how even the ground of its block is."""
    bands, _, lines = rest.shape
    there, pixels = _blocks(known[None]), _blocks(rest)
    down, across = there.shape[:2]
    covariance = pixels @ pixels.swapaxes(2, 3) / np.maximum(there.sum(3, keepdims=True), 1)
    loading = LOADING * np.trace(covariance, axis1=2, axis2=3)
    weight = np.linalg.inv(covariance + loading[..., None, None] * np.identity(bands) + floor)
    pulled = weight @ pixels
    far = (pulled * pixels).sum(2, keepdims=True) / (WIDE**2 * bands)
    kept = np.where(there, (1 - np.minimum(far, 1)) ** 2, 0.0)
    some = kept.reshape(down, across, AROUND, AROUND).sum(2)
    total = np.einsum("dal,dabc->albc", some, weight).reshape(-1, bands, bands)
    sums = (kept * pulled).reshape(down, across, bands, AROUND, AROUND).sum((0, 3)).swapaxes(1, 2).reshape(-1, bands)
    total += (1e-9 * np.einsum("lii->l", total) + 1e-9)[:, None, None] * np.identity(bands)
    moved: Array = np.linalg.solve(total, sums[..., None])[:lines, :, 0].T
    return moved


def _blocks(planes: NDArray[Any]) -> NDArray[Any]:
    """Return (bands, rows, lines) as blocks (down, across, bands, pixels), zeros beyond the edges."""
    bands, rows, lines = planes.shape
    wide = np.pad(planes, ((0, 0), (0, -rows % AROUND), (0, -lines % AROUND)))
    cut = wide.reshape(bands, -(-rows // AROUND), AROUND, -(-lines // AROUND), AROUND).transpose(1, 3, 0, 2, 4)
    return cut.reshape(*cut.shape[:3], -1)


def _median(rows: Array, count: NDArray[np.int64]) -> Array:
    """Return the median of the values of each row that are not NaN, of which there are so many; 0 where none is."""
    ordered = np.sort(rows, 1)  # NaN at the end
    at = np.arange(len(rows))
    low, high = ordered[at, np.maximum(count - 1, 0) // 2], ordered[at, np.minimum(count // 2, rows.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2, 0.0)


def _levels(seen: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return what each line is off, (bands, lines), slow changes left out, and how many rows have told."""
    told = np.isfinite(seen).all(0).sum(0)
    steps, broken = _means(np.diff(seen, axis=2))
    levels = np.concatenate([np.zeros((len(seen), 1)), np.cumsum(steps, axis=1)], axis=1)
    piece = np.concatenate([[0], np.cumsum(broken | _edges(steps, levels))])
    for own in np.split(np.arange(len(piece)), np.flatnonzero(np.diff(piece)) + 1):
        levels[:, own] -= ndimage.gaussian_filter1d(levels[:, own], SLOW, axis=1, mode="reflect")
    return np.where(told >= STRIP, levels, 0.0), told


def _edges(steps: Array, levels: Array) -> NDArray[np.bool_]:
    """Return which steps are edges of the ground that run along the lines: large ones, after which the level stays."""
    size = (1, 2 * NEAR + 1)
    before = ndimage.median_filter(levels, size, origin=(0, NEAR), mode="nearest")[:, :-1]
    after = ndimage.median_filter(levels, size, origin=(0, -NEAR), mode="nearest")[:, 1:]
    usual = 1.4826 * np.median(np.abs(steps), axis=1, keepdims=True)
    large = np.abs(steps) > np.maximum(LARGE * usual, 1e-6)
    edges: NDArray[np.bool_] = (large & (np.abs(after - before) > np.abs(steps) / 2)).any(0)
    return edges


def _estimate(seen: Array) -> tuple[Array, list[float]]:
    """Return what each line is off, (bands, lines), as far as both halves say so, and the shares believed."""
    middle = seen.shape[1] // 2
    (one, some), (other, more) = (_levels(half) for half in (seen[:, :middle], seen[:, middle:]))
    both = (some >= STRIP) & (more >= STRIP)
    if both.sum() < 8:
        return np.zeros_like(one), [0.0] * len(seen)
    first, second = (fft.dct(np.where(both, x, 0.0), norm="ortho") for x in (one, other))
    apart = (first - second) / 2
    _, turned = np.linalg.eigh(apart @ apart.T)
    noise = ndimage.gaussian_filter1d((turned.T @ apart) ** 2, max(2.0, both.size / 64), axis=1, mode="reflect")
    mean = (some * one + more * other) / np.maximum(some + more, 1)
    believed, shares = _believed(fft.dct(mean, norm="ortho"), np.einsum("bm,mf,cm->fbc", turned, noise, turned))
    return fft.idct(believed, norm="ortho"), shares


def _believed(measured: Array, noise: Array) -> tuple[Array, list[float]]:
    """Return what of each band's frequencies (bands, frequencies) is stripes, and the share of each band's.

    Wiener's filter for all bands together: noise has a covariance (frequencies, bands, bands), stripes are white and no
    band's are another's. How strong each band's are is found by expectation and maximization.
    """
    bands = np.identity(len(measured))
    strength = np.mean(measured**2, axis=1) + LEAST
    for _ in range(ROUNDS):
        gain = (strength * bands) @ np.linalg.inv(noise + strength * bands + LEAST * bands)
        found = np.einsum("fbc,cf->bf", gain, measured)
        share = np.einsum("fbb->b", gain) / len(gain)
        strength = np.mean(found**2, axis=1) + strength * (1 - share)
    return found, [float(each) for each in share]


def _stripiness(straight: Array) -> float:
    """Return the energy of the stripes that are left, in the dark and in the bright half of the pixels."""
    left = 0.0
    level = _median(straight, np.isfinite(straight).sum(1))[:, None]
    for part in (straight <= level, straight > level):
        steps = np.where(part[:, 1:], straight[:, 1:] - straight[:, :-1], np.nan)[None]
        means, empty = _means(steps)
        left += float((means**2).sum() / max(1, (~empty).sum()))
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
