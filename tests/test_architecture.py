"""docs/architecture.md names every file in its room, and its words are the ones that are used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.house import ROOMS, fullest, parameters, sources

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
READ = [*sources(ROOT, *ROOMS), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]


def rows(heading: str) -> dict[str, str]:
    """The first two columns of the table below a heading, or of the one with that heading."""
    text = PAGE[PAGE.index(heading) :].split("|---|---|")[1].split("\n\n")[0]
    cells = (line.strip("|").split("|") for line in text.strip().splitlines())
    return {first.strip(): second.strip() for first, second, *_ in cells}


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_is_named_in_its_room(room: str) -> None:
    table = rows(f"| {room}/ |")
    missing = []
    for path in sources(ROOT, room):
        folder = path.parent.relative_to(ROOT / room).as_posix()
        where = table.get(f"`{folder}/`", "") if folder != "." else " ".join(k for k in table if not k.endswith("/`"))
        if not path.name.startswith("__") and f"`{path.name}`" not in where:
            missing.append(str(path.relative_to(ROOT)))
    assert not missing


def test_retired_words_stay_out() -> None:
    retired = {word.strip(): instead for words, instead in rows("## Words").items() for word in words.split(",")}
    pattern = re.compile(rf"(?<![\"^`])\b({'|'.join(retired)})\b", re.IGNORECASE)
    page, words = PAGE.split("## Words")
    found = []
    for path in READ:
        text = page + words.split("\n\n", 3)[3] if path.name == "architecture.md" else path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {m[1]} ({retired[m[1].lower()]})" for m in pattern.finditer(line)
            ]
    assert len(retired) > 20 and not found


def test_no_room_is_too_full_and_no_function_takes_too_much() -> None:
    assert fullest(ROOT)[0] <= 16
    assert parameters(sources(ROOT, *ROOMS))[0] <= 9
