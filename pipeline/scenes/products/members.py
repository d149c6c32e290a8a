"""Files of a product: in a folder, or in a zip or tar that is read in place."""

from __future__ import annotations

import tarfile
import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath

from scenelift.pipeline.addresses import is_litter
from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.scenes.products.kinds import Layer

LARGEST_TEXT = 64 << 20
"""Bytes of a metadata file beyond which it is none."""
ZIPS, TARS = (".zip",), (".tar",)


class Members:
    """Names of the files of a product, relative to it, and what is in them; nothing is unpacked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._kind = "folder" if Path(path).is_dir() else "zip" if path.lower().endswith(ZIPS) else "tar"

    @property
    def packed(self) -> str:
        """ "zip" or "tar"; "" for a folder."""
        return "" if self._kind == "folder" else self._kind

    @cached_property
    def _full(self) -> list[str]:
        """Names as the archive has them."""
        try:
            if self._kind == "folder":
                root = Path(self.path)
                return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
            if self._kind == "zip":
                with zipfile.ZipFile(self.path) as archive:
                    return sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
            with tarfile.open(self.path, "r:") as archive:
                return sorted(entry.name for entry in archive if entry.isreg())
        except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise SceneError(f"cannot read {self.path} as a {self._kind}: {error}") from None

    @cached_property
    def _top(self) -> str:
        """Folder in the archive that holds everything, with a slash."""
        if self._kind == "folder" or not self._full:
            return ""
        tops = {PurePosixPath(name).parts[0] for name in self._full if not name.startswith("__MACOSX/")}
        first = next(iter(tops))
        return f"{first}/" if len(tops) == 1 and all("/" in name for name in self._full) else ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Relative names, sorted; what file managers leave is left out."""
        kept = (name.removeprefix(self._top) for name in self._full if not name.startswith("__MACOSX/"))
        return tuple(name for name in kept if not is_litter(PurePosixPath(name).name))

    @property
    def top(self) -> str:
        """Name of the folder in an archive that holds everything; "" if there is none."""
        return self._top.rstrip("/")

    def text(self, name: str) -> str:
        """Return the text of a file.

        Raises
        ------
        SceneError
            If it cannot be read, or is too large for metadata.
        """
        try:
            return self._bytes(name).decode("utf-8", errors="replace")
        except (OSError, KeyError, zipfile.BadZipFile, tarfile.TarError, RuntimeError) as error:
            raise SceneError(f"cannot read {self.shown(name)}: {error}") from None

    def _bytes(self, name: str) -> bytes:
        if self._kind == "folder":
            return self._limited(Path(self.path, name).stat().st_size, name) or Path(self.path, name).read_bytes()
        if self._kind == "zip":
            with zipfile.ZipFile(self.path) as packed:
                return self._limited(packed.getinfo(self._top + name).file_size, name) or packed.read(self._top + name)
        with tarfile.open(self.path, "r:") as archive:
            entry = archive.getmember(self._top + name)
            opened = archive.extractfile(entry)
            return self._limited(entry.size, name) or (opened.read() if opened else b"")

    def _limited(self, size: int, name: str) -> bytes:
        if size > LARGEST_TEXT:
            raise SceneError(f"{self.shown(name)} is {size >> 20} MB: metadata never are; fetch the product again")
        return b""

    def shown(self, name: str) -> str:
        """Return what messages call a file."""
        return f"{self.path.rstrip('/')}/{name}"

    def layer(self, name: str) -> Layer:
        """Return a raster among the files."""
        if self._kind == "folder":
            return Layer(str(Path(self.path, name)))
        return Layer(self.shown(name), f"/vsi{self._kind}/{{{self.path}}}/{self._top}{name}")
