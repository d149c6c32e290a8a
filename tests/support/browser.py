"""A headless Chromium, driven over the WebDriver protocol with nothing but the standard library."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which the protocol hands out elements (W3C WebDriver)."""


class Browser:
    """One session of a running driver."""

    def __init__(self, address: str, profile: Path) -> None:
        self._address = address
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": CHROMIUM}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"

    def _send(self, verb: str, path: str, body: Any = None) -> Any:
        content = json.dumps(body or {}).encode() if verb == "POST" else None
        request = urllib.request.Request(self._address + path, content, method=verb)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Show a page in a viewport of exactly that size, scrollbars not counted."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self._send("POST", f"{self._session}/goog/cdp/execute", command)
        self._send("POST", f"{self._session}/url", {"url": page.as_uri()})

    def run(self, script: str, *args: Any) -> Any:
        """Return what a function body returns in the page."""
        return self._send("POST", f"{self._session}/execute/sync", {"script": script, "args": args})

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press the mouse at one point of the viewport, move and release at another."""
        steps = [
            {"type": "pointerMove", "duration": 0, "x": start[0], "y": start[1]},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 100, "x": end[0], "y": end[1]},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self._send("POST", f"{self._session}/actions", {"actions": [mouse]})

    def press(self, selector: str, keys: str) -> None:
        """Type keys into an element."""
        found = self._send("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        self._send("POST", f"{self._session}/element/{found[ELEMENT]}/value", {"text": keys})

    def console(self) -> list[str]:
        """Return what the page has written to the console since the last look."""
        return [line["message"] for line in self._send("POST", f"{self._session}/se/log", {"type": "browser"})]

    def close(self) -> None:
        """End the session."""
        self._send("DELETE", self._session)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a driver on a free port of this machine, and end it with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([str(DRIVER), f"--port={port}", "--silent"])
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address)
        session = Browser(address, profile)
        try:
            yield session
        finally:
            session.close()
    finally:
        driver.terminate()
        driver.wait(timeout=20)


def _wait(address: str) -> None:
    for _ in range(150):
        try:
            with urllib.request.urlopen(f"{address}/status", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise TimeoutError("chromedriver did not start")
