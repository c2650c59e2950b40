"""One function opens anything: whatever form a model comes in, it means the same or is refused in one sentence."""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import pixelwise
from drawn import draw_folder
from pixelwise import Card, LabelSet, Segmenter, create_model, from_checkpoint, kernels
from pixelwise.cli.app import app
from pixelwise.errors import DownloadError, InputError, PixelwiseWarning, UnknownNameError
from pixelwise.outputs.reading import read_labels
from pixelwise.training.progress import Progress
from tiny import CARD, quadrant_labels, quadrants, write_colors_model

HERE = Path(__file__).parent
TINY = {
    "steps": 4,
    "batch_size": 2,
    "model": "unet",
    "model_options": {"width": 4},
    "image_size": 64,
    "workers": 0,
    "validate_every": 2,
    "save_minutes": 0,
}


def run(*arguments):
    """A command in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.exception or result.output
    return result.stdout


def train(tmp_path, **changes):
    data = draw_folder(tmp_path / "mine", 6)
    wanted = tmp_path / "wanted.json"
    wanted.write_text(json.dumps({**TINY, "data": str(data), **changes}))
    return ["train", "--config", str(wanted), "--out", str(tmp_path / "run")]


def means_the_same_everywhere(tmp_path, run_folder, weights):
    """A run, its weights, and what is exported and converted of them: the same labels, names, colours and scores."""
    done("export", run_folder, "--out", tmp_path / "exported.onnx")
    done("convert", weights, tmp_path / "converted.safetensors")
    picture, data = tmp_path / "mine/images/drawn03.png", tmp_path / "mine"
    network = from_checkpoint(run_folder)
    expected = Segmenter(network)
    truth = network(torch.from_numpy(expected.card.preprocess(np.asarray(Image.open(picture)))))["out"]
    truth = F.interpolate(truth, (64, 80), mode="bilinear").argmax(1)[0].numpy()
    scores = []
    for model in (run_folder, weights, tmp_path / "exported.onnx", tmp_path / "converted.safetensors"):
        opened = Segmenter(str(model))
        assert opened.classes == expected.classes
        assert opened.card.preprocess == expected.card.preprocess
        assert opened.card.scores == expected.card.scores
        out = tmp_path / f"out {model.name}"
        done("segment", picture, "--model", model, "--out", out, "--format", "labels")
        np.testing.assert_array_equal(read_labels(out / "drawn03.labels.png", expected.classes), truth)
        report = json.loads(done("evaluate", "--data", data, "--model", model, "--json"))
        scores.append((report["mean_iou"], report["confusion_matrix"]))
    assert all(score == scores[0] for score in scores)
    return expected.card


def test_a_run_is_opened_as_a_folder_and_as_each_of_its_files(tmp_path):
    done(*train(tmp_path))
    weights = tmp_path / "run/weights.safetensors"
    card = means_the_same_everywhere(tmp_path, tmp_path / "run", weights)
    assert card.labels.names == ("ground", "disc", "square")
    assert len(card.scores) == 2


def test_a_run_that_was_stopped_early_is_opened_with_its_best_weights(tmp_path, monkeypatch):
    def stop(self, step, *_):
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "step", stop)
    assert run(*train(tmp_path)).exit_code != 0
    assert not (tmp_path / "run/weights.safetensors").exists()
    card = means_the_same_everywhere(tmp_path, tmp_path / "run", tmp_path / "run/best.pt")
    assert card.labels.names == ("ground", "disc", "square")


@pytest.mark.slow
def test_a_run_that_ctrl_c_stopped_is_opened(tmp_path):
    command = [sys.executable, "-m", "pixelwise", *train(tmp_path, steps=10_000)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run/best.pt").exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode
    assert "Traceback" not in said
    means_the_same_everywhere(tmp_path, tmp_path / "run", tmp_path / "run/best.pt")


def test_a_run_without_validated_weights_says_how_to_go_on(tmp_path, monkeypatch):
    def stop(self, step, *_):
        if step == 2:
            raise KeyboardInterrupt

    command = train(tmp_path)
    with monkeypatch.context() as early:
        early.setattr(Progress, "step", stop)
        run(*command)
    with pytest.raises(InputError, match="stopped before its weights were validated") as refused:
        Segmenter(tmp_path / "run")
    again = re.search(r"go on with it: pixelwise (.*)", str(refused.value))[1]
    done(*again.split())
    assert Segmenter(tmp_path / "run").classes.names == ("ground", "disc", "square")


def test_a_folder_without_weights_is_refused_by_name(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photos holds none of weights\.safetensors, model\.safetensors"):
        Segmenter(tmp_path / "photos")


# Names


def test_a_name_that_is_also_a_file_is_the_name_unless_it_is_written_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colors_model(tmp_path / "everyday")
    write_colors_model(tmp_path / "mine.onnx")
    assert Segmenter("everyday").classes.num_classes == 21
    (tmp_path / "everyday").rename(tmp_path / "everyday.onnx")
    assert Segmenter("everyday.onnx").classes.num_classes == 4
    assert Segmenter("./mine.onnx").classes.num_classes == Segmenter("mine.onnx").classes.num_classes == 4
    assert Segmenter(Path("mine.onnx")).classes.num_classes == 4


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        ("everydy", UnknownNameError, "did you mean 'everyday'"),
        (
            "runs/7/weights.safetensors",
            InputError,
            "no such model file or folder: runs/7/weights.safetensors",
        ),
        ("weights.safetensors", InputError, "no such model file or folder"),
        ("runs/weights.pth", InputError, "no such model file or folder: runs/weights.pth"),
        (Path("everyday"), InputError, "no such model file or folder: everyday"),
        (3, InputError, "expected the name or file of a model, or a torch network, got int"),
        (np.zeros(3), InputError, "got ndarray"),
    ],
)
def test_what_is_no_model_is_said_to_be_none(model, error, says):
    with pytest.raises(error, match=re.escape(says)):
        Segmenter(model)


def test_a_repository_of_the_hub_is_fetched_once_and_then_taken_from_its_cache(tmp_path):
    network = create_model("unet", width=2, num_classes=3)
    pixelwise.save(
        network, tmp_path / "hub/model.safetensors", card=Card.of(["sky", "sea", "sand"], name="beach")
    )
    Image.new("RGB", (32, 32), (9, 99, 199)).save(tmp_path / "photo.png")

    def segment(model, out, **switches):
        environment = {
            **os.environ,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **switches,
        }
        command = [sys.executable, HERE / "hub.py", tmp_path / "hub", "segment", tmp_path / "photo.png"]
        return subprocess.run(
            [*command, "--model", model, "--out", tmp_path / out],
            env=environment,
            capture_output=True,
            text=True,
        )

    assert (
        "it is not in the Hub's cache and the network is switched off"
        in segment("me/mine@v1", "no", PIXELWISE_OFFLINE="1").stderr
    )
    first = segment("me/mine@v1", "one")
    assert first.returncode == 0, first.stderr
    assert any(name in first.stdout for name in ("sky", "sea", "sand"))
    again = segment("me/mine@v1", "two", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert "asked 0 times" in again.stderr
    unknown = segment("me/others", "three")
    assert unknown.returncode == 1
    assert len(unknown.stderr.splitlines()) == 2  # the sentence, and what was asked
    assert "give the path of a folder with its files" in unknown.stderr


def test_offline_a_name_of_the_hub_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    with pytest.raises(
        DownloadError, match="there is no file or folder me/mine, and as a model of the Hugging Face Hub"
    ):
        Segmenter("me/mine")


# Foreign networks: labels equal to a plain definition


class Answers(nn.Module):
    """A network whose answer is what `wrap` makes of logits."""

    def __init__(self, channels, wrap=lambda logits: logits, *, stride=1, inputs=3) -> None:
        super().__init__()
        self.layer, self.wrap = nn.Conv2d(inputs, channels, stride, stride=stride), wrap

    def forward(self, image):
        return self.wrap(self.layer(image))


def logits_of(network, image, mean, std):
    """What the network answers to the normalised picture."""
    tensor = torch.from_numpy(image.astype(np.float64) / 255).movedim(-1, 0)
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
    with torch.no_grad():
        answer = network.eval()(((tensor - mean) / std)[None].float())
    logits = getattr(answer, "logits", answer)
    if isinstance(answer, dict):
        logits = answer["out"] if "out" in answer else answer["logits"]
    return logits


def plain(network, image, mean, std, outputs="exclusive", align_corners=False):
    """The label map by the definition: normalise, run, enlarge to the picture, decide."""
    logits = logits_of(network, image, mean, std)
    logits = F.interpolate(logits.double(), image.shape[:2], mode="bilinear", align_corners=align_corners)[0]
    if outputs == "binary":
        return (logits[0] > 0).numpy().astype(int)
    return logits.argmax(0).numpy()


def torchvisions():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)


def smps(kind, classes=3, **options):
    import segmentation_models_pytorch as smp

    network = getattr(smp, kind)("resnet18", encoder_weights=None, **options)
    width = network.segmentation_head[0].in_channels
    # Replaced, as people do who train on classes of their own
    _, *rest = network.segmentation_head
    network.segmentation_head = nn.Sequential(nn.Conv2d(width, classes, 1), *rest)
    return network


def transformers_segformer():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]}
    return SegformerForSemanticSegmentation(SegformerConfig(**sizes, decoder_hidden_size=16, num_labels=3))


def transformers_upernet():
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    backbone = ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return UperNetForSemanticSegmentation(
        UperNetConfig(
            backbone_config=backbone,
            hidden_size=16,
            num_labels=3,
            auxiliary_channels=8,
            auxiliary_in_channels=24,
        )
    )


FOREIGN = {
    "torchvision": (torchvisions, {}),
    "SMP Unet": (lambda: smps("Unet"), {"multiple": 32}),
    "SMP FPN": (lambda: smps("FPN"), {"multiple": 32}),
    "SMP DeepLabV3Plus": (lambda: smps("DeepLabV3Plus"), {"multiple": 32}),
    "transformers SegFormer": (transformers_segformer, {"multiple": 32}),
    "transformers UPerNet": (transformers_upernet, {"multiple": 32}),
    "Sequential": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1)), {}),
    "dictionary": (lambda: Answers(3, lambda logits: OrderedDict(out=logits, aux=logits * 0)), {}),
    "stride 32": (lambda: Answers(3, stride=32), {"multiple": 32}),
    "stride 4, corners aligned": (lambda: Corners(), {"multiple": 4, "offset": 1, "align_corners": True}),
}


def lively(network, image):
    """Random weights give nearly the same class everywhere; here each class wins somewhere."""
    last = [layer for layer in network.modules() if getattr(layer, "out_channels", 0) == 3][-1]
    logits = logits_of(network.eval(), image, MEAN, STD)
    with torch.no_grad():
        last.bias -= logits.flatten(2).median(2).values[0]
    return network


class Corners(nn.Module):
    """(n, 3, 4 i + 1, 4 j + 1) -> (n, 3, i + 1, j + 1)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 5, stride=4, padding=2)

    def forward(self, image):
        return self.layer(image)


@pytest.fixture
def photo():
    """Smooth and rough parts; its first 96 x 128 pixels have sides that every one of these networks takes."""
    draw = np.random.default_rng(3)
    smooth = draw.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((129, 97), Image.Resampling.BICUBIC)).copy()
    image[30:60, 40:90] = draw.integers(0, 256, (30, 50, 3))
    return image


MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_network_of_anyone_gives_the_labels_of_the_definition_here_and_exported(name, photo, tmp_path):
    make, words = FOREIGN[name]
    torch.manual_seed(0)
    image = photo if "offset" in words else photo[:96, :128]
    network = lively(make(), image)
    card = Card.of(["wall", "sky", "sea"], mean=MEAN, std=STD, name=name, **words)
    expected = plain(network, image, MEAN, STD, align_corners=card.align_corners)
    assert len(np.unique(expected)) > 1
    network.train()
    segmenter = Segmenter(network, card=card)
    found = segmenter(image)
    assert network.training  # as it was
    assert (found.labels == expected).mean() > 0.9999
    assert found.classes.names == ("wall", "sky", "sea")
    # The pooling of transformers' UPerNet cannot be exported for every size
    one = {"traced_at": (96, 128), "dynamic": False} if name == "transformers UPerNet" else {}
    pixelwise.export_onnx(network, card, tmp_path / "it.onnx", **one)
    exported = Segmenter(tmp_path / "it.onnx")
    assert exported.card == segmenter.card
    assert (exported(image).labels == expected).mean() > 0.9999


def test_one_logit_is_binary_and_its_sign_decides(photo):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    with torch.no_grad():
        network[2].bias -= network(torch.randn(1, 3, 50, 50)).median()
    segmenter = Segmenter(network, classes=["ground", "vessel"], mean=MEAN, std=STD)
    expected = plain(network, photo, MEAN, STD, "binary")
    assert 0.1 < expected.mean() < 0.9
    assert segmenter.card.outputs == "binary"
    np.testing.assert_array_equal(segmenter(photo).labels, expected)
    np.testing.assert_array_equal(segmenter(photo).mask("vessel"), expected == 1)


def test_logits_that_happen_to_lie_between_0_and_1_are_logits(photo):
    network = nn.Conv2d(3, 1, 1)
    nn.init.constant_(network.weight, 0.01)
    nn.init.constant_(network.bias, 0.5)
    assert Segmenter(network, classes=["a", "b"])(photo).areas() == {"b": 1.0}


class Sigmoids(nn.Conv2d):
    def forward(self, image):
        return super().forward(image).sigmoid()


def test_probabilities_are_refused_where_they_would_be_taken_for_logits(photo):
    """Exclusive classes by the largest sigmoid are the same classes."""
    with pytest.raises(InputError, match=r"gave probabilities \(sigmoid\)"):
        Segmenter(Sigmoids(3, 1, 1), classes=["a", "b"])
    with pytest.raises(InputError, match=r"gave probabilities \(sigmoid\)"):
        Segmenter(Sigmoids(3, 2, 1), classes=["a", "b", "c"], outputs="regions")
    network = Sigmoids(3, 3, 1)
    expected = plain(network, photo, MEAN, STD)
    found = Segmenter(network, classes=["a", "b", "c"], mean=MEAN, std=STD)(photo)
    assert (found.labels == expected).mean() > 0.999
    two = Sigmoids(3, 2, 1)  # whose sum is never far from 1
    found = Segmenter(two, classes=["a", "b"], mean=MEAN, std=STD)(photo)
    assert (found.labels == plain(two, photo, MEAN, STD)).mean() > 0.999


def test_a_size_that_a_network_does_not_divide_is_no_reason_to_refuse_it(photo):
    torch.manual_seed(0)
    network = lively(nn.Conv2d(3, 3, 3, stride=4, padding=1), photo)
    segmenter = Segmenter(network, classes=["a", "b", "c"], mean=MEAN, std=STD, size=50)
    assert (segmenter.card.stride, segmenter.card.preprocess.size) == (4, 50)
    with torch.no_grad():  # (13, 17) of the 50 x 66 pixels that it sees
        coarse = network(torch.from_numpy(segmenter.card.preprocess(photo)))
    expected = F.interpolate(coarse, photo.shape[:2], mode="bilinear").argmax(1)[0].numpy()
    assert (segmenter(photo).labels == expected).mean() > 0.9999


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid()),
            "gave probabilities (sigmoid), where logits are expected",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1)), "gave probabilities (softmax)"),
        (nn.Conv2d(3, 4, 3), "gave logits of 254x318, which are no whole ratio of it"),
        (nn.Conv2d(4, 4, 1), "failed at a picture (1, 3, 256, 320)"),
        (
            nn.Sequential(nn.Flatten(), nn.LazyLinear(3)),
            "gave (1, 3); expected logits (1, classes, height, width)",
        ),
        (
            Answers(3, lambda logits: (logits, logits)),
            "this Answers returns tuple; expected a tensor of logits",
        ),
        (Answers(3, lambda logits: {"masks": logits}), "returns dict with masks"),
        (
            Answers(3, lambda logits: {"class_queries_logits": logits}),
            "answers in queries, a mask and a class each",
        ),
        (Answers(3, lambda logits: logits * float("nan")), "gave numbers that are not finite"),
        (Answers(3, lambda logits: logits.repeat(2, 1, 1, 1)), "gave (2, 3, 256, 320); expected logits"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid()), "ends in Sigmoid, where logits are expected"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.LogSigmoid()), "ends in LogSigmoid, where logits are expected"),
        (
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.Hardsigmoid()),
            "ends in Hardsigmoid, where logits are expected",
        ),
    ],
)
def test_outputs_that_are_no_logits_of_pixels_are_refused_by_what_they_are(network, says):
    with pytest.raises(InputError, match=re.escape(says)) as refused:
        Segmenter(network, classes=["a", "b", "c"])
    assert "\n" not in str(refused.value)


def test_a_network_of_transformers_that_answers_in_queries_is_refused():
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=4,
    )  # fmt: skip
    with pytest.raises(InputError, match="this Mask2FormerForUniversalSegmentation answers in queries"):
        Segmenter(Mask2FormerForUniversalSegmentation(config), classes=["a", "b"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"classes": ["a", "b"]}, "the card names 2 classes, the network has 3 outputs"),
        ({"classes": ["a", "b", "c"], "outputs": "binary"}, "names two classes"),
        ({"classes": ["a", "b", "c"], "outputs": "regions"}, "which takes 2, the network has 3 outputs"),
        ({"classes": ["a", "b", "c"], "mean": [0.5]}, "mean is of 1 channels; say std for as many"),
        ({"card": Card.of(["a", "b", "c"]), "mean": MEAN}, "card= says mean as well"),
    ],
)
def test_words_that_do_not_agree_are_refused(words, says):
    with pytest.raises(InputError, match=says):
        Segmenter(nn.Conv2d(3, 3, 1), **words)


def test_without_a_card_classes_are_numbers_and_a_warning_says_how_to_name_them(photo):
    network = nn.Conv2d(3, 3, 1)
    with pytest.warns(PixelwiseWarning, match=re.escape("classes=[...], mean=..., std=... or card=")):
        assert Segmenter(network).classes.names == ("class 0", "class 1", "class 2")
    named = Segmenter(network, classes=["a", "b", "c"])
    assert set(named(photo).areas()) <= {"a", "b", "c"}


def test_a_network_of_transformers_brings_the_names_it_was_given(photo):
    network = transformers_segformer().eval()
    with pytest.warns(PixelwiseWarning, match="named by number"):
        assert Segmenter(network).classes.names == ("class 0", "class 1", "class 2")
    network.config.id2label = {0: "wall", 1: "sky", 2: "sea"}
    segmenter = Segmenter(network)
    assert segmenter.classes.names == ("wall", "sky", "sea")
    assert set(segmenter(photo[:96, :128]).areas()) <= {"wall", "sky", "sea"}
    assert Segmenter(network, classes=["a", "b", "c"]).classes.names == ("a", "b", "c")


def test_outputs_that_are_said_without_names_number_what_these_tell_apart(photo):
    network = nn.Conv2d(3, 2, 1)
    with pytest.warns(PixelwiseWarning, match="named by number"):
        segmenter = Segmenter(network, outputs="regions", mean=MEAN, std=STD)
    assert segmenter.classes.names == ("class 0", "class 1", "class 2")
    found, logits = segmenter(photo), logits_of(network, photo, MEAN, STD)[0].numpy()
    for name, logit in zip(("class 1", "class 2"), logits, strict=True):
        np.testing.assert_array_equal(
            found.mask(name) | (abs(logit) < 1e-5), (logit > 0) | (abs(logit) < 1e-5)
        )


def test_a_wrapper_of_several_gpus_is_taken_off(photo):
    network = nn.Conv2d(3, 3, 1)
    plainly, wrapped = (Segmenter(it, classes=["a", "b", "c"]) for it in (network, nn.DataParallel(network)))
    np.testing.assert_array_equal(plainly(photo).labels, wrapped(photo).labels)


# The card


def test_a_card_that_is_given_goes_before_the_models_own(photo, tmp_path):
    colors = LabelSet.of([f"c{i}" for i in range(21)], ids=range(1, 22))
    own = Segmenter("everyday")
    for words in ({"card": own.card.replace(labels=colors)}, {"classes": colors}):
        given = Segmenter("everyday", **words)
        assert given.classes == colors
        np.testing.assert_array_equal(given(photo).labels, own(photo).labels + 1)
        assert (given.card.stride, given.card.preprocess) == (own.card.stride, own.card.preprocess)
    assert Segmenter("everyday", size=100).card.preprocess.size == 100
    with pytest.raises(
        InputError, match=r"the card is for 2 outputs \(2 classes, exclusive\), the model in .* has 21"
    ):
        Segmenter("everyday", card=Card.of(["a", "b"]))
    path = write_colors_model(tmp_path / "four.onnx")
    with pytest.raises(InputError, match="the card is for 2 input channels"):
        Segmenter(path, card=CARD.replace(preprocess=pixelwise.Preprocess((0, 0), (1, 1))))


def test_words_change_what_they_say_and_nothing_else(tmp_path):
    rule = pixelwise.Preprocess((0, 0, 0), (1, 1, 1), 40, "longer", 4, 1)
    own = CARD.replace(preprocess=rule, stride=2, align_corners=True)
    path = write_colors_model(tmp_path / "it.onnx", own)
    assert Segmenter(path, mean=MEAN).card.preprocess == dataclasses.replace(rule, mean=MEAN)
    assert Segmenter(path, std=STD).card.preprocess == dataclasses.replace(rule, std=STD)
    assert Segmenter(path, size=30).card.preprocess == dataclasses.replace(rule, size=30)
    given = Segmenter(path, card=Card.of(["a", "b", "c", "d"], name="by hand")).card
    assert (given.name, given.stride, given.align_corners, given.parameters) == ("by hand", 2, True, 52)
    network = create_model("unet", width=2, num_classes=1)
    pixelwise.save(
        network, tmp_path / "cells.safetensors", card=Card.of(["outside", "cell"], outputs="regions")
    )
    renamed = Segmenter(tmp_path / "cells.safetensors", classes=["ground", "nucleus"])
    assert (renamed.classes.names, renamed.card.outputs) == (("ground", "nucleus"), "regions")


def test_a_file_without_a_card_is_looked_at(tmp_path):
    path = write_colors_model(tmp_path / "bare.onnx", card=None)
    segmenter = Segmenter(path, classes=["dark", "red", "green", "blue"], mean=(0, 0, 0), std=(1, 1, 1))
    assert (segmenter.card.name, segmenter.card.stride, segmenter.card.align_corners) == ("bare", 2, False)
    np.testing.assert_array_equal(segmenter(quadrants()).labels, quadrant_labels())


def test_a_model_of_the_package_runs_with_either_engine(photo):
    found = {engine: Segmenter("nuclei", engine=engine) for engine in ("onnxruntime", "pytorch")}
    assert {engine: segmenter.engine.name for engine, segmenter in found.items()} == {
        "onnxruntime": "onnxruntime",
        "pytorch": "pytorch",
    }
    file, network = found.values()
    assert file.card == network.card
    np.testing.assert_allclose(
        network(photo, logits=True).logits, file(photo, logits=True).logits, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("outputs", ["binary", "regions"])
def test_what_a_single_logit_means_comes_back_out_of_a_file(outputs, tmp_path):
    network, card = create_model("unet", width=2, num_classes=1), Card.of(["ground", "cell"], outputs=outputs)
    pixelwise.save(network, tmp_path / "it.safetensors", card=card)
    opened = Segmenter(tmp_path / "it.safetensors")
    assert (opened.classes.names, opened.card.outputs) == (("ground", "cell"), outputs)


def test_a_card_by_hand_says_all_there_is_to_say():
    card = Card.of(
        ["ground", "vessel"], outputs="binary", mean=[0.5], std=[0.2], size=512, side="longer", multiple=32,
        ids=[7, 9], colors=[(1, 2, 3), (4, 5, 6)], licence="MIT", notes=["of one eye"], name="eye",
    )  # fmt: skip
    assert (card.labels.ids, card.labels.colors) == ((7, 9), ((1, 2, 3), (4, 5, 6)))
    assert (card.name, card.licence, card.notes) == ("eye", "MIT", ("of one eye",))
    assert (card.channels, card.preprocess.size_hw(100, 200)) == (1, (256, 512))
    assert Card.from_json(card.to_json()) == card
    assert Card.of(["a", "b", "c"], outputs="regions").channels == 2
    with pytest.raises(UnknownNameError, match="did you mean 'regions'"):
        Card.of(["a", "b"], outputs="region")
    with pytest.raises(InputError, match="names two classes"):
        Card.of(["a"], outputs="binary")
    with pytest.raises(InputError, match="got one name"):
        Card.of(["a"], outputs="regions")


def test_a_file_from_before_cards_said_what_outputs_mean_is_read(tmp_path):
    values = Card.of(["a", "b"]).to_dict()
    del values["outputs"]
    assert Card.from_dict(values).outputs == "exclusive"
    network = create_model("unet", width=2, num_classes=1)  # two names of a single logit
    vars(network)["card"] = Card.from_dict(values)
    pixelwise.save(network, tmp_path / "it.safetensors")
    opened = Segmenter(tmp_path / "it.safetensors")
    assert (opened.classes.names, opened.card.outputs) == (("a", "b"), "binary")


# Export and convert


def test_export_writes_any_model_and_says_what_is_in_it(tmp_path):
    network = create_model("unet", width=2, num_classes=3)
    pixelwise.save(network, tmp_path / "it.safetensors", card=Card.of(["sky", "sea", "sand"], name="beach"))
    said = done("export", tmp_path / "it.safetensors", "--out", tmp_path / "it.onnx")
    assert "3 classes" in said
    assert "sky, sea, sand" in said
    assert Segmenter(tmp_path / "it.onnx").card == Segmenter(tmp_path / "it.safetensors").card
    done("export", "everyday", "--out", tmp_path / "everyday.onnx")
    assert Segmenter(tmp_path / "everyday.onnx").card == Segmenter("everyday").card
    done("export", tmp_path / "it.safetensors", "--out", tmp_path / "one.onnx", "--size", "64,96")
    assert Segmenter(tmp_path / "one.onnx")(np.zeros((64, 96, 3), np.uint8)).labels.shape == (64, 96)
    with pytest.raises(InputError, match=r"takes pictures of 64x96 .*tile=\(64, 96\)"):
        Segmenter(tmp_path / "one.onnx")(np.zeros((64, 97, 3), np.uint8))
    assert Segmenter(tmp_path / "one.onnx")(np.zeros((64, 97, 3), np.uint8), tile=(64, 96)).labels.shape == (
        64,
        97,
    )


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["export", "{it}", "--out", "{to}.safetensors"], "expected a name that ends in .onnx"),
        (
            ["export", "{onnx}", "--out", "{to}.onnx", "--size", "64,64"],
            "is an ONNX file; there is no torch network",
        ),
        (["export", "{it}", "--out", "{to}.onnx", "--size", "64"], "takes a height and a width"),
        (["export", "{it}", "--out", "{to}.onnx", "--size", "0,64"], "takes a height and a width"),
        (["export", "nowhere.pth", "--out", "{to}.onnx"], "no such model file or folder"),
        (["convert", "{it}", "{to}.onnx"], "use pixelwise export"),
        (["convert", "{it}", "{to}.tflite", "--to", "milesial.unet"], "expected a name that ends in"),
        (["convert", "{it}", "{to}.tflite", "--to", "smp"], "expected a name that ends in"),
    ],
)
def test_what_export_and_convert_cannot_do_leaves_no_file(tmp_path, colors_model, command, says):
    pixelwise.save(create_model("unet", width=2), tmp_path / "it.safetensors")
    places = {"it": tmp_path / "it.safetensors", "to": tmp_path / "to", "onnx": colors_model}
    result = run(*(word.format(**places) for word in command))
    assert says in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["it.safetensors"]


# In other hands


def test_a_segmenter_travels_to_other_processes(photo, tmp_path):
    torch.manual_seed(0)
    path = write_colors_model(tmp_path / "it.onnx")
    for segmenter in (Segmenter(path), Segmenter(create_model("unet", width=2), card=Card.of(["a", "b"]))):
        sent = pickle.dumps(segmenter)
        if segmenter.engine.name == "onnxruntime":
            path.unlink()  # the other process need not see this disk
        for other in (pickle.loads(sent), copy.deepcopy(pickle.loads(sent))):
            np.testing.assert_array_equal(other(photo).labels, segmenter(photo).labels)
            assert other.card == segmenter.card


def test_a_file_that_has_changed_since_is_not_pickled(tmp_path):
    path = write_colors_model(tmp_path / "it.onnx")
    segmenter = Segmenter(path)
    write_colors_model(path, CARD.replace(notes=("another",)))
    with pytest.raises(InputError, match="has changed since it was opened"):
        pickle.dumps(segmenter)


def test_the_engine_asks_for_the_card_that_a_network_brings():
    network, own = create_model("unet", width=2), Card.of(["a", "b"], name="its own")
    vars(network)["card"] = own
    asked = []

    def card(engine, brought):
        asked.append((engine.name, brought))
        return own.replace(name="another")

    assert pixelwise.open_engine(network, card=card).card.name == "another"
    assert asked == [("pytorch", own)]


def test_the_number_of_threads_travels_along(tmp_path):
    engine = Segmenter(write_colors_model(tmp_path / "it.onnx"), threads=1).engine
    for one in (engine, copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert one._loaded.held.get_session_options().intra_op_num_threads == 1


def test_a_device_is_named_once_and_one_that_is_not_here_is_said_to_be_none(photo, colors_model):
    network = create_model("unet", width=2)
    moved = Segmenter(network, card=Card.of(["a", "b"]), device="cpu")
    np.testing.assert_array_equal(
        moved(photo).labels, Segmenter(network, card=Card.of(["a", "b"]))(photo).labels
    )
    double = Segmenter(copy.deepcopy(network).double(), card=Card.of(["a", "b"]))
    assert (double(photo).labels == moved(photo).labels).mean() > 0.999
    for device in ("cuda:7", "tpu"):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used here"):
            Segmenter(network, card=Card.of(["a", "b"]), device=device)
    with pytest.raises(InputError, match="ONNX Runtime has no CUDA here, got device 'cuda'"):
        Segmenter(colors_model, device="cuda")


def test_a_list_and_a_stream_of_pictures_give_what_each_gives_alone(photo, tmp_path):
    torch.manual_seed(0)
    segmenter = Segmenter(create_model("unet", width=2, num_classes=3), card=Card.of(["a", "b", "c"]))
    pictures = [photo, photo[:50, :60], photo[::-1].copy(), photo[:, ::-1].copy(), photo[1:51, :60]]
    alone = [segmenter(picture).labels for picture in pictures]
    for found in (
        segmenter(pictures),
        segmenter(tuple(pictures)),
        list(segmenter.map(pictures)),
        list(segmenter.map(iter(pictures), batch=3)),
    ):
        assert len(found) == 5
        for one, expected, picture in zip(found, alone, pictures, strict=True):
            assert (one.labels == expected).mean() > 0.9999
            np.testing.assert_array_equal(one.image, picture)
    flipped = pixelwise.SegmentOptions(flips=("horizontal",), tile=None)
    together = list(segmenter.map(pictures, flipped, batch=5, confidence=True))
    for one, picture in zip(together, pictures, strict=True):
        expected = segmenter.segment(picture, flipped, confidence=True)
        assert (one.labels == expected.labels).mean() > 0.9999
        np.testing.assert_allclose(one.confidence, expected.confidence, atol=1e-5)
    assert segmenter([]) == []


def test_pictures_of_one_size_go_through_the_network_together(photo):
    calls = []
    network = Answers(2)
    network.layer.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    segmenter = Segmenter(network, classes=["a", "b"])
    calls.clear()
    list(segmenter.map([photo, photo, photo[:40], photo, photo[:40]], batch=4))
    assert calls == [3, 1, 1]
    seen = []
    network.layer.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[2:])))
    list(segmenter.map([photo, photo], pixelwise.SegmentOptions(tile=64), batch=2))
    assert set(seen) == {(64, 64)}  # never the whole picture


def test_a_bad_picture_stops_the_stream_or_takes_its_own_place(photo):
    segmenter = Segmenter(nn.Conv2d(3, 2, 1), classes=["a", "b"])
    pictures = [photo, b"no picture", photo]
    for batch in (1, 3):
        found = list(segmenter.map(pictures, batch=batch, on_error="return"))
        assert [type(one).__name__ for one in found] == ["Segmentation", "ImageKindError", "Segmentation"]
        stream = segmenter.map(pictures, batch=batch)
        assert next(stream).labels.shape == photo.shape[:2]  # those before it are not lost
        with pytest.raises(InputError, match="picture"):
            next(stream)
    with pytest.raises(InputError, match="batch must be a whole number from 1 up"):
        segmenter.map(pictures, batch=0)
    with pytest.raises(UnknownNameError, match="did you mean 'return'"):
        segmenter.map(pictures, on_error="retrun")
    for stream in (segmenter.map([photo], max_pixels=9), segmenter.map([photo] * 2, batch=2, max_pixels=9)):
        with pytest.raises(InputError, match="pixels"):
            next(stream)
    with pytest.raises(InputError, match="pixels"):
        segmenter([photo], max_pixels=9)


def test_a_list_is_segmented_as_one_picture_is(photo):
    torch.manual_seed(0)
    segmenter = Segmenter(nn.Conv2d(3, 2, 1), classes=["a", "b"])
    words = {"min_confidence": 0.6, "tile": 64, "confidence": True, "probabilities": True, "logits": True}
    alone, (listed,) = segmenter(photo, **words), segmenter([photo], **words)
    assert (alone.labels == 255).any()
    for name in ("labels", "confidence", "probabilities", "logits"):
        np.testing.assert_array_equal(getattr(listed, name), getattr(alone, name))


def test_a_stream_holds_no_more_than_a_batch(photo):
    read = []

    def stream():
        for i in range(100):
            read.append(i)
            yield photo

    answers = Segmenter(nn.Conv2d(3, 2, 1), classes=["a", "b"]).map(stream(), batch=4)
    assert read == []
    next(answers)
    assert read == [0, 1, 2, 3]


def test_the_networks_of_smp_here_run_with_the_parts_that_were_assigned(photo):
    import pixelwise.smp as smp

    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, classes=1, activation="sigmoid").eval()
    model.segmentation_head = nn.Conv2d(16, 3, 1)
    image = photo[:96, :128]
    segmenter = Segmenter(model, classes=["a", "b", "c"], mean=MEAN, std=STD)
    with torch.no_grad():
        features = model.encoder(torch.from_numpy(segmenter.card.preprocess(image)))
        expected = model.segmentation_head(model.decoder(features))[0].argmax(0).numpy()
    found = segmenter(image)
    assert (found.labels == expected).mean() > 0.9999


def labels_in_another_process(segmenter, picture, out):
    np.save(out, segmenter(picture).labels)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of Python's, about forking where there are threads
@pytest.mark.parametrize("engine", ["onnxruntime", "pytorch"])
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_after_a_fork_and_in_a_new_process_everything_answers(method, engine, tmp_path):
    """Threads do not come along into a forked process: whoever waits for one waits for ever."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    torch.manual_seed(0)
    network = create_model("unet", width=2, num_classes=3)
    segmenter = Segmenter("everyday")
    if engine == "pytorch":
        segmenter = Segmenter(network, card=Card.of(["a", "b", "c"]))
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    kernels.in_bands(lambda *_: None, 1000)  # its threads are there
    torch.set_num_threads(2)
    try:
        expected = segmenter(picture).labels
        arguments = (segmenter, picture, tmp_path / "labels.npy")
        other = multiprocessing.get_context(method).Process(target=labels_in_another_process, args=arguments)
        other.start()
        other.join(120)
        hangs = other.is_alive()
        other.kill()
    finally:
        torch.set_num_threads(1)
    assert not hangs
    assert (np.load(tmp_path / "labels.npy") == expected).mean() > 0.9999
    assert (segmenter(picture).labels == expected).all()  # and here nothing has changed


def test_the_activation_of_a_model_of_smp_here_is_left_out(photo):
    import pixelwise.smp as smp

    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, classes=1, activation="sigmoid").eval()
    image = photo[:96, :128]
    segmenter = Segmenter(model, classes=["a", "b"], mean=MEAN, std=STD)
    with torch.no_grad():
        p = model(torch.from_numpy(segmenter.card.preprocess(image)))[0, 0].numpy()
        model.segmentation_head[0].bias -= float(np.median(np.log(p / (1 - p))))
        p = model(torch.from_numpy(segmenter.card.preprocess(image)))[0, 0].numpy()
    found, clear = segmenter(image, probabilities=True), abs(p - 0.5) > 1e-4
    assert 0.4 < (p > 0.5).mean() < 0.6
    np.testing.assert_array_equal(found.mask("b")[clear], p[clear] > 0.5)
    np.testing.assert_allclose(found.probabilities[1], p, atol=1e-5)


# What must not happen in silence


def test_weights_of_a_network_that_computes_otherwise_are_not_loaded(tmp_path):
    """No shape shows it."""
    made = {
        "segformer_b0": ({"activation": "relu"}, "activation='relu', this one has 'gelu'"),
        "unet": (
            {"encoder": "resnet18", "interpolation": "bilinear"},
            "interpolation='bilinear', this one has",
        ),
        "deeplabv3plus": ({"encoder": "resnet18", "atrous_rates": (6, 12, 18)}, "atrous_rates="),
    }
    for name, (arguments, says) in made.items():
        usual = {key: value for key, value in arguments.items() if key == "encoder"}
        pixelwise.save(create_model(name, num_classes=2, **arguments), tmp_path / f"{name}.safetensors")
        with pytest.raises(InputError, match=re.escape(says)):
            pixelwise.load_checkpoint(
                create_model(name, num_classes=2, **usual), tmp_path / f"{name}.safetensors"
            )
        pixelwise.load_checkpoint(
            create_model(name, num_classes=2, **arguments), tmp_path / f"{name}.safetensors"
        )


def test_a_copy_of_the_best_weights_still_says_whose_they_are(tmp_path, monkeypatch):
    def stop(self, step, *_):
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "step", stop)
    run(*train(tmp_path))
    (tmp_path / "run/best.pt").rename(tmp_path / "mine (1).pth")
    assert Segmenter(tmp_path / "mine (1).pth").classes.names == ("ground", "disc", "square")


def test_a_run_does_not_begin_where_another_has_left_its_weights(tmp_path):
    command = train(tmp_path)
    done(*command)
    (tmp_path / "run/checkpoint.pt").unlink()
    assert "holds a run already" in str(run(*command).exception)


def test_segmenting_leaves_every_part_in_its_mode(photo):
    """Frozen norms stay frozen, and dropout that was left on stays on."""
    foreign = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()
    foreign[1].eval()
    ours = create_model("unet", width=2).train()
    ours.inc.eval()
    for network, names in ((foreign, ["a", "b", "c"]), (ours, ["a", "b"])):
        before = [part.training for part in network.modules()]
        Segmenter(network, classes=names)(photo)
        assert [part.training for part in network.modules()] == before


def test_a_compiled_network_keeps_its_card(photo, tmp_path):
    pixelwise.save(
        create_model("unet", width=2), tmp_path / "it.safetensors", card=Card.of(["sky", "sea"], mean=MEAN)
    )
    network = from_checkpoint(tmp_path / "it.safetensors")
    for wrapped in (torch.compile(network, backend="eager"), nn.DataParallel(network)):
        segmenter = Segmenter(wrapped)
        assert segmenter.card == Segmenter(network).card
        np.testing.assert_array_equal(segmenter(photo).labels, Segmenter(network)(photo).labels)


@pytest.mark.parametrize(
    "names",
    [
        "cat",
        {"cat", "dog"},
        {0: "cat", 1: "dog"},
        [1, 2],
        [("cat", 1), ("dog", 2)],
        2,
        [None, "x"],
    ],
)
def test_names_of_classes_are_words_in_a_list(names):
    with pytest.raises(InputError, match="names of classes"):
        Segmenter(nn.Conv2d(3, 2, 1), classes=names)
    with pytest.raises(InputError, match="names of classes"):
        Card.of(names)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"mean": (123.0, 116.0, 103.0)}, "divide numbers for 0 to 255 by 255"),
        ({"mean": (float("nan"),) * 3}, "mean is of values in"),
        ({"std": (float("inf"),) * 3}, "std must be positive"),
        ({"std": (0, 1, 1)}, "std must be positive"),
        ({"mean": 0.5}, "a number a channel"),
        ({"mean": ("a", "b", "c")}, "a number a channel"),
        ({"size": "512"}, "size takes pixels"),
        ({"size": 32.5}, "size takes pixels"),
        ({"size": 0}, "at least 1 pixel"),
        ({"card": "everyday"}, "takes a pixelwise.Card"),
        ({"threads": 0}, "threads must be a whole number from 1 up"),
        ({"device": "meta"}, "holds no values"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_in_a_sentence(words, says):
    network = create_model("unet", width=2)
    with pytest.raises(InputError, match=says) as refused:
        Segmenter(network, **({} if "card" in words else {"classes": ["a", "b"]}), **words)
    assert "\n" not in str(refused.value)
    for array in (np.float32([0.5, 0.5, 0.5]), torch.tensor([0.5, 0.5, 0.5])):
        assert Segmenter(network, classes=["a", "b"], mean=array).card.preprocess.mean == (0.5, 0.5, 0.5)


def test_an_answer_that_is_no_number_is_not_drawn(photo):
    network = nn.Conv2d(3, 2, 1)
    segmenter = Segmenter(network, classes=["a", "b"])
    nn.init.constant_(network.weight, float("nan"))
    for options in ({}, {"tile": 32}, {"flips": ["horizontal"]}):
        with pytest.raises(InputError, match="not finite"):
            segmenter(photo, **options)


def test_numbers_of_classes_are_no_logits():
    for answer in (lambda logits: logits.argmax(1, keepdim=True), lambda logits: logits > 0):
        with pytest.raises(InputError, match="where logits are expected; leave out what comes behind them"):
            Segmenter(Answers(3, answer), classes=["a", "b", "c"])


def test_scores_go_when_what_they_were_of_goes():
    card = Segmenter("everyday").card
    assert card.scores
    assert Segmenter("everyday", classes=[f"c{i}" for i in range(21)]).card.scores == ()
    assert Segmenter("everyday", size=100).card.scores == ()


def test_several_sigmoids_of_an_smp_model_are_regions(photo, tmp_path):
    import pixelwise.smp as smp

    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, classes=2, activation="sigmoid").eval()
    model.save_pretrained(tmp_path / "folder")
    with pytest.warns(PixelwiseWarning, match="named by number"):
        opened = Segmenter(tmp_path / "folder")
    named = Segmenter(model, classes=["none", "a", "b"], mean=opened.card.preprocess.mean)
    wrapped = Segmenter(nn.DataParallel(model), classes=["none", "a", "b"])
    assert opened.card.outputs == named.card.outputs == wrapped.card.outputs == "regions"
    image = photo[:96, :128]
    with torch.no_grad():
        p = model(torch.from_numpy(named.card.preprocess(image)))[0].numpy()
    for name, mask in (("a", p[0] > 0.5), ("b", p[1] > 0.5)):
        assert (named(image).mask(name) == mask).mean() > 0.999


def test_an_smp_model_is_saved_and_exported_as_it_is(photo, tmp_path):
    import pixelwise.smp as smp

    model = smp.Unet("resnet18", encoder_weights=None, classes=2).eval()
    card = Card.of(["a", "b"], name="mine")
    pixelwise.save(model, tmp_path / "it.safetensors", card=card)
    pixelwise.export_onnx(model, card, tmp_path / "it.onnx")
    expected = Segmenter(model, card=card)(photo[:96, :128]).labels
    for file in ("it.safetensors", "it.onnx"):
        assert (Segmenter(tmp_path / file)(photo[:96, :128]).labels == expected).mean() > 0.9999


def test_a_composed_network_is_prepared_as_its_encoder_was_and_not_as_a_paper_of_that_name():
    with pytest.warns(PixelwiseWarning, match=r"mean \(0\.485, 0\.456, 0\.406\)"):
        composed = Segmenter(create_model("unet", encoder="resnet18", num_classes=2))
    assert composed.card.preprocess == pixelwise.Preprocess()


def test_a_file_asks_for_nothing_from_elsewhere(tmp_path, monkeypatch):
    """Neither the header of our own files nor a configuration of SMP makes anything be fetched."""
    from safetensors.torch import save_file

    from pixelwise.checkpoints.reading import ORIGIN_KEY

    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    for argument in ("pretrained", "pretrained_backbone", "weights", "weights_backbone"):
        said = {ORIGIN_KEY: json.dumps({"model": "fcn_resnet50", "arguments": {argument: "DEFAULT"}})}
        save_file({"x": torch.zeros(1)}, tmp_path / "it.safetensors", metadata=said)
        with pytest.raises(InputError, match="missing"):
            from_checkpoint(tmp_path / "it.safetensors")
    (tmp_path / "folder").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "folder/model.safetensors")
    config = {"_model_class": "DPT", "encoder_name": "tu-hf-hub:evil/model", "encoder_depth": 3, "classes": 2}
    for more in ({}, {"encoder_name": "tu-local-dir:/etc"}, {"encoder_name": "tu-resnet18", "weights": True}):
        (tmp_path / "folder/config.json").write_text(json.dumps({**config, **more}))
        with pytest.raises(InputError):
            Segmenter(tmp_path / "folder")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(InputError, match="is no file"):
        Segmenter(tmp_path / "x.pt")
    for name in ("a" * 5000, "", "a\0b"):
        with pytest.raises(InputError):
            Segmenter(name)


def test_a_file_of_one_size_is_looked_at_at_that_size(tmp_path):
    network = nn.Conv2d(3, 2, 1)
    card = Card.of(["a", "b"])
    pixelwise.export_onnx(network, card, tmp_path / "one.ONNX", traced_at=(64, 64), dynamic=False)
    assert Segmenter(tmp_path / "one.ONNX").classes.names == ("a", "b")
    import onnx

    bare = onnx.load(tmp_path / "one.ONNX")
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    segmenter = Segmenter(tmp_path / "bare.onnx", classes=["a", "b"])
    assert segmenter(np.zeros((64, 64, 3), np.uint8)).labels.shape == (64, 64)


@pytest.mark.slow
def test_regions_and_four_channels_of_a_network_of_anyone_mean_the_same_exported(tmp_path):
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        network[2].bias -= network(torch.randn(1, 4, 50, 50)).flatten(2).median(2).values[0]
    mean, std = (*MEAN, 0.1), (*STD, 0.4)
    card = Card.of(["none", "whole", "core"], outputs="regions", mean=mean, std=std)
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 4), np.uint8)
    logits = logits_of(network, image, mean, std)[0]
    expected = torch.where(logits[1] > 0, 2, torch.where(logits[0] > 0, 1, 0)).numpy()
    assert len(np.unique(expected)) == 3
    pixelwise.export_onnx(network, card, tmp_path / "it.onnx")
    for model, words in ((network, {"card": card}), (tmp_path / "it.onnx", {})):
        found = Segmenter(model, **words)(image)
        np.testing.assert_array_equal(found.labels, expected)
        np.testing.assert_array_equal(found.mask("whole"), logits[0].numpy() > 0)
        np.testing.assert_array_equal(found.mask("core"), logits[1].numpy() > 0)


@pytest.mark.slow
def test_one_logit_of_a_network_of_anyone_means_the_same_exported(photo, tmp_path):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    with torch.no_grad():
        network[2].bias -= network(torch.randn(1, 3, 50, 50)).median()
    card = Card.of(["ground", "vessel"], outputs="binary", mean=MEAN, std=STD)
    pixelwise.export_onnx(network, card, tmp_path / "it.onnx")
    expected = plain(network, photo, MEAN, STD, "binary")
    assert (Segmenter(tmp_path / "it.onnx")(photo).labels == expected).mean() > 0.9999


def test_what_is_an_onnx_file_already_is_copied_without_torch(tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['pixelwise', 'export', *sys.argv[1:]]; "
        "from pixelwise.cli import main; main()"
    )
    for model, out in (("everyday", tmp_path / "one.onnx"), (tmp_path / "one.onnx", tmp_path / "two.onnx")):
        command = [sys.executable, "-c", script, model, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert Segmenter(out).card == Segmenter("everyday").card
    command = [sys.executable, "-c", script, "lraspp_mobilenet_v3_large", "--out", tmp_path / "three.onnx"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "pip install 'pixelwise[torch]'" in refused.stderr


def test_a_file_without_a_card_that_takes_other_channels_asks_for_their_mean(tmp_path):
    weights = onnx.numpy_helper.from_array(np.eye(3, 4, dtype=np.float32)[..., None, None], "w")
    sides = [onnx.helper.make_tensor_value_info(name, 1, [1, k, 32, 32]) for name, k in (("x", 4), ("y", 3))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])], "four", sides[:1], sides[1:], [weights]
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "four.onnx")
    with pytest.raises(InputError, match="takes pictures of 4 channels, and what is said of it prepares 3"):
        Segmenter(tmp_path / "four.onnx")
    with pytest.warns(PixelwiseWarning, match="mean"):
        said = Segmenter(tmp_path / "four.onnx", mean=(0.0,) * 4, std=(1.0,) * 4)
    assert said(np.zeros((32, 32, 4), np.uint8)).labels.shape == (32, 32)
