"""Optimizers by name: Adam as in the paper, and Muon, which needs fewer steps for convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.training.schedule import OPTIMIZERS

DECAY = 0.05
"""Weight decay of AdamW."""
MUON_RATE = 10.0
"""Muon's rate relative to Adam's: its updates have unit spectral norm, Adam's unit size per entry."""


def _orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return about U·Vᵀ of each (N, rows, columns) by a quintic Newton-Schulz iteration (K. Jordan, "Muon", 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    transposed = x.shape[1] > x.shape[2]
    x = x.mT if transposed else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized, for the kernels of wide convolutions.

    Parameters
    ----------
    params : iterable of Parameter
        4-D kernels, seen as (outputs, inputs·k·k) matrices.
    lr : float
        Rate; an update has the spectral norm ``lr · sqrt(max(1, rows / columns))``.
    momentum : float
        Nesterov momentum.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 0.01, momentum: float = 0.95) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}  # kernels of one shape go together: a few large operations
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for shape, kernels in alike.items():
                gradients = [p.grad for p in kernels if p.grad is not None]
                velocities = [self.state[p].setdefault("velocity", torch.zeros_like(p)) for p in kernels]
                torch._foreach_lerp_(velocities, gradients, 1 - group["momentum"])
                ahead = torch.stack(torch._foreach_lerp(gradients, velocities, group["momentum"]))
                updates = _orthogonalize(ahead.reshape(len(kernels), shape[0], -1))
                stretch = max(1.0, shape[0] / updates.shape[2]) ** 0.5
                moved = updates.reshape(len(kernels), *shape).unbind()
                torch._foreach_add_(kernels, moved, alpha=-group["lr"] * stretch)


def make_optimizers(name: str, module: nn.Module) -> list[torch.optim.Optimizer]:
    """Return optimizers whose groups carry "relative": their rate over the schedule's.

    Raises
    ------
    ModelError
        If the name is unknown.
    """
    if name == "adam":
        adam = torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.9, 0.99))
        relate(adam, 1.0)
        return [adam]
    if name == "adamw":  # kernels decay, biases and normalisations do not
        kernels = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        adamw = torch.optim.AdamW(groups, lr=1e-3)
        relate(adamw, 1.0)
        return [adamw]
    if name == "muon":
        wide = [p for p in module.parameters() if p.ndim == 4 and min(p.shape[:2]) >= 16]
        known = {id(p) for p in wide}
        rest = [p for p in module.parameters() if id(p) not in known]
        adam = torch.optim.Adam(rest, lr=1e-3, betas=(0.9, 0.99))
        relate(adam, 1.0)
        if not wide:  # a network too narrow for it
            return [adam]
        muon = Muon(wide)
        relate(muon, MUON_RATE)
        return [muon, adam]
    raise ModelError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")


def relate(optimizer: torch.optim.Optimizer, relative: float) -> None:
    """Set the rate of an optimizer relative to the schedule's."""
    for group in optimizer.param_groups:
        group["relative"] = relative
