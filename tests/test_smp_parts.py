"""SMP's parts are the parts that run: whatever is assigned to a model of `pixelwise.smp` is what it is made of."""

from __future__ import annotations

import copy
import inspect
import io
import json
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pixelwise
from pixelwise import smp as ours
from pixelwise.checkpoints.smp.folder import write
from pixelwise.errors import InputError, WeightsError
from pixelwise.export.onnx import export_onnx

theirs = pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
)

STEPS = {"decoder_channels": (32, 16, 16, 8, 8)}
SMALL = {
    "Unet": STEPS,
    "UnetPlusPlus": STEPS,
    "MAnet": {**STEPS, "decoder_pab_channels": 8},
    "Linknet": {},
    "FPN": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 64},
    "PSPNet": {"psp_out_channels": 16},
    "PAN": {"decoder_channels": 8},
    "DeepLabV3": {"decoder_channels": 16},
    "DeepLabV3Plus": {"decoder_channels": 16},
    "UPerNet": {"decoder_channels": 16},
    "Segformer": {"decoder_segmentation_channels": 16},
    "DPT": {"decoder_intermediate_channels": (8, 8, 16, 16), "decoder_fusion_channels": 16, "dynamic_img_size": True},
}  # fmt: skip
"""SMP's twelve, with narrow decoders."""

KINDS = list(SMALL)
SOME = [
    kind if kind in ("Unet", "FPN", "DPT") else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS
]
FACTOR = {
    "FPN": 4,
    "PSPNet": 8,
    "PAN": 4,
    "DeepLabV3": 8,
    "DeepLabV3Plus": 4,
    "UPerNet": 4,
    "Segformer": 4,
    "DPT": 2,
}


def encoder_for(kind: str) -> str:
    return "tu-test_vit.r160_in1k" if kind == "DPT" else "tu-test_resnet.r160_in1k"


def made(package, kind: str, classes: int = 4, **more) -> nn.Module:
    model = getattr(package, kind)(
        encoder_for(kind), encoder_weights=None, classes=classes, **SMALL[kind] | more
    )
    return model.eval()


def pair(kind: str, **more) -> tuple[nn.Module, nn.Module]:
    """A model of ours and one of SMP's, with the same random weights and norms."""
    torch.manual_seed(0)
    reference, model = made(theirs, kind, **more), made(ours, kind, **more)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    model.load_state_dict(reference.state_dict())
    return model, reference


def picture(kind: str = "Unet", n: int = 1) -> Tensor:
    side = 128 if kind == "PAN" else 64
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def apart(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / (expected.max() - expected.min())).item()


def last_conv(head: nn.Module) -> nn.Conv2d:
    return [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1]


def for_classes(head: nn.Module, classes: int) -> nn.Conv2d:
    """A convolution like the last of a head, to another number of classes."""
    torch.manual_seed(classes)
    old = last_conv(head)
    return nn.Conv2d(old.in_channels, classes, old.kernel_size, padding=old.padding)


def with_conv(model: nn.Module, kind: str, conv: nn.Conv2d) -> None:
    """Put it in the place of the last one of the model's head."""
    if kind == "DPT":
        model.segmentation_head.head[4] = conv
    else:
        model.segmentation_head[0] = conv


def by_hand(model: nn.Module, kind: str, image: Tensor) -> Tensor:
    """The decoder's map, from parts of ours called one after the other."""
    return model.decoder(*model.encoder(image)) if kind == "DPT" else model.decoder(model.encoder(image))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_for_other_classes_runs_trains_and_is_saved_for_smp(kind, tmp_path):
    model, reference = pair(kind)
    old = last_conv(model.segmentation_head)
    conv = for_classes(model.segmentation_head, 7)
    with_conv(model, kind, conv)
    with_conv(reference, kind, copy.deepcopy(conv))
    image = picture(kind)
    with torch.no_grad():
        expected = reference(image)
        assert apart(model(image), expected) < 1e-5
        assert apart(model.predict(image), expected) < 1e-5
        assert apart(model.network(image)["out"], expected) < 1e-5
        coarse = model.network.coarse(image)
        layers = [*model.segmentation_head.head] if kind == "DPT" else [conv]
        assert torch.equal(coarse, nn.Sequential(*layers)(by_hand(model, kind, image)))
    assert model.network.num_classes == 7
    assert coarse.shape[-1] * model.network.stride == image.shape[-1]

    model.train()
    assert model.segmentation_head.training
    assert model.network.training
    model(picture(kind, 2)).square().mean().backward()
    assert conv.weight.grad.abs().sum() > 0
    assert old.weight.grad is None
    model.eval()
    assert not conv.training

    reference.load_state_dict(model.state_dict(), strict=True)
    assert apart(model(image), reference.eval()(image)) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save_pretrained(tmp_path / "out")
    back = theirs.from_pretrained(tmp_path / "out", strict=True).eval()
    with torch.no_grad():
        assert apart(back(image), model(image)) < 1e-5
        assert apart(ours.from_pretrained(tmp_path / "out")(image), model(image)) < 1e-6
    pixelwise.save(model.network, tmp_path / "own.safetensors")
    with torch.no_grad():
        own = pixelwise.from_checkpoint(tmp_path / "own.safetensors")
        assert apart(own(image)["out"], model(image)) < 1e-5


@pytest.mark.parametrize("kind", SOME)
def test_a_head_of_anybody_is_run_as_smp_runs_it(kind):
    model, reference = pair(kind, **({} if kind == "DPT" else {"activation": "sigmoid"}))
    width = last_conv(model.segmentation_head).in_channels
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Conv2d(width, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    image = picture(kind)
    for head in (
        plain,
        nn.Sequential(*plain, nn.UpsamplingBilinear2d(scale_factor=2), nn.Softmax(dim=1)),
        theirs.base.SegmentationHead(width, 5, upsampling=FACTOR.get(kind, 1), activation="sigmoid"),
        ours.SegmentationHead(width, 5, upsampling=FACTOR.get(kind, 1)),
    ):
        model.segmentation_head, reference.segmentation_head = head, copy.deepcopy(head)
        classes = 5 if "SegmentationHead" in type(head).__name__ else 2
        with torch.no_grad():
            assert apart(model(image), reference(image)) < 1e-5
            logits = model.network(image)["out"]
            coarse = by_hand(model, kind, image)
            for layer in head if classes == 5 else plain:
                if isinstance(layer, (nn.Conv2d, nn.ReLU)):
                    coarse = layer(coarse)
            expected = F.interpolate(coarse, image.shape[-2:], mode="bilinear", align_corners=True)
            assert apart(logits, expected) < 1e-5
        assert model.network.num_classes == classes
        assert model.network.segmentation_head is head


@pytest.mark.parametrize("kind", KINDS)
def test_other_encoders_and_decoders_run_train_and_are_saved_for_smp(kind, tmp_path):
    model, reference = pair(kind)
    old = {part: getattr(model, part) for part in ("encoder", "decoder")}
    other, other_reference = pair(kind)
    torch.manual_seed(5)
    with torch.no_grad():
        for tensor in other_reference.parameters():
            tensor.add_(torch.randn_like(tensor), alpha=0.1)
    other.load_state_dict(other_reference.state_dict())
    image = picture(kind)
    before = model(image)
    for part in ("encoder", "decoder"):
        setattr(model, part, getattr(other, part))
        setattr(reference, part, getattr(other_reference, part))
        with torch.no_grad():
            expected = reference.eval()(image)
            assert apart(model.eval()(image), expected) < 1e-5
            assert apart(model.network(image)["out"], expected) < 1e-5
            assert apart(before, expected) > 1e-3
        assert getattr(model.network, part) is getattr(model, part) is getattr(other, part)
        model.train()
        assert getattr(model, part).training
        model(picture(kind, 2)).square().mean().backward()
        assert any(p.grad is not None and p.grad.any() for p in getattr(model, part).parameters())
        assert all(p.grad is None for p in old[part].parameters())
        model.zero_grad()
        reference.load_state_dict(model.eval().state_dict(), strict=True)
    model.freeze_encoder()
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert not model.train().encoder.training
    model.save_pretrained(tmp_path)
    again = theirs.from_pretrained(tmp_path, strict=True).eval()
    with torch.no_grad():
        assert apart(model.eval()(image), again(image)) < 1e-5


@pytest.mark.parametrize("kind", SOME)
def test_parts_of_smp_itself_run_here(kind, tmp_path):
    model, _ = pair(kind)
    torch.manual_seed(7)
    reference = made(theirs, kind)
    image = picture(kind)
    for part in ("encoder", "decoder", "segmentation_head"):
        setattr(model, part, getattr(reference, part))
    with torch.no_grad():
        expected = reference(image)
        assert torch.equal(model(image), expected)
        assert apart(model.network(image)["out"], expected) < 1e-6
    assert set(model.state_dict()) == set(reference.state_dict())
    with pytest.warns(UserWarning, match=r"config.json cannot say which parts this"):
        model.save_pretrained(tmp_path)
    loaded = made(theirs, kind)
    loaded.load_state_dict(torch.load(io.BytesIO(_torch_file(model.state_dict()))), strict=True)
    model.load_state_dict(loaded.state_dict())


@pytest.mark.parametrize("kind", ["Unet", "UnetPlusPlus", "FPN"])
def test_an_encoder_of_one_runs_with_the_decoder_of_the_other(kind):
    for part in ("encoder", "decoder"):
        model, reference = pair(kind)
        image = picture(kind)
        with torch.no_grad():
            expected = reference(image)
            setattr(model, part, getattr(reference, part))
            assert apart(model(image), expected) < 1e-5
            assert apart(model.network(image)["out"], expected) < 1e-5


def _torch_file(tensors) -> bytes:
    file = io.BytesIO()
    torch.save(dict(tensors), file)
    return file.getvalue()


def test_an_encoder_of_another_family_keeps_its_own_names():
    class Tiny(nn.Module):
        """As SMP asks of an encoder: a list that begins with the image."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList(
                nn.Conv2d(a, b, 3, 2, 1) for a, b in zip((3, 4, 8, 8, 8), (4, 8, 8, 8, 8), strict=True)
            )

        def forward(self, x: Tensor) -> list[Tensor]:
            found = [x]
            for step in self.steps:
                found.append(step(found[-1]).relu())
            return found

    class Last(nn.Module):
        """As SMP asks of a decoder: it takes that list."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8 + 3, 8, 1)

        def forward(self, features: list[Tensor]) -> Tensor:
            enlarged = F.interpolate(features[-1], size=features[0].shape[-2:])
            return self.conv(torch.cat([enlarged, features[0]], 1))

    torch.manual_seed(0)
    model, reference = pair("Unet")
    model.encoder, model.decoder = encoder, decoder = Tiny(), Last()
    reference.encoder, reference.decoder = copy.deepcopy(encoder), copy.deepcopy(decoder)
    image = picture()
    with torch.no_grad():
        expected = model.segmentation_head(decoder(encoder(image)))
    assert torch.equal(model(image), expected)
    assert torch.equal(model.network(image)["out"], expected)
    keys = {f"encoder.steps.{i}.{what}" for i in range(5) for what in ("weight", "bias")}
    state = model.state_dict()
    assert {key for key in state if key.startswith("encoder.")} == keys
    reference.load_state_dict(state, strict=True)
    for tensor in state.values():
        tensor.mul_(2) if tensor.is_floating_point() else None
    twin = pair("Unet")[0]
    twin.encoder, twin.decoder = Tiny(), Last()
    twin.load_state_dict(state)
    assert torch.equal(twin(image), model(image))
    with pytest.raises(InputError, match=r"not as it was built"):
        pixelwise.save(model.network, "never.safetensors")
    model.decoder = pair("Unet")[0].decoder
    model.encoder = nn.Sequential()  # gives the pictures of the batch
    with pytest.raises(InputError, match=r"reads 5 features, finest first, the encoder gives 1"):
        model(image)


def test_there_never_is_a_second_set_of_parts():
    model, _ = pair("FPN")
    network = model.network
    assert model.network is network
    for part in ("encoder", "decoder", "segmentation_head"):
        other = copy.deepcopy(getattr(model, part))
        setattr(model, part, other)
        assert getattr(network, part) is other  # the one that was taken before, too
        other = copy.deepcopy(other)
        setattr(network, part, other)
        assert getattr(model, part) is other
    network.segmentation_head[0] = conv = for_classes(model.segmentation_head, 3)
    assert model.segmentation_head[0] is conv
    image = picture()
    assert torch.equal(model(image), network(image)["out"])
    model.add_module("decoder", pair("FPN")[0].decoder)
    assert model.network.decoder is model.decoder
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.network.parameters()}
    with pytest.raises(AttributeError, match=r"assign model.encoder, decoder or segmentation_head"):
        model.network = pair("FPN")[0].network


def test_replicas_copies_and_pickles_have_their_own_parts(tmp_path):
    image = picture()
    aux = {"classes": 3, "activation": "sigmoid"}
    model, _ = pair("FPN", activation="softmax2d", aux_params=aux)
    with_conv(model, "FPN", for_classes(model.segmentation_head, 5))
    expected = model(image)[0]
    assert expected.shape == (1, 5, 64, 64)
    torch.testing.assert_close(model.network(image)["out"].softmax(1), expected)

    replica = model._replicate_for_data_parallel()
    for part, child in model.named_children():  # as torch.nn.parallel.replicate does
        setattr(replica, part, copy.deepcopy(child).requires_grad_(False))
    for tensor in replica.segmentation_head.parameters():
        tensor.zero_()
    assert torch.equal(replica(image)[0], torch.full_like(expected, 0.2))
    assert not replica.network(image)["out"].any()
    assert torch.equal(model(image)[0], expected)
    assert model.network.segmentation_head is model.segmentation_head
    assert torch.equal(nn.DataParallel(model)(image)[0], expected)

    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    for copied in (copy.deepcopy(model), loaded):
        assert torch.equal(copied(image)[0], expected)
        with_conv(copied, "FPN", for_classes(model.segmentation_head, 2))
        assert copied(image)[0].shape == (1, 2, 64, 64)
        assert copied.network.num_classes == 2
        copied.decoder = nn.Identity()
        assert copied.network.decoder is copied.decoder
        assert set(copied.state_dict()) >= {"segmentation_head.0.weight", "classification_head.3.weight"}
    assert torch.equal(model(image)[0], expected)
    network = copy.deepcopy(model.network)
    network.segmentation_head[0] = for_classes(model.segmentation_head, 2)
    assert network(image)["out"].shape == (1, 2, 64, 64)
    assert model.network.num_classes == 5


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_traced_head_runs():
    model, _ = pair("Unet")
    conv = nn.Conv2d(8, 2, 1)
    model.segmentation_head = torch.jit.trace(conv, torch.zeros(1, 8, 4, 4))
    assert torch.equal(model(picture()), conv(by_hand(model, "Unet", picture())))


def test_a_classifier_of_anybody_is_used(tmp_path):
    model, reference = pair("Unet", aux_params={"classes": 3})
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(model.encoder.channels[-1], 6)
    ).eval()
    model.classification_head, reference.classification_head = head, copy.deepcopy(head)
    for got, expected in zip(model(picture()), reference(picture()), strict=True):
        assert apart(got, expected) < 1e-5
    reference.load_state_dict(model.state_dict(), strict=True)
    model.classification_head = nn.Sequential(
        *head[:2], nn.Linear(model.encoder.channels[-1], 6), nn.Linear(6, 2)
    )
    with pytest.warns(UserWarning, match=r"config.json cannot say which parts"):
        model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["aux_params"]["classes"] == 2
    model.classification_head = None
    assert isinstance(model(picture()), Tensor)


def test_an_assigned_encoder_is_not_the_one_that_was_frozen():
    model, _ = pair("Unet")
    model.freeze_encoder()
    model.encoder = pair("Unet")[0].encoder
    model.train()
    assert model.encoder.training
    assert all(p.requires_grad for p in model.encoder.parameters())
    model.freeze_encoder()
    model.train()
    assert not model.encoder.training
    assert not any(p.requires_grad for p in model.encoder.parameters())


def test_what_a_head_says_of_itself_is_in_the_config(tmp_path):
    model, _ = pair("FPN", activation="sigmoid")
    model.segmentation_head = ours.SegmentationHead(
        64, 9, kernel_size=1, activation="softmax2d", upsampling=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save_pretrained(tmp_path)
    back = theirs.from_pretrained(tmp_path, strict=True).eval()
    image = picture()
    assert model(image).shape == (1, 9, 32, 32)
    assert apart(model(image), back(image)) < 1e-5
    assert apart(model(image), ours.from_pretrained(tmp_path)(image)) < 1e-6
    model.segmentation_head = nn.Sequential(nn.Conv2d(64, 9, 1))
    model.save_pretrained(tmp_path)
    back = theirs.from_pretrained(tmp_path, strict=True).eval()
    assert model(image).shape == (1, 9, 16, 16)
    assert apart(model(image), back(image)) < 1e-5
    model.segmentation_head = nn.Sequential(
        nn.Conv2d(64, 9, 1), *(nn.UpsamplingBilinear2d(scale_factor=2),) * 2
    )
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["upsampling"] == 4
    assert theirs.from_pretrained(tmp_path, strict=True).eval()(image).shape == model(image).shape
    model.segmentation_head = nn.Sequential(nn.Conv2d(64, 9, 1))
    model.segmentation_head.append(nn.Hardsigmoid())
    with pytest.warns(UserWarning, match=r"Hardsigmoid"):
        model.save_pretrained(tmp_path)


def test_a_depth_that_is_not_the_usual_keeps_smps_factor_in_the_config(tmp_path):
    model = made(ours, "PSPNet", encoder_depth=4)
    assert model(picture()).shape == (1, 4, 64, 64)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["upsampling"] == 8
    assert torch.equal(ours.from_pretrained(tmp_path)(picture()), model(picture()))


def test_logits_that_are_none_are_refused():
    model, _ = pair("Unet")
    model.segmentation_head = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Flatten())
    with pytest.raises(
        InputError, match=r"expected logits \(n, 4, h, w\) from the parts of this Unet, got \(1, "
    ):
        model.network(picture())
    model.segmentation_head = nn.Sequential(nn.Conv2d(8, 4, 1), nn.GLU(dim=1))  # halves the channels
    with pytest.raises(InputError, match=r"expected logits \(n, 4, h, w\) .* got \(1, 2, 64, 64\)"):
        model.network(picture())
    model.segmentation_head = nn.Identity()
    with pytest.raises(InputError, match=r"no convolution by which its classes could be counted"):
        _ = model.network.num_classes
    model.segmentation_head = nn.Sequential(nn.Conv2d(8, 12, 1), nn.PixelShuffle(2))
    assert model.network.num_classes == 3
    model.segmentation_head = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ConvTranspose2d(12, 5, 2, 2))
    assert model.network.num_classes == 5
    with pytest.raises(WeightsError, match=r"2 classes, the model 4"):
        made(ours, "Unet").load_state_dict(made(ours, "Unet", classes=2).state_dict())


@pytest.mark.parametrize(
    "more", [{"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bicubic", "align_corners": True}]
)
def test_an_enlargement_that_is_not_smps_is_part_of_the_logits(more):
    model, _ = pair("FPN")
    model.segmentation_head = head = nn.Sequential(nn.Conv2d(64, 3, 1), nn.Upsample(scale_factor=2, **more))
    image = picture()
    with torch.no_grad():
        coarse = head(by_hand(model, "FPN", image))
        assert torch.equal(model.network.coarse(image), coarse)
        expected = F.interpolate(coarse, image.shape[-2:], mode="bilinear", align_corners=True)
        assert apart(model.network(image)["out"], expected) < 1e-5


@pytest.mark.parametrize("channels", [32, 64, 96, 128])
def test_the_groups_of_fpns_norm_are_smps_both_ways(channels, tmp_path):
    options = {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": channels}
    torch.manual_seed(0)
    reference = theirs.FPN("tu-test_resnet.r160_in1k", encoder_weights=None, **options).eval()
    reference.save_pretrained(tmp_path / "theirs")
    network = pixelwise.from_checkpoint(tmp_path / "theirs")
    with torch.no_grad():
        assert apart(network(picture())["out"], reference(picture())) < 1e-5
    write(network, tmp_path / "back")
    with torch.no_grad():
        assert apart(theirs.from_pretrained(tmp_path / "back").eval()(picture()), reference(picture())) < 1e-5
    for norm in ("instance", {"name": "group", "groups": 8}, *([] if channels == 128 else ["group"])):
        other = pixelwise.create_model(
            "fpn", encoder="tu-test_resnet.r160_in1k", segmentation_channels=channels, norm=norm
        )
        with pytest.raises(InputError, match=r"SMP's FPN has a group norm of 32 groups"):
            write(other, tmp_path / "never")


@pytest.mark.parametrize(
    ("kind", "senseless"),
    [
        ("Unet", {"decoder_interpolation": "foo"}),
        ("Unet", {"decoder_attention_type": "foo"}),
        ("Unet", {"decoder_use_norm": "foo"}),
        ("Unet", {"activation": "foo"}),
        ("Unet", {"classes": "three"}),
        ("Unet", {"encoder_depth": "deep"}),
        ("Unet", {"surplus": 3}),
        ("FPN", {"decoder_merge_policy": "foo"}),
        ("FPN", {"upsampling": "foo"}),
        ("FPN", {"decoder_interpolation": "foo"}),
        ("PAN", {"decoder_interpolation": "foo"}),
        ("DeepLabV3", {"decoder_atrous_rates": [1, "a", 2]}),
        ("DeepLabV3", {"encoder_output_stride": 7}),
        ("DPT", {"decoder_readout": "foo"}),
        ("DPT", {"encoder_output_indices": [0, 99, 1, 2]}),
    ],
)
def test_a_senseless_config_is_refused_in_one_sentence_at_opening(kind, senseless, tmp_path):
    made(ours, kind).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | senseless))
    (key, value), *_ = senseless.items()
    for opening in (pixelwise.from_checkpoint, ours.from_pretrained):
        with pytest.raises((ValueError, TypeError)) as refused:
            opening(tmp_path)
        said = str(refused.value)
        assert "\n" not in said
        assert str(value) in said or key in said


@pytest.mark.slow
def test_a_depth_that_shapes_do_not_tell_is_asked_for():
    state = theirs.PSPNet(
        "densenet121", encoder_depth=5, encoder_weights=None, psp_out_channels=16
    ).state_dict()
    with pytest.raises(
        WeightsError, match=r"whether encoder_depth of densenet121 was 4 or 5; give the folder"
    ):
        pixelwise.from_checkpoint(state)
    state = theirs.FPN("vgg11", encoder_depth=5, encoder_weights=None).state_dict()
    with pytest.warns(UserWarning, match=r"does not say encoder_depth and decoder_interpolation"):
        pixelwise.from_checkpoint(state)


@pytest.mark.parametrize(
    "encoder",
    [
        "tu-test_resnet.r160_in1k",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "vgg11", "mit_b0")),
    ],
)
def test_dpt_takes_the_encoders_that_the_table_gives_it(encoder):
    torch.manual_seed(0)
    network = pixelwise.create_model("dpt", encoder=encoder, num_classes=3, width=16)
    assert len(network.decoder.reassemble_blocks) == len(network.encoder.channels)
    before = network(picture(n=2))["out"]
    assert before.shape == (2, 3, 64, 64)
    before.square().mean().backward()
    assert [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ] == []
    for i in range(len(network.encoder.channels)):
        assert network.decoder.reassemble_blocks[i].project_to_out_channel.weight.grad.any()


def test_a_model_says_what_it_was_trained_on(tmp_path):
    made(ours, "Unet").save_pretrained(tmp_path, dataset="streets", metrics={"iou": 0.5})
    said = (tmp_path / "README.md").read_text()
    assert "streets" in said
    assert '"iou": 0.5' in said
    assert list(inspect.signature(ours.Unet).parameters)[:2] == ["encoder_name", "encoder_depth"]


@pytest.mark.slow
def test_an_assigned_head_is_in_the_exported_file(tmp_path):
    model, _ = pair("FPN")
    model.segmentation_head = theirs.base.SegmentationHead(
        64, 3, kernel_size=1, upsampling=4, activation="sigmoid"
    )
    model.eval()
    export_onnx(model.network, pixelwise.Card.of(["a", "b", "c"]), tmp_path / "fpn.onnx")
    engine = pixelwise.open_engine(tmp_path / "fpn.onnx")
    coarse = torch.from_numpy(engine(picture().numpy()))
    logits = F.interpolate(coarse, (64, 64), mode="bilinear", align_corners=True)
    with torch.no_grad():
        assert apart(logits.sigmoid(), model(picture())) < 1e-4


def test_dpts_encoder_gives_its_tokens_as_well_and_its_decoder_takes_both():
    model, reference = pair("DPT")
    image = picture()
    with torch.no_grad():
        (features, tokens), (expected, others) = model.encoder(image), reference.encoder(image)
        for got, other in zip([*features, *tokens], [*expected, *others], strict=True):
            assert apart(got, other) < 1e-5
        assert apart(model.segmentation_head(model.decoder(features, tokens)), reference(image)) < 1e-5
    for name in ("out_channels", "output_strides", "output_stride", "has_prefix_tokens"):
        assert getattr(model.encoder, name) == getattr(reference.encoder, name)
    kind = ours.encoders.TimmViTEncoder
    assert isinstance(model.encoder, kind)
    options = {"pretrained": False, "depth": 2, "in_channels": 4, "dynamic_img_size": True}
    alone, other = (
        side.encoders.TimmViTEncoder("test_vit", output_indices=[-3, 5], **options).eval()
        for side in (ours, theirs)
    )
    other.load_state_dict(alone.state_dict(), strict=False)
    four = torch.rand(1, 4, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for got, expected in zip(alone(four)[0], other(four)[0], strict=True):
            assert apart(got, expected) < 1e-5
    for wrong in (
        {"depth": 0},
        {"depth": 25},
        {"depth": 1, "output_indices": -2},
        {"depth": 2, "output_indices": [1]},
    ):
        with pytest.raises(ValueError, match=r"depth of test_vit must be|output_indices must be a list"):
            kind("test_vit", pretrained=False, **wrong)
    with pytest.raises(ValueError, match="cannot be dilated"):
        kind("test_vit", pretrained=False, output_stride=16)


@pytest.mark.parametrize("encoder", ["tu-test_resnet.r160_in1k", "tu-test_convnext"])
def test_at_sizes_that_are_no_multiples_timms_encoders_give_smps_numbers(encoder):
    torch.manual_seed(0)
    reference = theirs.Unet(encoder, encoder_weights=None, decoder_channels=(32, 16, 16, 8, 8)).eval()
    model = ours.Unet(encoder, encoder_weights=None, decoder_channels=(32, 16, 16, 8, 8)).eval()
    model.load_state_dict(reference.state_dict())
    assert model.name == reference.name
    image = picture()[..., :61, :45]
    with torch.no_grad():
        assert apart(model(image), reference(image)) < 1e-5
    # As a network it keeps to the grid of the strides, as all networks here do
    on_grid = model.network.features(image)
    assert [f.shape[-2:] for f in on_grid] == [(-(-61 // s), -(-45 // s)) for s in model.encoder.strides]


@pytest.mark.slow
def test_a_size_that_timm_refuses_is_padded():
    options = {"encoder_weights": None, "encoder_depth": 2, "decoder_channels": (8, 4)}
    image = picture()[..., :61, :45]
    with pytest.raises(AssertionError):
        theirs.Unet("tu-swin_tiny_patch4_window7_224", **options).eval()(image)
    assert ours.Unet("tu-swin_tiny_patch4_window7_224", **options).eval()(image).shape == (1, 1, 61, 45)
