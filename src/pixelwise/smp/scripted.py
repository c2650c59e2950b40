"""A model for `torch.jit.script`: the same parts, called as SMP calls them.

Letters: n batch, c channels, k classes, l labels, h w pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.decoders.smp_parts import takes_size


class ScriptedModel(nn.Module):
    """image (n, c, h, w) -> (n, k, h, w) after the activation."""

    __constants__ = ("sized",)

    def __init__(self, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = encoder, decoder, segmentation_head
        self.sized = takes_size(segmentation_head)

    def forward(self, image: Tensor) -> Tensor:
        return self.masks(self.encoder(image), (image.shape[-2], image.shape[-1]))

    def masks(self, features: list[Tensor], size_hw: tuple[int, int]) -> Tensor:
        decoded = self.decoder(features)
        if self.sized:
            mask: Tensor = self.segmentation_head(decoded, size_hw)
        else:
            mask = self.segmentation_head(decoded)
        return mask


class ScriptedClassifier(ScriptedModel):
    """image (n, c, h, w) -> the same and labels (n, l) of the whole image."""

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module, classification_head: nn.Module
    ) -> None:  # fmt: skip
        super().__init__(encoder, decoder, segmentation_head)
        self.classification_head = classification_head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        features = self.encoder(image)
        mask = self.masks(features, (image.shape[-2], image.shape[-1]))
        return mask, self.classification_head(features[-1])
