"""What a job did, as its driver counts it and as people and machines are told."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from scenelift.pipeline.jobs.blocks import BlockRecord
from scenelift.pipeline.jobs.journal import Commit
from scenelift.pipeline.jobs.plan import Plan

STAGES = {
    "preparing": "all before the first block",
    "blocks": "from the first to the last",
    "publishing": "all behind the last",
}
"""Where the seconds of a job go, and what that means."""
WORK = {"reading": "read_s", "model": "model_s", "writing": "write_s"}
"""What workers do in the blocks, and what their records call it."""


@dataclass(frozen=True)
class EnhanceSummary:
    """What was done, for people and machines."""

    output: str
    models: list[str]
    width: int
    height: int
    bands: int
    scale: int
    blocks: int
    skipped: int
    resumed: int
    """Blocks that an earlier run had finished."""
    holes: list[int]
    """Blocks that failed and hold no data."""
    seconds: float
    """Of the whole job, from the call to the published output."""
    blocks_seconds: float
    """From the first block handed out to the last one written."""
    blocks_cpu_seconds: float
    """CPU time of all processes in the blocks: a yardstick that a busy machine does not stretch."""
    megapixels_per_second: float
    """Output pixels (all bands) made by this run per second, in millions."""
    model_share: float
    """Fraction of the workers' busy time spent in the models."""
    peak_memory_mb: float
    """Largest resident memory of any one process after a block."""
    device: str
    precision: str
    notes: list[str] = field(default_factory=list)
    """What was assumed of the input or left out, what networks were told, and what may be expected."""
    expected: dict[str, Any] | None = None
    """Gain in dB over classical methods, tried on the scene one level coarser; None where that was not done."""
    stages: dict[str, float] = field(default_factory=dict)
    """Where the seconds went (`STAGES`), and those of all workers together in the blocks (`WORK`)."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass
class Tally:
    """What a run has done so far."""

    records: list[BlockRecord] = field(default_factory=list)
    commits: dict[int, Commit] = field(default_factory=dict)
    holes: dict[int, str] = field(default_factory=dict)
    resumed: int = 0
    blocks_began: float | None = None
    """When the first block was handed out, if one was left (`time.perf_counter`); None: there was nothing to do."""
    blocks_seconds: float = 0.0


def summarize(plan: Plan, done: Tally, started: float) -> EnhanceSummary:
    """Return what to tell of a run that began at ``started`` (`time.perf_counter`)."""
    out, records, seconds = plan.job.output, done.records, time.perf_counter() - started
    inside = {name: sum(getattr(record, step) for record in records) for name, step in WORK.items()}
    busy = sum(inside.values())
    preparing = seconds if done.blocks_began is None else done.blocks_began - started
    stages = dict(zip(STAGES, (preparing, done.blocks_seconds, seconds - preparing - done.blocks_seconds), strict=True))
    return EnhanceSummary(
        output=str(plan.path),
        models=[model.name for model in plan.job.models],
        width=out.grid.width,
        height=out.grid.height,
        bands=len(out.bands),
        scale=plan.job.scale,
        blocks=len(plan.blocks),
        skipped=sum(not commit.files for commit in done.commits.values()),
        resumed=done.resumed,
        holes=sorted(done.holes),
        seconds=round(seconds, 3),
        blocks_seconds=round(done.blocks_seconds, 3),
        blocks_cpu_seconds=round(sum(r.cpu_s for r in records), 3),
        megapixels_per_second=round(sum(r.pixels for r in records) * len(out.bands) / 1e6 / seconds, 3),
        model_share=round(inside["model"] / busy, 4) if busy else 0.0,
        peak_memory_mb=round(max([psutil.Process().memory_info().rss, *(r.rss for r in records)]) / 2**20, 1),
        device=plan.device,
        precision=plan.precision,
        notes=list(plan.notes),
        expected=plan.expected,
        stages={name: round(value, 3) for name, value in (stages | inside).items()},
    )
