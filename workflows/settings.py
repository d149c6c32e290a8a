"""How a scene is to be enhanced: the settings of a job, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scenelift.pipeline.errors import UsageError

BLOCK = 1024
"""Side of a block in input pixels: some seconds of work, a few hundred tasks a scene."""


@dataclass(frozen=True)
class EnhanceSettings:
    """How to enhance; `tile`, `block`, `batch` never change a pixel of the result."""

    tile: int | None = None
    """Side of what a model gets at once, input pixels; rounded up to whole patches. None: one patch."""
    block: int = BLOCK
    """Side of a block (task, unit of writing and resuming), input pixels."""
    batch: int | None = None
    """Tiles given to the model at once. None: chosen for the device."""
    device: str = "auto"
    precision: str = "auto"
    dtype: str | None = None
    """Data type of the output; None: as the input."""
    noise: float | None = None
    """Noise level in the input's own units (DN), for models that take one; None: estimated once per band."""
    blur: str = "auto"
    """Blur, for super-resolution: auto, an MTF at Nyquist, area, bicubic or a sensor; one value, or one a band."""
    tta: bool = False
    """Average networks over the eight symmetries of the square: better, eight times the work."""
    uncertainty: bool = False
    """Follow each band of the last model by the spread over those eight answers."""
    consistency: int = 0
    """Back-projection steps after super-resolution: the result, blurred and decimated, gives the input again."""
    classes: bool = False
    """Store the number of the most probable class of the last model, which must name land cover, with a palette."""
    realism: float | None = None
    """0 to 1: between a generator and its adversarially tuned twin."""
    shards: bool = True
    """Whether a Zarr output keeps the chunks of a block in one file (GDAL reads that from 3.13 on)."""
    overwrite: bool = False
    allow_holes: bool = False
    """Publish an output although some blocks failed, with no data there."""

    def __post_init__(self) -> None:
        for name, value, most in (
            ("tile", self.tile, 65536),
            ("block", self.block, 65536),
            ("batch", self.batch, 4096),
        ):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"--{name} must be from 1 to {most}, got {value}")
        if not 0 <= self.consistency <= 20:
            raise UsageError(f"--consistency must be from 0 to 20 steps, got {self.consistency}")
        if self.realism is not None and not 0 <= self.realism <= 1:
            raise UsageError(f"--realism must be from 0 to 1, got {self.realism}")
        if self.noise is not None and not (math.isfinite(self.noise) and self.noise >= 0):
            raise UsageError(f"--noise must be a number from 0 up, got {self.noise}")
