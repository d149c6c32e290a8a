"""Methods fitted to a scene before they run on it."""
