"""How networks are trained: tasks, losses, optimisers, the loop and its state."""
