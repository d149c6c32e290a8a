"""A scene of several grids, from the command line to an output with all bands on the finest."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from scipy.ndimage import gaussian_filter
from support.builders import UTM, write_raster
from support.faults import same
from support.jobs import pixels, run, scenelift
from support.processes import call
from support.products import METRES, write_safe

from scenelift.models.checkpoint import save_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.layout import BandGrid
from scenelift.models.spec import ModelSpec
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import GridsError, UsageError
from scenelift.pipeline.jobs.fingerprints import fingerprint
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.choosing.prepared import prepare
from scenelift.workflows.planning import make_plan
from scenelift.workflows.settings import EnhanceSettings

GUIDES = ["B02", "B03", "B04", "B08"]
COLOURS = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]


def landscape(bands: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Return correlated bands with edges, digital numbers of 1000 to 9000."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal(shape), s) for s in (1, 3, 9)]
    base = np.stack([f / f.std() for f in fields] + [np.sign(fields[2])])
    made = np.einsum("bf,fhw->bhw", rng.uniform(0.2, 1, (bands, 4)), base)
    return np.clip(4500 + 800 * made, 1000, 9000)


def seen(fine: NDArray[np.float64], ratio: int, row: int = 0, col: int = 0) -> NDArray[np.float64]:
    """Return what a grid `ratio` times as coarse sees that begins `row`, `col` fine pixels further on."""
    blurred = np.stack([gaussian_filter(band, 0.5 * ratio) for band in fine])[:, row:, col:]
    height, width = (n // ratio * ratio for n in blurred.shape[1:])
    tiles = blurred[:, :height, :width].reshape(len(fine), height // ratio, ratio, width // ratio, ratio)
    return tiles.mean((2, 4))


def pair(folder: Path, shape: tuple[int, int] = (180, 160), **coarse) -> list[Path]:  # type: ignore[no-untyped-def]
    """Write four bands at 10 m and three at 20 m whose grid begins one fine pixel further down and right."""
    folder.mkdir(exist_ok=True)
    truth = landscape(7, shape)
    low = UTM @ UTM.translation(1, 1) @ UTM.scale(2)
    return [
        write_raster(
            folder / "a_20m.tif",
            seen(truth[4:], 2, 1, 1).round().astype("uint16"),
            low,
            descriptions=["B05", "B8A", "B11"],
            tiled=False,
            **coarse,
        ),
        write_raster(
            folder / "a_10m.tif",
            truth[:4].round().astype("uint16"),
            descriptions=GUIDES,
            colorinterp=COLOURS,
            tags={"TIFFTAG_DATETIME": "2020:01:13 10:50:31"},
        ),
    ]


def source_of(paths: list[Path], **options) -> SceneSource:  # type: ignore[no-untyped-def]
    return SceneSource(tuple(map(str, paths)), **options)


def test_all_bands_on_the_finest_grid_with_their_names_and_colours(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    scenelift("enhance", *paths, "-o", "out.tif", "-m", "sharpen-closed", "--workers", 0, cwd=tmp_path)
    done = scenelift("enhance", *paths, "-o", "out.zarr", "-m", "sharpen-closed", "--workers", 0, cwd=tmp_path)
    said = " ".join(done.stdout.replace("│", " ").split())
    assert "sharpened to 10 x 10 metre: B05, B8A, B11 from 20 x 20, guided by B02, B03, B04, B08" in said
    with rasterio.open(paths[1]) as fine, rasterio.open(tmp_path / "out.tif") as made:
        assert made.descriptions == ("B05", "B8A", "B11", *GUIDES)
        assert made.colorinterp[3:] == tuple(COLOURS)
        assert made.shape == (178, 158) and made.crs == fine.crs and made.dtypes[0] == "uint16"
        assert made.transform.almost_equals(UTM @ UTM.translation(1, 1))
        assert made.tags()["TIFFTAG_DATETIME"] == "2020:01:13 10:50:31"
        values = made.read()
        assert np.array_equal(values[3:], fine.read()[:, 1:179, 1:159])  # guides pass bit for bit
        told = json.loads(made.tags()["SCENELIFT"])["models"][0]
    assert told["name"] == "sharpen-closed" and told["spec"]["multiple_of"] == 2
    assert told["layout"][2] == {"ratio": 2, "row": 0.5, "col": 0.5, "mtf": 0.22} | {"name": "B11", "wavelength": 1610}
    assert len(told["coefficients"]["regression"]) == 3
    zarr = open_scene(SceneSource((str(tmp_path / "out.zarr"),)))
    assert [band.description for band in zarr.bands] == ["B05", "B8A", "B11", *GUIDES]
    assert np.array_equal(zarr.read_dn(Window(0, 0, 178, 158))[0], values)
    # sharper than interpolation: nearer to what the grid was made of
    truth = landscape(7, (180, 160))[4:, 1:179, 1:159]
    plain = seen(landscape(7, (180, 160))[4:], 2, 1, 1).repeat(2, 1).repeat(2, 2)
    inner = (slice(None), slice(20, -20), slice(20, -20))
    error, before = (np.sqrt(np.mean((v[inner] - truth[inner]) ** 2)) for v in (values[:3].astype(float), plain))
    assert error < 0.6 * before


def test_guides_that_are_georeferenced_one_pixel_off_are_told(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    for move, said in (((0, 0), False), ((0, -1), True)):
        with rasterio.open(paths[1], "r+") as fine:
            fine.transform = UTM @ UTM.translation(*move)
        done = scenelift(
            "enhance", *paths, "-o", "o.tif", "-m", "sharpen-closed", "--overwrite", "--json", cwd=tmp_path
        )
        warned = [note for note in json.loads(done.stdout)["notes"] if note.startswith("guides seem shifted by")]
        assert len(warned) == said
        if said:
            assert "against B05, B8A, B11" in warned[0] and "check the georeference of the two" in warned[0]


def test_the_blocks_are_the_closed_form_of_the_whole_scene(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    run(source_of(paths), tmp_path / "out.tif", "sharpen-closed", block=96, dtype="float32")
    with rasterio.open(tmp_path / "out.tif") as made:
        values, told = made.read(), json.loads(made.tags()["SCENELIFT"])["models"][0]
    module = ClosedForm([BandGrid(**band) for band in told["layout"]], told["coefficients"])
    scene = open_scene(source_of(paths, extent="common"))
    halo = ((0, 0), (module.halo, module.halo), (module.halo, module.halo))
    region = scene.read(Window(0, 0, *scene.grid.shape))
    with torch.inference_mode():
        whole = module(torch.from_numpy(np.pad(region.values, halo, mode="reflect"))[None])[0].numpy()
    np.testing.assert_allclose(values * np.float32(1e-4), whole, atol=3e-6)


def test_the_same_bytes_for_every_block_batch_and_worker(tmp_path: Path) -> None:
    paths = pair(tmp_path, nodata=0)
    outputs = [tmp_path / f"{n}.tif" for n in range(3)]
    cases = [{"block": 2048}, {"block": 50, "batch": 1}, {"block": 110, "batch": 3, "workers": 2}]
    for out, case in zip(outputs, cases, strict=True):
        run(source_of(paths), out, "sharpen-closed", **case)
    first = pixels(outputs[0])
    assert all(np.array_equal(first, pixels(out)) for out in outputs[1:])


def test_a_killed_job_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    how = ["-m", "sharpen-closed", "--block", 64, "--workers", 0]
    call(tmp_path, "enhance", *paths, "-o", "whole.tif", *how)
    call(tmp_path, "enhance", *paths, "-o", "out.tif", *how, code=-9, SCENELIFT_KILL_AT="before-journal:3")
    assert not (tmp_path / "out.tif").exists()
    call(tmp_path, "resume", "out.tif")
    assert same(tmp_path / "out.tif", tmp_path / "whole.tif")
    assert "intact" in call(tmp_path, "verify", "out.tif")


def test_a_chain_is_its_models_one_after_the_other(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    run(source_of(paths), tmp_path / "chain.tif", "sharpen-closed,lanczos-x2", dtype="float32", block=100)
    run(source_of(paths), tmp_path / "one.tif", "sharpen-closed", dtype="float32")
    run(source_of([tmp_path / "one.tif"]), tmp_path / "two.tif", "lanczos-x2")
    chain, two = pixels(tmp_path / "chain.tif"), pixels(tmp_path / "two.tif")
    assert chain.shape == (7, 356, 316)
    with rasterio.open(tmp_path / "chain.tif") as made, rasterio.open(tmp_path / "two.tif") as other:
        scales = [np.array(f.scales)[:, None, None] for f in (made, other)]
    np.testing.assert_allclose(chain * scales[0], two * scales[1], atol=2e-6)


def test_networks_after_the_sharpener_are_told_of_what_it_makes(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    settings = EnhanceSettings(expect=False)
    prepared = prepare(source_of(paths), "sharpen-closed,sr-x2", settings, ClusterSettings(workers=0))
    assert prepared.sharpened is not None and prepared.conditions is not None
    run(source_of(paths), tmp_path / "one.tif", "sharpen-closed", dtype="float32")
    made = open_scene(SceneSource((str(tmp_path / "one.tif"),)))
    for window in (Window(0, 0, 120, 90), Window(101, 57, 64, 64)):
        np.testing.assert_allclose(prepared.sharpened.read(window).values, made.read(window).values, atol=2e-6)
    replicated = prepare(source_of(paths), "sharpen-closed", settings, ClusterSettings(workers=0))
    assert replicated.conditions is None
    assert len(prepared.conditions.blur) == 7 and prepared.models[1].handle.noise is not None


def test_a_network_sharpens_like_the_closed_form_does(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    torch.manual_seed(0)
    arch = {"kind": "sharpener", "guides": 4, "channels": 8, "blocks": 1}
    network = DetailNetwork(4, 8, 1)
    save_checkpoint(tmp_path / "net.safetensors", network, ModelSpec("net", "sharpening", halo=network.halo), arch)
    model = str(tmp_path / "net.safetensors")
    run(source_of(paths), tmp_path / "a.tif", model)
    run(source_of(paths), tmp_path / "b.tif", model, block=70, batch=1)
    run(source_of(paths), tmp_path / "closed.tif", "sharpen-closed")
    values, closed = pixels(tmp_path / "a.tif"), pixels(tmp_path / "closed.tif")
    assert np.array_equal(values, pixels(tmp_path / "b.tif"))
    assert np.array_equal(values[3:], closed[3:])  # the guides
    assert 0 < np.abs(values[:3].astype(int) - closed[:3]).max() < 1000
    with pytest.raises(ModelError, match="for 4 guides, the scene has 3"):
        prepare(source_of(paths, bands=(1, 2, 4, 5, 6)), model, EnhanceSettings(), ClusterSettings(workers=0))


def test_a_sharpened_pixel_needs_its_coarse_pixel_and_every_guide(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    for path, holes in ((paths[0], {0: (30, 40)}), (paths[1], {1: (90, 101)})):
        with rasterio.open(path, "r+") as file:
            values = file.read()
            for band, (start, stop) in holes.items():
                values[band, start:stop, start:stop] = 0
            file.write(values)
            file.nodata = 0
    run(source_of(paths), tmp_path / "out.tif", "sharpen-closed", block=90)
    missing = pixels(tmp_path / "out.tif") == 0
    expected = np.zeros(missing.shape, bool)
    expected[0, 60:80, 60:80] = True  # of the coarse band alone
    expected[:3, 89:100, 89:100] = True  # B03, one fine pixel up and left in the output
    expected[4, 89:100, 89:100] = True
    assert np.array_equal(missing, expected)
    plain = pair(tmp_path / "plain")
    run(source_of(plain), tmp_path / "plain.tif", "sharpen-closed", block=90)
    far = np.s_[:, 155:, 135:]
    difference = pixels(tmp_path / "out.tif")[far].astype(int) - pixels(tmp_path / "plain.tif")[far]
    assert np.abs(difference).max() < 100  # other coefficients, the same landscape: nodata has not bled


def test_union_keeps_what_any_grid_covers(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    scenelift(
        "enhance", *paths, "-o", "out.tif", "-m", "sharpen-closed", "--extent", "union", "--workers", 0, cwd=tmp_path
    )
    values = pixels(tmp_path / "out.tif")
    assert values.shape == (7, 180, 160)
    assert (values[:3, 0] == 0).all() and (values[:3, :, 0] == 0).all() and (values[3:] > 0).all()
    refused = scenelift("enhance", paths[1], "-o", "x.tif", "-m", "sr-x2", "--extent", "union", cwd=tmp_path, ok=False)
    assert refused.returncode == 2 and "--extent is for scenes of several grids" in refused.stderr


@pytest.mark.parametrize(
    ("models", "names", "why"),
    [
        ("sr-x2", (0, 1), r"a_10m.tif is not on the grid of .*a_20m.tif.*add -m sharpen-closed first, which"),
        ("sharpen-closed", (1,), r"all 4 bands of a_10m.tif lie on one"),
        ("lanczos-x2,sharpen-closed", (0, 1), "sharpen-closed must be the first model"),
        ("sharpen-closed,sharpen-closed", (0, 1), "sharpen-closed must be the first model"),
    ],
)
def test_refusals_are_one_line_and_exit_2(tmp_path: Path, models: str, names: tuple[int, ...], why: str) -> None:
    paths = [pair(tmp_path)[i] for i in names]
    done = scenelift("enhance", *paths, "-o", "x.tif", "-m", models, cwd=tmp_path, ok=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert len(list(tmp_path.iterdir())) == 2  # nothing was begun
    with pytest.raises((GridsError, UsageError), match=why):
        prepare(source_of(paths), models, EnhanceSettings(), ClusterSettings(workers=0))


def test_a_band_of_an_unknown_sensor_is_told(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    with rasterio.open(paths[0], "r+") as file:
        file.set_band_description(2, "thermal")
    plan = make_plan(
        source_of(paths), tmp_path / "o.tif", "sharpen-closed", EnhanceSettings(), ClusterSettings(workers=0)
    )
    assert any(note == "the sensor's blur of thermal is unknown: an MTF of 0.3 is assumed" for note in plan.notes)


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_a_product_comes_out_with_all_its_bands_at_10_m(tmp_path: Path, level: str) -> None:
    truth = dict(zip(METRES, landscape(13, (180, 180)), strict=True))
    planes = {
        band: (seen(plane[None], METRES[band] // 10)[0] if METRES[band] > 10 else plane).round().astype("uint16")
        for band, plane in truth.items()
        if level == "L1C" or band != "B10"
    }
    folder, _ = write_safe(tmp_path / "S2A.SAFE", level, 180, -1000, planes)
    scenelift("enhance", folder, "-o", "all.tif", "-m", "sharpen-closed", "--workers", 0, cwd=tmp_path)
    with rasterio.open(tmp_path / "all.tif") as made:
        assert made.descriptions == tuple(b for b in METRES if b != "B10") and made.shape == (180, 180)
        assert made.nodata == 0 and made.scales[0] == 1e-4 and made.offsets[0] == pytest.approx(-0.1)
        assert np.array_equal(made.read(4), planes["B04"])
        error = made.read(11).astype(float) - truth["B11"]
        before = planes["B11"].astype(float).repeat(2, 0).repeat(2, 1) - truth["B11"]
        assert error[20:-20, 20:-20].std() < before[20:-20, 20:-20].std()
    run(SceneSource((str(folder),)), tmp_path / "ten.tif", "lanczos-x2")
    assert pixels(tmp_path / "ten.tif").shape[0] == 4  # as ever without a sharpener


def test_an_archive_of_products_comes_out_with_all_bands(tmp_path: Path) -> None:
    write_safe(tmp_path / "in" / "S2A_MSIL2A_20220105T101411.SAFE", "L2A", 120)
    how = ["archive", "in", "-o", "out", "-m", "sharpen-closed", "--workers", 0]
    told = json.loads(call(tmp_path, *how, "--dry-run", "--json").splitlines()[-1])
    assert told["scenes"] == 1 and told["unusable"] == {} and told["output_bytes"] > 0
    call(tmp_path, *how)
    (made,) = (tmp_path / "out" / "scenes").rglob("*.tif")
    with rasterio.open(made) as scene:
        assert scene.shape == (120, 120) and scene.descriptions == tuple(b for b in METRES if b != "B10")


def test_scenes_of_one_grid_keep_their_fingerprint(tmp_path: Path) -> None:
    path = pair(tmp_path)[1]
    plan = make_plan(source_of([path]), tmp_path / "o.tif", "lanczos-x2", EnhanceSettings(), ClusterSettings(workers=0))
    assert set(plan.fingerprint["reading"]) == {"bands", "scale", "offset", "nodata", "crs"}
    scene = open_scene(source_of(pair(tmp_path), extent="common"))
    found = fingerprint(scene, plan.job.models, plan.job.output, "x", True, ())
    assert found["reading"]["extent"] == "common"


def test_a_report_finds_the_grids_that_a_scene_was_made_from(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    run(source_of(paths), tmp_path / "out.tif", "sharpen-closed")
    call(tmp_path, "report", "out.tif", "-o", "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_info_tells_the_grids(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    facts = json.loads(scenelift("info", *paths, "--json", cwd=tmp_path).stdout)
    assert facts["width"] == 158 and [band["description"] for band in facts["bands"]][:2] == ["B05", "B8A"]
    assert [band["ground_sample_distance"] for band in facts["bands"]] == [[20, 20]] * 3 + [[10, 10]] * 4
    assert "20 x 20" in scenelift("info", *paths, cwd=tmp_path).stdout
    assert "sharpen-closed" in scenelift("models").stdout
    assert "sharpening" in scenelift("models", "sharpen-closed").stdout
