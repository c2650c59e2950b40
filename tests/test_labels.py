"""LabelSet: numbers in files, numbers in networks, and the way between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.labels import VOC, LabelSet


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
