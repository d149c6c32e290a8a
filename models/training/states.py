"""The state of a training on disk: weights, averages and optimizers in one safetensors file, never half written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from scenelift.models.checkpoint import write_atomically
from scenelift.models.errors import ModelError


@dataclass(frozen=True)
class State:
    """What a training goes on from."""

    facts: dict[str, Any]
    """Step, best score and what else is no tensor."""
    tensors: dict[str, Tensor]
    """All tensors, each under "PART/NAME"; those of optimizer i under "optimizer/i/PARAMETER/NAME"."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of one part, by their names within it."""
        start = f"{prefix}/"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def restore(self, optimizers: Iterable[Optimizer]) -> None:
        """Give optimizers of the same kinds, in the same order, back what they knew."""
        for i, optimizer in enumerate(optimizers):
            slots: dict[int, dict[str, Tensor]] = {}
            for name, value in self.part(f"optimizer/{i}").items():
                parameter, slot = name.split("/", 1)
                slots.setdefault(int(parameter), {})[slot] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})


def write_state(
    path: Path, parts: Mapping[str, Mapping[str, Tensor]], optimizers: Iterable[Optimizer], facts: dict[str, Any]
) -> None:
    """Write a state in one atomic step.

    Parameters
    ----------
    path : path
        The file; an older one is replaced only once the new one is whole and on disk.
    parts : mapping
        State dicts by name.
    optimizers : iterable of Optimizer
    facts : dict
        What is no tensor, JSON.

    Raises
    ------
    ModelError
        If the file cannot be written.
    """
    tensors = {f"{prefix}/{name}": value for prefix, state in parts.items() for name, value in state.items()}
    for i, optimizer in enumerate(optimizers):
        for parameter, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{parameter}/{name}": torch.as_tensor(v) for name, v in slots.items()}
    plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(plain, {"facts": json.dumps(facts)}))


def read_state(path: Path, digest: str) -> State:
    """Read a state of the training that ``digest`` names.

    Raises
    ------
    ModelError
        If it belongs to another recipe or other data, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            # until release 0.2 the part "discriminator" had the name "judge"
            tensors = {re.sub("^judge/", "discriminator/", name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} cannot be resumed: {error}") from None
    if facts["identity"] != digest:
        raise ModelError(
            f"{path} belongs to another recipe or other data; use another --run folder, or --no-resume to start over"
        )
    return State(facts, tensors)
