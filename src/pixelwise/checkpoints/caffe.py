"""What all files of Caffe have in common, and the way from there and back.

A layer's tensors have no names but numbers: "conv1_1.0" is the weight, "conv1_1.1" the bias, which old files store as
(1, 1, 1, c). Caffe's files want pictures as B, G, R and our networks take R, G, B, so the first convolution's input
channels are turned round, which changes no sum. Values stay 0 to 255 less the mean: a scale or a mean moved into the
weights would make the zeros of the border something else than the mean.
"""

from __future__ import annotations

from pixelwise.weights.renames import Tensors

KINDS = ("weight", "bias")

FIRST = tuple(f"{name}.weight" for name in ("conv1_1", "conv1", "conv1.conv", "encoder1.0.conv"))
"""The first convolution's weight in each of our networks that Caffe had, less the prefix "backbone."."""


def named(tensors: Tensors) -> Tensors:
    """Numbers to names, and biases to (c,); KeyError for a number that is neither 0 nor 1."""
    ours: Tensors = {}
    for key, tensor in tensors.items():
        layer, _, number = key.rpartition(".")
        if number not in ("0", "1"):
            raise KeyError(key)
        ours[f"{layer}.{KINDS[int(number)]}"] = tensor.flatten() if number == "1" else tensor
    return ours


def numbered(tensors: Tensors) -> Tensors:
    """Names to numbers."""
    parted = [(key.rpartition("."), tensor) for key, tensor in tensors.items()]
    return {f"{layer}.{KINDS.index(kind)}": tensor for (layer, _, kind), tensor in parted}


def rgb(tensors: Tensors) -> Tensors:
    """B, G, R to R, G, B, or back: the same with the first convolution's input channels, if they are three, turned
    round."""
    return {
        key: tensor.flip(1) if key.removeprefix("backbone.") in FIRST and tensor.shape[1] == 3 else tensor
        for key, tensor in tensors.items()
    }
