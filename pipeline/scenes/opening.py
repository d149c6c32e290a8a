"""Opening a scene: what its files must be, and what is assumed where they do not say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from scenelift.pipeline.addresses import file_name
from scenelift.pipeline.errors import GridsError, SceneError, UnplacedError, UsageError
from scenelift.pipeline.grids import GeoGrid, crs_of
from scenelift.pipeline.scenes.limits import Limits, is_remote
from scenelift.pipeline.scenes.masks import QA, SCL, Rule, SceneMask, kind_of_file
from scenelift.pipeline.scenes.multigrid import EXTENTS, on_finest, placement_of
from scenelift.pipeline.scenes.products.bands import Label, choose
from scenelift.pipeline.scenes.products.kinds import ClassLayer, Layer, Product, ProductBand
from scenelift.pipeline.scenes.products.recognizing import find_product
from scenelift.pipeline.scenes.radiometry import DTYPES, READ_AS, band_of, held, told_of
from scenelift.pipeline.scenes.rasters import Reader, open_raster
from scenelift.pipeline.scenes.scenes import PIXELS, Scene, SceneSource, no_crs
from scenelift.pipeline.scenes.zarrs import is_zarr, open_zarr

WARP = "warp one onto the other first"
"""What can always be done about grids that differ."""
_Located = tuple[Reader, int]
"""An open file and a 1-based band in it."""


def open_scene(source: SceneSource) -> Scene:
    """Open a scene and check that it can be enhanced.

    Raises
    ------
    SceneError
        If a file is unreadable, or of no supported driver or data type.
    GridsError
        If its bands do not share one grid, or, where several are wanted, these do not fit each other.
    UsageError
        If a file or a band number does not exist, or the raster has no CRS and none is given.
    """
    try:
        return _opened(source)
    except SceneError as error:
        error.exit_code = UsageError.exit_code  # nothing was begun yet: another file or an option helps
        raise


def _opened(source: SceneSource) -> Scene:
    files, product = _open_files(source)
    every = _every(files, product)
    numbers = _pick_bands(every, source, product)
    classes = _classes(every, numbers, source, product)
    files, first = _on_one_grid(files, source, [every[n - 1].file for n in numbers])
    every = _every(files, product)
    readers = [every[n - 1].at for n in numbers]
    facts = {one.at: one.product for one in every}
    stored = sorted({f.dtypes[i - 1] for f, i in readers})
    dtypes = {READ_AS.get(kind, kind) for kind in stored}
    if len(dtypes) > 1 or not dtypes <= {*DTYPES}:
        raise SceneError(
            f"{first.path} holds {', '.join(stored)}; supported is one of {', '.join((*DTYPES, *READ_AS))}: "
            "convert it, or choose --bands of one type"
        )
    (dtype,) = dtypes
    told = told_of(files, source)
    described = [
        band_of(f, i, dtype, source, facts[f, i], told.get((f, i)), single=len(files) == 1) for f, i in readers
    ]
    bands = tuple(band for band, _ in described)
    alphas, alpha = _alphas(files, readers)
    nodata = held(next((band.nodata for band in bands if band.nodata is not None), None), dtype)
    crs, transform = _place(first, source), first.transform
    grid = GeoGrid(crs, transform, *first.shape)
    mask = _open_mask(source, product, grid)
    placements = tuple(placement_of(f) for f, _ in readers)
    apart = _masks_apart(readers, alphas, alpha) or (mask is not None and len(set(placements)) > 1)
    if apart and nodata is None:
        nodata = _lowest(dtype)
    masked = any(f.has_mask for f, _ in readers)
    if mask is not None and nodata is None and not (alpha or masked):
        nodata = _lowest(dtype)
    kind = "alpha" if alpha else "nodata" if nodata is not None else "mask" if masked else "none"
    notes = [*product.notes] if product else []
    notes += [
        f"{kind} is read as {READ_AS[kind]}: 7 digits are kept, values beyond 3.4e38 are missing"
        for kind in stored
        if kind in READ_AS
    ]
    notes += [note for _, found in described for note in found] + [note for f in files for note in f.notes]
    notes += [f"masks differ by band: missing pixels are marked by {nodata:g} in each"] if apart else []
    if source.crs != PIXELS and any(f.has_gcps for f in (first, *files)):
        notes.append("ground control points are not carried over: the affine transform says where the pixels are")
    return Scene(
        source=source,
        readers=tuple(readers),
        alphas=alphas,
        alpha=alpha,
        grid=grid,
        dtype=dtype,
        bands=bands,
        nodata=nodata,
        mask_kind=kind,
        tags=first.tags | dict(product.tags if product else {}),
        tag_domains=first.tag_domains,
        notes=tuple(dict.fromkeys(notes)),
        numbers=tuple(numbers),
        hidden=tuple(n for n, one in enumerate(every, 1) if one.color == "alpha" and n not in numbers),
        placements=placements,
        product=product.kind if product else "",
        sensor=product.sensor if product else None,
        mask=mask,
        classes=classes,
        times=next((f.times for f in files if f.times), ()),
    )


def _lowest(dtype: str) -> float:
    """Return what marks missing pixels where nothing else does."""
    return float("nan") if dtype == "float32" else float(np.iinfo(dtype).min)


def _open_mask(source: SceneSource, product: Product | None, grid: GeoGrid) -> SceneMask | None:
    """Open the mask that is asked for and bring it onto the scene's grid; None if none is."""
    if source.mask is None:
        if source.mask_classes:
            raise UsageError("--mask-classes says which classes of a mask count: give --mask too")
        return None
    name, kind = file_name(source.paths[0]), source.mask.lower()
    if kind in (SCL, QA):
        layer = product.masks.get(kind) if product else None
        if layer is None:
            what = product.kind if product else "no product of Sentinel-2 or Landsat"
            raise UsageError(f"--mask {source.mask}: {name} is {what}, which has none; name a raster with --mask FILE")
        reader = layer.open(source.limits)
    else:
        reader = _open(source.mask, source.limits)
        kind = kind_of_file(file_name(source.mask))
    return SceneMask.lay(reader, Rule.of(kind, source.mask_classes), grid, name)


@dataclass(frozen=True)
class _Stored:
    """One band of the files, an alpha band too."""

    file: Reader
    index: int
    product: ProductBand | None

    @property
    def at(self) -> _Located:
        return self.file, self.index

    @property
    def color(self) -> str:
        return self.file.colors[self.index - 1]

    @property
    def flags(self) -> str | None:
        return self.file.flags[self.index - 1]

    def label(self, single: bool) -> Label:
        """Return by what it may be named."""
        if self.product is not None:
            return Label(self.product.name, "", self.product.spectral.tags if self.product.spectral else {})
        name = self.file.descriptions[self.index - 1] or (None if single else Path(file_name(self.file.path)).stem)
        return Label(name, self.color, self.file.band_tags[self.index - 1])


def _every(files: list[Reader], product: Product | None) -> list[_Stored]:
    """Return all bands of the files in their order; those of a product hold one each."""
    facts = product.bands if product else [None] * len(files)
    return [_Stored(f, i, band) for f, band in zip(files, facts, strict=True) for i in range(1, f.count + 1)]


def _on_one_grid(files: list[Reader], source: SceneSource, used: list[Reader]) -> tuple[list[Reader], Reader]:
    """Return the files on one grid, and the one whose grid it is; a file of which no band is wanted decides nothing."""
    if source.extent is None:
        kept = [f for f in files if any(f is other for other in used) or not all(f.flags)]
        _check_grids(kept)  # classes that are left out decide no grid
        return files, kept[0]
    if source.extent not in EXTENTS:
        raise UsageError(f"--extent must be one of {', '.join(EXTENTS)}, got {source.extent!r}")
    wanted = [f for f in files if any(f is other for other in used)]
    placed, first = on_finest(wanted, source.extent)
    by_file = {id(f): on for f, on in zip(wanted, placed, strict=True)}
    return [by_file.get(id(f), f) for f in files], first


def _check_grids(files: list[Reader]) -> None:
    """Check that all files have one grid, within a thousandth of a pixel: programs round differently."""
    first = files[0]
    for other in files[1:]:
        problem = _difference(first, other)
        if problem:
            raise GridsError(
                f"{other.path} is not on the grid of {first.path}: {problem}; bands of one scene must share it: {WARP}"
            )


def _difference(one: Reader, other: Reader) -> str | None:
    if other.shape != one.shape:
        return f"{other.shape[0]} x {other.shape[1]} pixels against {one.shape[0]} x {one.shape[1]}"
    if other.crs != one.crs and not (one.crs and other.crs and one.crs.to_epsg() == other.crs.to_epsg() is not None):
        return f"coordinate reference system {_crs_text(other)} against {_crs_text(one)}"
    if other.transform == one.transform or one.transform.is_degenerate or other.transform.is_degenerate:
        return None if other.transform == one.transform else "its transform is no grid"
    crs = one.crs or CRS.from_epsg(4326)
    here, there = (GeoGrid(crs, f.transform, *f.shape) for f in (one, other))
    if here.same_as(there):
        return None
    col, row = ~one.transform @ other.transform @ (0, 0)
    return f"its first pixel lies {col:+.3f} columns and {row:+.3f} rows off, its pixels are {there.resolution} in size"


def _crs_text(reader: Reader) -> str:
    return reader.crs.to_string()[:60] if reader.crs else "none"


def _pick_bands(every: list[_Stored], source: SceneSource, product: Product | None) -> list[int]:
    """Return the 1-based numbers of the bands wanted, in the order wanted."""
    path, single = every[0].file.path, len({id(one.file) for one in every}) == 1
    numbers = [n for n, one in enumerate(every, start=1) if one.color != "alpha"]
    numbers = [n for n in numbers if not every[n - 1].flags] or numbers  # classes by themselves are refused by name
    if source.bands is not None:
        where = source.paths[0] if product else path
        numbers = choose(source.bands, [b.label(single) for b in every], where, product.others if product else {})
    if not numbers:
        raise SceneError(f"{path} has no band but alpha; if that is data, name it with --bands")
    return numbers


def _classes(
    every: list[_Stored], numbers: Sequence[int], source: SceneSource, product: Product | None
) -> tuple[ClassLayer, ...]:
    """Return the layers of classes and flags that are not among the bands."""
    if product is not None:
        return tuple(ClassLayer(kind, layer) for kind, layer in product.masks.items())
    paths = dict(zip(dict.fromkeys(id(one.file) for one in every), source.paths, strict=True))
    left = [one for n, one in enumerate(every, start=1) if one.flags and n not in numbers]
    found = {}
    for one in left:
        path = paths[id(one.file)]
        stem = Path(file_name(path)).stem
        name = stem if one.file.count == 1 else one.file.descriptions[one.index - 1] or f"{stem}_{one.index}"
        name = re.sub(r"\W+", "_", name).lower()
        found[name] = ClassLayer(name, Layer(path), one.index)
    return tuple(found.values())


def _alphas(files: list[Reader], readers: list[_Located]) -> tuple[tuple[_Located | None, ...], _Located | None]:
    """Return the alpha band that masks each band, and the one that masks them all and has a place in an output."""
    wanted = {(id(f), i) for f, i in readers}
    used = {id(f) for f, _ in readers}
    of: dict[int, _Located] = {}
    for file in files:
        for index in range(1, file.count + 1):
            if file.colors[index - 1] == "alpha" and (id(file), index) not in wanted and id(file) in used:
                of.setdefault(id(file), (file, index))
    alphas = tuple(of.get(id(f)) for f, _ in readers)
    return alphas, alphas[0] if len(used) == 1 else None


def _masks_apart(readers: list[_Located], alphas: Sequence[_Located | None], alpha: _Located | None) -> bool:
    """Whether a pixel can be masked in one band and not in another: no mask of an output could say so."""
    several = len({id(f) for f, _ in readers}) > 1
    return any(f.mask_per_band for f, _ in readers) or (
        several and (any(f.has_mask for f, _ in readers) or (alpha is None and any(alphas)))
    )


def _open_files(source: SceneSource) -> tuple[list[Reader], Product | None]:
    if not source.paths:
        raise UsageError("no input given: name a raster, a .SAFE folder or a Zarr store")
    if len(source.paths) == 1 and not is_remote(source.paths[0]):
        product = find_product(source.paths[0], every=source.extent is not None)
        if product is not None:
            if source.time is not None:
                raise UsageError(f"--time {source.time}: {file_name(source.paths[0])} is of one time: leave it out")
            return [band.layer.open(source.limits) for band in product.bands], product
    files = [_open(path, source.limits, source.time) for path in source.paths]
    if source.time is not None and not any(f.times for f in files):
        raise UsageError(f"--time {source.time}: {file_name(source.paths[0])} has no dimension of time: leave it out")
    return files, None


def _open(path: str, limits: Limits, time: str | None = None) -> Reader:
    if not is_zarr(path):
        return open_raster(path, limits, time)
    store = open_zarr(path, time=time)
    limits.check(path, store.shape, store.count, store.chunk_bytes)
    return store


def _place(reader: Reader, source: SceneSource) -> CRS:
    """Return the CRS of a raster whose affine transform says where it is."""
    if source.crs == PIXELS:
        return no_crs()
    by_rpcs = "RPC" in reader.tag_domains
    if reader.transform.is_identity and (reader.has_gcps or by_rpcs):
        told, how = ("ground control points", "-tps") if reader.has_gcps else ("rational polynomials (RPC)", "-rpc")
        raise UnplacedError(
            f"{reader.path} is placed by {told} alone, and its pixels follow no grid: "
            f"warp it first, e.g. gdalwarp {how} -t_srs EPSG:… IN OUT"
        )
    if source.crs is not None:
        try:
            return crs_of(source.crs)
        except (CRSError, ValueError):
            raise UsageError(
                f"--crs must be a coordinate reference system such as EPSG:32633, got {source.crs!r}"
            ) from None
    if reader.crs is None:
        raise UnplacedError(f"{reader.path} has no coordinate reference system; give one with --crs EPSG:…")
    if reader.transform.is_identity:
        raise UnplacedError(
            f"{reader.path} has a coordinate reference system but no affine transform, so it is unknown where its "
            "pixels are; georeference it first, or give --crs to go on with pixel coordinates"
        )
    return reader.crs
