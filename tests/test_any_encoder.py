"""Any encoder of timm with any decoder: it works, learns everywhere, and exports; or it says why not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pixelwise
from exported import largest_difference
from pixelwise.decoders import DECODERS, NEEDS
from pixelwise.encoders import create_encoder

pytest.importorskip("timm")

PYRAMIDS = (
    # of strides 2 or 4 to 32, that take any size
    "test_convnext convnext_atto convnextv2_atto test_efficientnet efficientnet_lite0 tf_efficientnetv2_b0 "
    "mobilenetv3_small_050 mobilenetv4_conv_small lcnet_050 mnasnet_small regnetx_002 regnety_002 test_resnet "
    "resnet10t resnest14d res2net50_14w_8s legacy_seresnet18 skresnet18 resnetv2_18 test_nfnet densenet121 "
    "dla46x_c dpn48b hrnet_w18_small hgnetv2_b0 repghostnet_050 ghostnet_050 repvit_m1 fastvit_t8 fasternet_t0 "
    "starnet_s050 efficientvit_b0 edgenext_xx_small mobilevit_xxs swiftformer_xs pvt_v2_b0 poolformerv2_s12 "
    "swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 focalnet_tiny_srf davit_tiny twins_svt_small tiny_vit_5m_224 "
    "inception_next_atto test_mambaout rexnet_100 selecsls42 cs3darknet_focus_s ese_vovnet19b_slim_dw test_byobnet "
    "iformer_t"
).split()
PLAIN = (
    # of one stride
    "test_vit vit_tiny_patch16_224 deit_tiny_patch16_224 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 "
    "vit_tiny_patch16_dinov3_qkvb eva02_tiny_patch14_224 xcit_nano_12_p8_224 vit_tiny_r_s16_p8_224"
).split()
QUICK = (
    "test_convnext test_efficientnet mobilenetv4_conv_small regnetx_002 test_resnet hrnet_w18_small test_mambaout "
    "test_byobnet fasternet_t0 test_vit vit_tiny_patch16_dinov3_qkvb"
).split()
OF_ONE_SIZE = ("efficientformerv2_s0", "test_coatnet", "visformer_tiny")
EXPORTED = (
    "resnet18",
    "mit_b0",
    "test_vit",
    "hrnet_w18_small",
    "test_efficientnet",
    "vit_tiny_patch16_dinov3_qkvb",
)


def marked(names: list[str]) -> list[object]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def check(network: nn.Module, h: int, w: int) -> None:
    """Logits of the image's size, finite, and a gradient to every parameter."""
    network.train()
    logits = network(torch.randn(2, 3, h, w))["out"]
    assert logits.shape == (2, 3, h, w)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    unused = getattr(network, "unused_parameters", ())
    assert [key for key, p in network.named_parameters() if p.grad is None and key not in unused] == []


@pytest.mark.parametrize("decoder", ["unet", "fpn", "upernet"])
@pytest.mark.parametrize("encoder", marked(PYRAMIDS))
def test_a_pyramid_goes_with_any_decoder_at_any_size(encoder: str, decoder: str):
    check(pixelwise.create_model(decoder, encoder=encoder, num_classes=3), 67, 90)


@pytest.mark.parametrize("decoder", ["dpt", "fpn", "segformer"])
@pytest.mark.parametrize("encoder", marked(PLAIN))
def test_a_plain_transformer_goes_with_decoders_that_need_no_pyramid(encoder: str, decoder: str):
    network = pixelwise.create_model(decoder, encoder=encoder, num_classes=3)
    stride = max(network.encoder.strides)
    check(network, 4 * stride, 5 * stride + 6)


@pytest.mark.parametrize("decoder", ["unet", "fpn", "upernet"])
def test_windows_are_filled_up_by_padding(decoder: str):
    check(pixelwise.create_model(decoder, encoder="test_maxvit", num_classes=3), 67, 90)


@pytest.mark.parametrize("encoder", OF_ONE_SIZE)
def test_an_encoder_of_one_size_works_at_that_size_and_names_it_at_others(encoder: str):
    network = pixelwise.create_model("fpn", encoder=encoder, num_classes=3)
    h, w = network.encoder.size_hw
    check(network, h, w)
    with pytest.raises(ValueError, match=f"images of {h}x{w} only"):
        network(torch.randn(1, 3, 96, 96))


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize("encoder", ["test_convnext", "test_vit", "pvt_v2_b0", "levit_128s"])
def test_a_pair_works_or_is_refused_with_the_reason(encoder: str, decoder: str):
    try:
        network = pixelwise.create_model(decoder, encoder=encoder, num_classes=3)
    except ValueError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert len(said) > 40
        assert encoder == "levit_128s" or NEEDS[decoder].halving or NEEDS[decoder].output_stride < 32, said
        return
    if encoder != "levit_128s":
        side = 16 * min(network.encoder.strides[-1], 16)
        with torch.no_grad():
            assert network.eval()(torch.randn(1, 3, side, side))["out"].shape == (1, 3, side, side)


def test_dilation_is_given_up_when_one_asks():
    with pytest.raises(ValueError, match="pass output_stride=32"):
        pixelwise.create_model("deeplabv3plus", encoder="pvt_v2_b0")
    check(
        pixelwise.create_model("deeplabv3plus", encoder="pvt_v2_b0", num_classes=3, output_stride=32), 64, 64
    )


@pytest.mark.parametrize(
    "name", ["regnetx_002", "test_convnext", "test_efficientnet", "mobilenetv4_conv_small"]
)
@pytest.mark.parametrize("output_stride", [16, 8])
def test_convolutional_networks_of_timm_dilate(name: str, output_stride: int):
    encoder = create_encoder(name, output_stride=output_stride).eval()
    with torch.no_grad():
        last = encoder(torch.randn(1, 3, 64, 96))[-1]
    assert last.shape[2:] == (64 // output_stride, 96 // output_stride)


@pytest.mark.parametrize(
    "encoder",
    [
        "test_convnext",
        *(pytest.param(name, marks=pytest.mark.slow) for name in EXPORTED),
    ],
)
def test_the_export_gives_the_same_at_other_sizes(encoder: str):
    torch.manual_seed(0)
    network = pixelwise.create_model("fpn", encoder=encoder, num_classes=3)
    assert largest_difference(network, (2, 3, 64, 96), (1, 3, 97, 130), (1, 3, 128, 80)) < 1e-4
