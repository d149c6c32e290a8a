"""Local workers that Dask gives up on come back."""

from __future__ import annotations

import operator

import psutil

from scenelift.pipeline.cluster import ClusterSettings, open_cluster


def test_workers_whose_nannies_have_closed_are_replaced() -> None:
    with open_cluster(ClusterSettings(workers=2)) as place:
        cluster = place._client.cluster
        cluster.sync(cluster.workers[0].close)  # as a nanny closes itself whose new worker dies too early
        cluster.sync(cluster.workers.pop(1).close)  # what Dask does to one whose worker was away for too long
        assert sorted(place.run(operator.neg, range(5))) == [-4, -3, -2, -1, 0]


def test_nothing_listens_beyond_this_machine() -> None:
    with open_cluster(ClusterSettings(workers=1)) as place:
        assert place.dashboard is not None and "//127.0.0.1:" in place.dashboard
        me = psutil.Process()
        open_ports = [c for p in (me, *me.children(recursive=True)) for c in p.net_connections("inet")]
        assert {c.laddr.ip for c in open_ports if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
