"""LabelSet: numbers in files, numbers in networks, and the way between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.draw import VOID_COLOR
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.labels import ADE20K, APART, CAMVID, CITYSCAPES, VOC, LabelSet
from seeing import least_difference


def test_vocs_palette_is_the_development_kits():
    known = {1: (128, 0, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {i: VOC.colors[i] for i in known} == known
    assert (VOC.num_classes, VOC.index("person"), VOC.ignore_id) == (21, 15, 255)


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=40, unique=True), st.randoms())
def test_ids_go_to_indices_and_back(ids, random):
    ignore = next(i for i in (255, 70_001) if i not in ids)
    classes = LabelSet.of([f"c{i}" for i in ids], ids=ids, ignore_id=ignore)
    indices = np.array([random.randrange(len(ids)) for _ in range(50)])
    files = classes.to_ids(indices)
    assert files.tolist() == [ids[i] for i in indices]
    assert files.dtype == classes.dtype
    np.testing.assert_array_equal(classes.to_indices(files), indices)
    assert classes.to_indices(np.array([ignore])).tolist() == [255]


def test_a_stray_id_is_named_with_its_place():
    classes = LabelSet.of(["road", "car"], ids=[7, 26])
    with pytest.raises(InputError, match=r"label id 8 at \(1, 0\).*expected 7, 26, or 255"):
        classes.to_indices(np.array([[7, 26], [8, 7]]))


def test_more_than_255_classes_get_16_bits_and_another_ignore_id():
    classes = LabelSet.of([f"c{i}" for i in range(300)])
    assert (classes.ignore_id, classes.dtype) == (65535, np.uint16)
    assert len(set(classes.colors)) > 200


def test_what_cannot_be_a_label_set():
    for arguments, says in (
        ({"names": ["a", "a"]}, "twice"),
        ({"names": ["a", "b"], "ids": [3, 3]}, "twice"),
        ({"names": ["a"], "ids": [-1]}, "zero or more"),
        ({"names": []}, "at least one"),
        ({"names": ["a"], "ids": [9], "ignore_id": 9}, "ignore_id 9 is the id of class 'a'"),
    ):
        with pytest.raises(InputError, match=says):
            LabelSet.of(**arguments)


def test_an_unknown_class_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'cat'"):
        VOC.index("catt")


def test_a_label_set_survives_json_values():
    assert LabelSet.from_dict(VOC.to_dict()) == VOC


def test_colours_of_classes_that_bring_none_are_told_apart_however_one_sees():
    classes = LabelSet.of([f"c{i}" for i in range(300)])
    assert classes.colors[: len(APART)] == APART
    assert len(set(classes.colors)) > 200
    assert least_difference([*APART[:8], VOID_COLOR]) > 16
    assert least_difference([*APART, VOID_COLOR]) > 10
    assert least_difference(APART[:3]) > 40
    pair = LabelSet.of(["background", "vessel"]).colors
    assert pair == ((0, 0, 0), (255, 76, 0))
    assert LabelSet.of(["all"]).colors == ((255, 255, 255),)


def test_published_palettes_are_what_they_were():
    """What was drawn before is found again: in files, in figures and on cards."""
    assert CAMVID.colors[:3] == ((128, 128, 128), (128, 0, 0), (192, 192, 128))
    assert CITYSCAPES.colors[0] == (128, 64, 128)
    assert ADE20K.colors[:3] == ((242, 82, 61), (61, 92, 242), (145, 242, 61))
    old = LabelSet.of(["background", "vessel"], colors=[(0, 0, 0), (242, 82, 61)])
    assert LabelSet.from_dict(old.to_dict()) == old
