"""The commands to try scenelift out: demo, bench. Imports late, so that --help is quick."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import WORKERS, Json, Models, Source, Workers, examples, with_options
from scenelift.workflows.settings import DEFAULT_MODEL, MODEL, WHERE, Device, Precision


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for name, command, *shown in (
        ("demo", demo, "demo", "demo --size 512 -o demo-small"),
        ("bench", bench, "bench scene.tif -m sr-x2 --picture bench.png", "bench scene.tif -m denoise --json"),
    ):
        app.command(name, epilog=examples(*shown), rich_help_panel="Trying it out")(command)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("demo-output"),
    scene: Annotated[
        list[str] | None, typer.Option(help="Your own 10 m rasters instead of the packaged Sentinel-2 scene.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Use only the central SIZE x SIZE pixels.")] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Degrade a real Sentinel-2 scene, enhance it, score it; then enhance the scene itself to 5 m."""
    from scenelift.workflows.cli.console import Console
    from scenelift.workflows.cli.tables import print_demo
    from scenelift.workflows.demo import run_demo

    with Console(as_json) as console:
        result = run_demo(output, scene, size, workers, console.progress, console.say)
    print(json.dumps(result)) if as_json else print_demo(result)


@dataclass(frozen=True)
class Timed:
    """What is timed, and where."""

    runs: int = option(3, "Alternating runs of engine and bare model.")
    workers: int | None = option(None, WORKERS, panel=WHERE)
    device: Device = option("auto", "Where the model runs.", panel=WHERE)
    precision: Precision = option("auto", "Numbers the model computes with.", panel=MODEL)
    journal: bool = option(False, "Time what journal and checks cost instead.")
    picture: Path | None = option(None, "Draw where the seconds go (*.png).")
    peers: bool = option(False, "Time whole commands beside gdal_translate and plain Dask instead (on one GeoTIFF).")

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise UsageError(f"--runs must be at least 1, got {self.runs}")


@with_options(Source, Timed)
def bench(
    source: Source,
    timed: Timed,
    inputs: Annotated[list[str] | None, typer.Argument(help="Default: the packaged Sentinel-2 scene.")] = None,
    model: Models = DEFAULT_MODEL,
    as_json: Json = False,
) -> None:
    """Time the engine end to end against the bare model on the same pixels."""
    from scenelift.workflows.bench.engine import run_bench
    from scenelift.workflows.bench.journal import run_journal_bench
    from scenelift.workflows.bench.peers import run_peers
    from scenelift.workflows.cli.tables import print_bench, print_journal_bench, print_peers
    from scenelift.workflows.demo import packaged_scene
    from scenelift.workflows.pictures import check_picture, stages

    if timed.picture is not None:
        if timed.peers or timed.journal:
            raise UsageError("--picture draws where the seconds of a job go: give it without --peers and --journal")
        check_picture(timed.picture)
    scene, common = source.of(inputs or packaged_scene()), (model, timed.runs, timed.device, timed.precision)
    if timed.peers:
        facts = run_peers(Path(scene.paths[0]), timed.runs, timed.workers, quiet=as_json)
    elif timed.journal:
        facts = run_journal_bench(scene, *common, quiet=as_json)
    else:
        facts = run_bench(scene, *common, timed.workers, quiet=as_json)
        if timed.picture:
            stages(facts, timed.picture)
    if as_json:
        print(json.dumps(facts))
    else:
        (print_peers if timed.peers else print_journal_bench if timed.journal else print_bench)(facts)
