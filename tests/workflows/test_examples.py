"""The examples in the documentation of the interface are run: they do what they show."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
from support.builders import noise_image, write_raster

import scenelift

EXAMPLES = "apply", "enhance", "list_models", "load", "open", "score"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "scene.tif", noise_image(0, (3, 40, 48)))
    found = doctest.DocTestFinder(recurse=False).find(getattr(scenelift, name), name, globs={})
    assert sum(len(test.examples) for test in found) > 1
    for test in found:
        results = doctest.DocTestRunner().run(test)
        assert results.failed == 0


def test_every_function_of_the_interface_has_one() -> None:
    functions = {name for name in scenelift.__all__ if name.islower() and callable(getattr(scenelift, name, None))}
    assert functions - set(EXAMPLES) == {"train"}  # which takes minutes: docs/own-models.md shows one
    for name in EXAMPLES:
        assert "Examples" in (inspect.getdoc(getattr(scenelift, name)) or "")
