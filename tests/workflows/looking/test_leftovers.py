"""What interrupted jobs left: found, told, removed; and what is no leftover stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.builders import noise_image, write_raster
from support.jobs import run, scenelift
from support.processes import finish, start

from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.locks import Lock
from scenelift.workflows.looking.leftovers import find_leftovers, remove_leftovers

JOB = "enhance", "scene.tif", "-m", "nearest-x2", "--block", 16, "--workers", 0, "--no-expect"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished output, an interrupted one beside nothing, and one that was to replace a finished output."""
    write_raster(tmp_path / "scene.tif", noise_image(1, (1, 64, 64)))
    (tmp_path / "deep").mkdir()
    for name in ("done.tif", "replaced.zarr"):
        scenelift(*JOB, "-o", name, cwd=tmp_path)
    for words in (("-o", "deep/half.tif"), ("-o", "replaced.zarr", "--overwrite", "--dtype", "float32")):
        finish(start(tmp_path, *JOB, *words, SCENELIFT_KILL_AT="after-journal:3"), -9)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_leftovers_are_listed_with_what_resuming_saves_and_removed_on_request(folder: Path) -> None:
    before = content(folder)
    done = scenelift("clean", ".", "--json", cwd=folder)
    found = {Path(one["output"]).name: one for one in json.loads(done.stdout)["leftovers"]}
    assert sorted(found) == ["half.tif", "replaced.zarr"]
    assert all(
        (one["done"], one["blocks"], one["running"], one["keeps"]) == (3, 16, False, False) for one in found.values()
    )
    assert "3 of 16 blocks" in " ".join(scenelift("clean", ".", cwd=folder).stdout.split())
    assert content(folder) == before  # listing touches nothing
    said = scenelift("clean", ".", "--yes", cwd=folder).stdout
    assert "2 removed" in said and not work_folder(folder / "deep" / "half.tif").exists()
    assert "intact" in scenelift("verify", "replaced.zarr", cwd=folder).stdout  # it has its journal again
    assert "intact" in scenelift("verify", "done.tif", cwd=folder).stdout
    assert scenelift("clean", ".", cwd=folder).stdout == "no leftovers\n"


def test_what_runs_and_what_is_no_job_stays(folder: Path) -> None:
    (folder / ".mine.scenelift").mkdir()
    (folder / ".mine.scenelift" / "notes.txt").write_text("no job's")
    work = work_folder(folder / "deep" / "half.tif")
    with Lock(work):
        found = find_leftovers(folder)
        assert {Path(one.output).name: one.running for one in found} == {"half.tif": True, "replaced.zarr": False}
        remove_leftovers(found)
        assert work.is_dir() and list(work.iterdir())
        seen = [one for one in found if one.running]
    with Lock(work):  # begun after it was listed
        assert remove_leftovers([one.__class__(**one.to_dict() | {"running": False}) for one in seen]) == []
    assert (folder / ".mine.scenelift" / "notes.txt").exists()
    run_again = scenelift(*JOB, "-o", "deep/half.tif", "--json", cwd=folder)
    assert json.loads(run_again.stdout)["resumed"] == 3
    (work_folder(folder / "done.tif") / "trial.tif").write_bytes(b"left by a kill while cleaning up")
    found = find_leftovers(folder)
    assert [one.keeps for one in found] == [True]
    remove_leftovers(found)
    assert [path.name for path in work_folder(folder / "done.tif").iterdir()] == ["journal.jsonl"]


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_leftovers(tmp_path / "none")
    run(str(write_raster(tmp_path / "a.tif", noise_image(1, (1, 8, 8)))), tmp_path / "b.tif", "nearest-x2")
    assert find_leftovers(tmp_path) == []
