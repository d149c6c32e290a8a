"""What is at a path: a product that is known, or something else that is read by itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.scenes.products.eopf import find_eopf, is_eopf
from scenelift.pipeline.scenes.products.kinds import Product
from scenelift.pipeline.scenes.products.landsat import find_landsat, is_landsat
from scenelift.pipeline.scenes.products.members import TARS, ZIPS, Members
from scenelift.pipeline.scenes.products.safe import find_safe, is_safe
from scenelift.pipeline.scenes.zarrs import is_zarr

KNOWN = "a Sentinel-2 .SAFE folder or .SAFE.zip, a Landsat Collection 2 folder or tar, an EOPF Zarr store"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def find_product(path: str, every: bool) -> Product | None:
    """Return the product at a path; None for anything else.

    Parameters
    ----------
    path : str
    every : bool
        Whether the bands of all its grids are wanted, or those of one.

    Raises
    ------
    UsageError, SceneError
        If it looks like a product and is none, or cannot be read.
    """
    name, plain = path.rstrip("/").lower(), Path(path)
    if name.endswith(".safe"):
        return find_safe(Members(path.rstrip("/")), every)
    if plain.is_dir():
        if is_zarr(path):
            return find_eopf(path, every) if is_eopf(path) else None
        members = Members(path.rstrip("/"))
        if found := _of_members(members, every):
            return found
        raise UsageError(f"{path} is a folder that holds {_held(members)}, and is not {KNOWN}: name a file in it")
    if name.endswith(_COMPRESSED) and plain.is_file():
        raise UsageError(f"{path} is a compressed tar, which is slow to read in place: unpack it and name the folder")
    if name.endswith((*ZIPS, *TARS)) and plain.is_file():
        members = Members(path)
        if found := _of_members(members, every):
            return found
        raise SceneError(f"{path} holds {_held(members)}, and is not {KNOWN}: unpack it and name what you mean")
    return None


def _of_members(members: Members, every: bool) -> Product | None:
    if is_safe(members):
        return find_safe(members, every)
    return find_landsat(members, every) if is_landsat(members) else None


def _held(members: Members) -> str:
    """Return what files there are, for messages."""
    endings = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in members.names)
    return ", ".join(f"{count} files of {ending}" for ending, count in endings.most_common(3)) or "no files"


def is_product(path: Path) -> bool:
    """Whether a path is a product by its names alone, as archives are searched."""
    if path.is_dir():
        return path.suffix.upper() == ".SAFE" or next(path.glob("*_MTL.txt"), None) is not None
    return path.name.upper().endswith(".SAFE.ZIP") or (
        path.suffix.lower() in TARS and path.name[:4].upper() in ("LC08", "LC09", "LE07", "LT05", "LT04")
    )
