"""Losses: from logits and a target to a number with a gradient, in one flat namespace.

>>> from functools import partial
>>> from pixelwise import losses
>>> loss = losses.WeightedSum({"ce": (1, losses.cross_entropy), "dice": (1, partial(losses.dice, over="image"))})
>>> loss = losses.OverOutputs(loss)  # on the dictionary a network returns: out, and half as much each aux head

All of them keep one contract:
- logits (n, k, ...) of any floating type, (...) any number of spatial axes unless stated; half precision is
  computed in float32, under autocast too. The number of classes is read from them.
- mode says what a target is: "multiclass" (n, ...) ids in [0, k); "binary" (n, ...) 0 or 1, with k = 1;
  "multilabel" (n, k, ...) 0 or 1. Of bool or any integer type; an id out of range raises InputError.
- ignore_index (255; None for none) marks pixels that have neither a loss nor a gradient, and are counted nowhere.
- reduction: "none" keeps the axes that the loss has, and says which; "sum" adds them; "mean" divides by what
  counts. Where nothing counts the loss is 0 with zero gradients, not NaN.
- region losses sum over the pixels of each image or of the whole batch by `over`, and say what a class that
  the target lacks costs by `absent`.

pixel.py: sums over pixels; region.py: overlaps; lovasz.py: surrogates of IoU; distance.py: distances to
boundaries; structure.py: centre lines and neighbourhoods; combine.py: sums of losses. Gradients of gradients
are not defined for those that have their own backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pixelwise.losses.combine import Loss, OverOutputs, WeightedSum, dice_cross_entropy
from pixelwise.losses.distance import boundary, hausdorff, unet_cross_entropy, unet_weights
from pixelwise.losses.inputs import IGNORE, Mode, Over, Reduction
from pixelwise.losses.lovasz import lovasz_hinge, lovasz_softmax
from pixelwise.losses.pixel import (
    binary_cross_entropy,
    cross_entropy,
    distillation,
    focal,
    ohem_cross_entropy,
)
from pixelwise.losses.region import Absent, dice, focal_tversky, generalised_dice, jaccard, mcc, tversky
from pixelwise.losses.structure import rmi, soft_cldice

__all__ = [
    "IGNORE",
    "LOSSES",
    "Absent",
    "Loss",
    "Mode",
    "Over",
    "OverOutputs",
    "Reduction",
    "WeightedSum",
    "binary_cross_entropy",
    "boundary",
    "cross_entropy",
    "dice",
    "dice_cross_entropy",
    "distillation",
    "focal",
    "focal_tversky",
    "generalised_dice",
    "hausdorff",
    "jaccard",
    "lovasz_hinge",
    "lovasz_softmax",
    "mcc",
    "ohem_cross_entropy",
    "rmi",
    "soft_cldice",
    "tversky",
    "unet_cross_entropy",
    "unet_weights",
]

LOSSES: dict[str, Callable[..., Tensor]] = {
    loss.__name__: loss
    for loss in (
        cross_entropy, ohem_cross_entropy, focal, dice, generalised_dice, jaccard, tversky, focal_tversky, mcc,
        lovasz_softmax, boundary, hausdorff, rmi, unet_cross_entropy,
    )
}  # fmt: skip
"""What a configuration and `pixelwise train --losses` may name: those that take (logits, class ids) and no other
tensor."""
