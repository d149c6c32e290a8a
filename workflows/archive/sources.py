"""Finding the scenes that a user names: files, folders, patterns, manifests, STAC catalogues."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scenelift.pipeline.addresses import is_litter, local_path
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.products.recognizing import is_product
from scenelift.pipeline.scenes.zarrs import is_zarr
from scenelift.workflows.archive.entries import Entry, id_from, in_order
from scenelift.workflows.archive.manifest import TABLES, read_manifest
from scenelift.workflows.archive.settings import Access

RASTERS = (".tif", ".tiff", ".jp2")
"""Files that count as scenes in a folder; others (.nc, .png, …) must be named, or be in a manifest."""


def find_scenes(
    sources: Sequence[str], output: Path, access: Access, box: tuple[float, float, float, float] | None = None
) -> list[Entry]:
    """Return the scenes of an archive in the order they are to start.

    Parameters
    ----------
    sources : sequence of str
        Rasters, `.SAFE` folders and Zarr stores; folders, searched to the bottom; patterns such as ``2024/**/*.tif``;
        manifests (.csv, .parquet, .json); STAC catalogues, collections, items and item collections (.json).
    output : Path
        Folder of the archive to be made; nothing below it is a source.
    access : Access
        With a STAC API, what that finds comes after the sources.
    box : (float, float, float, float), optional
        West, south, east, north in degrees, to search a STAC API by.

    Raises
    ------
    UsageError
        If a source names nothing or is the output, or two scenes would have one id.
    """
    if not sources and access.stac_api is None:
        raise UsageError("no scenes given: name files, folders, patterns, a manifest or a STAC catalogue")
    found: list[Entry] = []
    for source in sources:
        entries = list(_of(source, output, access))
        if not entries:
            raise UsageError(f"no scenes at {source} (in folders, files ending in {', '.join(RASTERS)}, .SAFE, .zarr)")
        found += entries
    if access.stac_api is not None:
        from scenelift.workflows.archive.stac_sources import search_stac

        found += search_stac(access, box)
    return in_order(_without_repeats(found))


def _without_repeats(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Drop files that were named twice, as overlapping patterns do; the first one counts."""
    seen: set[tuple[str, ...]] = set()
    for entry in entries:
        paths = tuple(os.path.abspath(p) if "://" not in p else p for p in entry.paths)  # noqa: PTH100
        if paths not in seen or not paths:
            seen.add(paths)
            yield entry


def _of(source: str, output: Path, access: Access) -> Iterator[Entry]:
    source = local_path(source)
    path = Path(source)
    if "://" in source:
        yield from _catalogue(source, access)
    elif _is_scene(path):
        yield Entry(id_from(path.name), (str(path),))
    elif path.is_dir() and path.resolve() == output.resolve():
        raise UsageError(
            f"--output {output} is the folder of the scenes itself, and the next run would take outputs for scenes: "
            f"choose another folder, such as {output / 'enhanced'}"
        )
    elif path.is_dir():
        yield from (Entry(id_from(p.relative_to(path).as_posix()), (str(p),)) for p in _search(path, output))
    elif path.suffix.lower() == ".json" and path.is_file() and _is_stac(path):
        yield from _catalogue(source, access)
    elif path.suffix.lower() in TABLES and path.is_file():
        yield from read_manifest(path, access.outside, access.remote)
    elif any(sign in source for sign in "*?["):
        yield from _matches(source, output)
    elif path.is_file():
        yield Entry(id_from(path.name), (str(path),))
    else:
        raise UsageError(f"no such file or folder: {source}; name one that exists")


def _catalogue(source: str, access: Access) -> Iterator[Entry]:
    from scenelift.workflows.archive.stac_sources import read_stac

    return read_stac(source, access.remote, access.outside, access.assets)


def _is_scene(path: Path) -> bool:
    """Whether a path is one scene by its name: a raster, a product of Sentinel-2 or Landsat, a Zarr store."""
    if path.is_dir():
        return is_zarr(str(path)) or is_product(path)
    return (path.suffix.lower() in RASTERS or is_product(path)) and path.is_file()


def _search(folder: Path, output: Path) -> list[Path]:
    """Return the scenes below a folder, sorted; not inside products, stores, hidden folders, or the output.

    A link leads to a scene or folder only if nothing else does: links to a folder above would lead round for ever.
    """
    found: dict[Path, Path] = {}
    _look(folder, {output.resolve(), folder.resolve()}, found)
    return sorted(found.values())


def _look(folder: Path, seen: set[Path], found: dict[Path, Path]) -> None:
    links: list[Path] = []
    plain: list[Path] = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            (links if path.is_symlink() else plain).append(path)
    folders = []
    for path in plain:
        if _is_scene(path):
            found.setdefault(path.resolve(), path)
        elif path.is_dir() and path.resolve() not in seen:
            seen.add(path.resolve())
            folders.append(path)
    for path in folders:
        _look(path, seen, found)
    for path in links:
        if _is_scene(path):
            found.setdefault(path.resolve(), path)
        elif path.is_dir() and path.resolve() not in seen:
            seen.add(path.resolve())
            _look(path, seen, found)


def _matches(pattern: str, output: Path) -> Iterator[Entry]:
    """Yield what a pattern matches; ids are paths below its first folder without a sign of a pattern."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    root, target = Path(*parts[:fixed]), output.resolve()
    for path in sorted(root.glob(str(Path(*parts[fixed:])))):
        inside = target in path.resolve().parents or any(p.suffix in (".SAFE", ".zarr") for p in path.parents)
        if not (inside or is_litter(path.name)) and (path.is_file() or _is_scene(path)):
            yield Entry(id_from(path.relative_to(root).as_posix()), (str(path),))


def _is_stac(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if not isinstance(found, dict):
        return False
    return "stac_version" in found or found.get("type") == "FeatureCollection"
