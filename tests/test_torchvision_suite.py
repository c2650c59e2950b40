"""What torchvision's tests ask of its segmentation networks, in our words, asked of both: theirs and ours beside them.

Their test files compare with stored answers of random networks; here both sides have the same weights and must agree.
Left out is what names classes and functions that torchvision keeps to itself.
"""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections import OrderedDict
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision.models as tv_models
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

import pixelwise.models as our_models
from pixelwise.errors import InputError
from pixelwise.foreign import as_network
from pixelwise.inference.preprocess import Preprocess
from pixelwise.layers import Network

torch.set_num_threads(2)

SIDES: dict[str, ModuleType] = {"torchvision": tv_models, "pixelwise": our_models}
ENUMS = {
    "fcn_resnet50": "FCN_ResNet50_Weights",
    "fcn_resnet101": "FCN_ResNet101_Weights",
    "deeplabv3_resnet50": "DeepLabV3_ResNet50_Weights",
    "deeplabv3_resnet101": "DeepLabV3_ResNet101_Weights",
    "deeplabv3_mobilenet_v3_large": "DeepLabV3_MobileNet_V3_Large_Weights",
    "lraspp_mobilenet_v3_large": "LRASPP_MobileNet_V3_Large_Weights",
}
every_network = pytest.mark.parametrize("name", ENUMS)
ours_and_theirs = pytest.mark.parametrize("models", SIDES.values(), ids=SIDES)
quick_and_slow = pytest.mark.parametrize(
    "name", [name if "lraspp" in name else pytest.param(name, marks=pytest.mark.slow) for name in ENUMS]
)
scripting = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
)


def built(models: ModuleType, name: str, **arguments: Any) -> nn.Module:
    """The network with random weights, always the same ones, and norms that are not the identity."""
    torch.manual_seed(0)
    network = getattr(models.segmentation, name)(weights_backbone=None, **{"num_classes": 10, **arguments})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return network.eval()


def on_meta(models: ModuleType, name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return getattr(models.segmentation, name)(weights_backbone=None, **arguments)


def close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Equal to a ten-thousandth of the range of the logits."""
    assert list(got) == list(expected)
    for key in expected:
        span = float(expected[key].detach().max() - expected[key].detach().min())
        torch.testing.assert_close(got[key], expected[key], rtol=0, atol=1e-4 * span)
    return True


def reloaded(script: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    return torch.jit.load(file)


# The networks ------------------------------------------------------------------------------------------------


@scripting
@quick_and_slow
@torch.no_grad()
def test_a_network_eager_scripted_saved_and_traced_gives_torchvisions_logits(name: str):
    more = {} if name.startswith("lraspp") else {"aux_loss": True}
    theirs, network = built(tv_models, name, **more), built(our_models, name, **more)
    assert list(network.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(network.state_dict()[key], value) for key, value in theirs.state_dict().items())
    image = torch.rand(1, 3, 65, 65)
    expected = theirs(image)
    assert type(network(image)) is type(expected) is OrderedDict
    assert close(network(image), expected)
    script = torch.jit.script(network)
    with torch.jit.optimized_execution(False):  # twice as quick, the same arithmetic
        assert close(script(image), expected)
        assert close(reloaded(script)(image), expected)
    assert close(torch.fx.symbolic_trace(network)(image), expected)


@pytest.mark.slow
@scripting
@pytest.mark.parametrize("name", [name for name in ENUMS if "101" not in name])
def test_scripts_and_graphs_of_both_in_training(name: str):
    """Theirs are scripted in evaluation only; a script that trains is asked of both."""
    image = torch.rand(2, 3, 65, 65)
    for models in SIDES.values():
        network = built(models, name).train()
        for made in (torch.jit.script(network), torch.fx.symbolic_trace(network)):
            network.zero_grad()
            with torch.jit.optimized_execution(False):
                made(image)["out"].square().mean().backward()
            assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.slow
@scripting
@pytest.mark.parametrize("name", [name for name in ENUMS if "mobilenet" in name])
@torch.no_grad()
def test_a_network_compiled_exported_and_traced_by_example_answers_alike(name: str):
    network, image = built(our_models, name), torch.rand(1, 3, 65, 65)
    expected = network(image)
    exported = torch.export.export(network, (image,), strict=True).module()(image)
    assert type(exported) is OrderedDict
    assert close(exported, expected)
    assert close(torch.compile(network, backend="aot_eager")(image), expected)
    assert close(torch.jit.trace(network, image, strict=False)(image), expected)


@ours_and_theirs
@quick_and_slow
def test_gradients_reach_the_picture(models: ModuleType, name: str):
    image = torch.rand(1, 3, 33, 33, requires_grad=True)
    built(models, name)(image)["out"].sum().backward()
    assert image.grad is not None
    assert image.grad.any()


@ours_and_theirs
@quick_and_slow
@torch.no_grad()
def test_copies_and_pickles_of_a_network_answer_alike(models: ModuleType, name: str):
    network, image = built(models, name), torch.rand(1, 3, 33, 33)
    expected = network(image)
    assert close(copy.deepcopy(network)(image), expected)
    assert close(pickle.loads(pickle.dumps(network))(image), expected)


@ours_and_theirs
@torch.no_grad()
def test_half_precision(models: ModuleType):
    network, image = built(models, "lraspp_mobilenet_v3_large"), torch.rand(1, 3, 33, 33)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(image)["out"].shape == (1, 10, 33, 33)
    assert network.bfloat16()(image.bfloat16())["out"].dtype == torch.bfloat16


# Names -------------------------------------------------------------------------------------------------------


@ours_and_theirs
@every_network
def test_a_network_by_its_name(models: ModuleType, name: str):
    assert models.segmentation.__dict__[name] is getattr(models.segmentation, name)
    assert models.get_model_builder(name) is getattr(models.segmentation, name)
    assert models.get_model_builder(name.upper()) is getattr(models.segmentation, name)
    assert models.get_model_weights(name) is getattr(models.segmentation, ENUMS[name])
    assert models.get_model_weights(getattr(models.segmentation, name)) is models.get_model_weights(name)
    with torch.device("meta"):
        network = models.get_model(name, weights=None, weights_backbone=None)
    kind = {"fcn": "FCN", "dee": "DeepLabV3", "lra": "LRASPP"}[name[:3]]
    assert type(network) is getattr(models.segmentation, kind)


@ours_and_theirs
def test_list_models_tells_the_functions_of_the_namespace(models: ModuleType):
    """Their test reads the namespace's dictionary, so nothing else there may be a function."""
    functions = {
        value.__name__
        for key, value in models.segmentation.__dict__.items()
        if callable(value) and key[0].islower() and not key.startswith("_")
    }
    assert functions == set(models.list_models(models.segmentation)) == set(ENUMS)


FILTERS = [
    None, [], (), {}, "*resnet*", ["*lraspp*"], "*nothing-of-the-kind?", ["*resnet50", "*lraspp*"], {"*50", "*101"},
    {"*resnet*": "as a dictionary", "*large*": "too"},
]  # fmt: skip
"""Numbered in the names of tests: a set prints itself otherwise in each process."""


@pytest.mark.parametrize("include", FILTERS, ids=range(len(FILTERS)))
@pytest.mark.parametrize("exclude", FILTERS, ids=range(len(FILTERS)))
def test_list_models_filters(include: Any, exclude: Any):
    got, expected = (
        models.list_models(models.segmentation, include=include, exclude=exclude)
        for models in (our_models, tv_models)
    )
    assert got == expected


@ours_and_theirs
def test_the_parts_have_torchvisions_places(models: ModuleType):
    parts = {
        "fcn": "FCN FCNHead FCN_ResNet50_Weights FCN_ResNet101_Weights fcn_resnet50 fcn_resnet101",
        "deeplabv3": "DeepLabV3 DeepLabHead ASPP ASPPConv ASPPPooling DeepLabV3_ResNet50_Weights deeplabv3_resnet50 "
        "DeepLabV3_ResNet101_Weights DeepLabV3_MobileNet_V3_Large_Weights deeplabv3_mobilenet_v3_large",
        "lraspp": "LRASPP LRASPPHead LRASPP_MobileNet_V3_Large_Weights lraspp_mobilenet_v3_large",
    }
    for file, names in parts.items():
        module = getattr(models.segmentation, file)
        assert module.__name__ == f"{models.segmentation.__name__}.{file}"
        for name in names.split():
            assert getattr(module, name).__module__ == module.__name__
            if "Head" not in name and "ASPP" not in name:
                assert models.segmentation.__dict__[name] is getattr(module, name)


def test_a_star_import_brings_every_name_of_torchvisions():
    brought: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    exec("from pixelwise.models.segmentation import *", brought)
    exec("from torchvision.models.segmentation import *", theirs)
    assert {name for name in theirs if not name.startswith("_")} <= set(brought)


# Weights -----------------------------------------------------------------------------------------------------


@ours_and_theirs
@every_network
def test_members_of_an_enum_are_one_each(models: ModuleType, name: str):
    enum = models.get_model_weights(name)
    assert len(enum) == 1
    for member in enum:
        assert copy.copy(member) is copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is member
        assert models.get_weight(f"{ENUMS[name]}.{member.name}") is member
        assert models.get_weight(str(member)) is member
        assert member.name.isupper()
    assert models.get_weight(f"{ENUMS[name]}.DEFAULT") is enum.DEFAULT


@ours_and_theirs
@quick_and_slow
def test_the_facts_of_weights_are_complete(models: ModuleType, name: str):
    facts = models.get_model_weights(name).DEFAULT.meta
    wanted = {"categories", "_metrics", "min_size", "num_params", "recipe", "_docs", "_file_size", "_ops"}
    assert set(facts) == wanted
    assert set(facts["_metrics"]["COCO-val2017-VOC-labels"]) == {"miou", "pixel_acc"}
    network = on_meta(models, name, **({} if name.startswith("lraspp") else {"aux_loss": True}))
    assert sum(parameter.numel() for parameter in network.parameters()) == facts["num_params"]
    assert len(facts["categories"]) == 21


@scripting
@quick_and_slow
def test_transforms_can_be_scripted(name: str):
    image = torch.rand(1, 3, 67, 91)
    expected = tv_models.get_model_weights(name).DEFAULT.transforms()(image)
    transforms = our_models.get_model_weights(name).DEFAULT.transforms()
    assert torch.equal(transforms(image), expected)
    script = torch.jit.script(transforms)
    assert torch.equal(script(image), expected)
    assert torch.equal(reloaded(script)(image), expected)


@scripting
def test_a_script_of_transforms_takes_bytes_and_sizes():
    image = torch.randint(0, 256, (3, 67, 91), dtype=torch.uint8)
    for options in ({}, {"resize_size": None}, {"resize_size": 33}):
        name = "FCN_ResNet50_Weights.DEFAULT"
        ours, theirs = (models.get_weight(name).transforms(**options) for models in (our_models, tv_models))
        assert torch.equal(torch.jit.script(ours)(image), theirs(image))


# Old calls ---------------------------------------------------------------------------------------------------


@ours_and_theirs
@pytest.mark.parametrize("arguments", [{}, {"weights": None}], ids=str)
def test_what_is_not_old_gives_no_warning(models: ModuleType, arguments: dict[str, Any]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_meta(models, "lraspp_mobilenet_v3_large", **arguments)


@ours_and_theirs
@pytest.mark.parametrize("old", ["pretrained", "weights"])
def test_no_pretrained_weights_in_old_words(models: ModuleType, old: str):
    with pytest.warns(UserWarning, match="deprecated"):
        on_meta(models, "lraspp_mobilenet_v3_large", **{old: False})


@ours_and_theirs
def test_positional_arguments(models: ModuleType):
    with torch.device("meta"), pytest.warns(UserWarning, match="positional") as seen:
        network = models.segmentation.deeplabv3_mobilenet_v3_large(None, False, 5, True, None)
    assert len(seen) == 1
    assert network.classifier[4].out_channels == network.aux_classifier[4].out_channels == 5


@ours_and_theirs
def test_pretrained_means_the_trained_weights(models: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """As `segmentation.deeplabv3_resnet101(pretrained=True)` of old tutorials; the file is not fetched here."""
    asked: list[str] = []
    enum = models.segmentation.DeepLabV3_ResNet101_Weights

    def file(self: Any, *_: Any, **__: Any) -> Any:
        asked.append(str(self))
        return on_meta(models, "deeplabv3_resnet101", aux_loss=True).state_dict()

    monkeypatch.setattr(enum, "get_state_dict", file)
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
    with torch.device("meta"), pytest.warns(UserWarning) as seen:  # noqa: PT030  (what they say is looked at below)
        network = models.segmentation.deeplabv3_resnet101(pretrained=True)
    said = " ".join(str(warning.message) for warning in seen)
    assert "pretrained" in said
    assert "deprecated" in said
    assert "weights=DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1" in said
    assert asked == ["DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1"]
    assert network.aux_classifier is not None


# Parts of one's own ------------------------------------------------------------------------------------------


def tiny_backbone(**names: str) -> nn.Module:
    torch.manual_seed(1)
    return IntermediateLayerGetter(tv_models.resnet18(weights=None), names)


@scripting
@pytest.mark.parametrize("kind", ["DeepLabV3", pytest.param("FCN", marks=pytest.mark.slow)])
def test_a_backbone_that_gives_a_dictionary(kind: str):
    """As in tutorials: a ResNet-18 under either network, which neither library has a function for."""
    image, answers = torch.rand(2, 3, 65, 97), []
    for models in (tv_models, our_models):
        space = models.segmentation
        backbone = tiny_backbone(layer3="aux", layer4="out")
        torch.manual_seed(2)
        head = space.deeplabv3.DeepLabHead(512, 4) if kind == "DeepLabV3" else space.fcn.FCNHead(512, 4)
        network = getattr(space, kind)(backbone, head, space.fcn.FCNHead(256, 4)).eval()
        answers.append(network(image))
        if models is our_models:  # theirs warn of their own declaration
            with torch.jit.optimized_execution(False):
                assert close(torch.jit.script(network)(image), answers[0])
        network.aux_classifier = None
        assert list(network(image)) == ["out"]
    assert close(answers[1], answers[0])
    assert isinstance(network, Network)
    assert (network.num_classes, network.stride) == (4, 32)
    assert network.coarse(image).shape == (2, 4, 3, 4)
    assert as_network(network, Preprocess(), align_corners=False) is network


def test_lraspp_on_a_backbone_of_ones_own():
    image, answers = torch.rand(2, 3, 65, 97), []
    for models in (tv_models, our_models):
        backbone = tiny_backbone(layer2="low", layer4="high")
        torch.manual_seed(2)
        network = models.segmentation.LRASPP(backbone, 128, 512, 4, 32).eval()
        answers.append(network(image))
    assert close(answers[1], answers[0])
    assert (network.num_classes, network.stride) == (4, 8)
    torch.manual_seed(2)
    head = our_models.segmentation.lraspp.LRASPPHead(128, 512, 4, 32).eval()
    torch.testing.assert_close(head(network.backbone(image)), network.coarse(image))


def test_parts_are_replaced_as_in_torchvision():
    image, answers = torch.rand(1, 3, 65, 65), []
    for models in (tv_models, our_models):
        network = built(models, "deeplabv3_mobilenet_v3_large", num_classes=21, aux_loss=True)
        torch.manual_seed(3)
        network.classifier = models.segmentation.deeplabv3.DeepLabHead(960, 5)
        network.classifier[4] = nn.Conv2d(256, 7, 1)
        network.aux_classifier = None
        network.eval()
        answers.append(network(image))
        assert list(answers[-1]) == ["out"]
        network.backbone = tiny_backbone(layer4="out")
        network.classifier = models.segmentation.fcn.FCNHead(512, 3)
        answers.append(network.eval()(image))
    assert close(answers[2], answers[0])
    assert close(answers[3], answers[1])
    assert (network.num_classes, network.stride) == (3, 32)


@ours_and_theirs
def test_features_of_the_backbone_have_names(models: ModuleType):
    image = torch.zeros(1, 3, 64, 64, device="meta")
    features = on_meta(models, "fcn_resnet50", aux_loss=True).eval().backbone(image)
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "aux": (1, 1024, 8, 8), "out": (1, 2048, 8, 8)
    }  # fmt: skip
    features = on_meta(models, "lraspp_mobilenet_v3_large").eval().backbone(image)
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "low": (1, 40, 8, 8), "high": (1, 960, 4, 4)
    }  # fmt: skip
    network = on_meta(models, "deeplabv3_mobilenet_v3_large")
    assert isinstance(network.backbone, IntermediateLayerGetter)
    assert type(network.classifier[0].convs[1]) is models.segmentation.deeplabv3.ASPPConv
    assert type(network.classifier[0].convs[4]) is models.segmentation.deeplabv3.ASPPPooling


@pytest.mark.parametrize("part", ["ASPP", "ASPPConv", "ASPPPooling", "DeepLabHead", "FCNHead"])
def test_a_part_made_alone_is_torchvisions(part: str):
    arguments = {"ASPP": (8, [1, 2, 3], 16), "ASPPConv": (8, 16, 3), "ASPPPooling": (8, 16)}.get(part, (8, 4))
    parts = []
    for models in (tv_models, our_models):
        file = models.segmentation.fcn if part == "FCNHead" else models.segmentation.deeplabv3
        torch.manual_seed(4)
        parts.append(getattr(file, part)(*arguments).eval())
    theirs, ours = parts
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert str(ours) == str(theirs)
    image = torch.rand(2, 8, 9, 7)
    torch.testing.assert_close(ours(image), theirs(image))


# What goes wrong ---------------------------------------------------------------------------------------------


def test_a_backbone_without_names_is_refused_with_the_way_out():
    network = our_models.DeepLabV3(nn.Conv2d(3, 8, 1), our_models.DeepLabHead(8, 2)).eval()
    with pytest.raises(InputError, match=r"backbone Conv2d must give its features by name.*gave a Tensor"):
        network(torch.rand(1, 3, 8, 8))
    network.backbone = IntermediateLayerGetter(nn.Sequential(nn.Conv2d(3, 8, 1)), {"0": "out"})
    assert network(torch.rand(1, 3, 8, 8))["out"].shape == (1, 2, 8, 8)  # as the message says
    with pytest.raises(TypeError, match=r"takes modules.*got classifier=21"):
        our_models.FCN(nn.Identity(), 21)


def test_a_stride_that_cannot_be_measured_is_asked_for():
    class Fussy(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            assert image.shape[-1] == 224, "only 224"
            return {"out": image[..., ::16, ::16]}

    network = our_models.FCN(Fussy(), nn.Conv2d(3, 2, 1))
    with pytest.raises(
        InputError, match=r"could not be measured.*only 224.*backbone.strides = \{\"out\": 16\}"
    ):
        _ = network.stride
    network.backbone.strides = {"out": 16}  # as the message says
    assert network.stride == 16
    assert network(torch.rand(1, 3, 224, 224))["out"].shape == (1, 2, 224, 224)


def test_measuring_a_stride_changes_nothing():
    network = our_models.FCN(tiny_backbone(layer4="out"), our_models.FCNHead(512, 3)).train()
    network.backbone.bn1.eval()  # a frozen norm stays frozen
    before = copy.deepcopy(network.state_dict())
    assert network.stride == 32
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert network.backbone.layer1.training
    assert not network.backbone.bn1.training
