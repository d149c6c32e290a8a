"""A local cluster: it ends when its job does, also where a worker no longer answers; and who does what."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path

import psutil
import pytest
from dask.distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from scenelift.pipeline.cluster import ClusterSettings, keeping, open_cluster
from scenelift.pipeline.cluster.attempts import Failed
from scenelift.pipeline.cluster.tasks import AHEAD, Stretches


def test_a_worker_that_no_longer_answers_cannot_keep_a_cluster_open(monkeypatch):
    monkeypatch.setattr(keeping, "CLOSE", 1.0)
    with keeping.closed_in_time(LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)) as cluster:
        (nanny,) = cluster.workers.values()
        worker = psutil.Process(nanny.pid)
        os.kill(worker.pid, signal.SIGSTOP)
        began = time.monotonic()
    worker.wait(10)
    assert not worker.is_running()
    assert time.monotonic() - began < 30, "nobody waits for what cannot answer"


def test_a_cluster_whose_workers_answer_closes_by_itself():
    with keeping.closed_in_time(LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)) as cluster:
        (nanny,) = cluster.workers.values()
        worker = psutil.Process(nanny.pid)
    assert not worker.is_running()
    assert cluster.status.name == "closed"


def pid_of_a_slow_task(number: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_workers_are_forked_from_one_process_and_its_death_costs_no_task():
    with open_cluster(ClusterSettings(workers=2)) as cluster:
        first = set(cluster.run(pid_of_a_slow_task, range(8)))
        (server,) = {psutil.Process(pid).ppid() for pid in first}
        assert server != os.getpid()
        records = cluster.run(pid_of_a_slow_task, range(30))
        later = {next(records)}
        psutil.Process(server).kill()
        later |= set(records)
    assert later - first, "its workers were given up, and new ones have done the rest"
    with open_cluster(ClusterSettings(workers=1)) as cluster:
        assert len(list(cluster.run(pid_of_a_slow_task, range(3)))) == 3


def test_a_worker_gets_neighbours_and_one_without_work_takes_from_others():
    with open_cluster(ClusterSettings(workers=2)) as cluster:
        who = dict(cluster.run(worker_of_a_task_that_is_slow_early, range(20, 60)))
        same = sum(who[number] == who[number + 1] for number in range(20, 59))
        assert same >= 30, "workers that take turns have none in common"
        slow = dict(cluster.run(worker_of_a_task_that_is_slow_early, range(40)))
        assert len({slow[number] for number in range(20)}) == 2, "who is done with the quick half takes from the slow"
    assert sorted(who) == list(range(20, 60)) and sorted(slow) == list(range(40))


def test_few_tasks_are_for_whoever_is_free():
    """Else the first worker would get every scene of an archive that has one block."""
    with open_cluster(ClusterSettings(workers=2)) as cluster, ThreadPoolExecutor(4) as scenes:
        who = [pid for (pid,) in scenes.map(lambda number: cluster.run(pid_of_a_slow_task, [number]), range(12))]
    assert 4 <= who.count(who[0]) <= 8


@given(st.integers(0, 60), st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_item_is_taken_once_and_a_stretch_in_order(items, count, random):
    stretches = Stretches(range(items), count)
    taken = [[] for _ in range(len(stretches))]
    while sum(map(len, taken)) < items:
        number = random.randrange(count)
        taken[number] += (got := stretches.take(number, random.randrange(1, 4)))
        assert got, "as long as there is any, whoever asks gets some"
    assert sorted(chain.from_iterable(taken)) == list(range(items))
    assert not any(stretches.take(number, 9) for number in range(count))
    jumps = sum(later != item + 1 for mine in taken for item, later in pairwise(mine))
    assert jumps <= count * (items.bit_length() + 1), "each jump is to half of what another had"


def ends_its_worker(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_deadly_task_does_not_take_its_stretch_along():
    with open_cluster(ClusterSettings(workers=2)) as cluster:
        results = list(cluster.attempt(ends_its_worker, range(40)))
    failed = {result.item for result in results if isinstance(result, Failed)}
    assert 2 in failed
    assert len(failed) <= 1 + AHEAD, "only what its worker had just then may look guilty"


def worker_of_a_task_that_is_slow_early(number: int) -> tuple[int, int]:
    time.sleep(0.2 if number < 20 else 0.05)
    return number, os.getpid()


@pytest.mark.parametrize("value", ["2", "3"])
def test_workers_with_another_number_of_threads_have_it_before_libraries_are_loaded(value, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with open_cluster(ClusterSettings(workers=1, environment={"OMP_NUM_THREADS": value})) as cluster:
        assert list(cluster.run(threads_at_start, [0])) == [value]


def threads_at_start(number: int) -> str | None:
    """Return what the process was given as it was started: threads of a library are counted then."""
    with Path("/proc/self/environ").open("rb") as file:
        given = dict(entry.partition(b"=")[::2] for entry in file.read().split(b"\0"))
    return given.get(b"OMP_NUM_THREADS", b"").decode()
