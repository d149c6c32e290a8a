"""Networks that are told blur and noise, told them for good: what a file holds that has only an image for input."""

from __future__ import annotations

import dataclasses

from scenelift.models.catalog import ModelRef, load_spec
from scenelift.models.sensing.blurs import Blur
from scenelift.models.sensing.sensors import parse_blur
from scenelift.pipeline.errors import UsageError


def told_for_good(ref: ModelRef, blur: str | None, noise: float | None) -> tuple[ModelRef, list[str]]:
    """Return the reference with blur and noise for one patch, and what was assumed: lines for people.

    Raises
    ------
    UsageError
        If the network is not told what is given.
    """
    spec = load_spec(ref)
    bands = spec.bands or 1
    if not spec.needs_blur:
        if blur is not None:
            raise UsageError(f"{ref.name} is not told the blur: leave --blur out")
        if noise is not None and not spec.needs_noise:
            raise UsageError(f"{ref.name} is not told the noise: leave --noise out")
        return ref, []
    given = None if blur is None else parse_blur(blur, [""] * bands)
    told = given or (Blur(),) * bands
    described = ", ".join(dict.fromkeys(each.describe() for each in told))
    sigma = noise or 0.0
    line = f"told for good: blur {described}{'' if given else ' (assumed)'}, noise {sigma:g} reflectance"
    return dataclasses.replace(ref, blur=told, noise=(sigma,) * bands), [line]
