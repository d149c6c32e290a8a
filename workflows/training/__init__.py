"""Training from a recipe: what a run learns from, is validated on and leaves behind."""
