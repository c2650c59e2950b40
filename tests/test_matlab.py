"""Label maps in MAT files, against what SciPy wrote, and damaged ones."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.datasets.matlab import read_field

scipy_io = pytest.importorskip("scipy.io", reason="writes the files")


def mat(value: object, *, compress: bool = False, before: dict[str, object] | None = None) -> bytes:
    file = io.BytesIO()
    scipy_io.savemat(file, {**(before or {}), "GTcls": value}, do_compression=compress)
    return file.getvalue()


def read(content: bytes) -> np.ndarray:
    return read_field(content, "GTcls", "Segmentation")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (7, 5), (64, 33)])
def test_what_scipy_wrote_is_read(shape, dtype, compress):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    others = {"first": np.ones((3, 3)), "words": "abc"}
    fields = {"Boundaries": [np.eye(3), "text"], "Segmentation": values, "CategoriesPresent": [1, 2]}
    found = read(mat(fields, compress=compress, before=others))
    np.testing.assert_array_equal(found, values)
    assert found.dtype == dtype


def test_the_other_order_of_bytes_is_read():
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    values = np.arange(6, dtype=">u2").reshape(2, 3)
    inner = element(6, struct.pack(">II", 11, 0)) + element(5, struct.pack(">ii", 2, 3)) + element(1, b"")
    inner += element(4, values.tobytes("F"))
    outer = element(6, struct.pack(">II", 2, 0)) + element(5, struct.pack(">ii", 1, 1)) + element(1, b"GTcls")
    outer += (
        element(5, struct.pack(">i", 16)) + element(1, b"Segmentation".ljust(16, b"\0")) + element(14, inner)
    )
    np.testing.assert_array_equal(read(b"MATLAB".ljust(124) + b"\1\0MI" + element(14, outer)), values)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no MAT file of level 5"),
        (b"\x89HDF".ljust(600), "no MAT file of level 5"),
        (mat({"Segmentation": np.ones((9, 9), "u1")})[:200], "cut short"),
        (mat({"Other": 1}), "no field Segmentation"),
        (mat("words"), "is no structure"),
        (mat({"Segmentation": "words"}), "no array of numbers"),
        (mat({"Segmentation": {"a": 1}}), "no array of numbers"),
    ],
)
def test_what_is_no_label_map_is_told_in_words(content, says):
    with pytest.raises(ValueError, match=says):
        read(content)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), compress=st.booleans())
def test_damaged_files_are_read_or_refused(data, compress):
    content = bytearray(mat({"Segmentation": np.arange(20, dtype="u1").reshape(4, 5)}, compress=compress))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(100, len(content)))
    with contextlib.suppress(ValueError):
        assert read(bytes(content[:end])).size <= 20
