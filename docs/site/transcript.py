"""Run the commands of a page of the documentation, and write what they print below them.

    python docs/site/transcript.py docs/tutorial.md

A block ``console`` holds commands behind ``$``, each with what it prints below it. A block ``python`` is a script; what
it prints stands in a block ``text`` below it. All run in one empty folder, in the order of the page. A test runs them
again and compares.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

COMMANDS = r"^```console\n(?P<commands>.*?)^```\n"
SCRIPT = r"^```python\n(?P<script>.*?)^```\n\n```text\n.*?^```\n"
PART = re.compile(f"{COMMANDS}|{SCRIPT}", re.MULTILINE | re.DOTALL)
CHANGING = re.compile(r"\b[\d.]+(?= (?:s|min|Mpx/s|MB)\b)|\b\d+(?=%)")
"""Times, speeds, memory and load, which are never the same: the page has dots for them."""
PRECISION = re.compile(r"\b(?:bf16|fp32)\b")
"""What the processor decides."""
FRAME = re.compile(r"[\s─━]+")
"""Blanks and rules of tables, which are as wide as what stands in them."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
UNITS, SHARE, NOTHING = 2, 0.01, 1e-5
"""How far numbers may lie apart: units of their last digit, part of their value, or so little that it is nothing.
Processors round differently."""

Command = Callable[[list[str]], str]
"""Takes the words of a command behind `scenelift`; returns what it prints."""
Script = Callable[[str], str]


def renewed(page: str, folder: Path, command: Command, script: Script) -> str:
    """Return a page with what its commands and scripts print now, when they run in the folder."""

    def renew(part: re.Match[str]) -> str:
        if part["script"] is not None:
            return f"```python\n{part['script']}```\n\n```text\n{_lasting(script(part['script']), folder)}```\n"
        lines = [line for line in part["commands"].splitlines() if line.startswith("$ ")]
        said = "\n".join(f"{line}\n{_lasting(command(shlex.split(line)[2:]), folder)}" for line in lines)
        return f"```console\n{said}```\n"

    return PART.sub(renew, page)


def _lasting(said: str, folder: Path) -> str:
    """Return what was printed without what is different each time; columns of tables stay as wide."""
    place = re.compile(rf"{re.escape(str(folder))}/(\S+)( *│)?")
    said = place.sub(lambda found: found[1] + " " * (len(str(folder)) + 1) * bool(found[2]) + (found[2] or ""), said)
    said = CHANGING.sub(lambda found: "…".ljust(len(found[0]), "…"), said)
    return "".join(f"{line.rstrip()}\n" for line in said.splitlines())


def outputs(page: str) -> list[str]:
    """Return the blocks of a page that are run, with what they printed."""
    return [part[0] for part in PART.finditer(page)]


def alike(one: str, other: str) -> bool:
    """Whether two outputs are the same but for what changes, widths of tables, and the last digits of numbers."""
    texts = [FRAME.sub(" ", PRECISION.sub("precision", re.sub("…+", "…", text))) for text in (one, other)]
    if NUMBER.sub("0", texts[0]) != NUMBER.sub("0", texts[1]):
        return False
    return all(map(_near, *(NUMBER.findall(text) for text in texts)))


def _near(one: str, other: str) -> bool:
    if not {*"e."} & {*one, *other}:  # whole numbers: pixels, blocks
        return one == other
    last = 0.0 if "e" in one + other else 10.0 ** -max(len(number.partition(".")[2]) for number in (one, other))
    return math.isclose(float(one), float(other), rel_tol=SHARE, abs_tol=max((UNITS + 0.1) * last, NOTHING))


def main(path: Path) -> None:
    """Run a page in an empty folder, and write it again."""
    where = os.environ | {"COLUMNS": "80"}
    with tempfile.TemporaryDirectory() as folder:

        def run(*words: str) -> str:
            return subprocess.run(
                [sys.executable, *words], cwd=folder, env=where, stdout=subprocess.PIPE, text=True, check=True
            ).stdout

        page = path.read_text(encoding="utf-8")
        made = renewed(
            page, Path(folder), lambda words: run("-m", "scenelift", *words), lambda script: run("-c", script)
        )
    path.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
