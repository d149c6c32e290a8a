"""What orchestration costs: blocks that do nothing, or sleep, through the very path real blocks take."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from scenelift.pipeline.cluster import Cluster, ClusterSettings, open_cluster
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.files import pixel_checksum
from scenelift.pipeline.jobs.journal import Commit, Journal


@dataclass(frozen=True)
class Stress:
    """One measurement."""

    blocks: int
    seconds: float = 0.0
    """Each block sleeps so long."""
    per_task: int = 1
    """Blocks done in one task."""

    def __post_init__(self) -> None:
        if not 1 <= self.blocks <= 10**8 or self.per_task < 1 or self.blocks % self.per_task:
            raise UsageError(f"{self.blocks} blocks in tasks of {self.per_task}: give a positive multiple")
        if not 0 <= self.seconds <= 60:
            raise UsageError(f"a block sleeps 0 to 60 seconds, got {self.seconds}")


@dataclass(frozen=True)
class StressResult:
    """What it cost."""

    blocks: int
    per_task: int
    workers: int
    wall_s: float
    """From the first task handed out to the last record written."""
    driver_cpu_ms_per_block: float
    """CPU time of the process with scheduler, client and journal."""
    worker_cpu_ms_per_block: float
    """CPU time of all worker processes."""
    overhead: float | None
    """Share of the wall time beyond blocks x seconds / workers; None where blocks do nothing."""
    memory_before_mb: float
    memory_peak_mb: float
    """Largest resident memory of the driver after any batch of records."""


def _synthetic_task(seconds: float, per_task: int, index: int) -> list[Commit]:
    """Do nothing for a while, and report as a real block does."""
    if seconds:
        time.sleep(seconds * per_task)
    numbers = range(index * per_task, (index + 1) * per_task)
    checksum = pixel_checksum()
    facts = {"read_s": 0.0, "model_s": seconds, "write_s": 0.0, "worker": "stress", "rss": 0}
    return [Commit(n, checksum, {f"0/c/0/{n // 1000}/{n % 1000}": checksum}, facts) for n in numbers]


def run_stress(cases: list[Stress], settings: ClusterSettings) -> Iterator[StressResult]:
    """Run each case on one and the same cluster."""
    with open_cluster(settings) as place:
        list(place.run(functools.partial(_synthetic_task, 0.0, 1), range(100)))  # connections, imports
        for case in cases:
            yield _measure(case, place, settings)


def _measure(case: Stress, place: Cluster, settings: ClusterSettings) -> StressResult:
    me = psutil.Process()
    workers = settings.local_workers
    task = functools.partial(_synthetic_task, case.seconds, case.per_task)
    before = peak = me.memory_info().rss
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Journal.create(Path(folder), {"stress": asdict(case)}, {})) as journal,
    ):
        # The driver's own CPU clock counts nanoseconds; of other processes the kernel tells hundredths of a second.
        cpu, others, clock = time.process_time(), _children_cpu(me), time.perf_counter()
        for number, commits in enumerate(place.run(task, range(case.blocks // case.per_task))):
            journal.commit(*commits)
            if number % 1000 == 0:
                peak = max(peak, me.memory_info().rss)
        wall = time.perf_counter() - clock
        cpu, others = time.process_time() - cpu, _children_cpu(me) - others
    peak = max(peak, me.memory_info().rss)
    ideal = case.blocks * case.seconds / max(1, workers)
    return StressResult(
        blocks=case.blocks,
        per_task=case.per_task,
        workers=workers,
        wall_s=round(wall, 3),
        driver_cpu_ms_per_block=round(1000 * cpu / case.blocks, 4),
        worker_cpu_ms_per_block=round(1000 * others / case.blocks, 4),
        overhead=round(1 - ideal / wall, 4) if case.seconds else None,
        memory_before_mb=round(before / 2**20, 1),
        memory_peak_mb=round(peak / 2**20, 1),
    )


def _children_cpu(process: psutil.Process) -> float:
    times = [child.cpu_times() for child in process.children(recursive=True)]
    return float(sum(t.user + t.system for t in times))
