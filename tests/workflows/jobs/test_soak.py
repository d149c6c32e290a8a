"""The soak's log: a stopped soak goes on, what failed is tried again, and the table in the docs is the log's."""

from __future__ import annotations

from pathlib import Path

from support.faults import Bench
from tools.soak import LOG, NAMES, ROOT, ROWS, Row, missing, read_log, soak, table


def test_a_soak_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    tried: list[int] = []
    broken = {13}

    def fault(bench: Bench, folder: Path, rng: object, number: int) -> None:
        tried.append(number)
        bench.place(folder)
        if number in broken:
            content = bytearray(bench.reference(NAMES[0]).read_bytes())
            content[-4000] ^= 255
            (folder / NAMES[0]).write_bytes(content)
            raise AssertionError("differs")

    rows, log = {"a row": Row(25, fault)}, tmp_path / "soak.csv"
    assert not soak(rows, log, tmp_path / "one")
    assert tried == list(range(25)) and missing(rows, log) == [("a row", 10)]
    came = [(p.tried, p.survived, p.wrong > 0) for p in read_log(log)]
    assert came == [(10, 10, False), (10, 9, True), (5, 5, False)]
    broken.clear()
    tried.clear()
    assert soak(rows, log, tmp_path / "two")
    assert tried == list(range(10, 20)) and missing(rows, log) == []
    assert len(log.read_text().splitlines()) == 1 + 4  # what failed stays in the log
    assert "| a row | 25 | 25 | 0 |" in table(read_log(log))


def test_the_table_in_the_docs_is_the_logs() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert table(read_log(LOG)) in text
    assert {piece.fault for piece in read_log(LOG)} <= set(ROWS)
