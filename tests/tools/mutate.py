"""How much the tests would notice: one operator, comparison, number or truth value of a file changed at a time.

``cd tests && python -m tools.mutate [FILE…] [--each N] [--seed N]`` (or ``make mutants``) prints a table and the
changes that no test noticed. Nothing on the disk is changed: every mutant lives in a process of its own, in which an
import hook gives the changed module, and the tests that are mapped to the file run there until the first fails.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import importlib.abc
import importlib.util
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 240
"""After so many, or five times what the tests take without a change, a mutant that hangs counts as noticed."""
EXAMPLES = 40
"""Examples of each property, the same ones for every mutant."""
TESTS: dict[str, tuple[str, ...]] = {
    "pipeline/tiles.py": ("pipeline/test_tiles.py",),
    "pipeline/grids.py": ("pipeline/test_grids.py",),
    "pipeline/nodata.py": ("pipeline/test_nodata.py",),
    "pipeline/enhance.py": ("pipeline/test_enhance.py",),
    "pipeline/outputs/outputs.py": ("pipeline/outputs/test_outputs.py",),
    "pipeline/outputs/sinks.py": ("pipeline/outputs/test_sinks.py",),
    "pipeline/jobs/journal.py": ("pipeline/jobs/test_journal.py",),
    "pipeline/jobs/locks.py": ("pipeline/jobs/test_locks.py",),
    "pipeline/scores/areas.py": ("pipeline/scores/test_areas.py", "pipeline/scores/test_scores.py"),
    "pipeline/scores/sums.py": ("pipeline/scores/test_scores.py", "pipeline/scores/test_bootstrap.py"),
    "pipeline/scores/pixels.py": ("pipeline/scores/test_scores.py",),
    "pipeline/scores/scores.py": ("pipeline/scores/test_scores.py", "pipeline/scores/test_bootstrap.py"),
    "pipeline/scores/bootstrap.py": ("pipeline/scores/test_bootstrap.py",),
}
"""Which tests must notice a change of a file."""
EQUIVALENT: dict[tuple[str, str, str], str] = {
    **dict.fromkeys(
        (
            (
                "pipeline/grids.py",
                "return {name: self.transform @ corner for name, corner in at.items()}",
                "self.transform @ corner → self.transform * corner",
            ),
            (
                "pipeline/grids.py",
                "return GeoGrid(self.crs, self.transform @ Affine.scale(1 / factor), "
                "self.height * factor, self.width * factor)",
                "self.transform @ Affine.scale(1 / factor) → self.transform * Affine.scale(1 / factor)",
            ),
            (
                "pipeline/grids.py",
                "return GeoGrid(self.crs, self.transform @ Affine.scale(factor), *shape)",
                "self.transform @ Affine.scale(factor) → self.transform * Affine.scale(factor)",
            ),
        ),
        "affine's * is its @",
    ),
    (
        "pipeline/jobs/locks.py",
        "aside.unlink(missing_ok=True)",
        "True → False",
    ): "no other process removes it while this one has the guard",
    (
        "pipeline/scores/pixels.py",
        "@dataclass(frozen=True, eq=False)",
        "False → True",
    ): "sums are added and never compared",
    (
        "pipeline/grids.py",
        "pairs = zip(self.corners.values(), other.corners.values(), strict=True)",
        "True → False",
    ): "both have four corners",
    (
        "pipeline/enhance.py",
        "elif spec.out_per_band > 1:",
        "spec.out_per_band > 1 → spec.out_per_band >= 1",
    ): "repeating once changes nothing",
    (
        "pipeline/enhance.py",
        "valid = valid.repeat(k, axis=1).repeat(k, axis=2) if k > 1 else np.ascontiguousarray(valid)",
        "k > 1 → k >= 1",
    ): "repeating once changes nothing",
    (
        "pipeline/nodata.py",
        "if not known.all() and known.any():",
        "not known.all() and known.any() → not known.all() or known.any()",
    ): "the rings leave a band without holes, or without data, as it is",
}
"""Changes that change nothing: file, line of the source and change, and why nobody could notice."""
LOADED = ("numpy", "scipy.ndimage", "rasterio", "rio_cogeo.cogeo", "rioxarray", "xarray", "zarr", "skimage.metrics")
LOADED += ("pytest", "hypothesis.strategies", "hypothesis.stateful", "psutil", "pydantic")
"""Packages that mutants need not load again; none of this project's."""

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    line: int
    text: str
    """The line of the source, stripped."""
    change: str
    """What was there and what is there now."""
    site: int
    """Which node of the file is changed, as `sites` counts them."""

    @property
    def reason(self) -> str | None:
        """Why nobody could notice it, if that is so."""
        return EQUIVALENT.get((self.file, self.text, self.change))


def sites(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: no annotations, no texts, no defaults of the type checker."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns"):
            continue
        if isinstance(tree, ast.AugAssign) and name == "target":
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST):
                yield node
                yield from sites(node)


def changed(node: ast.AST) -> ast.AST | None:
    """Return what a node becomes; None if it stays."""
    new = copy.deepcopy(node)
    match new:
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp() if type(new.op) in OPERATORS:
            new.op = OPERATORS[type(new.op)]()  # type: ignore[assignment]
        case ast.Compare() if type(new.ops[0]) in OPERATORS:
            new.ops[0] = OPERATORS[type(new.ops[0])]()  # type: ignore[call-overload]
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            new = new.operand
        case ast.Constant(value=bool()):
            new.value = not new.value
        case ast.Constant(value=int()):
            new.value += 1  # type: ignore[operator]
        case ast.Constant(value=float()):
            new.value = 2 * new.value or 1.0  # type: ignore[operator]
        case _:
            return None
    return new


class _Exchange(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: Any) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


def mutants(file: str) -> list[Mutant]:
    """Return every change of a file, in the order of the source."""
    source = (ROOT / file).read_text()
    found = []
    for index, node in enumerate(sites(ast.parse(source))):
        if (new := changed(node)) is not None and isinstance(node, ast.expr | ast.stmt):
            text = source.splitlines()[node.lineno - 1].strip()
            found.append(Mutant(file, node.lineno, text, f"{ast.unparse(node)} → {ast.unparse(new)}", index))
    return found


def changed_tree(file: str, site: int | None) -> ast.Module:
    """Return a file with one of its nodes changed; None: as it is."""
    tree = ast.parse((ROOT / file).read_text())
    if site is not None:
        node = list(sites(tree))[site]
        tree = _Exchange(node, changed(node)).visit(tree)
    return ast.fix_missing_locations(tree)


class _Loader(SourceFileLoader):
    """Loads a mutant instead of the file."""

    tree: ast.Module

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant before the file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = _Loader(fullname, str(self.path))
        loader.tree = self.tree
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


def survives(file: str, tree: ast.Module, tests: Sequence[str], seconds: float = math.inf) -> bool:
    """Run tests with a changed file, in a process of their own; True if none of them fails in so many seconds."""
    place = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    child = os.fork()
    if not child:
        _run(file, tree, tests, place)
    began, code = time.monotonic(), None
    while code is None and time.monotonic() - began < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if done else None
        time.sleep(0.01)
    if code is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    shutil.rmtree(place, ignore_errors=True)
    return code == 0


def _run(file: str, tree: ast.Module, tests: Sequence[str], place: str) -> None:
    """Run the tests in this process, and end it with pytest's exit code."""
    code = 1  # unless the tests say another
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.environ["MUTANT_EXAMPLES"] = str(EXAMPLES)
        name = "scenelift." + file.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, _Finder(name, ROOT / file, tree))
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--rootdir", str(ROOT), f"--basetemp={place}/t"]
        code = int(pytest.main([*options, *(str(ROOT / "tests" / test) for test in tests)]))
    finally:
        os._exit(code)


def main() -> int:
    """Try the mutants of files, print a table and the survivors; 1 if fewer than nine of ten were noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help=f"of {', '.join(TESTS)}; default: all")
    parser.add_argument("--each", type=int, default=40, help="mutants of each file at most")
    parser.add_argument("--seed", type=int, default=0, help="which of them are taken")
    parser.add_argument("--list", action="store_true", help="show the mutants and try none")
    told = parser.parse_args()
    for name in LOADED:
        importlib.import_module(name)
    rows, survivors, began = [], [], time.monotonic()
    for file in told.files or TESTS:
        every = mutants(file)
        seed = int.from_bytes(hashlib.sha256(f"{told.seed} {file}".encode()).digest()[:8])
        taken = sorted(random.Random(seed).sample(range(len(every)), min(told.each, len(every))))
        if told.list:
            print("\n".join(f"{m.file}:{m.line}: {m.change}" for m in (every[i] for i in taken)))
            continue
        started = time.monotonic()
        if not survives(file, changed_tree(file, None), TESTS[file]):
            raise SystemExit(f"the tests of {file} fail without any change: {', '.join(TESTS[file])}")
        limit = max(SECONDS, 5 * (time.monotonic() - started))
        alive = [every[i] for i in taken if survives(file, changed_tree(file, every[i].site), TESTS[file], limit)]
        equal = [mutant for mutant in alive if mutant.reason]
        counted = len(taken) - len(equal)
        noticed = len(taken) - len(alive)
        rows.append((file, len(every), len(taken), noticed, len(equal), counted))
        survivors += [mutant for mutant in alive if not mutant.reason]
        print(f"{file}: {noticed} of {len(taken)} noticed, {len(equal)} equivalent", flush=True)
        for mutant in alive:
            print(f"  {mutant.line}: {mutant.change}   | {mutant.text}", flush=True)
    print("\n| file | changes there are | tried | noticed | without effect | noticed of the others |")
    print("|---|---|---|---|---|---|")
    for file, count, tried, noticed, equal_count, counted in rows:
        share = f"{100 * noticed / counted:.0f} %" if counted else ""
        print(f"| `{file}` | {count} | {tried} | {noticed} | {equal_count} | {share} |")
    total, wanted = sum(row[3] for row in rows), sum(row[5] for row in rows)
    print(f"\n{total} of {wanted} noticed, {time.monotonic() - began:.0f} s")
    return int(total < 0.9 * wanted)


if __name__ == "__main__":
    sys.exit(main())
