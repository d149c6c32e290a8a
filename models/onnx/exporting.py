"""Networks written as ONNX files, with their contract in the metadata, and checked against what they were made of."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.checkpoint import write_atomically
from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.errors import ModelError
from scenelift.models.onnx import EXTRA, KEY
from scenelift.models.onnx.files import read_onnx
from scenelift.models.onnx.measuring import gap, measure
from scenelift.models.onnx.openvino import NAME, RUNTIME
from scenelift.models.onnx.running import OnnxModule, open_onnx, running
from scenelift.models.spec import ModelSpec

OPSET = 17
MOST_OFF = 2e-5
"""Largest difference (reflectance) to the network that an export may have: a fifth of a digital number of 16 bits."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    spec: ModelSpec
    off: float
    """Largest difference to the network on a test image, reflectance."""
    nbytes: int

    def describe(self) -> str:
        """Return one line for people."""
        plain = _describe(self.path, self.spec, self.nbytes)
        return f"{plain}; differs from the network by at most {self.off:.1e} reflectance"


class _Told(nn.Module):
    """A network that is told one noise level."""

    def __init__(self, module: nn.Module, sigma: float) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("sigma", torch.tensor([float(sigma)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x, self.get_buffer("sigma").expand(x.shape[0]))


def export_onnx(enhancer: TorchEnhancer, path: Path, noise: float | None = None) -> Exported:
    """Write a network as an ONNX file: reflectance in, reflectance out, any size of patch.

    Parameters
    ----------
    enhancer : TorchEnhancer
        In float32, with one module; what depends on blur is folded already.
    path : Path
        ``*.onnx``; it appears once it is whole, on disk, and checked.
    noise : float, optional
        Standard deviation (reflectance) that a network which is told the noise is told, for good.

    Raises
    ------
    ModelError
        If onnx is not installed, the network cannot be written, or computes something else in ONNX Runtime.
    """
    try:
        import onnx
    except ImportError:
        raise ModelError(f"export needs the package onnx: {EXTRA}") from None
    module, spec = enhancer.module, enhancer.spec
    if spec.needs_noise:
        if noise is None:
            raise ModelError(f"{spec.name} is told the noise: say which by --noise, standard deviation in reflectance")
        module, spec = _Told(module, noise), dataclasses.replace(spec, needs_noise=False)
    spec = dataclasses.replace(spec, record={})
    content = _written(module.eval(), spec)
    graph = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(graph, {KEY: _contract(spec)})
    graph.producer_name = "scenelift"
    content = graph.SerializeToString(deterministic=True)
    off = gap(OnnxModule(content, path.name), module, spec.bands or 1, _side(spec))
    if not off <= MOST_OFF:
        raise ModelError(
            f"{spec.name} as ONNX differs from the network by {off:.2g} reflectance, more than {MOST_OFF:g}: "
            "nothing was written"
        )
    write_atomically(path, content)
    return Exported(path, spec, off, len(content))


def _contract(spec: ModelSpec) -> str:
    return json.dumps(json.loads(spec.to_json()) | {"gain": 1.0, "offset": 0.0}, sort_keys=True)


def _side(spec: ModelSpec) -> int:
    """Return the side of the test image: another one than the graph was traced with."""
    side = 2 * spec.halo + 64
    return side + -side % spec.multiple_of


def _written(module: nn.Module, spec: ModelSpec) -> bytes:
    side = _side(spec) + spec.multiple_of
    x = torch.rand(1, spec.bands or 1, side, side, generator=torch.Generator().manual_seed(0)) * 0.4
    axes = {0: "n", 2: "height", 3: "width"}
    options: dict[str, Any] = {
        "input_names": ["reflectance"],
        "output_names": ["enhanced"],
        "dynamic_axes": {"reflectance": axes, "enhanced": {0: "n", 2: "out_height", 3: "out_width"}},
        "opset_version": OPSET,
        "dynamo": False,
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: what it fixes is measured below
        file = Path(folder) / "network.onnx"
        try:
            torch.onnx.export(module, (x,), str(file), **options)
        except Exception as error:  # noqa: BLE001 - its errors share no base class
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"{spec.name} cannot be written as ONNX: {lines[0][:200]}") from None
        return file.read_bytes()


def for_openvino(source: Path, path: Path) -> None:
    """Write a copy of an exported (or quantised) file that is computed by OpenVINO, and prove its tiles exact there.

    Raises
    ------
    ModelError
        If OpenVINO is not installed, or its tiles would not be exact.
    """
    import onnx

    graph = onnx.load_model_from_string(read_onnx(source))
    known = {entry.key: entry.value for entry in graph.metadata_props}
    onnx.helper.set_model_props(graph, known | {RUNTIME: NAME})
    content = graph.SerializeToString(deterministic=True)
    measure(OnnxModule(content, path.name))
    write_atomically(path, content)


def declare(source: Path, path: Path, gain: float, offset: float) -> str:
    """Write a copy of an ONNX file with its contract, as it is measured, in the metadata; return one line for people.

    Parameters
    ----------
    source, path : Path
    gain, offset : float
        It sees gain · reflectance + offset.

    Raises
    ------
    ModelError
        If it cannot be read, or its tiles would not be exact.
    """
    try:
        import onnx
    except ImportError:
        raise ModelError(f"export needs the package onnx: {EXTRA}") from None
    contract = measure(open_onnx(source)) | {"gain": gain, "offset": offset}
    graph = onnx.load_model_from_string(read_onnx(source))
    onnx.helper.set_model_props(graph, {KEY: json.dumps(contract, sort_keys=True)})
    content = graph.SerializeToString(deterministic=True)
    write_atomically(path, content)
    spec = running(open_onnx(path), contract)[1]
    return _describe(path, spec, len(content))


def _describe(path: Path, spec: ModelSpec, nbytes: int) -> str:
    bands = "each band by itself" if spec.bands is None else f"{spec.bands} bands together"
    return f"{path}: {spec.name}, x{spec.scale}, {bands}, halo {spec.halo} px, {nbytes / 1e6:.1f} MB"
