"""Training: `fit` in loop.py, the way of a sample into a batch in augment.py."""
