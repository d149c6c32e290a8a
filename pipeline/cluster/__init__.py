"""Where tasks run: here, on local processes, on a batch system, on any Dask scheduler. Dask lives here alone.

A task is a picklable function and an integer; what comes back is a small record. Pixels never travel. Names are
imported when they are first used: the command line needs the settings alone to say what is wrong with a command.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenelift.pipeline.cluster.attempts import Failed as Failed
    from scenelift.pipeline.cluster.backends import open_cluster as open_cluster
    from scenelift.pipeline.cluster.backends import warm_up as warm_up
    from scenelift.pipeline.cluster.settings import ClusterSettings as ClusterSettings
    from scenelift.pipeline.cluster.settings import JobSettings as JobSettings
    from scenelift.pipeline.cluster.settings import cores as cores
    from scenelift.pipeline.cluster.tasks import Cluster as Cluster
    from scenelift.pipeline.cluster.workers import worker_index as worker_index

_FOUND_IN = {
    "Cluster": "tasks",
    "ClusterSettings": "settings",
    "Failed": "attempts",
    "JobSettings": "settings",
    "cores": "settings",
    "open_cluster": "backends",
    "warm_up": "backends",
    "worker_index": "workers",
}
__all__ = ["Cluster", "ClusterSettings", "Failed", "JobSettings", "cores", "open_cluster", "warm_up", "worker_index"]


def __getattr__(name: str) -> Any:
    if name not in _FOUND_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_FOUND_IN[name]}"), name)
    globals()[name] = found
    return found
