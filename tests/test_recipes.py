"""The recipes' own steps, on pictures drawn here."""

import numpy as np
import pytest
import torch

from pixelwise.datasets.sample import Sample
from pixelwise.labels import VOC
from pixelwise.models.deeplabv3_mobilenet_v2 import DeepLabV3MobileNetV2
from pixelwise.models.unet import UNet
from pixelwise.recipes import embed, everyday, nuclei
from pixelwise.segmenter import Segmenter
from pixelwise.transforms.torchvision import joint
from pixelwise.weights.card import Score


def halves(height=90, width=120):
    """Left dark background, right a bright cat (class 8)."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 8
    return Sample(np.repeat((mask * 25)[..., None], 3, 2), mask, "halves")


def test_void_outline_ignores_two_pixels_on_either_side_of_a_border():
    ids = np.zeros((8, 12), np.uint8)
    ids[:, 6:] = 3
    expected = ids.copy()
    expected[:, 4:8] = 255
    np.testing.assert_array_equal(everyday.void_outline(ids), expected)
    assert (everyday.void_outline(np.full((8, 8), 4, np.uint8)) == 4).all()


def test_image_mask_and_teacher_of_a_crop_show_the_same_place():
    sample = halves()
    grid_h, grid_w = (side // 16 + 1 for side in everyday.PREPROCESS.size_hw(90, 120))
    said = torch.zeros(21, grid_h, grid_w)
    said[8, :, grid_w // 2 :] = 1
    said[0] = 1 - said[8]
    torch.manual_seed(0)
    augment = everyday.augmentation({"halves": said.half()})
    compared = 0
    for _ in range(20):
        batch = augment(sample)
        assert batch["image"].shape == (3, everyday.CROP, everyday.CROP)
        assert batch["teacher"].shape == (21, 21, 21)
        mask, teacher = batch["mask"][::16, ::16], batch["teacher"]
        silent = teacher.sum(0) == 0
        assert (silent == (mask == 255)).float().mean() > 0.85  # but for the coarse pixels on the edge
        clear = ~silent & (mask != 255) & (teacher.amax(0) > 0.99)
        assert torch.equal(teacher.argmax(0)[clear], mask[clear])
        bright = batch["image"][1, ::16, ::16][clear] > 0
        assert (bright == (mask[clear] == 8)).float().mean() > 0.9  # but for blends on the border
        compared += int(clear.sum())
    assert compared > 2000


def test_the_teacher_speaks_on_the_grid_of_the_shipped_size():
    torch.manual_seed(0)
    said = everyday.opinions(DeepLabV3MobileNetV2(width_mult=0.1), [halves(), halves()])
    assert list(said) == ["halves"]
    assert said["halves"].shape == (21, 25, 33)
    torch.testing.assert_close(said["halves"].float().sum(0), torch.ones(25, 33), atol=5e-3, rtol=0)


def test_nuclei_augmentation_keeps_size_range_and_classes():
    draw = np.random.default_rng(0)
    mask = (draw.random((256, 256)) > 0.5).astype(np.uint8)
    sample = Sample((mask[..., None] * [90, 90, 90]).astype(np.uint8), mask, "noise")
    torch.manual_seed(0)
    for _ in range(10):
        item = joint(nuclei.augmentation(1.0))(sample)
        assert item["image"].shape == (3, 224, 224)
        assert item["image"].abs().max() <= 1
        assert set(item["mask"].unique().tolist()) <= {0, 1, 255}
        assert {0, 1} <= set(item["mask"].unique().tolist())


def test_multiply_adds_are_those_of_the_papers():
    """MobileNetV2, table 7: 2.75 billion at 513x513. U-Net of width 64 at 512x512: 192.686 billion."""
    assert embed.count_multiply_adds(DeepLabV3MobileNetV2(), (513, 513)) == pytest.approx(2.75e9, rel=0.01)
    # Every layer but the first and the last grows with the square of the width.
    narrow = embed.count_multiply_adds(UNet(width=16), (64, 64))
    ends = 64 * 64 * 16 * (3 * 9 + 2)
    assert ((narrow - ends) * 16 + ends * 4) * 64 == pytest.approx(192.686e9, rel=1e-3)


def test_an_embedded_file_carries_its_scores_and_no_trace_of_the_machine(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "small.onnx"
    card = everyday.CARD.replace(name="small", stride=1, align_corners=False, architecture="unet")
    seen = []

    def measure(segmenter):
        seen.append(segmenter(halves().image).labels)
        return (Score("mIoU", 0.5, "two halves", "none", "measured here"),)

    written = embed.embed(UNet(3, 21, width=4), card, path, measure)
    segmenter = Segmenter(path)
    assert segmenter.card == written
    assert segmenter.card.scores[0].value == 0.5
    assert segmenter.card.labels == VOC
    assert segmenter.card.parameters == sum(p.numel() for p in UNet(3, 21, width=4).parameters())
    np.testing.assert_array_equal(segmenter(halves().image).labels, seen[0])
    assert b"site-packages" not in path.read_bytes()
    assert b"unet.py" not in path.read_bytes()
