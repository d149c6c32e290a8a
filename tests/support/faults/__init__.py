"""Faults done to real runs. Each function raises unless the run survives: same bytes, nothing left over."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from distributed.system import MEMORY_LIMIT

from scenelift.pipeline.cluster.forking import worker_processes
from scenelift.pipeline.faults import POINTS
from scenelift.pipeline.tiles import TileGrid
from support.builders import noise_image, write_raster
from support.processes import PATIENCE, Command, call, finish, kill_tree, start, wait_until

MODEL = '''
import os, time
import numpy as np
from scenelift.models.spec import ModelSpec

class Slow:
    """Doubles the pixels; sleeps a little; fails as the environment says."""

    spec = ModelSpec("slow", "other", scale=2, halo=1, patch=32)

    def __call__(self, patches):
        time.sleep(float(os.environ.get("SLOW", "0.01")))
        while os.path.exists(os.environ.get("HOLD", "")):
            time.sleep(0.01)
        if os.environ.get("OOM") and len(patches) > int(os.environ["OOM"]):
            import torch
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        core = patches[:, :, 1:-1, 1:-1]
        if os.environ.get("POISON") and (core > 1.21).any():
            if os.environ.get("POISON_KILLS"):
                os.kill(os.getpid(), 9)
            raise RuntimeError("this block is poison")
        if os.environ.get("FAT") and len(patches) > 1 and (core > 1.21).any():
            fat = b"x" * (int(os.environ["FAT"]) * 2**20)
            time.sleep(30)
        mean = (patches[:, :, :-2, 1:-1] + patches[:, :, 2:, 1:-1] + core) / np.float32(3)
        return mean.repeat(2, axis=2).repeat(2, axis=3)

slow = Slow
'''
SIDE, BLOCK = 200, 64
BLOCKS = 16
POISON = 12_345
"""A value above all others, in block 5 alone."""


@dataclass(frozen=True)
class Bench:
    """A folder with a scene, a model and the outputs of an uninterrupted run."""

    folder: Path

    def reference(self, name: str) -> Path:
        return self.folder / f"reference{Path(name).suffix}"

    def place(self, folder: Path) -> Path:
        """Make a new folder to do harm in."""
        folder.mkdir(parents=True)
        for name in ("in.tif", "slow_model.py"):
            shutil.copy(self.folder / name, folder / name)
        return folder

    def check(self, folder: Path, name: str) -> None:
        """Compare an output with the reference, and find nothing left beside it."""
        assert same(folder / name, self.reference(name)), f"{name} differs from an uninterrupted run"
        left = [p.name for p in folder.iterdir() if p.name not in ("in.tif", "slow_model.py", name, "__pycache__")]
        left = [n for n in left if not n.startswith("log-")]
        assert left == [f".{name}.scenelift"], left
        assert [p.name for p in (folder / left[0]).iterdir()] == ["journal.jsonl"]
        call(folder, "verify", name)


def make_bench(folder: Path) -> Bench:
    values = noise_image(1, (2, SIDE, SIDE), high=12_000)
    values[:, 70:120, 140:190] = 0
    values[0, 80, 80] = POISON
    write_raster(folder / "in.tif", values, nodata=0, compress="deflate")
    (folder / "slow_model.py").write_text(MODEL)
    for name in ("reference.tif", "reference.zarr"):
        call(folder, *arguments(name), SLOW="0")
    return Bench(folder)


def arguments(name: str, workers: int = 0) -> list[object]:
    given = ["enhance", "in.tif", "-o", name, "-m", "slow_model:slow", "--workers", workers, "--block", BLOCK]
    return [*given, "--no-expect"]  # a guess at the gain of a model that gains nothing would cost a quarter of the time


def same(one: Path, other: Path) -> bool:
    if one.is_file():
        return one.read_bytes() == other.read_bytes()
    files = [sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file()) for root in (one, other)]
    return files[0] == files[1] and all((one / f).read_bytes() == (other / f).read_bytes() for f in files[0])


def journal(folder: Path, name: str) -> Path:
    return folder / f".{name}.scenelift" / "journal.jsonl"


def committed(folder: Path, name: str) -> int:
    """Return how many blocks the journal holds; a torn last line is none."""
    path = journal(folder, name)
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].count(b' {"block":')


def begin(folder: Path, name: str, workers: int = 0, blocks: int = 1, **env: str) -> Command:
    """Start a run and wait until some blocks are recorded."""
    command = start(folder, *arguments(name, workers), **env)
    assert wait_until(lambda: committed(folder, name) >= blocks, command), command.output
    return command


def kill_the_tree(bench: Bench, folder: Path, rng: random.Random, workers: int = 0) -> None:
    """SIGKILL everything at random moments until a run gets through."""
    name = rng.choice(["out.tif", "out.zarr"])
    bench.place(folder)
    for _ in range(rng.randint(1, 3)):
        command = start(folder, *arguments(name, workers), SLOW="0.02")
        if not wait_until(journal(folder, name).exists, command):
            break
        time.sleep(rng.uniform(0, 0.8))
        kill_tree(command.pid)
        command.wait()
    call(folder, *arguments(name, workers), SLOW="0")
    bench.check(folder, name)


def kill_at_a_point(bench: Bench, folder: Path, point: str, name: str) -> None:
    """SIGKILL at a named commit point, then give the same command again."""
    bench.place(folder)
    number = 3 if point in ("block-written", "block-synced", "before-journal", "torn-journal", "after-journal") else 1
    call(folder, *arguments(name), code=-9, SLOW="0", SCENELIFT_KILL_AT=f"{point}:{number}")
    assert (folder / name).exists() == (point in ("renamed", "done-recorded"))
    if point != "store-created":
        call(folder, "resume", name, SLOW="0")
    else:
        call(folder, *arguments(name), SLOW="0")
    bench.check(folder, name)


def stop_politely(bench: Bench, folder: Path, rng: random.Random, number: int, workers: int = 0) -> None:
    """SIGTERM or SIGINT: exit 75 soon, then go on."""
    name = rng.choice(["out.tif", "out.zarr"])
    bench.place(folder)
    command = begin(folder, name, workers, SLOW="0.1")
    time.sleep(rng.uniform(0, 0.2))
    os.kill(command.pid, number)
    began = time.monotonic()
    assert command.wait() == 75, command.output
    assert time.monotonic() - began < 20
    assert "same command goes on" in command.output and not (folder / name).exists()
    call(folder, *arguments(name, workers), SLOW="0")
    bench.check(folder, name)


def kill_workers(bench: Bench, folder: Path, rng: random.Random, kills: int) -> None:
    """SIGKILL single workers at random moments while they work or start; the run goes on by itself."""
    bench.place(folder)
    hold = folder.with_name(folder.name + ".hold")
    command = begin(folder, "out.zarr", 2, SLOW="0.1", HOLD=str(hold))
    hold.touch()
    done = 0
    while done < kills:
        assert command.process.is_alive(), command.output
        time.sleep(rng.uniform(0.05, 0.4))
        if done == kills - 2:
            hold.unlink(missing_ok=True)  # the last ones die while blocks are being finished
        if found := worker_processes(command.pid):
            rng.choice(found).kill()
            done += 1
    assert command.wait() == 0, command.output
    bench.check(folder, "out.zarr")


def lethal_block(bench: Bench, folder: Path, workers: int) -> None:
    """A block that kills every worker that touches it: set aside, the others finished, mended once it is harmless."""
    bench.place(folder)
    command = start(folder, *arguments("out.tif", workers), SLOW="0", POISON="1", POISON_KILLS="1")
    text = finish(command, code=3, patience=3 * PATIENCE)  # eight workers start one after the other
    assert "1 of 16 blocks failed" in text and not (folder / "out.tif").exists()
    assert committed(folder, "out.tif") == BLOCKS - 1
    call(folder, *arguments("out.tif", workers), SLOW="0")
    bench.check(folder, "out.tif")


def poison_block(bench: Bench, folder: Path, name: str) -> None:
    """A block that always raises: not published without leave, then published with a hole, then mended."""
    bench.place(folder)
    env = {"SLOW": "0", "POISON": "1"}
    text = call(folder, *arguments(name), code=3, **env)
    assert "1 of 16 blocks failed" in text and not (folder / name).exists()
    call(folder, *arguments(name), "--allow-holes", code=3, **env)
    if name.endswith(".tif"):
        assert holes(bench, folder / name) == [5]
    assert "blocks without data: 5" in call(folder, "verify", name)
    call(folder, "verify", name, "--repair", SLOW="0")
    bench.check(folder, name)


def out_of_memory(bench: Bench, folder: Path, most: int) -> None:
    """A GPU on which only so many patches fit at once."""
    bench.place(folder)
    call(folder, *arguments("out.zarr"), "--batch", 4, SLOW="0", OOM=str(most))
    bench.check(folder, "out.zarr")


def too_much_memory(bench: Bench, folder: Path, name: str) -> None:
    """A block under which workers pass their memory limit and are ended; alone, with less at once, it is done."""
    bench.place(folder)
    limit = 1400 * 2**20 / MEMORY_LIMIT
    env = {"DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": str(limit), "FAT": "1200", "SLOW": "0"}
    text = call(folder, *arguments(name, 1), "--json", **env)
    assert '"holes": []' in text
    bench.check(folder, name)


def holes(bench: Bench, path: Path) -> list[int]:
    """Return the blocks of an output that hold no data though the reference does; the others must be equal."""
    import rasterio

    found = []
    with rasterio.open(path) as made, rasterio.open(bench.reference(path.name)) as wanted:
        for number, window in enumerate(TileGrid(made.shape, (2 * BLOCK, 2 * BLOCK))):
            at = (slice(None), *window.slices())
            if not (made.read()[at] == wanted.read()[at]).all():
                assert (made.read()[at] == 0).all()
                found.append(number)
    return found


def kill_the_scheduler(bench: Bench, folder: Path) -> None:
    """SIGKILL the Dask scheduler under a run: exit 75; then go on without it."""
    bench.place(folder)
    address = folder / "scheduler.json"
    env = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "SLOW": "0.2"}
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env, "cwd": folder}
    scheduler = subprocess.Popen([*base, "--no-dashboard", "--scheduler-file", str(address)], **quiet)
    hand = subprocess.Popen([*worker, "--scheduler-file", str(address), "--death-timeout", "200"], **quiet)
    try:
        wait_until(lambda: address.exists() and address.stat().st_size > 0)
        where = json.loads(address.read_text())["address"]
        command = start(folder, *arguments("out.zarr"), "--scheduler", where, SLOW="0")
        assert wait_until(lambda: committed(folder, "out.zarr") >= 1, command), command.output
        scheduler.kill()
        assert command.wait() == 75, command.output
    finally:
        for process in (scheduler, hand):
            kill_tree(process.pid)
            process.wait()
        address.unlink(missing_ok=True)
    call(folder, *arguments("out.zarr"), SLOW="0")
    shutil.rmtree(folder / "dask-scratch-space", ignore_errors=True)
    bench.check(folder, "out.zarr")


def flip_a_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def damage_and_repair(bench: Bench, folder: Path, rng: random.Random, kind: str, name: str) -> None:
    """Flip, cut, empty or delete a file of a finished output; verify must find it, --repair must mend it."""
    bench.place(folder)
    shutil.copytree(bench.folder / f".reference{Path(name).suffix}.scenelift", folder / f".{name}.scenelift")
    reference = bench.reference(name)
    (shutil.copytree if reference.is_dir() else shutil.copy)(reference, folder / name)
    files = sorted(p for p in (folder / name).rglob("*") if p.is_file()) or [folder / name]
    harm(rng.choice(files), kind, rng)
    text = call(folder, "verify", name, code=4)
    assert "damaged" in text
    repair(folder, name)
    assert same(folder / name, reference)


def harm(path: Path, kind: str, rng: random.Random) -> None:
    if kind == "flipped":
        flip_a_bit(path, rng)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()


def repair(folder: Path, name: str) -> None:
    """Mend an output whose journal was copied from the reference: its input is the reference's."""
    call(folder, "verify", name, "--repair", SLOW="0")


def points(name: str) -> list[str]:
    """Return the commit points that the first run of an output passes."""
    never = {"salvaged", "old-output-moved"}
    of_tif = {"temporary-written", "window-written", "tiles-laid", "output-written", "output-made"}
    never |= {"pyramid-built"} if name.endswith(".tif") else of_tif
    return [point for point in POINTS if point not in never]


SIGNALS = (signal.SIGTERM, signal.SIGINT)
