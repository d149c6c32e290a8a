"""`scenelift bench --journal`: what never losing a block costs, against the same run without journal and checks."""

from __future__ import annotations

import cProfile
import pstats
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.files import file_checksum, pixel_checksum, sync, tree_files
from scenelift.pipeline.jobs.journal import Journal
from scenelift.pipeline.jobs.running import carry_out
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.planning import make_plan
from scenelift.workflows.settings import Device, EnhanceSettings, Precision

CHECKS = (file_checksum, pixel_checksum, sync, tree_files, Journal.commit, Journal.publish, Journal.finish)
"""What a run without checks leaves out; none calls another of them once the journal is open."""


def run_journal_bench(
    source: SceneSource, model: str, runs: int, device: Device, precision: Precision, quiet: bool = False
) -> dict[str, Any]:
    """Enhance a scene to Zarr with and without journal, checksums, fsync and reading back, in turn, in this process.

    Pairs of runs differ by chance as well, by several percent on a shared machine. So one more run is watched from
    inside: what it spends in the checks themselves is known to the millisecond.

    Parameters
    ----------
    source : SceneSource
    model : str
    runs : int
        Pairs of runs, which begin with the one and the other side by turns; a first pair is not counted.
    device, precision : str
    quiet : bool
        Print nothing while running.
    """
    seconds: dict[bool, list[float]] = {True: [], False: []}
    cpu: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs + 1):
            for checked in (True, False) if run % 2 else (False, True):
                took = _once(source, Path(folder) / f"{run}-{checked}.zarr", model, device, precision, checked)
                if not quiet:
                    print(f"run {run}, checks {'on' if checked else 'off'}: {took[0]:.2f} s, {took[1]:.2f} s CPU")
                if run:
                    seconds[checked].append(took[0])
                    cpu[checked].append(took[1])
        watched, whole = _inside(source, Path(folder) / "watched.zarr", model, device, precision)
    return {
        "model": model,
        "checked_s": statistics.median(seconds[True]),
        "unchecked_s": statistics.median(seconds[False]),
        "checked_cpu_s": statistics.median(cpu[True]),
        "unchecked_cpu_s": statistics.median(cpu[False]),
        "cost": _cost(seconds),
        "cost_cpu": _cost(cpu),
        "inside_s": watched,
        "inside": watched / whole,
        "runs": runs,
    }


def _once(
    source: SceneSource, path: Path, model: str, device: Device, precision: Precision, checked: bool
) -> tuple[float, float]:
    """Return wall and CPU seconds of one run, planning and loading the model left out."""
    settings = EnhanceSettings(device=device, precision=precision, overwrite=True)
    plan = make_plan(source, path, model, settings, ClusterSettings(workers=0))
    plan = replace(plan, job=replace(plan.job, checked=checked))
    wall, cpu = time.perf_counter(), time.process_time()
    carry_out(plan)
    return time.perf_counter() - wall, time.process_time() - cpu


def _inside(source: SceneSource, path: Path, model: str, device: Device, precision: Precision) -> tuple[float, float]:
    """Return the seconds that one checked run spends in the checks, and those of the run."""
    profile = cProfile.Profile()
    profile.enable()
    wall, _ = _once(source, path, model, device, precision, checked=True)
    profile.disable()
    spent = 0.0
    found = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for code in (check.__code__ for check in CHECKS):
        facts = found.get((code.co_filename, code.co_firstlineno, code.co_name))
        spent += facts[3] if facts else 0.0  # seconds in it and below
    return spent, wall


def _cost(taken: dict[bool, list[float]]) -> float:
    """Return the share of its time that a checked run spends on being checked, median over the pairs."""
    return statistics.median(1 - without / with_ for with_, without in zip(taken[True], taken[False], strict=True))
