"""`scenelift bench --peers`: whole commands beside what a user would run instead, in turn, on one machine."""

from __future__ import annotations

import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import SceneliftError

COG = ("COMPRESS=DEFLATE", "LEVEL=6", "PREDICTOR=YES", "OVERVIEW_RESAMPLING=AVERAGE")
"""Creation options of GDAL that make what scenelift makes."""
_MEASURE = """
import ctypes, json, os, subprocess, sys, time
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what the command leaves running becomes ours
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stderr=subprocess.STDOUT)
cpu, largest, failed = 0.0, 0, 1
while True:
    try:
        pid, status, used = os.wait4(-1, 0)
    except ChildProcessError:
        break
    cpu, largest = cpu + used.ru_utime + used.ru_stime, max(largest, used.ru_maxrss)
    if pid == process.pid:
        wall, failed = time.perf_counter() - start, status != 0
print()
print(json.dumps([cpu, wall, largest]))
sys.exit(failed)
"""
"""Runs a command and waits for all it started: processes that workers are forked from outlive it by a moment.

It is a small process: the largest size of a child begins with that of the process it comes from.
"""
CNN = "scenelift.workflows.bench.plain:small_cnn"


def run_peers(source: Path, runs: int, workers: int | None = None, quiet: bool = False) -> dict[str, Any]:
    """Run gdal_translate and scenelift without a model, plain Dask and scenelift with a small network, in turn.

    Each is a process of its own with all it starts: CPU seconds are those of the whole tree, memory is that of the
    largest process of it. Exactness, journal, checksums and reading back are on in scenelift's rows.

    Parameters
    ----------
    source : Path
        A raster of 16-bit reflectances.
    runs : int
        Rounds; every command runs once in each.
    workers : int, optional
        Processes of scenelift; None: one a core.
    quiet : bool
        Print nothing while running.

    Returns
    -------
    dict
        ``rows`` (median CPU and wall seconds and largest process in GB of each command), ``ratios`` (of the CPU time,
        medians over the rounds) and ``hardware``.

    Raises
    ------
    SceneliftError
        If a command fails.
    """
    count = ClusterSettings(workers).local_workers
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            for name, command in _commands(source, Path(folder), count).items():
                found.setdefault(name, []).append(measure(command))
                if not quiet:
                    cpu, wall, memory = found[name][-1]
                    print(f"run {run + 1}: {name}: {cpu:.1f} s CPU, {wall:.1f} s, {memory:.2f} GB")
    kinds = "cpu_s", "wall_s", "largest_process_gb"
    rows = {
        name: {kind: statistics.median(column) for kind, column in zip(kinds, zip(*many, strict=True), strict=True)}
        for name, many in found.items()
    }
    ratios = {
        f"{ours} / {theirs}": statistics.median(a[0] / b[0] for a, b in zip(found[ours], found[theirs], strict=True))
        for ours, theirs in (
            ("scenelift nearest-x4", "gdal_translate"),
            ("scenelift small CNN", "plain Dask small CNN"),
        )
        if theirs in found
    }
    return {"rows": rows, "ratios": ratios, "runs": runs, "workers": count, "hardware": _hardware()}


def _commands(source: Path, folder: Path, workers: int) -> dict[str, list[str]]:
    """Return what is run by name; without GDAL's programs there is no such row."""
    enhance = [sys.executable, "-m", "scenelift.workflows.cli.app", "enhance", str(source), "--overwrite", "--json"]
    enhance += ["--workers", str(workers), "-o"]
    options = [part for option in (*COG, f"NUM_THREADS={workers or 1}") for part in ("-co", option)]
    translate = ["gdal_translate", "-q", "-of", "COG", "-outsize", "400%", "400%", "-r", "nearest", *options]
    gdal = {"gdal_translate": [*translate, str(source), str(folder / "gdal.tif")]} if shutil.which(translate[0]) else {}
    plain = [sys.executable, "-m", "scenelift.workflows.bench.plain", str(source), str(folder / "plain.tif")]
    return gdal | {
        "scenelift nearest-x4": [*enhance, str(folder / "nearest.tif"), "-m", "nearest-x4"],
        "plain Dask small CNN": plain,
        "scenelift small CNN": [*enhance, str(folder / "cnn.tif"), "-m", CNN, "--precision", "fp32"],
    }


def measure(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return CPU seconds of all its processes, wall seconds, and the size of the largest, GB.

    Raises
    ------
    SceneliftError
        If it fails.
    """
    done = subprocess.run([sys.executable, "-S", "-c", _MEASURE, *command], capture_output=True, text=True)
    *said, result = [line for line in done.stdout.splitlines() if line] or [done.stderr]
    if done.returncode:
        raise SceneliftError(f"{Path(command[0]).name} failed: {said[-1] if said else result}")
    cpu, wall, memory = json.loads(result)
    return cpu, wall, memory * (1 if sys.platform == "darwin" else 1024) / 1e9


def _hardware() -> dict[str, Any]:
    """Return what the figures belong to."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        name = ""
    return {"processor": name or platform.processor(), "cores": ClusterSettings().local_workers}
