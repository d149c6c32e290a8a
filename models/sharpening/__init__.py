"""Coarse bands brought to the grid of fine ones: how the grids lie, the closed form, the network."""
