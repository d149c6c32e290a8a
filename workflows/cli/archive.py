"""`scenelift archive`. Imports late, so that --help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.archive.settings import ArchiveSettings
from scenelift.workflows.cli.enhance import Running
from scenelift.workflows.cli.options import Where, examples, with_options
from scenelift.workflows.settings import OUTPUT

EXAMPLES = examples("archive scenes/ -o out --date 2024-05 --workers 8", "archive scenes/ -o out --dry-run")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("archive", epilog=EXAMPLES, rich_help_panel="Scenes and archives")(archive)


def _from_runfile(context: typer.Context, sources: list[str] | None) -> list[str]:
    """Take defaults of the options from a run file, if the sources are one; return the sources that it names."""
    if not sources or len(sources) != 1 or not sources[0].lower().endswith(".toml"):
        return sources or []
    from scenelift.workflows.cli.runfile import read_runfile

    values = read_runfile(Path(sources[0]), context.command.params, get_type_hints(archive))
    named: list[str] = values.pop("sources")
    context.default_map = values
    return named


Sources = Annotated[
    list[str] | None,
    typer.Argument(
        help="Rasters, folders, patterns, manifests (.csv, .parquet, .json), STAC catalogues; or RUN.toml.",
        callback=_from_runfile,
        is_eager=True,
    ),
]
Folder = Annotated[Path | None, typer.Option("--output", "-o", help="The archive's folder.", rich_help_panel=OUTPUT)]


@with_options(ArchiveSettings, Where, Running)
def archive(
    settings: ArchiveSettings,
    where: Where,
    running: Running,
    sources: Sources = None,
    output: Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, how long and on how much disk; write nothing.")
    ] = False,
) -> None:
    r"""Enhance every scene of an archive; what is wrong with one costs that one, a rerun does what is missing.

    RUN.toml holds the same options as keys: sources = \["scenes/*.tif"], output = "out", block = 512. An option on
    the command line goes before the file.
    """
    from scenelift.workflows.refusals import refuse_models

    if output is None:
        raise UsageError("--output must name the archive's folder: give it with -o DIR")
    refuse_models(settings.models)
    from scenelift.pipeline.outputs.compression import check_compression
    from scenelift.workflows.archive.sources import find_scenes

    check_compression(settings.format, settings.enhance.compress)

    entries = find_scenes(sources or [], output, settings.access, settings.filters.box)
    from scenelift.workflows.archive.estimate import estimate
    from scenelift.workflows.cli.console import Console
    from scenelift.workflows.cli.tables import print_archive, print_estimate

    cluster = where.settings(settings.enhance.device)
    if dry_run:
        found = estimate(entries, output, settings, cluster, Console(running.as_json).say)
        running.show(found.to_dict(), print_estimate)
        return
    from scenelift.workflows.archive.run import Told
    from scenelift.workflows.archive.run import archive as run

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

        return run(entries, output, settings, cluster, Told(begins, on_block, on_scene, console.say))

    summary = running.stoppably(job, unit="scenes")
    running.show(summary.to_dict(), print_archive)
    if summary.exit_code:
        print(f"scenelift: {summary.failed} of {len(entries)} scenes failed (see run.json)", file=sys.stderr)
        raise typer.Exit(summary.exit_code)
