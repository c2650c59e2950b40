"""What `check` says against each stumble is a command that works: it is typed, and then `check` is content."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.datasets.doctor import examine
from pixelwise.datasets.opening import open_data
from pixelwise.errors import InputError
from test_init import (
    COLOURS,
    COUNT,
    blobs,
    coco_file,
    command,
    curve,
    fill,
    objects,
    photo,
    pictures,
    pixels,
    put,
    snapshot,
)

TWO = "ground\nvessel\n"


def findings(root: Path, *options: object) -> list[dict]:
    said = command("check", root, "--json", *options)
    return [f for f in json.loads(said.stdout)["findings"] if f["kind"] != "small validation part"]


def commands(text: str) -> list[list[str]]:
    return [shlex.split(found) for found in re.findall(r"`(pixelwise [^`]+)`", text)]


def content(root: Path, *options: object) -> None:
    """`check` finds no error."""
    said = command("check", root, *options)
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (0, "safe to train"), said.output
    assert "error" not in said.stdout


def white(i: int) -> np.ndarray:
    return np.asarray(curve(i))


def vessel(i: int) -> np.ndarray:
    return (white(i) > 127).astype(np.uint8)


def stray(i: int) -> np.ndarray:
    ids = blobs(i).copy()
    ids[3, 5] = 77
    return ids


def opaque(values: np.ndarray) -> np.ndarray:
    return np.dstack([values, np.full(values.shape[:2], 255, np.uint8)])


STUMBLES = {
    "0/255": (white, "masks/{}.png", "", "0/255 label maps", vessel),
    "0/255 with two names": (white, "masks/{}.png", TWO, "0/255 label maps", vessel),
    "0/65535": (lambda i: white(i).astype(np.uint16) * 257, "masks/{}.png", "", "0/255 label maps", vessel),
    "0/255 as RGB": (lambda i: np.dstack([white(i)] * 3), "masks/{}.png", "", "0/255 label maps", vessel),
    "0/128": (lambda i: vessel(i) * np.uint8(128), "masks/{}.png", "", "black and white label maps", vessel),
    "antialiased": (lambda i: curve(i, 4, 4), "masks/{}.png", "", "antialiased label maps",
                    lambda i: (np.asarray(curve(i, 4, 4)) > 127).astype(np.uint8)),
    "antialiased with two names": (lambda i: curve(i, 4, 4), "masks/{}.png", TWO, "antialiased label maps",
                                   lambda i: (np.asarray(curve(i, 4, 4)) > 127).astype(np.uint8)),
    "JPEG": (lambda i: curve(i, 1, 5), "masks/{}.jpg", "", "lossy label map",
             lambda i: (np.asarray(curve(i, 1, 5)) > 127).astype(np.uint8)),
    "other names": (vessel, "masks/{}_manual1.png", "", "names differ", vessel),
    "other names and GIF": (white, "masks/{}_manual1.gif", "", "names differ", vessel),
    "objects": (objects, "masks/{}.png", "", "object ids", lambda i: (objects(i) > 0).astype(np.uint8)),
    "objects with two names": (objects, "masks/{}.png", TWO, "object ids",
                               lambda i: (objects(i) > 0).astype(np.uint8)),
    "colours": (lambda i: COLOURS[vessel(i)], "masks/{}.png", "", "RGB label map", vessel),
    "stray id": (stray, "masks/{}.png", "", "stray id", lambda i: np.where(stray(i) == 77, 255, stray(i))),
    "16 bits": (lambda i: blobs(i).astype(np.uint16), "masks/{}.png", "", "16-bit label map", blobs),
    "stretched": (lambda i: blobs(i).astype(np.uint16) * 257, "masks/{}.png", "", "stretched 16-bit label map",
                  blobs),
    "grey with alpha": (lambda i: opaque(blobs(i)), "masks/{}.png", "", "label map with alpha", blobs),
    "grey as RGBA": (lambda i: opaque(np.dstack([blobs(i)] * 3)), "masks/{}.png", "", "label map with alpha", blobs),
    "grey as RGB": (lambda i: np.dstack([blobs(i)] * 3), "masks/{}.png", "", "grey label map as RGB", blobs),
    "grey as RGB in a TIFF": (lambda i: np.dstack([blobs(i)] * 3), "masks/{}.tif", "", "grey label map as RGB", blobs),
}  # fmt: skip
"""What somebody has: a label map by its number, its file's name, classes.txt, what `check` calls it, the ids meant."""


MORE = {
    "0/128", "0/255 as RGB", "other names", "objects with two names", "stretched", "16 bits", "grey as RGB",
    "grey as RGBA", "grey as RGB in a TIFF",
}  # fmt: skip
"""Those that say the same again."""


@pytest.mark.parametrize(
    "stumble", [pytest.param(s, marks=[pytest.mark.exhaustive] if s in MORE else []) for s in STUMBLES]
)
def test_a_stumble_is_called_by_its_name_and_every_command_against_it_works(stumble, tmp_path):
    of, place, names, kind, meant = STUMBLES[stumble]
    root = fill(tmp_path / "mine", "images/{}.png", place, of)
    if names:
        (root / "classes.txt").write_text(names)
    found = findings(root)
    errors = {f["kind"] for f in found}
    assert kind in errors, found
    assert errors <= {kind, "rare class"}, errors
    (fix,) = {f["fix"] for f in found if f["kind"] == kind}
    typed = commands(fix)
    assert typed
    for number, words in enumerate(typed):
        copy = tmp_path / f"copy{number}" / "mine"
        shutil.copytree(root, copy)
        there = [word.replace(str(root), str(copy)) for word in words]
        if there[1] == "init":
            done = command(*there[1:], "--yes")
            assert done.exit_code == 0, done.exception
            result, options = Path(f"{copy}_ready"), []
        else:
            result, options = copy, [w for w in there[3:] if w != "--fix"]
            if "--fix" in there:
                assert command(*there[1:]).exit_code == 0
        content(result, *options)
        change = open_data(result).map_ids if not options else None
        from pixelwise.datasets.opening import parse_map

        data = open_data(result, map_ids=parse_map(options[1]) if options else change)
        for pair in data.pairs:
            ids = pair.read_ids() if data.map_ids is None else data.map_ids(pair.read_ids())
            np.testing.assert_array_equal(ids, meant(int(pair.name)))


def test_what_one_has_to_type_is_in_the_text_once_and_the_rest_is_counted(tmp_path):
    root = fill(tmp_path / "mine", "images/{}_training.tif", "masks/{}_manual1.gif", white)
    said = command("check", root).stdout
    assert said.count("names differ") == 1
    assert "8 pictures without a label map of the same name, and 8 label maps without a picture" in said
    assert "missing" not in said


def test_images_and_annotations_are_not_taken_for_ade20k_and_lead_to_init(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.png", "annotations/{}.png", white)
    for words in (["check", root], ["check", root, "--json"]):
        refused = command(*words)
        assert isinstance(refused.exception, InputError)
        assert "ADE20K" not in str(refused.exception)
    (typed,) = commands(str(refused.exception))
    assert command(*typed[1:], "--yes").exit_code == 0
    content(Path(f"{root}_ready"))


def test_damaged_and_lonely_files_are_left_out_by_the_command_that_is_said(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", blobs)
    (root / "images/1.png").write_bytes((root / "images/1.png").read_bytes()[:90])
    (root / "masks/2.png").unlink()
    put(root / "masks/3.png", np.zeros((9, 9), np.uint8))
    found = findings(root)
    assert {f["kind"] for f in found} == {"unreadable", "missing label map", "sizes differ"}
    ((typed,),) = {tuple(map(tuple, commands(f["fix"]))) for f in found}
    assert command(*typed[1:], "--yes").exit_code == 0
    assert len(open_data(Path(f"{root}_ready")).pairs) == 5
    content(Path(f"{root}_ready"))


def test_a_validation_part_of_a_few_pictures_is_called_too_small(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", blobs, count=20)
    (found,) = examine(open_data(root)).findings
    assert (found.kind, found.severity) == ("small validation part", "warning")
    kept = len(open_data(root).samples("val"))
    assert found.message.startswith(f"{kept} pictures to validate on: each is {1 / kept:.0%} of the score")
    for part in ("train", "val"):
        fill(tmp_path / "large" / part, "images/{}.png", "masks/{}.png", blobs, 10, 100 * len(part))
    assert examine(open_data(tmp_path / "large")).findings == []


def test_hidden_files_beside_pictures_and_label_maps_are_none(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", vessel)
    for folder in ("images", "masks"):
        (root / folder / "._0.png").write_bytes(b"\0\5\x16\7")
    content(root)
    assert not any(pair.name.startswith(".") for pair in open_data(root).pairs)


def test_fix_keeps_the_originals_and_says_what_it_did(tmp_path):
    root = fill(
        tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: blobs(i).astype(np.uint16) * 257
    )
    put(root / "masks/3.png", opaque(blobs(3)))
    before = snapshot(root / "masks")
    done = command("check", root, "--fix")
    assert done.exit_code == 0, done.output
    assert "written with 8 bits: 7 label maps of ids stretched to 16 bits" in done.stderr
    assert "written with 8 bits: 1 label map of several channels" in done.stderr
    kept = snapshot(root / "before_fix/masks")
    assert {name: digest for name, (digest, _) in kept.items()} == {n: d for n, (d, _) in before.items()}
    assert pixels(root / "masks/3.png").tolist() == blobs(3).tolist()
    again = command("check", root, "--fix")
    assert "there was nothing to fix" in again.stderr
    assert snapshot(root / "before_fix/masks") == kept


def test_fix_changes_nothing_that_has_two_answers(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", lambda i: COLOURS[blobs(i)], count=3)
    put(root / "masks/2.png", np.dstack([blobs(2), np.arange(40, dtype=np.uint8)[None].repeat(30, 0)]))
    put(root / "masks/3.png", blobs(3).astype(np.uint16) * 300)
    before = snapshot(root)
    command("check", root, "--fix")
    assert snapshot(root) == before


def test_the_form_of_the_json_stays(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", blobs, count=3)
    report = json.loads(command("check", root, "--json").stdout)
    assert {"safe", "splits", "classes", "findings"} <= report.keys()
    (found,) = report["findings"]
    assert found.keys() == {"kind", "severity", "message", "fix", "file", "pixel"}


def test_turned_pictures_are_written_as_their_labels_lie(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.jpg", "masks/{}.png", blobs)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(5).save(root / "images/5.jpg", exif=exif)
    (found,) = (f for f in findings(root) if f["kind"] == "turned label map")
    (typed,) = commands(found["fix"])
    assert command(*typed[1:], "--yes").exit_code == 0
    content(Path(f"{root}_ready"))


def test_a_turned_picture_whose_labels_are_turned_as_well_is_no_fault(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.jpg", "masks/{}.png", blobs)
    for tag, picture in ((6, photo(5, (40, 30))), (3, photo(6))):
        exif = Image.Exif()
        exif[0x0112] = tag
        picture.save(root / f"images/{5 if tag == 6 else 6}.jpg", exif=exif)
    (found,) = findings(root)
    assert (found["kind"], Path(found["file"]).name) == ("EXIF orientation", "6.jpg")


def test_deep_pictures_stay_deep(tmp_path):
    root = fill(tmp_path / "mine", "images/{}.png", "masks/{}.png", white)
    deep = np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16)
    put(root / "images/3.png", deep)
    np.save(root / "images/4.npy", deep)
    (root / "images/4.png").unlink()
    done = command("init", root, "--out", tmp_path / "out", "--yes")
    assert done.exit_code == 0, done.exception
    assert done.stderr == ""
    for name in "34":
        np.testing.assert_array_equal(pixels(tmp_path / f"out/images/{name}.png"), deep)


def test_a_coco_file_with_categories_of_its_own_leads_to_init(tmp_path):
    root = pictures(tmp_path / "mine")
    (root / "annotations").mkdir()
    (root / "annotations/instances_train2017.json").write_text(json.dumps(coco_file(COUNT)))
    refused = command("check", root)
    assert isinstance(refused.exception, InputError)
    (typed,) = commands(str(refused.exception))
    assert command(*typed[1:], "--yes").exit_code == 0
    content(Path(f"{root}_ready"))


def one_picture(root: Path) -> None:
    put(root / "images" / "0.png", photo(0))
    put(root / "masks" / "0.png", vessel(0))


def of_one_id(value: int):
    return lambda root: fill(root, "images/{}.png", "masks/{}.png", lambda i: vessel(i) * 0 + value)


def one_id_by_map(root: Path) -> None:
    fill(root, "images/{}.png", "masks/{}.png", vessel)
    said = {"classes": [{"id": 0, "name": "ground"}, {"id": 1, "name": "vessel"}], "map_ids": "0-2=1"}
    (root / "pixelwise.json").write_text(json.dumps(said))


def no_part_to_learn_from(root: Path) -> None:
    fill(root, "new/images/{}.png", "new/masks/{}.png", vessel)


UNTRAINABLE = {
    "one picture": (one_picture, "1 picture cannot be divided"),
    "one class": (of_one_id(0), "all pixels that count are of class 0: there is nothing to tell apart"),
    "all ignored": (of_one_id(255), "no pixel of the label maps is of any class"),
    "one class by map_ids": (one_id_by_map, "all pixels that count are of class 1 (vessel)"),
    "no part to learn from": (no_part_to_learn_from, "expected a folder train/, got new"),
}


@pytest.mark.parametrize(("make", "said"), UNTRAINABLE.values(), ids=UNTRAINABLE)
def test_what_train_refuses_check_does_not_call_safe(make, said, tmp_path):
    make(tmp_path / "data")
    checked = command("check", tmp_path / "data")
    trained = command("train", "--data", tmp_path / "data", "--dry-run")
    assert checked.exit_code == 1
    assert checked.stdout.splitlines()[-1].startswith("not safe to train")
    assert "error: nothing to" in checked.stdout
    assert isinstance(trained.exception, InputError)
    for sentence in (checked.stdout, str(trained.exception)):
        assert said in sentence
    assert "--no-check" not in str(trained.exception)  # would not help


def test_a_published_set_without_its_training_part_is_there_to_be_evaluated_on(tmp_path):
    fill(tmp_path, "val/{}.png", "valannot/{}.png", lambda i: vessel(i) * np.uint8(1))
    said = command("check", tmp_path)
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (
        0, "safe to evaluate on, and no part of it is there to train on",
    )  # fmt: skip
