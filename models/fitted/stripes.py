"""Stripes of push-broom sensors: what each detector's line is off, found in the whole scene, and taken off again.

A detector draws one line through the scene: a column, a row, or a slanted line where the scene was turned onto a map.
Its gain or offset is off a little, and all lines' together are stripes. Here rows are read, straightened so that a line
is a column, and corrected; `detectors` measures what neighbouring lines differ by, `believing` says how much of it is
stripes. Gain or offset is chosen by which leaves less of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenelift.models.fitted.believing import believed
from scenelift.models.fitted.detectors import FEWEST, GROUPS, measure, median
from scenelift.models.fitted.views import Values, View, pack, unpack

Array = NDArray[np.float64]
LARGE, NEAR = 5.0, 5
"""A step so many times the usual one is an edge of the ground, if the lines so near on both sides are as far apart."""
MOST_ROWS, STRIP = 2048, 64
"""Rows that are looked at, spread over the scene, and how many of them lie together at most."""
FEW_ROWS = 512
"""Rows by which gain or offset is chosen."""
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
    side, width = view.shape if not rows else view.shape[::-1]
    first = min(0.0, slant * (side - 1))
    lines = int(np.ceil(width + abs(slant) * (side - 1))) + 1
    parts = [_straighten(part, start, slant, first, lines) for start, part in _parts(view, rows)]
    few = [part for part, chosen in zip(parts, _chosen(parts), strict=True) if chosen]
    kind, found, share, least = "none", np.zeros((view.bands, lines)), [0.0] * view.bands, np.inf
    for tried in ("gain", "offset"):
        off, believed_of = _estimate(few, tried, slant)
        left = _stripiness([_corrected(part, off[:, None].astype(np.float32), tried) for part in few])
        if any(believed_of) and left < least:
            kind, found, share, least = tried, off, believed_of, left
    if kind != "none" and len(few) < len(parts):
        found, share = _estimate(parts, kind, slant)
    along = "rows" if rows else "columns"
    facts = {"along": along, "slant": round(slant, 6), "first": round(first, 6), "lines": lines, "kind": kind}
    strength = [float(f"{np.std(line):.3g}") for line in found]
    return facts | {"share": [round(each, 3) for each in share], "strength": strength, "_lines": pack(found)}


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
            out[n, band] = _corrected(plane, off, fitted["kind"])
    return out


def _corrected(plane: NDArray[Any], off: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return values without what their lines are off."""
    corrected: NDArray[Any] = plane * np.exp(-off) if kind == "gain" else plane - off
    return corrected


def _parts(view: View, turned: bool) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Read rows (columns, if turned) spread over the scene, some together: number of the first, and values."""
    side, width = view.shape if not turned else view.shape[::-1]
    length = max(FEWEST, min(STRIP, -(-side // GROUPS)))
    count = -(-min(side, MOST_ROWS) // length)
    starts = range(0, side, length) if side <= MOST_ROWS else [(side - length) * i // (count - 1) for i in range(count)]
    for start in starts:
        high = min(length, side - start)
        part = view.read(0, start, width, high) if turned else view.read(start, 0, high, width)
        yield start, part.transpose(0, 2, 1) if turned else part


def _chosen(parts: Sequence[Values]) -> list[bool]:
    """Return which parts, spread over all, together have no more than `FEW_ROWS` rows."""
    every = max(1, -(-sum(part.shape[1] for part in parts) // FEW_ROWS))
    return [number % every == 0 for number in range(len(parts))]


def _straighten(part: Values, start: int, slant: float, first: float, lines: int) -> Values:
    """Return (bands, rows, lines): rows moved so that a line is a column; NaN where any band has no data."""
    bands, rows, width = part.shape
    out = np.full((bands, rows, lines), np.nan, np.float32)
    for row in range(rows):
        where = np.arange(lines) + first - slant * (start + row)
        low = np.floor(where).astype(np.int64)
        share = (where - low).astype(np.float32)
        inside = (low >= 0) & (low + 1 < width + (share == 0))
        low, share = low[inside], share[inside]
        out[:, row, inside] = part[:, row, low] * (1 - share) + part[:, row, np.minimum(low + 1, width - 1)] * share
    out[:, ~np.isfinite(out).all(0)] = np.nan
    return out


def _estimate(parts: Sequence[Values], kind: str, slant: float) -> tuple[Array, list[float]]:
    """Return what each line is off, (bands, lines), and the share of each band's measurement that was believed."""
    steps = measure(parts, _gains if kind == "gain" else _offsets)
    off, share = believed(steps.without(_edges(steps.means)))
    if slant:  # a pixel between two lines was shared out twice, which has blurred them: half of that is undone
        off = 2 * off - ndimage.convolve1d(off, BETWEEN, axis=1, mode="nearest")
    return off, share


def _gains(values: Values) -> Array:
    """Return logarithms, in which gains are sums."""
    logarithms: Array = np.log(np.where((values > DARKEST).all(0), values, np.nan).astype(np.float64))
    return logarithms


def _offsets(values: Values) -> Array:
    """Return values, in which offsets are sums."""
    return values.astype(np.float64)


def _edges(steps: Array) -> NDArray[np.bool_]:
    """Return which steps are edges of the ground that run along the lines: large ones, after which the level stays."""
    levels = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
    size = (1, 2 * NEAR + 1)
    before = ndimage.median_filter(levels, size, origin=(0, NEAR), mode="nearest")[:, :-1]
    after = ndimage.median_filter(levels, size, origin=(0, -NEAR), mode="nearest")[:, 1:]
    usual = 1.4826 * np.median(np.abs(steps), axis=1, keepdims=True)
    large = np.abs(steps) > np.maximum(LARGE * usual, 1e-6)
    edges: NDArray[np.bool_] = (large & (np.abs(after - before) > np.abs(steps) / 2)).any(0)
    return edges


def _stripiness(parts: Sequence[Values]) -> float:
    """Return the energy of the stripes that are left, in the dark and in the bright half of the pixels."""
    left = 0.0
    for band in range(len(parts[0])):
        plane = np.concatenate([part[band] for part in parts]).astype(np.float64)
        steps, level = np.diff(plane, axis=1), median(plane)
        for half in (plane <= level, plane > level):
            left += float(np.square(median(np.where(half[:, 1:], steps, np.nan))).mean())
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
