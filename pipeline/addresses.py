"""Names of inputs as people and catalogues write them: paths, file URLs, addresses with a signature."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#'\"@]+@")
_QUERY = re.compile(r"(://[^'\"\n]*?)[?#][^\s'\"]*")
_WORK = ".scenelift"
_HIDDEN = ("._", ".DS_Store", "Thumbs.db", "desktop.ini")


def local_path(name: str) -> str:
    """Return the local path that a ``file:`` URL names; any other text as it is.

    A URL is percent-encoded. Where a file of the literal name exists, that one is meant.
    """
    if not name.lower().startswith("file:"):
        return name
    path = re.sub(r"(?i)^file:(//(localhost)?(?=/))?", "", name)
    return path if Path(path).exists() else unquote(path)


def decoded(path: str) -> str:
    """Return a path of a catalogue without percent-encoding, unless a file of the literal name exists."""
    return path if "%" not in path or Path(path).exists() else unquote(path)


def without_secrets(text: str) -> str:
    """Return a text in which every address is named without user, password, query and fragment.

    A signed address is a credential for as long as it lasts: what is written or printed names the object only.
    """
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text)) if "://" in text else text


def file_name(path: str) -> str:
    """Return the last part of a path or an address, without a query."""
    if "://" in path:
        path = unquote(urlsplit(path).path)
    return Path(path).name


def is_litter(name: str) -> bool:
    """Whether a file of that name was left by a file manager (AppleDouble and the like) and holds no data."""
    return name.startswith(_HIDDEN[0]) or name in _HIDDEN[1:]


def work_folder(path: Path) -> Path:
    """Return the hidden folder that belongs to an output."""
    return path.with_name(f".{path.name}{_WORK}")


def output_of_folder(work: Path) -> Path | None:
    """Return the output that a hidden folder belongs to, by its name; None if it is called like none."""
    inner = work.name.removeprefix(".").removesuffix(_WORK)
    return work.with_name(inner) if inner and work.name == f".{inner}{_WORK}" else None
