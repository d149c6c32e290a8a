"""Local workers that Dask gives up on come back."""

from __future__ import annotations

import operator

from scenelift.pipeline.cluster import ClusterSettings, open_cluster


def test_workers_whose_nannies_have_closed_are_replaced() -> None:
    with open_cluster(ClusterSettings(workers=2)) as place:
        cluster = place._client.cluster
        cluster.sync(cluster.workers[0].close)  # as a nanny closes itself whose new worker dies too early
        cluster.sync(cluster.workers.pop(1).close)  # what Dask does to one whose worker was away for too long
        assert sorted(place.run(operator.neg, range(5))) == [-4, -3, -2, -1, 0]
