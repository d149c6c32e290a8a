"""Scenes of a STAC API: a small server that pages, and an archive of what it finds."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.archives import scene
from support.processes import call

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.archive.settings import Access
from scenelift.workflows.archive.sources import find_scenes

CORE = "https://api.stacspec.org/v1.0.0"


@dataclass
class Api:
    """A STAC API with three items, one a page; what it was asked is kept."""

    folder: Path
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def item(self, number: int) -> dict[str, Any]:
        """Return an item whose one asset is a raster of this server."""
        bands = [{"name": name} for name in ("B02", "B03", "B04")]
        asset = {"href": f"{self.address}/{number}.tif", "type": "image/tiff", "roles": ["data"], "bands": bands}
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"item-{number}",
            "collection": "some-l2a",
            "geometry": None,
            "properties": {"datetime": f"2024-05-0{number}T10:00:00Z", "eo:cloud_cover": 10.0 * number},
            "links": [],
            "assets": {"image": asset},
        }

    def response(self, path: str, body: dict[str, Any]) -> Any:
        """Return the response to a request, a page of one item or the landing page."""
        if path.startswith("/search"):
            self.asked.append(body)
            wanted = body.get("collections") == ["some-l2a"]
            number = int(body.get("token", 1))
            link = {"rel": "next", "href": f"{self.address}/search", "method": "POST", "body": {"token": number + 1}}
            more = [link | {"merge": True}] if wanted and number < 3 else []
            return {"type": "FeatureCollection", "features": [self.item(number)] if wanted else [], "links": more}
        links = [{"rel": rel, "href": self.address, "type": "application/json"} for rel in ("self", "root")]
        search = {"rel": "search", "href": f"{self.address}/search", "type": "application/geo+json", "method": "POST"}
        facts = {"type": "Catalog", "id": "api", "description": "a test", "stac_version": "1.0.0"}
        return facts | {"conformsTo": [f"{CORE}/core", f"{CORE}/item-search"], "links": [*links, search]}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    found = Api(tmp_path / "served")
    for number in (1, 2, 3):
        scene(found.folder / f"{number}.tif", number)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            file = found.folder / self.path.lstrip("/")
            if self.path == "/broken":
                self.send_error(503)
            elif file.suffix == ".tif":
                self._send("image/tiff", file.read_bytes())
            else:
                self._send("application/json", json.dumps(found.response(self.path, {})).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send("application/geo+json", json.dumps(found.response(self.path, body)).encode())

        def _send(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_page_of_a_search_is_read_and_enhanced(tmp_path: Path, api: Api) -> None:
    where = ("--stac-api", api.address, "--collection", "some-l2a", "--bbox", "14,45,16,46", "--datetime", "2024-05")
    how = ("--allow-remote", "--cloud-cover", 25, "--bands", "B04,B03", "-m", "ibp-x2", "--workers", 0)
    call(tmp_path, "archive", *where, *how, "-o", "out")
    asked = api.asked[0]
    assert asked["collections"] == ["some-l2a"] and asked["bbox"] == [14, 45, 16, 46]
    assert asked["datetime"] == "2024-05-01T00:00:00Z/2024-05-31T23:59:59Z" and len(api.asked) == 3
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    status = {row["id"]: (row["status"], row["bands"]) for row in run["scenes"]}
    assert status["item-1"] == status["item-2"] == ("done", 2) and status["item-3"][0] == "skipped"


def test_what_cannot_be_searched_is_one_line(tmp_path: Path, api: Api) -> None:
    def search(address: str, collection: str = "some-l2a", remote: bool = True) -> None:
        find_scenes([], tmp_path, Access(remote=remote, stac_api=address, collection=(collection,)))

    for why, how in (
        ("add remote=True", {"address": api.address, "remote": False}),
        ("has no items of other there and then", {"address": api.address, "collection": "other"}),
        ("cannot search http://127.0.0.1:1", {"address": "http://user:secret@127.0.0.1:1"}),
        ("cannot search .*broken", {"address": f"{api.address}/broken"}),
    ):
        with pytest.raises(UsageError, match=why) as found:
            search(**how)
        assert "\n" not in str(found.value) and "secret" not in str(found.value)
    with pytest.raises(UsageError, match="stac_api needs collection"):
        Access(stac_api=api.address)
    with pytest.raises(UsageError, match="give stac_api URL too"):
        Access(collection=("some-l2a",))
    few = find_scenes([], tmp_path, Access(remote=True, stac_api=api.address, collection=("some-l2a",), max_items=2))
    assert [entry.id for entry in few] == ["item-1", "item-2"] and few[0].bands == ("B02", "B03", "B04")
