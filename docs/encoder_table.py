"""What docs/encoders.md says of each encoder, read off encoders that are built without memory."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import torch

from pixelwise.decoders import DECODERS
from pixelwise.decoders.needs import NEEDS
from pixelwise.encoders import create_encoder
from pixelwise.encoders.names import SMP

TIMM = {
    "Convolutional networks": (
        "resnet50d seresnet50 resnetv2_50 resnetrs50 resnest50d res2net50_26w_4s gernet_m regnetx_032 regnety_032 "
        "regnety_160 repvgg_a2 dla34 hrnet_w18 hrnet_w32 hrnet_w48 hgnetv2_b0 cspdarknet53 ese_vovnet39b dm_nfnet_f0 "
        "convnext_atto convnext_tiny convnext_small convnext_base convnext_large convnextv2_atto convnextv2_tiny "
        "convnextv2_base inception_next_tiny"
    ),
    "Small and mobile networks": (
        "mobilenetv3_small_100 mobilenetv3_large_100 mobilenetv4_conv_small mobilenetv4_conv_medium "
        "mobilenetv4_hybrid_medium lcnet_100 mnasnet_100 efficientnet_lite0 tf_efficientnetv2_s tf_efficientnetv2_m "
        "ghostnet_100 rexnet_100 repvit_m1 fastvit_t8 efficientvit_b0 edgenext_small mobilevitv2_100 "
        "efficientformerv2_s0"
    ),
    "Transformers of several strides": (
        "swin_tiny_patch4_window7_224 swin_small_patch4_window7_224 swin_base_patch4_window7_224 "
        "swinv2_tiny_window8_256 pvt_v2_b0 pvt_v2_b2 pvt_v2_b5 twins_svt_small davit_tiny focalnet_tiny_srf "
        "maxvit_tiny_tf_224 coatnet_0_rw_224 poolformerv2_s12 caformer_s18 tiny_vit_5m_224 mvitv2_tiny hiera_tiny_224 "
        "levit_128s"
    ),
    "Plain vision transformers": (
        "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224 vit_large_patch16_224 deit3_small_patch16_224 "
        "vit_base_patch16_clip_224 vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2 "
        "vit_small_patch14_reg4_dinov2 eva02_base_patch14_224 beitv2_base_patch16_224 xcit_small_12_p8_224"
    ),
}
"""Heading: names that timm has had since 1.0, so that the page does not change with its minor versions."""

PAGE = """\
<!-- Written by docs/build.py, which builds each encoder. Change docs/encoder_table.py, then run it. -->

# Encoders

Any encoder goes with any decoder that can use its features; what cannot work is refused with a sentence that says why:

```python
import pixelwise

network = pixelwise.create_model("fpn", encoder="convnext_tiny", num_classes=11, encoder_weights=True)
```

Below are all encoders of segmentation_models.pytorch (SMP), by its names, and a choice of timm's. timm has over a
thousand more, every network of it that gives features, by its own name or with "tu-" or "timm/" before it:

```python
pixelwise.list_encoders("convnextv2*")
```

*Parameters* are those of the encoder alone, with three input channels and all its features. *Channels* and *strides*
are those of the features, finest first; 4 × 16 stands for four equal ones. *Sizes*: what images may measure. Where it
says "any", images are padded as the network needs, and what the padding led to is cut off again. *Decoders*:

{marks}

Exported to ONNX, an encoder takes images of the same sizes, or a sentence says that it cannot (XCiT). Such a one, and
one of a single size, is exported for one size, with `export_onnx(..., traced_at=(224, 224), dynamic=False)`. Each file
is compared with its network at sizes that it was not traced at; one that differs, or that ONNX Runtime cannot run, is
not written.

{sections}"""

MARKS = (
    "- **all**: {all}",
    "- **others**: all but {pyramid}, which need each feature to be half as large as the one before",
    "- **undilated**: the network cannot be dilated to the stride that {dilating}, or those named, are meant for; they "
    "take it with `output_stride=32`",
)

HEAD = "| encoder | parameters | channels | strides | sizes | decoders |\n|---|--:|---|---|---|---|\n"


def page() -> str:
    groups = {"SMP's encoders": list(SMP), **{heading: names.split() for heading, names in TIMM.items()}}
    sections = [
        f"## {heading}\n\n{HEAD}" + "".join(f"{row(name)}\n" for name in names)
        for heading, names in groups.items()
    ]
    names = {
        "all": _listed(DECODERS),
        "pyramid": _listed(name for name in DECODERS if NEEDS[name].halving),
        "dilating": _listed(name for name in DECODERS if NEEDS[name].output_stride < 32),
    }
    marks = [textwrap.fill(mark.format(**names), 120, subsequent_indent="  ") for mark in MARKS]
    return PAGE.format(marks="\n".join(marks), sections="\n".join(sections))


def row(name: str) -> str:
    """One line of the table."""
    encoder = _built(name, {})
    assert encoder is not None, name
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    cells = (
        f"`{name}`",
        f"{parameters / 1e6:.2f} M",
        _numbers(encoder.channels),
        _numbers(encoder.strides),
        _sizes(encoder),
        _decoders(name, encoder),
    )
    return f"| {' | '.join(cells)} |"


def _decoders(name: str, encoder: Any) -> str:
    """Which decoders take the encoder as it is, which undilated or deeper, which not at all."""
    built: dict[tuple[int, int], Any] = {(5, 32): encoder}
    takes, undilated, deeper = [], [], []
    for decoder in DECODERS:
        needs = NEEDS[decoder]
        wanted = (5 if needs.tokens else needs.depth, needs.output_stride)
        if wanted not in built:
            built[wanted] = _built(name, {"depth": wanted[0], "output_stride": wanted[1]})
        if built[wanted] is not None and needs.refusal(built[wanted].strides) is None:
            takes.append(decoder)
        elif needs.refusal(encoder.strides) is None:
            (undilated if wanted[1] < 32 else deeper).append(decoder)
    refused = [decoder for decoder in DECODERS if decoder not in (*takes, *undilated, *deeper)]
    pyramid = [decoder for decoder in DECODERS if NEEDS[decoder].halving]
    said = "all" if not refused else "others" if refused == pyramid else "all but " + _listed(refused)
    dilating = [decoder for decoder in DECODERS if NEEDS[decoder].output_stride < 32]
    if undilated:
        said += "; undilated" if undilated == dilating else f"; {_listed(undilated)} undilated"
    if deeper:
        said += f"; {_listed(deeper)} with `encoder_depth=5`"
    return said


def _built(name: str, arguments: Mapping[str, Any]) -> Any:
    """The encoder without memory, or None where the arguments are refused."""
    try:
        with torch.device("meta"):
            return create_encoder(name, **arguments)
    except ValueError:
        if not arguments:
            raise
        return None


def _sizes(encoder: Any) -> str:
    only = getattr(encoder, "size_hw", None)
    return "any" if only is None else f"{only[0]}×{only[1]}"


def _numbers(numbers: Iterable[int]) -> str:
    runs = [(number, len(list(run))) for number, run in groupby(numbers)]
    return ", ".join(
        f"{count} × {number}" if count > 3 else ", ".join([str(number)] * count) for number, count in runs
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
