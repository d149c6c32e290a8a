"""The weights before the first training step: the fitted linear path, and what another network already learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.upsampling import PhaseUpsampler
from scenelift.models.shipped import checkpoint_path
from scenelift.models.training.objectives import Sampler
from scenelift.models.training.tasks import Task

FIT_PATCHES = 512


def begin(module: nn.Module, seed: int, start: str | None, task: Task, sampler: Sampler) -> None:
    """Give a network its starting weights: the fitted linear path, and another checkpoint's.

    Parameters
    ----------
    module : Module
        Changed in place.
    seed : int
        The schedule's.
    start : str, optional
        Shipped model or checkpoint to start from.
    task, sampler
        What the linear path is fitted on.
    """
    skip = getattr(module, "skip", None)
    if isinstance(skip, PhaseUpsampler):
        generator = torch.Generator().manual_seed(seed + 1)
        clean = sampler(FIT_PATCHES, 1.0, generator)[:, :1]
        low = task.degrade(clean, generator)[0]
        if low.shape[-1] > skip.taps:  # smaller patches hold no whole window to fit on: bicubic stays
            skip.fit(low, clean)
    if start is not None:
        weights = start_weights(start)
        inner = set(weights).isdisjoint(module.state_dict())  # a conditioned network begins as a plain one
        take_over(module.get_submodule("network") if inner else module, weights)


def start_weights(start: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, or of a shipped model of that name."""
    path = checkpoint_path(start)
    if path is None:
        raise ModelError(f"no model {start!r} to start from: give a shipped name or a checkpoint")
    return load_checkpoint(path, valid=False)[0].state_dict()


def take_over(module: nn.Module, start: dict[str, Tensor]) -> int:
    """Copy the tensors that fit; return how many did. Others (another scale, other bands) start fresh.

    A deeper network begins as the shallower one: see `_deepened`.
    """
    own = module.state_dict()
    start = _deepened(start, own)
    fitting = {k: v for k, v in start.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise ModelError("no tensor of the starting checkpoint fits this architecture: choose another start")
    module.load_state_dict(own | fitting)
    return len(fitting)


def _deepened(start: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a stack of residual blocks for a deeper stack that computes the same.

    Between the old blocks and the convolution behind them stand new blocks whose second convolution is zero, so that
    each is the identity until training moves it (Chen et al., Net2Net, ICLR 2016, section 3.2). Weights of other
    architectures, or of the same depth, are returned as they are.

    Parameters
    ----------
    start : dict of str to Tensor
        Weights of the shallower network: ``body.0`` to ``body.N-1`` are blocks, ``body.N`` a convolution.
    own : dict of str to Tensor
        Fresh weights of the deeper one, of the same width.
    """
    old, new = _depth(start), _depth(own)
    if not 0 < old < new:
        return start
    behind = f"body.{old}."
    moved = {k.replace(behind, f"body.{new}.", 1) if k.startswith(behind) else k: v for k, v in start.items()}
    for k, v in own.items():
        at = k.split(".")
        if at[0] == "body" and old <= int(at[1]) < new:
            moved[k] = torch.zeros_like(v) if at[2] == "second" else v
    return moved


def _depth(weights: dict[str, Tensor]) -> int:
    """Return how many residual blocks of two convolutions lie under ``body``."""
    return len({k.split(".")[1] for k in weights if k.startswith("body.") and k.endswith(".second.weight")})
