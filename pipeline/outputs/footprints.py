"""An index of windows of a grid with their footprints: GeoParquet, and CSV for everything else."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.tiles import Window


@dataclass(frozen=True)
class Entry:
    """One tile of an index."""

    name: str
    """File, or key in the archive."""
    window: Window
    valid: float
    """Share of pixels with data."""
    label: int | None = None
    """Most frequent class, where there are labels."""


def _footprints(grid: GeoGrid, windows: Sequence[Window]) -> NDArray[np.object_]:
    """Return the outlines of windows in the grid's CRS, polygons of shapely."""
    cols = np.array([(w.col, w.stop_col, w.stop_col, w.col) for w in windows], float)
    rows = np.array([(w.row, w.row, w.stop_row, w.stop_row) for w in windows], float)
    t = grid.transform
    made: NDArray[np.object_] = shapely.polygons(
        np.stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f], axis=-1)
    )
    return made


def write_index(folder: Path, grid: GeoGrid, entries: Sequence[Entry]) -> None:
    """Write ``index.parquet`` (GeoParquet 1.1, in the grid's CRS) and ``index.csv`` with the footprints as text."""
    outlines = _footprints(grid, [entry.window for entry in entries])
    columns: dict[str, list[Any]] = {
        "name": [entry.name for entry in entries],
        "row": [entry.window.row for entry in entries],
        "col": [entry.window.col for entry in entries],
        "height": [entry.window.height for entry in entries],
        "width": [entry.window.width for entry in entries],
        "valid": [entry.valid for entry in entries],
        "label": [entry.label for entry in entries],
    }
    table = pa.table(columns | {"geometry": pa.array(shapely.to_wkb(outlines, byte_order=1), pa.binary())})
    column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": grid.crs.to_dict(projjson=True)}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), folder / "index.parquet")
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, "footprint"])
        texts = shapely.to_wkt(outlines, rounding_precision=-1)
        for *values, text in zip(*columns.values(), texts, strict=True):
            writer.writerow(["" if value is None else value for value in values] + [text])
