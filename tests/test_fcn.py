"""FCN of Long and others: counts, where the image lies in the scores, Caffe's numbers, everybody's checkpoints."""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as torchvision_models
from torchvision.models.vgg import make_layers

from pixelwise import catalog
from pixelwise.checkpoints.backbones import load_encoder
from pixelwise.checkpoints.families.fcn import ENCODERS
from pixelwise.checkpoints.loading import families, from_checkpoint, load_checkpoint
from pixelwise.encoders.alexnet import AlexNet
from pixelwise.encoders.googlenet import GoogLeNet
from pixelwise.encoders.vgg import VGG16
from pixelwise.errors import UnknownNameError, WeightsError
from pixelwise.export.onnx import export_onnx
from pixelwise.layers import Network
from pixelwise.models import fcn
from pixelwise.models.fcn import FCN8s, FCN16s, FCN32s, bilinear

# All parameters, those that learn, those of the encoder, keys, 10^9 multiply-adds at 500x500 (None: not in the sheet).
COUNTS = {
    "fcn32s_vgg16": (136_152_917, 134_346_581, 134_260_544, 33, 181.37),
    "fcn16s_vgg16": (134_815_994, 134_357_354, 134_260_544, 36, 181.45),
    "fcn8s_vgg16": (134_489_759, 134_362_751, 134_260_544, 39, 181.53),
    "fcn8s_atonce_vgg16": (134_489_759, 134_362_751, 134_260_544, 39, 181.53),
    "fcn32s_alexnet": (58_704_590, 56_954_261, 56_868_224, 17, None),
    "fcn32s_alexnet_torchvision": (58_840_206, 57_089_877, 57_003_840, 17, None),
    "fcn32s_googlenet": (5_973_552 + 21_525 + 1_750_329, 5_973_552 + 21_525, 5_973_552, None, None),
    "fcn32s_googlenet_torchvision": (5_621_429 + 1_750_329, 5_621_429, 5_599_904, None, None),
}
TINY = {name: 1 / 16 if "googlenet" not in name else 1 / 8 for name in COUNTS}


def build(name: str, **arguments: Any) -> Any:
    return getattr(fcn, name)(**arguments)


def tiny(name: str, **arguments: Any) -> Any:
    """A narrow network whose every weight matters, in evaluation mode."""
    return shuffled(build(name, width_mult=TINY[name], **{"num_classes": 4, **arguments}))


def shuffled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics such that signals neither die nor explode; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.dtype == torch.int64 or "upscore" in name:
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, math.sqrt(2 / tensor[0].numel()), generator=generator)
        else:
            tensor.uniform_(*((0.5, 1.5) if name.endswith("bn.weight") else (0, 0.2)), generator=generator)
    return network.eval()


def picture(*size_hw: int, channels: int = 3, n: int = 1) -> Tensor:
    return torch.randn(n, channels, *size_hw, generator=torch.Generator().manual_seed(sum(size_hw)))


def relative(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / (expected.max() - expected.min()))


# Counts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_keys_and_multiply_adds_are_those_of_the_sheet(name: str):
    total, learned, encoder, keys, giga = COUNTS[name]
    with torch.device("meta"):
        network = build(name).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 500, 500))
    card = catalog.entry(name).card
    assert card is not None
    assert sum(p.numel() for p in network.parameters()) == card.parameters == total
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == learned
    assert sum(p.numel() for p in network.backbone.parameters()) == encoder
    assert counter.get_total_flops() == 2 * card.multiply_adds
    if keys is not None:
        assert len(network.state_dict()) == keys
    if giga is not None:
        assert round(card.multiply_adds / 1e9, 2) == giga
    assert isinstance(network, Network)
    assert network.origin.model == name


# Where the image lies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("fcn32s_vgg16", (19,)),
        ("fcn16s_vgg16", (5, 27)),
        ("fcn8s_vgg16", (5, 9, 31)),
        ("fcn8s_atonce_vgg16", (5, 9, 31)),
        ("fcn32s_alexnet", (18,)),
        ("fcn32s_alexnet_torchvision", (18,)),
        ("fcn32s_googlenet", (98,)),
    ],
)
def test_crop_offsets_are_those_of_the_release(name: str, offsets: tuple[int, ...]):
    with torch.device("meta"):
        network = build(name)
    found = tuple(getattr(network, f"offset{end}", None) for end in ("_pool4", "_pool3", ""))
    assert tuple(o for o in found if o is not None) == offsets
    if name.startswith("fcn32s"):
        assert network.upscore.kernel_size == ((64, 64) if "vgg" in name else (63, 63))


def looked_at(encoder: nn.Module, feature: int, row: int, height: int) -> tuple[float, int]:
    """Centre and number of the image's rows that one row of a feature depends on, found by differentiating.

    The encoder becomes a sum of what its windows see: averages for maxima, positive weights, no normalisation.
    """
    linear = copy.deepcopy(encoder).double().eval()
    for module in list(linear.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                size, stride, padding = child.kernel_size, child.stride, child.padding
                setattr(module, name, nn.AvgPool2d(size, stride, padding, ceil_mode=True))
            elif isinstance(child, nn.LocalResponseNorm):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d):
                nn.init.constant_(child.weight, 1 / child.weight[0].numel())
                if child.bias is not None:
                    nn.init.zeros_(child.bias)
    image = torch.ones(1, 1, height, 1, dtype=torch.float64, requires_grad=True)
    feature_map = linear(image)[feature]
    feature_map[0, :, row].sum().backward()
    assert image.grad is not None
    rows = image.grad[0, 0, :, 0].nonzero().flatten()
    assert 0 < int(rows[0]) < int(rows[-1]) < height - 1  # nothing was cut off at the image's ends
    return float(rows[0] + rows[-1]) / 2, int(rows[-1] - rows[0]) + 1


@pytest.mark.parametrize(
    ("encoder", "field"),
    [
        (lambda: VGG16(1, width_mult=1 / 64), 404),
        (lambda: AlexNet(1, width_mult=1 / 96), 355),
        (lambda: AlexNet(1, variant="torchvision", width_mult=1 / 64), 355),
        (lambda: GoogLeNet(1, width_mult=1 / 64), 907 - 6 * 32),  # table 1 counts the 7x7 average
        (lambda: GoogLeNet(1, variant="torchvision", width_mult=1 / 64), None),
    ],
    ids=["vgg16", "caffenet", "alexnet", "googlenet", "googlenet torchvision"],
)
def test_scores_are_enlarged_around_the_pixels_they_looked_at(encoder: Any, field: int | None):
    """Receptive fields are those of the paper's table 1, and their centres stay where they are in the image."""
    backbone = encoder()
    network = FCN32s(backbone, 1)
    row = 18
    centre, size = looked_at(backbone, -1, row, 1000)
    assert field is None or size == field
    spread = F.conv_transpose2d(torch.eye(1)[None, None], network.upscore.weight, stride=32)[0, 0, :, 0]
    weights = spread / spread.sum()
    middle_of_one_score = float((weights * torch.arange(len(weights))).sum())
    assert 32 * row + middle_of_one_score - network.offset == pytest.approx(centre)


def test_skips_are_added_where_they_look_at_the_same_pixels():
    backbone = VGG16(1, width_mult=1 / 64)
    network = FCN8s(backbone, 1)
    scores, pool4, pool3 = (looked_at(backbone, i, row, 600)[0] for i, row in ((2, 12), (1, 20), (0, 40)))
    middle = 1.5  # of a deconvolution with kernel 4
    place4 = 2 * 12 + middle + network.offset_pool4  # the row of pool4 that is joined to row 12 of the scores
    assert pool4 + 16 * (place4 - 20) == pytest.approx(scores)
    place3 = 2 * (2 * 12 + middle) + middle + network.offset_pool3
    assert pool3 + 8 * (place3 - 40) == pytest.approx(scores)


@pytest.mark.parametrize("name", COUNTS)
def test_logits_have_the_size_of_any_image(name: str):
    with torch.device("meta"):
        network = tiny(name)
        for h in (*range(1, 72, 11 if "googlenet" in name else 3), 224, 333):
            assert network(torch.empty(1, 3, h, 2 * h + 1))["out"].shape == (1, 4, h, 2 * h + 1)


def test_a_border_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="larger border_px"):
        FCN32s(VGG16(border_px=1, width_mult=1 / 64))


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (32, 16), (64, 32), (63, 32)])
def test_the_deconvolution_interpolates_linearly(kernel: int, stride: int):
    scores = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    enlarged = F.conv_transpose2d(scores, bilinear(2, kernel).double(), stride=stride)
    middle = (kernel - 1) / 2
    near, middle_of_map, far = int(middle) + 1, 2 * stride + 1, 4 * stride
    for row, column in ((near, far), (middle_of_map, near), (far, middle_of_map)):
        y, x = (row - middle) / stride, (column - middle) / stride  # in pixels of the scores
        i, j = math.floor(y), math.floor(x)
        a, b = y - i, x - j
        by_hand = (
            (1 - a) * (1 - b) * scores[0, :, i, j] + (1 - a) * b * scores[0, :, i, j + 1]
            + a * (1 - b) * scores[0, :, i + 1, j] + a * b * scores[0, :, i + 1, j + 1]
        )  # fmt: skip
        torch.testing.assert_close(enlarged[0, :, row, column], by_hand)


# Caffe's numbers, computed from Caffe's names -----------------------------------------------------------------------


def caffe_pool(x: Tensor, kernel: int, stride: int = 2) -> Tensor:
    """Caffe's MAX pooling: as many windows as begin inside, rounded up; the last may be cut."""
    for axis in (2, 3):
        count = math.ceil((x.shape[axis] - kernel) / stride) + 1
        windows = [x.narrow(axis, i * stride, min(kernel, x.shape[axis] - i * stride)) for i in range(count)]
        x = torch.cat([w.amax(axis, keepdim=True) for w in windows], axis)
    return x


def caffe_norm(x: Tensor) -> Tensor:
    """LRN across 5 channels, alpha 1e-4, beta 0.75."""
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    total = torch.stack([squares[:, i : i + x.shape[1]] for i in range(5)]).sum(0)
    return x / (1 + 1e-4 / 5 * total) ** 0.75


class Caffe:
    """The layers of a prototxt, with blobs by layer name."""

    def __init__(self, blobs: dict[str, Tensor]) -> None:
        self.blobs = blobs

    def conv(self, x: Tensor, name: str, pad: int = 1, relu: bool = True, **options: int) -> Tensor:
        x = F.conv2d(x, self.blobs[f"{name}.0"], self.blobs[f"{name}.1"], padding=pad, **options)
        return x.clamp(min=0) if relu else x

    def deconv(self, x: Tensor, name: str, stride: int) -> Tensor:
        return F.conv_transpose2d(x, self.blobs[f"{name}.0"], stride=stride)

    def vgg(self, data: Tensor) -> dict[str, Tensor]:
        """voc-fcn*/net.py, with all crop offsets as the prototxt files have them."""
        tops, x, pad = {}, data, 100
        for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
            for i in range(1, count + 1):
                x, pad = self.conv(x, f"conv{stage}_{i}", pad), 1
            x = tops[f"pool{stage}"] = caffe_pool(x, 2)
        tops["fc7"] = self.conv(self.conv(x, "fc6", 0), "fc7", 0)
        return tops

    def fcn32s(self, data: Tensor) -> Tensor:
        score = self.conv(self.vgg(data)["fc7"], "score_fr", 0, relu=False)
        return cut(self.deconv(score, "upscore", 32), 19, data)

    def fcn16s(self, data: Tensor) -> Tensor:
        tops = self.vgg(data)
        x = self.deconv(self.conv(tops["fc7"], "score_fr", 0, relu=False), "upscore2", 2)
        x = x + cut(self.conv(tops["pool4"], "score_pool4", 0, relu=False), 5, x)
        return cut(self.deconv(x, "upscore16", 16), 27, data)

    def fcn8s(self, data: Tensor, scale4: float = 1, scale3: float = 1) -> Tensor:
        tops = self.vgg(data)
        x = self.deconv(self.conv(tops["fc7"], "score_fr", 0, relu=False), "upscore2", 2)
        x = x + cut(self.conv(tops["pool4"] * scale4, "score_pool4", 0, relu=False), 5, x)
        x = self.deconv(x, "upscore_pool4", 2)
        x = x + cut(self.conv(tops["pool3"] * scale3, "score_pool3", 0, relu=False), 9, x)
        return cut(self.deconv(x, "upscore8", 8), 31, data)

    def fcn8s_atonce(self, data: Tensor) -> Tensor:
        return self.fcn8s(data, float(self.blobs["scale_pool4.0"][0]), float(self.blobs["scale_pool3.0"][0]))

    def alexnet(self, data: Tensor) -> Tensor:
        x = caffe_norm(caffe_pool(self.conv(data, "conv1", 100, stride=4), 3))
        x = caffe_norm(caffe_pool(self.conv(x, "conv2", 2, groups=2), 3))
        x = self.conv(self.conv(x, "conv3"), "conv4", groups=2)
        x = caffe_pool(self.conv(x, "conv5", groups=2), 3)
        x = self.conv(self.conv(self.conv(x, "fc6", 0), "fc7", 0), "score_fr", 0, relu=False)
        return cut(self.deconv(x, "upscore", 32), 18, data)

    def googlenet(self, data: Tensor) -> Tensor:
        """bvlc_googlenet's train_val.prototxt up to inception_5b, with the border of FCN."""
        x = caffe_norm(caffe_pool(self.conv(data, "conv1/7x7_s2", 100, stride=2), 3))
        x = self.conv(self.conv(x, "conv2/3x3_reduce", 0), "conv2/3x3")
        x = caffe_pool(caffe_norm(x), 3)
        for name in ["3a", "3b", "pool", "4a", "4b", "4c", "4d", "4e", "pool", "5a", "5b"]:
            if name == "pool":
                x = caffe_pool(x, 3)
                continue
            p = f"inception_{name}"
            around = caffe_pool(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 1)
            x = torch.cat(
                [
                    self.conv(x, f"{p}/1x1", 0),
                    self.conv(self.conv(x, f"{p}/3x3_reduce", 0), f"{p}/3x3"),
                    self.conv(self.conv(x, f"{p}/5x5_reduce", 0), f"{p}/5x5", 2),
                    self.conv(around, f"{p}/pool_proj", 0),
                ],
                1,
            )
        return x


def cut(x: Tensor, offset: int, like: Tensor) -> Tensor:
    return x[..., offset : offset + like.shape[2], offset : offset + like.shape[3]]


def family(name: str) -> Any:
    return next(f for f in families() if f.name == name)


@pytest.mark.parametrize(
    ("name", "theirs", "layers"),
    [
        ("fcn32s_vgg16", "caffe.fcn", "fcn32s"),
        ("fcn16s_vgg16", "caffe.fcn", "fcn16s"),
        ("fcn8s_vgg16", "caffe.fcn", "fcn8s"),
        ("fcn8s_atonce_vgg16", "caffe.fcn8s_atonce", "fcn8s_atonce"),
        ("fcn32s_alexnet", "caffe.fcn_alexnet", "alexnet"),
    ],
)
@pytest.mark.parametrize("size_hw", [(33, 17), (4, 20)])
def test_logits_are_those_of_the_caffe_network_on_a_bgr_picture(
    name: str, theirs: str, layers: str, size_hw: tuple[int, int]
):
    network, image = tiny(name), picture(*size_hw) * 50
    if "atonce" in name:  # so that the scaled skips are not lost beside the scores
        network.score_pool4.weight.data *= 100
        network.score_pool3.weight.data *= 10_000
    with torch.no_grad():
        network.upscore2.weight.normal_(0, 0.1) if hasattr(network, "upscore2") else None  # not only bilinear
        blobs = family(theirs).to_theirs(network.state_dict())
        expected = getattr(Caffe(blobs), layers)(image.flip(1))
        assert relative(network(image)["out"], expected) < 1e-5


@torch.no_grad()
def test_features_of_googlenet_are_those_of_caffe():
    encoder, image = shuffled(GoogLeNet(width_mult=1 / 8)), picture(45, 70)
    blobs = ENCODERS["googlenet_caffe"][0].to_theirs(encoder.state_dict())  # type: ignore[misc]
    assert relative(encoder(image)[0], Caffe(blobs).googlenet(image.flip(1))) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "theirs", "layers", "channels"),
    [
        ("fcn32s_vgg16", "caffe.fcn", "fcn32s", 1),
        ("fcn16s_vgg16", "caffe.fcn", "fcn16s", 5),
        ("fcn8s_vgg16", "caffe.fcn", "fcn8s", 1),
        ("fcn32s_alexnet", "caffe.fcn_alexnet", "alexnet", 5),
    ],
)
def test_logits_of_tiny_and_odd_images_of_any_channels_are_those_of_the_prototxt(
    name: str, theirs: str, layers: str, channels: int
):
    """Where the crop begins and which poolings round up shows at different remainders of 32."""
    network = tiny(name, in_channels=channels)
    caffe = Caffe(family(theirs).to_theirs(network.state_dict()))
    for size_hw in ((1, 1), (1, 3), (31, 2), (32, 33), (5, 64), (65, 18)):
        image = picture(*size_hw, channels=channels)  # other than three channels are not turned round
        assert relative(network(image)["out"], getattr(caffe, layers)(image)) < 1e-5


# torchvision's encoders ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_features_of_vgg16_are_torchvisions():
    """At its 224 pixels and border of 1 the convolutional classifier gives one pixel: the hidden layer's values."""
    cfg: list[str | int] = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
    reference = nn.Module()
    reference.features = make_layers(cfg)  # type: ignore[arg-type]
    reference.classifier = nn.Sequential(
        nn.Linear(32 * 49, 256),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(256, 9),
    )
    shuffled(reference)
    encoder = VGG16(border_px=1, width_mult=1 / 16).eval()
    load_encoder(encoder, "vgg16", dict(reference.state_dict()), progress=False)
    image = picture(224, 224)
    expected = reference.classifier[:5](reference.features(image).flatten(1))
    assert relative(encoder(image)[-1][..., 0, 0], expected) < 1e-5
    assert relative(encoder(image)[0], reference.features[:17](image)) < 1e-5


@torch.no_grad()
def test_features_of_alexnet_are_torchvisions():
    reference = shuffled(torchvision_models.alexnet())
    encoder = AlexNet(variant="torchvision", border_px=2).eval()
    load_encoder(encoder, "alexnet", dict(reference.state_dict()), progress=False)
    image = picture(224, 224)
    expected = reference.classifier[:6](reference.features(image).flatten(1))
    assert relative(encoder(image)[0][..., 0, 0], expected) < 1e-5


@torch.no_grad()
def test_features_of_googlenet_are_torchvisions():
    reference = torchvision_models.googlenet(aux_logits=True, init_weights=False, transform_input=True)
    shuffled(reference)
    encoder = GoogLeNet(variant="torchvision", border_px=3, transform_input=True).eval()
    load_encoder(encoder, "googlenet", dict(reference.state_dict()), progress=False)
    features: list[Tensor] = []
    reference.inception5b.register_forward_hook(lambda module, given, result: features.append(result))
    for size_hw in ((97, 130), (64, 65)):
        reference(picture(*size_hw))
        assert relative(encoder(picture(*size_hw))[0], features.pop()) < 1e-5


@pytest.mark.parametrize("kind", ENCODERS)
def test_backbones_come_back_from_every_familys_names(kind: str):
    name = {
        "vgg16": "fcn16s_vgg16", "caffenet": "fcn32s_alexnet", "alexnet": "fcn32s_alexnet_torchvision",
        "googlenet_caffe": "fcn32s_googlenet", "googlenet": "fcn32s_googlenet_torchvision",
    }[kind]  # fmt: skip
    source = tiny(name)
    for theirs in ENCODERS[kind]:
        tensors = theirs.to_theirs(source.backbone.state_dict())  # type: ignore[misc]
        leaf = "0" if theirs.name.startswith("caffe") else "weight"
        complete = {**tensors, **{drop.replace("*", leaf): torch.zeros(2) for drop in theirs.drops}}
        target = build(name, width_mult=TINY[name], num_classes=7, weights_backbone=complete)
        for key, tensor in source.backbone.state_dict().items():
            assert torch.equal(tensor, target.backbone.state_dict()[key]), key
        assert not target.score_fr.weight.any()
        renamed = {("x" + key if i == 3 else key): t for i, (key, t) in enumerate(complete.items())}
        with pytest.raises(WeightsError):
            build(name, width_mult=TINY[name], weights_backbone=renamed)


def test_backbones_of_another_kind_or_without_a_classifier_are_refused(tmp_path: Path):
    tensors = ENCODERS["vgg16"][0].to_theirs(VGG16(width_mult=1 / 16).state_dict())  # type: ignore[misc]
    with pytest.raises(WeightsError, match="expected those of AlexNet, torchvision names"):
        build("fcn32s_alexnet_torchvision", width_mult=1 / 16, weights_backbone=tensors)
    tensors["classifier.0.weight"] = tensors["classifier.0.weight"] * math.nan
    torch.save(tensors, tmp_path / "features.pth")
    with pytest.raises(WeightsError, match=r"fc6\.weight holds no finite numbers"):
        build("fcn8s_vgg16", width_mult=1 / 16, weights_backbone=tmp_path / "features.pth")
    with pytest.raises(UnknownNameError, match="VGG16_Weights"):
        build("fcn8s_vgg16", weights_backbone="IMAGENET2K")
    with pytest.raises(WeightsError, match="path of a file"):
        build("fcn32s_alexnet", weights_backbone="DEFAULT")


def test_old_caffe_files_store_vectors_and_matrices_with_four_axes():
    source = VGG16(width_mult=1 / 16)
    blobs = ENCODERS["vgg16"][1].to_theirs(source.state_dict())  # type: ignore[misc]
    old = {key: t.view((1,) * (4 - t.ndim) + t.shape) for key, t in blobs.items()} | {"fc8.0": torch.zeros(1)}
    loaded = load_encoder(VGG16(width_mult=1 / 16), "vgg16", old, progress=False)
    assert all(torch.equal(t, loaded.state_dict()[key]) for key, t in source.state_dict().items())


# Checkpoints of whole networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("fcn32s_vgg16", "caffe.fcn"),
        ("fcn16s_vgg16", "caffe.fcn"),
        ("fcn8s_vgg16", "caffe.fcn"),
        ("fcn8s_atonce_vgg16", "caffe.fcn8s_atonce"),
        ("fcn32s_alexnet", "caffe.fcn_alexnet"),
        ("fcn32s_vgg16", "wkentaro.fcn"),
        ("fcn16s_vgg16", "wkentaro.fcn"),
        ("fcn8s_vgg16", "wkentaro.fcn"),
    ],
)
def test_checkpoints_come_back_from_their_own_names(name: str, theirs: str, tmp_path: Path):
    source = tiny(name, num_classes=6, in_channels=3)
    tensors = family(theirs).to_theirs(source.state_dict())
    loaded = from_checkpoint(tensors)
    assert loaded.origin.model == name
    assert loaded.num_classes == 6
    assert loaded.state_dict().keys() == source.state_dict().keys()
    assert all(torch.equal(t, loaded.state_dict()[key]) for key, t in source.state_dict().items())
    again = family(theirs).to_theirs(loaded.state_dict())
    assert again.keys() == tensors.keys()
    assert all(torch.equal(t, again[key]) for key, t in tensors.items())

    torch.save(tensors, tmp_path / "file.pth")
    built = build(name, num_classes=6, width_mult=TINY[name], weights=tmp_path / "file.pth")
    assert torch.equal(built.score_fr.weight, source.score_fr.weight)

    missing = dict(list(tensors.items())[:2] + list(tensors.items())[3:])
    renamed = {key.replace("conv3", "conv33"): t for key, t in tensors.items()}
    reshaped = {
        key: t[..., :1] if key.startswith("conv3") and t.ndim > 1 else t for key, t in tensors.items()
    }
    for broken in (missing, renamed, reshaped):
        with pytest.raises(WeightsError):
            from_checkpoint(broken)


def test_lists_of_caffe_blobs_are_read():
    source = tiny("fcn8s_atonce_vgg16")
    blobs: dict[str, list[Any]] = {}
    for key, tensor in family("caffe.fcn8s_atonce").to_theirs(source.state_dict()).items():
        blobs.setdefault(key.rpartition(".")[0], []).append(tensor.numpy())
    loaded = from_checkpoint(blobs)
    assert (loaded.scale_pool4, loaded.scale_pool3) == (0.01, 0.0001)
    assert blobs["scale_pool4"][0].shape == (32,)
    assert torch.equal(loaded.score_pool3.bias, source.score_pool3.bias)


def test_an_at_once_copy_of_wkentaro_loads_into_the_at_once_network():
    source = tiny("fcn8s_atonce_vgg16")
    theirs = family("wkentaro.fcn").to_theirs(source.state_dict())
    assert len(theirs) == 39
    target = tiny("fcn8s_atonce_vgg16", num_classes=4)
    target.score_fr.weight.data.zero_()
    load_checkpoint(target, theirs)
    image = picture(20, 30)
    with torch.no_grad():
        assert torch.equal(target(image)["out"], source(image)["out"])


def test_wkentaros_names_are_the_layers_of_caffe():
    with torch.device("meta"):
        keys = list(family("wkentaro.fcn").to_theirs(build("fcn8s_vgg16").state_dict()))
    convolutions = [f"conv{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    layers = [*convolutions, "fc6", "fc7", "score_fr", "score_pool4", "score_pool3"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(keys) == expected | {f"upscore{end}.weight" for end in ("2", "8", "_pool4")}


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fcn16s_vgg16", "fcn8s_atonce_vgg16", "fcn32s_alexnet", *list(COUNTS)[-2:]])
def test_gradients_reach_every_parameter_that_learns_at_batch_size_one(name: str):
    network = tiny(name, deconvolution="learned").train()
    image = picture(20, 9)
    (network(image)["out"] * picture(20, 9, channels=4)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or "score" not in key, key
    reached = [bool(p.grad.any()) for p in network.parameters()]  # a few narrow layers may be dead
    assert sum(reached) > 0.9 * len(reached)


def test_the_release_learns_no_deconvolution_and_the_paper_all_but_the_last():
    def frozen(choice: Any) -> list[str]:
        network = FCN8s(VGG16(width_mult=1 / 64), 2, deconvolution=choice)
        return [name for name, p in network.named_parameters() if not p.requires_grad]

    everything = ["upscore2.weight", "upscore_pool4.weight", "upscore8.weight"]
    assert frozen("frozen") == everything
    assert frozen("inner") == everything[2:]
    assert frozen("learned") == []
    with pytest.raises(ValueError, match="'frozen', 'inner' or 'learned', got 'bilinear'"):
        frozen("bilinear")


def test_new_score_layers_begin_at_zero_and_deconvolutions_bilinear():
    network = FCN16s(VGG16(width_mult=1 / 64), 3)
    assert not any(p.any() for name, p in network.named_parameters() if name.startswith("score"))
    assert torch.equal(network.upscore16.weight, bilinear(3, 32))
    with torch.no_grad():
        assert not network.eval()(picture(30, 20))["out"].any()


def test_other_numbers_of_channels_and_misspelt_arguments():
    for channels in (1, 5):
        for name in ("fcn8s_vgg16", "fcn32s_alexnet", "fcn32s_googlenet"):
            image = picture(9, 12, channels=channels)
            with torch.no_grad():
                assert tiny(name, in_channels=channels)(image)["out"].shape == (1, 4, 9, 12)
    with pytest.raises(TypeError, match=r"'num_classes'"):
        build("fcn8s_vgg16", num_class=3)
    with pytest.raises(ValueError, match="transform_input is for 3 channels"):
        build("fcn32s_googlenet_torchvision", in_channels=1, transform_input=True)
    with pytest.raises(UnknownNameError, match="caffenet"):
        AlexNet(variant="caffnet")
    with pytest.raises(UnknownNameError, match="torchvision"):
        GoogLeNet(variant="torchvison")


# Export -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn8s_atonce_vgg16", "fcn32s_alexnet"])
def test_export_agrees_at_other_sizes(name: str, tmp_path: Path):
    logging.getLogger("torch.fx.experimental.symbolic_shapes").setLevel(logging.ERROR)
    network = tiny(name)
    assert (
        export_onnx(
            network, catalog.card_for(network), tmp_path / "fcn.onnx", checked_at=((33, 47), (61, 18))
        )
        < 1e-5
    )
