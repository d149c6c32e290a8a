"""The commands for clusters: submit, scale. Imports late, so that --help is quick."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from scenelift.workflows.bench.simulation import Machine
from scenelift.workflows.cli.options import Json, examples, whole_numbers, with_options
from scenelift.workflows.cli.submit import SubmitSettings


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(
        "submit",
        context_settings={"allow_interspersed_args": False},
        epilog=examples(
            "submit --array 8 --cores 4 --walltime 02:00:00 -- archive scenes/ -o out",
            "submit --dry-run -- enhance scene.tif -o better.tif",
        ),
        rich_help_panel="Clusters",
    )(submit)
    scale = typer.Typer(name="scale", help="What scale costs: measured here, simulated beyond.", no_args_is_help=True)
    scale.command(epilog=examples("scale stress --blocks 1000,10000", "scale stress --blocks 1000 --json"))(stress)
    scale.command(
        epilog=examples("scale simulate --compute 4 --read 8 --write 32", "scale simulate --compute 0.5 --json")
    )(simulate)
    app.add_typer(scale, rich_help_panel="Clusters")


@with_options(SubmitSettings)
def submit(
    command: Annotated[list[str], typer.Argument(help="After --: enhance, archive or resume, with its arguments.")],
    settings: SubmitSettings,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script and submit nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Give a command to Slurm: one job (which may grow workers by --cluster slurm), or an array sharing an archive."""
    from scenelift.workflows.cli.submit import script
    from scenelift.workflows.cli.submit import submit as run

    if dry_run:
        print(script(command, settings), end="")
        return
    number, logs = run(command, settings), settings.job.log_directory
    print(json.dumps({"job": number}) if as_json else f"job {number}; its output goes to {logs}/")


Numbers = Annotated[str, typer.Option(help="Numbers of workers, e.g. 1,10,100.")]


def stress(
    blocks: Annotated[str, typer.Option(help="Numbers of blocks, e.g. 1000,10000,100000.")] = "1000,10000",
    seconds: Annotated[float, typer.Option(help="Each block sleeps so long.")] = 0.0,
    per_task: Annotated[int, typer.Option(help="Blocks done in one task.")] = 1,
    workers: Annotated[int, typer.Option(help="Local worker processes.")] = 2,
    as_json: Json = False,
) -> None:
    """Measure what orchestration costs, with blocks that do nothing or sleep."""
    from dataclasses import asdict

    from scenelift.pipeline.cluster import ClusterSettings
    from scenelift.workflows.bench.stress import Stress, run_stress
    from scenelift.workflows.cli.tables import print_stress

    cases = [Stress(count, seconds, per_task) for count in whole_numbers("--blocks", blocks)]
    results = list(run_stress(cases, ClusterSettings(workers)))
    if as_json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        print_stress(results)


@with_options(Machine)
def simulate(
    machine: Machine,
    blocks: Annotated[int | None, typer.Option(help="Blocks of the job; default: 1000 a worker.")] = None,
    workers: Numbers = "1,2,4,8,16,32,64,125,250,500,1000",
    as_json: Json = False,
) -> None:
    """Predict time and efficiency of up to thousands of workers from measured numbers, and find the knee."""
    from dataclasses import asdict

    from scenelift.workflows.bench.simulation import knee, sweep
    from scenelift.workflows.cli.tables import print_sweep

    outcomes = sweep(machine, blocks, whole_numbers("--workers", workers))
    if as_json:
        facts = {"outcomes": [asdict(o) for o in outcomes], "limits": machine.limits(), "knee": knee(outcomes)}
        print(json.dumps(facts))
    else:
        print_sweep(machine, outcomes)
