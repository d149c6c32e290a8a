"""Locks as a state machine: of any number of runs at most one holds, dead holders keep nobody, nothing is left over."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scenelift.pipeline.errors import HeldError, ResumableError
from scenelift.pipeline.jobs import locks
from scenelift.pipeline.jobs.locks import Lock, holder_of, is_alive

NOBODY = 2**22 - 1
"""Number of a process that there is not."""
RUNS = 3


def holder(**facts: Any) -> dict[str, Any]:
    """Describe this process as a lock does, but for some facts."""
    me = psutil.Process()
    return {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time(), "token": "x"} | facts


class Locks(RuleBasedStateMachine):
    """Runs of one output that begin, end, die and find what others left."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runs: list[Lock | None] = [None] * RUNS
        self.holding: int | None = None
        self.left: str | None = None
        """What lies there that no run of this test wrote: "dead", "foreign", or nothing."""

    def teardown(self) -> None:
        for lock in self.runs:
            if lock is not None:
                lock.__exit__()
        shutil.rmtree(self.folder)

    @property
    def path(self) -> Path:
        return self.folder / "lock"

    @rule(number=st.integers(0, RUNS - 1))
    def begin(self, number: int) -> None:
        """A run is given its command: it gets the lock if and only if no living run has it."""
        if self.runs[number] is not None:
            return
        lock = Lock(self.folder)
        free = self.holding is None and self.left != "foreign"
        if free:
            lock.__enter__()
            self.runs[number], self.holding, self.left = lock, number, None
        else:
            with pytest.raises(HeldError, match="another run is writing this output"):
                lock.__enter__()
            assert not lock.is_mine()

    @rule(number=st.integers(0, RUNS - 1))
    def end(self, number: int) -> None:
        """A run ends: it takes its own lock away, never that of another."""
        lock = self.runs[number]
        if lock is None:
            return
        lock.__exit__()
        self.runs[number] = None
        if self.holding == number:
            self.holding = None

    @precondition(lambda self: self.left is None)
    @rule(kind=st.sampled_from(["dead process", "reused number", "silent host", "speaking host", "garbage"]))
    def overwrite(self, kind: str) -> None:
        """Somebody else's lock lies there: the run that had it, if any, has lost it."""
        facts: dict[str, dict[str, Any]] = {
            "dead process": {"pid": NOBODY},
            "reused number": {"started": 1.0},
            "silent host": {"host": "elsewhere"},
            "speaking host": {"host": "elsewhere"},
        }
        self.path.write_text("{" if kind == "garbage" else json.dumps(holder(**facts[kind])))
        if kind in ("silent host", "garbage"):
            os.utime(self.path, (1, 1))
        self.holding, self.left = None, "foreign" if kind == "speaking host" else "dead"

    @precondition(lambda self: self.left is not None)
    @rule()
    def remove(self) -> None:
        """An administrator deletes what lies there."""
        self.path.unlink()
        self.left = None

    @invariant()
    def only_the_holder_has_it(self) -> None:
        for number, lock in enumerate(self.runs):
            if lock is None:
                continue
            assert lock.is_mine() == (number == self.holding)
            with (
                contextlib.nullcontext() if number == self.holding else pytest.raises(ResumableError, match="took over")
            ):
                lock.check()

    @invariant()
    def nothing_is_left_beside_it(self) -> None:
        wanted = ["lock"] if self.holding is not None or self.left else []
        assert [path.name for path in self.folder.iterdir()] == wanted


Locks.TestCase.settings = settings(max_examples=25, stateful_step_count=12)
TestLocks = Locks.TestCase


@given(
    facts=st.dictionaries(st.sampled_from(["host", "pid", "started", "job", "life"]), st.none() | st.text(max_size=3))
)
def test_nonsense_holds_nothing(facts: dict[str, Any]) -> None:
    facts |= {"host": socket.gethostname()}
    assert not is_alive(facts, Path("none"))


@pytest.mark.parametrize(("off", "alive"), [(0.5, True), (-0.5, True), (1.5, False), (-1.5, False)])
def test_a_process_number_that_was_given_again_is_another_process(tmp_path: Path, off: float, alive: bool) -> None:
    facts = holder(started=psutil.Process().create_time() + off)
    assert is_alive(facts, tmp_path / "lock") == alive


def test_a_holder_may_miss_ten_signs_of_life() -> None:
    assert 10 * locks.HEARTBEAT <= locks.EXPIRY


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "3", '"text"'])
def test_an_unreadable_lock_has_no_holder(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    assert holder_of(tmp_path / "lock") == {}
    with pytest.raises(HeldError):  # who knows what wrote it, and where
        Lock(tmp_path).__enter__()
    os.utime(tmp_path / "lock", (1, 1))
    assert holder_of(tmp_path / "none") is None
    assert holder_of(tmp_path) == {}
    with Lock(tmp_path) as lock:
        assert lock.is_mine()


def test_a_sign_of_life_counts_for_so_long(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = holder(host="elsewhere")
    assert not is_alive(other, path), "without a file there is no sign"
    path.touch()
    now = path.stat().st_mtime
    for age, alive in ((100, True), (140, False)):  # two minutes, as docs/reliability.md says
        os.utime(path, (now - age, now - age))
        assert is_alive(other, path) == alive
        assert is_alive(holder(), path), "on this host the process table knows"


@pytest.mark.parametrize(
    ("job", "life", "alive"),
    [("c 7", 0, False), ("c 7", 1, True), ("c 7", 2, True), ("c 8", 0, True), ("d 7", 0, True), (None, None, True)],
)
def test_a_job_that_was_put_back_into_the_queue_is_its_own_dead_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, life: int | None, alive: bool
) -> None:
    for name, value in (("JOB_ID", "7"), ("CLUSTER_NAME", "c"), ("RESTART_COUNT", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    (tmp_path / "lock").touch()
    facts = {} if job is None else {"job": job, "life": life}
    assert is_alive(holder(host="elsewhere") | facts, tmp_path / "lock") == alive


def test_a_lock_says_who_holds_it_and_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with Lock(tmp_path, "other", "doing this scene") as lock, Lock(tmp_path):  # locks of other names are others
        found = holder_of(tmp_path / "other")
        assert found is not None and found | {"token": "x"} == holder()
        with pytest.raises(HeldError, match=rf"another run is doing this scene: process {os.getpid()} on .*other"):
            Lock(tmp_path, "other", "doing this scene").__enter__()
        lock.check()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with Lock(tmp_path) as lock:
        os.utime(lock.path, (1, 1))
        for _ in range(500):
            if lock.path.stat().st_mtime > 1:
                break
            lock._stop.wait(0.01)
        assert lock.path.stat().st_mtime > 1
