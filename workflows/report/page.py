"""`scenelift report`: one page that shows what was done to a scene, works offline, and holds its own pictures."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.files import make_folder
from scenelift.pipeline.outputs.formats import FORMATS
from scenelift.pipeline.outputs.readback import provenance_of
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.places import place_of
from scenelift.pipeline.scenes.quicklooks import Stretch, data_uri, factor_for, heat, png, stretch_of, view_of
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.scores.pairs import Pair
from scenelift.pipeline.scores.scores import REFLECTANCE_RANGE
from scenelift.pipeline.tiles import Window
from scenelift.workflows.report.charts import locator
from scenelift.workflows.report.evidence import (
    Triple,
    busiest,
    consistency,
    open_triple,
    texture_table,
    truth_table,
)
from scenelift.workflows.report.html import Table, charts, crop_row, facts, figure, job, place_text
from scenelift.workflows.report.rendering import render

TEMPLATE = Path(__file__).with_name("report.html")
SIDE = 640
"""Longest side of a quicklook of the scene before, pixels; that of the scene after is as many times larger."""
DEMO = ("degraded-20m.tif", "sr-x2-10m.tif", "scene-10m.tif")
"""Before, after and truth in the folder that `scenelift demo` fills."""


@dataclass(frozen=True)
class ReportSources:
    """What a report is about."""

    before: SceneSource
    after: SceneSource
    truth: SceneSource | None = None
    uncertainty: SceneSource | None = None
    """One band or more on the grid of the scene after."""
    summary: Path | None = None
    """What `scenelift enhance --json` printed, for time, memory and expected gain."""


def sources_of(run: Path, before: Path | None, truth: Path | None) -> ReportSources:
    """Find the scenes of a run: a demo's folder, or an enhanced scene and the one it was made from.

    Raises
    ------
    UsageError
        If the folder is no demo's, or the scene before is not named and not found beside the scene after.
    """
    if run.is_dir() and run.suffix.lower() not in FORMATS:
        paths = [run / name for name in DEMO]
        if missing := [path.name for path in paths if not path.exists()]:
            raise UsageError(f"{run} is not a folder that `scenelift demo` filled: it has no {missing[0]}")
        found = [SceneSource((str(path),)) for path in paths]
        return ReportSources(found[0], found[1], found[2])
    scene = SceneSource((str(run),))
    return ReportSources(_before(run, scene, before), scene, SceneSource((str(truth),)) if truth else None)


def _before(run: Path, after: SceneSource, named: Path | None) -> SceneSource:
    """Return what a scene was made from, read as it was then: bands, scale, offset, nodata value, CRS and extent."""
    made = provenance_of(open_scene(after))
    names = made.get("input", {}).get("files", [])
    if named and names != [named.name]:
        return SceneSource((str(named),))  # another raster, with bands and numbers of its own
    found = [named] if named else [run.parent / name for name in names]
    if not found or not all(path.exists() for path in found):
        raise UsageError(f"cannot find what {run.name} was made from; name it with --before")
    bands = tuple(made["bands"]) if made.get("bands") else None
    known = ("scale", "offset", "nodata", "crs", "extent", "time")
    options = {name: made.get("settings", {}).get(name) for name in known}
    options["nodata"] = None if options["nodata"] is None else float(options["nodata"])  # NaN is a text there
    return replace(SceneSource(tuple(map(str, found)), bands), **options)


def write_report(sources: ReportSources, output: Path, export: Path | None = None) -> Path:
    """Write the page, and its pictures and tables as files if a folder is given.

    Parameters
    ----------
    sources : ReportSources
    output : Path
        HTML file; replaced if it exists.
    export : Path, optional
        Folder for PNG and CSV files.

    Raises
    ------
    UsageError
        If scenes do not fit each other, or nothing can be written.
    """
    triple = open_triple(sources.before, sources.after, sources.truth)
    pictures, stretch = _pictures(triple, sources.uncertainty)
    tables = _tables(triple)
    page = render(
        TEMPLATE,
        title=f"{triple.after.name}: before and after",
        facts=facts(triple),
        before_image=data_uri(pictures["before"]),
        after_image=data_uri(pictures["after"]),
        look_note="Both pictures have the same stretch: the 2nd to the 98th percentile of the scene before.",
        crops=[crop_row(triple, window, stretch) for window in busiest(triple)],
        maps=[figure(png_file, name) for name, png_file in pictures.items() if "map" in name],
        tables=tables,
        charts=charts(triple),
        place=place_text(triple.before),
        locator=locator(*place_of(triple.before.grid).centre),
        job=job(sources.summary),
        provenance=json.dumps(provenance_of(triple.after), indent=2),
        footer=f"Written by scenelift {version('scenelift')}. Everything on this page is inside this file.",
    )
    _save(output, page.encode())
    if export:
        _export(export, pictures, tables)
    return output


def _save(path: Path, content: bytes) -> None:
    """Write a file under another name first, so that a page is whole or not there."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        made.write_bytes(content)
        made.replace(path)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _export(folder: Path, pictures: dict[str, bytes], tables: list[Table]) -> None:
    make_folder(folder)
    for name, content in pictures.items():
        _save(folder / f"{name.replace(' ', '-')}.png", content)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["table", "scene", "score", "value", "low", "high"])
    for table in tables:
        for name, row in table.scores.items():
            writer.writerows([table.title, name, score.title, v.mean, v.low, v.high] for score, v in row)
    _save(folder / "scores.csv", text.getvalue().encode())


def _pictures(triple: Triple, uncertainty: SceneSource | None) -> tuple[dict[str, bytes], Stretch]:
    factor, scale = factor_for(triple.before, SIDE), triple.pair.factor
    cells = triple.before.grid.height // factor, triple.before.grid.width // factor
    fine = cells[0] * scale, cells[1] * scale
    before = view_of(triple.before, factor, cells)
    stretch = stretch_of(before)
    pictures = {"before": png(stretch(before)), "after": png(stretch(view_of(triple.after, factor, fine)))}
    if triple.truth:
        pictures["truth"] = png(stretch(view_of(triple.truth, factor, fine)))
        error = _difference(Pair(triple.truth, triple.after, 1), factor, fine)
        pictures["map of the error against the truth"] = _heat_png(error)
    back = _difference(triple.pair, factor, cells)
    pictures["map of the difference from the scene before"] = _heat_png(back)
    if uncertainty:
        view = view_of(open_scene(uncertainty), factor, fine)
        pictures["map of the uncertainty"] = _heat_png(view.mean(axis=0))
    return pictures, stretch


def _difference(pair: Pair, factor: int, cells: tuple[int, int]) -> NDArray[np.float64]:
    """Return the mean absolute difference over bands and ``factor`` x ``factor`` pixels; NaN without data."""
    out = np.full(cells, np.nan)
    for row in range(cells[0]):
        reference, test, valid = pair.read_window(Window(row * factor, 0, factor, cells[1] * factor))
        gap = np.where(valid, np.abs(test.astype(np.float64) - reference), 0).reshape(-1, cells[1], factor)
        count = valid.reshape(-1, cells[1], factor).sum(axis=(0, 2))
        out[row] = np.divide(gap.sum(axis=(0, 2)), count, out=np.full(cells[1], np.nan), where=count > 0)
    return out


def _heat_png(values: NDArray[np.floating[Any]]) -> bytes:
    known = values[np.isfinite(values)]
    return png(heat(values, float(np.percentile(known, 99)) if known.size else 1.0))


def _tables(triple: Triple) -> list[Table]:
    blocks = f"means of {len(triple.blocks())} blocks spread over the scene, 95 % intervals by drawing blocks"
    tables = []
    if triple.truth:
        note = f"Against {triple.truth.name}; full scale {REFLECTANCE_RANGE} reflectance; {blocks}."
        tables.append(Table("Against the truth", note, truth_table(triple)))
    note = f"How far the scene after is from the scene before when averaged back to its grid; {blocks}."
    tables.append(Table("Consistency", note, {"after": consistency(triple)}))
    note = f"Fine texture counts as noise; more sharpness is not always better. {blocks[0].upper()}{blocks[1:]}."
    tables.append(Table("Noise, contrast and sharpness", note, texture_table(triple)))
    return tables
