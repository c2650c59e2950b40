"""Any encoder of timm with any decoder: it works, learns everywhere, and exports; or it says why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pixelwise
from decoders_by_hand import coarse_by_hand
from deeplab import bilinear, difference
from pixelwise.decoders import DECODERS, load_decoder
from pixelwise.decoders.needs import NEEDS
from pixelwise.encoders import create_encoder
from pixelwise.errors import ExportError
from pixelwise.export.onnx import export_onnx, trace

pytest.importorskip("timm")

CARD = pixelwise.Card.of(["wall", "sky", "sea"])

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
QUICK = ("test_convnext test_efficientnet test_mambaout test_byobnet test_vit").split()
WINDOWS = ("test_maxvit",)  # padded to whole windows of the size it is made for
OF_ONE_SIZE = ("efficientformerv2_s0", "test_coatnet", "visformer_tiny")
ONE_BLOCK_A_STAGE = {
    "depths": "davit_tiny tiny_vit_5m_224 twins_svt_small convnextv2_atto inception_next_atto starnet_s050 "
    "fasternet_t0 pvt_v2_b0",
    "layers": "fastvit_t8 swiftformer_xs skresnet18 legacy_seresnet18 resnetv2_18",
}
FEWER_BLOCKS: dict[str, dict[str, object]] = {
    # of networks that would take long to export; they are made of the same blocks
    **{name: {key: (1, 1, 1, 1)} for key, names in ONE_BLOCK_A_STAGE.items() for name in names.split()},
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)},
    "swinv2_tiny_window8_256": {"embed_dim": 24, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)},
    "edgenext_xx_small": {"depths": (2, 2, 2, 2)},
    "dla46x_c": {"levels": (1, 1, 1, 1, 1, 1)},
}
EXPORTED = (
    "test_convnext convnextv2_atto test_efficientnet mobilenetv3_small_050 mobilenetv4_conv_small "
    "lcnet_050 mnasnet_small regnetx_002 test_resnet resnest14d legacy_seresnet18 skresnet18 resnetv2_18 test_nfnet "
    "dla46x_c hrnet_w18_small hgnetv2_b0 fastvit_t8 fasternet_t0 starnet_s050 efficientvit_b0 edgenext_xx_small "
    "swiftformer_xs pvt_v2_b0 poolformerv2_s12 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 focalnet_tiny_srf "
    "davit_tiny twins_svt_small tiny_vit_5m_224 inception_next_atto test_mambaout selecsls42 cs3darknet_focus_s "
    "ese_vovnet19b_slim_dw test_byobnet test_maxvit "
    "test_vit vit_small_patch14_dinov2 vit_tiny_patch16_dinov3_qkvb eva02_tiny_patch14_224"
).split()
NARROW: dict[str, dict[str, object]] = {
    "fpn": {"pyramid_channels": 16, "segmentation_channels": 16},
    "segformer": {"width": 16},
    "deeplabv3": {"width": 16},
    "deeplabv3plus": {"width": 16},
    "dpt": {"width": 16, "reassemble_channels": (8, 8, 8, 8)},
}
FAST_TO_TRACE = ("segformer", "deeplabv3plus", "deeplabv3")  # test_decoders.py exports all twelve


class Three(nn.Module):
    """Three decoders on one encoder, narrow, so that a pass, and an export, shows all of them at once."""

    def __init__(self, encoder: str, decoders: Sequence[str] = ()) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, *others = decoders or ("dpt" if encoder in PLAIN else "unet", "fpn", "segformer")
        options = FEWER_BLOCKS.get(encoder, {})
        whole = pixelwise.create_model(
            first, encoder=encoder, num_classes=3, encoder_options=options, **NARROW.get(first, {})
        )
        self.networks = nn.ModuleList([whole])
        for decoder in others:
            self.networks.append(load_decoder(decoder)(whole.encoder, 3, **NARROW[decoder]))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
        for (
            parameter
        ) in self.parameters():  # many of timm's blocks begin with a weight of 0 and pass no gradient on
            if not parameter.any():
                nn.init.normal_(parameter, 0, 0.1)

    def features(self, image: Tensor) -> list[object]:
        features: list[object] = self.networks[0].features(image)
        return features

    def decode(self, place: int, features: list[object], size_hw: tuple[int, int]) -> Tensor:
        maps = features if place == 0 else [f[0] if isinstance(f, tuple) else f for f in features]
        return self.networks[place].decode(maps, size_hw)

    def coarse(self, image: Tensor) -> tuple[Tensor, ...]:
        features, size_hw = self.features(image), (image.shape[-2], image.shape[-1])
        return tuple(self.decode(place, features, size_hw) for place in range(3))


def marked(names: Iterable[str], quick: Sequence[str] = QUICK) -> list[object]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def without_gradient(network: nn.Module) -> list[str]:
    """Parameters that learn nothing, or no number.

    Of HGNet's one shift for all channels nothing but "there is a gradient" is asked: the norm behind takes it away.
    """
    return [
        key
        for key, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not (p.grad.any() or key.endswith("lab.bias"))
    ]


def check(three: Three, h: int, w: int) -> None:
    """Logits of the image's size, finite, and from each decoder a gradient to every parameter."""
    image, three = torch.randn(2, 3, h, w), three.train()
    features = three.features(image)
    for place, network in enumerate(three.networks):
        three.zero_grad()
        coarse = three.decode(place, features, (h, w))
        logits = network._enlarge(coarse, (h, w))
        assert logits.shape == (2, 3, h, w)
        assert logits.isfinite().all()
        logits.square().mean().backward(retain_graph=True)
        assert without_gradient(network) == []
    with torch.no_grad():  # the pieces above are those of a network's own forward
        network, image = three.eval().networks[2], image[:1]
        pieces = network._enlarge(three.coarse(image)[2], (h, w))
        torch.testing.assert_close(network(image)["out"], pieces, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", marked([*PYRAMIDS, *WINDOWS]))
def test_a_pyramid_goes_with_any_decoder_at_any_size(encoder: str):
    check(Three(encoder), 67, 90)


@pytest.mark.parametrize("encoder", marked(PLAIN))
def test_a_plain_transformer_goes_with_decoders_that_need_no_pyramid(encoder: str):
    three = Three(encoder)
    stride = max(three.networks[0].encoder.strides)
    check(three, 4 * stride, 5 * stride + 6)


@pytest.mark.parametrize("encoder", marked(EXPORTED, quick=()))
def test_the_export_with_three_decoders_gives_the_same_at_other_sizes(encoder: str):
    three = Three(encoder, FAST_TO_TRACE).eval()
    program = trace(three, torch.rand(2, 3, 416, 448))
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for shape in ((3, 3, 97, 130), (1, 3, 450, 161)):
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = three.coarse(image)
        for got, logits in zip(session.run(None, {"image": image.numpy()}), expected, strict=True):
            assert got.shape == logits.shape
            assert np.abs(got - logits.numpy()).max() < 1e-4 * np.ptp(logits.numpy())


def test_more_than_forty_encoders_are_exported():
    assert len(set(EXPORTED)) >= 40
    assert set(EXPORTED) <= {*PYRAMIDS, *PLAIN, *WINDOWS}


@pytest.mark.parametrize("encoder", marked(OF_ONE_SIZE, quick=("visformer_tiny",)))
def test_an_encoder_of_one_size_works_at_that_size_and_names_it_at_others(encoder: str, tmp_path: Path):
    three = Three(encoder)
    network = three.networks[1]
    h, w = network.encoder.size_hw
    check(three, h, w)
    with pytest.raises(ValueError, match=f"images of {h}x{w} only"):
        network(torch.randn(1, 3, 96, 96))
    with pytest.raises(ExportError, match=rf"{h}x{w} only; export it with traced_at=\({h}, {w}\), dynamic=F"):
        export_onnx(network, CARD, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_encoder_that_the_exporter_refuses_at_any_size_is_exported_for_one(tmp_path: Path):
    network = Three("xcit_nano_12_p8_224").networks[1].eval()
    with pytest.raises(
        ExportError, match=r"cannot be exported to ONNX: .*; try one size, with .*dynamic=False"
    ):
        export_onnx(network, CARD, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
    assert export_onnx(network, CARD, tmp_path / "net.onnx", traced_at=(96, 136), dynamic=False) < 1e-4


@pytest.mark.slow
def test_an_encoder_of_one_size_is_exported_for_that_size(tmp_path: Path):
    network = Three("test_coatnet").networks[1].eval()
    path, size_hw = tmp_path / "net.onnx", network.encoder.size_hw
    assert export_onnx(network, CARD, path, traced_at=size_hw, dynamic=False) < 1e-4
    (image,) = onnxruntime.InferenceSession(str(path)).get_inputs()
    assert tuple(image.shape[2:]) == size_hw


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize("encoder", ["test_convnext", "test_vit", "pvt_v2_b0", "levit_128s"])
def test_a_pair_works_or_is_refused_with_the_reason(encoder: str, decoder: str):
    torch.manual_seed(0)
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
        image = torch.randn(1, 3, side, side + 32)
        with torch.no_grad():
            expected = coarse_by_hand(decoder, network.eval(), image)
            assert difference(network.coarse(image), expected) < 1e-4
            expected = bilinear(expected, (side, side + 32), align_corners=network.align_corners)
            assert difference(network(image)["out"], expected) < 1e-4


def test_dilation_is_given_up_when_one_asks():
    with pytest.raises(ValueError, match="pass output_stride=32"):
        pixelwise.create_model("deeplabv3plus", encoder="pvt_v2_b0")
    torch.manual_seed(0)
    network = pixelwise.create_model("deeplabv3plus", encoder="pvt_v2_b0", num_classes=3, output_stride=32)
    network(torch.randn(2, 3, 64, 64))["out"].square().mean().backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize(
    "name", ["regnetx_002", "test_convnext", "test_efficientnet", "mobilenetv4_conv_small"]
)
@pytest.mark.parametrize("output_stride", [16, 8])
def test_convolutional_networks_of_timm_dilate(name: str, output_stride: int):
    """Between the pixels that the strided network has, with the same weights: at theirs nothing changes."""
    torch.manual_seed(0)
    strided, dilated = create_encoder(name), create_encoder(name, output_stride=output_stride)
    for module in strided.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    dilated.load_state_dict(strided.state_dict())
    for module in [*strided.modules(), *dilated.modules()]:
        if (
            type(module).__name__ == "SqueezeExcite"
        ):  # which sees means over all pixels, those between as well
            module.forward = lambda x: x
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features, finer = strided.eval()(image), dilated.eval()(image)
    assert finer[-1].shape[2:] == (64 // output_stride, 96 // output_stride)
    for feature, fine, stride in zip(features, finer, strided.strides, strict=True):
        step = max(1, stride // output_stride)
        # ConvNeXt's 2x2 convolutions with holes have one row of zeros before the first pixel
        first = 1 if (name, step) == ("test_convnext", 4) else 0
        torch.testing.assert_close(fine[..., first::step, first::step], feature, rtol=1e-4, atol=1e-4)
