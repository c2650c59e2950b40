"""Training: `fit` in loop.py is the loop, `train` in run.py all around it, from a folder of data to a finished model.

config.py: a run written down; optimize.py, objective.py: what moves the weights, and where to; draws.py: the order of
the samples; checkpoint.py, progress.py, curves.py: what is kept and shown; validation.py: the score; probes.py: what
one may ask before a run.
"""
