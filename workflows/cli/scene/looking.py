"""`scenelift quicklook` and `scenelift clean`. Imports late, so that --help is quick."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import Json, Source, examples, refuse, with_options
from scenelift.workflows.settings import OUTPUT, Crop, numbers, split_names

SCENES = "Scenes and archives"
LOOKS = examples(
    "quicklook scene.tif better.tif -o look.png",
    "quicklook scene.tif better.zarr -o look.png --panels nearest,bicubic,after --window 512,512,200,200",
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    app.command("quicklook", epilog=LOOKS, rich_help_panel=SCENES)(quicklook)
    app.command("clean", epilog=examples("clean out", "clean out --yes"), rich_help_panel=SCENES)(clean)


def _two(text: str) -> tuple[float, ...]:
    return numbers("--percentiles", "two numbers such as 2,98", float, 2, text, split_names(text))


@dataclass(frozen=True)
class Picture:
    """What a picture shows."""

    crop: Crop = field(default_factory=Crop)
    panels: tuple[str, ...] = option(
        ("bicubic", "after"),
        "What stands side by side, of nearest,bicubic,after. Default: bicubic,after.",
        panel=OUTPUT,
        parse=split_names,
    )
    percentiles: tuple[float, float] = option(
        (2.0, 98.0),
        "Of the scene before, shown as black and white in every panel. Default: 2,98.",
        panel=OUTPUT,
        parse=_two,
    )


@with_options(Source, Picture)
def quicklook(
    before: Annotated[str, typer.Argument(help="The scene as it was.")],
    after: Annotated[str, typer.Argument(help="What was made of it: GeoTIFF or Zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write (.png).", rich_help_panel=OUTPUT)],
    source: Source,
    picture: Picture,
    as_json: Json = False,
) -> None:
    """Draw a scene before (interpolated) and after side by side, with one stretch for all panels.

    Without --window it shows the place with most detail.
    """
    refuse([before, after], source)
    from scenelift.workflows.looking.quicklook import Look
    from scenelift.workflows.looking.quicklook import quicklook as draw

    look = Look(picture.crop, picture.panels, picture.percentiles)
    shown = draw(source.of(before), Source(remote=source.remote).of(after), output, look)
    print(json.dumps(shown.to_dict()) if as_json else shown.describe())


def clean(
    folder: Annotated[Path, typer.Argument(help="Where to look, with all folders below.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
    as_json: Json = False,
) -> None:
    """List what interrupted jobs left, and what resuming them would save; with --yes, remove it.

    Finished outputs and their journals, and what a running job holds, are never touched.
    """
    from scenelift.workflows.looking.leftovers import find_leftovers, remove_leftovers

    found = find_leftovers(folder)
    gone = remove_leftovers(found) if yes else []
    if as_json:
        print(json.dumps({"leftovers": [one.to_dict() for one in found], "removed": [one.folder for one in gone]}))
        return
    print_leftovers(found)
    held = sum(one.bytes for one in (gone if yes else found) if not one.running)
    if yes:
        print(f"{len(gone)} removed, {held / 1e6:.1f} MB freed")
    elif found:
        print(f"{held / 1e6:.1f} MB; to go on with one: scenelift resume OUTPUT; to remove all: add --yes")


def print_leftovers(found: list[Any]) -> None:
    """Print what was found, a line each."""
    from scenelift.workflows.cli.console import table

    if not found:
        print("no leftovers")
        return
    rows = [[one.output, f"{one.bytes / 1e6:.1f}", one.describe()] for one in found]
    table("leftovers", ["output", "MB", "resuming saves"], rows)
