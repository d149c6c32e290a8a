"""Files of error models: one beside a checkpoint, bound to it by its digest."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from scenelift.models.calibration import LOCAL, ErrorModel
from scenelift.models.checkpoint import checkpoint_digest, write_atomically
from scenelift.models.errors import ModelError
from scenelift.models.shipped import checkpoint_path, joint_of, shipped
from scenelift.models.spec import ModelSpec

SUFFIX = ".errors"
"""Ending of the file that holds a checkpoint's error model, beside it."""


def errors_path(checkpoint: Path) -> Path:
    """Return where the error model of a checkpoint is kept."""
    return checkpoint.with_suffix(SUFFIX)


def save_errors(path: Path, errors: ErrorModel, network: str) -> None:
    """Write an error model.

    Parameters
    ----------
    path : Path
    errors : ErrorModel
        With its factors.
    network : str
        SHA-256 of the checkpoint whose errors it tells.
    """
    tensors = {name: value.detach().float().contiguous() for name, value in errors.state_dict().items()}
    write_atomically(path, save(tensors, {"format": "pt", "network": network}))


def load_errors(path: Path, network: str) -> ErrorModel:
    """Read an error model.

    Parameters
    ----------
    path : Path
    network : str
        SHA-256 of the checkpoint that it must be of.

    Raises
    ------
    ModelError
        If it is of another network, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            owner = (file.metadata() or {}).get("network")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is no readable error model: {error}") from None
    if owner != network:
        raise ModelError(
            f"the error model {path.name} is of another version of the network (SHA-256 {str(owner)[:12]}, "
            f"not {network[:12]}): fit it again with python -m scenelift.workflows.training.calibration"
        )
    try:
        hidden, inputs = tensors["layers.0.weight"].shape[:2]
        errors = ErrorModel(inputs - LOCAL, hidden)
        errors.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is no error model: {str(error).splitlines()[0]}") from None
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise ModelError(
            f"{path} holds values that are not finite: "
            "fit it again with python -m scenelift.workflows.training.calibration"
        )
    return errors.eval()


def error_models(model: str) -> tuple[tuple[str, str], ...]:
    """Return the networks that run under a name, and the SHA-256 of their error models.

    Parameters
    ----------
    model : str
        A shipped network, which may share its work with the one for colours, or a checkpoint.

    Raises
    ------
    ModelError
        If one has no error model, or one of another version of the network.
    """
    path = checkpoint_path(model)
    if path is None:
        raise ModelError(f"{model} has no error model: only shipped networks and checkpoints have one")
    found = [(model, path)]
    if joint := joint_of(model):
        found.append((joint, shipped()[joint]))
    for name, checkpoint in found:
        if not errors_path(checkpoint).is_file():
            raise ModelError(
                f"{name} has no error model ({errors_path(checkpoint).name} beside its weights); "
                "python -m scenelift.workflows.training.calibration fits one"
            )
        load_errors(errors_path(checkpoint), checkpoint_digest(checkpoint))
    return tuple((name, checkpoint_digest(errors_path(checkpoint))) for name, checkpoint in found)


def errors_for(known: tuple[tuple[str, str], ...], spec: ModelSpec) -> ErrorModel:
    """Load the error model of the network with a contract, out of those a job was planned with.

    Raises
    ------
    ModelError
        If it has changed since, or is of another version of the network.
    """
    name, digest = known[0] if len(known) == 1 else next(pair for pair in known if pair[0] == spec.name)
    checkpoint = checkpoint_path(name)
    assert checkpoint is not None  # it was there when the job was planned
    path = errors_path(checkpoint)
    if checkpoint_digest(path) != digest:
        raise ModelError(f"{path} has changed since this job was planned; start again with --overwrite")
    return load_errors(path, checkpoint_digest(checkpoint))
