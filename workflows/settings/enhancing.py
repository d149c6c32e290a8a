"""How scenes are enhanced."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from scenelift.models.extras import (
    BUILT_IN,
    Clamp,
    Consistency,
    Extra,
    Interval,
    Realism,
    SelfEnsemble,
    Strength,
    Uncertainty,
    extra_kind,
)
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option, read_table, toml_value
from scenelift.workflows.settings.parsing import MODEL, OUTPUT, WHERE, Device
from scenelift.workflows.settings.reading import Crop

if TYPE_CHECKING:
    from scenelift.pipeline.grids import GeoGrid
    from scenelift.pipeline.outlines import Outline
    from scenelift.pipeline.tiles import Window

MODELS = "A name, a checkpoint, an ONNX file or module.path:factory; several, with commas, run one after the other."
"""What ``--model`` takes."""
DEFAULT_MODEL = "sr-x2-lean"
"""What runs where no model is named: within a tenth of a dB of the larger `sr-x2`, in a third of its time."""

BLOCK = 1024
"""Side of a block in input pixels, at most: some seconds of work, a few hundred tasks a scene."""
LEAST_BLOCK = 256
"""The same, at least: what the patches of most networks have."""
COPIES = 4
"""How often the values of a block are held at the most: as they are stored, as they are packed, and parts of them."""
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2.0**10, "MI": 2.0**20, "GI": 2.0**30, "TI": 2.0**40}

Precision = Literal["auto", "fp32", "bf16"]
Compression = Literal["deflate", "zstd", "lerc", "jpeg"]
Quality = Literal["lean", "best"]


def _parse_noise(text: str) -> float | None:
    """Return the noise level that --noise gives, in DN; None for auto.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--noise must be auto or a number in DN, got {text!r}") from None


@dataclass(frozen=True)
class EnhanceSettings:
    """How to enhance; `block` and `batch` never change a pixel of the result."""

    block: int | None = option(
        None,
        f"Pixels a side of a task, the unit of writing and resuming. Default: {BLOCK}, or the half or quarter of it "
        "that --memory allows.",
        panel=WHERE,
    )
    batch: int | None = option(None, "Patches given to the model at once. Default: chosen for the device.", panel=WHERE)
    device: Device = option("auto", "Where the model runs.", panel=WHERE)
    precision: Precision = option("auto", "Numbers the model computes with.", panel=MODEL)
    memory: str = option(
        "700MB", "What a block may take of a worker's memory, beside the libraries and the model.", panel=WHERE
    )
    dtype: str | None = option(None, "Data type of the output; default: as the input.", panel=OUTPUT)
    noise: float | None = option(
        None,
        "Noise level for denoisers, in DN, or auto (the default): estimated once per band.",
        panel=MODEL,
        parse=_parse_noise,
    )
    blur: str = option(
        "auto",
        "Blur, for super-resolution: auto (estimated), an MTF at Nyquist (0.27), area, bicubic, lanczos, or a sensor "
        "(sentinel-2); one for all bands, or one a band, with commas.",
        panel=MODEL,
    )
    expect: bool = option(
        True, "Try super-resolution on the scene one level coarser first, and say what to expect.", panel=MODEL
    )
    require_gain: float | None = option(
        None, "Stop (exit 4) before the work if the gain expected over Lanczos is less, dB.", panel=MODEL
    )
    tta: bool = option(False, SelfEnsemble.help, panel=MODEL)
    uncertainty: bool = option(False, Uncertainty.help, panel=MODEL)
    interval: float | None = option(None, Interval.help, panel=MODEL)
    consistency: int = option(0, Consistency.help, panel=MODEL)
    classes: bool = False
    choice: str = ""
    """Why these models were chosen, for people: a note of the summary and of the output's provenance."""
    crop: Crop | None = None
    """The part of the scene that is made; None: all of it."""
    realism: float | None = option(None, Realism.help, panel=MODEL)
    strength: float | None = option(None, Strength.help, panel=MODEL)
    clamp: bool = option(False, Clamp.help, panel=MODEL)
    extra: tuple[str, ...] = option(
        (),
        "What an installed package does around networks: NAME, NAME=VALUE or NAME={field=value}; repeatable.",
        panel=MODEL,
    )
    keep_classes: bool = option(
        False,
        "Copy layers of classes (SCL, QA_PIXEL, class maps among the inputs) beside the output, on its grid, by "
        "nearest neighbour: NAME_scl.tif.",
        panel=OUTPUT,
    )
    shards: bool = option(True, "Zarr: one file a block. GDAL before 3.13 needs --no-shards.", panel=OUTPUT)
    compress: Compression | None = option(
        None,
        "How the output is packed: deflate (GeoTIFF's default), zstd (Zarr's default), lerc, or jpeg (lossy; 8-bit "
        "pictures). Zarr: zstd or deflate.",
        panel=OUTPUT,
    )
    overwrite: bool = option(False, "Replace an existing output (archive: one of other settings).", panel=OUTPUT)
    allow_holes: bool = option(False, "Publish even if some blocks failed (they hold no data).", panel=OUTPUT)
    quality: Quality | None = option(
        None,
        "Take the smaller (lean) or the larger (best) network of each name of the chain; default: the one named.",
        panel=MODEL,
    )

    def __post_init__(self) -> None:
        for name, value, most in (("block", self.block, 65536), ("batch", self.batch, 4096)):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"--{name} must be from 1 to {most}, got {value}")
        self.side(1)  # refuses a memory that is none
        if self.noise is not None and not (math.isfinite(self.noise) and self.noise >= 0):
            raise UsageError(f"--noise must be a number from 0 up, got {self.noise}")
        if self.require_gain is not None and not math.isfinite(self.require_gain):
            raise UsageError(f"--require-gain must be a number of dB, got {self.require_gain}")
        self.extras()  # refuses what it cannot be

    def window_on(self, grid: GeoGrid) -> Window | None:
        """Return the window of a scene's grid that is made; None: all of it. Raises as `Crop.on` does."""
        return None if self.crop is None else self.crop.on(grid)

    def outline_on(self, grid: GeoGrid) -> Outline | None:
        """Return the pixels of a scene's grid that are made; None: all of the window. Raises as `Crop.on` does."""
        return None if self.crop is None else self.crop.outline_on(grid)

    def side(self, nbytes: int) -> int:
        """Return the side of a block: ``block``, or the largest half of half of `BLOCK` that ``memory`` allows.

        Parameters
        ----------
        nbytes : int
            Bytes of the output a pixel of the input.

        Raises
        ------
        UsageError
            If ``memory`` is no number of bytes.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", self.memory.upper())
        if not match or match[2] not in UNITS:
            raise UsageError(f"--memory must be a number of bytes such as 700MB or 1.5GB, got {self.memory!r}")
        most, side = float(match[1]) * UNITS[match[2]] / COPIES, BLOCK
        while side > LEAST_BLOCK and side**2 * nbytes > most:
            side //= 2
        return side if self.block is None else self.block

    def extras(self) -> tuple[Extra, ...]:
        """Return what is done around networks: the built-in extras that have an option here, then ``--extra``.

        Raises
        ------
        ModelError, UsageError
            If there is no such extra, or a value is none of its values.
        """
        found = {}
        for each in (f for f in fields(self) if f.name in BUILT_IN):
            value = getattr(self, each.name)
            if value != each.default:
                kind = BUILT_IN[each.name]
                found[each.name] = kind(*([value] if fields(kind) else []))
        return tuple((found | dict(map(_extra, self.extra))).values())


def _extra(text: str) -> tuple[str, Extra]:
    """Return the name and the extra that --extra gives."""
    name, given, value = (part.strip() for part in text.partition("="))
    kind, table = extra_kind(name), {}
    if given:
        value = toml_value(value)
        table = value if isinstance(value, dict) else dict.fromkeys([f.name for f in fields(kind)][:1], value)
        if not table:
            raise UsageError(f"--extra {name} takes no value, got {text!r}")
    return name, read_table(kind, table, f"--extra {name}")
