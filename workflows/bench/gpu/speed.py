"""How fast a GPU is: the bare network, then whole tiles through the engine."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.catalog import find, with_settings
from scenelift.models.enhancer import GPU_BATCH
from scenelift.models.loading import load
from scenelift.workflows.bench.bare import bare_forward
from scenelift.workflows.bench.gpu.bench import PIXEL, Bench, Row, said


def bare(bench: Bench) -> list[Row]:
    """Time the bare forward pass of the default network, plain and compiled."""
    rows, side = [], 256 if bench.cuda else 64
    count = 256 if bench.cuda else 2
    patches = np.random.default_rng(0).uniform(0.02, 0.3, (count, 3, side, side)).astype(np.float32)
    for precision in ("fp32", "bf16"):
        ref = with_settings(find("sr-x2-rgb-sentinel2"), device=bench.device, precision=precision)
        seconds = statistics.median(bare_forward(ref, patches)[0] for _ in range(3))
        rows.append(
            Row(f"bare sr-x2-rgb-sentinel2, {precision}", None, f"{_mpx(patches) / seconds:.1f} Mpx/s, one by one")
        )
    module = load(with_settings(find("sr-x2-rgb-sentinel2"), device=bench.device, precision="bf16"))._ready[0]
    for name, network in (("batches", module), ("batches, compiled", _compiled(module) if bench.cuda else None)):
        if network is not None:
            seconds = _batched(network, patches, bench.device)
            rows.append(Row(f"bare sr-x2-rgb-sentinel2, bf16, {name}", None, f"{_mpx(patches) / seconds:.1f} Mpx/s"))
    load.cache_clear()
    return rows


def _mpx(patches: NDArray[np.float32]) -> float:
    return float(patches.shape[0] * patches.shape[2] * patches.shape[3]) / 1e6


def _compiled(module: Any) -> Any:
    return torch.compile(module, mode="max-autotune-no-cudagraphs")


def _batched(network: Any, patches: NDArray[np.float32], device: str) -> float:
    """Return seconds for all patches, already on the device, in the engine's batches."""
    samples = torch.from_numpy(patches).to(device).contiguous(memory_format=torch.channels_last)
    took = []
    with torch.inference_mode():
        for _ in range(3):
            started = time.perf_counter()
            for part in samples.split(GPU_BATCH):
                network(part)
            if device == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - started)
    return min(took)


def whole_tile(bench: Bench) -> Iterator[Row]:
    """Enhance a whole tile to COG and to Zarr, and say how busy the GPU was."""
    scene = bench.scene(bench.side, "tile")
    area = (bench.side * PIXEL / 1000) ** 2
    for models in ("sr-x2", "sr-x2-fast", "denoise"):
        for ending in ("tif", "zarr"):
            out = bench.folder / f"whole.{ending}"
            watch = _Busy() if bench.cuda else None
            started = time.perf_counter()
            done = subprocess.run(bench.command(scene, out.name, models, "--json"), capture_output=True, text=True)
            seconds = time.perf_counter() - started
            busy = f", GPU busy {watch.stop():.0f} %" if watch else ""
            name = f"{bench.side} x {bench.side} x 4, {models} to {ending}"
            if done.returncode:
                yield Row(name, False, said(done.stderr))
            else:
                facts = json.loads(done.stdout)
                words = f"{seconds:.1f} s ({area / seconds:.1f} km2/s), blocks {facts['blocks_seconds']:.1f} s{busy}"
                yield Row(name, None, words)
            shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)


class _Busy:
    """Asks the driver how busy the GPU is, five times a second."""

    def __init__(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)

    def stop(self) -> float:
        """Return the mean since the start, percent."""
        self._process.terminate()
        said, _ = self._process.communicate()
        found = [float(line) for line in said.split() if line.strip().isdigit()]
        return statistics.mean(found) if found else float("nan")
