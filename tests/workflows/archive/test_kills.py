"""An archive that is killed again and again ends with the bytes of one that was not."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from support.archives import bad_scenes, checksums, crops, table
from support.processes import kill_tree, start, wait_until

from scenelift.pipeline.errors import SceneliftError
from scenelift.workflows.demo import packaged_scene

HOUR = 3600


def kill_three_times(folder: Path, good: int, side: int, model: str, workers: int) -> dict[str, float]:
    """Do an archive of real crops and ten bad files once in one go and once killed three times; compare the bytes."""
    try:
        bands = packaged_scene()
    except SceneliftError as error:
        pytest.skip(str(error))
    crops(folder / "in", bands, good, side)
    reasons = bad_scenes(folder / "in")
    args = ("archive", "in", "-m", model, "--workers", workers, "--scores", "none")
    clock = time.perf_counter()
    assert start(folder, *args, "-o", "clean").wait(HOUR) == 3
    seconds = {"clean": time.perf_counter() - clock}

    rng, records = random.Random(0), folder / "killed" / ".scenelift" / "scenes"
    marks = [good // 10, good // 3, good * 2 // 3]
    for mark in marks:
        command = start(folder, *args, "-o", "killed")
        assert wait_until(lambda mark=mark: len(list(records.glob("*.json"))) >= mark, command, HOUR), command.output
        time.sleep(rng.random())
        kill_tree(command.pid)
        command.process.join()
    left = len(list(records.glob("*.json")))
    assert left < good + len(reasons), "the last kill came too late to prove anything"
    clock = time.perf_counter()
    assert start(folder, *args, "-o", "killed").wait(HOUR) == 3
    seconds["last run"] = time.perf_counter() - clock

    rows = table(folder / "killed")
    assert [row["status"] for row in rows.values()].count("done") == good
    assert {name for name, row in rows.items() if row["status"] == "failed"} == reasons.keys()
    assert all(word in rows[name]["reason"] for name, word in reasons.items())
    sums = checksums(folder / "killed")
    assert len(sums) == good and sums == checksums(folder / "clean")
    for name in sums:
        place = folder / "killed" / "scenes" / name
        kept = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
        assert kept == [f".{name}.tif.scenelift/journal.jsonl", f"{name}.json", f"{name}.png", f"{name}.tif"]
    return seconds


def test_an_archive_killed_three_times(tmp_path):
    kill_three_times(tmp_path, good=15, side=64, model="nearest-x2", workers=0)


@pytest.mark.soak
def test_an_archive_of_200_real_crops_and_10_bad_files_killed_three_times(tmp_path):
    print(kill_three_times(tmp_path, good=200, side=80, model="sr-x2-fast", workers=2))
