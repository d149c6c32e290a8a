"""Commands run in the process of the test."""

from __future__ import annotations

import sys

import pytest
from support.jobs import Run

from scenelift.pipeline.errors import COMMAND_LINE
from scenelift.workflows.cli import app as cli


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; return exit code, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scenelift", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv(COMMAND_LINE, "1")  # which the command sets, and does not take back
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run
