"""How large blocks are: as --block says, or as --memory allows; whichever, the pixels are the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.builders import noise_image, write_raster
from support.jobs import scenelift

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.settings import BLOCK, EnhanceSettings


@pytest.mark.parametrize(
    ("memory", "nbytes", "side"),
    [
        ("700MB", 4 * 2 * 16, BLOCK),  # four bands of uint16, x4
        ("700MB", 4 * 4 * 16, 512),  # the same in float32
        ("700MB", 12 * 2 * 16, 512),
        ("3GB", 12 * 2 * 16, BLOCK),
        ("1.5GB", 12 * 2 * 16, 512),
        ("1.5 GiB", 12 * 2 * 16, BLOCK),
        ("1kb", 8, 256),  # the least
        ("9000000", 8, 512),
    ],
)
def test_a_block_is_as_large_as_memory_allows(memory: str, nbytes: int, side: int) -> None:
    assert EnhanceSettings(memory=memory).side(nbytes) == side
    assert EnhanceSettings(memory=memory, block=100).side(nbytes) == 100


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1 Gb s", "GB", "1e3"])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"memory must be a number of bytes such as 700MB or 1.5GB, got"):
        EnhanceSettings(memory=text)


def test_memory_changes_blocks_and_no_pixel(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", noise_image(1, (2, 300, 520)))

    def made(name: str, *words: object) -> tuple[int, np.ndarray, list[str]]:
        run = scenelift(
            *("enhance", "scene.tif", "-o", name, "-m", "bilinear-x2", "--workers", 0, "--json", *words), cwd=tmp_path
        )
        told = json.loads(run.stdout.splitlines()[-1])
        with rasterio.open(tmp_path / name) as file:
            return told["blocks"], file.read(), [note for note in told["notes"] if "computed more than once" in note]

    usual, few, tiny = made("a.tif"), made("b.tif", "--memory", "1MB"), made("c.tif", "--block", 100)
    assert [usual[0], few[0], tiny[0]] == [1, 6, 18]
    assert np.array_equal(usual[1], few[1]) and np.array_equal(usual[1], tiny[1])
    assert usual[2] == few[2] == []
    assert tiny[2] == [
        "blocks of 100 x 100 pixels are smaller than the patches of bilinear-x2, which are computed more than once: "
        "--block 256 does less work"
    ]
