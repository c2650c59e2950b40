"""The paper's DeepLab v3 and VainF's: rates by stride, multi-grid, heads, names."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deeplab import (
    bilinear,
    difference,
    gradient_reaches_everything,
    holes,
    normed,
    parameters,
    picture,
    shaken,
    survives_the_round_trip,
)
from pixelwise.checkpoints.families.deeplab_pytorch import VAINF_V3
from pixelwise.encoders.mobilenet_v2 import MobileNetV2Encoder
from pixelwise.models import deeplabv3_resnet50
from pixelwise.models.deeplabv3_paper import (
    deeplabv3_mobilenet_v2_vainf,
    deeplabv3_resnet50_paper,
    deeplabv3_resnet50_vainf,
    deeplabv3_resnet101_paper,
    deeplabv3_resnet101_vainf,
)


@pytest.mark.parametrize(
    ("builder", "count"),
    [
        (deeplabv3_resnet50_vainf, 39_638_869),  # torchvision's without auxiliary head
        (deeplabv3_resnet101_vainf, 58_630_997),
        (deeplabv3_mobilenet_v2_vainf, 5_113_877),
        (deeplabv3_resnet50_paper, 39_638_869 - 256 * 256 * 9 - 512),
        (deeplabv3_resnet101_paper, 58_630_997 - 256 * 256 * 9 - 512),
    ],
)
def test_parameters_are_the_published_ones(builder, count):
    assert parameters(builder) == count


@pytest.mark.parametrize(
    ("builder", "output_stride", "layer3", "layer4", "pyramid"),
    [
        (deeplabv3_resnet101_paper, 16, {1}, [2, 4, 8], [6, 12, 18]),
        (deeplabv3_resnet101_paper, 8, {2}, [4, 8, 16], [12, 24, 36]),
        (deeplabv3_resnet101_vainf, 16, {1}, [1, 2, 2], [6, 12, 18]),
        (deeplabv3_resnet101_vainf, 8, {1, 2}, [2, 4, 4], [12, 24, 36]),
    ],
)
def test_rates_go_with_the_output_stride(builder, output_stride, layer3, layer4, pyramid):
    with torch.device("meta"):
        network = builder(output_stride=output_stride).eval()
    assert network.stride == output_stride
    assert {block.conv2.dilation[0] for block in network.backbone.layer3} == layer3
    assert [block.conv2.dilation[0] for block in network.backbone.layer4] == layer4
    assert all(block.conv2.padding == block.conv2.dilation for block in network.backbone.layer4)
    assert [network.aspp.convs[i][0].dilation[0] for i in (1, 2, 3)] == pyramid
    with torch.device("meta"):
        places = network.coarse(torch.empty(1, 3, 65, 97)).shape[2:]
    assert places == (64 // output_stride + 1, 96 // output_stride + 1)
    with torch.device("meta"):
        gridless = deeplabv3_resnet50_paper(multi_grid=(1, 1, 1))
    assert [block.conv2.dilation[0] for block in gridless.backbone.layer4] == [2, 2, 2]


def pyramid_by_hand(names, features, rates, prefix="aspp"):
    """torchvision's names of a pyramid; the same for VainF under his prefix."""
    whole = features.mean((2, 3), keepdim=True)
    branches = [holes(features, names[f"{prefix}.convs.0.0.weight"], None, 1)]
    branches += [
        holes(features, names[f"{prefix}.convs.{i}.0.weight"], None, r) for i, r in enumerate(rates, 1)
    ]
    branches.append(F.conv2d(whole, names[f"{prefix}.convs.4.1.weight"]).expand_as(branches[0]))
    norms = [f"{prefix}.convs.{i}.1" for i in range(4)] + [f"{prefix}.convs.4.2"]
    branches = [normed(x, names, norm).relu() for x, norm in zip(branches, norms, strict=True)]
    x = F.conv2d(torch.cat(branches, 1), names[f"{prefix}.project.0.weight"])
    return normed(x, names, f"{prefix}.project.1").relu()


def test_the_papers_head_classifies_the_pyramid_and_aligns_corners():
    network = shaken(deeplabv3_resnet50_paper(num_classes=4))
    image = picture(1, 3, 33, 50)
    with torch.no_grad():
        names = network.state_dict()
        x = pyramid_by_hand(names, network.backbone(image)[-1], (6, 12, 18))
        expected = F.conv2d(x, names["logits.weight"], names["logits.bias"])
        assert difference(network.coarse(image), expected) < 1e-5
        expected = bilinear(expected, (33, 50), align_corners=True)
        assert difference(network(image)["out"], expected) < 1e-5


def test_vainfs_network_at_stride_8_is_torchvisions_and_its_names_survive_the_round_trip():
    ours = shaken(deeplabv3_resnet50(weights_backbone=None, num_classes=4))
    network = deeplabv3_resnet50_vainf(num_classes=4, output_stride=8).eval()
    theirs = {  # his names are torchvision's, one deeper
        name.replace("classifier.", "classifier.classifier."): tensor
        for name, tensor in ours.state_dict().items()
    }
    network.load_state_dict(VAINF_V3.read(theirs)[1])
    image = picture(1, 3, 33, 50)
    with torch.no_grad():
        assert difference(network(image)["out"], ours(image)["out"]) < 1e-6
    again = survives_the_round_trip(VAINF_V3, network, damage=False)
    assert again.keys() == theirs.keys()


def mobilenet_by_hand(names, image):
    """VainF's MobileNetV2 of output stride 16 from his names: zeros are added before the expansion."""

    def convolution(x, name, stride=1, rate=1, groups=1):
        return F.conv2d(x, names[f"{name}.0.weight"], None, stride, 0, rate, groups)

    def place(i):
        return f"backbone.{'low' if i < 4 else 'high'}_level_features.{i}"

    x = normed(convolution(image, place(0), stride=2), names, f"{place(0)}.1").clip(0, 6)
    index, low = 1, None
    for expand, channels, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for repeat in range(count):
            name, step = f"{place(index)}.conv", stride if repeat == 0 and index != 14 else 1
            rate = 2 if index > 14 else 1
            y, k = F.pad(x, (rate,) * 4), 0
            if expand > 1:
                y, k = normed(convolution(y, f"{name}.0"), names, f"{name}.0.1").clip(0, 6), 1
            y = convolution(y, f"{name}.{k}", step, rate, groups=y.shape[1])
            y = normed(y, names, f"{name}.{k}.1").clip(0, 6)
            y = normed(F.conv2d(y, names[f"{name}.{k + 1}.weight"]), names, f"{name}.{k + 2}")
            x = x + y if repeat > 0 else y
            assert x.shape[1] == channels
            low = x if index == 3 else low
            index += 1
    return low, x


@pytest.mark.parametrize("size_hw", [(65, 33), (40, 51)])
def test_vainfs_mobilenet_pads_before_it_expands(size_hw):
    network = shaken(deeplabv3_mobilenet_v2_vainf(num_classes=3))
    names = VAINF_V3.to_theirs(network.state_dict())
    image = picture(1, 3, *size_hw)
    with torch.no_grad():
        _, expected = mobilenet_by_hand(names, image)
        assert difference(network.backbone(image)[-1], expected) < 1e-5
        x = pyramid_by_hand(names, expected, (6, 12, 18), "classifier.classifier.0")
        x = holes(x, names["classifier.classifier.1.weight"], None, 1)
        x = normed(x, names, "classifier.classifier.2").relu()
        last = (names[f"classifier.classifier.4.{kind}"] for kind in ("weight", "bias"))
        assert difference(network.coarse(image), F.conv2d(x, *last)) < 1e-5
    usual = MobileNetV2Encoder(output_stride=16)
    assert usual.features[4].conv[1][0].padding == (1, 1)
    with pytest.raises(ValueError, match="pad to 3x3"):
        network(torch.zeros(1, 3, 2, 9))


def test_vainfs_mobilenet_names_survive_the_round_trip():
    theirs = survives_the_round_trip(
        VAINF_V3, shaken(deeplabv3_mobilenet_v2_vainf(num_classes=3, in_channels=2))
    )
    assert "backbone.low_level_features.3.conv.0.0.weight" in theirs
    assert "backbone.high_level_features.17.conv.3.running_mean" in theirs


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_plain_mobilenet_encoder_has_the_sizes_it_declares(output_stride):
    encoder = MobileNetV2Encoder(output_stride=output_stride, in_channels=1, width_mult=0.25)
    features = encoder(picture(1, 1, 65, 38))
    got = [(x.shape[1], *x.shape[2:]) for x in features]
    expected = zip(encoder.channels, encoder.strides, strict=True)
    assert got == [(c, -(-65 // s), -(-38 // s)) for c, s in expected]
    assert max(encoder.strides) == output_stride


def test_training_needs_two_images_and_then_reaches_everything():
    network = deeplabv3_mobilenet_v2_vainf(num_classes=3, in_channels=1)
    with pytest.raises(ValueError, match="batch of one image"):
        network.train()(picture(1, 1, 33, 33))
    gradient_reaches_everything(network, picture(2, 1, 33, 40))


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="did you mean 'output_stride'"):
        deeplabv3_resnet50_paper(output_strid=8)
    with pytest.raises(ValueError, match="output_stride must be 8 or 16, got 32"):
        deeplabv3_resnet50_paper(output_stride=32)
