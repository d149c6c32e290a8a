"""Results as tables for people, on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli.console import table

if TYPE_CHECKING:
    from scenelift.workflows.bench.simulation import Machine, Outcome
    from scenelift.workflows.bench.stress import StressResult
    from scenelift.workflows.evidence.score import ScoreReport


CEILINGS = {
    "matmul": ("product of matrices, float32", "GFLOP/s", 0),
    "conv": ("convolution 3 x 3, 64 channels, float32", "GFLOP/s", 0),
    "conv bf16": ("the same in bfloat16", "GFLOP/s", 0),
    "memory": ("copying in memory", "GB/s", 1),
    "disk": ("writing to the disk, synced", "MB/s", 0),
    "zstd": ("compressing the scene, Zstandard level 9", "MB/s", 0),
    "deflate": ("compressing the scene, deflate level 6", "MB/s", 0),
}
"""Titles, units and decimals."""


def print_bench(facts: dict[str, Any]) -> None:
    """Print :func:`run_bench` for people."""
    from scenelift.pipeline.jobs.summary import STAGES, WORK

    share = 100 * facts["engine_over_bare_throughput"]
    rows = [
        ["model", f"{facts['model']}, {facts['device']}, {facts['precision']}"],
        ["input", f"{facts['input_megapixels']:.1f} Mpx over all bands"],
        ["bare model", f"{facts['bare_s']:.2f} s on {facts['threads']} threads"],
        ["engine", f"{facts['engine_s']:.2f} s with {facts['workers']} workers (read, halo, model, write)"],
        ["engine / bare throughput", f"{share:.0f}%"],
        ["the same in CPU time", f"{100 * facts['engine_over_bare_throughput_cpu']:.0f}%"],
        [
            "whole command",
            f"{facts['whole_command_s']:.2f} s, {100 * facts['whole_command_over_bare_throughput']:.0f}% "
            "(with starting processes, loading models, the pyramid)",
        ],
    ]
    table(f"median of {facts['runs']} alternating runs", ["", ""], rows)
    stages, busy = facts["stages_s"], sum(facts["stages_s"][name] for name in WORK)
    rows = [[f"{name}, {said}", f"{stages[name]:.2f} s"] for name, said in STAGES.items()]
    rows += [
        [f"in the blocks: {name}", f"{stages[name]:.2f} s, {100 * stages[name] / max(busy, 1e-9):.0f}%"]
        for name in WORK
    ]
    table("where the whole command's seconds go (in the blocks: of all workers)", ["", ""], rows)
    rows = [
        [CEILINGS[name][0], f"{most:.{CEILINGS[name][2]}f} {CEILINGS[name][1]}"]
        for name, most in facts["ceilings"].items()
    ]
    table("what this machine can do at most, one core", ["", ""], rows)


def print_journal_bench(facts: dict[str, Any]) -> None:
    """Print :func:`run_journal_bench` for people."""
    pairs = f"{100 * facts['cost']:.1f}% of the time, {100 * facts['cost_cpu']:.1f}% of the CPU time"
    rows = [
        ["with journal and checks", f"{facts['checked_s']:.2f} s, {facts['checked_cpu_s']:.2f} s CPU"],
        ["without", f"{facts['unchecked_s']:.2f} s, {facts['unchecked_cpu_s']:.2f} s CPU"],
        ["of which in the checks", f"{facts['inside_s']:.2f} s, {100 * facts['inside']:.1f}% of a run"],
        ["cost by the pairs", pairs],
    ]
    table(f"{facts['model']}, median of {facts['runs']} alternating pairs", ["", ""], rows)


def print_peers(facts: dict[str, Any]) -> None:
    """Print :func:`run_peers` for people."""
    rows = [
        [name, f"{row['cpu_s']:.1f} s", f"{row['wall_s']:.1f} s", f"{row['largest_process_gb']:.2f} GB"]
        for name, row in facts["rows"].items()
    ]
    rows += [[name, f"{ratio:.2f}", "", ""] for name, ratio in facts["ratios"].items()]
    title = f"median of {facts['runs']} alternating runs, {facts['workers']} workers, {facts['hardware']['processor']}"
    table(title, ["", "CPU time", "time", "largest process"], rows)


def print_stress(results: list[StressResult]) -> None:
    """Print measurements for people."""
    rows: list[list[Any]] = [
        [
            f"{r.blocks:,} blocks, {r.per_task} a task",
            f"{r.wall_s:.1f} s",
            f"{r.driver_cpu_ms_per_block:.3f} ms",
            f"{r.worker_cpu_ms_per_block:.3f} ms",
            "" if r.overhead is None else f"{100 * r.overhead:.1f}%",
            f"{r.memory_before_mb:.0f} to {r.memory_peak_mb:.0f} MB",
        ]
        for r in results
    ]
    columns = ["", "wall", "driver CPU a block", "workers' CPU a block", "overhead", "driver memory"]
    table(f"orchestration, {results[0].workers} workers", columns, rows)


def print_sweep(machine: Machine, outcomes: list[Outcome]) -> None:
    """Print a sweep for people."""
    from scenelift.workflows.bench.simulation import knee

    rows = [[f"{o.workers:,}", f"{o.seconds:,.0f} s", f"{100 * o.efficiency:.0f}%"] for o in outcomes]
    table("simulated", ["workers", "time", "efficiency"], rows)
    name, most = min(machine.limits().items(), key=lambda pair: pair[1])
    print(f"knee (80%): {knee(outcomes):,} workers; first limit: {name}, which feeds {most:,.0f} workers")


def print_demo(result: dict[str, Any]) -> None:
    """Print the demo's table and where its files are."""
    rows = [
        [row["method"], f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", f"{1e4 * row['rmse']:.1f}", f"{row['sam']:.3f}"]
        for row in result["table"]
    ]
    table(
        "20 m back to 10 m, against the real 10 m bands (Wald's protocol, data range 0.3)",
        ["method", "PSNR dB", "SSIM", "RMSE DN", "SAM deg"],
        rows,
    )
    print(f"before and after: {result['picture']}")
    print(f"the scene at 5 m: {result['folder']}/enhanced-5m.tif and .zarr")
    print(f"{result['seconds']:.0f} s in all")


def print_estimate(found: dict[str, Any]) -> None:
    """Print what a run would do."""
    minutes, seconds = divmod(round(found["seconds"]), 60)
    measured = bool(found["measured"])
    rows = [
        ["scenes to do", str(found["scenes"])],
        ["done before", str(found["before"])],
        ["skipped by a filter", str(len(found["skipped"]))],
        ["unusable", str(len(found["unusable"]))],
        ["blocks", str(found["blocks"])],
        ["output pixels", f"{found['megapixels']:.1f} million"],
        ["time, about", f"{minutes // 60} h {minutes % 60} min {seconds} s"],
        [f"disk for the outputs, {'about' if measured else 'at most'}", f"{found['output_bytes'] / 1e9:.2f} GB"],
        ["and while it runs up to", f"{found['scratch_bytes'] / 1e9:.2f} GB"],
    ]
    table("plan", ["", ""], rows)
    if found["scenes"] and not measured:
        print("The time is that of as many cores with AMX: so short a run is not measured.")
    if found["unusable"]:
        table("unusable", ["scene", "why"], [[name, why] for name, why in found["unusable"].items()][:50])


def print_archive(summary: dict[str, Any]) -> None:
    """Print the closing table of an archive's run."""
    rows = [
        ["folder", summary["folder"]],
        ["done", str(summary["done"])],
        ["done before", str(summary["before"])],
        ["skipped by a filter", str(summary["skipped"])],
        ["failed", str(summary["failed"])],
        ["still with other processes", str(summary["elsewhere"])],
        ["time", f"{summary['seconds']:.1f} s"],
        ["pixels made", f"{summary['megapixels']:.1f} million"],
    ]
    table("archive", ["", ""], [row for row in rows if row[1] != "0" or row[0] == "done"])
    if summary["failures"]:
        table("failed", ["scene", "why"], [[name, why] for name, why in sorted(summary["failures"].items())][:50])


def print_enhanced(facts: dict[str, Any], title: str = "enhanced") -> None:
    """Print the closing summary of an enhancement, or of what else a job did with a scene."""
    made = facts["resumed"] < facts["blocks"]  # else all was there, and a speed would say nothing
    speed = f", {facts['megapixels_per_second']:.2f} Mpx/s (all bands)"
    table(
        title,
        ["", ""],
        [
            ["output", facts["output"]],
            ["models", " then ".join(facts["models"])],
            ["size", f"{facts['width']} x {facts['height']} px, {facts['bands']} bands, x{facts['scale']}"],
            ["blocks", f"{facts['blocks']} ({facts['skipped']} without data)"],
            ["time", f"{facts['seconds']:.1f} s{speed * made}"],
            *([["in the model", f"{100 * facts['model_share']:.0f}% of the workers' busy time"]] if made else []),
            ["peak memory", f"{facts['peak_memory_mb']:.0f} MB in one process"],
            ["ran on", f"{facts['device']}, {facts['precision']}"],
            *(["note", note] for note in facts["notes"]),
        ],
    )


def print_scores(report: ScoreReport) -> None:
    """Print a report: one row a score, one column for all bands and one for each."""
    from scenelift.pipeline.scores.registry import known_scores  # brings scipy

    title = f"{report.test} against {report.reference}" if report.test else f"{report.reference} by itself"
    if report.factor > 1:
        title += f" (means of {report.factor} x {report.factor} pixels)"
    rows = []
    for name, score in known_scores().items():
        if name in report.values:
            suffix = " (test / reference)" if report.test and score.kind == "ratio" else ""
            each = report.by_band.get(name, ("",) * len(report.bands))
            rows.append([score.title + suffix, number(report.values[name]), *map(number, each)])
    table(f"{title}\ndata range {report.data_range:g}", ["", "all bands", *report.bands], rows)
    if report.map:
        print(f"error map: {report.map}")


def number(value: Any) -> str:
    """Return a score as text: five significant digits, "infinite" for infinity, "-" for what cannot be measured."""
    if not isinstance(value, int | float):
        return str(value)
    if value == float("inf"):
        return "infinite"
    return "-" if value != value else f"{value:.5g}"


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as a Parquet table; NaN and infinity stay what they are.

    Raises
    ------
    UsageError
        If the folder is missing or cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for row in rows for k in row)}
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from None
