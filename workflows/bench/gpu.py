"""`make gpu`: all that only a GPU can show, in one run of some minutes: same numbers, same bytes, faults, speed.

Every check is also run with ``--device cpu``, which tries its logic without a GPU. One that fails does not stop the
others; the exit code says whether any did.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from affine import Affine
from numpy.typing import NDArray

from scenelift.models.catalog import find, load, load_spec, with_settings
from scenelift.models.classical.resampling import upsample
from scenelift.models.enhancer import GPU_BATCH
from scenelift.models.sensing.blurs import Blur
from scenelift.models.shipped import shipped
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.files import file_checksum
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.geotiffs import write_geotiff
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource, no_crs
from scenelift.pipeline.tiles import Window
from scenelift.workflows.bench.bare import bare_forward
from scenelift.workflows.enhance import enhance
from scenelift.workflows.settings import EnhanceSettings

DN = 1e-4
"""Reflectance of one digital number."""
TOLERANCE = {"fp32": 2 * DN, "bf16": 60 * DN}
"""By how much (reflectance) a device's output may differ anywhere from the CPU's in float32."""
CHAIN = "denoise-fast,sr-x2-fast"
PIXEL = 10.0
"""Metres a pixel of the synthetic tile."""


@dataclass(frozen=True)
class Row:
    """What one check found."""

    check: str
    passed: bool | None
    """None: a figure, or not tried here (the value says why)."""
    value: str


@dataclass(frozen=True)
class Bench:
    """What all checks share."""

    device: str
    folder: Path
    side: int
    """Pixels a side of the whole tile."""

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return self.device == "cuda"

    @property
    def here(self) -> ClusterSettings:
        """This process alone."""
        return ClusterSettings(workers=0)

    @property
    def workers(self) -> ClusterSettings:
        """A worker process of its own, with the GPU if there is one."""
        return ClusterSettings(workers=1, gpus=1 if self.cuda else 0)

    def scene(self, side: int, name: str, hole: bool = False) -> Path:
        """Write a synthetic scene of four bands, uint16; the same for the same side."""
        path = self.folder / f"{name}.tif"
        if not path.exists():
            write_synthetic(path, side, hole)
        return path

    def run(self, source: Path, output: str, models: str, cluster: ClusterSettings, **settings: Any) -> Path:
        """Enhance; return the output."""
        path = self.folder / output
        chosen = EnhanceSettings(device=self.device, overwrite=True, expect=False, blur="sentinel-2", **settings)  # type: ignore[arg-type]
        enhance(SceneSource((str(source),), scale=DN, offset=0.0, crs="EPSG:32633"), path, models, chosen, cluster)
        return path

    def command(self, source: Path, output: str, models: str, *more: str) -> list[str]:
        """Return the same as a command line."""
        words = ["enhance", str(source), "-o", str(self.folder / output), "-m", models, "--device", self.device]
        words += [
            "--no-expect",
            "--blur",
            "sentinel-2",
            "--scale",
            str(DN),
            "--offset",
            "0",
            "--crs",
            "EPSG:32633",
            "--overwrite",
            *more,
        ]
        return [sys.executable, "-m", "scenelift.workflows.cli.app", *words]


def write_synthetic(path: Path, side: int, hole: bool = False) -> None:
    """Write fields with sharp borders, hills and fine texture: four bands of 10 m, uint16, nodata 0.

    Parameters
    ----------
    path : Path
    side : int
        Pixels a side.
    hole : bool
        A corner without data, and single missing pixels.
    """
    scene = np.empty((4, side, side), np.uint16)
    corners = [(row, col) for row in range(0, side, 512) for col in range(0, side, 512)]
    for number, (row, col) in enumerate(corners):
        rng = np.random.default_rng(number)
        hills = upsample(rng.uniform(300, 3000, (1, 4, 70, 70)).astype(np.float32), 8, "bicubic")[0][:, 8:520, 8:520]
        fields = np.kron(rng.integers(-400, 400, (4, 16, 16)), np.ones((32, 32)))
        block = np.clip(hills + fields + rng.normal(0, 15, hills.shape), 1, 10_000)
        room = scene[:, row : row + 512, col : col + 512]
        room[...] = block[:, : room.shape[1], : room.shape[2]]
    if hole:
        scene[:, :100, :140] = 0
        scene[:, 200::97, 150::61] = 0
    grid = GeoGrid(no_crs(), Affine(PIXEL, 0, 5e5, 0, -PIXEL, 5e6), side, side)
    write_geotiff(path, scene, grid, nodata=0)


def agreement(bench: Bench) -> list[Row]:
    """Compare every shipped network on the device, in both precisions, with the CPU in float32."""
    patch, rows = 96, []
    source = SceneSource((str(bench.scene(512, "patches")),), scale=DN, offset=0.0)
    values = open_scene(source).read(Window(0, 0, 512, 512)).values
    for name in shipped():
        spec = load_spec(find(name))
        if spec.task in ("classification", "segmentation", "sharpening", "land cover"):
            continue
        side = patch + 2 * spec.halo
        corners = [(0, 0), (40, 200), (250, 100), (10, 300)]
        patches = np.stack([values[: spec.bands or 3, r : r + side, c : c + side] for r, c in corners])
        told = {"noise": (0.004,) * patches.shape[1], "blur": (Blur(),) * patches.shape[1]}
        ref = with_settings(find(name), **told)
        truth = load(ref)(patches)
        for precision in ("fp32", "bf16"):
            made = load(with_settings(ref, device=bench.device, precision=precision))(patches)
            off = float(np.abs(made - truth).max())
            words = f"largest difference {off / DN:.2f} DN, rms {np.sqrt(np.mean((made - truth) ** 2)) / DN:.3f} DN"
            rows.append(Row(f"{name} {precision} against the CPU", off <= TOLERANCE[precision], words))
    load.cache_clear()
    return rows


def same_bytes(bench: Bench) -> list[Row]:
    """Enhance one scene with other blocks, batches and workers, with chains and missing pixels."""
    scene, rows = bench.scene(700, "holes", hole=True), []
    for models in ("sr-x2", CHAIN):
        digests = {}
        for number, (block, batch, cluster) in enumerate(
            ((1024, None, bench.here), (256, 3, bench.here), (512, 8, bench.workers))
        ):
            made = bench.run(scene, f"same-{number}.tif", models, cluster, block=block, batch=batch)
            digests[f"block {block}, batch {batch}, workers {cluster.local_workers}"] = file_checksum(made)
        same = len(set(digests.values())) == 1
        rows.append(Row(f"same bytes, {models}", same, "; ".join(f"{k}: {v:.10}" for k, v in digests.items())))
    return rows


def out_of_memory(bench: Bench) -> list[Row]:
    """Enhance while something else holds nearly all of the GPU's memory: same bytes, or one line that says so."""
    if not bench.cuda:
        return [Row("GPU memory runs out", None, "not tried: no GPU")]
    scene = bench.scene(700, "holes", hole=True)
    wanted = file_checksum(bench.run(scene, "roomy.tif", "sr-x2", bench.here))
    load.cache_clear()
    torch.cuda.empty_cache()
    rows = []
    for left in (3_000, 300):
        free, _ = torch.cuda.mem_get_info()
        held = torch.empty(max(free - left * 1_000_000, 0), dtype=torch.uint8, device="cuda")
        try:
            done = file_checksum(bench.run(scene, "tight.tif", "sr-x2", bench.here)) == wanted
            rows.append(Row(f"{left} MB of GPU memory left", done, "same bytes" if done else "other bytes"))
        except SceneliftError as error:
            rows.append(Row(f"{left} MB of GPU memory left", left < 1_000, f"refused: {error}"))
        del held
        torch.cuda.empty_cache()
    return rows


def killed_worker(bench: Bench) -> list[Row]:
    """Kill the worker process in the middle of a job."""
    scene = bench.scene(1400, "large")
    wanted = file_checksum(bench.run(scene, "calm.tif", CHAIN, bench.workers, block=256))
    process = subprocess.Popen(
        bench.command(scene, "killed.tif", CHAIN, "--block", "256", "--workers", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    kills = 0
    journal = bench.folder / ".killed.tif.scenelift" / "journal.jsonl"
    while process.poll() is None and kills == 0:
        time.sleep(0.05)
        begun = any(bench.folder.glob(".killed.tif*/journal*")) or journal.exists()
        for worker in _workers(process.pid) if begun else []:
            time.sleep(1.0)
            worker.kill()
            kills += 1
    _, said = process.communicate()
    if process.returncode:
        return [Row("a worker is killed", False, said.strip().splitlines()[-1])]
    same = file_checksum(bench.folder / "killed.tif") == wanted
    return [Row("a worker is killed", same and kills > 0, f"{kills} killed, {'same' if same else 'other'} bytes")]


def _workers(pid: int) -> list[psutil.Process]:
    """Return the worker processes of a command."""
    try:
        below = psutil.Process(pid).children(recursive=True)
        words = [(p, " ".join(p.cmdline())) for p in below]
    except psutil.Error:
        return []
    servers = {p.pid for p, line in words if "forkserver" in line and p.ppid() == pid}
    return [p for p, line in words if "spawn_main" in line or p.ppid() in servers]


def two_at_once(bench: Bench) -> list[Row]:
    """Run two commands on one GPU at the same time."""
    scene = bench.scene(700, "holes", hole=True)
    started = [
        subprocess.Popen(
            bench.command(scene, f"twin-{n}.tif", "sr-x2", "--workers", "1"), stdout=subprocess.DEVNULL, stderr=-2
        )
        for n in (1, 2)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        return [Row("two commands on one GPU", False, f"exit codes {codes}")]
    same = len({file_checksum(bench.folder / f"twin-{n}.tif") for n in (1, 2)}) == 1
    return [Row("two commands on one GPU", same, "same bytes" if same else "other bytes")]


def training(bench: Bench) -> list[Row]:
    """Adapt a network for some steps, at once and with a stop between, and go on with it on the CPU."""
    scene, weights = bench.scene(1400, "large"), {}
    for name, parts in (("whole", ("40",)), ("resumed", ("20", "40"))):
        for steps in parts:
            words = ["train", "--task", "sr-x2-fast", "--scenes", str(scene), "--bands", "1", "--steps", steps]
            words += ["--run", str(bench.folder / f"run-{name}"), "-o", str(bench.folder / f"{name}.safetensors")]
            words += ["--device", bench.device, "--threads", "1"]
            done = subprocess.run(
                [sys.executable, "-m", "scenelift.workflows.cli.app", *words], capture_output=True, text=True
            )
            if done.returncode:
                return [Row("training", False, (done.stderr or done.stdout).strip().splitlines()[-1])]
        weights[name] = find(str(bench.folder / f"{name}.safetensors"))
    return [Row("40 training steps on the device", True, "ended and stored a checkpoint")]


def bare(bench: Bench) -> list[Row]:
    """Time the bare forward pass of the default network, plain and compiled."""
    rows, side = [], 256 if bench.cuda else 64
    count = 256 if bench.cuda else 2
    patches = np.random.default_rng(0).uniform(0.02, 0.3, (count, 3, side, side)).astype(np.float32)
    for precision in ("fp32", "bf16"):
        ref = with_settings(find("sr-x2-rgb-sentinel2"), device=bench.device, precision=precision)
        seconds = statistics.median(bare_forward(ref, patches)[0] for _ in range(3))
        rows.append(
            Row(f"bare sr-x2-rgb-sentinel2, {precision}", None, f"{_mpx(patches) / seconds:.1f} Mpx/s, one by one")
        )
    module = load(with_settings(find("sr-x2-rgb-sentinel2"), device=bench.device, precision="bf16"))._ready[0]
    for name, network in (("batches", module), ("batches, compiled", _compiled(module) if bench.cuda else None)):
        if network is not None:
            seconds = _batched(network, patches, bench.device)
            rows.append(Row(f"bare sr-x2-rgb-sentinel2, bf16, {name}", None, f"{_mpx(patches) / seconds:.1f} Mpx/s"))
    load.cache_clear()
    return rows


def _mpx(patches: NDArray[np.float32]) -> float:
    return float(patches.shape[0] * patches.shape[2] * patches.shape[3]) / 1e6


def _compiled(module: Any) -> Any:
    return torch.compile(module, mode="max-autotune-no-cudagraphs")


def _batched(network: Any, patches: NDArray[np.float32], device: str) -> float:
    """Return seconds for all patches, already on the device, in the engine's batches."""
    samples = torch.from_numpy(patches).to(device).contiguous(memory_format=torch.channels_last)
    took = []
    with torch.inference_mode():
        for _ in range(3):
            started = time.perf_counter()
            for part in samples.split(GPU_BATCH):
                network(part)
            if device == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - started)
    return min(took)


def whole_tile(bench: Bench) -> list[Row]:
    """Enhance a whole tile to COG and to Zarr, and say how busy the GPU was."""
    scene, rows = bench.scene(bench.side, "tile"), []
    area = (bench.side * PIXEL / 1000) ** 2
    for models in ("sr-x2", "sr-x2-fast", "denoise"):
        for ending in ("tif", "zarr"):
            out = bench.folder / f"whole.{ending}"
            watch = _Busy() if bench.cuda else None
            started = time.perf_counter()
            done = subprocess.run(bench.command(scene, out.name, models, "--json"), capture_output=True, text=True)
            seconds = time.perf_counter() - started
            busy = f", GPU busy {watch.stop():.0f} %" if watch else ""
            name = f"{bench.side} x {bench.side} x 4, {models} to {ending}"
            if done.returncode:
                rows.append(Row(name, False, done.stderr.strip().splitlines()[-1]))
            else:
                facts = json.loads(done.stdout)
                words = f"{seconds:.1f} s ({area / seconds:.1f} km2/s), blocks {facts['blocks_seconds']:.1f} s{busy}"
                rows.append(Row(name, None, words))
            shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
    return rows


class _Busy:
    """Asks the driver how busy the GPU is, five times a second."""

    def __init__(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)

    def stop(self) -> float:
        """Return the mean since the start, percent."""
        self._process.terminate()
        said, _ = self._process.communicate()
        found = [float(line) for line in said.split() if line.strip().isdigit()]
        return statistics.mean(found) if found else float("nan")


CHECKS: tuple[Callable[[Bench], list[Row]], ...] = (
    agreement,
    same_bytes,
    out_of_memory,
    killed_worker,
    two_at_once,
    training,
    bare,
    whole_tile,
)


def run_checks(bench: Bench, checks: tuple[Callable[[Bench], list[Row]], ...] = CHECKS) -> list[Row]:
    """Run every check, whatever becomes of the others; print each row as it is known."""
    rows: list[Row] = []
    for check in checks:
        started = time.perf_counter()
        try:
            found = check(bench)
        except Exception as error:  # noqa: BLE001 - minutes on a GPU are rare: the other checks go on
            found = [Row(check.__name__, False, f"{type(error).__name__}: {error}")]
        for row in found:
            mark = {True: "ok", False: "FAILED", None: "--"}[row.passed]
            print(f"{mark:6} {row.check}: {row.value}", flush=True)
        print(f"       ({check.__name__}: {time.perf_counter() - started:.1f} s)", flush=True)
        rows += found
    return rows


def hardware(device: str) -> dict[str, Any]:
    """Return what the figures belong to."""
    facts: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count(), "device": device}
    if device == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return facts


def markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    """Return the table for docs/performance.md."""
    words = {True: "yes", False: "**no**", None: ""}
    lines = [
        ", ".join(f"{key}: {value}" for key, value in facts.items()),
        "",
        "| check | passed | found |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {row.check} | {words[row.passed]} | {row.value} |" for row in rows), ""])


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the checks without a GPU.")] = "cuda",
    out: Annotated[Path, typer.Option(help="Folder for gpu.json and gpu.md.")] = Path("gpu-report"),
    side: Annotated[
        int | None, typer.Option(help="Pixels a side of the whole tile; default 10980, 600 on a CPU.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run this check alone; repeatable.")] = None,
) -> None:
    """Run all checks on a device, and write gpu.json and gpu.md."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: --device cpu tries the checks without one")
    known = {check.__name__: check for check in CHECKS}
    if unknown := set(only or ()) - set(known):
        raise SystemExit(f"no check {sorted(unknown)[0]!r}: there are {', '.join(known)}")
    checks = tuple(known[name] for name in only) if only else CHECKS
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = run_checks(Bench(device, Path(folder), side or (10_980 if device == "cuda" else 600)), checks)
    facts = hardware(device)
    (out / "gpu.json").write_text(json.dumps({"hardware": facts, "rows": [asdict(row) for row in rows]}, indent=1))
    (out / "gpu.md").write_text(markdown(rows, facts))
    failed = [row.check for row in rows if row.passed is False]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    typer.run(main)
