"""`make gpu`: all that only a GPU can show, in one run of some minutes: same numbers, same bytes, faults, speed.

Every check is also run with ``--device cpu``, which tries its logic without a GPU. One that fails does not stop the
others; the exit code says whether any did.
"""
