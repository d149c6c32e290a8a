"""What one small job of each kind makes, by SHA-256, under this Python and these libraries."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from support.builders import noise_image, write_raster
from support.jobs import run

LIBRARIES = ("numpy", "torch", "rasterio", "zarr", "dask", "xarray")
JOBS = {"lanczos-x2": "lanczos-x2", "sr-x2-fast": "sr-x2-fast", "denoise-fast": "denoise-fast"}


def digests(folder: Path) -> dict[str, str]:
    """Return the first digits of the SHA-256 of the pixels and of the files that each job makes."""
    rows, cols = np.mgrid[:150, :170]
    smooth = 4000 + 3000 * np.sin(rows / 7) * np.cos(cols / 5)
    values = (smooth + noise_image(1, (3, 150, 170), high=200)).astype("uint16")
    values[:, 40:60, 50:90] = 0
    scene = write_raster(folder / "in.tif", values, nodata=0)
    found = {}
    for name, model in JOBS.items():
        for suffix in (".tif", ".zarr"):
            out = folder / f"{name}{suffix}"
            run(scene, out, model, block=64, expect=False)
            opened = open_scene(SceneSource((str(out),)))
            pixels = opened.read_dn(Window(0, 0, *opened.grid.shape))[0]
            files = sorted(p for p in out.rglob("*") if p.is_file()) if out.is_dir() else [out]
            found[f"{name}{suffix} pixels"] = _short(np.ascontiguousarray(pixels).tobytes())
            found[f"{name}{suffix} files"] = _short(b"".join(p.read_bytes() for p in files))
    return found


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


if __name__ == "__main__":
    print(f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES), sep=", ")
    with tempfile.TemporaryDirectory() as place:
        for what, digest in digests(Path(place)).items():
            print(f"{what:28} {digest}")
