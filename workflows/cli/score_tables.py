"""Scores as a table for people and as Parquet for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.registry import known_scores
from scenelift.workflows.cli.console import table
from scenelift.workflows.evidence.score import ScoreReport


def print_scores(report: ScoreReport) -> None:
    """Print a report: one row a score, one column for all bands and one for each."""
    title = f"{report.test} against {report.reference}" if report.test else f"{report.reference} by itself"
    if report.factor > 1:
        title += f" (means of {report.factor} x {report.factor} pixels)"
    rows = []
    for name, score in known_scores().items():
        if name in report.values:
            suffix = " (test / reference)" if report.test and score.kind == "ratio" else ""
            each = report.by_band.get(name, ("",) * len(report.bands))
            rows.append([score.title + suffix, number(report.values[name]), *map(number, each)])
    table(f"{title}\ndata range {report.data_range:g}", ["", "all bands", *report.bands], rows)
    if report.map:
        print(f"error map: {report.map}")


def number(value: Any) -> str:
    """Return a score as text: five significant digits, "infinite" for infinity, "-" for what cannot be measured."""
    if not isinstance(value, int | float):
        return str(value)
    if value == float("inf"):
        return "infinite"
    return "-" if value != value else f"{value:.5g}"


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as a Parquet table; NaN and infinity stay what they are.

    Raises
    ------
    UsageError
        If the folder is missing or cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for row in rows for k in row)}
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from None
