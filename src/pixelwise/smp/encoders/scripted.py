"""Encoders for `torch.jit.script`, which can call modules one after another and no more: the same modules, in a chain.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixelwise.encoders.mit import to_image


class ScriptedStages(nn.Module):
    """What `StagedEncoder` computes, behind the image and `missing` empty maps; -1 for neither."""

    def __init__(self, stages: Sequence[Sequence[nn.Module]], missing: int, rectified: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        self.missing, self.rectified = missing, rectified

    def forward(self, image: Tensor) -> list[Tensor]:
        features = ahead(image, self.missing)
        x = image
        for stage in self.stages:
            x = stage(x)
            features.append(torch.relu(x) if self.rectified else x)
        return features


class TransformerStage(nn.Module):
    """One stage of a Mix Transformer, as a module: image (n, c, h, w) -> (n, c', h', w')."""

    def __init__(self, patch_embed: nn.Module, blocks: nn.ModuleList, norm: nn.Module) -> None:
        super().__init__()
        self.patch_embed, self.blocks, self.norm = patch_embed, blocks, norm

    def forward(self, image: Tensor) -> Tensor:
        tokens, size_hw = self.patch_embed(image)
        for block in self.blocks:
            tokens = block(tokens, size_hw)
        return to_image(self.norm(tokens), size_hw)


class ScriptedTimm(nn.Module):
    """What timm's network gives, behind the same."""

    def __init__(self, model: nn.Module, missing: int, last: bool) -> None:
        super().__init__()
        self.model, self.missing, self.last = model, missing, last

    def forward(self, image: Tensor) -> list[Tensor]:
        features = ahead(image, self.missing)
        for feature in self.model(image):
            features.append(feature.permute(0, 3, 1, 2) if self.last else feature)
        return features


def ahead(image: Tensor, missing: int) -> list[Tensor]:
    """The image, and maps without channels for the strides that a network lacks."""
    features: list[Tensor] = []
    if missing >= 0:
        features.append(image)
    for _ in range(missing):
        features.append(image.new_empty([image.shape[0], 0, image.shape[-2] // 2, image.shape[-1] // 2]))
    return features
