"""Measurements of models and methods: tables, comparisons, ablations, scores of scenes."""
