"""What the input of a job is, byte by byte, and whether it still is that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from scenelift.pipeline.addresses import is_litter
from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.scenes.limits import is_remote, remote_state, sidecar_files
from scenelift.pipeline.scenes.pam import read_sidecar
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.scenes.zarrs import is_zarr


def input_digest(source: SceneSource) -> str:
    """Return the SHA-256 over the contents of all input files, in order (in a folder: sorted by name).

    A file is followed by those beside it that decide its pixels or place: world file, mask, header, and the facts of
    its ``.aux.xml`` if it has some.

    Of a file on the network, over what its server says of it: reading it all would cost as much as the job.

    Raises
    ------
    SceneError
        If a file cannot be read, or one of a Zarr store is empty.
    """
    total = hashlib.sha256()
    for name in _names(source):
        if is_remote(name):
            total.update(hashlib.sha256(remote_state(name)).digest())
            continue
        for file in _files(name):
            try:
                if is_zarr(name) and file.stat().st_size == 0:  # a shard without content reads as fill value
                    raise SceneError(f"{file} is empty, so the store is damaged: restore it first")
                with file.open("rb") as handle:
                    total.update(hashlib.file_digest(handle, "sha256").digest())
            except OSError as error:
                raise SceneError(f"cannot read {file}: {error.strerror or error}") from None
        sidecar = read_sidecar(_file(name))
        if sidecar is not None and sidecar.key:
            total.update(sidecar.key.encode())
    return total.hexdigest()


def input_stamps(source: SceneSource) -> tuple[str, ...]:
    """Return size, time and number of every input file: the same stamps, the same content; other ones, perhaps not."""
    stamps = []
    for name in _names(source):
        for file in () if is_remote(name) else _files(name):
            try:
                found = file.stat()
            except OSError:
                stamps.append(f"{file} gone")
                continue
            stamps.append(f"{file} {found.st_size} {found.st_mtime_ns} {found.st_ino}")
        if not is_remote(name) and (sidecar := read_sidecar(_file(name))) is not None:
            stamps.append(sidecar.key)
    return tuple(stamps)


def _names(source: SceneSource) -> tuple[str, ...]:
    """Return the paths of the scene, and of its mask if that is a file of its own."""
    return source.paths if source.mask_file is None else (*source.paths, source.mask_file)


def _file(name: str) -> Path:
    return Path(name.rpartition(":")[0] if ".nc:" in name else name)


def _files(name: str) -> Iterator[Path]:
    path = _file(name)
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file() and not is_litter(p.name))
    else:
        yield from (path, *sidecar_files(path))
