"""What this machine can do at most, one core at a time: what `scenelift bench` is to be read against."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from scenelift.models.enhancer import keep_buffers
from scenelift.models.precision import no_tf32
from scenelift.pipeline.outputs.compression import one_tile
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.pipeline.tiles import Window

SECONDS, LEAST = 0.3, 3
"""Time for each figure, and repetitions; the best counts."""
SIDE, CHANNELS, PATCH = 1024, 64, 256
"""Of the matrices, of the convolution, and of its patch."""
BUFFER = 1 << 28
"""Bytes that are copied in memory, and written to the disk."""


def ceilings(device: str, folder: Path, pixels: NDArray[np.generic]) -> dict[str, float]:
    """Measure the machine.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Where matrices and convolutions are computed; a CPU with one thread.
    folder : Path
        On the disk that is timed.
    pixels : ndarray, shape (C, H, W)
        What codecs compress, in the type of the file: `sample` of a scene.

    Returns
    -------
    dict
        "matmul", "conv" and "conv bf16": 10^9 operations (a multiplication and an addition are two) a second, float32
        unless the name says so; "memory": GB copied a second; "disk": MB written and synced a second; "zstd" and
        "deflate": MB of pixels a second, as the tiles of a COG.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_buffers()
    try:
        with torch.inference_mode(), no_tf32(torch.device(device)):
            found = _arithmetic(device)
    finally:
        torch.set_num_threads(threads)
    source = np.zeros(BUFFER, np.uint8)
    target = np.empty_like(source)
    found["memory"] = BUFFER / 1e9 / _best(lambda: np.copyto(target, source))
    found["disk"] = BUFFER / 1e6 / _best(lambda: _write(folder / "ceiling", source))
    (folder / "ceiling").unlink()
    tile = np.pad(pixels[:, :512, :512], [(0, 0), *((0, -min(side, 512) % 16) for side in pixels.shape[1:])], "edge")
    for name in ("zstd", "deflate"):
        found[name] = tile.nbytes / 1e6 / _best(functools.partial(one_tile, tile, name))
    return found


def sample(scene: Scene) -> NDArray[np.generic]:
    """Return the stored values of a scene's first rows, at most `BUFFER` bytes but for a single row."""
    height, width = scene.grid.shape
    row = width * len(scene.bands) * np.dtype(scene.dtype).itemsize
    return scene.read_dn(Window(0, 0, max(1, min(height, BUFFER // row)), width))[0]


def _arithmetic(device: str) -> dict[str, float]:
    a, b = (torch.rand(SIDE, SIDE, device=device) for _ in range(2))
    found = {"matmul": 2 * SIDE**3 / 1e9 / _best(lambda: torch.mm(a, b), device)}
    for name, dtype in (("conv", torch.float32), ("conv bf16", torch.bfloat16)):
        x = torch.rand(1, CHANNELS, PATCH, PATCH, device=device).to(dtype, memory_format=torch.channels_last)
        weight = torch.rand(CHANNELS, CHANNELS, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
        operations = 2 * 9 * CHANNELS**2 * PATCH**2
        found[name] = operations / 1e9 / _best(functools.partial(F.conv2d, x, weight, padding=1), device)
    return found


def _best(work: Callable[[], Any], device: str = "cpu") -> float:
    """Return the least seconds that some work takes, after a first time that is not counted."""
    seconds: list[float] = []
    work()
    until = time.perf_counter() + SECONDS
    while len(seconds) < LEAST or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _write(path: Path, values: NDArray[np.uint8]) -> None:
    with path.open("wb") as file:
        file.write(values.data)
        file.flush()
        os.fsync(file.fileno())
