"""What a run would find: every scene looked at, none of its pixels read, nothing written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scenelift.models.catalog import find, load_spec
from scenelift.models.errors import ModelError
from scenelift.pipeline.errors import SceneError, SceneliftError
from scenelift.pipeline.jobs.checks import no_image
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import TileGrid
from scenelift.workflows.archive.entries import Entry
from scenelift.workflows.archive.filters import choose_bands, facts_of
from scenelift.workflows.archive.record import is_settled, read_record
from scenelift.workflows.archive.settings import ArchiveSettings, Folder
from scenelift.workflows.archive.transfer import is_remote
from scenelift.workflows.clouds import with_clouds
from scenelift.workflows.multigrid import read_for

LOOKING = 8
"""Scenes looked at side by side."""


@dataclass(frozen=True)
class Wanted:
    """A scene that would be done."""

    entry: Entry
    source: SceneSource
    shape: tuple[int, int]
    """Height and width, input pixels."""
    read: int
    """Pixels of the input, of all bands."""
    blocks: int
    pixels: int
    """Of the output, each counted once for all bands."""
    nbytes: int
    """Of the output, uncompressed."""


@dataclass(frozen=True)
class Survey:
    """What a run would find."""

    wanted: list[Wanted]
    before: list[str]
    """Done already."""
    skipped: dict[str, str]
    """Not wanted, and why."""
    unusable: dict[str, str]
    """Would fail at once, and why."""


def survey(entries: Sequence[Entry], output: Path, settings: ArchiveSettings) -> Survey:
    """Look at every scene's header.

    Parameters
    ----------
    entries : sequence of Entry
    output : Path
        The archive's folder, which need not exist.
    settings : ArchiveSettings
    """
    folder = Folder(output.absolute())
    key = settings.key() if folder.records.is_dir() else ""  # which needs torch
    found = Survey([], [], {}, {})

    def look(entry: Entry) -> Wanted | str | SceneliftError | None:
        if key and is_settled(read_record(folder.records, entry.id), key, entry.paths, folder.root, settings.publish):
            return None
        try:
            return _look(entry, settings)
        except (SceneliftError, ModelError) as error:
            return error if isinstance(error, SceneliftError) else SceneError(str(error))

    with ThreadPoolExecutor(LOOKING) as pool:
        for entry, seen in zip(entries, pool.map(look, entries), strict=True):
            if isinstance(seen, Wanted):
                found.wanted.append(seen)
            elif seen is None:
                found.before.append(entry.id)
            elif isinstance(seen, str):
                found.skipped[entry.id] = seen
            else:
                found.unusable[entry.id] = str(seen)
    return found


def source_of(entry: Entry, paths: tuple[str, ...], settings: ArchiveSettings) -> SceneSource:
    """Return how an entry whose files are at `paths` is read by an archive's settings."""
    r = settings.reading
    source = SceneSource(paths, None, r.scale, r.offset, r.nodata, r.crs, told=entry.told, extent=r.extent)
    source = with_clouds(replace(source, mask=r.mask, mask_classes=r.mask_classes, time=r.time))
    return read_for(source, settings.models)


def _look(entry: Entry, settings: ArchiveSettings) -> Wanted | str:
    if entry.problem:
        raise SceneError(entry.problem)
    if any(map(is_remote, entry.paths)):
        raise SceneError("lies elsewhere: it is fetched when its turn comes, not for a plan")
    source, reading = source_of(entry, entry.paths, settings), settings.reading
    scene = open_scene(source)
    if reason := settings.filters.reason(facts_of(entry, scene)) or no_image(scene):
        return reason
    if reading.bands:
        source = replace(source, bands=choose_bands(scene, reading.bands, entry.bands))
        scene = open_scene(source)
    return _wanted(entry, source, scene, settings)


def _wanted(entry: Entry, source: SceneSource, scene: Scene, settings: ArchiveSettings) -> Wanted:
    height, width = scene.grid.shape
    scale = math.prod(load_spec(find(name)).scale for name in settings.models)
    pixels = height * width * scale**2
    each = 1 + sum(extra.out_per_band - 1 for extra in settings.enhance.extras())
    bands = len(scene.bands) * each + (scene.alpha is not None)
    itemsize = np.dtype(settings.enhance.dtype or scene.dtype).itemsize
    side = settings.enhance.side(bands * itemsize * scale**2)
    return Wanted(
        entry=entry,
        source=source,
        shape=(height, width),
        read=height * width * len(scene.bands),
        blocks=len(TileGrid((height, width), (min(side, height), min(side, width)))),
        pixels=pixels,
        nbytes=pixels * bands * itemsize,
    )
