"""The command line's common options, and what their texts mean. Imports late, so that --help answers at once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from scenelift.pipeline.errors import UsageError

if TYPE_CHECKING:  # --help does not wait for GDAL
    from scenelift.pipeline.scenes.scenes import SceneSource

# What is read, and how
Inputs = Annotated[
    list[str],
    typer.Argument(help="A raster, several single-band rasters of one grid, a .SAFE folder or a Zarr store."),
]
Bands = Annotated[str | None, typer.Option(help="1-based bands in the order wanted, e.g. 4,3,2.")]
Scale = Annotated[float | None, typer.Option(help="Reflectance per DN, if the file does not say (or is wrong).")]
Offset = Annotated[float | None, typer.Option(help="Added to the DN before scaling; -1000 for recent Sentinel-2 L2A.")]
Nodata = Annotated[float | None, typer.Option(help="Value of missing pixels, if the file does not say.")]
Crs = Annotated[str | None, typer.Option(help="Coordinate reference system for a raster without one.")]
Remote = Annotated[bool, typer.Option("--allow-remote", help="Read http(s)://, s3:// and gs:// inputs.")]
Limit = Annotated[
    list[str] | None, typer.Option(help="Raise what an input may declare: pixels=N, bands=N or chunk-mb=N.")
]

# What is done to it
Models = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A name, a checkpoint or module.path:factory; several, with commas, run one after the other.",
    ),
]
Noise = Annotated[str, typer.Option(help="Noise level for denoisers, in DN, or auto.")]
Tta = Annotated[bool, typer.Option("--tta", help="Average over eight turned and mirrored passes.")]
Uncertainty = Annotated[bool, typer.Option("--uncertainty", help="Follow each band by the spread over eight passes.")]
Consistency = Annotated[int, typer.Option(help="Back-projection steps after super-resolution.")]
Realism = Annotated[float | None, typer.Option(help="0 to 1: from the exact network to its realistic twin.")]

# Where and in which pieces
Tile = Annotated[int | None, typer.Option(help="Pixels a side given to the model at once (memory, never bytes).")]
Block = Annotated[int, typer.Option(help="Pixels a side of a task.")]
Batch = Annotated[int | None, typer.Option(help="Tiles given to the model at once.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; 0: none. Default: one a core, or one a GPU.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a running Dask scheduler, e.g. tcp://host:8786.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]

# What is written
Dtype = Annotated[str | None, typer.Option(help="Data type of the output; default: as the input.")]
Shards = Annotated[bool, typer.Option(help="Zarr: one file a block. GDAL before 3.13 needs --no-shards.")]
AllowHoles = Annotated[bool, typer.Option("--allow-holes", help="Publish although blocks failed.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]


def scene_source(
    inputs: list[str] | str,
    bands: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    crs: str | None = None,
    remote: bool = False,
    limit: list[str] | None = None,
) -> SceneSource:
    """Return the scene that the options of reading name.

    Raises
    ------
    UsageError
        For bands that are no numbers, or a limit nobody knows.
    """
    from scenelift.pipeline.scenes.limits import Limits
    from scenelift.pipeline.scenes.scenes import SceneSource

    paths = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    return SceneSource(paths, band_numbers(bands), scale, offset, nodata, crs, Limits.of(limit or [], remote))


def band_numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the 1-based bands that --bands names, in its order; None for all.

    Raises
    ------
    UsageError
        If a part is no number from 1 on.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--bands takes numbers such as 4,3,2, got {text!r}")
    return tuple(int(part) for part in parts)


def parse_noise(text: str) -> float | None:
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
        raise UsageError(f"--noise takes auto or a number in DN, got {text!r}") from None


def split_names(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas, empty ones left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def whole_numbers(option: str, text: str) -> list[int]:
    """Return the whole numbers of a list with commas, such as 10,1e3; an empty one has none.

    Raises
    ------
    UsageError
        If a part is none.
    """
    with suppress(ValueError):
        numbers = [float(part) for part in split_names(text)]
        if all(number.is_integer() for number in numbers):
            return [int(number) for number in numbers]
    raise UsageError(f"{option} takes whole numbers such as 2,4, got {text!r}")


def gpus_for(device: str) -> int:
    """Return how many GPUs of this machine work is given to."""
    from scenelift.models.enhancer import gpu_count

    return gpu_count() if device != "cpu" else 0
