"""DeepLab v2: its pyramid, its three scales under two rules, MSRA's ResNet, and four sources of its weights."""

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
from exported import largest_difference
from pixelwise.checkpoints.families.deeplab_caffe import CAFFE_V2_RESNET, CAFFE_V2_VGG
from pixelwise.checkpoints.families.deeplab_pytorch import ISHT7, KAZUTO
from pixelwise.checkpoints.loading import from_checkpoint, load_checkpoint
from pixelwise.models.deeplabv1 import deeplabv1_vgg16_largefov
from pixelwise.models.deeplabv2 import (
    DeepLabV2,
    deeplabv2_resnet101,
    deeplabv2_vgg16_aspp_l,
    deeplabv2_vgg16_aspp_s,
    deeplabv2_vgg16_largefov,
)

TINY = ((2, 4, 1, 1), (2, 8, 2, 1), (3, 8, 1, 2), (2, 16, 1, 4))
"""Stages of a ResNet small enough to test: blocks, channels, stride, rate."""


def tiny(seed: int = 0, **arguments) -> DeepLabV2:
    return shaken(deeplabv2_resnet101(**{"stages": TINY, "num_classes": 5, **arguments}), seed)


@pytest.mark.parametrize(
    ("builder", "count"),
    [
        (deeplabv2_resnet101, 44_048_532),
        (deeplabv2_vgg16_aspp_l, 37_877_652),
        (deeplabv2_vgg16_aspp_s, 37_877_652),
        (deeplabv2_vgg16_largefov, 20_505_429),
    ],
)
def test_parameters_are_the_papers(builder, count):
    assert parameters(builder) == count


def test_largefov_is_the_network_of_version_1():
    first, second = (
        shaken(f(width_mult=1 / 16)) for f in (deeplabv1_vgg16_largefov, deeplabv2_vgg16_largefov)
    )
    second.load_state_dict(first.state_dict())
    image = picture(1, 3, 33, 40)
    with torch.no_grad():
        assert torch.equal(first(image)["out"], second(image)["out"])


@pytest.mark.parametrize(
    ("builder", "rates"), [(deeplabv2_vgg16_aspp_s, (2, 4, 8, 12)), (deeplabv2_vgg16_aspp_l, (6, 12, 18, 24))]
)
def test_the_vgg_pyramid_sums_four_classifiers_without_average_pooling(builder, rates):
    network = shaken(builder(width_mult=1 / 16))
    blobs = CAFFE_V2_VGG.to_theirs(network.state_dict())
    image = picture(1, 3, 33, 25)
    with torch.no_grad():
        (pool5,) = network.backbone(image)
        expected = 0
        for i, rate in enumerate(rates, start=1):
            x = holes(pool5, blobs[f"fc6_{i}.0"], blobs[f"fc6_{i}.1"], rate).relu()
            x = holes(x, blobs[f"fc7_{i}.0"], blobs[f"fc7_{i}.1"], 1).relu()
            expected = expected + holes(x, blobs[f"fc8_voc12_{i}.0"], blobs[f"fc8_voc12_{i}.1"], 1)
        assert difference(network.coarse(image), expected) < 1e-5


# ResNet -------------------------------------------------------------------------------------------------------


def caffe_by_hand(blobs, image):
    """The release's prototxt at one scale, from its blobs, for the stages TINY."""

    def convolution(x, name, stride=1, rate=1, relu=True):
        key = f"res{name}" if name != "conv1" else name
        side = blobs[f"{key}.0"].shape[-1]
        x = F.conv2d(x, blobs[f"{key}.0"], None, stride, (side - 1) * rate // 2, rate)
        bn, scale = (f"{what}{'_' if name == 'conv1' else ''}{name}" for what in ("bn", "scale"))
        mean, var = (blobs[f"{bn}.{i}"].flatten() / blobs[f"{bn}.2"].flatten() for i in (0, 1))
        x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        x = x * blobs[f"{scale}.0"][:, None, None] + blobs[f"{scale}.1"][:, None, None]
        return x.relu() if relu else x

    x = convolution(image.flip(1), "conv1", 2)
    h, w = (side // 2 + 1 for side in x.shape[2:])
    x = F.pad(x, (1, 2, 1, 2), value=-torch.inf)
    x = F.max_pool2d(x, 3, 2)[:, :, :h, :w]
    blocks = (("2a", "2b"), ("3a", "3b1"), ("4a", "4b1", "4b2"), ("5a", "5b"))
    for names, (_, _, stride, rate) in zip(blocks, TINY, strict=True):
        for place, name in enumerate(names):
            step = stride if place == 0 else 1
            y = convolution(x, f"{name}_branch2a", step)  # MSRA's first ResNet strides here
            y = convolution(y, f"{name}_branch2b", rate=rate)
            y = convolution(y, f"{name}_branch2c", relu=False)
            x = convolution(x, f"{name}_branch1", step, relu=False) if place == 0 else x
            x = (x + y).relu()
    return sum(
        holes(x, blobs[f"fc1_voc12_c{i}.0"], blobs[f"fc1_voc12_c{i}.1"], rate)
        for i, rate in enumerate((6, 12, 18, 24))
    )


def with_factors(blobs):
    """The same blobs as training leaves them: means and variances times a factor, and copies for smaller scales."""
    blobs = dict(blobs)
    for name in [name for name in blobs if name.startswith("bn") and name.endswith(".2")]:
        for i in (0, 1):
            blobs[f"{name[:-2]}.{i}"] = blobs[f"{name[:-2]}.{i}"] * 999.98
        blobs[name] = blobs[name] * 999.98
    shared = {
        key.replace(".", f"_{scale}.", 1): t for key, t in blobs.items() for scale in ("res075", "res05")
    }
    return blobs | shared


@pytest.mark.parametrize("size_hw", [(65, 41), (40, 55)])
def test_a_caffe_file_gives_the_logits_of_the_release_computed_by_hand(size_hw):
    network = tiny()
    blobs = with_factors(CAFFE_V2_RESNET.to_theirs(network.state_dict()))
    image = picture(2, 3, *size_hw)
    loaded = from_checkpoint(blobs).eval()
    with torch.no_grad():
        expected = caffe_by_hand(blobs, image)
        assert difference(loaded.pyramid(image)[0], expected) < 1e-5
        assert difference(network.pyramid(image)[0], expected) < 1e-5


# Scales -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resize", "pixels", "smaller"),
    [
        ("caffe", 321, (241, 161)),
        ("caffe", 513, (385, 257)),
        ("caffe", 500, (373, 250)),
        ("kazuto", 321, (240, 160)),
        ("kazuto", 513, (384, 256)),
    ],
)
def test_smaller_scales_have_the_sizes_of_their_source(resize, pixels, smaller):
    network = tiny(resize=resize)
    image = torch.zeros(1, 3, pixels, 33)
    assert tuple(network.shrink(image, scale).shape[2] for scale in (0.75, 0.5)) == smaller


@pytest.mark.parametrize("size_hw", [(65, 41), (50, 39)])
@pytest.mark.parametrize("resize", ["caffe", "kazuto"])
def test_of_three_scales_the_largest_logit_wins(resize, size_hw):
    network = tiny(resize=resize)
    single = tiny(multi_scale=False, resize=resize)
    single.load_state_dict(network.state_dict())
    image, corners = picture(1, 3, *size_hw), resize == "caffe"
    with torch.no_grad():
        logits = [single.coarse(image)]
        for zoom, shrink in ((3, 4), (1, 2)):
            sides = [
                zoom * ((side - 1) // shrink) + 1 if corners else int(side * zoom / shrink)
                for side in size_hw
            ]
            logits.append(single.coarse(bilinear(image, tuple(sides), align_corners=corners)))
        grid = tuple(logits[0].shape[2:])
        fused = torch.stack([bilinear(x, grid, align_corners=corners) for x in logits]).amax(0)
        assert difference(network.coarse(image), fused) < 1e-5
        heads = network(image)
        assert list(heads) == ["out", "aux_1", "aux_0.75", "aux_0.5"]
        for name, coarse in zip(heads, [fused, *logits], strict=True):
            assert difference(heads[name], bilinear(coarse, size_hw, align_corners=corners)) < 1e-5


def test_the_single_scale_1_is_the_plain_network():
    plain = tiny(multi_scale=False)
    again = DeepLabV2(plain.backbone, plain.classifier, scales=(1.0,)).eval()
    thrice = DeepLabV2(plain.backbone, plain.classifier, scales=(1.0, 1.0, 1.0)).eval()
    image = picture(1, 3, 40, 33)
    with torch.no_grad():
        expected = plain.classifier(plain.backbone(image)[-1])
        for network in (plain, again, thrice):
            assert torch.equal(network.coarse(image), expected)
        assert list(plain(image)) == ["out"]


def test_scales_and_rules_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="resize must be 'caffe' or 'kazuto'"):
        deeplabv2_resnet101(stages=TINY, resize="bilinear")
    plain = tiny()
    with pytest.raises(ValueError, match="must begin with 1"):
        DeepLabV2(plain.backbone, plain.classifier, scales=(0.5,))
    with pytest.raises(ValueError, match="pad it to sides of 2"):
        tiny(resize="kazuto")(torch.zeros(1, 3, 1, 40))
    assert tiny()(torch.zeros(1, 3, 1, 1))["out"].shape == (1, 5, 1, 1)


# Names --------------------------------------------------------------------------------------------------------


def test_caffe_names_survive_the_round_trip():
    theirs = survives_the_round_trip(CAFFE_V2_VGG, shaken(deeplabv2_vgg16_aspp_l(width_mult=1 / 16)))
    assert {"fc6_1.0", "fc7_4.1", "fc8_voc12_3.0"} <= theirs.keys()
    blobs = CAFFE_V2_RESNET.to_theirs(full_on_meta())
    assert {"conv1.0", "bn_conv1.2", "scale_conv1.1", "res2c_branch2a.0", "res3b3_branch2c.0"} <= blobs.keys()
    assert {"bn4b22_branch2b.1", "scale5a_branch1.0", "fc1_voc12_c3.1"} <= blobs.keys()
    assert len(blobs) == 104 * 6 + 8


def full_on_meta():
    with torch.device("meta"):
        return deeplabv2_resnet101().state_dict()


def test_caffe_resnet_with_factors_and_shared_layers_loads_and_damage_is_noticed():
    network = shaken(deeplabv2_resnet101(stages=((2, 4, 1, 1), (2, 8, 2, 1), (3, 8, 1, 2), (3, 16, 1, 4))))
    survives_the_round_trip(CAFFE_V2_RESNET, network)
    blobs = with_factors(CAFFE_V2_RESNET.to_theirs(network.state_dict()))
    got = from_checkpoint(blobs).state_dict()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("family", "prefix"), [(KAZUTO, "base."), (ISHT7, "Scale.")])
def test_names_of_the_ports_survive_the_round_trip(family, prefix):
    network = tiny()
    theirs = survives_the_round_trip(family, network)
    assert all(name.startswith(prefix) for name in theirs)
    image = picture(1, 3, 40, 33)
    loaded = from_checkpoint(theirs).eval()
    assert (loaded.resize, len(loaded.scales)) == ("kazuto" if family is KAZUTO else "caffe", 3)
    single = from_checkpoint({name.removeprefix(prefix): t for name, t in theirs.items()}).eval()
    assert len(single.scales) == 1
    with torch.no_grad():
        assert torch.equal(single.coarse(image), network.pyramid(image)[0])
    load_checkpoint(network, theirs)


def test_full_size_names_are_those_of_the_published_files():
    kazuto = KAZUTO.to_theirs(full_on_meta())
    assert len(kazuto) == 632
    assert {
        "base.layer1.conv1.conv.weight",
        "base.layer4.block23.conv3x3.bn.running_var",
        "base.layer5.block1.shortcut.conv.weight",
        "base.aspp.c3.bias",
    } <= kazuto.keys()
    isht7 = ISHT7.to_theirs(full_on_meta())
    assert {
        "Scale.conv1.weight",
        "Scale.layer3.22.bn3.weight",
        "Scale.layer4.0.downsample.1.running_mean",
        "Scale.layer5.conv2d_list.3.weight",
    } <= isht7.keys()


@pytest.mark.parametrize("family", [KAZUTO, ISHT7])
def test_files_of_the_ports_take_blue_green_red(family):
    network = tiny(multi_scale=False)
    theirs = family.to_theirs(network.state_dict())
    weight = next(
        t for name, t in theirs.items() if name.endswith(("layer1.conv1.conv.weight", "Scale.conv1.weight"))
    )
    image = picture(1, 3, 33, 33)
    expected = F.conv2d(image.flip(1), weight, stride=2, padding=3)
    torch.testing.assert_close(network.backbone.conv1(image), expected, rtol=1e-5, atol=1e-5)


def test_a_block_of_the_ports_is_the_one_computed_by_hand():
    """Of kazuto's names: reduce strides, conv3x3 is dilated, shortcut strides."""
    network = tiny()
    names = KAZUTO.to_theirs(network.state_dict())
    x = picture(1, 16, 9, 8)
    with torch.no_grad():
        block = "base.layer3.block1"
        y = F.conv2d(x, names[f"{block}.reduce.conv.weight"], stride=2)
        y = normed(y, names, f"{block}.reduce.bn").relu()
        y = F.conv2d(y, names[f"{block}.conv3x3.conv.weight"], padding=1)
        y = normed(y, names, f"{block}.conv3x3.bn").relu()
        y = normed(F.conv2d(y, names[f"{block}.increase.conv.weight"]), names, f"{block}.increase.bn")
        x2 = F.conv2d(x, names[f"{block}.shortcut.conv.weight"], stride=2)
        expected = (y + normed(x2, names, f"{block}.shortcut.bn")).relu()
        assert difference(network.backbone.layer2[0](x), expected) < 1e-5


# Training and export ------------------------------------------------------------------------------------------


def test_frozen_norms_keep_their_statistics_and_one_image_trains():
    network = deeplabv2_resnet101(stages=TINY, num_classes=3, in_channels=4)
    before = network.backbone.bn1.running_mean.clone()
    gradient_reaches_everything(network, picture(1, 4, 41, 33))
    assert torch.equal(network.backbone.bn1.running_mean, before)
    thawed = deeplabv2_resnet101(stages=TINY, frozen_norm=False).train()
    assert thawed.backbone.bn1.training
    gradient_reaches_everything(
        deeplabv2_vgg16_aspp_s(width_mult=1 / 8, in_channels=1), picture(1, 1, 33, 40)
    )


def test_values_neither_vanish_nor_explode_in_a_fresh_deep_network():
    network = deeplabv2_resnet101(stages=((3, 8, 1, 1), (4, 8, 2, 1), (23, 8, 1, 2), (3, 16, 1, 4))).train()
    (features,) = network.backbone(picture(2, 3, 65, 65))
    assert 0.05 < features.std() < 20


class Subsampled(torch.nn.Module):
    """An encoder of one layer, which makes tracing three scales quick."""

    channels, strides = (3,), (8,)

    def forward(self, image):
        return [F.avg_pool2d(image, 3, 8, padding=1)]


@pytest.mark.parametrize("resize", ["caffe", "kazuto"])
def test_export_of_three_scales_equals_torch_at_other_sizes(resize):
    network = DeepLabV2(Subsampled(), torch.nn.Conv2d(3, 4, 1), scales=(1, 0.75, 0.5), resize=resize)
    assert largest_difference(network, (2, 3, 64, 72), (1, 3, 65, 41), (3, 3, 50, 39)) < 1e-4


def test_export_of_the_resnet_equals_torch_at_other_sizes():
    network = tiny(multi_scale=False, stages=[(1, *row[1:]) for row in TINY])
    assert largest_difference(network, (2, 3, 64, 72), (1, 3, 65, 41), (3, 3, 50, 39)) < 1e-4
