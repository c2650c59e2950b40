"""`pixelwise init`, pixel by pixel and word by word: what is at a border, what two things claim, what has no room."""

from __future__ import annotations

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from pixelwise.datasets.adopt.adopting import survey
from pixelwise.datasets.opening import open_data
from pixelwise.errors import OutputError
from test_init import (
    COLOURS,
    SMALL,
    SQUARE,
    blobs,
    coco_file,
    command,
    curve,
    fill,
    ids_of,
    photo,
    pictures,
    put,
)


def adopted(source: Path, *options: object) -> tuple[Path, str]:
    """(the data set that `init` makes of `source`, what it said)."""
    out = source.with_name(f"{source.name}_out")
    done = command("init", source, "--out", out, "--yes", *options)
    assert done.exit_code == 0, done.exception or done.output
    return out, done.output


def outlined(*rings: list[float]) -> list[dict]:
    return [{"image_id": 1, "category_id": 7, "segmentation": [ring]} for ring in rings]


# Outlines


def test_an_outline_that_was_traced_along_the_borders_reaches_them(tmp_path):
    inside = np.ones((30, 40), bool)
    for row in range(3):
        for mirrored in (inside[row], inside[row][::-1], inside[-1 - row], inside[-1 - row][::-1]):
            mirrored[: 3 - row] = False
    corners = [(3, 0), (36, 0), (39, 3), (39, 26), (36, 29), (3, 29), (0, 26), (0, 3)]
    content = coco_file(1) | {"annotations": outlined([float(v) for corner in corners for v in corner])}
    source = pictures(tmp_path / "mine", 1)
    (source / "annotations.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(ids_of(adopted(source)[0], "1"), inside)


def test_pixels_of_several_classes_are_counted_and_the_smaller_outline_lies_above(tmp_path):
    source = pictures(tmp_path / "mine", 3)
    (source / "annotations.json").write_text(json.dumps(coco_file(3)))
    out, said = adopted(source)
    assert (
        "27 of the outlined pixels (9.00%) are in outlines of several classes: the smaller outline lies"
        in said
    )
    assert "(--regions keeps them all)" in said
    assert (ids_of(out, "3") == 2).sum() == 9
    shutil.rmtree(out)
    out, said = adopted(source, "--regions")
    assert "several classes" not in said
    assert (ids_of(out, "3") & 1).sum() == 100


def test_pictures_of_one_name_in_two_folders_are_told_apart_by_their_folders(tmp_path):
    source = tmp_path / "mine"
    for number, folder in enumerate(("a", "b")):
        put(source / f"{folder}/1.png", photo(number))
    content = coco_file(1) | {"annotations": [*outlined(SQUARE), {**outlined(SMALL)[0], "image_id": 2}]}
    content["images"] = [
        {"id": i, "file_name": name, "height": 30, "width": 40}
        for i, name in enumerate(("a/1.png", "b/1.png", "1.png"), 1)
    ]
    (source / "annotations.json").write_text(json.dumps(content))
    out, said = adopted(source)
    assert "1 pictures that the outlines name are not there, or bear a name that several have" in said
    assert [int((ids_of(out, name) == 1).sum()) for name in ("a_1", "b_1")] == [100, 9]


def test_points_that_are_no_pairs_are_refused(tmp_path):
    source = pictures(tmp_path / "mine", 1, "{}.png")
    shapes = [{"label": "cell", "points": [[1, 2, 3], [9, 5, 6]]}]
    (source / "1.json").write_text(json.dumps({"imagePath": "1.png", "shapes": shapes}))
    refused = command("init", source, "--out", tmp_path / "x", "--yes")
    assert "1.json has points [[1, 2, 3], [9, 5, 6]], expected a list of [x, y]" in str(refused.exception)


def test_objects_of_which_the_file_says_no_place_are_counted(tmp_path):
    source, nowhere = pictures(tmp_path / "mine", 2), {"image_id": 2, "category_id": 7}
    content = coco_file(2) | {"annotations": [*outlined(SQUARE), nowhere, nowhere | {"segmentation": []}]}
    (source / "annotations.json").write_text(json.dumps(content))
    out, said = adopted(source)
    assert "2 objects without an outline or a box: their pixels count as what none covers" in said
    assert [int((ids_of(out, name) != 0).sum()) for name in "12"] == [100, 0]


# Values


def test_what_lies_between_two_colours_goes_to_one_of_them_and_not_to_a_third(tmp_path):
    """Of grey levels 0, 128 and 255 a blend of black and white looks like the grey one."""
    mask = np.zeros((30, 40), np.uint8)
    mask[:, 10:] = 255
    mask[:, 10] = np.where(np.arange(30) % 2, 120, 140)  # as antialiasing leaves it
    mask[22:, 25:] = 128
    expected = np.select([mask == 128, mask >= 140], [1, 2])
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: mask, count=2)
    palette = tmp_path / "palette.txt"
    palette.write_text("black #000000\ngrey #808080\nwhite #FFFFFF\n")
    np.testing.assert_array_equal(ids_of(adopted(source, "--palette", palette)[0], "1"), expected)


def test_colours_are_read_from_six_digits_in_the_order_red_green_blue(tmp_path):
    source = fill(
        tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: COLOURS[blobs(i)] // 2, count=3
    )
    palette = tmp_path / "palette.txt"
    palette.write_text("ground #000000\ngrey #404040\ngreen #004000\nred #400000\n")
    out, _ = adopted(source, "--palette", palette)
    np.testing.assert_array_equal(ids_of(out, "2"), np.array([0, 3, 2, 1])[blobs(2)])
    assert open_data(out).classes.colors[2:] == ((0, 64, 0), (64, 0, 0))


def test_an_alpha_channel_of_floats_hides_what_is_below_a_half(tmp_path):
    source = pictures(tmp_path / "mine", 2)
    (source / "masks").mkdir()
    for i in (1, 2):
        alpha = np.full((30, 40), 0.5)
        alpha[:10] = 0.4
        np.save(source / f"masks/{i}.npy", np.dstack([blobs(i), alpha]).astype(np.float32))
    expected = blobs(2).copy()
    expected[:10] = 0
    np.testing.assert_array_equal(ids_of(adopted(source)[0], "2"), expected)


def test_the_doubt_that_is_to_be_allowed_is_enough(tmp_path):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: curve(i, 4, 4), count=3)
    refused = command("init", source, "--out", tmp_path / "x", "--yes", "--doubt", "0.001")
    assert "and up to 0.1% are taken for the nearest" in str(refused.exception)
    adopted(source, *re.findall(r"--doubt|[\d.]+$", str(refused.exception))[-2:])


# Files of one class each, and pages


def test_of_files_of_one_class_each_that_hardly_overlap_the_last_counts(tmp_path):
    source = pictures(tmp_path / "mine", 2)
    for i in (1, 2):
        upper = np.zeros((30, 40), np.uint8)
        upper[:15] = 255
        put(source / f"masks/{i}_cell.png", upper)
        lower = 255 - upper
        lower[14, 7] = 255 * (i == 1)
        put(source / f"masks/{i}_nucleus.png", lower)
    out, said = adopted(source)
    assert "0.042% of the labelled pixels are in files of several classes: the last counts" in said
    names = open_data(out).classes.names
    assert names[ids_of(out, "1")[14, 7]] == "nucleus"
    assert names[ids_of(out, "2")[14, 7]] == "cell"


def test_pages_are_counted_from_one_where_they_are_shown(tmp_path):
    (tmp_path / "mine").mkdir()
    for name, of in (("train-volume.tif", lambda i: photo(i).convert("L")), ("train-labels.tif", curve)):
        of(1).save(tmp_path / "mine" / name, save_all=True, append_images=[of(2), of(3)])
    _, said = adopted(tmp_path / "mine")
    assert re.findall(r"(train-\S+, page \d)", said) == [
        f"train-{what}.tif, page {page}" for page in (1, 2, 3) for what in ("volume", "labels")
    ]


# What stands in the way


def test_a_folder_that_somebody_makes_meanwhile_is_left_alone(tmp_path):
    source, out = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=2), tmp_path / "out"
    found = survey([source], out)

    def slowly(items):
        yield from items
        out.mkdir()

    with pytest.raises(OutputError, match="out exists already, and nothing is written over it"):
        found.write(out, progress=slowly)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]
    assert list(out.iterdir()) == []


def test_a_disk_without_room_for_the_pictures_is_said_before_anything_is_written(tmp_path, monkeypatch):
    source = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", curve, count=2)
    size = sum(path.stat().st_size for path in (source / "images").iterdir())
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk(2**40, 2**40, size + 2**20 - 1))
    refused = command("init", source, "--out", tmp_path / "out", "--yes")
    assert isinstance(refused.exception, OutputError)
    assert "on disk while it is made" in str(refused.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk(2**40, 2**40, size + 2**20))
    assert command("init", source, "--out", tmp_path / "out", "--yes").exit_code == 0
