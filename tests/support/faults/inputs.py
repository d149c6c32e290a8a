"""Inputs that are cut short or flipped: a clear refusal, or exactly the pixels that the file still gives."""

from __future__ import annotations

import random
from pathlib import Path

import rasterio

from support.builders import noise_image, write_raster
from support.faults import BLOCK, SIDE, Bench, committed
from support.processes import call, start

KINDS = {
    "tif": {"tiled": True},
    "deflate.tif": {"tiled": True, "compress": "deflate"},
    "jp2": {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"},
}
CUTS = (0.0, 0.3, 0.7, 0.98)


def whole_input(folder: Path, kind: str) -> Path:
    """Write a scene of a kind."""
    values = noise_image(3, (2, SIDE, SIDE), high=12_000)
    return write_raster(folder / f"scene.{kind}", values, **KINDS[kind])


def cut_input(bench: Bench, folder: Path, kind: str, share: float) -> None:
    """A truncated file is refused by name, in one line, and leaves nothing behind but finished blocks."""
    bench.place(folder)
    path = whole_input(folder, kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    _refused(folder, path)


def flipped_input(bench: Bench, folder: Path, kind: str, rng: random.Random) -> bool:
    """Some bytes of a file are others: it is refused, or what it reads as is what is enhanced. Returns which."""
    bench.place(folder)
    path = whole_input(folder, kind)
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] ^= rng.randint(1, 255)
    path.write_bytes(content)
    command = start(folder, *_arguments(path.name, "out.tif"), SLOW="0")
    if command.wait() != 0:
        _refused(folder, path)
        return True
    with rasterio.open(path) as damaged:  # the same pixels in a file that is whole
        write_raster(folder / "again.tif", damaged.read(), damaged.transform, damaged.crs, nodata=damaged.nodata)
    call(folder, *_arguments("again.tif", "out2.tif"), SLOW="0")
    with rasterio.open(folder / "out.tif") as one, rasterio.open(folder / "out2.tif") as other:
        assert (one.read() == other.read()).all()
    return False


def _refused(folder: Path, path: Path) -> None:
    command = start(folder, *_arguments(path.name, "refused.tif"), SLOW="0")
    assert command.wait() in (2, 4), command.output
    last = [line for line in command.output.splitlines() if line.startswith("scenelift: ")]
    assert len(last) == 1 and path.name in last[0] and "Traceback" not in command.output, command.output
    assert not (folder / "refused.tif").exists()
    if work := [p for p in folder.iterdir() if "refused" in p.name]:  # blocks that were read are kept
        assert work == [folder / ".refused.tif.scenelift"] and committed(folder, "refused.tif") >= 1


def _arguments(name: str, output: str) -> list[object]:
    return ["enhance", name, "-o", output, "-m", "slow_model:slow", "--workers", 0, "--block", BLOCK, "--no-expect"]
