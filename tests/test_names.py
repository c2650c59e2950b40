"""Names: what a user may type, and what is answered to what other libraries call it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from torch import nn

import pixelwise
from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.checkpoints.making import create_model
from pixelwise.decoders import DECODERS
from pixelwise.encoders import create_encoder
from pixelwise.errors import DownloadError, InputError, UnknownNameError, WeightsError
from pixelwise.layers import Network
from pixelwise.training.config import TrainConfig

NETWORKS = [name for name, entry in CATALOG.items() if entry.asset is None]
OURS = [name for name in NETWORKS if not CATALOG[name].fetched]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and nothing in any cache."""
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for variable in ("PIXELWISE_CACHE", "PIXELWISE_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))


# What create_model promises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_create_model_fetches_nothing_unless_asked(name, offline):
    with torch.device("meta"):
        network = create_model(name, num_classes=5)
    assert network.num_classes == 5
    builder = models.builder_of(name)
    known = inspect.signature(builder).parameters
    fetching = [{"weights": "DEFAULT"}] if CATALOG[name].fetched else []
    if "weights_backbone" in known and "progress" in known:
        fetching += [{"weights_backbone": "DEFAULT"}]
    for asked in fetching:
        with torch.device("meta"), pytest.raises(DownloadError, match="PIXELWISE_OFFLINE forbids"):
            create_model(name, **asked)
    if CATALOG[name].fetched:
        with torch.device("meta"), pytest.raises(DownloadError, match="PIXELWISE_OFFLINE forbids"):
            builder()  # which does as torchvision's does


def test_a_random_network_is_the_builders_own():
    torch.manual_seed(3)
    ours = create_model("lraspp_mobilenet_v3_large", num_classes=3).state_dict()
    torch.manual_seed(3)
    expected = models.lraspp_mobilenet_v3_large(num_classes=3, weights_backbone=None).state_dict()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], tensor) for key, tensor in expected.items())


def test_a_run_does_not_begin_under_the_name_of_a_trained_model(tmp_path):
    for name, own in (("everyday", "deeplabv3_mobilenet_v2"), ("nuclei", "unet_bilinear")):
        from pixelwise.training.experiment import make_network

        with pytest.raises(InputError, match=f"{name} is a trained model.*say --model {own}"):
            make_network(TrainConfig(steps=1, model=name), 21, print)


# Weights by name, where there are none ------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_weights_that_are_asked_for_by_name_are_answered_with_the_way_to_them(name):
    for asked in ("DEFAULT", "IMAGENET1K_V1", "imagenet", "coco", True, "DeepLabV3_ResNet50_Weights.DEFAULT"):
        with torch.device("meta"), pytest.raises(WeightsError) as caught:
            create_model(name, weights=asked)
        message = str(caught.value)
        assert message.startswith(f"{name} has no weights that can be fetched by name")
        assert f"got {asked!r}" in message
        assert (CATALOG[name].files or "none are published; train it") in message
    with torch.device("meta"):
        assert create_model(name, weights=False).num_classes == create_model(name).num_classes


def test_a_backbones_weights_that_nobody_publishes_by_name_are_answered_with_the_files_that_fit():
    for name in ("segformer_b0", "fcn32s_alexnet", "fcn32s_googlenet"):
        for asked in ("DEFAULT", "IMAGENET1K_V1", "imagenet", True):
            with torch.device("meta"), pytest.raises(WeightsError) as caught:
                create_model(name, weights_backbone=asked)
            said = str(caught.value)
            assert said.startswith("no weights of this encoder can be fetched, expected the path of a file (")
            assert said.endswith(f"), got {asked!r}")


def test_a_file_that_is_missing_is_still_called_missing(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth cannot be read: No such file"):
        create_model("unet", width=2, weights=tmp_path / "none.pth")


# Patterns -----------------------------------------------------------------------------------------------------


def test_every_list_takes_a_shell_pattern():
    assert models.list_models("deeplabv3_resnet???") == ["deeplabv3_resnet101"]
    assert models.list_models("*mobilenet_v3*") == [
        "deeplabv3_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
    ]
    assert models.list_models("*deeplab*", exclude="*plus*") == sorted(
        name for name in models.list_models() if "deeplab" in name and "plus" not in name
    )
    assert models.list_models("segnet", include=["unet*", "segnet"]) == ["segnet"]
    assert models.list_models("nothing*") == []
    assert pixelwise.list_models("segformer_b[01]") == ["segformer_b0", "segformer_b1"]
    assert pixelwise.list_encoders("mit_b[01]") == ["mit_b0", "mit_b1"]
    assert pixelwise.list_decoders() == sorted(DECODERS)
    assert pixelwise.list_decoders("*net") == ["linknet", "manet", "pspnet", "unet", "upernet"][:4] + [
        "upernet"
    ]


# Names at the top ---------------------------------------------------------------------------------------------


def test_what_is_at_the_top_is_there_lazily():
    names = [*pixelwise.__all__, *pixelwise._MODULES]
    assert {"metrics", "losses", "models", "decoders", "datasets", "transforms", "evaluation"} <= set(names)
    assert {"list_decoders", "export_onnx", "evaluate", "train"} <= set(names)
    for name in names:
        assert getattr(pixelwise, name) is not None
        assert name in dir(pixelwise)
    code = (
        "import sys, pixelwise; before = set(sys.modules); dir(pixelwise); "
        "print('torch' in before, 'numpy' in before, set(sys.modules) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def test_names_at_the_top_are_those_that_a_type_checker_sees():
    tree = ast.parse(Path(pixelwise.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.name: part.module for part in block.body for alias in part.names}
    assert seen == {**pixelwise._PUBLIC, **dict.fromkeys(pixelwise._MODULES, "pixelwise")}


@pytest.mark.parametrize("name", list(CATALOG))
def test_the_class_of_every_network_is_one_of_models(name):
    builder = models.builder_of(name)
    network = typing.get_type_hints(builder)["return"]
    assert getattr(models, network.__name__) is network
    assert network.__name__ in dir(models)
    assert issubclass(network, nn.Module)
    assert callable(network.coarse)


def test_no_other_class_of_a_network_is_left_out_of_models_or_told_to_type_checkers_wrongly():
    tree = ast.parse(Path(models.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    others = ("torch", "pixelwise.models")  # the namespace `segmentation` is no class
    seen = {
        alias.name: part.module for part in block.body for alias in part.names if part.module not in others
    }
    assert seen.items() >= models._networks().items()
    for name, module in seen.items():
        assert getattr(models, name).__module__ == module, name
    assert isinstance(models.UNet(width=2), Network)
    for name in ("Segformer", "nothing", "_hidden"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(models, name)


# Words of others ----------------------------------------------------------------------------------------------


def test_all_words_of_another_library_are_answered_at_once_with_ours():
    with pytest.raises(TypeError) as caught:
        create_model("unet", encoder_name="resnet34", classes=3, pretrained=True, in_chans=4)
    assert str(caught.value) == (
        "create_model() has no argument 'encoder_name'; here it is encoder=; 'classes' is num_classes=, "
        "'pretrained' is encoder_weights=, 'in_chans' is in_channels="
    )
    with pytest.raises(TypeError) as caught:
        create_model("unet", classes=3, colour="red", in_chans=4)  # nobody's word is passed over
    assert (
        str(caught.value)
        == "unet() has no argument 'classes'; here it is num_classes=; 'in_chans' is in_channels="
    )


@pytest.mark.parametrize(
    ("call", "given", "word"),
    [
        (lambda **k: create_model("fpn", **k), {"backbone": "resnet18"}, "encoder="),
        (lambda **k: create_model("unet", **k), {"classes": 3}, "num_classes="),
        (lambda **k: create_model("unet", **k), {"n_classes": 3}, "num_classes="),
        (lambda **k: create_model("unet", **k), {"pretrained": True}, "weights="),
        (lambda **k: create_model("segformer_b0", **k), {"num_labels": 3}, "num_classes="),
        (lambda **k: create_model("segformer_b0", **k), {"num_channels": 3}, "in_channels="),
        (lambda **k: create_model("nuclei", **k), {"nclass": 2}, "num_classes="),
        (lambda **k: create_model("unet", encoder="resnet18", **k), {"nclass": 3}, "num_classes="),
        (
            lambda **k: create_model("unet", encoder="resnet18", **k),
            {"weights": "imagenet"},
            "encoder_weights=",
        ),
        (lambda **k: create_model("unet", encoder="resnet18", **k), {"depth": 3}, "encoder_depth="),
        (lambda **k: create_model("unet", encoder="resnet18", **k), {"aux_params": {}}, "aux_loss="),
        (
            lambda **k: models.deeplabv3plus_resnet50(**k),
            {"pretrained": True},
            "weights= or weights_backbone=",
        ),
        (lambda **k: models.fcn_resnet50(**k), {"classes": 3}, "num_classes="),
        (lambda **k: models.lraspp_mobilenet_v3_large(**k), {"in_chans": 1}, "in_channels="),
        (lambda **k: create_encoder("resnet18", **k), {"in_chans": 1}, "in_channels="),
        (lambda **k: create_encoder("resnet18", **k), {"pretrained": True}, "weights="),
        (lambda **k: create_encoder("tu-resnet10t", **k), {"pretrained": True}, "weights="),
        (lambda **k: create_encoder("mit_b0", **k), {"encoder_depth": 3}, "depth="),
        (lambda **k: pixelwise.train("data", "out", **k), {"learning_rate": 0.1}, "peak_lr="),
    ],
)
def test_a_word_of_another_library_is_answered_with_ours(call, given, word):
    (key,) = given
    with (
        torch.device("meta"),
        pytest.raises(TypeError, match=rf"has no (argument|option) '{key}'; here it is {word}$"),
    ):
        call(**given)


def test_a_word_that_no_library_has_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match="has no argument 'num_clases'; did you mean 'num_classes'"):
        create_model("unet", num_clases=3)
    with pytest.raises(TypeError, match="has no argument 'peak_rl'; did you mean 'peak_lr'"):
        pixelwise.train("data", "out", peak_rl=0.1)


@pytest.mark.parametrize("name", list(CATALOG))
def test_a_name_in_other_writing_is_answered_with_the_right_one(name):
    for written in (name.upper(), name.replace("_", "-"), name.replace("_", " ").title()):
        if written != name:
            with pytest.raises(UnknownNameError, match=f"did you mean '{name}'"):
                create_model(written)
            with pytest.raises(UnknownNameError, match=f"did you mean '{name}'"):
                pixelwise.Segmenter(written)


def test_other_kinds_of_names_are_found_in_other_writing_too():
    with pytest.raises(UnknownNameError, match="did you mean 'deeplabv3plus'"):
        create_model("DeepLabV3Plus", encoder="resnet18")
    with pytest.raises(UnknownNameError, match="did you mean 'efficientnet-b0' or 'efficientnet_b0'"):
        create_encoder("EfficientNet_B0")
    with pytest.raises(UnknownNameError, match="did you mean 'mit_b0'"):
        create_encoder("MiT-B0")
