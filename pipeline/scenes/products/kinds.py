"""What a product is to a scene: bands with what its metadata say of their numbers, and layers that mask them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scenelift.pipeline.scenes.limits import Limits
from scenelift.pipeline.scenes.products.bands import Spectral
from scenelift.pipeline.scenes.rasters import RasterFile, Reader, open_raster
from scenelift.pipeline.scenes.zarrs import is_zarr, open_zarr


@dataclass(frozen=True)
class Layer:
    """One raster of a product."""

    path: str
    """What messages call it; a file by itself, or a group of a Zarr store."""
    archive: str | None = None
    """Name by which GDAL opens it within a zip or tar."""
    variable: str | None = None
    """Its variable in the group."""

    def open(self, limits: Limits) -> Reader:
        """Open it.

        Raises
        ------
        UsageError, SceneError
            If it does not exist or cannot be read.
        """
        found: Reader
        if self.variable is not None or (self.archive is None and is_zarr(self.path)):
            found = open_zarr(self.path, self.variable)
        elif self.archive is not None:
            found = RasterFile(self.path, self.archive)
        else:
            return open_raster(self.path, limits)
        limits.check(self.path, found.shape, found.count, found.chunk_bytes)
        return found


@dataclass(frozen=True)
class ClassLayer:
    """Classes or flags that lie beside the bands of a scene: numbers that are names, and are copied, never averaged."""

    name: str
    """What the copy is called after: "scl", "qa_pixel", or the name of the file."""
    layer: Layer
    band: int = 1
    """1-based, in the layer."""


@dataclass(frozen=True)
class ProductBand:
    """One band of a product."""

    name: str
    """As the product calls it: "B04"."""
    layer: Layer
    scale: float | None = None
    """Reflectance per DN; None: as its file says."""
    offset: float = 0.0
    """Reflectance at DN 0, where there is a scale."""
    nodata: float | None = None
    """None: as its file says."""
    spectral: Spectral | None = None


@dataclass(frozen=True)
class Product:
    """What was found at a path."""

    kind: str
    """For people: "Sentinel-2 Level-2A (.SAFE)"."""
    bands: tuple[ProductBand, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    """Acquisition metadata for the output."""
    masks: Mapping[str, Layer] = field(default_factory=dict)
    """Layers that say which pixels are cloud and the like, by the name of their kind: "scl", "qa_pixel"."""
    notes: tuple[str, ...] = ()
    """What is left out: lines for people."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Bands that are there and are not read, and how they would be."""
    sensor: str | None = None
    """"sentinel-2" or "landsat", where the blur of its bands is published or agreed on."""
    folder: Path | None = None
    """Of a product in a plain folder."""
