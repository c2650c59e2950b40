"""The pages for people who come from elsewhere: their Python runs as it stands, and gives what they had before."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image

import pixelwise
from pixelwise import models
from pixelwise.checkpoints.loading import families
from pixelwise.errors import InputError
from pixelwise.labels import VOC
from pixelwise.models.r_names import pascal_voc_classes
from pixelwise.weights import enums

DOCS = Path(__file__).parents[1] / "docs"
SPACE = torchvision.models.segmentation


def run(page: str, names: dict[str, Any], upto: int | None = None) -> dict[str, Any]:
    """The page's blocks of Python, one after the other; every name that they leave."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert blocks
    for block in blocks[:upto]:
        exec(compile(block, page, "exec"), names)
    return names


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


@pytest.fixture
def random_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of what would be fetched, tensors that torchvision's builders make."""

    def tensors(url: str, **_: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        name = url.rpartition("/")[2].partition("-")[0].removesuffix("_coco")
        return getattr(SPACE, name)(
            weights_backbone=None, aux_loss=not name.startswith("lraspp")
        ).state_dict()

    monkeypatch.setattr(enums, "state_dict_of", tensors)


def test_the_page_for_torchvision(random_files, picture: Image.Image):
    with pytest.warns(UserWarning, match="pretrained=True is deprecated"):
        left = run("from_torchvision.md", {"image": picture})
    assert type(left["model"]) is models.FCN
    assert left["model"].num_classes == 7
    assert left["labels"].shape == (1, 520, 693)
    assert left["labels"].max() < 5
    assert left["names"] == SPACE.DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]


def test_what_the_page_says_of_torchvision_is_so():
    with torch.device("meta"):
        assert SPACE.fcn_resnet50(weights_backbone=None, num_class=4).classifier[4].out_channels == 21
        with pytest.raises(TypeError, match="did you mean 'num_classes'"):
            models.fcn_resnet50(weights_backbone=None, num_class=4)
    assert not hasattr(SPACE.deeplabv3, "model_urls")


@pytest.mark.slow
def test_the_page_for_r(random_files, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    picture.save("photo.png")
    names = {"torch": torch, "batch": torch.rand(1, 3, 33, 33), "picture_file": "photo.png"}
    names["picture"] = (names["batch"][0] * 255).to(torch.uint8)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        left = run("from_r.md", names)
    said = [str(warning.message) for warning in seen if warning.category is FutureWarning]
    assert "write pixelwise.models.deeplabv3_resnet50(weights='DEFAULT'" in said[0]
    assert "ids begin at 1" in said[1]
    assert list(left["output"]) == ["out", "aux"]
    labels = left["labels"]
    assert torch.equal(left["masks"].to(torch.uint8).argmax(0), labels)
    assert torch.equal(left["dog"], left["masks"][12])
    assert left["names"] == [pascal(int(label)) for label in labels.unique()]
    outside = labels == 0
    assert torch.equal(left["shown"][:, outside], names["picture"][:, outside]) or bool(outside.sum() == 0)
    assert sum(left["result"].areas().values()) == pytest.approx(1)
    assert np.array_equal(np.asarray(Image.open("labels.png")), left["result"].labels)


def pascal(class_id: Any = None) -> Any:
    with pytest.warns(FutureWarning, match=r"write pixelwise.labels.VOC.names"):
        return pascal_voc_classes(class_id)


def test_pascal_voc_classes_has_rs_spelling_and_our_ids():
    assert models.pascal_voc_classes is pascal_voc_classes
    assert len(pascal()) == len(VOC.names) == 21
    assert [name for name in pascal() if name not in VOC.names] == [
        "dining table",
        "potted plant",
        "tv/monitor",
    ]
    assert (pascal(0), pascal(12), pascal([20, 0])) == ("background", "dog", ["tv/monitor", "background"])
    assert pascal(torch.tensor(8)) == "cat"
    assert pascal(torch.tensor([8, 12])) == pascal(np.array([8, 12])) == pascal((8, 12)) == ["cat", "dog"]
    assert pascal([]) == []
    for wrong in (21, -1, [3, 255]):
        with pytest.raises(
            InputError, match=r"from 0 \(background\) to 20 \(tv/monitor\), got .*R counts from 1"
        ):
            pascal(wrong)


def segformer(folder: Path) -> Path:
    """A tiny SegFormer of transformers with a name for each class, and a processor that changes the size."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16,
        num_labels=4, id2label=dict(enumerate("sky road car tree".split())), semantic_loss_ignore_index=255,
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 96}).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_page_for_hugging_face(picture: Image.Image, tmp_path: Path):
    folder = segformer(tmp_path / "folder")
    names: dict[str, Any] = {
        "folder": folder, "picture": picture, "pixels": torch.rand(2, 3, 64, 96),
        "target": torch.randint(0, 4, (2, 64, 96)),
    }  # fmt: skip
    names["target"][:, :9] = 255
    run("from_huggingface.md", names, upto=1)
    before, model = names["labels"].numpy(), names["model"]
    run("from_huggingface.md", names)
    assert names["labels"].shape == before.shape == (48, 64)
    assert len(np.unique(before)) > 1
    assert (names["labels"] == before).mean() > 0.999
    expected = model(names["pixels"], labels=names["target"])
    with torch.no_grad():
        network = names["network"].eval()
        scale = float(expected.logits.max() - expected.logits.min())
        assert float((network.coarse(names["pixels"]) - expected.logits).abs().max()) < 1e-4 * scale
    logits = network(names["pixels"])["out"]
    loss = pixelwise.losses.cross_entropy(logits, names["target"], ignore_index=255)
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)


@pytest.mark.slow
def test_a_segformer_goes_back_to_transformers(tmp_path: Path):
    folder = segformer(tmp_path / "folder")
    for typed in ("folder ours.safetensors", "ours.safetensors theirs.pth --to transformers5.segformer"):
        command = [sys.executable, "-m", "pixelwise", "convert", *typed.split()]
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    transformers = pytest.importorskip("transformers")
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(folder)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(torch.load(tmp_path / "theirs.pth", weights_only=True), strict=True)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_the_page_for_mmsegmentation(tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tiny = {"channels": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "width": 16, "aux_width": 8}
    network = models.upernet_convnext_tiny(num_classes=4, **tiny).eval()
    mmseg = next(family for family in families() if family.name == "mmseg.upernet_convnext")
    tensors = mmseg.to_theirs(network.state_dict())
    torch.save({"meta": {"epoch": 1}, "state_dict": tensors}, "checkpoint.pth")
    truth = np.random.default_rng(1).integers(0, 4, (48, 64))
    names = {"picture": picture, "classes": ["sky", "road", "car", "tree"], "truth": truth}
    left = run("from_mmseg.md", names)
    assert isinstance(left["network"], models.UPerNet)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(left["network"].eval()(image)["out"], network(image)["out"])
    labels = left["labels"]
    iou = [((labels == k) & (truth == k)).sum() / ((labels == k) | (truth == k)).sum() for k in range(4)]
    assert left["scores"] == pytest.approx((100 * np.mean(iou), 100 * (labels == truth).mean()))


def test_thirty_two_bit_floats_lose_a_pixel_as_the_page_says():
    counts = torch.tensor([2.0**24], dtype=torch.float32)
    assert counts + torch.histc(torch.zeros(1), bins=1, min=0, max=0.5) == counts
    confusion = pixelwise.metrics.ConfusionMatrix(2)
    side = np.zeros((4096, 4096), np.uint8)
    confusion.update(side, side).update(side[:1, :1], side[:1, :1])
    assert confusion.matrix[0, 0] == 2**24 + 1
