"""From a `Sample` to the tensors a network learns from; image and mask move together.

augment.py is the usual way, in one fast pass; torchvision.py takes any torchvision v2 transform instead.
"""
