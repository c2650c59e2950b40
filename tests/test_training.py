"""The loop on tiny networks, and the data sets on folders drawn here."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pixelwise.datasets.folder import FolderDataset, split_by_name
from pixelwise.datasets.sample import Sample
from pixelwise.datasets.voc import VOCSegmentation
from pixelwise.errors import InputError
from pixelwise.losses import cross_entropy
from pixelwise.models.unet import UNet
from pixelwise.training.augment import IMAGE_AND_MASK_FILL, joint
from pixelwise.training.loop import TrainConfig, fit, learning_rate

CONFIG = TrainConfig(steps=40, batch_size=2, peak_lr=1e-2, warmup_steps=4, save_every=15, workers=0, seed=3)


def squares(count=3, side=32):
    """Bright squares on dark ground; class 1 is the square."""
    draw = np.random.default_rng(5)
    samples = []
    for i in range(count):
        mask = np.zeros((side, side), np.uint8)
        top, left = draw.integers(2, side - 14, 2)
        mask[top : top + 12, left : left + 12] = 1
        image = (draw.integers(0, 60, (side, side, 3)) + 150 * mask[..., None]).astype(np.uint8)
        samples.append(Sample(image, mask, f"square{i}"))
    return samples


def loss_of(network, batch):
    return cross_entropy(network(batch["image"])["out"], batch["mask"])


def run(out, config=CONFIG, samples=None, **changes):
    torch.manual_seed(0)
    network = UNet(width=4)
    augment = joint(v2.RandomHorizontalFlip())
    return fit(network, samples or squares(), augment, loss_of, dataclasses.replace(config, **changes), out)


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_a_tiny_run_learns_its_pictures(tmp_path):
    network = run(tmp_path, steps=120)
    item = joint(v2.Identity())(squares()[0])
    assert not network.training
    assert (network(item["image"][None])["out"].argmax(1)[0] == item["mask"]).float().mean() > 0.98


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on, of any DataLoader
def test_the_same_seed_gives_the_same_numbers_whatever_the_workers(tmp_path):
    first, again = run(tmp_path / "a", steps=6), run(tmp_path / "b", steps=6)
    assert torch.equal(weights(first), weights(again))
    assert torch.equal(weights(first), weights(run(tmp_path / "c", steps=6, workers=1)))
    assert not torch.equal(weights(first), weights(run(tmp_path / "d", steps=6, seed=4)))


def test_a_run_that_is_interrupted_goes_on_as_if_it_were_not(tmp_path):
    whole = run(tmp_path / "whole", ema_decay=0.9)

    class Stop(Exception):
        pass

    def stops(network, batch):
        calls.append(1)
        if len(calls) > 33:
            raise Stop
        return loss_of(network, batch)

    calls = []
    config = dataclasses.replace(CONFIG, ema_decay=0.9)
    torch.manual_seed(0)
    network = UNet(width=4)
    with pytest.raises(Stop):
        fit(network, squares(), joint(v2.RandomHorizontalFlip()), stops, config, tmp_path / "cut")
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["best.pt", "checkpoint.pt"]
    assert torch.equal(weights(run(tmp_path / "cut", ema_decay=0.9)), weights(whole))
    with pytest.raises(InputError, match="another configuration"):
        run(tmp_path / "cut", seed=9)


def test_the_best_by_validation_is_kept(tmp_path):
    scores = iter([0.2, 0.9, 0.5])
    seen = []

    def validate(network):
        assert not network.training
        seen.append(weights(network))
        return next(scores)

    torch.manual_seed(0)
    network = UNet(width=4)
    fit(network, squares(), joint(v2.Identity()), loss_of, CONFIG, tmp_path, validate)
    assert len(seen) == 3
    assert torch.equal(weights(network), seen[1])


def test_frozen_batch_norm_keeps_its_statistics_and_still_learns(tmp_path):
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in UNet(width=4).state_dict().items()}
    after = run(tmp_path, steps=5, frozen_batch_norm=True).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)
    assert not torch.equal(before["inc.double_conv.1.weight"], after["inc.double_conv.1.weight"])


def test_the_learning_rate_warms_up_and_falls_to_almost_nothing():
    config = TrainConfig(steps=100, warmup_steps=10, peak_lr=1.0, poly_power=0.9)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[10] == max(rates) == 1
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5**0.9)
    assert 0 < rates[-1] < 0.02


def test_image_and_mask_move_together_and_only_the_image_is_scaled():
    sample = squares(1)[0]
    torch.manual_seed(1)
    transform = v2.Compose([v2.RandomRotation((90, 90)), v2.Pad(4, fill=IMAGE_AND_MASK_FILL)])
    item = joint(transform)(sample)
    assert item["image"].dtype == torch.float32
    assert item["mask"].dtype == torch.int64
    assert (item["mask"][0] == 255).all()
    inside = item["mask"][4:-4, 4:-4]
    assert torch.equal(inside, torch.tensor(np.rot90(sample.mask).copy()).long())
    expected = torch.tensor(np.rot90(sample.image).copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(item["image"][:, 4:-4, 4:-4], expected)


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for sample in squares():
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{sample.name}.png")
        Image.fromarray(sample.mask.astype(np.uint16) * 1000).save(tmp_path / "masks" / f"{sample.name}.png")
    return tmp_path


def test_a_folder_data_set_reads_pairs_of_pictures_and_label_maps(folder):
    data = FolderDataset(
        folder / "images", folder / "masks", to_classes=lambda ids: (ids > 0).astype(np.uint8)
    )
    assert [sample.name for sample in data] == ["square0", "square1", "square2"]
    for read, drawn in zip(data, squares(), strict=True):
        assert (read.image == drawn.image).all()
        assert (read.mask == drawn.mask).all()
    assert FolderDataset(folder / "images", folder / "masks")[0].mask.max() == 1000
    assert len(FolderDataset(folder / "images", folder / "masks", names=["square2"])) == 1


def test_a_picture_without_its_label_map_is_named(folder):
    (folder / "masks" / "square1.png").unlink()
    with pytest.raises(InputError, match="square1"):
        FolderDataset(folder / "images", folder / "masks")
    Image.new("L", (5, 5)).save(folder / "masks" / "square1.png")
    with pytest.raises(InputError, match=r"square1.*\(32, 32\).*\(5, 5\)"):
        FolderDataset(folder / "images", folder / "masks")[1]
    with pytest.raises(InputError, match="nowhere"):
        FolderDataset(folder / "nowhere", folder / "masks")


def test_a_voc_folder_follows_its_lists(folder):
    (folder / "images").rename(folder / "JPEGImages")
    (folder / "masks").rename(folder / "SegmentationClass")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("square2\nsquare0\n")
    assert [sample.name for sample in VOCSegmentation(folder, "val")] == ["square2", "square0"]
    with pytest.raises(InputError, match=r"no split 'train'.*holds val"):
        VOCSegmentation(folder, "train")


def test_the_split_of_a_name_depends_on_that_name_alone():
    names = [f"tile{i}" for i in range(1000)]
    training, held_out = split_by_name(names, 0.2)
    assert sorted(training + held_out) == sorted(names)
    assert 160 < len(held_out) < 240
    assert split_by_name(names[500:], 0.2)[1] == [name for name in held_out if name in names[500:]]
    assert set(held_out) <= set(split_by_name(names, 0.3)[1])
