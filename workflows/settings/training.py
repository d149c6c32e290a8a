"""Where trainings write and run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.settings.parsing import MODEL, OUTPUT, WHERE, Device


@dataclass(frozen=True)
class TrainingRun:
    """Where a training writes and runs."""

    run: Path | None = option(None, "Folder of the run; default: runs/NAME.", panel=OUTPUT)
    output: Path | None = option(None, "Checkpoint to write.", "--output", "-o", panel=OUTPUT)
    threads: int | None = option(None, "CPU threads.", panel=WHERE)
    resume: bool = option(True, "Go on from the state in the run's folder.")
    device: Device = option("auto", "Where the network is trained.", panel=WHERE)
    processes: int = option(1, "Train on so many processes of this machine, one a GPU.", panel=WHERE)
    seed: int | None = option(None, "Instead of the recipe's; its run is NAME-seedN.", panel=MODEL)

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("processes", self.processes)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, got {value}")
