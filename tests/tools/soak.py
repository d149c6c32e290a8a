"""Hours of faults, in pieces: `make soak`, or `main()` with names of rows, or `--table`, as arguments.

A row is a kind of fault. Each finished piece of a row (ten faults) is one line of docs/soak.csv, so a soak that was
stopped goes on with what is missing; a piece in which something failed is tried again. The n-th fault of a row draws
its chances from the seed n, whenever it runs.
"""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from support import faults
from support.faults import Bench, make_bench
from support.faults import disks as faults_disks
from support.faults import inputs as faults_inputs
from support.faults import locks as faults_locks
from support.faults import networks as faults_networks

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / "docs" / "soak.csv"
HEAD = ["fault", "first", "tried", "survived", "wrong", "seconds", "date", "revision", "what"]
PIECE = 10
NAMES = ("out.tif", "out.zarr")
POINTS = [(point, name) for name in NAMES for point in faults.points(name)]


def kill_the_tree(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    faults.kill_the_tree(bench, folder, rng, workers=2 if number % 12 == 11 else 0)


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


def two_holders(bench: Bench, folder: Path, rng: random.Random, number: int) -> None:
    faults_locks.two_holders(bench, folder, NAMES[number % 2], faults_locks.MOMENTS[number // 2 % 4])


Fault = Callable[[Bench, Path, random.Random, int], object]


@dataclass(frozen=True)
class Row:
    """A kind of fault: how often, and how many at a time."""

    times: int
    fault: Fault
    each: int = 1

    @property
    def piece(self) -> int:
        """Calls in one piece."""
        return max(1, PIECE // self.each)


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
    "two drivers that both believe they hold the lock": Row(16, two_holders),
    "network: every packet 50 ms late": Row(3, lambda b, f, r, n: faults_networks.slow(b, f)),
    "network: 5% of packets lost": Row(3, lambda b, f, r, n: faults_networks.lossy(b, f)),
    "cable between driver and scheduler cut for 30 s: exit 0 or 75": Row(
        3, lambda b, f, r, n: faults_networks.cut(b, f, "driver", "scheduler", faults_networks.OUTAGE)
    ),
    "cable between driver and scheduler cut for good: exit 75": Row(
        3, lambda b, f, r, n: faults_networks.cut(b, f, "driver", "scheduler", None)
    ),
    "cable between scheduler and a worker cut for 30 s": Row(
        3, lambda b, f, r, n: faults_networks.cut(b, f, "scheduler", "one", faults_networks.OUTAGE)
    ),
    "cable between scheduler and a worker cut for good": Row(
        3, lambda b, f, r, n: faults_networks.cut(b, f, "scheduler", "two", None)
    ),
    "cables between workers and the input's storage cut for 30 s": Row(
        3, lambda b, f, r, n: faults_networks.cut_storage(b, f, faults_networks.OUTAGE)
    ),
    "cables between workers and the input's storage cut for good: exit 75": Row(
        3, lambda b, f, r, n: faults_networks.cut_storage(b, f, None)
    ),
}
"""200 kills of workers are 20 runs of ten; 400 damaged files are 300 flips and 100 others."""


@dataclass(frozen=True)
class Piece:
    """What came of some faults of a row: one line of the log."""

    fault: str
    first: int
    """Number of the first fault in its row."""
    tried: int
    survived: int
    wrong: int
    """Pixels of outputs that differ from those of an uninterrupted run, or are gone."""
    seconds: int
    date: str
    revision: str
    what: str
    """What failed first; empty if all survived."""


def read_log(log: Path) -> list[Piece]:
    """Return the lines of a log; of a piece that was tried again, the last."""
    if not log.is_file():
        return []
    numbers = ("first", "tried", "survived", "wrong", "seconds")
    with log.open(newline="", encoding="utf-8") as file:
        made = [Piece(**{k: int(v) if k in numbers else v for k, v in line.items()}) for line in csv.DictReader(file)]
    return list({(p.fault, p.first): p for p in made}.values())


def write_line(log: Path, piece: Piece) -> None:
    """Append a line to a log, which begins with its columns."""
    new = not log.is_file()
    with log.open("a", newline="", encoding="utf-8") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        if new:
            write(HEAD)
        write([getattr(piece, name) for name in HEAD])


def missing(rows: dict[str, Row], log: Path) -> list[tuple[str, int]]:
    """Return the pieces to be done, by row and number of their first fault; the first of each row come first."""
    done = {(p.fault, p.first) for p in read_log(log) if p.survived == p.tried}
    left = [(i, name, first) for name, row in rows.items() for i, first in enumerate(range(0, row.times, row.piece))]
    return [(name, first) for _, name, first in sorted(left, key=lambda piece: piece[0]) if (name, first) not in done]


def wrong_pixels(bench: Bench, folder: Path) -> int:
    """Count the pixels of the outputs in a folder that are not those of the reference; an unreadable one has none."""
    from scenelift.pipeline.scenes.opening import open_scene
    from scenelift.pipeline.scenes.scenes import SceneSource
    from scenelift.pipeline.tiles import Window

    wrong = 0
    for path in (folder / name for name in NAMES):
        if not path.exists():
            continue
        with_place = [open_scene(SceneSource((str(bench.reference(path.name)),)))]
        shape = with_place[0].grid.shape
        wanted = with_place[0].read_dn(Window(0, 0, *shape))[0]
        try:
            made = open_scene(SceneSource((str(path),))).read_dn(Window(0, 0, *shape))[0]
            wrong += int(np.any(made != wanted, axis=0).sum())
        except Exception:  # noqa: BLE001 - whatever keeps it from being read, its pixels are lost
            wrong += shape[0] * shape[1]
    return wrong


def try_piece(bench: Bench, folder: Path, name: str, row: Row, first: int) -> Piece:
    """Try some faults of a row. Folders of those that were survived are removed."""
    began, survived, wrong, what = time.monotonic(), 0, 0, ""
    numbers = range(first, min(first + row.piece, row.times))
    for number in numbers:
        place = folder / f"{list(ROWS).index(name) if name in ROWS else name}-{number}"
        try:
            row.fault(bench, place, random.Random(number), number)
        except Exception as error:  # noqa: BLE001 - the next fault is tried all the same
            traceback.print_exc()
            wrong += wrong_pixels(bench, place)
            what = what or f"number {number}: {type(error).__name__}: {error}"[:300].splitlines()[0]
        else:
            survived += 1
            shutil.rmtree(place)
            place.with_name(place.name + ".hold").unlink(missing_ok=True)
    seconds = round(time.monotonic() - began)
    tried = len(numbers) * row.each
    return Piece(name, first, tried, survived * row.each, wrong, seconds, str(date.today()), revision(), what)


def soak(rows: dict[str, Row], log: Path, folder: Path) -> bool:
    """Try all that is missing in a log; whether everything was survived."""
    folder.mkdir(exist_ok=True)
    bench, good = make_bench(folder), True
    for name, first in missing(rows, log):
        piece = try_piece(bench, folder, name, rows[name], first)
        write_line(log, piece)
        good &= piece.survived == piece.tried
        print(*(getattr(piece, column) for column in HEAD), sep="\t", flush=True)
    return good


def revision() -> str:
    """Return the commit whose code is tried, if that is known."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def table(pieces: Iterable[Piece]) -> str:
    """Return the table of docs/reliability.md."""
    lines = ["| fault | tried | survived | wrong or lost pixels |", "|---|---|---|---|"]
    pieces = list(pieces)
    for name in dict.fromkeys([*ROWS, *(p.fault for p in pieces)]):
        if found := [p for p in pieces if p.fault == name]:
            sums = [sum(getattr(p, column) for p in found) for column in ("tried", "survived", "wrong")]
            lines.append("| " + " | ".join([name, *map(str, sums)]) + " |")
    return "\n".join(lines)


def main() -> int:
    if "--table" in sys.argv:
        print(table(read_log(LOG)))
        return 0
    if unknown := set(sys.argv[1:]) - set(ROWS):
        raise SystemExit(f"no such rows: {', '.join(unknown)}; there are: {'; '.join(ROWS)}")
    rows = {name: row for name, row in ROWS.items() if name in (sys.argv[1:] or ROWS)}
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    good = soak(rows, LOG, folder)
    print(table(read_log(LOG)))
    if good:
        shutil.rmtree(folder)
    else:
        print(f"the folders of what failed are in {folder}")
    return 0 if good else 1
