"""Land cover of scenes: labels of images, tiles for other classifiers, windows."""
