"""SegFormer: counts, the head in two orders, the layer norms' epsilons, and everybody's checkpoints."""

from __future__ import annotations

import fnmatch
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pixelwise import catalog
from pixelwise.checkpoints.families import mit
from pixelwise.checkpoints.loading import families, from_checkpoint, load_checkpoint
from pixelwise.encoders.mit import EPSILONS, SIZES, MixTransformer, ReducedAttention
from pixelwise.errors import WeightsError
from pixelwise.export.onnx import export_onnx
from pixelwise.layers import Network, enlarge
from pixelwise.models import segformer
from pixelwise.models.segformer import SegFormer, segformer_b0
from pixelwise.weights.store import load_into

pytestmark = [
    pytest.mark.filterwarnings("ignore:these tensors do not say"),
    pytest.mark.filterwarnings("ignore:the folder .* has no preprocessor_config.json"),
]

TINY: dict[str, Any] = {"channels": (8, 16, 20, 32), "depths": (1, 2, 1, 1), "width": 24}

# Parameters of encoder, whole with 150 and with 19 classes, keys at Hugging Face, ours (= SMP's).
COUNTS = {
    "b0": (3_319_392, 3_752_694, 3_719_027, 208, 192),
    "b1": (13_151_424, 13_715_798, 13_682_131, 208, 192),
    "b2": (24_196_288, 27_461_974, 27_361_235, 380, 348),
    "b3": (44_072_128, 47_337_814, 47_237_075, 644, 588),
    "b4": (60_842_688, 64_108_374, 64_007_635, 930, 848),
    "b5": (81_443_008, 84_708_694, 84_607_955, 1172, 1068),
}


def build(variant: str, **arguments: Any) -> SegFormer:
    network: SegFormer = getattr(segformer, f"segformer_{variant}")(**arguments)
    return network


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


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
            tensor.normal_(1 if name.endswith("weight") else 0, 0.2, generator=generator)
    return network.eval()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / (b.max() - b.min()))


@pytest.mark.parametrize("variant", COUNTS)
def test_parameters_and_keys_are_those_of_the_sheet(variant: str):
    encoder, with_150, with_19, theirs, ours = COUNTS[variant]
    with torch.device("meta"):
        network = build(variant)
        assert (count(network.backbone), count(network)) == (encoder, with_150)  # type: ignore[arg-type]
        assert count(build(variant, num_classes=19)) == with_19
    assert len(network.state_dict()) == ours
    family = next(f for f in families() if f.name == "huggingface.segformer")
    assert family.to_theirs is not None
    assert len(family.to_theirs(network.state_dict())) == theirs
    assert catalog.entry(f"segformer_{variant}").card.parameters == with_150


@pytest.mark.parametrize(
    ("variant", "classes", "size_hw", "giga"),
    [("b0", 150, (512, 512), 8.388), ("b5", 150, (640, 640), 183.141), ("b2", 19, (1024, 2048), 703.485)],
)
def test_multiply_adds_in_the_papers_order_are_those_of_the_sheet(variant, classes, size_hw, giga):
    def multiply_adds(fast: bool) -> int:
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            build(variant, num_classes=classes, fast_head=fast).eval()(torch.empty(1, 3, *size_hw))
        return counter.get_total_flops() // 2

    published = multiply_adds(fast=False)
    assert published / 1e9 == pytest.approx(giga, abs=6e-4)
    assert multiply_adds(fast=True) < 0.7 * published
    if classes == 150:
        assert catalog.entry(f"segformer_{variant}").card.multiply_adds == published


@pytest.mark.parametrize("training", [False, True])
def test_both_orders_of_the_head_are_the_same_function_with_the_same_gradients(training: bool):
    network = shuffled(segformer_b0(num_classes=7, dropout=0.0, drop_path=0.0, **TINY))
    head = network.decode_head.train(training)
    sizes = ((25, 33), (13, 17), (7, 9), (4, 5))
    features = [
        torch.randn(2, c, *size, generator=torch.Generator().manual_seed(c), requires_grad=True)
        for c, size in zip(TINY["channels"], sizes, strict=True)
    ]
    results = {}
    for head.fast in (True, False):
        if training:
            head.linear_fuse.bn.reset_running_stats()
        head.zero_grad()
        logits = head(features)
        gradients = torch.autograd.grad(logits.square().mean(), [*features, *head.parameters()])
        results[head.fast] = [logits, head.linear_fuse.bn.running_mean.clone(), *gradients]
    for fast, published in zip(results[True], results[False], strict=True):
        # 1e-7: batch norm takes a constant away in training, so the gradients of the biases are 0 but for rounding
        assert (fast - published).abs().max() <= 2e-6 * published.abs().max() + 1e-7


def test_attention_is_the_slow_obvious_one():
    """Keys are the first half of kv, and the last rows and columns that fill no patch are not seen."""
    torch.manual_seed(0)
    heads, r, c, h, w = 2, 4, 6, 9, 14
    attention = shuffled(ReducedAttention(c, heads, r, 1e-5))
    tokens = torch.randn(1, h * w, c)
    image = tokens[0].T.reshape(c, h, w)
    small = []
    for i in range(h // r):
        for j in range(w // r):
            patch = image[:, r * i : r * i + r, r * j : r * j + r]
            token = (attention.sr.weight * patch).sum((1, 2, 3)) + attention.sr.bias
            centred = token - token.mean()
            token = centred / (centred.square().mean() + 1e-5).sqrt()
            small.append(token * attention.norm.weight + attention.norm.bias)
    source = torch.stack(small)  # (6, c)
    keys = source @ attention.kv.weight[:c].T + attention.kv.bias[:c]
    values = source @ attention.kv.weight[c:].T + attention.kv.bias[c:]
    queries = tokens[0] @ attention.q.weight.T + attention.q.bias
    mixed = []
    for head in range(heads):
        part = slice(head * c // heads, (head + 1) * c // heads)
        scores = queries[:, part] @ keys[:, part].T / math.sqrt(c / heads)
        mixed.append(scores.softmax(1) @ values[:, part])
    expected = torch.cat(mixed, 1) @ attention.proj.weight.T + attention.proj.bias
    with torch.no_grad():
        assert torch.allclose(attention(tokens, (h, w))[0], expected, atol=1e-5)


@pytest.mark.parametrize("origin", EPSILONS)
def test_epsilons_follow_the_origin(origin: str):
    network = segformer_b0(eps=origin, **TINY)
    blocks, patches = EPSILONS[origin]
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm):
            after_a_convolution = fnmatch.fnmatch(name, "*patch_embed*") or name.endswith("attn.norm")
            assert module.eps == (patches if after_a_convolution else blocks), name
    with pytest.raises(ValueError, match="nvlabs"):
        segformer_b0(eps="nvidia")


@pytest.mark.parametrize("size_hw", [(29, 29), (64, 96), (97, 130)])
def test_forward_is_coarse_enlarged_at_any_size(size_hw):
    network = shuffled(segformer_b0(num_classes=5, in_channels=1, **TINY))
    assert isinstance(network, Network)
    image = torch.randn(2, 1, *size_hw)
    with torch.no_grad():
        coarse, out = network.coarse(image), network(image)["out"]
    assert coarse.shape == (2, 5, -(-size_hw[0] // 4), -(-size_hw[1] // 4))
    assert out.shape == (2, 5, *size_hw)
    assert torch.equal(out, enlarge(coarse, size_hw, align_corners=False))


def test_too_small_an_image_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="at least 29x29 pixels, got 28x64; pad"):
        segformer_b0(**TINY)(torch.zeros(1, 3, 28, 64))


def test_training_at_batch_size_one_reaches_every_parameter():
    network = segformer_b0(num_classes=4, in_channels=5, **TINY).train()
    network(torch.randn(1, 5, 64, 64))["out"].square().mean().backward()
    assert network.unused_parameters == ()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_drop_path_rises_linearly_over_all_blocks():
    network = segformer_b0(drop_path=0.1, **{**TINY, "depths": (1, 2, 1, 1)})
    rates = [m.p for m in network.modules() if type(m).__name__ == "StochasticDepth"]
    assert rates == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


def test_a_misspelt_argument_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match="'num_classes'"):
        segformer_b0(num_clases=3)
    with pytest.raises(ValueError, match="four stages"):
        segformer_b0(depths=(1, 1, 1))
    with pytest.raises(ValueError, match="multiple of its heads"):
        segformer_b0(channels=(8, 16, 21, 32))


def test_weights_begin_as_released():
    torch.manual_seed(0)
    network = segformer_b0()
    linear, conv = network.backbone.block4[0].mlp.fc1, network.backbone.block4[0].mlp.dwconv.dwconv
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)  # fan out 9, per group
    assert not linear.bias.any()
    assert not conv.bias.any()


# Checkpoints ----------------------------------------------------------------------------------------------------------


def family_named(name: str) -> Any:
    return next(f for f in (*families(), *mit.BACKBONES) if f.name == name)


@pytest.mark.parametrize("name", ["nvlabs.segformer", "huggingface.segformer", "transformers5.segformer"])
@pytest.mark.parametrize("sizes", [{}, TINY], ids=["b0", "tiny"])
def test_a_round_trip_through_the_familys_own_names_changes_nothing(name: str, sizes: dict[str, Any]):
    family = family_named(name)
    network = shuffled(segformer_b0(num_classes=19, in_channels=4, **sizes))
    theirs = family.to_theirs(network.state_dict())
    if name == "nvlabs.segformer":
        theirs["decode_head.conv_seg.weight"] = torch.zeros(19, 128, 1, 1)
        theirs["decode_head.conv_seg.bias"] = torch.zeros(19)
    again = from_checkpoint({"state_dict": {f"module.{key}": tensor for key, tensor in theirs.items()}})
    assert again.origin.model == "segformer_b0"
    assert again.origin.arguments["eps"] == ("nvlabs" if name.startswith("nvlabs") else "huggingface")
    assert again.state_dict().keys() == network.state_dict().keys()
    existing = segformer_b0(num_classes=19, in_channels=4, **sizes)
    load_checkpoint(existing, theirs)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
        assert torch.equal(tensor, existing.state_dict()[key]), key


@pytest.mark.parametrize("name", ["nvlabs.segformer", "huggingface.segformer", "transformers5.segformer"])
def test_a_renamed_a_missing_and_a_misshapen_tensor_are_named(name: str):
    family = family_named(name)
    theirs = family.to_theirs(segformer_b0(num_classes=3, **TINY).state_dict())
    needed = [key for key in theirs if not key.endswith("num_batches_tracked")]
    for key in [*needed[::11], *(key for key in needed if "value" in key or "v_proj" in key)]:
        without = {k: t for k, t in theirs.items() if k != key}
        with pytest.raises(WeightsError):
            from_checkpoint(without)
        with pytest.raises(WeightsError):
            from_checkpoint({**without, f"{key}_": theirs[key]})
        if "value" in key or "v_proj" in key:
            with pytest.raises(WeightsError, match="attn"):
                from_checkpoint({**theirs, key: torch.zeros(3, 2)})


def test_keys_come_before_values_in_the_joined_layer():
    theirs = family_named("huggingface.segformer").to_theirs(segformer_b0(**TINY).state_dict())
    prefix = "segformer.encoder.block.1.1.attention.self."
    theirs[f"{prefix}key.bias"], theirs[f"{prefix}value.bias"] = (
        torch.full((16,), 1.0),
        torch.full((16,), 2.0),
    )
    joined = from_checkpoint(theirs).state_dict()["backbone.block2.1.attn.kv.bias"]
    assert joined.tolist() == [1.0] * 16 + [2.0] * 16


@pytest.mark.parametrize("family", mit.BACKBONES, ids=lambda family: family.name)
def test_an_encoders_own_file_fills_the_encoder(family: Any):
    encoder = shuffled(MixTransformer(in_channels=2))
    theirs = family.to_theirs(encoder.state_dict())
    assert family.matches(theirs) == len(family.marks)
    origin, read = family.read(theirs)
    assert (origin.model, origin.arguments["in_channels"]) == ("mit_b0", 2)
    size = SIZES[origin.model]
    again = MixTransformer(size.channels, size.depths, **origin.arguments)
    load_into(again, read, source=family.says)
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key


def test_mmsegmentations_attention_is_torchs_with_query_key_and_value_in_one():
    attention = shuffled(ReducedAttention(8, 2, 1, 1e-6))
    ours = {f"block1.0.attn.{key}": tensor for key, tensor in attention.state_dict().items()}
    theirs = mit.to_mmseg(ours)
    torchs = nn.MultiheadAttention(8, 2, batch_first=True)
    torchs.load_state_dict({k.removeprefix("layers.0.1.0.attn.attn."): t for k, t in theirs.items()})
    tokens = torch.randn(2, 12, 8)
    with torch.no_grad():
        expected = torchs(tokens, tokens, tokens, need_weights=False)[0]
        assert torch.allclose(attention(tokens, (3, 4)), expected, atol=1e-6)


# Against transformers -------------------------------------------------------------------------------------------------


def huggingface(variant: str, classes: int, depths: tuple[int, ...] | None = None) -> Any:
    transformers = pytest.importorskip("transformers")
    row = segformer.VARIANTS[f"segformer_{variant}"]
    size = SIZES[row.encoder]
    config = transformers.SegformerConfig(
        hidden_sizes=list(size.channels), depths=list(depths or size.depths),
        decoder_hidden_size=row.width, num_labels=classes,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config)


@pytest.mark.parametrize(
    ("variant", "classes", "depths"),
    [
        ("b0", 150, None),
        ("b1", 19, (1, 2, 1, 1)),
        ("b5", 19, (1, 1, 2, 1)),
        *(
            pytest.param(f"b{i}", classes, None, marks=pytest.mark.slow)
            for i in range(6)
            for classes in (150, 19)
        ),
    ],
)
def test_logits_are_those_of_transformers(
    variant: str, classes: int, depths: tuple[int, ...] | None, tmp_path
):
    """B0 whole, others with a block or two a stage; all of them whole among the slow tests."""
    theirs = shuffled(huggingface(variant, classes, depths))
    theirs.save_pretrained(tmp_path)
    ours = from_checkpoint(tmp_path).eval()
    assert ours.num_classes == classes
    for size_hw in ((64, 96), (97, 77)):
        image = torch.randn(2 if classes == 19 else 1, 3, *size_hw)
        with torch.no_grad():
            assert relative(ours.coarse(image), theirs(image).logits) < 1e-5


@pytest.mark.parametrize("classes", [150, 19])
@pytest.mark.parametrize("variant", COUNTS)
def test_every_configuration_of_transformers_is_recognised_whole(variant: str, classes: int):
    with torch.device("meta"):
        theirs = huggingface(variant, classes).state_dict()
    family = family_named("transformers5.segformer")
    origin, read = family.read(theirs)
    assert origin.model == f"segformer_{variant}"
    assert origin.arguments == {"num_classes": classes, "in_channels": 3, "eps": "huggingface"}
    with torch.device("meta"):
        ours = build(variant, **origin.arguments).state_dict()
    assert {k: t.shape for k, t in read.items()} == {k: t.shape for k, t in ours.items()}
    back = family.to_theirs(ours)
    assert {k: t.shape for k, t in back.items()} == {k: t.shape for k, t in theirs.items()}


def test_what_transformers_holds_in_memory_loads_too():
    theirs = shuffled(huggingface("b0", 19))
    ours = from_checkpoint(theirs.state_dict()).eval()
    image = torch.randn(1, 3, 65, 64)
    with torch.no_grad():
        assert relative(ours.coarse(image), theirs(image).logits) < 1e-5


# Export ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_exported_network_agrees_at_sizes_it_was_not_traced_at(tmp_path):
    network = shuffled(segformer_b0(num_classes=3, **TINY))
    card = catalog.card_for(network)
    assert export_onnx(network, card, tmp_path / "tiny.onnx", checked_at=((97, 130), (64, 33))) < 1e-4


def test_half_precision_stays_near():
    network = shuffled(segformer_b0(num_classes=3, **TINY))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        exact = network.coarse(image)
        assert relative(network.bfloat16().coarse(image.bfloat16()).float(), exact) < 0.1


def test_an_encoder_file_fills_the_encoder_of_a_new_network(tmp_path):
    sizes = {"channels": (8, 16, 40, 64), "depths": (1, 2, 1, 1), "width": 16, "num_classes": 5}
    torch.manual_seed(0)
    source = segformer_b0(**sizes)
    own = {
        k.removeprefix("backbone."): v for k, v in source.state_dict().items() if k.startswith("backbone.")
    }
    released = {**own, "head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}
    torch.save(released, tmp_path / "mit_tiny.pth")
    torch.manual_seed(1)
    network = segformer_b0(**sizes, weights_backbone=tmp_path / "mit_tiny.pth")
    assert own
    for key, tensor in own.items():
        assert torch.equal(network.state_dict()[f"backbone.{key}"], tensor)
    with pytest.raises(WeightsError, match="expected those of a Mix Transformer"):
        segformer_b0(**sizes, weights_backbone={"conv.weight": torch.zeros(1)})
