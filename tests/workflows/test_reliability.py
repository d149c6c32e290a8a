"""Runs that are killed, starved and lied to, in real processes: the bytes are those of an uninterrupted run."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import faults
import pytest
from builders import noise_image, write_raster
from faults import Bench, arguments, make_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("seed", range(17))
def test_killed_anywhere_and_resumed(bench: Bench, tmp_path: Path, seed: int) -> None:
    faults.kill_the_tree(bench, tmp_path / "run", random.Random(seed))


@pytest.mark.parametrize("point", sorted({*faults.points("out.tif"), *faults.points("out.zarr")}))
def test_killed_at_every_commit_point(bench: Bench, tmp_path: Path, point: str) -> None:
    for name in ("out.tif", "out.zarr"):
        if point in faults.points(name):
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


def test_signals_end_a_run_that_goes_on_later(bench: Bench, tmp_path: Path) -> None:
    for number, sign in enumerate([*faults.SIGNALS] * 2):
        faults.stop_politely(bench, tmp_path / str(number), random.Random(number), sign)
    faults.stop_politely(bench, tmp_path / "workers", random.Random(5), faults.SIGNALS[0], workers=2)


def test_the_walltime_and_a_standstill_end_a_run_in_time(bench: Bench, tmp_path: Path) -> None:
    for number, (options, words) in enumerate(
        [(["--walltime", "2"], "walltime"), (["--stall", "0.2"], "no block was finished")]
    ):
        folder = bench.place(tmp_path / str(number))
        text = faults.call(folder, *arguments("out.tif"), *options, code=75, SLOW="1")
        assert words in text
        faults.call(folder, *arguments("out.tif"), SLOW="0")
        bench.check(folder, "out.tif")


def test_workers_are_killed_and_the_run_goes_on(bench: Bench, tmp_path: Path) -> None:
    assert faults.kill_workers(bench, tmp_path / "run", random.Random(1), 10) >= 3


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_tree_of_workers_is_killed(bench: Bench, tmp_path: Path, seed: int) -> None:
    faults.kill_the_tree(bench, tmp_path / "run", random.Random(seed), workers=2)


def test_two_runs_and_stale_locks(bench: Bench, tmp_path: Path) -> None:
    folder = bench.place(tmp_path / "run")
    first = faults.begin(folder, "out.tif", SLOW="0.1")
    text = faults.call(folder, *arguments("out.tif"), code=2)
    assert "another run is writing" in text
    lock = folder / ".out.tif.scenelift" / "lock"
    content = lock.read_text()
    assert first.wait() == 0
    bench.check(folder, "out.tif")
    stale = {
        "dead pid": content,
        "reused pid": content.replace(str(first.pid), str(os.getpid())),
        "other host, silent for long": content.replace(socket.gethostname(), "elsewhere"),
        "garbage": "{",
    }
    for number, text in enumerate(stale.values()):
        folder = bench.place(tmp_path / str(number))
        lock = folder / ".out.tif.scenelift" / "lock"
        lock.parent.mkdir()
        lock.write_text(text)
        os.utime(lock, (1, 1))
        faults.call(folder, *arguments("out.tif"), SLOW="0")
        bench.check(folder, "out.tif")
    folder = bench.place(tmp_path / "alive")
    lock = folder / ".out.tif.scenelift" / "lock"
    lock.parent.mkdir()
    lock.write_text(stale["other host, silent for long"])
    assert "elsewhere" in faults.call(folder, *arguments("out.tif"), code=2)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_full_disk_anywhere_is_survived(bench: Bench, tmp_path: Path, name: str) -> None:
    codes = []
    for size in (200, 320, 440, 560, 680, 800):
        try:
            with faults.small_disk(tmp_path / f"{size}", size) as disk:
                codes.append(faults.fill_up(bench, disk, name))
        except PermissionError:
            pytest.skip("mounting a small disk needs root")
    assert 75 in codes


# Under load the lethal one can wait for good on a local worker that does not come back: see docs/reliability.md.
@pytest.mark.parametrize("lethal", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_poison_block_is_set_aside(bench: Bench, tmp_path: Path, lethal: bool) -> None:
    folder = bench.place(tmp_path / "run")
    env = {"SLOW": "0", "POISON": str(faults.POISON)} | ({"POISON_KILLS": "1"} if lethal else {})
    workers = 1 if lethal else 0
    if not lethal:
        text = faults.call(folder, *arguments("out.tif"), code=3, **env)
        assert "1 of 16 blocks failed" in text and not (folder / "out.tif").exists()
    faults.call(folder, *arguments("out.tif", workers), "--allow-holes", code=3, **env)
    assert faults.holes(bench, folder / "out.tif") == [5]
    assert "blocks without data: 5" in faults.call(folder, "verify", "out.tif")
    faults.call(folder, "verify", "out.tif", "--repair", SLOW="0")
    bench.check(folder, "out.tif")


def test_out_of_memory_is_answered_by_less_at_once(bench: Bench, tmp_path: Path) -> None:
    for number, most in enumerate(("1", "3")):
        folder = bench.place(tmp_path / str(number))
        faults.call(folder, *arguments("out.zarr"), "--batch", 4, SLOW="0", OOM=most)
        bench.check(folder, "out.zarr")


CHANGES = {
    "input": ([], "input sha256"),
    "model": ([], "code"),
    "dtype": (["--dtype", "float32"], 'output dtype was "uint16", now "float32"'),
    "block": (["--block", "50"], "output block was"),
    "nodata": (["--nodata", "7"], "reading nodata was null, now 7.0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_job_is_refused_and_told_why(bench: Bench, tmp_path: Path, change: str) -> None:
    options, words = CHANGES[change]
    folder = bench.place(tmp_path / "run")
    faults.call(folder, *arguments("out.tif"), code=-9, SLOW="0", SCENELIFT_KILL_AT="after-journal:4")
    if change == "input":
        write_raster(folder / "in.tif", noise_image(2, (2, faults.SIDE, faults.SIDE)), nodata=0)
    if change == "model":
        (folder / "slow_model.py").write_text(faults.MODEL + "\n# changed\n")
    before = faults.journal(folder, "out.tif").read_bytes()
    text = faults.call(folder, *arguments("out.tif"), *options, code=2, SLOW="0")
    assert words in text and "--overwrite" in text
    assert faults.journal(folder, "out.tif").read_bytes() == before
    if change != "input":
        faults.call(folder, *arguments("out.tif"), *options, "--overwrite", SLOW="0")
        faults.call(folder, "verify", "out.tif")


def test_an_interrupted_overwrite_goes_on(bench: Bench, tmp_path: Path) -> None:
    folder = bench.place(tmp_path / "run")
    (folder / "out.tif").write_bytes(b"something of old")
    faults.call(folder, *arguments("out.tif"), code=2)
    again = [*arguments("out.tif"), "--overwrite"]
    faults.call(folder, *again, code=-9, SLOW="0", SCENELIFT_KILL_AT="after-journal:4")
    assert (folder / "out.tif").read_bytes() == b"something of old"
    faults.call(folder, *again, code=-9, SLOW="0", SCENELIFT_KILL_AT="salvaged")
    assert '"resumed": 4' in faults.call(folder, *again, "--json", SLOW="0")
    bench.check(folder, "out.tif")


def test_the_scheduler_is_killed(bench: Bench, tmp_path: Path) -> None:
    for number in range(2):
        faults.kill_the_scheduler(bench, tmp_path / str(number))
