"""What small changes of the code would turn round without a word, each against what it must give by hand.

Every test here was written for a change that no other test saw, see `make mutants`.
"""

from __future__ import annotations

import inspect
import os
import pickletools
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import v2
from typer.testing import CliRunner

from crashing import squares
from pixelwise import LabelSet, Segmenter, SegmentOptions
from pixelwise.cli import app
from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError, PixelwiseError, WeightsError
from pixelwise.inference.decide import decide
from pixelwise.inference.measure import ratio
from pixelwise.inference.plan import BYTES_A_PIXEL, plan, seams, stitching_bytes
from pixelwise.inference.preprocess import Preprocess, normalize
from pixelwise.inference.tiling import Tiling, stitch
from pixelwise.inference.tta import _scaled, augmented
from pixelwise.losses import cross_entropy, generalised_dice, soft_cldice
from pixelwise.losses.distance import unet_cross_entropy, unet_weights
from pixelwise.losses.inputs import ends
from pixelwise.metrics import BoundaryF
from pixelwise.metrics.membranes import rand_error
from pixelwise.models import FCN_ResNet50_Weights, fcn_resnet50
from pixelwise.models.unet import UNet
from pixelwise.outputs.coco import to_coco
from pixelwise.outputs.formats import FORMATS
from pixelwise.outputs.polygons import simplify
from pixelwise.pipeline.options import ReadOptions
from pixelwise.pipeline.raster import segment_raster
from pixelwise.training.config import TrainConfig
from pixelwise.training.draws import Draws
from pixelwise.training.experiment import data_of, make_network
from pixelwise.training.loop import accelerate_with, fit
from pixelwise.training.optimize import learning_rate, make_optimizer
from pixelwise.training.plan import usual_workers
from pixelwise.training.probes import estimate, find_lr, overfit_batch
from pixelwise.transforms.augment import Augment, Span
from pixelwise.transforms.torchvision import joint
from pixelwise.weights.card import Card
from pixelwise.weights.store import load_state_dict, unwrap
from tiny import CARD, quadrant_labels, quadrants, write_colors_model

SHIFTED = Preprocess(mean=(0.6, 0.1, -0.2), std=(0.5, 2.0, 1.0))
"""So far from nothing that the labels of most pictures are others without it, or without its sign."""


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def coarse(values: np.ndarray, preprocess: Preprocess) -> torch.Tensor:
    """What the tiny model answers, (1, 4, h/2, w/2): means of 2x2 of the normalised colours, and 0.4 for dark."""
    colors = torch.from_numpy((values - np.array(preprocess.mean)) / np.array(preprocess.std))
    means = F.avg_pool2d(colors.permute(2, 0, 1)[None], 2) * 4 * 0.25
    return torch.cat([torch.full_like(means[:, :1], 0.4), means], dim=1)


# Inference


@pytest.mark.parametrize(
    "options", [{}, {"tile": 64}, {"scales": (1.0, 0.5)}], ids=["whole", "tile", "scales"]
)
@pytest.mark.parametrize("aligned", [False, True])
def test_a_segmenter_enlarges_logits_as_the_card_says(aligned, options, tmp_path):
    segmenter = Segmenter(write_colors_model(tmp_path / "m.onnx", CARD.replace(align_corners=aligned)))
    picture = noise(64, 64)
    answer = segmenter(picture, logits=True, probabilities=True, confidence=True, **options)
    if "scales" in options:
        small = np.stack(
            [np.asarray(Image.fromarray(channel).resize((32, 32), Image.Resampling.BILINEAR))
             for channel in (picture / 255).astype(np.float32).transpose(2, 0, 1)], axis=-1,
        )  # fmt: skip
        finest = coarse(picture / 255, CARD.preprocess)
        less = F.interpolate(
            coarse(small, CARD.preprocess), size=finest.shape[2:], mode="bilinear", align_corners=aligned
        )
        logits = (finest + less) / 2
    else:
        logits = coarse(picture / 255, CARD.preprocess)
    logits = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=aligned)[0]
    np.testing.assert_allclose(answer.logits, logits, atol=1e-5)
    np.testing.assert_allclose(answer.probabilities, logits.softmax(0), atol=1e-5)
    best, label = logits.softmax(0).max(0)
    np.testing.assert_allclose(answer.confidence, best, atol=1e-5)
    two = logits.topk(2, dim=0).values
    clear = (two[0] - two[1] > 1e-4).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(answer.labels[clear], label.numpy()[clear])


def test_a_turn_by_90_degrees_is_not_one_by_270():
    kernel = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def lopsided(images: np.ndarray) -> np.ndarray:
        return F.conv2d(torch.from_numpy(images), kernel, padding=1).numpy()

    images = np.random.default_rng(0).normal(size=(1, 3, 6, 8)).astype(np.float32)
    for degrees in (90, 180, 270):  # anticlockwise, as NumPy turns
        quarters = degrees // 90
        view = np.rot90(lopsided(np.rot90(images, quarters, (2, 3)).copy()), -quarters, (2, 3))
        by_hand = (lopsided(images) + view) / 2
        np.testing.assert_allclose(augmented(lopsided, rotations=(degrees,))(images), by_hand, atol=1e-6)


def test_black_and_white_become_the_numbers_of_imagenets_mean_and_std():
    """Torchvision's published constants, typed here once more."""
    picture = np.zeros((1, 2, 3), np.uint8)
    picture[0, 1] = 255
    expected = [
        [-0.485 / 0.229, 0.515 / 0.229],
        [-0.456 / 0.224, 0.544 / 0.224],
        [-0.406 / 0.225, 0.594 / 0.225],
    ]
    np.testing.assert_allclose(Preprocess()(picture)[0, :, 0], expected, rtol=1e-6)


def test_floats_are_normalised_by_mean_and_std_as_bytes_are():
    picture = noise(5, 7)
    expected = (picture / 255 - np.array(SHIFTED.mean)) / np.array(SHIFTED.std)
    for values in (picture, (picture / 255).astype(np.float32)):
        answer = normalize(values, SHIFTED.mean, SHIFTED.std)
        np.testing.assert_allclose(answer[0], expected.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("floats", [False, True])
def test_a_raster_is_normalised_by_the_cards_mean_and_std(floats, tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    segmenter = Segmenter(write_colors_model(tmp_path / "m.onnx", CARD.replace(preprocess=SHIFTED)))
    picture = np.repeat(np.repeat(noise(16, 24), 4, axis=0), 4, axis=1)
    values = (picture / 255).astype(np.float32) if floats else picture
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 4e6)}
    file = {"driver": "GTiff", "height": 64, "width": 96, "count": 3, "dtype": values.dtype.name, **place}
    with rasterio.open(tmp_path / "a.tif", "w", **file) as raster:
        raster.write(values.transpose(2, 0, 1))
    reading = ReadOptions(scale=(0, 1)) if floats else ReadOptions()
    segment_raster(segmenter, tmp_path / "a.tif", {"geotiff": tmp_path / "out.tif"}, reading=reading)
    with rasterio.open(tmp_path / "out.tif") as raster:
        labels = raster.read(1)
    logits = F.interpolate(coarse(picture / 255, SHIFTED), size=(64, 96), mode="bilinear")[0]
    two = logits.topk(2, dim=0).values
    clear = (two[0] - two[1] > 1e-4).numpy()
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], logits.argmax(0).numpy()[clear])


def test_the_memory_of_a_plan_is_the_networks_and_that_of_stitching(monkeypatch):
    """Stitching holds 4 bytes for each class and the weight at each pixel of the overlaps and of a tile; the rows of a
    tile and of the next, one byte a channel, and a label and its confidence, 5 bytes, for each of their pixels."""
    monkeypatch.setattr("pixelwise.inference.plan._try", lambda *_: (False, 7_000_000, 0.5, 4))
    made = plan((100, 200), lambda images: images, tiling=Tiling(overlap=8), channels=3, sides=(32,))
    grid = made.tiling.grid((100, 200))
    down, across = grid.overlap(0), grid.overlap(1)  # at least 8, as tiles are spread evenly
    assert 8 <= min(down, across) <= max(down, across) < 16
    sums = 4 * (4 + 1) * (down * 200 + across * 32 + 32 * 32)
    assert made.memory_bytes == 7_000_000 + sums + 200 * (2 * 3 * 32 + 5 * 32)
    assert (made.tiles, made.seconds) == (grid.count, 0.5 * grid.count)


@pytest.mark.parametrize("overlap", [(16, 2), (2, 16)])
def test_seams_are_compared_where_neighbours_share_more_in_one_direction_than_in_the_other(overlap):
    picture = noise(90, 90)
    found = seams(
        lambda top, bottom: picture[top:bottom], (90, 90), lambda images: images, tiling=Tiling(32, overlap)
    )
    grid = Tiling(32, overlap).grid((90, 90))
    assert len(found.by_depth) == -(-max(grid.overlap(0), grid.overlap(1)) // 2)
    assert (found.different, found.share) == (0, 0)  # which sees one pixel at a time
    assert found.pixels > 0


# Augmentation


@pytest.mark.parametrize("options", [{"turn": 1.0}, {"elastic_px": 1.0}], ids=["turn", "elastic"])
def test_small_turns_and_bends_are_made_too(options):
    mask = np.zeros((90, 120), np.uint8)
    mask[:, 60:] = 1
    sample = Sample(noise(90, 120), mask, "noise")
    still = {"scale": (1.0, 1.0), "flip": 0.0, "largest_share": 1.0, "colour": 0.0}
    plain = Augment((90, 120), **still)(sample)
    changed = []
    for seed in range(4):
        torch.manual_seed(seed)
        moved = Augment((90, 120), **still, **options)(sample)
        assert not torch.equal(moved["image"], plain["image"])
        changed.append(int((moved["mask"] != plain["mask"]).sum()))
    assert 0 < max(changed) < 0.05 * mask.size


# Training


def loss_of(network, batch):
    return cross_entropy(network(batch["image"])["out"], batch["mask"])


def trained(out: Path, config: TrainConfig, loss=loss_of, validate=None):
    torch.manual_seed(0)
    return fit(UNet(width=2), squares(), joint(v2.Identity()), loss, config, out, validate)


def test_what_is_returned_is_the_moving_average_of_weights_and_statistics(tmp_path):
    """After the first step the average is a copy; then it is d * average + (1 - d) * weights."""
    before = []

    def watched(network, batch):
        before.append({name: value.clone() for name, value in network.state_dict().items()})
        return loss_of(network, batch)

    config = TrainConfig(steps=4, batch_size=2, peak_lr=0.05, workers=0, seed=3, ema_decay=0.9)
    returned = trained(tmp_path, config, watched).state_dict()
    after = [*before[1:], torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]]
    statistics = 0
    for name, value in returned.items():
        if not value.is_floating_point():
            continue
        average = after[0][name]
        for one in after[1:]:
            average = 0.9 * average + (1 - 0.9) * one[name]
        torch.testing.assert_close(value, average, rtol=1e-4, atol=1e-6)
        statistics += "running" in name and not torch.allclose(value, after[-1][name], rtol=1e-3)
    assert statistics  # which a mere copy of the last ones would not show


def test_a_run_that_goes_on_remembers_its_best_score(tmp_path):
    class Stop(Exception):
        pass

    seen = []

    def scored(score):
        def validate(network):
            seen.append({name: value.clone() for name, value in network.state_dict().items()})
            return score

        return validate

    def stops(network, batch):
        if seen:
            raise Stop
        return loss_of(network, batch)

    config = TrainConfig(
        steps=4, batch_size=2, peak_lr=0.05, workers=0, seed=3, validate_every=2, save_minutes=0
    )
    with pytest.raises(Stop):
        trained(tmp_path, config, stops, scored(0.9))
    returned = trained(tmp_path, config, loss_of, scored(0.5)).state_dict()
    assert len(seen) == 2
    assert all(torch.equal(returned[name], value) for name, value in seen[0].items())
    assert not all(torch.equal(returned[name], value) for name, value in seen[1].items())


def test_a_killed_worker_is_explained_and_what_is_not_known_is_left_as_it_is(tmp_path):
    said = "DataLoader worker (pid 7) exited unexpectedly with exit code 1"
    for number, (sentence, kind, match) in enumerate(
        (
            (said, PixelwiseError, "fewer --workers"),
            ("index out of range", RuntimeError, "^index out of range$"),
        )
    ):

        def breaks(network, batch, sentence=sentence):
            raise RuntimeError(sentence)

        with pytest.raises(kind, match=match):
            trained(tmp_path / str(number), TrainConfig(steps=1, batch_size=2, workers=0), breaks)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
def test_no_code_in_a_checkpoint_of_training_is_run(name, tmp_path):
    config = TrainConfig(steps=1, batch_size=2, workers=0)
    trained(tmp_path, config)
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(InputError, match=name):
        trained(tmp_path, config)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / name, weights_only=False)  # and it would have
    assert (tmp_path / "ran").exists()


def test_the_warm_up_rises_in_equal_steps_to_the_peak_and_not_from_nothing():
    config = TrainConfig(steps=10, warmup_steps=4, peak_lr=1.0, schedule="constant")
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 6)
    ratio = config.replace(warmup_ratio=0.1)
    rates = [learning_rate(step, 10, ratio) for step in range(10)]
    assert rates == pytest.approx([0.1, 0.325, 0.55, 0.775] + [1.0] * 6)
    cosine = TrainConfig(steps=8, warmup_steps=0, peak_lr=2.0, schedule="cosine")
    assert [learning_rate(step, 8, cosine) for step in (0, 2, 4, 6)] == pytest.approx(
        [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5]
    )


def test_the_optimiser_is_the_one_that_was_asked_for():
    """By gradients of 1 both move by the learning rate, and again at the second step, where SGD's momentum adds."""
    for name, kind, second in (("sgd", torch.optim.SGD, 1.5), ("adamw", torch.optim.AdamW, 1.0)):
        network = torch.nn.Conv2d(1, 1, 1, bias=False)
        network.weight.data.fill_(1)
        config = TrainConfig(steps=2, optimizer=name, peak_lr=0.1, momentum=0.5, weight_decay=0.0)
        optimizer = make_optimizer(network, config)
        assert type(optimizer) is kind
        moved = []
        for _ in range(2):
            before = float(network.weight.detach())
            network.weight.grad = torch.ones_like(network.weight)
            optimizer.step()
            moved.append(before - float(network.weight.detach()))
        assert moved == pytest.approx([0.1, 0.1 * second], rel=1e-4)


def test_a_step_takes_batch_times_accumulate_times_processes():
    config = TrainConfig(epochs=1, batch_size=4, accumulate=3)
    assert (config.samples_a_step(), config.samples_a_step(2)) == (12, 24)
    assert (config.total_steps(120), config.total_steps(120, 2)) == (10, 5)


@pytest.mark.parametrize(("cpus", "workers"), [(None, 1), (1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_pictures_are_loaded_by_all_cpus_but_one_and_by_four_at_most(cpus, workers, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert usual_workers() == workers


# Metrics


def test_the_tolerance_of_boundary_f_is_three_quarters_of_a_percent_of_the_diagonal():
    """Of 300 x 400 the diagonal is 500, so 3.75 pixels: a line moved by 3 counts as right, by 4 as wrong."""
    truth = np.zeros((300, 400), np.uint8)
    truth[:, 200] = 1
    for moved, right in ((3, 1.0), (4, 0.0)):
        answer = np.zeros_like(truth)
        answer[:, 200 + moved] = 1
        assert BoundaryF(2).update(answer, truth).f()[1] == right


# Outputs


def test_a_report_shows_names_as_text_whatever_is_in_them(tmp_path):
    names = ["dark", "<b>red</b>", "green & 'blue'", 'x"><script>']
    model = write_colors_model(
        tmp_path / "m.onnx", CARD.replace(name="<i>card</i>", labels=LabelSet.of(names))
    )
    data = tmp_path / "<u>data"
    for kind, values in (("images", quadrants()), ("masks", quadrant_labels())):
        (data / kind).mkdir(parents=True)
        Image.fromarray(values).save(data / kind / "it's.png")
    (data / "classes.txt").write_text("\n".join(names) + "\n")
    command = ["evaluate", "--data", str(data), "--model", str(model), "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(app.app, [*command, "--mean-over", names[1]])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report" / "report.html").read_text()
    for wrong in ("<b>red", "<i>card", "<u>data", "><script>", "& 'blue'", "it's"):
        assert wrong not in text
    for right in (
        "&lt;b&gt;red&lt;/b&gt;",
        "green &amp; &#x27;blue&#x27;",
        "x&quot;&gt;&lt;script&gt;",
        "it&#x27;s",
    ):
        assert right in text


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_files_that_are_written_have_the_mode_that_the_umask_asks_for(colors_model, tmp_path):
    segmentation = Segmenter(colors_model)(quadrants())
    before = os.umask(0)
    try:
        for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
            os.umask(umask)
            segmentation.save(tmp_path / f"{umask}.png")
            assert (tmp_path / f"{umask}.png").stat().st_mode & 0o777 == mode
            assert os.umask(umask) == umask  # it is as it was
    finally:
        os.umask(before)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read from /proc")
def test_rows_of_a_raster_are_on_the_disk_before_it_says_so(colors_model, tmp_path, monkeypatch):
    """A power cut keeps what was synced. What says how far the work is must not come before the rows it counts."""
    rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 4e6)}
    file = {"driver": "GTiff", "height": 120, "width": 60, "count": 3, "dtype": "uint8", **place}
    with rasterio.open(tmp_path / "a.tif", "w", **file) as raster:
        raster.write(np.tile(quadrants(), (3, 1, 1)).transpose(2, 0, 1))
    synced: dict[str, int] = {}
    counted = []
    fsync, replace = os.fsync, os.replace

    def syncing(handle):
        fsync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_file():
            synced[path.name] = path.stat().st_size

    def replacing(source, target):
        if Path(target).name.startswith("pending"):
            folder = Path(target).parent
            counted.append(
                {
                    name: ((folder / name).stat().st_size, synced.get(name))
                    for name in ("labels", "confidence")
                }
            )
        replace(source, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    segmenter = Segmenter(colors_model)
    options = SegmentOptions(tile=32, min_confidence=0.01)
    segment_raster(segmenter, tmp_path / "a.tif", {"geotiff": tmp_path / "out.tif"}, options)
    assert len(counted) > 1
    for sizes in counted:
        assert all(size > 0 and size == on_disk for size, on_disk in sizes.values())


# What is said of files that hold code, and of tensors that are none


def test_code_that_a_pickle_names_from_its_memory_is_named(tmp_path):
    """The name of the module is written once, kept by number, and taken from there, by all codes that do so."""
    path = tmp_path / "model.pth"
    path.write_bytes(
        b"\x80\x04X\x02\x00\x00\x00osq\x05X\x01\x00\x00\x00xq\x060h\x05X\x06\x00\x00\x00system\x93."
    )
    assert [
        name for _, name, _ in pickletools.genops(path.read_bytes()) if name == "system"
    ]  # it is a pickle
    with pytest.raises(WeightsError, match=r"would run code \(os\.system\)"):
        load_state_dict(path)


@pytest.mark.filterwarnings("ignore:.*quantized tensor")  # files that hold them remain
def test_tensors_that_are_no_plain_numbers_are_no_weights():
    plain = torch.ones(2, 2)
    for odd in (plain.to_sparse(), torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8)):
        with pytest.raises(WeightsError, match="odd is no tensors"):
            unwrap({"plain": plain, "odd": odd}, "the file")


def test_the_memory_of_a_tile_is_counted_by_its_pixels_where_the_system_does_not_say_it(monkeypatch):
    monkeypatch.setattr("pixelwise.inference.plan.PeakMemory.now", staticmethod(lambda: None))
    small, large = (
        plan((64, 64), lambda images: images, tiling=Tiling(overlap=8), channels=3, sides=(side,))
        for side in (32, 64)
    )
    stitching = [stitching_bytes(made.tiling, (64, 64), 3, 3) for made in (small, large)]
    assert small.memory_bytes - stitching[0] == 32**2 * BYTES_A_PIXEL
    assert large.memory_bytes - stitching[1] == 64**2 * BYTES_A_PIXEL


# The questions before a training


class Told(torch.nn.Module):
    """A network of a single number, which no loss here depends on."""

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))


def told(*losses):
    """A loss that is these numbers, one after the other."""
    left = iter(losses)
    return lambda network, _: next(left) + 0 * network.number


def asked_for_a_rate(*losses):
    config = TrainConfig(steps=1, batch_size=1, workers=0)
    augment = Augment((8, 8))
    return find_lr(Told(), squares(), augment, told(*losses), config, lowest=1e-4, highest=1.0, steps=9)


def test_the_rate_is_that_of_the_steepest_fall_of_the_smoothed_loss_before_it_explodes():
    losses = (4.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 90.0, 1.0)
    smooth, mean = [], 0.0
    for step, loss in enumerate(losses):
        mean = 0.9 * mean + 0.1 * loss
        smooth.append(mean / (1 - 0.9 ** (step + 1)))
    assert 3 * min(smooth) < smooth[7] < 4 * smooth[6] + 90  # where it has exploded
    rate, curve = asked_for_a_rate(*losses)
    assert [value for _, value in curve] == pytest.approx(smooth[:7])
    rates = [1e-4 * 1e4 ** (step / 8) for step in range(9)]
    assert [rate for rate, _ in curve] == pytest.approx(rates[:7])
    falls = [smooth[i + 1] - smooth[i - 1] for i in range(1, 6)]
    assert rate == pytest.approx(rates[1 + falls.index(min(falls))])


def test_a_loss_may_grow_threefold_at_a_later_step_and_no_more():
    """At the eighth step it explodes when what is smoothed passes three times the lowest."""
    steps = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    weights = np.array([0.9**n for n in range(7, -1, -1)])
    lowest = min(
        np.dot(weights[7 - n :][: n + 1], steps[: n + 1]) / weights[7 - n :][: n + 1].sum() for n in range(7)
    )
    for factor, kept in ((2.9, 9), (3.3, 7)):
        last = (factor * lowest * weights.sum() - np.dot(weights[:7], steps)) / weights[7]
        assert len(asked_for_a_rate(*steps, last, 1.0)[1]) == kept


def test_a_loss_that_is_no_number_ends_the_search():
    assert len(asked_for_a_rate(4.0, 3.0, 2.0, 1.0, float("inf"), 1.0, 1.0, 1.0, 1.0)[1]) == 4
    with pytest.raises(InputError, match="the loss falls at no learning rate between"):
        asked_for_a_rate(1.0, 2.0, 2.5, 2.6, 2.7, 2.8, 2.8, 2.8, 2.8)


def test_one_batch_is_learned_in_as_many_steps_as_the_command_says():
    assert inspect.signature(overfit_batch).parameters["steps"].default == 150


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say it")
@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_memory_of_a_step_is_told_in_bytes(system, unit, monkeypatch):
    import resource

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=7_000_000))
    augment = Augment((8, 8))
    config = TrainConfig(steps=1, batch_size=1, workers=0)
    cost = estimate(Told(), squares(), augment, told(*[1.0] * 9), config)
    assert cost.bytes == 7_000_000 * unit


def test_ids_are_changed_as_the_configuration_says(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(noise(4, 4)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.array([[0, 7], [255, 7]], np.uint8).repeat(2, 0).repeat(2, 1)).save(
            tmp_path / "masks" / f"{name}.png"
        )
    sample = data_of(TrainConfig(steps=1, data=str(tmp_path), map_ids="7=1")).samples("all")[0]
    assert np.unique(sample.mask).tolist() == [0, 1, 255]


def test_a_layer_may_not_be_left_without_a_learning_rate():
    for value in (0.0, 1.1):
        with pytest.raises(InputError, match=r"layer_decay must lie in \(0, 1\]"):
            TrainConfig(steps=1, layer_decay=value)


def test_a_shorter_side_is_brought_to_so_many_pixels():
    """A picture twice as large, at the size where it began, is itself."""
    small = noise(20, 30)
    sample = Sample(small.repeat(2, 0).repeat(2, 1), np.zeros((40, 60), np.uint8), "noise")
    still = {"scale": (1.0, 1.0), "flip": 0.0, "largest_share": 1.0, "colour": 0.0}
    given = Augment((20, 30), shorter_side=20, mean=(0.0,) * 3, std=(1.0,) * 3, **still)(sample)["image"]
    inside = np.s_[:, 2:-2, 2:-2]
    expected = v2.functional.resize(torch.from_numpy(sample.image).permute(2, 0, 1), [20, 30], antialias=True)
    torch.testing.assert_close((255 * given)[inside], expected.float()[inside], atol=1.01, rtol=0)


# Smaller promises


def test_a_generalised_dice_of_each_image_is_one_number_for_each():
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    each = generalised_dice(logits, target, over="image", reduction="none")
    assert each.shape == (2,)
    alone = [generalised_dice(logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(each, torch.stack(alone))


def test_a_whole_ratio_without_aligned_corners_is_one_with_them_too():
    assert ratio((64, 96), (16, 24), align_corners=True) == 4  # 63 of 15 is none
    assert ratio((65, 97), (17, 25), align_corners=True) == 4
    assert ratio((65, 97), (17, 25), align_corners=False) is None


@pytest.mark.parametrize("size_hw", [(0, 5), (5, 0)])
def test_a_map_without_a_side_is_refused(size_hw):
    with pytest.raises(InputError, match="decide needs at least one pixel"):
        decide(np.zeros((2, 3, 3), np.float32), size_hw, align_corners=False)


def test_an_area_beyond_all_pictures_is_no_number_of_pixels():
    assert SegmentOptions(min_area=2**62 - 1).min_area == 2**62 - 1
    with pytest.raises(InputError, match="min_area must be a number of pixels"):
        SegmentOptions(min_area=2**62)


def test_weights_of_a_backbone_are_checked_unless_they_are_a_file_or_tensors(tmp_path):
    with pytest.raises(ValueError, match="IMAGENET1K_V7"):
        fcn_resnet50(weights=None, weights_backbone="IMAGENET1K_V7")
    with pytest.raises(WeightsError, match=r"nothing\.pth"):
        fcn_resnet50(weights=None, weights_backbone=tmp_path / "nothing.pth")


def test_a_targets_ends_are_those_of_nothing_where_there_is_nothing():
    assert ends(torch.empty(0)) == (0.0, 0.0)
    assert ends(torch.tensor([3, 1, 2])) == (1.0, 3.0)


def test_a_card_by_hand_says_nothing_of_a_size_that_nobody_counted():
    assert Card.of(["ground", "road"]).parameters == 0


def test_each_format_has_the_ending_of_its_kind():
    endings = {name: format.ending for name, format in FORMATS.items()}
    assert all(re.fullmatch(r"(?:\.[a-z0-9-]+)+", ending) for ending in endings.values())
    assert {name: Path(f"x{ending}").suffix for name, ending in endings.items()} == {
        **dict.fromkeys(("labels", "ids", "overlay", "cutout", "legend", "confidence"), ".png"),
        **dict.fromkeys(("side-by-side", "contours"), ".png"),
        **dict.fromkeys(("json", "coco", "coco-polygons"), ".json"),
        "npy": ".npy", "geotiff": ".tif", "geojson": ".geojson", "csv": ".csv",
    }  # fmt: skip


def test_tiles_are_blended_without_aligned_corners_unless_one_says_so():
    """Logits at every second pixel, enlarged as torch does it by itself."""
    values = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    rows = np.zeros((8, 8, 3), np.uint8)
    (band,) = stitch(lambda top, end: rows[top:end], (8, 8), lambda _: values, tiling=Tiling(8, overlap=0))
    enlarged = F.interpolate(torch.from_numpy(values), (8, 8), mode="bilinear", align_corners=False)[0]
    aligned = F.interpolate(torch.from_numpy(values), (8, 8), mode="bilinear", align_corners=True)[0]
    clear = ((enlarged[0] - enlarged[1]).abs() > 1e-4).numpy()
    assert (enlarged.argmax(0) != aligned.argmax(0)).any()
    np.testing.assert_array_equal(band.labels[clear], enlarged.argmax(0).numpy()[clear])


def test_what_is_unknown_is_no_part_of_what_one_batch_has_right():
    """A third of the pixels is unknown; of the others those of class 1 are right, which are half."""

    class One(Told):
        def forward(self, images):
            scores = torch.zeros(len(images), 2, *images.shape[2:]) + self.number
            scores[:, 1] += 1
            return {"out": scores}

    mask = np.zeros((6, 6), np.uint8)
    mask[:, 2:4], mask[:, 4:] = 1, 255
    sample = Sample(noise(6, 6), mask, "noise")
    still = {"scale": (1.0, 1.0), "flip": 0.0, "largest_share": 1.0, "colour": 0.0}
    config = TrainConfig(steps=1, batch_size=1, workers=0)
    for unknown, right in ((255, 1 / 2), (1, 2 / 3)):  # where nothing is unknown, all pixels count
        part = Sample(sample.image, np.where(mask == 255, unknown, mask), "noise")
        found = overfit_batch(One(), [part], Augment((6, 6), **still), told(3.0, 2.0), config, steps=2)
        assert found == (3.0, 2.0, pytest.approx(right))


def test_a_map_without_pixels_has_no_objects():
    labels = np.zeros((0, 0), np.uint8)
    assert to_coco(labels, LabelSet.of(["ground", "road"]))["annotations"] == []


def test_the_mean_over_one_pixel_is_its_loss():
    logits, target = torch.tensor([[[2.0]], [[0.0]]])[None], torch.zeros(1, 1, 1, dtype=torch.int64)
    expected = F.cross_entropy(logits, target)
    torch.testing.assert_close(cross_entropy(logits, target, ignore_index=None), expected)


def test_a_network_of_which_a_part_is_idle_is_told_to_several_processes(tmp_path, monkeypatch):
    given = {}

    def seen(**kwargs):
        given.update(kwargs)
        raise ValueError("seen")

    monkeypatch.setattr("accelerate.Accelerator", seen)
    for unused in (False, True):
        with pytest.raises(InputError, match="seen"):
            accelerate_with(TrainConfig(steps=1), tmp_path, unused=unused)
        (handler,) = given["kwargs_handlers"]
        assert handler.find_unused_parameters is unused


def test_sizes_that_no_memory_holds_are_refused():
    assert TrainConfig(steps=1, accumulate=2**24).accumulate == 2**24
    with pytest.raises(InputError, match="accumulate must be at most 16777216"):
        TrainConfig(steps=1, accumulate=2**24 + 1)
    assert Tiling(2**31 - 1).tile == 2**31 - 1
    with pytest.raises(InputError):
        Tiling(2**31)
    for crop in ((0, 8), (8, 0)):
        with pytest.raises(InputError, match="crop_hw of at least 1 pixel"):
            Augment(crop)


def test_nothing_asked_for_is_something_that_may_be_asked_for():
    """No tolerance keeps every corner, and no erosion leaves the shapes as they are."""
    labels = np.array([[0, 1], [0, 0]], np.uint8)
    assert sum(polygon.pixels for polygon in simplify(labels, 0)) == 4
    logits, target = torch.randn(1, 2, 4, 4), torch.randint(0, 2, (1, 4, 4))
    assert torch.isfinite(soft_cldice(logits, target, iterations=0))


@pytest.mark.parametrize(
    ("side", "offset", "expected"), [(3, 1, 1), (40, 1, 17), (64, 1, 33), (3, 0, 16), (40, 0, 16)]
)
def test_a_scaled_side_is_a_multiple_and_an_offset_and_at_least_one_pixel(side, offset, expected):
    """Of 16 and an offset: 0.1 of 3 is 1 or, without it, 16; half of 40 is 17 or 16, half of 64 is 33."""
    images = torch.zeros(1, 3, side, side)
    assert _scaled(images, 0.1 if side == 3 else 0.5, 16, offset).shape[2:] == (expected, expected)


def test_the_random_numbers_of_a_draw_follow_from_its_seed_and_place():
    """By the rule that runs written before follow as well."""
    draws = Draws(squares(), lambda _: {"image": torch.rand(3)}, seed=5, first=2, last=6)
    torch.manual_seed((5 + 1) * 1_000_000_007 + 4)
    assert torch.equal(draws[2]["image"], torch.rand(3))


def test_sizes_are_drawn_from_the_range_that_was_given(monkeypatch):
    seen = []
    monkeypatch.setattr(
        Span, "draw", classmethod(lambda cls, size, crop, zoom, *_: seen.append(zoom) or cls(0, 8, 8, 0))
    )
    for seed in range(40):
        torch.manual_seed(seed)
        Augment((8, 8), scale=(0.5, 2.0))(squares()[0])
    assert 0.5 <= min(seen) < 0.7
    assert 1.8 < max(seen) <= 2.0


def test_what_is_pasted_is_there():
    ground = Sample(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), "ground")
    mask = np.zeros((8, 8), np.uint8)
    mask[:3] = 1
    other = Sample(np.where(mask[..., None] > 0, 255, 0).repeat(3, 2).astype(np.uint8), mask, "other")
    still = {"scale": (1.0, 1.0), "flip": 0.0, "largest_share": 1.0, "colour": 0.0}
    augment = Augment((8, 8), paste_from=[other], paste=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, **still)
    found = augment(ground)
    assert found["mask"].tolist() == mask.tolist()
    assert torch.equal(found["image"], torch.from_numpy(mask).float().expand(3, 8, 8))


def test_cells_may_be_numbers_and_only_0_and_1():
    cells = np.zeros((4, 4), np.uint8)
    cells[1:3, 1:3] = 1
    assert rand_error(cells, cells) == pytest.approx(rand_error(cells > 0, cells > 0))
    with pytest.raises(InputError, match="0 and 1; got 0 to 2"):
        rand_error(cells, 2 * cells)


def test_ground_between_cells_weighs_more_and_what_is_unknown_is_no_cell():
    target = torch.zeros(1, 7, 7, dtype=torch.int64)
    target[0, :, :2], target[0, :, 3:5], target[0, :, 6] = 1, 1, 255
    logits = torch.randn(1, 2, 7, 7)
    numbers = np.zeros((7, 7), np.int64)
    numbers[:, :2], numbers[:, 3:5] = 1, 2
    weights = unet_weights(numbers)[None]
    expected = cross_entropy(logits, target, pixel_weights=weights, ignore_index=255)
    torch.testing.assert_close(unet_cross_entropy(logits, target, ignore_index=255), expected)


def test_operations_are_told_in_billions_as_torchvision_tells_them():
    from torchvision.models.segmentation import FCN_ResNet50_Weights as Theirs

    assert FCN_ResNet50_Weights.DEFAULT.meta["_ops"] == Theirs.DEFAULT.meta["_ops"] == 152.717


def test_a_network_that_cannot_be_built_says_why(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no room for 3 of them\nand more")

    monkeypatch.setattr("pixelwise.training.experiment.create_model", refuse)
    with pytest.raises(InputError, match=r"unet with \{\} cannot be built \(no room for 3 of them\)"):
        make_network(TrainConfig(steps=1, model="unet"), 2, print)
