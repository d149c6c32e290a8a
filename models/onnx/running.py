"""An ONNX file as a torch module: ONNX Runtime (or OpenVINO) computes, on one thread, one patch at a time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.onnx import EXTRA, KEY
from scenelift.models.onnx.files import read_onnx
from scenelift.models.onnx.openvino import OpenVinoSession, wants_openvino
from scenelift.models.spec import ModelSpec


class OnnxModule(nn.Module):
    """Runs an ONNX file on the CPU, by ONNX Runtime in float32, or by OpenVINO where the file asks for it.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        For messages.
    precision : {"fp32", "bf16"}
        In which OpenVINO computes.

    Raises
    ------
    ModelError
        If ONNX Runtime (or OpenVINO) is not installed, or cannot run the file: unknown operators, other inputs than one
        image.
    """

    def __init__(self, content: bytes, name: str, precision: str = "fp32") -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise ModelError(f"{name}: ONNX files need ONNX Runtime: {EXTRA}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # what it says is said by the errors
        self.name = name
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its errors share no base class
            raise ModelError(f"{name}: ONNX Runtime cannot run it: {_first_line(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"{name}: one input and one output are wanted, it has {len(inputs)} and {len(outputs)}: "
                "export it with everything but the image folded in"
            )
        self._input, shape = inputs[0].name, inputs[0].shape
        if inputs[0].type != "tensor(float)" or len(shape) != 4:
            raise ModelError(
                f"{name}: the input must be float32 (N, C, H, W), it is {inputs[0].type} {shape}: export it so"
            )
        sizes = [size if isinstance(size, int) else None for size in shape]
        self.bands: int | None = sizes[1]
        """Channels of the input; None where the file leaves them open."""
        if sizes[2] != sizes[3]:
            raise ModelError(f"{name}: patches are square, and its input is {sizes[2]} x {sizes[3]} pixels")
        if sizes[0] not in (None, 1):
            raise ModelError(f"{name}: patches go in one by one, and it wants {sizes[0]} at once: export it for one")
        self.side = sizes[2]
        """Pixels a side of the input, where the file allows one size alone; else None."""
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._openvino = OpenVinoSession(content, name, precision) if wants_openvino(content) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it has no state but the file

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C', scale·H - lost, scale·W - lost) for (N, C, H, W)."""
        made = [self._run(np.ascontiguousarray(sample[None].numpy())) for sample in x.detach().cpu().float()]
        return torch.from_numpy(np.concatenate(made)).to(x)

    def _run(self, sample: np.ndarray) -> np.ndarray:
        if self._openvino is not None:
            return self._openvino.run(sample)
        try:
            return np.asarray(self._session.run(None, {self._input: sample})[0])
        except Exception as error:
            if "bad_alloc" in str(error) or "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            raise ModelError(
                f"{self.name} cannot take {sample.shape[1]} bands of {sample.shape[2]} x {sample.shape[3]} pixels: "
                f"{_first_line(error)}"
            ) from None


class Core(nn.Module):
    """An ONNX module that returns the core of a patch alone, and fills up a patch that is smaller than its one size.

    Parameters
    ----------
    module : OnnxModule
    spec : ModelSpec
    gain, offset : float
        What it sees is ``gain`` · reflectance + ``offset``; what it returns is brought back.
    """

    def __init__(self, module: OnnxModule, spec: ModelSpec, gain: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.module, self.spec, self.gain, self.offset = module, spec, gain, offset

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C', scale P, scale P) for (N, C, P + 2 halo, P + 2 halo)."""
        height, width = x.shape[2:]
        side, halo, scale = self.module.side, self.spec.halo, self.spec.scale
        values = x * self.gain + self.offset
        if side is not None:
            values = F.pad(values, (0, side - width, 0, side - height))  # beyond the halo: no pixel of the core sees it
        out = self.module(values)
        lost = (scale * values.shape[2] - out.shape[2]) // 2
        rows, cols = (slice(scale * halo - lost, scale * (n - halo) - lost) for n in (height, width))
        out = out[..., rows, cols]
        return out if self.spec.labels else (out - self.offset) / self.gain


def _first_line(error: Exception) -> str:
    """Return what an error of ONNX Runtime says, without its number and its name for the error."""
    line = str(error).strip().splitlines()[0]
    mark = ", Error " if ", Error " in line else " : "
    return line.rpartition(mark)[2].strip()[:200]


def open_onnx(path: Path | str, digest: str | None = None, precision: str = "fp32") -> OnnxModule:
    """Open an ONNX file, which must be the one with this digest where one is given.

    Raises
    ------
    ModelError
        If it is another one by now, or cannot be run.
    """
    content = read_onnx(path)
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ModelError(f"{path} has changed since this job was planned; start again with --overwrite")
    return OnnxModule(content, Path(path).name, precision)


def declared(module: OnnxModule) -> dict[str, Any]:
    """Return the contract that an ONNX file's metadata declares; empty where it declares none.

    Raises
    ------
    ModelError
        If it is damaged.
    """
    text = module.metadata.get(KEY)
    if text is None:
        return {}
    try:
        found = json.loads(text)
        gain, offset = (float(found.pop(key)) for key in ("gain", "offset"))
        ModelSpec(**found)
    except (ValueError, TypeError, KeyError, AttributeError, ModelError) as error:
        raise ModelError(f"{module.name}: the contract in its metadata ({KEY}) cannot be read: {error}") from None
    return found | {"gain": gain, "offset": offset}


def running(module: OnnxModule, contract: dict[str, Any]) -> tuple[Core, ModelSpec]:
    """Return the module that the engine runs, by a contract that has been measured (`measuring.measure`)."""
    values = dict(contract)
    gain, offset = float(values.pop("gain")), float(values.pop("offset"))
    spec = ModelSpec(**values)
    return Core(module, spec, gain, offset), spec
