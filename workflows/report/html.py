"""The pieces of a report's page, as its template takes them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.readback import provenance_of
from scenelift.pipeline.scenes.places import place_of
from scenelift.pipeline.scenes.quicklooks import Stretch, crop_of, data_uri, heat, png
from scenelift.pipeline.scenes.scenes import Scene, crs_name
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.pipeline.scores.registry import Score
from scenelift.pipeline.tiles import Window
from scenelift.workflows.report.charts import line_chart
from scenelift.workflows.report.curves import histograms, spectra
from scenelift.workflows.report.evidence import Row, Triple


@dataclass(frozen=True)
class Table:
    """One row a scene, one column a score; each cell with its interval."""

    title: str
    note: str
    scores: dict[str, Row]
    """Scores of each scene, by its name."""

    @property
    def key(self) -> str:
        """Its id on the page."""
        return self.title.lower().split(",")[0].replace(" ", "-")

    @property
    def heads(self) -> list[str]:
        """Names of the scores."""
        return [score.title for score, _ in next(iter(self.scores.values()))]

    @property
    def rows(self) -> dict[str, list[tuple[str, str]]]:
        """For each scene the texts of its cells: value and interval."""
        return {name: [_cell(*cell) for cell in scores] for name, scores in self.scores.items()}


def _cell(score: Score, value: Interval) -> tuple[str, str]:
    if not np.isfinite(value.mean):
        return "identical" if value.mean > 0 else "–", ""
    text = functools.partial(score.text, paired=False)
    span = f"{text(value.low)} to {text(value.high)}" if value.low < value.high else ""
    return text(value.mean), span


def facts(triple: Triple) -> dict[str, str]:
    """Return what the scenes are, as terms and descriptions."""
    height, width = triple.after.grid.shape
    x, y = triple.after.grid.resolution
    models = provenance_of(triple.after).get("models", [])
    return {
        "models": " then ".join(str(m.get("name")) for m in models) or "not recorded",
        "before": f"{triple.before.grid.width} x {triple.before.grid.height} px",
        "after": f"{width} x {height} px, x{triple.pair.factor}",
        "bands": ", ".join(b.description or str(i) for i, b in enumerate(triple.after.bands, start=1)),
        "pixel": f"{x:g} x {y:g} {triple.after.grid.crs.units_factor[0]}",
        "reference system": crs_name(triple.after.grid.crs),
        "data type": triple.after.dtype,
    }


def crop_row(triple: Triple, window: Window, stretch: Stretch) -> list[dict[str, str]]:
    """Return pictures of one window before, after and in the reference, pixel by pixel, with the error."""
    fine = window.scaled(triple.pair.factor)
    before, after = crop_of(triple.before, window), crop_of(triple.after, fine)
    views = {"before": stretch(before), "after": stretch(after)}
    if triple.truth:
        truth = crop_of(triple.truth, fine)
        views["truth"] = stretch(truth)
        gap = np.abs(after - truth).mean(axis=0)
        views["error"] = heat(gap, float(np.nanpercentile(gap, 99)))
    where = f"row {window.row}, column {window.col}"
    return [figure(png(view), f"{name}, {where}") for name, view in views.items()]


def figure(content: bytes, caption: str) -> dict[str, str]:
    """Return a picture that the page carries inside, with its caption."""
    return {"source": data_uri(content), "caption": caption}


def charts(triple: Triple) -> list[str]:
    """Return the power spectrum and the histogram of each band, as HTML."""
    names = [b.description or f"band {i}" for i, b in enumerate(triple.before.bands, start=1)]
    spectrum = line_chart("Power spectrum", "cycles per pixel before", spectra(triple), log=True)
    return [
        spectrum,
        *(
            line_chart(f"Histogram, {name}", "reflectance", lines)
            for name, lines in zip(names, histograms(triple), strict=True)
        ),
    ]


def place_text(scene: Scene) -> str:
    """Return where a scene lies, in words."""
    place = place_of(scene.grid)
    longitude, latitude = place.centre
    return (
        f"Centre {abs(latitude):.4f}° {'N' if latitude >= 0 else 'S'}, {abs(longitude):.4f}° "
        f"{'E' if longitude >= 0 else 'W'}; from {place.south:.4f}, {place.west:.4f} to "
        f"{place.north:.4f}, {place.east:.4f} (latitude, longitude)."
    )


def job(summary: Path | None) -> str:
    """Return what `scenelift enhance --json` printed of time, memory and expected gain; nothing without a file.

    Raises
    ------
    UsageError
        If the file is something else.
    """
    if summary is None:
        return ""
    try:
        facts = json.loads(summary.read_text(encoding="utf-8"))
        gains = (facts.get("expected") or {}).get("gain_db", {})
        told = [f"{g['mean']:+.1f} dB [{g['low']:.1f}, {g['high']:.1f}] over {name}" for name, g in gains.items()]
        return (
            f"{facts['seconds']:.1f} s for {facts['blocks']} blocks, {facts['megapixels_per_second']:.2f} Mpx/s, "
            f"{100 * facts['model_share']:.0f} % of the time in the model, at most {facts['peak_memory_mb']:.0f} MB "
            f"in one process, on {facts['device']} in {facts['precision']}."
            + (f" Tried one level coarser before the job, the gain expected was {', '.join(told)}." if told else "")
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{summary} must be what `scenelift enhance --json` printed, got something else") from None
