"""What users may choose, as frozen dataclasses whose fields are options of commands and keys of files.

They stand apart from what they set, so that ``--help`` waits for neither torch nor GDAL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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

if TYPE_CHECKING:
    from scenelift.pipeline.grids import GeoGrid
    from scenelift.pipeline.outlines import Outline
    from scenelift.pipeline.tiles import Window

INPUT, MODEL, OUTPUT, WHERE, STOPS = "Input", "Model", "Output", "Where it runs", "When it stops"
"""Headings of ``--help``, in this order."""
MODELS = "A name, a checkpoint, an ONNX file or module.path:factory; several, with commas, run one after the other."
"""What ``--model`` takes."""

BLOCK = 1024
"""Side of a block in input pixels, at most: some seconds of work, a few hundred tasks a scene."""
LEAST_BLOCK = 256
"""The same, at least: what the patches of most networks have."""
COPIES = 4
"""How often the values of a block are held at the most: as they are stored, as they are packed, and parts of them."""
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2.0**10, "MI": 2.0**20, "GI": 2.0**30, "TI": 2.0**40}

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Compression = Literal["deflate", "zstd", "lerc", "jpeg"]


def band_list(text: str) -> tuple[int, ...]:
    """Return the 1-based bands that --bands names, in its order.

    Raises
    ------
    UsageError
        If a part is not a number from 1 up.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--bands must be numbers such as 4,3,2, got {text!r}")
    return tuple(int(part) for part in parts)


def numbers(flag: str, like: str, kind: type[Any], count: int, text: str, parts: Sequence[str]) -> tuple[Any, ...]:
    """Return the numbers of an option, of which there are so many.

    Parameters
    ----------
    flag, like : str
        The option, and what it must be, for the message.
    kind : type
        int or float.
    count : int
    text : str
        As it was given.
    parts : sequence of str
        The same, split.

    Raises
    ------
    UsageError
        If they are more or fewer, or no numbers.
    """
    try:
        found = tuple(map(kind, parts))
        whole = len(found) == count and all(map(math.isfinite, found))
    except (ValueError, OverflowError):
        whole = False
    if not whole:
        raise UsageError(f"{flag} must be {like}, got {text!r}")
    return found


def _parse_window(text: str) -> tuple[int, ...]:
    like = "COL,ROW,WIDTH,HEIGHT in whole pixels, such as 512,0,256,256"
    return numbers("--window", like, int, 4, text, text.replace(",", " ").split())


def _parse_bbox(text: str) -> tuple[float, ...]:
    like = "W,S,E,N, four numbers in the scene's CRS or that of --bbox-crs"
    return numbers("--bbox", like, float, 4, text, text.replace(",", " ").split())


def split_names(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas, empty ones left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


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


MASK = (
    "Read clouds and the like as missing: scl (Sentinel-2 L2A), qa_pixel (Landsat), clouds (found in the pixels), "
    "or a raster whose non-zero pixels are hidden."
)
MASK_CLASSES = (
    "Classes of the mask that are hidden, by name or number: cloud,shadow. Default: cloud, cirrus, shadow, snow, "
    "saturated, nodata."
)
"""What ``--mask`` and ``--mask-classes`` take."""


@dataclass(frozen=True)
class Reading:
    """How the numbers of a scene are read; see `SceneSource`."""

    bands: str | None = option(
        None, "Bands in the order wanted, by number or name: 4,3,2 or B04,B03,B02 or red,green,blue.", panel=INPUT
    )
    scale: float | None = option(None, "Reflectance per DN, if the file does not say (or is wrong).", panel=INPUT)
    offset: float | None = option(
        None, "Added to the DN before scaling; -1000 for Sentinel-2 L2A since 2022.", panel=INPUT
    )
    nodata: float | None = option(None, "Value of missing pixels, if the file does not say.", panel=INPUT)
    crs: str | None = option(None, "Coordinate reference system for a raster without one.", panel=INPUT)
    extent: str | None = option(
        None, "Of several grids, for a sharpener: common (default; what all of them cover) or union.", panel=INPUT
    )
    mask: str | None = option(None, MASK, panel=INPUT)
    mask_classes: tuple[str, ...] = option((), MASK_CLASSES, panel=INPUT, parse=split_names)
    time: str | None = option(
        None, "Of a cube of several times: which, by number from 1 or as it begins: 2024-05-01.", panel=INPUT
    )


@dataclass(frozen=True)
class Crop:
    """A part of a scene: what is made of it equals that part of the whole output, bit for bit.

    Whatever is found of a scene (its blur, its noise, the gain to expect) is found in the whole scene all the same.
    """

    window: tuple[int, int, int, int] | None = option(
        None, "Make this part only: COL,ROW,WIDTH,HEIGHT, input pixels.", panel=INPUT, parse=_parse_window
    )
    bbox: tuple[float, float, float, float] | None = option(
        None, "Make this part only: W,S,E,N in the scene's CRS.", panel=INPUT, parse=_parse_bbox
    )
    geometry: str | None = option(
        None,
        "Make this part only: a file of GeoJSON or WKT, or either itself; pixels that it does not touch are missing. "
        "GeoJSON is in degrees, WKT in the scene's CRS.",
        panel=INPUT,
    )
    """As text; a file is read at once, and what it holds is kept."""
    bbox_crs: str | None = option(None, "CRS of --bbox or --geometry, if another: EPSG:4326 for degrees.", panel=INPUT)

    def __post_init__(self) -> None:
        parts = [name for name in ("window", "bbox", "geometry") if getattr(self, name) is not None]
        if len(parts) > 1:
            raise UsageError(f"--{parts[0]} and --{parts[1]} name one part each: leave one of them out")
        if self.bbox_crs is not None and parts not in (["bbox"], ["geometry"]):
            raise UsageError("--bbox-crs says what --bbox or --geometry is in: give one of them too")
        if self.geometry is not None:
            from scenelift.pipeline.outlines import read_geometry

            wkt, crs = read_geometry(str(self.geometry))
            object.__setattr__(self, "geometry", wkt)
            object.__setattr__(self, "bbox_crs", self.bbox_crs or crs)
        if self.window is not None and (min(self.window[:2]) < 0 or min(self.window[2:]) < 1):
            wanted = "must begin at column and row 0 or later and have at least one pixel"
            raise UsageError(f"--window {wanted}, got {_listed(self.window)}")
        if self.bbox is not None and not (self.bbox[0] < self.bbox[2] and self.bbox[1] < self.bbox[3]):
            raise UsageError(f"--bbox must be W,S,E,N with W below E and S below N, got {_listed(self.bbox)}")

    def on(self, grid: GeoGrid) -> Window | None:
        """Return the window of a scene's grid that is meant; None: all of it.

        Raises
        ------
        UsageError
            If it does not lie in the scene.
        """
        if self.bbox is not None:
            found = grid.window_of(self.bbox, self.bbox_crs)
            if not found.size:
                where = f"the scene, whose bounds in its CRS are {_listed(grid.bounds)}"
                raise UsageError(f"--bbox {_listed(self.bbox)} does not meet {where}")
        elif outline := self.outline_on(grid):
            found = outline.window
        elif self.window is not None:
            from scenelift.pipeline.tiles import Window

            col, row, width, height = self.window
            found = Window(row, col, height, width)
            if found.clip(grid.shape) != found:
                size = f"{grid.width} columns and {grid.height} rows"
                raise UsageError(f"--window {_listed(self.window)} reaches beyond the scene, which has {size}")
        else:
            return None
        return None if found.shape == grid.shape else found

    def outline_on(self, grid: GeoGrid) -> Outline | None:
        """Return the pixels of a scene's grid that the geometry touches; None without one. Raises as `on` does."""
        if self.geometry is None:
            return None
        from scenelift.pipeline.outlines import outline_on

        return outline_on(grid, self.geometry, self.bbox_crs)


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:.10g}" for number in numbers)


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


@dataclass(frozen=True)
class ScoreSettings:
    """How to score."""

    data_range: float | None = option(None, "Full scale in reflectance; default 0.3, or 1 for 8-bit images.")
    ratio: float = option(1.0, "Coarse over fine pixel size, for ERGAS.")
    border: int = option(0, "Pixels left out along the edge.")
    windows: bool = option(
        True, "Measure SSIM, MS-SSIM, VIF and sharpness too; without them it is faster.", "--windows/--pixels-only"
    )
    block: int = option(1024, "Pixels a side of a task; changes memory, never a score.", panel=WHERE)
    names: tuple[str, ...] | None = None
    """Scores that are measured; None: all that the scenes and `windows` allow."""

    def __post_init__(self) -> None:
        if not 16 <= self.block <= 65536:
            raise UsageError(f"--block must be from 16 to 65536, got {self.block}")
        if self.border < 0:
            raise UsageError(f"--border must be from 0 up, got {self.border}")


@dataclass(frozen=True)
class AblateSettings:
    """The budget of an ablation study, the same for every variant."""

    steps: int = option(300, "Training steps of every variant.")
    batch: int = option(16, "Patches a step.")
    channels: int = option(32, "Channels of the network.")
    blocks: int = option(4, "Residual blocks of the network.")
    seeds: int = option(3, "Trainings of every variant.")
    each: int = option(4, "Test images of every class.")
    data: Path | None = option(None, "Folder with the images; default: SCENELIFT_DATA.", panel=INPUT)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "seeds", "each"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainingRun:
    """Where a training writes and runs."""

    run: Path | None = option(None, "Folder of the run; default: runs/NAME.", panel=OUTPUT)
    output: Path | None = option(None, "Checkpoint to write.", "--output", "-o", panel=OUTPUT)
    threads: int | None = option(None, "CPU threads.", panel=WHERE)
    resume: bool = option(True, "Go on from the state in the run's folder.")
    device: Device = option("auto", "Where the network is trained.", panel=WHERE)
    processes: int = option(1, "Train on so many processes of this machine, one a GPU.", panel=WHERE)
    seed: int | None = option(None, "Instead of the recipe's; its run is NAME-seedN.", panel=MODEL)

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("processes", self.processes)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, got {value}")
