"""Checkpoints: one safetensors file that holds weights, architecture and spec, and is never half written."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from scenelift.models.errors import ModelError
from scenelift.models.spec import ModelSpec

if TYPE_CHECKING:  # what a checkpoint says of itself is read without waiting for torch
    from torch import Tensor, nn

MAX_BYTES = 1 << 30
MAX_METADATA = 1 << 20


def save_checkpoint(path: Path | str, module: nn.Module, spec: ModelSpec, arch: dict[str, Any]) -> None:
    """Write weights, spec and architecture to ``path`` in one atomic step.

    Parameters
    ----------
    path : path
        Where the file will be; an older one is replaced only once the new one is whole and on disk.
    module : Module
        Its state dict is stored as it is (dtype included).
    spec : ModelSpec
        Stored under the metadata key "spec".
    arch : dict
        ``{"kind": KIND, ...constructor arguments}``, stored under "arch".

    Raises
    ------
    ModelError
        If the file cannot be written; whatever was at ``path`` is then untouched.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    metadata = {"format": "pt", "spec": spec.to_json(), "arch": json.dumps(arch, sort_keys=True)}
    write_atomically(Path(path), save(tensors, metadata))


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` under a temporary name in the same folder, force it to disk, then rename.

    Raises
    ------
    ModelError
        If that fails, e.g. on a full disk; the temporary file is removed and ``path`` untouched.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise ModelError(f"cannot write {path}: {error.strerror or error}") from None
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(path: Path | str, valid: bool = True) -> tuple[nn.Module, ModelSpec]:
    """Read a checkpoint.

    Parameters
    ----------
    path : path
        A file written by ``save_checkpoint``.
    valid : bool
        Build the network unpadded, as the tiling engine wants it; False for training and fine-tuning.

    Returns
    -------
    module : Module
        In float32, on the CPU, in evaluation mode.
    spec : ModelSpec

    Raises
    ------
    ModelError
        If the file is missing, damaged, too large, or its tensors are not those of its architecture.
    """
    import torch

    from scenelift.models.networks.architectures import build

    spec, arch = read_metadata(path)
    with torch.device("meta"):  # the header's sizes are checked before memory is spent on them
        expected = build(arch, valid=valid).state_dict()
    tensors = _read(Path(path), expected)
    module = build(arch, valid=valid)
    module.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})
    return module.eval(), spec


def read_metadata(path: Path | str) -> tuple[ModelSpec, dict[str, Any]]:
    """Return spec and architecture of a checkpoint without reading its weights."""
    try:
        with safe_open(_checked(Path(path)), framework="numpy") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is no readable safetensors file: {error}") from None
    return _parse_metadata(metadata, str(path))


def _parse_metadata(metadata: dict[str, str], where: str) -> tuple[ModelSpec, dict[str, Any]]:
    """Return spec and architecture from a header's metadata, or raise ModelError."""
    if missing := [key for key in ("spec", "arch") if key not in metadata]:
        raise ModelError(f"{where} is no scenelift checkpoint: its header lacks {' and '.join(missing)}")
    if sum(map(len, metadata.values())) > MAX_METADATA:
        raise ModelError(f"{where}: the header's metadata is larger than {MAX_METADATA} bytes")
    try:
        arch = json.loads(metadata["arch"])
    except ValueError as error:
        raise ModelError(f"{where}: the architecture is not JSON: {error}") from None
    if not isinstance(arch, dict):
        raise ModelError(f"{where}: the architecture must be a JSON object, got {metadata['arch'][:60]}")
    return ModelSpec.from_json(metadata["spec"]), arch


def checkpoint_digest(path: Path | str) -> str:
    """Return the SHA-256 of the file, in hex: it names the weights in provenance and fingerprints."""
    try:
        found = _checked(Path(path)).stat()
        return _digest(Path(path), found.st_mtime_ns, found.st_size)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None


@functools.lru_cache(maxsize=64)
def _digest(path: Path, changed_ns: int, size: int) -> str:
    """Return the digest of a file as it was at that time: experiments ask for it for every image."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}; name a .safetensors file that exists")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ModelError(f"{path} has {size} bytes; a checkpoint must have at most {MAX_BYTES}")
    return path


def _read(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    import torch

    try:
        with safe_open(_checked(path), framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
            _check_shapes(str(path), expected, shapes)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is no readable safetensors file: {error}") from None
    for name, value in tensors.items():
        if value.is_floating_point() != expected[name].is_floating_point():
            raise ModelError(f"{path}: tensor {name!r} must be {expected[name].dtype}, got {value.dtype}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(
                f"{path}: tensor {name!r} holds values that are not finite: "
                "train it again, or take an earlier checkpoint"
            )
    return tensors


def _check_shapes(where: str, expected: dict[str, Tensor], found: dict[str, tuple[int, ...]]) -> None:
    """Compare names and shapes with the architecture's, before any tensor is read."""
    if missing := sorted(set(expected) - set(found)):
        raise ModelError(f"{where} lacks the tensor {missing[0]!r} (and {len(missing) - 1} more)")
    if unknown := sorted(set(found) - set(expected)):
        raise ModelError(f"{where} holds a tensor its architecture does not have: {unknown[0]!r}")
    for name, shape in found.items():
        if shape != tuple(expected[name].shape):
            shapes = f"{shape}, the architecture wants {tuple(expected[name].shape)}"
            raise ModelError(f"{where}: tensor {name!r} has shape {shapes}")
