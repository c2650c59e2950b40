"""The class that a model of one's own can be derived from, as in SMP: it has the parts that it is given.

Letters: n batch, c channels, k classes, l labels, h w pixels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pixelwise.errors import SizeError


class SegmentationModel(nn.Module):
    """image (n, c, h, w), float -> (n, k, h, w), and labels (n, l) where there is a classification_head.

    A class of one's own sets `encoder` (image to a list of features), `decoder` (that list to one map),
    `segmentation_head` and, or as None, `classification_head`, then calls `initialize()`.
    """

    requires_divisible_input_shape: bool = True
    """Whether `forward` refuses an image whose sides are no multiples of the encoder's stride, as SMP does. Set it to
    False on a model, and the result has the size of any image; `network` and `Segmenter` take any as it is."""

    _is_torch_scriptable: ClassVar[bool] = True
    _is_torch_exportable: ClassVar[bool] = True
    _is_torch_compilable: ClassVar[bool] = True

    encoder: nn.Module
    decoder: nn.Module
    segmentation_head: nn.Module
    classification_head: nn.Module | None

    def initialize(self) -> None:
        """Draw the weights of decoder and heads: He's for convolutions, Xavier's for heads, as SMP does."""
        from pixelwise.decoders.network import (
            initialise,
        )  # it brings torchvision, which an import need not wait for

        initialise(self.decoder)
        for head in (self.segmentation_head, self.classification_head):
            for module in () if head is None else head.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def check_input_shape(self, image: Tensor) -> None:
        """Raise SizeError for sides that are no multiples of the stride, where `requires_divisible_input_shape`."""
        if not self.requires_divisible_input_shape:
            return
        strides: Any = getattr(self.encoder, "strides", None)
        stride = strides[-1] if strides else getattr(self.encoder, "output_stride", 1)
        h, w = image.shape[-2:]
        if h % stride or w % stride:
            enough = f"{-(-h // stride) * stride}x{-(-w // stride) * stride}"
            raise SizeError(
                f"expected an image whose sides are multiples of {stride}, got {h}x{w}; pad it to {enough}, or set "
                "model.requires_divisible_input_shape = False for a result of any image's size"
            )

    def forward(self, image: Tensor) -> Any:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            if not (tracing or torch.compiler.is_compiling()):  # what those make is for other sizes too
                self.check_input_shape(image)
        features = self.encoder(image)
        mask = self.segmentation_head(self.decoder(features))
        if self.classification_head is None:
            return mask
        return mask, self.classification_head(features[-1])

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Any:
        """`forward` in evaluation mode, without gradients."""
        self.eval()
        return self(image)

    def freeze_encoder(self) -> None:
        """Let the encoder's weights and the statistics of its norms be as they are."""
        self._learn_encoder(False)

    def unfreeze_encoder(self) -> None:
        """Let them learn again."""
        self._learn_encoder(True)

    def _learn_encoder(self, learn: bool) -> None:
        self.encoder.requires_grad_(learn)
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.train(learn)
