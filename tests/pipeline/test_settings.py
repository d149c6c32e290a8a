"""Tables of settings: what fits is read as it is meant, what does not is one line with the path of the key."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import read_table, read_toml, suggestion
from scenelift.workflows.settings import EnhanceSettings


@dataclass(frozen=True)
class Part:
    name: str
    share: float = 1.0


@dataclass(frozen=True)
class Whole:
    """A value of every kind that settings have."""

    number: int = 1
    amount: float = 0.5
    flag: bool = False
    text: str = "x"
    kind: Literal["a", "b"] = "a"
    maybe: int | None = None
    bands: tuple[int, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)
    part: Part = field(default_factory=lambda: Part("p"))
    parts: tuple[Part, ...] = ()
    table: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise UsageError(f"--number must be from 0 up, got {self.number}")


names = st.text(max_size=5)
finite = st.floats(-1e9, 1e9)
part = st.builds(Part, names, finite)
wholes = st.builds(
    Whole,
    st.integers(0, 2**31),
    finite,
    st.booleans(),
    names,
    st.sampled_from(["a", "b"]),
    st.none() | st.integers(),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.tuples(finite, finite),
    part,
    st.lists(part, max_size=2).map(tuple),
    st.dictionaries(names, st.integers(), max_size=2),
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "whole": st.integers(-99, 99),
    "number": st.floats(0.1, 0.9),
    "flag": st.booleans(),
    "text": st.text(min_size=2, max_size=4),
    "list": st.lists(st.text(max_size=2), min_size=3, max_size=3),
    "table": st.dictionaries(st.just("strange"), st.text(max_size=2), min_size=1),
    "nothing": st.none(),
}
TAKES: dict[str, tuple[set[str], str]] = {
    "number": ({"whole"}, "a whole number"),
    "amount": ({"whole", "number"}, "a number"),
    "flag": ({"flag"}, "true or false"),
    "text": ({"text"}, "a text"),
    "kind": (set(), "'a' or 'b'"),
    "maybe": ({"whole", "nothing"}, "a whole number"),
    "bands": (set(), ""),
    "span": (set(), ""),
    "part": (set(), ""),
    "parts": (set(), ""),
    "table": (set(), ""),
}
wrong = st.sampled_from(
    [(key, kind) for key, (taken, _) in TAKES.items() for kind in KINDS if kind not in taken]
).flatmap(lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), KINDS[pair[1]]))


@given(whole=wholes)
def test_a_table_of_the_fields_gives_the_settings_back(whole: Whole) -> None:
    assert read_table(Whole, json.loads(json.dumps(dataclasses.asdict(whole))), "f.toml") == whole


@given(whole=wholes, keys=st.sets(st.sampled_from([f.name for f in dataclasses.fields(Whole)])))
def test_what_a_table_does_not_say_is_the_default(whole: Whole, keys: set[str]) -> None:
    table = {key: value for key, value in json.loads(json.dumps(dataclasses.asdict(whole))).items() if key in keys}
    assert read_table(Whole, table, "") == dataclasses.replace(Whole(), **{key: getattr(whole, key) for key in keys})


@given(whole=wholes, change=wrong)
def test_a_value_of_a_wrong_type_is_one_line_with_its_key(whole: Whole, change: tuple[str, str, Any]) -> None:
    key, _, value = change
    table = json.loads(json.dumps(dataclasses.asdict(whole))) | {key: value}
    with pytest.raises(UsageError) as caught:
        read_table(Whole, table, "f.toml", ("cluster",))
    said = str(caught.value)
    assert "\n" not in said.replace(json.dumps(value, ensure_ascii=False), "") and len(said) < 300
    place = rf"(unknown key cluster\.{key}\.strange|cluster\.{key}\S* (must (be|have) |is missing))"
    assert re.match(rf"f\.toml: {place}", said), said
    if wanted := TAKES[key][1]:
        assert f"must be {wanted}, got " in said


@given(key=st.text("abcdefghi_", min_size=1, max_size=9), value=st.integers())
def test_a_key_that_nobody_knows_is_one_line(key: str, value: int) -> None:
    known = [f.name for f in dataclasses.fields(Whole)]
    if key in known:
        return
    with pytest.raises(UsageError) as caught:
        read_table(Whole, {key: value}, "f.toml")
    assert str(caught.value) == f"f.toml: unknown key {key}{suggestion(key, known)}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"part": {}}, "part.name is missing"),
        ({"part": {"nam": "x"}}, "unknown key part.nam; did you mean name? (and 1 more)"),
        ({"parts": {"name": "x"}}, "parts must be a list of tables, got one table; write [[parts]]"),
        ({"parts": [{"name": "x"}, {"name": 3}]}, "parts[1].name must be a text, got 3"),
        ({"bands": ["red"]}, 'bands[0] must be a whole number, got "red"'),
        ({"bands": 3}, "bands must be a list, got 3"),
        ({"span": [1, 2, 3]}, "span must have 2 values, got [1, 2, 3]"),
        ({"number": True}, "number must be a whole number, got true"),
        ({"number": 1.5}, "number must be a whole number, got 1.5"),
        ({"amount": "1"}, 'amount must be a number, got "1"'),
        ({"flag": 1}, "flag must be true or false, got 1"),
        ({"table": {"x": "y"}}, 'table.x must be a whole number, got "y"'),
        ({"number": "a", "flag": 3}, 'number must be a whole number, got "a" (and 1 more)'),
        ({"number": -1}, "number must be from 0 up, got -1"),
        ({"text": 7, "x" * 80: 1}, "text must be a text, got 7 (and 1 more)"),
        ([], "the whole must be a table, got []"),
        ({"number": "x" * 80}, f'number must be a whole number, got "{"x" * 56}...'),
    ],
)
def test_messages(table: Any, message: str) -> None:
    if isinstance(table, dict) and any(len(key) > 70 for key in table):
        message = f"unknown key {'x' * 80}; known are "
    with pytest.raises(UsageError) as caught:
        read_table(Whole, table, "f.toml")
    assert str(caught.value).startswith(f"f.toml: {message}")


def test_a_whole_number_is_a_number_and_a_list_a_tuple() -> None:
    found = read_table(Whole, {"amount": 3, "span": [1, 2]}, "")
    assert found == Whole(amount=3.0, span=(1.0, 2.0)) and isinstance(found.amount, float)


def test_files_that_are_no_toml_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("x = 1\n[part]\nname = 'ü'")
    assert read_toml(tmp_path / "a.toml") == {"x": 1, "part": {"name": "ü"}}
    (tmp_path / "b.toml").write_text("x = ")
    (tmp_path / "c.toml").write_bytes(b"x = '\xff'")
    for name, words in (("b", "is not TOML"), ("c", "is not TOML"), ("d", "cannot read")):
        with pytest.raises(UsageError, match=words) as caught:
            read_toml(tmp_path / f"{name}.toml")
        assert f"{name}.toml" in str(caught.value) and "\n" not in str(caught.value)


enhancing = st.builds(
    EnhanceSettings,
    st.none() | st.integers(1, 65536),
    st.none() | st.integers(1, 4096),
    st.sampled_from(["auto", "cpu", "cuda"]),
    st.sampled_from(["auto", "fp32", "bf16"]),
    st.sampled_from(["700MB", "1.5 GiB"]),
    dtype=st.none() | st.sampled_from(["uint8", "float32"]),
    noise=st.none() | st.floats(0, 1e4),
    consistency=st.integers(0, 20),
    tta=st.booleans(),
    realism=st.none() | st.floats(0, 1),
    strength=st.none() | st.floats(0, 1),
    clamp=st.booleans(),
)
clusters = st.builds(
    ClusterSettings,
    st.none() | st.integers(0, 4096),
    environment=st.dictionaries(names, names, max_size=2),
    resources=st.dictionaries(names, st.floats(0.1, 9), max_size=2),
    tls=st.booleans(),
)


@given(settings=enhancing, cluster=clusters)
def test_settings_survive_the_journal(settings: EnhanceSettings, cluster: ClusterSettings) -> None:
    recorded = json.loads(json.dumps({"s": dataclasses.asdict(settings), "c": dataclasses.asdict(cluster)}))
    assert read_table(EnhanceSettings, recorded["s"], "") == settings
    assert ClusterSettings.of(recorded["c"]) == cluster


@given(number=st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_out_of_range_are_refused_by_the_settings_themselves(number: float) -> None:
    fits = math.isfinite(number) and number >= 0
    if fits:
        assert EnhanceSettings(noise=number).noise == number
    else:
        with pytest.raises(UsageError, match="noise must be a number from 0 up"):
            EnhanceSettings(noise=number)
