"""Whether a GPU makes what it should: the CPU's numbers, the same bytes, also where memory or a worker is lost."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import torch
from safetensors.torch import load_file

from scenelift.models.catalog import find, load_spec, with_settings
from scenelift.models.loading import load
from scenelift.models.sensing.blurs import Blur
from scenelift.models.shipped import shipped
from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster.forking import worker_processes
from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.files import file_checksum
from scenelift.pipeline.jobs.journal import read_journal
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.bench.gpu.bench import DN, Bench, Row, said, scenelift

TOLERANCE = {"fp32": 2 * DN, "bf16": 60 * DN}
"""By how much (reflectance) a device's output may differ anywhere from the CPU's in float32."""
CHAIN = "denoise-fast,sr-x2-fast"
STEPS = 40
"""Of the training that is tried."""
WEIGHTS_OFF = {"cpu": 0.0, "cuda": 1e-2}
"""By how much a weight may differ after a training that was killed: a GPU adds gradients up in no fixed order."""


def agreement(bench: Bench) -> list[Row]:
    """Compare every shipped network on the device, in both precisions, with the CPU in float32."""
    patch, rows = 96, []
    source = SceneSource((str(bench.scene(512, "patches")),), scale=DN, offset=0.0)
    values = open_scene(source).read(Window(0, 0, 512, 512)).values
    for name in shipped():
        spec = load_spec(find(name))
        if spec.task not in ("super-resolution", "denoise"):
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
    kills, work = 0, work_folder(bench.folder / "killed.tif")
    while process.poll() is None and kills == 0:
        time.sleep(0.05)
        history = read_journal(work)
        for worker in worker_processes(process.pid) if history and history.commits else []:
            worker.kill()
            kills += 1
    _, errors = process.communicate()
    if process.returncode:
        return [Row("a worker is killed", False, said(errors))]
    same = file_checksum(bench.folder / "killed.tif") == wanted
    return [Row("a worker is killed", same and kills > 0, f"{kills} killed, {'same' if same else 'other'} bytes")]


def two_at_once(bench: Bench) -> list[Row]:
    """Run two commands on one GPU at the same time."""
    scene = bench.scene(700, "holes", hole=True)
    started = [
        subprocess.Popen(bench.command(scene, f"twin-{n}.tif", "sr-x2", "--workers", "1"), stdout=subprocess.DEVNULL)
        for n in (1, 2)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        return [Row("two commands on one GPU", False, f"exit codes {codes}")]
    same = len({file_checksum(bench.folder / f"twin-{n}.tif") for n in (1, 2)}) == 1
    return [Row("two commands on one GPU", same, "same bytes" if same else "other bytes")]


def training(bench: Bench) -> list[Row]:
    """Adapt a network at once; kill the same, and go on with it on the device and, with its last state, on the CPU."""
    scene = bench.scene(1400, "large")

    def command(name: str, device: str) -> list[str]:
        run, weights = bench.folder / f"run-{name}", bench.folder / f"{name}.safetensors"
        words = ["adapt", "sr-x2-fast", "--scenes", str(scene), "--bands", "1", "--steps", str(STEPS), "--force"]
        return scenelift(*words, "--run", str(run), "-o", str(weights), "--device", device, "--threads", "1")

    def end(name: str, device: str) -> str | None:
        """Train to the end; return what went wrong."""
        done = subprocess.run(command(name, device), capture_output=True, text=True)
        return said(done.stderr or done.stdout) if done.returncode else None

    if wrong := end("whole", bench.device):
        return [Row("training", False, wrong)]
    process = subprocess.Popen(command("killed", bench.device), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (bench.folder / "run-killed" / "state.safetensors").exists():
        time.sleep(0.02)
    process.kill()
    process.wait()
    if (bench.folder / "killed.safetensors").exists():
        return [Row("training", False, "it ended before it could be killed")]
    shutil.copytree(bench.folder / "run-killed", bench.folder / "run-moved")
    if wrong := end("killed", bench.device) or end("moved", "cpu"):
        return [Row("training that was killed", False, wrong)]
    whole, *others = (load_file(bench.folder / f"{name}.safetensors") for name in ("whole", "killed", "moved"))
    off = [max(float((whole[name] - other[name]).abs().max()) for name in whole) for other in others]
    told = f"largest difference of a weight {off[0]:.1g}"
    return [
        Row("training killed and resumed", off[0] <= WEIGHTS_OFF[bench.device], told),
        Row("its last state taken to the CPU", off[1] <= WEIGHTS_OFF["cuda"], f"{off[1]:.1g}"),
    ]
