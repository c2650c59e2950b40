"""Classes that overlap, from a folder of a label map a class to a model whose regions do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from pixelwise.cli.app import app
from pixelwise.codes import has
from pixelwise.datasets.manifest import Manifest
from pixelwise.datasets.opening import open_samples
from pixelwise.datasets.sample import Coded, Sample
from pixelwise.errors import InputError
from pixelwise.labels import LabelSet
from pixelwise.losses import binary_cross_entropy, dice
from pixelwise.metrics import RegionScores
from pixelwise.segmenter import Segmenter
from pixelwise.training.config import TrainConfig
from pixelwise.training.objective import make_loss
from pixelwise.training.progress import read_metrics
from pixelwise.transforms.augment import Augment
from pixelwise.weights.card import Card

CLASSES = LabelSet.of(["ground", "disc", "light disc"])
WANTED = {
    "steps": 60, "batch_size": 4, "model": "unet", "model_options": {"width": 8}, "image_size": 0, "workers": 0,
    "augment": {"crop_hw": [32, 32], "scale": [1.0, 1.0], "largest_share": 1.0, "colour": 0.0}, "peak_lr": 1e-2,
}  # fmt: skip


def pixelwise(*arguments):
    return CliRunner().invoke(app, [str(word) for word in arguments])


def draw_overlapping(root, count, side=32):
    """A red disc and a blue one that overlap: where both are, the picture is red and blue."""
    draw = np.random.default_rng(1)
    rows, columns = np.mgrid[:side, :side]
    for folder in ("images", "masks/disc", "masks/light disc"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        y, x, radius = draw.integers(13, 19), draw.integers(10, 14), draw.integers(7, 9)
        one = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        two = (rows - y - draw.integers(-3, 4)) ** 2 + (columns - x - radius) ** 2 < (radius - 1) ** 2
        image = draw.integers(20, 60, (side, side, 3)) + 150 * np.stack([one, 0 * one, two], axis=2)
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"p{i:02}.png")
        for name, mask in (("disc", one), ("light disc", two)):
            Image.fromarray((255 * mask).astype(np.uint8)).save(root / "masks" / name / f"p{i:02}.png")
    (root / "pixelwise.json").write_text(Manifest.of(CLASSES, regions=True).to_json())
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_overlapping(tmp_path_factory.mktemp("regions") / "data", 10)


@pytest.fixture(scope="module")
def config(data):
    path = data.parent / "wanted.json"
    path.write_text(json.dumps({**WANTED, "data": str(data)}))
    return path


@pytest.fixture(scope="module")
def run(data, config):
    result = pixelwise("train", "--config", config, "--out", data.parent / "run")
    assert result.exit_code == 0, result.exception
    assert "mean Dice" in result.stdout
    return data.parent / "run"


def test_a_short_run_learns_two_discs_that_overlap(run, data):
    card = Card.from_dict(json.loads((run / "card.json").read_text()))
    assert (card.outputs, card.channels, card.labels) == ("regions", 2, CLASSES)
    assert [score.metric for score in card.scores] == ["mean Dice", "Dice of disc", "Dice of light disc"]
    assert min(score.value for score in card.scores) > 0.85
    assert "kept as it was at the best mean Dice" in card.notes[-1]
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "score" in line]
    assert set(lines[-1]["scores"]) == {"mean Dice", "Dice of disc", "Dice of light disc"}
    assert lines[-1]["score"] == pytest.approx(card.scores[0].value)

    answer = Segmenter(run)(data / "images" / "p03.png")
    one, two = (np.asarray(Image.open(data / "masks" / name / "p03.png")) > 0 for name in CLASSES.names[1:])
    assert (one & two).sum() > 30
    assert (answer.mask("disc") & answer.mask("light disc") & one & two).sum() > 0.3 * (one & two).sum()


def test_evaluate_scores_each_region_whatever_lies_over_it(run, data, tmp_path):
    result = pixelwise("evaluate", "--data", data, "--split", "val", "--model", run, "--json")
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    scores = {
        score.metric: score.value
        for score in Card.from_dict(json.loads((run / "card.json").read_text())).scores
    }
    for name in CLASSES.names[1:]:
        assert found["regions"][name]["dice"] == pytest.approx(scores[f"Dice of {name}"])
    assert found["mean_dice_of_regions"] == pytest.approx(scores["mean Dice"])
    samples = open_samples(data, split="val", border=Segmenter(run).card.border)
    true = sum(int(has(sample.codes, 0).sum()) for sample in samples)
    assert found["regions"]["disc"]["true_pixels"] == true
    assert found["classes"]["disc"]["true_pixels"] < true  # in the label map the light disc lies over it
    text = pixelwise(
        "evaluate", "--data", data, "--split", "val", "--model", run, "--out", tmp_path / "report"
    )
    assert f"mean Dice of the regions {found['mean_dice_of_regions']:.4f}" in text.stdout
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"<b>{found['mean_dice_of_regions']:.3f}</b>mean Dice of the regions" in page
    assert "They overlap, and each counts whole" in page


def test_segment_writes_each_region_whole(run, data, tmp_path):
    result = pixelwise(
        "segment", data / "images" / "p03.png", "--model", run, "--format", "json", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.exception
    (file,) = (tmp_path / "out").glob("*.json")
    said = json.loads(file.read_text())
    assert {"disc", "light disc"} <= {name for name in CLASSES.names if name in json.dumps(said)}


@pytest.mark.slow
def test_a_run_of_regions_goes_on_bit_for_bit(data, tmp_path):
    path = tmp_path / "constant.json"
    path.write_text(json.dumps({**WANTED, "data": str(data), "schedule": "constant"}))
    for out, steps, more in (("cut", 2, ()), ("cut", 4, ("--resume",)), ("once", 4, ())):
        begun = () if more else ("--config", path)
        result = pixelwise("train", *begun, "--out", tmp_path / out, "--steps", steps, *more)
        assert result.exit_code == 0, result.exception
    cut, once = (torch.load(tmp_path / out / "checkpoint.pt", weights_only=True) for out in ("cut", "once"))
    assert all(torch.equal(cut["network"][name], once["network"][name]) for name in once["network"])


@pytest.mark.slow
def test_the_export_of_a_model_of_regions_gives_the_same_codes(run, data, tmp_path):
    result = pixelwise("export", run, "--out", tmp_path / "model.onnx")
    assert result.exit_code == 0, result.exception
    picture = data / "images" / "p03.png"
    ours, theirs = (Segmenter(model)(picture).codes for model in (run, tmp_path / "model.onnx"))
    assert (ours == theirs).mean() > 0.999


@pytest.mark.slow
def test_a_run_of_overlapping_classes_is_planned_from_their_pictures(data, monkeypatch):
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    result = pixelwise("train", "--data", data, "--dry-run", "--json")
    assert result.exit_code == 0, result.exception
    reasons = json.loads(result.stdout)["reasons"]
    assert "shorter sides are 32 px" in reasons["image_size"]


def test_the_loss_is_that_of_every_region_against_all_that_is_not_it():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 6, generator=draw)
    codes = torch.randint(0, 8, (2, 5, 6), generator=draw)
    codes[0, 0] = 255
    target = torch.stack([(codes >> bit) & 1 for bit in range(3)], dim=1)
    target[0, :, 0] = 255
    network = lambda image: {"out": logits}  # noqa: E731
    config = TrainConfig(steps=1, losses={"cross_entropy": 1.0, "dice": 0.5})
    found = make_loss(config, 255, regions=3)(network, {"image": torch.zeros(2, 3, 5, 6), "mask": codes})
    assert found["cross_entropy"] == binary_cross_entropy(logits, target, mode="multilabel")
    assert found["dice"] == 0.5 * dice(logits, target, mode="multilabel")
    with pytest.raises(
        InputError, match=r"lovasz_softmax is for classes that exclude each other, .* take some of cross"
    ):
        make_loss(config.replace(losses={"lovasz_softmax": 1.0}), 255, regions=3)


@pytest.mark.parametrize("regions", [3, 8, 15])
def test_augmentation_cuts_mirrors_and_bends_every_region_as_it_does_a_label_map(regions):
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 2**regions, (40, 50)).astype(np.uint16)
    image = draw.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    coded = Coded([Sample(image, np.zeros((40, 50), np.uint8), "p", codes)], regions)[0]
    unknown = np.iinfo(coded.mask.dtype).max
    assert (coded.mask == codes).all()
    assert unknown == (255 if regions < 8 else 65535)

    def augmented(mask, ignored):
        torch.manual_seed(3)
        augment = Augment(
            (64, 32), (0.5, 2.0), largest_share=1.0, elastic_px=3.0, turn=20.0, ignore_index=ignored
        )
        return augment(Sample(image, mask, "p"))["mask"].numpy()

    found = augmented(coded.mask, unknown)
    for region in range(regions):
        alone = augmented(has(codes, region).astype(np.uint8), 255)
        assert ((found == unknown) == (alone == 255)).all()
        known = found != unknown
        assert (((found >> region) & 1)[known] == alone[known]).all()
    assert (found == unknown).any()


def test_scores_of_regions_are_counted_over_all_pictures_and_by_each():
    scores = RegionScores(["a", "b", "c"])
    scores.update(np.array([[3, 1, 0, 0]], np.uint8), np.array([[1, 3, 1, 0]], np.uint8), "one")
    scores.update(np.array([[0, 2]], np.uint8), np.array([[1, 2]], np.uint8), "two")
    assert scores.dice()["a"] == pytest.approx(2 * 2 / (2 + 4))
    assert scores.dice()["b"] == pytest.approx(2 * 1 / (2 + 2))
    assert np.isnan(scores.dice()["c"])
    assert scores.mean_dice() == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.to_dict()["c"]["dice"] is None
    assert scores.lines()[-1] == "mean Dice of the regions 0.5833"
    other = RegionScores(["a", "b", "c"])
    other.update(np.array([[2, 1]], np.uint8), np.array([[1, 2]], np.uint8), "three", places=[1, 0, 2])
    assert other.dice()["a"] == other.dice()["b"] == 1
    assert other.merge(scores).pictures == 3
