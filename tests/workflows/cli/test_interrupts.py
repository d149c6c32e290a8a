"""Ctrl-C, which a terminal sends to every process of a command: one line, and what it says is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.builders import noise_image, write_raster
from support.jobs import WAITING
from support.processes import finish, start, wait_until

from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster.forking import worker_processes

JOB = "enhance", "scene.tif", "-o", "out.tif", "-m", "nearest-x2", "--block", 16, "--no-expect"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_raster(tmp_path / "scene.tif", noise_image(1, (1, 64, 64)))
    return tmp_path


def stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def interrupted(folder: Path, point: str) -> tuple[int, str]:
    """Run to a point, and interrupt there; return exit code and what was said."""
    command = start(folder, *JOB, "--workers", 0, SCENELIFT_PAUSE_AT=point)
    assert wait_until(lambda: stopped(command.pid), command), command.output
    os.kill(command.pid, signal.SIGINT)
    os.kill(command.pid, signal.SIGCONT)
    return command.wait(), command.output


def run_with(folder: Path, *words: str) -> tuple[int, str]:
    """Run a command that finds modules in the folder; return exit code and what was said, as by a quick machine."""

    def hear() -> None:  # a shell's background job, as these tests may be, begins with Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    env = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "scenelift", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, preexec_fn=hear)
    return done.returncode, "".join(line for line in done.stderr.splitlines(True) if not line.startswith(WAITING))


def test_interrupted_before_anything_is_done_nothing_is_left(folder: Path) -> None:
    code, said = interrupted(folder, "journal-created")
    assert (code, said.splitlines()[-1]) == (130, "scenelift: interrupted; no block was done, and nothing is left")
    assert not work_folder(folder / "out.tif").exists() and "Traceback" not in said


def test_interrupted_later_it_says_how_much_is_kept(folder: Path) -> None:
    code, said = interrupted(folder, "after-journal:3")
    last = "scenelift: interrupted; 3 blocks are kept: the same command goes on with the others"
    assert (code, said.splitlines()[-1]) == (75, last) and "Traceback" not in said
    done = finish(start(folder, *JOB, "--workers", 0, "--json"))
    assert json.loads(done.splitlines()[-1])["resumed"] == 3


def test_interrupted_while_workers_start_there_is_one_line(folder: Path) -> None:
    command = start(folder, *JOB, "--workers", 2)
    assert wait_until(lambda: bool(worker_processes(command.pid)), command), command.output
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait() in (75, 130), command.output
    assert "Traceback" not in command.output and "interrupted; " in command.output
    assert not (folder / "out.tif").exists()


def test_interrupted_while_it_is_imported_there_is_one_line(folder: Path) -> None:
    (folder / "typer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    assert run_with(folder, "models") == (130, "scenelift: interrupted\n")


def test_interrupted_before_the_job_begins_there_is_one_line(folder: Path) -> None:
    (folder / "psutil.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    assert run_with(folder, *map(str, JOB)) == (130, "scenelift: interrupted\n")


def test_interrupted_while_a_class_is_made_there_is_one_line(folder: Path) -> None:
    (folder / "slow.py").write_text(
        """
import os, signal

class Slow:
    def __set_name__(self, owner, name):  # Python 3.11 wraps what is raised here
        os.kill(os.getpid(), signal.SIGINT)

class Owner:
    field = Slow()
"""
    )
    words = [*map(str, JOB), "--workers", "0"]
    words[words.index("nearest-x2")] = "slow:model"
    assert run_with(folder, *words) == (130, "scenelift: interrupted; no block was done, and nothing is left\n")
