"""An index of windows of a grid with their footprints: GeoParquet, and CSV for everything else."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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


def ring(grid: GeoGrid, window: Window) -> list[tuple[float, float]]:
    """Return the corners of a window, first and last the same, in the grid's CRS."""
    corners = [
        (window.col, window.row),
        (window.stop_col, window.row),
        (window.stop_col, window.stop_row),
        (window.col, window.stop_row),
    ]
    points = [grid.transform @ corner for corner in corners]
    return [(float(x), float(y)) for x, y in (*points, points[0])]


def _polygon_wkb(points: Sequence[tuple[float, float]]) -> bytes:
    """Return a polygon of one ring as little-endian well-known binary."""
    head = struct.pack("<BIII", 1, 3, 1, len(points))
    return head + b"".join(struct.pack("<dd", x, y) for x, y in points)


def _polygon_wkt(points: Sequence[tuple[float, float]]) -> str:
    """Return a polygon of one ring as well-known text."""
    return f"POLYGON (({', '.join(f'{x!r} {y!r}' for x, y in points)}))"


def write_index(folder: Path, grid: GeoGrid, entries: Sequence[Entry]) -> None:
    """Write ``index.parquet`` (GeoParquet 1.1, in the grid's CRS) and ``index.csv`` with the footprints as text."""
    rings = [ring(grid, entry.window) for entry in entries]
    columns: dict[str, list[Any]] = {
        "name": [entry.name for entry in entries],
        "row": [entry.window.row for entry in entries],
        "col": [entry.window.col for entry in entries],
        "height": [entry.window.height for entry in entries],
        "width": [entry.window.width for entry in entries],
        "valid": [entry.valid for entry in entries],
        "label": [entry.label for entry in entries],
    }
    table = pa.table(columns | {"geometry": pa.array([_polygon_wkb(points) for points in rings], pa.binary())})
    column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": grid.crs.to_dict(projjson=True)}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), folder / "index.parquet")
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, "footprint"])
        for values, points in zip(zip(*columns.values(), strict=True), rings, strict=True):
            writer.writerow(["" if value is None else value for value in values] + [_polygon_wkt(points)])
