"""A torch module as an enhancer: device, precision and batching on one side, float32 patches on the other."""

from __future__ import annotations

import contextlib
import ctypes
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.precision import no_tf32, to_precision
from scenelift.models.spec import ModelSpec

GPU_BATCH = 16
"""Patches a GPU gets at once; short batches are filled up, so that every launch has this one shape."""
IN_FLIGHT = 3
"""Batches that a GPU holds at once: one comes, one is computed, one goes."""


def pick_device(wanted: str, elsewhere: bool = False) -> str:
    """Return "cuda" or "cpu" for "auto", and check that what was asked for exists.

    Parameters
    ----------
    wanted : str
    elsewhere : bool
        The work is done on other machines: "auto" means what is here, but what is asked for is believed.

    Raises
    ------
    ModelError
        If CUDA is asked for and torch finds none.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise ModelError(f"--device must be auto, cpu or cuda, got {wanted!r}")
    available = torch.cuda.is_available()
    if wanted == "cuda" and elsewhere:
        return "cuda"
    if wanted == "cuda" and not available:
        raise ModelError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return "cuda" if available and wanted != "cpu" else "cpu"


def gpu_count() -> int:
    """Return the number of CUDA devices that torch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def keep_buffers() -> None:
    """Let the C library keep freed memory for the next layer instead of giving it back each time.

    A network frees and takes the same tens of megabytes a hundred times a second. Dask tells its workers to trim the
    heap after every free; each layer then waits for the kernel to map and zero its output again, which doubled the
    time in the model. Does nothing where the C library has no mallopt.
    """
    trim_threshold, mmap_threshold = -1, -3  # <malloc.h>
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 1 << 25)
        mallopt(trim_threshold, 1 << 29)


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What the texts of torch's and oneDNN's errors say that mean: a smaller batch could work."""


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError however torch or oneDNN says it, and give cached GPU memory back for the next try."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one too
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error


class Translated:
    """A user's own enhancer, whose torch errors for want of memory are MemoryErrors to the engine."""

    def __init__(self, enhancer: Any) -> None:
        self._enhancer = enhancer
        self.spec = enhancer.spec

    def __call__(self, patches: NDArray[np.float32], *where: NDArray[np.int64]) -> NDArray[np.float32]:
        with memory_errors():
            return self._enhancer(patches, *where)


class TorchEnhancer:
    """Runs a torch module over patches.

    On a CPU every patch goes through alone, on one thread, in one memory format; several threads work on several
    patches. oneDNN chooses its kernels by shape and thread count, and different kernels add in different orders, so
    this is both the fastest way (activations stay in cache) and the one whose bits never change. On a GPU patches go
    in batches of one fixed size.

    Parameters
    ----------
    module : torch.nn.Module or sequence of them
        One for all bands, or for a band-agnostic network one for each band of the scene. Takes
        (N, C, P + 2 halo, P + 2 halo), and the noise level (N,) if the spec says so. Returns the core,
        (N, C', scale P, scale P), or the whole patch scaled, which is then cropped.
    spec : ModelSpec
    device : str
    precision : str
        "fp32" or "bf16".
    threads : int
        CPU threads.
    noise : tuple of float, optional
        Standard deviation (reflectance) for each band; None: it must be given with the patches.
    """

    def __init__(
        self,
        module: nn.Module | Sequence[nn.Module],
        spec: ModelSpec,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int = 1,
        noise: tuple[float, ...] | None = None,
    ) -> None:
        self.spec = spec
        modules = [module] if isinstance(module, nn.Module) else list(module)
        self.modules = [m.eval() for m in modules]
        self.module = self.modules[0]
        self._device = torch.device(device)
        self._noise = noise
        self._ready = [
            to_precision(m, precision).to(self._device).to(memory_format=torch.channels_last) for m in self.modules
        ]
        if self._device.type == "cpu":
            keep_buffers()
        if self._device.type == "cuda":  # the slots' streams do not wait for the one that brought the weights
            torch.cuda.synchronize(self._device)
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(IN_FLIGHT):
            self._slots.put(_Slot(self._device))
        # Pool threads take the process-wide setting; each keeps to a single core.
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, patches: NDArray[np.float32], noise: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Enhance a batch of patches; see `scenelift.pipeline.enhance.Enhancer`.

        Parameters
        ----------
        patches : ndarray of float32, shape (N, C, P + 2 halo, P + 2 halo)
        noise : ndarray, optional
            Standard deviation (reflectance) for each patch and band, shape (N, C), instead of the enhancer's own.
        """
        count, bands = patches.shape[:2]
        together = self.spec.bands or 1
        samples = torch.from_numpy(np.ascontiguousarray(patches)).reshape(-1, together, *patches.shape[2:])
        if bands // together % len(self._ready):
            raise ModelError(f"model {self.spec.name} was prepared for {len(self._ready)} bands, the scene has {bands}")
        sigma = self._sigma(count, bands, noise) if self.spec.needs_noise else None
        with memory_errors():
            cores = self._on_cpu(samples, sigma) if self._device.type == "cpu" else self._on_gpu(samples, sigma)
        return cores.reshape(count, -1, *cores.shape[2:]).numpy()

    def network_of(self, band: int, bands: int) -> tuple[Callable[[Tensor], Tensor], tuple[int, ...], int]:
        """Return what makes one band of a scene of so many: for gradients, in float32 whatever the precision is.

        Returns
        -------
        function : callable
            (N, c, P + 2 halo, P + 2 halo) to the core (N, c', scale P, scale P), differentiable.
        seen : tuple of int
            The c bands that it looks at, 0-based.
        channel : int
            Of its c' the one that is the band.
        """
        together = self.spec.bands
        seen = tuple(range(bands)) if together else (band,)
        sigma = self._sigma(1, bands, None)[0 if together else band] if self.spec.needs_noise else None
        module = self.modules[band % len(self.modules) if together is None else 0]

        def function(samples: Tensor) -> Tensor:
            level = () if sigma is None else (sigma.expand(len(samples)),)
            return self._core(module(samples, *level), samples)

        return function, seen, band if together else 0

    def _sigma(self, count: int, bands: int, noise: NDArray[np.float32] | None) -> Tensor:
        if noise is None and self._noise is None:
            raise ModelError(f"model {self.spec.name} needs a noise level for each band, got none: give --noise")
        levels = torch.as_tensor(self._noise if noise is None else noise, dtype=torch.float32)
        if levels.shape[-1] not in (1, bands):
            raise ModelError(f"noise levels must be one, or one a band ({bands}), got {levels.shape[-1]}")
        if self.spec.bands is None:
            return levels.expand(count, bands).reshape(-1)
        # row by row: torch sums columns in another order, and the level's last bit decides the output's
        rows = levels.reshape(-1, levels.shape[-1])
        return torch.stack([row.expand(bands).mean() for row in rows]).expand(count)

    @torch.inference_mode()
    def _forward(self, samples: Tensor, sigma: Tensor | None, which: int = 0) -> Tensor:
        samples = samples.contiguous(memory_format=torch.channels_last)
        ready = self._ready[which]
        with no_tf32(self._device):
            out = ready(samples) if sigma is None else ready(samples, sigma)
        return self._core(out, samples).float().contiguous()

    def _core(self, out: Tensor, samples: Tensor) -> Tensor:
        """Return the core of what a module returned."""
        k, halo = self.spec.scale, self.spec.halo
        core = (samples.shape[2] - 2 * halo) * k, (samples.shape[3] - 2 * halo) * k
        if tuple(out.shape[2:]) == (samples.shape[2] * k, samples.shape[3] * k):
            out = out[:, :, halo * k : halo * k + core[0], halo * k : halo * k + core[1]]
        if tuple(out.shape[2:]) != core:
            raise ModelError(
                f"model {self.spec.name} returned {tuple(out.shape)} for an input of {tuple(samples.shape)}; "
                f"its spec (scale {k}, halo {halo}) promises a core of {core}"
            )
        return out

    def _on_cpu(self, samples: Tensor, sigma: Tensor | None) -> Tensor:
        def one(index: int) -> Tensor:
            at = slice(index, index + 1)
            return self._forward(samples[at], None if sigma is None else sigma[at], index % len(self._ready))

        return torch.cat(list(self._pool.map(one, range(len(samples)))))

    def _on_gpu(self, samples: Tensor, sigma: Tensor | None) -> Tensor:
        kinds = len(self._ready)
        parts = [self._of_one(samples[k::kinds], None if sigma is None else sigma[k::kinds], k) for k in range(kinds)]
        return torch.stack(parts, 1).flatten(0, 1)

    def _of_one(self, samples: Tensor, sigma: Tensor | None, which: int) -> Tensor:
        """Return the cores that one module makes of samples, batch by batch, beside the batches of other threads."""
        cores = []
        for start in range(0, len(samples), GPU_BATCH):
            part = slice(start, start + GPU_BATCH)
            slot = self._slots.get()
            try:
                sent = slot.filled("sent", samples[part])
                level = None if sigma is None else slot.filled("level", sigma[part])
                with slot.stream():
                    there = sent.to(self._device, non_blocking=True)
                    out = self._forward(there, None if level is None else level.to(self._device), which)
                    got = slot.buffer("got", out.shape).copy_(out, non_blocking=True)
                    slot.wait()
                cores.append(got[: len(samples[part])].clone())
            finally:
                self._slots.put(slot)
        return torch.cat(cores)


class _Slot:
    """What one batch on a GPU needs: a stream of its own, and buffers in pinned memory that are used again and again.

    So its copies run beside the computing of other batches. Without a GPU there is neither stream nor pin.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._buffers: dict[str, Tensor] = {}

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the batch is sent, computed and fetched."""
        return torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()

    def wait(self) -> None:
        """Wait until all that was begun in the stream is done."""
        if self._stream:
            self._stream.synchronize()

    def buffer(self, name: str, shape: torch.Size) -> Tensor:
        """Return the buffer of that name, another one if the shape is new."""
        kept = self._buffers.get(name)
        if kept is None or kept.shape != shape:
            kept = self._buffers[name] = torch.empty(shape, pin_memory=self._stream is not None)
        return kept

    def filled(self, name: str, samples: Tensor) -> Tensor:
        """Return a buffer of ``GPU_BATCH`` samples: those given, then zeros."""
        room = self.buffer(name, torch.Size((GPU_BATCH, *samples.shape[1:])))
        room[: len(samples)] = samples
        room[len(samples) :] = 0
        return room
