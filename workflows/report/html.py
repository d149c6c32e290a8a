"""The pieces of a report's page, as HTML text."""

from __future__ import annotations

import functools
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.places import place_of
from scenelift.pipeline.scenes.quicklooks import Stretch, crop_of, data_uri, heat, png
from scenelift.pipeline.scenes.scenes import Scene, crs_name
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.pipeline.scores.registry import Score
from scenelift.pipeline.tiles import Window
from scenelift.workflows.report.charts import line_chart
from scenelift.workflows.report.curves import histograms, spectra
from scenelift.workflows.report.evidence import Row, Triple


def provenance_of(scene: Scene) -> dict[str, Any]:
    """Return what an enhanced scene says of its making; empty if it says nothing."""
    group = Path(scene.source.paths[0]) / "zarr.json"
    try:
        if group.is_file():
            found = json.loads(group.read_text(encoding="utf-8")).get("attributes", {}).get("scenelift", {})
        else:
            found = json.loads(scene.tags.get("SCENELIFT", "{}"))
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def table(title: str, note: str, rows: dict[str, Row]) -> str:
    """Return a table: one row a scene, one column a score with its interval beneath."""
    heads = "".join(f'<th scope="col">{escape(score.title)}</th>' for score, _ in next(iter(rows.values())))
    body = "".join(
        f'<tr class="{"best" if name == "after" else ""}"><th scope="row">{escape(name)}</th>'
        + "".join(_cell(*cell) for cell in row)
        + "</tr>"
        for name, row in rows.items()
    )
    key = title.lower().split(",")[0].replace(" ", "-")
    return (
        f'<h3>{escape(title)}</h3><p>{escape(note)}</p><div class="scroll" tabindex="0"><table id="{key}">'
        f'<thead><tr><th scope="col">scene</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(score: Score, value: Interval) -> str:
    if not np.isfinite(value.mean):
        return f"<td>{'identical' if value.mean > 0 else '–'}</td>"
    text = functools.partial(score.text, paired=False)
    span = f"<small>{text(value.low)} to {text(value.high)}</small>" if value.low < value.high else ""
    return f"<td>{text(value.mean)}{span}</td>"


def facts(triple: Triple) -> str:
    """Return what the scenes are, as terms and descriptions."""
    height, width = triple.after.grid.shape
    x, y = triple.after.grid.resolution
    models = provenance_of(triple.after).get("models", [])
    facts = {
        "models": " then ".join(str(m.get("name")) for m in models) or "not recorded",
        "before": f"{triple.before.grid.width} x {triple.before.grid.height} px",
        "after": f"{width} x {height} px, x{triple.pair.factor}",
        "bands": ", ".join(b.description or str(i) for i, b in enumerate(triple.after.bands, start=1)),
        "pixel": f"{x:g} x {y:g} {triple.after.grid.crs.units_factor[0]}",
        "reference system": crs_name(triple.after.grid.crs),
        "data type": triple.after.dtype,
    }
    return "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())


def crop_row(triple: Triple, window: Window, stretch: Stretch) -> str:
    """Return one window before, after and in truth, pixel by pixel, with the error."""
    fine = window.scaled(triple.pair.factor)
    before, after = crop_of(triple.before, window), crop_of(triple.after, fine)
    views = {"before": stretch(before), "after": stretch(after)}
    if triple.truth:
        truth = crop_of(triple.truth, fine)
        views["truth"] = stretch(truth)
        gap = np.abs(after - truth).mean(axis=0)
        views["error"] = heat(gap, float(np.nanpercentile(gap, 99)))
    where = f"row {window.row}, column {window.col}"
    return f'<div class="row">{"".join(figure(png(v), f"{name}, {where}") for name, v in views.items())}</div>'


def figure(content: bytes, caption: str) -> str:
    """Return a picture that the page carries inside, with its caption."""
    text = escape(caption)
    return f'<figure><img src="{data_uri(content)}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def charts(triple: Triple) -> str:
    """Return the power spectrum and the histogram of each band."""
    names = [b.description or f"band {i}" for i, b in enumerate(triple.before.bands, start=1)]
    charts = [
        line_chart(f"Histogram, {name}", "reflectance", lines)
        for name, lines in zip(names, histograms(triple), strict=True)
    ]
    return line_chart("Power spectrum", "cycles per pixel before", spectra(triple), log=True) + "".join(charts)


def place_text(scene: Scene) -> str:
    """Return where a scene lies, in words."""
    place = place_of(scene.grid)
    longitude, latitude = place.centre
    return escape(
        f"Centre {abs(latitude):.4f}° {'N' if latitude >= 0 else 'S'}, {abs(longitude):.4f}° "
        f"{'E' if longitude >= 0 else 'W'}; from {place.south:.4f}, {place.west:.4f} to "
        f"{place.north:.4f}, {place.east:.4f} (latitude, longitude)."
    )


def timing(summary: Path | None) -> str:
    """Return what `scenelift enhance --json` said of time and memory; UsageError if the file is something else."""
    if summary is None:
        command = "<code>scenelift enhance --json</code>"
        return f"<p>Timing was not recorded; {command} prints it, and --summary shows it here.</p>"
    try:
        facts = json.loads(summary.read_text(encoding="utf-8"))
        text = (
            f"{facts['seconds']:.1f} s for {facts['blocks']} blocks, {facts['megapixels_per_second']:.2f} Mpx/s, "
            f"{100 * facts['model_share']:.0f} % of the time in the model, at most {facts['peak_memory_mb']:.0f} MB "
            f"in one process, on {facts['device']} in {facts['precision']}."
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{summary} is not what `scenelift enhance --json` prints") from None
    return f'<p id="timing">{escape(text)}</p>'
