"""docs/extending.md: its four files, put into a package outside ours, do what the page says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from support.builders import noise_image, write_raster
from support.processes import call

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
LONGEST = 40


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the page's files and the metadata that an installation of them would have."""
    for text in blocks("python"):
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    points = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]
    groups = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in names.items()) for group, names in points.items()]
    (tmp_path / "mine-1.0.dist-info").mkdir()
    (tmp_path / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (tmp_path / "mine-1.0.dist-info" / "entry_points.txt").write_text("\n".join(groups))
    return tmp_path


def test_every_file_of_the_page_is_short() -> None:
    assert [text.splitlines()[0] for text in blocks("python")] == [
        "# my_network.py",
        "# my_extra.py",
        "# my_score.py",
        "# my_format.py",
    ]
    assert max(len(text.splitlines()) for text in blocks("python")) < LONGEST


def test_the_network_the_extra_and_the_format(package: Path) -> None:
    values = noise_image(1, (2, 70, 90))
    write_raster(package / "in.tif", values, descriptions=["red", "nir"])
    command = "enhance", "in.tif", "-m", "soften", "--block", "40", "--workers", "0"
    call(package, *command, "-o", "soft.npy")
    call(package, *command, "-o", "sharp.npy", "--extra", "sharpen=0.5")
    mean = ndimage.uniform_filter(values.astype(float), (1, 3, 3), mode="mirror")
    assert np.abs(np.load(package / "soft.npy") - mean).max() <= 0.51
    sharp = mean + 0.5 * (mean - ndimage.uniform_filter(mean, (1, 3, 3), mode="mirror"))
    assert np.abs(np.load(package / "sharp.npy") - sharp)[:, 2:-2, 2:-2].max() <= 0.51
    assert (package / "sharp.npy.txt").read_text() == "red nir"

    journal = (package / ".sharp.npy.scenelift" / "journal.jsonl").read_text()
    assert '"sharpen":0.5' in journal and '"sharpen_code":' in journal
    extra = package / "my_extra.py"
    extra.write_text(extra.read_text() + "\n# changed\n")
    assert "--overwrite" in call(package, *command, "-o", "sharp.npy", "--extra", "sharpen=0.5", code=2)


def test_the_format_is_checked_and_repaired(package: Path) -> None:
    write_raster(package / "in.tif", noise_image(1, (2, 70, 90)))
    call(package, "enhance", "in.tif", "-o", "out.npy", "-m", "nearest-x2", "--block", "40", "--workers", "0")
    whole = (package / "out.npy").read_bytes()
    (package / "out.npy").write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert "damaged blocks: 5" in call(package, "verify", "out.npy", code=4)
    call(package, "verify", "out.npy", "--repair")
    assert (package / "out.npy").read_bytes() == whole


def test_the_score(package: Path) -> None:
    reference = np.full((2, 64, 48), 1000, "uint16")
    test = reference.copy()
    test[0, :16] += 500  # a quarter of the first band
    files = write_raster(package / "a.tif", reference), write_raster(package / "b.tif", test)
    found = json.loads(call(package, "score", *files, "--json", "--block", "32", "--workers", "2"))
    assert found["scores"]["within"] == 87.5
    assert [band["within"] for band in found["bands"]] == [75, 100]
    assert "within 2 %, %" in call(package, "score", *files, "--pixels-only", "--workers", "0")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "sharpn",
            "unknown extra 'sharpn'; known are realism, consistency, strength, clamp, tta, uncertainty, interval, "
            "classes, sharpen",
        ),
        ("sharpen=much", '--extra sharpen: amount must be a number, got "much"'),
        ("sharpen={amont = 1}", "--extra sharpen: unknown key amont; did you mean amount?"),
        ("tta=1", "--extra tta takes no value, got 'tta=1'"),
    ],
)
def test_an_extra_that_cannot_be_is_refused_in_one_line(package: Path, given: str, message: str) -> None:
    assert message in call(package, "enhance", "in.tif", "-o", "out.tif", "--extra", given, code=2)
