"""Whole archives: where scenes come from, what a bad one costs, what a rerun does, several processes at once."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import rasterio
from support.archives import bad_scenes, scene, table
from support.builders import noise_image, write_raster
from support.processes import call, start, wait_until

from scenelift.pipeline.errors import HeldError, UsageError
from scenelift.pipeline.jobs.locks import Lock
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.places import Place
from scenelift.pipeline.scenes.quicklooks import channels
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.archive.filters import Facts, Filters, parse_box, parse_dates
from scenelift.workflows.archive.settings import Access
from scenelift.workflows.archive.sources import find_scenes

MODEL = ("-m", "nearest-x2", "--workers", 0, "--scores", "none")


def filters(bbox: str | None, date: str | None, cloud_cover: float | None) -> Filters:
    """Return the filters that the command line would make of its texts."""
    return Filters(bbox and parse_box(bbox), date and parse_dates(date), cloud_cover)


def ids(sources: list[str], output: Path, **access: Any) -> list[str]:
    return [entry.id for entry in find_scenes(sources, output, Access(**access))]


def test_a_bad_scene_costs_that_scene_and_a_rerun_does_what_is_missing(tmp_path):
    scene(tmp_path / "in" / "a.tif")
    scene(tmp_path / "in" / "deep" / "er" / "a.tif", 1, 70)
    reasons = bad_scenes(tmp_path / "in")
    text = call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--block", 32, code=3)
    rows = table(tmp_path / "out")
    assert rows.keys() == {"a", "deep__er__a", *reasons}
    for name, word in reasons.items():
        assert rows[name]["status"] == "failed" and word in rows[name]["reason"], rows[name]
        assert not (tmp_path / "out" / "scenes" / name).exists()
        assert name in text
    done = rows["deep__er__a"]
    assert (done["status"], done["blocks"], done["width"], done["scale"]) == ("done", 9, 140, 2)
    parquet = pyarrow.parquet.read_table(tmp_path / "out" / "run.parquet").to_pylist()
    assert {row["id"]: row["status"] for row in parquet} == {name: row["status"] for name, row in rows.items()}
    call(tmp_path, "verify", f"out/{done['output']}")

    outputs = [tmp_path / "out" / row["output"] for row in rows.values() if row["output"]]
    before = {path: path.stat().st_mtime_ns for path in outputs}
    for path in (tmp_path / "in").iterdir():
        if path.name in ("folder.tif", "product.SAFE", "store.zarr"):
            shutil.rmtree(path)
        elif path.stem in reasons:
            path.unlink()
    scene(tmp_path / "in" / "text.tif", 2)
    facts = json.loads(call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--block", 32, "--json"))
    assert (facts["done"], facts["before"], facts["failed"]) == (1, 2, 0)
    (tmp_path / "in" / "a.tif").touch()
    facts = json.loads(call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--block", 32, "--json"))
    assert (facts["done"], facts["before"]) == (1, 2), "a touched input is read again"
    assert {path: path.stat().st_mtime_ns for path in outputs} == before, "but its finished output not written again"


def test_extras_of_enhance_are_extras_of_archive(tmp_path):
    scene(tmp_path / "in" / "a.tif")
    write_raster(tmp_path / "in" / "nameless.tif", noise_image(1, (3, 40, 40)))
    extras = ("-m", "sr-x2-rgb", "--workers", 0, "--precision", "fp32", "--realism", 0.5)
    call(tmp_path, "archive", "in", "-o", "out", *extras, "--uncertainty")
    call(tmp_path, "enhance", "in/a.tif", "-o", "one.tif", *extras, "--uncertainty")
    made, one = tmp_path / "out/scenes/a/a.tif", tmp_path / "one.tif"
    with rasterio.open(made) as ours, rasterio.open(one) as theirs:
        np.testing.assert_array_equal(ours.read(), theirs.read())
        assert ours.count == 6
    call(tmp_path, "archive", "in/a.tif", "-o", "plain", *extras, "--tta")
    scores = [table(tmp_path / folder)["a"]["scores"] for folder in ("out", "plain")]
    assert scores[0] == scores[1] != {}, "uncertainty is not judged as a picture"
    nameless = open_scene(SceneSource((str(tmp_path / "out/scenes/nameless/nameless.tif"),)))
    assert channels(nameless) == [4, 2, 0], "nor shown as one"


def test_a_record_made_again_of_a_finished_scene_tells_what_was_expected(tmp_path):
    scene(tmp_path / "in" / "a.tif", side=96)
    words = ("archive", "in", "-o", "out", "-m", "ibp-x2", "--workers", 0, "--scores", "none")
    told = []
    for _ in range(2):
        call(tmp_path, *words)
        item = json.loads((tmp_path / "out/scenes/a/a.json").read_text())
        record = table(tmp_path / "out")["a"]
        assert item["properties"]["scenelift:expected"] == record["expected"]
        assert any("one level coarser" in note for note in record["notes"])
        told.append(record["expected"]["gain_db"])
        (tmp_path / "in" / "a.tif").touch()
    assert told[0] == told[1]


def test_what_a_kill_left_half_written_is_swept(tmp_path):
    scene(tmp_path / "in" / "a.tif")
    folder, half = tmp_path / "out" / "scenes" / "a", "0123456789abcdef" * 2
    folder.mkdir(parents=True)
    left = [folder / f".a.json.{half}", folder / f".a.png.{half}"]
    foreign = folder / ".a.json.of-somebody"
    for path in (*left, foreign):
        path.write_text("half")
    call(tmp_path, "archive", "in", "-o", "out", *MODEL)
    assert not any(path.exists() for path in left) and foreign.exists()
    assert (folder / "a.json").exists() and (folder / "a.png").exists()


def test_other_settings_are_refused_unless_asked_for(tmp_path):
    scene(tmp_path / "in" / "a.tif")
    call(tmp_path, "archive", "in", "-o", "out", *MODEL)
    text = call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--dtype", "float32", code=2)
    assert "made with --dtype (default), now it is --dtype float32" in text
    call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--dtype", "float32", "--overwrite")
    facts = json.loads(
        call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--dtype", "float32", "--overwrite", "--json")
    )
    assert (facts["done"], facts["before"]) == (0, 1)
    assert "unknown model" in call(tmp_path, "archive", "in", "-o", "out", "-m", "nonsense", code=2)
    assert "perceptual variant" in call(tmp_path, "archive", "in", "-o", "out", "-m", "sr-x2", "--realism", 0.5, code=2)


def test_a_replacement_that_was_killed_is_finished_by_the_same_command(tmp_path):
    scene(tmp_path / "in" / "a.tif", side=96)
    call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--block", 32)
    again = ("archive", "in", "-o", "out", *MODEL, "--block", 32, "--dtype", "float32", "--overwrite")
    call(tmp_path, *again, code=-9, SCENELIFT_KILL_AT="after-journal:4")
    call(tmp_path, *again)
    call(tmp_path, *again[:2], "-o", "clean", *MODEL, "--block", 32, "--dtype", "float32")
    made = [(tmp_path / folder / "scenes" / "a" / "a.tif").read_bytes() for folder in ("out", "clean")]
    assert made[0] == made[1]


def test_a_file_that_was_replaced_since_needs_no_more_than_the_same_command(tmp_path):
    scene(tmp_path / "in" / "a.tif", side=96)
    command = ("archive", "in", "-o", "out", *MODEL, "--block", 32)
    call(tmp_path, *command, code=-9, SCENELIFT_KILL_AT="after-journal:4")
    scene(tmp_path / "in" / "a.tif", 1, side=96)
    call(tmp_path, *command)
    call(tmp_path, "archive", "in", "-o", "clean", *MODEL, "--block", 32)
    made = [(tmp_path / folder / "scenes" / "a" / "a.tif").read_bytes() for folder in ("out", "clean")]
    assert made[0] == made[1]


def test_an_archive_made_by_other_models_is_refused_once(tmp_path):
    for name in "ab":
        scene(tmp_path / "in" / f"{name}.tif")
    call(tmp_path, "archive", "in", "-o", "out", *MODEL)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    others = ("-m bicubic-x2", "--format zarr", "--dtype float32", "--compress zstd", "--bands 1", "--scale 0.001")
    for other in (*others, "--nodata 7.0", "--block 64"):
        said = call(tmp_path, "archive", "in", "-o", "out", *MODEL, *other.split(), code=2)
        assert said.count("holds 2 scenes") == 1 and f"{other.removeprefix('-m')}: choose another" in said
        assert "--overwrite to make them again" in said and said.count("\n") == 1
    assert "--tta True" in call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--tta", code=2)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--memory", "1GB", "--batch", 2)  # which decide no pixel


def test_a_run_file_equals_the_flags_and_knows_no_other_keys(tmp_path):
    scene(tmp_path / "job" / "in" / "a.tif")
    run = tmp_path / "job" / "run.toml"
    run.write_text(
        'sources = ["in/*.tif"]\noutput = "out"\nmodel = "nearest-x2"\nworkers = 0\nformat = "zarr"\nblock = 32\n'
        'scores = "none"\nbands = [3, 1]\n'
    )
    call(tmp_path, "archive", "job/run.toml", "--block", 16)
    row = table(tmp_path / "job" / "out")["a"]
    assert (row["output"], row["bands"], row["blocks"]) == ("scenes/a/a.zarr", 2, 9), "a flag goes before the file"
    run.write_text(run.read_text() + "wrokers = 3\n")
    assert "unknown key wrokers; did you mean workers?" in call(tmp_path, "archive", "job/run.toml", code=2)


def test_sources_of_every_kind(tmp_path):
    for name in ("a.tif", "b/c.tif", "b/.hidden/d.tif", "out/scenes/x/x.tif", "b/e f.tif"):
        scene(tmp_path / "in" / name)
    out = tmp_path / "in" / "out"
    assert ids([str(tmp_path / "in")], out) == ["a", "b__c", "b__e-f"], "neither hidden ones nor the archive's own"
    assert ids([f"{tmp_path}/in/*/*.tif", f"{tmp_path}/in/b"], out) == ["b__c", "b__e-f"]
    with pytest.raises(UsageError, match="two scenes are called a"):
        ids([str(tmp_path / "in" / "a.tif"), str(scene(tmp_path / "other" / "a.tif"))], out)
    with pytest.raises(UsageError, match="no such file"):
        ids([str(tmp_path / "nothing")], out)
    (tmp_path / "void").mkdir()
    with pytest.raises(UsageError, match="no scenes at"):
        ids([str(tmp_path / "void")], out)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_manifests_give_ids_dates_and_order_and_stay_in_their_folder(tmp_path, kind):
    scene(tmp_path / "list" / "a.tif")
    scene(tmp_path / "list" / "sub" / "b.tif")
    outside = scene(tmp_path / "outside.tif")
    scene(tmp_path / "above.tif")
    (tmp_path / "list" / "link.tif").symlink_to(outside)
    paths = ["a.tif", "sub/b.tif", "../above.tif", str(outside), "link.tif", "https://example.org/x.tif"]
    names = ["first", "", "up", "absolute", "link", "web"]
    dates = ["2024-05-01", "", "", "", "", ""]
    rows = [
        {"path": p, "id": n, "date": d, "priority": str(i)}
        for i, (p, n, d) in enumerate(zip(paths, names, dates, strict=True))
    ]
    path = tmp_path / "list" / f"scenes.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = find_scenes([str(path)], tmp_path / "out", Access())
    assert [e.id for e in found] == ["web", "link", "absolute", "up", "sub__b", "first"], "by priority"
    assert [bool(e.problem) for e in found] == [True] * 4 + [False] * 2
    assert found[-1].date == datetime(2024, 5, 1, tzinfo=UTC)
    allowed = find_scenes([str(path)], tmp_path / "out", Access(outside=True))
    assert [bool(e.problem) for e in allowed] == [True] + [False] * 5


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("path,idd\na.tif,x\n", "unknown column 'idd'"),
        ("id\nx\n", "path must name a scene"),
        ("path,date\na.tif,May\n", "no date"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(tmp_path, text, word):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=word):
        find_scenes([str(tmp_path / "list.csv")], tmp_path / "out", Access())


def test_filters_skip_with_a_reason(tmp_path):
    scene(tmp_path / "in" / "may.tif", tags={"TIFFTAG_DATETIME": "2024:05:03 10:00:00"})
    scene(tmp_path / "in" / "june.tif", tags={"TIFFTAG_DATETIME": "2024:06:03 10:00:00"})
    scene(tmp_path / "in" / "undated.tif")
    call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--date", "2024-05", "--bbox", "14,45,16,46")
    rows = table(tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {
        "may": "done",
        "june": "skipped",
        "undated": "skipped",
    }
    assert "2024-06-03" in rows["june"]["reason"] and "no date" in rows["undated"]["reason"]
    call(tmp_path, "archive", "in", "-o", "elsewhere", *MODEL, "--bbox", "-10,0,0,10")
    assert {row["reason"] for row in table(tmp_path / "elsewhere").values()} == {"outside --bbox"}
    assert "--date" in call(tmp_path, "archive", "in", "-o", "x", *MODEL, "--date", "2024-13", code=2)
    assert filters("170,-10,-170,10", None, None).bbox == (170, -10, -170, 10)


def test_filters_know_clouds_the_date_line_and_spans_of_time():
    fiji, moment = Place(178, -19, -178, -16), datetime(2024, 5, 31, 23, tzinfo=UTC)
    facts = Facts(fiji, moment, 30.0)
    wanted = [
        ("177,-20,179,-15", None, None),
        ("179,-20,-179,-15", None, None),
        (None, "2024-05", 30),
        (None, "2023/2024-05-31", None),
        (None, "2024-05-31/", None),
        (None, "/2024", None),
    ]
    assert [filters(*given).reason(facts) for given in wanted] == [None] * len(wanted)
    others = [("0,-20,10,-15", None, None), (None, "2024-06/", None), (None, "/2024-05-30", None), (None, None, 29)]
    assert all(filters(*given).reason(facts) for given in others)
    assert "no cloud cover" in filters(None, None, 50).reason(Facts(fiji, None, None))
    for wrong in [("1,2,3", None, None), (None, "2024-05/2023", None), (None, None, 101)]:
        with pytest.raises(UsageError):
            filters(*wrong)


def test_processes_that_share_an_archive_take_each_scene_once(tmp_path):
    for number in range(6):
        scene(tmp_path / "in" / f"{number}.tif", number, 70)
    (tmp_path / "in" / "bad.tif").write_text("bad")
    args = ("archive", "in", "-o", "out", *MODEL, "--share", "--json")
    crew = [start(tmp_path, *args) for _ in range(3)]
    assert {command.wait() for command in crew} <= {0, 3, 4}
    rows = table(tmp_path / "out")
    assert [row["status"] for row in rows.values()].count("done") == 6 and rows["bad"]["status"] == "failed"
    facts = [json.loads(next(line for line in c.output.splitlines() if line.startswith("{"))) for c in crew]
    assert sum(fact["done"] for fact in facts) == 6, "each scene was done once"


def test_two_runs_do_not_write_one_archive_unless_they_share_it(tmp_path):
    scene(tmp_path / "in" / "a.tif")
    records = tmp_path / "out" / ".scenelift"
    records.mkdir(parents=True)
    with Lock(records):
        text = call(tmp_path, "archive", "in", "-o", "out", *MODEL, code=2)
        assert "--share" in text
    (records / "scenes").mkdir(exist_ok=True)
    with Lock(records / "scenes", "a.claim"):
        facts = json.loads(call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--share", "--json"))
        assert (facts["done"], facts["elsewhere"]) == (0, 1)
        assert not (tmp_path / "out" / "run.json").exists(), "who is last writes the table"
        with pytest.raises(HeldError), Lock(records / "scenes", "a.claim"):
            pass
    call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--share")
    assert table(tmp_path / "out")["a"]["status"] == "done"


def test_scenes_run_side_by_side_on_workers_and_the_bytes_are_the_same(tmp_path):
    for number in range(6):
        scene(tmp_path / "in" / f"{number}.tif", number, 70)
    (tmp_path / "in" / "bad.tif").write_text("bad")
    call(tmp_path, "archive", "in", "-o", "one", *MODEL, code=3)
    call(tmp_path, "archive", "in", "-o", "two", "-m", "nearest-x2", "--workers", 2, code=3)
    one, two = table(tmp_path / "one"), table(tmp_path / "two")
    assert {n: r["sha256"] for n, r in one.items()} == {n: r["sha256"] for n, r in two.items()}
    assert two["3"]["scores"]["tenengrad"] > 0
    ends = {name: datetime.fromisoformat(row["finished"]).timestamp() for name, row in two.items()}
    begun = sorted(ends[name] - two[name]["seconds"] for name in ends)
    assert begun[3] < min(end for name, end in ends.items() if name != "bad"), "scenes do not wait for each other"
    command = start(tmp_path, "archive", "in", "-o", "three", "-m", "nearest-x2", "--workers", 2)
    records = tmp_path / "three" / ".scenelift" / "scenes"
    assert wait_until(lambda: len(list(records.glob("*.json"))) >= 2, command), command.output
    command.process.terminate()
    assert command.wait() in (75, 3), command.output
    call(tmp_path, "archive", "in", "-o", "three", *MODEL, "--scores", "quality", code=3)
    assert {n: r["sha256"] for n, r in table(tmp_path / "three").items()} == {n: r["sha256"] for n, r in one.items()}


def test_a_plan_counts_and_writes_nothing_and_a_short_run_is_not_measured(tmp_path):
    for number in range(3):
        scene(tmp_path / "in" / f"{number}.tif", number, 150)
    reasons = bad_scenes(tmp_path / "in")
    call(tmp_path, "archive", "in/0.tif", "-o", "out", *MODEL, "--block", 64)
    before = sorted(tmp_path.rglob("[!l]*"))
    facts = json.loads(call(tmp_path, "archive", "in", "-o", "out", *MODEL, "--block", 64, "--dry-run", "--json"))
    assert sorted(tmp_path.rglob("[!l]*")) == before
    assert (facts["scenes"], facts["before"], facts["blocks"]) == (2, 1, 2 * 9)
    assert facts["megapixels"] == 2 * 0.09
    assert facts["unusable"].keys() == reasons.keys()
    assert facts["measured"] == {} and 3 < facts["seconds"] < 10
    assert facts["output_bytes"] == 2 * 3 * 2 * 90_000, "at most: without compression"


def test_a_plan_of_a_model_of_unknown_speed_is_measured_on_crops_of_one_scene(tmp_path):
    for number, side in enumerate((100, 300, 320)):
        scene(tmp_path / "in" / f"{number}.tif", number, side)
    dark = scene(tmp_path / "in" / "3.tif", 3, 310, nodata=0)
    with rasterio.open(dark, "r+") as file:  # the middle one by size holds nothing where a crop of it would be cut
        file.write(np.zeros((3, 280, 280), "uint16"), window=rasterio.windows.Window(15, 15, 280, 280))
    before = sorted(tmp_path.rglob("[!l]*"))
    command = "archive", "in", "-o", "out", "-m", "wavelet", "--workers", 0, "--dry-run"
    facts = json.loads(call(tmp_path, *command, "--json"))
    assert sorted(tmp_path.rglob("[!l]*")) == before
    costs = facts["measured"]
    assert costs["scene"] > 0 and costs["megapixel"] > 0 and 0 < costs["compression"] < 1
    read = 3 * sum(side**2 for side in (100, 300, 320, 310)) / 1e6
    work = (4 * costs["scene"] + read * costs["megapixel"]) / min(costs["processors"], 4)
    assert facts["seconds"] == pytest.approx(costs["start"] + work, abs=0.1)
    said = call(tmp_path, *command)
    assert "looking at 4 scenes" in said and "measuring on a crop of 2" in said


@pytest.mark.parametrize("format", ["tif", "zarr"])
def test_every_output_of_an_archive_is_verified_and_repaired(tmp_path, format):
    for number in range(3):
        scene(tmp_path / "in" / f"{number}.tif", number)
    command = "archive", "in", "-o", "out", *MODEL, "--format", format
    call(tmp_path, *command)
    lines = call(tmp_path, "verify", "out").splitlines()
    assert [line.split(": ")[1].split(" (")[0] for line in lines] == ["intact"] * 3 + ["3 of 3 outputs intact"]
    damaged = tmp_path / "out" / table(tmp_path / "out")["1"]["output"]
    damaged = max([damaged, *damaged.rglob("c/*/*/*")], key=lambda path: path.stat().st_size * path.is_file())
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-20] + bytes(20))
    shutil.rmtree(tmp_path / "out" / "scenes" / "2")
    found = call(tmp_path, "verify", "out", code=4)
    assert "1: DAMAGED" in found.replace(f".{format}", "") and "no such file" in found and "1 of 3 outputs" in found
    facts = json.loads(call(tmp_path, "verify", "out", "--json", code=4).splitlines()[0])
    assert [verdict["intact"] for verdict in facts["outputs"]] == [True, False]
    assert len(facts["failures"]) == 1 and not facts["intact"]
    assert "repaired" in call(tmp_path, "verify", "out", "--repair", code=4)
    assert damaged.read_bytes() == content
    call(tmp_path, *command)
    assert "3 of 3 outputs intact" in call(tmp_path, "verify", "out")
