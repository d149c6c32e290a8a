"""Checksums of files and of pixels, and getting files onto the disk for good."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import DiskFullError, SinkError, UsageError


def file_checksum(path: Path) -> str | None:
    """Return the SHA-256 of a file, None if there is none (or it is a folder)."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def pixel_checksum(*arrays: NDArray[np.generic] | None) -> str:
    """Return the SHA-256 over the values of arrays, whatever file format holds them."""
    total = hashlib.sha256()
    for array in arrays:
        if array is not None:
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def tree_files(folder: Path) -> Iterator[str]:
    """Yield the files below a folder by relative path, sorted."""
    yield from sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it, if it is not there yet; return it.

    Raises
    ------
    UsageError
        If that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}; choose another one") from None
    return path


@contextlib.contextmanager
def folder_for_results(path: Path) -> Iterator[Path]:
    """Make a folder before the work that fills it; where the work fails, take away again what was made and is empty.

    Raises
    ------
    UsageError
        If the folder cannot be made.
    """
    made = [each for each in (path, *path.parents) if not each.exists()]
    make_folder(path)
    try:
        yield path
    except BaseException:
        with contextlib.suppress(OSError):  # one that is not empty stays, and those above it
            for each in made:
                each.rmdir()
        raise


def sync(path: Path) -> None:
    """Flush one file or folder to the disk, if it exists."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes, folder: Path | None = None) -> None:
    """Write a small file so that its name always means all of the old content or all of the new.

    Parameters
    ----------
    path : Path
    content : bytes
    folder : Path, optional
        Where a kill may leave an unfinished file (`.NAME.` and 32 hexadecimal digits), on the same file system; by
        default beside `path`.

    Raises
    ------
    SinkError
        If the disk refuses.
    """
    new = (folder or path.parent) / f".{path.name}.{uuid.uuid4().hex}"
    try:
        new.write_bytes(content)
        sync(new)
        new.replace(path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise SinkError.of(path, error) from error


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made; nothing of the try is ever seen there.

    Raises
    ------
    UsageError
        If the system refuses.
    DiskFullError
        If there is no room.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = SinkError.of(folder, error)
        if isinstance(problem, DiskFullError):
            raise problem from None
        raise UsageError(f"cannot write in {folder}: {error.strerror}; choose another folder") from None


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself: the deepest first, so that no name lacks its content."""
    for path in sorted(folder.rglob("*"), key=lambda p: len(p.parts), reverse=True):
        sync(path)
    sync(folder)
