"""Networks that name what is on the ground: a classifier of whole images, a segmenter of pixels."""
