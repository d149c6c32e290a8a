"""A real Slurm on this machine: one controller, several nodes, on loopback, in a folder of its own.

Nothing is installed and nothing stays: the daemons die with the process that started them, and what a killed test left
behind is swept away by the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PREFIX = "scenelift-slurm-"
PATIENCE = 600
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

CONF = """\
ClusterName=scenelift
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=16000\n"
PARTITION = "PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP\n"


def why_not() -> str | None:
    """Return why no Slurm can be started here, None if it can."""
    missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    return f"no real Slurm here: {', '.join(missing)} not installed (Debian: slurm-wlm, munge)" if missing else None


@dataclass
class Slurm:
    """A running Slurm."""

    folder: Path
    nodes: tuple[str, ...]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to speak with it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}

    def call(self, *command: object) -> str:
        """Run one of Slurm's commands and return what it said."""
        done = subprocess.run(
            [str(part) for part in command], env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Return the state of a job, e.g. RUNNING; empty once Slurm has forgotten it."""
        return self._shown(job, "JobState")

    def exit_code(self, job: str) -> int:
        """Return the exit code of a finished job."""
        return int(self._shown(job, "ExitCode").partition(":")[0])

    def restarts(self, job: str) -> int:
        """Return how often a job was requeued."""
        return int(self._shown(job, "Restarts"))

    def node_of(self, job: str) -> str:
        """Return the node a job runs on."""
        return self._shown(job, "NodeList")

    def _shown(self, job: str, key: str) -> str:
        found = re.search(rf"\b{key}=(\S*)", self.call("scontrol", "--oneliner", "show", "job", job))
        return found[1] if found else ""

    def jobs(self, *options: str) -> list[str]:
        """Return the numbers of all jobs that wait or run."""
        return self.call("squeue", "--noheader", "--format=%i", "--array", *options).split()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition comes true."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {PATIENCE} s\n{self.call('squeue', '--long')}")
            time.sleep(0.1)

    def finish(self, *jobs: str) -> list[int]:
        """Wait until jobs have ended and return their exit codes."""
        for job in jobs:
            self.wait(lambda job=job: self.state(job) in ENDED, f"the end of job {job}")
        return [self.exit_code(job) for job in jobs]

    def start(self, *command: str) -> None:
        """Start a daemon that dies with this process."""
        log = (self.folder / f"{command[0]}-{len(self.daemons)}.out").open("wb")
        env = {**os.environ, **self.environment}
        with log:
            self.daemons.append(
                subprocess.Popen(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
                )
            )


@contextlib.contextmanager
def running(nodes: tuple[str, ...] = ("n1", "n2", "n3")) -> Iterator[Slurm]:
    """Start a Slurm, and leave nothing of it behind."""
    sweep()
    slurm = Slurm(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")), nodes)
    try:
        _configure(slurm)
        slurm.start(
            "munged",
            "--foreground",
            *(f"--{what}={slurm.folder}/munge.{what.partition('-')[0]}" for what in ("socket", "key-file")),
            *(f"--{what}-file={slurm.folder}/munged.{what}" for what in ("log", "pid", "seed")),
        )
        _until(slurm, lambda: (slurm.folder / "munge.socket").exists())
        slurm.start("slurmctld", "-D", "-c")
        for name in nodes:
            slurm.start("slurmd", "-D", "-N", name)
        _until(slurm, lambda: _idle(slurm) == len(nodes))
        yield slurm
    finally:
        _end(str(slurm.folder))
        for daemon in slurm.daemons:
            daemon.wait()
        shutil.rmtree(slurm.folder, ignore_errors=True)


def sweep() -> None:
    """End what tests that were killed have left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            _end(str(folder))
            shutil.rmtree(folder, ignore_errors=True)


def _configure(slurm: Slurm) -> None:
    slurm.folder.chmod(0o711)  # munged insists
    (slurm.folder / "state").mkdir()
    key = slurm.folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host, ports = socket.gethostname().partition(".")[0], _free_ports(1 + len(slurm.nodes))
    text = CONF.format(host=host, port=ports[0], user=getpass.getuser(), folder=slurm.folder)
    text += "".join(NODE.format(name=n, host=host, port=p) for n, p in zip(slurm.nodes, ports[1:], strict=True))
    (slurm.folder / "slurm.conf").write_text(text + PARTITION)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _idle(slurm: Slurm) -> int:
    try:
        return slurm.call("sinfo", "--noheader", "--Node", "--format=%T").split().count("idle")
    except RuntimeError:  # the controller does not answer yet
        return 0


def _until(slurm: Slurm, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        dead = [str(daemon.args) for daemon in slurm.daemons if daemon.poll() is not None]
        if dead or time.monotonic() > end:
            said = "\n".join(p.read_text(errors="replace")[-2000:] for p in sorted(slurm.folder.glob("*.out")))
            raise RuntimeError(f"Slurm does not start ({dead or 'too slow'}):\n{said}")
        time.sleep(0.1)


def _end(folder: str) -> None:
    """Kill every process that belongs to the Slurm in `folder`: daemons, job steps, jobs."""
    for _ in range(3):  # a dying daemon may start one more
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and _belongs(process, folder):
                    process.kill()
        time.sleep(0.1)


def _belongs(process: psutil.Process, folder: str) -> bool:
    """Whether a process is part of the Slurm in `folder`; a step's manager hides its environment but logs there."""
    if process.environ().get("SLURM_CONF", "").startswith(f"{folder}/"):
        return True
    return process.name() == "slurmstepd" and any(f.path.startswith(f"{folder}/") for f in process.open_files())


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
