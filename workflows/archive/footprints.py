"""Where the scenes of an archive lie, drawn as SVG: footprints over a grid of degrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from scenelift.workflows.archive.record import SceneRecord

WIDTH = 960
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60)
"""Distances between the lines of the grid, degrees."""

Ring = list[tuple[float, float]]


def draw_map(records: Sequence[SceneRecord]) -> str:
    """Return an inline SVG with the footprint of every scene whose place is known.

    Longitudes are shrunk by the cosine of the middle latitude, so that shapes are true there. Scenes on both sides
    of the date line lie beside each other.
    """
    placed = [(record, record.footprint) for record in records if len(record.footprint) >= 3]
    if not placed:
        return "<p>No scene whose place is known.</p>"
    rings = _joined([[(float(x), float(y)) for x, y in ring] for _, ring in placed])
    xs, ys = [x for ring in rings for x, _ in ring], [y for ring in rings for _, y in ring]
    margin = max(0.02, 0.06 * max(max(xs) - min(xs), max(ys) - min(ys)))
    west, east = min(xs) - margin, max(xs) + margin
    south, north = max(-90.0, min(ys) - margin), min(90.0, max(ys) + margin)
    shrink = max(0.05, math.cos(math.radians((south + north) / 2)))
    scale = min(WIDTH / ((east - west) * shrink), 620 / (north - south))
    width, height = (east - west) * shrink * scale, (north - south) * scale

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - west) * shrink * scale, (north - y) * scale

    shapes = "".join(_shape(record, [at(*c) for c in ring]) for (record, _), ring in zip(placed, rings, strict=True))
    step = next((s for s in STEPS if max(east - west, north - south) / s <= 8), STEPS[-1])
    lines = "".join(_line(at, x, None, height, step) for x in _marks(west, east, step))
    lines += "".join(_line(at, None, y, width, step) for y in _marks(south, north, step))
    label = f"Map of {len(placed)} scenes"
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">{lines}{shapes}</svg>'


def _joined(rings: list[Ring]) -> list[Ring]:
    """Count longitudes from 0 to 360 where that keeps scenes closer together."""
    turned = [[(x % 360, y) for x, y in ring] for ring in rings]

    def span(some: list[Ring]) -> float:
        xs = [x for ring in some for x, _ in ring]
        return max(xs) - min(xs)

    return turned if span(turned) < span(rings) else rings


def _marks(low: float, high: float, step: float) -> list[float]:
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _line(at: object, x: float | None, y: float | None, length: float, step: float) -> str:
    digits = 0 if step >= 1 else 2
    if x is not None:
        place, _ = at(x, 0.0)  # type: ignore[operator]
        turned = (x + 180) % 360 - 180
        text = f"{abs(turned):.{digits}f}° {'E' if turned >= 0 else 'W'}"
        return f'<path class="grid" d="M{place:.1f},0V{length:.1f}"/><text x="{place + 3:.1f}" y="12">{text}</text>'
    _, place = at(0.0, y)  # type: ignore[operator]
    text = f"{abs(y or 0):.{digits}f}° {'N' if (y or 0) >= 0 else 'S'}"
    return f'<path class="grid" d="M0,{place:.1f}H{length:.1f}"/><text x="3" y="{place - 3:.1f}">{text}</text>'


def _shape(record: SceneRecord, ring: Ring) -> str:
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in ring)
    name = escape(record.id)
    title = escape(f"{record.id}: {record.status}" + (f", {record.date[:10]}" if record.date else ""))
    where = f'data-row="scene-{name}" points="{points}"'
    return f'<polygon class="{record.status}" {where}><title>{title}</title></polygon>'
