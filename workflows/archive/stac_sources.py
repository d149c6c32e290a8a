"""Scenes of a STAC catalogue, collection, item or item collection, read with pystac."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pystac

from scenelift.pipeline.addresses import decoded, file_name, local_path, without_secrets
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.archive.entries import Entry, date_from, id_from, number_from
from scenelift.workflows.archive.manifest import place
from scenelift.workflows.archive.settings import Access

RASTERS = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/vnd+zarr", "application/vnd.zarr")
"""What the media types of assets that hold pixels begin with."""


def _where(name: str) -> str:
    path = local_path(name)
    return path if "://" in path else decoded(path)


class _LocalOnly(pystac.StacIO):
    """Reads files below one folder, and nothing else unless that is permitted."""

    def __init__(self, folder: Path, remote: bool, outside: bool) -> None:
        super().__init__()
        self._folder, self._remote, self._outside = folder, remote, outside

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        name = str(getattr(source, "__fspath__", lambda: source)())
        path, problem = place(_where(name), self._folder, self._outside, self._remote)
        if problem:
            raise UsageError(f"catalogue refers to {problem}")
        if "://" in path:
            import fsspec

            with fsspec.open(path, "rt") as file:
                return str(file.read())
        return Path(path).read_text(encoding="utf-8")

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
            found: Iterable[Any] = (_feature(number, v, href) for number, v in enumerate(values["features"], start=1))
        else:
            found = _items(pystac.read_dict(values, href=href, stac_io=io), io)
        for item in found:
            yield item if isinstance(item, Entry) else _entry(item, folder, remote, outside, assets)
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise UsageError(without_secrets(f"cannot read {source} as STAC: {error}")) from None


def search_stac(access: Access, box: tuple[float, float, float, float] | None) -> list[Entry]:
    """Return the scenes that a STAC API finds.

    Parameters
    ----------
    access : Access
        With the API's address, collections and times.
    box : (float, float, float, float), optional
        West, south, east, north in degrees.

    Raises
    ------
    UsageError
        If the network or the package pystac-client is missing, or the API refuses or finds nothing.
    """
    address = str(access.stac_api)
    known = without_secrets(address)
    if not access.remote:
        raise UsageError(f"--stac-api {known} is an address: add --allow-remote to read it")
    try:
        import pystac_client
        import pystac_client.exceptions
        import requests
    except ImportError:
        raise UsageError("--stac-api needs the package pystac-client: pip install 'scenelift[stac]'") from None
    # pystac-client tells of every request that fails as one of these
    failures = (*_UNREADABLE, pystac_client.exceptions.APIError, requests.RequestException, NotImplementedError)
    try:
        client = pystac_client.Client.open(address, timeout=TIMEOUT)
        search = client.search(
            collections=list(access.collection), bbox=box, datetime=access.datetime, max_items=access.max_items
        )
        items = list(search.items())
    except failures as error:
        told = without_secrets(" ".join(str(error).split()))[:300]
        raise UsageError(f"cannot search {known}: {told or type(error).__name__}") from None
    if not items:
        where = ", ".join(access.collection)
        raise UsageError(f"{known} has no items of {where} there and then: check --collection, --bbox and --datetime")
    return [_entry(item, Path.cwd(), access.remote, access.outside, access.assets) for item in items]


TIMEOUT = 60.0
"""Seconds to wait for a STAC API's response."""
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, pystac.STACError)


def _items(node: Any, io: pystac.StacIO) -> Iterator[Any]:
    """Yield the items below a node; a link that cannot be followed as a scene that has a problem."""
    if isinstance(node, pystac.Item):
        yield node
        return
    for link in node.links:
        if link.rel not in ("item", "child"):
            continue
        address = link.get_absolute_href() or str(link.href)
        try:
            found = pystac.read_dict(json.loads(io.read_text(address)), href=address, stac_io=io)
        except UsageError:
            raise
        except _UNREADABLE as error:
            yield _dead(address, error)
            continue
        yield from _items(found, io)


def _feature(number: int, values: dict[str, Any], href: str) -> Any:
    try:
        return pystac.Item.from_dict(values, href=href)
    except _UNREADABLE as error:
        name = values.get("id") if isinstance(values, dict) else None
        return _dead(str(name or f"feature-{number}"), error)


def _dead(address: str, error: Exception) -> Entry:
    known = without_secrets(address)
    problem = without_secrets(f"cannot read the item {known}: {error or type(error).__name__}")
    return Entry(id_from(file_name(known).removesuffix(".json")), (), item=known, problem=problem)


def _entry(item: pystac.Item, folder: Path, remote: bool, outside: bool, wanted: tuple[str, ...]) -> Entry:
    missing = [key for key in wanted if key not in item.assets]
    chosen = [item.assets[key] for key in wanted if key in item.assets] if wanted else _pixels(item)
    problem = f"item {item.id} has no asset {missing[0]!r}" if missing else None
    if not chosen and not problem:
        problem = f"item {item.id} has no raster assets; name some with --assets"
    placed = [place(_local(asset), folder, outside, remote) for asset in chosen]
    date, clouds = None, None
    try:
        date = date_from(item.datetime or item.properties.get("start_datetime"), item.id)
        clouds = number_from(item.properties.get("eo:cloud_cover"), item.id)
    except UsageError as error:
        problem = problem or str(error)
    return Entry(
        id=id_from(item.id),
        paths=tuple(path for path, _ in placed),
        date=date,
        cloud_cover=clouds,
        bands=_band_names(chosen),
        item=item.get_self_href() or f"{item.id}",
        told=_told(chosen),
        problem=problem or next((text for _, text in placed if text), None),
    )


def _local(asset: pystac.Asset) -> str:
    """Return where an asset is; a reference to a local file is percent-encoded, unless it is not."""
    href = asset.get_absolute_href() or asset.href
    path = local_path(href)
    return path if "://" in path else decoded(path)


def _told(assets: list[pystac.Asset]) -> tuple[tuple[float | None, float | None, float | None], ...]:
    """Return scale, offset and nodata of every band of the assets (STAC 1.0's raster:bands, 1.1's bands)."""
    told = [facts for asset in assets for facts in _facts(asset.extra_fields)]
    return tuple(told) if any(value is not None for facts in told for value in facts) else ()


def _facts(fields: dict[str, Any]) -> list[tuple[float | None, float | None, float | None]]:
    names = [[b if isinstance(b, dict) else {} for b in fields.get(key) or []] for key in ("bands", "raster:bands")]
    made = []
    for index in range(max(1, *map(len, names))):
        band = dict(fields)
        for listed in names:
            band |= listed[index] if index < len(listed) else {}
        made.append((_number(band, "scale"), _number(band, "offset"), _number(band, "nodata")))
    return made


def _number(band: dict[str, Any], name: str) -> float | None:
    value = band.get(f"raster:{name}", band.get(name))
    try:
        return None if value is None else float(value)  # "nan" too
    except (TypeError, ValueError):
        return None


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
