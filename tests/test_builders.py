"""What every function that builds a network of the catalog promises, whatever family it is a row of."""

from __future__ import annotations

import fnmatch
import importlib.util
import inspect
import pickle
import pydoc
import re
import sys
import typing
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pixelwise import models
from pixelwise.checkpoints.backbones import ENCODERS
from pixelwise.checkpoints.making import build
from pixelwise.encoders.googlenet import GoogLeNet
from pixelwise.errors import WeightsError
from pixelwise.models.fcn import fcn32s_googlenet_torchvision
from pixelwise.weights.origin import WEIGHTS_ARGUMENTS, Origin, origin_of
from test_contract import NARROW

NAMES = models.list_models()
TORCHVISIONS = models.list_models(
    include=["fcn_resnet*", "deeplabv3_resnet??", "deeplabv3_resnet101", "*_large"]
)
"""They take what torchvision's take, deprecated spellings too."""

OURS = [name for name in NAMES if name not in TORCHVISIONS]
FETCHED = [
    "fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16", "fcn8s_atonce_vgg16", "fcn32s_alexnet_torchvision",
    "fcn32s_googlenet_torchvision", "segnet", "deeplabv3_resnet50_paper", "deeplabv3_resnet101_paper",
    "deeplabv3_resnet50_vainf", "deeplabv3_resnet101_vainf", "deeplabv3plus_resnet50", "deeplabv3plus_resnet101",
    "deeplabv3plus_resnet50_vainf", "deeplabv3plus_resnet101_vainf", "deeplabv3plus_resnet101_jfzhang95",
]  # fmt: skip
"""Those of ours for whose encoder torchvision publishes weights."""


def parameters(builder: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(builder).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_by_keyword_with_defaults_and_types(name: str):
    builder = models.builder_of(name)
    known = parameters(builder)
    assert {"num_classes", "in_channels", "weights"} <= known.keys()
    for parameter in known.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter
        assert parameter.default is not inspect.Parameter.empty, parameter
    hints = typing.get_type_hints(builder)
    assert hints.keys() == known.keys() | {"return"}
    assert issubclass(hints["return"], nn.Module)


@pytest.mark.parametrize("name", NAMES)
def test_help_begins_with_this_network_and_explains_every_argument(name: str):
    builder = models.builder_of(name)
    text = inspect.getdoc(builder)
    assert text is not None
    assert f"\n{name}(*, " in pydoc.plain(pydoc.render_doc(builder))
    first = text.partition("\n\n")[0]
    others = (inspect.getdoc(models.builder_of(other)) for other in NAMES if other != name)
    assert not any(first in str(other) for other in others)
    for _ in range(2):  # what it points at, and what that points at
        for pointed_at in re.findall(r"`(\w+)`", text):
            text += f" {inspect.getdoc(getattr(sys.modules[builder.__module__], pointed_at, None))}"
    assert "\n\nRaises " in text
    missing = [key for key in parameters(builder) if not re.search(rf"\b{key}\b", text)]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_a_pickled_builder_is_itself(name: str):
    builder = models.builder_of(name)
    assert builder.__name__ == builder.__qualname__ == name
    assert pickle.loads(pickle.dumps(builder)) is builder


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_argument_is_answered_with_the_nearest(name: str):
    builder = models.builder_of(name)
    with torch.device("meta"):
        for key in parameters(builder):
            misspelt = key[:2] + key[3:]
            with pytest.raises(
                TypeError, match=rf"^{name}\(\) has no argument '{misspelt}'; did you mean '{key}'"
            ):
                builder(**{misspelt: None})
        with pytest.raises(TypeError, match="has no argument 'name'"):
            builder(name=name)


@pytest.mark.parametrize("name", OURS)
def test_arguments_without_keyword_and_counts_below_one_are_refused(name: str):
    builder = models.builder_of(name)
    with torch.device("meta"):
        with pytest.raises(
            TypeError, match=rf"^{name}\(\) takes its arguments by keyword: num_classes, in_ch"
        ):
            builder(3)
        for key in ("num_classes", "in_channels"):
            with pytest.raises(ValueError, match=rf"^{key} must be a whole number from 1 up, got 0"):
                builder(**{key: 0})


@pytest.mark.parametrize("name", OURS)
def test_progress_is_taken_where_something_can_be_fetched(name: str):
    builder = models.builder_of(name)
    known = parameters(builder)
    assert ("progress" in known) == (name in FETCHED)
    if "weights_backbone" in known and name not in FETCHED:
        with (
            torch.device("meta"),
            pytest.raises(WeightsError, match="no weights of this encoder can be fetched"),
        ):
            builder(weights_backbone="DEFAULT")


def other(key: str, default: Any) -> Any:
    """A value for an argument that is not its default and fits; the default where nothing simple does."""
    if isinstance(default, bool):
        return not default
    fitting = {"num_classes": 4, "in_channels": 5, "output_stride": 8, "rate": 8, "aux_loss": True}
    fitting |= {"dropout": 0.25, "drop_path": 0.25, "layer_scale": 0.5, "multi_grid": (1, 2, 1), "cap": 24}
    fitting |= {"eps": "huggingface", "resize": "kazuto", "deconvolution": "inner", "mode": "fast"}
    fitting |= {"probabilities": "softmax", "cotraining_classes": 3, "atrous_rates": (2, 4), "levels": 3}
    return fitting.get(key, default)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_can_be_made_again_from_its_origin(name: str):
    builder = models.builder_of(name)
    arguments = {
        key: other(key, parameter.default)
        for key, parameter in parameters(builder).items()
        if key not in WEIGHTS_ARGUMENTS
    }
    if name == "lraspp_mobilenet_v3_large":  # it has no auxiliary head
        arguments["aux_loss"] = None
    arguments |= next((v for pattern, v in NARROW.items() if fnmatch.fnmatch(name, pattern)), {})
    nothing = {"weights_backbone": None} if "weights_backbone" in parameters(builder) else {}
    with torch.device("meta"):
        network = builder(**arguments, **nothing)
        origin = origin_of(network)
        again = build(origin)
    assert origin.model == name
    settled = {key: value for key, value in arguments.items() if key != "transform_input"}
    assert settled.items() <= origin.arguments.items()
    assert origin_of(again) == origin
    state, rebuilt = network.state_dict(), again.state_dict()
    assert [(key, t.shape) for key, t in state.items()] == [(key, t.shape) for key, t in rebuilt.items()]
    for module, twin in zip(network.modules(), again.modules(), strict=True):
        assert type(twin) is type(module)
        for key, value in vars(module).items():
            if isinstance(value, bool | int | float | str | tuple):
                assert vars(twin)[key] == value, key


def test_the_origin_says_what_a_builder_settled_for_by_its_weights():
    (family,) = ENCODERS["googlenet"].families
    assert family.to_theirs is not None
    tensors = family.to_theirs(GoogLeNet(variant="torchvision", width_mult=1 / 16).state_dict())
    network = fcn32s_googlenet_torchvision(width_mult=1 / 16, weights_backbone=tensors)
    assert network.backbone.transform_input
    assert build(origin_of(network)).backbone.transform_input
    plain = fcn32s_googlenet_torchvision(width_mult=1 / 16, weights_backbone=tensors, transform_input=False)
    assert not plain.backbone.transform_input
    assert not build(origin_of(plain)).backbone.transform_input


def test_files_that_still_name_the_progress_of_a_builder_can_be_read():
    with torch.device("meta"):
        network = build(Origin("unet", {"num_classes": 5, "width": 4, "progress": False}))
    assert network.num_classes == 5
    assert "progress" not in origin_of(network).arguments


@pytest.mark.parametrize(
    "name", [name for name in NAMES if importlib.util.find_spec(f"pixelwise.models.{name}")]
)
def test_a_builder_keeps_its_name_when_the_file_of_that_name_is_imported(name: str):
    file = importlib.import_module(f"pixelwise.models.{name}")
    assert getattr(models, name) is getattr(models, name) is getattr(file, name) is models.builder_of(name)
