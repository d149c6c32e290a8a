"""One page of an archive: where its scenes lie, and a table of them that can be sorted; works offline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template

from scenelift.pipeline.scenes.quicklooks import data_uri
from scenelift.pipeline.scores.registry import Score, columns
from scenelift.workflows.archive.record import SceneRecord, counts, write_durably
from scenelift.workflows.archive.settings import Folder

TEMPLATE = Path(__file__).with_name("page.html")
CARRIED = 400
"""Most scenes whose pictures the page carries inside; of more it shows the files in its own folder."""
COLUMNS = ("", "scene", "status", "date", "clouds, %", "size, px", "blocks", "seconds", "MB")
WIDTH = 960
"""Width of the map, pixels."""
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
    heads = [*COLUMNS, *(score.label for score in shown.values()), "why"]
    found = counts(records)
    facts = {name: str(number) for name, number in found.items() if number or name == "done"}
    facts |= {
        "output pixels": f"{sum((r.width or 0) * (r.height or 0) for r in records) / 1e6:.1f} million",
        "size": f"{sum(r.bytes or 0 for r in records) / 1e6:.1f} MB",
    }
    content = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{folder.root.name}: {len(records)} scenes"),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        map=draw_map(records),
        heads="".join(f'<th scope="col">{_button(name)}</th>' for name in heads),
        rows="\n".join(_row(folder, record, shown, carried=len(records) <= CARRIED) for record in records),
        footer=escape(f"Written by scenelift {version('scenelift')}; links lead into the folder of this page."),
    )
    path = folder.root / "index.html"
    if not (path.is_file() and path.read_text(encoding="utf-8") == content):
        write_durably(path, content.encode())
    return path


def _button(name: str) -> str:
    return f'<button type="button">{escape(name)}</button>' if name else ""


def _row(folder: Folder, record: SceneRecord, shown: dict[str, Score], *, carried: bool) -> str:
    name = escape(record.id)
    if record.output:
        name = f'<a href="{escape(record.output)}">{name}</a> <a href="scenes/{name}/{name}.json">item</a>'
    size = f"{record.width} × {record.height}" if record.width else ""
    cells = [
        _cell(_picture(folder, record, carried), ""),
        _cell(name, record.id),
        f'<td class="{record.status}" data-v="{record.status}">{record.status}</td>',
        _text(record.date[:10] if record.date else ""),
        _number(record.cloud_cover, 1),
        _cell(size, str((record.width or 0) * (record.height or 0) or "")),
        _number(record.blocks, 0),
        _number(record.seconds, 1),
        _number(record.bytes / 1e6 if record.bytes is not None else None, 2),
        *(_number(record.scores.get(name), score.digits) for name, score in shown.items()),
        f'<td class="why" data-v="{escape(record.reason or "")}">{escape(record.reason or "")}</td>',
    ]
    return f'<tr id="scene-{escape(record.id)}">{"".join(cells)}</tr>'


def _picture(folder: Folder, record: SceneRecord, carried: bool) -> str:
    path = folder.preview(record.id)
    if record.output is None or not path.is_file():
        return ""
    source = data_uri(path.read_bytes()) if carried else f"scenes/{escape(record.id)}/{escape(record.id)}.png"
    return f'<img loading="lazy" src="{source}" alt="{escape(record.id)}">'


def _cell(shown: str, value: str) -> str:
    return f'<td data-v="{escape(value)}">{shown}</td>'


def _text(text: str) -> str:
    return _cell(escape(text), text)


def _number(value: float | str | None, digits: int) -> str:
    if not isinstance(value, int | float):
        return _text(str(value or ""))
    return _cell(f"{value:.{digits}f}" if digits <= 2 else f"{value:.{digits}g}", repr(value))


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
