"""draw: every picture against its definition, draw_segmentation_masks against torchvision's bit for bit."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.draw import (
    VOID_COLOR,
    ColorError,
    colorize,
    contours,
    cutout,
    draw_segmentation_masks,
    legend,
    outline,
    overlay,
    side_by_side,
)
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.labels import VOC, LabelSet

torch = pytest.importorskip("torch")
torchvision_utils = pytest.importorskip("torchvision.utils")

ROAD = LabelSet.of(["road", "car"], colors=[(128, 64, 128), (0, 0, 142)], ids=[7, 26])


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    torch.manual_seed(0)


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain_overlay(image, labels, classes, alpha, kept=()):
    """The definition, pixel by pixel."""
    out = image.copy()
    for y, x in np.ndindex(*labels.shape):
        if labels[y, x] != classes.ignore_id and labels[y, x] not in kept:
            color = np.array(classes.colors[classes.ids.index(labels[y, x])], np.float64)
            blended = image[y, x].astype(np.float64) * (1 - alpha) + color * alpha
            out[y, x] = np.floor(blended + 0.5)
    return out


# ---------------------------------------------------------------------------------------------- overlay


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    alpha=st.floats(0, 1),
    kind=st.sampled_from(["voc", "sparse", "many"]),
    seed=st.integers(0, 99),
)
def test_overlay_equals_its_definition(height, width, alpha, kind, seed):
    classes = {
        "voc": VOC,
        "sparse": LabelSet.of(["a", "b", "c"], ids=[3, 70, 200], ignore_id=0),
        "many": LabelSet.of([f"c{i}" for i in range(700)]),
    }[kind]
    rng = np.random.default_rng(seed)
    labels = rng.choice([*classes.ids, classes.ignore_id], (height, width)).astype(classes.dtype)
    image = random_picture(height, width, seed)
    kept = [0] if kind == "voc" else []
    result = overlay(image, labels, classes, alpha=alpha)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, plain_overlay(image, labels, classes, alpha, kept))


def test_overlay_is_exact_across_the_bands_it_works_in():
    labels = np.random.default_rng(1).integers(0, 21, (300, 401), np.uint8)
    image = random_picture(300, 401)
    expected = np.floor(image * (1 - 0.3) + np.array(VOC.colors)[labels] * 0.3 + 0.5)
    np.testing.assert_array_equal(overlay(image, labels, VOC, alpha=0.3, background=False), expected)


def test_compiled_loops_and_numpy_look_up_the_same(monkeypatch):
    import numba  # noqa: F401  # from then on they are used

    rng = np.random.default_rng(0)
    image, labels = (
        rng.integers(0, 256, (37, 53, 3), np.uint8),
        rng.integers(0, 21, (37, 53)).astype(np.uint8),
    )
    labels[3, 4] = 255
    for alpha in (0.0, 0.3, 0.5, 1.0):
        compiled = overlay(image, labels, VOC, alpha=alpha)
        with monkeypatch.context() as without:
            without.delitem(sys.modules, "numba")
            np.testing.assert_array_equal(overlay(image, labels, VOC, alpha=alpha), compiled)


def test_the_background_of_voc_stays_the_photo_but_road_is_painted():
    image = random_picture(6, 6)
    np.testing.assert_array_equal(overlay(image, np.zeros((6, 6), np.uint8), VOC), image)
    road = overlay(image, np.full((6, 6), 7, np.uint8), ROAD, alpha=1)
    assert (road == ROAD.colors[0]).all()


def test_background_can_be_named_or_switched_off():
    image, labels = random_picture(2, 2), np.array([[7, 7], [26, 26]], np.uint8)
    named = overlay(image, labels, ROAD, alpha=1, background="road")
    np.testing.assert_array_equal(named[0], image[0])
    assert (named[1] == ROAD.colors[1]).all()
    off = overlay(image, np.zeros((2, 2), np.uint8), VOC, alpha=1, background=False)
    assert (off == 0).all()
    with pytest.raises(UnknownNameError, match="did you mean 'road'"):
        overlay(image, labels, ROAD, background="raod")


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_ignored_pixels_stay_the_photo(alpha):
    image = random_picture(5, 4)
    np.testing.assert_array_equal(overlay(image, np.full((5, 4), 255, np.uint8), VOC, alpha=alpha), image)


def test_overlay_never_changes_or_shares_its_input():
    image = random_picture(4, 4)
    before, labels = image.copy(), np.zeros((4, 4), np.uint8)
    overlay(image, labels, VOC)[:] = 0
    np.testing.assert_array_equal(image, before)
    image.setflags(write=False)
    overlay(image[::-1, ::2], labels[:, ::2], VOC, contour=True)  # read-only, strided


def test_a_contour_is_drawn_in_its_colour_where_contours_says():
    image, labels = random_picture(8, 8), np.zeros((8, 8), np.uint8)
    labels[2:5, 3:7] = 12
    border, without = contours(labels), overlay(image, labels, VOC)
    for contour, color in ((True, (255, 255, 255)), ((1, 2, 3), (1, 2, 3))):
        drawn = overlay(image, labels, VOC, contour=contour)
        assert (drawn[border] == color).all()
        np.testing.assert_array_equal(drawn[~border], without[~border])
    with pytest.raises(InputError, match="contour must be"):
        overlay(image, labels, VOC, contour=(1, 2, 300))


def test_signed_and_wide_labels_are_taken_too():
    image, labels = random_picture(3, 3), np.full((3, 3), 12)
    expected = overlay(image, labels.astype(np.uint8), VOC)
    for dtype in (np.int8, np.int64, np.uint32, np.uint64):
        np.testing.assert_array_equal(overlay(image, labels.astype(dtype), VOC), expected)
    far = LabelSet.of(["a", "b"], ids=[5, 90_000])
    np.testing.assert_array_equal(
        colorize(np.array([[90_000, 5, 255]], np.uint32), far)[0], [*far.colors[::-1], VOID_COLOR]
    )


@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        (np.array([[0, 21]], np.uint8), VOC, r"label id 21 at \(0, 1\)"),
        (np.array([[7, 8]], np.uint8), ROAD, r"label id 8 at \(0, 1\)"),
        (np.array([[0, -1]], np.int16), VOC, r"label id -1 at \(0, 1\)"),
        (np.array([[0, 70_000]], np.uint32), VOC, r"label id 70000 at \(0, 1\)"),
        (np.zeros((1, 2)), VOC, r"integers, got float64 \(1, 2\)"),
        (np.zeros((1, 2), bool), VOC, "integers, got bool"),
        (np.zeros((1, 2, 1), np.uint8), VOC, r"\(h, w\) integers"),
    ],
)
def test_a_label_map_that_cannot_be_drawn_is_refused_with_the_reason(labels, classes, said):
    with pytest.raises(InputError, match=said):
        overlay(random_picture(1, 2), labels, classes)
    with pytest.raises(InputError, match=said):
        colorize(labels, classes)


@pytest.mark.parametrize(
    ("image", "alpha", "said"),
    [
        (random_picture(3, 2), 0.5, r"height and width \(3, 2\), got \(2, 3\)"),
        (random_picture(2, 3), 1.5, r"alpha must be in \[0, 1\].*1.5"),
        (random_picture(2, 3), float("nan"), "alpha must be"),
        (random_picture(2, 3)[..., 0], 0.5, r"uint8 RGB \(h, w, 3\), got uint8 \(2, 3\)"),
        (random_picture(2, 3) / 255, 0.5, "got float64"),
    ],
)
def test_overlay_refuses_pictures_and_alphas_with_the_reason(image, alpha, said):
    with pytest.raises(InputError, match=said):
        overlay(image, np.zeros((2, 3), np.uint8), VOC, alpha=alpha)


# --------------------------------------------------------------------------------- colorize and contours


def test_colorize_looks_colours_up_and_shows_void_in_grey():
    labels = np.array([[0, 8, 20], [255, 15, 1]], np.uint8)
    result = colorize(labels, VOC)
    assert result.dtype == np.uint8
    assert [tuple(map(int, c)) for c in result.reshape(-1, 3)] == [
        VOC.colors[0],
        VOC.colors[8],
        VOC.colors[20],
        (224, 224, 224),
        VOC.colors[15],
        VOC.colors[1],
    ]


def test_colorize_knows_more_than_255_classes():
    classes = LabelSet.of([f"c{i}" for i in range(3000)])
    labels = np.array([[0, 255, 256, 2999, 65535]], np.uint16)
    colors = [classes.colors[i] for i in (0, 255, 256, 2999)] + [VOID_COLOR]
    np.testing.assert_array_equal(colorize(labels, classes)[0], colors)


def test_empty_pictures_stay_empty():
    for shape in ((0, 4), (4, 0)):
        labels = np.zeros(shape, np.uint8)
        assert overlay(np.zeros((*shape, 3), np.uint8), labels, VOC, contour=True).shape == (*shape, 3)
        assert colorize(labels, VOC).shape == (*shape, 3)
        assert contours(labels).shape == shape


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_contours_mark_pixels_that_differ_from_the_right_or_lower_neighbour(height, width, seed):
    labels = np.random.default_rng(seed).integers(0, 3, (height, width), np.uint8)
    border = contours(labels)
    for y, x in np.ndindex(height, width):
        right = x + 1 < width and labels[y, x] != labels[y, x + 1]
        below = y + 1 < height and labels[y, x] != labels[y + 1, x]
        assert border[y, x] == (right or below)


def test_contours_wants_a_map():
    with pytest.raises(InputError, match=r"\(h, w\)"):
        contours(np.zeros(4, np.uint8))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_outline_paints_what_lies_within_its_width_of_another_class(height, width, width_px, seed):
    labels = (
        np.random.default_rng(seed).choice([7, 26, 255], (height, width), p=[0.8, 0.1, 0.1]).astype(np.uint8)
    )
    image = random_picture(height, width)
    drawn = outline(image, labels, ROAD, width_px=width_px)
    rows, columns = np.mgrid[:height, :width]
    for y, x in np.ndindex(height, width):
        steps = (abs(rows - y) + abs(columns - x))[labels != labels[y, x]].min(initial=99)
        painted = labels[y, x] != 255 and steps <= width_px
        color = ROAD.colors[ROAD.ids.index(labels[y, x])] if painted else image[y, x]
        assert tuple(drawn[y, x]) == tuple(color)


def test_outline_is_as_wide_as_the_picture_asks_for():
    labels = np.zeros((2, 600), np.uint8)
    labels[:, 450:] = 12
    drawn = outline(np.zeros((2, 600, 3), np.uint8), labels, VOC)
    assert np.flatnonzero(drawn.any((0, 2))).tolist() == [450, 451, 452]
    with pytest.raises(InputError, match="width_px must be 1 or more, got 0"):
        outline(random_picture(2, 600), labels, VOC, width_px=0)
    with pytest.raises(InputError, match="height and width"):
        outline(random_picture(3, 600), labels, VOC)


# --------------------------------------------------------------------------- legend, side_by_side, cutout


def colors_in(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(map(int, color)) for color in picture.reshape(-1, 3)}


def test_a_legend_shows_every_colour_or_only_those_present():
    whole = legend(VOC)
    assert whole.dtype == np.uint8
    assert whole.ndim == 3
    assert set(VOC.colors) <= colors_in(whole)
    some = legend(VOC, {"cat": 0.25, "background": 0.75, "dog": 0.0})
    assert {VOC.colors[8], VOC.colors[0]} <= colors_in(some)
    assert not {VOC.colors[12], VOC.colors[15]} & colors_in(some)
    assert some.shape[0] < whole.shape[0]


def test_a_legend_lists_the_largest_class_first():
    picture = legend(VOC, {"cat": 0.2, "dog": 0.5, "bird": 0.3})
    first_rows = [
        int(np.flatnonzero((picture == VOC.colors[VOC.index(name)]).all(2).any(1))[0])
        for name in ("dog", "bird", "cat")
    ]
    assert first_rows == sorted(first_rows)


def test_a_long_legend_breaks_into_columns():
    classes = LabelSet.of([f"class {i}" for i in range(150)])
    tall, broken = legend(classes, max_rows=150), legend(classes)
    assert broken.shape[0] < tall.shape[0] / 5
    assert broken.shape[1] > tall.shape[1] * 5
    assert set(classes.colors) <= colors_in(broken)


def test_a_legend_of_nothing_is_still_a_picture():
    assert legend(VOC, {}).size
    assert legend(LabelSet.of(["two\nlines", ""])).size


def test_letters_grow_with_text_px():
    small, large = legend(VOC, text_px=10), legend(VOC, text_px=30)
    assert large.shape[0] > 2.5 * small.shape[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"areas": {"kat": 0.5}}, "did you mean 'cat'"),
        ({"areas": {"cat": 25}}, r"area of 'cat' must be a fraction in \[0, 1\], got 25"),
        ({"areas": {"cat": -0.1}}, "fraction"),
        ({"areas": {"cat": float("nan")}}, "fraction"),
        ({"text_px": 2}, "text_px >= 6"),
        ({"max_rows": 0}, "max_rows >= 1"),
    ],
)
def test_a_legend_refuses_what_it_cannot_list(options, said):
    with pytest.raises(InputError, match=said):
        legend(VOC, **options)


def test_side_by_side_keeps_every_picture_and_fills_with_white():
    wide, tall = random_picture(4, 9), random_picture(7, 3)
    row = side_by_side(wide, tall, gap_px=2)
    assert row.shape == (7, 9 + 2 + 3, 3)
    np.testing.assert_array_equal(row[:4, :9], wide)
    np.testing.assert_array_equal(row[:, 11:], tall)
    assert (row[4:, :9] == 255).all()
    assert (row[:, 9:11] == 255).all()


def test_side_by_side_takes_grey_masks_and_transparency():
    grey = np.full((2, 2), 9, np.uint8)
    mask = np.array([[True, False]])
    clear = np.dstack([random_picture(2, 2), np.zeros((2, 2), np.uint8)])
    row = side_by_side(grey, mask, clear, gap_px=0)
    assert (row[:, :2] == 9).all()
    assert row[0, 2:4, 0].tolist() == [255, 0]
    assert (row[:, 4:] == 255).all()


def test_captions_are_ink_above_the_pictures():
    image = np.zeros((20, 30, 3), np.uint8)
    row = side_by_side(image, image, captions=["a rather long caption", "b"])
    top = row.shape[0] - 20
    assert top > 18
    assert (row[:top] < 128).any()
    np.testing.assert_array_equal(row[top:, :30], image)
    assert row.shape[1] > 2 * 30 + 8


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        ([], {}, "got 0"),
        ([random_picture(2, 2)], {"captions": ["a", "b"]}, "got 1 and 2 captions"),
        ([random_picture(2, 2)], {"gap_px": -1}, "gap_px >= 0"),
        ([np.zeros((2, 2), np.float32)], {}, r"got float32 \(2, 2\)"),
        ([np.zeros((0, 2, 3), np.uint8)], {}, "at least one pixel"),
    ],
)
def test_side_by_side_refuses_what_it_cannot_show(images, options, said):
    with pytest.raises(InputError, match=said):
        side_by_side(*images, **options)


def test_a_cutout_keeps_the_mask_and_nothing_of_the_rest():
    image, mask = random_picture(5, 6), np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    result = cutout(image, mask)
    assert result.shape == (5, 6, 4)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[mask][:, :3], image[mask])
    assert (result[mask][:, 3] == 255).all()
    assert not result[~mask].any()
    for wrong in (mask.astype(np.uint8), mask[:4]):
        with pytest.raises(InputError, match="mask must be bool"):
            cutout(image, wrong)


# -------------------------------------------------------------------------------- draw_segmentation_masks

TRIPLES = st.tuples(*[st.integers(0, 255)] * 3)
COLORS = st.one_of(TRIPLES, st.sampled_from(["red", "#FF00FF", "rgb(3, 4, 5)", "hsl(120, 50%, 50%)"]))


@st.composite
def drawings(draw):
    height, width, count = draw(st.integers(0, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    dtype = draw(st.sampled_from([torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    image = image if dtype == torch.uint8 else (image / 255).to(dtype)
    if draw(st.booleans()):  # memory order (h, w, 3), as a picture from Pillow has it
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    share = draw(st.sampled_from([0.0, 0.2, 0.8, 1.0]))
    masks = torch.rand((count, height, width), generator=generator) < share
    if draw(st.booleans()):  # one class a pixel, as from argmax
        labels = torch.randint(0, count + 1, (height, width), generator=generator)
        masks = labels == torch.arange(count)[:, None, None]
    if count == 1 and draw(st.booleans()):
        masks = masks[0]
    lists = st.lists(COLORS, min_size=count, max_size=count + 2)
    return image, masks, draw(st.floats(0, 1)), draw(st.one_of(st.none(), COLORS, lists))


def same_as_torchvision(image, masks, *arguments, **options):
    before = image.clone(), masks.clone()
    ours = draw_segmentation_masks(image, masks, *arguments, **options)
    theirs = torchvision_utils.draw_segmentation_masks(image, masks, *arguments, **options)
    assert ours.dtype == theirs.dtype
    assert ours.device == theirs.device
    assert ours.shape == theirs.shape
    assert ours.requires_grad == theirs.requires_grad
    assert torch.equal(ours, theirs)
    assert torch.equal(image, before[0])
    assert torch.equal(masks, before[1])


@settings(deadline=None, max_examples=300)
@given(drawings())
def test_masks_are_drawn_bit_for_bit_as_torchvision_draws_them(drawing):
    same_as_torchvision(*drawing)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_large_picture_with_every_value_is_equal_too(dtype):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 257, 400), dtype=torch.uint8, generator=generator)
    image = image if dtype == torch.uint8 else image / 255
    masks = torch.rand((21, 257, 400), generator=generator) < 0.05
    same_as_torchvision(image, masks)
    same_as_torchvision(image, masks, 0.5, "yellow")
    same_as_torchvision(image, masks.permute(1, 2, 0).contiguous().permute(2, 0, 1), 1 / 3)


def test_hundreds_of_masks_are_equal_too():
    image = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    for count in (253, 254, 255, 256, 600):
        labels = torch.randint(0, count, (20, 20))
        same_as_torchvision(image, labels == torch.arange(count)[:, None, None])
        same_as_torchvision(image, torch.ones((count, 20, 20), dtype=torch.bool))


def test_odd_colours_and_alphas_are_taken_as_torchvision_takes_them():
    image, masks = torch.randint(0, 256, (3, 6, 6), dtype=torch.uint8), torch.rand(2, 6, 6) < 0.4
    for colors in ([(1.5, 2.9, 3.0)] * 2, [(-1, -5, 7)] * 2, [(7,)] * 2, [[1, 2, 3], [4, 5, 6]]):
        same_as_torchvision(image, masks, 0.6, colors)
        same_as_torchvision(image / 255, masks, 0.6, colors)
    same_as_torchvision(image / 255, masks, 0.6, [(300, 0, 0)] * 2)
    for alpha in (1, 0, True, np.float64(0.3), np.float32(0.3), 1.2, -0.1):
        same_as_torchvision(image, masks, alpha)
        same_as_torchvision(image / 255, masks, alpha)


def test_no_gradient_flows_and_the_result_is_new():
    image = torch.rand(3, 4, 4, requires_grad=True)
    same_as_torchvision(image, torch.ones(1, 4, 4, dtype=torch.bool))


def test_the_parameters_are_torchvisions():
    ours = inspect.signature(draw_segmentation_masks).parameters.values()
    theirs = inspect.signature(torchvision_utils.draw_segmentation_masks).parameters.values()
    assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs]


def test_without_masks_the_image_itself_comes_back_with_a_warning():
    image = torch.zeros(3, 4, 4)
    for function in (draw_segmentation_masks, torchvision_utils.draw_segmentation_masks):
        with pytest.warns(UserWarning, match="mask"):
            assert function(image, torch.zeros(0, 4, 4, dtype=torch.bool)) is image


IMAGE, MASKS = torch.zeros(3, 4, 5, dtype=torch.uint8), torch.ones(2, 4, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("image", "masks", "options"),
    [
        ("a path", MASKS, {}),
        (IMAGE.int(), MASKS, {}),
        (IMAGE.bool(), MASKS, {}),
        (IMAGE[None], MASKS, {}),
        (IMAGE[:1], MASKS, {}),
        (IMAGE[0], MASKS, {}),
        (IMAGE, MASKS[None], {}),
        (IMAGE, MASKS[0, 0], {}),
        (IMAGE, MASKS.int(), {}),
        (IMAGE, MASKS[:, :3], {}),
        (IMAGE, MASKS, {"alpha": "0.5"}),
        (IMAGE, MASKS, {"colors": ["red"]}),
        (IMAGE, MASKS, {"colors": []}),
        (IMAGE, MASKS, {"colors": "no such colour"}),
        (IMAGE, MASKS, {"colors": ["red", "red", "no such colour"]}),
        (IMAGE, MASKS, {"colors": (1, 2)}),
        (IMAGE, MASKS, {"colors": ("red", "green", "blue")}),
        (IMAGE, MASKS, {"colors": 7}),
        (IMAGE, MASKS, {"colors": {"red": 1}}),
        (IMAGE, MASKS, {"colors": "#FF00FF80"}),
        (IMAGE / 255, MASKS, {"colors": "#FF00FF80"}),
        (IMAGE, MASKS, {"colors": [(1, 2), (3, 4)]}),
        (IMAGE, MASKS, {"colors": (300, 0, 0)}),
        (IMAGE, MASKS, {"colors": (-300, 0, 0)}),
    ],
)
def test_whatever_torchvision_refuses_is_refused_with_the_same_kind_of_error(image, masks, options):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        torchvision_utils.draw_segmentation_masks(image, masks, **options)
    with pytest.raises(theirs.type):
        draw_segmentation_masks(image, masks, **options)


def test_arrays_are_drawn_as_tensors_are():
    image = torch.randint(0, 256, (3, 9, 8), dtype=torch.uint8)
    masks = torch.rand(3, 9, 8) < 0.4
    for picture in (image, image / 255, image.double() / 255):
        for colors in (None, "red", [(1, 2, 3), "blue", "#123456"]):
            ours = draw_segmentation_masks(picture.numpy(), masks.numpy(), 0.4, colors)
            assert isinstance(ours, np.ndarray)
            theirs = torchvision_utils.draw_segmentation_masks(picture, masks, 0.4, colors)
            assert ours.dtype == theirs.numpy().dtype
            np.testing.assert_array_equal(ours, theirs.numpy())
    half = draw_segmentation_masks((image / 255).half().numpy(), masks.numpy())
    assert half.dtype == np.float16
    with pytest.warns(UserWarning, match="no masks"):
        draw_segmentation_masks(image.numpy(), masks.numpy()[:0])


@pytest.mark.parametrize(
    ("image", "masks", "error", "said"),
    [
        (IMAGE.numpy(), MASKS, TypeError, "masks must be a NumPy array, as the image is, got Tensor"),
        (IMAGE, MASKS.numpy(), TypeError, "masks must be a torch tensor"),
        (IMAGE.numpy(), [True], TypeError, "got list"),
        (IMAGE.numpy().astype(int), MASKS.numpy(), InputError, "got int64"),
        (IMAGE.numpy(), MASKS.numpy().astype(np.uint8), InputError, "masks must be bool, got uint8"),
        (IMAGE.numpy().transpose(1, 2, 0), MASKS.numpy(), InputError, r"RGB, \(3, h, w\), got \(4, 5, 3\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_reason(image, masks, error, said):
    with pytest.raises(error, match=said):
        draw_segmentation_masks(image, masks)


def test_a_colour_that_does_not_fit_is_named():
    with pytest.raises(ColorError, match="three numbers"):
        draw_segmentation_masks(IMAGE, MASKS, colors="#FF00FF80")
    with pytest.raises(ColorError, match=r"0\.\.255, got 300"):
        draw_segmentation_masks(IMAGE.numpy(), MASKS.numpy(), colors=(300, 0, 0))


def test_the_path_of_other_devices_gives_the_same_pixels_here():
    """Without a GPU at hand, its numbering of masks is compared with the CPU's."""
    from pixelwise.draw import _mask_rows, _mask_rows_on_device

    masks = torch.rand(6, 7, 8) < 0.3
    np.testing.assert_array_equal(_mask_rows_on_device(masks).numpy(), _mask_rows(masks.numpy()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_masks_on_a_gpu_are_drawn_as_torchvision_draws_them():
    image = torch.randint(0, 256, (3, 70, 80), dtype=torch.uint8, device="cuda")
    masks = torch.rand(5, 70, 80, device="cuda") < 0.3
    for picture in (image, image / 255, (image / 255).half()):
        same_as_torchvision(picture, masks)
        same_as_torchvision(picture, masks.cpu(), 0.3, ["red", "green", "blue", "#010203", (4, 5, 6)])


def test_nothing_here_imports_torch():
    program = (
        "import sys, numpy as np; from pixelwise.draw import *; from pixelwise.labels import VOC\n"
        "from pixelwise.draw import draw_segmentation_masks, overlay\n"
        "overlay(np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.uint8), VOC)\n"
        "draw_segmentation_masks(np.zeros((3, 2, 2), np.uint8), np.ones((2, 2), bool))\n"
        "print(sorted({'torch', 'numba', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
