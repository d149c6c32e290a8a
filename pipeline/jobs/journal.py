"""The journal of a job: what is finished, durably. The journal decides, not the existence of files.

One JSON object a line, each line led by the CRC-32 of its text, appended and flushed to the disk by the driver alone.
The first line is the header: the fingerprint of the job, the command that started it, and what it may gain. A last line
torn by a kill or a full disk is cut off on the next opening; a line damaged later loses its block, which is then done
again.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.faults import commit_point, die, is_due
from scenelift.pipeline.files import sync, write_durably

VERSION = 1
NAME = "journal.jsonl"
SPARE = "journal.before.jsonl"
"""Copy of the journal of an output that is about to be replaced; removed when the new one is published."""


@dataclass(frozen=True)
class Commit:
    """One finished block."""

    block: int
    pixels: str
    """Checksum of its stored values and mask; of nothing for a block without data, which is not stored."""
    files: dict[str, str | None]
    """Checksum of each file the block owns in the store, by relative path; None: no such file, all fill value."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Timings, worker, memory."""


@dataclass(frozen=True)
class Publication:
    """A complete output, as recorded just before it got its name."""

    sums: dict[str, Any]
    """Checksum of each file by relative path."""
    holes: dict[int, str]
    """Blocks that hold no data since they failed, and why; what is done about them later does not change this."""


@dataclass(frozen=True)
class History:
    """What a journal says."""

    fingerprint: dict[str, Any]
    """Everything that decides the bytes of the output."""
    command: dict[str, Any]
    """How the job was asked for, so that it can be asked for again."""
    commits: dict[int, Commit]
    published: tuple[Publication, ...]
    """Outputs that may bear the name: the latest, and the one it is to replace until it is known to have done so."""
    done: bool
    """Whether the latest output is known to bear its name."""
    expected: dict[str, Any] | None = None
    """What the job may be expected to gain, as its first run found; None: it was not tried."""

    @property
    def publication(self) -> dict[str, Any] | None:
        """Checksums of the latest complete output; None: not there yet."""
        return self.published[0].sums if self.published else None

    @property
    def named(self) -> bool:
        """Whether this job has ever published an output."""
        return self.done or len(self.published) > 1


class Journal:
    """An open journal, for the one process that may write to it.

    Parameters
    ----------
    path : Path
    silent : bool
        Write no records: only to measure what they cost.
    """

    def __init__(self, path: Path, silent: bool = False) -> None:
        self.path = path
        self._silent = silent
        self._file = path.open("ab", buffering=0)

    @classmethod
    def create(
        cls,
        folder: Path,
        fingerprint: dict[str, Any],
        command: dict[str, Any],
        expected: dict[str, Any] | None = None,
        silent: bool = False,
    ) -> Journal:
        """Start a journal in `folder`; it appears there with its header complete or not at all."""
        header = {"journal": VERSION, "fingerprint": fingerprint, "command": command, "expected": expected}
        write_durably(folder / NAME, _line(header))
        try:
            return cls(folder / NAME, silent)
        except OSError as error:
            raise SinkError.of(folder / NAME, error) from error

    @classmethod
    def reopen(cls, folder: Path) -> Journal:
        """Open an existing journal for more records, cutting off a torn last one."""
        path = folder / NAME
        try:
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                os.truncate(path, whole)
                sync(path)
            return cls(path)
        except OSError as error:
            raise SinkError.of(path, error) from error

    def commit(self, *blocks: Commit) -> None:
        """Record finished blocks, all with one flush to the disk."""
        commit_point("before-journal")
        self._append(*({"block": b.block, "pixels": b.pixels, "files": b.files, **b.facts} for b in blocks))
        commit_point("after-journal")

    def hole(self, block: int, reason: str) -> None:
        """Record a block that was given up; a later record of the block takes its place."""
        self._append({"hole": block, "reason": reason})

    def publish(self, sums: dict[str, Any], holes: Mapping[int, str]) -> None:
        """Record the checksums of the complete output and what it lacks, before it gets its name."""
        self._append({"publication": sums, "holes": dict(holes)})

    def finish(self) -> None:
        """Record that the output is published."""
        self._append({"done": True})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, *records: dict[str, Any]) -> None:
        if self._silent:
            return
        line = b"".join(map(_line, records))
        if is_due("torn-journal"):
            self._file.write(line[: len(line) // 2])
            die()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SinkError.of(self.path, error) from error


def read_journal(folder: Path, name: str = NAME) -> History | None:
    """Read the journal in `folder`, or its spare; None if there is none with a whole header of this version."""
    try:
        lines = list(_records((folder / name).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not lines or lines[0].get("journal") != VERSION:
        return None
    header = lines[0]
    commits: dict[int, Commit] = {}
    holes: dict[int, str] = {}
    published: tuple[Publication, ...] = ()
    done = False
    for record in lines[1:]:
        if "block" in record:
            number = record.pop("block")
            commits[number] = Commit(number, record.pop("pixels"), record.pop("files"), record)
            holes.pop(number, None)
        elif "hole" in record:
            holes[record["hole"]] = record["reason"]
            commits.pop(record["hole"], None)
        elif "publication" in record:
            # journals written before publications told their holes: those that were open then
            lacking = {int(block): reason for block, reason in record.get("holes", holes).items()}
            published = Publication(record["publication"], lacking), *(published[:1] if done else published[1:])
            done = False
        elif "done" in record and published:
            published, done = published[:1], True
    return History(header["fingerprint"], header["command"], commits, published, done, header.get("expected"))


def spare_journal(folder: Path) -> None:
    """Copy the journal in `folder`, so that what is recorded from now on can be taken back as a whole."""
    write_durably(folder / SPARE, (folder / NAME).read_bytes())


def restore_journal(folder: Path) -> bool:
    """Put the spared journal back; False if there is none."""
    try:
        (folder / SPARE).replace(folder / NAME)
    except FileNotFoundError:
        return False
    sync(folder)
    return True


def read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprint of the job whose journal lies in `folder`, read from its first line alone."""
    try:
        with (folder / NAME).open("rb") as file:
            header = next(_records(file.readline()), {})
    except (FileNotFoundError, NotADirectoryError):
        return None
    return header.get("fingerprint") if header.get("journal") == VERSION else None


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Spell out how two fingerprints differ, one line a value."""
    found = []
    for key in sorted(set(before) | set(now)):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key} ")
        elif old != new:
            found.append(f"{prefix}{key} was {_short(old)}, now {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 72 else text[:34] + "…" + text[-34:]


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _records(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.split(b"\n")[:-1]:
        crc, _, text = line.partition(b" ")
        if crc == b"%08x" % zlib.crc32(text):
            yield json.loads(text)
