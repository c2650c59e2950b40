"""SMP's encoder for plain vision transformers: features, and the tokens before those of the image.

Letters: n batch, c channels, h w pixels, p tokens before the image's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from pixelwise.checkpoints.smp.config import even_taps
from pixelwise.encoders import create_encoder
from pixelwise.encoders.timm import TimmEncoder, TimmTransformer
from pixelwise.encoders.timm import evenly as sample_block_indices_uniformly

__all__ = ["TimmViTEncoder", "sample_block_indices_uniformly"]


class TimmViTEncoder(TimmTransformer):
    """image (n, in_channels, h, w) -> `depth` features (n, c, h/s, w/s) of one stride, and as many tokens (n, p, c).

    The second list holds None where the network has no tokens besides those of the image. name: one of timm's plain
    vision transformers. pretrained: whether to fetch its weights. output_indices: the blocks whose tokens are taken,
    None for equally spaced ones. kwargs: timm's. Sizes of images are as for `TimmTransformer`.

    Raises ValueError for a depth or index that the network does not have, and what `create_encoder` raises.
    """

    _is_torch_scriptable: ClassVar[bool] = False
    _is_torch_exportable: ClassVar[bool] = True
    _is_torch_compilable: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        in_channels: int = 3,
        depth: int = 4,
        output_indices: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("output_stride", None) is not None:
            raise ValueError(f"{name} is a plain transformer and cannot be dilated; leave output_stride out")
        if output_indices is not None and (isinstance(output_indices, int) or len(output_indices) != depth):
            raise ValueError(
                f"output_indices must be a list of {depth} numbers, one for each feature, got {output_indices}"
            )
        taps = even_taps(name, depth) if output_indices is None else output_indices
        made: Any = create_encoder(
            f"tu-{name}", in_channels=in_channels, weights=pretrained, taps=list(taps), **kwargs
        )
        vars(self).update(vars(made))

    @property
    def out_channels(self) -> list[int]:
        return list(self.channels)

    @property
    def output_strides(self) -> list[int]:
        return list(self.strides)

    @property
    def output_stride(self) -> int:
        return self.strides[-1]

    @property
    def has_prefix_tokens(self) -> bool:
        return self.prefix_tokens > 0

    def forward(self, image: Tensor) -> Any:
        if self.has_prefix_tokens:
            return self.with_tokens(image)
        features = TimmEncoder.forward(self, image)
        return features, [None] * len(features)

    def _get_name(self) -> str:
        """It prints itself as the network that it is."""
        return TimmTransformer.__name__
