"""The commands for one scene: enhance, resume, verify, info, models. Imports late, so that --help is quick."""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import (
    Inputs,
    Json,
    Models,
    Output,
    Source,
    Where,
    complete_model,
    examples,
    refuse,
    with_options,
)
from scenelift.workflows.cli.scene.trying import Try, preparing, print_rehearsal
from scenelift.workflows.cli.scene.verifying import verify
from scenelift.workflows.settings import DEFAULT_MODEL, STOPS, EnhanceSettings

SCENES = "Scenes and archives"
Finished = Annotated[Path, typer.Argument(help="The output of an enhancement.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    for name, command, *shown in (
        (
            "enhance",
            enhance,
            "enhance scene.tif -o better.tif -m denoise,sr-x2",
            "enhance scene.tif -o part.tif --window 512,512,256,256 --dry-run",
        ),
        ("expect", expect, "expect scene.tif -m sr-x2", "expect scene.tif --blur sentinel-2 --json"),
        ("resume", resume, "resume better.tif", "resume better.zarr --walltime 2h"),
        ("verify", verify, "verify better.tif --repair", "verify archive/"),
        ("info", info, "info S2A_MSIL2A_20240501.SAFE", "info scene.tif --json"),
        ("models", models, "models", "models sr-x2"),
    ):
        app.command(name, epilog=examples(*shown), rich_help_panel=SCENES)(command)


@dataclass(frozen=True)
class Running:
    """When a job stops, and what it prints."""

    walltime: str | None = option(
        None, "Stop in time to go on later (exit 75): seconds, 90m, 2h, HH:MM:SS. Default: ask Slurm.", panel=STOPS
    )
    stall: float = option(
        1800,
        "Stop (exit 75) if blocks are to be done and none is for so many seconds; 0: never.",
        panel=STOPS,
    )
    as_json: bool = option(False, "Print one JSON object for machines instead of text.", "--json")

    def __post_init__(self) -> None:
        from scenelift.pipeline.errors import UsageError

        if not 0 <= self.stall < math.inf:
            raise UsageError(f"--stall must be seconds from 0 (never) up, got {self.stall:g}")

    def stoppably(self, job: Callable[[Any, Any], Any], unit: str = "blocks", output: Path | None = None) -> Any:
        """Run ``job(stopper, console)`` under the stop signals and timers; return what it returns.

        Parameters
        ----------
        job : callable
        unit : str
            What is counted.
        output : Path, optional
            Of a job on one scene: its journal tells what is kept.

        Raises
        ------
        ResumableError
            If it was told to stop.
        NothingKeptError
            If that was by hand, and nothing was done by then.
        """
        from scenelift.pipeline.errors import Interrupted, NothingKeptError, ResumableError, interruption
        from scenelift.pipeline.jobs.stopping import parse_walltime, stoppable
        from scenelift.workflows.cli.console import Console

        try:
            with (
                stoppable(parse_walltime(self.walltime), self.stall) as stopper,
                Console(self.as_json, unit) as console,
            ):
                return job(stopper, console)
        except BaseException as error:
            stop = interruption(error)
            if not isinstance(stop, Interrupted):
                raise
            if output is None:
                raise ResumableError(f"{stop}; what is done is kept: the same command goes on with it") from None
            kept = _kept(output)
            if kept or str(stop) != "interrupted":  # a batch system gives a job back that had no time to begin
                raise ResumableError(
                    f"{stop}; {kept or 'no'} blocks are kept: the same command goes on with the others"
                ) from None
            raise NothingKeptError(f"{stop}; no block was done, and nothing is left") from None

    def scene(self, job: Callable[[Any, Any], Any], output: Path, done: str = "enhanced") -> None:
        """Run ``job(progress, console)``, which makes an output, and print its summary; exit 3 if it has holes.

        `done` is what was done with the scene.
        """
        from scenelift.workflows.cli.tables import print_enhanced

        def with_progress(stopper: Any, console: Any) -> Any:
            def progress(total: int, record: Any) -> None:
                stopper.progress()
                console.progress(total, record)

            return job(progress, console)

        summary = self.stoppably(with_progress, output=output)
        self.show(summary.to_dict(), functools.partial(print_enhanced, title=done))
        if summary.holes:
            print(f"scenelift: {len(summary.holes)} blocks failed and hold no data: {summary.holes}", file=sys.stderr)
            raise typer.Exit(3)

    def show(self, facts: dict[str, Any], table: Callable[[dict[str, Any]], None]) -> None:
        """Print facts as JSON or as a table."""
        if self.as_json:
            print(json.dumps(facts))
        else:
            table(facts)


def _kept(output: Path) -> int:
    """Return how many blocks of a job are done."""
    from scenelift.pipeline.addresses import work_folder
    from scenelift.pipeline.jobs.journal import read_journal

    history = read_journal(work_folder(output.absolute()))
    return 0 if history is None else len(history.commits)


@with_options(Source, EnhanceSettings, Where, Running, Try)
def enhance(
    inputs: Inputs,
    output: Output,
    source: Source,
    settings: EnhanceSettings,
    where: Where,
    running: Running,
    trial: Try,
    model: Models = DEFAULT_MODEL,
) -> None:
    """Turn a scene into a better scene: denoised, sharper, on a finer grid, at the same place.

    A part made with --window, --bbox or --geometry equals that part of the whole output, bit for bit.
    """
    refuse(inputs, source, model, output, where)
    from scenelift.pipeline.jobs.running import Listener, carry_out
    from scenelift.workflows.cli.console import Console
    from scenelift.workflows.enhance import planned

    started = time.perf_counter()
    scene, cluster, settings = source.of(inputs), where.settings(settings.device), trial.of(settings)
    if trial.dry_run:
        from scenelift.pipeline.jobs.trial import rehearse

        with Console(running.as_json).preparing(preparing(model, settings)):
            found = rehearse(planned(scene, output, model, settings, cluster))
        running.show(found.to_dict(), print_rehearsal)
        return

    def job(progress: Any, console: Any) -> Any:
        with console.preparing(preparing(model, settings)):
            plan = planned(scene, output, model, settings, cluster, warm=True)
        return carry_out(plan, Listener.of(progress, console.say), started=started)

    running.scene(job, output)


@with_options(Source, EnhanceSettings, Where)
def expect(
    inputs: Inputs,
    source: Source,
    settings: EnhanceSettings,
    where: Where,
    model: Models = DEFAULT_MODEL,
    as_json: Json = False,
) -> None:
    """Say what super-resolution may be expected to gain, tried on the scene itself one level coarser."""
    refuse(inputs, source, model, where=where)
    from scenelift.pipeline.errors import UnfitError, UsageError
    from scenelift.workflows.choosing.prepared import prepare
    from scenelift.workflows.cli.console import Console

    with Console(as_json).preparing(preparing(model, settings)):
        prepared = prepare(source.of(inputs), model, settings, where.settings(settings.device))
        found = prepared.expect(settings)
    if found is None and all(chosen.spec.scale == 1 for chosen in prepared.models):
        raise UsageError("only what enlarges can be tried one level coarser: add a super-resolution model")
    if found is None:
        raise UnfitError(f"{prepared.scene.name} has no window to try models on: too small, masked, or flat everywhere")
    print(json.dumps(found.to_dict()) if as_json else found.describe())
    gain, wanted = found.gain_db["lanczos"].mean, settings.require_gain
    if wanted is not None and gain < wanted:
        raise UnfitError(f"expected gain over Lanczos is {gain:.2f} dB, --require-gain asks for {wanted:g}")


@with_options(Running)
def resume(output: Finished, running: Running) -> None:
    """Resume an interrupted enhancement, with the arguments it was started with."""
    from scenelift.workflows.refusals import refuse_unstarted

    refuse_unstarted(output)
    from scenelift.workflows.enhance import resume as run

    running.scene(lambda progress, console: run(output, progress, console.say), output, "resumed")


@with_options(Source)
def info(inputs: Inputs, source: Source, as_json: Json = False) -> None:
    """Show what a scene is and how its numbers will be read."""
    refuse(inputs, source)
    from scenelift.workflows.cli.inform import describe_scene, print_scene

    facts = describe_scene(source.of(inputs))
    print(json.dumps(facts)) if as_json else print_scene(facts)


def models(
    name: Annotated[
        str | None, typer.Argument(help="Show one model's card; a checkpoint's, too.", autocompletion=complete_model)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models, or show one model's card."""
    from scenelift.workflows.cli.inform import print_models
    from scenelift.workflows.python import list_models

    facts = list_models(name)
    print(json.dumps(facts)) if as_json else print_models(facts, name)
