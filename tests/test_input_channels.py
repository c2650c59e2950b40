"""ImageNet weights with other input channels than three: one rule, SMP's, in every builder that takes such weights."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet, mobilenet_v3_large
from torchvision.models.resnet import Bottleneck

from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.checkpoints.backbones import ENCODERS
from pixelwise.checkpoints.making import create_model
from pixelwise.encoders import resnet
from pixelwise.encoders.alexnet import AlexNet
from pixelwise.encoders.googlenet import GoogLeNet
from pixelwise.encoders.mit import MixTransformer
from pixelwise.encoders.mobilenet_v3 import mobilenet_v3_large as our_mobilenet
from pixelwise.encoders.vgg import VGG16

TAKE_WEIGHTS = [
    name for name in CATALOG if "weights_backbone" in inspect.signature(models.builder_of(name)).parameters
]
SMALL: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "fcn*_vgg16": ("vgg16", lambda: VGG16(width_mult=1 / 32), {"width_mult": 1 / 32}),
    "fcn32s_alexnet": ("caffenet", lambda: AlexNet(width_mult=1 / 32), {"width_mult": 1 / 32}),
    "fcn32s_alexnet_torchvision": (
        "alexnet", lambda: AlexNet(variant="torchvision", width_mult=1 / 32), {"width_mult": 1 / 32}),
    "fcn32s_googlenet": ("googlenet_caffe", lambda: GoogLeNet(width_mult=1 / 32), {"width_mult": 1 / 32}),
    "fcn32s_googlenet_torchvision": (
        "googlenet", lambda: GoogLeNet(variant="torchvision", width_mult=1 / 32), {"width_mult": 1 / 32}),
    "segnet": ("segnet", lambda: VGG16(width_mult=1 / 32), {"width": 2}),
    "segformer_*": (
        "mit", lambda: MixTransformer((8, 16, 40, 64), (1, 1, 1, 1)),
        {"channels": (8, 16, 40, 64), "depths": (1, 1, 1, 1), "width": 8}),
}  # fmt: skip
"""Builders: the kind of their encoder, a small one, and the arguments that make theirs as small."""


class Narrow(Bottleneck):
    expansion = 1


def residual(weights: None = None, **options: Any) -> ResNet:
    return ResNet(Narrow, [1, 1, 1, 3], width_per_group=4, **options)


def pretrained(name: str) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Random weights as somebody else's file has them, and the arguments of a builder that they fit."""
    if "resnet" in name:
        return residual().state_dict(), {}
    if "mobilenet_v3" in name:
        return mobilenet_v3_large().state_dict(), {}
    kind, make, arguments = next(row for pattern, row in SMALL.items() if fnmatch.fnmatch(name, pattern))
    family = next(family for family in ENCODERS[kind].families if family.to_theirs is not None)
    assert family.to_theirs is not None
    classifier = {"fc8.0": torch.zeros(2, 128), "fc8.1": torch.zeros(2)} if kind == "caffenet" else {}
    return {**family.to_theirs(make().state_dict()), **classifier}, arguments


def first_of(network: nn.Module) -> Tensor:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d)).weight.detach()


def by_the_rule(filters: Tensor, channels: int) -> Tensor:
    """filters (c, 3, h, w), of red, green and blue."""
    red, green, blue = (filters[:, i] for i in range(3))
    if channels == 1:
        return torch.stack([red + green + blue], dim=1)
    return torch.stack([(red, green, blue)[i % 3] * 3 / channels for i in range(channels)], dim=1)


@pytest.fixture
def small_resnets(monkeypatch):
    for name in ("resnet50", "resnet101"):
        monkeypatch.setitem(resnet.BUILDERS, name, (residual, resnet.BUILDERS[name][1]))


@pytest.mark.parametrize("name", TAKE_WEIGHTS)
def test_the_first_filters_of_imagenet_weights_are_shared_out_by_one_rule(name, small_resnets, tmp_path):
    weights, arguments = pretrained(name)
    torch.save(dict(weights), tmp_path / "imagenet.pth")
    usual = create_model(name, weights_backbone=tmp_path / "imagenet.pth", **arguments)
    filters = first_of(usual)
    theirs = [tensor for tensor in weights.values() if torch.as_tensor(tensor).ndim == 4]
    assert any(
        torch.equal(filters, t) or torch.equal(filters, t.flip(1)) for t in theirs
    )  # Caffe's are B, G, R
    kept = {key: t for key, t in usual.state_dict().items() if key.startswith(("backbone.", "encoder"))}
    first = next(key for key, tensor in kept.items() if tensor.ndim == 4)
    for channels in (1, 2, 4):
        network = create_model(name, in_channels=channels, weights_backbone=weights, **arguments)
        torch.testing.assert_close(first_of(network), by_the_rule(filters, channels))
        state = network.state_dict()
        same = [key for key, tensor in kept.items() if state[key].equal(tensor)]
        assert same == [key for key in kept if key != first]


def test_without_weights_every_filter_of_every_channel_is_drawn_by_itself(small_resnets):
    for make in (
        lambda n: resnet.resnet("resnet50", in_channels=n).conv1,
        lambda n: our_mobilenet(in_channels=n)[0][0],
    ):
        torch.manual_seed(0)
        usual = make(3).weight.detach()
        for channels in (1, 6):
            filters = make(channels).weight.detach()
            assert filters.shape[1] == channels
            assert not any(
                torch.allclose(filters[:, a], filters[:, b]) for a in range(channels) for b in range(a)
            )
            assert float(filters.std() / usual.std()) == pytest.approx(1, rel=0.15)
