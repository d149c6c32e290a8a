"""Sentinel-2 products in ESA's SAFE folders: their bands and what their metadata say about the numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from scenelift.pipeline.addresses import is_litter
from scenelift.pipeline.errors import SceneError, UsageError

RESOLUTIONS = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B11": 20, "B12": 20,
}  # fmt: skip
"""Metres of each band as the sensor takes it; Level-2A also has coarser copies, and no B10 (which sees cirrus only)."""
BANDS_10M = tuple(band for band, metres in RESOLUTIONS.items() if metres == 10)
MANIFEST = "manifest.safe"
CHECKSUMS = {"MD5": "md5", "SHA-256": "sha256", "SHA3-256": "sha3_256"}


@dataclass(frozen=True)
class SafeBands:
    """Bands of one product."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    """Their JPEG 2000 files."""
    quantification: float
    """DN per unit of reflectance, 10000 so far."""
    offset: float
    """Added to the DN before division: 0, or -1000 since processing baseline 04.00."""
    tags: dict[str, str]
    """Acquisition metadata for the output."""


def find_bands(folder: Path, bands: Sequence[str] = BANDS_10M) -> SafeBands:
    """Find bands of a Level-1C or Level-2A product and read its radiometric offset.

    Parameters
    ----------
    folder : Path
    bands : sequence of str
        Their names; each is taken at the resolution of `RESOLUTIONS`.

    Raises
    ------
    UsageError
        If the folder does not exist.
    SceneError
        If it lacks a band, or its metadata cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}; name one that exists")
    files, paths = sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")), []
    for band in bands:
        found = [path for path in files if _is_band(path.name, band)]
        if len(found) != 1:
            raise SceneError(
                f"{folder} should hold one {RESOLUTIONS[band]} m file of band {band}, found {len(found)}: fetch the "
                "product again"
            )
        paths.append(found[0])
    metadata = sorted(p for p in folder.glob("MTD_MSIL*.xml") if not is_litter(p.name))
    if len(metadata) != 1:
        raise SceneError(
            f"{folder} should hold one MTD_MSIL1C.xml or MTD_MSIL2A.xml, found {len(metadata)}: fetch the product again"
        )
    return _with_metadata(tuple(bands), tuple(paths), metadata[0])


def read_xml(path: Path) -> Element:
    """Return the root of an XML file of a product.

    Raises
    ------
    SceneError
        If it cannot be read, or defines a document type or entities, which product metadata never do.
    """
    try:
        root: Element = fromstring(path.read_text(encoding="utf-8", errors="replace"), forbid_dtd=True)
    except DefusedXmlException:
        raise SceneError(f"{path} defines XML entities; product metadata never do: fetch the product again") from None
    except (OSError, ParseError) as error:
        raise SceneError(f"cannot read {path}: {error}") from None
    return root


def _is_band(name: str, band: str) -> bool:
    if is_litter(name):
        return False
    # L2A: T32TPS_20220105T101411_B02_10m.jp2; L1C: T32TPS_20220105T101411_B02.jp2
    return re.search(rf"_{band}(_{RESOLUTIONS[band]}m)?\.jp2$", name) is not None


def _with_metadata(bands: tuple[str, ...], paths: tuple[Path, ...], metadata: Path) -> SafeBands:
    root = read_xml(metadata)

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
    return SafeBands(bands, paths, quantification, offset, tags)


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
