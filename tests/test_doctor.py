"""The data doctor finds each planted fault, names file and pixel, and is silent on a clean data set."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.datasets.doctor import examine
from pixelwise.datasets.opening import open_data
from pixelwise.errors import InputError, UnknownNameError


def save(path: Path, values: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def labels(seed: int) -> np.ndarray:
    """Ids 0, 1, 2 in blocks, 255 in one corner; (40, 60)."""
    ids = np.random.default_rng(seed).integers(0, 3, (4, 6)).astype(np.uint8).repeat(10, 0).repeat(10, 1)
    ids[:10, :20], ids[10:20, :10], ids[:3, 57:] = (0, 1, 255)
    ids[:10, 10:20] = 2
    return ids


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Four training and ten validation pairs of different noise."""
    for i in range(14):
        split = "train" if i < 4 else "val"
        picture = np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        save(tmp_path / split / "images" / f"p{i}.png", picture)
        save(tmp_path / split / "masks" / f"p{i}.png", labels(i))
    return tmp_path


def findings(root: Path, kind: str, **options) -> list:
    return [finding for finding in examine(open_data(root), **options).findings if finding.kind == kind]


def test_a_clean_data_set_has_no_findings(clean):
    report = examine(open_data(clean))
    assert report.findings == []
    assert report.safe
    assert report.splits == {"train": 4, "val": 10}
    every = np.concatenate([labels(i).ravel() for i in range(14)])
    assert report.pixels == {i: int((every == i).sum()) for i in range(3)}


MASK, PHOTO = "train/masks/p1.png", "train/images/p1.png"


def plant_missing_mask(root):
    (root / MASK).unlink()


def plant_missing_picture(root):
    (root / PHOTO).unlink()


def plant_truncated_picture(root):
    data = (root / PHOTO).read_bytes()
    (root / PHOTO).write_bytes(data[: len(data) // 2])


def plant_other_size(root):
    save(root / MASK, labels(1)[:-1])


def plant_turned_by_exif(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.asarray(Image.open(root / PHOTO))
    save(root / PHOTO, picture, exif=exif)


def plant_rgb_mask(root):
    save(root / MASK, np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)[labels(1) % 3])


def plant_stray_id(root):
    ids = labels(1)
    ids[23, 41] = 77
    save(root / MASK, ids)


def plant_zero_255(root):
    for path in root.glob("*/masks/*.png"):
        save(path, np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8))


def plant_stretched(root):
    save(root / MASK, labels(1).astype(np.uint16) * 257)


def plant_16_bit(root):
    save(root / MASK, labels(1).astype(np.uint16))


def plant_alpha_mask(root):
    save(root / MASK, np.dstack([labels(1)] * 3 + [np.full((40, 60), 255, np.uint8)]))


def plant_transparent_picture(root):
    picture = np.asarray(Image.open(root / PHOTO))
    save(root / PHOTO, np.dstack([picture, np.arange(60, dtype=np.uint8)[None].repeat(40, 0)]))


def plant_duplicate_across_splits(root):
    shutil.copy(root / PHOTO, root / "val" / "images" / "p4.png")


def plant_lossy_mask(root):
    (root / MASK).unlink()
    save(root / MASK.replace(".png", ".jpg"), labels(1))


def plant_all_ignored(root):
    save(root / MASK, np.full((40, 60), 255, np.uint8))


def plant_empty_class(root):
    for path in root.glob("*/masks/*.png"):
        ids = np.array(Image.open(path))
        ids[ids == 1] = 0
        save(path, ids)


PLANTED = [
    (plant_missing_mask, "missing label map", "p1.png", None, False),
    (plant_missing_picture, "missing picture", "p1.png", None, False),
    (plant_truncated_picture, "unreadable", PHOTO, None, False),
    (plant_other_size, "sizes differ", MASK, None, False),
    (plant_turned_by_exif, "turned label map", MASK, None, False),
    (plant_rgb_mask, "RGB label map", MASK, None, False),
    (plant_stray_id, "stray id", MASK, (23, 41), False),
    (plant_zero_255, "0/255 label maps", "masks/p0.png", "first 255", False),
    (plant_stretched, "stretched 16-bit label map", MASK, None, False),
    (plant_16_bit, "16-bit label map", MASK, None, True),
    (plant_alpha_mask, "label map with alpha", MASK, None, False),
    (plant_transparent_picture, "transparent picture", PHOTO, None, True),
    (plant_duplicate_across_splits, "duplicate across splits", "p1.png", None, False),
    (plant_lossy_mask, "lossy label map", "p1.jpg", None, False),
    (plant_all_ignored, "nothing to learn", MASK, None, True),
    (plant_empty_class, "empty class", None, None, True),
]


@pytest.mark.parametrize(
    ("plant", "kind", "file", "pixel", "safe"), PLANTED, ids=[p[0].__name__[6:] for p in PLANTED]
)
def test_every_planted_fault_is_found_and_named(plant, kind, file, pixel, safe, clean):
    plant(clean)
    report = examine(open_data(clean))
    found = [finding for finding in report.findings if finding.kind == kind]
    assert len(found) == 1, report.findings
    assert found[0].fix
    if file is not None:
        assert found[0].file.endswith(file)
    if pixel == "first 255":
        ids = np.asarray(Image.open(found[0].file))
        pixel = tuple(int(i) for i in np.argwhere(ids == 255)[0])
    assert found[0].pixel == pixel
    assert report.safe == safe


def test_rgb_beside_id_label_maps_is_said_for_the_whole_set(clean):
    plant_rgb_mask(clean)
    (mixed,) = findings(clean, "mixed label maps")
    assert "colours are in 1 label map, and ids in 13" in mixed.message


def test_the_number_of_classes_makes_the_check_strict(clean):
    assert findings(clean, "stray id", num_classes=3) == []
    (stray,) = findings(clean, "stray id", num_classes=2)
    assert "id 2 belongs to no class (expected 0-1 or 255 to ignore)" in stray.message
    (empty,) = findings(clean, "empty class", num_classes=4)
    assert "class 3" in empty.message


def test_layouts(clean, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(clean / "train", flat)
    assert examine(open_data(flat)).splits == {"all": 4}
    camvid = tmp_path / "camvid"
    shutil.copytree(clean / "train" / "images", camvid / "train")
    shutil.copytree(clean / "train" / "masks", camvid / "trainannot")
    assert examine(open_data(camvid)).splits == {"train": 4}
    voc = tmp_path / "voc"
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("p0\np9\n")
    for folder, source in (("JPEGImages", "images"), ("SegmentationClass", "masks")):
        shutil.copytree(clean / "train" / source, voc / folder)
    Image.open(voc / "JPEGImages" / "p0.png").save(voc / "JPEGImages" / "p0.jpg")
    assert [f.kind for f in examine(open_data(voc)).findings if f.severity == "error"] == [
        "missing picture",
        "missing label map",
    ]
    with pytest.raises(InputError, match="images/ and masks/"):
        examine(open_data(tmp_path / "voc" / "ImageSets"))
    with pytest.raises(UnknownNameError, match="did you mean 'camvid'"):
        examine(open_data(clean, "camvit"))


def test_the_command(clean):
    run = [sys.executable, "-m", "pixelwise", "check", str(clean)]
    good = subprocess.run(run, capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines()[-1] == "safe to train"
    plant_stray_id(clean)
    bad = subprocess.run([*run, "--json"], capture_output=True, text=True)
    assert bad.returncode == 1
    report = json.loads(bad.stdout)
    assert report["safe"] is False
    assert [(f["kind"], f["pixel"]) for f in report["findings"]] == [("stray id", [23, 41])]
    text = subprocess.run(run, capture_output=True, text=True).stdout
    assert "row 23, column 41" in text
    assert "not safe to train" in text
    nothing = subprocess.run([*run[:-1], str(clean / "none")], capture_output=True, text=True)
    assert nothing.returncode == 2
    assert len(nothing.stderr.splitlines()) == 1
