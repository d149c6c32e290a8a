"""Going on after harm: holes stay known until they are filled, one failed read or a slow step costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from support import faults
from support.builders import integer_net, noise_image, write_raster
from support.faults import Bench, arguments, make_bench
from support.faults import disks as faults_disks
from support.jobs import run

from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import attempts
from scenelift.pipeline.cluster.attempts import Call, Failed, attempt_here
from scenelift.pipeline.errors import SceneError, SinkError, UsageError
from scenelift.pipeline.files import file_checksum, tree_files
from scenelift.pipeline.jobs import publishing
from scenelift.pipeline.jobs import running as engine
from scenelift.pipeline.jobs.journal import Commit, Journal, read_journal
from scenelift.pipeline.jobs.summary import STAGES, WORK
from scenelift.pipeline.outputs import sinks
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.sinks import Blocks, ZarrSink
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.enhance import verify
from scenelift.workflows.evidence.score import score

HOLE = "blocks without data: 5"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def holed(bench: Bench, tmp_path: Path) -> Callable[[str], Path]:
    """A folder with an output that was published with a hole, whose cause is gone since."""

    def make(name: str) -> Path:
        folder = bench.place(tmp_path / "run")
        faults.call(folder, *arguments(name), "--allow-holes", code=3, SLOW="0", POISON="1")
        return folder

    return make


@pytest.mark.parametrize("again", ["enhance", "repair"])
@pytest.mark.parametrize("point", ["blocks-done", "publication-recorded", "renamed"])
@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_hole_is_filled_however_often_that_is_killed(
    bench: Bench, holed: Callable[[str], Path], name: str, point: str, again: str
) -> None:
    folder = holed(name)
    fill = [*arguments(name), "--allow-holes"] if again == "enhance" else ["verify", name, "--repair"]
    faults.call(folder, *fill, code=-9, SLOW="0", SCENELIFT_KILL_AT=point)
    text = faults.call(folder, "verify", name)
    assert (HOLE in text) == (point != "renamed") and "damaged" not in text
    faults.call(folder, *fill, SLOW="0")
    assert "nothing to do" in faults.call(folder, *arguments(name), SLOW="0") or point == "renamed"
    bench.check(folder, name)


def test_a_repair_that_was_killed_is_gone_on_with_by_the_job_and_the_other_way_round(
    bench: Bench, holed: Callable[[str], Path]
) -> None:
    folder, point = holed("out.tif"), {"SLOW": "0", "SCENELIFT_KILL_AT": "publication-recorded"}
    faults.call(folder, "verify", "out.tif", "--repair", code=-9, **point)
    faults.call(folder, *arguments("out.tif"), "--allow-holes", code=-9, **point)
    assert HOLE in faults.call(folder, "verify", "out.tif")
    faults.call(folder, "verify", "out.tif", "--repair", SLOW="0")
    bench.check(folder, "out.tif")


def test_a_hole_that_stays_is_told_again(bench: Bench, holed: Callable[[str], Path]) -> None:
    folder = holed("out.tif")
    published = (folder / "out.tif").read_bytes()
    for _ in range(2):
        text = faults.call(folder, *arguments("out.tif"), "--allow-holes", code=3, SLOW="0", POISON="1")
        assert "1 blocks failed" in text and HOLE in faults.call(folder, "verify", "out.tif")
    assert "1 of 16 blocks failed" in faults.call(folder, *arguments("out.tif"), code=3, SLOW="0", POISON="1")
    assert HOLE in faults.call(folder, "verify", "out.tif")
    assert (folder / "out.tif").read_bytes() == published and faults.holes(bench, folder / "out.tif") == [5]


def test_a_damaged_output_is_not_gone_on_with(bench: Bench, holed: Callable[[str], Path]) -> None:
    folder = holed("out.tif")
    point = {"SLOW": "0", "SCENELIFT_KILL_AT": "publication-recorded"}
    faults.call(folder, *arguments("out.tif"), "--allow-holes", code=-9, **point)
    damaged = (folder / "out.tif").read_bytes()[:-100]
    (folder / "out.tif").write_bytes(damaged)
    assert "verify --repair" in faults.call(folder, *arguments("out.tif"), "--allow-holes", code=4, SLOW="0")
    text = faults.call(folder, "verify", "out.tif", code=4)
    assert "damaged" in text and "--repair` computes again" in text
    assert (folder / "out.tif").read_bytes() == damaged, "neither touches it"
    faults.call(folder, "verify", "out.tif", "--repair", SLOW="0")
    bench.check(folder, "out.tif")


def test_a_journal_tells_the_holes_of_what_was_published(tmp_path: Path) -> None:
    def told() -> tuple[list[tuple[str, dict[int, str]]], bool, list[int]]:
        history = read_journal(tmp_path)
        assert history is not None
        return [(p.sums[""], p.holes) for p in history.published], history.done, sorted(history.commits)

    journal = Journal.create(tmp_path, {}, {})
    journal.commit(Commit(0, "p", {}))
    journal.hole(1, "bad")
    journal._append({"publication": {"": "one"}})  # as it was recorded before it told its holes
    assert told() == ([("one", {1: "bad"})], False, [0])
    journal.finish()
    journal.commit(Commit(1, "p", {}))
    assert told() == ([("one", {1: "bad"})], True, [0, 1])
    journal.publish({"": "two"}, {})
    assert told() == ([("two", {}), ("one", {1: "bad"})], False, [0, 1])
    journal.publish({"": "three"}, {0: "worse"})
    assert told() == ([("three", {0: "worse"}), ("one", {1: "bad"})], False, [0, 1])
    journal.finish()
    assert told() == ([("three", {0: "worse"})], True, [0, 1])
    journal.close()


@pytest.mark.parametrize("point", ["journal-created", "blocks-done"])
def test_a_slow_step_before_or_after_the_blocks_is_no_standstill(bench: Bench, tmp_path: Path, point: str) -> None:
    folder = bench.place(tmp_path / "run")
    command = faults.start(folder, *arguments("out.tif"), "--stall", 4, SLOW="0", SCENELIFT_PAUSE_AT=point)
    faults_disks.wait_until_paused(command)
    time.sleep(4.5)
    faults_disks.resume(command)
    faults.finish(command)
    bench.check(folder, "out.tif")


def test_resuming_a_finished_job_that_replaced_something_does_nothing(bench: Bench, tmp_path: Path) -> None:
    folder = bench.place(tmp_path / "run")
    (folder / "out.tif").write_bytes(b"something of old")
    faults.call(folder, *arguments("out.tif"), "--overwrite", SLOW="0")
    before = (folder / "out.tif").stat().st_mtime_ns
    assert "nothing to do" in faults.call(folder, "resume", "out.tif", SLOW="0")
    assert (folder / "out.tif").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
@pytest.mark.parametrize("point", ["journal-created", "after-journal:3", "publication-recorded", "renamed"])
def test_verify_says_what_is_true_under_an_interrupted_overwrite(
    bench: Bench, tmp_path: Path, name: str, point: str
) -> None:
    folder = bench.place(tmp_path / "run")
    old = ["enhance", "in.tif", "-o", name, "-m", "nearest-x2", "--workers", 0, "--block", 64, "--no-expect"]
    faults.call(folder, *old)
    faults.call(folder, *arguments(name), "--overwrite", code=-9, SLOW="0", SCENELIFT_KILL_AT=point)
    text = faults.call(folder, "verify", name)
    replaced = point == "renamed"
    assert "intact" in text and ("not finished" in text) != replaced
    assert faults.same(folder / name, bench.reference(name)) == replaced
    if not replaced:
        victim = folder / name if name.endswith(".tif") else folder / name / "data" / "zarr.json"
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
        assert "damaged" in faults.call(folder, "verify", name, code=4)
        assert "about to be replaced" in faults.call(folder, "verify", name, "--repair", code=2)
    faults.call(folder, *arguments(name), "--overwrite", SLOW="0")
    bench.check(folder, name)


@pytest.fixture
def strip(tmp_path: Path) -> Path:
    """A scene of eight blocks of 40 x 40 pixels."""
    return write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 320)))


def unreadable(monkeypatch: pytest.MonkeyPatch, bad: int, times: int = 99) -> None:
    """Let the scene not be read at a block for the first so many times."""
    left, process_block = [times], engine.process_block

    def process(job, index, low_memory=False):  # type: ignore[no-untyped-def]
        if index == bad and left[0] > 0:
            left[0] -= 1
            raise SceneError("cannot read in.tif: connection reset")
        return process_block(job, index, low_memory)

    monkeypatch.setattr(engine, "process_block", process)
    monkeypatch.setattr(attempts, "PAUSES", (0.0, 0.0))


def test_a_read_that_fails_is_tried_again(strip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(monkeypatch, 5, times=2)
    assert run(strip, tmp_path / "out.tif", integer_net(1), block=40).holes == []


def test_a_read_that_always_fails_keeps_the_finished_blocks(
    strip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tif"
    with monkeypatch.context() as patched, pytest.raises(SceneError, match="connection reset"):
        unreadable(patched, 5)
        run(strip, out, integer_net(1), block=40)
    assert run(strip, out, integer_net(1), block=40).resumed == 5
    assert verify(out).intact


def test_the_stages_of_what_is_left_to_do_add_up(strip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.tif"
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no disk"):
        patched.setattr(engine, "publish", lambda *parts, **how: (_ for _ in ()).throw(OSError("no disk")))
        run(strip, out, integer_net(1), block=40)
    published, done = (run(strip, out, integer_net(1), block=40) for _ in range(2))
    for summary in (published, done):
        stages = summary.stages
        assert sum(stages[name] for name in STAGES) == pytest.approx(summary.seconds, abs=0.002)
        assert stages["blocks"] == 0 and not any(stages[name] for name in WORK)
    assert published.stages["preparing"] > 0 and published.stages["publishing"] > 0
    assert done.stages["publishing"] == 0, "there was nothing to do"


def test_a_first_read_that_fails_leaves_things_as_they_were(
    strip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tif"
    with monkeypatch.context() as patched, pytest.raises(SceneError):
        unreadable(patched, 0)
        run(strip, out, integer_net(1), block=40)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]
    run(strip, out, integer_net(1), block=40)
    before = out.read_bytes(), (work_folder(out) / "journal.jsonl").read_bytes()
    for bad in (0, 5):
        with monkeypatch.context() as patched, pytest.raises(SceneError):
            unreadable(patched, bad)
            run(strip, out, integer_net(2), block=40, overwrite=True)
        assert out.read_bytes() == before[0]
        if bad == 0:
            assert [p.read_bytes() for p in work_folder(out).iterdir()] == [before[1]]
            assert verify(out).intact
    assert run(strip, out, integer_net(2), block=40, overwrite=True).resumed == 5
    assert [p.name for p in work_folder(out).iterdir()] == ["journal.jsonl"]


def test_an_input_that_changes_while_a_hole_is_filled_costs_no_journal(
    strip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strip = write_raster(strip, noise_image(1, (1, 40, 320)), nodata=0)
    out, net = tmp_path / "out.tif", integer_net(1)
    with monkeypatch.context() as patched:
        unreadable(patched, 5)
        assert run(strip, out, net, block=40, allow_holes=True).holes == [5]
    before = (work_folder(out) / "journal.jsonl").read_bytes()
    process_block = engine.process_block

    def change(job, index, low_memory=False):  # type: ignore[no-untyped-def]
        made = process_block(job, index, low_memory)
        write_raster(strip, noise_image(2, (1, 40, 320)), nodata=0)
        return made

    monkeypatch.setattr(engine, "process_block", change)
    with pytest.raises(SceneError, match="was changed while"):
        run(strip, out, net, block=40, allow_holes=True)
    assert (work_folder(out) / "journal.jsonl").read_bytes() == before
    assert verify(out).holes == [5]


@pytest.mark.parametrize(("error", "tries"), [(SceneError, 3), (OSError, 3), (UsageError, 1)])
def test_what_trying_again_cannot_mend_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], tries: int
) -> None:
    monkeypatch.setattr(attempts, "PAUSES", (0.0, 0.0))
    calls = []

    def task(item: int) -> None:
        calls.append(item)
        raise error("no")

    found = attempt_here(3, Call(task))
    assert isinstance(found, Failed) and len(calls) == tries
    assert found.kind is (None if error is OSError else error)


def test_an_error_map_leaves_the_folders_of_jobs_alone(strip: Path, tmp_path: Path) -> None:
    other = write_raster(tmp_path / "other.tif", noise_image(2, (1, 40, 320)))
    pair = SceneSource((str(strip),)), SceneSource((str(other),))
    run(strip, tmp_path / "out.tif", integer_net(1), block=40)
    journal = work_folder(tmp_path / "out.tif") / "journal.jsonl"
    before = journal.read_bytes(), (tmp_path / "out.tif").read_bytes()
    with pytest.raises(UsageError, match="output of an enhancement"):
        score(*pair, error_map=tmp_path / "out.tif")
    assert before == (journal.read_bytes(), (tmp_path / "out.tif").read_bytes())
    foreign = tmp_path / ".map.tif.scenelift"
    foreign.mkdir()
    for _ in range(2):  # the second replaces the first
        score(*pair, error_map=tmp_path / "map.tif")
    assert foreign.is_dir() and len(list(tmp_path.glob(".map*"))) == 1


def test_blocks_that_were_compressed_otherwise_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(2, (2, 90, 80)))
    run(path, tmp_path / "whole.tif", "median")
    create = ZarrSink.create.__func__  # type: ignore[attr-defined]

    def as_before(cls: type[ZarrSink], store: Path, output: Output, *, shards: bool, blocks: Blocks) -> ZarrSink:
        made: ZarrSink = create(cls, store, output, shards=shards)
        return made

    def stop(point: str) -> None:
        raise SinkError(f"stopped at {point}")

    with monkeypatch.context() as earlier:
        earlier.setattr(ZarrSink, "create", classmethod(as_before))
        earlier.setattr(publishing, "commit_point", stop)
        with pytest.raises(SinkError, match="stopped at blocks-done"):
            run(path, tmp_path / "out.tif", "median")
    assert run(path, tmp_path / "out.tif", "median").resumed == 0
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_block_that_was_deleted_before_publishing_is_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(2, (2, 90, 80)))
    run(path, tmp_path / "whole.tif", "median")
    honest = publishing.commit_point

    def delete(point: str) -> None:
        if point == "blocks-done":
            next((tmp_path / ".out.tif.scenelift").glob("*/data/c/0/0/0")).unlink()
        honest(point)

    with monkeypatch.context() as unlucky:
        unlucky.setattr(publishing, "commit_point", delete)
        with pytest.raises(SinkError, match=r"block 0 is gone \(data/c/0/0/0\): give the same command again"):
            run(path, tmp_path / "out.tif", "median")
    assert not (tmp_path / "out.tif").exists()
    run(path, tmp_path / "out.tif", "median")
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.parametrize("name", ["out.zarr", "out.tif"])
def test_levels_that_blocks_write_are_those_that_publishing_would_make(tmp_path: Path, name: str) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(2, (2, 1100, 1030)), nodata=0)
    levels, made = [], set()
    for block in (1024, 300):  # whole chunks and tiles of two levels, and of none
        out = tmp_path / str(block) / name
        out.parent.mkdir()
        summary = run(path, out, "nearest-x2", block=block)
        history = read_journal(work_folder(out))
        assert history is not None and summary.blocks == len(history.commits)
        made.add(any(file.startswith("4/") for commit in history.commits.values() for file in commit.files))
        if name.endswith(".tif"):
            for level in (0, 1, 2):
                with rasterio.open(out, overview_level=level) as file:
                    levels.append(file.read())
        else:
            levels += [zarr.open_group(str(out), mode="r")[f"{factor}/data"][:] for factor in (2, 4, 8)]
    assert made == {True, False}
    for one, other in zip(levels[:3], levels[3:], strict=True):
        assert np.array_equal(one, other)


def test_blocks_without_the_files_of_today_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(2, (1, 1100, 600)))
    run(path, tmp_path / "whole.zarr", "median", block=1024)
    with monkeypatch.context() as earlier:
        earlier.setattr(sinks, "_own_factors", lambda output, tiles: [])
        run(path, tmp_path / "out.zarr", "median", block=1024)
    store = tmp_path / "out.zarr"
    shard = next(file for file in store.glob("data/c/**/*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:-20])
    assert verify(store, repair=True).repaired
    made = [
        {name: file_checksum(each / name) for name in tree_files(each)} for each in (store, tmp_path / "whole.zarr")
    ]
    assert made[0] == made[1] and any(name.startswith("2/data/c/") for name in made[0])
