"""Mixed precision: bfloat16 where the multiplications are, float32 where the radiometry is."""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import ResidualBlock, crop
from scenelift.models.spec import PRECISIONS

_FLAGS = threading.Lock()
"""Of cuDNN's flags, which are the process's: a thread that leaves would set them back under another's hands."""


@contextlib.contextmanager
def no_tf32(device: torch.device) -> Iterator[None]:
    """Keep a GPU from multiplying float32 with TF32's ten bits, as cuDNN does if it is let, and from racing sums."""
    if device.type != "cuda":
        yield
        return
    with _FLAGS, torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def pick_precision(wanted: str, device: str) -> str:
    """Return "fp32" or "bf16" for "auto": bf16 where the hardware multiplies it natively.

    Raises
    ------
    ModelError
        If the name is unknown.
    """
    if wanted not in ("auto", *PRECISIONS):
        raise ModelError(f"--precision must be auto, fp32 or bf16, got {wanted!r}")
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        if not torch.cuda.is_available():  # the GPUs are elsewhere: all since 2020 have it
            return "bf16"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_gains_from_bf16() else "fp32"


def _cpu_gains_from_bf16() -> bool:
    """Whether bfloat16 convolutions are faster here than float32 ones, not only possible.

    Intel's processors do them in AMX tiles; where there are none, or a virtual machine hides them, AVX512-BF16 took
    1.8 times as long as float32. On AMD's (Zen 4 and later) the same instructions took half of it.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    try:
        processors = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "GenuineIntel" not in processors or "amx_bf16" in processors


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
        raise ModelError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
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
        plain = isinstance(block.act, nn.ReLU) and isinstance(block.norm1, nn.Identity)
        self.fused = plain and block.first.padding_mode == "zeros" and _fuses()

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) float32
        b = self.block
        y = x.to(torch.bfloat16)
        y = _conv_relu(b.first, y) if self.fused and x.device.type == "cpu" else b.act(b.norm1(b.first(y)))
        y = b.norm2(b.second(y))
        y = y.to(x.dtype)  # to add numbers of two types takes longer than this and an addition in place
        if not b.skip:
            return y
        return y.add_(crop(x, b.margin) if b.valid else x)


def _conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve and cut off below zero in one pass over memory, as `torch.compile` has oneDNN do it."""
    size = conv.padding, conv.stride, conv.dilation, conv.groups
    made: Tensor = torch.ops.mkldnn._convolution_pointwise(x, conv.weight, conv.bias, *size, "relu", [], "")
    return made


@functools.cache
def _fuses() -> bool:
    """Whether this PyTorch has oneDNN's convolution with an activation, no public function, in the form we call it."""
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.random.fork_rng(devices=[]), torch.inference_mode():  # the random numbers are the caller's
        conv, x = nn.Conv2d(1, 2, 3).to(torch.bfloat16), torch.rand(1, 1, 8, 8, dtype=torch.bfloat16)
        try:
            return torch.equal(_conv_relu(conv, x), conv(x).relu())
        except (AttributeError, RuntimeError, TypeError):
            return False


class _Autocast(nn.Module):
    """Runs a module under autocast and hands back float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.module(x, *rest).float()
