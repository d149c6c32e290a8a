"""A finished output, checked as its readers see it: structure, georeferencing, and pixels block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS

from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.files import pixel_checksum
from scenelift.pipeline.jobs.journal import Commit, History, differences
from scenelift.pipeline.jobs.salvage import damaged_files
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.readback import Readable
from scenelift.pipeline.outputs.sinks import Blocks
from scenelift.pipeline.tiles import TileGrid, Window


def problems(path: Path, wanted: dict[str, Any]) -> list[str]:
    """Return what is wrong with an output's structure or place, whatever its bytes."""
    kind = format_of(path)
    try:
        found = dict(kind.open(path, wanted).facts)
    except SceneliftError as error:
        return [" ".join(str(error).split())]
    if "transform" in found and np.allclose(found["transform"], wanted["transform"], rtol=1e-12, atol=1e-9):
        found["transform"] = wanted["transform"]
    if found.get("crs") and CRS.from_wkt(found["crs"]) == CRS.from_wkt(wanted["crs"]):
        found["crs"] = wanted["crs"]
    return differences({key: wanted[key] for key in found}, found) + kind.flaws(path)


def damaged_blocks(path: Path, history: History) -> set[int]:
    """Return the blocks that are not in a damaged output as they were stored."""
    kind = format_of(path)
    if kind.blocks is Blocks.FINAL:
        return {commit.block for commit in history.commits.values() if damaged_files(path, commit.files)}
    recorded = history.fingerprint["output"]
    try:
        opened = kind.open(path, recorded)
    except SceneliftError:
        return set(history.commits)
    grid = TileGrid(tuple(recorded["shape"][1:]), tuple(recorded["block"]))
    stored = {number: commit for number, commit in history.commits.items() if commit.files}
    return {number for number, commit in stored.items() if not _reads_as(opened, grid[number], commit)}


def _reads_as(opened: Readable, window: Window, commit: Commit) -> bool:
    try:
        return pixel_checksum(*opened.read(window)) == commit.pixels
    except SceneliftError:
        return False
