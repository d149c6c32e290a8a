"""The formats of outputs by suffix; tests/workflows/test_extending.py adds one from another package."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.formats import FORMATS, format_of


def test_an_unknown_suffix_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"out.png must end in \.tif \(Cloud-Optimized GeoTIFF\) or \.zarr"):
        format_of(Path("out.png"))
    assert {path: format_of(Path(path)).name for path in ("a.TIF", "b.tiff", "c.zarr")} == {
        "a.TIF": "tif",
        "b.tiff": "tif",
        "c.zarr": "zarr",
    }
    assert set(FORMATS) == {".tif", ".tiff", ".zarr"}
