"""UPerNet and FCN on ConvNeXt: counts, the norms that R leaves out, pooling, and everybody's checkpoints."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pixelwise import catalog, models
from pixelwise.checkpoints.loading import families, from_checkpoint
from pixelwise.encoders.convnext import SIZES, Block, ConvNeXt
from pixelwise.errors import InputError, WeightsError
from pixelwise.export.onnx import export_onnx
from pixelwise.layers import Network, enlarge
from pixelwise.models import fcn_convnext, upernet
from pixelwise.models.fcn_convnext import fcn_convnext_tiny
from pixelwise.models.upernet import AdaptiveAvgPool, UPerHead, upernet_convnext_tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore:these tensors do not say"),
    pytest.mark.filterwarnings("ignore:the folder .* has no preprocessor_config.json"),
]

SMALL: dict[str, Any] = {"channels": (8, 12, 16, 20), "depths": (1, 2, 1, 1)}
TINY: dict[str, Any] = {**SMALL, "width": 24, "aux_width": 10}

# Parameters in all (150 classes), of backbone, head and auxiliary head, keys, multiply-adds at 512 in 1e9
COUNTS = {
    "tiny": (60_242_636, 27_821_472, 31_497_366, 923_798, 268, 235.58),
    "small": (81_877_196, 49_456_032, 31_497_366, 923_798, 430, 257.67),
    "base": (122_102_956, 87_568_256, 33_315_990, 1_218_710, 430, 293.60),
    "large": (234_994_796, 196_233_024, 36_953_238, 1_808_534, 430, 395.06),
    "xlarge": (391_140_396, 348_151_552, 40_590_486, 2_398_358, 430, 535.98),
}


def count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def multiply_adds(network: nn.Module, side: int) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() // 2


def shuffled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics such that every tensor matters; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.dtype == torch.int64:
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, 1 / math.sqrt(tensor[0].numel()), generator=generator)
        else:
            tensor.normal_(1 if name.endswith("weight") else 0.1, 0.2, generator=generator)
    return network.eval()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / (b.max() - b.min()))


@pytest.mark.parametrize("size", COUNTS)
def test_parameters_keys_and_multiply_adds_are_those_of_the_sheet(size: str):
    total, backbone, head, aux, keys, giga = COUNTS[size]
    with torch.device("meta"):
        network = getattr(upernet, f"upernet_convnext_{size}")()
    assert count(network) == total
    assert count(network.backbone) == backbone
    assert count(network.decode_head) == head
    assert count(network.auxiliary_head) == aux
    assert len(network.state_dict()) == keys
    card = catalog.entry(f"upernet_convnext_{size}").card
    assert card.parameters == total
    assert card.multiply_adds == multiply_adds(network, 512)
    assert card.multiply_adds / 1e9 == pytest.approx(giga, abs=6e-3)


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_fcns_parameters_are_the_encoders_and_the_heads(size: str):
    _, backbone, *_ = COUNTS[size]
    c1, c2, c3, c4 = SIZES[f"convnext_{size}"].channels
    with torch.device("meta"):
        build = getattr(fcn_convnext, f"fcn_convnext_{size}")
        network, with_aux, as_in_r = build(), build(aux_loss=True), build(output_norms=False)
    without_norms = backbone - 2 * (c1 + c2 + c3 + c4)
    out = 9 * c4 * 512 + 2 * 512 + 512 * 21 + 21
    assert count(as_in_r) == without_norms + out
    assert (
        count(network)
        == without_norms + 2 * c4 + out
        == catalog.entry(f"fcn_convnext_{size}").card.parameters
    )
    assert count(with_aux) == count(network) + 2 * c3 + 9 * c3 * 256 + 2 * 256 + 256 * 21 + 21
    assert catalog.entry(f"fcn_convnext_{size}").card.multiply_adds == multiply_adds(network, 520)


def test_a_block_is_the_slow_obvious_one():
    torch.manual_seed(0)
    block = shuffled(Block(4, 0.0, 1e-6))
    x = torch.randn(1, 4, 5, 6)
    padded = F.pad(x, (3, 3, 3, 3))
    expected = torch.empty_like(x)
    for i in range(5):
        for j in range(6):
            t = (block.dwconv.weight[:, 0] * padded[0, :, i : i + 7, j : j + 7]).sum(
                (1, 2)
            ) + block.dwconv.bias
            t = (t - t.mean()) / ((t - t.mean()).square().mean() + 1e-6).sqrt()
            t = t * block.norm.weight + block.norm.bias
            t = block.pwconv1.weight @ t + block.pwconv1.bias
            t = t * 0.5 * (1 + torch.erf(t / math.sqrt(2)))  # the exact GELU
            t = block.pwconv2.weight @ t + block.pwconv2.bias
            expected[0, :, i, j] = x[0, :, i, j] + block.gamma * t
    with torch.no_grad():
        assert torch.allclose(block(x), expected, atol=1e-5)


def test_features_are_normalised_but_the_next_stage_goes_on_from_what_was_not():
    encoder = shuffled(ConvNeXt(**SMALL))
    bare = ConvNeXt(**SMALL, output_norms=False).eval()
    bare.load_state_dict({k: t for k, t in encoder.state_dict().items() if not k.startswith("norm")})
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for level, (normed, plain) in enumerate(zip(encoder(image), bare(image), strict=True)):
            norm = getattr(encoder, f"norm{level}")
            centred = plain - plain.mean(1, keepdim=True)
            by_hand = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
            by_hand = by_hand * norm.weight[:, None, None] + norm.bias[:, None, None]
            assert torch.allclose(normed, by_hand, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_pooling_by_matrices_is_adaptive_pooling(size: int):
    pool = AdaptiveAvgPool(size)
    for h, w in ((1, 1), (2, 5), (6, 6), (13, 7), (24, 36)):
        x = torch.randn(2, 3, h, w)
        by_matrices = pool._bins(h, x) @ x @ pool._bins(w, x).T
        assert torch.allclose(by_matrices, F.adaptive_avg_pool2d(x, size), atol=1e-6)


def test_the_pyramid_head_puts_its_parts_together_in_the_published_order():
    """[deepest, pools 1, 2, 3, 6] and [finest, ..., deepest]: by splitting each mixing kernel over its parts."""
    head = shuffled(UPerHead((4, 5, 6, 7), 8, 3, 0.0))
    features = [torch.randn(1, c, 24 >> i, 32 >> i) for i, c in enumerate((4, 5, 6, 7))]

    def apply(module: Any, x: Tensor) -> Tensor:
        return module.bn(F.conv2d(x, module.conv.weight, padding=module.conv.padding)).relu()

    def mix(module: Any, parts: list[Tensor]) -> Tensor:
        kernels = module.conv.weight.split([part.shape[1] for part in parts], dim=1)
        return module.bn(sum(F.conv2d(p, k, padding=1) for p, k in zip(parts, kernels, strict=True))).relu()

    with torch.no_grad():
        top, size = features[3], features[3].shape[-2:]
        pools = [
            apply(m[1], F.adaptive_avg_pool2d(top, s))
            for m, s in zip(head.psp_modules, (1, 2, 3, 6), strict=True)
        ]
        down = [mix(head.bottleneck, [top, *(enlarge(p, size, align_corners=False) for p in pools)])]
        for level in (2, 1, 0):
            lateral = apply(head.lateral_convs[level], features[level])
            down.insert(0, lateral + enlarge(down[0], lateral.shape[-2:], align_corners=False))
        levels = [apply(head.fpn_convs[i], down[i]) for i in (0, 1, 2)] + [down[3]]
        fused = mix(head.fpn_bottleneck, [enlarge(x, (24, 32), align_corners=False) for x in levels])
        assert torch.allclose(head(features), head.conv_seg(fused), atol=1e-5)


@pytest.mark.parametrize("build", [upernet_convnext_tiny, fcn_convnext_tiny])
@pytest.mark.parametrize("size_hw", [(32, 32), (64, 96), (97, 130)])
def test_forward_is_coarse_enlarged_at_any_size(build, size_hw):
    network = shuffled(build(num_classes=5, in_channels=1, aux_loss=True, **TINY))
    assert isinstance(network, Network)
    image = torch.randn(2, 1, *size_hw)
    with torch.no_grad():
        coarse, logits = network.coarse(image), network(image)
    assert coarse.shape == (2, 5, size_hw[0] // network.stride, size_hw[1] // network.stride)
    assert torch.equal(logits["out"], enlarge(coarse, size_hw, align_corners=False))
    assert logits["aux"].shape == (2, 5, *size_hw)
    assert set(build(aux_loss=False, **TINY)(torch.zeros(2, 3, 64, 64))) == {"out"}


def test_too_small_an_image_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="at least 32x32 pixels, got 31x64; pad"):
        upernet_convnext_tiny(**TINY)(torch.zeros(1, 3, 31, 64))


@pytest.mark.parametrize("build", [upernet_convnext_tiny, fcn_convnext_tiny])
@pytest.mark.parametrize("output_norms", [True, False])
def test_training_reaches_every_parameter(build, output_norms: bool):
    network = build(
        num_classes=4, in_channels=5, aux_loss=True, output_norms=output_norms, drop_path=0.0, **TINY
    ).train()
    logits = network(torch.randn(2, 5, 64, 64))
    sum(head.square().mean() for head in logits.values()).backward()
    assert network.unused_parameters == ()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_batch_size_one_trains_the_fcn_and_is_refused_by_upernet_unless_its_norms_are_frozen():
    fcn_convnext_tiny(**TINY).train()(torch.randn(1, 3, 64, 64))
    network = upernet_convnext_tiny(**TINY).train()
    with pytest.raises(ValueError, match=r"two images or more .* got 1; enlarge the batch"):
        network(torch.randn(1, 3, 64, 64))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    network(torch.randn(1, 3, 64, 64))


def test_a_misspelt_argument_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match="'num_classes'"):
        upernet_convnext_tiny(num_clases=3)
    with pytest.raises(TypeError, match="'output_norms'"):
        fcn_convnext_tiny(output_norm=False)


# Checkpoints ----------------------------------------------------------------------------------------------------------


def family_named(name: str) -> Any:
    return next(family for family in families() if family.name == name)


def network_for(name: str) -> nn.Module:
    build = fcn_convnext_tiny if "fcn" in name else upernet_convnext_tiny
    return shuffled(
        build(num_classes=6, in_channels=4, aux_loss=True, output_norms="mlverse" not in name, **TINY)
    )


FAMILIES = (
    "meta.upernet_convnext",
    "mmseg.upernet_convnext",
    "huggingface.upernet_convnext",
    "mlverse.upernet_convnext",
    "mlverse.fcn_convnext",
)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("aux", [True, False], ids=["aux", "no-aux"])
def test_a_round_trip_through_the_familys_own_names_changes_nothing(name: str, aux: bool):
    network = network_for(name)
    theirs = family_named(name).to_theirs(network.state_dict())
    if "mmseg" in name:  # as 1x1 convolutions
        theirs = {k: t[..., None, None] if "pointwise" in k and t.ndim == 2 else t for k, t in theirs.items()}
    if "mlverse" in name:  # what R's encoder has and never applies
        theirs |= {"backbone.model.norm.weight": torch.ones(20), "backbone.model.norm.bias": torch.ones(20)}
    if "fcn" in name:
        theirs |= {
            "backbone.model.head.weight": torch.ones(1000, 20),
            "backbone.model.head.bias": torch.ones(1000),
        }
    if not aux:
        theirs = {key: t for key, t in theirs.items() if not key.startswith("aux")}
    again = from_checkpoint({"state_dict": theirs, "meta": {"CLASSES": ("a", "b")}}).eval()
    expected = {k: t for k, t in network.state_dict().items() if aux or not k.startswith("aux")}
    dropped = {"backbone.norm2.weight", "backbone.norm2.bias"} if "fcn" in name and not aux else set()
    assert again.state_dict().keys() == expected.keys() - dropped
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    image = torch.randn(1, 4, 65, 64)
    with torch.no_grad():
        assert torch.equal(again.coarse(image), network.coarse(image))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_renamed_and_a_missing_tensor_are_noticed(name: str):
    theirs = family_named(name).to_theirs(network_for(name).state_dict())
    needed = [key for key in theirs if not key.endswith("num_batches_tracked")]
    for key in needed[::9]:
        without = {k: t for k, t in theirs.items() if k != key}
        with pytest.raises(WeightsError):
            from_checkpoint(without)
        with pytest.raises(WeightsError):
            from_checkpoint({**without, f"{key}_": theirs[key]})


def test_rs_renaming_of_the_mirrors_file_is_read_as_r_reads_it():
    """The rules of R's loader, applied to mmsegmentation's names, must give the names that we take for R's."""
    import re

    network = shuffled(upernet_convnext_tiny(num_classes=6, **TINY))
    mirror = family_named("mmseg.upernet_convnext").to_theirs(network.state_dict())
    rules = (
        (r"backbone\.", "backbone.model."), (r"model\.norm3", "model.norm"),
        (r"psp_modules\.", "psp_modules.stages."), ("depthwise_", "dw"), ("pointwise_", "pw"),
        (r"(\d\.\d)\.conv\.weight", r"\1.weight"), (r"\.conv\.weight", ".0.weight"),
        (r"\.(\d)\.1\.bn\.", r".\1.2."), (r"\.bn\.", ".1."), (r"decode_head\.conv_seg", "decode_head.cls_seg"),
        (r"auxiliary_head\.convs\.0\.", "aux_classifier."), (r"auxiliary_head\.conv_seg\.", "aux_classifier.4."),
    )  # fmt: skip
    renamed = {}
    for key, tensor in mirror.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key, count=1)
        renamed[key] = tensor
    as_in_r, as_in_mmseg = from_checkpoint(renamed).eval(), from_checkpoint(mirror).eval()
    bare = upernet_convnext_tiny(num_classes=6, output_norms=False, **TINY).eval()
    bare.load_state_dict({k: t for k, t in network.state_dict().items() if not k.startswith("backbone.norm")})
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(as_in_mmseg.coarse(image), network.coarse(image))
        assert torch.equal(as_in_r.coarse(image), bare.coarse(image))
        assert relative(as_in_r.coarse(image), as_in_mmseg.coarse(image)) > 0.01


def test_a_network_with_norms_cannot_be_written_in_rs_names():
    with pytest.raises(KeyError, match=r"backbone\.norm0"):
        family_named("mlverse.upernet_convnext").to_theirs(upernet_convnext_tiny(**TINY).state_dict())


# Against transformers -------------------------------------------------------------------------------------------------


def huggingface(size: str, classes: int, depths: tuple[int, ...] | None = None, width: int = 512) -> Any:
    transformers = pytest.importorskip("transformers")
    row = SIZES[f"convnext_{size}"]
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.ConvNextConfig(
        hidden_sizes=list(row.channels), depths=list(depths or row.depths), out_features=stages
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=width, num_labels=classes, auxiliary_in_channels=row.channels[2]
    )
    return transformers.UperNetForSemanticSegmentation(config)


@pytest.mark.parametrize(
    ("size", "classes", "depths", "width"),
    [
        ("tiny", 150, (1, 2, 1, 1), 64),
        ("base", 19, (1, 1, 2, 1), 32),
        *(pytest.param(size, 150, None, 512, marks=pytest.mark.slow) for size in COUNTS),
    ],
)
def test_logits_are_those_of_transformers(size, classes, depths, width, tmp_path):
    theirs = shuffled(huggingface(size, classes, depths, width))
    theirs.save_pretrained(tmp_path)
    ours = from_checkpoint(tmp_path).eval()
    assert ours.num_classes == classes
    for size_hw in ((64, 96), (97, 77)):
        image = torch.randn(1, 3, *size_hw)
        with torch.no_grad():
            assert relative(ours(image)["out"], theirs(image).logits) < 1e-5
            features = theirs.backbone(image).feature_maps
            aux = enlarge(theirs.auxiliary_head(features), size_hw, align_corners=False)
            assert relative(ours(image)["aux"], aux) < 1e-5


@pytest.mark.parametrize("size", COUNTS)
def test_every_configuration_of_transformers_is_recognised_whole(size: str):
    with torch.device("meta"):
        theirs = huggingface(size, 150).state_dict()
    family = family_named("huggingface.upernet_convnext")
    origin, read = family.read(theirs)
    assert origin.model == f"upernet_convnext_{size}"
    assert origin.arguments == {"num_classes": 150, "in_channels": 3, "aux_loss": True, "output_norms": True}
    with torch.device("meta"):
        ours = getattr(upernet, origin.model)(**origin.arguments).state_dict()
    assert {k: t.shape for k, t in read.items()} == {k: t.shape for k, t in ours.items()}
    assert family.to_theirs(ours).keys() == theirs.keys()


# Export ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_exported_network_agrees_at_sizes_it_was_not_traced_at(tmp_path):
    """The pooling pyramid included, whose bins do not divide these sizes."""
    network = shuffled(upernet_convnext_tiny(num_classes=3, **TINY))
    card = catalog.card_for(network)
    assert export_onnx(network, card, tmp_path / "tiny.onnx", checked_at=((97, 130), (64, 288))) < 1e-4


def test_rs_names_build_the_same_networks():
    with torch.device("meta"):
        with pytest.warns(FutureWarning, match="upernet_convnext_tiny"):
            network = models.model_convnext_tiny_upernet(num_classes=150, output_norms=False)
        expected = upernet_convnext_tiny(num_classes=150, output_norms=False)
    assert list(network.state_dict()) == list(expected.state_dict())
    with pytest.raises(InputError, match="pass it"):
        models.model_convnext_base_fcn(pretrained=True)
