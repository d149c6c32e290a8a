"""A skipped test is a failure unless the list says why it may be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.skips import read_allowed, unallowed

TESTS = Path(__file__).parent
ALLOWED = TESTS / "allowed-skips.txt"


def test_every_line_of_the_list_says_why(tmp_path: Path) -> None:
    assert set(read_allowed(ALLOWED, installed=True)) < set(read_allowed(ALLOWED, installed=False))
    (tmp_path / "list.txt").write_text("needs a moon\n")
    with pytest.raises(ValueError, match="does not say why"):
        read_allowed(tmp_path / "list.txt", installed=True)


def test_what_cannot_be_installed_is_excused_there_alone() -> None:
    skipped = {"a": "no real Slurm here: slurmctld", "b": "SCENELIFT_DATA does not name a folder with x", "c": "tired"}
    assert set(unallowed(skipped, read_allowed(ALLOWED, installed=True))) == {"a", "c"}
    assert set(unallowed(skipped, read_allowed(ALLOWED, installed=False))) == {"c"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skip_without_leave_fails_the_run(tmp_path: Path, workers: int) -> None:
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "allowed-skips.txt").write_text("fine # it is\n")
    for reason, code in (("fine, really", 0), ("tired", 1)):
        (tmp_path / "test_it.py").write_text(
            f"import pytest\ndef test_skipped(): pytest.skip({reason!r})\ndef test_passed(): pass\n"
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", f"pythonpath={TESTS}"]
        command += ["-c", "/dev/null", "--rootdir", tmp_path, "--skips=strict", *(["-n", workers] if workers else [])]
        done = subprocess.run([*map(str, command), "."], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        assert ("SKIPPED without leave" in done.stdout) == bool(code)
