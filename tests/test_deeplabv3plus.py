"""DeepLab v3+: aligned Xception against timm and TensorFlow's arithmetic, decoders of the release and its ports."""

from __future__ import annotations

import re

import pytest
import timm
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
from pixelwise.catalog import CATALOG
from pixelwise.checkpoints.families.deeplab_pytorch import JFZHANG95, VAINF_V3PLUS
from pixelwise.checkpoints.families.deeplab_tensorflow import TENSORFLOW_V3PLUS
from pixelwise.checkpoints.loading import from_checkpoint
from pixelwise.encoders.xception import ROWS, XceptionEncoder, xception
from pixelwise.errors import UnknownNameError
from pixelwise.models import builder_of
from pixelwise.models import deeplabv3plus as v3plus
from test_deeplabv3_paper import mobilenet_by_hand, pyramid_by_hand


@pytest.mark.parametrize(
    ("builder", "arguments", "count"),
    [
        (v3plus.deeplabv3plus_xception41, {}, 28_108_661),
        (v3plus.deeplabv3plus_xception65, {}, 41_055_413),
        (v3plus.deeplabv3plus_xception65, {"separable": False}, 54_711_461),
        (v3plus.deeplabv3plus_resnet50_vainf, {}, 39_761_845),
        (v3plus.deeplabv3plus_resnet101_vainf, {}, 58_753_973),
        (v3plus.deeplabv3plus_resnet101_jfzhang95, {}, 59_344_309),
        (v3plus.deeplabv3plus_resnet101, {}, 59_344_309),
        (v3plus.deeplabv3plus_resnet50, {}, 59_344_309 - 58_753_973 + 39_761_845),
    ],
)
def test_parameters_are_the_published_ones(builder, arguments, count):
    assert parameters(builder, **arguments) == count


def test_parts_of_the_xception65_network_have_the_published_parameters():
    with torch.device("meta"):
        network = v3plus.deeplabv3plus_xception65()
    parts = network.backbone, network.aspp, network.decoder
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == [37_867_312, 3_019_776, 168_325]


@pytest.mark.parametrize(
    "name", [name for name in CATALOG if re.match(r"deeplabv(1|2|3plus|3.*_(paper|vainf))", name)]
)
def test_cards_tell_what_the_networks_are(name):
    entry = CATALOG[name]
    with torch.device("meta"):
        network = builder_of(name)()
    assert (network.origin.model, network.num_classes) == (name, 21)
    assert entry.card.parameters == sum(p.numel() for p in network.parameters())
    assert (entry.card.stride, entry.card.align_corners) == (network.stride, network.align_corners)


# Xception -----------------------------------------------------------------------------------------------------


def from_timm(network, encoder):
    """timm's tensors under our names."""
    theirs, ours = network.state_dict(), {}
    first = {"entry": 0, "middle": len(encoder.entry), "exit": len(encoder.entry) + len(encoder.middle)}
    parts = {
        "depthwise": "conv_dw",
        "depthwise_norm": "bn_dw",
        "pointwise": "conv_pw",
        "pointwise_norm": "bn_pw",
    }
    for name in encoder.state_dict():
        flow, *rest = name.split(".")
        if flow in ("conv1_1", "conv1_2"):
            source = f"stem.{int(flow[-1]) - 1}.{'conv' if rest[0] == '0' else 'bn'}.{rest[1]}"
        elif rest[1] == "shortcut":
            block = first[flow] + int(rest[0])
            source = f"blocks.{block}.shortcut.{'conv' if rest[2] == '0' else 'bn'}.{rest[3]}"
        else:
            source = f"blocks.{first[flow] + int(rest[0])}.stack.{rest[1]}.{parts[rest[2]]}.{rest[3]}"
        ours[name] = theirs[source]
    return ours


@pytest.mark.parametrize(
    ("name", "output_stride"), [("xception41", 32), ("xception41", 8), ("xception71", 16)]
)
def test_xception_is_timms_with_the_same_weights(name, output_stride):
    theirs = shaken(timm.create_model(name, num_classes=0, output_stride=output_stride))
    ours = xception(name, output_stride=output_stride, levels=(4,)).eval()
    ours.load_state_dict(from_timm(theirs, ours))
    with torch.no_grad():
        for size_hw in ((49, 33), (32, 50)):
            image = picture(1, 3, *size_hw)
            assert difference(ours(image)[0], theirs.forward_features(image)) < 1e-5


@pytest.mark.parametrize("name", ["xception41", "xception71"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_xception_has_the_sizes_it_declares_and_old_rates_where_it_stops_striding(name, output_stride):
    encoder = xception(
        name, output_stride=output_stride, width_mult=1 / 16, in_channels=2, multi_grid=(1, 2, 4)
    )
    features = encoder(picture(1, 2, 65, 38))
    assert [(x.shape[1], *x.shape[2:]) for x in features] == [
        (c, -(-65 // s), -(-38 // s)) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    rates = [
        [conv.depthwise.dilation[0] for conv in (unit.conv1, unit.conv2, unit.conv3)]
        for unit in (encoder.entry[-1], encoder.middle[0], encoder.exit[0], encoder.exit[1])
    ]
    middle, last = {8: (2, 4), 16: (1, 2), 32: (1, 1)}[output_stride]
    assert rates == [[1] * 3, [middle] * 3, [middle] * 3, [last, 2 * last, 4 * last]]


def test_unknown_encoders_and_strides_are_named():
    with pytest.raises(UnknownNameError, match="did you mean 'xception"):
        xception("xception56")
    with pytest.raises(ValueError, match="8, 16 or 32, got 4"):
        xception("xception65", output_stride=4)


# TensorFlow ---------------------------------------------------------------------------------------------------


def tensorflow_by_hand(variables, image, *, scope, entry, middle, output_stride):
    """research/deeplab from its variables, in their layout; image (n, 3, h, w) as ours."""

    def convolution(x, name, stride=1, rate=1):
        if f"{name}/depthwise_weights" in variables:
            weight = variables[f"{name}/depthwise_weights"]  # (kh, kw, c, 1)
            weight, groups = torch.einsum("hwcm->cmhw", weight), x.shape[1]
        else:
            weight, groups = torch.einsum("hwio->oihw", variables[f"{name}/weights"]), 1
        pad = (weight.shape[-1] - 1) * rate // 2
        return F.conv2d(F.pad(x, (pad,) * 4), weight, None, stride, 0, rate, groups)

    def layer(x, name, stride=1, rate=1, *, eps, relu):
        x = convolution(x, name, stride, rate)
        gamma, beta, mean, variance = (
            variables[f"{name}/BatchNorm/{leaf}"][:, None, None]
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        x = gamma * (x - mean) / torch.sqrt(variance + eps) + beta
        return x.relu() if relu else x

    x = layer(image, f"{scope}/entry_flow/conv1_1", 2, eps=1e-3, relu=True)
    x = layer(x, f"{scope}/entry_flow/conv1_2", eps=1e-3, relu=True)
    units = [(f"entry_flow/block{i}/unit_1", stride) for i, stride in enumerate(entry, 1)]
    units += [(f"middle_flow/block1/unit_{i}", 1) for i in range(1, middle + 1)]
    units += [("exit_flow/block1/unit_1", 2), ("exit_flow/block2/unit_1", 1)]
    current, rate, low = 2, 1, None
    for unit, stride in units:
        name = f"{scope}/{unit}/xception_module"
        step, used, inside = (1, rate, False) if current == output_stride else (stride, 1, False)
        inside = unit.startswith("exit_flow/block2")
        y = x
        for j in (1, 2, 3):
            y = y if inside else y.relu()
            here = step if j == 3 else 1
            y = layer(y, f"{name}/separable_conv{j}_depthwise", here, used, eps=1e-3, relu=inside)
            y = layer(y, f"{name}/separable_conv{j}_pointwise", eps=1e-3, relu=inside)
            if j == 2 and current == 4 and stride == 2:
                low = y
        if f"{name}/shortcut/weights" in variables:
            y = y + layer(x, f"{name}/shortcut", step, eps=1e-3, relu=False)
        elif unit.startswith("middle"):
            y = y + x
        if current == output_stride:
            rate *= stride
        else:
            current *= stride
        x = y

    def split(x, name, rate=1):
        if f"{name}/weights" in variables:
            return layer(x, name, 1, rate, eps=1e-5, relu=True)
        x = layer(x, f"{name}_depthwise", 1, rate, eps=1e-5, relu=True)
        return layer(x, f"{name}_pointwise", eps=1e-5, relu=True)

    whole = layer(x.mean((2, 3), keepdim=True), "image_pooling", eps=1e-5, relu=True)
    branches = [whole.expand(-1, -1, *x.shape[2:]), layer(x, "aspp0", eps=1e-5, relu=True)]
    rates = (6, 12, 18) if output_stride == 16 else (12, 24, 36)
    branches += [split(x, f"aspp{i}", rate) for i, rate in enumerate(rates, 1)]
    x = layer(torch.cat(branches, 1), "concat_projection", eps=1e-5, relu=True)
    low = layer(low, "decoder/feature_projection0", eps=1e-5, relu=True)
    x = torch.cat([bilinear(x, tuple(low.shape[2:]), align_corners=True), low], 1)
    if "decoder/decoder_conv0_pointwise/weights" in variables:
        x = split(split(x, "decoder/decoder_conv0"), "decoder/decoder_conv1")
    else:
        x = split(split(x, "decoder/decoder_conv0/decoder_conv0_1"), "decoder/decoder_conv0/decoder_conv0_2")
    return convolution(x, "logits/semantic") + variables["logits/semantic/biases"][:, None, None]


@pytest.mark.parametrize(
    ("name", "entry", "middle", "output_stride", "separable", "size_hw"),
    [
        ("41", (2, 2, 2), 8, 16, True, (49, 33)),
        ("65", (2, 2, 2), 16, 8, True, (24, 35)),
        ("71", (2, 1, 2, 1, 2), 16, 16, False, (33, 50)),
    ],
)
def test_tensorflow_variables_give_the_logits_of_the_release_computed_by_hand(
    name, entry, middle, output_stride, separable, size_hw
):
    builder = getattr(v3plus, f"deeplabv3plus_xception{name}")
    network = builder(num_classes=4, width_mult=1 / 16, output_stride=output_stride, separable=separable)
    variables = survives_the_round_trip(TENSORFLOW_V3PLUS, shaken(network), damage=name == "41")
    image = picture(1, 3, *size_hw)
    with torch.no_grad():
        expected = tensorflow_by_hand(
            variables,
            image,
            scope=f"xception_{name}",
            entry=entry,
            middle=middle,
            output_stride=output_stride,
        )
        assert difference(network.coarse(image), expected) < 1e-5
        expected = bilinear(expected, size_hw, align_corners=True)
        assert difference(network(image)["out"], expected) < 1e-5


def test_a_dictionary_of_arrays_with_what_training_leaves_loads():
    network = shaken(v3plus.deeplabv3plus_xception41(num_classes=19, width_mult=1 / 16))
    variables = {k: t.numpy() for k, t in TENSORFLOW_V3PLUS.to_theirs(network.state_dict()).items()}
    leftovers = {f"{k}/Momentum": t for k, t in variables.items()}
    leftovers |= {f"{k}/ExponentialMovingAverage": t for k, t in variables.items()}
    leftovers["global_step"] = variables["logits/semantic/biases"][:1]
    got = from_checkpoint({**variables, **leftovers})
    assert got.num_classes == 19
    assert all(torch.equal(t, got.state_dict()[k]) for k, t in network.state_dict().items())


def test_full_size_names_and_layouts_are_those_of_the_release():
    with torch.device("meta"):
        names = TENSORFLOW_V3PLUS.to_theirs(v3plus.deeplabv3plus_xception65().state_dict())
    module = "xception_65/middle_flow/block1/unit_16/xception_module"
    assert names[f"{module}/separable_conv3_depthwise/depthwise_weights"].shape == (3, 3, 728, 1)
    assert names[f"{module}/separable_conv3_pointwise/weights"].shape == (1, 1, 728, 728)
    assert names["xception_65/entry_flow/conv1_1/weights"].shape == (3, 3, 3, 32)
    assert names["decoder/decoder_conv0_depthwise/depthwise_weights"].shape == (3, 3, 304, 1)
    assert names["aspp3_pointwise/BatchNorm/moving_variance"].shape == (256,)
    assert names["logits/semantic/biases"].shape == (21,)


# Ports --------------------------------------------------------------------------------------------------------


def vainf_by_hand(names, low, high, rates):
    x = pyramid_by_hand(names, high, rates, "classifier.aspp")
    low = F.conv2d(low, names["classifier.project.0.weight"])
    low = normed(low, names, "classifier.project.1").relu()
    x = torch.cat([low, bilinear(x, tuple(low.shape[2:]), align_corners=False)], 1)
    x = holes(x, names["classifier.classifier.0.weight"], None, 1)
    x = normed(x, names, "classifier.classifier.1").relu()
    return F.conv2d(x, names["classifier.classifier.3.weight"], names["classifier.classifier.3.bias"])


@pytest.mark.parametrize("size_hw", [(65, 33), (40, 51)])
def test_vainfs_files_give_his_logits_computed_by_hand(size_hw):
    network = shaken(v3plus.deeplabv3plus_mobilenet_v2_vainf(num_classes=4))
    names = VAINF_V3PLUS.to_theirs(network.state_dict())
    image = picture(1, 3, *size_hw)
    with torch.no_grad():
        expected = vainf_by_hand(names, *mobilenet_by_hand(names, image), (6, 12, 18))
        assert difference(network.coarse(image), expected) < 1e-5
        expected = bilinear(expected, size_hw, align_corners=False)
        assert difference(network(image)["out"], expected) < 1e-5


def test_vainfs_names_survive_the_round_trip():
    network = shaken(v3plus.deeplabv3plus_mobilenet_v2_vainf(num_classes=4))
    theirs = survives_the_round_trip(VAINF_V3PLUS, network)
    wrapped = from_checkpoint({"cur_itrs": 30000, "model_state": theirs, "best_score": 0.7})
    assert torch.equal(wrapped.decoder.logits.weight, network.decoder.logits.weight)
    network = shaken(v3plus.deeplabv3plus_resnet50_vainf(num_classes=4, in_channels=5))
    theirs = survives_the_round_trip(VAINF_V3PLUS, network, damage=False)
    assert {"backbone.layer4.2.conv3.weight", "classifier.aspp.convs.4.1.weight"} <= theirs.keys()
    image = picture(1, 5, 49, 40)
    with torch.no_grad():
        low, high = network.backbone(image)
        assert difference(network.coarse(image), vainf_by_hand(theirs, low, high, (6, 12, 18))) < 1e-5


def resnet_by_hand(names, image, rates):
    """Bottlenecks of "v1.5" whose last stage has one rate per block, from torchvision's names."""

    def convolution(x, name, norm, stride=1, rate=1):
        weight = names[f"backbone.{name}.weight"]
        x = F.conv2d(x, weight, None, stride, (weight.shape[-1] - 1) * rate // 2, rate)
        return normed(x, names, f"backbone.{norm}")

    x = convolution(image, "conv1", "bn1", 2).relu()
    x, low = F.max_pool2d(x, 3, 2, 1), None
    for stage, (count, stride, stage_rates) in enumerate(
        ((3, 1, [1] * 3), (4, 2, [1] * 4), (23, 2, [1] * 23), (3, 1, rates)), start=1
    ):
        for k in range(count):
            block, step = f"layer{stage}.{k}", stride if k == 0 else 1
            y = convolution(x, f"{block}.conv1", f"{block}.bn1").relu()
            y = convolution(y, f"{block}.conv2", f"{block}.bn2", step, stage_rates[k]).relu()
            y = convolution(y, f"{block}.conv3", f"{block}.bn3")
            if k == 0:
                x = convolution(x, f"{block}.downsample.0", f"{block}.downsample.1", step)
            x = (x + y).relu()
        low = x if stage == 1 else low
    return low, x


def test_jfzhang95s_file_gives_his_logits_computed_by_hand_and_survives_the_round_trip():
    network = shaken(v3plus.deeplabv3plus_resnet101_jfzhang95(num_classes=4))
    names = survives_the_round_trip(JFZHANG95, network, damage=False)
    image, size_hw = picture(1, 3, 33, 46), (33, 46)
    with torch.no_grad():
        low, x = resnet_by_hand(names, image, (2, 4, 8))  # the first block dilates too
        whole = x.mean((2, 3), keepdim=True)
        branches = [
            normed(holes(x, names[f"aspp.aspp{i}.atrous_conv.weight"], None, rate), names, f"aspp.aspp{i}.bn")
            for i, rate in enumerate((1, 6, 12, 18), start=1)
        ]
        whole = F.conv2d(whole, names["aspp.global_avg_pool.1.weight"])
        branches.append(normed(whole, names, "aspp.global_avg_pool.2").expand_as(branches[0]))
        x = F.conv2d(torch.cat(branches, 1).relu(), names["aspp.conv1.weight"])
        x = normed(x, names, "aspp.bn1").relu()
        low = normed(F.conv2d(low, names["decoder.conv1.weight"]), names, "decoder.bn1").relu()
        x = torch.cat([bilinear(x, tuple(low.shape[2:]), align_corners=True), low], 1)
        for conv, norm in ((0, 1), (4, 5)):
            x = holes(x, names[f"decoder.last_conv.{conv}.weight"], None, 1)
            x = normed(x, names, f"decoder.last_conv.{norm}").relu()
        x = F.conv2d(x, names["decoder.last_conv.8.weight"], names["decoder.last_conv.8.bias"])
        assert difference(network.coarse(image), x) < 1e-5
        assert difference(network(image)["out"], bilinear(x, size_hw, align_corners=True)) < 1e-5


def test_ports_differ_in_dropout_as_published():
    with torch.device("meta"):
        networks = {
            "paper": v3plus.deeplabv3plus_resnet50(),
            "vainf": v3plus.deeplabv3plus_resnet50_vainf(),
            "jfzhang95": v3plus.deeplabv3plus_resnet101_jfzhang95(),
            "release": v3plus.deeplabv3plus_xception41(width_mult=1 / 16),
        }
    dropouts = {
        name: [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)]
        for name, network in networks.items()
    }
    assert dropouts == {
        "paper": [0.1, 0.0, 0.0],
        "vainf": [0.1, 0.0],
        "jfzhang95": [0.5, 0.5, 0.1],
        "release": [0.1, 0.0, 0.0],
    }


# Training and export ------------------------------------------------------------------------------------------


def test_training_needs_two_images_and_then_reaches_everything():
    network = v3plus.deeplabv3plus_xception41(num_classes=3, in_channels=4, width_mult=1 / 16)
    with pytest.raises(ValueError, match="batch of one image"):
        network.train()(picture(1, 4, 33, 33))
    gradient_reaches_everything(network, picture(2, 4, 33, 40))


def mobilenet_v2_by_hand(names, image):
    """Table 2 of the paper, output stride 16: the block that loses its stride keeps the rate, those behind have 2."""

    def convolution(x, name, norm, stride=1, rate=1):
        weight = names[f"backbone.features.{name}.weight"]
        groups, pad = x.shape[1] // weight.shape[1], (weight.shape[-1] - 1) * rate // 2
        return normed(
            F.conv2d(x, weight, None, stride, pad, rate, groups), names, f"backbone.features.{norm}"
        )

    x, index, low = convolution(image, "0.0", "0.1", 2).clip(0, 6), 1, None
    for expand, count, stride in (
        (1, 1, 1),
        (6, 2, 2),
        (6, 3, 2),
        (6, 4, 2),
        (6, 3, 1),
        (6, 3, 2),
        (6, 1, 1),
    ):
        for repeat in range(count):
            y, k, name = x, 0, f"{index}.conv"
            if expand > 1:
                y, k = convolution(y, f"{name}.0.0", f"{name}.0.1").clip(0, 6), 1
            step, rate = (stride if repeat == 0 and index < 14 else 1), (2 if index > 14 else 1)
            y = convolution(y, f"{name}.{k}.0", f"{name}.{k}.1", step, rate).clip(0, 6)
            y = convolution(y, f"{name}.{k + 1}", f"{name}.{k + 2}")
            keeps = (repeat > 0 or stride == 1) and x.shape[1] == y.shape[
                1
            ]  # a narrow first block keeps them as well
            x = x + y if keeps else y
            low = x if index == 3 else low
            index += 1
    return low, x


def separable_by_hand(x, names, name, rate=1):
    """Depthwise and pointwise, a norm and a ReLU behind each."""
    x = F.conv2d(x, names[f"{name}.0.weight"], None, 1, rate, rate, x.shape[1])
    x = F.conv2d(normed(x, names, f"{name}.1").relu(), names[f"{name}.3.weight"])
    return normed(x, names, f"{name}.4").relu()


@pytest.mark.parametrize("channels", [1, 5])
def test_logits_on_mobilenet_v2_are_the_papers_at_tiny_sizes_and_any_channels(channels):
    network = shaken(v3plus.deeplabv3plus_mobilenet_v2(in_channels=channels, num_classes=2, width_mult=0.25))
    names = network.state_dict()
    for size_hw in ((1, 1), (33, 7), (66, 50)):
        image = picture(1, channels, *size_hw)
        with torch.no_grad():
            low, x = mobilenet_v2_by_hand(names, image)
            branches = [normed(F.conv2d(x, names["aspp.convs.0.0.weight"]), names, "aspp.convs.0.1").relu()]
            branches += [separable_by_hand(x, names, f"aspp.convs.{i}", 6 * i) for i in (1, 2, 3)]
            whole = F.conv2d(x.mean((2, 3), keepdim=True), names["aspp.convs.4.1.weight"])
            branches.append(normed(whole, names, "aspp.convs.4.2").relu().expand_as(branches[0]))
            x = F.conv2d(torch.cat(branches, 1), names["aspp.project.0.weight"])
            x = normed(x, names, "aspp.project.1").relu()
            low = normed(F.conv2d(low, names["decoder.reduce.0.weight"]), names, "decoder.reduce.1").relu()
            x = torch.cat([bilinear(x, tuple(low.shape[2:]), align_corners=True), low], 1)
            for i in range(2):
                x = separable_by_hand(x, names, f"decoder.mix.conv{i}")
            expected = F.conv2d(x, names["decoder.logits.weight"], names["decoder.logits.bias"])
            assert difference(network.coarse(image), expected) < 1e-5
            assert difference(network(image)["out"], bilinear(expected, size_hw, align_corners=True)) < 1e-5


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="did you mean 'separable'"):
        v3plus.deeplabv3plus_xception65(seperable=True)
    with pytest.raises(ValueError, match="output_stride must be 8 or 16"):
        v3plus.deeplabv3plus_xception65(output_stride=32)


@pytest.mark.slow
def test_export_equals_torch_at_other_sizes():
    row = ROWS["xception71"]
    short = {"entry": row["entry"], "middle": row["middle"][:1], "exit": row["exit"]}
    encoder = XceptionEncoder(short, output_stride=16, levels=(1, 4), width_mult=1 / 16)
    network = shaken(v3plus.DeepLabV3Plus(encoder, 3, separable=True))
    assert largest_difference(network, (2, 3, 64, 96), (1, 3, 65, 49), (3, 3, 50, 81)) < 1e-4


@pytest.mark.slow
def test_export_of_vainfs_padding_equals_torch_at_other_sizes():
    network = shaken(v3plus.deeplabv3plus_mobilenet_v2_vainf(num_classes=3))
    assert largest_difference(network, (2, 3, 64, 96), (1, 3, 65, 49), (3, 3, 50, 81)) < 1e-4
