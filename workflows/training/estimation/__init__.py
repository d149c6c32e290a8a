"""Training of the estimator of blur and noise: the places it learns from, and how patches of them are drawn."""
