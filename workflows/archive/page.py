"""One page of an archive: where its scenes lie, and a table of them that can be sorted; works offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template

from scenelift.pipeline.scenes.quicklooks import data_uri
from scenelift.workflows.archive.footprints import draw_map
from scenelift.workflows.archive.record import SceneRecord, counts, write_durably
from scenelift.workflows.archive.settings import Folder

TEMPLATE = Path(__file__).with_name("page.html")
CARRIED = 400
"""Most scenes whose pictures the page carries inside; of more it shows the files in its own folder."""
SCORES = ("noise", "snr", "tenengrad", "input_psnr")
COLUMNS = ("", "scene", "status", "date", "clouds, %", "size, px", "blocks", "seconds", "MB")


def write_page(folder: Folder, records: Sequence[SceneRecord]) -> Path:
    """Write ``index.html`` into an archive's folder.

    Parameters
    ----------
    folder : Folder
    records : sequence of SceneRecord
    """
    shown = [name for name in SCORES if any(name in record.scores for record in records)]
    heads = [*COLUMNS, *(name.removeprefix("input_") for name in shown), "why"]
    found = counts(records)
    facts = {name: str(number) for name, number in found.items() if number or name == "done"}
    facts |= {
        "output pixels": f"{sum((r.width or 0) * (r.height or 0) for r in records) / 1e6:.1f} million",
        "size": f"{sum(r.bytes or 0 for r in records) / 1e6:.1f} MB",
    }
    content = Template(TEMPLATE.read_text()).substitute(
        title=escape(f"{folder.root.name}: {len(records)} scenes"),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        map=draw_map(records),
        heads="".join(f'<th scope="col">{_button(name)}</th>' for name in heads),
        rows="\n".join(_row(folder, record, shown, carried=len(records) <= CARRIED) for record in records),
        footer=escape(f"Written by scenelift {version('scenelift')}; links lead into the folder of this page."),
    )
    path = folder.root / "index.html"
    if not (path.is_file() and path.read_text() == content):
        write_durably(path, content.encode())
    return path


def _button(name: str) -> str:
    return f'<button type="button">{escape(name)}</button>' if name else ""


def _row(folder: Folder, record: SceneRecord, shown: Sequence[str], *, carried: bool) -> str:
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
        *(_number(record.scores.get(score), 4) for score in shown),
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
