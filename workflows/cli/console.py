"""What a person sees while a job runs: a progress bar with Mpx/s and time left, and a closing table."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from scenelift.pipeline.jobs.blocks import BlockRecord


class Console:
    """A progress bar on standard error; standard output stays for results.

    Parameters
    ----------
    quiet : bool
        Show nothing at all.
    unit : str
        What the bar counts.
    """

    def __init__(self, quiet: bool = False, unit: str = "blocks") -> None:
        self._out = RichConsole(file=sys.stderr, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + "  {task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._out,
            disable=quiet,
        )
        self._task: TaskID | None = None
        self._started = 0.0
        self._pixels = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:  # else there is no bar, and rich would print an empty line before the error
            self._bar.stop()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._out.print(line, highlight=False)

    def progress(self, total: int, record: BlockRecord | None, advance: int = 1) -> None:
        """Advance the bar by one finished block (or not, where it counts something else); None starts it."""
        if record is None or self._task is None:
            self._started, self._pixels = time.perf_counter(), 0
            self._bar.start()
            self._task = self._bar.add_task("enhancing", total=total, speed="")
            return
        self._pixels += record.pixels
        speed = self._pixels / 1e6 / max(time.perf_counter() - self._started, 1e-9)
        self._bar.update(self._task, advance=advance, speed=f"{speed:.2f} Mpx/s")

    def advance(self) -> None:
        """Advance the bar by one of whatever it counts, other than blocks."""
        if self._task is not None:
            self._bar.advance(self._task)


@contextmanager
def bar(title: str, unit: str = "", quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Show a bar on standard error, and yield what moves it: ``move(done, total, title)``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    console = RichConsole(file=sys.stderr, quiet=quiet)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet) as shown:
        line = shown.add_task(title, total=None)

        def move(done: int, total: int, text: str = title) -> None:
            shown.update(line, completed=done, total=total, description=text)

        yield move


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table to standard output; all columns but the first are right-aligned."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    RichConsole().print(made)
