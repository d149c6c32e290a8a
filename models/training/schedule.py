"""How long, how fast and against which loss a network is trained: phases, their epochs, their learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scenelift.models.errors import ModelError

OPTIMIZERS = ("adam", "adamw", "muon")


@dataclass(frozen=True)
class Phase:
    """One stretch of training with its own hyper-parameters."""

    steps: int = 0
    epochs: float = 0.0
    """Instead of steps: passes over the phase's share of the patches (see `resolve`)."""
    rate: float = 1e-3
    loss: str = "charbonnier"
    subset: float = 1.0
    """Share of the training sites used (the paper trains on a subset first)."""
    schedule: str = "cosine"
    """"cosine" (to zero at the phase's end) or "constant"."""
    warmup: int = 50
    mirror: int = 0
    """Pixels by which inputs are continued by reflection in this phase, as the engine continues a scene. The padding of
    the convolutions is then seen that far outside the image only; it costs time, and small images gain most."""

    def __post_init__(self) -> None:
        if min(self.mirror, self.warmup) < 0:
            raise ModelError(f"mirror and warmup must not be below 0, got {self.mirror} and {self.warmup}")
        if (self.steps > 0) == (self.epochs > 0):
            raise ModelError(
                f"a phase must have either steps or epochs above 0, got steps {self.steps} and epochs {self.epochs:g}"
            )
        if self.schedule not in ("cosine", "constant"):
            raise ModelError(f"schedule must be 'cosine' or 'constant', got {self.schedule!r}")
        if not 0 < self.subset <= 1:
            raise ModelError(f"subset must lie above 0 and not above 1, got {self.subset}")
        if not 0 < self.rate < math.inf:
            raise ModelError(f"rate must be a finite number above 0, got {self.rate}")


@dataclass(frozen=True)
class Schedule:
    """How a network is trained."""

    phases: tuple[Phase, ...]
    batch: int = 32
    seed: int = 0
    optimizer: str = "adam"
    ema: float = 0.999
    """Decay of the averaged weights that are validated and kept; 0 keeps the last ones."""
    precision: str = "bf16"
    """"fp32", or "bf16": bfloat16 where the hardware gains from it (`pick_precision`), float32 elsewhere."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    validate_every: int = 500
    patience: int = 0
    """Stop after so many validations without a better one; 0 never stops early."""
    keep: str = "best"
    """"best" by validation, or "last" (adversarial training, where PSNR is not the aim)."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ModelError("plan.phases must hold at least one phase, got none: write [[plan.phases]]")
        for name, least in (("batch", 1), ("validate_every", 1), ("patience", 0)):
            if (value := getattr(self, name)) < least:
                raise ModelError(f"{name} must be at least {least}, got {value}")
        if self.optimizer not in OPTIMIZERS:
            raise ModelError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if not 0 <= self.ema < 1:
            raise ModelError(f"ema must be from 0 to below 1, got {self.ema}")
        if not self.clip > 0:
            raise ModelError(f"clip must be above 0, got {self.clip}")
        if self.precision not in ("fp32", "bf16"):
            raise ModelError(f"precision must be 'fp32' or 'bf16', got {self.precision!r}")
        if self.keep not in ("best", "last"):
            raise ModelError(f"keep must be 'best' or 'last', got {self.keep!r}")

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)


def resolve(schedule: Schedule, patches: int) -> Schedule:
    """Return the schedule with epochs turned into steps for that number of training patches."""
    phases = tuple(
        phase
        if phase.steps
        else replace(phase, epochs=0.0, steps=math.ceil(phase.epochs * phase.subset * patches / schedule.batch))
        for phase in schedule.phases
    )
    return replace(schedule, phases=phases)


def rate_at(phase: Phase, step: int) -> float:
    """Return the learning rate at a step of a phase: linear warm-up, then constant or half a cosine."""
    warm = min(1.0, (step + 1) / max(1, phase.warmup))
    if phase.schedule == "constant":
        return phase.rate * warm
    return phase.rate * warm * 0.5 * (1 + math.cos(math.pi * step / phase.steps))
