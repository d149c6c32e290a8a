"""Methods without weights: resampling and filters."""

RESAMPLERS = ("nearest", "bilinear", "bicubic", "lanczos", "ibp")
"""Methods that take a scale."""
NOISE_FILTERS = ("bilateral", "wavelet", "nlm", "tv", "wiener", "median", "lee")
"""Methods that keep it."""
CLASSICAL: dict[str, bool] = dict.fromkeys(RESAMPLERS, True) | dict.fromkeys(NOISE_FILTERS, False)
"""The methods, and whether each takes a scale; named here, so that a wrong name is known without loading any."""
