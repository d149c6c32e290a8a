"""ONNX files of ours computed by OpenVINO, which is faster than ONNX Runtime where processors have bfloat16 or int8.

What a network adds is computed in bfloat16 where that is asked for; the linear path beside it carries the radiometry
and stays in float32.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from scenelift.models.errors import ModelError

RUNTIME, NAME = "scenelift_runtime", "openvino"
"""Key of a file's metadata that says what computes it, and its value here."""
EXTRA = "pip install 'scenelift[openvino]'"
SHAPES = 4
"""Shapes of patches for which a network is kept ready."""
HINTS = {"fp32": "f32", "bf16": "bf16"}
JOINS = ("Add", "Subtract")
"""The last step of our networks: the linear path, and what is added to it or taken from it."""
CONVOLUTIONS = ("Convolution", "GroupConvolution")


def wants_openvino(content: bytes) -> bool:
    """Return whether an ONNX file's metadata ask for OpenVINO; nothing is parsed: keys and values stand as they are."""
    key, value = RUNTIME.encode(), NAME.encode()
    return b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value in content


class OpenVinoSession:
    """An ONNX file, ready for patches of a few shapes in each thread, each of which computes on one core.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        For messages.
    precision : {"fp32", "bf16"}
        Of what the network adds; processors without bfloat16 compute in float32.

    Raises
    ------
    ModelError
        If OpenVINO is not installed.
    """

    def __init__(self, content: bytes, name: str, precision: str) -> None:
        try:
            import openvino  # noqa: F401
        except ImportError:
            raise ModelError(f"{name} is made for OpenVINO, which is not installed: {EXTRA}") from None
        self._content, self._name, self._hint = content, name, HINTS[precision]
        self._ready = threading.local()

    def run(self, sample: np.ndarray) -> np.ndarray:
        """Return what the network makes of one patch (1, C, H, W).

        Raises
        ------
        ModelError, MemoryError
            If it cannot be computed.
        """
        kept: OrderedDict[tuple[int, ...], Any] = self._ready.__dict__.setdefault("kept", OrderedDict())
        try:
            if sample.shape not in kept:
                while len(kept) >= SHAPES:
                    kept.popitem(last=False)
                kept[sample.shape] = self._compiled(sample.shape)
            requests, sign = kept[sample.shape]
            made = [np.array(request.infer({0: sample}, share_inputs=True)[0]) for request in requests]
        except RuntimeError as error:
            if "alloc" in str(error).lower():
                raise MemoryError(str(error)) from error
            line = next((part for part in str(error).splitlines() if part.strip()), type(error).__name__)
            raise ModelError(f"{self._name}: OpenVINO cannot compute it: {line.strip()[:200]}") from None
        return made[0] if len(made) == 1 else made[0] + np.float32(sign) * made[1]

    def _compiled(self, shape: tuple[int, ...]) -> tuple[list[Any], int]:
        """Return what computes the parts of the network for one shape, and the sign of the second."""
        import openvino

        core, parts = _core(), []
        whole = core.read_model(self._content, b"")
        ends = _parts(whole)
        for end in range(max(1, len(ends))):
            model = core.read_model(self._content, b"")
            hint = "f32"
            if ends:
                model = openvino.Model([_join(model).input_value(end)], model.get_parameters(), "part")
                hint = self._hint if ends[end] else "f32"
            model.reshape(list(shape))
            settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
            parts.append(core.compile_model(model, "CPU", settings | {"ENABLE_CPU_PINNING": False}))
        sign = -1 if _join(whole).get_type_name() == "Subtract" else 1
        return [part.create_infer_request() for part in parts], sign


@cache
def _core() -> Any:
    """Return OpenVINO with its plugin for processors, one for the process.

    On Linux the plugin gives the thread that loads it a stack for signal handlers, and frees that stack when it is
    itself freed, whichever stack the thread has by then and whichever thread frees it. The next signal (Ctrl-C, the end
    of a child) then kills the process. So a thread that is over right afterwards loads it.
    """
    import openvino

    def loaded() -> Any:
        core = openvino.Core()
        core.get_versions("CPU")  # loads it
        return core

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(loaded).result()


def _join(model: Any) -> Any:
    return model.get_results()[0].input_value(0).get_node()


def _parts(model: Any) -> list[bool]:
    """Return, for each of the two parts that the last step joins, whether it is the network; nothing if it is no join.

    The linear path is at most one convolution; the network has more.
    """
    join = _join(model)
    if join.get_type_name() not in JOINS:
        return []
    return [_convolutions(join.input_value(end).get_node()) > 1 for end in (0, 1)]


def _convolutions(end: Any) -> int:
    """Return how many convolutions a node stands on."""
    seen, left, count = set(), [end], 0
    while left:
        node = left.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        count += node.get_type_name() in CONVOLUTIONS
        left += [value.get_node() for value in node.input_values()]
    return count
