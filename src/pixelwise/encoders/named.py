"""The encoders of segmentation_models.pytorch that are not timm's own: built, cut to a depth, dilated, filled."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from pixelwise.encoders import staged
from pixelwise.encoders.mit import SIZES, MixTransformer, _stage
from pixelwise.encoders.names import Row
from pixelwise.encoders.pretrained import Weights, fetching, for_input_channels, tensors_of
from pixelwise.encoders.smp_tensors import table
from pixelwise.errors import UnknownNameError, refuse_unknown, suggest
from pixelwise.weights import store


def smp_encoder(
    name: str,
    row: Row,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    depth: int = 5,
    weights: Weights = None,
    dilation: str = "classic",
    **options: Any,
) -> nn.Module:
    """The encoder of a row of `names.SMP`; arguments and errors are those of `pixelwise.encoders.create_encoder`."""
    if not 1 <= depth <= 5:
        raise ValueError(f"depth must be from 1 to 5, got {depth}")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    build = _mit if row.kind == "mit" else _staged
    encoder = build(name, options, in_channels, output_stride, depth, dilation)
    if weights is None or weights is False:
        return encoder
    tensors, source = _read(name, row, weights)
    own = encoder.state_dict()
    kept = {key: tensor for key, tensor in tensors.items() if key in own}
    store.load_into(encoder, for_input_channels(kept, own), source=source)
    return encoder


def _staged(
    name: str, options: dict[str, Any], in_channels: int, output_stride: int, depth: int, dilation: str
) -> nn.Module:
    family = staged.family(name)
    network = _built(name, family.build, {"in_channels": in_channels, **options})
    count = sum(stride <= 2**depth for stride in family.strides)
    return staged.StagedEncoder(
        network, family.stages[:count], channels=family.channels[:count], strides=family.strides[:count],
        output_stride=output_stride, dilation=dilation, rectified=family.rectified, before=table(name),
    )  # fmt: skip


def _mit(
    name: str, options: dict[str, Any], in_channels: int, output_stride: int, depth: int, dilation: str
) -> nn.Module:
    if depth < 2:
        raise ValueError(f"the finest stride of {name} is 4, so depth must be 2 or more, got {depth}")
    known = {"drop_path": 0.1, "eps": "smp"}
    refuse_unknown(f"{name} has no option", options, known)
    encoder = MixTransformer(*SIZES[name], in_channels=in_channels, **{**known, **options})
    if output_stride < 32:
        if dilation != "smp":
            raise ValueError(
                f"{name} is a transformer and cannot be dilated, so its output_stride must be 32, got {output_stride}; "
                "dilation='smp' is what SMP does all the same, and only there to load what was trained so"
            )
        stages = tuple((f"patch_embed{i}", f"block{i}", f"norm{i}") for i in range(1, 5))
        staged.dilate(encoder, stages, encoder.strides, output_stride, rule="smp")
    encoder.strides = tuple(min(stride, output_stride) for stride in encoder.strides)
    return encoder if depth == 5 else FirstStages(encoder, depth - 1)


class FirstStages(nn.Module):
    """The first `count` stages of a Mix Transformer: image (n, in_channels, h, w) -> that many features."""

    def __init__(self, encoder: MixTransformer, count: int) -> None:
        super().__init__()
        for stage in range(1, count + 1):
            for part in ("patch_embed", "block", "norm"):
                self.add_module(f"{part}{stage}", encoder.get_submodule(f"{part}{stage}"))
        self.channels, self.strides = encoder.channels[:count], encoder.strides[:count]

    def forward(self, image: Tensor) -> list[Tensor]:
        features, x = [], image
        for i in range(1, len(self.channels) + 1):
            patches, blocks = self.get_submodule(f"patch_embed{i}"), self.get_submodule(f"block{i}")
            x = _stage(x, patches, blocks, self.get_submodule(f"norm{i}"))  # type: ignore[arg-type]
            features.append(x)
        return features


def _built(name: str, build: Callable[..., nn.Module], arguments: dict[str, Any]) -> nn.Module:
    signature = inspect.signature(build)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    known = {key for key, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    ours = {"output_stride", "depth", "weights", "dilation"}
    if not open_ended:
        refuse_unknown(f"{name} has no option", arguments, known | ours)
    try:
        return build(**arguments)
    except TypeError as error:
        wrong = next((key for key in arguments if f"'{key}'" in str(error)), None)
        if wrong is None:
            raise
        raise TypeError(f"{name} has no option {wrong!r}; {suggest(wrong, known | ours)}") from error


def _read(name: str, row: Row, weights: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors under our names, with what the encoder may not need, and what to call them."""
    if weights is True:
        if not row.weights:
            raise UnknownNameError(f"weights of {name}", weights, ["the path of a file"])
        weights = next(iter(row.weights))
    if isinstance(weights, str) and weights in row.weights:
        return _renamed(name, _fetched(row.weights[weights])), f"the {weights} weights of {name}"
    if isinstance(weights, str) and not os.path.exists(weights):
        raise UnknownNameError(f"weights of {name}", weights, [*row.weights, "the path of a file"])
    tensors, source = tensors_of(weights)
    return _renamed(name, tensors), source


def _renamed(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if tensors and all(key.startswith("encoder.") for key in tensors):
        tensors = {key.removeprefix("encoder."): tensor for key, tensor in tensors.items()}
    renames = table(name)
    if renames is not None:
        tensors = {renames.to_theirs(key) or key: tensor for key, tensor in tensors.items()}
    old = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")  # DenseNet before torchvision 0.3
    return {old.sub(r"\1\2", key): tensor for key, tensor in tensors.items()}


def _fetched(place: str) -> dict[str, Tensor]:
    source, _, what = place.partition(":")
    if source == "https":
        file = what.split("/")[4] + ".safetensors"
        return store.load_state_dict(store.fetch(file, place, None))
    if source == "torchvision":
        from pixelwise.weights.enums import state_dict_of

        enum, _, member = what.partition(".")
        url = getattr(getattr(importlib.import_module("torchvision.models"), enum), member).url
        return state_dict_of(url)
    import timm

    with fetching(f"timm's weights {what}"):
        tensors: dict[str, Tensor] = timm.create_model(what, pretrained=True).state_dict()
    return tensors
