"""What every network of the catalog promises (DESIGN 4), checked on all of them, narrow where they can be."""

from __future__ import annotations

import fnmatch
import inspect
from collections import OrderedDict

import pytest
import torch
from torch import nn

import pixelwise
from exported import largest_difference
from pixelwise import catalog
from pixelwise.layers import Network
from pixelwise.models import builder_of

NAMES = pixelwise.list_models()
VOLUMES = ("nonewnet", "nonewnet_softmax")
EIGHTH = {"width_mult": 0.125}
NARROW = {
    "segformer_*": {"channels": (8, 16, 40, 64), "width": 16, "depths": (1, 1, 1, 1)},
    "upernet_*": {"channels": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "width": 16, "aux_width": 8},
    "fcn_convnext_*": {"channels": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "width": 16, "aux_width": 8},
    "unetplusplus*": {"filters": (4, 8, 12, 16, 20)},
    "unet*": {"width": 4},
    "nuclei": {"width": 4},
    "nonewnet*": {"width": 4},
    "segnet": {"width": 8},
    "fcn*_vgg16": EIGHTH,
    "fcn32s_*": EIGHTH,
    "deeplabv1*": EIGHTH,
    "deeplabv2_vgg16*": EIGHTH,
    "deeplabv2_resnet101": {"stages": ((1, 8, 1, 1), (2, 16, 2, 1), (2, 32, 1, 2), (1, 64, 1, 4))},
    "deeplabv3plus_xception*": EIGHTH,
    "deeplabv3plus_mobilenet_v2": {"width_mult": 0.25},
    "everyday": {"width_mult": 0.25},
}
"""Arguments that make a network small without changing its graph; the rest are built at their own size."""


def build(name: str, **arguments) -> nn.Module:
    """The network with random weights and norms that are not the identity."""
    builder = builder_of(name)
    known = inspect.signature(builder).parameters
    if "weights_backbone" in known:
        arguments["weights_backbone"] = None
    narrow = next((v for pattern, v in NARROW.items() if fnmatch.fnmatch(name, pattern)), {})
    torch.manual_seed(0)
    network = builder(**{**narrow, **arguments})
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
        for parameter in network.parameters():
            if not (
                parameter.is_meta or parameter.any()
            ):  # scores that start at zero hide what lies before them
                parameter.normal_(0, 0.02)
    return network


def picture(name: str, batch: int, channels: int, size: tuple[int, ...] = (65, 97)) -> torch.Tensor:
    """A batch of noise; volumes have sides that four halvings divide, as their card asks."""
    if name in VOLUMES:
        size = (16, 48, 32)
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image_and_are_the_enlarged_coarse_ones(name):
    channels = {0: 1, 1: 3, 2: 5}[NAMES.index(name) % 3]
    network = build(name, num_classes=4, in_channels=channels).eval()
    image = picture(name, 1, channels)
    assert isinstance(network, Network)
    assert network.num_classes == 4
    with torch.inference_mode():
        out = network(image)
        assert type(out) is OrderedDict  # no other: scripts and exports know no subclass
        assert next(iter(out)) == "out"
        coarse = network.coarse(image)
    assert all(key == "out" or key.startswith("aux") for key in out)
    assert out["out"].shape == (1, 4, *image.shape[2:])
    mode, corners = ("trilinear", False) if image.ndim == 5 else ("bilinear", network.align_corners)
    enlarged = nn.functional.interpolate(coarse, size=image.shape[2:], mode=mode, align_corners=corners)
    torch.testing.assert_close(out["out"], enlarged, rtol=1e-4, atol=1e-5)
    expected = [-(-side // network.stride) for side in image.shape[2:]]
    assert all(abs(a - b) <= 1 for a, b in zip(coarse.shape[2:], expected, strict=True)), coarse.shape


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_input_channels(name):
    with torch.device("meta"):
        for channels in (1, 3, 5):
            network = build(name, in_channels=channels)
            first = next(m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
            assert first.in_channels == channels


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    network = build(name, num_classes=3, in_channels=3).train()
    out = network(picture(name, 2, 3))
    generator = torch.Generator().manual_seed(2)
    loss = sum((logits * torch.randn(logits.shape, generator=generator)).sum() for logits in out.values())
    loss.backward()
    unused = getattr(network, "unused_parameters", ())
    for key, parameter in network.named_parameters():
        if not parameter.requires_grad:  # frozen deconvolutions, as in the release
            continue
        declared = any(fnmatch.fnmatchcase(key, pattern) for pattern in unused)
        assert (parameter.grad is None) == declared, key
        assert declared or parameter.grad.isfinite().all(), key


QUICK = ("fcn8s_vgg16", "segformer_b0")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_the_onnx_export_equals_the_network_at_other_sizes(name):
    network = build(name, num_classes=4, in_channels=3).eval()
    traced, *others = [(64, 96), (33, 71), (97, 50)]
    if name in VOLUMES:
        traced, *others = [(16, 32, 48), (32, 16, 16), (48, 16, 32)]
    shapes = [(1 + i, 3, *size) for i, size in enumerate(others)]
    assert largest_difference(network, (2, 3, *traced), *shapes) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_option_is_answered_with_the_nearest(name):
    with pytest.raises(TypeError, match="num_classes"):
        pixelwise.create_model(name, num_clases=3)


@pytest.mark.parametrize("name", [n for n in NAMES if catalog.entry(n).card is not None])
def test_the_card_counts_the_networks_parameters(name):
    entry = catalog.entry(name)
    builder = builder_of(name)
    known = inspect.signature(builder).parameters
    arguments = {"weights_backbone": None} if "weights_backbone" in known else {}
    if "aux_loss" in known and name.split("_")[0] in ("fcn", "deeplabv3") and entry.url is not None:
        arguments["aux_loss"] = True  # torchvision's files have the auxiliary head
    with torch.device("meta"):
        network = builder(num_classes=entry.card.channels, **arguments)
    assert sum(p.numel() for p in network.parameters()) == entry.card.parameters
