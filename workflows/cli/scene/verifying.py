"""`scenelift verify`: an output, or every output of an archive. Imports late, so that --help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scenelift.workflows.cli.options import Json

if TYPE_CHECKING:
    from scenelift.pipeline.jobs.verifying import Verdict

Verified = Annotated[Path, typer.Argument(help="The output of an enhancement, or the folder of an archive.")]


def verify(
    output: Verified,
    repair: Annotated[bool, typer.Option("--repair", help="Compute damaged blocks again.")] = False,
    as_json: Json = False,
) -> None:
    """Check an output, or all of an archive, against its journal, byte by byte; with --repair, restore what is damaged.

    What holds no journal is named, and counts as damaged.
    """
    from scenelift.workflows.refusals import refuse_absent

    refuse_absent(output)
    from scenelift.workflows.archive.record import outputs_of

    if (outputs := outputs_of(output.absolute())) is not None:
        _verify_all(output, outputs, repair, as_json)
        return
    verdict = _look(output.absolute(), repair)
    print(json.dumps(verdict.to_dict()) if as_json else "\n".join(verdict.lines()))
    if not verdict.intact:
        raise typer.Exit(4)


def _look(output: Path, repair: bool) -> Verdict:
    if repair:
        from scenelift.workflows.enhance import verify as run

        return run(output, repair)
    from scenelift.pipeline.jobs.verifying import verify as look  # needs nothing that makes outputs

    return look(output)


def _verify_all(folder: Path, outputs: list[Path], repair: bool, as_json: bool) -> None:
    """Verify one output after the other, and say of each what was found as soon as it is known.

    Raises
    ------
    UsageError
        If no scene of the archive is done.
    """
    from scenelift.pipeline.errors import SceneliftError, UsageError
    from scenelift.workflows.refusals import refuse_absent

    if not outputs:
        raise UsageError(f"{folder} is an archive of which no scene is done: there is nothing to verify")
    found, failures = [], {}
    for output in outputs:
        try:
            refuse_absent(output)
            found.append(_look(output, repair))
            lines = found[-1].lines()
        except SceneliftError as error:
            failures[str(output)] = str(error)
            lines = [f"{output}: DAMAGED: {error}"]
        if not as_json:
            print("\n".join(lines), flush=True)
    damaged = len(failures) + sum(not verdict.intact for verdict in found)
    if as_json:
        facts = {"folder": str(folder), "outputs": [verdict.to_dict() for verdict in found], "failures": failures}
        print(json.dumps(facts | {"intact": not damaged}))
    else:
        print(f"{folder}: {len(outputs) - damaged} of {len(outputs)} outputs intact")
    if damaged:
        raise typer.Exit(4)
