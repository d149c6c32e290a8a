"""The few layers the networks are made of, each able to run padded (training) or unpadded (tiles)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError

PaddingMode = Literal["zeros", "reflect", "replicate"]
Normalization = Literal["none", "batch"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}

# Networks see (reflectance - MEAN) * GAIN: one fixed map for every sensor, band and tile, so that nothing
# that leaves a network depends on what else lies in the tile.
MEAN = 0.1
GAIN = 10.0


def conv3(inputs: int, outputs: int, *, valid: bool, padding: PaddingMode = "zeros", groups: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size (training) or loses a pixel a side (``valid``)."""
    return nn.Conv2d(
        inputs,
        outputs,
        3,
        padding=0 if valid else 1,
        padding_mode="zeros" if valid else padding,
        groups=groups,
    )


def crop(x: Tensor, margin: int) -> Tensor:
    """Cut ``margin`` pixels off every side of (..., H, W)."""
    return x[..., margin:-margin, margin:-margin] if margin else x


def activation(name: str) -> nn.Module:
    """Return the activation of that name, which may overwrite what it is given."""
    if name not in ACTIVATIONS:
        raise ModelError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    # in place where it can be: another pass over memory costs a tenth of the convolution before it
    return nn.ReLU(inplace=True) if name == "relu" else ACTIVATIONS[name]()


def _normalization(name: str, channels: int) -> nn.Module:
    """Return the normalisation of that name.

    Only batch normalisation is offered: in evaluation it is a fixed affine map, whereas instance or group
    norms look at the whole tile and so make the output depend on how a scene is cut.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    raise ModelError(f"normalisation must be 'none' or 'batch', got {name!r}")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and, unless ``skip`` is off, the identity beside them.

    Parameters
    ----------
    channels : int
        Channels in and out.
    valid : bool
        Unpadded: (N, C, H, W) gives (N, C, H - 4, W - 4).
    padding : {"zeros", "reflect", "replicate"}
        How the padded form pads.
    norm : {"none", "batch"}
        Normalisation after each convolution.
    act : str
        Activation between the two convolutions, a key of ``ACTIVATIONS``.
    skip : bool
        Whether the identity is added.
    """

    margin = 2

    def __init__(
        self,
        channels: int,
        *,
        valid: bool = False,
        padding: PaddingMode = "zeros",
        norm: Normalization = "none",
        act: str = "relu",
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.valid, self.skip = valid, skip
        self.first = conv3(channels, channels, valid=valid, padding=padding)
        self.second = conv3(channels, channels, valid=valid, padding=padding)
        self.norm1 = _normalization(norm, channels)
        self.norm2 = _normalization(norm, channels)
        self.act = activation(act)
        if skip:  # start near the identity, so that a deep stack trains at a high rate from the first step
            with torch.no_grad():
                self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        y = self.norm2(self.second(self.act(self.norm1(self.first(x)))))
        if not self.skip:
            return y
        return y + (crop(x, self.margin) if self.valid else x)


def wrong_bands(wanted: int, have: object) -> ModelError:
    """Return the error of a network that is to be made for a scene of another number of bands."""
    return ModelError(f"the network takes {wanted} bands, the scene has {have}: choose them with --bands")


def check_range(name: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is an integer within the limits.

    Raises
    ------
    ModelError
        Otherwise. Checkpoints come from strangers: sizes are looked at before anything is allocated.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    return value


def mirror(size: int, halo: int, extra: int = 0) -> Tensor:
    """Return (size + 2·halo + extra,) indices that continue an axis by reflection, as often as it takes."""
    if size == 1:
        return torch.zeros(1 + 2 * halo + extra, dtype=torch.long)
    at = torch.arange(-halo, size + halo + extra) % (2 * size - 2)
    return torch.minimum(at, 2 * size - 2 - at)
