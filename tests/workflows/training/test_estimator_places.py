"""What the estimator of blur learns from: real scenes inside packages, patches of them, and examples kept on disk."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from support.builders import write_raster

from scenelift.models.errors import ModelError
from scenelift.workflows.training.estimation.parts import parts, remembered
from scenelift.workflows.training.estimation.patches import of_place
from scenelift.workflows.training.estimation.places import PackagedPlace, read_packaged

PLACE = PackagedPlace("there", "pack_age", ("data/green.tif", "data/[ab]*.tif"))


@pytest.fixture
def files(tmp_path):
    """Names and contents of three rasters."""
    rng = np.random.default_rng(0)
    values = {
        name: rng.integers(1, 1000 * (i + 1), (1, 90, 120)).astype("uint16")
        for i, name in enumerate(("green", "b", "c"))
    }
    values["b"][:, :10] = 0
    paths = {name: write_raster(tmp_path / f"{name}.tif", band) for name, band in values.items()}
    return values, {f"pack_age-1.0/data/{name}.tif": path.read_bytes() for name, path in paths.items()}


def archive(path, members):
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(name, content)
        return
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("name", ["Pack_Age-1.0-py3-none-any.whl", "pack_age-1.0.tar.gz"])
def test_scenes_are_read_from_wheels_and_sdists(name, files, tmp_path):
    values, members = files
    folder = tmp_path / "archives"
    folder.mkdir()
    archive(folder / name, members)
    green, b = read_packaged(folder, PLACE)  # in the patterns' order, and no other file
    for band, original in ((green, values["green"][0]), (b, values["b"][0])):
        assert np.corrcoef(band.ravel(), original.ravel())[0, 1] == pytest.approx(1, abs=1e-6)
        assert np.quantile(band[band > 0], 0.999) == pytest.approx(0.4, rel=1e-3)
    assert (b[:10] == 0).all()


def test_what_an_archive_lacks_is_said(files, tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    with pytest.raises(ModelError, match="lacks the archive of pack_age: download it, or give without there"):
        read_packaged(folder, PLACE)
    archive(folder / "pack_age-2.0.tar.gz", {"pack_age-2.0/readme": b""})
    with pytest.raises(ModelError, match=r"pack_age-2.0.tar.gz holds no data/green.tif"):
        read_packaged(folder, PLACE)


def test_patches_hold_no_empty_corner_and_follow_their_generator():
    rng = np.random.default_rng(0)
    bands = [rng.random((300, 320), dtype=np.float32) + 0.05 for _ in range(3)]
    for band in bands:
        band[:, :90] = 0
    draw = of_place(bands)
    for seed in range(20):
        patches = draw(5, torch.Generator().manual_seed(seed))
        assert patches.shape[:2] == (5, 1)
        assert patches.shape[2] in (64, 128)
        assert (patches <= 0).float().mean() < 0.02
        assert torch.equal(patches, draw(5, torch.Generator().manual_seed(seed)))


def test_parts_are_of_every_source_and_differ(tmp_path):
    found = parts(tmp_path, tmp_path, None, 1.0, 0)
    assert len({part.seed for part in found}) == len(found)
    assert sum(part.count for part in found if part.name == "eurosat") == 18_000
    alone = parts(tmp_path, None, None, 1.0, 0)
    assert {part.seed for part in alone} < {part.seed for part in found}  # packages change no other example


def test_examples_are_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return np.arange(4.0), np.eye(2)

    for _ in range(2):
        first, second = remembered(tmp_path, "name", make)
        assert np.array_equal(first, np.arange(4.0))
        assert np.array_equal(second, np.eye(2))
    assert len(made) == 1
    remembered(None, "name", make)
    assert len(made) == 2
