"""Small 8-bit images in zips and folders: the same ones in the same order, wherever they lie."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scenelift.models.errors import ModelError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def image_files(path: Path) -> Iterator[tuple[str, Path | bytes]]:
    """Yield the name of each image of a zip, a folder or by itself, and its file (in a zip: its bytes), by name.

    Raises
    ------
    ModelError
        If there is no such file or folder, or the zip is damaged.
    """
    try:
        if path.is_dir():
            files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES}
            yield from ((name, files[name]) for name in sorted(files) if files[name].is_file())
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in sorted(n for n in archive.namelist() if n.lower().endswith(SUFFIXES)):
                    yield name, archive.read(name)
        elif path.is_file():
            yield path.name, path
        else:
            raise ModelError(f"no such file or folder: {path}; name one that exists")
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read images from {path}: {error}") from None


def decode(file: Path | bytes, name: str) -> NDArray[np.uint8]:
    """Return an image as (C, H, W), one of a palette in its colours.

    Raises
    ------
    ModelError
        If it is none, or not of 8 bits; it is called ``name``.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            array = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except OSError as error:
        raise ModelError(f"cannot decode the image {name}: {error}") from None
    if array.dtype != np.uint8:
        raise ModelError(f"image {name} must be 8-bit, got {array.dtype}; rasters are scenes, and given by themselves")
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
