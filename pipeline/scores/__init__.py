"""Scores of images, as sums over blocks that add up to those of the whole."""
