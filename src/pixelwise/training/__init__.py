"""Training: `fit` in loop.py is the loop, `train` in runner.py all around it, from an experiment to a finished model.

start.py: a run from what somebody asks for; config.py: a run written down; experiment.py: what it says, made real;
optimize.py, objective.py: what moves the weights, and where to; draws.py: the order of the samples; state.py,
progress.py, curves.py: what is kept and shown; validation.py: the score; probes.py: what one may ask before a run.
"""
