"""The twelve decoders on any encoder: the contract of all networks, and what SMP 0.6 gets wrong (issue 4)."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from decoders_by_hand import coarse_by_hand
from deeplab import bilinear, difference
from exported import largest_difference
from pixelwise.decoders import DECODERS, load_decoder, segformer, unet
from pixelwise.decoders.needs import NEEDS
from pixelwise.errors import UnknownNameError
from pixelwise.layers import Network

NAMES = list(DECODERS)
HALVING = [name for name in NAMES if NEEDS[name].halving]
NORMS = ("batch", "group", "instance", "layer", None)


class Pyramid(nn.Module):
    """A small encoder: one strided convolution per feature; sizes are rounded up, or down as by pooling."""

    def __init__(
        self, strides: tuple[int, ...] = (2, 4, 8, 16, 32), *, in_channels: int = 3, down: bool = False
    ) -> None:
        super().__init__()
        self.strides = strides
        self.channels = tuple(16 + 4 * i for i in range(len(strides)))
        before, stride, self.convs = in_channels, 1, nn.ModuleList()
        for c, now in zip(self.channels, strides, strict=True):
            step = now // stride
            self.convs.append(
                nn.Conv2d(before, c, step, step)
                if down
                else nn.Conv2d(before, c, 2 * step - 1, step, step - 1)
            )
            before, stride = c, now

    def forward(self, image: Tensor) -> list[Tensor]:
        features, x = [], image
        for conv in self.convs:
            x = F.relu(conv(x))
            features.append(x)
        return features


class Transformer(nn.Module):
    """Two blocks' worth of tokens of one stride, with a class token: what DPT is made for."""

    prefix_tokens = 1

    def __init__(self, patch: int = 16, taps: int = 4) -> None:
        super().__init__()
        self.channels, self.strides = (24,) * taps, (patch,) * taps
        self.patches = nn.Conv2d(3, 24, patch, patch)
        self.blocks = nn.ModuleList(nn.Conv2d(24, 24, 1) for _ in range(taps))
        self.patch = patch

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.with_tokens(image)[0]

    def with_tokens(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x = F.pad(image, (0, -image.shape[-1] % self.patch, 0, -image.shape[-2] % self.patch))
        x, features = self.patches(x), []
        for block in self.blocks:
            x = x + torch.tanh(block(x))
            features.append(x)
        return features, [f.mean(dim=(2, 3))[:, None] for f in features]


def encoder_for(name: str) -> nn.Module:
    """The features that a decoder asks for."""
    if NEEDS[name].tokens:
        return Transformer()
    strides = [min(2**i, NEEDS[name].output_stride) for i in range(1, NEEDS[name].depth + 1)]
    return Pyramid(tuple(strides))


SMALL = {
    **{name: {"decoder_channels": (32, 24, 16, 8, 8)} for name in ("unet", "unetplusplus", "manet")},
    "linknet": {"width": 8},
    "fpn": {"pyramid_channels": 16, "segmentation_channels": 16},
    "dpt": {"width": 16, "reassemble_channels": (8, 8, 16, 16)},
}


def build(name: str, num_classes: int = 3, encoder: nn.Module | None = None, **options) -> nn.Module:
    """A narrow network with norms that are not the identity."""
    torch.manual_seed(0)
    small = dict(SMALL.get(name, {"width": 16}))
    if encoder is not None:
        small.pop("decoder_channels", None)
    network = load_decoder(name)(encoder or encoder_for(name), num_classes, **{**small, **options})
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    return network


def logits_are_those_by_hand(name: str, encoder: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Coarse and enlarged, against `decoders_by_hand`, with norms and biases of which every one matters."""
    network = build(name, encoder=encoder).eval()
    with torch.inference_mode():
        for key, parameter in network.named_parameters():
            if parameter.ndim == 1 and key.endswith("weight"):
                parameter.uniform_(0.5, 1.2)
            elif parameter.ndim == 1:
                parameter.normal_(0, 0.1)
        image = picture(*size)
        expected = coarse_by_hand(name, network, image)
        assert difference(network.coarse(image), expected) < 1e-5
        expected = bilinear(expected, size, align_corners=network.align_corners)
        assert difference(network(image)["out"], expected) < 1e-5
    return network


def picture(*size: int, batch: int = 1, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def without_dead_units(network: nn.Module) -> nn.Module:
    """Softplus for ReLU: random weights may close a gate of one channel, through which no gradient comes."""
    for module in list(network.modules()):
        for key, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, key, nn.Softplus())
    return network


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image_and_are_the_enlarged_coarse_ones(name):
    network = build(name, aux_loss=True).eval()
    assert isinstance(network, Network)
    assert network.num_classes == 3
    for size in ((128, 160), (129, 163), (191, 130)):
        image = picture(*size)
        with torch.inference_mode():
            out, coarse = network(image), network.coarse(image)
        assert set(out) == {"out", "aux"}
        assert out["out"].shape == out["aux"].shape == (1, 3, *size)
        enlarged = F.interpolate(coarse, size=size, mode="bilinear", align_corners=network.align_corners)
        torch.testing.assert_close(out["out"], enlarged)
        assert coarse.shape[2:] == tuple(-(-side // network.stride) for side in size)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_with_every_norm(name, norm):
    options = {"attention": "scse"} if name in ("unet", "unetplusplus") else {}
    if name == "unetplusplus":
        options["deep_supervision"] = True
    network = without_dead_units(build(name, norm=norm, aux_loss=True, **options)).train()
    size = (288, 256) if name == "pan" else (128, 160)  # its smallest map is an eighth of the deepest feature
    kinds = {
        type(m) for m in network.modules() if "Norm" in type(m).__name__ and "ReLU" not in type(m).__name__
    }
    expected = {
        "batch": "BatchNorm2d",
        "group": "GroupNorm",
        "instance": "InstanceNorm2d",
        "layer": "LayerNorm2d",
    }
    allowed = {expected.get(norm)} | ({"LayerNorm2d"} if name == "upernet" else set())
    assert {kind.__name__ for kind in kinds} - allowed == set()
    assert norm is None or expected[norm] in {kind.__name__ for kind in kinds}
    generator = torch.Generator().manual_seed(2)
    out = network(picture(*size, batch=2))
    loss = sum((logits * torch.randn(logits.shape, generator=generator)).sum() for logits in out.values())
    loss.backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        taken_away = name == "pan" and norm is not None and key.endswith("conv.bias")  # by the norm behind
        assert parameter.grad.any() or taken_away, key


QUICK = ("pspnet",)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_the_onnx_export_equals_the_network_at_other_sizes(name):
    network = build(name).eval()
    assert largest_difference(network, (2, 3, 128, 160), (1, 3, 161, 203), (3, 3, 224, 130)) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_no_longer_swallowed(name):
    with pytest.raises(TypeError, match="decoder_chanels"):
        build(name, decoder_chanels=3)


@pytest.mark.parametrize("name", HALVING)
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (2, 4, 8), (1, 2, 4, 8, 16), (8, 16, 32, 64)])
def test_decoders_that_double_back_to_the_image_do_without_missing_features(name, strides):
    logits_are_those_by_hand(name, Pyramid(strides), (130, 95))


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_rounded_down_are_met_as_well(name):
    encoder = encoder_for(name) if NEEDS[name].tokens else Pyramid(encoder_for(name).strides, down=True)
    logits_are_those_by_hand(name, encoder, (159, 191))


@pytest.mark.parametrize("name", HALVING)
def test_a_transformer_of_one_stride_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=f"{name} cannot use .* half as large .* 16, 16, 16, 16"):
        load_decoder(name)(Transformer())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in HALVING])
def test_a_transformer_of_one_stride_will_do_for_the_others(name):
    logits_are_those_by_hand(name, Transformer(), (128, 144))


@pytest.mark.parametrize(
    "name", ["fpn", "pspnet", "pan", "deeplabv3", "deeplabv3plus", "upernet", "segformer"]
)
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_logits_are_right_at_every_depth(name, depth):
    encoder = Pyramid(tuple(2**i for i in range(1, depth + 1)))
    network = logits_are_those_by_hand(name, encoder, (256, 288))
    with torch.inference_mode():
        coarse = network.coarse(picture(256, 288))
    assert coarse.shape[2:] == (256 // network.stride, 288 // network.stride)


@pytest.mark.parametrize("patch", [14, 16, 8])
def test_dpt_takes_patches_of_14_pixels(patch):
    network = logits_are_those_by_hand("dpt", Transformer(patch), (140, 182))
    factors = [type(block.upsample).__name__ for block in network.decoder.reassemble_blocks]
    expected = ["ConvTranspose2d", "ConvTranspose2d", "Identity", "Conv2d"]
    assert factors == (expected if patch != 8 else ["ConvTranspose2d", "Identity", "Conv2d", "Conv2d"])
    with torch.inference_mode():
        assert network.coarse(picture(140, 182)).shape == (1, 3, 70, 91)


def test_dpt_readouts_are_what_their_names_say():
    feature, tokens = torch.randn(2, 24, 3, 4), torch.randn(2, 3, 24)
    add, ignore = (build("dpt", readout=r).decoder.projection_blocks[0] for r in ("add", "ignore"))
    torch.testing.assert_close(add(feature, tokens)[1, :, 2, 3], feature[1, :, 2, 3] + tokens[1].mean(0))
    assert ignore(feature, tokens) is feature
    cat = build("dpt").decoder.projection_blocks[0]
    by_hand = F.gelu(cat.project[0](torch.cat([feature[1, :, 2, 3], tokens[1, 0]])))
    torch.testing.assert_close(cat(feature, tokens)[1, :, 2, 3], by_hand)


def test_manets_position_attention_is_that_of_the_paper_unless_smps_is_asked_for():
    corrected = build("manet").decoder.center
    x = torch.randn(1, 32, 2, 3)
    corrected = type(corrected)(32, 4, "corrected")
    answer = corrected(x)
    place = [(i, j) for i in range(2) for j in range(3)]
    asked, asking, values = corrected.top_conv(x)[0], corrected.center_conv(x)[0], corrected.bottom_conv(x)[0]
    taken = torch.zeros_like(x)
    for i, j in place:
        scores = torch.stack([asking[:, i, j] @ asked[:, p, q] for p, q in place]).softmax(0)
        taken[0, :, i, j] = sum(s * values[:, p, q] for s, (p, q) in zip(scores, place, strict=True))
    torch.testing.assert_close(answer, corrected.out_conv(x + taken))
    smp = type(corrected)(32, 4, "smp")
    smp.load_state_dict(corrected.state_dict())
    assert not torch.allclose(smp(x), answer, atol=1e-3)
    with pytest.raises(ValueError, match="'corrected' or 'smp', got 'paper'"):
        build("manet", position_attention="paper")


def test_a_position_that_is_moved_moves_the_corrected_attention_with_it():
    attention = load_decoder("manet")(Pyramid()).decoder.center.eval()
    for conv in (
        attention.bottom_conv,
        attention.out_conv,
    ):  # so that places are told apart by attention only
        conv.weight.data[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    x = torch.randn(1, 32, 3, 5)
    moved = attention(x.flip(-1)).flip(-1)
    torch.testing.assert_close(moved, attention(x))
    attention.kind = "smp"
    assert not torch.allclose(attention(x.flip(-1)).flip(-1), attention(x), atol=1e-3)


def test_deep_supervision_gives_every_u_net_in_unetplusplus_its_head():
    network = build("unetplusplus", deep_supervision=True, aux_loss=True).eval()
    plain = build("unetplusplus").eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k in plain.state_dict()})
    image = picture(97, 66)
    with torch.inference_mode():
        out = network(image)
        assert list(out) == ["out", "aux", "aux1", "aux2", "aux3"]
        assert all(logits.shape == (1, 3, 97, 66) for logits in out.values())
        torch.testing.assert_close(out["out"], plain(image)["out"])


def test_the_shallowest_deep_head_does_not_see_the_deepest_features():
    network = build("unetplusplus", deep_supervision=True).eval()
    image = picture(64, 64)
    with torch.inference_mode():
        before = network(image)
        network.encoder.convs[-1].weight.mul_(0.5)
        after = network(image)
    torch.testing.assert_close(after["aux1"], before["aux1"])
    torch.testing.assert_close(after["aux2"], before["aux2"])
    torch.testing.assert_close(after["aux3"], before["aux3"])
    assert not torch.allclose(after["out"], before["out"], atol=1e-4)


def test_scse_weighs_by_channel_and_by_place():
    from pixelwise.decoders.unet import SCSE

    scse = SCSE(4)
    x = torch.randn(1, 4, 3, 5)
    channel = scse.cSE[3](F.relu(scse.cSE[1](x.mean(dim=(2, 3), keepdim=True)))).sigmoid()
    place = scse.sSE[0](x).sigmoid()
    torch.testing.assert_close(scse(x), x * channel + x * place)


def test_the_fast_order_of_segformers_head_changes_rounding_only(monkeypatch):
    calls = []
    counted = segformer.fuse_levels
    monkeypatch.setattr(
        segformer, "fuse_levels", lambda *given, **more: calls.append(1) or counted(*given, **more)
    )
    for strides in ((2, 4, 8, 16, 32), (4, 8, 16, 32)):
        for norm in ("batch", "group", None):
            fast = build("segformer", encoder=Pyramid(strides), norm=norm).eval()
            slow = build("segformer", encoder=Pyramid(strides), norm=norm, fast=False).eval()
            for conv in (fast.decoder.fuse_stage[0], *(stage.linear for stage in fast.decoder.mlp_stage)):
                if conv.bias is not None:
                    nn.init.normal_(conv.bias)
            slow.load_state_dict(fast.state_dict())
            image = picture(66, 99)
            for mode in (False, True):
                calls.clear()
                with torch.no_grad():
                    a = fast.train(mode)(image)["out"]
                    assert len(calls) == 1
                    b = slow.train(mode)(image)["out"]
                assert len(calls) == 1  # the paper's order is no second way to the fast one
                assert (a - b).abs().max() < 1e-5 * (a.max() - a.min())


@pytest.mark.parametrize(
    "options", [{}, {"norm": None}, {"attention": "scse"}, {"interpolation": "bilinear"}]
)
@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_training_without_making_the_repeated_pixels_gives_the_same_logits_and_gradients(
    name, options, monkeypatch
):
    """Against the order of the paper, which is what a block does whose convolution somebody listens to."""
    torch.manual_seed(0)
    network = load_decoder(name)(Pyramid(), 3, **options).double()
    # Features of 3x3 and 5x6: one step that does not double.
    image = torch.rand(2, 3, 70, 96, dtype=torch.float64)
    calls = []
    counted = unet.convolve_doubled
    monkeypatch.setattr(unet, "convolve_doubled", lambda *given: calls.append(1) or counted(*given))

    def step() -> list[Tensor]:
        network.zero_grad()
        logits = network(image)["out"]
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)).sum().backward()
        return [logits.detach(), *(p.grad.clone() for p in network.parameters())]

    quick, used = step(), len(calls)
    for module in network.modules():
        if isinstance(module, unet.DecoderBlock):
            module.conv1[0].register_forward_hook(lambda *_: None)
    plain = step()
    assert len(calls) == used
    assert (used > 0) == ("interpolation" not in options)
    for ours, theirs in zip(quick, plain, strict=True):
        assert (ours - theirs).abs().max() <= 1e-11 * theirs.abs().max()
    network.eval()
    network(image)
    assert len(calls) == used  # predictions and exported files keep the plain order


@settings(deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4),
    st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_a_convolution_of_doubled_pixels_is_that_of_the_repeated_ones(n, c, s, out, h, w, bias, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(c + s, out, 3, padding=1, bias=bias, dtype=torch.float64)
    x = torch.randn(n, c, h, w, dtype=torch.float64)
    skip = torch.randn(n, s, 2 * h, 2 * w, dtype=torch.float64) if s else None
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = conv(repeated if skip is None else torch.cat([repeated, skip], 1))
    torch.testing.assert_close(unet.convolve_doubled(conv, x, skip), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_encoder_stays_frozen_whatever_train_and_eval_are_told(name):
    network = build(name).train()
    network.encoder.norm = nn.BatchNorm2d(3)  # stands for the norms and dropouts of a real encoder
    network.freeze_encoder()
    for call in (network.train, network.eval, network.train, lambda: network.train(True)):
        call()
        assert not network.encoder.training
        assert not network.encoder.norm.training
        assert not any(p.requires_grad for p in network.encoder.parameters())
    assert network.decoder.training
    network.freeze_encoder(False)
    assert network.encoder.training
    assert network.encoder.norm.training
    assert all(p.requires_grad for p in network.encoder.parameters())


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus", "upernet", "pan"])
def test_one_image_at_a_time_trains_or_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=r"batch of two or more|two images or more"):
        build(name).train()(picture(128, 128))
    build(name, norm="group").train()(picture(256, 256))["out"].sum().backward()


def test_pan_says_which_images_are_too_small():
    with pytest.raises(ValueError, match="8x8 pixels there, got 6x8; pad the image"):
        build("pan")(picture(96, 128))


def test_channels_that_do_not_fit_the_depth_are_named():
    with pytest.raises(ValueError, match="each of the 5 doublings"):
        build("unet", decoder_channels=(64, 32, 16))
    narrow = load_decoder("unet")(Pyramid((2, 4, 8)))
    assert narrow.decoder.channels == (64, 32, 16)


def test_a_misspelt_decoder_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="'unetplusplus'"):
        load_decoder("unetplusplu")


def test_an_unknown_norm_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="'batch', 'group', 'instance', 'layer' or None, got 'inplace'"):
        build("unet", norm="inplace")
    network = build("unet", norm={"name": "group", "groups": 4})
    assert network.decoder.blocks[0].conv1[1].num_groups == 4


def test_the_table_of_decoders_needs_no_torch():
    code = "import sys; import pixelwise.decoders; print([m for m in ('torch', 'timm') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
    assert set(DECODERS) == set(NEEDS)
