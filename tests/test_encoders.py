"""Encoders: what comes out is what they declare, and the numbers are those of timm and SMP."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import pixelwise
from pixelwise.checkpoints.smp import encoders as smp_encoders
from pixelwise.decoders import DECODERS
from pixelwise.encoders import create_encoder, list_encoders, names
from pixelwise.encoders.smp_tensors import table
from pixelwise.encoders.staged import StagedEncoder, family
from pixelwise.errors import DownloadError, UnknownNameError, WeightsError

SMP_SMALL = (
    "resnet18 resnext50_32x4d vgg11_bn densenet121 mobilenet_v2 se_resnet50 timm-skresnet18 efficientnet-b0 "
    "timm-efficientnet-b0 timm-tf_efficientnet_lite0 mobileone_s0 mit_b0 xception"
).split()
SMP_MORE = (
    "resnet50 resnext101_32x4d vgg16 densenet161 se_resnext50_32x4d timm-skresnext50_32x4d dpn68 dpn68b dpn92 "
    "efficientnet-b1 efficientnet-b2 efficientnet-b3 efficientnet-b4 efficientnet-b5 timm-efficientnet-b2 "
    "timm-tf_efficientnet_lite4 mobileone_s4 mit_b2 inceptionv4 inceptionresnetv2"
).split()
TU_SMALL = "tu-test_convnext tu-mobilenetv3_small_050 timm-regnetx_002 tu-test_byobnet".split()
TIMM_SMALL = (
    "test_convnext test_efficientnet test_byobnet test_vit test_mambaout mobilenetv4_conv_small regnetx_002 "
    "vit_tiny_patch16_dinov3_qkvb xcit_nano_12_p8_224 repghostnet_050 fasternet_t0 starnet_s050"
).split()
TIMM_MORE = (
    "swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 test_maxvit hrnet_w18_small vit_small_patch14_dinov2 "
    "vit_small_patch14_reg4_dinov2 pvt_v2_b0 edgenext_xx_small davit_tiny focalnet_tiny_srf twins_svt_small "
    "efficientvit_b0 repvit_m1 tiny_vit_5m_224 poolformerv2_s12 densenet121 dla46x_c deit_tiny_patch16_224 "
    "eva02_tiny_patch14_224 tf_efficientnetv2_b0 ghostnet_050 mobilevit_xxs resnest14d tresnet_m csatv2 efficientvim_m1"
).split()
ROUNDS_DOWN = ("vgg", "densenet121", "xception", "inception", "se_", "efficientnet-b")
SMP_QUICK = (
    "resnet18 mobilenet_v2 timm-skresnet18 efficientnet-b0 timm-efficientnet-b0 mobileone_s0 mit_b0".split()
)
slow = pytest.mark.slow


def quick(names: Sequence[str], everyday: Sequence[str]) -> list[Any]:
    """The names; all but the everyday ones are marked slow."""
    return [name if name in everyday else pytest.param(name, marks=slow) for name in names]


def lively(network: nn.Module) -> nn.Module:
    """In evaluation mode, with norms that do something and no branch that starts at zero."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def smp_encoder(name: str, **arguments: Any) -> nn.Module:
    encoders = pytest.importorskip("segmentation_models_pytorch.encoders")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lively(encoders.get_encoder(name, weights=None, **arguments))


def apart(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of each feature."""
    assert [tuple(a.shape) for a in ours] == [tuple(b.shape) for b in theirs]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "name", quick([*SMP_SMALL, *TIMM_SMALL, *TIMM_MORE], [*SMP_QUICK, "densenet121", *TIMM_SMALL])
)
def test_channels_and_strides_are_what_comes_out_at_an_odd_size(name: str):
    encoder = create_encoder(name).eval()
    h, w = 97, 130
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, h, w))
    assert [f.shape[1] for f in features] == list(encoder.channels)
    assert list(encoder.strides) == sorted(encoder.strides)
    for feature, stride in zip(features, encoder.strides, strict=True):
        expected = (-(-h // stride), -(-w // stride))
        if name.startswith(ROUNDS_DOWN):
            assert abs(feature.shape[2] - expected[0]) <= 1
            assert abs(feature.shape[3] - expected[1]) <= 1
        else:
            assert tuple(feature.shape[2:]) == expected


@pytest.mark.parametrize("output_stride", [32, 16, pytest.param(8, marks=slow)])
@pytest.mark.parametrize("name", quick([*SMP_SMALL, *TU_SMALL, *SMP_MORE], [*SMP_QUICK, *TU_SMALL]))
def test_features_are_those_of_smp_with_its_weights_and_its_dilation(name: str, output_stride: int):
    try:
        reference = smp_encoder(name, output_stride=output_stride)
    except ValueError:
        with pytest.raises(ValueError, match="cannot be dilated"):
            create_encoder(name, output_stride=output_stride, dilation="smp")
        return
    encoder = create_encoder(name, output_stride=output_stride, dilation="smp").eval()
    encoder.load_state_dict(smp_encoders.to_ours(name, reference.state_dict(), encoder.state_dict())[0])
    image = torch.randn(1, 3, 64, 96).double()  # in which deep random networks keep rounding small
    with torch.no_grad():
        ours, theirs = encoder.double()(image), reference.double()(image)
    assert apart(ours, theirs[-len(ours) :]) < 1e-10


@pytest.mark.parametrize("depth", [3, 5])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet-b0", "mobileone_s0", "mit_b0", *TU_SMALL[:2]])
def test_the_way_back_to_smp_is_complete(name: str, depth: int):
    reference = smp_encoder(name, depth=depth)
    encoder = create_encoder(name, depth=depth).eval()
    tensors = smp_encoders.to_theirs(name, encoder.state_dict(), depth=depth)
    nn.Module.load_state_dict(reference, tensors, strict=True)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = encoder(image), reference(image)
    assert apart(ours, theirs[-len(ours) :]) < 1e-5


@pytest.mark.parametrize("name", [pytest.param("efficientnet-b0", marks=slow), "mobileone_s0"])
def test_files_with_the_names_before_smps_still_load(name: str, tmp_path: Path):
    def build() -> nn.Module:
        return pixelwise.create_model(
            "unet", encoder=name, num_classes=2, encoder_depth=2, decoder_channels=(8, 4)
        ).eval()

    network, renames = build(), table(name)
    older = {
        f"encoder.{renames.to_ours(key[8:])}" if key.startswith("encoder.") else key: tensor
        for key, tensor in network.state_dict().items()
    }
    assert {"encoder.conv_stem.weight", "encoder.stem.conv_scale.bn.bias"} & set(older)
    pixelwise.save(network, tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        says = file.metadata()
    save_file(older, tmp_path / "older.safetensors", metadata=says)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network(image)["out"]
        assert torch.equal(pixelwise.from_checkpoint(tmp_path / "older.safetensors")(image)["out"], expected)
        for source in (older, tmp_path / "older.safetensors"):
            other = build()
            pixelwise.load_checkpoint(other, source)
            assert torch.equal(other(image)["out"], expected)
        other = build()
        other.load_state_dict(older)
        assert torch.equal(other(image)["out"], expected)


@pytest.mark.parametrize(
    "name", ["test_convnext", "regnetx_002", "mobilenetv4_conv_small", "test_vit", "hrnet_w18_small"]
)
def test_features_are_those_of_timm_on_the_image_padded_to_a_multiple(name: str):
    timm = pytest.importorskip("timm")
    encoder = create_encoder(name).eval()
    image = torch.randn(1, 3, 70, 90)
    coarsest = max(encoder.strides)
    padded = nn.functional.pad(image, (0, -90 % coarsest, 0, -70 % coarsest))
    if name == "test_vit":
        reference = timm.create_model(name, dynamic_img_size=True).eval()
        taps = encoder.taps
        reference.load_state_dict(encoder.model.state_dict(), strict=False)
        with torch.no_grad():
            theirs = reference.forward_intermediates(padded, indices=list(taps), intermediates_only=True)
    else:
        reference = timm.create_model(name, features_only=True).eval()
        reference.load_state_dict(encoder.model.state_dict())
        with torch.no_grad():
            theirs = reference(padded)
    with torch.no_grad():
        ours = encoder(image)
    cut = [f[..., : o.shape[-2], : o.shape[-1]] for f, o in zip(theirs, ours, strict=True)]
    assert apart(ours, cut) < 1e-6


def test_classic_dilation_is_torchvisions():
    from torchvision.models import resnet50

    reference = resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    encoder = create_encoder("resnet50", output_stride=8).eval()
    encoder.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    assert encoder.strides == (2, 4, 8, 8, 8)
    image, after = torch.randn(1, 3, 64, 96), {}
    for name in ("layer3", "layer4"):
        reference.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: after.update({name: o})
        )
    with torch.no_grad():
        reference(image)
        ours = encoder(image)
    assert apart(ours[3:], [after["layer3"], after["layer4"]]) < 1e-5


def test_classic_dilation_is_timms():
    timm = pytest.importorskip("timm")
    name = "timm-efficientnet-b0"
    reference = lively(timm.create_model("efficientnet_b0", features_only=True, output_stride=8))
    encoder = create_encoder(name, output_stride=8).eval()
    encoder.load_state_dict({k: v for k, v in reference.state_dict().items() if k in encoder.state_dict()})
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert apart(encoder(image)[1:], reference(image)[1:]) < 1e-5  # timm's first is one block later


@pytest.mark.parametrize("in_channels", [1, 2, 4])
@pytest.mark.parametrize(
    "name",
    quick(
        ["resnet18", "efficientnet-b0", "mobileone_s0", "mit_b0", "test_convnext", "test_vit"],
        ["resnet18", "mobileone_s0", "test_vit"],
    ),
)
def test_other_input_channels_share_out_the_filters_as_smp_does(name: str, in_channels: int):
    trained = create_encoder(name)
    encoder = create_encoder(name, in_channels=in_channels, weights=dict(trained.state_dict()))
    own = encoder.state_dict()
    changed = 0
    for key, weight in trained.state_dict().items():
        if own[key].shape == weight.shape:
            assert torch.equal(own[key], weight)
            continue
        changed += 1
        if in_channels == 1:
            expected = weight.sum(1, keepdim=True)
        else:
            expected = torch.stack([weight[:, i % 3] for i in range(in_channels)], dim=1) * 3 / in_channels
        torch.testing.assert_close(own[key], expected)
    assert changed == (2 if name.startswith("mobileone") else 1)
    with torch.no_grad():
        assert len(encoder.eval()(torch.randn(1, in_channels, 64, 64))) == len(encoder.channels)


def test_the_rule_for_input_channels_is_smps():
    utils = pytest.importorskip("segmentation_models_pytorch.encoders._utils")
    for in_channels in (1, 2, 4, 7):
        conv = nn.Conv2d(3, 8, 3)
        start = conv.weight.detach().clone()
        encoder = create_encoder("resnet18", in_channels=in_channels)
        weights = create_encoder("resnet18").state_dict()
        weights["conv1.weight"] = torch.randn(64, 3, 7, 7)
        loaded = create_encoder("resnet18", in_channels=in_channels, weights=weights)
        theirs = nn.Sequential(nn.Conv2d(3, 64, 7, bias=False))
        theirs[0].weight = nn.Parameter(weights["conv1.weight"].clone())
        utils.patch_first_conv(theirs, in_channels, pretrained=True)
        torch.testing.assert_close(loaded.conv1.weight, theirs[0].weight)
        assert encoder.conv1.weight.shape == loaded.conv1.weight.shape
        assert torch.equal(start, conv.weight)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "name",
    quick(
        ["resnet18", "vgg11", "mit_b0", "test_convnext", "mobilenetv3_small_050", "hrnet_w18_small"],
        ["resnet18", "mit_b0", "test_convnext", "mobilenetv3_small_050"],
    ),
)
def test_a_smaller_depth_carries_nothing_that_no_feature_needs(name: str, depth: int):
    encoder = create_encoder(name, depth=depth)
    assert max(encoder.strides) <= 2**depth
    sum(f.sum() for f in encoder(torch.randn(2, 3, 64, 64))).backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


def test_weights_of_a_file_in_the_names_of_smp_torchvision_and_timm_load(tmp_path: Path):
    smp = smp_encoder("efficientnet-b0")
    torch.save(smp.state_dict(), tmp_path / "smp.pth")
    ours = create_encoder("efficientnet-b0", weights=tmp_path / "smp.pth")
    assert torch.equal(ours._conv_stem.weight, smp._conv_stem.weight)
    timm = pytest.importorskip("timm")
    whole = timm.create_model("tf_efficientnet_b0")
    ours = create_encoder("efficientnet-b0", weights=whole.state_dict(), depth=3)
    assert torch.equal(ours._blocks[4]._project_conv.weight, whole.blocks[2][1].conv_pwl.weight)

    from torchvision.models import densenet121

    tv = densenet121()
    torch.save(tv.state_dict(), tmp_path / "tv.pth")
    ours = create_encoder("densenet121", weights=tmp_path / "tv.pth", depth=3)
    assert torch.equal(ours.features.conv0.weight, tv.features.conv0.weight)

    whole = timm.create_model("test_convnext")
    torch.save(whole.state_dict(), tmp_path / "timm.pth")
    ours = create_encoder("test_convnext", weights=tmp_path / "timm.pth")
    assert torch.equal(ours.model.stem_0.weight, whole.stem[0].weight)
    whole = timm.create_model("test_vit")
    ours = create_encoder("test_vit", weights=dict(whole.state_dict()))
    assert torch.equal(ours.model.pos_embed, whole.pos_embed)


def test_weights_of_another_network_are_refused():
    with pytest.raises(WeightsError, match="keys missing"):
        create_encoder("resnet18", weights=create_encoder("mobilenet_v2").state_dict())
    with pytest.raises(WeightsError, match="do not fit test_convnext"):
        create_encoder("test_convnext", weights=create_encoder("mobilenet_v2").state_dict())
    with pytest.raises(UnknownNameError, match="imagenet"):
        create_encoder("resnet18", weights="imagnet")


def test_every_name_of_smp_is_known_with_its_channels():
    smp = pytest.importorskip("segmentation_models_pytorch.encoders").encoders
    assert set(smp) == set(names.SMP)
    for name, row in names.SMP.items():
        if row.kind == "staged":
            theirs = [c for c in smp[name]["params"]["out_channels"] if c not in (0, 3)]
            assert list(family(name).channels) == theirs, name


def test_every_source_of_weights_exists():
    timm_models = pytest.importorskip("timm.models")
    import torchvision

    known = set(timm_models.list_pretrained())
    for row in names.SMP.values():
        assert timm_models.is_model(row.timm) or row.kind == "mit"
        for place in row.weights.values():
            source, _, what = place.partition(":")
            if source == "timm":
                assert what in known
            elif source == "torchvision":
                enum, _, member = what.partition(".")
                assert hasattr(getattr(torchvision.models, enum), member)
            else:
                assert place.startswith("https://huggingface.co/smp-hub/")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tu-convnext_tiny", ("timm", "convnext_tiny")),
        ("timm/resnet50", ("timm", "resnet50")),
        ("resnet50", ("staged", "resnet50")),
        ("timm-mobilenetv3_large_100", ("timm", "tf_mobilenetv3_large_100")),
        ("timm-regnety_032", ("timm", "regnety_032")),
        ("timm-efficientnet-b3", ("staged", "timm-efficientnet-b3")),
        ("convnext_tiny.fb_in22k", ("timm", "convnext_tiny.fb_in22k")),
    ],
)
def test_a_name_means_one_network(name: str, expected: tuple[str, str]):
    assert names.resolve(name)[:2] == expected


def test_an_unknown_name_or_option_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'convnext_tiny'"):
        create_encoder("convnext_tiney")
    with pytest.raises(UnknownNameError, match="fb_in22k"):
        create_encoder("convnext_tiny.fb_in22")
    with pytest.raises(TypeError, match="'drop_path_rat'; did you mean 'drop_path_rate'"):
        create_encoder("test_convnext", drop_path_rat=0.1)
    with pytest.raises(TypeError, match="'drop_pth'"):
        create_encoder("mit_b0", drop_pth=0.1)
    with pytest.raises(TypeError, match="'outputstride'; did you mean 'output_stride'"):
        create_encoder("resnet18", outputstride=8)
    with pytest.raises(UnknownNameError, match="did you mean 'fpn'"):
        pixelwise.create_model("fpnn", encoder="resnet18")
    with pytest.raises(TypeError, match="'aux_los'; did you mean 'aux_loss'"):
        pixelwise.create_model("fpn", encoder="resnet18", aux_los=True)
    with pytest.raises(TypeError, match="needs an encoder"):
        pixelwise.create_model("fpn")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "inception_v4"}, "take inceptionv4"),
        ({"name": "crossvit_tiny_240"}, "two branches"),
        ({"name": "pvt_v2_b0", "output_stride": 16}, "cannot be dilated"),
        ({"name": "test_vit", "output_stride": 8}, "its coarsest stride is 16"),
        ({"name": "vgg11", "output_stride": 16}, "pooling, which cannot be dilated"),
        ({"name": "mit_b0", "output_stride": 16}, "cannot be dilated"),
        ({"name": "mit_b0", "depth": 1}, "depth must be 2 or more"),
        ({"name": "levit_128s", "depth": 3}, "depth must be more than 3"),
        ({"name": "resnet18", "depth": 6}, "from 1 to 5"),
        ({"name": "resnet18", "in_channels": 0}, "from 1 up"),
        ({"name": "resnet18", "dilation": "own"}, "'classic' or 'smp'"),
        ({"name": "test_vit", "taps": (3, 1)}, "rising numbers"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(arguments: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        create_encoder(**arguments)


def test_a_network_of_one_size_says_so():
    encoder = create_encoder("efficientformerv2_s0").eval()
    with pytest.raises(ValueError, match=r"images of 224x224 only, got 64x64.*img_size"):
        encoder(torch.randn(1, 3, 64, 64))


def test_prefix_tokens_come_with_the_features():
    encoder = create_encoder("test_vit").eval()
    image = torch.randn(2, 3, 50, 70)
    with torch.no_grad():
        features, tokens = encoder.with_tokens(image)
        alone = encoder(image)
    assert all(torch.equal(a, b) for a, b in zip(features, alone, strict=True))
    assert all(
        t.shape == (2, encoder.prefix_tokens, c) for t, c in zip(tokens, encoder.channels, strict=True)
    )


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "mit_b0"])
def test_a_frozen_encoder_stays_frozen_and_in_evaluation_mode(name: str):
    network = pixelwise.create_model("fpn", encoder=name, num_classes=2)
    network.freeze_encoder()
    before = {key: tensor.clone() for key, tensor in network.encoder.state_dict().items()}
    for switch in (lambda: network.eval(), lambda: network.train(), lambda: network.train(False).train(True)):
        switch()
        assert not any(module.training for module in network.encoder.modules())
        assert not any(p.requires_grad for p in network.encoder.parameters())
    network(torch.randn(2, 3, 64, 64))["out"].mean().backward()
    torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=1.0).step()
    assert all(torch.equal(before[key], tensor) for key, tensor in network.encoder.state_dict().items())
    network.freeze_encoder(False)
    assert network.encoder.training
    assert all(p.requires_grad for p in network.encoder.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_gets_the_features_that_it_is_meant_for(decoder: str):
    if decoder == "dpt":  # takes four
        assert pixelwise.create_model(decoder, encoder="test_convnext").encoder.strides == (4, 8, 16, 32)
        return
    with torch.device("meta"):
        network = pixelwise.create_model(decoder, encoder="resnet18")
    strides = {"pspnet": (8,), "pan": (8, 16, 16), "deeplabv3": (8, 8, 8), "deeplabv3plus": (8, 16, 16)}
    assert network.encoder.strides == (2, 4, *strides.get(decoder, (8, 16, 32)))


def test_a_composed_network_is_saved_and_found_again(tmp_path: Path):
    from pixelwise.catalog import card_for
    from pixelwise.checkpoints.saving import save

    network = pixelwise.create_model("fpn", encoder="resnet18", num_classes=3, in_channels=2).eval()
    save(network, tmp_path / "fpn.safetensors", card=card_for(network))
    again = pixelwise.from_checkpoint(tmp_path / "fpn.safetensors")
    image = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image)["out"], again(image)["out"])


def run(code: str, **environment: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTS = """
import json, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        found.append(name)
found = []
sys.meta_path.insert(0, Watch())
def sought():
    return found.count("timm"), "torch" in sys.modules
import pixelwise, pixelwise.encoders, pixelwise.encoders.names, pixelwise.decoders
said = [sought()]
pixelwise.create_model("fpn", encoder="resnet18")
pixelwise.create_model("lraspp_mobilenet_v3_large", weights_backbone=None)
said.append(sought())
pixelwise.create_model("fpn", encoder="test_convnext")
pixelwise.create_model("unet", encoder="test_byobnet")
said.append(sought())
print(json.dumps(said))
"""


def test_timm_is_imported_once_and_only_by_the_making_of_one_of_its_encoders():
    assert json.loads(run(IMPORTS)) == [[0, False], [0, True], [1, True]]


NO_NETWORK = """
import socket, warnings
def refuse(*a, **k): raise AssertionError("the network was touched")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
warnings.simplefilter("ignore")
import pixelwise
"""


@pytest.mark.parametrize("offline", ["0", pytest.param("1", marks=slow)])
def test_without_weights_nothing_touches_the_network(offline: str):
    code = NO_NETWORK + (
        "for w in (None, False):\n"
        "    for n in ('resnet18', 'mit_b0', 'efficientnet-b0', 'test_convnext.r160_in1k', 'test_vit'):\n"
        "        pixelwise.create_encoder(n, weights=w)\n"
        "pixelwise.create_model('fpn', encoder='test_convnext', encoder_weights=False)\nprint('quiet')"
    )
    assert run(code, HF_HUB_OFFLINE=offline).strip() == "quiet"


def test_weights_asked_for_offline_end_in_one_sentence(tmp_path: Path):
    code = (
        "import pixelwise\ntry:\n    pixelwise.create_encoder('test_convnext', weights=True)\n"
        "except pixelwise.errors.DownloadError as e:\n    print(e)"
    )
    said = run(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "HF_HUB_OFFLINE is set" in said
    assert "weights=None" in said
    assert issubclass(DownloadError, OSError)


def test_encoders_are_listed_by_pattern():
    assert {"convnext_tiny", "convnext_atto"} <= set(list_encoders("convnext*"))
    assert set(names.SMP) <= set(list_encoders())
    assert len(list_encoders()) > 1200
    assert list_encoders("no_such*") == []
    assert not {"inception_v4", "crossvit_9_240"} & set(list_encoders())


def test_what_no_stage_names_is_dropped():
    assert isinstance(create_encoder("resnet18", depth=2), StagedEncoder)
    assert [name for name, _ in create_encoder("resnet18", depth=2).named_children()] == [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        "layer1",
    ]
