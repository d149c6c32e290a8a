"""ONNX files as bytes: read and told apart without waiting for torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scenelift.models.errors import ModelError

MAX_BYTES = 1 << 30


def read_onnx(path: Path | str) -> bytes:
    """Return the content of an ONNX file.

    Raises
    ------
    ModelError
        If there is none, or it is too large.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; an ONNX file must have at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}; name an ONNX file that exists") from None


def onnx_digest(path: Path | str) -> str:
    """Return the SHA-256 of an ONNX file, in hex."""
    return hashlib.sha256(read_onnx(path)).hexdigest()
