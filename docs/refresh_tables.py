"""Refresh the tables of a Markdown file: ``python docs/refresh_tables.py docs/models.md [WORD]``.

A table stands between ``<!-- scenelift evaluate ... -->`` and ``<!-- end -->``; the command in the comment is run
again and its output takes the table's place, so every figure has the command that made it beside it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from scenelift.models.errors import ModelError

BLOCK = re.compile(r"<!-- (scenelift [^\n]*?) -->\n(.*?)<!-- end -->", re.DOTALL)


def run_command(command: str) -> str:
    """Run a scenelift command line and return what it printed.

    Raises
    ------
    ModelError
        If it failed.
    """
    words = shlex.split(command)[1:]
    done = subprocess.run([sys.executable, "-m", "scenelift", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelError(f"{command!r} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def refresh(text: str, only: str = "", run: Callable[[str], str] = run_command) -> str:
    """Return the text with the tables whose command contains ``only`` made again."""

    def renew(block: re.Match[str]) -> str:
        command, old = block[1], block[2]
        if only not in command:
            return block[0]
        try:
            new = f"`{command}`\n\n{run(command)}\n"
        except ModelError as error:
            print(error, file=sys.stderr)
            new = old
        return f"<!-- {command} -->\n{new}<!-- end -->"

    return BLOCK.sub(renew, text)


def main(arguments: list[str]) -> None:
    """Refresh the file named first; a second argument picks the tables whose command contains it."""
    path = Path(arguments[0])
    path.write_text(refresh(path.read_text(), arguments[1] if len(arguments) > 1 else ""))


if __name__ == "__main__":
    main(sys.argv[1:])
