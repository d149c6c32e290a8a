"""What lies between a scene and its pixels: blur, noise, and what follows from knowing them."""
