"""What 1 to 1,000 workers would do: a discrete-event simulation from measured times and bandwidths.

Every worker has a few slots, as a GPU worker has three threads: one reads, one computes, one writes. A slot asks the
scheduler for a block, reads it over the shared storage, waits for its worker's processor, writes, and asks again.
Scheduler, storage, processors and each worker's own link serve one request after the other, in the order they come.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option


def _milliseconds(text: str) -> float:
    try:
        return float(text) / 1000
    except ValueError:
        raise UsageError(f"--scheduler must be numbers of milliseconds, got {text!r}") from None


@dataclass(frozen=True)
class Machine:
    """The numbers that decide; seconds, MB and MB/s."""

    compute_s: float = option(MISSING, "Seconds of one block on a worker's processor.", "--compute")
    read_mb: float = option(8.0, "MB read a block.", "--read")
    write_mb: float = option(32.0, "MB written a block.", "--write")
    worker_mb_s: float = option(1000.0, "MB/s of one worker, reading or writing.", "--worker-bandwidth")
    read_mb_s: float = option(10_000.0, "MB/s of the storage for all, reading.", "--read-bandwidth")
    write_mb_s: float = option(10_000.0, "MB/s of the storage for all, writing.", "--write-bandwidth")
    scheduler_s: float = option(
        0.0013,
        "Milliseconds of the scheduler's and the journal's CPU a block; default: 1.3.",
        "--scheduler",
        parse=_milliseconds,
    )
    start_s: float = option(20.0, "Seconds from a worker's start to its first block: imports, model, CUDA.", "--start")
    slots: int = option(3, "Blocks a worker has in hand: 3 with a GPU, 1 without.")
    jitter: float = 0.1
    """Standard deviation of the compute time, as a share of it."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            positive = each.name in ("compute_s", "slots") or each.name.endswith("mb_s")
            if not (value > 0 if positive else value >= 0) or not math.isfinite(value):
                flag = each.metadata.get("flags") or (f"--{each.name}",)
                raise UsageError(f"{flag[0]} must be {'above 0' if positive else 'from 0 up'}, got {value}")

    @property
    def alone_s(self) -> float:
        """Seconds a block of one worker that has all to itself: the longest of what its slots do side by side."""
        read = self.read_mb / min(self.worker_mb_s, self.read_mb_s)
        write = self.write_mb / min(self.worker_mb_s, self.write_mb_s)
        return max(self.compute_s, read, write, (read + self.compute_s + write + self.scheduler_s) / self.slots)

    def limits(self) -> dict[str, float]:
        """Return how many workers each shared thing can feed: closed form, without chance."""
        shared = {
            "the scheduler": self.scheduler_s,
            "reading": self.read_mb / self.read_mb_s,
            "writing": self.write_mb / self.write_mb_s,
        }
        return {name: self.alone_s / seconds if seconds else float("inf") for name, seconds in shared.items()}


@dataclass(frozen=True)
class Outcome:
    """What a number of workers would reach."""

    workers: int
    seconds: float
    """Of the whole job, starting workers included."""
    efficiency: float
    """Work of one undisturbed worker over the time all workers were held."""


def simulate(machine: Machine, workers: int, blocks: int, seed: int = 0) -> Outcome:
    """Play `blocks` blocks through `workers` workers.

    Returns
    -------
    Outcome
    """
    if workers < 1 or blocks < 1:
        raise UsageError(f"simulation: {workers} workers and {blocks} blocks must be positive")
    chance = random.Random(seed)
    scheduler = reading = writing = end = 0.0
    processors, readers, writers = ([0.0] * workers for _ in range(3))
    events = [(machine.start_s, slot, "ask", slot % workers) for slot in range(workers * machine.slots)]
    heapq.heapify(events)
    number, left = len(events), blocks
    while events:
        now, _, what, worker = heapq.heappop(events)
        if what == "ask":
            if not left:
                continue
            left -= 1
            after = scheduler = max(now, scheduler) + machine.scheduler_s
            following = "read"
        elif what == "read":
            begin = max(now, reading)
            reading = begin + machine.read_mb / machine.read_mb_s
            readers[worker] = max(begin, readers[worker]) + machine.read_mb / machine.worker_mb_s
            after = max(reading, readers[worker])
            following = "compute"
        elif what == "compute":
            seconds = machine.compute_s * max(0.1, chance.gauss(1, machine.jitter))
            after = processors[worker] = max(now, processors[worker]) + seconds
            following = "write"
        else:
            begin = max(now, writing)
            writing = begin + machine.write_mb / machine.write_mb_s
            writers[worker] = max(begin, writers[worker]) + machine.write_mb / machine.worker_mb_s
            after = max(writing, writers[worker])
            following, end = "ask", max(end, after)
        number += 1
        heapq.heappush(events, (after, number, following, worker))
    return Outcome(workers, end, machine.alone_s * blocks / (workers * end))


def sweep(machine: Machine, blocks: int | None, workers: Sequence[int], each: int = 1000) -> list[Outcome]:
    """Simulate growing numbers of workers, with so many `blocks`, or `each` blocks a worker where that is None."""
    return [simulate(machine, n, blocks or each * n) for n in workers]


def knee(outcomes: Sequence[Outcome], least: float = 0.8) -> int:
    """Return the largest number of workers before efficiency falls below `least`; 0 if it never reaches it."""
    found = 0
    for outcome in sorted(outcomes, key=lambda o: o.workers):
        if outcome.efficiency < least:
            break
        found = outcome.workers
    return found
