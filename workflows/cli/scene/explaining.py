"""`scenelift explain`. Imports late, so that --help is quick."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated

import typer

from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import Json, Source, examples, refuse, with_options
from scenelift.workflows.settings import INPUT, MODEL, numbers, split_names


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    shown = examples(
        "explain scene.tif -m sr-x2 --at 512,300 -o why.png", "explain scene.tif -m denoise --at 9,9 -o why.json"
    )
    app.command("explain", epilog=shown, rich_help_panel="Scenes and archives")(explain)


@dataclass(frozen=True)
class Asked:
    """Which pixel of what is explained."""

    model: str = option(MISSING, "One network.", "--model", "-m", panel=MODEL)
    band: int = option(1, "1-based band of the output.", panel=INPUT)
    blur: str = option("auto", "Blur, for super-resolution; as of enhance.", panel=MODEL)
    noise: float | None = option(None, "Noise level, in DN; default: estimated.", panel=MODEL)


@with_options(Source, Asked)
def explain(
    scene: Annotated[str, typer.Argument(help="The scene that is enhanced.")],
    source: Source,
    asked: Asked,
    at: Annotated[str, typer.Option(help="Column and row of the output, from 0.", rich_help_panel=INPUT)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Picture (.png) or everything that was found (.json).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which input pixels moved a pixel of the result, and what around it no sensor could have told the network."""
    col, row = numbers("--at", "a column and a row of the output such as 512,300", int, 2, at, split_names(at))
    refuse([scene], source, asked.model)
    from scenelift.workflows.looking.explain import Point, check_output, write_explanation
    from scenelift.workflows.looking.explain import explain as run

    if output is not None:
        check_output(output)
    found = run(source.of(scene), asked.model, Point(col, row, asked.band), blur=asked.blur, noise=asked.noise)
    if output is not None:
        write_explanation(found, output)
    print(json.dumps(found.to_dict()) if as_json else found.describe())
    if output is not None and not as_json:
        print(output)
