"""What a user writes by hand: a small network over a scene with Dask's `map_overlap` and rioxarray. A yardstick.

Run as a script (``python -m scenelift.workflows.bench.plain IN OUT``): a process of its own like any other.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.spec import ModelSpec

SCALE, HALO, CHUNK = 4, 4, 512


class SmallCnn(nn.Module):
    """Four seeded convolutions of 16 channels and a pixel shuffle, added to the nearest neighbour; band by band."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, SCALE**2, 3, padding=1),
            nn.PixelShuffle(SCALE),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 1, 4 H, 4 W) for (N, 1, H, W)."""
        nearest = x.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
        return nearest + 0.01 * self.body(x)


def small_cnn() -> tuple[nn.Module, ModelSpec]:
    """Return the network for `scenelift enhance -m scenelift.workflows.bench.plain:small_cnn`."""
    return SmallCnn(), ModelSpec("small-cnn", "super-resolution", scale=SCALE, halo=HALO)


def enhance_plainly(source: str, target: str) -> None:
    """Enlarge a raster of reflectances times 10000 four times with the small network, and write it as a COG.

    Nodata, scale, offset, tags and mask are left out, nothing is checked, and nothing can be resumed: as short as it
    can be.
    """
    import dask.array as da
    import rioxarray
    import xarray as xr

    torch.set_num_threads(1)
    module = SmallCnn().eval()

    def run(block: NDArray[np.uint16]) -> NDArray[np.uint16]:
        with torch.inference_mode():
            x = torch.from_numpy(block.astype(np.float32) / np.float32(10_000))[:, None]
            y = module(x)[:, 0, SCALE * HALO : -SCALE * HALO, SCALE * HALO : -SCALE * HALO].numpy()
        return np.clip(np.rint(y * 10_000), 0, 65_535).astype(np.uint16)

    opened: Any = rioxarray.open_rasterio(source, chunks={"band": -1, "y": CHUNK, "x": CHUNK}, lock=False)
    padded = da.overlap.overlap(opened.data, depth={1: HALO, 2: HALO}, boundary="reflect")
    chunks = tuple(tuple(n * (SCALE if axis else 1) for n in sizes) for axis, sizes in enumerate(opened.data.chunks))
    made = xr.DataArray(padded.map_blocks(run, dtype="uint16", chunks=chunks), dims=("band", "y", "x"))
    made.rio.write_crs(opened.rio.crs, inplace=True)
    made.rio.write_transform(opened.rio.transform() @ opened.rio.transform().scale(1 / SCALE), inplace=True)
    made.rio.to_raster(
        target, driver="COG", compress="DEFLATE", level=6, predictor="YES", overview_resampling="AVERAGE"
    )


if __name__ == "__main__":
    enhance_plainly(*sys.argv[1:3])
