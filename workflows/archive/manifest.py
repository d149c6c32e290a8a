"""Manifests: tables of scenes as CSV, Parquet or JSON, with the columns path, id, date, priority, cloud_cover."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scenelift.pipeline.addresses import local_path, without_secrets
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.archive.entries import Entry, date_from, id_from, number_from

TABLES = (".csv", ".parquet", ".json")
COLUMNS = ("path", "id", "date", "priority", "cloud_cover")


def read_manifest(path: Path, outside: bool = False, remote: bool = False) -> Iterator[Entry]:
    """Yield the scenes that a manifest lists.

    Relative paths start from the manifest's folder. A path that leaves it (by "..", a link, or as an absolute path)
    is a problem of its scene unless `outside` allows it; so is an address unless `remote` does. Several files of one
    scene (one band each) are separated by "|".

    Parameters
    ----------
    path : Path
        ``.csv`` with a header, ``.parquet``, or ``.json`` (a list of objects).

    Raises
    ------
    UsageError
        If the table cannot be read, has no column path or an unknown one, or a value is no date or number.
    """
    rows = _rows(path)
    if not rows:
        raise UsageError(f"{path} lists no scenes: give it a row each, with a column path")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if unknown := [key for key in row if key not in COLUMNS]:
            raise UsageError(f"{where}: unknown column {unknown[0]!r}; known are {', '.join(COLUMNS)}")
        yield _entry(row, path.parent, where, outside, remote)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows: Any = list(csv.DictReader(file))
        elif path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        raise UsageError(f"cannot read the manifest {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} must be a list of objects such as {{'path': 'a.tif'}}")
    return rows


def _entry(row: dict[str, Any], folder: Path, where: str, outside: bool, remote: bool) -> Entry:
    text = str(row.get("path") or "").strip()
    if not text:
        raise UsageError(f"{where}: path must name a scene, got nothing")
    parts = [part.strip() for part in text.split("|")]
    given = str(row.get("id") or "").strip()
    placed = [place(part, folder, outside, remote) for part in parts]
    problem = next((problem for _, problem in placed if problem), None)
    return Entry(
        id=given or id_from(parts[0].rpartition("/")[2] if _is_absolute(parts[0]) else parts[0]),
        paths=tuple(path for path, _ in placed),
        date=date_from(row.get("date"), where),
        cloud_cover=number_from(row.get("cloud_cover"), where),
        priority=int(number_from(row.get("priority"), where) or 0),
        problem=problem,
    )


def _is_absolute(text: str) -> bool:
    return "://" in text or Path(text).is_absolute() or ".." in Path(text).parts


def place(text: str, folder: Path, outside: bool, remote: bool) -> tuple[str, str | None]:
    """Return the path that a list in `folder` means by `text`, and why it must not be opened (None if it may)."""
    text = local_path(text)
    if "://" in text or text.startswith("/vsi"):
        refused = not remote or text.startswith("/vsi")
        return text, f"{without_secrets(text)} is not a local file (addresses need --allow-remote)" if refused else None
    path = folder / text
    if not outside and not path.resolve().is_relative_to(folder.resolve()):
        return str(path), f"{text} lies outside {folder.resolve()} (--allow-outside permits that)"
    return str(path), None
