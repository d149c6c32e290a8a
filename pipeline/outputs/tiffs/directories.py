"""Where in a TIFF or BigTIFF its tiles lie (TIFF 6.0, sections 2 and 15), and writing that down."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

KIND, WIDTH, HEIGHT, OFFSETS, COUNTS = 254, 256, 257, 324, 325
"""Numbers of TIFF's tags."""
CODES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""TIFF's types of whole numbers, as `struct` names them."""
SIZES = {5: 8, 10: 8, 11: 4, 12: 8}
"""Bytes of its other types."""
IS_COARSER, IS_MASK = 1, 4
"""Bits of ``KIND``."""


@dataclass(frozen=True)
class Field:
    """Where numbers lie in a file."""

    start: int
    code: str
    """As `struct` names their type, byte order first."""
    count: int

    def read(self, content: bytes | bytearray) -> tuple[int, ...]:
        """Return the numbers."""
        return struct.unpack_from(f"{self.code[0]}{self.count}{self.code[1]}", content, self.start)

    def write(self, content: bytearray, numbers: list[int]) -> None:
        """Write numbers over those that are there; raises `struct.error` for one that does not fit."""
        struct.pack_into(f"{self.code[0]}{self.count}{self.code[1]}", content, self.start, *numbers)


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF: the whole, a coarser level, or the mask of either."""

    shape: tuple[int, int]
    coarser: bool
    mask: bool
    offsets: Field
    """Of each tile from the file's start, row by row."""
    counts: Field
    """Bytes of each tile."""


def directories(content: bytes | bytearray) -> Iterator[Directory]:
    """Yield the images of a tiled TIFF or BigTIFF in the order of the file."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    number = functools.partial(struct.unpack_from, f"{order}{'Q' if big else 'I'}", content)
    width = 8 if big else 4
    (at,) = number(width)
    while at:
        (entries,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, at)
        at += 8 if big else 2
        fields: dict[int, Field] = {}
        for entry in range(at, at + entries * (4 + 2 * width), 4 + 2 * width):
            tag, kind = struct.unpack_from(f"{order}HH", content, entry)
            (count,) = number(entry + 4)
            start, code = entry + 4 + width, CODES.get(kind, "")
            if count * (struct.calcsize(code) if code else SIZES[kind]) > width:
                (start,) = number(start)
            if code:
                fields[tag] = Field(start, order + code, count)
        kind = fields[KIND].read(content)[0] if KIND in fields else 0
        shape = fields[HEIGHT].read(content)[0], fields[WIDTH].read(content)[0]
        yield Directory(shape, bool(kind & IS_COARSER), bool(kind & IS_MASK), fields[OFFSETS], fields[COUNTS])
        (at,) = number(at + entries * (4 + 2 * width))
