"""Cleaning up label maps: the graph of regions against the plain definition, painted pixel by pixel."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixelwise.errors import InputError
from pixelwise.inference.cleanup import Cleanup, clean, clean_bands
from pixelwise.inference.tiling import Band, collect

# The plain definition: dictionaries from places to classes, regions found anew after every change.


def beside(place, size):
    """The neighbours of a place by its sides, within the map."""
    for axis, step in product(range(len(size)), (-1, 1)):
        other = (*place[:axis], place[axis] + step, *place[axis + 1 :])
        if 0 <= other[axis] < size[axis]:
            yield other


def flooded(places, size, together):
    """Connected sets of places, in the reading order of their first."""
    left, found = set(places), []
    for first in sorted(places):
        if first not in left:
            continue
        left.remove(first)
        members, todo = [first], [first]
        while todo:
            place = todo.pop()
            for other in beside(place, size):
                if other in left and together(place, other):
                    left.remove(other)
                    members.append(other)
                    todo.append(other)
        found.append(sorted(members))
    return found


def regions(picture, size):
    return flooded(picture, size, lambda a, b: picture[a] == picture[b])


def give_away(picture, size, region):
    number = {place: i for i, members in enumerate(regions(picture, size)) for place in members}
    areas = Counter(number.values())
    inside = set(region)
    border = Counter(
        number[other] for place in region for other in beside(place, size) if other not in inside
    )
    if border:
        class_of = {number[place]: picture[place] for place in picture}
        best = min(border, key=lambda i: (-border[i], -areas[i], class_of[i]))
        picture.update(dict.fromkeys(region, class_of[best]))


def plain(labels, cleanup):
    size = labels.shape
    picture = {place: int(labels[place]) for place in np.ndindex(size)}
    for c in cleanup.fill_holes:
        for hole in flooded([p for p in picture if picture[p] != c], size, lambda a, b: True):
            if all(0 < at < side - 1 for place in hole for at, side in zip(place, size, strict=True)):
                picture.update(dict.fromkeys(hole, c))
    for c in cleanup.largest_only:
        mine = [region for region in regions(picture, size) if picture[region[0]] == c]
        mine.sort(key=lambda region: (-len(region), region[0]))
        for region in sorted(mine[1:], key=lambda region: (len(region), region[0])):
            give_away(picture, size, region)
    while True:
        found = regions(picture, size)
        small = [region for region in found if len(region) < cleanup.min_area]
        if not small or len(found) == 1:
            break
        give_away(picture, size, min(small, key=lambda region: (len(region), region[0])))
    answer = np.empty_like(labels)
    for place, c in picture.items():
        answer[place] = c
    return answer


@st.composite
def maps(draw):
    """Small maps of 1 to 5 classes, pictures, columns, rows and volumes, of single pixels or of patches."""
    kind = draw(st.sampled_from(["picture", "picture", "line", "volume"]))
    side = st.integers(1, 9)
    if kind == "line":
        size = draw(st.permutations([1, draw(st.integers(1, 30))]))
    else:
        size = [draw(side), draw(side)] if kind == "picture" else [draw(st.integers(1, 5)) for _ in range(3)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    weights = rng.dirichlet(np.full(draw(st.integers(1, 5)), draw(st.sampled_from([0.3, 1.0, 9.0]))))
    patch = draw(st.integers(1, 2))
    coarse = rng.choice(len(weights), [-(-s // patch) for s in size], p=weights).astype(dtype)
    for axis in range(len(size)):
        coarse = coarse.repeat(patch, axis)
    return np.ascontiguousarray(coarse[tuple(slice(s) for s in size)])


some_classes = st.lists(st.integers(0, 5), max_size=5, unique=True).map(tuple)
cleanups = st.builds(Cleanup, st.sampled_from([0, 1, 2, 3, 4, 6, 10, 1000]), some_classes, some_classes)


@settings(deadline=None, max_examples=250)
@given(labels=maps(), cleanup=cleanups)
@example(np.zeros((1, 1), np.uint8), Cleanup(9, (0, 1), (0, 1)))
@example(np.zeros((4, 5), np.uint16), Cleanup(99, (0,), (0,)))
def test_the_graph_gives_what_the_definition_says(labels, cleanup):
    before = labels.copy()
    cleaned = clean(labels, cleanup)
    assert cleaned.dtype == labels.dtype
    np.testing.assert_array_equal(cleaned, plain(labels, cleanup))
    np.testing.assert_array_equal(labels, before)
    assert not np.shares_memory(cleaned, labels)


def cut(labels, edges, confidence=None):
    for top, end in pairwise(edges):
        yield Band(top, labels[top:end], None if confidence is None else confidence[top:end], None)


@settings(deadline=None, max_examples=120)
@given(data=st.data(), labels=maps(), cleanup=cleanups, with_confidence=st.booleans())
def test_bands_give_what_the_whole_map_gives(tmp_path_factory, data, labels, cleanup, with_confidence):
    scratch = tmp_path_factory.mktemp("scratch")
    inner = data.draw(st.sets(st.integers(1, max(len(labels) - 1, 1)), max_size=4)) - {len(labels)}
    edges = [0, *sorted(inner), len(labels)]
    confidence = np.random.default_rng(0).random(labels.shape, np.float32) if with_confidence else None
    bands = list(clean_bands(cut(labels, edges, confidence), labels.shape, cleanup, scratch))
    assert [band.top for band in bands] == edges[:-1]
    answer, kept = collect(iter(bands), labels.shape)
    assert answer.dtype == labels.dtype
    np.testing.assert_array_equal(answer, clean(labels, cleanup))
    np.testing.assert_array_equal(kept, confidence)
    assert not list(scratch.iterdir())


@settings(deadline=None, max_examples=120)
@given(labels=maps(), cleanup=cleanups)
def test_twice_is_once_but_for_filling_before_another_step(labels, cleanup):
    if cleanup.fill_holes:
        cleanup = Cleanup(fill_holes=cleanup.fill_holes)
    once = clean(labels, cleanup)
    np.testing.assert_array_equal(clean(once, cleanup), once)


@settings(deadline=None, max_examples=50)
@given(labels=maps(), classes=some_classes)
def test_scipy_fills_the_holes_of_one_class_alike(labels, classes):
    ndimage = pytest.importorskip("scipy.ndimage")
    for c in classes:
        filled = clean(labels, Cleanup(fill_holes=(c,)))
        np.testing.assert_array_equal(filled == c, ndimage.binary_fill_holes(labels == c))


def drawn(text):
    return np.array([[int(digit) for digit in line] for line in text.split()], np.uint8)


STREET = """
    0000000000
    0111110020
    0130010000
    0100010220
    0111110220
    0000000000
    1100000003
"""


@pytest.mark.parametrize(
    ("cleanup", "answer"),
    [
        # the ring of 1 is closed; 3 and the 0 beside it are one hole
        (Cleanup(fill_holes=(1,)), STREET.replace("0130010", "0111110").replace("0100010", "0111110")),
        # of 1 the ring is the largest, the lower left one goes to 0; of 2 the square stays
        (
            Cleanup(largest_only=(1, 2)),
            STREET.replace("0111110020", "0111110000").replace("1100000003", "0000000003"),
        ),
        # both 3, the single 2 and the lower left 1 are too small; the 3 in the ring has two sides in 1 and two
        # in 0, and the ring is larger
        (
            Cleanup(min_area=3),
            STREET.replace("20\n    0130010", "00\n    0110010").replace("1100000003", "0000000000"),
        ),
        # filled first, so that there is nothing in the ring to give away; then everything but 0 is too small
        (Cleanup(min_area=21, fill_holes=(1,)), STREET.translate(str.maketrans("123", "000"))),
    ],
)
def test_a_picture_with_known_answers(cleanup, answer):
    np.testing.assert_array_equal(clean(drawn(STREET), cleanup), drawn(answer))


def test_ties_go_to_the_larger_neighbour_and_then_to_the_lower_class():
    np.testing.assert_array_equal(clean(drawn("22100"), Cleanup(min_area=2)), drawn("22000"))
    np.testing.assert_array_equal(clean(drawn("2221000"), Cleanup(min_area=2)), drawn("2220000"))
    np.testing.assert_array_equal(clean(drawn("222100"), Cleanup(min_area=2)), drawn("222200"))


def test_a_region_unites_all_neighbours_of_its_new_class_and_may_be_next():
    # the 1 goes to 0 and unites five pixels of it, which are enough
    np.testing.assert_array_equal(clean(drawn("00100222222"), Cleanup(min_area=5)), drawn("00000222222"))
    # here the five are not enough, and go to 2
    np.testing.assert_array_equal(clean(drawn("00100222222"), Cleanup(min_area=6)), drawn("22222222222"))


def test_pixels_that_touch_at_corners_are_two_regions_and_close_a_ring():
    diamond = drawn("00000 00100 01010 00100 00000")
    assert clean(diamond, Cleanup(fill_holes=(1,)))[2, 2] == 1
    np.testing.assert_array_equal(clean(diamond, Cleanup(min_area=2)), np.zeros((5, 5)))


def test_a_region_that_is_given_away_can_close_a_ring_which_the_next_time_is_filled():
    gap, closed, filled = (
        f"000000 011110 01{inner}10 01{inner}10 011{last}10 000000"
        for inner, last in (("00", 2), ("00", 1), ("11", 1))
    )
    cleanup = Cleanup(min_area=2, fill_holes=(1,))
    np.testing.assert_array_equal(clean(drawn(gap), cleanup), drawn(closed))
    np.testing.assert_array_equal(clean(drawn(closed), cleanup), drawn(filled))


def test_a_tunnel_through_the_third_dimension_keeps_a_hole_open():
    labels = np.ones((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 0
    assert clean(labels, Cleanup(fill_holes=(1,))).all()
    labels[0, 1, 1] = 0
    np.testing.assert_array_equal(clean(labels, Cleanup(fill_holes=(1,))), labels)


def test_many_regions_of_classes_beyond_255():
    labels = np.random.default_rng(0).integers(0, 1000, (150, 80), np.uint16)
    cleaned = clean(labels, Cleanup(min_area=50))
    picture = {place: int(cleaned[place]) for place in np.ndindex(cleaned.shape)}
    assert min(map(len, regions(picture, cleaned.shape))) >= 50
    assert cleaned.max() > 255


def test_nothing_to_do_passes_bands_on_as_they_come(tmp_path: Path):
    labels = drawn(STREET)
    bands = clean_bands(cut(labels, [0, 3, 7]), labels.shape, Cleanup(min_area=1), tmp_path)
    assert next(bands).top == 0
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(clean(labels, Cleanup()), labels)
    assert clean(np.zeros((0, 3), np.uint8), Cleanup(5)).shape == (0, 3)


def test_the_scratch_files_go_also_when_nobody_reads_on(tmp_path: Path):
    labels = drawn(STREET)
    bands = clean_bands(cut(labels, [0, 3, 7], labels.astype(np.float32)), labels.shape, Cleanup(3), tmp_path)
    next(bands)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cleanup.confidence", "cleanup.labels"]
    bands.close()
    assert not list(tmp_path.iterdir())


def test_a_cleanup_is_active_when_it_can_change_something():
    assert not Cleanup(min_area=1).active
    assert all(c.active for c in (Cleanup(2), Cleanup(fill_holes=(0,)), Cleanup(largest_only=(0,))))


@pytest.mark.parametrize("wrong", [-1, 2.5, "3", True, None])
def test_a_cleanup_takes_whole_numbers_only(wrong):
    with pytest.raises(InputError, match="min_area must be a number of pixels"):
        Cleanup(min_area=wrong)
    with pytest.raises(InputError, match="fill_holes must be a tuple of class indices"):
        Cleanup(fill_holes=(0, wrong))
    with pytest.raises(InputError, match="largest_only must be a tuple of class indices"):
        Cleanup(largest_only=wrong)


def test_numpy_numbers_and_lists_are_taken_and_become_tuples_of_ints():
    cleanup = Cleanup(np.int64(3), [np.uint8(1)], (2,))
    assert repr(cleanup) == repr(Cleanup(3, (1,), (2,)))
    assert hash(cleanup) == hash(Cleanup(3, (1,), (2,)))


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros((2, 2), np.int64), np.zeros(4, np.uint8)])
def test_only_maps_of_unsigned_indices_are_cleaned(labels):
    with pytest.raises(InputError, match="expected unsigned class indices"):
        clean(labels, Cleanup(5))


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ([], "bands of 4 rows, got 0"),
        ([Band(0, np.zeros((3, 2), np.uint8), None, None)], "bands of 4 rows, got 3"),
        ([Band(0, np.zeros((5, 2), np.uint8), None, None)], "expected the band from row 0"),
        ([Band(1, np.zeros((3, 2), np.uint8), None, None)], "expected the band from row 0"),
        ([Band(0, np.zeros((4, 3), np.uint8), None, None)], "expected the band from row 0"),
        (
            [
                Band(0, np.zeros((2, 2), np.uint8), None, None),
                Band(2, np.zeros((2, 2), np.uint16), None, None),
            ],
            "expected the band from row 2 of a uint8 map",
        ),
        (
            [
                Band(0, np.zeros((2, 2), np.uint8), None, None),
                Band(2, np.zeros((2, 2), np.uint8), np.ones((2, 2), np.float32), None),
            ],
            "without confidence, got .* with;",
        ),
    ],
)
def test_bands_that_do_not_make_up_the_map_are_refused(tmp_path: Path, bands, message):
    with pytest.raises(InputError, match=message):
        list(clean_bands(iter(bands), (4, 2), Cleanup(5), tmp_path))
    assert not list(tmp_path.iterdir())
