"""What is made of the segmentation of a volume: cleaned up in three dimensions, measured, drawn, and written as files
that other programs read."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the extra volume")
pytest.importorskip("scipy", reason="needs the extra volume")
pytest.importorskip("pydicom", reason="needs the extra volume")

import nibabel
from PIL import Image
from scipy import ndimage

import dicom_by_hand
from pixelwise import Card, LabelSet, Segmenter, Volume
from pixelwise.errors import InputError
from pixelwise.geometry import Geometry, affine_of
from pixelwise.outputs import planes
from pixelwise.outputs.formats import VOLUME_FORMATS
from pixelwise.outputs.nrrd import nrrd
from pixelwise.outputs.reading import read_labels
from pixelwise.outputs.surface import surfaces
from pixelwise.sources.volume import read_volume
from volumes_by_hand import AS_STORED, TISSUES, affine_at, ellipsoids, tissues, write_tissues_model

SIZE = (14, 20, 24)
SPACING = (2.5, 1.0, 1.25)
SIDES = ndimage.generate_binary_structure(3, 1)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(write_tissues_model(tmp_path_factory.mktemp("model") / "tissues.onnx"))


def blobs(seed: int = 0) -> np.ndarray:
    """Values of background, organ and lesion in blobs of all sizes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SIZE), 1.2)
    return np.digitize(noise, np.quantile(noise, (0.5, 0.8))).astype(np.float32) * 60 + 10


# Cleaned up ----------------------------------------------------------------------------------------------------


def test_holes_are_filled_in_three_dimensions(segmenter):
    values = ellipsoids(affine_at("RAS", SPACING, SIZE), SIZE).astype(np.float32)
    values[(values == 130)] = 70
    values[7, 10, 12] = 10  # a hole
    values[:7, 11, 14] = 10  # a channel from outside, which is a hole in each slice alone
    labels = tissues(values)
    found = segmenter(values, fill_holes=["organ"]).labels
    expected = np.where(ndimage.binary_fill_holes(labels == 1, SIDES), 1, labels)
    np.testing.assert_array_equal(found, expected)
    assert (found[7, 10, 12], found[4, 11, 14]) == (1, 0)


@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 0, 1)])
def test_only_the_largest_region_stays_and_small_ones_go_to_a_neighbour(segmenter, turn):
    values = np.ascontiguousarray(blobs().transpose(turn))
    labels = tissues(values)
    assert len(np.unique(labels)) == 3
    found = segmenter(values, largest_only=["lesion"]).labels
    parts, _ = ndimage.label(labels == 2, SIDES)
    sizes = np.bincount(parts.ravel())[1:]
    np.testing.assert_array_equal(found == 2, parts == 1 + sizes.argmax())
    assert len(sizes) > 3
    found = segmenter(values, min_area=30).labels
    for value in range(3):
        parts, count = ndimage.label(found == value, SIDES)
        assert count == 0 or np.bincount(parts.ravel())[1:].min() >= 30
        assert any(ndimage.label(labels == value, SIDES)[1] > count for value in range(3))


def test_the_smallest_region_is_said_in_voxels_or_in_cubic_millimetres(segmenter, typed, tmp_path):
    values, affine = blobs(1), affine_of("RAS", SPACING)
    voxel = float(np.prod(SPACING))
    scan = Volume.of(values, affine)
    labels = tissues(values)
    parts = [ndimage.label(labels == value, SIDES)[0] for value in range(3)]
    smallest = min(int(np.bincount(some.ravel())[1:].min()) for some in parts)
    np.testing.assert_array_equal(segmenter(scan, min_mm3=smallest * voxel).labels, labels)
    assert (segmenter(scan, min_mm3=(smallest + 0.01) * voxel).labels != labels).any()
    for voxels in (2, 17, 30):
        expected = segmenter(scan, min_area=voxels).labels
        for mm3 in (voxels * voxel, (voxels - 0.5) * voxel):
            np.testing.assert_array_equal(segmenter(scan, min_mm3=mm3).labels, expected)
    with pytest.raises(InputError, match="min_mm3 is for volumes that say their spacing"):
        segmenter(values, min_mm3=30)
    with pytest.raises(InputError, match="give one of them"):
        segmenter(scan, min_mm3=30, min_area=3)
    model = write_tissues_model(tmp_path / "tissues.onnx")
    nibabel.Nifti1Image(values.T, affine).to_filename("scan.nii")
    done = typed(
        f"segment scan.nii -m {model} -o out --format nifti --min-mm3 50 --largest-only lesion --fill-holes organ"
    )
    assert (done.code, done.err) == (0, "")
    expected = segmenter(scan, min_mm3=50, largest_only=["lesion"], fill_holes=["organ"]).labels
    np.testing.assert_array_equal(read_labels("out/scan.labels.nii", TISSUES), expected)
    done = typed(f"segment scan.nii -m {model} -o out2 --largest-only leison")
    assert done.code == 2
    assert "lesion" in done.err


def test_a_picture_has_no_cubic_millimetres(colors_model, typed):
    Image.new("RGB", (16, 16)).save("a.png")
    done = typed(f"segment a.png -m {colors_model} --min-mm3 5")
    assert done.code == 2
    assert "min_mm3 is for volumes that say their spacing" in done.err


REGIONS = LabelSet.of(["nothing", "whole tumour", "tumour core", "enhancing tumour"], ids=[0, 2, 1, 4])


def regions_segmenter(path: Path) -> Segmenter:
    """Regions that lie in each other: over 40, over 50 and over 100."""
    import onnx
    from onnx import numpy_helper

    from pixelwise.weights.card import CARD_KEY

    write_tissues_model(path)
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(_middle((1, 1, 1)), "weight"))
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.array([-40, -50, -100], np.float32), "bias")
    )
    card = Card.of(REGIONS, outputs="regions", volume=AS_STORED)
    del model.metadata_props[:]
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(model, path)
    return Segmenter(path)


def _middle(weights: Any) -> np.ndarray:
    kernel = np.zeros((3, 1, 3, 3, 3), np.float32)
    kernel[:, 0, 1, 1, 1] = weights
    return kernel


def test_regions_are_written_in_their_order_as_the_challenge_counts_them(tmp_path):
    """Whole tumour, then its core, then what enhances: ids 2, 1 and 4, each region whole in mask, mm3 and table."""
    segmenter = regions_segmenter(tmp_path / "regions.onnx")
    values = blobs(2)
    values[values == 10], values[values == 70], values[values == 130] = 45, 20, 60
    values[3:6, 4:9, 5:11] = 120
    scan = Volume.of(values, affine_of("RAS", SPACING))
    found = segmenter(scan)
    expected = np.where(values > 100, 4, np.where(values > 50, 1, np.where(values > 40, 2, 0)))
    np.testing.assert_array_equal(found.labels, expected)
    counts = {row["name"]: row["voxels"] for row in found.to_dict()["classes"]}
    assert counts == {
        "whole tumour": int((values > 40).sum()), "tumour core": int((values > 50).sum()),
        "enhancing tumour": int((values > 100).sum()), "nothing": int((values <= 40).sum()),
    }  # fmt: skip
    found = segmenter(scan, largest_only=["tumour core"], fill_holes=["whole tumour"])
    core, _ = ndimage.label(values > 50, SIDES)
    np.testing.assert_array_equal(
        found.mask("tumour core"), core == 1 + np.bincount(core.ravel())[1:].argmax()
    )
    whole = ndimage.binary_fill_holes(values > 40, SIDES)
    np.testing.assert_array_equal(found.mask("whole tumour"), whole)
    np.testing.assert_array_equal(found.mask("enhancing tumour"), values > 100)
    with pytest.raises(InputError, match="is what no region covers"):
        segmenter(scan, largest_only=["nothing"])


# Measured ------------------------------------------------------------------------------------------------------

BODY = LabelSet.of(["background", "body"])


def drawn_body(radii: tuple[float, float, float], affine: np.ndarray) -> np.ndarray:
    """An ellipsoid (d, h, w) with half axes in mm along x, y and z of the world, its middle beside a voxel's."""
    corners = np.abs(np.linalg.inv(affine[:3, :3])) @ np.array(radii)
    half = np.ceil(corners).astype(int) + 2
    index = np.stack(np.meshgrid(*(np.arange(-n, n + 1) + 0.13 for n in half), indexing="ij"))
    x, y, z = np.tensordot(affine[:3, :3], index, 1)
    inside = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1
    return np.ascontiguousarray(inside.astype(np.uint8).T)


def surface_of_ellipsoid(radii: tuple[float, float, float]) -> float:
    """By adding up what a fine mesh of angles spans."""
    a, b, c = radii
    theta, phi = np.linspace(0, np.pi, 401)[:, None], np.linspace(0, 2 * np.pi, 401)[None]
    points = np.stack(
        [
            a * np.sin(theta) * np.cos(phi),
            b * np.sin(theta) * np.sin(phi),
            c * np.cos(theta) * np.ones_like(phi),
        ]
    )
    along = np.diff(points, axis=1)[:, :, :-1], np.diff(points, axis=2)[:, :-1]
    return float(np.linalg.norm(np.cross(*along, axis=0), axis=0).sum())


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 1, 1), (1, 2, 0.5), (3, 0.8, 0.8)])
@pytest.mark.parametrize("radii", [(15, 15, 15), (12, 15, 25), (30, 20, 20)])
def test_the_surface_of_a_rounded_body_is_right_to_six_percent_whatever_the_spacing(spacing, radii):
    for affine in (affine_of("RAS", spacing), affine_at("PIL", spacing, SIZE, 25)):
        measured = surfaces(drawn_body(radii, affine), BODY, Geometry.of(affine))[1]
        assert measured == pytest.approx(surface_of_ellipsoid(radii), rel=0.06)


def test_a_sheared_grid_measures_the_same_body():
    affine = affine_of("RAS", (2, 1, 1))
    affine[0, 2], affine[1, 2] = 0.7, -0.4
    measured = surfaces(drawn_body((15, 15, 15), affine), BODY, Geometry.of(affine))[1]
    assert measured == pytest.approx(4 * np.pi * 15**2, rel=0.02)


def test_the_surface_is_that_of_itk_where_voxels_are_cubes():
    sitk = pytest.importorskip("SimpleITK")
    labels = tissues(blobs(3))
    labels[0] = labels[-1] = labels[:, 0] = labels[:, -1] = labels[..., 0] = labels[..., -1] = 0
    for side in (1.0, 0.7):
        image = sitk.GetImageFromArray(labels)
        image.SetSpacing([side] * 3)
        theirs = sitk.LabelShapeStatisticsImageFilter()
        theirs.ComputePerimeterOn()
        theirs.Execute(image)
        ours = surfaces(labels, TISSUES, Geometry((side,) * 3))
        for id in (1, 2):
            assert ours[id] == pytest.approx(theirs.GetPerimeter(id), rel=1e-6)


def test_how_a_scan_is_stored_does_not_change_its_surfaces_and_the_edge_of_the_scan_counts():
    affine = affine_at("RAS", SPACING, SIZE, 25)
    labels, geometry = tissues(blobs(4)), Geometry.of(affine)
    expected = surfaces(labels, TISSUES, geometry)
    for letters in ("LPS", "SRA", "AIL"):
        turn = geometry.turn_to(letters)
        turned = Geometry.of(affine_of(letters, turn.of_sides(SPACING)))
        measured = surfaces(np.ascontiguousarray(turn(labels)), TISSUES, turned)
        assert measured == pytest.approx(expected, rel=1e-9)
    padded = surfaces(np.pad(labels, 1, constant_values=7), TISSUES, geometry)
    assert {id: padded[id] for id in expected} == pytest.approx(expected)
    plate = np.ones((3, 40, 50), np.uint8)  # flat faces along the axes are measured least well
    assert surfaces(plate, BODY, Geometry((1, 1, 1)))[1] == pytest.approx(2 * (3 * 90 + 2000), rel=0.13)


def test_volumes_and_surfaces_stand_in_json_and_csv_and_are_unknown_without_spacing(segmenter, tmp_path):
    values, affine = blobs(5), affine_at("RAS", SPACING, SIZE, 25)
    found = segmenter(Volume.of(values, affine))
    labels, determinant = tissues(values), abs(np.linalg.det(affine[:3, :3]))
    expected = surfaces(labels, TISSUES, Geometry.of(affine))
    about = json.loads(found.save(tmp_path / "x.json").read_text())
    table = {row[0]: row for row in csv.reader(found.save(tmp_path / "x.csv").read_text().splitlines())}
    assert len(about["classes"]) == 3
    for row in about["classes"]:
        count = int((labels == row["id"]).sum())
        assert row["mm3"] == pytest.approx(count * determinant, rel=1e-12)
        assert row["mm2"] == expected[row["id"]]
        assert [float(cell) for cell in table[row["name"]][2:]] == [
            count, pytest.approx(100 * count / labels.size, rel=1e-5), row["mm3"], row["mm2"]
        ]  # fmt: skip
    bare = segmenter(values)
    assert {row["mm2"] for row in bare.to_dict()["classes"]} == {None}
    assert bare.to_bytes("csv").decode().count(",unknown,unknown\n") == 3
    assert found.areas() == {row["name"]: row["share"] for row in about["classes"]}


def test_each_of_several_overlapping_regions_has_its_own_surface(tmp_path):
    segmenter = regions_segmenter(tmp_path / "regions.onnx")
    affine = affine_of("RAS", SPACING)
    values = blobs(2)
    found = {row["name"]: row for row in segmenter(Volume.of(values, affine)).to_dict()["classes"]}
    for name, low in {"whole tumour": 40, "tumour core": 50, "enhancing tumour": 100}.items():
        alone = surfaces((values > low).astype(np.uint8), BODY, Geometry.of(affine))[1]
        assert found[name]["mm2"] == pytest.approx(alone, rel=1e-12)


# Written as files that other programs read ---------------------------------------------------------------------


def place_of(image: Any) -> np.ndarray:
    """The affine (RAS) of an image of SimpleITK."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def test_a_seg_nrrd_lies_where_the_scan_lies_and_names_its_segments(typed, tmp_path):
    sitk, pynrrd = pytest.importorskip("SimpleITK"), pytest.importorskip("nrrd")
    model = write_tissues_model(tmp_path / "tissues.onnx")
    for number, letters in enumerate(("RAS", "LPS", "SRP", "PIL")):
        affine = affine_at(letters, SPACING, SIZE, 25 * (number % 2))
        values = ellipsoids(affine, SIZE)
        nibabel.Nifti1Image(values.T, affine).to_filename(f"{letters}.nii.gz")
        done = typed(f"segment {letters}.nii.gz -m {model} -o out --format nrrd,nifti")
        assert (done.code, done.err) == (0, "")
        path = Path(f"out/{letters}.seg.nrrd")
        labels = tissues(values)
        read = read_labels(path, TISSUES)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, labels)
        theirs = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), labels)
        np.testing.assert_allclose(place_of(theirs), affine, atol=1e-5)
        np.testing.assert_allclose(
            place_of(theirs), nibabel.load(f"out/{letters}.labels.nii.gz").affine, atol=1e-5
        )
        header = pynrrd.read_header(str(path))
        assert [header[f"Segment{i}_Name"] for i in range(2)] == ["organ", "lesion"]
        assert [header[f"Segment{i}_LabelValue"] for i in range(2)] == ["1", "2"]
        assert [header[f"Segment{i}_Color"] for i in range(2)] == ["1 0 0", "0 0 1"]
        for value in (1, 2):
            ends = [(int(where.min()), int(where.max())) for where in np.nonzero(labels == value)[::-1]]
            assert header[f"Segment{value - 1}_Extent"] == " ".join(f"{low} {high}" for low, high in ends)
        assert "Segment2_Name" not in header


def test_an_nrrd_holds_large_ids_and_is_refused_without_a_place(segmenter, tmp_path):
    pytest.importorskip("nrrd")
    classes = LabelSet.of(["background", "a\tb", "c"], ids=[0, 300, 40000])
    labels = np.array([0, 300, 40000], np.uint16)[tissues(blobs())]
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd(labels, classes, Geometry.of(affine_of("RAS", SPACING))))
    np.testing.assert_array_equal(read_labels(path, classes), labels)
    with pytest.raises(InputError, match="says where its voxels lie, and this volume does not"):
        segmenter(blobs()).save(tmp_path / "y.nrrd")
    assert not (tmp_path / "y.nrrd").exists()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"damaged|cut off"):
        read_labels(path, classes)


def of_dicom(folder: Path, letters: str, *, enhanced: bool) -> tuple[np.ndarray, np.ndarray]:
    """A drawn series, or one file of many frames in some order: what `Segmenter` makes of it, and its affine."""
    affine = affine_at(letters, SPACING, SIZE, 25)
    values = ellipsoids(affine, SIZE)
    if enhanced:
        order = np.random.default_rng(0).permutation(SIZE[0]).tolist()
        dicom_by_hand.saved(dicom_by_hand.enhanced(values, affine, order=order), folder / "one.dcm")
    else:
        dicom_by_hand.write(folder, dicom_by_hand.series(values, affine))
    return values, affine


@pytest.mark.parametrize("letters", ["LPS", "RAI", "PIR"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_dicom_seg_lies_on_the_slices_of_its_series(typed, tmp_path, letters, enhanced):
    hd = pytest.importorskip("highdicom")
    model = write_tissues_model(tmp_path / "tissues.onnx")
    of_dicom(Path("scan"), letters, enhanced=enhanced)
    done = typed(f"segment scan -m {model} -o out --format dicom-seg,nrrd,npy")
    assert (done.code, done.err) == (0, "")
    path = next(Path("out").glob("*.seg.dcm"))
    labels = np.load(next(Path("out").glob("*.npy")))
    assert set(np.unique(labels)) == {0, 1, 2}
    found = hd.seg.segread(path)
    assert [found.get_segment_description(i).segment_label for i in (1, 2)] == ["organ", "lesion"]
    volume = found.get_volume(combine_segments=True)
    lies = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine  # of (slice, row, column)
    affine = read_volume(next(Path("out").glob("*.seg.nrrd"))).affine
    np.testing.assert_allclose(np.abs(lies[:3, 2::-1]), np.abs(affine[:3, :3]), atol=1e-6)
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = index @ lies[:3, :3].T + lies[:3, 3]
    ours = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    np.testing.assert_allclose(ours, np.round(ours), atol=1e-4)
    column, row, number = np.round(ours).astype(int).T
    np.testing.assert_array_equal(labels[number, row, column], volume.array.ravel())
    assert np.count_nonzero(volume.array) == np.count_nonzero(labels)
    read = read_labels(path, TISSUES)
    scan = read_volume(Path("scan"))
    frames = [frame for _, frame in scan.origin.slices] if enhanced else list(range(SIZE[0]))
    np.testing.assert_array_equal(read[frames], labels)
    assert path.read_bytes()[128:132] == b"DICM"
    assert str(found.PatientID) == dicom_by_hand.SECRETS[2]  # of the archive in which both lie
    assert not any(word in done.out + done.err for word in dicom_by_hand.SECRETS)


def test_a_dicom_seg_of_overlapping_regions_holds_each_whole(tmp_path):
    hd = pytest.importorskip("highdicom")
    of_dicom(tmp_path / "scan", "LPS", enhanced=False)
    found = regions_segmenter(tmp_path / "regions.onnx")(tmp_path / "scan")
    path = found.save(tmp_path / "x.seg.dcm")
    np.testing.assert_array_equal(read_labels(path, REGIONS), found.labels)
    theirs = hd.seg.segread(path)
    masks = theirs.get_pixels_by_source_instance(
        [uid for *_, uid in theirs.get_source_image_uids()], ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    for number, name in enumerate(REGIONS.names[1:]):
        np.testing.assert_array_equal(masks[..., number] > 0, found.mask(name))
    assert (masks[..., 0] & masks[..., 1]).any()


def test_what_a_dicom_seg_cannot_say_is_refused_and_an_empty_one_reads_back(typed, tmp_path, segmenter):
    pytest.importorskip("highdicom")
    model = write_tissues_model(tmp_path / "tissues.onnx")
    affine = affine_at("RAS", SPACING, SIZE)
    nibabel.Nifti1Image(ellipsoids(affine, SIZE).T, affine).to_filename("scan.nii.gz")
    done = typed(f"segment scan.nii.gz -m {model} -o out --format dicom-seg")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "belongs to the DICOM series that it was made of, and scan.nii.gz is none" in done.err
    with pytest.raises(InputError, match="what came as an array is none"):
        segmenter(blobs()).save("x.seg.dcm")
    of_dicom(Path("scan"), "LPS", enhanced=False)
    found = segmenter("scan")
    doubtful = replace(found, labels=np.where(found.labels == 2, 255, found.labels).astype(np.uint8))
    with pytest.raises(InputError, match="cannot say that a voxel is to be ignored"):
        doubtful.save("x.seg.dcm")
    nothing = segmenter(Volume(np.zeros(SIZE, np.float32), found.geometry, "x", found.origin))
    read = read_labels(nothing.save("empty.seg.dcm"), TISSUES)
    np.testing.assert_array_equal(read, np.zeros(SIZE))
    done = typed(f"segment scan -m {model} -o out --format dicom-seg")
    assert done.code == 0
    with pytest.raises(InputError, match="has a segment 'organ', which is no class"):
        read_labels(next(Path("out").glob("*.seg.dcm")), BODY)
    assert sorted(path.name for path in Path().glob("x*")) == []


def test_every_format_of_volumes_that_reads_back_reads_back_equal(segmenter, tmp_path):
    values, affine = blobs(6), affine_at("LIP", SPACING, SIZE, 25)
    found = segmenter(Volume.of(values, affine))
    reading = {name: row for name, row in VOLUME_FORMATS.items() if row.read is not None}
    assert set(reading) == {"nifti", "nrrd", "dicom-seg", "npy"}
    for name, row in reading.items():
        if name != "dicom-seg":  # of scans that came from DICOM
            path = found.save(tmp_path / f"x{row.ending}", format=name)
            read = np.load(path) if name == "npy" else read_labels(path, TISSUES)
            np.testing.assert_array_equal(read, tissues(values))
            assert path.read_bytes() == found.to_bytes(name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.labels.nii.gz", "x.npy", "x.seg.nrrd"]


# Drawn ---------------------------------------------------------------------------------------------------------


def painted(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(color, np.uint8)).all(axis=-1)


@pytest.mark.parametrize(("letters", "spacing"), [("LPS", (4, 1, 1)), ("PIR", (4, 1, 1)), ("RAS", (1, 1, 1))])
def test_a_montage_shows_slices_across_the_coarsest_axis_in_the_scale_of_millimetres(
    segmenter, letters, spacing
):
    """A ball in the right half of the body: round, on the left of the picture, on as many panels as slices hold it."""
    size = (24, 40, 44) if max(spacing) == 1 else (16, 60, 66)
    affine = affine_at(letters, spacing, size)
    index = np.stack(np.meshgrid(*(np.arange(side) for side in size[::-1]), indexing="ij"))
    x, y, z = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3][:, None, None, None]
    ball = (x - 6) ** 2 + y**2 + z**2 < 9**2
    values = np.ascontiguousarray(np.where(ball, 70, 10).astype(np.float32).T)
    found = segmenter(Volume.of(values, affine))
    grid, picture = found.slices, found.montage()
    assert picture.dtype == np.uint8
    full = [ball.T.any(axis=(1, 2)), ball.T.any(axis=(0, 2)), ball.T.any(axis=(0, 1))]
    stored = int(np.argmax(spacing)) if max(spacing) > 1 else 0
    assert len(grid.at) == min(20, int(full[stored].sum()))
    rows = -(-len(grid.at) // grid.columns)
    height, width = (
        (side + 6) // n - 6 for side, n in zip(picture.shape, (rows, grid.columns), strict=False)
    )
    largest = (0, 0, 0.0)
    for n in range(len(grid.at)):
        top, left = n // grid.columns * (height + 6), n % grid.columns * (width + 6)
        red = np.nonzero(painted(picture[top : top + height, left : left + width], TISSUES.colors[1]))
        assert len(red[0]), n
        high, wide = (int(places.max() - places.min()) + 1 for places in red)
        largest = max(largest, (high, wide, red[1].mean() / width))
    assert largest[0] == pytest.approx(largest[1], rel=0.1)  # round
    if letters != "PIR":
        assert largest[2] < 0.45  # the right of the body is on the left, as doctors look at it
    assert (picture == 255).all(axis=-1).any()  # what is written on it


def test_the_numbers_on_a_montage_are_those_of_the_slices_as_they_are_stored():
    affine = affine_of("LPI", (3, 1, 1))
    affine[:3, 3] = (40, 50, 60)
    geometry = Geometry.of(affine)
    for number, i in ((5, 5), (0, 0)):  # slices go down, as they are shown
        assert planes._where(i, 0, SIZE, geometry) == f"{number}   S  {60 - 3 * number:.1f} mm"
    upright = Geometry.of(affine_of("RAS", (3, 1, 1)))
    assert planes._where(0, 0, SIZE, upright) == f"{SIZE[0] - 1}   S  {3 * (SIZE[0] - 1):.1f} mm"
    sagittal = Geometry.of(affine_of("PIR", (3, 1, 1)))
    assert planes._where(0, 2, SIZE, sagittal) == f"{SIZE[0] - 1}   R  {3 * (SIZE[0] - 1):.1f} mm"
    assert planes._where(4, 1, SIZE, None) == "4"


def test_a_volume_of_background_alone_and_one_without_a_place_are_drawn_too(segmenter, tmp_path, typed):
    found = segmenter(np.zeros(SIZE, np.float32))
    assert len(found.slices.at) == SIZE[0]
    assert found.montage().shape == found.slices.picture.shape
    nothing = np.full((3, 4, 5), 10, np.float32)
    assert segmenter(nothing).save(tmp_path / "x.montage.png", format="montage").stat().st_size
    with pytest.raises(InputError, match="a montage is of the slices of a volume"):
        found.planes().montage()
    model = write_tissues_model(tmp_path / "tissues.onnx")
    affine = affine_at("RAS", SPACING, SIZE)
    nibabel.Nifti1Image(ellipsoids(affine, SIZE).T, affine).to_filename("scan.nii.gz")
    done = typed(f"segment scan.nii.gz -m {model} -o out --format montage,contours")
    assert (done.code, done.err) == (0, "")
    for name in ("montage", "contours"):
        with Image.open(f"out/scan.{name}.png") as picture:
            seen = np.asarray(picture.convert("RGB"))
        assert painted(seen, TISSUES.colors[1]).any()
        assert painted(seen, TISSUES.colors[2]).any()
