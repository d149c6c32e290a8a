"""What an ONNX file does to a patch, measured: scale, bands, lattice, halo; and the proof that its tiles are exact.

Rectifiers and poolings of ONNX Runtime swallow NaN, so what a pixel depends on is found by numbers instead: whatever
stands beyond the halo, ordinary, huge or NaN, the core must keep its last bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.onnx.running import OnnxModule, declared, running

CELLS = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12)
"""Cells of a lattice that are tried, in pixels."""
FARTHEST = 256
"""Largest halo looked for."""
AMPLITUDES = (1.0, -1.0, 1e3, -1e3, 1e6, float("nan"))
"""Of what stands beyond the halo; with a sign, all of it has that sign."""
SAME = 1e-4
"""Largest difference between a tile and the whole, as a share of the values, that is rounding: other sizes of patches
are multiplied by other kernels."""
WIDE = 384
"""Side of the images by which lattices are found: what lies beyond their edges must not reach the middle."""
PATCH = 256
"""Side of the core of the patches that a network of no fixed size gets."""


def measure(module: OnnxModule, name: str = "") -> dict[str, Any]:
    """Measure an ONNX module's contract with the engine, and check what its metadata declare.

    Parameters
    ----------
    module : OnnxModule
    name : str
        For the contract, where the file has none of its own.

    Returns
    -------
    dict
        Fields of `ModelSpec`, and "gain" and "offset": what `running.running` takes.

    Raises
    ------
    ModelError
        If it looks farther than any sensible halo, its declared halo is too small, or its tiles are not exact.
    """
    said = declared(module)
    bands = module.bands or said.get("bands") or (1 if said else 0)
    if not bands:
        raise ModelError(f"{module.name}: its input leaves the number of channels open: export it with a fixed one")
    probe = _Probe(module, bands)
    cell = int(said.get("multiple_of", 0)) or probe.cell()
    scale, out_bands = probe.scale(cell)
    for what, declares, found in (("scale", said.get("scale", scale), scale), ("bands", _bands(said, bands), bands)):
        if declares != found:
            raise ModelError(f"{module.name}: its metadata say {what} {declares}, measured is {found}")
    halo = said.get("halo")
    if halo is None:
        halo = probe.halo(cell, scale)
    elif said.get("halo_kind") != "measured" and probe.leaks(halo, cell, scale):
        raise ModelError(
            f"{module.name}: its metadata say a halo of {halo} pixels, the network looks {probe.halo(cell, scale)} "
            "pixels far: its tiles would not be exact"
        )
    patch = _patch(module, halo, cell, said)
    contract = {
        "name": name or Path(module.name).stem,
        "task": "super-resolution" if scale > 1 else "other",
        "scale": scale,
        "halo": halo,
        "bands": None if bands == 1 else bands,
        "out_bands": None if out_bands == bands else out_bands,
        "multiple_of": cell,
        "gain": 1.0,
        "offset": 0.0,
    }
    contract = contract | said | {"patch": patch}
    if contract.get("halo_kind") != "measured":
        _prove(module, contract, bands)
    return contract


def _bands(said: dict[str, Any], bands: int) -> int:
    return (said["bands"] or 1) if "bands" in said else bands


def _patch(module: OnnxModule, halo: int, cell: int, said: dict[str, Any]) -> int:
    if module.side is None:
        return int(said.get("patch", max(cell, PATCH // cell * cell)))
    core = (module.side - 2 * halo) // cell * cell
    if core < cell:
        raise ModelError(
            f"{module.name}: it takes {module.side} x {module.side} pixels alone and looks {halo} far, which leaves no "
            "core: export it for any size"
        )
    return core


def _prove(module: OnnxModule, contract: dict[str, Any], bands: int) -> None:
    """Compare the four tiles of a rough image with the whole of it.

    Raises
    ------
    ModelError
        If they differ by more than rounding does.
    """
    core, spec = running(module, contract)
    if module.side is not None:  # it cannot see two tiles at once
        return
    step = max(spec.multiple_of, 32 // spec.multiple_of * spec.multiple_of)
    side = 2 * (step + spec.halo)
    x = _rough(bands, side)
    whole = core(x)
    worst = 0.0
    for row in (0, step):
        for col in (0, step):
            tile = core(x[..., row : row + step + 2 * spec.halo, col : col + step + 2 * spec.halo])
            rows, cols = (slice(at * spec.scale, (at + step) * spec.scale) for at in (row, col))
            worst = max(worst, float((tile - whole[..., rows, cols]).abs().max()))
    if not worst <= SAME * float(whole.abs().max() + 1):
        raise ModelError(
            f"{module.name}: tiles of a test image differ from the whole by {worst:.2g}: it normalises by the image, "
            "or its lattice is not what was measured"
        )


def _rough(bands: int, side: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, bands, side, side, generator=generator) * 0.4
    return 0.5 * x + 0.5 * torch.nn.functional.avg_pool2d(x, 9, 1, 4)


@dataclasses.dataclass(frozen=True)
class _Probe:
    module: OnnxModule
    bands: int

    def scale(self, cell: int) -> tuple[int, int]:
        """Return output pixels per input pixel, and the number of bands that come out."""
        if self.module.side is not None:
            side, out = self.module.side, self.module(_rough(self.bands, self.module.side))
            scale = max(1, round(out.shape[2] / side))  # unpadded networks lose a few pixels
        else:
            small, side, out, less = self._two_sizes(cell)
            scale, odd = divmod(out.shape[2] - less.shape[2], side - small)
            if odd or scale < 1:
                raise ModelError(
                    f"{self.module.name}: {small} more pixels of input make {out.shape[2] - less.shape[2]} of output: "
                    "not the same number of pixels for each"
                )
        lost = scale * side - out.shape[2]
        if lost % 2 or lost < 0 or out.shape[2] != out.shape[3]:
            raise ModelError(
                f"{self.module.name} turned {side} x {side} pixels into {out.shape[2]} x {out.shape[3]}: not the same "
                f"number lost on every side at scale {scale}"
            )
        return scale, out.shape[1]

    def _two_sizes(self, cell: int) -> tuple[int, int, Tensor, Tensor]:
        """Return two sides of images, and what is made of the larger and of the smaller one."""
        for least in (64, 128, 256, 512):  # an unpadded network that looks far leaves nothing of a small one
            small = -(-least // cell) * cell
            side = 2 * small
            try:
                return small, side, self.module(_rough(self.bands, side)), self.module(_rough(self.bands, small))
            except ModelError as error:
                last = error
        raise last

    def cell(self) -> int:
        """Return the smallest cell of a lattice on which the network is the same everywhere: 1 for plain ones."""
        why = ""
        for cell in CELLS:
            try:
                if self._is_even(cell):
                    return cell
            except ModelError as error:  # a size that it cannot take
                why = f" ({error})"
        raise ModelError(
            f"{self.module.name}: shifted by up to {max(CELLS)} pixels, an image does not come out shifted as much: "
            f"no lattice makes its tiles exact{why}"
        )

    def _is_even(self, cell: int) -> bool:
        """Whether an image shifted by a cell comes out shifted by a cell, in the middle."""
        scale, side = self.scale(cell)[0], self.module.side or -(-WIDE // cell) * cell
        x = _rough(self.bands, side + cell)
        one, other = self.module(x[..., :side, :side]), self.module(x[..., cell:, cell:])
        shift, middle = cell * scale, one.shape[2] // 2
        here = (..., *[slice(middle - shift, middle + shift)] * 2)
        there = (..., *[slice(middle - 2 * shift, middle)] * 2)
        if middle < 2 * shift:
            return False
        return bool((one[here] - other[there]).abs().max() <= SAME * (one.abs().max() + 1))

    def halo(self, cell: int, scale: int) -> int:
        """Return the smallest halo, a multiple of the cell, outside which no pixel matters.

        Raises
        ------
        ModelError
            If it is larger than any sensible one.
        """
        most = FARTHEST if self.module.side is None else (self.module.side - cell) // 2 // cell * cell
        high = cell
        while self.leaks(min(high, most), cell, scale):
            if high >= most:
                raise ModelError(
                    f"{self.module.name} looks farther than {most} pixels "
                    "(global pooling, instance normalisation?): no halo makes its tiles exact"
                )
            high *= 2
        high = min(high, most)
        low = high // 2 // cell if high > cell else -1
        high //= cell
        while high - low > 1:
            middle = (low + high) // 2
            if self.leaks(middle * cell, cell, scale):
                low = middle
            else:
                high = middle
        return high * cell

    def leaks(self, halo: int, cell: int, scale: int) -> bool:
        """Whether anything beyond ``halo`` pixels around a cell changes a bit of what is made of the cell."""
        if self.module.side is None:
            reach = halo + 8 * cell
            side = cell + 2 * reach
        else:
            side = self.module.side
            reach = (side - cell) // 2 // cell * cell
            if reach < halo:
                raise ModelError(f"{self.module.name}: a halo of {halo} does not fit into its {side} pixels")
        seen = slice(reach - halo, reach + cell + halo)
        core = None
        for x in self._surroundings(side, seen):
            try:
                y = self.module(x)
            except ModelError:  # nothing is left of so small an image
                return True
            lost = (scale * side - y.shape[2]) // 2
            here = slice(reach * scale - lost, (reach + cell) * scale - lost)
            if here.start < 0 or here.stop > y.shape[2]:
                return True  # the unpadded network has cut it off
            now = y[..., here, here]
            if core is not None and not torch.equal(core, now):
                return True
            core = now if core is None else core
        return False

    def _surroundings(self, side: int, seen: slice) -> Iterator[Tensor]:
        """Yield images that agree inside a window and nowhere else."""
        inside = _rough(self.bands, side)[..., seen, seen]
        generator = torch.Generator().manual_seed(1)
        yield _with(torch.zeros(1, self.bands, side, side), seen, inside)
        for amplitude in AMPLITUDES:
            x = torch.rand(1, self.bands, side, side, generator=generator) * amplitude
            yield _with(x, seen, inside)


def _with(x: Tensor, seen: slice, inside: Tensor) -> Tensor:
    x[..., seen, seen] = inside
    return x


def gap(module: OnnxModule, other: Any, bands: int, side: int) -> float:
    """Return the largest difference (reflectance) between two modules on a rough image."""
    x = _rough(bands, side)
    with torch.inference_mode():
        return float(np.abs(module(x).numpy() - other(x).numpy()).max())
