"""Scenes that lie elsewhere, fetched when their turn comes; copies of finished ones in an object store."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from scenelift.pipeline.addresses import without_secrets
from scenelift.pipeline.errors import ResumableError, SceneError, SinkError, UsageError
from scenelift.pipeline.files import tree_files

PIECE = 1 << 22
"""Bytes copied at once."""
PART = 8 << 20
"""Bytes of a part; objects of more than two parts go up in parts."""
ROOT_METADATA = "zarr.json"
"""The object without which a Zarr store cannot be opened."""


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


def check_target(address: str) -> None:
    """Look at the place that copies shall go to.

    Raises
    ------
    UsageError
        If it is no address, its kind needs a package that is not there, or it cannot be reached.
    """
    try:
        system, root = _system(address)  # which connects, for some kinds
        system.exists(root)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything for a network that fails
        raise UsageError(f"cannot reach {address}: {type(error).__name__}: {error}") from None


def upload(files: Sequence[Path], root: Path, address: str) -> None:
    """Copy files and folders below `root` to an address, in the order given, over what is there.

    An object appears whole or not at all: what goes up in parts shows when the last one is there. Of a Zarr store the
    root's metadata go last, so that it cannot be opened before it is complete.

    Parameters
    ----------
    files : sequence of Path
    root : Path
    address : str
        E.g. "s3://bucket/archive"; credentials and endpoint come from the environment.

    Raises
    ------
    ResumableError
        If the network fails: the same call goes on.
    """
    system, target = _system(address)
    how = {"chunksize": PART} if "s3" in system.protocol else {}
    for path in files:
        names = sorted(tree_files(path), key=lambda name: name == ROOT_METADATA) if path.is_dir() else [""]
        for name in names:
            local = path / name if name else path
            _copy(system, local, posixpath.join(target, local.relative_to(root).as_posix()), how)


def _copy(system: Any, local: Path, remote: str, how: dict[str, Any]) -> None:
    try:
        system.makedirs(posixpath.dirname(remote), exist_ok=True)
        system.put_file(str(local), remote, **how)
        system.invalidate_cache(posixpath.dirname(remote))
        found = system.size(remote)
    except Exception as error:
        raise ResumableError(f"cannot copy {local.name} to {remote}: {type(error).__name__}: {error}") from error
    if found != local.stat().st_size:
        raise ResumableError(f"{remote} has {found} bytes after the upload, {local} has {local.stat().st_size}")


def _system(address: str) -> tuple[Any, str]:
    import fsspec

    if "://" not in address:
        raise UsageError(f"--publish takes an address such as s3://bucket/archive, got {address!r}")
    try:
        system, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot use {address}: {error}") from None
    return system, str(root)


def _fetch(address: str, folder: Path) -> str:
    import fsspec

    target = folder / (posixpath.basename(urlparse(address).path) or "scene")
    try:
        with fsspec.open(address, "rb") as file:
            _save(file, target)
    except SinkError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything for a network that fails
        raise SceneError(without_secrets(f"cannot fetch {address}: {type(error).__name__}: {error}")) from None
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
