"""Sentinel-2 products in ESA's SAFE folders: their bands and what their metadata say about the numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.scenes.products.bands import SENTINEL2
from scenelift.pipeline.scenes.products.kinds import Product, ProductBand
from scenelift.pipeline.scenes.products.members import Members

RESOLUTIONS = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B11": 20, "B12": 20,
}  # fmt: skip
"""Metres of each band as the sensor takes it; Level-2A also has coarser copies, and no B10 (which sees cirrus only)."""
MANIFEST = "manifest.safe"
CHECKSUMS = {"MD5": "md5", "SHA-256": "sha256", "SHA3-256": "sha3_256"}
NEEDS_SHARPENER = "is of another resolution: begin with a sharpener (-m sharpen-closed) to have it too"
_METADATA = re.compile(r"(MTD_MSIL(1C|2A)|[^/]*_MTD_SAFL(1C|2A)_[^/]*)\.xml")
_SCL = re.compile(r"_SCL(_L2A_[^/]*)?_(20|60)m\.jp2$")


def is_safe(members: Members) -> bool:
    """Whether files are a Sentinel-2 product."""
    return any(_METADATA.fullmatch(name) for name in members.names)


def find_safe(members: Members, every: bool) -> Product:
    """Find the bands of a Level-1C or Level-2A product and read its radiometric offset.

    Parameters
    ----------
    members : Members
    every : bool
        Whether all bands are wanted, each at the resolution of `RESOLUTIONS`, or those of 10 m.

    Raises
    ------
    UsageError
        If the folder does not exist.
    SceneError
        If it lacks a band, or its metadata cannot be read.
    """
    folder = members.path
    if not Path(folder).exists():
        raise UsageError(f"no such folder: {folder}; name one that exists")
    wanted = [band for band, metres in RESOLUTIONS.items() if every or metres == 10]
    files = [name for name in members.names if re.match(r"GRANULE/[^/]+/IMG_DATA/.*\.jp2$", name)]
    chosen = {}
    for band in wanted:
        found = [name for name in files if _is_band(name, band)]
        if len(found) != 1:
            older = " (products before December 2016 may hold several tiles: cut one out)" if len(found) > 1 else ""
            raise SceneError(
                f"{folder} should hold one {RESOLUTIONS[band]} m file of band {band}, found {len(found)}{older}: fetch "
                "the product again"
            )
        chosen[band] = found[0]
    metadata = [name for name in members.names if _METADATA.fullmatch(name)]
    if len(metadata) != 1:
        raise SceneError(
            f"{folder} should hold one MTD_MSIL1C.xml or MTD_MSIL2A.xml, found {len(metadata)}: fetch the product again"
        )
    shown = members.shown(metadata[0])
    scale, offset, tags = _numbers(parse_xml(members.text(metadata[0]), shown), shown)
    bands = [ProductBand(b, members.layer(n), scale, offset, 0.0, SENTINEL2[b]) for b, n in chosen.items()]
    layers = sorted(name for name in files if _SCL.search(name))  # R20m comes before R60m
    level = "Level-2A" if "L2A" in metadata[0] else "Level-1C"
    return Product(
        kind=f"Sentinel-2 {level} (.SAFE{', zipped' if members.packed else ''})",
        bands=tuple(bands),
        tags=tags,
        masks={"scl": members.layer(layers[0])} if layers else {},
        others={} if every else {b: NEEDS_SHARPENER for b in RESOLUTIONS if b not in chosen},
        sensor="sentinel-2",
        folder=None if members.packed else Path(folder),
    )


def read_xml(path: Path) -> Element:
    """Return the root of an XML file of a product.

    Raises
    ------
    SceneError
        If it cannot be read, or defines a document type or entities, which product metadata never do.
    """
    try:
        return parse_xml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error}") from None


def parse_xml(text: str, path: str) -> Element:
    """Return the root of the XML that a file of a product holds.

    Raises
    ------
    SceneError
        As for `read_xml`.
    """
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except DefusedXmlException:
        raise SceneError(f"{path} defines XML entities; product metadata never do: fetch the product again") from None
    except ParseError as error:
        raise SceneError(f"cannot read {path}: {error}") from None
    return root


def _is_band(name: str, band: str) -> bool:
    # L2A: T32TPS_20220105T101411_B02_10m.jp2; L1C: T32TPS_20220105T101411_B02.jp2
    return re.search(rf"_{band}(_{RESOLUTIONS[band]}m)?\.jp2$", name) is not None


def _numbers(root: Element, metadata: str) -> tuple[float, float, dict[str, str]]:
    """Return scale and offset to reflectance, and acquisition metadata."""

    def first(*names: str) -> str | None:
        return next((e.text.strip() for n in names for e in root.iter(n) if e.text and e.text.strip()), None)

    # The offset of each band is listed by number; ESA has so far given all bands the same.
    offsets = {e.text.strip() for n in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET") for e in root.iter(n) if e.text}
    if len(offsets) > 1:
        raise SceneError(f"{metadata} gives bands different offsets ({', '.join(sorted(offsets))}); use --offset")
    try:
        quantification = float(first("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE") or 10000)
        offset = float(offsets.pop()) if offsets else 0.0
    except ValueError as error:
        raise SceneError(
            f"{metadata}: quantification or offset is no number ({error}): fetch the product again"
        ) from None
    if quantification <= 0:
        raise SceneError(
            f"{metadata}: the quantification value must be positive, got {quantification:g}: fetch the product again"
        )
    wanted = {
        "PRODUCT_URI": ("PRODUCT_URI", "PRODUCT_URI_2A", "PRODUCT_URI_1C"),
        "PROCESSING_BASELINE": ("PROCESSING_BASELINE",),
        "TIFFTAG_DATETIME": ("PRODUCT_START_TIME",),
        "SPACECRAFT_NAME": ("SPACECRAFT_NAME",),
        "CLOUD_COVERAGE_ASSESSMENT": ("Cloud_Coverage_Assessment",),
    }
    tags = {key: value for key, names in wanted.items() if (value := first(*names)) is not None}
    scale = 1 / quantification
    return scale, offset * scale, tags


def check_manifest(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Compare files of a product with the checksums in its manifest; return those that it vouches for.

    A product without a manifest (some mirrors drop it), or one that does not name a file, cannot be checked.

    Raises
    ------
    SceneError
        If a file is not the one that was published, or the manifest cannot be read.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return []
    known = _checksums(manifest)
    checked = []
    for path in paths:
        kind, wanted = known.get(path.resolve(), ("", ""))
        if kind not in CHECKSUMS:
            continue
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, CHECKSUMS[kind]).hexdigest()
        except OSError as error:
            raise SceneError(f"cannot read {path}: {error.strerror or error}") from None
        if found != wanted.lower():
            raise SceneError(f"{path} is damaged: its {kind} is not the one in {manifest}; fetch the product again")
        checked.append(path)
    return checked


def _checksums(manifest: Path) -> dict[Path, tuple[str, str]]:
    root = read_xml(manifest)
    found = {}
    for stream in root.iter("byteStream"):
        place, checksum = stream.find("fileLocation"), stream.find("checksum")
        if place is not None and checksum is not None and checksum.text:
            path = (manifest.parent / place.get("href", "")).resolve()
            found[path] = (checksum.get("checksumName", ""), checksum.text.strip())
    return found
