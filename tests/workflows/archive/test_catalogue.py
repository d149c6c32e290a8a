"""What an archive says of itself: its STAC catalogue, read here and from elsewhere, and its page in a browser."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from affine import Affine
from pystac.extensions.mlm import MLMExtension
from pystac.stac_object import STACObjectType
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from support.archives import NAMES, scene, table
from support.browser import CHROMIUM, DRIVER, browser
from support.builders import UTM
from support.processes import call

from scenelift.models.catalog import find, load_spec
from scenelift.workflows.archive.page import write_page
from scenelift.workflows.archive.record import SceneRecord
from scenelift.workflows.archive.settings import Access, Folder
from scenelift.workflows.archive.sources import find_scenes
from scenelift.workflows.archive.stac import RENDER


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two GeoTIFFs and what describes it."""
    folder = tmp_path_factory.mktemp("made")
    scene(folder / "in" / "one.tif", 1, 70, tags={"TIFFTAG_DATETIME": "2024:05:03 10:00:00"}, nodata=0)
    scene(folder / "in" / "two.tif", 2, transform=UTM @ Affine.translation(100, 50))
    (folder / "in" / "bad.tif").write_text("bad")
    call(folder, "archive", "in", "-o", "out", "-m", "ibp-x2", "--workers", 0, code=3)
    return folder / "out"


def test_the_catalogue_is_valid_stac_and_says_what_was_made_of_what(made):
    validator = JsonSchemaSTACValidator()  # the schemas of STAC itself come with pystac
    root = pystac.Catalog.from_file(str(made / "catalog.json"))
    kinds = {pystac.Catalog: STACObjectType.CATALOG, pystac.Collection: STACObjectType.COLLECTION}
    children = list(root.get_children())
    for thing in [root, *children]:
        validator.validate_core(thing.to_dict(), kinds[type(thing)], "1.1.0")
    scenes, models = (next(c for c in children if c.id == name) for name in ("scenes", "models"))
    items = {item.id: item for item in scenes.get_items()}
    assert items.keys() == {"one", "two"}
    (model,) = models.get_items()
    for item in [*items.values(), model]:
        validator.validate_core(json.loads(json.dumps(item.to_dict())), STACObjectType.ITEM, "1.1.0")
        assert item.get_collection() is not None
    one = items["one"]
    assert one.datetime == datetime(2024, 5, 3, 10, tzinfo=UTC)
    assert items["two"].datetime is None and items["two"].common_metadata.end_datetime is not None
    assert one.properties["proj:code"] == "EPSG:32633" and one.properties["proj:shape"] == [140, 140]
    assert one.properties["gsd"] == 5
    asset = one.assets["data"]
    content = Path(asset.get_absolute_href()).read_bytes()
    assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert asset.extra_fields["bands"][0] == {
        "name": "B02",
        "data_type": "uint16",
        "nodata": 0.0,
        "raster:scale": 1e-4,
        "raster:offset": 0.0,
        "raster:spatial_resolution": 5.0,
    }
    sources = [link.get_absolute_href() for link in one.links if link.rel == "derived_from"]
    assert sources == [str(made.parent / "in" / "one.tif"), str(made / "models" / "ibp-x2.json")]
    hrefs = [link["href"] for link in one.to_dict(transform_hrefs=False)["links"] if link["rel"] == "derived_from"]
    assert hrefs == ["../../../in/one.tif", "../../models/ibp-x2.json"]  # both move along
    look = one.properties["renders"]["visual"]
    assert look["assets"] == ["data"] and look["bidx"] == [3, 2, 1] and RENDER in one.stac_extensions
    assert all(low < high for low, high in look["rescale"])
    described = MLMExtension.ext(model)
    assert described.mlm_name == "ibp-x2" and described.tasks == ["super-resolution"]
    assert described.output[0].result.shape[-1] == 2 * load_spec(find("ibp-x2")).patch


def test_outputs_open_from_the_catalogue(made):
    """What docs/archives.md shows: with rioxarray, and all of them as one cube with odc-stac."""
    text = (Path(__file__).parents[3] / "docs" / "archives.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    found: dict[str, Any] = {}
    exec(code.replace('"out/', f'"{made}/'), found)
    assert found["one"].shape[1:] == (140, 140) and found["one"].rio.crs.to_epsg() == 32633
    assert found["cube"].sizes["time"] >= 1 and len(found["cube"].data_vars) == 3
    values = found["cube"]["data.1"].to_numpy()
    assert values.dtype == np.uint16 and (values > 0).sum() >= 140 * 140
    again = find_scenes([str(made / "collection.json")], made.parent / "next", Access())
    assert [(entry.id, entry.bands) for entry in again] == [("one", tuple(NAMES)), ("two", tuple(NAMES))]
    assert again[0].date == datetime(2024, 5, 3, 10, tzinfo=UTC)


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)")
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_sorts_filters_and_leads_from_the_map_to_the_table(made, tmp_path, width):
    assert "http" not in (made / "index.html").read_text()
    with browser(tmp_path / "profile") as tab:
        tab.open(made / "index.html", width)
        assert tab.run("return document.documentElement.scrollWidth") <= width
        assert tab.run("return document.querySelectorAll('svg polygon').length") == 2
        reason = "return document.querySelector('#scene-bad .why').getBoundingClientRect().right"
        assert tab.run(reason) <= width, "why a scene failed is seen without scrolling"
        assert tab.run("return document.querySelector('.scroll').scrollWidth") <= width, "and so is all else"
        told = "const cell = document.querySelector('#scene-two td[data-name=\"size, px\"]');"
        told += "return [getComputedStyle(cell, '::before').content, cell.textContent]"
        assert tab.run(told) == ['"size, px"' if width == 390 else "none", "80 × 80"]
        assert "clouds, %" not in tab.run("return document.querySelector('thead').textContent"), "none is known"
        assert tab.run("return [...document.images].every(i => i.naturalWidth > 0) && document.images.length") == 2
        names = "return [...document.querySelectorAll('#scenes tbody tr:not([hidden])')].map(r => r.id.slice(6))"
        assert tab.run(names) == ["bad", "one", "two"]
        press = "[...document.querySelectorAll('#scenes th button')].find(b => b.textContent == 'size, px').click()"
        tab.run(press)
        assert tab.run(names) == ["two", "one", "bad"]
        tab.run(press)
        assert tab.run(names) == ["one", "two", "bad"], "what is unknown stays last"
        tab.press("#find", "failed")
        assert tab.run(names) == ["bad"]
        tab.run("document.querySelector('polygon[data-row=scene-two]').dispatchEvent(new Event('click'))")
        assert tab.run("return document.getElementById('scene-two').className") == "on"
        assert not tab.console()


def test_a_scene_of_a_wide_archive_is_no_dot_on_the_map(tmp_path):
    corners = [[(x, y), (x + 0.1, y), (x + 0.1, y - 0.05), (x, y - 0.05)] for x, y in ((-75.0, 37.0), (27.0, -26.0))]
    records = [SceneRecord(f"s{n}", "done", footprint=ring) for n, ring in enumerate(corners)]
    text = write_page(Folder(tmp_path), records).read_text()
    shapes = [[pair.split(",") for pair in found.split()] for found in re.findall(r'points="([^"]+)"', text)]
    assert len(shapes) == 2
    for shape in shapes:
        width, height = np.ptp(np.array(shape, float), axis=0)
        assert max(width, height) == pytest.approx(12, abs=0.1) and min(width, height) > 4, "and its shape is kept"


@pytest.fixture
def served(made: Path) -> Iterator[str]:
    """The archive's folder behind an address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(made)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_catalogue_elsewhere_is_fetched_when_that_is_permitted(made, served, tmp_path):
    args = ("archive", f"{served}/collection.json", "-o", "out", "-m", "nearest-x2", "--workers", 0)
    assert "--allow-remote" in call(tmp_path, *args, code=2)
    values = [{"path": f"{served}/scenes/one/one.tif", "id": "one"}, {"path": f"{served}/nothing.tif", "id": "none"}]
    (tmp_path / "list.json").write_text(json.dumps(values))
    call(tmp_path, *args, "--allow-remote", "--scores", "none")
    rows = table(tmp_path / "out")
    assert rows["one"]["inputs"] == [f"{served}/scenes/one/one.tif"] and rows["one"]["width"] == 280
    assert not (tmp_path / "out" / ".scenelift" / "fetched" / "one").exists()
    call(
        tmp_path,
        "archive",
        "list.json",
        "-o",
        "next",
        "-m",
        "nearest-x2",
        "--workers",
        0,
        "--scores",
        "none",
        "--allow-remote",
        code=3,
    )
    rows = table(tmp_path / "next")
    assert rows["none"]["reason"].startswith("cannot fetch") and rows["one"]["status"] == "done"
