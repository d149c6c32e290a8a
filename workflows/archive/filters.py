"""Which scenes of an archive are wanted: by place, date, cloud cover and bands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.scenes.products.bands import Label, choose
from scenelift.pipeline.settings import option
from scenelift.workflows.archive.entries import Entry, date_from, number_from
from scenelift.workflows.settings import INPUT

if TYPE_CHECKING:  # --help does not wait for GDAL
    from scenelift.pipeline.scenes.places import Place
    from scenelift.pipeline.scenes.scenes import Scene

TAKEN = ("ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "datetime", "PRODUCT_START_TIME")
"""Metadata items that tell when a scene was taken."""
WRITTEN = "TIFFTAG_DATETIME"
"""When a file was written: most programs fill it so. Believed last."""


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Return west, south, east, north in degrees from "west,south,east,north".

    Raises
    ------
    UsageError
        If it is not written so.
    """
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bbox must be west,south,east,north in degrees, got {text!r}") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise UsageError(f"--bbox must be west,south,east,north in degrees, got {text!r}")
    return west, south, east, north


def parse_dates(text: str) -> tuple[datetime, datetime]:
    """Return the first moment of a span and the first one after it, UTC.

    Parameters
    ----------
    text : str
        "2024-05-01", "2024-05", "2024", or two of them as "2024-05/2024-07"; either may be empty.

    Raises
    ------
    UsageError
        If it is not written so.
    """
    first, slash, last = text.partition("/")
    earliest = _span(first)[0] if first else datetime.min.replace(tzinfo=UTC)
    latest = _span(last if slash else first)[1] if (last or not slash) else datetime.max.replace(tzinfo=UTC)
    if earliest >= latest:
        raise UsageError(f"--date must begin before it ends, got {text!r}")
    return earliest, latest


def _span(text: str) -> tuple[datetime, datetime]:
    """Return the first moment of a year, month or day, and the first one after it."""
    try:
        parts = [int(part) for part in text.split("-")]
        year, month, day = [*parts, 1, 1][: max(3, len(parts))]
        start = datetime(year, month, day, tzinfo=UTC)
        if len(parts) == 1:
            return start, start.replace(year=start.year + 1)
        if len(parts) == 2:
            return start, (start + timedelta(days=32)).replace(day=1)
        return start, start + timedelta(days=1)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--date must be 2024, 2024-05, 2024-05-01 or two of them with a slash, got {text!r}"
        ) from None


@dataclass(frozen=True)
class Filters:
    """What a scene must be like to be done."""

    bbox: tuple[float, float, float, float] | None = option(
        None,
        "Only scenes that touch west,south,east,north (degrees); west > east crosses the date line.",
        panel=INPUT,
        parse=parse_box,
    )
    dates: tuple[datetime, datetime] | None = option(
        None,
        "Only scenes of 2024, 2024-05, 2024-05-01 or two of them, 2024-05-01/2024-07; either may be empty.",
        "--date",
        panel=INPUT,
        parse=parse_dates,
    )
    """First moment, and the first one after the last."""
    cloud_cover: float | None = option(
        None, "Only scenes with at most so many percent; with --mask as that measures it.", panel=INPUT
    )

    geometry: str | None = option(
        None,
        "Only scenes that touch a geometry: a file of GeoJSON or WKT, or either itself, in degrees.",
        panel=INPUT,
    )
    """As text; a file is read at once, and what it holds is kept."""

    def __post_init__(self) -> None:
        if self.geometry is not None:
            from scenelift.pipeline.outlines import degrees_of

            object.__setattr__(self, "geometry", degrees_of(str(self.geometry)))
        if self.cloud_cover is not None and not 0 <= self.cloud_cover <= 100:
            raise UsageError(f"--cloud-cover must be a percentage from 0 to 100, got {self.cloud_cover:g}")

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees around what is wanted; None: anywhere."""
        if self.bbox or self.geometry is None:
            return self.bbox
        from scenelift.pipeline.outlines import bounds_of

        return bounds_of(self.geometry)

    def reason(self, facts: Facts) -> str | None:
        """Return why a scene is not wanted; None if it is. A scene whose facts are unknown is not wanted."""
        if self.bbox and not _touch(self.bbox, facts.place):
            return "outside --bbox"
        if self.geometry and not _meet(self.geometry, facts.place):
            return "outside --geometry"
        if self.dates:
            if facts.date is None:
                return "no date known for --date"
            if not self.dates[0] <= facts.date < self.dates[1]:
                return f"taken {facts.date:%Y-%m-%d}, outside --date"
        if self.cloud_cover is not None:
            if facts.cloud_cover is None:
                return "no cloud cover known for --cloud-cover"
            if facts.cloud_cover > self.cloud_cover:
                return f"{facts.cloud_cover:g}% clouds"
        return None


@dataclass(frozen=True)
class Facts:
    """What filters, catalogue and page want to know of a scene."""

    place: Place
    date: datetime | None
    cloud_cover: float | None


def facts_of(entry: Entry, scene: Scene) -> Facts:
    """Return a scene's place, date and cloud cover: from its list or catalogue, else from the file itself.

    With a mask, cloud cover is the share of the pixels with data that it hides.
    """
    from scenelift.pipeline.scenes.places import place_of

    tags = scene.tags
    date = entry.date
    for name in TAKEN:
        date = date or _tag_date(tags.get(name)) or _tag_date(scene.tag_domains.get("IMAGERY", {}).get(name))
    date = date or _name_date(entry.id) or _name_date(scene.name) or _tag_date(tags.get(WRITTEN))
    clouds = entry.cloud_cover
    if clouds is None:
        try:
            clouds = number_from(tags.get("CLOUD_COVERAGE_ASSESSMENT"), "")
        except UsageError:
            clouds = None
    if scene.mask is not None:  # measured counts before what is said
        clouds = round(100 * scene.mask.shares().of_data, 3)
    return Facts(place_of(scene.grid), date, clouds)


def _tag_date(text: str | None) -> datetime | None:
    if not text:
        return None
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text)  # TIFF writes 2024:05:01 10:30:00
    try:
        return date_from(text, "")
    except UsageError:
        return None


def _name_date(name: str) -> datetime | None:
    """Return the date in a name: as Sentinel-2 and Landsat products carry it, else one that stands alone."""
    match = re.search(r"_(20\d\d)(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", name)
    match = match or re.search(r"L[COTEM]\d\d_.*?_(\d{4})(\d\d)(\d\d)_", name)
    match = match or re.search(r"(?<!\d)(20\d\d|19\d\d)([-_]?)([01]\d)\2([0-3]\d)(?!\d)", name)
    if match is None:
        return None
    try:
        numbers = [int(part) for part in match.groups() if part.isdigit()]
        return datetime(*numbers, tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return None


def choose_bands(scene: Scene, wanted: str, names: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Return the numbers of bands that are given by number or name: "4,3,2", "B04,B03,B02", "red,green,blue".

    Raises
    ------
    SceneError
        If the scene has no such band.
    """
    known = [n.casefold() for n in (names if len(names) == len(scene.bands) else _names(scene))]
    chosen = []
    for part in (text.strip() for text in wanted.split(",")):
        if part.isdigit() and 1 <= int(part) <= len(known) + len(scene.hidden):
            chosen.append(int(part))
        elif part.casefold() in known:
            chosen.append(scene.numbers[known.index(part.casefold())])
        else:
            chosen.append(scene.numbers[_by_name(scene, part) - 1])
    return tuple(chosen)


def _by_name(scene: Scene, name: str) -> int:
    """Return the place of a band that goes by a name, a common name or a colour, from 1."""
    labels = [Label(band.description, band.color, band.tags) for band in scene.bands]
    try:
        return choose([name], labels, scene.name, {})[0]
    except UsageError as error:
        raise SceneError(str(error)) from None


def _names(scene: Scene) -> list[str]:
    return [band.description or str(i) for i, band in enumerate(scene.bands, start=1)]


def _touch(box: tuple[float, float, float, float], place: Place) -> bool:
    west, south, east, north = box
    if place.south > north or place.north < south:
        return False
    return any(a <= d and c <= b for a, b in _spans(west, east) for c, d in _spans(place.west, place.east))


def _meet(geometry: str, place: Place) -> bool:
    from scenelift.pipeline.outlines import touches

    return touches(geometry, [(a, place.south, b, place.north) for a, b in _spans(place.west, place.east)])


def _spans(west: float, east: float) -> list[tuple[float, float]]:
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
