"""No silent skips: `pytest --skips=strict` fails if a test is skipped for a reason that is not in allowed-skips.txt."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.skips import read_allowed, unallowed

ALLOWED = Path(__file__).with_name("allowed-skips.txt")


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
