"""What a training step minimises: an objective draws batches and returns their losses.

An objective owns what else is trained with the network (`modules`, `optimizers`), so the loop in
`scenelift.models.training.trainer` knows nothing of pixels, discriminators or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from scenelift.models.networks.features import feature_distance
from scenelift.models.networks.layers import crop, mirror
from scenelift.models.training.losses import pixel_loss
from scenelift.models.training.processes import ProcessGroup
from scenelift.models.training.schedule import Phase
from scenelift.models.training.tasks import Inputs, Staged, Task


@dataclass(frozen=True)
class Step:
    """One training step, as an objective sees it."""

    number: int
    phase: Phase
    batch: Any
    """What the objective drew for this step, for all processes together; on the CPU."""
    module: nn.Module
    """The network that is trained."""
    device: torch.device
    bf16: bool = False
    group: ProcessGroup = field(default_factory=ProcessGroup)

    def place(self, samples: Tensor) -> Tensor:
        """Return this process's share of the samples, on its device."""
        return self.group.share(samples).to(self.device, non_blocking=True)

    def apply(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        """Return a network's float32 output, computed in bfloat16 if the training is."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output: Tensor = module(*inputs)
        return output.float()

    def predict(self, inputs: Inputs, margin: int = 0) -> Tensor:
        """Return the trained network's output, its input continued by ``margin`` pixels of reflection meanwhile."""
        x = inputs[0]
        if margin:
            x = x[..., mirror(x.shape[2], margin), :][..., mirror(x.shape[3], margin)]
        output = self.apply(self.module, x.contiguous(memory_format=torch.channels_last), *inputs[1:])
        return crop(output, margin * output.shape[3] // x.shape[3]) if margin else output


@runtime_checkable
class Paired(Protocol):
    """A task whose target is not the patch itself, which is noisy."""

    def pair(self, noisy: Tensor, generator: torch.Generator) -> tuple[Inputs, Tensor]:
        """Return the network's inputs and the target for (N, C, H, W) patches."""
        ...


class Objective(Protocol):
    """What is minimised."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained beside the network, by name."""
        ...

    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Their optimizers; each group's "relative" is its rate over the schedule's."""
        ...

    def draw(self, phase: Phase, count: int, generator: torch.Generator) -> Any:
        """Return a batch of ``count`` samples.

        It depends on nothing but its arguments, and touches the CPU alone: other processes may draw it, and every
        device sees the same.
        """
        ...

    def __call__(self, step: Step) -> Tensor:
        """Return the mean loss of the step's batch."""
        ...


class Sampler(Protocol):
    """Draws clean patches."""

    def __call__(self, count: int, subset: float, generator: torch.Generator) -> Tensor:
        """Return (count, C, H, W) reflectance from the given share of the sites."""
        ...


@dataclass(frozen=True)
class Restored:
    """A batch of degraded images and what the network made of them."""

    inputs: Inputs
    prediction: Tensor
    """(N, C, H, W) reflectance."""
    target: Tensor
    """(N, C, H, W) reflectance."""


Term = Callable[[Restored], Tensor]
"""A loss that is added to the pixels'."""


class PixelLoss:
    """The phase's pixel loss between what the network restores and the clean patches.

    Parameters
    ----------
    task : Task
        Degrades the clean patches.
    sampler : Sampler
        Draws them.
    terms : sequence of Term
        Losses that are added, each with its weight.
    """

    modules: Mapping[str, nn.Module] = {}
    optimizers: Sequence[torch.optim.Optimizer] = ()

    def __init__(self, task: Task, sampler: Sampler, terms: Sequence[Term] = ()) -> None:
        self.task, self.sampler, self.terms = task, sampler, tuple(terms)

    def draw(self, phase: Phase, count: int, generator: torch.Generator) -> tuple[Inputs, Tensor]:
        """Return a batch's degraded images, or what is needed to degrade them, and what they should become."""
        clean = self.sampler(count, phase.subset, generator)
        if isinstance(self.task, Paired):
            return self.task.pair(clean, generator)
        if isinstance(self.task, Staged):
            return self.task.draw(clean.shape, generator), clean
        return self.task.degrade(clean, generator), clean

    def __call__(self, step: Step) -> Tensor:
        """Restore the step's batch; return its loss."""
        return self.loss(self.restore(step), step.phase)

    def restore(self, step: Step) -> Restored:
        """Let the network restore the step's batch."""
        drawn, target = step.batch
        inputs, clean = tuple(step.place(x) for x in drawn), step.place(target)
        if isinstance(self.task, Staged):
            inputs = self.task.apply(clean, inputs)
        return Restored(inputs, step.predict(inputs, step.phase.mirror), clean)

    def loss(self, restored: Restored, phase: Phase) -> Tensor:
        """Return the loss of what was restored."""
        weight = self.task.weight(restored.inputs)
        total = pixel_loss(phase.loss)(restored.prediction * weight, restored.target * weight)
        for term in self.terms:
            total = total + term(restored)
        return total


def feature_term(features: Callable[[Tensor], list[Tensor]], weight: float) -> Term:
    """Return the weighted distance between a frozen network's features of prediction and target."""
    return lambda it: weight * feature_distance(features, it.prediction, it.target).mean()


def consistency_term(task: Task, weight: float) -> Term:
    """Return the weighted difference (reflectance) between the degraded prediction and the input."""
    return lambda it: weight * task.misfit(it.prediction, it.inputs)
