"""Whole archives of scenes: where they come from, which are wanted, doing them, and what is left behind."""
