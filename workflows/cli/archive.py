"""The commands for whole archives. Imported by the command line; imports late."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from scenelift.workflows.cli.cluster_options import ClusterKeys, ClusterOption, cluster_settings
from scenelift.workflows.cli.enhance import Stall, Walltime, stoppably
from scenelift.workflows.cli.options import (
    AllowHoles,
    Batch,
    Block,
    Consistency,
    Crs,
    Device,
    Dtype,
    Json,
    Models,
    Nodata,
    Noise,
    Offset,
    Precision,
    Realism,
    Scale,
    Scheduler,
    Shards,
    Tile,
    Tta,
    Uncertainty,
    Workers,
    gpus_for,
    parse_noise,
)

Sources = Annotated[
    list[str],
    typer.Argument(help="Rasters, folders, patterns, manifests (.csv, .parquet, .json), STAC catalogues; or RUN.toml."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="The archive's folder.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("archive")(archive)
    app.command("plan")(plan)


def archive(
    ctx: typer.Context,
    sources: Sources,
    output: Output = None,
    model: Models = "sr-x2",
    format: Annotated[str, typer.Option(help="tif or zarr.")] = "tif",
    bands: Annotated[str | None, typer.Option(help="Numbers or names, e.g. 4,3,2 or B04,B03,B02.")] = None,
    bbox: Annotated[str | None, typer.Option(help="Only scenes that touch west,south,east,north (degrees).")] = None,
    date: Annotated[str | None, typer.Option(help="Only scenes of 2024, 2024-05, or 2024-05-01/2024-07-31.")] = None,
    cloud_cover: Annotated[float | None, typer.Option(help="Only scenes with at most so many percent.")] = None,
    assets: Annotated[str | None, typer.Option(help="STAC assets that make a scene, e.g. red,green,blue,nir.")] = None,
    scores: Annotated[str, typer.Option(help="none, quality (of the output), full (against the input too).")] = (
        "quality"
    ),
    share: Annotated[bool, typer.Option("--share", help="Work on the archive together with other processes.")] = False,
    publish: Annotated[str | None, typer.Option(help="Copy finished scenes there too, e.g. s3://bucket/name.")] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Fetch scenes from https:// or s3://.")] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let lists name files outside their own folder.")
    ] = False,
    block: Block = 1024,
    tile: Tile = None,
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
    shards: Shards = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs made with other settings.")] = False,
    allow_holes: AllowHoles = False,
    walltime: Walltime = None,
    stall: Stall = 1800,
    as_json: Json = False,
) -> None:
    """Enhance every scene of an archive; what is wrong with one costs that one, a rerun does what is missing."""
    from scenelift.workflows.archive.run import Told
    from scenelift.workflows.archive.run import archive as run

    values = request_values(ctx)
    entries, folder, settings, where = request_of(values)

    def job(stopper: Any, console: Any) -> Any:
        def begins(scenes: int) -> None:
            console.progress(scenes, None)

        def on_block(record: Any) -> None:
            stopper.progress()
            console.progress(0, record, advance=0)

        def on_scene(outcome: Any) -> None:
            stopper.progress()
            console.advance()
            if outcome.record.status == "failed":
                console.say(f"{outcome.entry.id} failed: {outcome.record.reason}")

        return run(entries, folder, settings, where, Told(begins, on_block, on_scene, console.say))

    summary = stoppably(job, values["walltime"], values["stall"], values["as_json"], unit="scenes")
    if values["as_json"]:
        print(json.dumps(summary.to_dict()))
    else:
        print_summary(summary)
    if summary.exit_code:
        print(f"scenelift: {summary.failed} of {len(entries)} scenes failed (see run.json)", file=sys.stderr)
        raise typer.Exit(summary.exit_code)


def plan(ctx: typer.Context, **_: Any) -> None:
    """Say what `scenelift archive` with the same arguments would do, how long and on how much disk; do nothing."""
    from scenelift.workflows.archive.estimate import estimate

    values = request_values(ctx)
    found = estimate(*request_of(values))
    if values["as_json"]:
        print(json.dumps(found.to_dict()))
    else:
        print_estimate(found)


def _with_options_of(other: Callable[..., None], function: Callable[..., None]) -> None:
    """Give a command the parameters of another one."""
    function.__signature__ = inspect.signature(other, eval_str=True)  # type: ignore[attr-defined]
    function.__annotations__ = dict(other.__annotations__)


_with_options_of(archive, plan)


def print_estimate(found: Any) -> None:
    """Print what a run would do."""
    from scenelift.workflows.console import table

    minutes, seconds = divmod(round(found.seconds), 60)
    rows = [
        ["scenes to do", str(found.scenes)],
        ["done before", str(found.before)],
        ["skipped by a filter", str(len(found.skipped))],
        ["unusable", str(len(found.unusable))],
        ["blocks", str(found.blocks)],
        ["output pixels", f"{found.megapixels:.1f} million"],
        ["time, about", f"{minutes // 60} h {minutes % 60} min {seconds} s"],
        ["disk for the outputs, about", f"{found.output_bytes / 1e9:.2f} GB"],
        ["and while it runs up to", f"{found.scratch_bytes / 1e9:.2f} GB"],
    ]
    table("plan", ["", ""], rows)
    if found.unusable:
        table("unusable", ["scene", "why"], [[name, why] for name, why in found.unusable.items()][:50])


def print_summary(summary: Any) -> None:
    """Print the closing table of an archive's run."""
    from scenelift.workflows.console import table

    rows = [
        ["folder", summary.folder],
        ["done", str(summary.done)],
        ["done before", str(summary.before)],
        ["skipped by a filter", str(summary.skipped)],
        ["failed", str(summary.failed)],
        ["still with other processes", str(summary.elsewhere)],
        ["time", f"{summary.seconds:.1f} s"],
        ["pixels made", f"{summary.megapixels:.1f} million"],
    ]
    table("archive", ["", ""], [row for row in rows if row[1] != "0" or row[0] == "done"])
    if summary.failures:
        table("failed", ["scene", "why"], [[name, why] for name, why in sorted(summary.failures.items())][:50])


def request_values(ctx: typer.Context) -> dict[str, Any]:
    """Return the values of all options: those of the run file, if one is given, beneath those of the command line."""
    values = dict(ctx.params)
    sources = values["sources"]
    if len(sources) == 1 and sources[0].lower().endswith(".toml"):
        from scenelift.workflows.cli.runfile import read_runfile

        given = {n for n in values if getattr(ctx.get_parameter_source(n), "name", "") == "COMMANDLINE"}
        kinds = {name: kind for name, kind in get_type_hints(archive).items() if name in values}
        found = read_runfile(Path(sources[0]), kinds)
        values |= {name: value for name, value in found.items() if name == "sources" or name not in given}
    return values


def request_of(values: dict[str, Any]) -> tuple[list[Any], Path, Any, Any]:
    """Turn option values into scenes, folder, settings and cluster."""
    from scenelift.pipeline.errors import UsageError
    from scenelift.workflows.archive.filters import Filters
    from scenelift.workflows.archive.settings import ArchiveSettings, Reading
    from scenelift.workflows.archive.sources import Access, find_scenes
    from scenelift.workflows.enhance import EnhanceSettings

    if values["output"] is None:
        raise UsageError("where to? give the archive's folder with -o DIR")
    names = (
        *("tile", "block", "batch", "device", "precision", "dtype"),
        *("tta", "uncertainty", "consistency", "realism", "shards", "overwrite", "allow_holes"),
    )
    settings = ArchiveSettings(
        model=values["model"],
        format=values["format"],
        enhance=EnhanceSettings(noise=parse_noise(values["noise"]), **{n: values[n] for n in names}),
        reading=Reading(*(values[n] for n in ("bands", "scale", "offset", "nodata", "crs"))),
        filters=Filters.of(values["bbox"], values["date"], values["cloud_cover"]),
        access=Access(
            values["allow_remote"], values["allow_outside"], tuple(filter(None, (values["assets"] or "").split(",")))
        ),
        scores=values["scores"],
        share=values["share"],
        publish=values["publish"],
    )
    output = Path(values["output"])
    where = cluster_settings(
        values["cluster"],
        values["cluster_option"],
        values["workers"],
        values["scheduler"],
        gpus_for(values["device"]),
    )
    return find_scenes(values["sources"], output, settings.access), output, settings, where
