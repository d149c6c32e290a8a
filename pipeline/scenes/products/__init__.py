"""Products as agencies publish them, each found by what it is: their bands, what their numbers mean, their masks."""
