"""`scenelift verify`: is an output still what was published, byte by byte; and if not, mend just what is damaged."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rio_cogeo.cogeo import cog_validate

from scenelift.pipeline.checksums import pixel_checksum
from scenelift.pipeline.cluster import Cluster
from scenelift.pipeline.errors import ResumableError, SceneliftError, SinkError, UsageError
from scenelift.pipeline.journal import Commit, History, Journal, differences, read_journal
from scenelift.pipeline.locks import Lock
from scenelift.pipeline.publishing import damage, publish, restore_replaced, sweep
from scenelift.pipeline.salvage import carry_over, damaged_files
from scenelift.pipeline.scenes import Scene, SceneSource, open_scene
from scenelift.pipeline.sinks import ZarrSink
from scenelift.pipeline.tiles import TileGrid, Window
from scenelift.workflows.blocks import process_block
from scenelift.workflows.plans import Plan, plan_of, work_folder


@dataclass(frozen=True)
class Verdict:
    """What was found, and what was done about it."""

    output: str
    files: int
    """Files compared with the journal."""
    blocks: int
    """Blocks recorded."""
    damaged_files: list[str]
    damaged_blocks: list[int]
    problems: list[str]
    """Wrong structure or place on Earth."""
    holes: list[int]
    """Blocks published without data since they failed."""
    repaired: bool = False

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return self.repaired or not (self.damaged_files or self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"intact": self.intact}


def verify(output: str | Path, repair: bool = False) -> Verdict:
    """Check an output against its journal; writes nothing unless `repair` is asked for.

    Parameters
    ----------
    output : str or Path
    repair : bool
        Compute damaged blocks again, rebuild what is derived from them, and put the mended output in place in one
        step. Needs the input and the models as they were.

    Raises
    ------
    UsageError
        If the output has no journal, or cannot be mended because input or models have changed.
    ResumableError
        If the job that makes it is not finished.
    """
    path = Path(output).absolute()
    history = _finished(path)
    verdict = _inspect(path, history)
    if not repair or (verdict.intact and not verdict.holes):
        return verdict
    _repair(path, history, verdict)
    after = _inspect(path, _finished(path))
    if not after.intact:
        raise SinkError(f"{path} is still damaged after repair: {', '.join(after.damaged_files + after.problems)}")
    return replace(verdict, repaired=True, holes=after.holes)


def _finished(path: Path) -> History:
    history = read_journal(work_folder(path))
    if history is None:
        raise UsageError(f"{path} has no journal ({work_folder(path)}): it was not made by `scenelift enhance`, or moved")
    if history.publication is None or not (history.done or path.exists()):
        raise ResumableError(f"{path} is not finished: go on with `scenelift resume {path}`")
    return history


def _inspect(path: Path, history: History) -> Verdict:
    sums = history.publication or {}
    damaged = damage(path, sums) if path.exists() else [str(path)]
    problems = _problems(path, history.fingerprint["output"]) if path.exists() else ["missing"]
    if path.suffix.lower() == ".zarr":
        blocks = [c.block for c in history.commits.values() if damaged_files(path, c.files)]
    else:
        blocks = _wrong_pixels(path, history) if damaged else []
    shown = [name or path.name for name in damaged]
    return Verdict(
        str(path), len(sums), len(history.commits), shown, sorted(blocks), problems, sorted(history.holes)
    )


def _problems(path: Path, wanted: dict[str, Any]) -> list[str]:
    """Return what is wrong with an output's structure or place, whatever its bytes."""
    try:
        scene = open_scene(SceneSource((str(path),)))
        found = {
            "shape": [len(scene.bands) + (scene.alpha is not None), *scene.grid.shape],
            "dtype": scene.dtype,
            "crs": scene.grid.crs.to_wkt(),
            "transform": [float(v) for v in tuple(scene.grid.transform)[:6]],
        }
    except (SceneliftError, RasterioError, ValueError, KeyError) as error:
        return [" ".join(str(error).split())]
    close = np.allclose(found["transform"], wanted["transform"], rtol=1e-12, atol=1e-9)
    found["transform"] = wanted["transform"] if close else found["transform"]
    found["crs"] = wanted["crs"] if _same_crs(scene, wanted["crs"]) else found["crs"]
    problems = differences({key: wanted[key] for key in found}, found)
    if wanted["format"] == "tif":
        valid, errors, _ = cog_validate(path, strict=False, quiet=True)
        problems += [] if valid else [f"no valid Cloud-Optimized GeoTIFF: {'; '.join(errors)}"]
    return problems


def _same_crs(scene: Scene, wkt: str) -> bool:
    from rasterio.crs import CRS

    return bool(scene.grid.crs == CRS.from_wkt(wkt))


def _wrong_pixels(path: Path, history: History) -> list[int]:
    """Return the blocks of a damaged GeoTIFF that do not read back as they were stored."""
    try:
        scene = open_scene(SceneSource((str(path),)))
    except SceneliftError:
        return sorted(history.commits)
    grid = TileGrid(tuple(history.fingerprint["output"]["shape"][1:]), tuple(history.fingerprint["output"]["block"]))
    stored = {number: commit for number, commit in history.commits.items() if commit.files}
    return [number for number, commit in stored.items() if not _reads_as(scene, history, grid[number], commit)]


def _reads_as(scene: Scene, history: History, window: Window, commit: Commit) -> bool:
    try:
        return pixel_checksum(*_read(scene, history, window)) == commit.pixels
    except SceneliftError:
        return False


def _read(scene: Scene, history: History, window: Window) -> tuple[Any, Any]:
    """Read values (the alpha band behind them) and mask of a block as they were stored."""
    bands = [*scene.readers, *([scene.alpha] if scene.alpha else [])]
    pairs = [reader.read(index, window) for reader, index in bands]
    values = np.stack([values for values, _ in pairs])
    mask = np.where(pairs[0][1], np.uint8(255), np.uint8(0)) if history.fingerprint["output"]["mask"] else None
    return values, mask


def _repair(path: Path, history: History, verdict: Verdict) -> None:
    """Build the output again from its intact blocks and the recomputed ones, and put it in place."""
    plan = plan_of(path, history.command)
    if found := differences(history.fingerprint, plan.fingerprint):
        raise UsageError(f"{path} cannot be mended as it was: {'; '.join(found)}")
    with Lock(plan.work) as lock, closing(Journal.reopen(plan.work)) as journal:
        restore_replaced(path, plan.work)
        sweep(plan.work)
        store = ZarrSink.create(plan.job.store, plan.job.output, shards=plan.settings.shards)
        healthy = [c for n, c in history.commits.items() if n not in verdict.damaged_blocks]
        if path.suffix.lower() == ".zarr":
            kept = carry_over(path, plan.job.store, healthy)
        else:
            kept = _copy_pixels(path, history, plan, store, healthy)
        commits = {c.block: c for c in kept}
        commits |= _recompute(plan, history, [n for n in range(len(plan.blocks)) if n not in commits], journal)
        store = ZarrSink.open(plan.job.store, store.block)
        publish(store, plan.job.output, path, journal, lock, commits.values(), shards=plan.settings.shards)
        sweep(plan.work)


def _copy_pixels(path: Path, history: History, plan: Plan, store: ZarrSink, healthy: Iterable[Commit]) -> list[Commit]:
    """Move blocks that read right from a damaged GeoTIFF into a store."""
    if not path.exists():
        return []
    try:
        scene = open_scene(SceneSource((str(path),)))
    except SceneliftError:
        return []
    for commit in (commits := list(healthy)):
        if commit.files:
            window = plan.blocks[commit.block].scaled(plan.job.scale)
            store.write(window, *_read(scene, history, window))
    return commits


def _recompute(plan: Plan, history: History, blocks: list[int], journal: Journal) -> dict[int, Commit]:
    done = {}
    task = functools.partial(process_block, plan.job)
    for record in Cluster(None).run(task, blocks):
        commit = record.commit()
        before = history.commits.get(commit.block)
        if before is not None and before.pixels != commit.pixels:
            raise SinkError(
                f"block {commit.block} comes out differently than it did: another machine or library? "
                "Make the output anew with --overwrite"
            )
        journal.commit(commit)
        done[commit.block] = commit
    return done


def resume_plan(output: Path) -> Plan:
    """Return the plan of the unfinished (or finished) job whose output is `output`.

    Raises
    ------
    UsageError
        If there is no journal beside it.
    """
    path = output.absolute()
    history = read_journal(work_folder(path))
    if history is None:
        raise UsageError(f"nothing to resume: {work_folder(path)} holds no journal")
    return plan_of(path, history.command)


