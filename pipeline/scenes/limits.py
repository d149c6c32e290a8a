"""Limits on inputs, checked before anything is read: how large they are, and from where they come."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scenelift.pipeline.addresses import without_secrets
from scenelift.pipeline.errors import SceneError, UsageError

_GDAL_NAMES = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/"}
MASK_ENDING = ".msk"
"""What GDAL appends to a raster's name to look for its mask."""
TIMEOUT = 30.0
"""Seconds to wait for a server's response."""


@dataclass(frozen=True)
class Limits:
    """Sizes beyond which an input is refused; a file of a few megabytes can declare terabytes."""

    pixels: int = 10**11
    """Width x height x bands."""
    bands: int = 4096
    chunk_mb: int = 512
    """What must be decoded at once (a tile or strip of a TIFF, a chunk of a Zarr array), megabytes."""
    remote: bool = False
    """Whether inputs may lie on the network."""

    @classmethod
    def of(cls, texts: Sequence[str], remote: bool = False) -> Self:
        """Return limits from "NAME=NUMBER" texts.

        Raises
        ------
        UsageError
            If a name is unknown or a number is none.
        """
        names = [f.name for f in dataclasses.fields(cls) if f.name != "remote"]
        found: dict[str, int] = {}
        for text in texts:
            name, _, number = text.replace("-", "_").partition("=")
            try:
                found[name] = int(float(number))
            except (ValueError, OverflowError):
                found[name] = 0
            if name not in names or found[name] < 1:
                known = ", ".join(name.replace("_", "-") for name in names)
                raise UsageError(f"--limit must be NAME=NUMBER with one of {known}, got {text!r}")
        return cls(**found, remote=remote)

    def check(self, path: str, shape: tuple[int, int], bands: int, chunk_bytes: int) -> None:
        """Refuse what is larger than believable.

        Raises
        ------
        SceneError
        """
        height, width = shape
        for name, value, most, what in (
            ("bands", bands, self.bands, f"{bands} bands"),
            ("pixels", height * width * bands, self.pixels, f"{width} x {height} pixels in {bands} bands"),
            ("chunk-mb", chunk_bytes >> 20, self.chunk_mb, f"tiles or strips of {chunk_bytes >> 20} MB"),
        ):
            if value > most:
                raise SceneError(
                    f"{path} declares {what}: more than the limit; if you trust the file, add --limit {name}={value}"
                )


def is_remote(path: str) -> bool:
    """Whether a path is a URL or one of GDAL's virtual file systems, which reach the network."""
    return "://" in path or path.startswith("/vsi")


def check_remote(path: str, limits: Limits) -> None:
    """Refuse network paths that were not allowed.

    Raises
    ------
    UsageError
    """
    if not limits.remote:
        raise UsageError(f"{without_secrets(path)} is not a local file; add --allow-remote to read from the network")
    if not path.startswith("/vsi") and path.partition("://")[0].lower() not in _GDAL_NAMES:
        raise UsageError(
            f"cannot read {without_secrets(path)}: only {', '.join(_GDAL_NAMES)} and GDAL's /vsi… paths are understood"
        )


def gdal_name(path: str) -> str:
    """Return the name under which GDAL opens a remote path."""
    scheme, separator, rest = path.partition("://")
    return _GDAL_NAMES[scheme.lower()] + rest if separator and not path.startswith("/vsi") else path


def absolute(path: str) -> str:
    """Return a local path as an absolute one, a remote one as it is."""
    return path if is_remote(path) else os.path.abspath(path)  # noqa: PTH100 - drops "..", and "a.nc:name" is no file


def sidecar_files(file: Path) -> list[Path]:
    """Return the files beside a local raster that decide its pixels or its place, where GDAL looks for them.

    World files (``.tfw``, ``.pgw``, ``.wld``, …) and MapInfo's ``.tab``, the mask in ``NAME.msk``, ENVI's header and
    HFA's large-file part. Overviews are none. Of ``.aux.xml``, which programs write that only look at a raster, the
    facts count and not the file: see `pam.read_sidecar`.
    """
    ending = file.suffix[1:].lower()
    world = {f"{ending[0]}{ending[-1]}w", f"{ending}w"} if ending else set()
    names = {file.stem + f".{e}" for one in (*world, "wld", "tab", "hdr", "ige") for e in (one, one.upper())}
    names |= {file.name + e for one in (MASK_ENDING, ".hdr") for e in (one, one.upper())}
    found = (file.with_name(name) for name in sorted(names - {file.name}))
    exists = os.path.exists  # of a name that is too long, Path.exists raises
    return [path for path in found if exists(path) and not path.is_dir()]


def remote_state(path: str) -> bytes:
    """Return what tells one state of a remote file from the next without reading it: what its server says of it.

    Servers that are not asked over http are taken at their word: the path alone.

    Raises
    ------
    SceneError
        If the server does not respond.
    """
    known = without_secrets(path)  # a signature changes from day to day, the object stays
    if not path.lower().startswith(("http://", "https://")):
        return known.encode()
    said = _asked(path, "HEAD")
    if said is None:  # a presigned address allows one method only
        said = _asked(path, "GET")
    if said is None:
        raise SceneError(f"cannot read {known}: the server refuses")
    return json.dumps([known, said], sort_keys=True).encode()


def responds(path: str) -> bool:
    """Whether the server of a remote file has a response for it, if only a refusal; assumed where none can be asked."""
    if not path.lower().startswith(("http://", "https://")):
        return True
    from urllib import error as errors
    from urllib import request  # late, as files need none of it

    try:
        with request.urlopen(request.Request(path, method="HEAD"), timeout=TIMEOUT):
            return True
    except errors.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False


def _asked(path: str, method: str) -> dict[str, str | None] | None:
    """Return what a server says of an object; None where it does not allow the method.

    Raises
    ------
    SceneError
        If it does not respond, or there is no such object.
    """
    from urllib import error as errors
    from urllib import request

    span = {"Range": "bytes=0-0"} if method == "GET" else {}
    try:
        with request.urlopen(request.Request(path, None, span, method=method), timeout=TIMEOUT) as response:
            said = {name: response.headers.get(name) for name in ("ETag", "Last-Modified", "Content-Length")}
            if response.headers.get("Content-Range"):
                said["Content-Length"] = response.headers["Content-Range"].rpartition("/")[2]
            return said
    except errors.HTTPError as error:
        if method == "HEAD" and error.code in (400, 401, 403, 405, 501):
            return None
        raise SceneError(f"cannot read {without_secrets(path)}: {error}") from None
    except (OSError, ValueError) as error:
        raise SceneError(f"cannot read {without_secrets(path)}: {without_secrets(str(error))}") from None
