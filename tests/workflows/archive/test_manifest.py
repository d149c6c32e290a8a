"""Lists of scenes are other people's text: no path leaves their folder, every date and box is what it says."""

from __future__ import annotations

import csv
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.archive.entries import ID, Entry, date_from, id_from, in_order, number_from
from scenelift.workflows.archive.filters import parse_box, parse_dates
from scenelift.workflows.archive.manifest import place, read_manifest

parts = st.sampled_from(["..", ".", "a", "b c", "up", "out", "in", "", "%2e%2e", "~", "...", "a.tif"])
paths = st.builds(
    lambda start, middle: start + "/".join(middle),
    st.sampled_from(["", "", "", "/", "./", "../", "file:", "file://", "file:///", "//"]),
    st.lists(parts, min_size=1, max_size=5),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links that stay inside, lead out and lead up."""
    root = tmp_path_factory.mktemp("list")
    inside = root / "scenes"
    (inside / "a").mkdir(parents=True)
    (inside / "b c").mkdir()
    (root / "secret").mkdir()
    (inside / "up").symlink_to("..")
    (inside / "out").symlink_to(root / "secret")
    (inside / "in").symlink_to("a")
    return inside


@settings(max_examples=300)
@given(text=paths)
def test_no_path_of_a_list_leaves_its_folder_without_leave(folder: Path, text: str) -> None:
    found, problem = place(text, folder, outside=False, remote=False)
    inside = os.path.commonpath([os.path.realpath(found), os.path.realpath(folder)]) == os.path.realpath(folder)
    if problem is None:
        assert inside and "://" not in found
    else:
        assert not inside or "://" in found
        assert "\n" not in problem and ("--allow-outside" in problem or "--allow-remote" in problem)
    assert place(text, folder, outside=True, remote=False)[0] == found, "leave does not change what is meant"
    if "://" not in found:
        assert place(text, folder, outside=True, remote=False)[1] is None


@pytest.mark.parametrize("text", ["https://h/a.tif", "s3://b/k", "ftp://h/a", "/vsicurl/https://h/a.tif", "/vsis3/b/k"])
def test_addresses_need_leave_and_gdals_own_ones_never_get_it(folder: Path, text: str) -> None:
    assert "need --allow-remote" in str(place(text, folder, outside=True, remote=False)[1])
    assert (place(text, folder, outside=False, remote=True)[1] is None) == (not text.startswith("/vsi"))
    signed = "https://user:key@h/a.tif?signature=SECRET"
    assert "SECRET" not in str(place(signed, folder, False, False)[1]) and "key" not in str(
        place(signed, folder, False, False)[1]
    )


rows = st.fixed_dictionaries(
    {"path": st.sampled_from(["a/x.tif", "b c/y.tif", "a/1.tif|a/2.tif"])},
    optional={
        "id": st.sampled_from(["one", "two", ""]),
        "date": st.sampled_from(["2024-05-01", "2024-05-01T10:00:00Z", ""]),
        "priority": st.integers(-9, 9).map(str),
        "cloud_cover": st.integers(0, 100).map(str),
    },
)


@settings(max_examples=30)
@given(table=st.lists(rows, min_size=1, max_size=4))
def test_a_list_says_the_same_as_csv_and_as_json(folder: Path, table: list[dict[str, str]]) -> None:
    names = sorted({name for row in table for name in row})
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)
    (folder / "list.json").write_text(json.dumps(table))
    one, other = (list(read_manifest(folder / f"list.{kind}")) for kind in ("csv", "json"))
    assert one == other and len(one) == len(table)
    for entry, row in zip(one, table, strict=True):
        assert entry.paths == tuple(str(folder / part) for part in row["path"].split("|"))
        assert entry.priority == int(row.get("priority") or 0)
        assert entry.cloud_cover == (float(row["cloud_cover"]) if row.get("cloud_cover") else None)
        assert (entry.date is None) == (not row.get("date"))
        assert entry.id == (row.get("id") or id_from(row["path"].split("|")[0]))


@given(text=st.text(max_size=30))
def test_any_name_makes_an_id_that_is_a_file_name(text: str) -> None:
    made = id_from(text)
    assert ID.fullmatch(made) and "/" not in made and not made.startswith(".")
    assert Entry(made, ("x",)).id == made


@given(days=st.integers(0, 100_000), span=st.integers(0, 900))
def test_spans_of_days(days: int, span: int) -> None:
    first = datetime(1900, 1, 1, tzinfo=UTC) + timedelta(days=days)
    last = first + timedelta(days=span)
    assert parse_dates(f"{first:%Y-%m-%d}/{last:%Y-%m-%d}") == (first, last + timedelta(days=1))
    assert parse_dates(f"{first:%Y-%m-%d}") == (first, first + timedelta(days=1))
    begin, end = parse_dates(f"{first:%Y-%m}")
    assert (begin, begin <= first < end) == (first.replace(day=1), True)
    assert end.day == 1 and 28 <= (end - begin).days <= 31
    begin, end = parse_dates(f"{first:%Y}")
    assert (begin.year, end.year, begin.month, begin.day, end.month, end.day) == (
        first.year,
        first.year + 1,
        1,
        1,
        1,
        1,
    )
    assert parse_dates(f"{first:%Y-%m-%d}/")[0] == first and parse_dates(f"/{last:%Y}")[1].year == last.year + 1
    if span:
        with pytest.raises(UsageError, match="must begin before it ends"):
            parse_dates(f"{last:%Y-%m-%d}/{first - timedelta(days=1):%Y-%m-%d}")


@given(text=st.text("0123456789-/ T.", max_size=12))
def test_other_spans_are_refused_in_one_line(text: str) -> None:
    try:
        first, last = parse_dates(text)
    except UsageError as error:
        assert str(error).startswith("date ") and "\n" not in str(error)
    else:
        assert first < last


degrees = st.floats(-200, 200)


@given(box=st.tuples(degrees, degrees, degrees, degrees))
def test_boxes(box: tuple[float, float, float, float]) -> None:
    west, south, east, north = box
    fits = max(abs(west), abs(east)) <= 180 and -90 <= south <= north <= 90
    text = ",".join(map(repr, box))
    if fits:
        assert parse_box(text) == box
    else:
        with pytest.raises(UsageError, match="bbox must be west,south,east,north in degrees, got"):
            parse_box(text)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "nan,0,1,1", "0,0,1,inf"])
def test_what_is_no_box(text: str) -> None:
    with pytest.raises(UsageError, match="bbox"):
        parse_box(text)


@given(priorities=st.lists(st.integers(-3, 3), max_size=8))
def test_scenes_start_by_priority_and_else_as_they_were_named(priorities: list[int]) -> None:
    entries = [Entry(f"s{number}", ("x",), priority=value) for number, value in enumerate(priorities)]
    wanted = [entry for value in range(3, -4, -1) for entry in entries if entry.priority == value]
    assert in_order(entries) == wanted
    if entries:
        with pytest.raises(UsageError, match="two scenes are called S0"):
            in_order([*entries, Entry("S0", ("y",))])


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_what_is_empty_says_nothing(value: Any) -> None:
    assert date_from(value, "row 1") is None and number_from(value, "row 1") is None


def test_dates_are_in_universal_time() -> None:
    wanted = datetime(2024, 5, 1, 10, tzinfo=UTC)
    for value in ("2024-05-01T10:00:00", "2024-05-01T12:00:00+02:00", wanted, datetime(2024, 5, 1, 10)):
        assert date_from(value, "row 1") == wanted
    for read in (date_from, number_from):
        with pytest.raises(UsageError, match=r"^row 1: 'soon' is no "):
            read("soon", "row 1")
