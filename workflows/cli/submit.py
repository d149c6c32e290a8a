"""`scenelift submit`: a batch script for Slurm around any command, that goes on after whatever ends it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scenelift.pipeline.cluster.settings import JobSettings
from scenelift.pipeline.cluster.workers import carried
from scenelift.pipeline.errors import SceneliftError, UsageError
from scenelift.pipeline.settings import option

COMMANDS = ("enhance", "archive", "resume")
"""Commands that a second start goes on with."""

SCRIPT = """\
#!/bin/bash
{header}
cd {folder} || exit 2
{prologue}
# Slurm warns this shell before the time is over; scenelift then ends in good order with exit code 75, or, if it has
# only just started, without a word.
warned=0
trap 'warned=$((warned + 1)); kill -TERM "$child" 2>/dev/null' TERM INT
{command} &
child=$!
while :; do
    before=$warned
    wait "$child"
    code=$?
    [ "$warned" -eq "$before" ] && break
done
[ "$warned" -gt 0 ] && [ "$code" -gt 128 ] && code=75
# A cancelled job is warned as well, but no longer running: it stays cancelled.
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}}}
job=${{job:-$SLURM_JOB_ID}}
if [ "$code" -eq 75 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ] &&
    [ "$(squeue --noheader --format=%T --jobs="$job")" = RUNNING ]; then
    scontrol requeue "$job" && sleep 60  # ends this script
fi
exit "$code"
"""


@dataclass(frozen=True)
class SubmitSettings:
    """A job around one command."""

    array: int | None = option(None, "Share an archive among so many elements of a job array; default: one job.")
    job: JobSettings = field(default_factory=JobSettings)
    name: str = option("scenelift", "Name of the job.")
    warning: int = option(90, "Seconds before the time limit at which the command stops.")
    requeues: int = option(50, "How often a stopped job puts itself back into the queue.")

    def __post_init__(self) -> None:
        if self.array is not None and not 1 <= self.array <= 10_000:
            raise UsageError(f"--array must be from 1 to 10000 elements, got {self.array}")
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise UsageError(f"--name must be letters, digits, _ . and -, got {self.name!r}")
        if self.warning < 1:
            raise UsageError(f"--warning must be from 1 up, got {self.warning}")
        if self.requeues < 0:
            raise UsageError(f"--requeues must be from 0 up, got {self.requeues}")


def script(command: Sequence[str], settings: SubmitSettings) -> str:
    """Return the batch script.

    Parameters
    ----------
    command : sequence of str
        Arguments of scenelift, e.g. ("enhance", "in.tif", "-o", "out.tif").
    settings : SubmitSettings

    Raises
    ------
    UsageError
        If a second start would not go on with the command, or it is not an archive's and elements are to share it.
    """
    if not command or command[0] not in COMMANDS:
        raise UsageError(f"submit takes one of the commands {', '.join(COMMANDS)} after --")
    if settings.array is not None and command[0] != "archive":
        raise UsageError(f"--array shares the scenes of an archive; {command[0]} works on one")
    job, logs = settings.job, Path(settings.job.log_directory).absolute()
    lines = {
        "job-name": settings.name,
        "output": f"{logs}/{settings.name}-{'%A_%a' if settings.array else '%j'}.out",
        "open-mode": "append",
        "ntasks": "1",
        "cpus-per-task": str(job.cores),
        "mem": job.memory.upper().removesuffix("B").removesuffix("I"),
        "time": job.walltime,
        "partition": job.queue,
        "account": job.account,
        "array": f"0-{settings.array - 1}" if settings.array else None,
        "requeue": "",
        "signal": f"B:TERM@{settings.warning}",
    }
    header = [f"#SBATCH --{key}{'=' if value else ''}{value}" for key, value in lines.items() if value is not None]
    header += [f"#SBATCH {directive}" for directive in job.directives]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(carried({}).items())]
    return SCRIPT.format(
        header="\n".join(header),
        folder=shlex.quote(str(Path.cwd())),
        prologue="\n".join([*exports, *job.prologue]),
        command=shlex.join(_command(command, settings)),
        requeues=settings.requeues,
    )


def _command(arguments: Sequence[str], settings: SubmitSettings) -> list[str]:
    command = [settings.job.python or sys.executable, "-m", "scenelift", *arguments]
    if settings.array is not None and "--share" not in command:
        command.append("--share")  # each element claims scenes; any number may work on one archive
    placed = {"--workers", "--cluster", "--scheduler"} & {part.partition("=")[0] for part in command}
    if arguments[0] != "resume" and not placed:
        command += ["--workers", str(settings.job.cores)]
    return command


def submit(command: Sequence[str], settings: SubmitSettings) -> str:
    """Give the script to Slurm and return the job's number.

    Raises
    ------
    UsageError
        If there is no Slurm here.
    SceneliftError
        With Slurm's own words, if it refuses the job.
    """
    text = script(command, settings)
    if shutil.which("sbatch") is None:
        raise UsageError("no `sbatch` here: submit from a machine of the cluster, or print the script with --dry-run")
    from scenelift.pipeline.files import make_folder  # brings numpy, for which --help does not wait

    make_folder(Path(settings.job.log_directory))
    done = subprocess.run(["sbatch", "--parsable"], input=text, capture_output=True, text=True)
    if done.returncode:
        raise SceneliftError(f"Slurm refuses the job: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]
