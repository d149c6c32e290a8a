"""What holds for every test: a property is not judged by how long an example takes, for machines are busy."""

import os

from hypothesis import Phase, settings

settings.register_profile("scenelift", deadline=None, print_blob=True)
settings.load_profile("scenelift")
if examples := os.environ.get("MUTANT_EXAMPLES"):  # `support.mutate` tries every mutant with the same ones
    how = {"derandomize": True, "database": None, "phases": (Phase.explicit, Phase.generate)}
    settings.register_profile("mutants", deadline=None, max_examples=int(examples), **how)
    settings.load_profile("mutants")
