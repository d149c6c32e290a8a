"""Methods without weights: resampling and filters."""
