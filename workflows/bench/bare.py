"""The bare model: nothing but its forward pass, as the yardstick for the engine."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.catalog import ModelRef
from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.enhancer import keep_buffers
from scenelift.models.errors import ModelError
from scenelift.models.networks.conditioned import ConditionedGenerator
from scenelift.models.precision import to_precision
from scenelift.models.sensing.blurs import Blur
from scenelift.models.shipped import checkpoint_path, joint_of


def bare_forward(ref: ModelRef, patches: NDArray[np.float32]) -> tuple[float, float]:
    """Run a checkpoint's network, padded as in training, over patches without a halo; return seconds of wall and CPU.

    Parameters
    ----------
    ref : ModelRef
        A shipped model or a checkpoint; its device, precision and threads are used, and which bands are the colours.
    patches : ndarray of float32, shape (N, C, P, P)
        Reflectance.

    Raises
    ------
    ModelError
        If the model is no checkpoint.
    """
    if ref.colour is not None:  # as in the job, three bands in one pass of the joint network
        own = replace(ref, colour=None, joint=None)
        others = [band for band in range(patches.shape[1]) if band not in ref.colour]
        parts = [(replace(own, name=joint_of(ref.name) or ""), list(ref.colour)), (own, others)]
        seconds = [bare_forward(part, patches[:, bands]) for part, bands in parts if bands]
        return sum(wall for wall, _ in seconds), sum(cpu for _, cpu in seconds)
    path = checkpoint_path(ref.name)
    if path is None:
        raise ModelError(f"{ref.name} has no network to time; name a shipped model or a checkpoint")
    module, spec = load_checkpoint(path, valid=False)
    if isinstance(module, ConditionedGenerator):  # it runs as the plain network for a scene
        told = spec.bands or 1
        module, spec = module.fold([Blur()] * told, [0.0] * told), replace(spec, needs_blur=False, needs_noise=False)
    ready = to_precision(module.eval(), ref.precision).to(ref.device).to(memory_format=torch.channels_last)
    samples = torch.from_numpy(patches).reshape(-1, spec.bands or 1, *patches.shape[2:])
    samples = samples.contiguous(memory_format=torch.channels_last)
    sigma = torch.full((1,), 0.01) if spec.needs_noise else None

    def one(index: int) -> int:
        with torch.inference_mode():
            sample = samples[index : index + 1].to(ref.device)
            out = ready(sample) if sigma is None else ready(sample, sigma.to(ref.device))
            return out.shape[-1]

    keep_buffers()
    with ThreadPoolExecutor(ref.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(one, range(ref.threads)))  # warm up
        start, cpu = time.perf_counter(), time.process_time()
        list(pool.map(one, range(len(samples))))
        if ref.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start, time.process_time() - cpu
