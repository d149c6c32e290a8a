"""ONNX files in 8-bit integers: the convolutions between head and tail, their ranges found on images."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError
from scenelift.models.onnx import EXTRA, KEY
from scenelift.models.onnx.files import read_onnx
from scenelift.models.onnx.measuring import measure
from scenelift.models.onnx.openvino import EXTRA as OPENVINO
from scenelift.models.onnx.running import OnnxModule, declared
from scenelift.models.spec import ModelSpec

BODY = "/body/"
"""Part of the names of the convolutions that are quantised. The first sees reflectance, the last writes what is added
to it, and the linear path beside them carries the radiometry: together they are a small share of the work."""

WITHIN = 99.9
"""Percent of the activations that lie within the range of the 8 bits."""


@dataclasses.dataclass(frozen=True)
class Quantized:
    """An ONNX file in memory."""

    content: bytes
    spec: ModelSpec
    convolutions: int
    """How many were quantised."""


class _Images:
    """What onnxruntime.quantization reads calibration images from."""

    def __init__(self, name: str, images: Iterable[NDArray[np.float32]]) -> None:
        self.name, self.images = name, iter(images)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.get_next, None)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next image as the network's input, None at the end."""
        image = next(self.images, None)
        return None if image is None else {self.name: np.ascontiguousarray(image[None], np.float32)}


def need_packages(openvino: bool = False) -> None:
    """Refuse, before any work, to go on without the packages that write and quantise ONNX files.

    Parameters
    ----------
    openvino : bool
        Whether OpenVINO is wanted, too.

    Raises
    ------
    ModelError
        If one is missing.
    """
    for name in ("onnx", "onnxruntime", *(("openvino",) if openvino else ())):
        if importlib.util.find_spec(name) is None:
            raise ModelError(f"ONNX files need the package {name}: {OPENVINO if name == 'openvino' else EXTRA}")


def quantize_int8(source: Path, images: NDArray[np.float32], name: str) -> Quantized:
    """Return an exported network with its inner convolutions in 8 bits (static, quantise-dequantise form).

    Weights get a scale for each output channel and 7 bits, so that processors without VNNI, whose sums of products
    saturate, compute the same; activations get 8 bits over the range in which `WITHIN` percent of them lie on the
    images: the few beyond are cut off, which loses far less than coarser steps for all would.

    Parameters
    ----------
    source : Path
        An ONNX file that `scenelift.models.onnx.exporting.export_onnx` wrote.
    images : ndarray of float32, shape (N, C, H, W)
        Reflectance as the network will see it, its context included.
    name : str
        Of the new network.

    Raises
    ------
    ModelError
        If onnx is not installed, nothing in the file can be quantised, or its tiles would not be exact.
    """
    need_packages()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = onnx.load_model_from_string(read_onnx(source))
    inner = [node.name for node in graph.graph.node if node.op_type == "Conv" and BODY in node.name]
    if not inner:
        raise ModelError(f"{source} has no convolutions between a head and a tail: only networks of this program have")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints how it goes
        made = Path(folder) / "int8.onnx"
        log = logging.getLogger()
        level = log.level
        log.setLevel(logging.ERROR)  # it recommends pre-processing, which changes nothing here
        try:
            quantize_static(
                str(source),
                str(made),
                _Images(graph.graph.input[0].name, images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=inner,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": WITHIN},
            )
        except Exception as error:  # noqa: BLE001 - its errors share no base class
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"{name} cannot be quantised: {lines[0][:200]}") from None
        finally:
            log.setLevel(level)
        graph = onnx.load_model_from_string(made.read_bytes())
    contract = declared(OnnxModule(read_onnx(source), source.name)) | {"name": name}
    onnx.helper.set_model_props(graph, {KEY: json.dumps(contract, sort_keys=True)})
    graph.producer_name = "scenelift"
    content = graph.SerializeToString(deterministic=True)
    measured = dict(measure(OnnxModule(content, name)))
    spec = ModelSpec(**{key: value for key, value in measured.items() if key not in ("gain", "offset")})
    return Quantized(content, spec, len(inner))
