"""Training against a judge or under a teacher: pixel loss first, then an adversarial weight that ramps up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.loading import load_classifier
from scenelift.models.networks.architectures import build
from scenelift.models.networks.classifier import Classifier
from scenelift.models.networks.features import Trunk, feature_distance
from scenelift.models.training.losses import ADVERSARIAL, consistency, pixel_loss
from scenelift.models.training.schedule import Phase, Plan
from scenelift.models.training.tasks import Task
from scenelift.models.training.team import Team
from scenelift.models.training.trainer import Sampler, Trainer


@dataclass(frozen=True)
class Adversarial:
    """How a judge joins the training."""

    weight: float = 5e-3
    """Final weight of the adversarial loss beside the pixel loss; 0: no judge, the other losses alone."""
    start: int = 0
    """Step of its first appearance."""
    ramp: int = 500
    """Steps over which the weight grows from zero."""
    kind: str = "relativistic"
    judge: str = "unet-discriminator"
    channels: int = 32
    rate: float = 2e-4
    perceptual: float = 0.0
    """Weight of the feature distance to the truth (needs the trunk of `scenelift.models.networks.features`)."""
    consistency: float = 0.0
    """Weight of the difference (reflectance) between the degraded answer and the input."""
    teacher: str | None = None
    """Shipped classifier, or a checkpoint of one, that must see in the answer what it sees in the truth."""
    teaching: float = 0.0
    """Weight of the distance between the teacher's features of the two (after Liu et al., "When image denoising meets
    high-level vision tasks", IJCAI 2018, with features in place of labels)."""

    def __post_init__(self) -> None:
        if self.kind not in ADVERSARIAL:
            raise ModelError(f"adversarial kind must be one of {', '.join(ADVERSARIAL)}, not {self.kind!r}")
        if (self.teacher is None) != (self.teaching == 0):
            raise ModelError("a teacher and the weight of its teaching go together")

    def weight_at(self, step: int) -> float:
        """Return the adversarial weight at a step."""
        return self.weight * min(1.0, max(0.0, (step - self.start) / max(1, self.ramp)))


class AdversarialTrainer(Trainer):
    """A trainer whose network must also convince a judge, or please a teacher.

    Parameters
    ----------
    settings : Adversarial
    Others
        As for ``Trainer``.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        sampler: Sampler,
        plan: Plan,
        folder: Path,
        validate: Callable[[dict[str, Tensor]], float],
        identity: str,
        settings: Adversarial,
        bands: int,
        device: str = "cpu",
        team: Team | None = None,
    ) -> None:
        super().__init__(module, task, sampler, plan, folder, validate, identity, device, team)
        self.settings = settings
        self.judge = self._appoint(bands) if settings.weight else None
        self.trunk = Trunk().to(self.device) if settings.perceptual else None
        self.teacher = load_teacher(settings.teacher, bands).to(self.device) if settings.teacher else None

    def _appoint(self, bands: int) -> nn.Module:
        """Build the judge and its optimizer."""
        settings = self.settings
        judge = build({"kind": settings.judge, "bands": bands, "channels": settings.channels})
        judge = judge.to(self.device).train().to(memory_format=torch.channels_last)
        self.modules["judge"] = judge
        self.optimizers.append(torch.optim.Adam(judge.parameters(), settings.rate, (0.5, 0.99)))
        for group in self.optimizers[-1].param_groups:
            group["relative"] = settings.rate / max(phase.rate for phase in self.plan.phases)
        return judge

    def _loss(self, clean: Tensor, generator: torch.Generator, phase: Phase) -> Tensor:
        inputs, clean = self._place(self.task.degrade(clean, generator), clean)
        answer = self._forward(inputs, phase.mirror)
        counts = self.task.weight(inputs)
        total = pixel_loss(phase.loss)(answer * counts, clean * counts)
        if self.trunk is not None:
            total = total + self.settings.perceptual * feature_distance(self.trunk, answer, clean).mean()
        if self.teacher is not None:
            total = total + self.settings.teaching * feature_distance(self.teacher.features, answer, clean).mean()
        if self.settings.consistency:
            total = total + self.settings.consistency * consistency(answer, inputs[0], self.task.scale)
        weight = self.settings.weight_at(self.step)
        if self.judge is None or weight == 0:
            return total
        return total + self._contest(self.judge, answer, clean, weight)

    def _contest(self, judge: nn.Module, answer: Tensor, clean: Tensor, weight: float) -> Tensor:
        """Return the loss of the network before the judge, weighted, and the judge's own."""

        def verdict(images: Tensor) -> Tensor:
            with self._autocast():
                said: Tensor = judge(images)
            return said.float()

        of_judge, of_maker = ADVERSARIAL[self.settings.kind]
        judge.requires_grad_(False)
        with torch.no_grad():
            real = verdict(clean)
        made = weight * of_maker(real, verdict(answer))
        judge.requires_grad_(True)
        # The judge's loss touches only the judge's weights and the maker's only the network's, so one backward
        # pass serves both.
        return made + of_judge(verdict(clean), verdict(answer.detach()))


def load_teacher(name: str, bands: int) -> Classifier:
    """Return a frozen classifier, of which a network may learn what matters to it.

    Raises
    ------
    ModelError
        If there is no such model, it is no image classifier, or it sees another number of bands.
    """
    module, _ = load_classifier(name)
    if module.bands != bands:
        raise ModelError(f"teacher {name!r} sees {module.bands} bands, the network makes {bands}")
    module.requires_grad_(False)
    return module.eval()
