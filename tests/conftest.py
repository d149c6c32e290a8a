"""What holds for every test.

Temporary folders lie in memory where there is room: jobs flush every block to the disk, and waiting for it would take a
third of the suite's time. A property is not judged by how long an example takes, for machines are busy.
`pytest --skips=strict` fails if a test is skipped for a reason that is not in allowed-skips.txt.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from support.skips import read_allowed, unallowed

MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# the same examples every time; `make fuzz` looks for new ones
settings.register_profile("scenelift", deadline=None, print_blob=True, derandomize="SCENELIFT_FUZZ" not in os.environ)
settings.load_profile("scenelift")
if examples := os.environ.get("MUTANT_EXAMPLES"):  # `tools.mutate` tries every mutant with the same ones
    how = {"derandomize": True, "database": None, "phases": (Phase.explicit, Phase.generate)}
    settings.register_profile("mutants", deadline=None, max_examples=int(examples), **how)
    settings.load_profile("mutants")

ALLOWED = Path(__file__).with_name("allowed-skips.txt")


LONG = Path(__file__).with_name("long-tests.txt")


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is not asked for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that are named in long-tests.txt, with all their parameters or with those given."""
    lines = LONG.read_text().splitlines() if LONG.is_file() else []
    names = [line for line in lines if line and not line.startswith("#")]
    for item in items:
        plain = item.nodeid.partition("[")[0]
        if item.nodeid in names or plain in names:
            item.add_marker(pytest.mark.long)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skips",
        choices=["any", "strict", "nothing-installed"],
        default="any",
        help="any: skipped tests are no failure; strict: only for the reasons in tests/allowed-skips.txt; "
        "nothing-installed: also for those that hold where nothing can be installed",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--skips") != "any" and not hasattr(
        config, "workerinput"
    ):  # workers report to who started them
        config.pluginmanager.register(Watch(config), "skips")


class Watch:
    """Collects the reasons for which tests are skipped, and says at the end which are not allowed."""

    def __init__(self, config: pytest.Config) -> None:
        self.allowed = read_allowed(ALLOWED, installed=config.getoption("--skips") == "strict")
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.reasons[report.nodeid] = _reason(report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.reasons[report.nodeid] = _reason(report.longrepr)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if unallowed(self.reasons, self.allowed) and session.exitstatus in (0, 5):
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, reason in unallowed(self.reasons, self.allowed).items():
            terminalreporter.write_line(f"SKIPPED without leave: {test}: {reason}", red=True)


def _reason(longrepr: object) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")
