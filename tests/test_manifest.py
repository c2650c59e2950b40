"""pixelwise.json: what a data set says of itself is obeyed wherever it is opened, and wins over classes.txt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drawn import draw_folder
from pixelwise import codes
from pixelwise.cli.app import app
from pixelwise.datasets.doctor import examine
from pixelwise.datasets.manifest import NAME, Manifest, read_manifest
from pixelwise.datasets.opening import open_data, open_samples, parse_map
from pixelwise.errors import InputError
from pixelwise.labels import LabelSet
from tiny import COLORS, write_colors_model

CELLS = LabelSet.of(["ground", "cell"], colors=((10, 20, 30), (200, 100, 0)))


def command(*words: object):
    return CliRunner().invoke(app, [*map(str, words)])


def write(root: Path, **said: object) -> Path:
    (root / NAME).write_text(json.dumps(said))
    return root


@pytest.fixture
def black_and_white(tmp_path: Path) -> Path:
    """Twelve pictures whose label maps are 0 and 255."""
    root = draw_folder(tmp_path / "mine", 12, names=False)
    for path in (root / "masks").iterdir():
        Image.fromarray(((np.asarray(Image.open(path)) > 0) * 255).astype(np.uint8)).save(path)
    return root


def test_what_is_written_reads_back(tmp_path):
    whole = Manifest.of(
        CELLS, done=("a line\nof more", "ä"), map_ids="255=1", value_range=(12, 4000.5), regions=True
    )
    (tmp_path / "pixelwise.json").write_text(whole.to_json(), encoding="utf-8")
    assert read_manifest(tmp_path) == whole
    assert whole.labels == CELLS
    assert read_manifest(tmp_path / "nowhere") is None


def test_classes_and_changes_of_ids_are_obeyed_and_others_may_be_asked_for(black_and_white):
    write(
        black_and_white,
        classes=[{"id": 0, "name": "ground"}, {"id": 1, "name": "thing", "color": [1, 2, 3]}],
        map_ids="255=1",
        value_range=[100, 900],
    )
    data = open_data(black_and_white)
    assert (data.classes.names, data.classes.colors[1], data.value_range) == (
        ("ground", "thing"),
        (1, 2, 3),
        (100, 900),
    )
    assert set(np.unique(data.samples("train")[0].mask)) == {0, 1}
    assert examine(data).safe
    other = open_samples(black_and_white, split="train", map_ids=parse_map("255=0"))
    assert set(np.unique(other[0].mask)) == {0}


def test_nobody_types_the_changes_again(black_and_white, tmp_path):
    names = COLORS.names
    write(black_and_white, classes=[{"id": i, "name": n} for i, n in enumerate(names)], map_ids="255=1")
    checked = command("check", black_and_white)
    assert checked.exit_code == 0, checked.output
    card = write_colors_model(tmp_path / "colors.onnx")
    done = command("evaluate", "--data", black_and_white, "--split", "all", "--model", card, "--json")
    assert done.exit_code == 0, done.exception
    counted = np.array(json.loads(done.output)["confusion_matrix"])
    truth = [np.asarray(Image.open(p)) for p in sorted((black_and_white / "masks").iterdir())]
    assert counted.sum(axis=1).tolist()[:2] == [sum((t == v).sum() for t in truth) for v in (0, 255)]


def test_it_wins_over_classes_txt_and_a_difference_is_an_error_in_words(tmp_path):
    root = draw_folder(tmp_path / "mine", 3)
    write(root, classes=[{"id": i, "name": n} for i, n in enumerate(("ground", "disc", "square"))])
    assert examine(open_data(root)).safe
    (root / "classes.txt").write_text("ground\ndisc\nbox\n")
    assert open_data(root).classes.names == ("ground", "disc", "square")
    (found,) = [f for f in examine(open_data(root)).findings if f.severity == "error"]
    assert found.message == "pixelwise.json says that id 2 is 'square', and classes.txt that it is 'box'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no JSON"),
        ("{}", "classes is missing"),
        ('{"classes": []}', "at least one class"),
        ('{"classes": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "every id"),
        ('{"classes": [{"id": 0, "name": "a\\n"}]}', "control characters"),
        ('{"classes": [{"id": 0, "name": "a"}], "ignore_id": 0}', "ignore_id 0"),
        ('{"classes": [{"id": 0, "name": "a"}], "ignored": 0}', "did you mean 'ignore_id'"),
        ('{"classes": [{"id": 0, "name": "a", "color": [0, 0, 256]}]}', "colour"),
        ('{"classes": [{"id": 0, "name": "a"}], "value_range": [5, 5]}', "low < high"),
        ('{"classes": [{"id": 0, "name": "a"}], "value_range": [0, Infinity]}', "value_range"),
        ('{"classes": [{"id": 0, "name": "a"}], "map_ids": "seven"}', "ids are changed by parts"),
        ('{"classes": [{"id": 0, "name": "a"}], "regions": true}', "regions are"),
        ('{"classes": [{"id": 0, "name": "a"}], "version": 2}', "install a newer one"),
        (
            '{"regions": true, "classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "b/c"}, '
            '{"id": 2, "name": "b_c"}]}',
            "masks/b_c",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_the_file(text, said, tmp_path):
    root = draw_folder(tmp_path / "mine", 2)
    (root / NAME).write_text(text)
    with pytest.raises(InputError, match=said) as error:
        open_data(root)
    assert "\n" not in str(error.value)
    if "ids are changed" not in said:
        assert NAME in str(error.value)


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    """Two classes, one inside the other, a file each."""
    root = tmp_path / "overlapping"
    labels = LabelSet.of(["ground", "cell", "nucleus/dark"])
    for name, side in (("images", 0), ("masks/cell", 8), ("masks/nucleus_dark", 3)):
        (root / name).mkdir(parents=True)
        for i in range(12):
            values = np.zeros((20, 30), np.uint8)
            values[2 : 2 + side, 2 : 2 + side] = 255 if i % 2 else 1
            Image.fromarray(values + (i if side == 0 else 0)).save(root / name / f"{i}.png")
    (root / "pixelwise.json").write_text(Manifest.of(labels, regions=True).to_json())
    return root


def test_overlapping_classes_are_read_as_codes_and_counted_one_by_one(overlapping):
    data = open_data(overlapping)
    assert data.regions
    found = data.pairs[5].read_ids()
    assert found.dtype == np.uint8
    assert [int(codes.has(found, i).sum()) for i in range(2)] == [64, 9]
    report = examine(data)
    assert report.pixels == {0: 12 * (600 - 64), 1: 12 * 64, 2: 12 * 9}
    assert report.safe


def test_a_file_that_a_class_lacks_and_one_of_another_size_are_named(overlapping):
    (overlapping / "masks/nucleus_dark/3.png").unlink()
    Image.fromarray(np.zeros((20, 29), np.uint8)).save(overlapping / "masks/nucleus_dark/4.png")
    found = {f.kind: f for f in examine(open_data(overlapping)).findings if f.severity == "error"}
    assert "nucleus_dark/3.png" in str([f.message for f in examine(open_data(overlapping)).findings])
    assert "unreadable" in found


def test_ids_of_overlapping_classes_cannot_be_changed(overlapping):
    with pytest.raises(InputError, match="no ids to change"):
        open_data(overlapping, map_ids=parse_map("1=2"))


def test_the_colours_of_a_data_set_are_those_of_its_manifest():
    assert Manifest.of(COLORS).labels == COLORS
