"""DeepLab v1: the Caffe release's sizes, poolings and holes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deeplab import (
    difference,
    gradient_reaches_everything,
    holes,
    parameters,
    picture,
    shaken,
    survives_the_round_trip,
)
from exported import largest_difference
from pixelwise.checkpoints.families.deeplab_caffe import CAFFE_V1
from pixelwise.checkpoints.loading import from_checkpoint
from pixelwise.errors import WeightsError
from pixelwise.models.deeplabv1 import deeplabv1_vgg16_4x4, deeplabv1_vgg16_7x7, deeplabv1_vgg16_largefov

BUILDERS = [deeplabv1_vgg16_largefov, deeplabv1_vgg16_7x7, deeplabv1_vgg16_4x4]


@pytest.mark.parametrize(
    ("builder", "count"), list(zip(BUILDERS, (20_505_429, 134_346_581, 65_140_565), strict=True))
)
def test_parameters_are_the_papers(builder, count):
    assert parameters(builder) == count


def caffe_pool(x, stride):
    """3x3 maximum with padding 1, rounded up, window by window."""
    counts = [side // 2 + 1 if stride == 2 else side for side in x.shape[2:]]
    tops, lefts = ([stride * place - 1 for place in range(count)] for count in counts)
    rows = [
        [x[:, :, max(top, 0) : top + 3, max(left, 0) : left + 3].amax((2, 3)) for left in lefts]
        for top in tops
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def by_hand(blobs, image, rate):
    """The release's prototxt, from its blobs; image is R, G, B and its channels are turned round here."""
    x = image.flip(1)
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for place in range(1, count + 1):
            name = f"conv{block}_{place}"
            x = holes(x, blobs[f"{name}.0"], blobs[f"{name}.1"], 2 if block == 5 else 1).relu()
        x = caffe_pool(x, 2 if block <= 3 else 1)
    h, w = x.shape[2:]
    border = F.pad(x, (1, 1, 1, 1))
    x = sum(border[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9
    x = holes(x, blobs["fc6.0"], blobs["fc6.1"], rate).relu()
    x = holes(x, blobs["fc7.0"], blobs["fc7.1"], 1).relu()
    return holes(x, blobs["fc8_voc12.0"], blobs["fc8_voc12.1"], 1)


@pytest.mark.parametrize("size_hw", [(33, 41), (30, 22)])
@pytest.mark.parametrize(
    ("builder", "arguments", "rate"),
    [
        (deeplabv1_vgg16_largefov, {}, 12),
        (deeplabv1_vgg16_7x7, {}, 4),
        (deeplabv1_vgg16_4x4, {}, 4),
        (deeplabv1_vgg16_4x4, {"rate": 8}, 8),
    ],
)
def test_logits_are_those_of_the_release_computed_by_hand(builder, arguments, rate, size_hw):
    network = shaken(builder(width_mult=1 / 16, **arguments))
    image = picture(2, 3, *size_hw)
    with torch.no_grad():
        expected = by_hand(CAFFE_V1.to_theirs(network.state_dict()), image, rate)
        assert difference(network.coarse(image), expected) < 1e-5


@pytest.mark.parametrize(("pixels", "places"), [(321, 41), (513, 65), (500, 64), (1, 1), (2, 2)])
def test_poolings_round_up_as_in_caffe(pixels, places):
    network = deeplabv1_vgg16_largefov(width_mult=1 / 64)
    assert network.coarse(torch.zeros(1, 3, pixels, 9)).shape[2] == places


def test_at_sides_of_8i_plus_1_every_8th_pixel_is_a_coarse_logit():
    network = shaken(deeplabv1_vgg16_largefov(width_mult=1 / 16, num_classes=5))
    image = picture(1, 3, 41, 65)
    with torch.no_grad():
        out, coarse = network(image)["out"], network.coarse(image)
    assert out.shape == (1, 5, 41, 65)
    torch.testing.assert_close(out[:, :, ::8, ::8], coarse)
    torch.testing.assert_close(out[:, :, 4::8, ::8], (coarse[:, :, 1:] + coarse[:, :, :-1]) / 2)


@pytest.mark.parametrize("builder", BUILDERS)
def test_caffe_names_survive_the_round_trip(builder):
    theirs = survives_the_round_trip(
        CAFFE_V1, shaken(builder(num_classes=4, in_channels=2, width_mult=1 / 16))
    )
    assert {"conv1_1.0", "conv5_3.1", "fc6.0", "fc7.1", "fc8_voc12.0"} <= theirs.keys()


def test_old_caffe_files_with_four_dimensional_biases_and_lists_of_blobs_load():
    network = shaken(deeplabv1_vgg16_largefov(width_mult=1 / 16))
    blobs = CAFFE_V1.to_theirs(network.state_dict())
    nested = {
        name.removesuffix(".0"): [blobs[name].numpy(), blobs[f"{name[:-2]}.1"].reshape(1, 1, 1, -1).numpy()]
        for name in blobs
        if name.endswith(".0")
    }
    nested["fc8_sbd"] = nested.pop("fc8_voc12")
    image = picture(1, 3, 33, 33)
    with torch.no_grad():
        assert torch.equal(from_checkpoint(nested).eval().coarse(image), network.coarse(image))


def test_a_builder_takes_the_path_of_a_checkpoint(tmp_path):
    network = shaken(deeplabv1_vgg16_largefov(width_mult=1 / 16))
    torch.save(CAFFE_V1.to_theirs(network.state_dict()), tmp_path / "caffe.pth")
    again = deeplabv1_vgg16_largefov(weights=tmp_path / "caffe.pth", width_mult=1 / 16).eval()
    image = picture(1, 3, 33, 33)
    with torch.no_grad():
        assert torch.equal(again.coarse(image), network.coarse(image))
    with pytest.raises(WeightsError, match="does not fit"):
        deeplabv1_vgg16_7x7(weights=tmp_path / "caffe.pth", width_mult=1 / 16)


def test_any_number_of_channels_and_one_image_train():
    for channels in (1, 5):
        network = deeplabv1_vgg16_largefov(in_channels=channels, num_classes=3, width_mult=1 / 8)
        gradient_reaches_everything(network, picture(1, channels, 33, 30))


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="did you mean 'num_classes'"):
        deeplabv1_vgg16_largefov(num_clases=3)
    with pytest.raises(ValueError, match="rate must be 4"):
        deeplabv1_vgg16_4x4(rate=5)
    with pytest.raises(ValueError, match="num_classes must be"):
        deeplabv1_vgg16_7x7(num_classes=0)


def test_export_equals_torch_at_other_sizes():
    network = shaken(deeplabv1_vgg16_largefov(width_mult=1 / 16))
    assert largest_difference(network, (2, 3, 64, 72), (1, 3, 33, 57), (3, 3, 50, 31)) < 1e-4
