"""Where tasks run: here, on local processes, on a batch system, on any Dask scheduler. Dask lives here alone.

A task is a picklable function and an integer; what comes back is a small record. Pixels never travel.
"""

from scenelift.pipeline.cluster.attempts import Failed
from scenelift.pipeline.cluster.backends import open_cluster, warm_up
from scenelift.pipeline.cluster.settings import ClusterSettings, JobSettings, cores
from scenelift.pipeline.cluster.tasks import Cluster
from scenelift.pipeline.cluster.workers import worker_index

__all__ = ["Cluster", "ClusterSettings", "Failed", "JobSettings", "cores", "open_cluster", "warm_up", "worker_index"]
