"""How the numbers of a band are read: scale, offset and nodata of the file, the product, a catalogue, the user."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from scenelift.pipeline.addresses import file_name
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.products.kinds import ProductBand
from scenelift.pipeline.scenes.rasters import Reader
from scenelift.pipeline.scenes.scenes import Band, SceneSource

DTYPES = ("uint8", "uint16", "int16", "float32")
"""What scenes are read as, and outputs stored as."""
READ_AS = {"float64": "float32"}
"""What is read as another data type, as all arithmetic is float32; missing pixels are known before."""
ASSUMED_SCALE = {"uint8": 1 / 255, "uint16": 1e-4, "int16": 1e-4, "float32": 1.0}
"""DN to reflectance where a file declares no scale: Sentinel-2's and Landsat's habit of reflectance x 10000."""


Facts = tuple[float | None, float | None, float | None]
"""Scale, offset and nodata of a band as a catalogue tells them."""


def has_value(dtype: str, value: float) -> bool:
    """Whether a data type can store a value as it is."""
    if dtype == "float32":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and bool(limits.min <= value <= limits.max)


def held(nodata: float | None, dtype: str) -> float | None:
    """Return what marks missing pixels of a data type in place of a nodata value: NaN for one beyond float32's range.

    Decimals such as -3.40282347e+38 are float32's lowest value, a little off: they become what they mean.
    """
    if dtype != "float32" or nodata is None or not abs(nodata) > float(np.finfo(np.float32).max):
        return nodata
    with np.errstate(over="ignore"):
        nearest = float(np.float32(nodata))
    return nearest if math.isfinite(nearest) or math.isinf(nodata) else math.nan


def told_of(files: list[Reader], source: SceneSource) -> dict[tuple[Reader, int], Facts]:
    """Return what a catalogue says of each band of the files; nothing if it counts other bands than they have."""
    every = [(f, i) for f in files for i in range(1, f.count + 1)]
    return dict(zip(every, source.told, strict=True)) if len(source.told) == len(every) else {}


def _nodata(
    reader: Reader, index: int, dtype: str, source: SceneSource, product: ProductBand | None, told: float | None
) -> tuple[float | None, list[str]]:
    """Return what marks missing pixels of a band: the value of the user, the product, the file or a catalogue."""
    if source.nodata is not None:
        if not has_value(dtype, source.nodata):
            raise UsageError(f"--nodata must be a value of {dtype}, got {source.nodata:g} ({reader.path})")
        return source.nodata, []
    if product is not None and product.nodata is not None:
        return product.nodata, []
    own = reader.nodata[index - 1]
    nodata, whose = (told, "the catalogue's") if own is None else (own, "the")
    if nodata is not None and not has_value(dtype, nodata):
        return None, [f"{whose} nodata value {nodata:g} cannot occur in {dtype}: no pixel is missing by it"]
    notes = [] if own is not None or told is None else [f"nodata {told:g} is the catalogue's: the file has none"]
    return nodata, notes


def band_of(
    reader: Reader,
    index: int,
    dtype: str,
    source: SceneSource,
    product: ProductBand | None,
    told: Facts | None,
    single: bool,
) -> tuple[Band, list[str]]:
    """Return a band, and what was assumed of it."""
    scale, offset = reader.scales[index - 1], reader.offsets[index - 1]
    declared, notes = (scale, offset) != (1.0, 0.0), []
    if told is not None and (told[0] is not None or told[1] is not None):
        listed = (1.0 if told[0] is None else told[0], told[1] or 0.0)
        if not declared and listed != (1.0, 0.0):
            (scale, offset), declared = listed, True
            notes.append(f"scale {scale:g} and offset {offset:g} are the catalogue's: the file has none")
        elif declared and not np.allclose(listed, (scale, offset), rtol=1e-6, atol=1e-12):
            notes.append(
                f"the file's scale {scale:g} and offset {offset:g} count, not the catalogue's {listed[0]:g} and "
                f"{listed[1]:g}"
            )
    assumed = not declared
    if assumed:
        scale = ASSUMED_SCALE[dtype]
    if product is not None and product.scale is not None:
        scale, offset, declared = product.scale, product.offset, True
    if source.scale is not None:
        if product is not None and product.scale is not None:  # its offset is one of numbers
            offset *= source.scale / product.scale
        scale, declared = source.scale, True
    if not (np.isfinite(scale) and scale > 0):
        raise UsageError(f"scale must be a positive number, got {scale:g} ({reader.path}); give it with --scale")
    if source.offset is not None:
        offset, declared = source.offset * scale, True
    if not np.isfinite(offset):
        raise UsageError(f"offset must be a finite number, got {offset:g} ({reader.path}); give it with --offset")
    nodata, found = _nodata(reader, index, dtype, source, product, told[2] if told else None)
    if assumed and not declared:
        notes.append(
            f"no scale is declared: {dtype} is read as reflectance = DN x {scale:.6g} (--scale says otherwise)"
        )
    color, stem = reader.colors[index - 1], Path(file_name(reader.path)).stem
    spectral = {} if product is None or product.spectral is None else product.spectral.tags
    band = Band(
        description=product.name if product else reader.descriptions[index - 1] or (None if single else stem),
        scale=scale,
        offset=offset,
        declared=declared,
        color="undefined" if color == "alpha" else color,  # named as data
        tags=spectral | reader.band_tags[index - 1],
        nodata=nodata,
        flags=reader.flags[index - 1],
    )
    return band, notes + found
