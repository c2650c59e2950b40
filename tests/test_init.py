"""`pixelwise init` and what `check` says before and after: what people have, typed as they would type it.

Each folder is drawn as somebody would bring it. `init` shows what it pairs, never guesses in silence, never touches its
source, and what it writes is what `check` calls safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from pathlib import Path, PurePath
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from typer.main import get_command
from typer.testing import CliRunner

from pixelwise.cli.app import app
from pixelwise.datasets.adopt.names import pair
from pixelwise.datasets.doctor import examine
from pixelwise.datasets.manifest import read_manifest
from pixelwise.datasets.opening import open_data
from pixelwise.errors import PixelwiseWarning
from pixelwise.labels import VOC

COUNT = 8
"""Pictures of a set."""

COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 128)], np.uint8)


COMMAND = get_command(app)
"""The command line made once: making it takes longer than most of what is typed here."""


def command(*words: object, answer: str | None = None):
    with patch("typer.testing._get_command", lambda _: COMMAND):
        return CliRunner().invoke(app, [*map(str, words)], input=answer)


def photo(seed: int, side: tuple[int, int] = (30, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*side, 3), dtype=np.uint8))


def curve(seed: int, scale: int = 1, width: int = 3) -> Image.Image:
    """A white line on black, 40 x 30; scale: drawn larger and made small, as antialiasing does."""
    draw = np.random.default_rng(seed)
    image = Image.new("L", (40 * scale, 30 * scale))
    points = [(int(x) * scale, int(y) * scale) for x, y in draw.integers((2, 2), (38, 28), (3, 2))]
    ImageDraw.Draw(image).line(points, fill=255, width=width * scale)
    return image.resize((40, 30), Image.Resampling.BOX)


def blobs(seed: int) -> np.ndarray:
    """Ids 0 to 3 in discs, uint8 (30, 40)."""
    draw = np.random.default_rng(seed)
    image = Image.new("L", (40, 30))
    for kind in (1, 2, 3, 1):
        x, y = map(int, draw.integers((0, 0), (28, 18)))
        ImageDraw.Draw(image).ellipse((x, y, x + 11, y + 11), fill=kind)
    return np.asarray(image)


def objects(seed: int) -> np.ndarray:
    """Numbered squares that touch, uint16 (30, 40)."""
    draw = np.random.default_rng(seed)
    ids = np.zeros((30, 40), np.uint16)
    places = draw.permutation(48)[: draw.integers(8, 45)]
    for number, place in enumerate(sorted(places), 1):
        row, column = divmod(int(place), 8)
        ids[row * 5 : row * 5 + 5, column * 5 : column * 5 + 4] = number
    return ids


def put(path: Path, image: Image.Image | np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)


def fill(root: Path, picture: str, mask: str, of, count: int = COUNT, seed: int = 0, **options) -> Path:
    """`count` pairs; picture and mask: names with {} for the number; of: from a number to a label map."""
    for i in range(1, count + 1):
        put(root / picture.format(i), photo(seed + i))
        put(root / mask.format(i), of(i), **options)
    return root


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def made(source: Path, *options: object, count: int = COUNT) -> Path:
    """The data set that `init` makes of `source`, which stays as it was, and which `check` finds nothing wrong with."""
    before, out = snapshot(source), source.with_name(source.name + "_out")
    done = command("init", source, "--out", out, "--yes", *options)
    assert done.exit_code == 0, done.exception or done.output
    assert f"wrote {count} pairs" in done.output
    assert snapshot(source) == before
    assert sorted(p.name for p in out.parent.iterdir() if p.name.startswith(".")) == []
    checked = command("check", out)
    assert (checked.exit_code, checked.output.splitlines()[-1]) == (0, "safe to train"), checked.output
    assert "error" not in checked.output
    return out


def ids_of(root: Path, name: str) -> np.ndarray:
    (found,) = (p for p in open_data(root).pairs if p.name == name)
    return found.read_ids()


# Names --------------------------------------------------------------------------------------------------------


NAMES = [
    ("images/{:02}_training.tif", "1st_manual/{:02}_manual1.gif"),
    ("Image_{:02}L.jpg", "Image_{:02}L_1stHO.png"),
    ("{}.png", "{}_mask.png"),
    ("images/{}_training.tif", "1st_manual/{}_manual1.gif"),
    ("{}.png", "mask_{}.png"),
    ("a{}.jpg", "a{}_gt.png"),
    ("img/{}.png", "gt/{}.png"),
    ("imgs/x{}.png", "labels/x{}_L.png"),
    ("images/{}.jpg", "annotations/{}.png"),
    ("photos/IMG_{:04}.jpg", "truth/label_{}.png"),
    ("sat/tile-{}-rgb.png", "seg/tile-{}-seg.png"),
    ("{}/image.png", "{}/mask.png"),
    ("data/{}/frame.jpg", "data/{}/frame_label.png"),
    ("train/{}.png", "trainannot/{}.png"),
    ("a/{}.jpg", "gt/a_{:03}.png"),
]


@pytest.mark.parametrize(("picture", "mask"), NAMES)
def test_names_as_people_give_them_find_each_other(picture, mask):
    pictures, masks = ([PurePath(name.format(i)) for i in range(1, 25)] for name in (picture, mask))
    assert pair(pictures, masks).pictures == dict(zip(masks, pictures, strict=True))


@pytest.mark.parametrize(
    ("picture", "mask"),
    [*NAMES[:3], *(pytest.param(*names, marks=pytest.mark.exhaustive) for names in NAMES[3:])],
)
def test_pictures_and_label_maps_are_paired_by_what_their_names_share(picture, mask, tmp_path):
    options = {"quality": 95} if mask.endswith("jpg") else {}
    source = fill(tmp_path / "mine", picture, mask, lambda i: curve(i).convert("1"), **options)
    out = tmp_path / "out"
    done = command("init", source, "--out", out, "--yes")
    assert done.exit_code == 0, done.exception
    assert f"wrote {COUNT} pairs" in done.output
    assert "left out" not in done.output
    truth = {photo(i).tobytes(): np.asarray(curve(i).convert("1")) for i in range(1, COUNT + 1)}
    for found in open_data(out).pairs:
        if picture.endswith("jpg"):  # the pictures are not exact
            number = int(re.findall(r"\d+", found.name)[0])
            expected = np.asarray(curve(number).convert("1"))
        else:
            expected = truth[pixels(found.image).tobytes()]
        np.testing.assert_array_equal(found.read_ids(), expected)


WORD = st.text("abcdefghij", min_size=2, max_size=5).filter(lambda word: word != "ad")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 999), min_size=2, max_size=12, unique=True),
    WORD, WORD, st.sampled_from(["_mask", "_gt", "-label", "_seg", "_manual1", "_1stHO", "_2", ""]), st.integers(1, 4),
)  # fmt: skip
def test_numbers_find_each_other_whatever_stands_around_them(numbers, before, after, rest, digits):
    pictures = [PurePath(f"images/{before}{n}.jpg") for n in numbers]
    masks = [PurePath(f"masks/{after}{n:0{digits}}{rest}.png") for n in numbers]
    found = pair(pictures, masks)
    right = dict(zip(masks, pictures, strict=True))
    assert all(right[mask] == picture for mask, picture in found.pictures.items())
    if before == after or len(numbers) > 3:
        assert found.pictures == right


@settings(max_examples=30, deadline=None)
@given(
    st.lists(WORD, min_size=1, max_size=6, unique=True), st.lists(WORD, min_size=1, max_size=6, unique=True)
)
def test_no_label_map_is_given_to_a_picture_of_another_name(ours, theirs):
    pictures, masks = [PurePath(f"a/{w}.png") for w in ours], [PurePath(f"b/{w}_mask.png") for w in theirs]
    found = pair(pictures, masks)
    assert {(m.stem, p.stem) for m, p in found.pictures.items()} == {
        (f"{w}_mask", w) for w in {*ours} & {*theirs}
    }


def test_what_has_no_partner_or_several_is_said_and_left_out(tmp_path):
    source = fill(tmp_path / "mine", "images/p{}.png", "masks/p{}.png", lambda i: curve(i).convert("1"))
    put(source / "images/other.png", photo(900))
    put(source / "masks/elsewhere.png", curve(901).convert("1"))
    put(source / "masks/p7-b.gif", curve(902).convert("1"))
    put(source / "masks/p7_b.gif", curve(903).convert("1"))
    done = command("init", source, "--out", tmp_path / "out", "--yes")
    assert done.exit_code == 0, done.exception
    assert "1 picture without labels: images/other.png" in done.output
    assert "masks/elsewhere.png" in done.output
    assert "images/p7.png could have masks/p7-b.gif or masks/p7_b.gif, and was left out" in done.output
    np.testing.assert_array_equal(ids_of(tmp_path / "out", "p7"), np.asarray(curve(7).convert("1")))


def meant(message: str) -> list[list[str]]:
    """The commands in a message, as a shell would take them apart."""
    return [shlex.split(text) for text in re.findall(r"`(pixelwise [^`]+)`", message)]


@pytest.mark.parametrize(
    ("picture", "masks"),
    [
        ("images/{}_training.tif", ("1st_manual/{}_manual1.gif", "mask/{}_training_mask.gif")),
        ("Image_{:02}L.jpg", ("Image_{:02}L_1stHO.png", "Image_{:02}L_2ndHO.png")),
    ],
)
def test_of_two_sets_of_label_maps_one_must_be_named_and_the_command_for_it_works(picture, masks, tmp_path):
    source = tmp_path / "mine"
    for place, width in zip(masks, (3, 5), strict=True):
        fill(source, picture, place, lambda i, width=width: curve(i, width=width).convert("1"))
    refused = command("init", source, "--out", tmp_path / "out", "--yes")
    assert refused.exit_code != 0
    assert str(refused.exception).startswith("several things label the pictures: ")
    assert all(place.split("{")[0] in str(refused.exception) for place in masks)
    (words,) = meant(str(refused.exception))
    done = command(*words[1:], "--yes")
    assert done.exit_code == 0, done.exception
    assert f"wrote {COUNT} pairs" in done.output
    name = PurePath(picture.format(5)).stem
    np.testing.assert_array_equal(ids_of(tmp_path / "out", name), np.asarray(curve(5).convert("1")))


# What label maps hold ---------------------------------------------------------------------------------------


def test_black_and_white_becomes_two_classes(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve)
    out = made(source, "--classes", "ground,vessel")
    np.testing.assert_array_equal(ids_of(out, "5"), np.asarray(curve(5)) // 255)
    manifest = read_manifest(out)
    assert manifest.labels.names == ("ground", "vessel")
    assert "255 became 1 (vessel)" in " ".join(manifest.done)
    assert (out / "classes.txt").read_text() == "0 ground\n1 vessel\n"


def test_any_two_values_do_and_a_list_of_two_names_in_the_source_is_used(tmp_path):
    source = fill(
        tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: np.asarray(curve(i)) // 255 * 100 + 50
    )
    (source / "classes.txt").write_text("ground\nroad\n")
    out = made(source)
    assert open_data(out).classes.names == ("ground", "road")
    np.testing.assert_array_equal(ids_of(out, "5"), np.asarray(curve(5)) // 255)


def test_antialiased_label_maps_are_cut_in_the_middle_and_the_doubt_is_said(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: curve(i, 4, 4))
    out = made(source)
    for i in (1, 2, 3):
        np.testing.assert_array_equal(ids_of(out, str(i)), np.asarray(curve(i, 4, 4)) > 127)
    every = np.concatenate([np.asarray(curve(i, 4, 4)).ravel() for i in range(1, COUNT + 1)])
    doubt = ((every > 255 * 0.25) & (every < 255 * 0.75)).mean()
    assert f"{doubt:.2%} of all pixels are nearly as far from another" in " ".join(read_manifest(out).done)
    refused = command("init", source, "--out", tmp_path / "strict", "--yes", "--doubt", "0.001")
    assert refused.exit_code != 0
    assert f"{doubt:.1%} of the pixels" in str(refused.exception)
    assert not (tmp_path / "strict").exists()


def test_label_maps_that_jpeg_has_changed_become_the_nearest_value(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.jpg", lambda i: curve(i, 1, 5), quality=80)
    out = made(source)
    for i in (1, 2):
        np.testing.assert_array_equal(ids_of(out, str(i)), np.asarray(curve(i, 1, 5)) > 127)


def test_colours_are_found_and_kept_and_may_be_named(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: COLOURS[blobs(i)])
    out = made(source)
    classes = open_data(out).classes
    order = [classes.colors.index(tuple(map(int, c))) for c in COLOURS]
    assert order[0] == 0
    np.testing.assert_array_equal(ids_of(out, "5"), np.array(order)[blobs(5)])
    palette = tmp_path / "palette.txt"
    palette.write_text("# of my own\nvoid 0 0 0\nred 128 0 0\ngreen #008000\n128,128,128 grey\n")
    named = tmp_path / "named"
    done = command("init", source, "--out", named, "--yes", "--palette", palette)
    assert done.exit_code == 0, done.exception
    assert open_data(named).classes.names == ("red", "green", "grey")
    expected = np.array([255, 0, 1, 2])[blobs(5)]
    np.testing.assert_array_equal(ids_of(named, "5"), expected)


def test_a_colour_that_the_palette_does_not_name_is_in_doubt(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: COLOURS[blobs(i)])
    palette = tmp_path / "palette.txt"
    palette.write_text("ground 0 0 0\nred 128 0 0\n")
    refused = command("init", source, "--out", tmp_path / "out", "--yes", "--palette", palette)
    assert refused.exit_code != 0
    assert "of the pixels of the label maps are nearly as far" in str(refused.exception)


def test_numbered_objects_become_one_class_and_that_is_said(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", objects)
    out = made(source, "--classes", "ground,cell")
    np.testing.assert_array_equal(ids_of(out, "5"), objects(5) > 0)
    (said,) = read_manifest(out).done
    most = max(int(objects(i).max()) for i in range(1, COUNT + 1))
    assert f"up to {most} in a picture: all became 1 (cell), and those that touch are one area" in said
    kept = tmp_path / "kept"
    assert command("init", source, "--out", kept, "--yes", "--keep-ids").exit_code == 0
    np.testing.assert_array_equal(ids_of(kept, "5"), objects(5))


def test_ids_are_kept_and_those_that_a_list_does_not_name_are_refused(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", blobs)
    out = made(source)
    np.testing.assert_array_equal(ids_of(out, "5"), blobs(5))
    (source / "classes.txt").write_text("a\nb\nc\n")
    refused = command("init", source, "--out", tmp_path / "other", "--yes")
    assert refused.exit_code != 0
    assert "hold 3, which is none of the 3 classes that are listed (0-2)" in str(refused.exception)


def test_palettes_that_differ_from_file_to_file_go_by_their_colours(tmp_path):
    def painted(i: int) -> Image.Image:
        """Black and red, whose indices change places in every second file."""
        inside = np.asarray(curve(i)) > 0
        image = Image.fromarray((inside if i % 2 else ~inside).astype(np.uint8), "P")
        colours = [(0, 0, 0), (200, 0, 0)] if i % 2 else [(200, 0, 0), (0, 0, 0)]
        image.putpalette([v for c in colours for v in c] + [0] * (768 - 6))
        return image

    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", painted)
    out = made(source)
    for i in (1, 2, 3):
        np.testing.assert_array_equal(ids_of(out, str(i)), np.asarray(curve(i)) > 0)


def test_photographs_in_the_place_of_label_maps_are_refused(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: photo(i + 500), count=6)
    refused = command("init", source, "--out", tmp_path / "out", "--yes")
    assert refused.exit_code != 0
    assert "\n" not in str(refused.exception)


# Classes in files of their own, outlines, layouts, pages ----------------------------------------------------------


def test_a_folder_a_class_becomes_one_label_map_where_they_exclude_each_other(tmp_path):
    source = tmp_path / "mine"
    for kind, name in enumerate(("cat", "dog", "sky"), 1):
        fill(
            source,
            "images/{}.png",
            f"masks/{name}/{{}}.png",
            lambda i, k=kind: (blobs(i) == k).astype(np.uint8) * 255,
        )
    out = made(source)
    assert open_data(out).classes.names == ("background", "cat", "dog", "sky")
    np.testing.assert_array_equal(ids_of(out, "5"), blobs(5))


def test_classes_that_overlap_are_asked_for_and_kept_as_regions(tmp_path):
    source = tmp_path / "mine"
    for name, width in (("cell", 9), ("nucleus", 3)):
        fill(
            source,
            "images/{}.png",
            f"masks/{{}}_{name}.png",
            lambda i, w=width: curve(i, width=w).convert("1"),
        )
    refused = command("init", source, "--out", tmp_path / "x", "--yes")
    assert refused.exit_code != 0
    assert "say --regions" in str(refused.exception)
    out = made(source, "--regions")
    assert open_data(out).regions
    assert sorted(p.name for p in (out / "masks").iterdir()) == ["cell", "nucleus"]
    codes = ids_of(out, "5")
    np.testing.assert_array_equal(codes & 1, np.asarray(curve(5, width=9).convert("1")))
    np.testing.assert_array_equal(codes >> 1, np.asarray(curve(5, width=3).convert("1")))


SQUARE = [4.0, 5.0, 14.0, 5.0, 14.0, 15.0, 4.0, 15.0]
SMALL = [6.0, 7.0, 9.0, 7.0, 9.0, 10.0, 6.0, 10.0]


def drawn() -> np.ndarray:
    ids = np.zeros((30, 40), np.uint8)
    ids[5:15, 4:14] = 1
    ids[7:10, 6:9] = 2
    return ids


def coco_file(count: int, names: str = "{}.png") -> dict:
    return {
        "images": [{"id": i, "file_name": names.format(i), "height": 30, "width": 40} for i in range(1, count + 1)],
        "categories": [{"id": 7, "name": "cell"}, {"id": 9, "name": "nucleus"}],
        "annotations": [
            {"id": 2 * i + k, "image_id": i, "category_id": c, "segmentation": [s], "area": 1, "bbox": [0, 0, 1, 1]}
            for i in range(1, count + 1)
            for k, (c, s) in enumerate(((9, SMALL), (7, SQUARE)))
        ],
    }  # fmt: skip


def pictures(root: Path, count: int = COUNT, names: str = "images/{}.png", seed: int = 0) -> Path:
    for i in range(1, count + 1):
        put(root / names.format(i), photo(seed + i))
    return root


def test_coco_polygons_are_drawn_the_smaller_over_the_larger(tmp_path):
    source = pictures(tmp_path / "mine")
    (source / "annotations.json").write_text(json.dumps(coco_file(COUNT)))
    out = made(source)
    assert open_data(out).classes.names == ("background", "cell", "nucleus")
    np.testing.assert_array_equal(ids_of(out, "5"), drawn())
    regions = tmp_path / "regions"
    assert command("init", source, "--out", regions, "--yes", "--regions").exit_code == 0
    codes = ids_of(regions, "5")
    np.testing.assert_array_equal(codes & 1, drawn() > 0)
    np.testing.assert_array_equal(codes >> 1, drawn() == 2)


def test_coco_run_lengths_and_crowds(tmp_path):
    from pixelwise.outputs.coco import encode_rle

    source, content = pictures(tmp_path / "mine"), coco_file(COUNT)
    inside = np.zeros((30, 40), bool)
    inside[20:25, 20:30] = True
    content["annotations"].append(
        {"id": 999, "image_id": 5, "category_id": 7, "segmentation": encode_rle(inside)}
    )
    crowd = np.zeros((30, 40), bool)
    crowd[0:12, 0:12] = True
    content["annotations"].append(
        {"id": 998, "image_id": 5, "category_id": 7, "segmentation": encode_rle(crowd), "iscrowd": 1}
    )
    (source / "annotations.json").write_text(json.dumps(content))
    out = made(source)
    expected = np.where(crowd & (drawn() == 0), 255, np.where(inside, 1, drawn()))
    np.testing.assert_array_equal(ids_of(out, "5"), expected)


def test_contours_as_opencv_traces_them_give_the_label_map_that_was_traced(tmp_path):
    """Their corners are the middles of the outermost pixels: a polygon through them loses half a pixel all around."""
    source, content = pictures(tmp_path / "mine"), coco_file(COUNT)
    diamond = [[10, 5], [9, 6], [8, 7], [9, 8], [10, 9], [11, 9], [12, 8], [12, 7], [11, 6]]
    inside = np.zeros((30, 40), bool)
    for row, columns in {5: (10, 10), 6: (9, 11), 7: (8, 12), 8: (9, 12), 9: (10, 11)}.items():
        inside[row, columns[0] : columns[1] + 1] = True
    outline = [float(v) for corner in diamond for v in corner]
    content["annotations"] = [
        {"id": i, "image_id": i, "category_id": 7, "segmentation": [outline]} for i in range(1, COUNT + 1)
    ]
    content["categories"] = content["categories"][:1]
    (source / "annotations.json").write_text(json.dumps(content))
    out = made(source)
    np.testing.assert_array_equal(ids_of(out, "5"), inside)
    assert any("middles of pixels" in said for said in read_manifest(out).done)


def test_the_parts_that_files_of_outlines_name_are_kept(tmp_path):
    source = tmp_path / "mine"
    for part, count in (("train", 5), ("valid", 3)):
        pictures(source, count, f"{part}/{part}{{}}.png", 100 * count)
        (source / part / "_annotations.coco.json").write_text(json.dumps(coco_file(count, f"{part}{{}}.png")))
    out = made(source)
    assert examine(open_data(out)).splits == {"train": 5, "val": 3}


def test_yolo_outlines_are_drawn_with_the_names_of_data_yaml(tmp_path):
    source = pictures(tmp_path / "mine")
    line = "{} " + " ".join(str(v / (40, 30)[k % 2]) for k, v in enumerate(SQUARE))
    small = "{} " + " ".join(str(v / (40, 30)[k % 2]) for k, v in enumerate(SMALL))
    (source / "labels").mkdir()
    for i in range(1, COUNT + 1):
        (source / f"labels/{i}.txt").write_text(f"{small.format(1)}\n{line.format(0)}\n")
    (source / "data.yaml").write_text("path: x\nnames:\n  0: cell\n  1: nucleus\nnc: 2\n")
    out = made(source)
    assert open_data(out).classes.names == ("background", "cell", "nucleus")
    np.testing.assert_array_equal(ids_of(out, "5"), drawn())


def test_yolo_boxes_are_refused_and_labelme_is_drawn(tmp_path):
    source = pictures(tmp_path / "boxes", 3)
    for i in range(1, 4):
        (source / f"images/{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    refused = command("init", source, "--out", tmp_path / "x", "--yes")
    assert refused.exit_code != 0
    assert "hold boxes" in str(refused.exception)
    source = pictures(tmp_path / "labelme", names="{}.png")
    for i in range(1, COUNT + 1):
        shapes = [
            {"label": "nucleus", "points": [[6, 7], [9, 10]], "shape_type": "rectangle"},
            {"label": "cell", "points": np.reshape(SQUARE, (-1, 2)).tolist(), "shape_type": "polygon"},
            {"label": "cell", "points": [[1, 1], [5, 5]], "shape_type": "line"},
        ]
        said = {"imagePath": f"{i}.png", "imageHeight": 30, "imageWidth": 40, "shapes": shapes}
        (source / f"{i}.json").write_text(json.dumps(said))
    out = made(source)
    np.testing.assert_array_equal(ids_of(out, "5"), drawn())
    assert any("kind 'line'" in said for said in read_manifest(out).done)


def test_voc_with_its_palette_and_lists(tmp_path):
    def painted(i: int) -> Image.Image:
        image = Image.fromarray(np.where(blobs(i) == 1, 15, 0).astype(np.uint8), "P")
        image.putpalette(np.concatenate([VOC.palette(), np.zeros((235, 3), np.uint8)]).tobytes())
        return image

    source = fill(tmp_path / "mine", "JPEGImages/{}.jpg", "SegmentationClass/{}.png", painted, count=12)
    fill(source, "JPEGImages/{}.jpg", "SegmentationObject/{}.png", painted, count=12)
    lists = source / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for part, numbers in (("train", range(1, 7)), ("val", range(7, 11)), ("trainval", range(1, 11))):
        (lists / f"{part}.txt").write_text("".join(f"{n}\n" for n in numbers))
    out = made(source, count=10)
    data = open_data(out)
    assert data.classes == VOC
    assert examine(data).splits == {"train": 6, "val": 4}
    assert set(np.unique(ids_of(out, "5"))) == {0, 15}


def test_a_labelmap_with_colours_in_the_source_names_them(tmp_path):
    source = fill(
        tmp_path / "mine", "JPEGImages/{}.jpg", "SegmentationClass/{}.png", lambda i: COLOURS[blobs(i)]
    )
    (source / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\nsky:128,128,128::\n"
    )
    out = made(source)
    assert open_data(out).classes.names == ("background", "cat", "dog", "sky")
    np.testing.assert_array_equal(ids_of(out, "5"), blobs(5))


def test_folders_that_are_parts_stay_parts(tmp_path):
    source = tmp_path / "mine"
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        fill(source, f"{part}/img/{part}{{}}.png", f"{part}/gt/{part}{{}}.png", blobs, count, 100 * count)
    out = made(source, count=9)
    assert examine(open_data(out)).splits == {"test": 3, "train": 4, "val": 2}


def test_pages_of_a_tiff_become_pictures(tmp_path):
    source = tmp_path / "mine"
    source.mkdir()
    for name, of in (("train-volume.tif", lambda i: photo(i).convert("L")), ("train-labels.tif", curve)):
        first, *others = (of(i) for i in range(COUNT))
        first.save(source / name, save_all=True, append_images=others)
    out = made(source)
    names = sorted(p.stem for p in (out / "images").iterdir())
    assert (names[0], names[-1]) == ("train-volume_1", f"train-volume_{COUNT}")
    np.testing.assert_array_equal(pixels(out / "images/train-volume_6.png"), photo(5).convert("L"))
    np.testing.assert_array_equal(ids_of(out, "train-volume_6"), np.asarray(curve(5)) // 255)


def test_pictures_are_copied_as_they_are_and_turned_ones_written_as_their_labels_lie(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.jpg", "masks/{}.png", lambda i: curve(i).convert("1"))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(3).save(source / "images/3.jpg", exif=exif, quality=100)
    out = made(source)
    assert (out / "images/5.jpg").read_bytes() == (source / "images/5.jpg").read_bytes()
    np.testing.assert_array_equal(pixels(out / "images/3.png"), pixels(source / "images/3.jpg"))
    np.testing.assert_array_equal(ids_of(out, "3"), np.asarray(curve(3).convert("1")))


def test_names_of_any_kind_become_plain_and_stay_apart(tmp_path):
    source = tmp_path / "mine"
    for folder in ("a", "b"):
        fill(source, f"{folder}/images/x\n{{}}.png", f"{folder}/masks/x\n{{}}.png", blobs)
    done = command("init", source, "--out", tmp_path / "out", "--yes")
    assert done.exit_code == 0, done.exception
    names = {p.name for p in open_data(tmp_path / "out").pairs}
    assert len(names) == 2 * COUNT
    assert {"a_x_5", "b_x_5"} <= names
    assert "\\n" in done.output


# Asking, and what stands in the way -----------------------------------------------------------------------------


def test_without_a_terminal_it_shows_the_pairs_writes_nothing_and_says_what_to_type(tmp_path, monkeypatch):
    source = fill(tmp_path / "my own", "images/{}.png", "masks/{}.png", curve, count=3)
    words = ["init", str(source), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["pixelwise", *words])
    asked = command(*words)
    assert asked.exit_code == 2
    assert "images/1.png" in asked.output
    assert not (tmp_path / "out").exists()
    typed = shlex.split(asked.stderr.split("type: ")[1])
    assert command(*typed[1:]).exit_code == 0
    assert (tmp_path / "out/pixelwise.json").exists()


@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked(answer, written, tmp_path, monkeypatch):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=3)
    monkeypatch.setattr("pixelwise.cli.init.can_be_asked", lambda: True)
    done = command("init", source, "--out", tmp_path / "out", answer=answer)
    assert "write 3 pairs" in done.output
    assert (tmp_path / "out").exists() == written
    assert (done.exit_code == 0) == written


def test_a_person_who_closes_the_input_says_no(tmp_path, monkeypatch):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=3)
    monkeypatch.setattr("pixelwise.cli.init.can_be_asked", lambda: True)
    done = command("init", source, "--out", tmp_path / "out", answer="")
    assert (done.exit_code, done.stderr) == (2, "pixelwise: nothing was written\n")


@pytest.mark.parametrize("step", ["survey", "Adoption._write_item"])
def test_ctrl_c_leaves_nothing_and_says_so(step, tmp_path, monkeypatch):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=3)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    where = "pixelwise.cli.init" if step == "survey" else "pixelwise.datasets.adopt.writing"
    monkeypatch.setattr(f"{where}.{step}", stopped)
    done = command("init", source, "--out", tmp_path / "out", "--yes")
    assert done.exit_code == 130
    assert (
        done.stderr
        == f"pixelwise: stopped: nothing was written to {tmp_path / 'out'}; type the same to begin anew\n"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
    monkeypatch.undo()
    assert command("init", source, "--out", tmp_path / "out", "--yes").exit_code == 0


def test_nothing_is_written_over_and_nothing_stays_of_what_fails(tmp_path, monkeypatch):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=3)
    (tmp_path / "out").mkdir()
    refused = command("init", source, "--out", tmp_path / "out", "--yes")
    assert refused.exit_code != 0
    assert "exists already" in str(refused.exception)
    (tmp_path / "out").rmdir()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    refused = command("init", source, "--out", tmp_path / "out", "--yes")
    assert "No space left on device" in str(refused.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=3)
    (tmp_path / ".out.unfinished/images").mkdir(parents=True)
    (tmp_path / ".out.unfinished/images/old.png").write_bytes(b"half")
    assert command("init", source, "--out", tmp_path / "out", "--yes").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]
    assert sorted(p.name for p in (tmp_path / "out/images").iterdir()) == ["1.png", "2.png", "3.png"]


def test_files_that_cannot_be_read_are_left_out_and_named(tmp_path):
    source = fill(
        tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: curve(i).convert("1"), count=6
    )
    whole = (source / "images/2.png").read_bytes()
    (source / "images/2.png").write_bytes(whole[: len(whole) // 2])
    (source / "masks/3.png").write_bytes(b"no picture")
    put(source / "masks/4.png", np.zeros((9, 9), np.uint8))
    done = command("init", source, "--out", tmp_path / "out", "--yes")
    assert done.exit_code == 0, done.exception
    left = [line for line in done.output.splitlines() if line.startswith("left out")]
    assert [re.search(r"images/(\d)", line)[1] for line in left] == ["2", "3", "4"]
    assert sorted(p.name for p in (tmp_path / "out/images").iterdir()) == ["1.png", "5.png", "6.png"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "there are no pictures"),
        (lambda root: put(root / "images/1.png", photo(1)), "name two folders"),
        (lambda root: (root / "x.txt").write_text("words"), "there are no pictures"),
    ],
)
def test_what_is_no_data_set_is_one_sentence(make, said, tmp_path):
    (tmp_path / "mine").mkdir()
    make(tmp_path / "mine")
    refused = command("init", tmp_path / "mine", "--out", tmp_path / "out", "--yes")
    assert refused.exit_code != 0
    assert said in str(refused.exception)
    assert "\n" not in str(refused.exception)


def test_a_data_set_of_ours_is_made_anew_with_its_own_classes_and_changes(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve)
    said = {"classes": [{"id": 0, "name": "ground"}, {"id": 1, "name": "road"}], "map_ids": "255=1"}
    (source / "pixelwise.json").write_text(json.dumps(said))
    out = made(source)
    assert open_data(out).classes.names == ("ground", "road")
    np.testing.assert_array_equal(ids_of(out, "5"), np.asarray(curve(5)) // 255)
    assert read_manifest(out).map_ids is None


def test_a_folder_inside_its_source_is_not_taken_for_a_source(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=3)
    before = snapshot(source)
    assert command("init", source, "--out", source / "ready", "--yes").exit_code == 0
    assert {k: v for k, v in snapshot(source).items() if not k.startswith("ready")} == before


def test_two_folders_whose_names_say_nothing_are_pictures_first(tmp_path):
    source = tmp_path / "mine"
    fill(source, "a/{}.png", "b/{}.png", curve)
    for i in range(1, COUNT + 1):  # pictures that look like label maps
        put(source / f"a/{i}.png", np.full((30, 40), i, np.uint8))
    done = command("init", source / "a", source / "b", "--out", tmp_path / "out", "--yes")
    assert done.exit_code == 0, done.exception
    assert pixels(tmp_path / "out/images/5.png").max() == 5


def test_links_are_followed_to_files_and_not_to_folders(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=3)
    os.symlink(source, source / "loop")
    os.symlink("nowhere.png", source / "images/9.png")
    assert "wrote 3 pairs" in command("init", source, "--out", tmp_path / "out", "--yes").output


def paletted(ids: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(ids.astype(np.uint8), "P")
    image.putpalette(colours + [0] * (768 - len(colours)))
    return image


def written(out: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(out / "masks" / name))


def some_ids(seed: int) -> np.ndarray:
    ids = blobs(seed) % 3
    ids[:3] = 255
    return ids


SHORT = [0, 0, 0, 128, 0, 0, 0, 128, 0]
"""A palette of three colours; all that follows is black."""


def test_ignored_pixels_that_a_short_palette_paints_black_stay_ignored(tmp_path):
    source = fill(
        tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: paletted(some_ids(i), SHORT), 3
    )
    out = tmp_path / "out"
    assert command("init", source, "--out", out, "--yes", "--classes", "background,cat,dog").exit_code == 0
    assert (written(out, "a1.png") == some_ids(1)).all()
    assert (written(out, "a3.png") == some_ids(3)).all()


def test_ids_with_and_without_a_palette_are_the_same_ids(tmp_path):
    def of(i: int) -> Image.Image:
        return paletted(blobs(i) % 3, SHORT) if i % 2 else Image.fromarray(blobs(i) % 3)

    source, out = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", of, 4), tmp_path / "out"
    assert command("init", source, "--out", out, "--yes").exit_code == 0
    assert all((written(out, f"a{i}.png") == blobs(i) % 3).all() for i in range(1, 5))


@pytest.mark.parametrize("counts", [(20, 23, 27, 21), (3, 7, 5, 4)], ids=["even density", "few"])
def test_numbered_objects_become_one_class(tmp_path, counts):
    def of(i: int) -> np.ndarray:
        ids = np.zeros((30, 40), np.uint16)
        for n in range(counts[i - 1]):
            row, column = divmod(n, 7)
            ids[row * 6 : row * 6 + 4, column * 5 : column * 5 + 4] = n + 1
        return ids

    source, out = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.tif", of, 4), tmp_path / "out"
    said = command("init", source, "--out", out, "--yes")
    assert said.exit_code == 0
    assert "--keep-ids" in said.output
    assert all((written(out, f"a{i}.png") == (of(i) > 0)).all() for i in range(1, 5))


def test_where_few_numbers_may_count_objects_the_option_is_named_and_works(tmp_path):
    def of(i: int) -> np.ndarray:
        ids = np.zeros((30, 40), np.uint8)
        for n, value in enumerate([3, 1, 2] if i < 3 else [1]):
            ids[5:15, n * 10 : n * 10 + 8] = value
        return ids

    source, out = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", of, 4), tmp_path / "out"
    assert "--map-ids 1-3=1" in command("init", source, "--out", tmp_path / "kept", "--yes").output
    assert "they may number objects" in command("check", source).output
    assert (written(tmp_path / "kept", "a1.png") == of(1)).all()
    said = command("check", tmp_path / "kept").output
    (typed,) = meant(said)
    assert command(*typed[1:], "--yes").exit_code == 0
    assert (written(Path(typed[typed.index("--out") + 1]), "a1.png") == (of(1) > 0)).all()
    assert command("init", source, "--out", out, "--yes", "--map-ids", "1-3=1").exit_code == 0
    assert (written(out, "a1.png") == (of(1) > 0)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_small_ids_in_jpeg_are_refused(tmp_path, classes):
    source = fill(
        tmp_path / "in", "images/a{}.png", "masks/a{}.jpg", lambda i: blobs(i) % classes, 3, quality=90
    )
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code != 0
    assert "PNG from their source" in str(said.exception)


def test_masks_of_two_tools_are_asked_about_and_both_answers_work(tmp_path):
    def of(i: int) -> np.ndarray:
        return np.where(blobs(i) > 0, 1 if i % 2 else 255, 0).astype(np.uint8)

    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", of, 4)
    said = str(command("init", source, "--out", tmp_path / "no", "--yes").exception)
    assert "--map-ids 255=1" in said
    assert "--map-ids 255=255" in said
    assert not (tmp_path / "no").exists()
    for change, wanted in (("255=1", of(2) // 255), ("255=255", of(2))):
        out = tmp_path / change
        assert command("init", source, "--out", out, "--yes", "--map-ids", change).exit_code == 0
        assert (written(out, "a2.png") == wanted).all()


def test_a_data_set_of_ours_in_the_source_is_skipped_and_named(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: blobs(i) % 3, 3)
    assert command("init", source, "--out", source / "data", "--yes").exit_code == 0
    again = command("init", source, "--out", tmp_path / "out", "--yes")
    assert again.exit_code == 0
    assert "made by init: data" in again.output
    assert len([*(tmp_path / "out" / "images").iterdir()]) == 3


def test_an_exif_tag_that_the_sizes_do_not_explain_is_said(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: blobs(i) % 3, 2)
    exif = Image.Exif()
    exif[0x0112] = 3
    photo(1).save(source / "images" / "a1.png", exif=exif)
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code == 0
    assert "1 picture (first images/a1.png) with an EXIF tag" in said.output


def coco_folder(root: Path, images: list, annotations: list, categories: list) -> Path:
    put(root / "a.png", photo(1))
    put(root / "b.png", photo(2))
    (root / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


IMAGES = [{"id": n, "file_name": f"{name}.png", "height": 30, "width": 40} for n, name in enumerate("ab")]
OUTLINED = {"image_id": 0, "category_id": 1, "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]}
CAT = {"id": 1, "name": "cat"}


@pytest.mark.parametrize(
    ("images", "annotations", "categories", "words"),
    [
        (IMAGES, [OUTLINED, OUTLINED | {"image_id": 77}], [CAT], "image 77"),
        ([IMAGES[0], IMAGES[1] | {"id": 0}], [OUTLINED], [CAT], "image id 0 twice"),
        (IMAGES, [OUTLINED], [CAT, {"id": 1, "name": "dog"}], "category id 1 twice"),
    ],
)  # fmt: skip
def test_ids_of_coco_that_do_not_fit_are_refused(tmp_path, images, annotations, categories, words):
    source = coco_folder(tmp_path / "in", images, annotations, categories)
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code != 0
    assert words in str(said.exception)


def test_coco_ids_written_as_texts_crowds_beside_many_categories_and_boxes(tmp_path):
    many = [{"id": n, "name": f"class {n}"} for n in range(1, 261)]
    crowd = OUTLINED | {"iscrowd": 1, "image_id": 1}
    boxed = {"image_id": 1, "category_id": 2, "bbox": [20, 2, 10, 6]}
    source = coco_folder(tmp_path / "in", IMAGES, [OUTLINED | {"image_id": "0"}, crowd, boxed], many)
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code == 0
    assert "1 object without an outline, only a box" in said.output
    assert (written(tmp_path / "out", "a.png")[5:15, 5:15] == 1).all()
    ids = written(tmp_path / "out", "b.png")
    assert (ids[5:15, 5:15] == 65535).all()
    assert (ids[2:8, 20:30] == 65535).all()
    assert (ids > 0).sum() == 160
    assert read_manifest(tmp_path / "out").labels.ignore_id == 65535


def yolo_folder(root: Path, yaml: str, row: str = "0 .1 .1 .5 .1 .5 .5") -> Path:
    put(root / "images" / "a.png", photo(1))
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(f"{row}\n")
    (root / "data.yaml").write_text(yaml)
    return root


@pytest.mark.parametrize(
    "yaml",
    [
        "names: {1: box, 0: 'ball, round'}\n",
        "names:\n\n  1: box\n  # the round ones\n  0: 'ball, round'\nnc: 2\n",
        "names: ['ball, round', box]\n",
        'names:\n- "ball, round"  # 0\n- box\n',
    ],
)
def test_names_of_yaml_go_by_their_numbers(tmp_path, yaml):
    out = tmp_path / "out"
    assert command("init", yolo_folder(tmp_path / "in", yaml), "--out", out, "--yes").exit_code == 0
    assert read_manifest(out).labels.names[1:] == ("ball, round", "box")


def test_yaml_that_is_not_read_here_is_refused_and_so_are_two_that_differ(tmp_path):
    source = yolo_folder(tmp_path / "in", "names: [ball,  # round\n box]\n")
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code != 0
    assert "data.yaml" in str(said.exception)
    (source / "data.yaml").write_text("names: [ball, box]\n")
    (source / "other.yaml").write_text("names: [box, ball]\n")
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code != 0
    assert "different names" in str(said.exception)


def test_a_class_of_yolo_beyond_all_bounds_is_named(tmp_path):
    source = yolo_folder(tmp_path / "in", "names: [a]\n", "99999 .1 .1 .5 .1 .5 .5")
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code != 0
    assert "class 99999" in str(said.exception)


def test_a_palette_that_is_no_file_is_refused(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", blobs, 2)
    said = command("init", source, "--out", tmp_path / "out", "--yes", "--palette", "/dev/zero")
    assert said.exit_code != 0
    assert "no file" in str(said.exception)


def test_a_gif_of_several_frames_is_no_label_map_and_that_is_said(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: blobs(i) % 3, 2)
    (source / "masks" / "a2.png").unlink()
    frames = [Image.fromarray(blobs(i) % 3) for i in (1, 2)]
    frames[0].save(source / "masks" / "a2.gif", save_all=True, append_images=frames[1:])
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code == 0
    assert "a2.gif has 2 frames" in " ".join(said.output.split())
    with pytest.warns(PixelwiseWarning, match=r"a2\.gif holds more than one picture; the first is used"):
        command("check", source)


def test_a_line_of_yolo_that_cannot_be_read_is_named(tmp_path):
    source = yolo_folder(tmp_path / "in", "names: [a]\n")
    put(source / "images" / "b.png", photo(2))
    (source / "labels" / "b.txt").write_text("0 .1 .1 .5 .1 .5 .5\n0 .1 x .5 .1 .5 .5\n")
    said = command("init", source, "--out", tmp_path / "out", "--yes")
    assert said.exit_code == 0
    assert "labels/b.txt, line 2" in said.output


def test_outlines_in_a_file_that_begins_with_a_mark_of_bytes_are_read(tmp_path):
    source = coco_folder(tmp_path / "in", IMAGES, [OUTLINED], [CAT])
    (source / "coco.json").write_bytes(b"\xef\xbb\xbf" + (source / "coco.json").read_bytes())
    assert command("init", source, "--out", tmp_path / "out", "--yes").exit_code == 0
    assert (written(tmp_path / "out", "a.png")[5:15, 5:15] == 1).all()


def test_a_name_that_cannot_be_written_is_refused_before_anything_is_shown(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: blobs(i) % 3, 2)
    said = command("init", source, "--out", tmp_path / "out", "--yes", "--classes", f"a,b,{'c' * 300}")
    assert said.exit_code != 0
    assert said.output == ""


def test_a_change_of_ids_that_cannot_be_read_names_its_file(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: blobs(i) % 3, 2)
    assert command("init", source, "--out", tmp_path / "out", "--yes").exit_code == 0
    said = json.loads((tmp_path / "out" / "pixelwise.json").read_text())
    (tmp_path / "out" / "pixelwise.json").write_text(json.dumps(said | {"map_ids": "foo"}))
    assert "pixelwise.json" in str(command("check", tmp_path / "out").exception)
    (tmp_path / "out" / "pixelwise.json").write_text(json.dumps(said | {"version": -1}))
    assert "its version is -1" in str(command("check", tmp_path / "out").exception)


def test_check_does_not_call_pictures_that_a_tag_turns_safe_before_they_are_looked_at(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: blobs(i) % 3)
    exif = Image.Exif()
    exif[0x0112] = 3
    photo(1).save(source / "images" / "a1.png", exif=exif)
    assert (
        command("check", source).output.splitlines()[-1].startswith("safe to train once you have looked at")
    )


def test_classes_called_by_their_colours_are_said_to_have_no_names(tmp_path):
    source = fill(tmp_path / "in", "images/a{}.png", "masks/a{}.png", lambda i: COLOURS[blobs(i)], 2)
    said = command("init", source, "--out", tmp_path / "out", "--yes").output
    assert "name them with --classes" in said
    named = command("init", source, "--out", tmp_path / "named", "--yes", "--classes", "a,b,c,d").output
    assert "name them with --classes" not in named
