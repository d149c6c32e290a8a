"""Hours of faults, by hand: `make soak`; SOAK=0.1 does a tenth. Prints the table that docs/reliability.md shows."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import faults
import pytest
from faults import make_bench

SHARE = float(os.environ.get("SOAK", "1"))


def at_a_random_point(bench: faults.Bench, folder: Path, rng: random.Random) -> int:
    name = rng.choice(["out.tif", "out.zarr"])
    faults.kill_at_a_point(bench, folder, rng.choice(faults.points(name)), name)
    return 1


def on_a_small_disk(bench: faults.Bench, folder: Path, rng: random.Random) -> int:
    with faults.small_disk(folder, rng.randrange(200, 800)) as disk:
        faults.fill_up(bench, disk, rng.choice(["out.tif", "out.zarr"]))
    return 1


def damaged(bench: faults.Bench, folder: Path, rng: random.Random) -> int:
    kind = rng.choice(["flipped"] * 7 + ["cut", "emptied", "deleted"])
    faults.damage_and_repair(bench, folder, rng, kind, rng.choice(["out.tif", "out.zarr"]))
    return 1


Fault = Callable[[faults.Bench, Path, random.Random], object]
ROWS: dict[str, tuple[int, Fault]] = {
    "whole process killed at random moments, resumed": (250, faults.kill_the_tree),
    "process tree with two workers killed, resumed": (50, lambda b, f, r: faults.kill_the_tree(b, f, r, 2)),
    "killed at a named commit point, resumed": (170, at_a_random_point),
    "SIGTERM or SIGINT, exit 75 within 20 s, resumed": (
        50,
        lambda b, f, r: faults.stop_politely(b, f, r, r.choice(faults.SIGNALS)),
    ),
    "ten workers killed one by one in one run": (20, lambda b, f, r: faults.kill_workers(b, f, r, 10)),
    "scheduler killed, exit 75, resumed": (20, lambda b, f, r: faults.kill_the_scheduler(b, f)),
    "disk full somewhere, room made, resumed": (40, on_a_small_disk),
    "file flipped, cut, emptied or deleted: found and mended": (300, damaged),
}


@pytest.mark.soak
def test_soak(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    lines, failures = [], []
    for row, (times, fault) in ROWS.items():
        tried = max(1, round(times * SHARE))
        survived = 0
        for seed in range(tried):
            try:
                fault(bench, tmp_path / f"{len(lines)}-{seed}", random.Random(seed))
                survived += 1
            except (AssertionError, TimeoutError, OSError) as error:
                failures.append(f"{row}, seed {seed}: {error}")
        lines.append(f"| {row} | {tried} | {survived} | {0 if survived == tried else 'see below'} |")
        print(lines[-1], flush=True)
    print("| fault | tried | survived | wrong or lost pixels |\n|---|---|---|---|\n" + "\n".join(lines))
    assert not failures, "\n".join(failures)
