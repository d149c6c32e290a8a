"""Scenes that lie elsewhere: fetched when their turn comes, deleted when it is over."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlparse

from scenelift.pipeline.errors import SceneError, SinkError

PIECE = 1 << 22
"""Bytes copied at once."""


def is_remote(path: str) -> bool:
    """Whether a path is an address."""
    return "://" in path


@contextmanager
def at_hand(paths: tuple[str, ...], scratch: Path) -> Iterator[tuple[str, ...]]:
    """Yield local paths of files, of which those elsewhere are copied below `scratch` for as long as this lasts.

    Raises
    ------
    SceneError
        If one of them cannot be fetched.
    SinkError
        If the disk refuses.
    """
    if not any(map(is_remote, paths)):
        yield paths
        return
    try:
        yield tuple(
            _fetch(path, scratch / str(number)) if is_remote(path) else path for number, path in enumerate(paths)
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch(address: str, folder: Path) -> str:
    import fsspec

    target = folder / (posixpath.basename(urlparse(address).path) or "scene")
    try:
        with fsspec.open(address, "rb") as file:
            _save(file, target)
    except SinkError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything for a network that fails
        raise SceneError(f"cannot fetch {address}: {type(error).__name__}: {error}") from None
    return str(target)


def _save(file: IO[bytes], target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            while piece := file.read(PIECE):
                out.write(piece)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise  # of the network
        raise SinkError.of(target, error) from error
