"""Run the properties of inputs with ever new seeds for some hours; `python -m tools.fuzz HOURS [INPUTS_A_SEED]`.

Each seed gives one line in docs/fuzz.csv: a run that was stopped goes on with the next one. Inputs that fail are
kept by hypothesis in .hypothesis/ and tried first ever after. Give it a TMPDIR in memory: it writes small files.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / "docs" / "fuzz.csv"
TESTS = ["tests/pipeline/scenes/test_input_properties.py"]
HEAD = ["seed", "inputs", "properties", "seconds", "result"]
PROPERTIES = {
    "test_pixels_gaps_and_place_of_any_raster": 6,
    "test_dimensions_go_by_name_and_coordinates_win": 1,
    "test_an_output_of_repeated_pixels_is_its_input": 1,
}
"""What is tried, and how many inputs of eight each gets (as its `max_examples` says)."""


def next_seed() -> int:
    """Return the first seed that has not been tried."""
    if not LOG.is_file():
        with LOG.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(HEAD)
    with LOG.open(newline="", encoding="utf-8") as file:
        return max([0, *(int(row["seed"]) for row in csv.DictReader(file))]) + 1


def run(seed: int, inputs: int) -> bool:
    """Try one seed and note what came of it."""
    share = inputs // sum(PROPERTIES.values())
    command = [sys.executable, "-m", "pytest", "-q", *TESTS, "-k", " or ".join(PROPERTIES), f"--hypothesis-seed={seed}"]
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"SCENELIFT_FUZZ": str(share)}, capture_output=True, text=True
    )
    result = "passed" if done.returncode == 0 else "FAILED"
    tried = share * sum(PROPERTIES.values())
    row = [seed, tried, len(PROPERTIES), round(time.monotonic() - begun), result]
    with LOG.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(row)
    print(*row, sep="\t", flush=True)
    if done.returncode:
        print(done.stdout[-6000:])
    return done.returncode == 0


def main() -> int:
    hours, inputs = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    end, good = time.monotonic() + 3600 * hours, True
    while time.monotonic() < end:
        good &= run(next_seed(), inputs)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
