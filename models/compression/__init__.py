"""Smaller networks made of larger ones: channels pruned by their importance, what is left taught by the whole."""
