"""How to segment, typed and called: every option that cleans up gives what its plain definition says, by every door."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixelwise import LabelSet, Segmenter, SegmentOptions
from pixelwise.cli import main
from pixelwise.cli.app import app
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.inference.cleanup import Cleanup
from pixelwise.inference.options import DEFAULTS
from pixelwise.inference.tiling import Pending, collect
from pixelwise.pipeline.options import ReadOptions
from pixelwise.pipeline.run import settings
from test_cleanup import plain
from tiny import CARD, COLORS, write_colors_model

CLASSES = LabelSet.of(COLORS.names, colors=COLORS.colors, ids=[7, 300, 11, 2])
TILES = ("--tile", "32", "--overlap", "8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colours model with other numbers in files than class indices."""
    return write_colors_model(tmp_path_factory.mktemp("ids") / "ids.onnx", CARD.replace(labels=CLASSES))


def specks() -> np.ndarray:
    """A picture (56, 72, 3) of regions of many sizes and two strengths, with holes, islands in holes, and specks."""
    picture = np.zeros((56, 72, 3), np.uint8)
    picture[4:32, 4:36, 1] = 255  # a green ground with a hole of two classes,
    picture[10:22, 10:26] = (0, 0, 255)
    picture[14:18, 14:20] = (255, 0, 0)
    picture[40:52, 6:40, 1] = 255  # a second green region, smaller,
    picture[36:48, 48:66, 0] = 140  # and a weak red one
    rng = np.random.default_rng(5)
    for y, x in rng.integers(0, (27, 35), (40, 2)) * 2:
        picture[y : y + 2, x : x + 2 * rng.integers(1, 3)] = 255 * np.eye(3)[rng.integers(3)]
    return picture


def typed(*arguments: object) -> str:
    """Run a command in this process; what it printed to stdout."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def source(door: str, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The picture as a file, and what is typed so that it takes this way."""
    if door != "raster":
        Image.fromarray(specks()).save(folder / "a.png")
        return folder / "a.png", TILES if door == "tiled" else ()
    pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    from test_sources import write_tiff

    return write_tiff(folder / "a.tif", specks()), TILES


CLEANED = {
    "--min-area 9": Cleanup(9),
    "--fill-holes green,blue": Cleanup(0, (2, 3)),
    "--largest-only green": Cleanup(0, (), (2,)),
    "--largest-only red,green,blue --min-area 5": Cleanup(5, (), (1, 2, 3)),
    "--fill-holes red,green,blue": Cleanup(0, (1, 2, 3)),
    "--min-confidence 0.4": Cleanup(),
    "--min-confidence 0.4 --min-area 30 --fill-holes green --largest-only red,green": Cleanup(
        30, (2,), (1, 2)
    ),
}


@pytest.mark.parametrize("door", ["whole", "tiled", "raster"])
@pytest.mark.parametrize("words", CLEANED)
def test_what_is_typed_gives_the_map_of_the_definition(words, door, model, tmp_path):
    path, tiles = source(door, tmp_path)
    run = ("segment", path, "--model", model, "--format", "npy", *tiles)
    typed(*run, *words.split(), "--out", tmp_path / "out")
    cut = {"tile": 32, "overlap": 8} if tiles else {}
    decided = Segmenter(model)(specks(), confidence=True, **cut)
    indices = CLASSES.to_indices(decided.labels).astype(np.uint8)
    expected = CLASSES.to_ids(plain(indices, CLEANED[words]))
    if "--min-confidence" in words:
        assert 0 < (decided.confidence < 0.4).mean() < 0.9
        expected = np.where(decided.confidence < np.float32(0.4), 255, expected)
    found = np.load(tmp_path / "out" / "a.npy")
    assert found.dtype == CLASSES.dtype
    assert (found != decided.labels).any()
    np.testing.assert_array_equal(found, expected)


def test_pictures_whole_and_in_tiles_and_rasters_are_cleaned_up_alike(model, tmp_path):
    maps = []
    for door in ("whole", "tiled", "raster"):
        path, tiles = source(door, tmp_path)
        words = "--min-area 30 --fill-holes green,blue --largest-only green".split()
        run = ("segment", path, "--model", model, "--format", "npy", *tiles, *words)
        typed(*run, "--out", tmp_path / door)
        maps.append(np.load(tmp_path / door / "a.npy"))
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[1], maps[2])


def test_python_takes_the_same_words_and_a_name_alone(model, tmp_path):
    segmenter, path = Segmenter(model), source("whole", tmp_path)[0]
    words = ("--min-confidence", "0.4", "--min-area", "30", "--fill-holes", "green", "--largest-only", "red")
    typed("segment", path, "--model", model, "--format", "npy", *words, "--out", tmp_path)
    called = segmenter(path, min_confidence=0.4, min_area=30, fill_holes=["green"], largest_only="red")
    np.testing.assert_array_equal(called.labels, np.load(tmp_path / "a.npy"))
    options = SegmentOptions(min_confidence=0.4, min_area=30, fill_holes=("green",), largest_only=("red",))
    np.testing.assert_array_equal(segmenter.segment(path, options).labels, called.labels)
    assert called.confidence is None
    plainly, cleaned = (segmenter(path, confidence=True, min_area=n) for n in (0, 30))
    np.testing.assert_array_equal(plainly.confidence, cleaned.confidence)  # the network's own


def test_streamed_bands_are_those_of_the_cleaned_picture(model):
    segmenter, picture = Segmenter(model), specks()
    options = SegmentOptions(tile=32, min_area=30, fill_holes=("green", "blue"), min_confidence=0.3)

    def bands(options: SegmentOptions, **more: object):
        return segmenter.bands(lambda a, b: picture[a:b], picture.shape[:2], options, **more)

    labels, confidence = collect(bands(options), picture.shape[:2])
    assert confidence is None
    np.testing.assert_array_equal(labels, segmenter.segment(picture, options).labels)
    pending = next(bands(options.as_decided(), confidence=True)).pending
    assert isinstance(pending, Pending)
    with pytest.raises(InputError, match="needs all rows"):
        bands(options, resume=pending)
    doubtful = dataclasses.replace(options.as_decided(), min_confidence=0.3)  # needs no other rows
    rest = list(bands(doubtful, resume=pending))
    whole = segmenter.segment(picture, doubtful).labels
    np.testing.assert_array_equal(np.concatenate([b.labels for b in rest]), whole[pending.top :])


def test_an_option_that_is_wrong_gets_the_same_sentence_in_python_and_typed(model, tmp_path):
    path, segmenter = source("whole", tmp_path)[0], Segmenter(model)
    for words, keywords in {
        "--tile huge": {"tile": "huge"},
        "--tile 32 --overlap 32": {"tile": 32, "overlap": 32},
        "--window gauss": {"window": "gauss"},
        "--flip sideways": {"flips": ("sideways",)},
        "--rotate 45": {"rotations": (45,)},
        "--scales 0": {"scales": (0.0,)},
        "--average logit": {"average": "logit"},
        "--crf vg": {"crf": "vg"},
        "--min-confidence 1.5": {"min_confidence": 1.5},
        "--min-area -1": {"min_area": -1},
        "--fill-holes gren": {"fill_holes": "gren"},
        "--largest-only red,al": {"largest_only": ("red", "al")},
    }.items():
        with pytest.raises(InputError) as called:
            segmenter(path, **keywords)
        with pytest.raises(InputError) as at_once:
            typed("segment", path, "--model", model, "--out", tmp_path / "out", *words.split())
        assert str(at_once.value).removeprefix("--") == str(called.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnknownNameError, match="did you mean 'green'"):
        segmenter(path, fill_holes="gren")
    with pytest.raises(InputError, match=r"such as \('cat', 'dog'\)"):
        SegmentOptions(largest_only="cat")


def test_doubtful_pixels_need_an_ignore_id(tmp_path):
    classes = LabelSet.of(COLORS.names, ignore_id=None)
    segmenter = Segmenter(write_colors_model(tmp_path / "all.onnx", CARD.replace(labels=classes)))
    with pytest.raises(InputError, match=r"have none \(ignore_id is None\)"):
        segmenter(specks(), min_confidence=0.5)
    assert segmenter(specks(), min_area=9).labels.max() == 3


def test_what_makes_no_sense_is_refused_at_once():
    for given, says in (
        ({"overlap": -5}, "0 <= overlap"),
        ({"overlap": float("nan")}, "an overlap is a number"),
        ({"overlap": float("inf"), "tile": 64}, "an overlap is a number"),
        ({"overlap": object()}, "overlap a number"),
        ({"tile": 10**24}, "fewer than"),
        ({"scales": (float("nan"),)}, "positive factors"),
        ({"scales": (float("inf"),)}, "positive factors"),
        ({"fill_holes": "green"}, "in a tuple"),
        ({"fill_holes": None}, "in a tuple"),
        ({"largest_only": ["green"]}, "in a tuple"),
        ({"largest_only": (1,)}, "in a tuple"),
    ):
        with pytest.raises(InputError, match=says):
            SegmentOptions(**given)
    assert SegmentOptions(tile=64, overlap=np.int64(16)).share == 16


@pytest.mark.parametrize(
    "words",
    ["--fill-holes ,", "--largest-only ,", "--flip ,", "--overlap nan", "--overlap -5", "--scales inf",
     "--tile 999999999999999999999", "--min-area 99999999999999999999", "--fill-holes green,nonsense"],
)  # fmt: skip
def test_on_the_command_line_it_is_one_sentence_and_exit_code_2(words, model, tmp_path, monkeypatch, capsys):
    path, _ = source("whole", tmp_path)
    run = [
        "pixelwise",
        "segment",
        str(path),
        "--model",
        str(model),
        "--out",
        str(tmp_path / "out"),
        *words.split(),
    ]
    monkeypatch.setattr("sys.argv", run)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out" / "a.labels.png").exists()


def test_options_are_one_value_that_does_not_change():
    options = SegmentOptions(tile=512, flips=("horizontal",), min_area=9)
    assert options == SegmentOptions(tile=512, flips=("horizontal",), min_area=9)
    assert hash(options) == hash(dataclasses.replace(options))
    assert options.as_decided() == SegmentOptions(tile=512, flips=("horizontal",))
    assert options.to_dict() == {"tile": 512, "flips": ["horizontal"], "min_area": 9}
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.tile = 256


def test_settings_of_journals_are_those_that_were_written_before_there_was_a_clean_up():
    before = (
        '{"tile": null, "overlap": null, "window": null, "flips": [], "rotations": [], "scales": [1.0], '
        '"average": "logits", "crf": null, "bands": null, "scale": null, "smooth": 0.0}'
    )
    assert json.dumps(settings(DEFAULTS, ReadOptions(), 0.0)) == before
    options = SegmentOptions(64, 0.25, "linear", ("horizontal",), (90,), (1.0, 2.0), "probabilities", "vgg")
    before = (
        '{"tile": 64, "overlap": 0.25, "window": "linear", "flips": ["horizontal"], "rotations": [90], '
        '"scales": [1.0, 2.0], "average": "probabilities", "crf": "vgg", "bands": [3, 2, 1], "scale": [0.0, 9.0], '
        '"smooth": 0.6}'
    )
    assert json.dumps(settings(options, ReadOptions(bands=(3, 2, 1), scale=(0.0, 9.0)), 0.6)) == before
    cleaned = settings(SegmentOptions(min_area=9, fill_holes=("red",)), ReadOptions(), 0.0)
    assert (cleaned["min_area"], cleaned["fill_holes"]) == (9, ["red"])


def test_evaluate_takes_every_option_that_segment_takes():
    pages = [CliRunner().invoke(app, [command, "--help"]).stdout for command in ("segment", "evaluate")]
    shown = (
        "tile overlap window flip rotate scales average crf min-confidence min-area fill-holes largest-only "
        "min-mm3"
    )
    for page in pages:
        assert all(f"--{name} " in page for name in shown.split())
    assert len(dataclasses.fields(SegmentOptions)) == len(shown.split())
