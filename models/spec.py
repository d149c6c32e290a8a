"""What the engine must know about a network before it feeds it a scene."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from scenelift.models.errors import ModelError

Task = Literal["denoise", "super-resolution", "sharpening", "contrast", "dehaze", "destripe", "landcover", "other"]
TASKS: tuple[str, ...] = get_args(Task)

PERCENTILES = (0.1, 1.0, 10.0, 50.0, 90.0, 99.0, 99.9)
"""Of each band of a whole scene: what a network that needs statistics is told."""
PRECISIONS = ("fp32", "bf16")
"""Numbers that networks compute with."""
MAX_HALO = 1024
MAX_PATCH = 4096
MAX_SCALE = 16


@dataclass(frozen=True)
class ModelSpec:
    """A network's contract with the tiling engine.

    The engine hands the network *patches*: windows of ``patch`` x ``patch`` pixels on a lattice fixed to the
    scene's upper-left corner, each with ``halo`` more pixels on every side. The network returns the core,
    ``scale`` times as large. Every patch of a run has the same shape, so which convolution kernel a library
    picks for it never depends on tile size, batch size or the number of workers.
    """

    name: str
    """Name shown to users and written into the provenance, e.g. ``"sr-x2"``."""
    task: Task
    """What the network is for."""
    scale: int = 1
    """Output pixels per input pixel along each axis."""
    halo: int = 0
    """Context in input pixels on every side; at least the receptive radius unless ``halo_kind`` is "measured"."""
    halo_kind: Literal["exact", "measured"] = "exact"
    """"exact": the halo covers the receptive radius. "measured": it does not, and ``seam_error`` says the price."""
    seam_error: float | None = None
    """For a measured halo: largest difference (reflectance) between tiled and whole-image output."""
    bands: int | None = None
    """Number of bands the network wants together; None: band-agnostic, every band is a sample of its own."""
    out_bands: int | None = None
    """Number of bands it returns if that is not the number it takes (e.g. class probabilities)."""
    out_per_band: int = 1
    """Bands returned for each band taken: 2 with its uncertainty, 3 with its bounds, 4 with both, in this order."""
    multiple_of: int = 1
    """Patches start at multiples of this, and are this divisible (pixel-unshuffle, U-Net)."""
    patch: int = 256
    """Side of a patch's core in input pixels; part of what fixes the output bytes."""
    labels: tuple[str, ...] = ()
    """Names of the output bands, for networks whose output is classes."""
    guides: tuple[int, ...] = ()
    """0-based numbers of bands that are returned unchanged, and without which no other band can be made."""
    needs_noise: bool = False
    """Whether the network takes a noise level (standard deviation, reflectance) per band."""
    needs_blur: bool = False
    """Whether the network takes the blur of each band, see `scenelift.models.sensing.blurs`."""
    needs_statistics: bool = False
    """Whether the network folds for numbers of the whole scene, see `scenelift.models.networks.dehazer`."""
    positioned: bool = False
    """Whether it is told where each patch lies: row and column of the first pixel of its core, on its input grid."""
    record: dict[str, Any] = field(default_factory=dict)
    """How it was trained: data, split, recipe digest, validation table. Informative only."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))  # a list in JSON
        object.__setattr__(self, "guides", tuple(self.guides))
        checks = {
            f"task must be one of {', '.join(TASKS)}, not {self.task!r}": self.task in TASKS,
            f"name must not be empty or hold a path, got {self.name!r}": bool(self.name) and "/" not in self.name,
            f"scale must be an integer from 1 to {MAX_SCALE}, got {self.scale!r}": _is_int(self.scale, 1, MAX_SCALE),
            f"halo must be an integer from 0 to {MAX_HALO}, got {self.halo!r}": _is_int(self.halo, 0, MAX_HALO),
            f"halo_kind must be 'exact' or 'measured', got {self.halo_kind!r}": self.halo_kind in ("exact", "measured"),
            "a measured halo must carry its seam_error (reflectance)": self.halo_kind == "exact"
            or isinstance(self.seam_error, int | float),
            f"bands must be None or at least 1, got {self.bands!r}": self.bands is None or _is_int(self.bands, 1, 4096),
            f"out_bands must be None or at least 1, got {self.out_bands!r}": self.out_bands is None
            or _is_int(self.out_bands, 1, 4096),
            f"out_per_band must be from 1 to 16, got {self.out_per_band!r}": _is_int(self.out_per_band, 1, 16),
            f"multiple_of must be from 1 to 256, got {self.multiple_of!r}": _is_int(self.multiple_of, 1, 256),
            f"patch must be from 1 to {MAX_PATCH}, got {self.patch!r}": _is_int(self.patch, 1, MAX_PATCH),
        }
        wrong = [message for message, ok in checks.items() if not ok]
        if not wrong and (self.patch % self.multiple_of or self.halo % self.multiple_of):
            wrong = [f"patch {self.patch} and halo {self.halo} must be multiples of multiple_of {self.multiple_of}"]
        if wrong:
            raise ModelError(f"model spec {self.name!r}: {wrong[0]}")

    def to_json(self) -> str:
        """Return the spec as a JSON object, keys sorted."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec back.

        Raises
        ------
        ModelError
            If the text is no JSON object, has unknown or missing keys, or a value is out of range.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ModelError(f"model spec is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ModelError("model spec must be a JSON object")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(f"model spec has unknown keys: {', '.join(unknown)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"model spec: {error}") from None


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
