"""A local cluster ends when its job does, also where a worker no longer answers."""

import os
import signal
import time

import psutil
from dask.distributed import LocalCluster

from scenelift.pipeline.cluster import keeping


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
