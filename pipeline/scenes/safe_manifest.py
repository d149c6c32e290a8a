"""Checksums that a Sentinel-2 product carries: JPEG 2000 has none of its own, and damage reads as pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.scenes.safe import read_xml

NAME = "manifest.safe"
KINDS = {"MD5": "md5", "SHA-256": "sha256", "SHA3-256": "sha3_256"}


def check_manifest(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Compare files of a product with the checksums in its manifest; return those that it vouches for.

    A product without a manifest (some mirrors drop it), or one that does not name a file, cannot be checked.

    Raises
    ------
    SceneError
        If a file is not the one that was published, or the manifest cannot be read.
    """
    manifest = folder / NAME
    if not manifest.is_file():
        return []
    known = _checksums(manifest)
    checked = []
    for path in paths:
        kind, wanted = known.get(path.resolve(), ("", ""))
        if kind not in KINDS:
            continue
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, KINDS[kind]).hexdigest()
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
