"""The command `compress`. Imports late, so that --help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scenelift.workflows.cli.options import complete_model, examples, with_options
from scenelift.workflows.derived.settings import CompressSettings
from scenelift.workflows.settings import OUTPUT


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    shown = examples(
        "compress sr-x2 -o small.safetensors --prune 0.5 --data images.zip",
        "compress denoise -o small.onnx --prune 0.5 --quantize int8 --noise 0.01 --data images.zip",
    )
    app.command("compress", epilog=shown, rich_help_panel="Training")(compress)


@with_options(CompressSettings)
def compress(
    settings: CompressSettings,
    model: Annotated[str, typer.Argument(help="A shipped network or a checkpoint.", autocompletion=complete_model)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="What to write: *.safetensors or *.onnx.", rich_help_panel=OUTPUT),
    ],
) -> None:
    """Make a network smaller and say what it loses; more than --max-loss dB is refused (exit 4).

    Its most important channels are kept and trained on your images, taught by the whole network; a killed run goes on
    where it was.
    """
    from scenelift.workflows.cli.console import bar
    from scenelift.workflows.derived.compress import compress as run

    with bar(f"{model} compressed") as move:
        made = run(
            model,
            output,
            settings,
            progress=lambda step, total, loss: move(step, total, f"{model} loss {loss:.4f}"),
            say=lambda line: print(line, file=sys.stderr),
        )
    print("\n".join([f"{made.path}: {made.steps[-1].describe()}", *made.notes]))
