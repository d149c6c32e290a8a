"""Land cover: classifiers trained, scenes and images classified, and what enhancement does for them."""
