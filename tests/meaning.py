"""Small networks whose logits are known, their cards, and what outputs mean by the plain definitions."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise import Card, Segmenter

NAMES = ("outside", "whole", "core", "rim", "spot", "edge", "seed")


class Answers(nn.Module):
    """A network that gives the same logits (k, h, w) whatever it is shown."""

    stride = 4

    def __init__(self, logits: np.ndarray, align_corners: bool = False) -> None:
        super().__init__()
        values = torch.from_numpy(np.ascontiguousarray(logits, np.float32))
        self.logits = nn.Parameter(values, requires_grad=False)
        self.num_classes, self.align_corners = len(logits), align_corners

    def coarse(self, image):
        return self.logits[None].expand(len(image), -1, -1, -1)

    def forward(self, image):
        return {"out": self.coarse(image)}


class Looks(nn.Module):
    """A convolution of k logits, `reach` pixels around each, from channels in."""

    stride, align_corners = 1, False

    def __init__(self, k: int, *, reach: int = 0, channels: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.num_classes = k
        self.conv = nn.Conv2d(channels, k, 2 * reach + 1, padding=reach)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(self.conv.weight.shape, generator=generator) * 6)
            # about half of the pixels of a picture around grey are on either side
            self.conv.bias.copy_(
                -self.conv.weight.sum((1, 2, 3)) / 2 + torch.randn(k, generator=generator) / 2
            )

    def coarse(self, image):
        return self.conv(image)

    def forward(self, image):
        return {"out": self.coarse(image)}


def card(k: int, outputs: str, *, align_corners: bool = False, channels: int = 3, **options) -> Card:
    names = {"binary": ("background", "foreground"), "regions": NAMES[: k + 1]}.get(outputs, NAMES[:k])
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return Card.of(names, mean=zeros, std=ones, outputs=outputs, align_corners=align_corners, **options)


def answering(logits: np.ndarray, outputs: str, *, align_corners: bool = False) -> Segmenter:
    network = Answers(logits, align_corners)
    return Segmenter(network, card=card(len(logits), outputs, align_corners=align_corners, stride=4))


def looking(k: int, outputs: str, **options) -> Segmenter:
    return Segmenter(Looks(k, **options), card=card(k, outputs, channels=options.get("channels", 3)))


def full(logits: np.ndarray, size_hw: tuple[int, int], align_corners: bool = False) -> np.ndarray:
    """Bilinear interpolation in float64."""
    values = torch.from_numpy(np.asarray(logits, np.float64))[None]
    return F.interpolate(values, size=size_hw, mode="bilinear", align_corners=align_corners)[0].numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def drawn(rng: np.random.Generator, k: int, h: int, w: int, kind: str) -> np.ndarray:
    """Logits (k, h, w): noise, blobs as networks make them, or small whole numbers, of which many are zero."""
    if kind == "noise":
        return rng.normal(size=(k, h, w)).astype(np.float32)
    if kind == "blobs":
        small = torch.from_numpy(rng.normal(size=(1, k, max(1, h // 4), max(1, w // 4))))
        return (F.interpolate(small, size=(h, w), mode="bicubic")[0] * 8).float().numpy()
    return rng.integers(-1, 2, size=(k, h, w)).astype(np.float32)


def photo(h: int, w: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, channels)).astype(np.uint8)
