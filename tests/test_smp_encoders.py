"""pixelwise.smp.encoders and pixelwise.smp.base against SMP's own: features, names, preprocessing, blocks."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pixelwise import smp as ours
from pixelwise.errors import InputError, UnknownNameError, WeightsError
from pixelwise.smp.base import modules as blocks

theirs = pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
)


def test_names_arguments_and_the_version_are_smps():
    assert ours.__version__ == "0.6.0"
    assert set(ours.encoders.get_encoder_names()) == set(theirs.encoders.get_encoder_names())
    assert set(theirs.encoders.__all__) <= set(ours.encoders.__all__)
    for name in ("get_encoder", "get_preprocessing_params", "get_preprocessing_fn", "preprocess_input"):
        expected, got = (inspect.signature(getattr(side.encoders, name)) for side in (theirs, ours))
        assert [(p.name, p.default, p.kind) for p in got.parameters.values()] == [
            (p.name, p.default, p.kind) for p in expected.parameters.values()
        ], name
    for name in ("Conv2dReLU", "SCSEModule", "Attention", "get_norm_layer"):
        expected, got = (
            inspect.signature(getattr(side, name)) for side in (theirs.base.modules, ours.base.modules)
        )
        assert list(got.parameters) == list(expected.parameters), name
    assert set(theirs.base.__all__) == set(ours.base.__all__)
    assert list(ours.MODEL_ARCHITECTURES_MAPPING) == list(theirs.MODEL_ARCHITECTURES_MAPPING)


PAIRS = [
    ("resnet18", {}), ("vgg11", {"depth": 4}), ("mit_b0", {}), ("efficientnet-b0", {}), ("mobileone_s0", {"depth": 4}),
    ("mobilenet_v2", {"output_stride": 8}), ("tu-resnet18", {"depth": 3, "in_channels": 4}), ("tu-convnext_atto", {}),
    ("timm-skresnet18", {"depth": 3}), ("dpn68", {}), ("xception", {}), ("densenet121", {"in_channels": 1}),
]  # fmt: skip
QUICK = ("resnet18", "mit_b0", "tu-resnet18")


@pytest.mark.parametrize(
    ("name", "options"),
    [pair if pair[0] in QUICK else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS],
)
def test_an_encoder_gives_smps_features_and_has_its_names_of_tensors(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = theirs.encoders.get_encoder(name, **options).eval()
    encoder = ours.encoders.get_encoder(name, **options).eval()
    encoder.load_state_dict(reference.state_dict(), strict=True)
    state = encoder.state_dict()
    assert set(state) == set(reference.state_dict())
    assert all(torch.equal(tensor, reference.state_dict()[key]) for key, tensor in state.items())
    assert list(encoder.out_channels) == list(reference.out_channels)
    assert encoder.output_stride == reference.output_stride
    image = torch.randn(1, options.get("in_channels", 3), 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = reference(image), encoder(image)
    assert [feature.shape for feature in got] == [feature.shape for feature in expected]
    for feature, other in zip(got, expected, strict=True):
        if feature.numel():
            assert (feature - other).abs().max() < 1e-5 * (1 + other.abs().max())
    if expected[0].shape == image.shape:
        assert torch.equal(got[0], image)
    again = pickle.loads(pickle.dumps(copy.deepcopy(encoder)))
    with torch.inference_mode():
        assert torch.equal(again(image)[-1], got[-1])


OWN_BLOCKS = ("efficientnet", "mobileone")
EVERYDAY_NAMES = ("resnet18", "efficientnet-b0", "mobileone_s0", "mit_b0")


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in EVERYDAY_NAMES
        else pytest.param(
            name, marks=pytest.mark.slow if name.startswith(OWN_BLOCKS) else pytest.mark.exhaustive
        )
        for name in (*ours.encoders.get_encoder_names(), "tu-resnet18")
    ],
)
def test_parameters_have_smps_names_in_its_order(name):
    """Optimizers, freezing and groups of parameters go by them. SMP has more, of layers that no feature needs, and in
    Mix Transformers another order."""
    mit = name.startswith("mit_")
    order = sorted if mit else list
    with torch.device("cpu" if mit else "meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, model = (side.Unet(name, encoder_weights=None) for side in (theirs, ours))
    for side in (model, model.network):
        parameters = dict(side.named_parameters())
        assert list(parameters) == [key for key in side.state_dict() if key in parameters]
        theirs_in_order = [key for key, _ in expected.named_parameters() if key in parameters]
        assert order(parameters) == order(theirs_in_order)
    assert order(model.state_dict()) == order(expected.state_dict())


def test_blocks_are_frozen_by_smps_names():
    model = ours.Unet("efficientnet-b0", encoder_weights=None, encoder_depth=2, decoder_channels=(8, 4))
    frozen = [
        parameter.requires_grad_(False) for name, parameter in model.named_parameters() if "_blocks" in name
    ]
    before = [parameter.clone() for parameter in frozen]
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert len(frozen) == 36
    assert all(torch.equal(a, b) for a, b in zip(frozen, before, strict=True))
    assert model.encoder._conv_stem.weight.grad.abs().sum() > 0
    assert model.network.encoder._blocks[2]._expand_conv is model.encoder._blocks[2]._expand_conv


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "name", ["resnet18", "tu-test_resnet.r160_in1k", *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("vgg11", "efficientnet-b0", "mobileone_s0", "timm-skresnet18", "tu-convnext_atto", "dpn68")
    )]
)  # fmt: skip
def test_an_encoder_is_scripted_and_gives_the_same_at_other_sizes(name):
    encoder = ours.encoders.get_encoder(name).eval()
    names = list(encoder.state_dict())
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(encoder), buffer)
    buffer.seek(0)
    scripted = torch.jit.load(buffer)
    for size in ((64, 96), (70, 65)):
        with torch.inference_mode():
            for got, expected in zip(
                scripted(torch.ones(1, 3, *size)), encoder(torch.ones(1, 3, *size)), strict=True
            ):
                assert torch.equal(got, expected)
    assert list(encoder.state_dict()) == names
    assert encoder._is_torch_scriptable


def test_an_encoder_can_be_assigned_to_a_model():
    model = ours.FPN(
        "resnet18", encoder_weights=None, decoder_pyramid_channels=16, decoder_segmentation_channels=32
    )
    model.encoder = ours.encoders.get_encoder("resnet18")
    model(torch.rand(2, 3, 64, 64))[:, 0].mean().backward()
    assert model.encoder.layer4[0].conv1.weight.grad.abs().sum() > 0


def test_an_encoder_is_dilated_afterwards_as_smps_is():
    reference, encoder = (side.encoders.get_encoder("resnet18").eval() for side in (theirs, ours))
    encoder.load_state_dict(reference.state_dict())
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for stride in (16, 8):
        reference.make_dilated(stride)
        encoder.make_dilated(stride)
        assert encoder.output_stride == stride
        with torch.inference_mode():
            for got, expected in zip(encoder(image), reference(image), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="output_stride must be 8 or 16, got 32"):
        encoder.make_dilated(32)


def test_asking_for_what_is_not_there_names_what_is():
    get = ours.encoders.get_encoder
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18'"):
        get("resnet_18")
    for depth in (0, 6):
        with pytest.raises(ValueError, match=f"depth must be .*, got {depth}"):
            get("resnet18", depth=depth)
    with pytest.raises(ValueError, match="halves its image by pooling"):
        get("vgg11", output_stride=16)
    with pytest.raises(UnknownNameError, match="imagenet"):
        get("resnet18", weights="imagenet1k")
    with pytest.raises(InputError, match=r"assign your encoder, model\.encoder = "):
        ours.encoders.encoders["mine"] = {}
    with pytest.raises(UnknownNameError, match="advprop"):
        ours.encoders.get_preprocessing_params("efficientnet-b0", "advpropp")
    with pytest.raises(WeightsError, match="timm has no weights for tu-darknet17"):
        ours.encoders.get_preprocessing_params("tu-darknet17")
    with pytest.raises(UnknownNameError, match="Unknown encoder"):
        ours.encoders.get_preprocessing_params("resnet_18")


def test_the_table_of_encoders_has_smps_entries():
    mapping = ours.encoders.encoders
    assert list(mapping) == ours.encoders.get_encoder_names()
    for name, row in theirs.encoders.encoders.items():
        assert mapping[name]["params"]["out_channels"] == list(row["params"]["out_channels"]), name
        assert set(row["pretrained_settings"]) <= set(mapping[name]["pretrained_settings"]), name
    encoder = mapping["resnet18"]["encoder"](**mapping["resnet18"]["params"], depth=3)
    assert encoder.out_channels == [3, 64, 64, 128]


HALVES, IMAGENET = ([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("resnet34", "imagenet", IMAGENET), ("mit_b2", "imagenet", IMAGENET), ("mobileone_s0", "imagenet", IMAGENET),
        ("timm-efficientnet-b0", "noisy-student", IMAGENET), ("timm-efficientnet-b0", "advprop", HALVES),
        ("efficientnet-b0", "imagenet", IMAGENET), ("efficientnet-b0", "advprop", HALVES),
        ("timm-tf_efficientnet_lite0", "imagenet", HALVES), ("xception", "imagenet", HALVES),
        ("inceptionv4", "imagenet+background", HALVES), ("inceptionresnetv2", "imagenet", HALVES),
        ("dpn92", "imagenet+5k", ([124 / 255, 117 / 255, 104 / 255], [1 / (0.0167 * 255)] * 3)),
        ("tu-resnet18", "imagenet", IMAGENET), ("tu-vit_base_patch16_224.augreg_in21k", "imagenet", HALVES),
    ],
)  # fmt: skip
def test_preprocessing_is_that_of_smps_weights(name, weights, expected):
    params = ours.encoders.get_preprocessing_params(name, pretrained=weights)
    mean, std = expected
    assert params == {
        "input_space": "RGB",
        "input_range": [0, 1],
        "mean": pytest.approx(mean),
        "std": pytest.approx(std),
    }
    if name.startswith("tu-"):
        assert params == theirs.encoders.get_preprocessing_params(name)
    picture = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    prepare = pickle.loads(pickle.dumps(ours.encoders.get_preprocessing_fn(name, weights)))
    np.testing.assert_allclose(prepare(picture), (picture / 255 - mean) / std)


@given(
    st.integers(0, 1000), st.sampled_from(("RGB", "BGR")), st.sampled_from((None, [0, 1], (0, 255))),
    st.sampled_from((None, [0.1, 0.2, 0.3])), st.sampled_from((None, (0.5, 1, 2))), st.sampled_from((1, 2, 256)),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_preprocess_input_is_smps(seed, space, extent, mean, std, values):
    picture = np.random.default_rng(seed).integers(0, values, (3, 2, 3), dtype=np.uint8)
    options = {"mean": mean, "std": std, "input_space": space, "input_range": extent}
    expected, got = (side.encoders.preprocess_input(picture, **options) for side in (theirs, ours))
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_weights_by_a_tag_of_a_timm_encoder_are_said_to_be_taken_as_true(monkeypatch):
    import timm

    asked = []
    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, pretrained=False, **k: asked.append(pretrained) or real(*a, **k)
    )
    with pytest.warns(UserWarning, match="weights='imagenet' is taken as True"):
        ours.encoders.get_encoder("tu-test_resnet.r160_in1k", weights="imagenet")
    assert any(asked)
    asked.clear()
    ours.encoders.get_encoder("tu-test_resnet.r160_in1k", encoder_weights=None)
    ours.encoders.get_encoder("tu-test_resnet.r160_in1k", weights=False)
    assert not any(asked)


@pytest.mark.parametrize(
    "norm", [True, False, "batchnorm", "identity", "instancenorm", {"type": "batchnorm", "eps": 0.1}]
)
def test_blocks_are_smps_with_the_same_tensors(norm):
    for make in (
        lambda side: side.base.Conv2dReLU(4, 16, 3, padding=1, stride=2, use_norm=norm),
        lambda side: side.base.Attention("scse", in_channels=4, reduction=2),
        lambda side: side.base.Attention(None),
        lambda side: side.base.ClassificationHead(4, 3, pooling="max", dropout=0.0, activation="sigmoid"),
        lambda side: side.base.SegmentationHead(4, 3, activation="softmax2d", upsampling=2),
    ):
        reference, block = make(theirs).eval(), make(ours).eval()
        if norm == "instancenorm":  # has a weight here, none in SMP
            continue
        block.load_state_dict(reference.state_dict(), strict=True)
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(block(x), reference(x))


def test_a_layer_norm_works_where_smps_fails():
    x = torch.randn(1, 4, 8, 8)
    with pytest.raises(RuntimeError):
        theirs.base.Conv2dReLU(4, 16, 3, padding=1, use_norm="layernorm")(x)
    block = ours.base.Conv2dReLU(4, 16, 3, padding=1, use_norm="layernorm")
    assert isinstance(block[1], nn.LayerNorm)
    assert block(x).shape == (1, 16, 8, 8)
    with pytest.raises(UnknownNameError, match="scse"):
        blocks.Attention("cbam")
    with pytest.raises(ValueError, match="pooling must be 'avg' or 'max', got 'mean'"):
        ours.base.ClassificationHead(4, 3, pooling="mean")
