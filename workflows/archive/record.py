"""What became of each scene: one small durable file a scene, so that no file is ever written by two processes."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scenelift.pipeline.addresses import without_secrets, work_folder
from scenelift.pipeline.files import write_durably
from scenelift.pipeline.scenes.limits import sidecar_files

DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class SceneRecord:
    """What became of one scene."""

    id: str
    status: str
    """"done", "skipped" (not wanted by a filter) or "failed"."""
    reason: str | None = None
    """Why it was skipped or failed."""
    inputs: list[str] = field(default_factory=list)
    output: str | None = None
    """Relative to the archive's folder."""
    sha256: str | None = None
    """Of a GeoTIFF; of a Zarr group, over the checksums of its files."""
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    bands: int | None = None
    scale: int | None = None
    blocks: int | None = None
    notes: list[str] = field(default_factory=list)
    """What was assumed of the scene, or left out."""
    expected: dict[str, Any] | None = None
    """Gain in dB over classical methods, tried on the scene one level coarser."""
    holes: list[int] = field(default_factory=list)
    """Blocks that failed and hold no data."""
    seconds: float | None = None
    """From the scene's turn to its record."""
    seconds_in: dict[str, float] = field(default_factory=dict)
    """The same by step."""
    scores: dict[str, Any] = field(default_factory=dict)
    date: str | None = None
    cloud_cover: float | None = None
    footprint: list[tuple[float, float]] = field(default_factory=list)
    """Corners as longitude and latitude."""
    worker: str | None = None
    """Host and process that drove it."""
    finished: str | None = None
    published: str | None = None
    """Address that it was copied to."""
    key: str = ""
    """Of the settings that it was made with."""
    states: dict[str, Any] = field(default_factory=dict)
    """Size and time of input and output files: while they stay, nothing has to be read to know that it is done."""


def read_record(folder: Path, name: str) -> SceneRecord | None:
    """Return a scene's record; None if there is none that can be read."""
    try:
        found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        known = {f.name for f in fields(SceneRecord)}
        return SceneRecord(**{k: v for k, v in found.items() if k in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_record(folder: Path, record: SceneRecord) -> None:
    """Put a record in its place, whole and durable.

    Raises
    ------
    SinkError
        If the disk refuses.
    """
    write_durably(folder / f"{record.id}.json", json.dumps(asdict(record), sort_keys=True).encode())


def sweep_unfinished(path: Path) -> None:
    """Remove what a kill in the midst of `write_durably` left beside a path that no other process writes now."""
    for rest in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        rest.unlink(missing_ok=True)


def all_records(folder: Path) -> Iterator[SceneRecord]:
    """Yield the records in a folder, by id."""
    for path in sorted(folder.glob("*.json")):
        if (record := read_record(folder, path.stem)) is not None:
            yield record


def outputs_of(root: Path) -> list[Path] | None:
    """Return the outputs of the scenes of an archive that are done, by id; None if a folder is no archive's."""
    folder = root / ".scenelift" / "scenes"  # as `Folder.records`
    if not folder.is_dir():
        return None
    done = (record.output for record in all_records(folder) if record.status == DONE)
    paths = [root / output for output in done if output is not None]
    return [path for path in paths if path.resolve().is_relative_to(root.resolve())]


def is_settled(
    record: SceneRecord | None, key: str, inputs: Iterable[str], root: Path, publish: str | None = None
) -> bool:
    """Whether a scene is done with these settings, and neither its input nor its output has been touched since."""
    if record is None or record.status != DONE or record.key != key or record.output is None:
        return False
    if publish is not None and record.published != without_secrets(publish):
        return False
    return record.states == {"inputs": state_of(inputs), "output": output_state(root / record.output)}


def state_of(paths: Iterable[str]) -> list[list[int]]:
    """Return how many files there are at each path, their size and the latest change; cheap, reads none of them."""
    found = []
    for path in map(Path, paths):
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path, *sidecar_files(path)]
        stats = [stat for file in files if (stat := _stat(file)) is not None]
        found.append([len(stats), sum(s.st_size for s in stats), max([0, *(s.st_mtime_ns for s in stats)])])
    return found


def output_state(path: Path) -> list[int] | None:
    """Return size and time of an output and of its journal; None if one of them is missing."""
    stats = [_stat(path / "zarr.json" if path.is_dir() else path), _stat(work_folder(path) / "journal.jsonl")]
    return [n for s in stats if s is not None for n in (s.st_size, s.st_mtime_ns)] if all(stats) else None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def now() -> str:
    """Return the time as ISO text, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def counts(records: Iterable[SceneRecord]) -> dict[str, int]:
    """Return how many scenes are done, skipped and failed."""
    found = dict.fromkeys((DONE, SKIPPED, FAILED), 0)
    for record in records:
        found[record.status] = found.get(record.status, 0) + 1
    return found


def write_tables(root: Path, records: list[SceneRecord], settings: dict[str, Any]) -> None:
    """Write ``run.json`` and ``run.parquet``: every scene with what became of it."""
    hidden = ("states", "key")
    rows = [{k: v for k, v in asdict(record).items() if k not in hidden} for record in records]
    facts = {"counts": counts(records), "settings": settings, "scenes": rows}
    content = json.dumps(facts, indent=1, sort_keys=True, default=str).encode()
    path = root / "run.json"
    if path.is_file() and path.read_bytes() == content:
        return
    write_durably(path, content)
    _write_parquet(root / "run.parquet", rows)


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the same table with one column for each score and step; lists become JSON text."""
    import io

    import pyarrow
    import pyarrow.parquet

    flat = [_flat(row) for row in rows]
    columns = {name: [row.get(name) for row in flat] for name in dict.fromkeys(k for row in flat for k in row)}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    write_durably(path, buffer.getvalue())


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in row.items():
        if name == "scores":
            made |= {f"score_{k}": v if isinstance(v, int | float) else None for k, v in value.items()}
        elif name == "seconds_in":
            made |= {f"seconds_{k}": v for k, v in value.items()}
        else:
            made[name] = json.dumps(value) if isinstance(value, list) else value
    return made
