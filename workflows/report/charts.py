"""Small charts as SVG text that takes its colours from the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.workflows.report.rendering import render

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 230, 46, 34, 10
CHART, LOCATOR = (Path(__file__).with_name(name) for name in ("chart.html", "locator.html"))


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
    facts = {"title": title, "x_label": x_label, "width": WIDTH, "height": HEIGHT, "left": LEFT, "top": TOP}
    if not finite.size:
        return render(CHART, **facts, curves=[])
    floor, right = HEIGHT - BOTTOM, WIDTH - 8
    x_low, x_high = min(line.x.min() for line, _ in drawn), max(line.x.max() for line, _ in drawn)
    y_low, y_high = (float(finite.min()) if log else 0.0), float(finite.max())

    def x_at(value: float) -> float:
        return _position(value, x_low, x_high, LEFT, right)

    def y_at(value: float) -> float:
        return _position(value, y_low, y_high, floor, TOP)

    def curve(line: Line, y: NDArray[np.float64]) -> dict[str, str]:
        points = [f"{x_at(a):.1f},{y_at(b):.1f}" for a, b in zip(line.x, y, strict=True) if np.isfinite(b)]
        return {"label": line.label, "tone": line.tone, "points": " ".join(points)}

    return render(
        CHART,
        **facts,
        floor=floor,
        right=right,
        x_marks=[(f"{x_at(x):.1f}", f"{x:.3g}") for x in np.linspace(x_low, x_high, 5)],
        y_marks=[(f"{y_at(y) + 3:.1f}", f"1e{y:.1f}" if log else f"{y:.2g}") for y in np.linspace(y_low, y_high, 4)],
        curves=[curve(line, y) for line, y in drawn],
    )


def _position(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (end - start) * (value - low) / max(high - low, 1e-12)


def locator(longitude: float, latitude: float) -> str:
    """Return the whole globe as a grid of 30 degrees with a mark where a scene lies."""
    text = f"longitude {longitude:.4f}, latitude {latitude:.4f}"
    return render(LOCATOR, x=f"{2 * (longitude + 180):.1f}", y=f"{2 * (90 - latitude):.1f}", text=text)
