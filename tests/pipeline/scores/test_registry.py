"""A score from outside: one row, added by an installed package or by a call, in every table."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.builders import write_raster

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.registry import columns, known_scores, register

PLUGIN = """
from dataclasses import dataclass
import numpy as np
from scenelift.pipeline.scores.registry import Score
from scenelift.pipeline.scores.sums import Sums, ratio

@dataclass(frozen=True, eq=False)
class Within(Sums):
    good: np.ndarray
    pixels: np.ndarray

def within(block):
    own = (slice(None), *block.area.owned())
    near = np.abs(block.test - block.reference)[own] < 0.02 * block.ranges[:, None, None]
    valid = block.valid[own]
    return Within((near & valid).sum(axis=(1, 2)), valid.sum(axis=(1, 2)))

score = Score("within", "within 2 %", within, lambda s, c: 100 * ratio(s.good, s.pixels), unit="%", digits=1, halo=0)
"""


def test_a_package_adds_a_score_to_the_command_line(tmp_path):
    package = tmp_path / "packages"
    (package / "plugin-1.dist-info").mkdir(parents=True)
    (package / "plugin.py").write_text(PLUGIN)
    (package / "plugin-1.dist-info" / "METADATA").write_text("Name: plugin\nVersion: 1\n")
    (package / "plugin-1.dist-info" / "entry_points.txt").write_text("[scenelift.scores]\nwithin = plugin:score\n")
    reference = np.full((2, 64, 48), 1000, "uint16")
    test = reference.copy()
    test[0, :16] += 500  # a quarter of the first band
    files = [write_raster(tmp_path / "a.tif", reference), write_raster(tmp_path / "b.tif", test)]

    def score(*options: str) -> str:
        command = [sys.executable, "-m", "scenelift.workflows.cli", "score", *map(str, files), *options]
        environment = os.environ | {"PYTHONPATH": str(package)}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    found = json.loads(score("--json", "--block", "32", "--workers", "2"))
    assert found["scores"]["within"] == 87.5
    assert [band["within"] for band in found["bands"]] == [75, 100]
    assert "within 2 %, %" in score("--pixels-only")


def test_names_are_taken_once_and_every_page_has_its_columns():
    with pytest.raises(UsageError, match="'psnr' already"):
        register(known_scores()["psnr"])
    assert [score.name for score in columns("archive")] == ["psnr", "tenengrad", "noise", "snr"]
    assert {"psnr", "ssim", "vif"} <= {score.name for score in columns("compare")} & {s.name for s in columns("report")}
