"""A block whose models want more memory than there is: less at once, the same bytes; other errors stay errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.builders import noise_image, write_raster
from support.jobs import pixels, run

from scenelift.models.enhancer import memory_errors
from scenelift.models.spec import ModelSpec
from scenelift.pipeline.errors import SceneliftError


class Hungry:
    """Doubles the pixels; its first calls fail, and larger batches than `most` always."""

    spec = ModelSpec("hungry", "other", scale=2, halo=1, patch=16)

    def __init__(self, most: int, fail: int = 0, error: Exception | None = None) -> None:
        self.most = most
        self.fail = fail
        self.error = error or MemoryError()
        self.sizes: list[int] = []

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        self.sizes.append(len(patches))
        if len(self.sizes) <= self.fail or len(patches) > self.most:
            raise self.error
        return patches[:, :, 1:-1, 1:-1].repeat(2, axis=2).repeat(2, axis=3)


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["python", "cuda", "cpu"])
@pytest.mark.parametrize(("most", "fail", "sizes"), [(3, 0, [8, 4, 2]), (1, 4, [8, 4, 2, 1, 1])])
def test_a_block_out_of_memory_is_done_in_smaller_pieces(
    tmp_path: Path, error: Exception, most: int, fail: int, sizes: list[int]
) -> None:
    scene = write_raster(tmp_path / "in.tif", noise_image(1, (2, 60, 50)), nodata=0)
    run(scene, tmp_path / "whole.tif", Hungry(99), block=64)
    model = Hungry(most, fail, error)
    run(scene, tmp_path / "pieces.tif", model, block=64)
    assert model.sizes[: len(sizes)] == sizes and max(model.sizes[len(sizes) :], default=0) <= most
    assert np.array_equal(pixels(tmp_path / "pieces.tif"), pixels(tmp_path / "whole.tif"))


def test_what_is_not_want_of_memory_is_not_tried_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenelift.pipeline.cluster.attempts.PAUSES", ())
    scene = write_raster(tmp_path / "in.tif", noise_image(1, (2, 60, 50)))
    model = Hungry(99, 99, RuntimeError("shapes do not fit"))
    with pytest.raises(SceneliftError, match=r"every block failed .*shapes do not fit"):
        run(scene, tmp_path / "out.tif", model, block=64)
    assert model.sizes == [8]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_torch_says_want_of_memory_as_python_does(error: Exception) -> None:
    with pytest.raises(MemoryError), memory_errors():
        raise error
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not fit")
