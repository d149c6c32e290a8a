"""The journal: whatever a kill, a full disk or a damaged disk left of it, it never says what was not recorded.

The oracle is a second reader, written from the format alone: one record a line, led by the CRC-32 of its text.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.jobs import journal as journal_module
from scenelift.pipeline.jobs.journal import (
    NAME,
    SPARE,
    VERSION,
    Commit,
    History,
    Journal,
    Publication,
    differences,
    read_fingerprint,
    read_journal,
    restore_journal,
    spare_journal,
)

FINGERPRINT: dict[str, Any] = {"input": {"sha256": "ab"}, "output": {"shape": [1, 2, 3]}}
COMMAND: dict[str, Any] = {"models": ["nearest-x2"], "settings": {"block": 64}}

names = st.text('abc/ü\n\\"0', min_size=1, max_size=6)
sums = st.dictionaries(names, st.text("0123456789abcdef", min_size=4, max_size=4), max_size=2)
blocks = st.integers(0, 5)
events = st.one_of(
    st.tuples(st.just("commit"), blocks, sums, st.dictionaries(st.sampled_from(["seconds", "worker"]), st.integers())),
    st.tuples(st.just("hole"), blocks, names),
    st.tuples(st.just("publish"), sums, st.dictionaries(blocks, names, max_size=2)),
    st.tuples(st.just("finish")),
)
histories = st.lists(events, max_size=8)


def write(folder: Path, recorded: list[Any]) -> bytes:
    """Record events in a new journal; return its content."""
    journal = Journal.create(folder, FINGERPRINT, COMMAND)
    for kind, *facts in recorded:
        if kind == "commit":
            number, files, more = facts
            journal.commit(Commit(number, f"sum of {number}", dict(files), more))
        else:
            getattr(journal, kind)(*facts)
    journal.close()
    return (folder / NAME).read_bytes()


def oracle(content: bytes) -> History | None:
    """Read a journal line by line: what a damaged line said is not known, all others hold."""
    records = []
    for line in content.split(b"\n")[:-1]:
        if len(line) > 9 and line[:9] == f"{zlib.crc32(line[9:]):08x} ".encode():
            records.append(json.loads(line[9:]))
    if not records or "journal" not in records[0]:
        return None
    commits: dict[int, Commit] = {}
    published: list[Publication] = []
    open_holes: dict[int, str] = {}
    done = False
    for record in records[1:]:
        match record:
            case {"block": number, "pixels": pixels, "files": files, **facts}:
                commits[number] = Commit(number, pixels, files, facts)
                open_holes.pop(number, None)
            case {"hole": number, "reason": reason}:
                commits.pop(number, None)
                open_holes[number] = reason
            case {"publication": files, "holes": lost}:
                before = published[:1] if done else published[1:]
                published, done = [Publication(files, {int(k): v for k, v in lost.items()}), *before], False
            case {"done": True} if published:
                published, done = published[:1], True
    return History(records[0]["fingerprint"], records[0]["command"], commits, tuple(published), done)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal")


@settings(max_examples=60)
@given(recorded=histories)
def test_what_is_recorded_is_read(folder: Path, recorded: list[Any]) -> None:
    content = write(folder, recorded)
    found = read_journal(folder)
    assert found is not None
    assert found == oracle(content)
    assert (found.fingerprint, found.command) == (FINGERPRINT, COMMAND)
    last: dict[int, Any] = {facts[0]: kind for kind, *facts in recorded if kind in ("commit", "hole")}
    assert set(found.commits) == {number for number, kind in last.items() if kind == "commit"}
    publications = [index for index, event in enumerate(recorded) if event[0] == "publish"]
    assert (found.publication is not None) == bool(publications)
    assert found.done == (bool(publications) and ("finish",) in recorded[publications[-1] :])
    assert read_fingerprint(folder) == FINGERPRINT


@settings(max_examples=60)
@given(recorded=histories, share=st.floats(0, 1))
def test_a_prefix_of_a_journal_is_the_journal_of_its_whole_lines(
    folder: Path, recorded: list[Any], share: float
) -> None:
    content = write(folder, recorded)
    prefix = content[: round(share * len(content))]
    whole = prefix[: prefix.rfind(b"\n") + 1]
    (folder / NAME).write_bytes(prefix)
    assert read_journal(folder) == oracle(whole)
    assert read_fingerprint(folder) == (FINGERPRINT if whole else None)


@settings(max_examples=40)
@given(recorded=histories, torn=st.integers(0, 200))
def test_a_run_goes_on_after_a_torn_line(folder: Path, recorded: list[Any], torn: int) -> None:
    content = write(folder, recorded)
    header = content.find(b"\n") + 1
    (folder / NAME).write_bytes(content[: max(header, len(content) - torn)])
    before = read_journal(folder)
    assert before is not None
    journal = Journal.reopen(folder)
    journal.commit(Commit(7, "new", {"data/c/0/0/7": "cd"}, {"seconds": 2}))
    journal.close()
    after = read_journal(folder)
    assert after is not None
    assert after.commits == before.commits | {7: Commit(7, "new", {"data/c/0/0/7": "cd"}, {"seconds": 2})}
    assert (after.published, after.done) == (before.published, before.done)


def ends(lines: list[bytes]) -> set[int]:
    """Return where the line ends are: one of them flipped makes one damaged line of two."""
    ends, at = set(), -1
    for line in lines:
        at += len(line) + 1
        ends.add(at)
    return ends


@settings(max_examples=150)
@given(recorded=histories, at=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_its_line_and_invents_nothing(folder: Path, recorded: list[Any], at: int, bit: int) -> None:
    content = bytearray(write(folder, recorded))
    lines = bytes(content).split(b"\n")[:-1]
    place = at % len(content)
    content[place] ^= 1 << bit
    (folder / NAME).write_bytes(bytes(content))
    found = read_journal(folder)
    number = content[:place].count(b"\n")
    lost = {number, number + 1} if place in ends(lines) else {number}
    left = [line for index, line in enumerate(lines) if index not in lost]
    if 0 in lost:
        assert found is None, "without its header a journal is none: the job starts anew"
    else:
        assert found == oracle(b"".join(line + b"\n" for line in left))


@settings(max_examples=60)
@given(recorded=histories, junk=st.binary(max_size=60), at=st.integers(0))
def test_bytes_that_do_not_belong_there_are_no_records(folder: Path, recorded: list[Any], junk: bytes, at: int) -> None:
    content = write(folder, recorded)
    place = at % (len(content) + 1)
    (folder / NAME).write_bytes(content[:place] + junk + content[place:])
    found, known = read_journal(folder), oracle(content)
    assert known is not None
    if found is not None:
        written = {facts[0]: None for kind, *facts in recorded if kind == "commit"}
        assert set(found.commits) <= set(written)
        assert (found.fingerprint, found.command) == (FINGERPRINT, COMMAND)


def test_a_journal_of_another_version_is_none(tmp_path: Path) -> None:
    content = write(tmp_path, [("commit", 1, {}, {})])
    record = json.loads(content.split(b"\n")[0][9:]) | {"journal": VERSION + 1}
    text = json.dumps(record).encode()
    (tmp_path / NAME).write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    assert read_journal(tmp_path) is None
    assert read_fingerprint(tmp_path) is None
    assert read_journal(tmp_path / "none") is None
    assert read_fingerprint(tmp_path / "none") is None


def test_a_journal_reads_as_it_always_did(tmp_path: Path) -> None:
    lines = (
        b'{"command":{"models":["m"]},"fingerprint":{"x":1},"journal":1}',
        b'{"block":3,"files":{"data/c/0":"cd"},"pixels":"ab","seconds":2}',
    )
    (tmp_path / NAME).write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines))
    commit = Commit(3, "ab", {"data/c/0": "cd"}, {"seconds": 2})
    assert read_journal(tmp_path) == History({"x": 1}, {"models": ["m"]}, {3: commit}, (), False)
    write(tmp_path, [("commit", 3, {"data/c/0": "cd"}, {"seconds": 2})])
    header, line = (tmp_path / NAME).read_bytes().splitlines()
    assert b'"journal":1}' in header and line[9:].startswith(b'{"block":3,"files":{"data/c/0":"cd"},"pixels":')


def test_a_kill_in_the_middle_of_a_line_leaves_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    content = write(tmp_path, [("commit", 1, {}, {})])
    monkeypatch.setattr(journal_module, "is_due", lambda point: point == "torn-journal")
    monkeypatch.setattr(journal_module, "die", die)
    journal = Journal.reopen(tmp_path)
    with pytest.raises(Died):
        journal.commit(Commit(1, "sum of 1", {}))
    line = content[content.find(b"\n") + 1 :]
    assert (tmp_path / NAME).read_bytes() == content + line[: len(line) // 2]


def test_publications_of_old_journals_lack_the_holes_that_were_open(tmp_path: Path) -> None:
    write(tmp_path, [("hole", 3, "poison"), ("hole", 4, "poison"), ("commit", 4, {}, {})])
    text = b'{"publication":{"":"ab"}}'
    with (tmp_path / NAME).open("ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(text), text))
    found = read_journal(tmp_path)
    assert found is not None
    assert found.published == (Publication({"": "ab"}, {3: "poison"}),)


def test_an_output_that_is_to_be_replaced_is_known_until_the_new_one_has_its_name(tmp_path: Path) -> None:
    steps = [("publish", {"": "old"}, {}), ("finish",), ("publish", {"": "new"}, {}), ("publish", {"": "newer"}, {})]
    steps += [("finish",)]
    found = []
    for count in range(len(steps) + 1):
        write(tmp_path, steps[:count])
        history = read_journal(tmp_path)
        assert history is not None
        found.append(([p.sums[""] for p in history.published], history.done, history.named))
    assert found == [
        ([], False, False),
        (["old"], False, False),
        (["old"], True, True),
        (["new", "old"], False, True),
        (["newer", "old"], False, True),
        (["newer"], True, True),
    ]


def test_a_spared_journal_comes_back_as_it_was(tmp_path: Path) -> None:
    content = write(tmp_path, [("commit", 1, {}, {})])
    assert not restore_journal(tmp_path)
    spare_journal(tmp_path)
    assert (tmp_path / SPARE).read_bytes() == content
    journal = Journal.reopen(tmp_path)
    journal.finish()
    journal.close()
    assert restore_journal(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content and not (tmp_path / SPARE).exists()


def test_a_silent_journal_has_its_header_alone(tmp_path: Path) -> None:
    with_records = write(tmp_path, [("commit", 1, {}, {})])
    journal = Journal.create(tmp_path, FINGERPRINT, COMMAND, silent=True)
    journal.commit(Commit(1, "", {}))
    journal.publish({}, {})
    journal.close()
    assert (tmp_path / NAME).read_bytes() == with_records[: with_records.find(b"\n") + 1]


def test_a_journal_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "write_durably", lambda path, content: path.mkdir())
    with pytest.raises(SinkError, match=rf"{NAME}.*: Is a directory"):
        Journal.create(tmp_path, FINGERPRINT, COMMAND)


def test_a_disk_that_takes_half_a_line_is_a_clear_error(tmp_path: Path) -> None:
    write(tmp_path, [])
    journal = Journal.reopen(tmp_path)
    journal.close()
    with Path("/dev/full").open("ab", buffering=0) as journal._file, pytest.raises(SinkError, match="No space left"):
        journal.finish()
    with pytest.raises(SinkError, match="No such file"):
        Journal.reopen(tmp_path / "none")


@settings(max_examples=80)
@given(
    before=st.recursive(st.integers(0, 2), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    now=st.recursive(st.integers(0, 2), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
)
def test_differences_are_told_if_and_only_if_there_are_some(before: Any, now: Any) -> None:
    one, other = {"x": before}, {"x": now}
    found = differences(one, other)
    assert bool(found) == (before != now)
    assert sorted(line.split(" was ")[0] for line in found) == sorted(
        line.split(" was ")[0] for line in differences(other, one)
    )
    assert all(line.startswith("x") and ", now " in line for line in found)


def test_long_values_are_told_by_their_ends() -> None:
    (line,) = differences({"crs": "A" * 100 + "old"}, {"crs": "B" * 70})
    assert line == f'crs was "{"A" * 33}…{"A" * 30}old", now "{"B" * 70}"'
    (line,) = differences({"crs": "C" * 71}, {"crs": 1})
    assert line == f'crs was "{"C" * 33}…{"C" * 33}", now 1'
