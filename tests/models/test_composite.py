"""Several models as one: every band gets what its own model makes of it."""

import numpy as np
import pytest
from support.builders import integer_net

from scenelift.models.composite import ByBands
from scenelift.models.errors import ModelError


class Reversed:
    """A net whose bands depend on each other's order."""

    def __init__(self, net):
        self.net, self.spec = net, net.spec

    def __call__(self, patches):
        return self.net(patches) * np.arange(1, patches.shape[1] + 1, dtype=np.float32)[:, None, None]


def test_each_band_is_what_its_model_makes_of_it_with_the_context_that_one_wants():
    wide, narrow = Reversed(integer_net(scale=2, radius=3)), integer_net(scale=2, radius=1)
    both = ByBands("both", [(wide, (2, 0)), (narrow, (1, 3))])
    assert (both.spec.halo, both.spec.bands, both.spec.scale) == (3, 4, 2)
    patches = np.random.default_rng(0).integers(0, 99, (2, 4, 38, 38)).astype(np.float32)
    out = both(patches)
    assert np.array_equal(out[:, [2, 0]], wide(patches[:, [2, 0]]))
    assert np.array_equal(out[:, [1, 3]], narrow(patches[:, [1, 3], 2:-2, 2:-2]))


@pytest.mark.parametrize("members", [((0, 1), (1, 2)), ((0, 1), (3,)), ((0,), (2,))])
def test_bands_without_a_model_or_with_two_are_refused(members):
    parts = [(integer_net(), bands) for bands in members]
    with pytest.raises(ModelError, match="every band must belong to one model"):
        ByBands("both", parts)


def test_models_that_enlarge_differently_are_refused():
    with pytest.raises(ModelError, match="must enlarge alike"):
        ByBands("both", [(integer_net(scale=2), (0,)), (integer_net(scale=1), (1,))])
