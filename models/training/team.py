"""Training on several processes: each takes its share of every batch, and gradients are averaged.

Started by `launch` on one machine, or by ``torchrun`` on several: one process a GPU (NCCL), or on CPUs (gloo). Every
process draws and degrades the whole batch from the same seed and works on its share, so N processes take the same
steps as one, up to the rounding of sums.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scenelift.models.errors import ModelError


@dataclass(frozen=True)
class Team:
    """The processes that train one network together; by default, this one alone."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process validates, logs and saves."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Raise ModelError if a batch cannot be shared out evenly."""
        if batch % self.size:
            raise ModelError(f"a batch of {batch} cannot be shared by {self.size} processes: choose a multiple")

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch: every ``size``-th sample."""
        return batch[self.rank :: self.size]

    def average_gradients(self, modules: Iterable[nn.Module]) -> None:
        """Replace gradients by their mean over the processes, in one exchange."""
        if self.size == 1:
            return
        gradients = [p.grad for m in modules for p in m.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1).float() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the processes; not a number for all if it is for one."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def from_leader(self, value: float, device: torch.device) -> float:
        """Return the leader's value."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)

    def leave(self) -> None:
        """Take leave of the others, if there are any."""
        if self.size > 1:
            dist.destroy_process_group()


def in_team() -> bool:
    """Whether this process was started as one of several."""
    return "WORLD_SIZE" in os.environ


def is_leader() -> bool:
    """Whether this process was started alone, or is the first of its team."""
    return os.environ.get("RANK", "0") == "0"


def join(device: str) -> tuple[Team, str]:
    """Join the processes that were started together, if they were.

    Parameters
    ----------
    device : str
        "cpu" or "cuda".

    Returns
    -------
    Team
    str
        This process's device: "cpu", "cuda", or "cuda:1" for the second process of a node.

    Raises
    ------
    ModelError
        If there are more processes than GPUs on this node.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team(), device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ModelError(f"there are more processes here than the {torch.cuda.device_count()} GPUs torch finds")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Team(dist.get_rank(), size), device


def launch(command: Sequence[str], size: int) -> int:
    """Run a command ``size`` times on this machine as one team; if one fails, the others are ended.

    Parameters
    ----------
    command : sequence of str
    size : int

    Returns
    -------
    int
        0, or the exit status of the process that failed first.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    team = [
        subprocess.Popen(list(command), env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(size)
    ]
    try:
        while True:
            states = [process.poll() for process in team]
            if failed := [state for state in states if state]:
                return failed[0]
            if all(state == 0 for state in states):
                return 0
            time.sleep(0.1)
    finally:
        for process in team:
            process.terminate()
        for process in team:
            process.wait()
