"""Patches kept in a file instead of memory, so that an archive of any size can be learned from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from scenelift.models.errors import ModelError
from scenelift.workflows.training.images import PatchSet


def on_disk(sets: Iterable[PatchSet], folder: Path | None = None) -> list[PatchSet]:
    """Return the same patch sets with values that are mapped from one file; the system caches what is drawn often.

    Parameters
    ----------
    sets : iterable of PatchSet
        Taken one at a time: memory holds one of them, whatever their number.
    folder : path, optional
        Where the file is; default: the system's folder for temporary files. It has no name there, so that nothing
        is left of it when the process ends, however it ends.

    Raises
    ------
    ModelError
        If the file cannot be written, e.g. on a full disk.
    """
    kept: list[tuple[PatchSet, int, tuple[int, ...], np.dtype[np.generic]]] = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for patches in sets:
                values = np.ascontiguousarray(patches.values)
                file.write(bytes(-file.tell() % 8))
                rest = replace(patches, values=np.empty(0, values.dtype))  # a view would keep the whole alive
                kept.append((rest, file.tell(), values.shape, values.dtype))
                file.write(values.data if values.size else b"")
            file.write(bytes(8))  # an empty file cannot be mapped
            file.flush()
            whole = np.memmap(file, np.uint8, "r")
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise ModelError(f"cannot keep training patches in {where}: {error.strerror or error}") from None
    return [
        replace(patches, values=np.ndarray(shape, dtype, buffer=whole, offset=start))
        for patches, start, shape, dtype in kept
    ]
