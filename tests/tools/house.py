"""Figures of the house, for the table of docs/architecture.md: ``cd tests && python -m tools.house [CHECKOUT]``.

Everything but the walk is read from the source; the walk runs `scenelift enhance` in this process, so the installed
package must be that checkout's.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOMS = ("pipeline", "models", "workflows")


def sources(root: Path, *tops: str) -> list[Path]:
    """Return the Python files below some folders."""
    return sorted(path for top in tops for path in (root / top).rglob("*.py"))


def lines(paths: list[Path]) -> int:
    """Return the lines of files, blank ones and comments too."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def parameters(paths: list[Path]) -> tuple[int, str]:
    """Return the most parameters that a function has, and which one."""
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                found.append(
                    (len([arg for arg in taken if arg.arg not in ("self", "cls")]), f"{path.name}:{node.name}")
                )
    return max(found)


def public_names(paths: list[Path]) -> int:
    """Return the number of functions and classes at the top of files whose names have no underscore."""
    bodies = (ast.parse(path.read_text(encoding="utf-8")).body for path in paths)
    named = (node for body in bodies for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return sum(not node.name.startswith("_") for node in named)


def fullest(root: Path) -> tuple[int, str]:
    """Return the most files of one folder, without its ``__init__.py``, and which one."""
    folders = {path.parent for path in sources(root, *ROOMS)}
    counts = [(len([f for f in d.glob("*.py") if f.name != "__init__.py"]), str(d.relative_to(root))) for d in folders]
    return max(counts)


def walk(root: Path, *arguments: str) -> list[str]:
    """Return the functions that are handed the scene's source while a command runs, in order, as "folder/file:name"."""
    from scenelift.pipeline import errors  # the package must be there before it is watched
    from scenelift.workflows.cli import app

    stays: list[str] = []

    def watch(frame: Any, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if event != "call" or not any(f"{os.sep}{top}{os.sep}" in path for top in ROOMS) or str(root) not in path:
            return
        if frame.f_code.co_name.startswith("<"):
            return
        handed = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
        if "SceneSource" in {type(frame.f_locals.get(name)).__name__ for name in handed if name != "self"}:
            stays.append(f"{Path(path).relative_to(root)}:{frame.f_code.co_name}")

    sys.argv = ["scenelift", *arguments]
    sys.setprofile(watch)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            app.main()
    finally:
        sys.setprofile(None)
        os.environ.pop(errors.COMMAND_LINE, None)
    return stays


def moves(stays: list[str]) -> tuple[int, int]:
    """Return how often two stays in a row are in different rooms, and how often the second is on a higher floor."""
    rooms = [str(Path(stay).parent) for stay in stays]
    steps = [(a, b) for a, b in itertools.pairwise(rooms) if a != b]
    return len(steps), sum(_floor(b) > _floor(a) for a, b in steps)


def _floor(room: str) -> int:
    """Return the height of a room: the command line above workflows, these above the two lower rooms."""
    return 2 if room.startswith("workflows/cli") else 1 if room.startswith("workflows") else 0


def figures(root: Path) -> Iterator[tuple[str, str]]:
    """Yield every figure with its title."""
    ours, tests = sources(root, *ROOMS), sources(root, "tests")
    most, where = fullest(root)
    yield "files in the largest room", f"{most} ({where})"
    yield "lines in workflows", str(lines(sources(root, "workflows")))
    yield "all source lines", str(lines(ours))
    yield "most parameters of a function", "{} ({})".format(*parameters(ours))
    yield "lines behind a public name", f"{lines(ours) / public_names(ours):.0f}"
    yield "tests : source", f"{lines(tests) / lines(ours):.2f}"
    given = sum(len(re.findall(r"^\s*@given\(", path.read_text(encoding="utf-8"), re.MULTILINE)) for path in tests)
    yield "property tests", str(given)


def main() -> None:
    """Print the figures of a checkout, and the walk of a small scene through it."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "..").resolve()
    for title, figure in figures(root):
        print(f"{title}: {figure}")
    from support.builders import noise_image, write_raster

    with tempfile.TemporaryDirectory() as folder:
        scene = write_raster(Path(folder) / "in.tif", noise_image(1, (1, 40, 50)))
        command = "enhance", str(scene), "-o", f"{folder}/out.tif", "-m", "lanczos-x2", "--workers", "0"
        stays = walk(root, *command)
    print("moves of `source` between rooms, climbs: {}, {}".format(*moves(stays)))
    print("\n".join(stays))


if __name__ == "__main__":
    main()
