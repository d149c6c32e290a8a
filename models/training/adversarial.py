"""Training against a discriminator or under a teacher: pixel loss first, then an adversarial weight that ramps up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import KINDS, build
from scenelift.models.networks.classifier import Classifier
from scenelift.models.networks.features import Trunk
from scenelift.models.shipped import load_classifier
from scenelift.models.training.losses import ADVERSARIAL
from scenelift.models.training.objectives import (
    Objective,
    PixelLoss,
    Restored,
    Sampler,
    Step,
    consistency_term,
    feature_term,
)
from scenelift.models.training.optimizers import relate
from scenelift.models.training.schedule import Phase, Schedule
from scenelift.models.training.tasks import Task


@dataclass(frozen=True)
class AdversarialSettings:
    """Which losses join the pixels': of a discriminator, of features, of consistency."""

    weight: float = 5e-3
    """Final weight of the adversarial loss beside the pixel loss; 0: no discriminator, the other losses alone."""
    start: int = 0
    """Step of its first appearance."""
    ramp: int = 500
    """Steps over which the weight grows from zero."""
    kind: str = "relativistic"
    discriminator: str = "unet-discriminator"
    channels: int = 32
    rate: float = 2e-4
    perceptual: float = 0.0
    """Weight of the feature distance to the target (needs the trunk of `scenelift.models.networks.features`)."""
    consistency: float = 0.0
    """Weight of the difference (reflectance) between the degraded prediction and the input."""
    teacher: str | None = None
    """Shipped classifier, or a checkpoint of one, that must see in the prediction what it sees in the target."""
    teaching: float = 0.0
    """Weight of the distance between the teacher's features of the two (after Liu et al., "When image denoising meets
    high-level vision tasks", IJCAI 2018, with features in place of labels)."""

    def __post_init__(self) -> None:
        if self.kind not in ADVERSARIAL:
            raise ModelError(f"adversarial.kind must be one of {', '.join(ADVERSARIAL)}, got {self.kind!r}")
        if (self.teacher is None) != (self.teaching == 0):
            raise ModelError(
                f"adversarial.teacher and adversarial.teaching go together, got {self.teacher!r} and {self.teaching:g}"
            )
        for name in ("weight", "start", "ramp", "perceptual", "consistency", "teaching"):
            if not (value := getattr(self, name)) >= 0:
                raise ModelError(f"adversarial.{name} must not be below 0, got {value}")
        if self.discriminator not in KINDS:
            known = ", ".join(kind for kind in KINDS if kind.endswith("discriminator"))
            raise ModelError(f"adversarial.discriminator must be one of {known}, got {self.discriminator!r}")

    def weight_at(self, step: int) -> float:
        """Return the adversarial weight at a step."""
        return self.weight * min(1.0, max(0.0, (step - self.start) / max(1, self.ramp)))


class Adversarial:
    """A pixel loss whose network must also pass a discriminator, which is trained with it.

    Parameters
    ----------
    pixels : PixelLoss
    discriminator : Module
        (N, C, H, W) reflectance to logits.
    settings : AdversarialSettings
    relative : float
        The discriminator's learning rate over the schedule's.
    """

    def __init__(
        self, pixels: PixelLoss, discriminator: nn.Module, settings: AdversarialSettings, relative: float
    ) -> None:
        self.pixels, self.settings = pixels, settings
        self.discriminator = discriminator.train().to(memory_format=torch.channels_last)
        self.modules = {"discriminator": self.discriminator}
        self.optimizers = [torch.optim.Adam(discriminator.parameters(), settings.rate, (0.5, 0.99))]
        relate(self.optimizers[0], relative)

    def draw(self, phase: Phase, count: int, generator: torch.Generator) -> Any:
        """Return a batch of the pixel loss."""
        return self.pixels.draw(phase, count, generator)

    def __call__(self, step: Step) -> Tensor:
        """Restore the step's batch; return the loss of the network and the discriminator's own."""
        restored = self.pixels.restore(step)
        total = self.pixels.loss(restored, step.phase)
        weight = self.settings.weight_at(step.number)
        return total + self._contest(step, restored, weight) if weight else total

    def _contest(self, step: Step, restored: Restored, weight: float) -> Tensor:
        of_discriminator, of_generator = ADVERSARIAL[self.settings.kind]
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            real = step.apply(self.discriminator, restored.target)
        generator = weight * of_generator(real, step.apply(self.discriminator, restored.prediction))
        self.discriminator.requires_grad_(True)
        # The discriminator's loss touches only its own weights and the generator's only the network's, so one
        # backward pass serves both.
        real, fake = (step.apply(self.discriminator, x) for x in (restored.target, restored.prediction.detach()))
        return generator + of_discriminator(real, fake)


def restoration_objective(
    task: Task,
    sampler: Sampler,
    schedule: Schedule,
    settings: AdversarialSettings | None = None,
    bands: int = 1,
    device: str = "cpu",
) -> Objective:
    """Return the pixel loss with the losses that the settings add to it.

    Parameters
    ----------
    task, sampler
        As for `PixelLoss`.
    schedule : Schedule
        Its highest rate is what the discriminator's is relative to.
    settings : AdversarialSettings, optional
        Default: the pixel loss alone.
    bands : int
        Bands of the patches.
    device : str

    Raises
    ------
    ModelError
        If the teacher is not a classifier of that many bands, or weights of features are not installed.
    """
    if settings is None:
        return PixelLoss(task, sampler)
    discriminator = None
    if settings.weight:  # built first: its random weights depend on the seed alone
        arch = {"kind": settings.discriminator, "bands": bands, "channels": settings.channels}
        discriminator = build(arch).to(device)
    terms = []
    if settings.perceptual:
        terms.append(feature_term(Trunk().to(device), settings.perceptual))
    if settings.teacher:
        terms.append(feature_term(load_teacher(settings.teacher, bands).to(device).features, settings.teaching))
    if settings.consistency:
        terms.append(consistency_term(task, settings.consistency))
    pixels = PixelLoss(task, sampler, terms)
    if discriminator is None:
        return pixels
    return Adversarial(pixels, discriminator, settings, settings.rate / max(p.rate for p in schedule.phases))


def load_teacher(name: str, bands: int) -> Classifier:
    """Return a frozen classifier, of which a network may learn what matters to it.

    Raises
    ------
    ModelError
        If there is no such model, it is not an image classifier, or it sees another number of bands.
    """
    module, _ = load_classifier(name)
    if module.bands != bands:
        raise ModelError(f"teacher {name!r} sees {module.bands} bands, the network makes {bands}")
    module.requires_grad_(False)
    return module.eval()
