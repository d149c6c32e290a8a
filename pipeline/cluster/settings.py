"""Settings of a cluster: plain values, checked once, from a TOML table or from flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option, read_table, suggestion

QUEUES = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "sge": "qsub"}
"""Batch systems, and the command that submits a job to each."""
KINDS = ("local", "cuda", *QUEUES)
MOST = 4096
"""Worker processes of one scheduler; docs/scale.md says where it is saturated long before."""


@dataclass(frozen=True)
class JobSettings:
    """What one job of a batch system asks for; the words are those of dask-jobqueue."""

    cores: int = option(1, "Cores of the job.")
    memory: str = option("4GB", "Memory of the job.")
    processes: int = 1
    """Worker processes in a job; each gets cores / processes threads for its model."""
    walltime: str | None = option(None, "Time limit as the batch system writes it, e.g. 02:00:00; default: its own.")
    queue: str | None = option(None, "Queue or partition.")
    account: str | None = option(None, "Account or project.")
    directives: tuple[str, ...] = option(
        (), "A further line of the script's header, e.g. --gres=gpu:1; repeatable.", "--directive"
    )
    prologue: tuple[str, ...] = option((), "A shell line before the command, e.g. 'module load gdal'; repeatable.")
    python: str | None = None
    """Interpreter of the workers; None: this one."""
    interface: str | None = None
    """Network interface of scheduler and workers, e.g. "ib0"."""
    local_directory: str | None = None
    """Scratch folder of the workers."""
    log_directory: str = option("scenelift-jobs", "Folder, seen by all nodes, for the jobs' output.", "--logs")
    """Workers' TLS keys go there too."""
    lifetime: str | None = None
    """A worker leaves in good order after so long, e.g. "110 minutes"; keep it under the walltime."""
    stagger: str = "2 minutes"
    """Lifetimes vary by up to so much, so that not all leave together."""

    def __post_init__(self) -> None:
        if not 1 <= self.processes <= self.cores:
            raise UsageError(
                f"a job must have at least one core a process, got {self.cores} cores, {self.processes} processes"
            )


@dataclass(frozen=True)
class ClusterSettings:
    """Where tasks run."""

    workers: int | None = None
    """Worker processes; 0: none, everything in this process; None: as many as suit the machine (batch systems: 1)."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, e.g. "tcp://10.0.0.1:8786"; workers is then ignored."""
    gpus: int = 0
    """GPUs of this machine to use: one worker process each."""
    kind: str = "local"
    """"local" processes; "cuda": local GPUs by dask-cuda; "slurm", "pbs", "lsf", "sge": jobs of a batch system."""
    maximum: int | None = None
    """Batch systems: grow to so many worker processes while there is work for them; None: stay at `workers`."""
    job: JobSettings = field(default_factory=JobSettings)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables set in every worker, e.g. of GDAL; those of this process that concern GDAL go along anyway."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a task takes of a worker's resources while it runs, e.g. {"GPU": 0.5}."""
    tls: bool = True
    """Batch systems: encrypt, with keys made for this run."""
    tls_ca: str | None = None
    """Certificate authority of a `tls://` scheduler."""
    tls_cert: str | None = None
    tls_key: str | None = None
    rmm_pool: str | None = None
    """Kind "cuda": size of RMM's memory pool on each GPU, e.g. "20GB"."""

    def __post_init__(self) -> None:
        if self.workers is not None and not 0 <= self.workers <= MOST:
            raise UsageError(f"--workers must be from 0 to {MOST}, got {self.workers}")
        if self.kind not in KINDS:
            raise UsageError(f"cluster kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.scheduler is not None and self.kind != "local":
            raise UsageError(f"a running scheduler and a cluster of kind {self.kind} exclude each other: leave one out")
        if self.maximum is not None and not max(1, self.workers or 0) <= self.maximum <= MOST:
            raise UsageError(f"cluster maximum must be from {max(1, self.workers or 0)} to {MOST}, got {self.maximum}")
        if self.queued and self.workers == 0 and self.maximum is None:
            raise UsageError(f"--workers 0 with a cluster of kind {self.kind} needs a maximum to grow to")
        if wrong := [f"{name} = {amount}" for name, amount in self.resources.items() if not amount > 0]:
            raise UsageError(f"cluster resources must be numbers above 0, got {wrong[0]}")

    @property
    def local_workers(self) -> int:
        """Number of local processes: as asked, else one a GPU, else one a core."""
        if self.workers is not None:
            return self.workers
        return self.gpus or cores()

    @property
    def queued(self) -> bool:
        """Whether workers are jobs of a batch system."""
        return self.kind in QUEUES

    @property
    def elsewhere(self) -> bool:
        """Whether workers may be on other machines, with other devices than this one."""
        return self.queued or self.scheduler is not None

    @property
    def in_process(self) -> bool:
        """Whether no cluster is needed."""
        return self.kind == "local" and self.scheduler is None and self.local_workers == 0

    @property
    def threads(self) -> int:
        """Model threads of each worker, so that workers x threads = cores."""
        if self.queued:
            return self.job.cores // self.job.processes
        if self.scheduler is not None:
            return 1
        return max(1, cores() // max(1, self.local_workers))

    @property
    def own_threads(self) -> int:
        """Threads of this process when no block is left to do: as many as its workers here had, at most one a core."""
        return cores() if self.elsewhere else min(cores(), max(1, self.local_workers) * self.threads)

    @classmethod
    def of(cls, table: Mapping[str, Any], where: str = "", path: tuple[str, ...] = ("cluster",)) -> ClusterSettings:
        """Return settings from a plain table, in which the keys of a job may also stand at the top.

        Parameters
        ----------
        table : mapping
        where, path
            For messages, as `read_table` takes them.

        Raises
        ------
        UsageError
            For an unknown key or a value of another type.
        """
        own, jobs = ({field.name for field in dataclasses.fields(kind)} for kind in (cls, JobSettings))
        job = table.get("job", {})
        if not isinstance(job, Mapping):
            job = read_table(JobSettings, job, where, (*path, "job"))
        if unknown := [key for key in table if key not in own | jobs]:
            text = f"unknown key {'.'.join((*path, unknown[0]))}{suggestion(unknown[0], sorted(own | jobs))}"
            raise UsageError(f"{where}: {text}" if where else text)
        return dataclasses.replace(
            read_table(cls, {key: value for key, value in table.items() if key in own - {"job"}}, where, path),
            job=read_table(JobSettings, job | {k: v for k, v in table.items() if k in jobs}, where, path),
        )


def cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
