"""The denoising autoencoder: a U-Net of segmentation-models-pytorch around a noise-level map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import GAIN, MEAN, check_range, crop


class Autoencoder(nn.Module):
    """U-Net that predicts the noise in its input; the third family beside residual network and GAN.

    A U-Net sees far and down-samples, so its halo is chosen, not derived: specs of this kind say "measured"
    and carry the seam error.

    Parameters
    ----------
    bands : int
        Bands seen together; 1 for a band-agnostic network.
    encoder : str
        Encoder of segmentation-models-pytorch, e.g. "resnet18".
    depth : int
        Number of down-samplings, 3 to 5; patches must be multiples of ``2**depth``.
    width : int
        Channels of the decoder's coarsest step; halved at each finer one.
    halo : int
        Context in pixels cut off in the unpadded mode; a multiple of ``2**depth``.
    valid : bool
        (N, C, P + 2·halo, P + 2·halo) gives (N, C, P, P). Otherwise sizes are kept.
    """

    def __init__(
        self,
        bands: int = 1,
        encoder: str = "resnet18",
        depth: int = 3,
        width: int = 128,
        halo: int = 64,
        *,
        valid: bool = False,
    ) -> None:
        super().__init__()
        # smp pulls in torchvision and timm, seconds of import that only this network is worth
        with torch.device("cpu"):  # see `Classifier`
            import segmentation_models_pytorch as smp

        check_range("bands", bands, 1, 64)
        check_range("depth", depth, 3, 5)
        check_range("width", width, 2 ** (depth - 1), 1024)
        check_range("halo", halo, 0, 512)
        if halo % 2**depth:
            raise ModelError(f"halo must be a multiple of {2**depth}, got {halo}")
        self.bands, self.halo, self.valid = bands, halo, valid
        self.factor = 2**depth
        """Patches are multiples of this."""
        try:
            self.unet = smp.Unet(
                encoder_name=encoder,
                encoder_depth=depth,
                encoder_weights=None,
                decoder_channels=tuple(width // 2**i for i in range(depth)),
                in_channels=2 * bands,
                classes=bands,
            )
        except KeyError:
            raise ModelError(
                f"encoder {encoder!r} is not one that segmentation-models-pytorch knows; its documentation lists them"
            ) from None
        with torch.no_grad():
            self.unet.segmentation_head[0].weight.mul_(0.1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:  # (N, C, H, W), (N,) or (N, C, 1, 1)
        level = sigma.to(x).reshape(len(x), -1, 1, 1) * GAIN
        level = level.expand(len(x), self.bands, *x.shape[2:])
        noise = self.unet(torch.cat([(x - MEAN) * GAIN, level], 1)) / GAIN
        y = x + noise.to(x.dtype)
        return crop(y, self.halo) if self.valid else y
