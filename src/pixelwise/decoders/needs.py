"""What each decoder asks of its encoder. Importing this module brings no torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What a decoder asks of its encoder.

    depth: how many times the encoder should halve the image, unless one asks for another depth: PSPNet uses no feature
    beyond stride 8, so a deeper encoder would carry weights that never learn. output_stride: the one it is meant for;
    below 32 the encoder is dilated. finest: features of smaller stride are not used. features: how many it needs at
    least. halving: each feature must be half as large as the one before. tokens: it reads the class token as well,
    where the encoder has one.
    """

    depth: int = 5
    output_stride: int = 32
    finest: int = 2
    features: int = 1
    halving: bool = False
    tokens: bool = False

    def used(self, strides: Sequence[int]) -> list[int]:
        """Which of the encoder's features, by place, the decoder looks at."""
        return [place for place, stride in enumerate(strides) if stride >= self.finest]

    def refusal(self, strides: Sequence[int]) -> str | None:
        """Why an encoder with features of these strides will not do, as the rest of a sentence; None if it will."""
        used = [strides[place] for place in self.used(strides)]
        has = f"its strides are {', '.join(map(str, strides))}"
        if len(used) < self.features:
            return f"it has {len(used)} of stride {self.finest} or more, {self.features} are needed; {has}"
        if not self.halving:
            return None
        if any(stride & (stride - 1) for stride in used):
            return f"strides must be powers of two, to be doubled back to the image; {has}"
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(used)):
            return f"each feature must be half as large as the one before, as in a pyramid; {has}"
        return None


NEEDS: dict[str, Needs] = {
    "unet": Needs(halving=True),
    "unetplusplus": Needs(features=2, halving=True),
    "manet": Needs(halving=True),
    "linknet": Needs(halving=True),
    "fpn": Needs(features=2),
    "pspnet": Needs(depth=3),
    "pan": Needs(output_stride=16, finest=4, features=2),
    "deeplabv3": Needs(output_stride=8),
    "deeplabv3plus": Needs(output_stride=16, finest=4, features=2),
    "upernet": Needs(finest=4, features=2),
    "segformer": Needs(),
    "dpt": Needs(depth=4, tokens=True),
}
"""Name of the decoder: what it asks of an encoder. The depth of "dpt" counts the features it takes out."""
