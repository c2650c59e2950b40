"""What outputs mean: one logit is a sign, regions are a sign each, and everything that is made of a picture follows."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import pixelwise
from meaning import NAMES, Answers, Looks, answering, card, drawn, full, looking, photo, sigmoid
from pixelwise import LabelSet, Segmentation, Segmenter, SegmentOptions
from pixelwise.codes import has, highest
from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError, PixelwiseWarning, UnknownNameError
from pixelwise.evaluation import evaluate
from pixelwise.inference import tiling
from pixelwise.outputs.coco import decode_rle
from pixelwise.outputs.reading import read_labels
from pixelwise.pipeline.video import Smoothed
from pixelwise.report import write_report
from pixelwise.report.text import table

side = st.integers(1, 12)
logits_of = {
    "coarse_hw": st.tuples(side, side),
    "size_hw": st.tuples(st.integers(1, 40), st.integers(1, 40)),
    "align_corners": st.booleans(),
    "kind": st.sampled_from(["noise", "blobs", "ties"]),
    "seed": st.integers(0, 2**32 - 1),
}


def sure(values: np.ndarray) -> np.ndarray:
    """Where float32 and float64 agree on the sign."""
    return np.abs(values) > 1e-5


def painted(masks: np.ndarray) -> np.ndarray:
    """The label map of masks (k, h, w): later ones over earlier ones."""
    labels = np.zeros(masks.shape[1:], np.int64)
    for number, mask in enumerate(masks, start=1):
        labels = np.where(mask, number, labels)
    return labels


@settings(max_examples=60, deadline=None)
@given(**logits_of)
def test_a_binary_network_is_the_sign_of_its_interpolated_logit(
    coarse_hw, size_hw, align_corners, kind, seed
):
    logits = drawn(np.random.default_rng(seed), 1, *coarse_hw, kind)
    value = full(logits, size_hw, align_corners)[0]
    found = answering(logits, "binary", align_corners=align_corners)(
        np.zeros((*size_hw, 3), np.uint8), confidence=True, probabilities=True, logits=True
    )
    near = ~sure(value)
    np.testing.assert_array_equal(found.mask("foreground") | near, (value > 0) | near)
    np.testing.assert_array_equal(found.mask("background"), ~found.mask("foreground"))
    np.testing.assert_allclose(found.confidence, sigmoid(np.abs(value)), atol=1e-5)
    np.testing.assert_allclose(found.probabilities, [sigmoid(-value), sigmoid(value)], atol=1e-5)
    np.testing.assert_allclose(found.logits, value[None], atol=1e-4)
    if coarse_hw == size_hw:
        np.testing.assert_array_equal(found.labels, logits[0] > 0)  # ties, exactly
    assert found.areas().get("foreground", 0) == found.mask("foreground").mean()


def test_a_logit_of_zero_is_the_first_class():
    found = answering(np.array([[[-1, 0, 1], [0, 0, 0]]]), "binary")(
        np.zeros((2, 3, 3), np.uint8), confidence=True
    )
    assert found.labels.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert (found.confidence[1] == 0.5).all()
    regions = answering(np.zeros((3, 2, 3)), "regions")(np.zeros((2, 3, 3), np.uint8))
    assert not regions.labels.any()
    assert regions.mask("outside").all()


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 6), **logits_of)
def test_regions_are_the_signs_of_their_own_logits_and_later_ones_lie_over_earlier(
    k, coarse_hw, size_hw, align_corners, kind, seed
):
    logits = drawn(np.random.default_rng(seed), k, *coarse_hw, kind)
    values = full(logits, size_hw, align_corners)
    found = answering(logits, "regions", align_corners=align_corners)(
        np.zeros((*size_hw, 3), np.uint8), confidence=True, probabilities=True, logits=True
    )
    masks = np.stack([found.mask(name) for name in NAMES[1 : k + 1]])
    exact = logits > 0 if coarse_hw == size_hw else np.where(sure(values), values > 0, masks)
    np.testing.assert_array_equal(masks, exact)
    np.testing.assert_array_equal(found.labels, painted(masks))
    np.testing.assert_array_equal(found.mask("outside"), ~masks.any(0))
    np.testing.assert_allclose(found.confidence, sigmoid(np.abs(values)).min(0), atol=1e-5)
    np.testing.assert_allclose(found.probabilities, sigmoid(values), atol=1e-5)
    np.testing.assert_allclose(found.logits, values, atol=1e-4)
    shares = {name: mask.mean() for name, mask in zip(NAMES[1:], masks, strict=False) if mask.any()}
    if not masks.any(0).all():
        shares["outside"] = (~masks.any(0)).mean()
    assert found.areas() == pytest.approx(shares)
    assert found.areas() == {entry["name"]: entry["share"] for entry in found.to_dict()["classes"]}


@settings(max_examples=40, deadline=None)
@given(k=st.integers(2, 7), **logits_of)
def test_probabilities_are_the_softmax_of_interpolated_logits_and_their_largest_is_the_label(
    k, coarse_hw, size_hw, align_corners, kind, seed
):
    logits = drawn(np.random.default_rng(seed), k, *coarse_hw, kind)
    values = full(logits, size_hw, align_corners)
    segmenter = answering(logits, "exclusive", align_corners=align_corners)
    picture = np.zeros((*size_hw, 3), np.uint8)
    found = segmenter(picture, probabilities=True, logits=True)
    odds = np.exp(values - values.max(0))
    np.testing.assert_allclose(found.probabilities, odds / odds.sum(0), atol=1e-5)
    np.testing.assert_allclose(found.logits, values, atol=1e-4)
    best = np.sort(values, axis=0)
    clear = best[-1] - best[-2] > 1e-4
    np.testing.assert_array_equal(found.probabilities.argmax(0)[clear], found.labels[clear])
    alone = segmenter.segment(picture, probabilities=True)
    np.testing.assert_array_equal(alone.probabilities, found.probabilities)
    assert alone.logits is None
    assert segmenter(picture).probabilities is None
    assert found.logits.dtype == found.probabilities.dtype == np.float32


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("k", "outputs"), [(1, "binary"), (1, "regions"), (5, "regions"), (12, "regions"), (4, "exclusive")]
)
def test_tiles_bands_and_the_whole_picture_say_the_same_of_a_network_that_sees_one_pixel(
    k, outputs, plain, monkeypatch
):
    if plain:
        monkeypatch.setattr(tiling, "_Compiled", tiling._Plain)
    names = [f"part {i}" for i in range(13)]
    classes = {"binary": ("background", "foreground"), "regions": names[: k + 1]}.get(outputs, names[:k])
    network = Looks(k, seed=k)
    segmenter = Segmenter(
        network, card=pixelwise.Card.of(classes, mean=(0.0,) * 3, std=(1.0,) * 3, outputs=outputs)
    )
    picture = photo(47, 61)
    whole = segmenter(picture, confidence=True, probabilities=True, logits=True)
    values = full(
        network.coarse(torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]).detach()[0],
        (47, 61),
    )
    tiles = segmenter(picture, tile=(16, 24), overlap=5, confidence=True, probabilities=True, logits=True)
    without = segmenter(picture, tile=(16, 24), overlap=5)
    close = (
        np.sort(np.abs(values), 0)[0] > 1e-4
        if outputs != "exclusive"
        else np.diff(np.sort(values, 0)[-2:], axis=0)[0] > 1e-4
    )
    assert close.mean() > 0.9
    for found in (tiles, without):
        np.testing.assert_array_equal(found.labels[close], whole.labels[close])
        for name in classes:
            np.testing.assert_array_equal(found.mask(name)[close], whole.mask(name)[close])
    np.testing.assert_allclose(tiles.confidence, whole.confidence, atol=1e-5)
    np.testing.assert_allclose(tiles.probabilities, whole.probabilities, atol=1e-5)
    np.testing.assert_allclose(tiles.logits, whole.logits, atol=1e-4)
    assert tiles.logits.shape == (k, 47, 61)
    assert len(tiles.probabilities) == (2 if outputs == "binary" else k)
    options = SegmentOptions(tile=(16, 24), overlap=5)
    bands = list(segmenter.bands(lambda a, b: picture[a:b], (47, 61), options, confidence=True))
    np.testing.assert_array_equal(np.concatenate([band.labels for band in bands]), tiles.labels)
    np.testing.assert_allclose(
        np.concatenate([band.confidence for band in bands]), tiles.confidence, atol=1e-6
    )
    if outputs == "regions":
        codes = np.concatenate([band.codes for band in bands])
        assert codes.dtype == (np.uint8 if k <= 8 else np.uint16)
        np.testing.assert_array_equal(codes, tiles.codes)


@settings(max_examples=25, deadline=None)
@given(
    size_hw=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    tile=st.integers(4, 14),
    k=st.integers(1, 6),
    align_corners=st.booleans(),
    seed=st.integers(0, 999),
    on_device=st.booleans(),
)
def test_stitched_codes_are_the_signs_of_one_array_of_sums(size_hw, tile, k, align_corners, seed, on_device):
    """A network of stride 2: tiles differ where they overlap, and are blended before the sign is taken. on_device: the
    logits stay tensors, as those of a GPU do."""
    rng, cut = np.random.default_rng(seed), tiling.Tiling(tile, tile // 3, "linear", batch=2)
    picture, weight = photo(*size_hw, seed=seed), rng.normal(size=(k, 3)).astype(np.float32)

    def infer(x):
        return np.einsum("kc,nchw->nkhw", weight, x[:, :, 1::2, 1::2] / 128 - 1).astype(np.float32)

    grid, sums = cut.grid(size_hw), np.zeros((k + 1, *size_hw))
    for i, top in enumerate(grid.starts[0]):
        for j, left in enumerate(grid.starts[1]):
            seen = picture[np.ix_(grid.places(0, i), grid.places(1, j))]
            values = full(infer(tiling.channels_first(seen))[0], grid.tile, align_corners)
            window = tiling.window(grid.tile, "linear")
            h, w = (min(grid.tile[0], size_hw[0] - top), min(grid.tile[1], size_hw[1] - left))
            sums[:k, top : top + h, left : left + w] += (values * window)[:, :h, :w]
            sums[k, top : top + h, left : left + w] += window[:h, :w]
    mean = sums[:k] / sums[k]
    for logits in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if on_device:
                patch.setattr(
                    tiling, "_checked", lambda x, n, dimensions, regions: (torch.from_numpy(x), False)
                )
            found = tiling.whole(
                tiling.stitch(
                    lambda a, b: picture[a:b], size_hw, infer, tiling=cut, align_corners=align_corners,
                    confidence=True, regions=True, logits=logits,
                ), size_hw,
            )  # fmt: skip
        masks = np.stack([has(found.codes, region) for region in range(k)])
        np.testing.assert_array_equal(masks[sure(mean)], (mean > 0)[sure(mean)])
        np.testing.assert_array_equal(found.labels, painted(masks))
        np.testing.assert_allclose(found.confidence, sigmoid(np.abs(mean)).min(0), atol=1e-5)
        if logits:
            np.testing.assert_allclose(found.logits, mean, atol=1e-4)


@pytest.mark.parametrize(("k", "outputs"), [(1, "binary"), (4, "regions")])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("tile", [None, 64])
def test_views_are_averaged_as_logits_or_as_sigmoids(k, outputs, average, tile):
    network, picture = Looks(k, reach=2), photo(40, 50)
    images = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        axes = ((), (-1,), (-2,), (-2, -1))  # of two views the mean's sign is the same either way
        views = [network.coarse(images.flip(axis))[0].flip(axis).double().numpy() for axis in axes]
    mean = np.mean(views, 0)
    if average == "probabilities":
        p = np.mean([sigmoid(view) for view in views], 0)
        assert ((p > 0.5) != (mean > 0)).any()  # it makes a difference
        mean = np.log(p) - np.log1p(-p)
    found = Segmenter(network, card=card(k, outputs))(
        picture, flips=["horizontal", "vertical"], average=average, tile=tile, probabilities=True
    )
    inside = slice(None) if tile is None else slice(2, -2)  # a tile goes on beyond the picture
    masks = np.stack([found.mask(name) for name in found.classes.names[1:]])
    near = ~sure(mean)
    np.testing.assert_array_equal((masks | near)[:, inside, inside], ((mean > 0) | near)[:, inside, inside])
    p = found.probabilities[-k:]
    np.testing.assert_allclose(p[:, inside, inside], sigmoid(mean)[:, inside, inside], atol=1e-4)


@pytest.mark.parametrize("tile", [None, 32])
def test_the_crf_takes_a_binary_network_as_two_classes_and_refuses_regions(tile, picture):
    one, two = Looks(1), Looks(2)
    with torch.no_grad():
        two.conv.weight.zero_(), two.conv.bias.zero_()
        two.conv.weight[1:], two.conv.bias[1:] = one.conv.weight, one.conv.bias
    options = {"crf": "vgg", "tile": tile, "confidence": True, "probabilities": True}
    small = picture[:32, :40]
    single = Segmenter(one, card=card(1, "binary"))(small, **options)
    pair = Segmenter(two, card=card(2, "exclusive"))(small, **options)
    assert 0.02 < single.labels.mean() < 0.98
    assert (single.labels != Segmenter(one, card=card(1, "binary"))(small, tile=tile).labels).any()
    np.testing.assert_array_equal(single.labels, pair.labels)
    np.testing.assert_allclose(single.probabilities, pair.probabilities, atol=1e-6)
    np.testing.assert_allclose(single.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(single.probabilities.max(0), single.confidence, atol=1e-5)
    np.testing.assert_array_equal(single.probabilities.argmax(0), single.labels)
    with pytest.raises(InputError, match="probabilities, not logits"):
        Segmenter(one, card=card(1, "binary"))(small, crf="vgg", tile=tile, logits=True)
    with pytest.raises(InputError, match="regions of this model overlap; leave crf out"):
        looking(2, "regions")(small, crf="vgg", tile=tile)


def test_planes_that_no_memory_holds_are_refused_before_the_work():
    many = pixelwise.Card.of([f"c{i}" for i in range(600)], align_corners=False)
    segmenter = Segmenter(Answers(np.zeros((600, 2, 2))), card=many)
    picture = np.zeros((1000, 1000, 3), np.uint8)
    for tile in (None, 512):
        with pytest.raises(InputError, match=r"1200 planes of 1000 x 1000 float32 numbers take 4\.5 GiB"):
            segmenter(picture, tile=tile, probabilities=True, logits=True)


@pytest.mark.parametrize(
    ("k", "outputs", "planes"), [(1, "binary", 3), (2, "regions", 4), (2, "exclusive", 4)]
)
def test_planes_are_counted_one_by_one(k, outputs, planes, monkeypatch):
    segmenter, picture = looking(k, outputs), photo(10, 10)
    monkeypatch.setattr("pixelwise.inference.planes.MOST_BYTES", planes * 400)
    found = segmenter(picture, probabilities=True, logits=True)
    assert len(found.probabilities) + len(found.logits) == planes
    monkeypatch.setattr("pixelwise.inference.planes.MOST_BYTES", planes * 400 - 1)
    with pytest.raises(InputError, match=f"{planes} planes of 10 x 10 float32"):
        segmenter(picture, probabilities=True, logits=True)


def overlapping() -> tuple[Segmenter, np.ndarray]:
    """A whole with a core inside that reaches out of it, and their masks."""
    masks = np.zeros((2, 30, 40), bool)
    masks[0, 5:25, 5:30] = True
    masks[1, 10:20, 20:36] = True
    return answering(np.where(masks, 3.0, -3.0), "regions"), masks


def test_regions_are_whole_in_masks_areas_and_the_files_made_of_them(tmp_path):
    segmenter, masks = overlapping()
    picture = photo(30, 40)
    found = segmenter(picture)
    np.testing.assert_array_equal(found.labels, painted(masks))
    assert found.areas() == {"outside": (~masks.any(0)).mean(), "whole": 500 / 1200, "core": 160 / 1200}
    assert sum(found.areas().values()) > 1
    np.testing.assert_array_equal(found.mask("whole"), masks[0])
    np.testing.assert_array_equal(found.cutout("whole")[..., 3] > 0, masks[0])
    np.testing.assert_array_equal(found.cutout()[..., 3] > 0, masks.any(0))
    np.testing.assert_array_equal(found.overlay()[~masks.any(0)], picture[~masks.any(0)])
    assert (found.overlay(alpha=1)[masks[1]] == found.classes.colors[2]).all()
    found.legend()
    rows = {
        row["class"]: row for row in csv.DictReader(io.StringIO(found.save(tmp_path / "a.csv").read_text()))
    }
    assert {name: int(row["pixels"]) for name, row in rows.items()} == {
        "outside": int((~masks.any(0)).sum()), "whole": 500, "core": 160,
    }  # fmt: skip
    about = json.loads(found.save(tmp_path / "a.json").read_text())
    assert {entry["name"]: entry["pixels"] for entry in about["classes"]}["whole"] == 500
    coco = json.loads(found.save(tmp_path / "a.coco.json").read_text())
    for annotation, mask in zip(coco["annotations"], [~masks.any(0), *masks], strict=True):
        np.testing.assert_array_equal(decode_rle(annotation["segmentation"]), mask)
        assert annotation["area"] == mask.sum()
    pieces = [polygon for polygon in found.polygons() if polygon.id == 1]
    assert [piece.pixels for piece in pieces] == [500]
    for name in ("a.png", "a.npy", "a.coco.json", "a.polygons.json", "a.geojson"):
        found.save(tmp_path / name)
        np.testing.assert_array_equal(read_labels(tmp_path / name, found.classes), found.labels, name)


def test_each_region_is_cleaned_up_by_itself():
    rng = np.random.default_rng(3)
    masks = ndimage.gaussian_filter(rng.normal(size=(3, 60, 70)), (0, 2, 2)) > 0.02
    segmenter = answering(np.where(masks, 2.0, -2.0), "regions")
    picture = np.zeros((60, 70, 3), np.uint8)
    found = segmenter(picture, fill_holes="whole", largest_only="core")
    np.testing.assert_array_equal(found.mask("whole"), ndimage.binary_fill_holes(masks[0]))
    pieces, count = ndimage.label(masks[1])
    largest = 1 + np.argmax([(pieces == i + 1).sum() for i in range(count)])
    np.testing.assert_array_equal(found.mask("core"), pieces == largest)
    np.testing.assert_array_equal(found.mask("rim"), masks[2])
    np.testing.assert_array_equal(
        found.labels, painted(np.stack([found.mask(name) for name in ("whole", "core", "rim")]))
    )
    specks = segmenter(picture, min_area=30)
    for name, mask in zip(("whole", "core", "rim"), masks, strict=True):
        pieces, count = ndimage.label(specks.mask(name))
        assert all((pieces == i + 1).sum() >= 30 for i in range(count))
        alone = answering(np.where(mask[None], 2.0, -2.0), "regions")(picture, min_area=30)
        np.testing.assert_array_equal(specks.mask(name), alone.mask("whole"))
    with pytest.raises(InputError, match="'outside' is what no region covers"):
        segmenter(picture, fill_holes="outside")
    with pytest.raises(InputError, match="one by one, which needs the whole picture"):
        segmenter.bands(lambda a, b: picture[a:b], (60, 70), SegmentOptions(min_area=5, tile=32))


def test_bands_of_regions_go_on_where_they_stopped(tmp_path):
    segmenter, picture, options = looking(3, "regions", reach=1), photo(50, 40), SegmentOptions(tile=16)

    def bands(resume=None):
        return segmenter.bands(lambda a, b: picture[a:b], (50, 40), options, confidence=True, resume=resume)

    everything = list(bands())
    interrupted = bands()
    next(interrupted)
    next(interrupted).pending.save(tmp_path / "pending.npz")
    rest = list(bands(tiling.Pending.load(tmp_path / "pending.npz")))
    assert [band.top for band in rest] == [band.top for band in everything[2:]]
    for one, other in zip(rest, everything[2:], strict=True):
        for name in ("labels", "codes", "confidence"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_doubtful_pixels_belong_to_no_region():
    logits = np.full((2, 4, 6), 3.0)
    logits[0, :2], logits[1, :, :3] = 0.1, -0.2
    segmenter = answering(logits, "regions")
    found = segmenter(np.zeros((4, 6, 3), np.uint8), min_confidence=0.6)
    doubtful = np.zeros((4, 6), bool)
    doubtful[:2], doubtful[:, :3] = True, True
    np.testing.assert_array_equal(found.labels == 255, doubtful)
    for name in found.classes.names:
        assert not (found.mask(name) & doubtful).any()
    np.testing.assert_array_equal(found.mask("whole"), ~doubtful)
    assert found.areas() == {"whole": 0.25, "core": 0.25}


def test_evaluation_compares_the_label_map_and_says_so(tmp_path):
    segmenter, masks = overlapping()
    truth = painted(masks).astype(np.uint8)
    truth[:8] = 255
    samples = [Sample(np.zeros((30, 40, 3), np.uint8), truth, "one")]
    result = evaluate(segmenter, samples)
    assert np.trace(result.confusion.matrix) == result.confusion.matrix.sum() == 22 * 40
    assert "overlap are compared as the label map that their order makes" in table(result)
    write_report(result, segmenter, tmp_path)
    assert [path.name for path in (tmp_path / "worst").iterdir()] == ["01_one.jpg"]
    binary = answering(np.where(masks[:1], 3.0, -3.0), "binary")
    result = evaluate(binary, [Sample(samples[0].image, masks[0].astype(np.uint8), "one")])
    assert result.to_dict()["classes"]["foreground"]["iou"] == 1
    assert "overlap" not in table(result)


def test_frames_of_a_video_are_mixed_before_the_sign_is_taken():
    segmenter = looking(3, "regions")
    engine = Smoothed(segmenter.engine, 0.6)
    smooth = copy.copy(segmenter)
    smooth.engine = engine
    frames, mixed = [photo(20, 30, seed=i) for i in range(3)], None
    for frame in frames:
        engine.next_frame()
        found = smooth(frame)
        now = segmenter(frame, logits=True).logits
        mixed = now if mixed is None else 0.6 * mixed + 0.4 * now
        for i, name in enumerate(NAMES[1:4]):
            clear = np.abs(mixed[i]) > 1e-4
            np.testing.assert_array_equal(found.mask(name)[clear], mixed[i][clear] > 0)


def test_seams_are_where_any_region_differs():
    class Ends(Looks):
        """Region 2 differs from tile to tile, and lies under region 3, which is everywhere."""

        calls = 0

        def coarse(self, image):
            Ends.calls += 1
            logits = torch.ones(len(image), 3, *image.shape[2:])
            logits[:, 1] = -1.0 if Ends.calls % 2 else 1.0
            return logits

    segmenter = Segmenter(Ends(3), card=card(3, "regions"))
    picture = photo(16, 40)
    assert segmenter.seams(picture, options=SegmentOptions(tile=(16, 16))).share == 1


def test_more_regions_than_an_integer_has_bits_are_refused():
    classes = LabelSet.of([f"r{i}" for i in range(66)])
    many = pixelwise.Card.of(classes, outputs="regions")
    for options in ({}, {"tile": 8}):
        with pytest.raises(InputError, match="up to 64 overlapping regions, got 65"):
            Segmenter(Answers(np.ones((65, 8, 8))), card=many)(photo(8, 8), **options)
    most = pixelwise.Card.of([f"r{i}" for i in range(65)], outputs="regions")
    found = Segmenter(Answers(np.ones((64, 8, 8))), card=most)(photo(8, 8))
    assert found.codes.dtype == np.uint64
    assert (found.labels == 64).all()
    assert found.mask("r33").all()


@pytest.mark.parametrize("tile", [None, 32])
def test_a_card_that_speaks_of_other_channels_is_refused(tile):
    for k, outputs, network in (
        (4, "exclusive", 3),
        (3, "regions", 4),
        (1, "binary", 2),
        (2, "exclusive", 3),
    ):
        segmenter = Segmenter(Looks(k), card=card(k, outputs))
        segmenter.engine = Segmenter(Looks(network), card=card(network, "exclusive")).engine
        with pytest.raises(InputError, match="give a card that agrees"):
            segmenter(photo(20, 20), tile=tile)
    old = Segmenter(Looks(2), card=card(2, "exclusive"))  # cards written before they could say "binary"
    old.engine = looking(1, "binary").engine
    np.testing.assert_array_equal(old(photo(20, 20)).labels, looking(1, "binary")(photo(20, 20)).labels)
    with pytest.raises(InputError, match="'outside', which every pixel would be"):
        looking(1, "exclusive")(photo(20, 20), tile=tile)


def test_unetplusplus_calls_its_foreground_by_name(picture):
    network = pixelwise.create_model("unetplusplus", filters=(4, 8, 12, 16, 20)).eval()
    with pytest.warns(PixelwiseWarning, match="named by number"):
        segmenter = Segmenter(network)
    with torch.no_grad():
        x = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
        logit = network(x)["out"][0, 0]
        middle = float(logit.median())
        for name, parameter in network.named_parameters():
            if parameter.shape == (1,) and name.endswith("bias"):
                parameter -= middle  # as many pixels on either side
        logit = network(x)["out"][0, 0].numpy()
    found = segmenter(picture)
    positive, clear = logit > 0, np.abs(logit) > 1e-4
    assert 0.2 < positive.mean() < 0.8
    second = segmenter.classes.names[1]
    np.testing.assert_array_equal(found.mask(second)[clear], positive[clear])
    assert found.areas()[second] == pytest.approx(positive.mean(), abs=0.01)
    assert found.overlay().shape == picture.shape


def test_nonewnet_2d_takes_four_channels_and_gives_three_regions():
    network = pixelwise.create_model("nonewnet_2d", width=4).eval()
    with pytest.warns(PixelwiseWarning, match="named by number"):
        segmenter = Segmenter(network)
    picture = photo(32, 48, 4)
    with torch.no_grad():
        logits = network(torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None])["out"][
            0
        ].numpy()
    found = segmenter(picture, logits=True)
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    for i, name in enumerate(segmenter.classes.names[1:]):
        clear = np.abs(logits[i]) > 1e-4
        np.testing.assert_array_equal(found.mask(name)[clear], logits[i][clear] > 0)
    np.testing.assert_array_equal(found.image, picture[..., :3])
    assert found.overlay().shape == (32, 48, 3)


# ---------------------------------------------------------------------------------- channels of pictures


def by_hand(segmenter: Segmenter, picture: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        return segmenter.engine(x)[0].argmax(0).numpy()


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_arrays_and_tensors_of_as_many_channels_as_the_card(channels):
    segmenter, picture = looking(3, "exclusive", channels=channels), photo(21, 34, channels)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    for source in (picture, tensor, picture / 255):
        found = segmenter(source)
        np.testing.assert_array_equal(found.labels, by_hand(segmenter, picture))
        shown = picture[..., :3] if channels > 3 else np.repeat(picture[..., :1], 3, axis=2)
        np.testing.assert_array_equal(found.image, shown)
    np.testing.assert_array_equal(segmenter(picture, tile=32).labels, found.labels)
    wrong = np.zeros((21, 34, 7 if channels != 1 else 2), np.uint8)
    with pytest.raises(InputError, match=f"{channels} channels|shape"):
        segmenter(wrong)


def test_a_model_of_grey_pictures_sees_grey(picture):
    segmenter = looking(3, "exclusive", channels=1)
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    np.testing.assert_array_equal(segmenter(picture).labels, by_hand(segmenter, grey[..., None]))
    np.testing.assert_array_equal(segmenter(grey).labels, segmenter(picture).labels)
    np.testing.assert_array_equal(segmenter(picture).image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_the_fourth_channel_of_a_file_is_no_transparency_to_a_model_of_four(kind, tmp_path):
    segmenter, picture = looking(3, "exclusive", channels=4), photo(21, 34, 4)
    Image.fromarray(picture).save(
        tmp_path / f"a.{kind}", **({"lossless": True, "exact": True} if kind == "webp" else {})
    )
    np.testing.assert_array_equal(segmenter(tmp_path / f"a.{kind}").labels, by_hand(segmenter, picture))
    np.testing.assert_array_equal(segmenter(Image.fromarray(picture)).labels, by_hand(segmenter, picture))
    Image.fromarray(picture[..., :3]).save(tmp_path / "rgb.png")
    with pytest.raises(InputError, match=r"takes pictures of 4 channels, and .*rgb.png has 3 \(RGB\)"):
        segmenter(tmp_path / "rgb.png")
    with pytest.raises(InputError, match=r"4 channels, and the array has the shape \(21, 34, 3\)"):
        segmenter(picture[..., :3])


def test_resizing_four_channels_leaves_each_as_it_is():
    """Pillow weighs the colours of RGBA by its fourth channel."""
    small = replace(looking(2, "exclusive", channels=4).card.preprocess, size=10)
    picture = photo(20, 20, 4)
    picture[..., 3] = 0
    seen = small(picture)[0]
    for channel in range(4):
        alone = Image.fromarray(picture[..., channel]).resize((10, 10), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(seen[channel] * 255, np.asarray(alone), atol=1e-3)


def test_a_raster_of_as_many_bands_is_read_and_of_others_refused(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    picture = photo(21, 34, 6)
    profile = {"driver": "GTiff", "height": 21, "width": 34, "count": 6, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "six.tif", "w", transform=rasterio.Affine(2, 0, 5, 0, -2, 9), **profile
    ) as file:
        file.write(picture.transpose(2, 0, 1))
    segmenter = looking(3, "exclusive", channels=6)
    found = segmenter(tmp_path / "six.tif")
    np.testing.assert_array_equal(found.labels, by_hand(segmenter, picture))
    np.testing.assert_array_equal(found.image, picture[..., :3])
    with pytest.raises(InputError, match=r"takes pictures of 5 channels, and .* has 6 bands"):
        looking(3, "exclusive", channels=5)(tmp_path / "six.tif")
    with pytest.raises(InputError, match="714 pixels, more than the limit of 100"):
        segmenter(tmp_path / "six.tif", max_pixels=100)


def test_a_tiff_that_pillow_does_not_read_whole_is_read_as_a_raster(tmp_path, capsys):
    tifffile = pytest.importorskip("tifffile", reason="rasters need tifffile (pixelwise[raster])")
    pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    picture, path = photo(21, 34, 4), tmp_path / "a.tif"
    segmenter, two = looking(3, "exclusive", channels=4), looking(3, "exclusive", channels=2)
    for options in (
        {"photometric": "minisblack", "planarconfig": "contig"},
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ):
        tifffile.imwrite(path, picture, **options)
        np.testing.assert_array_equal(segmenter(path).labels, by_hand(segmenter, picture))
        with pytest.raises(InputError, match="takes pictures of 2 channels"):
            two(path)
    tifffile.imwrite(path, picture[..., :2], photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(two(path).labels, by_hand(two, picture[..., :2]))
    assert capsys.readouterr().err == ""
    tifffile.imwrite(path, picture.astype(np.uint16) * 16, photometric="minisblack", planarconfig="contig")
    segmenter(path)
    assert "are shown as black to white" in capsys.readouterr().err
    path.write_bytes(b"II*\0 nothing")
    with pytest.raises(InputError, match=r"a\.tif"):
        segmenter(path)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_run_over_pictures_reads_as_many_channels(channels, tmp_path):
    from pixelwise.pipeline.pictures import Job
    from pixelwise.pipeline.run import segment_all
    from pixelwise.sources import Source

    segmenter, picture, path = (
        looking(3, "exclusive", channels=channels),
        photo(21, 34, 4),
        tmp_path / "a.png",
    )
    Image.fromarray(picture).save(path)
    (outcome,) = segment_all(segmenter, [Job(Source(path, path, "picture"), {"npy": tmp_path / "a.npy"})])
    assert outcome.error is None
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), segmenter(path).labels)


def test_a_raster_of_regions_counts_each_whole(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    from pixelwise.pipeline.raster import segment_raster

    picture = photo(60, 50)
    picture[:20, :20] = 7
    profile = {"driver": "GTiff", "height": 60, "width": 50, "count": 3, "dtype": "uint8", "nodata": 7}
    with rasterio.open(
        tmp_path / "a.tif", "w", transform=rasterio.Affine(2, 0, 5, 0, -2, 9), **profile
    ) as file:
        file.write(picture.transpose(2, 0, 1))
    segmenter, options = looking(3, "regions"), SegmentOptions(tile=32, min_confidence=0.55)
    files = {
        "geotiff": tmp_path / "out.tif",
        "json": tmp_path / "out.json",
        "mask of whole": tmp_path / "out.png",
    }
    about = segment_raster(segmenter, tmp_path / "a.tif", files, options)
    with rasterio.open(tmp_path / "a.tif") as file:
        missing = file.dataset_mask() == 0
    assert missing[:20, :20].all()
    found = segmenter.segment(picture, options)
    shares = {name: (found.mask(name) & ~missing).mean() for name in found.classes.names}
    assert {entry["name"]: entry["share"] for entry in about["classes"]} == pytest.approx(shares)
    assert json.loads((tmp_path / "out.json").read_text())["classes"] == about["classes"]
    whole = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(whole, found.mask("whole") & ~missing)
    labels = read_labels(tmp_path / "out.tif", segmenter.classes)
    np.testing.assert_array_equal(labels, np.where(missing, 255, found.labels))
    with pytest.raises(InputError, match="one by one"):
        segment_raster(segmenter, tmp_path / "a.tif", {"csv": tmp_path / "b.csv"}, SegmentOptions(min_area=9))


# ------------------------------------------------------------------------------ a segmentation in the hand


def made(**changes) -> Segmentation:
    classes = LabelSet.of(["background", "<cat> & dog", "car"], ids=[0, 8, 3])
    labels = np.array([[0, 8, 8], [3, 255, 8]], np.uint8)
    return replace(Segmentation(labels, classes, photo(2, 3)), **changes)


def test_a_segmentation_shows_itself_in_one_line():
    assert repr(made()) == "Segmentation(2 x 3: <cat> & dog 50.0%, background 16.7%, car 16.7%)"
    classes = LabelSet.of([f"c{i}" for i in range(9)])
    many = Segmentation(np.arange(9, dtype=np.uint8)[None], classes, np.zeros((1, 9, 3), np.uint8))
    assert repr(many).endswith("c5 11.1%, and 3 more)")
    assert "\n" not in repr(many)
    nothing = Segmentation(np.full((1, 9), 255, np.uint8), classes, np.zeros((1, 9, 3), np.uint8))
    assert repr(nothing) == "Segmentation(1 x 9: no class)"


@pytest.mark.parametrize("codes", [None, np.array([[0, 1, 3], [2, 0, 1]], np.uint8)])
def test_a_notebook_shows_the_overlay_and_its_legend(codes):
    import base64

    shown = made(codes=codes)._repr_html_()
    assert "&lt;cat&gt; &amp; dog" in shown
    assert "<cat>" not in shown
    assert not re.search(r'(?:src|href)="(?!data:)', shown)
    data = re.search(r"data:image/png;base64,([^\"]+)", shown)[1]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(picture, made(codes=codes).overlay())
    large = Segmentation(np.zeros((30, 4001), np.uint8), made().classes, np.zeros((30, 4001, 3), np.uint8))
    data = re.search(r"data:image/png;base64,([^\"]+)", large._repr_html_())[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (801, 6)


def test_a_segmentation_is_an_array_of_its_labels():
    found = made()
    assert np.asarray(found) is found.labels or np.shares_memory(np.asarray(found), found.labels)
    np.testing.assert_array_equal(np.asarray(found, np.int64), found.labels.astype(np.int64))
    assert np.asarray(found, np.int64).dtype == np.int64
    assert not np.shares_memory(np.array(found), found.labels)
    assert (np.asarray(found) == 8).sum() == 3
    if int(np.__version__.split(".")[0]) >= 2:
        assert np.shares_memory(np.asarray(found, copy=False), found.labels)
        with pytest.raises(ValueError, match="without a copy"):
            np.asarray(found, np.float32, copy=False)


def test_classes_are_named_or_numbered_by_their_ids():
    found = made()
    for which in (8, np.uint8(8), np.int64(8)):
        np.testing.assert_array_equal(found.mask(which), found.mask("<cat> & dog"))
        np.testing.assert_array_equal(found.cutout(which, "car")[..., 3] > 0, found.mask(8) | found.mask(3))
    for which in (True, np.True_, 8.0, None):
        with pytest.raises(InputError, match="by its name or its id"):
            found.mask(which)
    with pytest.raises(InputError, match="id 1 belongs to no class; known are 0, 3, 8"):
        found.mask(1)
    with pytest.raises(UnknownNameError, match="did you mean 'car'"):
        found.cutout("cars")


def test_a_segmentation_is_copied_and_pickled_whole():
    found = overlapping()[0](photo(30, 40), confidence=True, probabilities=True, logits=True)
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), copy.copy(found)):
        for name in ("labels", "image", "confidence", "codes", "probabilities", "logits"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert again.classes == found.classes
        assert repr(again) == repr(found)


def test_codes_are_bits():
    codes = np.array([0, 1, 6, 1 << 40], np.uint64)
    assert has(codes, 40).tolist() == [False, False, False, True]
    assert highest(codes, 64).tolist() == [0, 1, 3, 41]
