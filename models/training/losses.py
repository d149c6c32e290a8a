"""Losses: of pixels, of structure, of features, of judges, and of consistency with what was seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.degradations import DEFAULT_MTF, mtf_decimate
from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import GAIN

Loss = Callable[[Tensor, Tensor], Tensor]


def mse(answer: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error in normalised units."""
    return F.mse_loss(answer * GAIN, truth * GAIN)


def l1(answer: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error in normalised units."""
    return F.l1_loss(answer * GAIN, truth * GAIN)


def charbonnier(answer: Tensor, truth: Tensor, epsilon: float = 1e-2) -> Tensor:
    """Mean of sqrt(d² + epsilon²), a differentiable L1 (Charbonnier et al., ICIP 1994), normalised units."""
    return torch.sqrt(((answer - truth) * GAIN).square() + epsilon**2).mean()


def log_mse(answer: Tensor, truth: Tensor, floor: float = 1e-5) -> Tensor:
    """Mean over images of the logarithm of each one's mean squared error, normalised units.

    Minus the mean PSNR but for factor and constant (the PSNR loss of HINet, Chen et al., CVPRW 2021): a share of the
    error counts the same in a calm image as in a busy one, where the other losses hardly look at the calm ones.
    """
    return torch.log(((answer - truth) * GAIN).square().flatten(1).mean(1) + floor).mean()


def ssim_loss(answer: Tensor, truth: Tensor, data_range: float = 0.3) -> Tensor:
    """1 - mean SSIM, 11 x 11 Gaussian windows of sigma 1.5 (Wang et al., IEEE TIP 13(4), 2004).

    ``data_range`` in reflectance; population covariance; only windows that lie inside the image.
    """
    at = torch.arange(11, dtype=answer.dtype, device=answer.device) - 5
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    line = line / line.sum()
    window = torch.outer(line, line)[None, None]

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values.reshape(-1, 1, *values.shape[2:]), window)

    mu_a, mu_t = mean(answer), mean(truth)
    var_a, var_t = mean(answer**2) - mu_a**2, mean(truth**2) - mu_t**2
    covariance = mean(answer * truth) - mu_a * mu_t
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mu_a * mu_t + c1) * (2 * covariance + c2)
    return 1 - (top / ((mu_a**2 + mu_t**2 + c1) * (var_a + var_t + c2))).mean()


def consistency(answer: Tensor, low: Tensor, scale: int, mtf: float = DEFAULT_MTF) -> Tensor:
    """Mean absolute difference (reflectance) between the degraded answer and the input it came from."""
    return F.l1_loss(mtf_decimate(answer, scale, mtf), low)


def hinge_judge(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim and Ye, 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_maker(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the generator; ``real`` is not used, the signature is that of the relativistic loss."""
    return -fake.mean()


def relativistic_judge(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the discriminator (Jolicoeur-Martineau, ICLR 2019; used by ESRGAN)."""
    return (
        F.binary_cross_entropy_with_logits(real - fake.mean(), torch.ones_like(real))
        + F.binary_cross_entropy_with_logits(fake - real.mean(), torch.zeros_like(fake))
    ) / 2


def relativistic_maker(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the generator: the judge's with the roles exchanged."""
    return relativistic_judge(fake, real)


LOSSES: dict[str, Loss] = {"mse": mse, "l1": l1, "charbonnier": charbonnier, "log-mse": log_mse, "ssim": ssim_loss}
ADVERSARIAL: dict[str, tuple[Loss, Loss]] = {
    "hinge": (hinge_judge, hinge_maker),
    "relativistic": (relativistic_judge, relativistic_maker),
}


def pixel_loss(name: str) -> Loss:
    """Return the loss of that name."""
    if name not in LOSSES:
        raise ModelError(f"loss must be one of {', '.join(LOSSES)}, not {name!r}")
    return LOSSES[name]
