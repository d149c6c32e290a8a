"""The whole job on real processes: one set of bytes for every way of cutting and running it, metadata intact."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate
from support.builders import ROTATED, SOUTH_UP, UTM, integer_net, noise_image, whole_image, write_raster
from support.jobs import COMMAND, holed_scene, pixels, run, scenelift

from scenelift.models.catalog import find
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import SceneliftError, UsageError
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.enhance import enhance
from scenelift.workflows.settings import EnhanceSettings


@pytest.mark.parametrize("transform", [UTM, ROTATED, SOUTH_UP])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_output_is_the_whole_image_pass_at_the_right_place(tmp_path: Path, transform, dtype: str) -> None:  # type: ignore[no-untyped-def]
    values = noise_image(1, (2, 75, 131), dtype, high=90)
    scale = 1.0 if dtype == "float32" else 1 / 4096
    path = write_raster(tmp_path / "in.tif", values, transform, scales=[scale] * 2)
    net = integer_net(2, 2, 32)
    summary = run(path, tmp_path / "out.tif", net, block=50, dtype="float32")
    expected = whole_image(net, values.astype(np.float32) * scale) / scale
    np.testing.assert_array_equal(pixels(tmp_path / "out.tif"), expected.astype("float32"))
    with rasterio.open(tmp_path / "out.tif") as made, rasterio.open(path) as given:
        assert made.transform @ (0, 0) == pytest.approx(given.transform @ (0, 0))
        assert made.transform @ (262, 150) == pytest.approx(given.transform @ (131, 75))
        assert made.crs == given.crs
    assert (summary.width, summary.height, summary.bands, summary.scale) == (262, 150, 2, 2)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A cluster of two workers for all tests that need one: starting workers takes longer than their work."""
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("model", ["sr-x2", "denoise-fast", "denoise-fast,sr-x2-fast"])
def test_any_block_batch_and_worker_count_gives_the_same_bytes(tmp_path: Path, model: str, scheduler: str) -> None:
    path = holed_scene(tmp_path / "in.tif")
    source = SceneSource((str(path),), bands=(3,) if model == "sr-x2" else (2, 3))
    many = ClusterSettings(scheduler=scheduler)
    ways = [
        ({"block": 1024}, ClusterSettings(0)),
        ({"block": 200, "batch": 3}, many),
        ({"block": 256, "batch": 1}, ClusterSettings(1) if "," in model else many),
    ]
    files = []
    for number, (way, cluster) in enumerate(ways):
        out = tmp_path / f"{number}.tif"
        enhance(source, out, model, EnhanceSettings(precision="fp32", expect=False, **way), cluster)
        files.append(out.read_bytes())
    assert all(content == files[0] for content in files[1:])
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["0.tif", "1.tif", "2.tif", "in.tif"]


def test_nothing_about_the_scene_is_lost(tmp_path: Path) -> None:
    path = holed_scene(tmp_path / "in.tif")
    run(path, tmp_path / "out.tif", "sr-x2")
    assert cog_validate(tmp_path / "out.tif", strict=True) == (True, [], [])
    with rasterio.open(path) as given, rasterio.open(tmp_path / "out.tif") as made:
        for name in ("dtypes", "nodatavals", "scales", "offsets", "descriptions", "colorinterp", "crs"):
            assert getattr(made, name) == getattr(given, name), name
        for key in ("TIFFTAG_DATETIME", "PROCESSING_BASELINE"):
            assert made.tags()[key] == given.tags()[key]
        before, after = given.read(), made.read()
        assert np.array_equal(after == 0, (before == 0).repeat(2, 1).repeat(2, 2))
        assert (after > 10_000).any() and abs(int(after.max()) - int(before.max())) < 2000
        provenance = json.loads(made.tags()["SCENELIFT"])
    assert provenance["models"][0]["sha256"] == find("sr-x2").digest
    assert provenance["models"][0]["spec"]["halo"] == 19
    assert provenance["software"].startswith("scenelift ") and "settings" in provenance
    assert len(provenance["input"]["sha256"]) == 64


def test_zarr_and_cog_hold_the_same_pixels(tmp_path: Path) -> None:
    path = holed_scene(tmp_path / "in.tif")
    net = integer_net(2, 3, 64)
    run(path, tmp_path / "out.tif", net, block=256)
    run(path, tmp_path / "out.zarr", net, block=100)
    data = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)["data"]
    assert np.array_equal(data.to_numpy(), pixels(tmp_path / "out.tif"))


def test_internal_masks_and_alpha_pass_through(tmp_path: Path) -> None:
    values = noise_image(1, (2, 60, 70))
    mask = np.full((60, 70), 255, np.uint8)
    mask[10:30, 5:9] = 0
    net = integer_net(2, 1, 32)
    run(write_raster(tmp_path / "m.tif", values, mask=mask), tmp_path / "mask.tif", net)
    with rasterio.open(tmp_path / "mask.tif") as made:
        assert np.array_equal(made.dataset_mask(), mask.repeat(2, 0).repeat(2, 1))
        assert made.count == 2
    colors = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    path = write_raster(tmp_path / "a.tif", np.concatenate([values, mask[None].astype("uint16")]), colorinterp=colors)
    run(path, tmp_path / "alpha.tif", net)
    with rasterio.open(tmp_path / "alpha.tif") as made:
        assert made.colorinterp[2] == ColorInterp.alpha
        assert np.array_equal(made.read(3), mask.repeat(2, 0).repeat(2, 1))
        assert np.array_equal(made.read([1, 2]), pixels(tmp_path / "mask.tif"))


def test_an_existing_scheduler_is_used(tmp_path: Path, scheduler: str) -> None:
    path = holed_scene(tmp_path / "in.tif", 128)
    run(path, tmp_path / "a.tif", "sr-x2-lean")
    done = scenelift(
        *("enhance", path, "-o", tmp_path / "b.tif", "--scheduler", scheduler, "--block", 128, "--no-expect", "--json")
    )
    assert json.loads(done.stdout)["blocks"] == 2
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_command_line_end_to_end(tmp_path: Path) -> None:
    path = holed_scene(tmp_path / "päth with spaces.tif", 128)
    words = "-o", tmp_path / "out.zarr", "-m", "denoise-fast,sr-x2-fast", "--workers", "2", "--bands", "3,1"
    command = [*COMMAND, "enhance", path, *words, "--no-expect"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Mpx/s" in done.stdout and "peak memory" in done.stdout
    facts = json.loads(scenelift("info", tmp_path / "out.zarr", "--json").stdout)
    assert [b["description"] for b in facts["bands"]] == ["B04", "B02"]
    assert facts["width"] == 2 * (128 + 19)
    text = scenelift("models").stdout
    assert "sr-x2" in text and "denoise" in text
    assert json.loads(scenelift("models", "sr-x2", "--json").stdout)[0]["scale"] == 2


HEAVY = ("torch", "rasterio", "dask", "distributed", "zarr", "numpy", "scipy")
QUICK = {
    "--help": (),
    "--version": (),
    "enhnace": (),
    "enhance --help": (),
    "enhance in.tif -o o.tif --blok 512": (),
    "enhance none.tif -o o.tif": (),
    "enhance in.tif -o o.png": (),
    "enhance in.tif -o no/o.tif": (),
    "enhance in.tif -o o.tif -m sr-x22": (),
    "expect in.tif -m sr-x22": (),
    "classify none.tif -o o.tif": (),
    "archive in.tif -o out -m sr-x22": (),
    "score none.tif in.tif": (),
    "resume none.tif": (),
    "verify none.tif": (),
    "verify in.tif": ("rasterio", "numpy", "zarr"),
    "models": ("numpy",),
    "models sr-x22": (),
    "info none.tif": (),
    "info in.tif": ("rasterio", "numpy"),
}
"""Commands, and what of the heavy packages each may import."""


@pytest.mark.parametrize("words", QUICK)
def test_what_needs_no_network_says_its_say_without_importing_one(words: str, place: Path) -> None:
    code = (
        "import sys; from scenelift.workflows.cli.app import main\n"
        "try: main()\n"
        f"finally: print('imported:', *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=os.environ | {"COLUMNS": "200"})
    imported = set(done.stderr.rpartition("imported:")[2].split())
    assert imported <= set(QUICK[words])
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr


MISTAKES = {
    "missing file": (["none.tif", "-o", "o.tif"], 2, "no such file"),
    "unknown model": (["in.tif", "-o", "o.tif", "-m", "best"], 2, "unknown model"),
    "missing checkpoint": (["in.tif", "-o", "o.tif", "-m", "x.safetensors"], 2, "no such checkpoint"),
    "broken checkpoint": (["in.tif", "-o", "o.tif", "-m", "bad.safetensors"], 2, "bad.safetensors"),
    "no such factory": (["in.tif", "-o", "o.tif", "-m", "nowhere.module:f"], 2, "cannot load model"),
    "bad band": (["in.tif", "-o", "o.tif", "--bands", "9"], 2, "band 9 does not exist"),
    "bands without names": (["in.tif", "-o", "o.tif", "--bands", "red"], 2, "no names, give numbers from 1 to"),
    "unknown suffix": (["in.tif", "-o", "o.png"], 2, "must end in .tif"),
    "no folder": (["in.tif", "-o", "no/o.tif"], 2, "no such folder"),
    "output exists": (["in.tif", "-o", "there.tif"], 2, "--overwrite"),
    "output is input": (["in.tif", "-o", "in.tif", "--overwrite"], 2, "is the input"),
    "output is a folder": (["in.tif", "-o", "folder.tif", "--overwrite"], 2, "is a folder that scenelift did not make"),
    "folder is no store": (["in.tif", "-o", "mine.zarr", "--overwrite"], 2, "is a folder that scenelift did not make"),
    "no crs": (["nocrs.tif", "-o", "o.tif"], 2, "--crs"),
    "not a raster": (["bad.safetensors", "-o", "o.tif"], 2, "cannot open"),
    "bad block": (["in.tif", "-o", "o.tif", "--block", "0"], 2, "--block"),
    "bad dtype": (["in.tif", "-o", "o.tif", "--dtype", "complex64"], 2, "complex64"),
    "bad noise": (["in.tif", "-o", "o.tif", "--noise", "lots"], 2, "--noise"),
    "bad precision": (["in.tif", "-o", "o.tif", "--precision", "fp8"], 2, "fp8"),
    "no gpu": (["in.tif", "-o", "o.tif", "--device", "cuda"], 2, "CUDA"),
    "no scheduler": (["in.tif", "-o", "o.tif", "--scheduler", "tcp://127.0.0.1:9"], 4, "scheduler"),
    "gain of what does not enlarge": (["in.tif", "-o", "o.tif", "-m", "median", "--require-gain", "1"], 2, "enlarges"),
    "unknown option": (["in.tif", "-o", "o.tif", "--fast"], 2, "--fast"),
    "no output": (["in.tif"], 2, "output"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("mistakes")
    write_raster(folder / "in.tif", noise_image(1, (2, 40, 40)))
    write_raster(folder / "there.tif", noise_image(1, (2, 40, 40)))
    write_raster(folder / "nocrs.tif", noise_image(1, (1, 40, 40)), crs=None)
    (folder / "folder.tif").mkdir()
    (folder / "mine.zarr").mkdir()
    (folder / "mine.zarr" / "notes.txt").touch()
    (folder / "bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}nothing")
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_an_exit_code(place: Path, mistake: str) -> None:
    args, code, words = MISTAKES[mistake]
    if mistake == "no gpu" and _has_cuda():
        pytest.skip("this machine has a GPU")
    before = sorted(place.iterdir())
    done = scenelift("enhance", *args, "--workers", "0", cwd=place, ok=False)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("scenelift: ") and words in lines[0]
    assert sorted(place.iterdir()) == before


def _has_cuda() -> bool:
    from scenelift.models.enhancer import gpu_count

    return gpu_count() > 0


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys").exists(), reason="cannot make an unwritable folder")
@pytest.mark.parametrize(
    "command",
    [
        "enhance in.tif -m nearest-x2 --workers 0 -o out.tif",
        "enhance in.tif -m nearest-x2 --workers 0 --dry-run -o out.tif",
        "quicklook in.tif in.tif -o out.png",
        "explain in.tif -m sr-x2-fast --at 9,9 -o out.png",
        "score in.tif in.tif --map out.tif",
    ],
)
def test_an_unwritable_folder_is_a_clear_error(tmp_path: Path, command: str) -> None:
    write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 40)))
    *words, out = command.split()
    done = scenelift(*words, f"/proc/sys/{out}", cwd=tmp_path, ok=False)  # which refuses new files even to root
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("scenelift: cannot write in /proc/sys: ") and "another folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize("words", ["--crs EPSG:99999", "--bbox 1,1,2,2 --bbox-crs EPSG:99999"])
def test_a_crs_that_does_not_exist_is_one_line_of_ours(tmp_path: Path, words: str) -> None:
    write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 40)))
    command = "enhance", "in.tif", "-o", "out.tif", "-m", "nearest-x2", "--workers", "0", *words.split()
    done = subprocess.run([*COMMAND, *command], cwd=tmp_path, capture_output=True, text=True)  # PROJ writes by itself
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "got 'EPSG:99999'" in done.stderr


def test_a_truncated_scene_fails_cleanly_and_leaves_no_output(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (1, 600, 600)))
    whole = path.read_bytes()
    for size, left in ((500_000, [".out.tif.scenelift", "in.tif"]), (1_000, ["in.tif"])):
        path.write_bytes(whole[:size])
        for workers in (0, 1):
            with pytest.raises(SceneliftError, match="truncated"):
                run(path, tmp_path / "out.tif", integer_net(), workers, block=200)
            assert sorted(p.name for p in tmp_path.iterdir()) == left, "only what was begun is kept"
        shutil.rmtree(tmp_path / ".out.tif.scenelift", ignore_errors=True)


def test_overwriting_replaces_and_a_failure_keeps_the_old_output(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 40)))
    for name in ("out.tif", "out.zarr"):
        run(path, tmp_path / name, integer_net(1))
        with pytest.raises(UsageError, match="exists"):
            run(path, tmp_path / name, integer_net(2))
        run(path, tmp_path / name, integer_net(2), overwrite=True)
    assert pixels(tmp_path / "out.tif").shape == (1, 80, 80)


class Lame:
    """Returns the wrong shape."""

    spec = integer_net(2).spec

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        return patches


def test_a_model_that_breaks_its_promise_is_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 40)))
    with pytest.raises(UsageError, match=r"integer returned an array of shape"):
        run(path, tmp_path / "out.tif", Lame())


def test_scene_source_of_several_files(tmp_path: Path) -> None:
    values = noise_image(1, (2, 50, 60))
    paths = [write_raster(tmp_path / f"B0{i}.tif", values[i : i + 1]) for i in range(2)]
    both = write_raster(tmp_path / "both.tif", values)
    net = integer_net(2)
    run(SceneSource(tuple(map(str, paths))), tmp_path / "a.tif", net)
    run(both, tmp_path / "b.tif", net)
    assert np.array_equal(pixels(tmp_path / "a.tif"), pixels(tmp_path / "b.tif"))
