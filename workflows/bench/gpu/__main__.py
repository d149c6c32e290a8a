"""``python -m scenelift.workflows.bench.gpu``: run the checks, write gpu.json and gpu.md."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from scenelift.workflows.bench.gpu.bench import Bench, Row
from scenelift.workflows.bench.gpu.correctness import (
    agreement,
    killed_worker,
    out_of_memory,
    same_bytes,
    training,
    two_at_once,
)
from scenelift.workflows.bench.gpu.speed import bare, whole_tile

Check = Callable[[Bench], Iterable[Row]]
CHECKS: tuple[Check, ...] = (
    agreement,
    same_bytes,
    out_of_memory,
    killed_worker,
    two_at_once,
    training,
    bare,
    whole_tile,
)


def run_checks(bench: Bench, checks: tuple[Check, ...] = CHECKS) -> list[Row]:
    """Run every check, whatever becomes of the others; print each row as it is known."""
    rows: list[Row] = []
    for check in checks:
        started = time.perf_counter()
        try:
            for row in check(bench):
                rows.append(_printed(row))
        except Exception as error:  # noqa: BLE001 - minutes on a GPU are rare: the other checks go on
            rows.append(_printed(Row(check.__name__, False, f"{type(error).__name__}: {error}")))
        print(f"       ({check.__name__}: {time.perf_counter() - started:.1f} s)", flush=True)
    return rows


def _printed(row: Row) -> Row:
    mark = {True: "ok", False: "FAILED", None: "--"}[row.passed]
    print(f"{mark:6} {row.check}: {row.value}", flush=True)
    return row


def hardware(device: str) -> dict[str, Any]:
    """Return what the figures belong to."""
    facts: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count(), "device": device}
    if device == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return facts


def markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    """Return the table for docs/performance.md."""
    words = {True: "yes", False: "**no**", None: ""}
    lines = [
        ", ".join(f"{key}: {value}" for key, value in facts.items()),
        "",
        "| check | passed | found |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {row.check} | {words[row.passed]} | {row.value} |" for row in rows), ""])


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the checks without a GPU.")] = "cuda",
    out: Annotated[Path, typer.Option(help="Folder for gpu.json and gpu.md.")] = Path("gpu-report"),
    side: Annotated[
        int | None, typer.Option(help="Pixels a side of the whole tile; default 10980, 600 on a CPU.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run this check alone; repeatable.")] = None,
) -> None:
    """Run all checks on a device, and write gpu.json and gpu.md."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: --device cpu tries the checks without one")
    known = {check.__name__: check for check in CHECKS}
    if unknown := set(only or ()) - set(known):
        raise SystemExit(f"no check {sorted(unknown)[0]!r}: there are {', '.join(known)}")
    checks = tuple(known[name] for name in only) if only else CHECKS
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = run_checks(Bench(device, Path(folder), side or (10_980 if device == "cuda" else 600)), checks)
    facts = hardware(device)
    (out / "gpu.json").write_text(json.dumps({"hardware": facts, "rows": [asdict(row) for row in rows]}, indent=1))
    (out / "gpu.md").write_text(markdown(rows, facts))
    failed = [row.check for row in rows if row.passed is False]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    typer.run(main)
