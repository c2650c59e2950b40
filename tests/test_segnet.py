"""SegNet: counts, unpooling at odd sizes, Caffe's numbers and names, the folded batch norm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pixelwise import catalog
from pixelwise.checkpoints.families.fcn import ENCODERS
from pixelwise.checkpoints.families.segnet import FAMILIES
from pixelwise.checkpoints.loading import from_checkpoint
from pixelwise.encoders.vgg import VGG16
from pixelwise.errors import WeightsError
from pixelwise.export.onnx import export_onnx
from pixelwise.layers import Network
from pixelwise.models.segnet import SegNet, pool, segnet, unpool

(CAFFE,) = FAMILIES
DECODER = ["5_3", "5_2", "5_1", "4_3", "4_2", "4_1", "3_3", "3_2", "3_1", "2_2", "2_1", "1_2", "1_1"]


def shuffled(network: nn.Module, seed: int = 0) -> Any:
    """Weights and statistics of which every one matters, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.dtype == torch.int64:
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, math.sqrt(2 / tensor[0].numel()), generator=generator)
        else:
            tensor.normal_(1 if name.endswith("norm.weight") else 0.1, 0.3, generator=generator)
    return network.eval()


def picture(*size_hw: int, channels: int = 3, n: int = 1) -> Tensor:
    return torch.randn(n, channels, *size_hw, generator=torch.Generator().manual_seed(sum(size_hw)))


def theirs_of(network: SegNet) -> dict[str, Tensor]:
    assert CAFFE.to_theirs is not None
    return CAFFE.to_theirs(network.state_dict())


def relative(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / (expected.max() - expected.min()))


# Counts and names ---------------------------------------------------------------------------------------------------


def test_parameters_and_multiply_adds_are_those_of_the_sheet():
    with torch.device("meta"):
        network = segnet().eval()
        assert sum(p.numel() for p in network.parameters()) == 29_449_355
        norms = [p for name, p in network.named_parameters() if ".norm." in name]
        assert sum(p.numel() for p in norms) == 15_872
        assert sum(p.numel() for p in segnet(num_classes=21).parameters()) == 29_455_125
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 360, 480))
    card = catalog.entry("segnet").card
    assert card is not None
    assert (card.parameters, card.multiply_adds) == (29_449_355, counter.get_total_flops() // 2)
    assert isinstance(network, Network)
    assert network.origin.model == "segnet"


def test_layers_have_the_names_and_widths_of_the_prototxt():
    with torch.device("meta"):
        blobs = theirs_of(segnet())
    encoder = [f"{block}_{i}" for block, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    convolutions = [f"conv{name}" for name in encoder] + [f"conv{name}_D" for name in DECODER]
    norms = [f"{name}_bn" for name in convolutions if name != "conv1_1_D"]
    assert set(blobs) == {f"{layer}.{blob}" for layer in convolutions + norms for blob in (0, 1)}
    widths = [len(blobs[f"conv{name}_D.0"]) for name in DECODER]
    assert widths == [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 11]
    assert blobs["conv3_2_bn.0"].shape == (1, 256, 1, 1)


# Unpooling ----------------------------------------------------------------------------------------------------------


def slow_pool(x: NDArray[Any]) -> tuple[NDArray[Any], list[tuple[int, ...]]]:
    """2x2 windows, the last one cut at an odd side; the first of equal values wins. Values, and where they were."""
    n, c, h, w = x.shape
    pooled = np.zeros((n, c, -(-h // 2), -(-w // 2)), x.dtype)
    places = []
    for b, k, i, j in np.ndindex(pooled.shape):
        window = [(y, z) for y in (2 * i, 2 * i + 1) for z in (2 * j, 2 * j + 1) if y < h and z < w]
        y, z = max(window, key=lambda yz: x[b, k, yz[0], yz[1]])  # max returns the first
        pooled[b, k, i, j] = x[b, k, y, z]
        places.append((b, k, y, z))
    return pooled, places


def slow_unpool(x: NDArray[Any], places: list[tuple[int, ...]], like: NDArray[Any]) -> NDArray[Any]:
    out = np.zeros(like.shape, like.dtype)
    for value, place in zip(x.flatten(), places, strict=True):
        out[place] = value
    return out


@pytest.mark.parametrize("size_hw", [(6, 8), (7, 8), (5, 9), (1, 1), (2, 1), (23, 30)])
def test_unpooling_puts_values_back_where_the_largest_were(size_hw: tuple[int, int]):
    x = torch.randint(0, 4, (2, 3, *size_hw)).float()  # many equal values
    expected, expected_places = slow_pool(x.numpy())
    pooled, places = pool(x)
    np.testing.assert_array_equal(pooled, expected)
    values = torch.randn_like(pooled)
    back = unpool(values, places, like=x)
    np.testing.assert_array_equal(back, slow_unpool(values.numpy(), expected_places, x.numpy()))
    assert torch.equal(back, F.max_unpool2d(values, places, 2, output_size=list(size_hw)))


def test_the_sizes_of_camvid_come_back_as_in_the_prototxt():
    """360 x 480 is halved to 12 x 15; the prototxt names 23 x 30 and 45 x 60 on the way up."""
    with torch.device("meta"):
        network, sizes = segnet(), []
        for layer in (network.decoder5, network.decoder4, network.decoder3):
            layer.register_forward_hook(lambda module, given, result: sizes.append(tuple(result.shape[2:])))
        network.eval()(torch.empty(1, 3, 360, 480))
    assert sizes == [(23, 30), (45, 60), (90, 120)]


# Caffe's numbers, computed from Caffe's names -----------------------------------------------------------------------


def caffe_segnet(blobs: dict[str, Tensor], data: Tensor) -> Tensor:
    """segnet_inference.prototxt, with the BN layers in their inference mode."""

    def layer(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, blobs[f"{name}.0"], blobs[f"{name}.1"], padding=1)
        return (x * blobs[f"{name}_bn.0"] + blobs[f"{name}_bn.1"]).clamp(min=0)

    x, masks = data, {}
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, count + 1):
            x = layer(x, f"conv{block}_{i}")
        pooled, places = slow_pool(x.numpy())
        masks[block] = places, x.numpy()
        x = torch.from_numpy(pooled)
    for block, count in ((5, 3), (4, 3), (3, 3), (2, 2), (1, 1)):
        x = torch.from_numpy(slow_unpool(x.numpy(), *masks[block]))
        for i in range(count, 0, -1) if block > 1 else (2,):
            x = layer(x, f"conv{block}_{i}_D")
    return F.conv2d(x, blobs["conv1_1_D.0"], blobs["conv1_1_D.1"], padding=1)


@torch.no_grad()
@pytest.mark.parametrize("size_hw", [(32, 32), (37, 22), (9, 1)])
def test_logits_are_those_of_the_caffe_network_on_a_bgr_picture(size_hw: tuple[int, int]):
    """The statistics of every batch norm are folded into a scale and a shift on the way to Caffe."""
    network, image = shuffled(segnet(width=4, num_classes=5)), picture(*size_hw)
    assert relative(network(image)["out"], caffe_segnet(theirs_of(network), image.flip(1))) < 1e-5


# Checkpoints --------------------------------------------------------------------------------------------------------


def official(**arguments: Any) -> dict[str, Tensor]:
    """Blobs as in a released file: random scales and shifts."""
    return theirs_of(shuffled(segnet(width=4, **arguments), seed=1))


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_caffe_checkpoint_comes_back_from_its_own_names(in_channels: int, tmp_path: Path):
    blobs = official(num_classes=7, in_channels=in_channels)
    lists: dict[str, list[Any]] = {}
    for key, tensor in sorted(blobs.items()):
        lists.setdefault(key.rpartition(".")[0], []).append(tensor.numpy())
    network: Any = from_checkpoint(lists)
    assert (network.origin.model, network.num_classes) == ("segnet", 7)
    again = theirs_of(network)
    assert again.keys() == blobs.keys()
    assert all(torch.equal(tensor, again[key]) for key, tensor in blobs.items())
    torch.save(blobs, tmp_path / "segnet.pth")
    built = segnet(width=4, num_classes=7, in_channels=in_channels, weights=tmp_path / "segnet.pth")
    assert torch.equal(built.decoder3[2].conv.weight, blobs["conv3_1_D.0"])
    assert torch.equal(built.decoder1[0].norm.bias, blobs["conv1_2_D_bn.1"].flatten())


def test_a_renamed_missing_or_misshapen_blob_is_noticed():
    blobs = official()
    renamed = {key.replace("conv4_2_D.", "conv4_2_E."): tensor for key, tensor in blobs.items()}
    missing = {key: tensor for key, tensor in blobs.items() if key != "conv2_1_D_bn.1"}
    misshapen = {**blobs, "conv2_2.0": blobs["conv2_2.0"][:, :3]}
    for broken in (renamed, missing, misshapen):
        with pytest.raises(WeightsError):
            from_checkpoint(broken)


@torch.no_grad()
def test_norms_that_were_absorbed_into_the_convolutions_do_nothing():
    """The release's BN-absorber.py multiplies scales into convolutions and leaves zeros in the BN layers."""
    blobs, image = official(num_classes=3), picture(20, 24)
    absorbed = dict(blobs)
    for key in (key for key in blobs if key.endswith("_bn.0")):
        layer = key.removesuffix("_bn.0")
        scale, shift = blobs[key].flatten(), blobs[f"{layer}_bn.1"].flatten()
        absorbed[f"{layer}.0"] = blobs[f"{layer}.0"] * scale[:, None, None, None]
        absorbed[f"{layer}.1"] = blobs[f"{layer}.1"] * scale + shift
        absorbed[key] = absorbed[f"{layer}_bn.1"] = torch.zeros_like(blobs[key])
    before, after = (from_checkpoint(tensors).eval()(image)["out"] for tensors in (blobs, absorbed))
    assert relative(after, before) < 1e-5


def test_the_encoder_takes_the_convolutions_of_vgg16():
    source = shuffled(VGG16(width_mult=1 / 16))
    for theirs in ENCODERS["vgg16"]:
        assert theirs.to_theirs is not None
        tensors = {
            **theirs.to_theirs(source.state_dict()),
            "fc8.0": torch.zeros(1),
            "classifier.6.bias": torch.zeros(1),
        }
        tensors.pop("classifier.6.bias" if "fc8" in "".join(theirs.marks) else "fc8.0")
        network = segnet(width=4, weights_backbone=tensors)
        assert torch.equal(network.encoder1[0].conv.weight, source.conv1_1.weight)
        assert torch.equal(network.encoder5[2].conv.bias, source.conv5_3.bias)
        with pytest.raises(WeightsError):
            segnet(width=8, weights_backbone=tensors)


# Training and export ------------------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter():
    network = segnet(width=4, num_classes=3).train()
    (network(picture(40, 33, n=2))["out"] * picture(40, 33, channels=3, n=2)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith("conv.bias"), name  # which a batch norm takes away again


def test_training_on_one_small_image_is_refused_in_a_sentence():
    network = segnet(width=4).train()
    with pytest.raises(
        ValueError, match="more than 16 pixels on a side for the batch norm, got 16x9; pad to 17x17"
    ):
        network(picture(16, 9))
    assert network(picture(16, 17))["out"].shape == (1, 11, 16, 17)
    assert network(picture(16, 9, n=2))["out"].shape == (2, 11, 16, 9)


def test_initial_weights_are_the_releases():
    network = segnet(width=16)
    assert all(
        bool((p == 0.001).all()) for name, p in network.named_parameters() if name.endswith("norm.bias")
    )
    weight = network.decoder5[0].conv.weight.detach()
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / weight[0].numel()), rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_logits_are_caffes_at_any_size_and_number_of_channels(channels: int):
    network = shuffled(segnet(width=2, in_channels=channels, num_classes=4))
    for h in (1, 2, 3, 15, 16, 17, 33):
        image = picture(h, h + 4, channels=channels)
        data = image.flip(1) if channels == 3 else image  # Caffe's BGR
        assert relative(network(image)["out"], caffe_segnet(theirs_of(network), data)) < 1e-5


def test_a_misspelt_argument_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match="'in_channels'"):
        segnet(in_chanels=1)  # type: ignore[call-arg]


@pytest.mark.slow
def test_export_agrees_at_other_sizes(tmp_path: Path):
    card = catalog.entry("segnet").card
    assert card is not None
    network = shuffled(segnet(width=4))
    assert export_onnx(network, card, tmp_path / "segnet.onnx", checked_at=((33, 47), (61, 18))) < 1e-5
