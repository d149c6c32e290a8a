"""The commands for clusters: submit, scale. Imported by the command line; imports late."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from scenelift.workflows.cli.options import Json, whole_numbers


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(context_settings={"allow_interspersed_args": False})(submit)
    scale = typer.Typer(name="scale", help="What scale costs: measured here, simulated beyond.", no_args_is_help=True)
    scale.command()(stress)
    scale.command()(simulate)
    app.add_typer(scale)


def submit(
    command: Annotated[list[str], typer.Argument(help="After --: enhance, archive or resume, with its arguments.")],
    array: Annotated[
        int | None, typer.Option(help="Share an archive among so many elements of a job array; default: one job.")
    ] = None,
    walltime: Annotated[str | None, typer.Option(help="Time limit, e.g. 02:00:00; default: the partition's.")] = None,
    cores: Annotated[int, typer.Option(help="Cores of the job (of each element).")] = 1,
    memory: Annotated[str, typer.Option(help="Memory of the job (of each element).")] = "4GB",
    queue: Annotated[str | None, typer.Option(help="Partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Account.")] = None,
    directive: Annotated[
        list[str] | None, typer.Option(help="A further line after #SBATCH, e.g. --gres=gpu:1; repeatable.")
    ] = None,
    prologue: Annotated[
        list[str] | None, typer.Option(help="A shell line before the command, e.g. 'module load gdal'; repeatable.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the job.")] = "scenelift",
    logs: Annotated[str, typer.Option(help="Folder for the job's output.")] = "scenelift-jobs",
    warning: Annotated[int, typer.Option(help="Seconds before the time limit at which the command stops.")] = 90,
    requeues: Annotated[int, typer.Option(help="How often a stopped job puts itself back into the queue.")] = 50,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script and submit nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Give a command to Slurm: one job (which may grow workers by --cluster slurm), or an array sharing an archive."""
    from scenelift.pipeline.cluster.settings import JobSettings
    from scenelift.workflows.cli.submit import SubmitSettings, script
    from scenelift.workflows.cli.submit import submit as run

    job = JobSettings(
        cores=cores,
        memory=memory,
        walltime=walltime,
        queue=queue,
        account=account,
        directives=tuple(directive or ()),
        prologue=tuple(prologue or ()),
        log_directory=logs,
    )
    settings = SubmitSettings(tuple(command), job, array, name, warning, requeues)
    if dry_run:
        print(script(settings), end="")
        return
    number = run(settings)
    print(json.dumps({"job": number}) if as_json else f"job {number}; its output goes to {logs}/")


Workers = Annotated[str, typer.Option(help="Numbers of workers, e.g. 1,10,100.")]


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
    from scenelift.workflows.bench.stress import Stress, print_stress, run_stress

    cases = [Stress(count, seconds, per_task) for count in whole_numbers("--blocks", blocks)]
    results = list(run_stress(cases, ClusterSettings(workers)))
    if as_json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        print_stress(results)


def simulate(
    compute: Annotated[float, typer.Option(help="Seconds of one block on a worker's processor.")],
    read: Annotated[float, typer.Option(help="MB read a block.")] = 8.0,
    write: Annotated[float, typer.Option(help="MB written a block.")] = 32.0,
    worker_bandwidth: Annotated[float, typer.Option(help="MB/s of one worker, reading or writing.")] = 1000.0,
    read_bandwidth: Annotated[float, typer.Option(help="MB/s of the storage for all, reading.")] = 10_000.0,
    write_bandwidth: Annotated[float, typer.Option(help="MB/s of the storage for all, writing.")] = 10_000.0,
    scheduler: Annotated[float, typer.Option(help="Milliseconds of the scheduler a block.")] = 1.3,
    start: Annotated[float, typer.Option(help="Seconds from a worker's start to its first block.")] = 20.0,
    slots: Annotated[int, typer.Option(help="Blocks a worker has in hand: 3 with a GPU, 1 without.")] = 3,
    blocks: Annotated[int | None, typer.Option(help="Blocks of the job; default: 1000 a worker.")] = None,
    workers: Workers = "1,2,4,8,16,32,64,125,250,500,1000",
    as_json: Json = False,
) -> None:
    """Predict time and efficiency of up to thousands of workers from measured numbers, and find the knee."""
    from dataclasses import asdict

    from scenelift.workflows.bench.simulation import Machine, knee, print_sweep, sweep

    machine = Machine(
        compute, read, write, worker_bandwidth, read_bandwidth, write_bandwidth, scheduler / 1000, start, slots
    )
    outcomes = sweep(machine, blocks, whole_numbers("--workers", workers))
    if as_json:
        print(
            json.dumps({"outcomes": [asdict(o) for o in outcomes], "limits": machine.limits(), "knee": knee(outcomes)})
        )
    else:
        print_sweep(machine, outcomes)
