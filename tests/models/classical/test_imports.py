"""A worker with an interpolation loads neither torch nor an image library: that is most of its size and its start."""

import pickle
import subprocess
import sys

import pytest

from scenelift.models.catalog import find

WORKER = """
import pickle, sys
import numpy as np
from scenelift.pipeline.jobs.blocks import process_block
enhancer = pickle.loads(bytes.fromhex(sys.argv[1])).load()
print(sorted({"torch", "scipy", "skimage", "pywt", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("name", "loaded"), [("nearest-x4", []), ("ibp-x2", []), ("median", ["pywt", "scipy", "skimage"])]
)
def test_a_worker_imports_only_what_its_model_uses(name: str, loaded: list[str]) -> None:
    travelled = pickle.dumps(find(name)).hex()
    done = subprocess.run([sys.executable, "-c", WORKER, travelled], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loaded)
