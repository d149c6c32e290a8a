"""A format of outputs from another package: one file and an entry point, and the commands write, check and mend it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.builders import noise_image, write_raster
from support.processes import call

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.formats import FORMATS, format_of

NPY = """
import numpy as np
from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.tiles import TileGrid


class Opened:
    def __init__(self, path):
        try:
            self.values = np.load(path, mmap_mode="r")
        except ValueError as error:
            raise SceneError(f"{path} is no array: {error}") from None
        self.facts = {"shape": list(self.values.shape), "dtype": str(self.values.dtype)}

    def read(self, window):
        return np.array(self.values[(slice(None), *window.slices())]), None


class Npy:
    name, title, suffixes, keeps_blocks = "npy", "NumPy array", (".npy",), False

    def make(self, store, output, path, shards):
        made = np.lib.format.open_memmap(path, "w+", output.dtype, output.shape)
        for window in TileGrid(output.grid.shape, output.block):
            made[(slice(None), *window.slices())] = store.read(window)
        made.flush()
        return path

    def open(self, path, recorded):
        return Opened(path)

    def flaws(self, path):
        return []

    def beside(self, output):
        return {".txt": " ".join(band.description or "?" for band in output.bands).encode()}


npy = Npy()
"""


def test_a_format_of_another_package_is_written_checked_and_repaired(tmp_path: Path) -> None:
    (tmp_path / "npy_outputs.py").write_text(NPY)
    installed = tmp_path / "npy_outputs-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: npy-outputs\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[scenelift.formats]\nnpy = npy_outputs:npy\n")
    values = noise_image(1, (2, 70, 90))
    write_raster(tmp_path / "in.tif", values, descriptions=["red", "nir"])
    command = "enhance", "in.tif", "-o", "out.npy", "-m", "nearest-x2", "--block", "40", "--workers", "0"
    call(tmp_path, *command)
    whole = (tmp_path / "out.npy").read_bytes()
    assert np.array_equal(np.load(tmp_path / "out.npy"), values.repeat(2, axis=1).repeat(2, axis=2))
    assert (tmp_path / "out.npy.txt").read_text() == "red nir"
    (tmp_path / "out.npy").write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert "damaged blocks: 5" in call(tmp_path, "verify", "out.npy", code=4)
    call(tmp_path, "verify", "out.npy", "--repair")
    assert (tmp_path / "out.npy").read_bytes() == whole


def test_an_unknown_suffix_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"out.png must end in \.tif \(Cloud-Optimized GeoTIFF\) or \.zarr"):
        format_of(Path("out.png"))
    assert {path: format_of(Path(path)).name for path in ("a.TIF", "b.tiff", "c.zarr")} == {
        "a.TIF": "tif",
        "b.tiff": "tif",
        "c.zarr": "zarr",
    }
    assert set(FORMATS) == {".tif", ".tiff", ".zarr"}
