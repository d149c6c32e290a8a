"""`apply` models to an array in memory or to a lazy one."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from scenelift.pipeline.cluster import ClusterSettings, cores, worker_index
from scenelift.pipeline.cluster.arrays import Piece, is_lazy, lazily, stacked
from scenelift.pipeline.enhance import Enhancer, context, enhance_region
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.jobs.checks import doubts
from scenelift.pipeline.jobs.plan import ModelHandle
from scenelift.pipeline.outputs.outputs import Output, output_of
from scenelift.pipeline.scenes.multigrid import Placement
from scenelift.pipeline.scenes.radiometry import ASSUMED_SCALE, DTYPES, READ_AS, held
from scenelift.pipeline.scenes.scenes import Band, Scene, SceneSource, no_crs
from scenelift.pipeline.tiles import TileGrid, Window
from scenelift.workflows.choosing.models import is_network
from scenelift.workflows.choosing.prepared import prepare_opened
from scenelift.workflows.refusals import model_names, refuse_models
from scenelift.workflows.settings import BLOCK, DEFAULT_MODEL, EnhanceSettings

if TYPE_CHECKING:
    pass

Array = TypeVar("Array")

ROWS, COLS = ("y", "lat", "latitude", "northing"), ("x", "lon", "longitude", "easting")
"""Names of the dimensions of a grid."""
BANDS = ("band", "bands", "channel", "wavelength", "variable")


@dataclass(frozen=True)
class Pixels:
    """An array in memory, or a lazy one, that is read like a raster file."""

    values: Any
    """Shape (C, height, width)."""
    window: Window
    """The part of the scene that it is."""
    path: str = "array"
    chunk_bytes: int = sys.maxsize
    """Taken to be large, so that one window is read at a time: what stands behind a lazy array is not known."""
    slow_tiles: tuple[tuple[int, int], ...] = ()

    def __hash__(self) -> int:
        return id(self)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Data type of each band."""
        return (str(self.values.dtype),) * len(self.values)

    def read(self, indexes: Sequence[int], window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands; see `scenelift.pipeline.scenes.rasters.Reader`."""
        rows, cols = window.slices(self.window)
        values = np.asarray(self.values[[index - 1 for index in indexes], rows, cols])
        return values, np.broadcast_to(True, values.shape)


@dataclass(frozen=True)
class ArrayJob:
    """Everything that a block of an array needs; small and picklable."""

    scene: Scene
    """Without readers."""
    models: tuple[ModelHandle, ...]
    output: Output
    batch: int

    @property
    def scale(self) -> int:
        """Output pixels for one input pixel along each axis."""
        return self.output.grid.height // self.scene.grid.height

    def loaded(self) -> list[Enhancer]:
        """Return the models, loaded once in each process."""
        return [model.load(worker_index()) for model in self.models]

    def __call__(self, values: NDArray[np.generic], wide: Window, target: Window) -> NDArray[np.generic]:
        """Return the block `target` (on the input's grid), made from the pixels of the window `wide`."""
        scene = _reading(self.scene, Pixels(values, wide))
        region = scene.read(wide)
        if not region.crop(target).valid.any():
            shape = len(self.output.bands), target.height * self.scale, target.width * self.scale
            return np.full(shape, self.output.missing, self.output.dtype)
        result = enhance_region(region, target, scene.grid.shape, self.loaded(), masked=scene.masked, batch=self.batch)
        return self.output.encode(result.values, result.valid)


def _reading(scene: Scene, pixels: Pixels) -> Scene:
    return replace(scene, readers=tuple((cast(Any, pixels), i) for i in range(1, len(scene.bands) + 1)))


@dataclass(frozen=True)
class Radiometry:
    """How the numbers of an array are read."""

    scale: float | tuple[float, ...] | None = None
    """Reflectance for one DN, of all bands or of each; None: by data type, as for files."""
    offset: float | tuple[float, ...] = 0.0
    """Reflectance at DN 0."""
    nodata: float | None = None

    @classmethod
    def of(cls, array: Any, given: tuple[float | None, ...]) -> Radiometry:
        """Return what the user says, else what the attributes say as rioxarray writes them; floats are reflectance."""
        scale, offset, nodata = given
        said = array.attrs
        nodata = said.get("_FillValue") if nodata is None else nodata
        if scale is not None or np.issubdtype(array.dtype, np.floating):
            return cls(scale, offset or 0.0, nodata)
        scales, offsets = said.get("scales", said.get("scale_factor", 1.0)), said.get("offsets", said.get("add_offset"))
        declared = tuple(np.ravel(scales)), tuple(np.ravel(0.0 if offsets is None else offsets))
        if {*declared[0]} == {1.0} and {*declared[1]} == {0.0}:
            return cls(None, offset or 0.0, nodata)
        return cls(declared[0], declared[1] if offset is None else offset, nodata)


def apply(
    data: Array,
    models: str | Enhancer | Sequence[str | Enhancer] = DEFAULT_MODEL,
    settings: EnhanceSettings | None = None,
    *,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> Array:
    """Enhance an array; what comes back is of the same kind and data type.

    The engine is that of `enhance`: the result is the same, bit for bit, however the array is chunked, and the same as
    that of the durable job on a file with these pixels. An array in memory is done at once, in this process; a lazy one
    (Dask) when its result is computed, by whatever scheduler computes it. What networks are told of blur and noise is
    found at once in up to 16 windows of each image, unless `settings` give it.

    Parameters
    ----------
    data : DataArray, Dataset, ndarray or dask Array
        Rows and columns are the dimensions y and x (or lat, lon, ...), of arrays without names the last two; bands are
        the dimension "band", or the one before. Every index of all other dimensions (time) is an image of its own. The
        variables of a Dataset are bands. Floats are reflectance, NaN where there is no data; integers (uint8, uint16,
        int16) are DN.
    models : str, Enhancer or sequence of them
        As for `enhance`.
    settings : Settings, optional
        Fields that concern files (shards, overwrite, allow_holes) have no meaning here.
    bands : sequence of str, optional
        Names of the bands, where the array has none: red, green and blue (or B04, B03, B02) go through a network for
        colours where there is one.
    scale, offset : float, optional
        Reflectance for one DN, and at DN 0; default: the attributes scale_factor and add_offset, else by data type.
    nodata : float, optional
        Integers: the value of missing pixels; default: the attribute _FillValue.

    Returns
    -------
    of the same kind as `data`
        With coordinates of the finer grid.

    Raises
    ------
    UsageError
        If the array's kind, shape or data type is none that can be enhanced, or if a network is given floats that
        cannot be reflectance, and no `scale`.
    ModelError
        If there is no such model, or it does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import scenelift
    >>> pixels = np.arange(100, 3172, dtype="uint16").reshape(3, 32, 32)
    >>> finer = scenelift.apply(pixels, "bicubic-x2", bands=("red", "green", "blue"), scale=1e-4)
    >>> finer.shape, str(finer.dtype)
    ((3, 64, 64), 'uint16')
    """
    refuse_models(models)
    settings = settings or EnhanceSettings()
    given = scale, offset, nodata
    kind = type(data).__module__.partition(".")[0]
    if kind == "xarray" and hasattr(data, "data_vars"):
        return cast(Array, _of_dataset(cast(Any, data), models, settings, given))
    if kind == "xarray":
        return cast(Array, _of_dataarray(cast(Any, data), models, settings, bands, given))
    if not (isinstance(data, np.ndarray) or is_lazy(data)):
        raise UsageError(f"apply takes a DataArray, a Dataset, a numpy or a Dask array, got {type(data).__name__}")
    array: Any = data
    if array.ndim < 2:
        raise UsageError(f"apply takes an image, (H, W) or (..., C, H, W), got shape {array.shape}")
    flat = array[None] if array.ndim == 2 else array
    made, _ = _of_array(flat, models, settings, bands, Radiometry(scale, offset or 0.0, nodata))
    return cast(Array, made[0] if array.ndim == 2 and made.shape[0] == 1 else made)


def _of_dataset(data: Any, models: Any, settings: EnhanceSettings, given: tuple[float | None, ...]) -> Any:
    spatial = [name for name, variable in data.data_vars.items() if _named(variable.dims, ROWS)]
    if not spatial:
        dims = ", ".join(map(str, data.dims))
        raise UsageError(f"no variable of the Dataset has the dimensions y and x, only {dims}")
    stack = data[spatial].to_array("band")
    first = data[spatial[0]]
    stack.attrs = {k: v for k, v in first.attrs.items() if k in ("scale_factor", "add_offset", "_FillValue")}
    made = _of_dataarray(stack, models, settings, None, given).to_dataset("band")
    made.attrs = data.attrs
    for name in spatial:
        if name in made:
            made[name].attrs = data[name].attrs
    others = [name for name in data.data_vars if name not in spatial]
    return made.assign({name: data[name] for name in others})


def _of_dataarray(
    data: Any, models: Any, settings: EnhanceSettings, bands: Sequence[str] | None, given: tuple[float | None, ...]
) -> Any:
    import xarray as xr

    row, col = _named(data.dims, ROWS), _named(data.dims, COLS)
    if row is None or col is None:
        raise UsageError(f"the array needs dimensions y and x (or lat, lon), got {', '.join(map(str, data.dims))}")
    band = _named(data.dims, BANDS)
    others = [dim for dim in data.dims if dim not in (row, col, band)]
    ordered = data.transpose(*others, *([band] if band else []), row, col)
    values = ordered.data if band else ordered.data[..., None, :, :]
    if bands is None and band is not None and band in data.coords:
        bands = [str(name) for name in data.coords[band].values]
    made, output = _of_array(values, models, settings, bands, Radiometry.of(data, given))
    k = made.shape[-1] // values.shape[-1]
    dims = [*others, *([band] if band else []), row, col]
    if not band:
        if len(output.bands) > 1:
            dims.insert(-2, "band")
        else:
            made = made[..., 0, :, :]
    coords = _finer(data, row, col, band, k)
    if "band" in dims and (band is None or len(output.bands) != data.sizes[band]):
        coords = {name: its for name, its in coords.items() if band not in getattr(its, "dims", ())}
        coords["band" if band is None else band] = [b.description or str(i) for i, b in enumerate(output.bands, 1)]
    found = xr.DataArray(made, coords, dims, name=data.name, attrs=data.attrs)
    found.encoding = {key: value for key, value in data.encoding.items() if key in ("_FillValue", "grid_mapping")}
    return found.transpose(*data.dims) if set(dims) == set(data.dims) else found


def _named(dims: Sequence[Any], names: Sequence[str]) -> Any:
    return next((dim for dim in dims if str(dim).lower() in names), None)


def _finer(data: Any, row: Any, col: Any, band: Any, k: int) -> dict[Any, Any]:
    """Return the coordinates of an array whose rows and columns are `k` times as fine."""
    coords: dict[Any, Any] = {}
    for name, coord in data.coords.items():
        if name in (row, col):
            centres = np.asarray(coord.values)
            if len(centres) < 2 or not np.issubdtype(centres.dtype, np.number):
                continue
            step = (centres[-1] - centres[0]) / (len(centres) - 1)
            edge = centres[0] - step / 2
            fine = centres if k == 1 else edge + (np.arange(len(centres) * k) + 0.5) * (step / k)
            coords[name] = (name, fine, coord.attrs)
        elif row in coord.dims or col in coord.dims:
            continue  # of every pixel of the coarse grid
        elif name == "spatial_ref" or "GeoTransform" in coord.attrs:
            coords[name] = coord.copy()
            if text := coord.attrs.get("GeoTransform"):
                x, a, b, y, d, e = map(float, str(text).split())
                finer = (x, a / k, b / k, y, d / k, e / k)
                coords[name].attrs = coord.attrs | {"GeoTransform": " ".join(map(repr, finer))}
        else:
            coords[name] = coord
    return coords


def _of_array(
    values: Any, models: Any, settings: EnhanceSettings, names: Sequence[str] | None, how: Radiometry
) -> tuple[Any, Output]:
    """Enhance (..., C, H, W); return the result and the description of its bands."""
    if settings.crop is not None:
        raise UsageError("crop is for files: apply the models to a part of the array instead")
    *others, bands, height, width = values.shape
    if names is not None and len(names) != bands:
        raise UsageError(f"bands must name the {bands} bands of the array, got {len(names)} names")
    scene = _scene((bands, height, width), values.dtype, names, how)
    wanted = "float32" if np.issubdtype(values.dtype, np.floating) else str(values.dtype)
    settings = replace(settings, dtype=settings.dtype or wanted)
    made, output, wide = [], None, str(values.dtype) in READ_AS
    for index in np.ndindex(*others):
        one, output = _of_image(values[index], scene, models, settings)
        made.append(_widened(one, output, how.nodata) if wide and settings.dtype == "float32" else one)
    if output is None:
        raise UsageError(f"the array is empty: its shape is {values.shape}")
    if not others:
        return made[0], output
    if is_lazy(made[0]):
        return stacked(made, tuple(others)), output
    return np.stack(made).reshape(*others, *made[0].shape), output


def _widened(made: Any, output: Output, nodata: float | None) -> Any:
    """Return float32 as float64, with the nodata value that the array came with: float32 may round it, or lack it."""
    missing = np.float32(output.missing)
    wide = made.astype(np.float64)
    if nodata is None or float(missing) == nodata or math.isnan(nodata):
        return wide
    return np.where(np.isnan(made) if np.isnan(missing) else made == missing, nodata, wide)


def _scene(shape: tuple[int, int, int], dtype: Any, names: Sequence[str] | None, how: Radiometry) -> Scene:
    """Describe an array as the scene it would be in a file."""
    kind = READ_AS.get(str(dtype), str(dtype))
    if kind not in DTYPES:
        supported = ", ".join((*DTYPES, *READ_AS))
        raise UsageError(f"the array must be of one of {supported}, got {dtype}: convert it first")
    bands, height, width = shape
    nodata = None if how.nodata is None or (kind != "float32" and math.isnan(how.nodata)) else float(how.nodata)
    if kind == "float32" and nodata is None:
        nodata = math.nan
    assumed = how.scale is None
    scales = np.broadcast_to(ASSUMED_SCALE[kind] if how.scale is None else how.scale, bands)
    offsets = np.broadcast_to(how.offset, bands)
    described = tuple(
        Band(None if names is None else str(names[i]), float(scales[i]), float(offsets[i]), not assumed, nodata=nodata)
        for i in range(bands)
    )
    return Scene(
        source=SceneSource(("array",), scale=float(scales[0]) if not assumed else None),
        readers=(),
        alphas=(None,) * bands,
        alpha=None,
        grid=GeoGrid(no_crs(), Affine.translation(0, height) @ Affine.scale(1, -1), height, width),
        dtype=kind,
        bands=described,
        nodata=held(nodata, kind),
        mask_kind="none" if nodata is None else "nodata",
        tags={},
        tag_domains={},
        numbers=tuple(range(1, bands + 1)),
        placements=(Placement(),) * bands,
    )


def _of_image(image: Any, scene: Scene, models: Any, settings: EnhanceSettings) -> tuple[Any, Output]:
    """Enhance one image (C, H, W)."""
    whole = Window(0, 0, *scene.grid.shape)
    # a lazy array's blocks run side by side as its scheduler likes, each on one thread
    cluster = ClusterSettings(workers=cores() if is_lazy(image) else 0)
    seen, names = _reading(scene, Pixels(image, whole)), model_names(models)
    if any(map(is_network, names)):
        doubts(seen, network=True)  # refuses what cannot be reflectance, as of files
    prepared = prepare_opened(seen, (), names, settings, cluster)
    specs = [model.spec for model in prepared.models]
    side = settings.block or BLOCK
    block = min(side, scene.grid.height), min(side, scene.grid.width)
    output = output_of(scene, specs, block, dtype=settings.dtype)
    job = ArrayJob(scene, tuple(model.handle for model in prepared.models), output, settings.batch or 8)
    tiles = TileGrid(scene.grid.shape, block)
    wide = functools.partial(context, scene.grid.shape, specs=specs, masked=scene.masked)
    pieces = [(wide(tiles[index])[0], tiles[index]) for index in range(len(tiles))]
    if is_lazy(image):
        across = -(-scene.grid.width // block[1])
        rows = [
            [Piece(*around.slices(), target.scaled(job.scale).shape, (around, target)) for around, target in row]
            for row in (pieces[start : start + across] for start in range(0, len(pieces), across))
        ]
        return lazily(image, rows, job, len(output.bands), output.dtype), output
    made = np.empty((len(output.bands), *output.grid.shape), output.dtype)
    for around, target in pieces:
        rows_cols = target.scaled(job.scale).slices(Window(0, 0, *output.grid.shape))
        made[(slice(None), *rows_cols)] = job(image[(slice(None), *around.slices(whole))], around, target)
    return made, output
