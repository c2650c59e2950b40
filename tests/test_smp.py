"""segmentation_models.pytorch: its checkpoints here, ours there, and its names with one changed import (issue 4)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import pixelwise
from pixelwise import smp as ours
from pixelwise.checkpoints.saving import convert_file
from pixelwise.checkpoints.smp.config import CLASSES, origin_from_config
from pixelwise.checkpoints.smp.folder import write
from pixelwise.checkpoints.smp.tensors import to_theirs
from pixelwise.checkpoints.writing import write_tensors
from pixelwise.decoders import DECODERS
from pixelwise.errors import InputError, UnknownNameError, WeightsError

theirs = pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
)

CNN = ("resnet18", "mobilenet_v2")
CASES = [
    (kind, encoder)
    for kind, encoders in {
        "Unet": (*CNN, "mit_b0"),
        "UnetPlusPlus": (*CNN, "tu-pvt_v2_b0"),
        "MAnet": (*CNN, "mit_b0"),
        "Linknet": (*CNN, "tu-pvt_v2_b0"),
        "FPN": ("resnet18", "efficientnet-b0", "mit_b0"),
        "PSPNet": ("resnet18", "efficientnet-b0", "mit_b0"),
        "PAN": ("resnet18", "efficientnet-b0", "mit_b0"),
        "DeepLabV3": ("resnet18", "efficientnet-b0", "mit_b0"),
        "DeepLabV3Plus": ("resnet18", "mobilenet_v2", "mit_b0"),
        "UPerNet": ("resnet18", "efficientnet-b0", "tu-convnext_atto"),
        "Segformer": ("resnet18", "efficientnet-b0", "mit_b0"),
        "DPT": (
            "tu-vit_tiny_patch16_224",
            "tu-deit_tiny_distilled_patch16_224",
            "tu-swin_tiny_patch4_window7_224",
        ),
    }.items()
    for encoder in encoders
]
OPTIONS = {
    "tu-vit_tiny_patch16_224": {"dynamic_img_size": True},
    "tu-deit_tiny_distilled_patch16_224": {"dynamic_img_size": True},
    "tu-swin_tiny_patch4_window7_224": {"strict_img_size": False, "decoder_readout": "ignore"},
}
QUICK = {
    "Unet": "resnet18", "UnetPlusPlus": "tu-pvt_v2_b0", "MAnet": "mobilenet_v2", "Linknet": "resnet18",
    "FPN": "mit_b0", "PSPNet": "efficientnet-b0", "PAN": "mit_b0", "DeepLabV3": "resnet18",
    "DeepLabV3Plus": "mobilenet_v2", "UPerNet": "tu-convnext_atto", "Segformer": "mit_b0",
    "DPT": "tu-vit_tiny_patch16_224",
}  # fmt: skip


DAILY = ("Unet", "FPN", "PSPNet", "Segformer", "PAN")
"""One of each way to join features, at SMP's own widths; the others so in the slow tier, and narrow in
test_smp_parts."""


def random_of_theirs(kind: str, encoder: str, **options) -> nn.Module:
    """A network of SMP whose weights and norms are all random, in evaluation mode."""
    torch.manual_seed(0)
    network = getattr(theirs, kind)(
        encoder, encoder_weights=None, classes=4, **OPTIONS.get(encoder, {}) | options
    )
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.1)
    return network.eval()


def picture(*size: int, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))


def difference(network: nn.Module, reference: nn.Module, *sizes: tuple[int, int], channels: int = 3) -> float:
    """The largest difference in logits, relative to their range."""
    worst = 0.0
    for size in sizes:
        with torch.inference_mode():
            expected, got = (
                reference(picture(*size, channels=channels)),
                network(picture(*size, channels=channels)),
            )
        got = got["out"] if isinstance(got, dict) else got
        assert got.shape == expected.shape
        worst = max(worst, float((got - expected).abs().max() / (expected.max() - expected.min())))
    return worst


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [c if c[0] in DAILY and QUICK[c[0]] == c[1] else pytest.param(*c, marks=pytest.mark.slow) for c in CASES],
)
def test_what_smp_saved_loads_here_agrees_and_goes_back(kind, encoder, tmp_path):
    reference = random_of_theirs(kind, encoder)
    reference.save_pretrained(tmp_path / "theirs")
    network = pixelwise.from_checkpoint(tmp_path / "theirs")
    sizes = ((128, 192), (224, 160)) if "swin" not in encoder else ((224, 224), (448, 224))
    assert difference(network, reference, *sizes) < 1e-4
    convert_file(tmp_path / "theirs", tmp_path / "back", to="smp")
    back = theirs.from_pretrained(tmp_path / "back", strict=True)
    for key, tensor in reference.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor), key
    assert type(back) is type(reference)
    for key, value in json.loads((tmp_path / "back" / "config.json").read_text()).items():
        was = reference.config.get(key, value)
        assert value == (list(was) if isinstance(was, tuple) else was) or key in (
            "encoder_weights",
            "decoder_use_norm",
        )


@pytest.mark.parametrize(
    "kind", [k if k in DAILY else pytest.param(k, marks=pytest.mark.slow) for k in CLASSES]
)
def test_the_class_of_that_name_takes_the_same_arguments_and_gives_the_same_tensor(kind):
    encoder = "tu-vit_tiny_patch16_224" if kind == "DPT" else "resnet18"
    reference = random_of_theirs(kind, encoder, activation="softmax2d", in_channels=2)
    same = {"encoder_weights": None, "classes": 4, "activation": "softmax2d", "in_channels": 2}
    model = getattr(ours, kind)(encoder, **same, **OPTIONS.get(encoder, {})).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    assert difference(model, reference, (128, 160), channels=2) < 1e-4
    state = model.state_dict()
    assert list(state.keys() ^ reference.state_dict().keys()) == []
    assert all(torch.equal(tensor, reference.state_dict()[key]) for key, tensor in state.items())
    torch.testing.assert_close(
        model.network(picture(128, 160, channels=2))["out"].softmax(1), model(picture(128, 160, channels=2))
    )


@pytest.mark.parametrize("kind", list(CLASSES))
def test_arguments_stand_in_smps_order_with_smps_defaults(kind):
    import inspect

    expected = {
        name: parameter.default
        for name, parameter in inspect.signature(getattr(theirs, kind).__init__).parameters.items()
        if name not in ("self", "kwargs")
    }
    known = dict(getattr(ours, kind).arguments)
    if kind == "MAnet":
        assert known.pop("position_attention") == "smp"
    assert known == expected
    assert list(known) == list(expected)


def test_a_misspelt_keyword_is_no_longer_swallowed():
    for encoder in ("resnet18", "tu-convnext_atto"):
        theirs.Unet("resnet18", encoder_weights=None, decoder_chanels=(1, 2))  # SMP says nothing
        with pytest.raises(
            TypeError, match=r"Unet has no argument 'decoder_chanels'; did you mean 'decoder_channels'"
        ):
            ours.Unet(encoder, encoder_weights=None, decoder_chanels=(64, 32, 16, 8, 4))
    with pytest.raises(TypeError, match=r"no option 'drop_path_rat'|'drop_path_rat'"):
        ours.Unet("tu-convnext_atto", encoder_weights=None, drop_path_rat=0.1)
    with pytest.raises(TypeError, match=r"encoder_name.* twice"):
        ours.Unet("resnet18", encoder_name="resnet34")


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to open a connection fails the test, also where it is caught."""
    import socket

    tried = []

    def refuse(*args, **kwargs):
        tried.append(args)
        raise OSError("the test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


@pytest.mark.parametrize("weights", [None, False])
@pytest.mark.parametrize("encoder", ["resnet18", "tu-convnext_atto"])
def test_encoder_weights_false_downloads_nothing(encoder, weights, no_network):
    ours.FPN(encoder, encoder_weights=weights)


def test_offline_from_pretrained_never_tries_the_network(tmp_path, no_network, monkeypatch):
    ours.Unet("resnet18", encoder_weights=None, classes=2).save_pretrained(tmp_path / "model")
    model = ours.from_pretrained(tmp_path / "model")
    assert model.config["classes"] == model.origin.arguments["num_classes"] == 2
    assert str(model.origin) == str(model.network.origin) == "unet on resnet18"
    for switch in ("HF_HUB_OFFLINE", "PIXELWISE_OFFLINE"):
        monkeypatch.setenv(switch, "1")
        with pytest.raises(
            pixelwise.errors.DownloadError, match=r"smp-hub/nothing, .* network is switched off"
        ):
            ours.from_pretrained("smp-hub/nothing")
        monkeypatch.delenv(switch)
    with pytest.raises(WeightsError, match=r"there is no folder"):
        ours.from_pretrained(tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["Unet", pytest.param("DPT", marks=pytest.mark.slow), "PSPNet"])
def test_what_we_save_smp_loads(kind, tmp_path):
    encoder = "tu-vit_tiny_patch16_224" if kind == "DPT" else "efficientnet-b0"
    model = getattr(ours, kind)(encoder, encoder_weights=None, classes=3, **OPTIONS.get(encoder, {})).eval()
    model.save_pretrained(tmp_path)
    assert difference(model, theirs.from_pretrained(tmp_path, strict=True).eval(), (128, 128)) < 1e-4
    assert difference(ours.from_pretrained(tmp_path), model, (64, 96)) == 0
    with pytest.raises(WeightsError, match=f"holds a {kind}, not a Linknet"):
        ours.Linknet.from_pretrained(tmp_path)


def test_a_frozen_encoder_does_not_drift():
    model = ours.Unet("resnet18", encoder_weights=None)
    model.freeze_encoder()
    model.eval()
    model.train()
    before = model.encoder.bn1.running_mean.clone()
    model(picture(64, 64))
    assert torch.equal(model.encoder.bn1.running_mean, before)
    model.unfreeze_encoder()
    model(picture(64, 64))
    assert not torch.equal(model.encoder.bn1.running_mean, before)


@pytest.mark.parametrize(
    "kind", ["FPN", "PSPNet", "UPerNet", "Segformer", "DeepLabV3", "DeepLabV3Plus", "PAN"]
)
def test_the_result_has_the_size_of_the_image_at_smaller_depth(kind):
    for depth in (3, 4) if kind != "FPN" else (4,):
        model = getattr(ours, kind)(TINY, encoder_depth=depth, encoder_weights=None).eval()
        assert model(picture(256, 256)).shape == (1, 1, 256, 256)
    assert ours.FPN(TINY, 4, None, upsampling=1).eval()(picture(64, 64)).shape == (1, 1, 32, 32)


def test_layer_and_instance_norm_work():
    for norm in ("layernorm", "instancenorm", {"type": "layernorm", "eps": 1e-2}, "groupnorm", False):
        model = ours.Unet(TINY, encoder_weights=None, decoder_use_norm=norm)
        assert model(picture(96, 96)).isfinite().all()
    assert model.decoder.blocks[0].conv1[0].bias is not None
    with pytest.raises(InputError, match=r"inplace_abn"):
        ours.Unet("resnet18", encoder_weights=None, decoder_use_norm="inplace")


def test_no_weight_of_pspnet_is_without_a_gradient():
    reference = theirs.PSPNet("resnet34", encoder_weights=None)
    torch.manual_seed(0)
    model = ours.PSPNet("resnet34", encoder_weights=None).train()
    model(picture(64, 64)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    count = sum(p.numel() for p in model.parameters())
    assert count < 0.1 * sum(p.numel() for p in reference.parameters())


def test_a_wrong_class_count_is_reported_as_such(tmp_path):
    reference = random_of_theirs("FPN", "resnet18")
    with pytest.raises(WeightsError, match=r"4 classes, the model 7; build it with classes=4"):
        ours.FPN("resnet18", encoder_weights=None, classes=7).load_state_dict(reference.state_dict())
    network = pixelwise.create_model("fpn", encoder="resnet18", num_classes=7)
    with pytest.raises(WeightsError, match=r"4 classes, the network 7; build it with num_classes=4"):
        pixelwise.load_checkpoint(network, reference.state_dict())
    reference.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"classes": 7}))
    with pytest.raises(WeightsError, match=r"4 classes, the network 7; .* correct config.json"):
        pixelwise.from_checkpoint(tmp_path)
    with pytest.warns(UserWarning, match=r"segmentation_head.0.weight"):
        ours.FPN("resnet18", encoder_weights=None, classes=7).load_state_dict(
            reference.state_dict(), strict=False
        )


def test_a_classifier_of_the_whole_image_comes_along():
    aux = {"classes": 5, "pooling": "max", "dropout": 0.3, "activation": "sigmoid"}
    reference = random_of_theirs("Unet", "resnet18", aux_params=aux)
    model = ours.Unet("resnet18", encoder_weights=None, classes=4, aux_params=aux).eval()
    model.load_state_dict(reference.state_dict())
    image = picture(64, 96)
    for got, expected in zip(model(image), reference(image), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


TINY = "tu-test_resnet.r160_in1k"
LONG = ("Unet", "UnetPlusPlus", "MAnet", "UPerNet", "DeepLabV3", "DeepLabV3Plus", "Linknet", "Segformer")


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow) if k in LONG else k for k in CLASSES if k != "DPT"],
)
def test_a_bare_state_dict_says_what_it_is(kind):
    encoder, more = {
        "PAN": ("mobilenet_v2", {"encoder_depth": 4}), "FPN": ("efficientnet-b0", {"decoder_merge_policy": "cat"}),
        "PSPNet": ("mit_b0", {"psp_out_channels": 64}), "UPerNet": ("vgg11_bn", {"decoder_channels": 32}),
        "Unet": ("vgg11", {"decoder_attention_type": "scse", "decoder_use_norm": False}),
        "UnetPlusPlus": ("vgg11_bn", {"decoder_channels": (64, 32, 32, 16, 16), "decoder_attention_type": "scse"}),
        "MAnet": ("densenet121", {"decoder_channels": (32, 32, 32, 16, 16), "decoder_pab_channels": 8}),
        "DeepLabV3": ("resnet18", {"decoder_aspp_separable": True, "decoder_channels": 64}),
        "DeepLabV3Plus": ("resnet18", {"decoder_aspp_separable": False, "encoder_depth": 4}),
    }.get(kind, ("resnet18", {}))  # fmt: skip
    reference = random_of_theirs(kind, encoder, **more)
    state = reference.state_dict()
    if kind == "DeepLabV3":  # as before 0.4
        old = {"decoder.aspp": "decoder.0", "decoder.conv": "decoder.1", "decoder.bn": "decoder.2"}
        state = {
            next((n + k[len(o) :] for o, n in old.items() if k.startswith(o + ".")), k): t
            for k, t in state.items()
        }
    if kind in ("Linknet", "PSPNet", "UPerNet", "Segformer"):
        network = pixelwise.from_checkpoint(state)
    else:
        with pytest.warns(UserWarning, match=r"does not say"):
            network = pixelwise.from_checkpoint(state)
    assert network.origin.arguments["encoder"] == encoder
    assert difference(network, reference, (128, 160)) < 1e-4
    back = to_theirs(network.origin, network.state_dict())
    getattr(theirs, kind)(encoder, encoder_weights=None, classes=4, **more).load_state_dict(back, strict=True)
    back = to_theirs(network.origin, network.state_dict(), network.origin.beside["tensors"])
    assert all(torch.equal(back[key], tensor) for key, tensor in reference.state_dict().items())


def test_a_tensor_that_has_no_place_is_named_in_one_sentence(tmp_path):
    reference = random_of_theirs("Linknet", "efficientnet-b0")
    reference.save_pretrained(tmp_path)
    tensors = {**reference.state_dict(), "encoder._blocks.0.surplus": torch.zeros(1)}
    write_tensors(tensors, tmp_path / "model.safetensors")
    says = r"does not fit Linknet: 1 keys surplus \(encoder\._blocks\.0\.surplus\)"
    with pytest.raises(WeightsError, match=f"SMP's Linknet in the folder .*{says}"):
        pixelwise.from_checkpoint(tmp_path)
    network = pixelwise.create_model("linknet", encoder="efficientnet-b0", num_classes=4)
    with pytest.raises(WeightsError, match=f"the checkpoint {says}"):
        pixelwise.load_checkpoint(network, tensors)


@pytest.mark.parametrize("kind", ["PSPNet", "FPN"])
def test_a_config_that_leaves_out_the_usual_means_smps_defaults(kind, tmp_path):
    reference = random_of_theirs(kind, "resnet18")
    reference.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    said = {key: config[key] for key in ("_model_class", "encoder_name", "classes")}
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert difference(pixelwise.from_checkpoint(tmp_path), reference, (96, 64)) < 1e-4


def test_a_bare_state_dict_of_a_timm_encoder_is_asked_for_its_name(tmp_path):
    reference = random_of_theirs("FPN", "tu-convnext_atto")
    with pytest.raises(WeightsError, match=r"whose name they do not say; .*load_checkpoint"):
        pixelwise.from_checkpoint(reference.state_dict())
    network = pixelwise.create_model("fpn", encoder="tu-convnext_atto", num_classes=4).eval()
    pixelwise.load_checkpoint(network, reference.state_dict())
    assert difference(network, reference, (96, 64)) < 1e-4


def test_old_names_of_timms_encoders_are_read():
    reference = random_of_theirs("Linknet", "tu-regnetx_002")
    old = {
        key.replace("encoder.model.", "encoder."): tensor for key, tensor in reference.state_dict().items()
    }
    model = ours.Linknet("timm-regnetx_002", encoder_weights=None, classes=4).eval()
    model.load_state_dict(old)
    assert difference(model, reference, (64, 64)) < 1e-4


def test_what_smp_cannot_have_is_not_written(tmp_path):
    cases = {
        "position attention": pixelwise.create_model("manet", encoder="resnet18"),
        "batch norm or none": pixelwise.create_model("unet", encoder="resnet18", norm="group"),
        "dilates resnet18 in another way": pixelwise.create_model("pan", encoder="resnet18"),
    }
    for why, network in cases.items():
        with pytest.raises(InputError, match=why):
            write(network, tmp_path / "out")
    network = pixelwise.create_model("unet", encoder="resnet18", aux_loss=True)
    assert "without the auxiliary head" in write(network, tmp_path / "unet.pth")
    theirs.Unet("resnet18", encoder_weights=None).load_state_dict(
        torch.load(tmp_path / "unet.pth"), strict=True
    )
    with pytest.raises(UnknownNameError, match=r"'Unet'"):
        origin_from_config({"_model_class": "Unett"})


def test_u_net_agrees_with_smp_at_odd_sizes_too():
    for encoder in ("resnet18", "mit_b0"):
        reference = random_of_theirs("Unet", encoder)
        model = ours.Unet(encoder, encoder_weights=None, classes=4).eval()
        model.load_state_dict(reference.state_dict())
        assert difference(model, reference, (97, 131), (65, 70)) < 1e-4


def test_importing_the_module_brings_neither_timm_nor_torchvision():
    code = "import sys, pixelwise.smp as s; print([m in sys.modules for m in ('timm', 'torchvision')])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[False, False]"
    assert set(CLASSES.values()) == set(DECODERS)


def test_part_of_another_module_it_keeps_smps_names():
    class Task(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

    reference = random_of_theirs("Unet", "efficientnet-b0")
    task = Task(ours.Unet("efficientnet-b0", encoder_weights=None, classes=4)).eval()
    task.load_state_dict(Task(reference).state_dict())
    assert set(task.state_dict()) == set(Task(reference).state_dict())
    assert difference(task.model, reference, (64, 64)) < 1e-4


@pytest.mark.slow
def test_dpt_on_dinov2_whose_patches_have_14_pixels():
    with pytest.raises(RuntimeError):  # SMP builds it and fails in forward
        random_of_theirs("DPT", "tu-vit_small_patch14_dinov2", dynamic_img_size=True)(picture(140, 140))
    model = ours.DPT("tu-vit_small_patch14_dinov2", encoder_weights=None).eval()
    with torch.inference_mode():
        assert model(picture(140, 168)).shape == (1, 1, 140, 168)
        model.requires_divisible_input_shape = False
        assert model(picture(150, 133)).shape == (1, 1, 150, 133)


def test_tensors_of_another_model_than_the_configuration_names_are_one_sentence(tmp_path):
    ours.FPN("resnet18", encoder_weights=None, classes=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_pyramid_channels": 200}))
    with pytest.raises(WeightsError, match=r"size mismatch for decoder\.p5\.weight.* more like it") as error:
        ours.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.warns(UserWarning, match="left as they are, because shapes differ"):
        ours.from_pretrained(tmp_path, strict=False)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_flags_that_steer_smps_tests_are_smps(kind):
    flags = (
        "_is_torch_scriptable",
        "_is_torch_exportable",
        "_is_torch_compilable",
        "requires_divisible_input_shape",
    )
    for flag in flags:
        assert getattr(getattr(ours, kind), flag) is getattr(getattr(theirs, kind), flag), flag


def test_sides_that_are_no_multiples_are_refused_as_in_smp_until_one_says_otherwise():
    model = ours.Linknet("resnet18", encoder_weights=None).eval()
    with pytest.raises(RuntimeError, match=r"multiples of 32, got 65x70; pad it to 96x96"):
        model(picture(65, 70))
    model.requires_divisible_input_shape = False
    assert model(picture(65, 70)).shape == (1, 1, 65, 70)
    assert torch.equal(model(picture(65, 70)), model.network(picture(65, 70))["out"])


def test_an_unfrozen_encoder_trains_its_norms_as_in_smp():
    model = ours.Unet("resnet18", encoder_weights=None).eval()
    model.freeze_encoder()
    assert not model.encoder.bn1.training
    model.unfreeze_encoder()
    assert model.encoder.bn1.training
    assert not model.encoder.training
    assert all(p.requires_grad for p in model.encoder.parameters())


def test_old_names_of_arguments_are_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"upscale_mode is decoder_interpolation"):
        model = ours.PAN("resnet18", encoder_weights=None, upscale_mode="bicubic")
    assert model.decoder.gau1.interpolation_mode == "bicubic"
    assert model.decoder.gau1.align_corners is None


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_smp_cannot_script_is_refused_in_one_sentence():
    model = ours.UnetPlusPlus("resnet18", encoder_weights=None).eval()
    with pytest.raises(RuntimeError, match=r"UnetPlusPlus cannot be scripted"):
        torch.jit.script(model)
    image = picture(64, 64)
    assert torch.equal(torch.jit.trace(model, image)(image), model(image))
