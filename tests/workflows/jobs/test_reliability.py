"""Runs that are killed, starved and lied to, in real processes: the bytes are those of an uninterrupted run."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from support import faults
from support.builders import noise_image, write_raster
from support.faults import Bench, arguments, make_bench
from support.faults import disks as faults_disks
from support.faults import inputs as faults_inputs
from support.faults import locks as faults_locks
from support.faults import networks as faults_networks
from support.faults.disks import skipped_if_unable

from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.bench.journal import run_journal_bench


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


def test_killed_while_threads_publish(tmp_path: Path) -> None:
    write_raster(tmp_path / "in.tif", noise_image(1, (2, 600, 600)), nodata=0)
    command = "enhance", "in.tif", "-m", "nearest-x4", "--workers", "0", "-o"
    faults.call(tmp_path, *command, "whole.tif")
    for point in ("window-written:1", "window-written:3", "temporary-written", "output-written"):
        faults.call(tmp_path, *command, "out.tif", code=-9, SCENELIFT_KILL_AT=point)
        assert not (tmp_path / "out.tif").exists()
        faults.call(tmp_path, "resume", "out.tif")
        assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
        assert [path.name for path in (tmp_path / ".out.tif.scenelift").iterdir()] == ["journal.jsonl"]
        (tmp_path / "out.tif").unlink()
        shutil.rmtree(tmp_path / ".out.tif.scenelift")


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


def test_ten_workers_are_killed_and_the_run_goes_on(bench: Bench, tmp_path: Path) -> None:
    faults.kill_workers(bench, tmp_path / "run", random.Random(1), 10)


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_tree_of_workers_is_killed(bench: Bench, tmp_path: Path, seed: int) -> None:
    faults.kill_the_tree(bench, tmp_path / "run", random.Random(seed), workers=2)


def test_two_runs_and_stale_locks(bench: Bench, tmp_path: Path) -> None:
    faults_locks.two_runs(bench, tmp_path / "two")
    for kind in faults_locks.STALE:
        faults_locks.stale_lock(bench, tmp_path / kind, kind)
    faults_locks.lock_of_another_host(bench, tmp_path / "alive")


@pytest.mark.parametrize(("number", "moment"), list(enumerate(faults_locks.MOMENTS)))
def test_two_drivers_that_both_believe_they_hold_the_lock(
    bench: Bench, tmp_path: Path, number: int, moment: str
) -> None:
    with skipped_if_unable():
        faults_locks.two_holders(bench, tmp_path / "run", ("out.tif", "out.zarr")[number % 2], moment)


def test_hosts_of_their_own_on_a_slow_network(bench: Bench, tmp_path: Path) -> None:
    with skipped_if_unable():
        faults_networks.slow(bench, tmp_path / "run")


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_disk_of_any_size_is_survived(bench: Bench, tmp_path: Path, name: str) -> None:
    codes = []
    for size in (300, 440, 800):
        with skipped_if_unable(), faults_disks.small_disk(tmp_path / f"{size}", size) as disk:
            codes.append(faults_disks.fill_up(bench, disk, name))
    assert 75 in codes


@pytest.mark.parametrize("stage", faults_disks.STAGES)
def test_the_disk_runs_full_at_a_stage(bench: Bench, tmp_path: Path, stage: str) -> None:
    with skipped_if_unable(), faults_disks.small_disk(tmp_path / "run", 1 << 16) as disk:
        faults_disks.full_at(bench, disk, stage)


def test_a_read_only_disk(bench: Bench, tmp_path: Path) -> None:
    with skipped_if_unable():
        faults_disks.read_only(bench, tmp_path / "run")


def test_folders_and_files_without_permission(bench: Bench, tmp_path: Path) -> None:
    faults_disks.forbidden(bench, tmp_path / "run")


@pytest.mark.parametrize(("call", "part"), [("fsync", "/c/"), ("write", "journal.jsonl")])
def test_a_disk_that_answers_with_errors(bench: Bench, tmp_path: Path, call: str, part: str) -> None:
    with skipped_if_unable():
        shim = faults_disks.compiled_shim(tmp_path)
    faults_disks.broken_disk(bench, tmp_path / "run", shim, call, part)


@pytest.mark.parametrize("kind", faults_inputs.KINDS)
def test_truncated_and_flipped_inputs(bench: Bench, tmp_path: Path, kind: str) -> None:
    for share in faults_inputs.CUTS:
        faults_inputs.cut_input(bench, tmp_path / f"cut-{share}", kind, share)
    refused = faults_inputs.flipped_input(bench, tmp_path / "flipped", kind, random.Random(0))
    assert refused == (kind == "deflate.tif")  # what is not checksummed cannot be told from data


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_poison_block_is_set_aside(bench: Bench, tmp_path: Path, name: str) -> None:
    faults.poison_block(bench, tmp_path / "run", name)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_block_that_kills_its_workers_is_set_aside(bench: Bench, tmp_path: Path, workers: int) -> None:
    faults.lethal_block(bench, tmp_path / "run", workers)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_worker_over_its_memory_limit(bench: Bench, tmp_path: Path, name: str) -> None:
    faults.too_much_memory(bench, tmp_path / "run", name)


def test_out_of_memory_is_answered_by_less_at_once(bench: Bench, tmp_path: Path) -> None:
    for number, most in enumerate((1, 3)):
        faults.out_of_memory(bench, tmp_path / str(number), most)


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


def test_an_input_replaced_under_a_run_is_noticed(bench: Bench, tmp_path: Path) -> None:
    folder = bench.place(tmp_path / "run")
    command = faults.start(folder, *arguments("out.tif"), SLOW="0", SCENELIFT_PAUSE_AT="after-journal:4")
    faults_disks.wait_until_paused(command)
    write_raster(folder / "new.tif", noise_image(2, (2, faults.SIDE, faults.SIDE)), nodata=0)
    (folder / "new.tif").replace(folder / "in.tif")
    faults_disks.resume(command)
    assert command.wait() == 4
    assert "in.tif was changed while" in command.output
    assert not [p for p in folder.iterdir() if "out.tif" in p.name]


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


def test_what_the_checks_cost_is_seen_from_inside(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", noise_image(1, (2, 200, 200)))
    found = run_journal_bench(SceneSource((str(scene),)), "nearest-x2", 1, "cpu", "fp32", quiet=True)
    assert 0 < found["inside"] < 1
    assert found["inside_s"] < 10 * found["checked_s"]
