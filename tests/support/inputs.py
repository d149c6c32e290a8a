"""Inputs as other programs write them, each with what it means: for properties over their kinds."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from affine import Affine
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from support.builders import write_raster

EXAMPLES = int(os.environ.get("SCENELIFT_FUZZ", "40"))
"""Inputs a property tries; `make fuzz` sets many more."""
CRS = "EPSG:32633"
STALE = Affine(3, 0, 100_000, 0, -3, 200_000)
NAMES = [("y", "x"), ("lat", "lon"), ("northing", "easting"), ("row", "col"), ("Y", "X")]
NODATA_KINDS = ["none", "value", "lacking", "nan", "side-car"]
LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"tiled": False},
    "tiles": {"blockxsize": 16, "blockysize": 16},
    "pixels": {"tiled": False, "interleave": "pixel"},
    "deflate": {"tiled": False, "compress": "deflate", "predictor": 2},
    "big-endian": {"tiled": False, "ENDIANNESS": "BIG"},
    "bigtiff": {"tiled": False, "BIGTIFF": "YES", "compress": "zstd"},
    "envi": {"driver": "ENVI"},
    "jpeg 2000": {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "YCBCR420": "NO"},
}
"""How a raster is stored; whichever way, it holds the same."""
ENDINGS = {"ENVI": ".img", "JP2OpenJPEG": ".jp2"}
LOWEST = -1.7976931348623157e308
"""What many programs mark as missing in float64, and float32 lacks."""
MASK_KINDS = ["none", "dataset", "beside", "alpha", "each file"]
PLACES = ["coordinates", "transform", "both", "stale", "conventions"]


@dataclass(frozen=True)
class Case:
    """One input; everything about it follows from these fields."""

    dtype: str
    shape: tuple[int, int]
    bands: int
    transform: Affine
    scale: tuple[float, float] | None
    """Scale and offset that the file declares for its first band; None: it declares none."""
    nodata: str
    mask: str
    seed: int
    layout: str = "strips"
    apart: bool = False
    """Whether each band has a scale, an offset and a nodata value of its own."""

    @property
    def _random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @property
    def scales(self) -> list[tuple[float, float]] | None:
        """Scale and offset of each band, as declared."""
        if self.scale is None:
            return None
        scale, offset = self.scale
        return [(scale * (1 + i * self.apart), offset * (1 + i * self.apart)) for i in range(self.bands)]

    @property
    def missing_values(self) -> list[float | None]:
        """What the file declares as nodata of each band."""
        lacking = {"uint8": -9999.0, "uint16": -9999.0, "int16": 99999.0, "float32": -9999.0, "float64": 0.1}
        value = {"uint8": 255.0, "uint16": 0.0, "int16": -32768.0, "float32": -9999.0, "float64": LOWEST}
        known = {"none": None, "value": value, "side-car": value, "lacking": lacking}.get(self.nodata)
        first = float("nan") if self.nodata == "nan" else known and known[self.dtype]
        several = self.apart and first is not None and (self.nodata == "side-car" or self.mask == "each file")
        step = -1 if self.dtype == "uint8" else 1
        return [first + step * i if several and first is not None else first for i in range(self.bands)]

    @property
    def values(self) -> NDArray[Any]:
        """Stored values, (C, H, W): extremes of the data type among them."""
        random, size = self._random, (self.bands, *self.shape)
        if self.is_float:
            made = random.uniform(-1, 2, size).astype(self.dtype)
            if self.seed % 2:  # missing, whatever is declared
                made[random.random(size) < 0.1] = np.nan
        else:
            limits = np.iinfo(self.dtype)
            made = random.integers(limits.min, limits.max, size, endpoint=True).astype(self.dtype)
            made[random.random(size) < 0.1] = limits.min
        gaps = random.random(size) < 0.2
        for plane, gap, missing in zip(made, gaps, self.missing_values, strict=True):
            if missing is not None and self._stored(missing):
                plane[gap] = np.asarray(missing).astype(self.dtype)
        return made

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")

    @property
    def read_as(self) -> str:
        """The data type of the scene."""
        return "float32" if self.is_float else self.dtype

    def _stored(self, value: float) -> bool:
        if self.is_float:
            return True
        return bool(np.isfinite(value) and np.iinfo(self.dtype).min <= value <= np.iinfo(self.dtype).max)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Where masks say that there is data, (C, H, W); the same in all bands but for masks of each file."""
        size = (self.bands, *self.shape)
        if self.mask == "none":
            return np.ones(size, bool)
        drawn = np.random.default_rng(self.seed + 1).random(size) > 0.3
        return drawn if self.mask == "each file" else np.broadcast_to(drawn[:1], size)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where a reader must find data, (C, H, W)."""
        values = self.values
        valid = self.masks & np.isfinite(values)
        for i, missing in enumerate(self.missing_values):
            if missing is not None and self._stored(missing) and not np.isnan(missing):
                valid[i] &= values[i] != np.asarray(missing).astype(self.dtype)
        return valid

    @property
    def reflectance(self) -> NDArray[np.float32]:
        """What the values mean."""
        assumed = {"uint8": 1 / 255, "uint16": 1e-4, "int16": 1e-4, "float32": 1.0}[self.read_as]
        told = self.scales or [(assumed, 0.0)] * self.bands
        scale, offset = (np.array(numbers, np.float32)[:, None, None] for numbers in zip(*told, strict=True))
        with np.errstate(over="ignore"):  # of missing pixels
            return self.values.astype(np.float32) * scale + offset

    def write(self, folder: Path) -> tuple[str, ...]:
        """Write it; return the paths of its files."""
        folder.mkdir()
        values, masks = self.values, self.masks.astype(np.uint8) * 255
        how: dict[str, Any] = {"transform": self.transform, "crs": CRS} | LAYOUTS[self.layout]
        if self.is_float and "predictor" in how:
            how["predictor"] = 3
        if self.mask == "each file":
            paths = [folder / f"b{i}.tif" for i in range(self.bands)]
            for i, path in enumerate(paths):
                one = slice(i, i + 1)
                write_raster(path, values[one], mask=masks[i], **how, **self._said(one))
                self._beside(path, self.missing_values[one])
            return tuple(map(str, paths))
        said = self._said(slice(None))
        colors = [ColorInterp.gray, *[ColorInterp.undefined] * (self.bands - 1)]
        if self.mask == "alpha":
            opaque = 1 if self.is_float else np.iinfo(self.dtype).max
            alpha = (masks[:1] // 255 * np.asarray(opaque).astype(self.dtype)).astype(self.dtype)
            values, colors = np.concatenate([values, alpha]), [*colors, ColorInterp.alpha]
            if self.scale:
                said |= {"scales": [*said["scales"], 1.0], "offsets": [*said["offsets"], 0.0]}
        path = folder / f"a{ENDINGS.get(how.get('driver', ''), '.tif')}"
        with rasterio.Env(GDAL_PAM_ENABLED="driver" not in how):  # what it says beside the file is said below
            write_raster(path, values, colorinterp=None if "driver" in how else colors, **how, **said)
        if self.mask == "dataset":
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
                out.write_mask(masks[0])
        if self.mask == "beside":  # by itself: to open JPEG 2000 for changes is to compress it again, with loss
            beside = write_raster(path.with_name(f"{path.name}.msk"), masks[:1], self.transform, tiled=False)
            with rasterio.open(beside, "r+") as out:
                out.update_tags(**{f"INTERNAL_MASK_FLAGS_{i + 1}": "2" for i in range(self.bands)})
        self._beside(path, self.missing_values)
        return (str(path),)

    def _said(self, bands: slice) -> dict[str, Any]:
        """Return what files say of some bands themselves."""
        said: dict[str, Any] = {}
        missing = self.missing_values[bands][0]
        if self.nodata != "side-car" and missing is not None and self._stored(missing):
            said["nodata"] = missing
        if self.scales:
            said |= {"scales": [s for s, _ in self.scales[bands]], "offsets": [o for _, o in self.scales[bands]]}
        return said

    def _beside(self, path: Path, values: list[float | None]) -> None:
        """Declare nodata where the file itself cannot or does not."""
        told = [(i, v) for i, v in enumerate(values, 1) if v is not None]
        if not told or (self.nodata != "side-car" and self._stored(told[0][1])):
            return
        if self.mask == "alpha":
            told.append((self.bands + 1, told[0][1]))
        bands = "".join(f'<PAMRasterBand band="{i}"><NoDataValue>{v!r}</NoDataValue></PAMRasterBand>' for i, v in told)
        path.with_name(path.name + ".aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")


@st.composite
def cases(draw: st.DrawFn, masks: tuple[str, ...] = tuple(MASK_KINDS)) -> Case:
    """Draw a raster of any kind."""
    dtype = draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
    mask = draw(st.sampled_from(masks))
    nodata = draw(st.sampled_from(NODATA_KINDS))
    scale = draw(st.sampled_from([None, (1e-4, 0.0), (2.75e-5, -0.2), (1e-4, -0.1)]))
    transforms = [(10, 0, -10, 0), (10, 0, 10, 0), (10, 3, -10, 2), (0.5, 0, -2, 0)]
    a, b, e, d = draw(st.sampled_from(transforms))
    others = (
        mask in ("none", "beside")
        and nodata in ("none", "side-car")
        and scale is None
        and not dtype.startswith("float")
    )
    layout = draw(st.sampled_from([name for name in LAYOUTS if others or "driver" not in LAYOUTS[name]]))
    if "driver" in LAYOUTS[layout]:
        a, b, e, d = transforms[0]
    return Case(
        dtype=dtype,
        shape=(draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        bands=draw(st.integers(1, 3)),
        transform=Affine(a, b, 500_000, d, e, 5_000_000),
        scale=scale,
        nodata=nodata,
        mask=mask,
        seed=draw(st.integers(0, 2**31)),
        layout=layout,
        apart=draw(st.booleans()),
    )


@dataclass(frozen=True)
class Cube:
    """One variable of a Zarr store or netCDF file."""

    values: NDArray[Any]
    """(C, H, W), or of one band."""
    names: tuple[str, str]
    order: tuple[str, ...]
    """Dimensions as they are stored: "y", "x", "band", "time"."""
    down: bool
    """Whether rows run from north to south."""
    place: str
    scale: tuple[float, float] | None = None
    """Scale and offset that its attributes declare."""
    missing: str = ""
    """Attribute that declares 7 as missing; "nan": one that integers lack; empty: none."""
    zarr_format: int = 3

    @property
    def transform(self) -> Affine:
        return Affine(10, 0, 500_000, 0, -10 if self.down else 10, 5_000_000)

    @property
    def attributes(self) -> dict[str, float]:
        """What is said of the values."""
        told = {} if self.scale is None else {"scale_factor": self.scale[0], "add_offset": self.scale[1]}
        if self.missing == "nan":
            return told | {"nodata": float("nan")}
        return told | ({self.missing: 7} if self.missing else {})

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where a reader must find data."""
        return self.values != 7 if self.missing not in ("", "nan") else np.ones(self.values.shape, bool)

    @property
    def reflectance(self) -> NDArray[np.float32]:
        """What the values mean."""
        assumed = {"uint8": 1 / 255, "uint16": 1e-4, "int16": 1e-4}.get(str(self.values.dtype), 1.0)
        scale, offset = self.scale or (assumed, 0.0)
        return self.values.astype(np.float32) * np.float32(scale) + np.float32(offset)

    def dataset(self) -> xr.Dataset:
        """Return it as xarray holds it."""
        height, width = self.values.shape[1:]
        y, x = self.names
        t = self.transform
        coordinates = {y: t.f + t.e * (np.arange(height) + 0.5), x: t.c + t.a * (np.arange(width) + 0.5)}
        plain = xr.DataArray(self.values[:, None], dims=("band", "time", y, x))
        dims = [{"y": y, "x": x}.get(d, d) for d in self.order]
        drop = {d: 0 for d in plain.dims if d not in dims}
        made = plain.isel(drop).transpose(*dims)
        if self.place in ("coordinates", "both", "stale"):
            made = made.assign_coords(coordinates)
        data = made.assign_attrs({k: v for k, v in self.attributes.items() if k != "_FillValue"}).to_dataset(name="red")
        if "_FillValue" in self.attributes:
            data["red"].encoding["_FillValue"] = made.dtype.type(7)
        data = data.rio.set_spatial_dims(x_dim=x, y_dim=y).rio.write_crs(CRS)
        if self.place != "coordinates":
            data = data.rio.write_transform(STALE if self.place == "stale" else t)
        return data

    def write(self, path: Path) -> Path:
        """Store it as Zarr, or as netCDF if the name says so."""
        if self.place == "conventions":
            return self._by_conventions(path)
        data = self.dataset()
        if path.suffix == ".nc":
            data.to_netcdf(path, engine="scipy")
        else:
            data.to_zarr(path, zarr_format=self.zarr_format, consolidated=False)
        return path

    def _by_conventions(self, path: Path) -> Path:
        names = {"y": self.names[0], "x": self.names[1]}
        facts = {
            "proj:code": CRS,
            "spatial:dimensions": list(self.names),
            "spatial:transform": list(self.transform)[:6],
            "spatial:shape": list(self.values.shape[1:]),
        }
        made = xr.DataArray(self.values[:, None], dims=("band", "time", "y", "x"))
        made = made.isel({d: 0 for d in made.dims if d not in self.order}).transpose(*self.order)
        group = zarr.open_group(str(path), mode="w", zarr_format=self.zarr_format, attributes=facts)
        dims = [names.get(d, d) for d in self.order]
        how = {"dimension_names": dims} if self.zarr_format == 3 else {"attributes": {"_ARRAY_DIMENSIONS": dims}}
        red = group.create_array("red", shape=made.shape, dtype=str(made.dtype), **how)
        red[...] = made.to_numpy()
        red.attrs.update(
            self.attributes
        )  # a plain number, as other programs write it, beside what Zarr fills gaps with
        return path


ORDERS = [
    order
    for dims in (("y", "x"), ("band", "y", "x"), ("time", "y", "x"), ("time", "band", "y", "x"))
    for order in itertools.permutations(dims)
]


@st.composite
def cubes(draw: st.DrawFn) -> Cube:
    """Draw a variable of any order of dimensions, placed in any way."""
    order = draw(st.sampled_from(ORDERS))
    bands = draw(st.integers(2, 4)) if "band" in order else 1
    place = draw(st.sampled_from(PLACES))
    least = 2 if place in ("coordinates", "stale") else 1
    shape = bands, draw(st.integers(least, 8)), draw(st.integers(least, 8))
    dtype = draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
    values = np.random.default_rng(draw(st.integers(0, 2**31))).integers(1, 99, shape).astype(dtype)
    scale = draw(st.sampled_from([None, (1e-4, 0.0), (2e-4, -0.1)]))
    missing = draw(st.sampled_from(["", "_FillValue", "missing_value", "nodata", "nan"]))
    names, down, version = draw(st.sampled_from(NAMES)), draw(st.booleans()), draw(st.sampled_from([2, 3]))
    return Cube(values, names, order, down, place, scale, missing, version)
