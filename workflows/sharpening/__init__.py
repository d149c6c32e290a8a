"""Places with bands of several grids: read, degraded by Wald's protocol, sharpened by every method, learned from."""
