"""Landsat Collection 2 scenes of Level 1 and 2: band files beside an MTL file, in a folder or a tar.

Level-1 numbers become reflectance at the top of the atmosphere by ``(M * DN + A) / sin(sun elevation)``, Level-2's
surface reflectance by ``M * DN + A`` (USGS, Landsat 8-9 Data Users Handbook, LSDS-2103). The panchromatic band lies on
a grid twice as fine that begins half a fine pixel further out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.scenes.products.bands import LANDSAT
from scenelift.pipeline.scenes.products.kinds import Layer, Product, ProductBand
from scenelift.pipeline.scenes.products.members import Members

PAN, CIRRUS = "8", "9"
_NEEDS_PAN = "is the panchromatic band: begin with -m pansharpen to have all bands on its grid"
_NO_REFLECTANCE = "is not read: it sees cirrus, or its numbers are no reflectance"
Tables = dict[str, dict[str, str]]


def is_landsat(members: Members) -> bool:
    """Whether files are a Landsat scene."""
    return any(name.endswith("_MTL.txt") for name in members.names)


def find_landsat(members: Members, every: bool) -> Product:
    """Find the bands of a scene and what their numbers mean.

    Parameters
    ----------
    members : Members
    every : bool
        Whether the panchromatic band is wanted too.

    Raises
    ------
    SceneError
        If its metadata are not of Collection 2, or a band that they name is missing.
    """
    metadata = [name for name in members.names if name.endswith("_MTL.txt")]
    if len(metadata) != 1:
        raise SceneError(f"{members.path} should hold one _MTL.txt, found {len(metadata)}: a scene is one folder")
    where = members.shown(metadata[0])
    tables = read_mtl(members.text(metadata[0]))
    contents, image = tables.get("PRODUCT_CONTENTS", {}), tables.get("IMAGE_ATTRIBUTES", {})
    if contents.get("COLLECTION_NUMBER") != "02":
        raise SceneError(
            f"{where} is not of Landsat Collection 2 (COLLECTION_NUMBER {contents.get('COLLECTION_NUMBER', 'missing')})"
            ": fetch the scene from Collection 2, or name its band files with --scale"
        )
    level = contents.get("PROCESSING_LEVEL", "")
    surface = level.startswith("L2")
    craft = image.get("SPACECRAFT_ID", "")
    rescaling = tables.get("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS" if surface else "LEVEL1_RADIOMETRIC_RESCALING", {})
    sun = 1.0 if surface else math.sin(math.radians(_number(image, "SUN_ELEVATION", where)))
    if sun <= 0:
        raise SceneError(f"{where}: the sun is below the horizon, so there is no reflectance: name the band files")
    listed = {
        key.removeprefix("FILE_NAME_BAND_"): text for key, text in contents.items() if key.startswith("FILE_NAME_BAND_")
    }
    bands, others = [], {}
    for key, file in listed.items():
        name = f"B{key}" if key[0].isdigit() else key
        if key == CIRRUS or f"REFLECTANCE_MULT_BAND_{key}" not in rescaling:
            others[name] = _NO_REFLECTANCE
        elif key == PAN and not every:
            others[name] = _NEEDS_PAN
        else:
            scale, offset = (
                _number(rescaling, f"REFLECTANCE_{kind}_BAND_{key}", where) / sun for kind in ("MULT", "ADD")
            )
            layer = _layer(members, file, where)
            bands.append(ProductBand(name, layer, scale, offset, 0.0, LANDSAT.get(craft, {}).get(name)))
    if not bands:
        raise SceneError(f"{where} names no band with reflectance: fetch the scene again")
    quality = contents.get("FILE_NAME_QUALITY_L1_PIXEL")
    left = [name for name, why in others.items() if why == _NO_REFLECTANCE]
    packed = f" ({members.packed})" if members.packed else ""
    return Product(
        kind=f"{craft.replace('_', ' ').title() or 'Landsat'} Collection 2 Level-{'2' if surface else '1'}{packed}",
        bands=tuple(bands),
        tags=_tags(contents, image),
        masks={"qa_pixel": _layer(members, quality, where)} if quality else {},
        notes=(f"not read: {', '.join(left)} (thermal, or cirrus)",) if left else (),
        others=others,
        sensor="landsat",
    )


def read_mtl(text: str) -> Tables:
    """Return the groups of an MTL file, the innermost of each line by name (USGS's ODL: ``GROUP``, ``KEY = VALUE``)."""
    tables: Tables = {}
    group: list[str] = []
    for line in text.splitlines():
        match = re.match(r'\s*([A-Z0-9_]+)\s*=\s*"?(.*?)"?\s*$', line)
        if match is None:
            continue
        key, value = match.groups()
        if key == "GROUP":
            group.append(value)
        elif key == "END_GROUP":
            del group[-1:]
        elif group:
            tables.setdefault(group[-1], {})[key] = value
    return tables


def _number(table: Mapping[str, str], key: str, where: str) -> float:
    try:
        value = float(table[key])
    except (KeyError, ValueError):
        raise SceneError(f"{where}: {key} is {table.get(key, 'missing')}, no number: fetch the scene again") from None
    if not math.isfinite(value):
        raise SceneError(f"{where}: {key} is {value}, no number: fetch the scene again")
    return value


def _layer(members: Members, file: str, where: str) -> Layer:
    found = next((name for name in members.names if PurePosixPath(name).name.lower() == file.lower()), None)
    if found is None:
        raise SceneError(f"{where} names {file}, which is not there: fetch the scene again")
    return members.layer(found)


def _tags(contents: Mapping[str, str], image: Mapping[str, str]) -> dict[str, str]:
    time = image.get("SCENE_CENTER_TIME", "").rstrip("Z")[:12]
    found = {
        "PRODUCT_URI": contents.get("LANDSAT_PRODUCT_ID"),
        "SPACECRAFT_NAME": image.get("SPACECRAFT_ID"),
        "ACQUISITIONDATETIME": f"{image['DATE_ACQUIRED']}T{time}Z" if image.get("DATE_ACQUIRED") and time else None,
        "CLOUD_COVERAGE_ASSESSMENT": image.get("CLOUD_COVER"),
    }
    return {key: value for key, value in found.items() if value}
