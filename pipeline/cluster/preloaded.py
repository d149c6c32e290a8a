"""Imported last by the process that local workers are forked from: what it has loaded is no garbage.

Each worker would look through all of it whenever it collects, and would get copies of the memory it shares by that.
"""

import gc

gc.freeze()
