"""Compression of outputs: the same pixels where it is lossless, refused where it does not fit, said where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from scipy.ndimage import gaussian_filter
from support.builders import noise_image, write_raster
from support.jobs import pixels, run, scenelift

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.outputs.compression import CHOICES
from scenelift.pipeline.outputs.tiffs import tiles


def picture(path: Path, **more: object) -> Path:
    """Write a smooth picture in 8 bits, as JPEG is made for."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((3, 300, 400)), (0, 6, 6))
    return write_raster(path, np.clip(128 + 700 * smooth, 0, 255).astype("uint8"), **more)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_lossless_ones_hold_the_same_pixels(tmp_path: Path, dtype: str) -> None:
    values = noise_image(1, (2, 40, 50), dtype)
    if dtype == "float32":
        values = values / np.float32(9e4)
        values[0, 3, 4] = np.nan
    source = str(write_raster(tmp_path / "scene.tif", values))
    wanted = values.repeat(2, 1).repeat(2, 2)
    for suffix, choices in (("tif", CHOICES["tif"][:3]), ("zarr", CHOICES["zarr"])):
        for name in choices:
            out = tmp_path / f"{name}.{suffix}"
            run(source, out, "nearest-x2", compress=name)
            if suffix == "tif":
                with rasterio.open(out) as made:
                    assert made.compression.name.lower() in (name, f"{name}_deflate", f"{name}_zstd")
                assert np.array_equal(pixels(out), wanted, equal_nan=True)
            else:
                data = zarr.open_group(str(out), mode="r")["data"]
                assert {"zstd": "zstd", "deflate": "gzip"}[name] in str(data.metadata.to_dict()["codecs"])
                assert np.array_equal(data[:], wanted, equal_nan=True)
    run(source, tmp_path / "plain.tif", "nearest-x2")
    assert (tmp_path / "plain.tif").read_bytes() == (tmp_path / "deflate.tif").read_bytes()


def test_jpeg_is_near_and_says_so_and_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.full((300, 400), 255, "uint8")
    mask[:40, :30] = 0
    picture(tmp_path / "scene.tif", mask=mask)
    command = "enhance", "scene.tif", "-o", "a.tif", "-m", "nearest-x2", "--block", 128, "--workers", 0
    done = scenelift(*command, "--compress", "jpeg", "--json", cwd=tmp_path)
    assert any("changes pixels" in note for note in json.loads(done.stdout)["notes"])
    run(str(tmp_path / "scene.tif"), tmp_path / "exact.tif", "nearest-x2")
    with rasterio.open(tmp_path / "a.tif") as made, rasterio.open(tmp_path / "exact.tif") as exact:
        assert made.compression.name == "jpeg" or "jpeg" in made.compression.name.lower()
        valid = exact.read_masks(1) != 0
        assert np.array_equal(made.read_masks(1), exact.read_masks(1))
        assert 0 < np.abs(made.read().astype(int) - exact.read())[:, valid].mean() < 3
    assert "intact" in scenelift("verify", "a.tif", cwd=tmp_path).stdout
    before = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(before[: len(before) // 2] + bytes(50) + before[len(before) // 2 + 50 :])
    assert "repaired" in scenelift("verify", "a.tif", "--repair", cwd=tmp_path).stdout
    assert (tmp_path / "a.tif").read_bytes() == before
    monkeypatch.setattr(tiles, "MEAN_OFF", -1.0)
    with pytest.raises(SinkError, match="reads back wrong"):
        run(str(tmp_path / "scene.tif"), tmp_path / "b.tif", "nearest-x2", compress="jpeg")
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.tif --compress lzw", "lzw"),
        ("a.zarr --compress jpeg", "--compress for zarr must be one of zstd, deflate, got 'jpeg'"),
        ("a.tif --compress jpeg --dtype uint16", "the output is uint16, not uint8"),
        ("a.tif --compress jpeg --nodata 0", "missing pixels are marked by the value 0"),
        ("a.tif --compress jpeg --bands 1,2", "the output has 2 bands, not 1 or 3"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_work(tmp_path: Path, words: str, message: str) -> None:
    picture(tmp_path / "scene.tif")
    done = scenelift("enhance", "scene.tif", "-m", "nearest-x2", "-o", *words.split(), cwd=tmp_path, ok=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]
