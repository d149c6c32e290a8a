"""The training loop on tensors: same seed and same step give the same weights, also after a kill."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.checkpoint import write_atomically
from scenelift.models.errors import ModelError
from scenelift.models.precision import pick_precision
from scenelift.models.training.objectives import Objective, Step
from scenelift.models.training.optimizers import make_optimizers
from scenelift.models.training.processes import ProcessGroup, drawers, drawn
from scenelift.models.training.schedule import Phase, Schedule, rate_at
from scenelift.models.training.states import read_state, write_state

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """Where a training keeps its state and log, and how it is validated."""

    folder: Path
    """Gets ``state.safetensors`` (resume), ``log.csv``, and what TensorBoard shows where it is installed."""
    digest: str
    """Digest of recipe and data: a state of another training is refused."""
    validate: Callable[[Weights], float]
    """Takes a state dict, returns a score that is better when higher."""
    column: str = "validation_db"
    """Column of that score in log.csv."""

    @property
    def state(self) -> Path:
        """The file to resume from."""
        return self.folder / "state.safetensors"

    @property
    def log(self) -> Path:
        """One row a validation: step, loss, score, seconds."""
        return self.folder / "log.csv"


class Trainer:
    """Trains one network.

    Parameters
    ----------
    module : Module
        Padded form of the network, changed in place.
    objective : Objective
        Draws batches and returns their loss.
    schedule : Schedule
    run : Run, optional
        Without one, the training is neither validated nor stored, and its last weights count.
    device : str
        "cpu", "cuda" or "cuda:1". Patches are drawn and degraded on the CPU, so that every device sees the same.
    group : ProcessGroup, optional
        The processes that train together; rank 0 validates, logs and saves.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        schedule: Schedule,
        run: Run | None = None,
        device: str = "cpu",
        group: ProcessGroup | None = None,
    ) -> None:
        self.group = group or ProcessGroup()
        self.group.check_batch(schedule.batch)
        self.device = torch.device(device)
        self.module = module.to(self.device).train().to(memory_format=torch.channels_last)
        self.objective, self.schedule, self.run = objective, schedule, run
        self.bf16 = schedule.precision == "bf16" and pick_precision("auto", device) == "bf16"
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # every batch has the same shape
        self.modules = {"module": self.module, **objective.modules}
        self.optimizers = [*make_optimizers(schedule.optimizer, module), *objective.optimizers]
        self.average, self.best = self._copy(module.state_dict()), self._copy(module.state_dict())
        self.best_score, self.stale, self.step = -math.inf, 0, 0
        self._board: Any = None
        self.lengths = [schedule.steps]
        """Steps that the training was given: more than one number where it was given more after it had begun."""

    def train(self, progress: Callable[[int, float], None] | None = None) -> Weights:
        """Train to the end of the schedule; return the best weights seen, or the last ones if the schedule says so.

        Parameters
        ----------
        progress : callable, optional
            Called with the step and its loss.

        Raises
        ------
        ModelError
            If the loss is not finite; the last good state is on disk and can be resumed or used.
        """
        started, losses = time.monotonic(), []
        batches = drawn(self._draw, range(self.step, self.schedule.steps), drawers(self.device))
        while self.step < self.schedule.steps and not 0 < self.schedule.patience <= self.stale:
            losses.append(self._advance(next(batches)))
            if progress is not None:
                progress(self.step, losses[-1])
            if self.step % self.schedule.validate_every == 0 or self.step == self.schedule.steps:
                self._validate(sum(losses) / len(losses), started)
                losses = []
        if self._board is not None:
            self._board.close()
        return self.best

    def _draw(self, number: int) -> Any:
        """Return the batch of a step; all that is random in it depends on seed and number, also after a resume."""
        generator = torch.Generator().manual_seed(self.schedule.seed * 1_000_003 + number)
        return self.objective.draw(self._phase(number)[0], self.schedule.batch, generator)

    def _advance(self, batch: Any) -> float:
        phase, at = self._phase(self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["relative"] * rate_at(phase, at)
            optimizer.zero_grad(set_to_none=True)
        loss = self.objective(self.next_step(phase, batch))
        mean = self.group.mean(loss).item()
        if not math.isfinite(mean):
            kept = f"; the state of the last validation is kept in {self.run.folder}" if self.run else ""
            raise ModelError(f"the loss became {mean} at step {self.step}: lower the rate or check the data{kept}")
        loss.backward()
        gradients = [p.grad for m in self.modules.values() for p in m.parameters() if p.grad is not None]
        self.group.average([*gradients, *(b for b in self.module.buffers() if b.is_floating_point())])
        nn.utils.clip_grad_norm_(self.module.parameters(), self.schedule.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._track()
        return mean

    def next_step(self, phase: Phase, batch: Any) -> Step:
        """Return the coming step."""
        return Step(self.step, phase, batch, self.module, self.device, self.bf16, self.group)

    def _phase(self, number: int) -> tuple[Phase, int]:
        """Return a step's phase and its number within it."""
        at = number
        for phase in self.schedule.phases:
            if at < phase.steps:
                return phase, at
            at -= phase.steps
        raise ModelError("the training has taken all steps of its schedule")

    @torch.no_grad()
    def _track(self) -> None:
        decay = min(self.schedule.ema, (1 + self.step) / (10 + self.step)) if self.schedule.ema else 0.0
        state = self.module.state_dict()
        moving = [name for name, value in state.items() if value.is_floating_point()]
        # in one call: a GPU would wait for a hundred small ones
        torch._foreach_lerp_([self.average[name] for name in moving], [state[name] for name in moving], 1 - decay)
        for name in state.keys() - set(moving):
            self.average[name].copy_(state[name])

    def _validate(self, loss: float, started: float) -> None:
        """Validate the averaged weights, keep them if they are the best, write log and state."""
        if self.run is None:
            self.best = self._copy(self.average)
            return
        own = self.run.validate(self.average) if self.group.is_main else 0.0
        score = self.group.broadcast(own, self.device)
        self.stale = 0 if score > self.best_score else self.stale + 1
        if score > self.best_score or self.schedule.keep == "last":
            self.best_score, self.best = score, self._copy(self.average)
        if self.group.is_main:
            self._log(self.run, loss, score, time.monotonic() - started)
            self._show(self.run, loss, score)
            self._save(self.run)

    def _log(self, run: Run, loss: float, score: float, seconds: float) -> None:
        try:
            fresh = not run.log.exists()
            with run.log.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if fresh:
                    writer.writerow(["step", "loss", run.column, "seconds"])
                writer.writerow([self.step, f"{loss:.6f}", f"{score:.4f}", f"{seconds:.1f}"])
        except OSError as error:
            raise ModelError(f"cannot write {run.log}: {error.strerror}") from None

    def _show(self, run: Run, loss: float, score: float) -> None:
        """Write loss and score for TensorBoard, too, where it is installed; steps taken before a kill are dropped."""
        if importlib.util.find_spec("tensorboard") is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._board is None:
                self._board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=self.step)
            self._board.add_scalar("loss", loss, self.step)
            self._board.add_scalar(run.column, score, self.step)
            self._board.flush()
        except OSError as error:
            raise ModelError(f"cannot write {run.folder / 'tensorboard'}: {error.strerror}") from None

    def _save(self, run: Run) -> None:
        """Write everything a resumed run needs, in one atomic step."""
        parts = {name: module.state_dict() for name, module in self.modules.items()}
        facts = {name: getattr(self, name) for name in ("step", "best_score", "stale", "bf16", "lengths")}
        facts |= {"identity": run.digest, "plan": asdict(self.schedule)}
        write_state(run.state, parts | {"average": self.average, "best": self.best}, self.optimizers, facts)

    def resume(self) -> bool:
        """Take up the state on disk; return whether there was one.

        With another number of steps than it was begun with it goes on by the new schedule. That is not the training
        that would have had so many steps from the start: rates were others until here.

        Raises
        ------
        ModelError
            If it belongs to another recipe or other data, or is damaged.
        """
        if self.run is None or not self.run.state.exists():
            return False
        state = read_state(self.run.state, self.run.digest)
        for name, module in self.modules.items():
            module.load_state_dict(state.part(name))
        self.average, self.best = (
            {name: value.to(self.device) for name, value in state.part(prefix).items()}
            for prefix in ("average", "best")
        )
        state.restore(self.optimizers)
        self.step, self.best_score, self.stale = (state.facts[name] for name in ("step", "best_score", "stale"))
        given = state.facts.get("lengths", self.lengths)
        if given[-1] != self.schedule.steps:
            given, self.stale = [*given, self.schedule.steps], 0
        self.lengths = given
        self.bf16 = state.facts.get("bf16", self.bf16)  # a run that goes on elsewhere stays what it was
        if self.run.log.exists() and self.group.is_main:
            _trim(self.run.log, self.step)
        return True

    @staticmethod
    def _copy(state: Weights) -> Weights:
        return {name: value.clone() for name, value in state.items()}


def _trim(log: Path, step: int) -> None:
    """Drop log lines of steps that were taken after the saved state and will be taken again."""
    rows = list(csv.reader(log.open(newline="", encoding="utf-8")))
    kept = rows[:1] + [row for row in rows[1:] if int(row[0]) <= step]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(kept)
    write_atomically(log, text.getvalue().encode())
