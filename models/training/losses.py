"""Losses: of pixels, of structure, of features, of discriminators."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import GAIN

Loss = Callable[[Tensor, Tensor], Tensor]


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in normalised units."""
    return F.mse_loss(prediction * GAIN, target * GAIN)


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error in normalised units."""
    return F.l1_loss(prediction * GAIN, target * GAIN)


def charbonnier(prediction: Tensor, target: Tensor, epsilon: float = 1e-2) -> Tensor:
    """Mean of sqrt(d² + epsilon²), a differentiable L1 (Charbonnier et al., ICIP 1994), normalised units."""
    return torch.sqrt(((prediction - target) * GAIN).square() + epsilon**2).mean()


def log_mse(prediction: Tensor, target: Tensor, floor: float = 1e-5) -> Tensor:
    """Mean over images of the logarithm of each one's mean squared error, normalised units.

    Minus the mean PSNR but for factor and constant (the PSNR loss of HINet, Chen et al., CVPRW 2021): a share of the
    error counts the same in a calm image as in a busy one, where the other losses hardly look at the calm ones.
    """
    return torch.log(((prediction - target) * GAIN).square().flatten(1).mean(1) + floor).mean()


def ssim_loss(prediction: Tensor, target: Tensor, data_range: float = 0.3) -> Tensor:
    """1 - mean SSIM, 11 x 11 Gaussian windows of sigma 1.5 (Wang et al., IEEE TIP 13(4), 2004).

    ``data_range`` in reflectance; population covariance; only windows that lie inside the image.
    """
    at = torch.arange(11, dtype=prediction.dtype, device=prediction.device) - 5
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    line = line / line.sum()
    window = torch.outer(line, line)[None, None]

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values.reshape(-1, 1, *values.shape[2:]), window)

    mu_a, mu_t = mean(prediction), mean(target)
    var_a, var_t = mean(prediction**2) - mu_a**2, mean(target**2) - mu_t**2
    covariance = mean(prediction * target) - mu_a * mu_t
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mu_a * mu_t + c1) * (2 * covariance + c2)
    return 1 - (top / ((mu_a**2 + mu_t**2 + c1) * (var_a + var_t + c2))).mean()


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim and Ye, 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _hinge_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the generator; ``real`` is not used, the signature is that of the relativistic loss."""
    return -fake.mean()


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the discriminator (Jolicoeur-Martineau, ICLR 2019; used by ESRGAN)."""
    return (
        F.binary_cross_entropy_with_logits(real - fake.mean(), torch.ones_like(real))
        + F.binary_cross_entropy_with_logits(fake - real.mean(), torch.zeros_like(fake))
    ) / 2


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the generator: the discriminator's with the roles exchanged."""
    return _relativistic_discriminator(fake, real)


LOSSES: dict[str, Loss] = {"mse": mse, "l1": l1, "charbonnier": charbonnier, "log-mse": log_mse, "ssim": ssim_loss}
ADVERSARIAL: dict[str, tuple[Loss, Loss]] = {
    "hinge": (_hinge_discriminator, _hinge_generator),
    "relativistic": (_relativistic_discriminator, _relativistic_generator),
}


def pixel_loss(name: str) -> Loss:
    """Return the loss of that name."""
    if name not in LOSSES:
        raise ModelError(f"loss must be one of {', '.join(LOSSES)}, got {name!r}")
    return LOSSES[name]
