"""Data sets on disk: sequences of `Sample(image, mask, name)`."""
