"""The six networks against torchvision's: same weights, same numbers; same calls, same results and errors."""

from __future__ import annotations

import copy
import importlib
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models as tv_models
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import segmentation as theirs

from pixelwise import catalog, models
from pixelwise.checkpoints.loading import from_checkpoint
from pixelwise.encoders.mobilenet_v3 import mobilenet_v3_large
from pixelwise.encoders.resnet import resnet
from pixelwise.errors import UnknownNameError, WeightsError
from pixelwise.layers import Network
from pixelwise.models import r_names
from pixelwise.weights import enums as conventions
from pixelwise.weights import store

torch.set_num_threads(2)

# Parameters, keys: with and without auxiliary head (specs/torchvision.md)
COUNTS = {
    "fcn_resnet50": ((35_322_218, 334), (32_957_013, 326)),
    "fcn_resnet101": ((54_314_346, 640), (51_949_141, 632)),
    "deeplabv3_resnet50": ((42_004_074, 370), (39_638_869, 362)),
    "deeplabv3_resnet101": ((60_996_202, 676), (58_630_997, 668)),
    "deeplabv3_mobilenet_v3_large": ((11_029_328, 360), (11_025_477, 352)),
    "lraspp_mobilenet_v3_large": ((3_221_538, 319), (3_221_538, 319)),
}
GIGA_MULTIPLY_ADDS_WITHOUT_AUX = {
    "fcn_resnet50": 142.726,
    "fcn_resnet101": 222.747,
    "deeplabv3_resnet50": 168.731,
    "deeplabv3_resnet101": 248.752,
    "deeplabv3_mobilenet_v3_large": 10.436,
    "lraspp_mobilenet_v3_large": 2.086,
}
BACKBONES = {"50": "ResNet50_Weights", "101": "ResNet101_Weights", "large": "MobileNet_V3_Large_Weights"}
NAMES = list(COUNTS)
SMALL = ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
every_network = pytest.mark.parametrize("name", NAMES)


def aux(name: str, wanted: bool = True) -> dict[str, Any]:
    return {} if name.startswith("lraspp") else {"aux_loss": wanted}


def peer(name: str) -> Callable[..., Any]:
    return getattr(theirs, name)


def ours(name: str) -> Callable[..., Any]:
    return getattr(models, name)


def on_meta(build: Callable[..., nn.Module], **arguments: Any) -> nn.Module:
    """The network without memory for its tensors: enough to count with."""
    with torch.device("meta"):
        return build(weights_backbone=None, **arguments)


@torch.no_grad()
def liven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms scales and statistics that keep the signal alive to the last layer, as training would."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.6, 1.4, generator=generator)
        norm.bias.uniform_(-0.2, 0.2, generator=generator)
        norm.momentum, usual = 1.0, norm.momentum  # take the statistics of the one batch below
        norm.usual = usual
    network.train()(torch.randn(2, 3, 64, 64, generator=generator))
    for norm in norms:
        norm.momentum = norm.__dict__.pop("usual")
        norm.running_mean.add_(0.1 * torch.randn(norm.num_features, generator=generator))
        norm.running_var.mul_(0.8 + 0.4 * torch.rand(norm.num_features, generator=generator))
    return network


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the range of b."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / (b.max() - b.min()))


# Numbers -----------------------------------------------------------------------------------------------------


@every_network
def test_logits_are_torchvisions_and_state_dicts_go_both_ways(name: str):
    torch.manual_seed(1)
    reference = liven(peer(name)(weights_backbone=None, **aux(name))).eval()
    network = on_meta(ours(name), **aux(name)).to_empty(device="cpu").eval()
    assert isinstance(network, Network)
    assert network.load_state_dict(reference.state_dict(), strict=True)
    assert list(network.state_dict()) == list(reference.state_dict())

    small = [(1, 1, 1), (2, 33, 65)]  # batch, height, width
    sizes = small if "101" in name else [*small, (1, 97, 64)] if "resnet" in name else [*small, (1, 161, 203)]
    with torch.no_grad():
        for n, *size in sizes:
            image = torch.randn(n, 3, *size)
            expected, got = reference(image), network(image)
            assert got.keys() == expected.keys()
            for key in expected:
                assert got[key].shape == (n, 21, *size)
                if size != [1, 1]:
                    assert expected[key].std(dim=(2, 3)).mean() > 0.02  # the picture shows in the logits
                assert difference(got[key], expected[key]) < 1e-4
            coarse = network.coarse(image)
            assert coarse.shape == (n, 21, -(-size[0] // network.stride), -(-size[1] // network.stride))
            full = F.interpolate(coarse, size, mode="bilinear", align_corners=network.align_corners)
            assert torch.equal(full, got["out"])
    assert on_meta(peer(name), **aux(name)).load_state_dict(network.state_dict(), strict=True, assign=True)


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_the_same_seed_gives_the_same_weights_training_loss_and_gradients(name: str):
    def train(build: Callable[..., nn.Module]) -> tuple[nn.Module, torch.Tensor]:
        torch.manual_seed(3)
        network = build(weights_backbone=None, num_classes=5, **aux(name)).train()
        torch.manual_seed(4)  # dropout
        image, target = torch.randn(2, 3, 65, 80), torch.randint(0, 5, (2, 65, 80))
        target[:, :9] = 255
        logits = network(image)
        loss = F.cross_entropy(logits["out"], target, ignore_index=255)
        if "aux" in logits:
            loss = loss + 0.5 * F.cross_entropy(logits["aux"], target, ignore_index=255)
        loss.backward()
        return network, loss

    (reference, expected), (network, loss) = train(peer(name)), train(ours(name))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for (key, parameter), (other, twin) in zip(
        network.named_parameters(), reference.named_parameters(), strict=True
    ):
        assert key == other
        assert torch.equal(parameter, twin), key
        scale = twin.grad.abs().max()
        assert (parameter.grad - twin.grad).abs().max() <= 1e-4 * scale + 1e-7, key
    for (key, buffer), (_, twin) in zip(network.named_buffers(), reference.named_buffers(), strict=True):
        assert torch.allclose(buffer, twin, rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_the_same_seed_gives_the_same_resnet(name: str):
    torch.manual_seed(5)
    reference = peer(name)(weights_backbone=None, aux_loss=True).state_dict()
    torch.manual_seed(5)
    network = ours(name)(weights_backbone=None, aux_loss=True).state_dict()
    assert list(network) == list(reference)
    assert all(torch.equal(network[key], reference[key]) for key in reference)


@every_network
def test_published_counts(name: str):
    card = catalog.entry(name).card
    assert card is not None
    for (parameters, keys), wanted in zip(COUNTS[name], (True, False), strict=True):
        network = on_meta(ours(name), **aux(name, wanted)).eval()
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert len(network.state_dict()) == keys
        assert list(network.state_dict()) == list(on_meta(peer(name), **aux(name, wanted)).state_dict())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, *card.multiply_adds_hw, device="meta"))
        multiply_adds = counter.get_total_flops() // 2  # the counter takes a multiply-add for two
        if wanted:  # as published
            assert (parameters, multiply_adds) == (card.parameters, card.multiply_adds)
        else:
            assert round(multiply_adds / 1e9, 3) == GIGA_MULTIPLY_ADDS_WITHOUT_AUX[name]
    assert (card.stride, card.align_corners) == (network.stride, network.align_corners)
    assert network.num_classes == card.labels.num_classes == 21
    assert ours(name).__name__ == name == card.name == card.architecture


@pytest.mark.parametrize(("stride", "hw"), [(8, (9, 13)), (16, (5, 7)), (32, (3, 4))])
def test_output_stride_of_resnets(stride: int, hw: tuple[int, int]):
    network = on_meta(models.fcn_resnet50, output_stride=stride)
    assert network.stride == stride
    assert network.coarse(torch.zeros(2, 3, 70, 101, device="meta")).shape == (2, 21, *hw)


def test_output_stride_32_is_an_undilated_resnet_with_the_same_keys_as_in_r():
    """R's FCN puts the same head on a plain ResNet."""
    network = liven(models.fcn_resnet50(weights_backbone=None, output_stride=32)).eval()
    plain = tv_models.resnet50(weights=None)
    plain.load_state_dict(
        {k.removeprefix("backbone."): v for k, v in network.state_dict().items() if k.startswith("backbone.")}
        | {k: v for k, v in plain.state_dict().items() if k.startswith("fc.")}
    )
    features = nn.Sequential(*list(plain.eval().children())[:-2])
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert difference(network.coarse(image), network.classifier(features(image))) < 1e-6
    assert list(network.state_dict()) == list(on_meta(theirs.fcn_resnet50).state_dict())


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v3_large"])
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_encoders_declare_what_they_return(name: str, size: tuple[int, int]):
    strides = {"resnet18": (32,), "resnet34": (32,), "resnet50": (8, 16, 32), "mobilenet_v3_large": (16, 32)}
    for output_stride in strides[name]:
        with torch.device("meta"):
            if name.startswith("resnet"):
                encoder: Any = resnet(name, output_stride=output_stride)
            else:
                encoder = mobilenet_v3_large(output_stride=output_stride)
        features = encoder(torch.zeros(1, 3, *size, device="meta"))
        assert encoder.strides[-1] == output_stride
        assert [tuple(f.shape[1:]) for f in features] == [
            (c, -(-size[0] // s), -(-size[1] // s))
            for c, s in zip(encoder.channels, encoder.strides, strict=True)
        ]


def test_encoder_arguments_that_cannot_be():
    with pytest.raises(UnknownNameError, match="did you mean 'resnet50'"):
        resnet("resnet5o")
    with pytest.raises(ValueError, match="8, 16 or 32, got 4"):
        resnet("resnet50", output_stride=4)
    with pytest.raises(ValueError, match="resnet34 cannot be dilated"):
        resnet("resnet34", output_stride=16)
    with pytest.raises(ValueError, match="16 or 32, got 8"):
        mobilenet_v3_large(output_stride=8)


def test_deeplab_says_why_it_cannot_train_on_one_image():
    network = models.deeplabv3_mobilenet_v3_large(weights_backbone=None, num_classes=2).train()
    image = torch.randn(1, 3, 48, 48)
    with pytest.raises(ValueError, match=r"cannot train on a batch of one image.*two or more"):
        network(image)
    with pytest.raises(ValueError, match="Expected more than 1 value"):  # the same type as torchvision's
        theirs.deeplabv3_mobilenet_v3_large(weights_backbone=None, num_classes=2).train()(image)
    network.classifier[0].convs[4].eval()
    assert network(image)["out"].shape == (1, 2, 48, 48)


def test_lraspp_trains_on_one_image():
    torch.manual_seed(0)
    network = models.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=2).train()
    network(torch.randn(1, 3, 48, 48))["out"].square().sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_a_replaced_head_changes_the_number_of_classes():
    """How tutorials fine-tune torchvision's networks."""
    network = models.deeplabv3_mobilenet_v3_large(weights_backbone=None).eval()
    network.classifier[4] = nn.Conv2d(256, 4, 1)
    assert network.num_classes == 4
    network.classifier = models.DeepLabHead(960, 3).eval()
    assert network.num_classes == 3
    assert network(torch.randn(1, 3, 40, 40))["out"].shape == (1, 3, 40, 40)


# Arguments ---------------------------------------------------------------------------------------------------

BAD = [
    {"weights": "DEFAULT", "num_classes": 5},
    {"weights": "COCO_WITH_VOC_LABELS_V1", "aux_loss": False},
    {"weights": "nonsense"},
    {"weights_backbone": "nonsense"},
    {"weights": tv_models.ResNet18_Weights.DEFAULT},
    {"weights_backbone": tv_models.ResNet18_Weights.DEFAULT},
]


@pytest.mark.parametrize("arguments", BAD)
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large"])
def test_what_torchvision_refuses_is_refused_with_the_same_type(name: str, arguments: dict[str, Any]):
    with pytest.raises(Exception) as expected:  # noqa: PT011  (whatever it raises is the expectation)
        peer(name)(**arguments)
    with pytest.raises(expected.type) as got:
        ours(name)(**arguments)
    assert isinstance(got.value, expected.type)
    assert len(str(got.value).splitlines()) == 1


def test_lraspp_has_no_auxiliary_head():
    for builder in (theirs.lraspp_mobilenet_v3_large, models.lraspp_mobilenet_v3_large):
        with pytest.raises(NotImplementedError, match="auxiliary"):
            builder(weights_backbone=None, aux_loss=True)
        assert set(on_meta(builder, aux_loss=False)(torch.zeros(1, 3, 32, 32, device="meta"))) == {"out"}


def test_messages_name_what_is_wrong_and_what_to_do():
    with pytest.raises(ValueError, match=r"num_classes must be 21 .* got 5; leave weights out"):
        models.fcn_resnet50(weights="DEFAULT", num_classes=5)
    with pytest.raises(KeyError, match="did you mean 'COCO_WITH_VOC_LABELS_V1'") as error:
        models.fcn_resnet50(weights="FCN_ResNet50_Weights.COCO_VOC_LABELS_V1")
    assert not str(error.value).startswith("'")
    with pytest.raises(
        TypeError, match=r"must be a member of FCN_ResNet50_Weights.* got FCN_ResNet101_Weights"
    ):
        models.fcn_resnet50(weights=models.FCN_ResNet101_Weights.DEFAULT)
    with pytest.raises(TypeError, match="no argument 'num_class'; did you mean 'num_classes'"):
        models.fcn_resnet50(num_class=4)
    with pytest.raises(TypeError, match="no argument 'weight_backbone'; did you mean 'weights_backbone'"):
        models.lraspp_mobilenet_v3_large(weight_backbone=None)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        models.fcn_resnet50(weights_backbone=None, num_classes=0)


@every_network
def test_defaults_are_torchvisions(name: str, monkeypatch: pytest.MonkeyPatch):
    """21 classes, no auxiliary head, a backbone with the first ImageNet weights, and no trained weights."""
    asked: list[str] = []

    def record(url: str, **_: Any) -> Any:
        asked.append(url)
        raise WeightsError("not here")

    monkeypatch.setattr(conventions, "state_dict_of", record)
    with torch.device("meta"), pytest.raises(WeightsError, match="not here"):
        ours(name)()
    enum = getattr(tv_models, next(enum for end, enum in BACKBONES.items() if name.endswith(end)))
    assert asked == [enum.IMAGENET1K_V1.url]
    with torch.device("meta"), pytest.raises(WeightsError, match="not here"):
        ours(name)(weights="DEFAULT", weights_backbone="IMAGENET1K_V2")  # trained weights need no backbone's
    assert asked[1:] == [peer_enum(name).DEFAULT.url]
    network = on_meta(ours(name))
    assert network.num_classes == 21
    assert not [key for key in network.state_dict() if key.startswith("aux")]


# Enums -------------------------------------------------------------------------------------------------------


def peer_enum(name: str) -> Any:
    return tv_models.get_model_weights(peer(name))


@every_network
def test_enums_say_what_torchvisions_say(name: str):
    enum, expected = models.get_model_weights(name), peer_enum(name)
    assert models.get_model_weights(ours(name)) is enum
    assert enum.__name__ == expected.__name__
    assert list(enum.__members__) == list(expected.__members__)
    assert enum.DEFAULT is enum.COCO_WITH_VOC_LABELS_V1
    assert repr(enum.DEFAULT) == repr(expected.DEFAULT)
    assert enum.DEFAULT.url == expected.DEFAULT.url
    meta, reference = dict(enum.DEFAULT.meta), dict(expected.DEFAULT.meta)
    assert meta.keys() == reference.keys()
    for key in ("_docs", "recipe"):  # our own words; torchvision swaps two of the links
        assert meta.pop(key)
        del reference[key]
    assert meta == reference
    assert enum.DEFAULT.meta["recipe"].endswith(f"#{name}")


def test_enum_members_survive_copies_and_pickles():
    member = models.FCN_ResNet50_Weights.DEFAULT
    assert copy.deepcopy(member) is member
    assert pickle.loads(pickle.dumps(member)) is member
    assert models.FCN_ResNet50_Weights["DEFAULT"] is member
    assert models.FCN_ResNet50_Weights.verify("DEFAULT") is member
    assert models.FCN_ResNet50_Weights.verify(None) is None


def test_torchvisions_own_member_is_understood():
    assert (
        models.FCN_ResNet50_Weights.verify(theirs.FCN_ResNet50_Weights.DEFAULT)
        is models.FCN_ResNet50_Weights.DEFAULT
    )


def pictures() -> list[Any]:
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (37, 90, 3), np.uint8)
    every_value = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tall = torch.from_numpy(random.integers(0, 256, (3, 700, 531), np.uint8))
    return [
        Image.fromarray(wide),
        Image.fromarray(every_value),
        Image.fromarray(random.integers(0, 256, (800, 600, 3), np.uint8)),
        Image.fromarray(random.integers(0, 256, (520, 611, 3), np.uint8)),
        tall,
        tall[None].repeat(2, 1, 1, 1),
        tall.float() / 255,
        torch.rand(2, 3, 64, 47),
    ]


@pytest.mark.parametrize("index", range(8))
def test_transforms_are_torchvisions_bit_for_bit(index: int):
    image = pictures()[index]
    transform = models.FCN_ResNet50_Weights.DEFAULT.transforms()
    expected = theirs.FCN_ResNet50_Weights.DEFAULT.transforms()
    before = image.clone() if isinstance(image, torch.Tensor) else np.array(image)
    got = transform(image)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected(image))
    assert np.array_equal(np.asarray(image), np.asarray(before))


def test_transforms_take_torchvisions_options():
    mode = importlib.import_module("torchvision.transforms").InterpolationMode.NEAREST
    image = pictures()[0]
    for options in ({"resize_size": None}, {"resize_size": 33, "mean": (0, 0, 0)}, {"interpolation": mode}):
        got = models.FCN_ResNet50_Weights.DEFAULT.transforms(**options)(image)
        assert torch.equal(got, theirs.FCN_ResNet50_Weights.DEFAULT.transforms(**options)(image))
    assert "520" in repr(models.FCN_ResNet50_Weights.DEFAULT.transforms())
    assert "520" in models.FCN_ResNet50_Weights.DEFAULT.transforms().describe()


def test_a_grey_picture_fails_as_in_torchvision():
    with pytest.raises(RuntimeError):
        theirs.FCN_ResNet50_Weights.DEFAULT.transforms()(Image.new("L", (40, 40)))
    with pytest.raises(RuntimeError):
        models.FCN_ResNet50_Weights.DEFAULT.transforms()(Image.new("L", (40, 40)))


# Names -------------------------------------------------------------------------------------------------------


def test_list_models_filters_like_torchvision():
    assert set(NAMES) <= set(models.list_models())
    for arguments in (
        {"include": "fcn*"},
        {"include": ["*50", "lraspp*"]},
        {"exclude": "*resnet*"},
        {"include": "*resnet*", "exclude": ["*101", "deep*"]},
        {"include": "nothing*"},
    ):
        expected = tv_models.list_models(module=theirs, **arguments)
        assert [name for name in models.list_models(**arguments) if name in NAMES] == expected
    assert set(models.list_models(models)) == set(models.list_models())
    assert models.list_models(importlib.import_module("pixelwise.models.segmentation.lraspp")) == [
        "lraspp_mobilenet_v3_large"
    ]
    assert models.list_models(theirs) == []


def test_get_model_and_friends_like_torchvision():
    assert models.get_model_builder("FCN_ResNet50") is models.fcn_resnet50
    with torch.device("meta"):
        network = models.get_model("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=3)
    assert isinstance(network, models.LRASPP)
    assert network.num_classes == 3
    name = "DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1"
    assert models.get_weight(name) is models.DeepLabV3_ResNet50_Weights.DEFAULT
    assert repr(tv_models.get_weight(name)) == repr(models.get_weight(name))
    for call, argument in (
        ("get_weight", "DEFAULT"),
        ("get_weight", "a.b.c"),
        ("get_weight", "FCN_Weights.DEFAULT"),
        ("get_weight", "FCN_ResNet50_Weights.NONE"),
        ("get_model", "unknown"),
        ("get_model_weights", "unknown"),
        ("get_model_weights", len),
    ):
        with pytest.raises(Exception) as expected:  # noqa: PT011  (whatever it raises is the expectation)
            getattr(tv_models, call)(argument)
        with pytest.raises(expected.type):
            getattr(models, call)(argument)
    with pytest.raises(ValueError, match="did you mean 'fcn_resnet50'"):
        models.get_model("fcn_resnet5")
    with pytest.raises(ValueError, match="did you mean 'FCN_ResNet50_Weights'"):
        models.get_weight("FCN_ResNet5_Weights.DEFAULT")


def test_every_public_name_of_models_exists():
    for name in models.__all__:
        assert getattr(models, name) is not None
        assert name in dir(models)
    with pytest.raises(AttributeError, match="no attribute 'fcn_resnet18'"):
        _ = models.fcn_resnet18


def test_the_names_for_type_checkers_are_the_names_at_run_time():
    source = Path(models.__file__).read_text()
    block = source[source.index("if TYPE_CHECKING") : source.index("_PUBLIC =")]
    for name, module in models._PUBLIC.items():
        if module.startswith("pixelwise."):
            assert f"{name} as {name}" in block, name


def test_the_catalog_is_one_table():
    assert set(NAMES) | {"everyday", "nuclei"} <= set(catalog.list_models())
    assert catalog.list_models("deeplabv3_resnet???") == ["deeplabv3_resnet101"]
    for name in NAMES:
        row = catalog.entry(name)
        assert models.builder_of(name) is ours(name)
        assert row.url == peer_enum(name).DEFAULT.url
        assert row.card.file.removesuffix(".pth").endswith(row.card.sha256)
        assert type(row.card).from_json(row.card.to_json()) == row.card
        assert {score.metric: score.value for score in row.card.scores} == {
            "mean IoU": pytest.approx(
                peer_enum(name).DEFAULT.meta["_metrics"]["COCO-val2017-VOC-labels"]["miou"] / 100
            ),
            "pixel accuracy": pytest.approx(
                peer_enum(name).DEFAULT.meta["_metrics"]["COCO-val2017-VOC-labels"]["pixel_acc"] / 100
            ),
        }
    assert catalog.entry("everyday").asset == "everyday.onnx"
    assert catalog.entry("everyday").url is None
    with pytest.raises(UnknownNameError, match="did you mean 'everyday'"):
        catalog.entry("every_day")


@every_network
def test_a_file_of_torchvisions_is_recognised_with_its_depth_its_classes_and_its_auxiliary_head(name: str):
    for wanted in (False,) if name.startswith("lraspp") else (False, True):
        with torch.device("meta"):
            theirs = peer(name)(weights_backbone=None, num_classes=5, **aux(name, wanted)).state_dict()
            network = from_checkpoint(theirs)
        assert network.origin.model == name
        assert {key: t.shape for key, t in network.state_dict().items()} == {
            k: t.shape for k, t in theirs.items()
        }


# Weights and old spellings -----------------------------------------------------------------------------------


@pytest.fixture
def local_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with torchvision-made random files of the small networks under their official names.

    Random files cannot have the official hash, so for once a file's hash is what its name says.
    """
    for name in SMALL:
        network = peer(name)(weights_backbone=None, **aux(name))
        torch.save(network.state_dict(), tmp_path / peer_enum(name).DEFAULT.url.rpartition("/")[2])
    backbone = tv_models.mobilenet_v3_large(weights=None)
    file = tv_models.MobileNet_V3_Large_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(backbone.state_dict(), tmp_path / file)
    monkeypatch.setenv("PIXELWISE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    monkeypatch.setattr(store, "digest", lambda path: path.stem.rpartition("-")[2])
    return tmp_path


@pytest.mark.parametrize("name", SMALL)
def test_every_spelling_of_trained_weights_loads_the_file(name: str, local_weights: Path):
    enum = models.get_model_weights(name)
    file = local_weights / enum.DEFAULT.url.rpartition("/")[2]
    expected = torch.load(file, weights_only=True)
    for weights in (
        "DEFAULT",
        f"{enum.__name__}.COCO_WITH_VOC_LABELS_V1",
        enum.DEFAULT,
        peer_enum(name).DEFAULT,
    ):
        state = ours(name)(weights=weights, progress=False).state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    with pytest.warns(UserWarning, match=r"pretrained=True is deprecated, write weights="):
        old = ours(name)(pretrained=True)
    with pytest.warns(UserWarning, match="deprecated") as seen:
        older = ours(name)(True, False)
    assert ["positional" in str(w.message) for w in seen] == [True, False]
    assert {w.filename for w in seen} == {__file__}
    for network in (old, older):
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert list(enum.DEFAULT.get_state_dict(progress=False)) == list(expected)


def test_backbone_weights_load_into_the_backbone(local_weights: Path):
    file = local_weights / tv_models.MobileNet_V3_Large_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    expected = torch.load(file, weights_only=True)
    network = models.lraspp_mobilenet_v3_large(num_classes=3, progress=False)
    with pytest.warns(UserWarning, match="deprecated") as seen:
        old = models.deeplabv3_mobilenet_v3_large(pretrained_backbone=True, pretrained=False)
    assert [str(w.message).split(": ")[1].split(" is")[0] for w in seen] == [
        "pretrained=False",
        "pretrained_backbone=True",
    ]
    for state in (network.backbone.state_dict(), old.backbone.state_dict()):
        assert all(torch.equal(value, expected[f"features.{key}"]) for key, value in state.items())
    with pytest.warns(UserWarning, match="deprecated"):
        plain = models.lraspp_mobilenet_v3_large(pretrained_backbone=False)
    assert not torch.equal(plain.state_dict()["backbone.0.0.weight"], expected["features.0.0.weight"])


def test_old_spellings_that_contradict_or_make_no_sense():
    with pytest.raises(TypeError, match="once, by keyword"):
        models.fcn_resnet50(None, weights=None)
    with (
        pytest.warns(UserWarning, match="deprecated"),
        pytest.raises(ValueError, match="num_classes must be 21"),
    ):
        models.fcn_resnet50(pretrained=True, num_classes=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert on_meta(models.fcn_resnet50, weights=None).num_classes == 21


@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"]
)
def test_names_from_r_build_the_same_networks(name: str, monkeypatch: pytest.MonkeyPatch):
    build = getattr(models, f"model_{name}")
    with torch.device("meta"):
        with pytest.warns(FutureWarning, match=rf"write pixelwise.models.{name}\("):
            network = build(False, True, 4, True, False)
        expected = ours(name)(num_classes=4, aux_loss=True, weights_backbone=None)
        with pytest.warns(FutureWarning):
            plain = build(pretrained_backbone=False, output_stride=32)
    assert type(network) is type(expected)
    assert network.state_dict().keys() == expected.state_dict().keys()
    assert (network.num_classes, network.stride) == (4, 8)
    assert (plain.num_classes, plain.stride, plain.aux_classifier) == (21, 32, None)

    called: list[dict[str, Any]] = []
    monkeypatch.setitem(r_names.BUILDERS, name, lambda **arguments: called.append(arguments))
    with pytest.warns(FutureWarning):
        build()
    with pytest.warns(FutureWarning):
        build(pretrained=True)
    assert [call["weights"] for call in called] == [None, "DEFAULT"]
    r_default = "IMAGENET1K_V1" if name.startswith("fcn") else None
    assert [call["weights_backbone"] for call in called] == [r_default, None]
    monkeypatch.undo()
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="num_classes must be 21"):
        build(pretrained=True, num_classes=3)
