"""Archives and catalogues as they are found: dead links, percent signs, loops of links, signatures, dates of files."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
from support.archives import table
from support.builders import noise_image, write_raster

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.archive.estimate import estimate
from scenelift.workflows.archive.filters import facts_of
from scenelift.workflows.archive.run import archive
from scenelift.workflows.archive.settings import ArchiveSettings
from scenelift.workflows.archive.sources import Access, find_scenes

HERE = ClusterSettings(workers=0)


def do(folder: Path, *sources: object, remote: bool = False, **how: Any) -> dict[str, dict[str, Any]]:
    entries = find_scenes(list(map(str, sources)), folder, Access(remote=remote))
    archive(entries, folder, ArchiveSettings(model="nearest-x2", scores="none", **how), HERE)
    return table(folder)


def item(name: str, href: str, **fields: Any) -> dict[str, Any]:
    asset = {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]} | fields
    facts = {"type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": name, "geometry": None}
    return facts | {"properties": {"datetime": "2024-05-01T10:00:00Z"}, "links": [], "assets": {"red": asset}}


def test_links_that_lead_round_give_each_scene_once(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    (scenes / "2024").mkdir(parents=True)
    write_raster(scenes / "2024" / "a.tif", noise_image(0, (1, 9, 9)))
    for name, target in (("again", "."), ("latest", "2024"), ("0.tif", "2024/a.tif")):
        (scenes / name).symlink_to(target)
    (scenes / "2024" / "up").symlink_to("..")
    write_raster(scenes / "._b.tif", noise_image(0, (1, 9, 9)))
    entries = find_scenes([str(scenes)], tmp_path / "out", Access())
    assert [(e.id, e.paths) for e in entries] == [("2024__a", (str(scenes / "2024" / "a.tif"),))]


def test_a_folder_that_is_the_output_is_refused_and_one_below_is_no_source(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", noise_image(0, (1, 9, 9)))
    (tmp_path / "link").symlink_to(".")
    for output in (tmp_path, tmp_path / "link"):
        with pytest.raises(UsageError, match="is the folder of the scenes itself, and the next run would"):
            find_scenes([str(tmp_path)], output, Access())
    for _ in range(2):
        assert list(do(tmp_path / "enhanced", tmp_path)) == ["a"]


def test_a_dry_run_says_that_the_folder_cannot_be_written(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", noise_image(0, (1, 9, 9)))
    entries = find_scenes([str(tmp_path / "a.tif")], tmp_path / "out", Access())
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match=r"cannot write in .*out: Not a directory"):
        estimate(entries, tmp_path / "out" / "deep", ArchiveSettings(model="nearest-x2"), HERE)


def test_a_dead_link_costs_its_item(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", noise_image(0, (1, 9, 9)))
    (tmp_path / "a.json").write_text(json.dumps(item("a", "./a.tif")))
    (tmp_path / "torn.json").write_text('{"type": "Feat')
    links = [{"rel": "item", "href": f"./{name}.json"} for name in ("gone", "a", "torn")]
    facts = {"type": "Catalog", "stac_version": "1.1.0", "id": "c", "description": "c", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(facts))
    found = do(tmp_path / "out", tmp_path / "catalog.json")
    assert {name: row["status"] for name, row in found.items()} == {"a": "done", "gone": "failed", "torn": "failed"}
    assert "gone.json" in found["gone"]["reason"]


@pytest.mark.parametrize("href", ["./my%20scene.tif", "file://{folder}/my%20scene.tif", "./my scene.tif"])
def test_assets_by_reference(tmp_path: Path, href: str) -> None:
    write_raster(tmp_path / "my scene.tif", noise_image(0, (1, 9, 9)))
    (tmp_path / "i.json").write_text(json.dumps(item("i", href.format(folder=tmp_path))))
    assert find_scenes([str(tmp_path / "i.json")], tmp_path / "out", Access())[0].problem is None


@pytest.mark.parametrize("key", ["bands", "raster:bands"])
def test_numbers_as_an_item_tells_them(tmp_path: Path, key: str) -> None:
    values = noise_image(0, (1, 20, 20)) + 1000
    values[0, :5] = 0
    write_raster(tmp_path / "a.tif", values)
    prefix = "raster:" if key == "bands" else ""
    facts = {"name": "red", "nodata": 0, f"{prefix}scale": 1e-4, f"{prefix}offset": -0.1}
    (tmp_path / "i.json").write_text(json.dumps(item("i", "./a.tif", **{key: [facts]})))
    row = do(tmp_path / "out", tmp_path / "i.json")["i"]
    with rasterio.open(tmp_path / "out" / row["output"]) as made:
        assert made.nodata == 0 and made.offsets[0] == pytest.approx(-0.1)
        assert (made.read(1)[:10] == 0).all() and made.read(1)[10:].min() >= 1000
    assert any("catalogue" in note for note in row["notes"])


def test_flags_are_skipped_with_their_reason(tmp_path: Path) -> None:
    product = tmp_path / "LC09_L2SP_190027_20240501_20240503_02_T1"
    product.mkdir()
    for name in ("SR_B4", "QA_PIXEL"):
        write_raster(product / f"{product.name}_{name}.TIF", noise_image(0, (1, 9, 9)), nodata=0)
    found = {name[-8:]: row["status"] for name, row in do(tmp_path / "out", product).items()}
    assert found == {"QA_PIXEL": "skipped", "T1_SR_B4": "done"}


@pytest.mark.parametrize(
    ("name", "tags", "date"),
    [
        ("S2A_MSIL2A_20240501T101000_N0510_R022_T33TUN.tif", {"TIFFTAG_DATETIME": "2025:11:20 09:00:00"}, "2024-05-01"),
        ("field_2023-07-09.tif", {"TIFFTAG_DATETIME": "2025:11:20 09:00:00"}, "2023-07-09"),
        ("a.tif", {"TIFFTAG_DATETIME": "2025:11:20 09:00:00"}, "2025-11-20"),
        ("a_20240501.tif", {"ACQUISITIONDATETIME": "2022-01-02T03:04:05Z"}, "2022-01-02"),
    ],
)
def test_when_a_scene_was_taken(tmp_path: Path, name: str, tags: dict[str, str], date: str) -> None:
    path = write_raster(tmp_path / name, noise_image(0, (1, 9, 9)), tags=tags)
    (entry,) = find_scenes([str(path)], tmp_path / "out", Access())
    found = facts_of(entry, open_scene(SceneSource((str(path),)))).date
    assert found is not None and found.date().isoformat() == date


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[str]:
    """An address that allows GET alone, with the right signature."""
    content = write_raster(tmp_path / "s.tif", noise_image(0, (1, 30, 30))).read_bytes()

    class Store(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            first, last = 0, len(content) - 1
            if (span := self.headers.get("Range")) is not None:
                low, _, high = span.removeprefix("bytes=").partition("-")
                first, last = int(low), min(int(high or last), last)
            allowed = "SECRET" in self.path
            self.send_response((206 if span else 200) if allowed else 403)
            body = content[first : last + 1] if allowed else b""
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/s.tif?X-Amz-Signature=SECRET"
    server.shutdown()


def test_a_signature_is_written_nowhere(tmp_path: Path, signed: str) -> None:
    (tmp_path / "i.json").write_text(json.dumps(item("i", signed)))
    assert do(tmp_path / "out", tmp_path / "i.json", remote=True)["i"]["status"] == "done"
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert files and not [p for p in files if b"SECRET" in p.read_bytes()]
