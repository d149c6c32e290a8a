"""What can be said about a place to run tasks: plain values, checked once, from a TOML table or from flags."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scenelift.pipeline.errors import UsageError

QUEUES = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "sge": "qsub"}
"""Batch systems, and the command that submits a job to each."""
KINDS = ("local", "cuda", *QUEUES)
MOST = 4096
"""Worker processes of one scheduler; docs/scale.md says where it is saturated long before."""


@dataclass(frozen=True)
class JobSettings:
    """What one job of a batch system asks for; the words are those of dask-jobqueue."""

    cores: int = 1
    memory: str = "4GB"
    processes: int = 1
    """Worker processes in a job; each gets cores / processes threads for its model."""
    walltime: str | None = None
    """As the batch system writes it, e.g. "02:00:00"; None: its default."""
    queue: str | None = None
    """Queue or partition."""
    account: str | None = None
    """Account or project."""
    directives: tuple[str, ...] = ()
    """Further lines of the script's header, e.g. "--gres=gpu:1"."""
    prologue: tuple[str, ...] = ()
    """Shell lines before the worker starts, e.g. "module load gdal"."""
    python: str | None = None
    """Interpreter of the workers; None: this one."""
    interface: str | None = None
    """Network interface of scheduler and workers, e.g. "ib0"."""
    local_directory: str | None = None
    """Scratch folder of the workers."""
    log_directory: str = "scenelift-jobs"
    """Folder, seen by all nodes, for the jobs' output and their TLS keys."""
    lifetime: str | None = None
    """A worker leaves in good order after so long, e.g. "110 minutes"; keep it under the walltime."""
    stagger: str = "2 minutes"
    """Lifetimes vary by up to so much, so that not all leave together."""

    def __post_init__(self) -> None:
        _tuples(self, "directives", "prologue")
        if not 1 <= self.processes <= self.cores:
            raise UsageError(f"a job needs at least one core a process: cores {self.cores}, processes {self.processes}")


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
            raise UsageError(f"a running scheduler and a cluster of kind {self.kind} exclude each other")
        if self.maximum is not None and not max(1, self.workers or 0) <= self.maximum <= MOST:
            raise UsageError(f"cluster maximum must be from {max(1, self.workers or 0)} to {MOST}, got {self.maximum}")
        if self.queued and self.workers == 0 and self.maximum is None:
            raise UsageError(f"--workers 0 with a cluster of kind {self.kind} needs a maximum to grow to")
        for name in ("environment", "resources"):
            _plain_table(name, getattr(self, name), str if name == "environment" else float)

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

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> ClusterSettings:
        """Return settings from a plain table, in which the keys of a job may also stand at the top.

        Raises
        ------
        UsageError
            For a key nobody knows or a value of another type.
        """
        own, jobs = _fields(cls), _fields(JobSettings)
        flat = {**{k: v for k, v in table.items() if k != "job"}, **dict(table.get("job") or {})}
        for key, value in flat.items():
            wanted = own.get(key) or jobs.get(key)
            if wanted is None:
                close = difflib.get_close_matches(key, [*own, *jobs], 1)
                raise UsageError(f"unknown cluster key {key!r}" + (f": did you mean {close[0]!r}?" if close else ""))
            _check(key, value, wanted)
        job = JobSettings(**{k: v for k, v in flat.items() if k in jobs})
        return cls(**{k: v for k, v in flat.items() if k in own}, job=job)


def cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fields(kind: Any) -> dict[str, str]:
    """Return the names a table may use and their annotations."""
    return {f.name: str(f.type) for f in dataclasses.fields(kind) if f.name != "job"}


def _check(key: str, value: Any, annotation: str) -> None:
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "bool": (bool,), "str": (str,), "tuple": (list, tuple)}
    wanted = kinds.get(annotation.partition("[")[0].partition(" ")[0], (Mapping,))
    fits = isinstance(value, wanted) and (isinstance(value, bool) == (wanted == (bool,)))
    if not fits and not (value is None and "None" in annotation):
        name = {"tuple[str, ...]": "a list of texts", "str": "a text", "int": "a whole number"}
        told = name.get(annotation.removesuffix(" | None"), "true or false" if annotation == "bool" else "a table")
        raise UsageError(f"cluster key {key!r} takes {told}, got {value!r}")


def _tuples(settings: object, *names: str) -> None:
    """Turn lists, as TOML and JSON have them, into tuples."""
    for name in names:
        value = getattr(settings, name)
        if not all(isinstance(part, str) for part in value):
            raise UsageError(f"cluster key {name!r} takes a list of texts, got {value!r}")
        object.__setattr__(settings, name, tuple(value))


def _plain_table(name: str, table: Mapping[str, Any], kind: type) -> None:
    for key, value in table.items():
        fits = isinstance(value, str) if kind is str else isinstance(value, int | float) and value > 0
        if not fits:
            wanted = "texts" if kind is str else "numbers above 0"
            raise UsageError(f"cluster key {name!r} takes a table of {wanted}, got {key} = {value!r}")
