"""DeepLabV3 on MobileNetV2: counts, the parts by hand, Google's released weights where they are at hand."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

from pixelwise.layers import Network
from pixelwise.models.deeplabv3_mobilenet_v2 import DeepLabV3MobileNetV2

DATA = Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = DATA / "weights" / "deeplabv3_mobilenet_v2_voc21_tf1qat.pth"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DeepLabV3MobileNetV2(5, width_mult=0.35).eval()


def test_there_are_2_1_million_parameters():
    """Table 7 of the paper (MobileNetV2 with output stride 16 and no ASPP) rounds them to 2.11M."""
    network = DeepLabV3MobileNetV2()
    assert sum(p.numel() for p in network.parameters()) == 2_113_557
    assert len(network.state_dict()) == 326


@pytest.mark.parametrize("size_hw", [(1, 1), (33, 49), (64, 80), (67, 90)])
def test_forward_is_coarse_enlarged_with_aligned_corners(network, size_hw):
    image = torch.randn(2, 3, *size_hw)
    with torch.no_grad():
        coarse, logits = network.coarse(image), network(image)["out"]
    assert isinstance(network, Network)
    assert coarse.shape == (2, 5, *(-(-side // network.stride) for side in size_hw))
    assert torch.equal(
        logits, F.interpolate(coarse, size_hw, mode="bilinear", align_corners=network.align_corners)
    )


def test_the_backbone_is_torchvisions_with_its_last_stage_dilated(network):
    """On a grid of every second pixel the dilated stage sees what the strided one sees."""
    original = mobilenet_v2(width_mult=0.35).eval()
    original.features[:18].load_state_dict(network.backbone.features.state_dict())
    image = torch.randn(1, 3, 129, 97)
    with torch.no_grad():
        expected = original.features[:14](image)
        assert torch.equal(network.backbone.features[:14](image), expected)
        fine = network.backbone.features[14](expected)
        torch.testing.assert_close(fine[:, :, ::2, ::2], original.features[14](expected))
        fine = network.backbone.features[15:](fine)
        torch.testing.assert_close(fine[:, :, ::2, ::2], original.features[14:18](expected))


def test_the_head_mixes_every_pixel_with_the_mean_of_the_picture(network):
    features = torch.randn(2, network.backbone.channels[-1], 3, 4, dtype=torch.float64)
    head = network.head.double()

    def branch(x, name):
        norm = getattr(head, name)[1]
        x = torch.einsum("nc...,oc->no...", x, getattr(head, name)[0].weight[:, :, 0, 0])
        return (x / (norm.running_var[:, None, None] + norm.eps).sqrt() * norm.weight[:, None, None]).clamp(
            min=0
        )

    with torch.no_grad():
        whole = branch(features.flatten(2).mean(2)[:, :, None, None], "image_pooling").expand(-1, -1, 3, 4)
        mixed = branch(torch.cat([whole, branch(features, "aspp0")], 1), "concat_projection")
        expected = F.conv2d(mixed, head.logits.weight, head.logits.bias)
        torch.testing.assert_close(head(features), expected)
    head.float()


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"needs {WEIGHTS.name} in ../shared/data/weights")
def test_the_released_weights_load_and_find_what_is_in_a_picture():
    import numpy as np
    from PIL import Image

    network = DeepLabV3MobileNetV2().eval()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True), strict=True)
    name = "2007_000464"  # cows, of the official validation list
    voc = DATA / "voc2012_animals"
    picture = Image.open(voc / "JPEGImages" / f"{name}.jpg").resize((513, 385), Image.Resampling.BILINEAR)
    truth = np.asarray(
        Image.open(voc / "SegmentationClass" / f"{name}.png").resize((513, 385), Image.Resampling.NEAREST)
    )
    image = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        predicted = network(image)["out"].argmax(1)[0].numpy()
    assert (predicted == truth)[truth != 255].mean() > 0.9
