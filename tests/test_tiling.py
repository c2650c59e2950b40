"""Tiles: what comes out is what the whole picture would give, whatever the size, and memory does not grow."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pixelwise import LabelSet, Segmenter, SegmentOptions
from pixelwise.errors import InputError
from pixelwise.inference import tiling as module
from pixelwise.inference.decide import decide
from pixelwise.inference.plan import plan, seams
from pixelwise.inference.tiling import Pending, Tiling, channels_first, collect, enlarge, stitch, window
from pixelwise.models.unet_valid import UNetValid, tile_geometry
from tiny import CARD, COLORS, quadrant_labels, quadrants, write_colors_model

WINDOWS = ("constant", "linear", "gaussian", "spline")


def drawn(size, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, channels)).astype(np.uint8)


def small(tile: np.ndarray) -> np.ndarray:
    """A picture's values in [-1, 1], as a network likes them."""
    return channels_first(tile) / np.float32(128) - np.float32(1)


def pointwise(k: int, seed: int = 0):
    """A network that sees one pixel."""
    weight = np.random.default_rng(seed).normal(size=(k, 3)).astype(np.float32)
    return lambda x: np.einsum("kc,nc...->nk...", weight, x)


def pooled(k: int, stride: int, seed: int = 0):
    """A network of that stride: coarse logits from a pixel of each patch, the last patches cut off."""
    fine = pointwise(k, seed)
    return lambda x: np.ascontiguousarray(
        fine(x[(slice(None), slice(None), *([slice(stride // 2, None, stride)] * (x.ndim - 2)))])
    )


def run(picture, infer, tiling, **options):
    size = picture.shape[:-1]
    bands = stitch(lambda a, b: picture[a:b], size, infer, tiling=tiling, prepare=small, **options)
    return collect(bands, size)


def whole(picture, infer, tiling, align_corners=False):
    """The definition: one array of sums for all, tiles added in reading order; (k + 1, size), the last of weights."""
    grid = tiling.grid(picture.shape[:-1])
    weights = window(grid.tile, tiling.window)
    total = None
    for index in itertools.product(*(range(len(starts)) for starts in grid.starts)):
        tile = picture[np.ix_(*(grid.places(axis, i) for axis, i in enumerate(index)))]
        logits = enlarge(infer(small(tile))[0], grid.tile, align_corners=align_corners)
        if total is None:
            sizes = [starts[-1] + side for starts, side in zip(grid.starts, grid.tile, strict=True)]
            total = np.zeros((len(logits) + 1, *sizes), np.float32)
        at = tuple(slice(s[i], s[i] + t) for s, i, t in zip(grid.starts, index, grid.tile, strict=True))
        total[(slice(-1), *at)] += logits * weights
        total[(-1, *at)] += weights
    return total[(slice(None), *(slice(side) for side in picture.shape[:-1]))]


@st.composite
def works(draw, axes=(2, 3)):
    """A size, a tiling that fits it, and a stride."""
    dimensions = draw(st.sampled_from(axes))
    size = draw(st.tuples(*[st.integers(1, 40 if dimensions == 2 else 12)] * dimensions))
    tile = draw(st.tuples(*[st.integers(1, 24 if dimensions == 2 else 8)] * dimensions))
    multiple = draw(st.integers(1, min(tile)))
    overlap = tuple(draw(st.integers(0, side - multiple)) for side in tile)
    tiling = Tiling(
        tile, overlap, draw(st.sampled_from(WINDOWS)), batch=draw(st.integers(1, 5)), multiple=multiple
    )
    return size, tiling, draw(st.integers(1, min(tile)))


@settings(max_examples=200, deadline=None)
@given(
    work=works(),
    k=st.sampled_from([2, 5, 300]),
    align_corners=st.booleans(),
    plain=st.booleans(),
    seed=st.integers(0, 999),
)
def test_bands_equal_one_array_of_sums_bit_for_bit(work, k, align_corners, plain, seed):
    size, tiling, stride = work
    picture, infer = drawn(size, seed), pooled(k, stride, seed)
    expected = whole(picture, infer, tiling, align_corners)
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(module, "_Compiled", module._Plain)
        labels, none = run(picture, infer, tiling, align_corners=align_corners)
        again, confidence = run(picture, infer, tiling, align_corners=align_corners, confidence=True)
    assert none is None
    assert labels.dtype == np.min_scalar_type(k - 1)
    np.testing.assert_array_equal(labels, expected[:-1].argmax(0))
    np.testing.assert_array_equal(again, labels)
    odds = np.exp((expected[:-1] - expected[:-1].max(0)) / expected[-1])
    np.testing.assert_allclose(confidence, 1 / odds.sum(0), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(work=works(), seed=st.integers(0, 999))
def test_tiling_a_pointwise_network_changes_nothing(work, seed):
    size, tiling, _ = work
    picture, infer = drawn(size, seed), pointwise(4, seed)
    logits = infer(small(picture))[0]
    labels, confidence = run(picture, infer, tiling, confidence=True)
    best = np.sort(logits, axis=0)
    np.testing.assert_array_equal(
        labels[best[-1] - best[-2] > 1e-5], logits.argmax(0)[best[-1] - best[-2] > 1e-5]
    )
    np.testing.assert_allclose(confidence, 1 / np.exp(logits - best[-1]).sum(0), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    tile=st.tuples(st.integers(14, 40), st.integers(14, 40)),
    window_=st.sampled_from(WINDOWS),
    seed=st.integers(0, 999),
)
def test_a_network_whose_reach_is_the_margin_gives_what_the_whole_picture_gives(size, tile, window_, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(6, 3, 3, 3, generator=generator) / 5,
        torch.randn(4, 6, 3, 3, generator=generator) / 5,
    ]

    def infer(x):
        with torch.inference_mode():
            hidden = F.conv2d(torch.as_tensor(x), weights[0], padding=1).relu()
            return F.conv2d(hidden, weights[1], padding=2, dilation=2)

    # a picture smaller than a tile is continued by mirroring
    size = tuple(max(pair) for pair in zip(size, tile, strict=True))
    picture = drawn(size, seed)
    logits = infer(small(picture))[0].numpy()  # zeros beyond the picture, as every padded network sees it
    labels, confidence = run(picture, infer, Tiling(tile, 6, window_, batch=3, margin=3), confidence=True)
    best = np.sort(logits, axis=0)
    clear = best[-1] - best[-2] > 1e-4
    np.testing.assert_array_equal(labels[clear], logits.argmax(0)[clear])
    np.testing.assert_allclose(confidence, 1 / np.exp(logits - best[-1]).sum(0), atol=1e-4)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_strided_network_gives_what_decide_gives_for_the_whole_picture(align_corners):
    """Tiles begin at multiples of the stride and a margin of one stride holds the interpolation's reach."""
    stride, extra = 8, 1 if align_corners else 0
    picture = drawn((96 + extra, 160 + extra))
    weight = pointwise(5)

    def infer(x):  # a sample a patch: with aligned corners at pixels 0, 8, ...; else in the patches' middle
        at = slice(0, None, stride) if align_corners else slice(stride // 2, None, stride)
        return np.ascontiguousarray(weight(x)[..., at, at])

    expected, p = decide(
        infer(small(picture))[0], picture.shape[:2], align_corners=align_corners, confidence=True
    )
    tiling = Tiling(48 + extra, 24, multiple=stride, margin=stride)
    labels, confidence = run(picture, infer, tiling, align_corners=align_corners, confidence=True)
    np.testing.assert_allclose(confidence, p, atol=1e-5)
    assert (labels == expected).mean() > 0.9999


def test_the_overlap_tiles_of_an_unpadded_unet_give_its_answer_for_the_whole_picture():
    torch.manual_seed(0)
    network = UNetValid(3, 3, width=2).eval()
    geometry = tile_geometry(68)
    overlap = geometry.output_px - geometry.step_px
    tiling = Tiling(geometry.output_px, overlap, "constant", multiple=16, border=geometry.border_px)
    picture = drawn((150, 170))
    with torch.inference_mode():
        logits = network.coarse(torch.from_numpy(small(picture)))[0].numpy()
        network.pad = False
        labels, confidence = run(
            picture, lambda x: network.coarse(torch.from_numpy(x)), tiling, confidence=True
        )
    best = np.sort(logits, axis=0)
    clear = best[-1] - best[-2] > 1e-6
    np.testing.assert_array_equal(labels[clear], logits.argmax(0)[clear])
    np.testing.assert_allclose(confidence, 1 / np.exp(logits - best[-1]).sum(0), atol=1e-5)


@pytest.mark.parametrize("kind", WINDOWS)
def test_a_constant_field_shows_no_seam(kind):
    picture = np.full((90, 110, 3), 137, np.uint8)
    labels, confidence = run(picture, pointwise(7), Tiling((32, 40), 0.4, kind), confidence=True)
    assert len(np.unique(labels)) == 1
    np.testing.assert_allclose(confidence, confidence[0, 0], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(work=works(), border=st.integers(0, 9))
def test_every_row_is_read_once_and_in_order_and_comes_out_once_and_in_order(work, border):
    size, tiling, _ = work
    tiling = Tiling(tiling.tile, tiling.overlap, multiple=tiling.multiple, border=border)
    picture, reads = drawn(size), []

    def read(top, bottom):
        reads.append((top, bottom))
        return picture[top:bottom]

    crop = (slice(None), slice(None), *([slice(border, -border or None)] * len(size)))
    bands = list(stitch(read, size, lambda x: x[crop], tiling=tiling))
    ends = [0, *(bottom for _, bottom in reads)]
    assert [top for top, _ in reads] == ends[:-1]
    assert ends[-1] == size[0]
    tops = [band.top for band in bands]
    assert tops == [0, *itertools.accumulate(len(band.labels) for band in bands)][:-1]
    assert sum(len(band.labels) for band in bands) == size[0]
    expected = picture.argmax(-1)
    ties = np.sort(picture, axis=-1)[..., -1] == np.sort(picture, axis=-1)[..., -2]
    np.testing.assert_array_equal(np.concatenate([b.labels for b in bands])[~ties], expected[~ties])


@settings(max_examples=30, deadline=None)
@given(work=works(), confidence=st.booleans(), plain=st.booleans())
def test_work_goes_on_after_any_band_as_if_it_had_not_stopped(tmp_path_factory, work, confidence, plain):
    size, tiling, stride = work
    picture, infer = drawn(size), pooled(4, stride)
    file, calls = tmp_path_factory.mktemp("work") / "pending.npz", []

    def counted(x):
        calls.append(len(x))
        return infer(x)

    def bands(**options):
        return stitch(
            lambda a, b: picture[a:b],
            size,
            counted,
            tiling=tiling,
            prepare=small,
            confidence=confidence,
            **options,
        )

    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(module, "_Compiled", module._Plain)
        expected = list(bands())
        tiles_a_band = sum(calls) // len(expected)
        for band in bands():
            if band.pending is None:
                break
            band.pending.save(file)
            calls.clear()
            pending = Pending.load(file)
            rest = list(bands(resume=pending))
            assert sum(calls) == tiles_a_band * (len(expected) - pending.band)
            assert rest[0].top == pending.top
            for one, other in zip(rest, expected[pending.band :], strict=True):
                np.testing.assert_array_equal(one.labels, other.labels)
                if confidence:
                    np.testing.assert_array_equal(one.confidence, other.confidence)
    assert expected[-1].pending is None


def test_unfinished_work_of_something_else_is_refused(tmp_path):
    picture = drawn((40, 30))
    tiling = Tiling(16, 4)

    def bands(k=3, tiling=tiling, **options):
        return stitch(lambda a, b: picture[a:b], (40, 30), pointwise(k), tiling=tiling, **options)

    pending = next(bands()).pending
    with pytest.raises(InputError, match="belongs to"):
        bands(tiling=Tiling(16, 5), resume=pending)
    with pytest.raises(InputError, match="belongs to"):
        bands(confidence=True, resume=pending)
    with pytest.raises(InputError, match="another network"):
        next(bands(k=4, resume=pending))
    (tmp_path / "broken.npz").write_bytes(b"PK not really")
    with pytest.raises(InputError, match="no unfinished work"):
        Pending.load(tmp_path / "broken.npz")


@pytest.mark.parametrize("size", [(50, 41), (9, 20, 13)])
def test_tensors_give_the_same_labels_and_stay_tensors(monkeypatch, size):
    """What a GPU takes: rows, tiles, logits and sums are tensors, here of the CPU."""
    picture = drawn(size)
    tiling = Tiling(12 if len(size) == 2 else 6, 0.3, batch=2)
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected, p = collect(
        stitch(
            lambda a, b: picture[a:b], size, lambda x: torch.einsum("kc,nc...->nk...", weight, torch.from_numpy(x)),
            tiling=tiling, confidence=True,
        ), size,
    )  # fmt: skip
    monkeypatch.setattr(module, "_checked", lambda logits, n, dimensions, regions: (logits, False))
    tensor = torch.from_numpy(picture)

    def infer(x):
        assert isinstance(x, torch.Tensor)
        return torch.einsum("kc,nc...->nk...", weight, x)

    bands = list(stitch(lambda a, b: tensor[a:b], size, infer, tiling=tiling, confidence=True))
    assert isinstance(bands[0].pending.sums, torch.Tensor)
    labels, confidence = collect(iter(bands), size)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(confidence, p, atol=1e-5)


def test_a_single_channel_is_foreground_where_its_logit_is_positive():
    picture = drawn((30, 40))
    labels, confidence = run(picture, lambda x: x[:, :1], Tiling(16), confidence=True)
    logit = small(picture)[0, 0]
    np.testing.assert_array_equal(labels, logit > 0)
    np.testing.assert_allclose(confidence, 1 / (1 + np.exp(-np.abs(logit))), atol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "gaussian"])
def test_labels_are_those_of_monai(kind):
    inferers = pytest.importorskip("monai.inferers", reason="MONAI is the reference for stitching")
    picture = drawn((160, 208))
    torch.manual_seed(0)
    network = nn.Conv2d(3, 5, 7, padding=3)
    with torch.inference_mode():
        theirs = inferers.sliding_window_inference(
            torch.from_numpy(small(picture)), 64, 4, network, overlap=0.25, mode=kind
        )[0].numpy()  # fmt: skip
        labels, _ = run(picture, lambda x: network(torch.from_numpy(x)), Tiling(64, 0.25, kind, batch=4))
    best = np.sort(theirs, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(labels[clear], theirs.argmax(0)[clear])


@pytest.mark.parametrize("kind", WINDOWS)
def test_weights_are_symmetric_positive_and_fall_towards_the_edge(kind):
    weights = window((17, 24), kind)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-6)
    assert weights.min() >= 1e-3
    assert weights.max() <= 1
    assert (np.diff(weights[:, 12])[:8] >= 0).all()
    assert weights.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "overlap"),
        ({"overlap": 512}, "try overlap"),
        ({"overlap": 1.5}, "share below 1"),
        ({"overlap": -1}, "overlap"),
        ({"tile": 16, "multiple": 32}, "multiple"),
        ({"window": "hann"}, "'hann'"),
        ({"batch": 0}, "batch"),
        ({"margin": 70}, "try overlap 140"),
        ({"tile": (4, 4, 4), "overlap": (1, 1)}, "axes"),
    ],
)
def test_what_cannot_be_cut_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Tiling(**options)


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="expected a size"):
        stitch(lambda a, b: None, (5, 0), pointwise(2), tiling=Tiling(4))
    with pytest.raises(InputError, match="tile must be"):
        Tiling((4, 4, 4)).grid((9, 9))
    picture = drawn((9, 9))
    with pytest.raises(InputError, match=r"read\(0, 4\) must give \(4, 9, channels\)"):
        next(stitch(lambda a, b: picture[a : b - 1], (9, 9), pointwise(2), tiling=Tiling(4)))
    with pytest.raises(InputError, match=r"expected logits \(n, k, h, w\)"):
        next(stitch(lambda a, b: picture[a:b], (9, 9), lambda x: x[0], tiling=Tiling(4)))


def test_neighbours_agree_where_the_network_sees_enough_and_the_seam_report_says_where():
    """A network that looks 4 pixels far: neighbours differ only within 4 pixels of a tile's edge."""
    picture = drawn((120, 120))
    kernel = torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(0)) / 20

    def infer(x):
        return F.conv2d(torch.from_numpy(x), kernel, padding=4)

    report = seams(lambda a, b: picture[a:b], (120, 120), infer, tiling=Tiling(40, 0.5), prepare=small)
    assert report.by_depth[0] > 0.02
    assert max(report.by_depth[4:]) == 0
    assert report.overlap_px(0) == 8
    assert report.share == report.different / report.pixels > 0
    assert "differ on" in str(report)
    nothing = seams(lambda a, b: picture[a:b], (120, 120), infer, tiling=Tiling(120), prepare=small)
    assert (nothing.pixels, nothing.share, nothing.overlap_px()) == (0, 0, 0)
    assert "nothing to compare" in str(nothing)


def test_a_plan_takes_the_largest_tile_that_fits_and_says_what_it_costs():
    seen = []

    def infer(x):
        seen.append(x.shape)
        return np.zeros((1, 4, *x.shape[2:]), np.float32)

    made = plan((5000, 3000), infer, memory_bytes=10**9)
    assert made.tiling.tile == 1024
    assert made.tiles == made.tiling.grid((5000, 3000)).count == 7 * 4
    assert seen[0] == (1, 3, 256, 256)
    assert seen[-1] == (1, 3, 1024, 1024)
    assert "28 tiles of 1024 x 1024" in str(made)
    assert plan((5000, 3000), infer, memory_bytes=45_000_000).tiling.tile < 1024
    assert plan((300, 200), infer, memory_bytes=10**9).tiling.tile == 384
    with pytest.raises(InputError, match="allow more"):
        plan((5000, 3000), infer, memory_bytes=1_000_000)


MEMORY = """
import sys
import numpy as np
import pixelwise.kernels
from pixelwise.inference.plan import PeakMemory
from pixelwise.inference.tiling import Tiling, stitch

h, w = int(sys.argv[1]), int(sys.argv[2])
columns = np.arange(w, dtype=np.uint32)[None, :, None]

def read(top, bottom):
    rows = np.arange(top, bottom, dtype=np.uint32)[:, None, None]
    return (columns // 7 + rows // 5 * np.array([1, 2, 3], np.uint32)).astype(np.uint8)

def bands(h):
    return sum(int(band.labels[0, 0]) for band in stitch(read, (h, w), lambda x: x, tiling=Tiling(256, 0.25)))

bands(256)  # compiles, and holds what one row of tiles needs
before = PeakMemory.now()
with PeakMemory() as peak:
    bands(h)
print(peak.bytes - before)
"""


def peak_bytes(h: int, w: int) -> int:
    """The most that a process of its own held while it stitched, beyond what one row of tiles took before."""
    code = [sys.executable, "-c", MEMORY, str(h), str(w)]
    return int(subprocess.run(code, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_memory_does_not_grow_with_height():
    low, high = peak_bytes(512, 1024), peak_bytes(4096, 1024)
    assert high < low + 8_000_000, (low, high)  # the picture would take 12.6 MB, its float logits 50 MB


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_squares_of_4k_and_16k_need_memory_in_proportion_to_their_width_only():
    small_square, large_square = peak_bytes(4096, 4096), peak_bytes(16384, 16384)
    assert large_square < 4.5 * small_square + 30_000_000
    assert large_square < 300_000_000  # its float logits would take 3.2 GB


# Through the front door ----------------------------------------------------------------------------------------


def test_a_segmenter_takes_tiles_and_views(colors_model):
    segmenter = Segmenter(colors_model)
    whole_picture = segmenter(quadrants(), confidence=True)
    for options in (
        {"tile": 16},
        {"tile": (16, 24), "overlap": 8, "window": "linear"},
        {"tile": 512},
        {"tile": "auto"},
        {"tile": 16, "overlap": "auto"},
        {"flips": ("horizontal", "vertical"), "rotations": (90,), "average": "probabilities"},
        {"tile": 16, "flips": ("horizontal",), "scales": (1.0, 2.0)},
    ):
        segmentation = segmenter(quadrants(), confidence=True, **options)
        np.testing.assert_array_equal(segmentation.labels, quadrant_labels(), err_msg=str(options))
        if "scales" not in options:
            np.testing.assert_allclose(segmentation.confidence, whole_picture.confidence, atol=0.05)


def test_scales_keep_to_the_sides_that_the_card_says(tmp_path):
    """Sides of 8 i + 1, as a network with aligned corners has them: 40 x 60 becomes 41 x 57."""
    card = CARD.replace(preprocess=replace(CARD.preprocess, multiple=8, offset=1))
    segmenter, shown = Segmenter(write_colors_model(tmp_path / "grid.onnx", card)), []
    engine = segmenter.engine
    segmenter.engine = lambda images: shown.append(images.shape[2:]) or engine(images)
    segmenter(quadrants(), scales=(0.5, 1.0, 1.5))
    assert shown == [(17, 25), (41, 57), (65, 89)]


def test_an_automatic_tile_prints_its_plan_first(colors_model, capsys):
    Segmenter(colors_model)(drawn((300, 500)), tile="auto", overlap="auto")
    plan_, overlap = capsys.readouterr().err.splitlines()
    assert plan_.startswith("pixelwise: 1 tile of 512 x 512 pixels")
    assert "MB" in plan_
    assert overlap == "pixelwise: no pixel is seen by two tiles, so there is nothing to compare; overlap 0 px"


def test_the_cards_resize_rule_is_for_whole_pictures_only(tmp_path):
    """A network that is shown 10 pixels of a picture loses a dot that a tile shows it."""
    card = CARD.replace(preprocess=replace(CARD.preprocess, size=10))
    segmenter = Segmenter(write_colors_model(tmp_path / "small.onnx", card))
    picture = np.zeros((80, 80, 3), np.uint8)
    picture[40:44, 40:44, 0] = 255
    assert not segmenter(picture).labels.any()
    assert (segmenter(picture, tile=32).labels == 1).sum() == 16


def test_a_segmenter_gives_bands_of_file_ids_and_goes_on_after_any(tmp_path):
    classes = LabelSet.of(COLORS.names, ids=[7, 300, 11, 2])
    segmenter = Segmenter(write_colors_model(tmp_path / "ids.onnx", CARD.replace(labels=classes)))
    picture = drawn((70, 50))

    def bands(**options):
        return segmenter.bands(
            lambda a, b: picture[a:b], (70, 50), SegmentOptions(tile=16), confidence=True, **options
        )

    expected = segmenter(picture, tile=16, confidence=True)
    labels, confidence = collect(bands(), (70, 50))
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(confidence, expected.confidence)
    work = bands()
    done = [next(work), next(work)]
    done[-1].pending.save(tmp_path / "pending.npz")
    rest = list(bands(resume=Pending.load(tmp_path / "pending.npz")))
    np.testing.assert_array_equal(np.concatenate([b.labels for b in (*done, *rest)]), expected.labels)


def test_a_raster_of_floats_brings_its_own_preparation(colors_model):
    raster = drawn((40, 50)).astype(np.float32) / 255
    ours = Segmenter(colors_model).bands(
        lambda a, b: raster[a:b], (40, 50), SegmentOptions(tile=16), prepare=channels_first
    )
    labels, _ = collect(ours, (40, 50))
    expected = Segmenter(colors_model)(drawn((40, 50)), tile=16).labels
    assert (labels == expected).mean() > 0.999


def test_a_segmenter_reports_seams(colors_model):
    report = Segmenter(colors_model).seams(drawn((90, 90)), options=SegmentOptions(tile=32, overlap=8))
    assert report.pixels > 0
    assert report.by_depth[0] > 0  # half a patch from its edge a tile has no coarse logit to interpolate with
    assert not any(report.by_depth[1:])  # the network sees two pixels, and tiles begin at multiples of two


@pytest.mark.parametrize("confidence", [False, True])
@pytest.mark.parametrize("size", [(13, 17, 19), (5, 30, 9)])
def test_compiled_sums_of_a_volume_are_those_of_array_operations_bit_for_bit(monkeypatch, confidence, size):
    values = np.random.default_rng(0).normal(size=(*size, 2)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)

    def network(windows):
        return np.einsum("kc,ncdhw->nkdhw", weight, windows) * np.linspace(
            0.5, 2, windows.shape[-1], dtype=np.float32
        )

    asked = []

    def read(top, bottom):
        asked.append((top, bottom))
        return values[top:bottom]

    def bands():
        tiling = Tiling((8, 8, 6), 0.5)
        return list(stitch(read, size, network, tiling=tiling, confidence=confidence, logits=confidence))

    plain = bands()
    slices = [i for top, bottom in asked for i in range(top, bottom)]
    assert slices == list(range(size[0]))  # each once and in order
    monkeypatch.setattr(module, "PAYS_FROM", 0)
    for one, other in zip(plain, bands(), strict=True):
        for name in ("labels", "confidence", "logits"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
