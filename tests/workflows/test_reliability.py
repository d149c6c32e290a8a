"""Runs that are killed, starved and lied to, in real processes: the bytes are those of an uninterrupted run."""

from __future__ import annotations

import random
from pathlib import Path

import faults
import pytest
from faults import Bench, arguments, make_bench

from scenelift.pipeline.faults import POINTS


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("seed", range(17))
def test_killed_anywhere_and_resumed(bench: Bench, tmp_path: Path, seed: int) -> None:
    faults.kill_the_tree(bench, tmp_path / "run", random.Random(seed))


COG_ONLY = {"temporary-written", "output-made"}
ZARR_ONLY = {"pyramid-built"}
NOT_REACHED = {"salvaged", "old-output-moved"}


@pytest.mark.parametrize("point", [p for p in POINTS if p not in NOT_REACHED])
def test_killed_at_every_commit_point(bench: Bench, tmp_path: Path, point: str) -> None:
    for name in ("out.tif", "out.zarr"):
        if point not in (ZARR_ONLY if name == "out.tif" else COG_ONLY):
            faults.kill_at_a_point(bench, tmp_path / name, point, name)


@pytest.mark.parametrize("kind", ["flipped", "cut", "emptied", "deleted"])
@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_damage_is_found_and_mended(bench: Bench, tmp_path: Path, kind: str, name: str) -> None:
    for seed in range(2):
        faults.damage_and_repair(bench, tmp_path / str(seed), random.Random(seed), kind, name)


def test_a_finished_job_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    folder = bench.place(tmp_path / "run")
    faults.call(folder, *arguments("out.zarr"), SLOW="0")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if "log-" not in p.name}
    text = faults.call(folder, *arguments("out.zarr"))
    assert "nothing to do" in text
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if "log-" not in p.name} == before
