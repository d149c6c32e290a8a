"""Training on several processes: each takes its share of every batch, and gradients are averaged.

Started by `launch` on one machine, or by ``torchrun`` on several: one process a GPU (NCCL), or on CPUs (gloo). Every
process draws and degrades the whole batch from the same seed and works on its share, so N processes take the same
steps as one, up to the rounding of sums. Batch normalisation alone sees a process's own share; its running statistics
are averaged. For a GPU, further processes draw and degrade ahead what the next steps need (`drawn`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from scenelift.models.errors import ModelError

GRACE = 30.0
"""Seconds that processes which are told to stop have for saving their state."""
DRAWERS = 8
"""Processes that draw for one GPU, at most: more than any shipped recipe keeps busy."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one network together; by default, this one alone."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process (rank 0) that validates, logs and saves."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Raise ModelError if a batch cannot be shared out evenly."""
        if batch % self.size:
            raise ModelError(f"a batch of {batch} cannot be shared by {self.size} processes: choose a multiple")

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch: every ``size``-th sample."""
        return batch[self.rank :: self.size]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over the processes, in one exchange."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1).float() for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the processes; NaN for all if it is NaN for one."""
        value = value.detach().clone()
        self.average([value])
        return value

    def broadcast(self, value: float, device: torch.device) -> float:
        """Return the value of rank 0."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)

    def destroy(self) -> None:
        """End the communication between the processes."""
        if self.size > 1:
            dist.destroy_process_group()


def is_one_of_several() -> bool:
    """Whether this process was started as one of several."""
    return "WORLD_SIZE" in os.environ


def is_main_process() -> bool:
    """Whether this process was started alone, or has rank 0."""
    return os.environ.get("RANK", "0") == "0"


def join(device: str) -> tuple[ProcessGroup, str]:
    """Join the processes that were started together, if they were.

    Parameters
    ----------
    device : str
        "cpu" or "cuda".

    Returns
    -------
    ProcessGroup
    str
        This process's device: "cpu", "cuda", or "cuda:1" for the second process of a node.

    Raises
    ------
    ModelError
        If there are more processes than GPUs on this node.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ProcessGroup(), device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ModelError(f"there are more processes here than the {torch.cuda.device_count()} GPUs torch finds")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return ProcessGroup(dist.get_rank(), size), device


def launch(command: Sequence[str], size: int) -> int:
    """Run a command ``size`` times on this machine as one process group; if one fails, the others are ended.

    This is torchrun's launcher without its banner: what the processes say and the exit status stay those of the
    command.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    size : int

    Returns
    -------
    int
        0, the exit status of the process that failed first, or 128 and the number of the signal that ended this one.
    """
    # imported here: half a second that only the first process pays
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException as error:  # it was told to stop, and has ended the processes that it knew of
        _end_children(error.sigval)
        return 128 + error.sigval
    return 0


def _end_children(number: int) -> None:
    """End what this process has started: told to stop while it starts them, the launcher loses sight of some."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for sign in (number, signal.SIGKILL):
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(sign)
        _, children = psutil.wait_procs(children, GRACE)


def drawers(device: torch.device) -> int:
    """Return how many processes draw ahead for a device: none for a CPU, whose cores have enough to do."""
    if device.type == "cpu":
        return 0
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(DRAWERS, len(os.sched_getaffinity(0)) // sharing - 1))


def drawn(draw: Callable[[int], Any], numbers: range, processes: int) -> Iterator[Any]:
    """Yield ``draw(number)`` for each number, in order.

    Parameters
    ----------
    draw : callable
        Takes a number, and depends on nothing else that changes. Returns tensors of the CPU, nested in tuples.
    numbers : range
    processes : int
        That draw ahead; 0: this one, when asked.
    """
    if not processes:
        yield from map(draw, numbers)
        return
    # imported here: only who trains on a GPU pays for it
    from torch.utils.data import DataLoader

    # forked: patches that are mapped from a file are shared, and what is drawn from needs no pickling
    loader: DataLoader[Any] = DataLoader(
        _Numbered(draw),  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbers,
        num_workers=processes,
        prefetch_factor=4,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="fork",
    )
    try:
        for batch in loader:
            if isinstance(batch, ModelError):
                raise batch
            yield batch
    except RuntimeError as error:  # what torch says of a process that was killed
        if "DataLoader worker (pid" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise ModelError(
            f"a process that draws training batches ended: {reason} Batches travel through /dev/shm: a container may "
            "need more of it (`docker run --shm-size 2g`)"
        ) from None


class _Numbered:
    """A function of a number as torch's loader wants it; the loader would wrap an error in its own traceback."""

    def __init__(self, draw: Callable[[int], Any]) -> None:
        self._draw = draw

    def __getitem__(self, number: int) -> Any:
        try:
            return self._draw(number)
        except ModelError as error:
            return error
