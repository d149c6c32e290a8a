"""Where tasks run: local processes, local GPUs, jobs of a batch system, a scheduler that runs already."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scenelift.pipeline.cluster.forking import start_method
from scenelift.pipeline.cluster.keeping import LOST, WORKER, closed_in_time, kept_alive
from scenelift.pipeline.cluster.settings import QUEUES, ClusterSettings
from scenelift.pipeline.cluster.tasks import Cluster
from scenelift.pipeline.cluster.workers import carried
from scenelift.pipeline.errors import ResumableError, SceneliftError, UsageError

LOOPBACK = "127.0.0.1"
GPU_THREADS = 8
"""Threads of a GPU worker: they read, encode and write the blocks that keep its GPU busy."""
DEATHS = {True: 6, False: 2}
"""Workers that may die under a task before it counts as the cause: in a batch system they also die of preemption."""
LISTEN = 0.2
"""Seconds between two looks whether the workers are up; an interruption is noticed at once."""
PATIENCE = 10.0
"""Seconds that an interruption waits for workers which are being started."""
MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 29),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}
"""What glibc is told in workers. It keeps one arena per thread: two bound a worker's memory. Dask has it give freed
memory back at once: then each array waits for the kernel to map and zero its pages again."""


@contextmanager
def open_cluster(settings: ClusterSettings) -> Iterator[Cluster]:
    """Start or join a cluster; what was started ends with the context.

    Raises
    ------
    UsageError
        If the place cannot be had as asked: an extra or a command is missing, the batch system refuses the job.
    SceneliftError
        If the scheduler does not respond.
    """
    if settings.in_process:
        yield Cluster(None)
        return
    import dask
    from dask.distributed import Client

    environment = carried(settings.environment)
    resources = settings.resources or ({"GPU": 1 / GPU_THREADS} if settings.kind == "cuda" else {})
    if settings.scheduler is not None:
        with _join(settings) as client:
            yield _checked(Cluster(client, environment, resources))
        return
    with (
        dask.config.set(_config(settings, environment)),
        _start(settings, environment) if settings.queued else closed_in_time(_start(settings, environment)) as cluster,
        contextlib.nullcontext() if settings.queued else kept_alive(cluster),
        Client(cluster, set_as_default=False) as client,
    ):
        yield _checked(Cluster(client, environment, resources, dealt=settings.kind == "local" and not settings.gpus))


def warm_up(settings: ClusterSettings) -> None:
    """Begin to load the libraries of local workers, while this process has other things to do before it opens them."""
    if not settings.in_process:
        _config(settings, carried(settings.environment))


def _checked(cluster: Cluster) -> Cluster:
    cluster.check()
    return cluster


def _config(settings: ClusterSettings, environment: dict[str, str]) -> dict[str, Any]:
    """Return Dask's settings for the scheduler and the workers that are started here."""
    import dask

    config: dict[str, Any] = {
        "distributed.logging.distributed": "critical",  # deaths of workers are reported by who waits for their blocks
        # A task under which its workers died gets one more round of its own (see `pipeline.jobs.running`).
        "distributed.scheduler.allowed-failures": DEATHS[settings.queued],
        # Every server looks at its own event loop fifty times a second, and no one reads the result.
        "distributed.admin.tick.interval": "500ms",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.worker.profile.enabled": False,
    }
    config["distributed.worker.multiprocessing-method"] = "spawn"
    if not settings.queued:
        config["distributed.deploy.lost-worker-timeout"] = LOST
    own_gpu = {"SCENELIFT_OWN_GPU": "1"} if settings.kind == "cuda" else {}
    spawned = MALLOC | own_gpu | environment
    if settings.kind == "local" and settings.scheduler is None and not settings.gpus:
        import distributed  # noqa: F401 - its settings are Dask's from then on

        usual = dask.config.get("distributed.nanny.pre-spawn-environ")
        config["distributed.worker.multiprocessing-method"] = start_method(usual | spawned)
    return config | {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in spawned.items()}


def _join(settings: ClusterSettings) -> Any:
    """Connect to a scheduler that runs already."""
    from dask.distributed import Client, Security

    keys = {
        "tls_ca_file": settings.tls_ca,
        "tls_client_cert": settings.tls_cert,
        "tls_client_key": settings.tls_key,
    }
    for path in filter(None, keys.values()):
        if not Path(path).is_file():
            raise UsageError(f"no such TLS file: {path}; name one that exists")
    security = Security(require_encryption=True, **keys) if any(keys.values()) else None
    try:
        return Client(settings.scheduler, timeout="15s", set_as_default=False, security=security)
    except (OSError, ValueError, TypeError) as error:
        kind = SceneliftError if isinstance(error, OSError) else UsageError  # a ValueError: it is no address at all
        raise kind(f"no Dask scheduler responds at {settings.scheduler}: {error}; check the address") from None


def _start(settings: ClusterSettings, environment: dict[str, str]) -> Any:
    if settings.queued:
        return _start_queue(settings, environment)
    return _start_cuda(settings) if settings.kind == "cuda" else _start_local(settings)


def _check_main() -> None:
    """Refuse to start workers from a place where they would start workers themselves.

    Raises
    ------
    UsageError
    """
    process = multiprocessing.current_process()
    if process.daemon:
        raise UsageError("a process of a pool cannot have workers of its own: give ClusterSettings(workers=0) there")
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None or getattr(sys.modules["__main__"], "__spec__", None) is not None or not Path(path).is_file():
        return  # a notebook, `python -m`, or a prompt: workers do not run it
    guarded = "__main__" in Path(path).read_text(encoding="utf-8", errors="replace")
    if not guarded or getattr(process, "_inheriting", False):
        raise UsageError(
            f"workers import {Path(path).name} as they start, and would run it again: put the call under "
            'if __name__ == "__main__": (or give ClusterSettings(workers=0))'
        )


def _start_local(settings: ClusterSettings) -> Any:
    """Start local workers; one that dies while it starts (a short moment without memory) is given a second chance."""
    from dask.distributed import LocalCluster

    _check_main()

    for chance in (1, 2):
        try:
            return _deaf_to_interrupts(
                LocalCluster,
                n_workers=settings.local_workers,
                threads_per_worker=GPU_THREADS if settings.gpus else 1,
                processes=True,
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            if chance == 2:
                reason = " ".join(str(error.__cause__ or error).split())
                raise ResumableError(f"the local workers do not start: {reason}") from error
    return None


def _deaf_to_interrupts(start: Callable[..., Any], **options: Any) -> Any:
    """Call what starts worker processes; Ctrl-C in a terminal, which goes to all of them, reaches this process alone.

    Processes inherit which signals are blocked in the thread that starts them. So it is one of its own, for which this
    one waits, listening; interrupted, it ends what was started by then.
    """
    done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            done.put((start(**options), None))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.put((None, error))

    thread = threading.Thread(target=run, daemon=True, name="scenelift-starter")
    thread.start()
    try:
        while True:
            with contextlib.suppress(queue.Empty):
                made, error = done.get(timeout=LISTEN)
                break
    except BaseException:
        _end(thread, done)
        raise
    if error is not None:
        raise error
    return made


def _end(thread: threading.Thread, done: queue.SimpleQueue[tuple[Any, BaseException | None]]) -> None:
    """End workers that are being started, and wait until no more are: one begun later finds nothing to begin with."""
    until = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < until:
        for child in multiprocessing.active_children():
            if child.name.startswith(WORKER):
                child.kill()
        thread.join(LISTEN)
    with contextlib.suppress(queue.Empty):
        made, _ = done.get_nowait()
        if made is not None:
            with closed_in_time(made):
                pass


def _start_cuda(settings: ClusterSettings) -> Any:
    """Start one process a GPU, each seeing its own GPU first, pinned to the cores near it."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UsageError(f'--cluster cuda needs dask-cuda (pip install "scenelift[cuda]"): {error}') from None
    return LocalCUDACluster(
        n_workers=settings.workers or None,
        threads_per_worker=GPU_THREADS,
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:0",
        device_memory_limit=None,  # blocks travel as records: there is nothing of Dask's on the GPU to spill
        rmm_pool_size=settings.rmm_pool,
        local_directory=settings.job.local_directory,
        resources={"GPU": 1},
        silence_logs=logging.ERROR,
    )


def _start_queue(settings: ClusterSettings, environment: dict[str, str]) -> Any:
    """Start a scheduler here and let it submit jobs that are workers, more or fewer as there is work."""
    command = QUEUES[settings.kind]
    if shutil.which(command) is None:
        raise UsageError(f"no `{command}` here: --cluster {settings.kind} runs where jobs can be submitted")
    cluster = queue_cluster(settings, environment)
    if settings.kind == "slurm":
        try:
            _try_slurm(cluster.job_script())
        except UsageError:
            cluster.close()
            raise
    least = 1 if settings.workers is None else settings.workers
    # never scaled to a fixed number: workers whose walltime is over or that were preempted are to be replaced
    cluster.adapt(minimum=least, maximum=settings.maximum or max(least, 1), interval="2s", wait_count=5)
    return cluster


def queue_cluster(settings: ClusterSettings, environment: dict[str, str]) -> Any:
    """Return a dask-jobqueue cluster without any jobs; its ``job_script()`` is what would be submitted.

    Raises
    ------
    UsageError
        If dask-jobqueue is not installed, or has no use for a setting.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        wanted = 'dask-jobqueue (pip install "scenelift[jobqueue]")'
        raise UsageError(f"--cluster {settings.kind} needs {wanted}: {error}") from None
    job = settings.job
    logs = Path(job.log_directory).absolute()
    kinds: dict[str, Any] = {
        "slurm": dask_jobqueue.SLURMCluster,
        "pbs": dask_jobqueue.PBSCluster,
        "lsf": dask_jobqueue.LSFCluster,
        "sge": dask_jobqueue.SGECluster,
    }
    accounting = "project" if settings.kind in ("lsf", "sge") else "account"
    options: dict[str, Any] = {
        "cores": job.cores,
        "memory": job.memory,
        "processes": job.processes,
        "queue": job.queue,
        accounting: job.account,
        "job_extra_directives": list(job.directives),
        "job_script_prologue": [*_exports(environment), *job.prologue],
        "worker_extra_args": _arguments(settings),
        "python": job.python,
        "interface": job.interface,
        "local_directory": job.local_directory,
        "log_directory": str(logs),
        "shared_temp_directory": str(logs),
        "security": settings.tls or None,
        "scheduler_options": {"dashboard_address": f"{LOOPBACK}:0"},
        "silence_logs": logging.CRITICAL,
    }
    if job.walltime is not None:
        options["walltime"] = job.walltime
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kinds[settings.kind](**options)
    except ImportError as error:
        raise UsageError(f'encryption needs cryptography (pip install "scenelift[jobqueue]"): {error}') from None
    except (ValueError, OSError) as error:
        raise UsageError(f"cluster {settings.kind}: {' '.join(str(error).split())}") from None


def _exports(environment: dict[str, str]) -> list[str]:
    own = MALLOC | {"OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms"}
    own["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted((own | environment).items())]


def _arguments(settings: ClusterSettings) -> list[str]:
    """Return what a worker is told beside dask-jobqueue's own: one block at a time, whose model has all the threads."""
    job = settings.job
    arguments = ["--nthreads", str(GPU_THREADS if "GPU" in settings.resources else 1)]
    if job.lifetime:
        arguments += ["--lifetime", shlex.quote(job.lifetime), "--lifetime-stagger", shlex.quote(job.stagger)]
    if settings.resources:
        arguments += ["--resources", shlex.quote(" ".join(f"{name}=1" for name in settings.resources))]
    return arguments


def _try_slurm(script: str) -> None:
    """Ask Slurm whether it would take the job; jobs submitted later fail without a word.

    Raises
    ------
    UsageError
        With Slurm's own words, if it would not.
    """
    done = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split()).replace("allocation failure: ", "")
        raise UsageError(f"Slurm refuses the workers' job: {said}")
