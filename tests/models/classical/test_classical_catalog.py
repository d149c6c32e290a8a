"""Classical filters by name take the noise level of every band."""

import numpy as np

from scenelift.models.catalog import find, with_settings
from scenelift.models.classical.classical import classical
from scenelift.models.loading import load


def test_a_filter_gets_each_bands_noise() -> None:
    noise = (0.004, 0.02)
    method = load(with_settings(find("bilateral"), noise=noise))
    x = np.random.default_rng(0).random((1, 2, 40, 40), np.float32)
    np.testing.assert_array_equal(method(x), classical("bilateral", sigma=noise)(x))
