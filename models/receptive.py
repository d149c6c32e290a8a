"""How far a network really looks: found by sending NaN in from outside and seeing where it comes out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.spec import MAX_HALO, ModelSpec

MARGIN = 8
"""Pixels beyond the halo that are tried as well."""


def receptive_radius(
    module: nn.Module,
    *,
    bands: int = 1,
    scale: int = 1,
    multiple_of: int = 1,
    needs_noise: bool = False,
    limit: int = 512,
) -> int:
    """Return the smallest halo, a multiple of ``multiple_of``, outside which no input pixel matters.

    NaN times anything is NaN and NaN plus anything is NaN, so an input pixel set to NaN marks every output
    pixel that depends on it, whatever the weights. The core is one lattice cell in the middle of the image.

    Parameters
    ----------
    module : Module
        Padded, (N, C, S, S) to (N, C', scale·S, scale·S), or unpadded, losing the same on every side. It is
        not changed.
    bands, scale, multiple_of, needs_noise
        As in ``ModelSpec``.
    limit : int
        Largest radius looked for.

    Raises
    ------
    ModelError
        If the network looks farther than ``limit`` (e.g. global pooling, instance normalisation).
    """
    probe = _Probe(module, bands, scale, multiple_of, needs_noise)
    high = multiple_of
    while probe.leaks(high):
        high *= 2
        if high > 2 * limit:
            raise ModelError(
                f"the network looks farther than {limit} pixels (global pooling, instance normalisation?): "
                "no halo makes its tiles exact; declare halo_kind 'measured' with its seam_error"
            )
    low = high // 2 if high > multiple_of else -1  # leaks(low), not leaks(high); -1: even 0 is to be tried
    low, high = low // multiple_of, high // multiple_of
    while high - low > 1:
        middle = (low + high) // 2
        if probe.leaks(middle * multiple_of):
            low = middle
        else:
            high = middle
    return high * multiple_of


def check_halo(module: nn.Module, spec: ModelSpec) -> None:
    """Check that a spec's "exact" halo covers what its network depends on.

    Raises
    ------
    ModelError
        If pixels beyond the halo reach the core.
    """
    probe = _Probe(module, spec.bands or 1, spec.scale, spec.multiple_of, spec.needs_noise)
    if not probe.leaks(spec.halo):
        return
    try:
        radius = str(
            receptive_radius(
                module,
                bands=spec.bands or 1,
                scale=spec.scale,
                multiple_of=spec.multiple_of,
                needs_noise=spec.needs_noise,
                limit=min(MAX_HALO, 4 * spec.halo + 64),
            )
        )
    except ModelError:
        radius = f"more than {min(MAX_HALO, 4 * spec.halo + 64)}"
    raise ModelError(
        f"model {spec.name!r}: the spec's halo is {spec.halo} pixels, the network looks {radius} pixels far; "
        "raise the halo, or declare halo_kind 'measured' with its seam_error"
    )


@torch.no_grad()
def seam_error(module: nn.Module, spec: ModelSpec, core: int = 64) -> float:
    """Return what a halo shorter than the receptive radius costs: the largest change of a core by more context.

    Parameters
    ----------
    module : Module
        Padded form, (N, C, S, S) to (N, C', scale·S, scale·S).
    spec : ModelSpec
        Its bands, scale, halo, multiple_of and needs_noise are used.
    core : int
        Side of the core, a multiple of ``multiple_of``.

    Returns
    -------
    float
        Reflectance, on a rough random scene of reflectance 0 to 0.4.
    """
    far = 4 * max(spec.halo, spec.multiple_of)
    seed = torch.Generator().manual_seed(0)
    side = core + 2 * far
    x = torch.rand(1, spec.bands or 1, side, side, generator=seed) * 0.4
    x = 0.5 * x + 0.5 * torch.nn.functional.avg_pool2d(x, 9, 1, 4)
    rest = (torch.full((1,), 0.01),) if spec.needs_noise else ()
    whole = crop(module(x, *rest), spec.scale * far)
    tile = crop(module(crop(x, far - spec.halo), *rest), spec.scale * spec.halo)
    return float((whole - tile).abs().max())


class _Probe:
    """Asks whether pixels beyond a halo reach the core; works on a copy in float64."""

    def __init__(self, module: nn.Module, bands: int, scale: int, cell: int, needs_noise: bool) -> None:
        self.module = copy.deepcopy(module).cpu().double().eval()
        self.bands, self.scale, self.cell, self.needs_noise = bands, scale, cell, needs_noise

    @torch.no_grad()
    def leaks(self, halo: int) -> bool:
        """Whether NaN beyond ``halo`` pixels around the middle cell reaches that cell's output."""
        reach = max(halo, getattr(self.module, "halo", 0)) + MARGIN * self.cell
        reach += -reach % self.cell
        side = self.cell + 2 * reach
        x = torch.full((1, self.bands, side, side), torch.nan, dtype=torch.float64)
        seen = slice(reach - halo, reach + self.cell + halo)
        seed = torch.Generator().manual_seed(0)
        x[..., seen, seen] = torch.rand(x[..., seen, seen].shape, generator=seed, dtype=torch.float64)
        y = self._answer(x)
        lost, odd = divmod(self.scale * side - y.shape[-1], 2)
        if odd or lost < 0 or y.shape[-1] != y.shape[-2]:
            raise ModelError(
                f"the network turned {side} x {side} pixels into {tuple(y.shape[2:])}: not the same number "
                f"of pixels lost on every side at scale {self.scale}"
            )
        core = slice(reach * self.scale - lost, (reach + self.cell) * self.scale - lost)
        return bool(torch.isnan(y[..., core, core]).any())

    def _answer(self, x: Tensor) -> Tensor:
        if self.needs_noise:
            return self.module(x, torch.full((1,), 0.01, dtype=x.dtype))
        return self.module(x)
