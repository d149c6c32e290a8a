"""The command `export`. Imports late, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scenelift.workflows.cli.options import examples


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    shown = examples("export sr-x2 -o sr-x2.onnx --blur sentinel-2", "export denoise -o denoise.onnx --noise 0.01")
    app.command("export", epilog=shown, rich_help_panel="Scenes and archives")(export)


def export(
    model: Annotated[
        str, typer.Argument(help="A network: a name, a checkpoint, module.path:factory, or an ONNX file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: *.onnx.")],
    to: Annotated[Literal["onnx"], typer.Option(help="Format.")] = "onnx",
    blur: Annotated[
        str | None,
        typer.Option(help="What a network that is told the blur is told for good: 0.27, area, bicubic, lanczos."),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="What a network that is told the noise is told for good: standard deviation, reflectance."),
    ] = None,
    gain: Annotated[float, typer.Option(help="Of an ONNX file: it sees gain x reflectance + offset.")] = 1.0,
    offset: Annotated[float, typer.Option(help="Of an ONNX file.")] = 0.0,
) -> None:
    """Write a network as an ONNX file, checked against the network, its contract in the metadata.

    Of an ONNX file of other people, a copy is written with the contract that was measured.
    """
    from scenelift.workflows.python import export as run

    print("\n".join(run(model, output, blur=blur, noise=noise, gain=gain, offset=offset)))
