"""Constraints for pip: of all that an installed scenelift needs, the oldest that pyproject.toml allows.

`python tests/tools/oldest.py > constraints.txt`; needs nothing but Python. The tools of the tests may be new.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("lpips", "remote", "jobqueue")
"""What tests use beside the plain package."""


def constraints(project: dict[str, object]) -> list[str]:
    """Return a line for each requirement: its lower bound, and nothing newer.

    Raises
    ------
    ValueError
        If a requirement has no lower bound, so that nobody knows what it allows.
    """
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]  # type: ignore[misc, index]
    lines = []
    for requirement in wanted:
        found = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
        if found is None:
            raise ValueError(f"{requirement} names no lower bound")
        lines.append(f"{found[1]}=={found[2]}")
    return lines


if __name__ == "__main__":
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(constraints(tomllib.loads(text)["project"])))
