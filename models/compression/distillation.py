"""Distillation: a small network learns from the predictions of the large one beside the truth."""

from __future__ import annotations

import torch
from torch import nn

from scenelift.models.training.losses import pixel_loss
from scenelift.models.training.objectives import Restored, Term
from scenelift.models.training.tasks import Task


def distillation_term(parent: nn.Module, task: Task, loss: str, weight: float = 1.0, bf16: bool = False) -> Term:
    """Return the weighted pixel loss between a network's predictions and its parent's, for the same inputs.

    Parameters
    ----------
    parent : Module
        Padded form, on the device of the training; frozen here.
    task : Task
        Its weight of errors counts here as it does against the truth.
    loss : str
        A pixel loss, see `scenelift.models.training.losses`.
    weight : float
        Beside the loss against the truth.
    bf16 : bool
        Whether the parent computes in bfloat16, as the training does.
    """
    compare = pixel_loss(loss)
    frozen = parent.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def term(it: Restored) -> torch.Tensor:
        x = it.inputs[0].contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            wanted = frozen(x, *it.inputs[1:]).float()
        scale = task.weight(it.inputs)
        return weight * compare(it.prediction * scale, wanted * scale)

    return term
