"""Mixed precision: bfloat16 where the multiplications are, float32 where the radiometry is."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.layers import ResidualBlock, crop

PRECISIONS = ("fp32", "bf16")


def to_precision(module: nn.Module, precision: str) -> nn.Module:
    """Return a form of the module that takes and returns float32 and computes at the given precision.

    In bf16 the convolutions inside residual blocks multiply in bfloat16; heads, tails, skips and the residual
    stream stay float32, since a stream rounded to 8 bits after every block costs most of what bf16 loses.
    A module without such blocks runs under autocast as a whole.

    Parameters
    ----------
    module : Module
        Left as it is.
    precision : {"fp32", "bf16"}
    """
    if precision not in PRECISIONS:
        raise ModelError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "fp32":
        return module
    mixed = copy.deepcopy(module)
    blocks = [(name, m) for name, m in mixed.named_modules() if isinstance(m, ResidualBlock)]
    if not blocks:
        return _Autocast(mixed)
    for name, block in blocks:
        parent, _, leaf = name.rpartition(".")
        setattr(mixed.get_submodule(parent), leaf, _MixedBlock(block))
    return mixed


class _MixedBlock(nn.Module):
    """A residual block with bfloat16 convolutions on a float32 stream."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.block = block.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) float32
        b = self.block
        y = b.norm2(b.second(b.act(b.norm1(b.first(x.to(torch.bfloat16))))))
        if not b.skip:
            return y.to(x.dtype)
        return y + (crop(x, b.margin) if b.valid else x)


class _Autocast(nn.Module):
    """Runs a module under autocast and hands back float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.module(x, *rest).float()
