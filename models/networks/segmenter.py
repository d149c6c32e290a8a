"""Which class of land cover each pixel shows: segmentation-models-pytorch's U-Net on EfficientNet-Lite0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.models.networks.features import trunk_weights

STRIDE = 32
"""Patches start at multiples of this: the encoder halves five times."""


class Segmenter(nn.Module):
    """A U-Net whose outputs are classes.

    Parameters
    ----------
    classes : sequence of str
        Names, in the order of the outputs.
    bands : int
        Bands of the image.
    encoder : str
        An encoder of segmentation-models-pytorch; "tu-efficientnet_lite0" can start from ImageNet.
    decoder : sequence of int
        Channels of the five decoder stages.
    white : float
        Reflectance shown to the network as 1; 0 is shown as -1.
    context : int
        Pixels on every side of a patch in the tiled form. The network looks farther (its halo is "measured").
    valid : bool
        False: (N, bands, H, W) to logits (N, classes, H, W). True: to probabilities of the same size.

    Raises
    ------
    ValueError
        If a size does not fit or there is no such encoder.
    """

    factor = STRIDE

    def __init__(
        self,
        classes: tuple[str, ...] | list[str],
        bands: int = 3,
        encoder: str = "tu-efficientnet_lite0",
        decoder: tuple[int, ...] | list[int] = (96, 64, 48, 32, 16),
        white: float = EUROSAT.peak,
        context: int = 64,
        valid: bool = False,
    ) -> None:
        super().__init__()
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise ValueError(f"classes must be at least two different names, got {list(classes)}")
        if bands < 1 or len(decoder) != 5 or context < 0 or context % STRIDE:
            raise ValueError(f"bands from 1, five decoder stages and a context of whole {STRIDE}s are needed")
        # smp pulls in torchvision: seconds of import, only for whoever segments; see `Classifier`
        with torch.device("cpu"):
            import segmentation_models_pytorch as smp

        try:
            self.net: Any = smp.Unet(encoder, len(decoder), None, decoder_channels=list(decoder), in_channels=bands,
                                     classes=len(classes))  # fmt: skip
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"no encoder {encoder!r} in segmentation-models-pytorch: {error}") from None
        self.classes, self.bands, self.white = tuple(classes), bands, white
        self.halo, self.valid = context, valid

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, or probabilities in the tiled form, (N, classes, H, W); H and W multiples of 32."""
        y: Tensor = self.net(x / self.white * 2 - 1)
        return y.softmax(1) if self.valid else y


def start_segmenter_from_imagenet(module: Segmenter) -> int:
    """Copy the ImageNet weights into the encoder; further bands start from the mean of red, green and blue.

    Raises
    ------
    ModelError
        If the weights are not installed or the encoder is another.
    """
    own = module.net.encoder.state_dict()
    given = {}
    for name, value in trunk_weights().items():
        at = f"model.{name}"
        if at in own and own[at].shape != value.shape and name == "conv_stem.weight":
            value = value.mean(1, keepdim=True).repeat(1, own[at].shape[1], 1, 1) * 3 / own[at].shape[1]
        if at in own and own[at].shape == value.shape:
            given[at] = value
    if len(given) != len(own):
        raise ModelError(f"only {len(given)} of {len(own)} tensors of the encoder fit EfficientNet-Lite0's")
    with torch.no_grad():
        module.net.encoder.load_state_dict(given)
    return len(given)
