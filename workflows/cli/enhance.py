"""Commands and options for jobs that must not be lost: stopping in time, resuming, verifying."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from scenelift.workflows.cli.options import Json

Walltime = Annotated[
    str | None,
    typer.Option(help="Stop in time to go on later (exit 75): seconds, 90m, 2h, HH:MM:SS. Default: ask Slurm."),
]
Stall = Annotated[
    float, typer.Option(help="Stop (exit 75) if blocks are to be done and none is for so many seconds; 0: never.")
]
Output = Annotated[Path, typer.Argument(help="The output of an enhancement.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    app.command("resume")(resume)
    app.command("verify")(verify)


def stoppably(
    job: Callable[[Any, Any], Any], walltime: str | None, stall: float, quiet: bool, unit: str = "blocks"
) -> Any:
    """Run ``job(stopper, console)`` under the stop signals and timers; return what it returns.

    Raises
    ------
    ResumableError
        If it was told to stop.
    """
    from scenelift.pipeline.errors import Interrupted, ResumableError
    from scenelift.pipeline.jobs.stopping import parse_walltime, stoppable
    from scenelift.workflows.console import Console

    try:
        with stoppable(parse_walltime(walltime), stall) as stopper, Console(quiet, unit) as console:
            return job(stopper, console)
    except Interrupted as stop:  # typer would make "aborted" of it
        raise ResumableError(f"{stop}; what is done is kept: the same command goes on with it") from None


def run_stoppably(job: Callable[[Any, Any], Any], walltime: str | None, stall: float, as_json: bool) -> None:
    """Run a scene's job under the stop signals and timers, and print its summary; exit 3 if it published holes."""
    from scenelift.workflows.console import summary_table

    def told(stopper: Any, console: Any) -> Any:
        def progress(total: int, record: Any) -> None:
            stopper.progress()
            console.progress(total, record)

        return job(progress, console.say)

    summary = stoppably(told, walltime, stall, as_json)
    if as_json:
        print(json.dumps(summary.to_dict()))
    else:
        summary_table(summary.to_dict())
    if summary.holes:
        print(f"scenelift: {len(summary.holes)} blocks failed and hold no data: {summary.holes}", file=sys.stderr)
        raise typer.Exit(3)


def resume(output: Output, walltime: Walltime = None, stall: Stall = 1800, as_json: Json = False) -> None:
    """Go on with an enhancement that was interrupted, with the arguments it was started with."""
    from scenelift.workflows.enhance import resume as run

    run_stoppably(lambda progress, say: run(output, progress, say), walltime, stall, as_json)


def verify(
    output: Output,
    repair: Annotated[bool, typer.Option("--repair", help="Compute what is damaged again.")] = False,
    as_json: Json = False,
) -> None:
    """Check an output against its journal, byte by byte; with --repair, mend it."""
    from scenelift.workflows.enhance import verify as run

    verdict = run(output, repair)
    if as_json:
        print(json.dumps(verdict.to_dict()))
    else:
        for line in verdict.lines():
            print(line)
    if not verdict.intact:
        raise typer.Exit(4)
