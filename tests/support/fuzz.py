"""Run the properties of inputs with ever new seeds for some hours; `python -m support.fuzz HOURS [INPUTS_A_SEED]`.

Each seed gives one line in docs/fuzz.csv: a run that was stopped goes on with the next one. Inputs that fail are
kept by hypothesis in .hypothesis/ and tried first ever after.
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
TESTS = ["tests/pipeline/scenes/test_inputs.py"]
HEAD = ["seed", "inputs", "properties", "seconds", "result"]


def next_seed() -> int:
    """Return the first seed that has not been tried."""
    if not LOG.is_file():
        with LOG.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(HEAD)
    with LOG.open(newline="", encoding="utf-8") as file:
        return max([0, *(int(row["seed"]) for row in csv.DictReader(file))]) + 1


def run(seed: int, inputs: int) -> bool:
    """Try one seed and note what came of it."""
    properties = ["any_raster", "dimensions_go", "alpha_in_another"]
    command = [sys.executable, "-m", "pytest", "-q", *TESTS, "-k", " or ".join(properties), f"--hypothesis-seed={seed}"]
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"SCENELIFT_FUZZ": str(inputs)}, capture_output=True, text=True
    )
    result = "passed" if done.returncode == 0 else "FAILED"
    row = [seed, inputs * len(properties), len(properties), round(time.monotonic() - begun), result]
    with LOG.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(row)
    print(*row, sep="\t", flush=True)
    if done.returncode:
        print(done.stdout[-6000:])
    return done.returncode == 0


def main() -> int:
    hours, inputs = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    end, good = time.monotonic() + 3600 * hours, True
    while time.monotonic() < end:
        good &= run(next_seed(), inputs)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
