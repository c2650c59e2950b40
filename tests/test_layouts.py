"""Every layout of a data set, on a miniature drawn here: which pairs it has, and what their label maps say."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixelwise.cli.app import app
from pixelwise.datasets.camvid import COLOURS, split_of
from pixelwise.datasets.coco import COCO_IDS, decode
from pixelwise.datasets.doctor import examine
from pixelwise.datasets.huggingface import row_pairs
from pixelwise.datasets.layouts import LAYOUTS, detect, find_pairs
from pixelwise.datasets.opening import (
    PairSamples,
    ignore_index,
    open_data,
    open_samples,
    parse_map,
    read_classes,
    split_by_name,
)
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.files import plain_name
from pixelwise.labels import ADE20K, CAMVID, VOC, LabelSet

HEIGHT, WIDTH = 40, 60


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def stripes(*ids: int) -> np.ndarray:
    """Vertical stripes of equal width, one an id; (40, 60) uint8."""
    return np.repeat(np.asarray(ids, np.uint8), WIDTH // len(ids))[None].repeat(HEIGHT, 0)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def draw_folder(root):
    for name in ("a", "b", "c"):
        save(root / "images" / f"{name}.png", photo())
        save(root / "masks" / f"{name}.png", stripes(0, 1, 255))
    return "all", stripes(0, 1, 255)


def draw_voc(root):
    save(root / "JPEGImages" / "x.jpg", photo())
    save(root / "SegmentationClass" / "x.png", stripes(0, 20, 255))
    write(root / "ImageSets" / "Segmentation" / "val.txt", "x\n")
    return "val", stripes(0, 20, 255)


def draw_sbd(root):
    io = pytest.importorskip("scipy.io")
    save(root / "dataset" / "img" / "x.jpg", photo())
    (root / "dataset" / "cls").mkdir()
    truth = {"Segmentation": stripes(0, 20, 3), "Boundaries": np.zeros((20, 1), object)}
    io.savemat(root / "dataset" / "cls" / "x.mat", {"GTcls": truth})
    write(root / "dataset" / "val.txt", "x\n")
    return "val", stripes(0, 20, 3)


def draw_cityscapes(root):
    save(root / "leftImg8bit" / "val" / "ulm" / "u_1_leftImg8bit.png", photo())
    save(root / "gtFine" / "val" / "ulm" / "u_1_gtFine_labelIds.png", stripes(7, 26, 0, 4, 33))
    return "val", stripes(0, 13, 255, 255, 18)


def draw_ade20k(root):
    save(root / "images" / "validation" / "x.jpg", photo())
    save(root / "annotations" / "validation" / "x.png", stripes(0, 1, 150))
    return "val", stripes(255, 0, 149)


def draw_camvid(root):
    save(root / "val" / "x.png", photo())
    save(root / "valannot" / "x.png", stripes(0, 10, 11))
    return "val", stripes(0, 10, 255)


def draw_camvid_rgb(root):
    save(root / "701_StillsRaw_full" / "0016E5_07959.png", photo())
    colours = np.array([(128, 128, 128), (0, 128, 192), (192, 0, 192), (64, 192, 0), (0, 0, 0)], np.uint8)
    save(root / "LabeledApproved_full" / "0016E5_07959_L.png", colours[stripes(0, 1, 2, 3, 4)])
    return "val", stripes(0, 10, 10, 1, 255)


def draw_pet(root):
    save(root / "images" / "Bombay_1.jpg", photo())
    save(root / "annotations" / "trimaps" / "Bombay_1.png", stripes(1, 2, 3))
    write(root / "annotations" / "test.txt", "# name class species breed\nBombay_1 8 1 5\n")
    return "test", stripes(1, 0, 255)


def draw_coco(root):
    """A cat 20 wide, a person over its right half, a teddy bear (no class of VOC), and a crowd as run lengths."""
    pytest.importorskip("pycocotools")

    def box(x0, y0, x1, y1):
        return [[x0, y0, x1, y0, x1, y1, x0, y1]]

    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[30:, 50:] = 1
    things = [
        (17, box(0, 0, 20, 20), 400, 0),
        (1, box(10, 0, 30, 20), 400, 0),
        (88, box(0, 20, 60, 30), 600, 0),
        (1, {"counts": run_lengths(crowd), "size": [HEIGHT, WIDTH]}, 100, 1),
    ]
    write(root / "annotations" / "instances_val2017.json", json.dumps(coco_json(7, things)))
    save(root / "val2017" / "000000000007.jpg", photo())
    expected = stripes(0)
    expected[:20, :10], expected[:20, 10:20], expected[:20, 20:30], expected[30:, 50:] = 8, 255, 15, 15
    return "val", expected


def coco_json(number, things):
    names = {1: "person", 17: "cat", 72: "tv", 88: "teddy bear"}
    return {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {
                "id": i, "image_id": number, "category_id": category, "segmentation": outline, "area": area,
                "iscrowd": crowd, "bbox": [0, 0, 1, 1],
            }
            for i, (category, outline, area, crowd) in enumerate(things, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in names.items()],
    }  # fmt: skip


def run_lengths(mask):
    """COCO's uncompressed run lengths: down the columns, beginning with a run of zeros."""
    values = mask.T.ravel()
    borders = np.flatnonzero(np.diff(values)) + 1
    lengths = np.diff([0, *borders, values.size]).tolist()
    return lengths if values[0] == 0 else [0, *lengths]


def draw_huggingface(root):
    datasets = pytest.importorskip("datasets")
    columns = {"image": [Image.fromarray(photo())], "mask": [Image.fromarray(stripes(0, 1, 3))]}
    datasets.DatasetDict(validation=datasets.Dataset.from_dict(columns)).save_to_disk(str(root))
    return "val", stripes(0, 1, 3)


DRAWN = {
    "folder": draw_folder,
    "voc": draw_voc,
    "sbd": draw_sbd,
    "coco": draw_coco,
    "cityscapes": draw_cityscapes,
    "ade20k": draw_ade20k,
    "camvid": draw_camvid,
    "camvid-rgb": draw_camvid_rgb,
    "pet": draw_pet,
    "huggingface": draw_huggingface,
}


def test_every_layout_has_a_miniature():
    assert {*DRAWN, "volumes"} == set(LAYOUTS)  # scans: tests/test_volume_training.py


def test_help_reads_the_tables_without_what_their_rows_need():
    code = (
        "import sys, pixelwise.cli.app as app; assert 'camvid-rgb' in app.LAYOUTS; "
        "print([name for name in ('numpy', 'PIL', 'datasets') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("layout", DRAWN)
def test_a_layout_is_recognised_and_its_masks_hold_class_indices(layout, tmp_path):
    split, expected = DRAWN[layout](tmp_path)
    assert detect(tmp_path) == layout
    samples = open_samples(tmp_path)
    assert samples.split == split
    assert samples.classes is LAYOUTS[layout].classes
    sample = pickle.loads(pickle.dumps(samples))[0]  # as a worker process gets it
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    assert sample.mask.dtype == np.uint8
    np.testing.assert_array_equal(sample.mask, expected)
    assert [s.name for s in samples] == samples.names


@pytest.mark.parametrize("layout", DRAWN)
def test_the_doctor_reads_every_layout(layout, tmp_path):
    split, expected = DRAWN[layout](tmp_path)
    report = examine(open_data(tmp_path))
    assert not [f for f in report.findings if f.severity == "error"]
    classes = LAYOUTS[layout].classes
    for index in np.unique(expected[expected != 255]):
        pixels = report.pixels[classes.ids[index] if classes else int(index)]
        assert pixels == (expected == index).sum() * sum(report.splits.values())
    assert list(report.splits) == [split]


@pytest.mark.parametrize("layout", [name for name in DRAWN if name != "folder"])
def test_missing_data_says_how_to_get_it(layout, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"; get .*https?://"):
            find_pairs(root, layout)


@pytest.mark.parametrize("layout", [name for name in DRAWN if name not in ("cityscapes", "huggingface")])
def test_a_missing_picture_is_named(layout, tmp_path):
    """Cityscapes is found by its pictures; of rows both are there."""
    split, _ = DRAWN[layout](tmp_path)
    pair = find_pairs(tmp_path)[0]
    pair.image.unlink()
    with pytest.raises(InputError, match=f"{pair.name} .{split}. lacks its picture"):
        open_samples(tmp_path, layout)


# COCO -----------------------------------------------------------------------------------------------------------


def test_cocos_categories_are_those_of_torchvision_in_vocs_order():
    named = dict(zip(VOC.names[1:], COCO_IDS, strict=True))
    assert (named["person"], named["cat"], named["tvmonitor"], named["sofa"]) == (1, 17, 72, 63)
    assert (named["aeroplane"], named["motorbike"], named["diningtable"], named["pottedplant"]) == (
        5,
        4,
        67,
        64,
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own arrays
def test_outlines_are_drawn_as_pycocotools_draws_them(tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools import mask as reference
    from pycocotools.coco import COCO

    rng = np.random.default_rng(0)
    blob = (rng.random((HEIGHT, WIDTH)) > 0.5).astype(np.uint8)
    packed = reference.encode(np.asfortranarray(blob))
    packed["counts"] = packed["counts"].decode()
    outlines = [(rng.random((n, 2)) * (WIDTH, HEIGHT)).ravel().tolist() for n in (3, 7, 20)]
    things = [
        (17, [outlines[0]], 300, 0),
        (17, outlines[1:], 300, 0),
        (1, {"counts": run_lengths(blob), "size": [HEIGHT, WIDTH]}, 300, 1),
        (1, packed, 300, 1),
    ]
    file = tmp_path / "instances.json"
    write(file, json.dumps(coco_json(1, things)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
    for annotation in coco.anns.values():
        expected = coco.annToMask(annotation)
        assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(decode(annotation["segmentation"], HEIGHT, WIDTH), expected)
    np.testing.assert_array_equal(decode(packed, HEIGHT, WIDTH), blob)
    assert not decode([], HEIGHT, WIDTH).any()


@pytest.mark.parametrize(
    ("outline", "says"),
    [
        ([[1, 1, None, 1, 10, 10]], "a polygon has None at place 2"),
        ([[1, 1, float("nan"), 1, 10, 10]], "a polygon has nan at place 2"),
        ([[1, 1, 5, 1e9, 10, 10]], "a polygon has 1000000000.0 at place 3"),
        ([[1, 1, -1e308, 1, 10, 10]], "a polygon has -1e\\+308 at place 2"),
        ([[1, 1, "5", 1, 10, 10]], "a polygon has 5 at place 2"),
        ([[1, 1, 5, 1, 10, 10, 3]], "expected polygons"),
        ([3, 4, 5, 6, 7, 8], "expected polygons"),
        ("polygons", "expected polygons"),
        ({"size": [100_000, 100_000], "counts": [10**10]}, "expected run lengths of the size"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, "must be 0 or more and add up to"),
        ({"size": [HEIGHT, WIDTH], "counts": [10**30]}, "run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}, "must be 0 or more"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x00"}, "letters that COCO's text does not have"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "expected run lengths"),
    ],
)
def test_an_outline_that_is_none_is_refused_before_anything_is_drawn_by_it(tmp_path, outline, says):
    """pycocotools dies of some of these, and takes all memory for others."""
    draw_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0] |= {"segmentation": outline, "category_id": 17, "id": 4711}
    file.write_text(json.dumps(content))
    samples = open_samples(tmp_path, "coco", "val")
    with pytest.raises(InputError, match=rf"instances_val2017\.json, annotation 4711: .*{says}"):
        [samples[i] for i in range(len(samples))]


@pytest.mark.parametrize("size", [(0, 10), (10**6, 10**6), (-1, 5), (2.5, 10), ("10", 10)])
def test_a_picture_of_coco_of_senseless_size_is_refused(tmp_path, size):
    draw_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["images"][0] |= {"height": size[0], "width": size[1]}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected whole numbers from 1 up"):
        open_samples(tmp_path, "coco", "val")


def test_coco_is_scored_and_checked_by_the_commands(tmp_path):
    draw_coco(tmp_path)
    run = [sys.executable, "-m", "pixelwise"]
    scored = subprocess.run([*run, "evaluate", "--data", tmp_path, "--json"], capture_output=True, text=True)
    assert scored.returncode == 0, scored.stderr
    pixels = {name: row["true_pixels"] for name, row in json.loads(scored.stdout)["classes"].items()}
    assert {name: n for name, n in pixels.items() if n} == {
        "background": HEIGHT * WIDTH - 600 - 100,
        "cat": 200,
        "person": 200 + 100,  # 200 more are ignored: cat and person overlap
    }
    checked = subprocess.run([*run, "check", tmp_path, "--json"], capture_output=True, text=True)
    assert json.loads(checked.stdout)["safe"], checked.stdout
    (tmp_path / "val2017" / "000000000007.jpg").unlink()
    checked = subprocess.run([*run, "check", tmp_path, "--format", "coco"], capture_output=True, text=True)
    assert checked.returncode == 1
    assert "000000000007 (val) has a label map but no picture" in checked.stdout


def test_a_training_picture_of_coco_needs_more_than_1000_pixels(tmp_path):
    content = coco_json(1, [(17, [[0, 0, 9, 0, 9, 9]], 1000, 0), (88, [[0, 0, 9, 0, 9, 9]], 5000, 0)])
    other = coco_json(2, [(17, [[0, 0, 9, 0, 9, 9]], 1000, 0), (1, [[0, 0, 9, 0, 9, 9]], 1, 0)])
    content["images"] += other["images"]
    content["annotations"] += other["annotations"]
    write(tmp_path / "annotations" / "instances_train2017.json", json.dumps(content))
    assert [pair.name for pair in find_pairs(tmp_path, "coco")] == ["000000000002"]
    write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(content))
    assert [pair.split for pair in find_pairs(tmp_path, "coco")] == ["train", "val", "val"]


def test_what_is_no_coco_file_is_said(tmp_path):
    content = coco_json(1, [])
    content["categories"] = [{"id": 1, "name": "crack"}]
    file = tmp_path / "annotations" / "instances_val2017.json"
    write(file, json.dumps(content))
    with pytest.raises(InputError, match=r"categories of its own \(crack"):
        find_pairs(tmp_path)
    write(file, "{")
    with pytest.raises(InputError, match=r"instances_val2017\.json is not a file of COCO's instances"):
        find_pairs(tmp_path)
    shutil.copy(file, tmp_path / "annotations" / "instances_val2014.json")
    with pytest.raises(InputError, match="several years"):
        find_pairs(tmp_path)


# CamVid ---------------------------------------------------------------------------------------------------------


def test_camvids_32_colours_become_11_classes_and_void():
    assert len(COLOURS) == 32
    assert sorted(set(COLOURS.values())) == list(range(12))
    own = {colour: i for i, colour in enumerate(CAMVID.colors)}
    assert all(COLOURS[colour] == i for colour, i in own.items() if colour in COLOURS)


def test_an_unknown_colour_is_named_with_its_place(tmp_path):
    draw_camvid_rgb(tmp_path)
    path = tmp_path / "LabeledApproved_full" / "0016E5_07959_L.png"
    for stray in ((64, 64, 64), (1, 0, 0)):  # none of the 32; none of the steps of 64
        colours = np.array(Image.open(path))
        colours[7, 9] = stray
        save(path, colours)
        with pytest.raises(InputError, match=r"07959_L\.png .*at \(7, 9\)"):
            open_samples(tmp_path)[0]
    assert [f.kind for f in examine(open_data(tmp_path)).findings if f.severity == "error"] == ["unreadable"]


def test_the_split_of_camvids_frames_is_segnets(data):
    for split, count in (("train", 367), ("val", 101), ("test", 233)):
        names = [path.stem for path in (data / "camvid" / split).iterdir()]
        assert len(names) == count
        assert {split_of(name) for name in names} == {split}


# Folders --------------------------------------------------------------------------------------------------------


def test_an_undivided_folder_divides_itself(tmp_path):
    for i in range(20):
        save(tmp_path / "images" / f"p{i}.png", photo(i))
        save(tmp_path / "masks" / f"p{i}.png", stripes(0, 1))
    parts = {split: open_samples(tmp_path, split=split).names for split in ("train", "val", "all", None)}
    assert (parts["train"], parts["val"]) == split_by_name(sorted(f"p{i}" for i in range(20)))
    assert sorted(parts["train"] + parts["val"]) == parts["all"] == parts[None]
    with pytest.raises(UnknownNameError, match="split 'tain'; did you mean 'train'"):
        open_samples(tmp_path, split="tain")


def test_a_split_is_never_empty_and_one_picture_cannot_be_split():
    for count in range(2, 12):
        for start in range(20):
            training, held_out = split_by_name([f"p{start + i}" for i in range(count)])
            assert training
            assert held_out
    with pytest.raises(InputError, match="1 picture cannot be divided"):
        split_by_name(["alone"])


def test_labels_beside_images_are_masks_and_objects_map_to_one_class(tmp_path):
    save(tmp_path / "images" / "x.png", photo())
    save(tmp_path / "labels" / "x.png", stripes(0, 1, 7).astype(np.uint16) * 300)
    assert open_samples(tmp_path)[0].mask.max() == 2100
    sample = open_samples(tmp_path, map_ids=parse_map("1-65535=1"))[0]
    assert sample.mask.dtype == np.uint8
    np.testing.assert_array_equal(sample.mask, stripes(0, 1, 1))
    assert examine(open_data(tmp_path, map_ids=parse_map("1-65535=1"))).pixels == {0: 800, 1: 1600}


def test_map_ids_reads_ranges_and_refuses_the_rest():
    ids = np.array([0, 7, 8, 9, 200], np.uint8)
    assert parse_map("7-8=0, 9=300")(ids).tolist() == [0, 0, 0, 300, 200]
    assert parse_map("0=1,1=0")(np.array([0, 1])).tolist() == [1, 0]  # all at once
    for text in ("", "7", "7=x", "7:8"):
        with pytest.raises(InputError, match="separated by commas"):
            parse_map(text)


def test_a_folder_may_name_its_classes(tmp_path):
    draw_folder(tmp_path)
    assert read_classes(tmp_path) is None
    write(tmp_path / "classes.txt", "0 ground\n1 water, deep\n255 void\n")
    samples = open_samples(tmp_path)
    assert samples.classes == LabelSet.of(["ground", "water, deep"])
    np.testing.assert_array_equal(samples[0].mask, stripes(0, 1, 255))
    write(tmp_path / "classes.txt", "ground\nwater\n")
    assert open_samples(tmp_path).classes.names == ("ground", "water")
    write(tmp_path / "classes.txt", "ground\nground\n")
    with pytest.raises(InputError, match=r"classes\.txt: every name .* different"):
        open_samples(tmp_path)


def test_what_is_no_label_map_is_named(tmp_path):
    draw_folder(tmp_path)
    save(tmp_path / "masks" / "b.png", photo())
    with pytest.raises(InputError, match=r"b\.png holds colours"):
        open_samples(tmp_path)[1]
    (tmp_path / "masks" / "c.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"masks.c\.png is not a picture"):
        open_samples(tmp_path)[2]
    (tmp_path / "masks" / "c.png").unlink()
    with pytest.raises(InputError, match=r"c \(all\) lacks its label map"):
        open_samples(tmp_path)
    np.save(tmp_path / "masks" / "c.npy", np.zeros((HEIGHT, WIDTH)))
    with pytest.raises(InputError, match="integers"):
        open_samples(tmp_path)[2]


def test_more_than_255_classes_keep_their_numbers(tmp_path):
    draw_folder(tmp_path)
    many = LabelSet.of([f"c{i}" for i in range(300)])
    ids = stripes(0, 0, 0).astype(np.uint16)
    ids[0, :4] = (255, 256, 299, 65535)
    save(tmp_path / "masks" / "a.png", ids)
    sample = open_samples(tmp_path, classes=many)[0]
    assert sample.mask[0, :4].tolist() == [255, 256, 299, ignore_index(many)]
    ids[3, 5] = 300
    save(tmp_path / "masks" / "a.png", ids)
    with pytest.raises(InputError, match=r"a\.png: label id 300 at \(3, 5\)"):
        open_samples(tmp_path, classes=many)[0]


# Hugging Face ---------------------------------------------------------------------------------------------------


def test_rows_of_a_hugging_face_data_set_are_samples(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {
        "image": [Image.fromarray(photo(i)) for i in range(2)],
        "annotation": [Image.fromarray(stripes(0, 1, 150))] * 2,
    }
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    rows = datasets.Dataset.from_dict(columns, features=features)
    samples = PairSamples(row_pairs(rows, tmp_path), ADE20K)
    assert len(samples) == 2
    for i, sample in enumerate(samples):
        assert sample.name == f"00000{i}"
        np.testing.assert_array_equal(sample.image, photo(i))
        np.testing.assert_array_equal(sample.mask, stripes(255, 0, 149))
    with pytest.raises(UnknownNameError, match="did you mean 'annotation'"):
        row_pairs(rows, tmp_path, mask="anotation")
    bad = rows.add_column("wrong", [0, 1])
    with pytest.raises(InputError, match="column 'wrong' of row 0 should hold a label map"):
        PairSamples(row_pairs(bad, tmp_path, mask="wrong"))[0]
    with pytest.raises(InputError, match="no rows"):
        row_pairs(rows.select([]), tmp_path)


@pytest.fixture
def saved(tmp_path):
    """A data set of two splits, as `save_to_disk` leaves it, with names for its classes."""
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})

    def rows(seeds):
        columns = {
            "image": [Image.fromarray(photo(i)) for i in seeds],
            "label": [Image.fromarray(stripes(0, 1, 255))] * len(seeds),
        }
        return datasets.Dataset.from_dict(columns, features=kinds)

    parts = datasets.DatasetDict(train=rows(range(4)), validation=rows(range(4, 6)))
    parts.save_to_disk(str(tmp_path / "hub"))
    write(tmp_path / "hub" / "classes.txt", "dark\nred\ngreen\nblue\n")
    return tmp_path / "hub"


def test_the_folder_of_a_hugging_face_data_set_is_opened_divided_and_examined(saved):
    data = open_data(saved)
    training, held_out = data.samples("train"), data.samples()
    assert (len(training), len(held_out), held_out.split) == (4, 2, "val")
    assert training.classes.names == ("dark", "red", "green", "blue")
    np.testing.assert_array_equal(held_out[1].image, photo(5))
    np.testing.assert_array_equal(held_out[1].mask, stripes(0, 1, 255))
    report = examine(data)
    assert report.safe
    assert report.splits == {"train": 4, "val": 2}
    assert report.pixels == {0: 6 * 800, 1: 6 * 800, 2: 0, 3: 0}
    (saved / "train" / "state.json").unlink()
    with pytest.raises(InputError, match="datasets cannot load it"):
        open_data(saved)


def test_one_hugging_face_split_divides_itself_as_a_folder_does(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {"image": [Image.fromarray(photo(i)) for i in range(9)]}
    columns["mask"] = [Image.fromarray(stripes(0, 1))] * 9
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path))
    data = open_data(tmp_path)
    names = [set(data.samples(split).names) for split in ("train", "val")]
    assert names == [set(part) for part in split_by_name(f"{i:06d}" for i in range(9))]


def test_rows_without_a_picture_that_can_be_read_are_found(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {
        "image": [Image.fromarray(photo()), None, {"bytes": b"none", "path": None}],
        "mask": [Image.fromarray(stripes(0, 1)), Image.fromarray(stripes(0, 1)), None],
    }
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path))
    errors = [f.message for f in examine(open_data(tmp_path)).findings if f.severity == "error"]
    assert [re.search(r"row (\d).*", message)[1] for message in errors] == ["1", "2", "2"]
    with pytest.raises(InputError, match="row 1 has no picture in column 'image'"):
        open_data(tmp_path).samples("all")[1]


@pytest.mark.parametrize("command", ["check", "evaluate", "train"])
def test_commands_take_the_folder_of_a_hugging_face_data_set(command, saved, tmp_path, colors_model):
    pytest.importorskip("accelerate")
    settings = {"steps": 1, "batch_size": 2, "model": "unet", "model_options": {"width": 2}, "image_size": 32}
    write(tmp_path / "tiny.json", json.dumps({**settings, "workers": 0, "data": str(saved)}))
    arguments = {
        "check": [saved],
        "evaluate": ["--data", saved, "--model", colors_model],
        "train": ["--config", tmp_path / "tiny.json", "--out", tmp_path / "run"],
    }
    result = CliRunner().invoke(app, [command, *map(str, arguments[command])])
    assert result.exit_code == 0, result.exception
    says = {"check": "safe to train", "evaluate": "2 pictures", "train": "mean IoU"}
    assert says[command] in result.output


# Opened once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "train", "train --config"])
def test_a_data_set_is_opened_once(command, tmp_path, monkeypatch):
    """COCO's JSON is hundreds of megabytes: defaults, doctor and training share what was read of it."""
    pytest.importorskip("pycocotools")
    draw_coco(tmp_path / "coco")
    square = [[0, 0, 40, 0, 40, 40, 0, 40]]
    both = [coco_json(number, [(17, square, 1600, 0)]) for number in (8, 9)]
    both[0]["images"] += both[1]["images"]
    both[0]["annotations"] += both[1]["annotations"]
    write(tmp_path / "coco" / "annotations" / "instances_train2017.json", json.dumps(both[0]))
    for number in (8, 9):
        save(tmp_path / "coco" / "train2017" / f"{number:012d}.jpg", photo(number))
    settings = {"steps": 1, "batch_size": 2, "model": "unet", "model_options": {"width": 2}, "image_size": 32}
    write(tmp_path / "tiny.json", json.dumps({**settings, "workers": 0, "data": str(tmp_path / "coco")}))
    parsed = []
    loads = json.loads

    def noted(text, **hooks):
        parsed.append(text)
        return loads(text, **hooks)

    monkeypatch.setattr("pixelwise.untrusted.json.loads", noted)
    words = {
        "check": ["check", tmp_path / "coco"],
        "train": [
            "train", "--data", tmp_path / "coco", "--encoder", "none", "--steps", "1", "--image-size", "32",
            "--out", tmp_path / "run", "--workers", "0", "--losses", "cross_entropy=1",
        ],
        "train --config": ["train", "--config", tmp_path / "tiny.json", "--out", tmp_path / "run"],
    }  # fmt: skip
    result = CliRunner().invoke(app, [str(word) for word in words[command]])
    assert result.exit_code == 0, result.exception
    files = [
        text for text in parsed if b"annotations" in (text if isinstance(text, bytes) else text.encode())
    ]
    assert len(files) == 2  # of train and of val, each once


@pytest.mark.parametrize("layout", ["voc", "sbd", "pet"])
@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", ".hidden", "a\x00b", "\x1b[31mred"])
def test_a_list_that_names_more_than_a_file_is_refused(tmp_path, layout, name):
    """Names go into paths that are read and, in a report, written."""
    DRAWN[layout](tmp_path)
    for path in tmp_path.rglob("*.txt"):
        path.write_text(f"{name} 1 1 1\n")
    with pytest.raises(InputError, match=r"\.txt names the picture .*expected the plain name"):
        open_samples(tmp_path, layout)


def test_names_of_anybody_become_names_of_files():
    for name in ("../../x", "/x", "C:\\x", "..", "", "a\nb", "x" * 5000, "\u202egpj.exe"):
        plain = plain_name(name)
        assert Path(plain).name == plain
        assert not plain.startswith(".")
        assert len(plain) <= 200
    assert plain_name("Photo 1 (2).jpg") == "Photo 1 (2).jpg"
    assert plain_name("2007_000033") == "2007_000033"
