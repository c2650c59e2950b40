"""The tensors of segmentation_models.pytorch (SMP) 0.6 for our networks and back.

Names are SMP's here too, but for some of timm's networks. SMP's files also hold tensors that no pixel of the output
depends on; they are left out of our networks, kept beside their origin, and written back.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pixelwise.checkpoints.making import plausible
from pixelwise.checkpoints.smp import encoders
from pixelwise.checkpoints.smp.config import origin_from_config
from pixelwise.checkpoints.smp.encoders import flat, own_names, timm_whole
from pixelwise.encoders import names
from pixelwise.errors import PixelwiseError, WeightsError
from pixelwise.weights.origin import Origin, origin_of
from pixelwise.weights.renames import Tensors


def read(config: Mapping[str, Any], tensors: Tensors) -> tuple[Origin, Tensors]:
    """The origin that a `config.json` tells, and the tensors under our names; raises as `Family.read` and WeightsError
    where the two have other numbers of classes. What our network has no use for goes beside the origin.
    """
    origin = origin_from_config(config)
    try:
        with plausible(len(tensors)):
            wanted = own_names(origin)
            ours, unused = to_ours(origin, tensors, wanted)
    except (PixelwiseError, KeyError, IndexError, StopIteration):
        raise
    except Exception as error:  # whatever a builder meets in arguments that nobody has looked at
        raise WeightsError(
            f"the encoder of {origin} cannot be built as config.json asks: {str(error)[:200] or type(error).__name__}"
        ) from error
    _check_classes(ours, origin.arguments["num_classes"])
    kept = {key: config[key] for key in ("activation", "upsampling") if key in config}
    return replace(origin, beside={"tensors": unused, "config": kept}), ours


def read_for(network: nn.Module, tensors: Tensors) -> tuple[Origin, Tensors]:
    """The same for a network that is there already and says what a bare state dict leaves open; its auxiliary heads,
    which SMP does not have, stay as they are.
    """
    own, origin = network.state_dict(), origin_of(network)
    wanted = {key.removeprefix("encoder.") for key in own if key.startswith("encoder.")}
    ours, unused = to_ours(origin, tensors, wanted)
    _check_classes(ours, getattr(network, "num_classes", None))
    heads = {key: t for key, t in own.items() if key.startswith(("aux_head.", "deep_heads."))}
    return replace(origin, beside={"tensors": unused}), {**heads, **ours}


def _check_classes(ours: Tensors, classes: int | None) -> None:
    head = ours.get("segmentation_head.0.weight", ours.get("segmentation_head.head.4.weight"))
    if head is not None and classes is not None and len(head) != classes:
        raise WeightsError(
            f"these weights have {len(head)} classes, the network {classes}; build it with num_classes={len(head)} "
            "(classes in SMP), or correct config.json"
        )


def to_ours(origin: Origin, tensors: Tensors, wanted: Container[str]) -> tuple[Tensors, Tensors]:
    """SMP's tensors as those of our network of that origin, and those that have no use there, under SMP's names.

    wanted: the names of our encoder's tensors, without the prefix "encoder.".
    """
    name = origin.arguments["encoder"]
    tensors = modern(origin.model, name, tensors)
    encoder = {key.removeprefix("encoder."): t for key, t in tensors.items() if key.startswith("encoder.")}
    if names.resolve(name).kind == "timm":
        encoder = {flat(key, wanted): tensor for key, tensor in encoder.items()}
        known = {flat(key, wanted) for key in timm_whole(origin)}
        encoder, spare = encoders.without_spare(encoder, known, wanted)
    else:
        encoder, spare = encoders.to_ours(name, encoder, wanted)
    ours = {f"encoder.{key}": tensor for key, tensor in encoder.items()}
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith("encoder.")}
    idle = _idle(origin, rest)
    ours |= {key: tensor for key, tensor in rest.items() if key not in idle}
    back = {f"encoder.{key}": tensor for key, tensor in spare.items()}
    return ours, back | {key: rest[key] for key in idle}


def to_theirs(origin: Origin, tensors: Tensors, unused: Mapping[str, Any] | None = None) -> Tensors:
    """Our network's tensors as SMP's, complete: those that SMP has and does not use are as in `unused`, else new
    ones of the encoder, and zeros of the decoder."""
    name = origin.arguments["encoder"]
    encoder = {key.removeprefix("encoder."): t for key, t in tensors.items() if key.startswith("encoder.")}
    in_channels = origin.arguments.get("in_channels", 3)
    if names.resolve(name).kind == "timm":
        whole = {flat(key, encoder): (key, tensor) for key, tensor in timm_whole(origin).items()}
        named = {key: whole[key][0] if key in whole else key for key in encoder}
        theirs = {f"encoder.{named[key]}": tensor for key, tensor in encoder.items()}
        theirs |= {
            f"encoder.{key}": encoders.fresh(key, tensor)
            for ours, (key, tensor) in whole.items()
            if ours not in encoder
        }
    else:
        complete = encoders.to_theirs(name, encoder, in_channels=in_channels)
        theirs = {f"encoder.{key}": tensor for key, tensor in complete.items()}
    theirs |= {
        key: tensor
        for key, tensor in tensors.items()
        if key.startswith(("decoder.", "segmentation_head.", "classification_head."))
    }
    theirs |= _zeros(origin, theirs)
    return theirs | {key: tensor for key, tensor in (unused or {}).items() if key in theirs}


def modern(decoder: str, encoder: str, tensors: Tensors) -> Tensors:
    """The tensors under the names of SMP 0.6: DeepLabV3's decoder and some of timm's encoders had others before."""
    if decoder == "deeplabv3":
        parts = {"decoder.0.": "decoder.aspp.", "decoder.1.": "decoder.conv.", "decoder.2.": "decoder.bn."}
        tensors = {parts.get(key[:10], key[:10]) + key[10:]: tensor for key, tensor in tensors.items()}
    row = names.resolve(encoder)
    if row.kind == "timm" and row.network.removeprefix("tf_").startswith(names.OLD_TIMM):
        old = {key: re.sub(r"^encoder\.(?!model\.)", "encoder.model.", key) for key in tensors}
        if "gernet" in encoder:
            old = {key: new.replace(".stages.", ".stages_") for key, new in old.items()}
        tensors = {old[key]: tensor for key, tensor in tensors.items()}
    return tensors


def _idle(origin: Origin, tensors: Tensors) -> set[str]:
    """The names of tensors that SMP's models make and their forward leaves out: the classifier of the image, which our
    networks do not have; the attention before the convolutions of the last step, which has no skip; U-Net++'s center.
    """
    idle = {key for key in tensors if key.startswith("classification_head.")}
    if origin.model == "unetplusplus":
        idle |= {key for key in tensors if key.startswith("decoder.center.")}
    if origin.model in ("unet", "unetplusplus"):
        steps = [int(found[1]) for key in tensors if (found := re.match(_STEP, key))]
        last = re.compile(rf"decoder\.blocks\.(?:x_0_)?{max(steps, default=0)}\.attention1\.")
        idle |= {key for key in tensors if last.match(key)}
    return idle


_STEP = r"decoder\.blocks\.(?:x_0_)?(\d+)\."
"""A tensor of one step up, in U-Net's decoder and, of the nodes that lead to the output, in U-Net++'s."""


def _zeros(origin: Origin, theirs: Tensors) -> Tensors:
    """Of the tensors that `_idle` tells those that are not there yet, with zeros."""
    zeros: Tensors = {}
    arguments = origin.arguments
    if origin.model in ("unet", "unetplusplus") and arguments.get("attention") == "scse":
        steps = [
            key.split(".")[2]
            for key in theirs
            if re.fullmatch(r"decoder\.blocks\.\w+\.conv1\.0\.weight", key)
        ]
        for step in steps:
            at = f"decoder.blocks.{step}.attention1.attention"
            if f"{at}.cSE.1.weight" not in theirs:
                c = theirs[f"decoder.blocks.{step}.conv1.0.weight"].shape[1]
                zeros |= {
                    f"{at}.cSE.1.weight": torch.zeros(c // 16, c, 1, 1), f"{at}.cSE.1.bias": torch.zeros(c // 16),
                    f"{at}.cSE.3.weight": torch.zeros(c, c // 16, 1, 1), f"{at}.cSE.3.bias": torch.zeros(c),
                    f"{at}.sSE.0.weight": torch.zeros(1, c, 1, 1), f"{at}.sSE.0.bias": torch.zeros(1),
                }  # fmt: skip
    if origin.model == "unetplusplus" and arguments["encoder"].startswith("vgg"):
        from pixelwise.decoders.unet import Center

        deepest = encoders.channels(arguments["encoder"], arguments.get("encoder_depth", 5))[-1]
        center = Center(deepest, arguments.get("norm", "batch")).state_dict()
        zeros |= {f"decoder.center.{key}": torch.zeros_like(tensor) for key, tensor in center.items()}
    return zeros
