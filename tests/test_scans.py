"""Scans of every kind of file: NRRD, MetaImage, DICOM and stacks of pictures go in, and the label volume lies where the
scan does, as other programs see it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import traceback
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the extra volume")
pytest.importorskip("pydicom", reason="needs the extra volume")
pytest.importorskip("SimpleITK", reason="reads and writes scans as another program does")

import nibabel
import nrrd
import pydicom
import SimpleITK as sitk

import dicom_by_hand as drawn
from pixelwise import Normalise, Segmenter, VolumePreprocess, read_volume
from pixelwise.errors import ImageError, InputError, PixelwiseError, PixelwiseWarning
from pixelwise.geometry import affine_of
from pixelwise.outputs.reading import read_labels
from pixelwise.sources.dicom import read_headers
from volumes_by_hand import (
    ORIENTATIONS,
    TISSUES,
    affine_at,
    card_of,
    ellipsoids,
    tissues,
    write_tissues_model,
)

SIZE = (14, 20, 24)
SPACING = (2.5, 1.0, 1.25)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tissues_model(tmp_path_factory.mktemp("model") / "tissues.onnx")


@pytest.fixture(scope="module")
def segmenter(model: Path) -> Segmenter:
    return Segmenter(model)


def by_itk(path: Path, values: np.ndarray, affine: np.ndarray, *, zipped: bool = False) -> Path:
    """A scan (d, h, w) as SimpleITK writes it."""
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), zipped)
    return path


def affine_of_itk(image: Any) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


def alike(found: Any, affine: np.ndarray) -> None:
    """Affines, to 1e-6 of a voxel's place: labels are written as NIfTI, whose numbers have 32 bits."""
    np.testing.assert_allclose(found, affine, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(affine).max()))


def write_nrrd(path: Path, values: np.ndarray, **header: Any) -> Path:
    nrrd.write(str(path), values, header, index_order="C")
    return path


def stored_by_dicom(affine: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Affine and array with slices along r x c, which is how a series is read."""
    if np.linalg.det(affine[:3, :3]) > 0:
        return affine, values
    turned = affine.copy()
    turned[:3, 3] += turned[:3, 2] * (len(values) - 1)
    turned[:3, 2] *= -1
    return turned, values[::-1]


# The grid of the scan -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 17])
@pytest.mark.parametrize("kind", ["nrrd", "mha", "dicom"])
def test_labels_lie_where_the_scan_does_in_all_48_orientations(tmp_path, segmenter, kind, every):
    for i, letters in enumerate(ORIENTATIONS[::every]):
        turned_deg = 25 * (i % 2)
        affine = affine_at(letters, SPACING, SIZE, turned_deg)
        affine[:3, 3] += (-31.25, 118.0625, 402.5)
        values = ellipsoids(affine_at(letters, SPACING, SIZE, turned_deg), SIZE)
        place = tmp_path / letters
        place.mkdir()
        if kind == "dicom":
            path = drawn.write(place / "scan", drawn.series(values, affine))
            affine, values = stored_by_dicom(affine, values)
        else:
            path = by_itk(place / f"scan.{kind}", values, affine)
        found = segmenter(path)
        np.testing.assert_array_equal(found.labels, tissues(values), err_msg=letters)
        np.testing.assert_allclose(found.geometry.affine, affine, atol=1e-6, err_msg=letters)
        out = found.save(place / "out.nii.gz")
        image = nibabel.load(out)
        assert image.shape == values.shape[::-1]
        alike(image.affine, affine)
        theirs = sitk.ReadImage(str(out))
        alike(affine_of_itk(theirs), affine)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), found.labels)
        if kind != "dicom":
            before = sitk.ReadImage(str(path))
            assert theirs.GetSize() == before.GetSize()
            alike(affine_of_itk(theirs), affine_of_itk(before))


@pytest.mark.slow
def test_a_series_is_what_simpleitk_reads_of_it(tmp_path):
    affine = affine_at("LAS", SPACING, SIZE, 20)
    values = ellipsoids(affine, SIZE)
    folder = drawn.write(tmp_path / "scan", drawn.series(values, affine, slope=2, intercept=-1024))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs = reader.Execute()
    found = read_volume(folder)
    np.testing.assert_array_equal(found.values, sitk.GetArrayFromImage(theirs))
    np.testing.assert_allclose(found.affine, affine_of_itk(theirs), atol=1e-6)
    highdicom = pytest.importorskip("highdicom")
    ours, by_hd = found, highdicom.get_volume_from_series([pydicom.dcmread(p) for p in folder.iterdir()])
    lps = by_hd.affine[:, [2, 1, 0, 3]]  # of (slice, row, column)
    array = by_hd.array
    if np.sign(np.linalg.det(lps)) != np.sign(np.linalg.det(LPS @ ours.affine)):
        lps[:3, 3] += lps[:3, 2] * (len(array) - 1)
        lps[:3, 2] *= -1
        array = array[::-1]
    np.testing.assert_allclose(LPS @ ours.affine, lps, atol=1e-6)
    np.testing.assert_array_equal(ours.values, array)


@pytest.mark.parametrize("dtype", "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split())
def test_numbers_of_every_type_and_byte_order_are_those_of_the_file(tmp_path, dtype):
    affine = affine_at("RAS", SPACING, (3, 4, 5))
    low = 0 if dtype.startswith("u") else -7
    values = (np.arange(60).reshape(3, 4, 5) + low).astype(dtype)
    for name in ("a.mha", "a.mhd", "a.nrrd", "a.nhdr"):
        for zipped in (False, True):
            read = read_volume(by_itk(tmp_path / name, values, affine, zipped=zipped))
            assert read.values.dtype == dtype
            assert read.values.dtype.isnative
            np.testing.assert_array_equal(read.values, values)
    about: dict[str, Any] = {"space": "RAS", "space directions": np.eye(3), "space origin": [0, 0, 0]}
    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        path = write_nrrd(
            tmp_path / "b.nrrd", values.astype(np.dtype(dtype).newbyteorder(">")), encoding=encoding, **about
        )
        np.testing.assert_array_equal(read_volume(path).values, values, err_msg=encoding)
    big = np.dtype(dtype).newbyteorder(">")
    kind = {"i": "", "u": "U"}.get(big.kind, "")
    word = {
        "int8": "CHAR", "int16": "SHORT", "int32": "INT", "int64": "LONG_LONG", "float32": "FLOAT", "float64": "DOUBLE"
    }[dtype.removeprefix("u")]  # fmt: skip
    meta = metaimage(ElementType=f"MET_{kind}{word}", DimSize="5 4 3", BinaryDataByteOrderMSB="True")
    (tmp_path / "c.mha").write_bytes(meta + values.astype(big).tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "c.mha").values, values)


def metaimage(**fields: str) -> bytes:
    """A header of a MetaImage; fields are added to it, or replace what it has, None leaves one out."""
    usual = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0",
        "ElementSpacing": "1 1 1", "DimSize": "6 5 4", "ElementType": "MET_SHORT",
    }  # fmt: skip
    kept = {name: value for name, value in {**usual, **fields}.items() if value is not None}
    last = kept.pop("ElementDataFile", "LOCAL")
    return "".join(f"{k} = {v}\n" for k, v in {**kept, "ElementDataFile": last}.items()).encode()


def test_slopes_and_intercepts_of_slices_are_applied_to_each(tmp_path):
    affine = affine_at("LPS", SPACING, (4, 5, 6))
    values = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)

    def rescale(slope: float, add: float) -> Any:
        def change(i: int, ds: Any) -> None:
            ds.RescaleSlope, ds.RescaleIntercept = drawn.decimals([slope * (i + 1), add])
            ds.BitsStored, ds.HighBit = 12, 11

        return change

    times = np.arange(1, 5)[:, None, None]
    for slope, add, kind in ((1, -1024, np.int16), (2.5, 0.25, np.float32)):
        folder = drawn.write(tmp_path / f"{slope}", drawn.series(values, affine, change=rescale(slope, add)))
        read = read_volume(folder)
        assert read.values.dtype == kind
        np.testing.assert_allclose(read.values, values * slope * times + add, rtol=1e-6)


def test_a_look_up_table_stands_for_slope_and_intercept(tmp_path):
    affine = affine_at("LPS", SPACING, (3, 4, 5))
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)

    def table(i: int, ds: Any) -> None:
        item = pydicom.Dataset()
        item.LUTDescriptor, item.LUTData = [256, 0, 16], [3 * n + 1 for n in range(256)]
        item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
        item.ModalityLUTType = "US"
        ds.ModalityLUTSequence = pydicom.Sequence([item])
        del ds.RescaleSlope, ds.RescaleIntercept

    folder = drawn.write(tmp_path / "scan", drawn.series(values, affine, change=table))
    np.testing.assert_array_equal(read_volume(folder).values, 3 * values.astype(int) + 1)


def test_a_file_of_many_frames_is_the_same_volume_as_its_slices(tmp_path):
    affine = affine_at("PIR", SPACING, SIZE, 12)
    values = ellipsoids(affine, SIZE)
    folder = drawn.write(tmp_path / "scan", drawn.series(values, affine, intercept=-3))
    order = list(np.random.default_rng(1).permutation(len(values)))
    file = drawn.saved(drawn.enhanced(values, affine, intercept=-3, order=order), tmp_path / "one.dcm")
    slices, frames = read_volume(folder), read_volume(file)
    np.testing.assert_array_equal(slices.values, frames.values)
    np.testing.assert_allclose(slices.affine, frames.affine, atol=1e-6)
    assert [order[frame] for _, frame in frames.origin.slices] in (
        list(range(len(values))), list(range(len(values)))[::-1]
    )  # fmt: skip


def test_it_is_known_which_file_each_slice_came_from(tmp_path):
    affine = affine_at("LPS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    folder = drawn.write(tmp_path / "scan", drawn.series(values, affine), name="part/{:04d}")
    for path in (folder, drawn.zipped(folder, tmp_path / "scan.zip")):
        read = read_volume(path)
        headers = read_headers(read.origin)
        assert (read.origin.kind, read.origin.path, len(headers)) == ("dicom", path, len(values))
        at = [read.affine @ (0, 0, i, 1) for i in range(len(values))]
        np.testing.assert_allclose([ds.ImagePositionPatient for ds in headers], [(LPS @ p)[:3] for p in at])
        assert all("PixelData" not in ds and ds.SOPInstanceUID for ds in headers)
    found = Segmenter(write_tissues_model(tmp_path / "m.onnx"))(folder)
    assert found.origin.slices == read_volume(folder).origin.slices


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless"])
def test_compressed_slices_are_read_where_a_decoder_is_there(tmp_path, syntax):
    affine = affine_at("LPS", SPACING, (3, 40, 48))
    values = (ellipsoids(affine, (3, 40, 48)) % 251).astype(np.uint8)
    uid = getattr(pydicom.uid, syntax)

    def compress(i: int, ds: Any) -> None:
        ds.compress(uid, generate_instance_uid=False)

    slices = drawn.series(values, affine, change=compress if syntax == "RLELossless" else None)
    if syntax == "RLELossless":
        folder = drawn.write(tmp_path / "scan", slices)
        np.testing.assert_array_equal(read_volume(folder).values, values)
        return
    if not pydicom.pixels.get_decoder(uid).is_available:
        pytest.skip("no decoder is installed")
    from io import BytesIO

    from PIL import Image

    slices = list(slices)
    for ds in slices:
        file = BytesIO()
        Image.fromarray(ds.pixel_array).save(file, "JPEG2000", irreversible=False, no_jp2=True)
        ds.PixelData = pydicom.encaps.encapsulate([file.getvalue()])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = uid
    np.testing.assert_array_equal(read_volume(drawn.write(tmp_path / "scan", slices)).values, values)


# What NRRD and MetaImage say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "signs"),
    [("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1)), ("left-posterior-superior", (-1, -1, 1))],
)
def test_the_space_of_an_nrrd_says_where_its_axes_go(tmp_path, space, signs):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    directions = np.array(
        [[0, 2.0, 0], [1.5, 0, 0.1], [0, 0, 3.0]]
    )  # of the first, second and third axis of the file
    path = write_nrrd(
        tmp_path / "a.nrrd",
        values,
        **{"space": space, "space directions": directions, "space origin": [5, 6, 7]},
    )
    read = read_volume(path)
    expected = np.eye(4)
    expected[:3, :3] = np.diag(signs) @ directions.T
    expected[:3, 3] = np.array(signs) * (5, 6, 7)
    np.testing.assert_allclose(read.affine, expected)
    np.testing.assert_array_equal(read.values, values)


def test_what_does_not_say_how_it_lies_needs_to_be_told_where_that_matters(tmp_path, typed):
    values = ellipsoids(affine_at("RAS", SPACING, SIZE), SIZE)
    oriented = write_tissues_model(
        tmp_path / "o.onnx",
        card_of(VolumePreprocess((Normalise("none"),), orientation="RAS", patch=(8, 12, 16))),
        shift=(1, 0, -1),
    )
    bare = write_nrrd(Path("bare.nrrd"), values, spacings=list(SPACING[::-1]))
    meta = metaimage(DimSize="24 20 14", ElementSpacing="1.25 1 2.5", TransformMatrix=None)
    Path("bare.mha").write_bytes(meta + values.tobytes())
    expected = Segmenter(oriented)
    from pixelwise import Volume

    labels = expected(Volume.of(values, affine_of("LAS", SPACING))).labels
    for path in (bare, Path("bare.mha")):
        assert read_volume(path).affine is None
        assert read_volume(path).spacing == pytest.approx(SPACING)
        done = typed(f"segment {path} -m {oriented} -o never")
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert "does not say how it lies in the body" in done.err
        done = typed(f"segment {path} -m {oriented} -o out --assume-orientation LAS --overwrite")
        assert done.code == 0, done.err
        np.testing.assert_array_equal(read_labels("out/bare.labels.nii.gz", TISSUES), labels)
    placed = by_itk(tmp_path / "placed.nrrd", values, affine_at("RAS", SPACING, SIZE))
    with pytest.raises(InputError, match="says how it lies"):
        read_volume(placed, assume_orientation="RAS")
    three = write_nrrd(Path("nothing.nrrd"), values)
    assert read_volume(three).geometry is None
    done = typed(f"segment {three} -m {write_tissues_model(tmp_path / 'm.onnx')} -o out")
    assert (done.code, done.out) == (2, "")
    assert "does not say how far apart its voxels are" in done.err
    done = typed(f"segment {three} -m {tmp_path / 'm.onnx'} -o out --format npy,contours")
    assert done.code == 0
    np.testing.assert_array_equal(np.load("out/nothing.npy"), tissues(values))


def test_letters_that_are_not_those_of_the_matrix_are_said(tmp_path):
    path = tmp_path / "a.mha"
    path.write_bytes(metaimage(AnatomicalOrientation="LPI") + bytes(240))
    with pytest.warns(
        PixelwiseWarning, match="its AnatomicalOrientation LPI is not that of its TransformMatrix"
    ):
        read = read_volume(path)
    np.testing.assert_array_equal(read.affine, LPS)
    path.write_bytes(metaimage(AnatomicalOrientation="RAI") + bytes(240))
    read_volume(path)


# One of several -----------------------------------------------------------------------------------------------------


def test_one_frame_of_a_series_over_time_is_taken_when_it_is_named(tmp_path, segmenter):
    affine = affine_at("LPS", SPACING, SIZE)
    frames = np.stack([ellipsoids(affine, SIZE) + 40 * i for i in range(3)]).astype(np.int16)
    image = nibabel.Nifti1Image(frames.T, affine)
    for name in ("a.nii.gz", "a.nii"):
        image.to_filename(tmp_path / name)
    scaled = nibabel.Nifti1Image(frames.T, affine)
    scaled.header.set_slope_inter(2, 1)
    scaled.to_filename(tmp_path / "s.nii.gz")
    directions = [[np.nan] * 3, *(LPS @ affine)[:3, :3].T.tolist()]
    common = {"space": "LPS", "space origin": (LPS @ affine)[:3, 3].tolist()}
    write_nrrd(
        tmp_path / "first.nrrd", np.moveaxis(frames, 0, -1).copy(),
        **{**common, "space directions": directions, "kinds": ["list", "domain", "domain", "domain"]},
    )  # fmt: skip
    write_nrrd(
        tmp_path / "last.nrrd", frames,
        **{**common, "space directions": [*directions[1:], directions[0]],
           "kinds": ["domain", "domain", "domain", "list"]},
    )  # fmt: skip
    vector = sitk.GetImageFromArray(np.moveaxis(frames, 0, -1), isVector=True)
    sitk.WriteImage(vector, str(tmp_path / "v.mha"))
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(f) for f in frames]), str(tmp_path / "t.mha"))
    slices = []
    for i, frame in enumerate(frames):

        def timed(_: int, ds: Any, i: int = i) -> None:
            ds.AcquisitionNumber = 7 - i

        slices += drawn.series(frame, affine, series_uid="1.2.3", study="1.2", change=timed)
    for ds in slices:
        ds.FrameOfReferenceUID = "1.2.4"
    drawn.write(tmp_path / "dicom", slices)
    for name in ("a.nii.gz", "a.nii", "s.nii.gz", "first.nrrd", "last.nrrd", "v.mha", "t.mha", "dicom"):
        path = tmp_path / name
        for frame in (1, 3):
            read = read_volume(path, frame=frame)
            expected = frames[3 - frame] if name == "dicom" else frames[frame - 1]
            if name == "s.nii.gz":
                expected = np.asarray(nibabel.load(path).dataobj).T[frame - 1]
                assert (expected != frames[frame - 1]).all()
            np.testing.assert_array_equal(read.values, expected, err_msg=name)
            if not name.endswith(".mha"):
                np.testing.assert_allclose(read.affine, affine, atol=1e-5)
        for frame in (0, 4, True):
            with pytest.raises(InputError, match=r"holds 3 volumes, counted from 1; got frame"):
                read_volume(path, frame=frame)
        with pytest.raises(InputError, match="--frame"):
            segmenter(path)
    with pytest.raises(InputError, match=r"holds one volume; got frame 2"):
        read_volume(by_itk(tmp_path / "one.mha", frames[0], affine), frame=2)


def test_a_frame_is_taken_by_the_command(typed, model):
    affine = affine_at("LPS", SPACING, SIZE)
    frames = np.stack([ellipsoids(affine, SIZE), ellipsoids(affine, SIZE)[::-1]])
    nibabel.Nifti1Image(frames.T, affine).to_filename("time.nii.gz")
    done = typed(f"segment time.nii.gz -m {model} -o out --frame 2")
    assert done.code == 0, done.err
    assert nibabel.load("out/time.labels.nii.gz").shape == SIZE[::-1]
    np.testing.assert_array_equal(read_labels("out/time.labels.nii.gz", TISSUES), tissues(frames[1]))


def two_channels(path: Path) -> Path:
    """A model of two channels: organ where the first is above 40, lesion where the second is above 140."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from pixelwise.weights.card import CARD_KEY, Card

    weight = np.zeros((3, 2, 1, 1, 1), np.float32)
    weight[1, 0], weight[2, 1] = 1, 1
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])],
        "two",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, "d", "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "d", "h", "w"])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([40, 0, -100], np.float32), "bias"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    card = Card.of(TISSUES, volume=VolumePreprocess((Normalise("none"),) * 2, patch=(8, 12, 16)), name="two")
    made.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(made, str(path))
    return path


def test_channels_in_files_of_their_own_are_found_together(typed, tmp_path):
    two = two_channels(tmp_path / "two.onnx")
    affine = affine_at("LAS", SPACING, SIZE)
    first, second = np.zeros(SIZE, np.int16), np.zeros(SIZE, np.float32)
    first[2:9], second[5:9, 4:] = 70, 190.5
    for case in ("a", "b_01"):
        for i, values in enumerate((first, second)):
            path = Path("scans/day", f"{case}_{i:04d}.nii.gz")
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(values.T, affine).to_filename(path)
    done = typed(f"segment scans -m {two} -o out --format nifti,json")
    assert done.code == 0, done.err
    assert sorted(p.name for p in Path("out/day").iterdir() if p.name[0] != ".") == [
        "a.json", "a.labels.nii.gz", "b_01.json", "b_01.labels.nii.gz"
    ]  # fmt: skip
    expected = np.zeros(SIZE, np.uint8)
    expected[2:9] = 1
    expected[5:9, 4:] = 2
    np.testing.assert_array_equal(read_labels("out/day/a.labels.nii.gz", TISSUES), expected)
    np.testing.assert_array_equal(Segmenter(two)("scans/day/a_0000.nii.gz").labels, expected)
    again = typed(f"segment scans -m {two} -o out --format nifti,json --resume")
    assert (again.code, again.out) == (0, "")
    nibabel.Nifti1Image(second.T + 1, affine).to_filename("scans/day/a_0001.nii.gz")
    again = typed(f"segment scans -m {two} -o out --format nifti,json --resume")
    assert (again.code, len(again.out.splitlines())) == (0, 1), again.err
    moved = affine.copy()
    moved[0, 3] += 0.5
    nibabel.Nifti1Image(second.T, moved).to_filename("scans/day/a_0001.nii.gz")
    nibabel.Nifti1Image(second[1:].T, affine).to_filename("scans/day/b_01_0001.nii.gz")
    done = typed(f"segment scans -m {two} -o other")
    assert (done.code, done.out) == (2, "")
    assert "lie up to 0.5 voxels apart" in done.err
    assert "are to be channels of one volume, and have (14, 20, 24) and (13, 20, 24)" in done.err
    Path("scans/day/a_0001.nii.gz").unlink()
    done = typed(f"segment scans/day/a_0000.nii.gz -m {two} -o other")
    assert (done.code, done.out) == (2, "")
    assert "is the first of 2 channels, and a_0001.nii.gz is not beside it" in done.err


@pytest.mark.slow
def test_one_of_several_series_is_chosen_and_the_list_says_which_there_are(typed, model):
    affine = affine_at("LPS", SPACING, SIZE)
    one, two = ellipsoids(affine, SIZE), ellipsoids(affine, SIZE)[:, ::-1]

    def about(number: int, text: str, kind: str = "AXIAL") -> Any:
        def change(i: int, ds: Any) -> None:
            ds.SeriesNumber, ds.SeriesDescription = number, text
            ds.ImageType = ["ORIGINAL", "PRIMARY", kind]

        return change

    for uid, values, change in (
        ("1.2.30", one, about(5, "Lung")),
        ("1.2.31", two, about(4, f"Liver {drawn.SECRETS[0]}")),
        ("1.2.99", one[:1], about(1, "Scout", "LOCALIZER")),
    ):
        drawn.write(
            Path("study"), drawn.series(values, affine, series_uid=uid, change=change), name=uid + "_{:02d}"
        )
    done = typed(f"segment study -m {model} -o out")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert (
        "study holds 2 series, 1: CT, 14 of 24 x 20 (1.2.31); 2: CT 'Lung', 14 of 24 x 20 (1.2.30)"
        in done.err
    )
    for series, values in (("1", two), ("1.2.31", two), ("2", one), ("1.2.30", one)):
        with pytest.warns(PixelwiseWarning, match="1 localizers are left out"):
            found = read_volume("study", series=series)
        np.testing.assert_array_equal(found.values, values)
    for series, says in (
        ("3", "no series '3'"),
        ("1.2.3", "2 series whose UID begins with"),
        ("", "no series"),
    ):
        with pytest.raises(InputError, match=says):
            read_volume("study", series=series)
    done = typed(f"segment study -m {model} -o out --series 1.2.30")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(read_labels("out/study.labels.nii.gz", TISSUES), tissues(one))
    shutil.rmtree("study")
    drawn.write(Path("study"), drawn.series(one[:3], affine, change=about(1, "Scout", "LOCALIZER")))
    with pytest.raises(ImageError, match="holds nothing but localizers"):
        read_volume("study")
    nibabel.Nifti1Image(one.T, affine).to_filename("x.nii")
    with pytest.raises(InputError, match="is no DICOM, which alone has series"):
        read_volume("x.nii", series="1")


# The command line on folders ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_of_dicom_is_a_scan_and_one_of_such_folders_several(typed, model):
    affine = affine_at("LPS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    drawn.write(Path("all/one"), drawn.series(values, affine), name="IM{:03d}")
    drawn.write(Path("all/two/study/series"), drawn.series(values[::-1], affine), name="{uid}")
    drawn.write(Path("all/spread"), drawn.series(values, affine), name="{:04d}/x.dcm")
    nibabel.Nifti1Image(values.T, affine).to_filename("all/three.nii.gz")
    packed = drawn.write(Path("packed"), drawn.series(values, affine))
    drawn.zipped(packed, Path("all/four.zip"))
    shutil.rmtree("packed")
    Path("all/one/notes.txt").write_text("nothing")
    done = typed(f"segment all -m {model} -o out --format nifti")
    assert (done.code, done.err) == (0, "")
    found = sorted(str(p.relative_to("out")) for p in Path("out").rglob("*.nii.gz"))
    assert found == [
        "four.labels.nii.gz", "one.labels.nii.gz", "spread.labels.nii.gz", "three.labels.nii.gz",
        "two/study/series.labels.nii.gz",
    ]  # fmt: skip
    for name in found:
        expected = values[::-1] if name.startswith("two") else values
        np.testing.assert_array_equal(
            read_labels(Path("out", name), TISSUES), tissues(expected), err_msg=name
        )
    for path, name in (("all/one", "one"), ("all/two", "study/series"), ("all/four.zip", "four")):
        done = typed(f"segment {path} -m {model} -o alone")
        assert (done.code, done.err) == (0, ""), path
        assert Path("alone", f"{name}.labels.nii.gz").is_file()
        assert Path("alone", f"{name}.contours.png").is_file()
    journal = [json.loads(line) for line in Path("out/.pixelwise-journal.jsonl").read_text().splitlines()]
    assert {Path(line["source"]).name for line in journal if "source" in line} == {
        "one", "series", "spread", "three.nii.gz", "four.zip"
    }  # fmt: skip
    again = typed(f"segment all -m {model} -o out --format nifti --resume")
    assert (again.code, again.out) == (0, "")
    assert "5 of 5 were finished before" in again.err
    changed = next(iter(Path("all/one").glob("IM*")))
    os.utime(changed, ns=(0, 10**9))
    again = typed(f"segment all -m {model} -o out --format nifti --resume")
    assert [line.split(":")[0] for line in again.out.splitlines()] == ["all/one"]
    changed.unlink()
    again = typed(f"segment all -m {model} -o out --format nifti --resume")
    assert again.code == 2
    assert "all/one lacks slices" in again.err


def test_a_folder_of_dicom_is_no_picture(typed, colors_model):
    affine = affine_at("LPS", (4, 1, 1), (3, 10, 12))
    drawn.write(Path("scan"), drawn.series(np.full((3, 10, 12), 900, np.int16), affine))
    done = typed(f"segment scan -m {colors_model} -o out")
    assert (done.code, done.out) == (2, "")
    assert "scan is a volume, and colors takes pictures" in done.err
    done = typed(f"segment scan -m {colors_model} -o out --slices --scale 0,1000")
    assert done.code == 0, done.err
    assert nibabel.load("out/scan.labels.nii.gz").shape == (12, 10, 3)


def test_stacks_are_volumes_for_models_of_volumes_and_pictures_for_others(typed, model, colors_model):
    tifffile = pytest.importorskip("tifffile")
    zarr = pytest.importorskip("zarr")
    values = ellipsoids(affine_at("RAS", SPACING, SIZE), SIZE).astype(np.uint16)
    sizes = {f"PhysicalSize{a}": s * 1000 for a, s in zip("ZYX", SPACING, strict=True)}
    about = {"axes": "ZYX", **sizes, **{f"PhysicalSize{a}Unit": "µm" for a in "ZYX"}}
    tifffile.imwrite("a.ome.tif", values, metadata=about, compression="zlib")
    tifffile.imwrite(
        "j.tif",
        values,
        imagej=True,
        resolution=(1 / 1.25, 1.0),
        metadata={"axes": "ZYX", "spacing": 2.5, "unit": "mm"},
    )
    tifffile.imwrite("pages.tif", values, photometric="minisblack")
    root = zarr.open_group("z.zarr", mode="w")
    root.create_array("0", data=np.stack([values, values[::-1]])[None], chunks=(1, 1, 7, 20, 24))
    scale = [{"type": "scale", "scale": [1, 1, *(1000 * s for s in SPACING)]}]
    axes = [
        {"name": "t"},
        {"name": "c"},
        *({"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"),
    ]
    root.attrs["multiscales"] = [
        {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    ]
    for name in ("a.ome.tif", "j.tif"):
        read = read_volume(name)
        np.testing.assert_array_equal(read.values, values)
        assert read.spacing == pytest.approx(SPACING, rel=1e-4)
        assert read.affine is None
    read = read_volume("z.zarr")
    np.testing.assert_array_equal(read.values, np.stack([values, values[::-1]]))
    assert read.spacing == pytest.approx(SPACING)
    with pytest.warns(PixelwiseWarning, match="how far apart its voxels are"):
        read = read_volume("pages.tif")
    assert read.geometry is None
    np.testing.assert_array_equal(read.values, values)
    done = typed(f"segment a.ome.tif j.tif -m {model} -o out")
    assert (done.code, done.err) == (0, ""), done.err
    for name in ("a", "j"):
        image = nibabel.load(f"out/{name}.labels.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, tissues(values))
        np.testing.assert_allclose(image.header.get_zooms(), SPACING[::-1], rtol=1e-4)
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    flat = tifffile.imwrite("flat.tif", values[0])
    assert flat is None
    done = typed(f"segment flat.tif -m {model} -o out")
    assert (done.code, done.out) == (2, "")
    assert "has no axis Z of several slices" in done.err
    done = typed(f"segment j.tif -m {colors_model} -o pictures")
    assert done.code == 0, done.err
    assert Path("pictures/j.labels.png").is_file()


# Patients -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_of_the_patient_gets_out(typed, model, caplog, tmp_path):
    affine = affine_at("LPS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    drawn.write(Path("whole"), drawn.series(values, affine))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for what in ("ImagePositionPatient", "PixelSpacing", "RescaleSlope", "FrameOfReferenceUID"):
            slices = list(drawn.series(values, affine))
            slices[4].add_new(what, "LO", f"{drawn.SECRETS[0]}\\{drawn.SECRETS[1]}")
            drawn.write(Path(what), slices)
        doubled = list(drawn.series(values, affine, series_uid="1.2.3"))
        doubled[3].ImagePositionPatient = doubled[2].ImagePositionPatient
        drawn.write(Path("doubled"), doubled)
        two = [*drawn.series(values, affine), *drawn.series(values, affine)]
        for ds in two:
            ds.SeriesDescription = f"of {drawn.SECRETS[1]} {drawn.SECRETS[2]}"
        drawn.write(Path("two"), two)
    said = ""
    with caplog.at_level("DEBUG"):
        for folder in ("whole", "ImagePositionPatient", "PixelSpacing", "RescaleSlope", "doubled", "two"):
            for more in ("--json", "--debug") if folder in ("whole", "PixelSpacing") else ("--debug",):
                line = f"segment {folder} -m {model} -o out-{folder}{more} --format nifti,json,csv,contours {more}"
                try:
                    done = typed(line)
                except PixelwiseError as error:  # which Python then prints as here
                    said += "".join(traceback.format_exception(error))
                    continue
                assert (done.code == 0) == (folder == "whole"), (folder, done.err)
                said += done.out + done.err
        drawn.write(Path("all/a"), drawn.series(values, affine))
        drawn.write(Path("all/b"), two)
        said += (done := typed(f"segment all -m {model} -o all-out")).out + done.err
    said += caplog.text
    content = [p.read_bytes() for out in Path().glob("*out*") for p in out.rglob("*") if p.is_file()]
    assert len(content) >= 6
    content += [gzip.decompress(c) for c in content if c[:2] == b"\x1f\x8b"]
    for secret in drawn.SECRETS:
        assert secret not in said
        assert not any(secret.encode() in one for one in content)


# What cannot be used ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_beside_a_series_does_not_grow_with_its_slices(tmp_path):
    def beside(depth: int) -> int:
        size = (depth, 256, 256)
        scan = drawn.series(np.zeros(size, np.int16), affine_at("LPS", SPACING, size), intercept=-1024)
        folder = drawn.write(tmp_path / str(depth), scan)
        tracemalloc.start()
        read = read_volume(folder)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - read.values.nbytes

    beside(4)
    few, many = beside(10), beside(40)
    assert many - few < 30 * 256 * 256 * 2 / 4  # headers, and no pixels


def test_a_missing_reader_is_named_by_its_extra(tmp_path, monkeypatch):
    import sys

    values = np.zeros((3, 4, 5), np.int16)
    affine = affine_of("LPS", SPACING)
    folder = drawn.write(tmp_path / "scan", drawn.series(values, affine))
    scan = by_itk(tmp_path / "a.nrrd", values, affine)
    for name, path in (("pydicom.filereader", folder), ("nrrd", scan)):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(PixelwiseError, match=r"pip install 'pixelwise\[volume\]'"):
                read_volume(path)


def test_a_zip_is_read_as_it_is_and_unpacked_nowhere(tmp_path, monkeypatch):
    affine = affine_at("LPS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    folder = drawn.write(tmp_path / "scan", drawn.series(values, affine))
    archive = drawn.zipped(folder, tmp_path / "scan.zip")
    shutil.rmtree(folder)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(zipfile.ZipFile, "extract", None)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", None)
    np.testing.assert_array_equal(read_volume(archive).values, values)
    assert sorted(tmp_path.rglob("*")) == before


AFFINE = affine_at("LPS", SPACING, (6, 5, 4))
SCAN = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)


def with_slices(change: Any = None, **how: Any) -> Any:
    """A folder of slices, each changed by (its number, it); one that is made None is left out."""

    def make(path: Path) -> Path:
        slices = [(i, ds) for i, ds in enumerate(drawn.series(SCAN, AFFINE, series_uid="1.2.3", **how))]
        kept = [ds for i, ds in slices if change is None or change(i, ds) is not False]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return drawn.write(path, kept)

    return make


def at(number: int, **values: Any) -> Any:
    """Another value of one slice; None takes it out."""

    def change(i: int, ds: Any) -> None:
        if i == number:
            for name, value in values.items():
                if value is None:
                    delattr(ds, name)
                else:
                    setattr(ds, name, value)

    return with_slices(change)


def moved(number: int, by: tuple[float, float, float]) -> Any:
    def change(i: int, ds: Any) -> None:
        if i == number:
            ds.ImagePositionPatient = drawn.decimals(np.array(ds.ImagePositionPatient, float) + by)

    return with_slices(change)


def tilted(path: Path) -> Path:
    def change(i: int, ds: Any) -> None:
        ds.ImagePositionPatient = drawn.decimals(np.array(ds.ImagePositionPatient, float) + (0, 0.3 * i, 0))

    return with_slices(change)(path)


def cut(count: int) -> Any:
    def make(path: Path) -> Path:
        file = sorted(with_slices()(path).iterdir())[2]
        file.write_bytes(file.read_bytes()[:count])
        return path

    return make


def beside_it(name: str, content: bytes) -> Any:
    def make(path: Path) -> Path:
        (with_slices()(path) / name).write_bytes(content)
        return path

    return make


def encoded(uid: str) -> Any:
    def change(i: int, ds: Any) -> None:
        ds.PixelData = pydicom.encaps.encapsulate([bytes(40)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)

    return with_slices(change)


def deflated(path: Path) -> Path:
    def change(i: int, ds: Any) -> None:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian

    return with_slices(change)(path)


def rgb(path: Path) -> Path:
    def change(i: int, ds: Any) -> None:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0

    return with_slices(change)(path)


def frames(change: Any) -> Any:
    def make(path: Path) -> Path:
        ds = drawn.enhanced(SCAN, AFFINE)
        change(ds)
        return drawn.saved(ds, path / "one.dcm")

    return make


def same_place(ds: Any) -> None:
    groups = ds.PerFrameFunctionalGroupsSequence
    groups[3].PlanePositionSequence = groups[2].PlanePositionSequence


def in_zip(name: str, *, flag: int = 0, size: int | None = None) -> Any:
    def make(path: Path) -> Path:
        folder = with_slices()(path.with_name("inside"))
        archive = path.with_suffix(".zip")
        drawn.zipped(folder, archive)
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, bytes(128) + b"DICM" + bytes(size or 99))
        if flag:
            content = archive.read_bytes()
            place = content.rindex(b"PK\x01\x02") + 8
            archive.write_bytes(content[:place] + bytes([flag]) + content[place + 1 :])
        return archive

    return make


def broken_zip(path: Path) -> Path:
    archive = drawn.zipped(with_slices()(path.with_name("inside")), path.with_suffix(".zip"))
    content = bytearray(archive.read_bytes())
    place = content.index(b"DICM") if b"DICM" in content else 400
    content[place : place + 60] = bytes(60)
    archive.write_bytes(content)
    return archive


def nrrd_of(*, data: bytes | None = None, **fields: Any) -> Any:
    """A file whose header has other fields; None leaves one out."""

    def make(path: Path) -> Path:
        path = path.with_suffix(".nrrd")
        usual = {
            "type": "int16", "dimension": "3", "space": "left-posterior-superior", "sizes": "4 5 6",
            "space directions": "(1,0,0) (0,1,0) (0,0,2)", "kinds": "domain domain domain", "endian": "little",
            "encoding": "raw", "space origin": "(0,0,0)",
        }  # fmt: skip
        kept = {**usual, **{k.replace("_", " "): v for k, v in fields.items()}}
        lines = ["NRRD0004", *(f"{k}: {v}" for k, v in kept.items() if v is not None), "", ""]
        path.write_bytes("\n".join(lines).encode() + (SCAN.tobytes() if data is None else data))
        return path

    return make


def mha_of(*, data: bytes | None = None, **fields: Any) -> Any:
    def make(path: Path) -> Path:
        path = path.with_suffix(".mha")
        path.write_bytes(
            metaimage(**{"DimSize": "4 5 6", **fields}) + (SCAN.tobytes() if data is None else data)
        )
        return path

    return make


def linked(path: Path) -> Path:
    (path.parent / "outside").mkdir()
    (path.parent / "outside" / "x.raw").write_bytes(SCAN.tobytes())
    path.mkdir()
    (path / "x.raw").symlink_to(path.parent / "outside" / "x.raw")
    (path / "bad.mhd").write_bytes(metaimage(DimSize="4 5 6", ElementDataFile="x.raw"))
    return path / "bad.mhd"


def deep(path: Path) -> Path:
    """Sequences in sequences, deeper than Python goes."""
    start = sorted(with_slices()(path).iterdir())[0]
    item, sequence = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff"
    content = start.read_bytes()
    start.write_bytes(content[: content.index(b"\x28\x00\x02\x00US")] + (sequence + item) * 3000)
    return path


PLACES = "PerFrameFunctionalGroupsSequence"

ZIPPED = gzip.compress(SCAN.tobytes())

HOSTILE: dict[str, tuple[Any, str]] = {
    "an empty folder": (lambda p: (p.mkdir(), p)[1], "is no volume"),
    "no DICOM in it": (lambda p: (p.mkdir(), (p / "IM1").write_bytes(bytes(500)), p)[2], "is no volume"),
    "a missing slice": (with_slices(lambda i, ds: i != 3), "lacks slices: from .* it is 5 mm .* 2.5 mm elsewhere"),
    "a position twice": (moved(3, (0, 0, -2.5)), "two slices at the same place"),
    "uneven steps": (moved(3, (0, 0, 0.4)), "slices at unequal distances, 2.1 to 2.9 mm"),
    "tilt": (tilted, r"leans by 6.84 degrees against the slices \(gantry tilt\)"),
    "a slice beside the others": (moved(3, (1.5, 0, 0)), "lies 1.5 mm beside the others"),
    "mixed directions": (at(2, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "mixes slices that are no one volume"),
    "mixed spacing": (at(2, PixelSpacing=[2, 2]), "mixes slices .*pixels of"),
    "mixed sizes": (at(2, Rows=2), "mixes slices .*4 x 2 pixels and 4 x 5"),
    "mixed frames of reference": (at(2, FrameOfReferenceUID="1.9"), "two frames of reference"),
    "two series": (at(2, SeriesInstanceUID="1.2.4"), "holds 2 series, .*--series"),
    "a mosaic": (at(0, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "is a mosaic"),
    "colours": (rgb, r"holds colours \(RGB\)"),
    "one slice": (with_slices(lambda i, ds: i == 3), "has one slice"),
    "no position": (at(1, ImagePositionPatient=None), "does not say its ImagePositionPatient"),
    "no directions": (at(1, ImageOrientationPatient=None), "does not say its ImageOrientationPatient"),
    "no pixel spacing": (at(1, PixelSpacing=None), "does not say its PixelSpacing"),
    "zero spacing": (at(1, PixelSpacing=[0, 1]), "expected positive numbers"),
    "directions that are none": (at(1, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "Patient that is none"),
    "two numbers for a position": (at(1, ImagePositionPatient=[1, 2]), "is not 3 finite numbers"),
    "a slope of nothing": (at(1, RescaleSlope="0"), "RescaleSlope is 0"),
    "more bits than are said": (with_slices(lambda i, ds: setattr(ds, "BitsAllocated", 24)), "voxels of 24 bits"),
    "cut in the pixels": (cut(-20), "damaged"),
    "cut in the header": (cut(500), "holds no picture, or was cut off"),
    "cut in the preamble": (cut(99), "is no DICOM file by its content"),
    "an empty slice": (cut(0), "is no DICOM file by its content"),
    "another file among them": (beside_it("z.dcm", b"hello"), "z.dcm is no DICOM file by its content"),
    "JPEG without a decoder": (encoded("1.2.840.10008.1.2.4.57"), "no decoder for that is installed: .*pylibjpeg"),
    "JPEG-LS that is none": (encoded("1.2.840.10008.1.2.4.80"), "no decoder for that is installed|damaged"),
    "RLE that is none": (encoded("1.2.840.10008.1.2.5"), "damaged"),
    "video": (encoded("1.2.840.10008.1.2.4.102"), "stored in a way that is not read"),
    "deflated": (deflated, "is deflated as a whole"),
    "frames without places": (frames(lambda ds: delattr(ds, PLACES)), "does not say where each"),
    "places of other frames": (frames(lambda ds: setattr(ds, "NumberOfFrames", 9)), "says places of 6"),
    "frames at one place": (frames(same_place), "two slices at the same place"),
    "frames of no orientation": (frames(lambda ds: delattr(ds, "SharedFunctionalGroupsSequence")), "does not say its"),
    "larger than memory": (with_slices(lambda i, ds: (setattr(ds, "Rows", 65535), setattr(ds, "Columns", 65535))[0]),
                           "of memory, more than|damaged"),
    "sequences without end": (deep, "damaged"),
    "zip: a way out": (in_zip("../out.dcm"), "outside of its folder"),
    "zip: an absolute path": (in_zip("/etc/x.dcm"), "outside of its folder"),
    "zip: encrypted": (in_zip("b.dcm", flag=1), "is encrypted"),
    "zip: another file": (in_zip("b.dcm"), "is no DICOM file by its content"),
    "zip: a bomb": (in_zip("b.dcm", size=2**25), "is no DICOM file by its content"),
    "zip: damaged": (broken_zip, "damaged"),
    "zip: cut off": (lambda p: _shortened(in_zip("b.dcm")(p)), "is no volume|damaged"),
    "NRRD: something else": (lambda p: _written(p.with_suffix(".nrrd"), b"\x89PNG\n"), "is no NRRD file"),
    "NRRD: empty": (lambda p: _written(p.with_suffix(".nrrd"), b""), "is empty"),
    "NRRD: no sizes": (nrrd_of(sizes=None), "says nothing of sizes"),
    "NRRD: other dimensions": (nrrd_of(dimension="2"), "it says 2 dimensions"),
    "NRRD: negative": (nrrd_of(sizes="4 -5 6"), "speaks of sides"),
    "NRRD: no number": (nrrd_of(sizes="4 x 6"), "damaged"),
    "NRRD: larger than memory": (nrrd_of(sizes="40000 40000 40000"), "of memory, more than"),
    "NRRD: larger than the file": (nrrd_of(sizes="4 5 7"), "it was cut off"),
    "NRRD: five dimensions": (nrrd_of(sizes="1 2 3 4 5", dimension="5"), "has 5 dimensions"),
    "NRRD: blocks": (nrrd_of(type="block"), "voxels of type"),
    "NRRD: no byte order": (nrrd_of(endian=None), "does not say its byte order"),
    "NRRD: hex": (nrrd_of(encoding="hex"), "is encoded as 'hex'"),
    "NRRD: gzip that is none": (nrrd_of(encoding="gzip"), "damaged"),
    "NRRD: gzip cut off": (nrrd_of(encoding="gzip", data=ZIPPED[:-30]), "damaged or was cut off"),
    "NRRD: gzip that goes on": (nrrd_of(encoding="gzip", data=gzip.compress(bytes(2**25))), "goes on behind"),
    "NRRD: singular": (nrrd_of(space_directions="(1,0,0) (0,1,0) (1,1,0)"), "singular or not finite"),
    "NRRD: NaN": (nrrd_of(space_origin="(0,nan,0)"), "singular or not finite"),
    "NRRD: no origin": (nrrd_of(space_origin=None), "singular or not finite"),
    "NRRD: zero spacing": (nrrd_of(space=None, space_directions=None, space_origin=None, spacings="1 0 1"), "positive"),
    "NRRD: unknown unit": (nrrd_of(space_units='"furlong" "mm" "mm"'), "counts space in"),
    "NRRD: colours": (nrrd_of(kinds="RGB-color domain domain"), "holds colours"),
    "NRRD: which axis": (nrrd_of(sizes="2 3 4 5", dimension="4", space_directions=None, kinds=None), "has four axes"),
    "NRRD: a path elsewhere": (nrrd_of(data_file="/etc/passwd"), "names a file in another place"),
    "NRRD: a way up": (nrrd_of(data_file="../x.raw"), "names a file in another place"),
    "NRRD: many files": (nrrd_of(data_file="x%03d.raw 1 5 1"), "in many files"),
    "NRRD: no such file": (nrrd_of(data_file="x.raw"), "none is beside it"),
    "NRRD: skips": (nrrd_of(byte_skip="-9"), "skips"),
    "MHA: something else": (lambda p: _written(p.with_suffix(".mha"), b"hello\n"), "is no MetaImage"),
    "MHA: no end": (lambda p: _written(p.with_suffix(".mha"), b"NDims = 3\n"), "is no MetaImage"),
    "MHA: other dimensions": (mha_of(NDims="2"), "dimensions and sizes"),
    "MHA: zero": (mha_of(DimSize="4 0 6"), "speaks of sides"),
    "MHA: larger than memory": (mha_of(DimSize="40000 40000 40000"), "of memory, more than"),
    "MHA: larger than the file": (mha_of(DimSize="4 5 7"), "it was cut off"),
    "MHA: deflated, cut off": (mha_of(CompressedData="True", data=ZIPPED[:40]), "cut off"),
    "MHA: deflated, none": (mha_of(CompressedData="True"), "damaged"),
    "MHA: unknown type": (mha_of(ElementType="MET_STRING"), "voxels of type"),
    "MHA: singular": (mha_of(TransformMatrix="1 0 0 0 1 0 0 0 0"), "singular or not finite"),
    "MHA: NaN": (mha_of(Offset="nan 0 0"), "singular or not finite"),
    "MHA: zero spacing": (mha_of(ElementSpacing="1 1 0"), "expected positive numbers"),
    "MHA: two numbers": (mha_of(Offset="0 0"), "Offset has 2 numbers"),
    "MHA: words": (mha_of(Offset="a b c"), "damaged"),
    "MHA: a path elsewhere": (mha_of(ElementDataFile="/etc/passwd"), "names a file in another place"),
    "MHA: many files": (mha_of(ElementDataFile="x%03d.raw 1 5 1"), "in many files"),
    "MHA: a link elsewhere": (linked, "is a link that leads elsewhere"),
    "MHA: channels and time": (mha_of(NDims="4", DimSize="2 3 4 5", ElementNumberOfChannels="2", TransformMatrix=None),
                               "channels and four dimensions"),
}  # fmt: skip


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _shortened(path: Path) -> Path:
    return _written(path, path.read_bytes()[:-200])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_scan_that_cannot_be_used_is_refused_in_a_sentence_with_its_name(name, segmenter, tmp_path):
    make, says = HOSTILE[name]
    path = make(tmp_path / "bad")
    with pytest.raises(InputError, match=says) as refused:
        segmenter(path)
    assert "bad" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 1200
    assert not any(secret in str(refused.value) for secret in drawn.SECRETS)
    assert not list(tmp_path.parent.rglob("out.dcm"))


def test_the_slices_that_the_hostile_ones_are_made_of_are_read(tmp_path):
    np.testing.assert_array_equal(read_volume(with_slices()(tmp_path / "a")).values, SCAN)
    np.testing.assert_array_equal(read_volume(frames(lambda ds: None)(tmp_path / "b")).values, SCAN)
    for make in (nrrd_of(), mha_of()):
        np.testing.assert_array_equal(read_volume(make(tmp_path / "c")).values, SCAN)


def test_a_command_refuses_such_scans_in_one_line_and_writes_nothing(model, typed):
    for name in ("a missing slice", "zip: a way out", "NRRD: a path elsewhere", "JPEG without a decoder"):
        path = HOSTILE[name][0](Path(name.replace(" ", "-").replace(":", "")))
        done = typed(f"segment {path} --model {model} --out out")
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done.err
        assert not list(Path().rglob("*.labels.nii*"))
