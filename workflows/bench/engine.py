"""`scenelift bench`: what the engine costs, end to end, against the bare model on the same pixels in the same run."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from scenelift.models.catalog import ModelRef, find, precision_for, with_colour, with_settings
from scenelift.models.enhancer import pick_device
from scenelift.models.loading import verify
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import TileGrid, Window, patch_shape
from scenelift.workflows.bench.bare import bare_forward
from scenelift.workflows.bench.ceilings import ceilings, sample
from scenelift.workflows.conditions import colour_bands, scene_conditions
from scenelift.workflows.enhance import enhance
from scenelift.workflows.settings import Device, EnhanceSettings, Precision


def run_bench(
    source: SceneSource,
    model: str,
    runs: int,
    device: Device,
    precision: Precision,
    workers: int | None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Time the whole job and the bare model in turn, and return medians and the ratio pair by pair.

    The bare model gets the scene's own pixels in patches of the engine's size without any halo, already in memory,
    on as many threads as the job has: no reading, no halo, no nodata, no writing, no processes. That is the most any
    engine could reach.

    Parameters
    ----------
    source : SceneSource
    model : str
    runs : int
        Pairs of runs; a first pair is not counted.
    device, precision : str
        As for `EnhanceSettings`.
    workers : int, optional
    quiet : bool
        Print nothing while running.

    Returns
    -------
    dict
        Medians in seconds; "stages_s" as of `EnhanceSummary.stages`, "ceilings" as `ceilings` returns them.
    """
    chosen = pick_device(device)
    numbers = precision_for(model, precision, chosen)
    cluster = ClusterSettings(workers)
    scene = open_scene(source)
    threads = max(1, cluster.threads * max(1, cluster.local_workers))
    noise = scene_conditions(scene).noise
    ref = with_settings(find(model), device=chosen, precision=numbers, threads=threads, noise=noise)
    ref = with_colour(ref, colour_bands(scene))
    patches = _patches(source, ref)
    pixels = int(np.prod(scene.grid.shape)) * len(scene.bands)
    engine, job, bare, cpu, stages = [], [], [], [], []
    if not quiet:
        print("what this machine can do at most …")
    with tempfile.TemporaryDirectory() as folder:
        most = ceilings(chosen, Path(folder), sample(scene))
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs + 1):
            settings = EnhanceSettings(device=device, precision=precision, overwrite=True)
            done = enhance(source, Path(folder) / "out.zarr", model, settings, cluster)
            seconds, cpu_seconds = bare_forward(ref, patches)
            if not quiet:
                print(f"run {run}: engine {done.blocks_seconds:.2f} s, bare model {seconds:.2f} s")
            if run:
                engine.append(done.blocks_seconds)
                job.append(done.seconds)
                stages.append(done.stages)
                bare.append(seconds)
                cpu.append(cpu_seconds / done.blocks_cpu_seconds)
    ratios = [b / e for b, e in zip(bare, engine, strict=True)]
    return {
        "model": model,
        "device": chosen,
        "precision": numbers,
        "workers": cluster.local_workers,
        "threads": threads,
        "input_megapixels": pixels / 1e6,
        "engine_s": statistics.median(engine),
        "whole_command_s": statistics.median(job),
        "bare_s": statistics.median(bare),
        "engine_over_bare_throughput": statistics.median(ratios),
        "engine_over_bare_throughput_cpu": statistics.median(cpu),
        "whole_command_over_bare_throughput": statistics.median(b / j for b, j in zip(bare, job, strict=True)),
        "stages_s": {name: statistics.median(stage[name] for stage in stages) for name in stages[0]},
        "ceilings": most,
        "runs": runs,
    }


def _patches(source: SceneSource, ref: ModelRef) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read the whole scene as patches without halo, (N, C, P, P); those at the edge are filled up with zeros."""
    scene = open_scene(source)
    spec = verify(ref)
    shape = patch_shape(scene.grid.shape, spec.patch, spec.multiple_of)
    region = scene.read(Window(0, 0, *scene.grid.shape))
    cells = TileGrid(scene.grid.shape, shape).covering(region.window)
    out = np.zeros((len(cells), len(scene.bands), *shape), np.float32)
    for index, cell in enumerate(cells):
        inside = cell.clip(scene.grid.shape)
        out[index, :, : inside.height, : inside.width] = region.crop(inside).values
    return out
