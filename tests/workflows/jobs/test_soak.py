"""Hours of faults, by hand: `make soak`; SOAK=0.1 does a tenth. Prints the table that docs/reliability.md shows."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import faults, faults_disks, faults_inputs, faults_locks
from support.faults import Bench, make_bench

SHARE = float(os.environ.get("SOAK", "1"))
NAMES = ("out.tif", "out.zarr")
POINTS = [(point, name) for name in NAMES for point in faults.points(name)]


def kill_the_tree(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    faults.kill_the_tree(bench, folder, rng, workers=2 if number % 6 == 5 else 0)


def stop_politely(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    faults.stop_politely(bench, folder, rng, faults.SIGNALS[number % 2], workers=2 if number % 10 == 9 else 0)


def full_disk(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    with faults_disks.small_disk(folder, 1 << 16) as disk:
        faults_disks.full_at(bench, disk, list(faults_disks.STAGES)[number % 4])


def small_disk(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    with faults_disks.small_disk(folder, rng.randrange(200, 800)) as disk:
        faults_disks.fill_up(bench, disk, NAMES[number % 2])


def locks(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    kinds = faults_locks.STALE
    if number % (len(kinds) + 1) == 0:
        faults_locks.two_runs(bench, folder)
    else:
        faults_locks.stale_lock(bench, folder, kinds[number % (len(kinds) + 1) - 1])


def broken_input(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    kind = list(faults_inputs.KINDS)[number % 3]
    if number % 2:
        faults_inputs.cut_input(bench, folder, kind, rng.choice([*faults_inputs.CUTS, rng.uniform(0, 0.98)]))
    else:
        faults_inputs.flipped_input(bench, folder, kind, rng)


def damaged(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    kind = "flipped" if number % 4 else rng.choice(["cut", "emptied", "deleted"])
    faults.damage_and_repair(bench, folder, rng, kind, rng.choice(NAMES))


Fault = Callable[[Bench, Path, random.Random, int], object]


@dataclass(frozen=True)
class Row:
    """A kind of fault: how often, and how many at a time."""

    times: int
    fault: Fault
    each: int = 1


ROWS = {
    "SIGKILL of a worker at a random moment": Row(20, lambda b, f, r, n: faults.kill_workers(b, f, r, 10), each=10),
    "SIGKILL of the whole process tree, then resume": Row(300, kill_the_tree),
    "SIGKILL at a named commit point, each in turn": Row(
        10 * len(POINTS), lambda b, f, r, n: faults.kill_at_a_point(b, f, *POINTS[n % len(POINTS)])
    ),
    "SIGTERM or SIGINT: exit 75 within 20 s": Row(50, stop_politely),
    "scheduler killed: exit 75": Row(20, lambda b, f, r, n: faults.kill_the_scheduler(b, f)),
    "disk full during Zarr, journal, temporary TIFF, COG": Row(20, full_disk),
    "disk too small by chance": Row(20, small_disk),
    "two runs at once, stale locks": Row(20, locks),
    "truncated or flipped input: refused, or what it reads as": Row(100, broken_input),
    "file of an output flipped, cut, emptied, deleted: found, restored": Row(400, damaged),
    "block that raises": Row(10, lambda b, f, r, n: faults.poison_block(b, f, NAMES[n % 2])),
    "block that kills its workers": Row(10, lambda b, f, r, n: faults.lethal_block(b, f, 1 + n % 2)),
    "CUDA out of memory (simulated)": Row(10, lambda b, f, r, n: faults.out_of_memory(b, f, 1 + n % 3)),
    "worker over its memory limit": Row(10, lambda b, f, r, n: faults.too_much_memory(b, f, NAMES[n % 2])),
}
"""400 damaged files are 300 flips and 100 others."""


@pytest.mark.soak
def test_soak(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    lines, failures, began = [], [], time.monotonic()
    for name, row in ROWS.items():
        tried = max(1, round(row.times * SHARE))
        survived = 0
        for number in range(tried):
            # spread over the kinds in a row even when only some are tried
            seed = number * row.times // tried
            try:
                row.fault(bench, tmp_path / f"{len(lines)}-{number}", random.Random(seed), seed)
                survived += 1
            except faults_disks.UnableError as reason:
                failures.append(f"{name}: {reason}")
                break
            except Exception as error:  # noqa: BLE001 - the next fault is tried all the same
                failures.append(f"{name}, number {seed}: {type(error).__name__}: {error}")
        lost = 0 if survived == tried else "see below"
        lines.append(f"| {name} | {tried * row.each} | {survived * row.each} | {lost} |")
        print(lines[-1], f"({time.monotonic() - began:.0f} s)", flush=True)
    print("| fault | tried | survived | wrong or lost pixels |\n|---|---|---|---|\n" + "\n".join(lines))
    assert not failures, "\n".join(failures)
