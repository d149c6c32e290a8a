"""One scene of an archive, before it is opened."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scenelift.pipeline.errors import UsageError

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,180}")
"""What a scene may be called: its outputs are files and folders of that name."""


@dataclass(frozen=True)
class Entry:
    """A scene by reference, and what is known of it without opening it."""

    id: str
    paths: tuple[str, ...]
    """As `SceneSource` takes them."""
    date: datetime | None = None
    """When it was taken, UTC."""
    cloud_cover: float | None = None
    """Percent."""
    priority: int = 0
    """Higher ones start first."""
    bands: tuple[str, ...] = ()
    """Names of the bands, if the catalogue knows better than the files."""
    item: str | None = None
    """The STAC item that it came from."""
    told: tuple[tuple[float | None, float | None, float | None], ...] = ()
    """Scale, offset and nodata of each band of the files, as a catalogue tells them; empty: it does not."""
    problem: str | None = None
    """Why it cannot be used, if that is known already; it is then reported as failed."""

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id):
            raise UsageError(
                f"scene id {self.id!r} cannot be a file name: use letters, digits, dots, dashes and underscores"
            )


def id_from(text: str) -> str:
    """Return a scene's id made from a name or a relative path: "2024/T32 a.tif" gives "2024__T32-a"."""
    stem = re.sub(r"\.(tiff?|jp2|zarr|safe|safe\.zip|tar|nc|png|img)$", "", text, flags=re.IGNORECASE)
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", stem.replace("/", "__")).lstrip("._-")
    return made[:180] or "scene"


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries in the order they are to start: by priority, then as they were named.

    Raises
    ------
    UsageError
        If two of them have one id: their outputs would be the same file.
    """
    listed = list(entries)
    seen: dict[str, Entry] = {}
    for entry in listed:
        other = seen.setdefault(entry.id.casefold(), entry)
        if other is not entry:
            raise UsageError(
                f"two scenes are called {entry.id}: {_where(other)} and {_where(entry)}; their outputs would be the "
                "same file. Name them in a manifest (columns path and id), or give each archive its own folder"
            )
    return sorted(listed, key=lambda entry: -entry.priority)


def _where(entry: Entry) -> str:
    return entry.item or ", ".join(entry.paths)


def date_from(value: Any, where: str) -> datetime | None:
    """Return a date from what a manifest or catalogue holds: a datetime, "2024-05-01", an ISO time; None if empty.

    Raises
    ------
    UsageError
        If it is no date.
    """
    if value is None or value != value or str(value).strip() == "":
        return None
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise UsageError(f"{where}: {value!r} is no date; write 2024-05-01 or 2024-05-01T10:30:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def number_from(value: Any, where: str) -> float | None:
    """Return a number; None if empty.

    Raises
    ------
    UsageError
        If it is none.
    """
    if value is None or value != value or str(value).strip() == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{where}: {value!r} is no number") from None
