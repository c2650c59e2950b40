"""The recipes' own steps, on pictures drawn here."""

import numpy as np
import pytest
import torch

from pixelwise.datasets.sample import Sample
from pixelwise.encoders.mobilenet_v2 import MobileNetV2Encoder
from pixelwise.export import embed
from pixelwise.labels import VOC
from pixelwise.models.deeplabv3_mobilenet_v2 import DeepLabV3MobileNetV2
from pixelwise.models.unet import UNet
from pixelwise.recipes import camvid, coco128, everyday, from_voc, isbi, nuclei
from pixelwise.recipes.renormalise import renormalise
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

    def measure(file):
        seen.append(Segmenter(file)(halves().image).labels)
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


def test_renormalising_keeps_the_function_and_makes_the_mode_of_training_agree_with_it():
    torch.manual_seed(0)
    network = DeepLabV3MobileNetV2(width_mult=0.25).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that are none, and filters of many sizes
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
        elif isinstance(module, torch.nn.Conv2d) and module.bias is None:
            module.weight.data *= torch.empty(len(module.weight), 1, 1, 1).uniform_(0.5, 2)
    images = torch.randn(4, 3, 65, 97, dtype=torch.float64)
    other = torch.randn(2, 3, 49, 49, dtype=torch.float64)
    with torch.no_grad():
        before, elsewhere = network(images)["out"], network(other)["out"]
        renormalise(network, images)
        torch.testing.assert_close(
            network(images)["out"], before, rtol=0, atol=1e-9 * float(before.abs().max())
        )
        torch.testing.assert_close(
            network(other)["out"], elsewhere, rtol=0, atol=1e-9 * float(elsewhere.abs().max())
        )
        features = network.backbone(images)[-1]
        in_training = network.backbone.train()(images)[-1]
    torch.testing.assert_close(in_training, features, rtol=0, atol=1e-2 * float(features.abs().max()))
    sizes = network.backbone.features[5].conv[0][0].weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(sizes, torch.full_like(sizes, 2**0.5))


@pytest.mark.slow
def test_camvid_starts_from_the_released_encoder(data):
    """The features of whole multiples of 32, where timm's padding changes nothing."""
    learned, test = camvid.samples(data)
    assert (len(learned), len(test)) == (367 + 101, 233)
    assert not set(learned.names) & set(test.names)
    network = camvid.network(data, learned).eval()
    released = DeepLabV3MobileNetV2()
    released.load_state_dict(torch.load(data / from_voc.START, weights_only=True))
    strided = MobileNetV2Encoder()
    strided.load_state_dict(released.backbone.state_dict())
    image = torch.from_numpy(from_voc.preprocess(camvid.CONFIG)(learned[0].image))[..., :320]
    with torch.no_grad():
        for ours, theirs in zip(network.encoder(image), strided.eval()(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


def test_coco128_is_divided_by_names_and_says_all_classes(data):
    learned, held_out = coco128.samples(data)
    assert (len(learned), len(held_out)) == (101, 27)
    assert not set(learned.names) & set(held_out.names)
    assert learned.classes.num_classes == 81
    assert [learned.classes.names[i] for i in (0, 1, 17, 80)] == ["background", "person", "dog", "toothbrush"]
    shown = [set(np.unique(np.concatenate([s.mask.ravel() for s in part]))) for part in (learned, held_out)]
    assert len(shown[0]) < 81  # classes that nobody can learn here
    assert shown[1] - shown[0]  # and classes that are asked for and were never shown


def test_membrane_errors_of_a_segmenter_are_those_of_its_probabilities():
    """A drawn grid of cells with a gap in one wall, seen by a segmenter that knows it."""
    mask = np.ones((33, 33), np.uint8)
    mask[::8], mask[:, ::8] = 0, 0
    seen = mask.copy()
    seen[8, 3:6] = 1  # joins two cells

    class Answer:
        labels, confidence = seen, np.full(seen.shape, 0.9)

    image = np.zeros((33, 33, 3), np.uint8)
    found = isbi.errors(lambda *_, **__: Answer(), [Sample(image, mask, "grid")])
    assert found["pixel"]["error"] == pytest.approx(3 / 33**2)
    assert found["rand"]["error"] == pytest.approx(isbi_rand(mask == 1, seen == 1))
    assert found["warping"]["error"] > 0


def isbi_rand(truth, answer):
    """1 - F over pairs of pixels of a true cell, by counting pairs one by one."""
    from skimage.measure import label

    a, b = label(truth, connectivity=1), label(answer, connectivity=1)
    inside = truth.ravel()
    a, b = a.ravel()[inside], b.ravel()[inside]
    ours, theirs = (a[:, None] == a), (b[:, None] == b) & (b > 0)
    np.fill_diagonal(ours, False)
    np.fill_diagonal(theirs, False)
    both = (ours & theirs).sum()
    precision, recall = both / theirs.sum(), both / ours.sum()
    return 1 - 2 * precision * recall / (precision + recall)
