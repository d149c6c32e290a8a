"""Scenes as they are read: files, masks, radiometry, limits, places on Earth, noise, small pictures."""
