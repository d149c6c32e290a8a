"""The command `adapt`. Imports late, so that --help is quick."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli.options import complete_model, examples, with_options
from scenelift.workflows.derived.settings import Adaptation
from scenelift.workflows.settings import TrainingRun


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    shown = examples(
        "adapt sr-x2 --scenes a.tif b.tif -o mine.safetensors",
        "adapt sr-x2-rgb-lean --scenes archive/ --bands B4,B3,B2 -o mine.safetensors",
    )
    app.command("adapt", epilog=shown, rich_help_panel="Training")(adapt)


@with_options(Adaptation, TrainingRun)
def adapt(
    adaptation: Adaptation,
    training: TrainingRun,
    model: Annotated[
        list[str],
        typer.Argument(
            help="A shipped network or a checkpoint; the words after it are more scenes.",
            autocompletion=complete_model,
            metavar="MODEL",
        ),
    ],
) -> None:
    """Go on training a network on your own scenes, with their own blur and noise; no labels are needed.

    A tenth of the scenes is kept aside. If the network is not better there than the one it began as, nothing is written
    (exit 4). A killed run goes on where it was.
    """
    from scenelift.workflows.cli.train_command import listed, trained
    from scenelift.workflows.derived.adapt import adaptation as recipe_of
    from scenelift.workflows.derived.adapt import publish

    name, *more = model  # --scenes a.tif b.tif: the shell's words after the first are arguments
    if training.output is None:
        raise UsageError("adapt needs -o: the checkpoint to write, *.safetensors")
    if training.output.suffix != ".safetensors":
        raise UsageError(f"an adapted network ends in .safetensors, got {training.output}")
    if not training.output.absolute().parent.is_dir():
        raise UsageError(f"no such folder for the output: {training.output.parent}; make it first")
    recipe, notes = recipe_of(name, replace(adaptation, scenes=(*adaptation.scenes, *more)))
    print("\n".join(notes), file=sys.stderr)
    made = trained(recipe, replace(training, output=None))
    if made is not None:
        import json

        card = json.loads(made.with_suffix(".json").read_text(encoding="utf-8"))
        print(f"validation {listed(card['validation'])}", file=sys.stderr)
        print(f"{training.output}: {publish(made, training.output, adaptation)}")
