"""Small charts as SVG text that takes its colours from the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 230, 46, 34, 10


@dataclass(frozen=True)
class Line:
    """One curve: ``tone`` is the page's colour class (before, after, truth)."""

    label: str
    tone: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def line_chart(title: str, x_label: str, lines: Sequence[Line], log: bool = False) -> str:
    """Return curves over one axis; ``log`` draws powers of ten upwards."""
    drawn = [(line, np.log10(line.y) if log else line.y) for line in lines if len(line.x)]
    finite = np.concatenate([y[np.isfinite(y)] for _, y in drawn] or [np.zeros(0)])
    if not finite.size:
        return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><p>No data.</p></figure>'
    x_low, x_high = min(line.x.min() for line, _ in drawn), max(line.x.max() for line, _ in drawn)
    y_low, y_high = (float(finite.min()) if log else 0.0), float(finite.max())
    parts = [_axes(x_low, x_high, y_low, y_high, x_label, log)]
    for line, y in drawn:
        points = " ".join(
            f"{_place(a, x_low, x_high, LEFT, WIDTH - 8):.1f},{_place(b, y_low, y_high, HEIGHT - BOTTOM, TOP):.1f}"
            for a, b in zip(line.x, y, strict=True)
            if np.isfinite(b)
        )
        parts.append(f'<polyline class="{line.tone}" points="{points}"/>')
    legend = " ".join(f'<span class="key {line.tone}">{escape(line.label)}</span>' for line, _ in drawn)
    return (
        f'<figure class="chart"><figcaption>{escape(title)} {legend}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (end - start) * (value - low) / max(high - low, 1e-12)


def _axes(x_low: float, x_high: float, y_low: float, y_high: float, label: str, log: bool) -> str:
    floor = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT},{TOP}V{floor}H{WIDTH - 8}"/>']
    for value in np.linspace(x_low, x_high, 5):
        at = _place(value, x_low, x_high, LEFT, WIDTH - 8)
        parts.append(f'<text x="{at:.1f}" y="{floor + 14}" text-anchor="middle">{value:.3g}</text>')
    for value in np.linspace(y_low, y_high, 4):
        at = _place(value, y_low, y_high, floor, TOP)
        text = f"1e{value:.1f}" if log else f"{value:.2g}"
        parts.append(f'<text x="{LEFT - 5}" y="{at + 3:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>')
    return "".join(parts)


def locator(longitude: float, latitude: float) -> str:
    """Return the whole globe as a grid of 30 degrees with a mark where a scene lies."""
    x, y = 2 * (longitude + 180), 2 * (90 - latitude)
    lines = "".join(f'<path class="grid" d="M{2 * d},0V360"/>' for d in range(0, 361, 30))
    lines += "".join(f'<path class="grid" d="M0,{2 * d}H720"/>' for d in range(0, 181, 30))
    lines += '<path class="axis" d="M0,180H720M360,0V360"/>'
    names = '<text x="4" y="176">equator</text><text x="364" y="12">Greenwich</text>'
    mark = f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
    text = f"longitude {longitude:.4f}, latitude {latitude:.4f}"
    return f'<svg class="locator" viewBox="0 0 720 360" role="img" aria-label="{text}">{lines}{names}{mark}</svg>'
