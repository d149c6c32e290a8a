"""The training loop on tensors: same seed and same step give the same weights, also after a kill."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop, mirror
from scenelift.models.precision import pick_precision
from scenelift.models.training.losses import pixel_loss
from scenelift.models.training.optimizers import make_optimizers
from scenelift.models.training.schedule import Phase, Plan, rate_at
from scenelift.models.training.states import read_state, write_state
from scenelift.models.training.tasks import Inputs, Task
from scenelift.models.training.team import Team


class Sampler(Protocol):
    """Draws clean patches."""

    def __call__(self, count: int, subset: float, generator: torch.Generator) -> Tensor:
        """Return (count, C, H, W) reflectance from the given share of the places."""
        ...


class Trainer:
    """Trains one network on one task.

    Parameters
    ----------
    module : Module
        Padded form of the network, changed in place.
    task : Task
        Makes inputs from clean patches.
    sampler : Sampler
        Draws clean patches.
    plan : Plan
    folder : path
        Gets ``state.safetensors`` (resume), ``log.csv``.
    validate : callable
        Takes a state dict, returns a figure that is better when higher (dB).
    identity : str
        Digest of recipe and data: a state of another training is refused.
    device : str
        "cpu", "cuda" or "cuda:1". Patches are drawn and degraded on the CPU, so that every device sees the same.
    team : Team, optional
        The processes that train together; the first of them validates, logs and saves.
    """

    figure = "validation_db"
    """Column of the validation figure in log.csv."""

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        sampler: Sampler,
        plan: Plan,
        folder: Path,
        validate: Callable[[dict[str, Tensor]], float],
        identity: str,
        device: str = "cpu",
        team: Team | None = None,
    ) -> None:
        self.team = team or Team()
        self.team.check_batch(plan.batch)
        self.device = torch.device(device)
        self.module = module.to(self.device).train().to(memory_format=torch.channels_last)
        self.task, self.sampler, self.plan = task, sampler, plan
        self.bf16 = plan.precision == "bf16" and pick_precision("auto", device) == "bf16"
        self.folder, self.validate, self.identity = folder, validate, identity
        self.modules = {"module": self.module}
        self.optimizers = make_optimizers(plan.optimizer, module)
        self.average = {name: value.clone() for name, value in module.state_dict().items()}
        self.best = {name: value.clone() for name, value in module.state_dict().items()}
        self.best_score, self.stale, self.step = -math.inf, 0, 0

    def run(self, progress: Callable[[int, float], None] | None = None) -> dict[str, Tensor]:
        """Train to the end of the plan and return the best weights seen, or the last ones if the plan says so.

        Raises
        ------
        ModelError
            If the loss is not finite; the last good state is on disk and can be resumed or used.
        """
        started, losses = time.monotonic(), []
        while self.step < self.plan.steps and not self._exhausted():
            loss = self._advance()
            losses.append(loss)
            if progress is not None:
                progress(self.step, loss)
            if self.step % self.plan.validate_every == 0 or self.step == self.plan.steps:
                own = self.validate(self.average) if self.team.leads else 0.0
                score = self.team.from_leader(own, self.device)
                self._note(sum(losses) / len(losses), score, time.monotonic() - started)
                losses = []
                self.stale = 0 if score > self.best_score else self.stale + 1
                if score > self.best_score or self.plan.keep == "last":
                    self.best_score = score
                    self.best = {name: value.clone() for name, value in self.average.items()}
                self.save()
        return self.best

    def _exhausted(self) -> bool:
        return 0 < self.plan.patience <= self.stale

    def _advance(self) -> float:
        phase, at = self._phase()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["relative"] * rate_at(phase, at)
            optimizer.zero_grad(set_to_none=True)
        # Everything random of a step hangs on seed and step alone, so a resumed run draws what was due.
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        loss = self._step_loss(phase, generator)
        mean = self.team.mean(loss).item()
        if not math.isfinite(mean):
            raise ModelError(
                f"the loss became {mean} at step {self.step}: lower the rate or check the data; "
                f"the state of the last validation is kept in {self.folder}"
            )
        loss.backward()
        self.team.average_gradients(self.modules.values())
        nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._track()
        return mean

    def _step_loss(self, phase: Phase, generator: torch.Generator) -> Tensor:
        return self._loss(self.sampler(self.plan.batch, phase.subset, generator), generator, phase)

    def _loss(self, clean: Tensor, generator: torch.Generator, phase: Phase) -> Tensor:
        inputs, clean = self._place(self.task.degrade(clean, generator), clean)
        weight = self.task.weight(inputs)
        return pixel_loss(phase.loss)(self._forward(inputs, phase.mirror) * weight, clean * weight)

    def _place(self, inputs: Inputs, clean: Tensor) -> tuple[Inputs, Tensor]:
        return tuple(self.team.share(x).to(self.device) for x in inputs), self.team.share(clean).to(self.device)

    def _forward(self, inputs: Inputs, margin: int = 0) -> Tensor:
        """Return the network's answer, its input continued by ``margin`` pixels of reflection meanwhile."""
        x = inputs[0]
        if margin:
            x = x[..., mirror(x.shape[2], margin), :][..., mirror(x.shape[3], margin)]
        with self._autocast():
            answer: Tensor = self.module(x.contiguous(memory_format=torch.channels_last), *inputs[1:])
        return crop(answer.float(), margin * answer.shape[3] // x.shape[3]) if margin else answer.float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _phase(self) -> tuple[Phase, int]:
        at = self.step
        for phase in self.plan.phases:
            if at < phase.steps:
                return phase, at
            at -= phase.steps
        raise ModelError("the training plan is over")

    @torch.no_grad()
    def _track(self) -> None:
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step)) if self.plan.ema else 0.0
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _note(self, loss: float, score: float, seconds: float) -> None:
        if not self.team.leads:
            return
        path = self.folder / "log.csv"
        try:
            fresh = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if fresh:
                    writer.writerow(["step", "loss", self.figure, "seconds"])
                writer.writerow([self.step, f"{loss:.6f}", f"{score:.4f}", f"{seconds:.1f}"])
        except OSError as error:
            raise ModelError(f"cannot write {path}: {error.strerror}") from None

    def save(self) -> None:
        """Write everything a resumed run needs, in one atomic step."""
        if not self.team.leads:
            return
        parts = {name: module.state_dict() for name, module in self.modules.items()}
        facts = {
            "step": self.step,
            "best_score": self.best_score,
            "stale": self.stale,
            "identity": self.identity,
            "bf16": self.bf16,
            "plan": asdict(self.plan),
        }
        averages = {"average": self.average, "best": self.best}
        write_state(self.folder / "state.safetensors", parts | averages, self.optimizers, facts)

    def resume(self) -> bool:
        """Take up the state on disk; return whether there was one.

        Raises
        ------
        ModelError
            If it belongs to another recipe or other data, or is damaged.
        """
        path = self.folder / "state.safetensors"
        if not path.exists():
            return False
        state = read_state(path, self.identity)
        for name, module in self.modules.items():
            module.load_state_dict(state.part(name))
        self.average, self.best = (
            {name: value.to(self.device) for name, value in state.part(prefix).items()}
            for prefix in ("average", "best")
        )
        state.restore(self.optimizers)
        self.step, self.best_score, self.stale = (state.facts[name] for name in ("step", "best_score", "stale"))
        self.bf16 = state.facts.get("bf16", self.bf16)  # a run that goes on elsewhere stays what it was
        self._trim_log()
        return True

    def _trim_log(self) -> None:
        """Drop log lines of steps that were taken after the saved state and will be taken again."""
        path = self.folder / "log.csv"
        if path.exists() and self.team.leads:
            rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
            kept = rows[:1] + [row for row in rows[1:] if int(row[0]) <= self.step]
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(kept)
