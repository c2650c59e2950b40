"""A network of anyone's as one of ours: torchvision's, SMP's, transformers', any nn.Module from pictures to logits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError, first_line
from pixelwise.inference.measure import Measured, check_ratio, measure
from pixelwise.inference.preprocess import Preprocess
from pixelwise.layers import Network, behind, enlarge_like, evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator

QUERIES = ("class_queries_logits", "masks_queries_logits", "pred_masks", "patch_offsets")
"""What tells the outputs of networks that answer in queries, a mask and a class each, from logits of pixels."""

LAST = (nn.Sigmoid, nn.Softmax, nn.Softmax2d, nn.LogSigmoid, nn.Hardsigmoid)
"""Layers behind which there are no logits any more."""


class Foreign(nn.Module):
    """module behind the contract of our networks: image (n, c, h, w) -> {"out": logits (n, k, h, w)}.

    Its own answer, a tensor, a dictionary with "out" or an output with `.logits`, are the coarse logits, `stride` input
    pixels each.
    """

    def __init__(self, module: nn.Module, measured: Measured, *, align_corners: bool) -> None:
        super().__init__()
        self.module = module
        self.num_classes, self.stride = measured
        self.align_corners = align_corners

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, ~h/stride, ~w/stride)."""
        logits = logits_of(self.module(image), self.module)
        if not torch.compiler.is_compiling():
            check_ratio(image, logits, self.stride, _kind(self.module), align_corners=self.align_corners)
        return logits

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return OrderedDict(out=enlarge_like(self.coarse(image), image, align_corners=self.align_corners))


def as_network(
    module: Any, preprocess: Preprocess, *, align_corners: bool, single: bool | None = None
) -> nn.Module:
    """The module itself where it is a network of ours, else one that wraps it.

    preprocess: says how many channels it takes and which sizes. align_corners: how logits smaller than the picture are
    enlarged, which nobody can see. single: see `measure`. InputError for what is no network, and for
    outputs that are no logits of pixels.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"expected the name or file of a model, or a torch network, got {type(module).__name__}"
        )
    module = behind(module)
    if isinstance(module, Network):
        return cast(nn.Module, module)
    parameter = next(module.parameters(), torch.zeros(()))
    what = _kind(module)
    ends: list[nn.Module] = []

    def predict(images: Any) -> Tensor:
        image = torch.from_numpy(images).to(parameter.device, parameter.dtype)
        try:
            with torch.no_grad(), _activations(module) as given:
                logits = logits_of(module(image), module)
        except InputError:
            raise
        except Exception as error:  # whatever a network of anyone's may raise
            reason = first_line(error)
            raise InputError(
                f"{what} failed at a picture {tuple(image.shape)} ({reason}); if it takes other channels "
                "or sizes, say which: mean and std with a number a channel, size=(height, width), multiple= of "
                "pixelwise.Card.of"
            ) from error
        ends.extend(layer for layer, answer in given if answer is logits)
        return logits

    with evaluating(module):
        measured = measure(predict, preprocess, what, align_corners=align_corners, single=single)
    if ends:
        raise InputError(
            f"{what} ends in {type(ends[0]).__name__}, where logits are expected: leave it out (activation=None in "
            "SMP)"
        )
    network = Foreign(module, measured, align_corners=align_corners)
    network.training = module.training  # and its parts as they are
    return network


def logits_of(answer: Any, module: nn.Module) -> Tensor:
    """The logits in what a network returns; InputError, which says what it is, where there are none."""
    kind = type(answer).__name__
    if any(hasattr(answer, name) or (isinstance(answer, Mapping) and name in answer) for name in QUERIES):
        raise InputError(
            f"{_kind(module)} answers in queries, a mask and a class each ({kind}), which is not read yet; give a "
            "network that answers with logits of pixels"
        )
    found = answer
    if isinstance(answer, Mapping):
        found = answer.get("out", answer.get("logits"))
    elif not isinstance(answer, Tensor):
        found = getattr(answer, "logits", None)
    if isinstance(found, Tensor):
        return found
    has = f" with {', '.join(map(str, answer))}" if isinstance(answer, Mapping) else ""
    raise InputError(
        f'{_kind(module)} returns {kind}{has}; expected a tensor of logits, a dictionary with "out" or an output with '
        "logits: wrap it in a module that returns them"
    )


def _kind(module: nn.Module) -> str:
    return f"this {type(module).__name__}"


@contextmanager
def _activations(module: nn.Module) -> Iterator[list[tuple[nn.Module, Any]]]:
    """What each layer of `LAST` gives while the block runs."""
    given: list[tuple[nn.Module, Any]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, answer: given.append((layer, answer)))
        for layer in module.modules()
        if isinstance(layer, LAST)
    ]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()
