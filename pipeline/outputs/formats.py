"""The formats of outputs: what a finished store becomes, by the suffix of the output's name. A format is one file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from scenelift.pipeline.errors import UsageError

if TYPE_CHECKING:  # a wrong suffix is refused without GDAL
    from scenelift.pipeline.outputs.outputs import Output
    from scenelift.pipeline.outputs.readback import Readable
    from scenelift.pipeline.outputs.sinks import Blocks, ZarrSink

GROUP = "scenelift.formats"
"""Entry points of other packages: each loads a `Format`; asked for when a suffix is not known."""


class Format(Protocol):
    """What a finished store becomes. Used by the process that drives a job; workers write to the store alone."""

    @property
    def name(self) -> str:
        """Stored in the journal: jobs of another format are other jobs."""
        ...

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of names, in lower case, with the dot."""
        ...

    @property
    def blocks(self) -> Blocks:
        """How the store keeps blocks; if `Blocks.FINAL`, their files are files of the output too, by the same names."""
        ...

    def make(self, store: ZarrSink, output: Output, path: Path, shards: bool) -> Path:
        """Make the complete output from a store whose blocks are all done.

        Parameters
        ----------
        store : ZarrSink
            Up to `store.threads` threads may work on it; the bytes must not depend on their number.
        output : Output
        path : Path
            Where to make it; publishing moves it from there under its name. What else lies in that folder is deleted.
        shards : bool
            Whether chunks are kept together in shards, where the format has such.

        Returns
        -------
        Path
            Where it lies: `path`, or the store itself.

        Raises
        ------
        SinkError
            If the disk refuses, or it does not read back as it was written.
        """
        ...

    def open(self, path: Path, recorded: dict[str, Any]) -> Readable:
        """Open a published output; `recorded` is the "output" part of the job's fingerprint.

        Raises
        ------
        SceneliftError
            If it cannot be read.
        """
        ...

    def flaws(self, path: Path) -> list[str]:
        """Return what is wrong with the structure of an output that opens."""
        ...

    def beside(self, output: Output) -> dict[str, bytes]:
        """Return small files that belong beside the output: ending, added to its name, and content."""
        ...


class BuiltIn(NamedTuple):
    """A format that is imported when it is used."""

    title: str
    module: str
    kind: str


_COG = BuiltIn("Cloud-Optimized GeoTIFF", "scenelift.pipeline.outputs.cogs", "CloudOptimizedGeoTiff")
_ZARR = BuiltIn("zarr", "scenelift.pipeline.outputs.pyramids", "GeoZarr")
FORMATS: dict[str, Format | BuiltIn] = {".tif": _COG, ".tiff": _COG, ".zarr": _ZARR}
"""Suffix to format, or to where it is found."""


def register(made: Format) -> None:
    """Add a format, or replace the one that its suffixes had."""
    FORMATS.update(dict.fromkeys(made.suffixes, made))


def check_suffix(path: Path) -> str:
    """Return the suffix of an output's name, of which there must be a format; loads none that comes with scenelift.

    Raises
    ------
    UsageError
        If no format has it.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        from importlib.metadata import entry_points  # late, as the command line is quick without it

        for entry in entry_points(group=GROUP):
            register(entry.load())
    if suffix not in FORMATS:
        known = {made.title: suffix for suffix, made in reversed(FORMATS.items())}
        choices = [
            ending if ending == f".{title.lower()}" else f"{ending} ({title})"
            for title, ending in reversed(known.items())
        ]
        raise UsageError(f"output {path} must end in {', '.join(choices[:-1])} or {choices[-1]}")
    return suffix


def format_of(path: Path) -> Format:
    """Return the format of an output by its suffix; raises as `check_suffix` does."""
    found = FORMATS[check_suffix(path)]
    if isinstance(found, BuiltIn):
        register(found := getattr(import_module(found.module), found.kind)())
    return found
