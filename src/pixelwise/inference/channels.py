"""Whether a network's answer has the channels that its card speaks of."""

from __future__ import annotations

import math
from typing import Any

from pixelwise.errors import InputError
from pixelwise.labels import LabelSet


def check_channels(logits: Any, channels: int, classes: LabelSet, outputs: str) -> None:
    """Raise InputError for logits (n, k, ...) of another k than the card's channels, and for such that are no numbers.

    A single logit of two exclusive classes passes: cards of that kind were written before they had a field for it, and
    it means the same.
    """
    if outputs == "exclusive" and len(classes) == 1:
        raise InputError(
            f"the card names one class, {classes.names[0]!r}, which every pixel would be; name two, and for a network "
            'of a single logit say outputs="binary" (pixelwise.Card.of)'
        )
    if not math.isfinite(float(logits.sum())):  # which one that is not makes the sum
        raise InputError(
            "the network answers with numbers that are not finite; look at its weights and at mean and std"
        )
    if logits.ndim < 3 or logits.shape[1] == channels:
        return  # other shapes are named by who takes the logits
    if outputs == "exclusive" and len(classes) == 2 and logits.shape[1] == 1:
        return
    raise InputError(
        f"the card names {len(classes)} classes and outputs={outputs!r}, for which the network answers with {channels} "
        f"channels, got logits {tuple(logits.shape)}; give a card that agrees (pixelwise.Card.of)"
    )
