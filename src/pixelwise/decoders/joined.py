"""The network of a model of `pixelwise.smp`: the parts that the model has at the moment, joined as networks here are.

The parts belong to the model. What is assigned to one, `model.decoder = ...` or `model.network.decoder = ...`, is there
in both, so that there never is a second set.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.decoders import smp_parts
from pixelwise.decoders.network import EncoderDecoder
from pixelwise.decoders.smp_parts import Shape
from pixelwise.errors import InputError
from pixelwise.layers import enlarge

PARTS = ("encoder", "decoder", "segmentation_head")


class Joined(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, from the parts of `model`.

    network: the one that the model's first parts are from, whose name, stride and origin this one has. The model's head
    may enlarge and have an activation; neither is part of the logits (`smp_parts.logit_layers`).
    """

    model: nn.Module
    shape: Shape
    kind: str
    kind_of_head: type[nn.Module]

    def __init__(self, model: nn.Module, network: EncoderDecoder, shape: Shape) -> None:
        nn.Module.__init__(self)
        vars(self).update({**vars(network), "_modules": dict(network._modules)})
        own = {"model": model, "shape": shape, "kind": type(network).__name__}
        vars(self).update({**own, "kind_of_head": type(network.segmentation_head)})
        self.take_parts()

    def take_parts(self) -> None:
        """Have the parts that the model has now. Another encoder is not the one that was frozen."""
        parts = vars(self)["model"]._modules
        if self._modules["encoder"] is not parts.get("encoder"):
            self._encoder_is_frozen = False
        self._modules.update({part: parts.get(part) for part in PARTS})

    def of(self, model: nn.Module) -> Joined:
        """The same for a copy of the model that has other parts, such as a replica on another device."""
        twin = copy.copy(self)
        vars(twin).update({"model": model, "_modules": dict(self._modules)})
        twin._modules.update({part: model._modules[part] for part in PARTS})
        return twin

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        model = vars(self).get("model")
        if name in PARTS and model is not None and vars(model).get("_network") is self:
            setattr(model, name, value)

    @property
    def num_classes(self) -> int:
        return smp_parts.classes_of_layers(smp_parts.logit_layers(self.segmentation_head))

    def features(self, image: Tensor) -> list[Any]:
        encoder = getattr(
            self.encoder, "on_grid", self.encoder
        )  # SMP's leave the grid at sizes that are no multiples
        return smp_parts.features_for(self.decoder, encoder, image, self.shape)

    def decode(self, features: list[Any], size_hw: tuple[int, int]) -> Tensor:
        logits = smp_parts.decode(self.decoder, features, size_hw, self.shape)
        for layer in smp_parts.logit_layers(self.segmentation_head):
            logits = layer(logits)
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise InputError(
                f"expected logits (n, {self.num_classes}, h, w) from the parts of this {self.kind}, got "
                f"{tuple(logits.shape)}; let the segmentation head end in the convolution to classes"
            )
        return logits

    def _enlarge(self, coarse: Tensor, size_hw: tuple[int, int]) -> Tensor:
        if self.stride == 1 and (torch.compiler.is_exporting() or tuple(coarse.shape[-2:]) == tuple(size_hw)):
            return coarse
        return enlarge(coarse, size_hw, align_corners=self.align_corners)

    def _get_name(self) -> str:
        return self.kind

    def __repr__(self) -> str:
        """As the network of the same parts without the model's enlargement and activation prints itself."""
        shown = copy.copy(self)
        layers = smp_parts.logit_layers(self.segmentation_head)
        if layers != [self.segmentation_head]:
            plain: nn.Module = nn.Sequential(*layers)
            if self.kind_of_head is not nn.Sequential:
                plain = self.kind_of_head.__new__(self.kind_of_head)
                nn.Module.__init__(plain)
                plain.head = nn.Sequential(*layers)
            vars(shown)["_modules"] = {**self._modules, "segmentation_head": plain}
        return nn.Module.__repr__(shown)
