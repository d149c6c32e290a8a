"""Write docs/licences.md: what scenelift stands on, and under which licence each package says it is.

    python docs/licences.py

Read from the packages that are installed beside this interpreter, from their own metadata; nothing is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

PAGE = Path(__file__).with_name("licences.md")
CLASSIFIER = "License :: OSI Approved :: "
LONGEST = 60
"""Characters of a licence's name; what is longer is the licence's text, whose first line names it."""
HEAD = """# Licences

scenelift is under Apache-2.0, weights and code. It needs these packages, each under the licence that its own metadata
names (`python docs/licences.py` wrote this page). Packages of NVIDIA that come with PyTorch for GPUs are left out: they
are under NVIDIA's own terms, and PyTorch's wheels for CPUs come without them. `make sbom` lists what is installed, the
tools of the tests too, with versions and licences as CycloneDX.

| package | licence | needed by |
|---|---|---|
"""


def name_of(requirement: str) -> str:
    """Return the normalized name of a requirement's package."""
    return re.sub(r"[-_.]+", "-", re.split(r"[ <>=~!;\\[(]", requirement.strip(), maxsplit=1)[0]).lower()


def requirements(found: Distribution) -> Iterator[str]:
    """Yield what a package needs always: without extras, and on this system."""
    for text in found.requires or ():
        requirement, _, marker = text.partition(";")
        if "extra" in marker or _elsewhere(marker):
            continue
        yield name_of(requirement)


def _elsewhere(marker: str) -> bool:
    """Whether a marker speaks of another system or an older Python than ours."""
    from packaging.markers import Marker

    return bool(marker.strip()) and not Marker(marker).evaluate({"extra": ""})


def licence_of(found: Distribution) -> str:
    """Return the licence that a package's metadata names."""
    facts = found.metadata
    if expression := facts.get("License-Expression"):
        return str(expression)
    classifiers = [c.rpartition(" :: ")[2] for c in facts.get_all("Classifier") or () if c.startswith("License ::")]
    text = (facts.get("License") or "").strip().splitlines()
    named = text[0].strip() if text and len(text[0]) <= LONGEST else ""
    return " / ".join(classifiers) or named or "not named"


def collect(root: str = "scenelift") -> dict[str, tuple[str, str]]:
    """Return the licence of each package that `root` needs, and which package needs it first."""
    rows: dict[str, tuple[str, str]] = {}
    todo = [(name, root) for name in requirements(distribution(root))]
    while todo:
        name, by = todo.pop(0)
        if name in rows or name == root or name.startswith(("nvidia", "cuda")):
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        rows[name] = licence_of(found), by
        todo += [(inner, name) for inner in requirements(found)]
    return rows


def page(rows: dict[str, tuple[str, str]]) -> str:
    """Return the page as Markdown."""
    lines = [f"| {name} | {licence} | {by} |" for name, (licence, by) in sorted(rows.items())]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(collect()), encoding="utf-8")
