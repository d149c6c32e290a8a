"""One page of an archive: where its scenes lie, and a table of them that can be sorted; works offline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenelift.pipeline.files import write_durably
from scenelift.pipeline.scenes.quicklooks import data_uri
from scenelift.pipeline.scores.registry import Score, columns
from scenelift.workflows.archive.record import SceneRecord, counts
from scenelift.workflows.archive.settings import Folder
from scenelift.workflows.report.rendering import render

TEMPLATE = Path(__file__).with_name("page.html")
CARRIED = 400
"""Most scenes whose pictures the page carries inside; of more it shows the files in its own folder."""
COLUMNS = ("", "scene", "status", "date", "clouds, %", "size, px", "blocks", "seconds", "MB", "expected gain, dB")
WIDTH = 960
"""Width of the map, pixels."""
LEAST = 12.0
"""Least side of a scene on the map, pixels of its width: of an archive of several continents a scene would be a dot."""
LABEL = 30.0
"""Height of a label on a phone, in pixels of the map."""
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60)
"""Distances between the lines of the grid, degrees."""
Ring = list[tuple[float, float]]


def write_page(folder: Folder, records: Sequence[SceneRecord]) -> Path:
    """Write ``index.html`` into an archive's folder.

    Parameters
    ----------
    folder : Folder
    records : sequence of SceneRecord
    """
    known = {f"input_{score.name}" if score.kind == "pair" else score.name: score for score in columns("archive")}
    shown = {name: score for name, score in known.items() if any(name in record.scores for record in records)}
    why = any(record.reason for record in records)  # beside the status, or it would be out of sight
    rows = [_row(folder, record, shown, carried=len(records) <= CARRIED) for record in records]
    names = [*COLUMNS[3:], *(score.label for score in shown.values())]
    told = [number for number in range(len(names)) if any(row["cells"][number][0] for row in rows)]
    names = [names[number] for number in told]  # a column of which nothing is known takes room alone
    rows = [row | {"cells": [row["cells"][number] for number in told]} for row in rows]
    found = counts(records)
    facts = {name: str(number) for name, number in found.items() if number or name == "done"}
    facts |= {
        "output pixels": f"{sum((r.width or 0) * (r.height or 0) for r in records) / 1e6:.1f} million",
        "size": f"{sum(r.bytes or 0 for r in records) / 1e6:.1f} MB",
    }
    content = render(
        TEMPLATE,
        title=f"{folder.root.name}: {len(records)} scenes",
        facts=facts,
        map=_map_of(records),
        heads=[*COLUMNS[:3], *["why"] * why, *names],
        names=names,
        why=why,
        rows=rows,
        footer=f"Written by scenelift {version('scenelift')}; links lead into the folder of this page.",
    )
    path = folder.root / "index.html"
    if not (path.is_file() and path.read_text(encoding="utf-8") == content):
        write_durably(path, content.encode())
    return path


def _row(folder: Folder, record: SceneRecord, shown: dict[str, Score], *, carried: bool) -> dict[str, Any]:
    scene, size = record.id, f"{record.width} × {record.height}" if record.width else ""
    cells = [
        _text(record.date[:10] if record.date else ""),
        _number(record.cloud_cover, 1),
        (size, str((record.width or 0) * (record.height or 0) or "")),
        _number(record.blocks, 0),
        _number(record.seconds, 1),
        _number(record.bytes / 1e6 if record.bytes is not None else None, 2),
        _number(((record.expected or {}).get("gain_db") or {}).get("lanczos", {}).get("mean"), 1),
        *(_number(record.scores.get(name), score.digits) for name, score in shown.items()),
    ]
    return {
        "id": scene,
        "output": record.output,
        "item": f"scenes/{scene}/{scene}.json",
        "picture": _picture(folder, record, carried),
        "status": record.status,
        "cells": cells,
        "reason": record.reason or "",
    }


def _picture(folder: Folder, record: SceneRecord, carried: bool) -> str:
    path = folder.preview(record.id)
    if record.output is None or not path.is_file():
        return ""
    return data_uri(path.read_bytes()) if carried else f"scenes/{record.id}/{record.id}.png"


def _text(text: str) -> tuple[str, str]:
    """Return what a cell shows and by what it is sorted."""
    return text, text


def _number(value: float | str | None, digits: int) -> tuple[str, str]:
    if not isinstance(value, int | float):
        return _text(str(value or ""))
    return f"{value:.{digits}f}", repr(value)


def _map_of(records: Sequence[SceneRecord]) -> dict[str, Any] | None:
    """Return a map with the footprint of every scene whose place is known, as the template draws it; None without any.

    Longitudes are shrunk by the cosine of the middle latitude, so that shapes are true there. Scenes on both sides
    of the date line lie beside each other.
    """
    placed = [record for record in records if len(record.footprint) >= 3]
    if not placed:
        return None
    rings = _joined([[(float(x), float(y)) for x, y in record.footprint] for record in placed])
    xs, ys = [x for ring in rings for x, _ in ring], [y for ring in rings for _, y in ring]
    margin = max(0.02, 0.06 * max(max(xs) - min(xs), max(ys) - min(ys)))
    west, east = min(xs) - margin, max(xs) + margin
    south, north = max(-90.0, min(ys) - margin), min(90.0, max(ys) + margin)
    shrink = max(0.05, math.cos(math.radians((south + north) / 2)))
    scale = min(WIDTH / ((east - west) * shrink), 620 / (north - south))
    width, height = (east - west) * shrink * scale, (north - south) * scale

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - west) * shrink * scale, (north - y) * scale

    step = next((s for s in STEPS if max(east - west, north - south) / s <= 8), STEPS[-1])
    digits = 0 if step >= 1 else 2
    marks = []
    for longitude in _multiples(west, east, step):
        x, turned = at(longitude, 0.0)[0], (longitude + 180) % 360 - 180
        text = f"{abs(turned):.{digits}f}° {'E' if turned >= 0 else 'W'}"
        marks.append({"path": f"M{x:.1f},0V{height:.1f}", "x": f"{x + 3:.1f}", "y": 3, "text": text, "hangs": True})
    for latitude in _multiples(south, north, step):
        y = at(0.0, latitude)[1]
        text = f"{abs(latitude):.{digits}f}° {'N' if latitude >= 0 else 'S'}"
        hangs = y < 2 * LABEL  # or it would stand on those of the longitudes
        marks.append(
            {
                "path": f"M0,{y:.1f}H{width:.1f}",
                "x": 3,
                "y": f"{max(y, LABEL) + 3 if hangs else y - 3:.1f}",
                "text": text,
                "hangs": hangs,
            }
        )
    return {
        "width": f"{width:.0f}",
        "height": f"{height:.0f}",
        "marks": marks,
        "shapes": [_shape(record, [at(*c) for c in ring]) for record, ring in zip(placed, rings, strict=True)],
    }


def _shape(record: SceneRecord, ring: Ring) -> dict[str, str]:
    return {
        "id": record.id,
        "status": record.status,
        "points": " ".join(f"{x:.2f},{y:.2f}" for x, y in _visible(ring)),
        "title": f"{record.id}: {record.status}" + (f", {record.date[:10]}" if record.date else ""),
    }


def _visible(ring: Ring) -> Ring:
    """Return the shape, enlarged about its middle where it would be too small to be seen or clicked."""
    xs, ys = [x for x, _ in ring], [y for _, y in ring]
    grown = LEAST / max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    if grown <= 1:
        return ring
    x0, y0 = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return [(x0 + (x - x0) * grown, y0 + (y - y0) * grown) for x, y in ring]


def _joined(rings: list[Ring]) -> list[Ring]:
    """Count longitudes from 0 to 360 where that keeps scenes closer together."""
    turned = [[(x % 360, y) for x, y in ring] for ring in rings]

    def span(some: list[Ring]) -> float:
        xs = [x for ring in some for x, _ in ring]
        return max(xs) - min(xs)

    return turned if span(turned) < span(rings) else rings


def _multiples(low: float, high: float, step: float) -> list[float]:
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
