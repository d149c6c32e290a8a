"""Scenes of a STAC catalogue, collection, item or item collection, read with pystac."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pystac

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.archive.entries import Entry, date_from, id_from, number_from
from scenelift.workflows.archive.manifest import place

RASTERS = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/vnd+zarr", "application/vnd.zarr")
"""What the media types of assets that hold pixels begin with."""


class _LocalOnly(pystac.StacIO):
    """Reads files below one folder, and nothing else unless that is permitted."""

    def __init__(self, folder: Path, remote: bool, outside: bool) -> None:
        super().__init__()
        self._folder, self._remote, self._outside = folder, remote, outside

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        name = str(getattr(source, "__fspath__", lambda: source)())
        path, problem = place(name, self._folder, self._outside, self._remote)
        if problem:
            raise UsageError(f"catalogue refers to {problem}")
        if "://" in name:
            import fsspec

            with fsspec.open(name, "rt") as file:
                return str(file.read())
        return Path(path).read_text()

    def write_text(self, dest: Any, txt: str, *args: Any, **kwargs: Any) -> None:
        raise UsageError(f"a source is read, never written: {dest}")


def read_stac(source: str, remote: bool, outside: bool, assets: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the scenes of a catalogue.

    An item is a scene; its files are the assets named in `assets`, or else all those of a raster media type with the
    role "data" (all of a raster media type, where none has a role). Files that must not be opened (see
    :func:`scenelift.workflows.archive.manifest.place`) are a problem of their scene.

    Parameters
    ----------
    source : str
        Path or address of a JSON file.
    remote, outside : bool
        Whether addresses, and files that do not lie below the catalogue's folder, may be read.
    assets : tuple of str
        Keys, in the order of the bands wanted.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    if "://" in source and not remote:
        raise UsageError(f"{source} is an address: add --allow-remote to read it")
    folder = Path(source).absolute().parent if "://" not in source else Path.cwd()
    io = _LocalOnly(folder, remote, outside)
    href = source if "://" in source else str(Path(source).absolute())
    try:
        values = json.loads(io.read_text(href))
        if values.get("type") == "FeatureCollection":
            items: Iterable[pystac.Item] = (pystac.Item.from_dict(v, href=href) for v in values["features"])
        else:
            found = pystac.read_dict(values, href=href, stac_io=io)
            items = [found] if isinstance(found, pystac.Item) else found.get_items(recursive=True)  # type: ignore[attr-defined]
        for item in items:
            yield _entry(item, folder, remote, outside, assets)
    except (OSError, ValueError, KeyError, pystac.STACError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"cannot read {source} as STAC: {error}") from None


def _entry(item: pystac.Item, folder: Path, remote: bool, outside: bool, wanted: tuple[str, ...]) -> Entry:
    date = date_from(item.datetime or item.properties.get("start_datetime"), item.id)
    missing = [key for key in wanted if key not in item.assets]
    chosen = [item.assets[key] for key in wanted if key in item.assets] if wanted else _pixels(item)
    problem = f"item {item.id} has no asset {missing[0]!r}" if missing else None
    if not chosen and not problem:
        problem = f"item {item.id} has no raster assets; name some with --assets"
    placed = [place(_local(asset.get_absolute_href() or asset.href), folder, outside, remote) for asset in chosen]
    return Entry(
        id=id_from(item.id),
        paths=tuple(path for path, _ in placed),
        date=date,
        cloud_cover=number_from(item.properties.get("eo:cloud_cover"), item.id),
        bands=_band_names(chosen),
        item=item.get_self_href() or f"{item.id}",
        problem=problem or next((text for _, text in placed if text), None),
    )


def _local(href: str) -> str:
    return href.removeprefix("file://")


def _pixels(item: pystac.Item) -> list[pystac.Asset]:
    rasters = [a for a in item.assets.values() if (a.media_type or "").lower().startswith(RASTERS)]
    data = [a for a in rasters if "data" in (a.roles or [])]
    return data or [a for a in rasters if not set(a.roles or ()) & {"thumbnail", "overview", "visual", "metadata"}]


def _band_names(assets: list[pystac.Asset]) -> tuple[str, ...]:
    """Return the names of all bands of the assets, in order; none if one asset does not say."""
    names: list[str] = []
    for asset in assets:
        bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
        found = [str(b.get("name") or "") for b in bands if isinstance(b, dict)]
        if not found or "" in found:
            return ()
        names += found
    return tuple(names)
