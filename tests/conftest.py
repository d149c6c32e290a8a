"""What holds for every test.

Temporary folders lie in memory where there is room: jobs flush every block to the disk, and waiting for it would take a
third of the suite's time. A property is not judged by how long an example takes, for machines are busy.
"""

import os
import shutil
from pathlib import Path

from hypothesis import Phase, settings

MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

settings.register_profile("scenelift", deadline=None, print_blob=True)
settings.load_profile("scenelift")
if examples := os.environ.get("MUTANT_EXAMPLES"):  # `support.mutate` tries every mutant with the same ones
    how = {"derandomize": True, "database": None, "phases": (Phase.explicit, Phase.generate)}
    settings.register_profile("mutants", deadline=None, max_examples=int(examples), **how)
    settings.load_profile("mutants")
