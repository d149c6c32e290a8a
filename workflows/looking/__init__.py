"""What is there: an output beside its input as a picture, and what interrupted jobs left in a folder."""
