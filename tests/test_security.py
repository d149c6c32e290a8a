"""What others may do through scenelift, as docs/security.md says; and that each of its sentences has its test."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.builders import noise_image, write_raster
from support.processes import call

from scenelift.models.errors import ModelError
from scenelift.pipeline.cluster import ClusterSettings, open_cluster
from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.scenes.products.safe import read_xml
from scenelift.workflows.training.sources import read_npz

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"
ENTITIES = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
BOMB = f'<?xml version="1.0"?><!DOCTYPE bomb [<!ENTITY a0 "aaaaaaaaaa">{ENTITIES}]><bomb>&a9;</bomb>'
"""Ten gigabytes, once it is expanded."""


def test_each_sentence_names_a_test_that_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py): (test_\w+)`", text)
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(named) >= len(rows) > 10 and all("`test" in row or ".py: test" in row for row in rows)
    for file, test in named:
        found = [path for path in TESTS.rglob("*.py") if path.as_posix().endswith(f"/{file}")]
        assert any(f"def {test}(" in path.read_text(encoding="utf-8") for path in found), f"no {test} in {file}"


def test_xml_that_grows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MTD.xml").write_text(BOMB)
    with pytest.raises(SceneError, match=r"MTD\.xml"):
        read_xml(tmp_path / "MTD.xml")


ENHANCE = ["enhance", "a.tif", "-o", "b.tif", "-m", "nearest-x2", "--workers", 0]


@pytest.mark.parametrize("words", [["info", "a.tif"], ENHANCE])
def test_texts_of_an_input_cannot_steer_a_terminal(tmp_path: Path, words: list[object]) -> None:
    steering = "\x1b]0;owned\x07\x1b[2J[red]B04[/red]"
    write_raster(tmp_path / "a.tif", noise_image(1, (1, 40, 40)), descriptions=[steering], tags={"AREA": steering})
    said = call(tmp_path, *words)
    assert "\x1b]" not in said and "\x1b[2J" not in said and "\x07" not in said


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.array([{"not": "numbers"}], dtype=object))
    with pytest.raises(ModelError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz", 16)


def test_verify_runs_nothing_that_a_journal_names(tmp_path: Path) -> None:
    write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 40)))
    call(tmp_path, "enhance", "in.tif", "-o", "out.tif", "-m", "nearest-x2", "--workers", 0, "--no-expect")
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n")
    journal = tmp_path / ".out.tif.scenelift" / "journal.jsonl"
    head, *rest = journal.read_bytes().splitlines(keepends=True)
    text = head.partition(b" ")[2].strip().replace(b"nearest-x2", b"evil:model")
    journal.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text) + b"".join(rest))
    assert json.loads(text)["journal"] and b"evil:model" in text
    assert "intact" in call(tmp_path, "verify", "out.tif")
    assert not (tmp_path / "ran").exists()


def test_what_a_run_starts_listens_on_loopback_alone() -> None:
    with open_cluster(ClusterSettings(1)):
        me = psutil.Process()
        ours = {me.pid, *(child.pid for child in me.children(recursive=True))}
        listening = [c for c in psutil.net_connections("inet") if c.pid in ours and c.status == psutil.CONN_LISTEN]
        places = {c.laddr.ip for c in listening}
    assert places == {"127.0.0.1"}
