"""What a person sees while a job runs: a progress bar in a terminal, else a line a minute; and a closing table."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from scenelift.pipeline.errors import UsageError

if TYPE_CHECKING:
    from scenelift.pipeline.jobs.blocks import BlockRecord

LOG = logging.getLogger("scenelift")
EVERY = 60.0
"""Seconds from one line of the log to the next, where no one looks at a terminal."""
SILENT = 3.0
"""Seconds after which what is being done before the first block is said."""

PATH = 30
"""Characters from which on what has no space is a path, which is cut where there is no room for it."""
FIGURE = 12
"""Characters up to which what stands in a column is taken for figures."""
FORMAT = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")


@dataclass
class _Wanted:
    """What was asked for, before the command or behind it."""

    quiet: bool = False
    level: int = logging.INFO


_wanted = _Wanted()


def set_up(quiet: bool = False, verbose: bool = False, log_file: Path | None = None) -> None:
    """Set what is shown and logged; what is not given here stays as it is.

    Parameters
    ----------
    quiet : bool
        Show no progress.
    verbose : bool
        Log every block.
    log_file : Path, optional
        Where the log goes, too; it is appended to.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    _wanted.quiet |= quiet
    if verbose:
        _wanted.level = logging.DEBUG
    LOG.setLevel(_wanted.level)
    if log_file is not None:
        try:
            file = logging.FileHandler(log_file, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--log-file: cannot write {log_file}: {error.strerror}") from error
        file.setFormatter(FORMAT)
        LOG.addHandler(file)


def _log_to(stream: TextIO) -> None:
    """Let the program's log go to a stream, unless whoever called it has set up logging."""
    ours = [handler for handler in LOG.handlers if not isinstance(handler, logging.FileHandler)]
    if ours or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMAT)
    LOG.addHandler(handler)
    LOG.setLevel(_wanted.level)


class Console:
    """Progress on standard error; standard output stays for results.

    Parameters
    ----------
    quiet : bool
        Show nothing at all.
    unit : str
        What the bar counts.
    """

    def __init__(self, quiet: bool = False, unit: str = "blocks") -> None:
        quiet = quiet or _wanted.quiet
        self._out = RichConsole(file=sys.stderr, quiet=quiet)
        self._unit = unit
        written = any(isinstance(handler, logging.FileHandler) for handler in LOG.handlers)
        to_stream = not quiet and not self._out.is_terminal
        self._logs = to_stream or written
        self._said = self._done = self._total = 0.0
        if to_stream:
            _log_to(sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + "  {task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._out,
            disable=quiet or to_stream,
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

    @contextmanager
    def preparing(self, line: str) -> Iterator[None]:
        """Say what is being done within, if that takes more than a few seconds."""
        timer = threading.Timer(SILENT, self.say, (line,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def progress(self, total: int, record: BlockRecord | None, advance: int = 1) -> None:
        """Advance the bar by one finished block (or not, where it counts something else); None starts it."""
        if record is None or self._task is None:
            self._started, self._pixels, self._said = time.perf_counter(), 0, time.perf_counter()
            self._done, self._total = 0, total
            if self._logs:
                LOG.info("%d %s to do", total, self._unit.removesuffix("s") if total == 1 else self._unit)
            self._bar.start()
            self._task = self._bar.add_task("enhancing", total=total, speed="")
            return
        self._pixels += record.pixels
        speed = self._pixels / 1e6 / max(time.perf_counter() - self._started, 1e-9)
        self._bar.update(self._task, advance=advance, speed=f"{speed:.2f} Mpx/s")
        if LOG.isEnabledFor(logging.DEBUG):
            spent = record.read_s, record.model_s, record.write_s
            LOG.debug("block %d on %s: read %.2f s, model %.2f s, write %.2f s", record.index, record.worker, *spent)
        self._log(advance, f", {speed:.2f} Mpx/s")

    def advance(self) -> None:
        """Advance the bar by one of whatever it counts, other than blocks."""
        if self._task is not None:
            self._bar.advance(self._task)
            self._log(1)

    def _log(self, advance: int, more: str = "") -> None:
        """Say how far it is, once a minute."""
        self._done += advance
        now = time.perf_counter()
        if self._logs and now - self._said >= EVERY:
            self._said = now
            left = (now - self._started) * (self._total / self._done - 1) if self._done else None
            when = "" if left is None else f", about {left / 60:.0f} min left"
            LOG.info("%d of %d %s%s%s", self._done, self._total, self._unit, more, when)


@contextmanager
def bar(title: str, unit: str = "", quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Show a bar on standard error, and yield what moves it: ``move(done, total, title)``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    quiet = quiet or _wanted.quiet
    console = RichConsole(file=sys.stderr, quiet=quiet)
    if not quiet and not console.is_terminal:
        _log_to(sys.stderr)
        said = time.perf_counter()

        def log(done: int, total: int, text: str = title) -> None:
            nonlocal said
            if time.perf_counter() - said >= EVERY:
                said = time.perf_counter()
                LOG.info("%s: %d of %d %s", text, done, total, unit)

        yield log
        return
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet) as shown:
        line = shown.add_task(title, total=None)

        def move(done: int, total: int, text: str = title) -> None:
            shown.update(line, completed=done, total=total, description=text)

        yield move


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table to standard output, as wide as the terminal; columns of figures are right-aligned.

    Text is wrapped between words, and neither words nor numbers are cut: what has too many columns is continued in a
    further table, with the first column again.
    """
    console = RichConsole()
    for part in _parts([columns, *rows], console.width):
        wanted = [[row[index] for index in part] for row in (columns, *rows)]
        widths = _widths(wanted, console.width)
        made = Table(title=escape(title), title_justify="left", show_header=any(columns))
        for number, (index, width) in enumerate(zip(part, widths, strict=True)):
            figures = number > 0 and all(len(row[number]) <= FIGURE for row in wanted[1:])
            made.add_column(columns[index], justify="right" if figures else "left", overflow="fold", width=width)
        for row in wanted[1:]:
            made.add_row(*map(escape, row))
        console.print(made)


def _parts(cells: list[list[str]], room: int) -> list[list[int]]:
    """Return the columns of each table that is printed: as many as fit, the first in every one."""
    least = [max(map(_longest, column)) for column in zip(*cells, strict=True)]
    parts: list[list[int]] = []
    for index in range(1, len(least)):
        if parts and _frame(len(parts[-1]) + 1) + sum(least[i] for i in (*parts[-1], index)) <= room:
            parts[-1].append(index)
        else:
            parts.append([0, index])
    return parts or [[0]]


def _widths(cells: list[list[str]], room: int) -> list[int]:
    """Return the widths of columns: as wide as their text, where that is too much the widest first narrower."""
    columns = list(zip(*cells, strict=True))
    widths = [max(max(map(len, text.split("\n"))) for text in column) for column in columns]
    least = [max(map(_longest, column)) for column in columns]
    while sum(widths) + _frame(len(widths)) > room:
        spare = [width - narrow for width, narrow in zip(widths, least, strict=True)]
        # where not even single words fit, they must be cut
        can = [i for i, more in enumerate(spare) if more > 0] or [i for i, width in enumerate(widths) if width > 8]
        if not can:
            break
        widths[max(can, key=lambda i: widths[i])] -= 1
    return widths


def _longest(text: str) -> int:
    return min(PATH, max(map(len, text.split()), default=0))


def _frame(columns: int) -> int:
    """Return the width of a table's lines and of the space beside them."""
    return 3 * columns + 1
