"""The command line. Each command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scenelift.workflows.cli import archive as cli_archive
from scenelift.workflows.cli import cluster as cluster_commands
from scenelift.workflows.cli import enhance as cli_reliability
from scenelift.workflows.cli import evidence as cli_evidence
from scenelift.workflows.cli import landcover as cli_landcover
from scenelift.workflows.cli import training as cli_training
from scenelift.workflows.cli.cluster_options import ClusterKeys, ClusterOption, cluster_settings
from scenelift.workflows.cli.enhance import Stall, Walltime, run_stoppably
from scenelift.workflows.cli.options import (
    AllowHoles,
    Bands,
    Batch,
    Block,
    Consistency,
    Crs,
    Device,
    Dtype,
    Inputs,
    Json,
    Limit,
    Models,
    Nodata,
    Noise,
    Offset,
    Precision,
    Realism,
    Remote,
    Scale,
    Scheduler,
    Shards,
    Tile,
    Tta,
    Uncertainty,
    Workers,
    gpus_for,
    parse_noise,
    scene_source,
)

app = typer.Typer(
    name="scenelift",
    help="Denoise and super-resolve satellite scenes: seamless, exact under tiling, measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def enhance(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: *.tif (COG) or *.zarr.")],
    model: Models = "sr-x2",
    bands: Bands = None,
    tile: Tile = None,
    block: Block = 1024,
    batch: Batch = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    cluster: ClusterOption = None,
    cluster_option: ClusterKeys = None,
    device: Device = "auto",
    precision: Precision = "auto",
    dtype: Dtype = None,
    noise: Noise = "auto",
    tta: Tta = False,
    uncertainty: Uncertainty = False,
    consistency: Consistency = 0,
    realism: Realism = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    crs: Crs = None,
    allow_remote: Remote = False,
    limit: Limit = None,
    shards: Shards = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    allow_holes: AllowHoles = False,
    walltime: Walltime = None,
    stall: Stall = 1800,
    as_json: Json = False,
) -> None:
    """Turn a scene into a better scene: denoised, sharper, on a finer grid, at the same place."""
    from scenelift.workflows.enhance import EnhanceSettings
    from scenelift.workflows.enhance import enhance as run

    settings = EnhanceSettings(
        tile=tile,
        block=block,
        batch=batch,
        device=device,
        precision=precision,
        dtype=dtype,
        noise=parse_noise(noise),
        tta=tta,
        uncertainty=uncertainty,
        consistency=consistency,
        realism=realism,
        shards=shards,
        overwrite=overwrite,
        allow_holes=allow_holes,
    )
    where = cluster_settings(cluster, cluster_option, workers, scheduler, gpus_for(device))
    source = scene_source(inputs, bands, scale, offset, nodata, crs, allow_remote, limit)
    run_stoppably(
        lambda progress, say: run(source, output, model, settings, where, progress, say), walltime, stall, as_json
    )


@app.command()
def info(
    inputs: Inputs,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    crs: Crs = None,
    allow_remote: Remote = False,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Show what a scene is and how its numbers will be read."""
    from scenelift.workflows.cli.inform import describe_scene, print_scene

    facts = describe_scene(scene_source(inputs, bands, scale, offset, nodata, crs, allow_remote, limit))
    if as_json:
        print(json.dumps(facts))
    else:
        print_scene(facts)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Show one model's card.")] = None,
    as_json: Json = False,
) -> None:
    """List the models, or show one model's card."""
    from scenelift.workflows.cli.inform import describe_models, print_models

    facts = describe_models(name)
    if as_json:
        print(json.dumps(facts))
    else:
        print_models(facts, name)


@app.command()
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
    from scenelift.workflows.demo import print_demo, run_demo

    result = run_demo(output, scene, size, workers, quiet=as_json)
    if as_json:
        print(json.dumps(result))
    else:
        print_demo(result)


@app.command()
def bench(
    inputs: Annotated[list[str] | None, typer.Argument(help="Default: the packaged Sentinel-2 scene.")] = None,
    model: Models = "sr-x2",
    bands: Bands = None,
    runs: Annotated[int, typer.Option(help="Alternating runs of engine and bare model.")] = 3,
    workers: Workers = None,
    device: Device = "auto",
    precision: Precision = "auto",
    journal: Annotated[bool, typer.Option("--journal", help="Time what journal and checks cost instead.")] = False,
    as_json: Json = False,
) -> None:
    """Time the engine end to end against the bare model on the same pixels."""
    from scenelift.workflows.bench.engine import print_bench, run_bench
    from scenelift.workflows.demo import packaged_scene

    source = scene_source(inputs or packaged_scene(), bands)
    if journal:
        from scenelift.workflows.bench.journal import print_journal_bench, run_journal_bench

        facts = run_journal_bench(source, model, runs, device, precision, quiet=as_json)
        print(json.dumps(facts)) if as_json else print_journal_bench(facts)
        return
    facts = run_bench(source, model, runs, device, precision, workers, quiet=as_json)
    if as_json:
        print(json.dumps(facts))
    else:
        print_bench(facts)


cli_archive.register(app)
cli_evidence.register(app)
cli_reliability.register(app)
cluster_commands.register(app)
cli_landcover.register(app, cli_training.register(app))


def _unraisable(event: Any) -> None:
    """Keep quiet about GDAL's messages that are no text (of damaged files), on which rasterio's log chokes."""
    if "rasterio" not in str(event.object):
        sys.__unraisablehook__(event)


def main() -> None:
    """Run the command line; anything a user can cause is one line and an exit code, never a traceback."""
    sys.unraisablehook = _unraisable
    for stream in (sys.stdout, sys.stderr):  # where the locale's encoding lacks a letter, a mark stands for it
        if isinstance(stream, io.TextIOWrapper) and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was left under the output's name", 130)
    except Exception as error:  # noqa: BLE001 - sorted out below; what is no user's fault is raised again
        _explain(error)
    else:
        sys.exit(code if isinstance(code, int) else 0)  # what typer.Exit said


def _explain(error: Exception) -> None:
    import click

    if isinstance(error, click.exceptions.Exit):
        sys.exit(error.exit_code)
    if isinstance(error, click.exceptions.Abort):
        _fail("aborted", 130)
    if isinstance(error, click.ClickException):  # a misspelt option: one line, not a framed usage text
        _fail(error.format_message().replace("\n", " "), error.exit_code)
    code = getattr(error, "exit_code", None)  # SceneliftError and ModelError
    if isinstance(code, int):
        _fail(" ".join(str(error).split()), code)
    raise error


def _fail(message: str, code: int) -> None:
    from scenelift.pipeline.addresses import without_secrets

    print(f"scenelift: {without_secrets(message)}", file=sys.stderr)
    sys.exit(code)
