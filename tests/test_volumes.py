"""Scans go in and label volumes come out: through the command line and `Segmenter`, on the scan's own grid."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nibabel", reason="needs the extra volume")
pytest.importorskip("SimpleITK", reason="reads what was written as another program does")

import nibabel
import SimpleITK as sitk

from pixelwise import (
    Card,
    LabelSet,
    Normalise,
    Preprocess,
    Segmenter,
    SegmentOptions,
    Volume,
    VolumePreprocess,
)
from pixelwise.errors import InputError, PixelwiseError, PixelwiseWarning
from pixelwise.geometry import Geometry, affine_of
from pixelwise.outputs.formats import VOLUME_FORMATS
from pixelwise.outputs.reading import read_labels
from pixelwise.sources.volume import read_volume
from volumes_by_hand import (
    AS_STORED,
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

IN_RAS = VolumePreprocess((Normalise("none"),), orientation="RAS", patch=(8, 12, 16))
RESPACED = VolumePreprocess(
    (Normalise("none"),), spacing=(1.5, 1.5, 1.5), orientation="RAS", patch=(8, 12, 16)
)

PLACE = "qform_code sform_code pixdim quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z srow_x srow_y srow_z "
"""Fields of the header that say where voxels lie."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tissues_model(tmp_path_factory.mktemp("model") / "tissues.onnx")


def model_of(path: Path, volume: VolumePreprocess, **how: Any) -> Path:
    return write_tissues_model(path, card_of(volume), **how)


def save(path: Path, values: np.ndarray, affine: np.ndarray, kind: Any = None, **fields: Any) -> Path:
    """A scan (d, h, w) as nibabel writes it. fields: of the header, written as they are."""
    image = (kind or nibabel.Nifti1Image)(values.T, affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return patched(path, **fields) if fields else path


def patched(path: Path, **fields: Any) -> Path:
    """The file with other numbers in its header, whatever nibabel would say of them."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    kind = (
        nibabel.Nifti2Header
        if content[:2] in (b"\x1c\x02", b"\0\0") and b"n+2" in content[:8]
        else nibabel.Nifti1Header
    )
    header = kind(bytes(content[: kind.sizeof_hdr]), check=False)
    for name, value in fields.items():
        place, _, index = name.partition("__")
        if index:
            header[place][int(index)] = value
        else:
            header[place] = value
    content[: kind.sizeof_hdr] = header.binaryblock
    with opened(path, "wb") as file:
        file.write(bytes(content))
    return path


def header_of(path: Path) -> Any:
    return nibabel.load(path).header


# The command line ---------------------------------------------------------------------------------------------


def test_a_scan_becomes_a_label_volume_and_a_picture_of_three_planes(typed, model):
    affine = affine_at("LAS", SPACING, SIZE, 17)
    values = ellipsoids(affine, SIZE)
    save(Path("scan.nii.gz"), values, affine)
    done = typed(
        f"segment scan.nii.gz --model {model} --out masks --format nifti,contours,overlay,csv,json,npy"
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("scan.nii.gz: background 9")
    written = sorted(path.name for path in Path("masks").iterdir() if not path.name.startswith("."))
    assert written == [
        "scan.contours.png", "scan.csv", "scan.json", "scan.labels.nii.gz", "scan.npy", "scan.overlay.png"
    ]  # fmt: skip
    expected = tissues(values)
    np.testing.assert_array_equal(nibabel.load("masks/scan.labels.nii.gz").get_fdata().T, expected)
    for read in (read_labels("masks/scan.labels.nii.gz", TISSUES), np.load("masks/scan.npy")):
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, expected)
    about = json.loads(Path("masks/scan.json").read_text())
    voxel = abs(np.linalg.det(affine[:3, :3]))
    counts = {TISSUES.names[i]: int((expected == i).sum()) for i in range(3)}
    assert {one["name"]: one["voxels"] for one in about["classes"]} == counts
    for one in about["classes"]:
        assert one["mm3"] == pytest.approx(one["voxels"] * voxel, rel=1e-6)
    assert about["spacing_mm"] == pytest.approx(SPACING)
    rows = [line.split(",") for line in Path("masks/scan.csv").read_text().splitlines()]
    assert rows[0] == ["class", "id", "voxels", "percent", "mm3", "mm2"]
    assert {row[0]: (int(row[2]), float(row[4])) for row in rows[1:]} == {
        name: (count, pytest.approx(count * voxel, rel=1e-6)) for name, count in counts.items()
    }
    with Image.open("masks/scan.contours.png") as picture:
        colors = {tuple(color) for _, color in picture.convert("RGB").getcolors(1 << 16)}
        assert picture.size[0] > picture.size[1] > 100
    assert {TISSUES.colors[1], TISSUES.colors[2]} <= colors


def test_a_folder_of_scans_goes_on_behind_a_damaged_one_and_is_resumed(typed, model):
    affine = affine_at("RAS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    Path("scans/day").mkdir(parents=True)
    for name in ("a.nii.gz", "day/b.nii", "c.NII.GZ", "._a.nii.gz"):
        save(Path("scans", name.lower()), values, affine).rename(Path("scans", name))
    Path("scans/z.nii.gz").write_bytes(Path("scans/a.nii.gz").read_bytes()[:-300])
    done = typed(f"segment scans --model {model} --out masks")
    assert done.code == 2
    assert len(done.out.splitlines()) == 3
    assert "z.nii.gz is damaged or was cut off" in done.err
    assert "1 of 4 sources failed" in done.err
    found = sorted(str(path.relative_to("masks")) for path in Path("masks").rglob("*.nii*"))
    assert found == ["a.labels.nii.gz", "c.labels.nii.gz", "day/b.labels.nii"]
    save(Path("scans/z.nii.gz"), values, affine)
    before = Path("masks/a.labels.nii.gz").stat().st_mtime_ns
    again = typed(f"segment scans --model {model} --out masks --resume")
    assert (again.code, len(again.out.splitlines())) == (0, 1)
    assert "3 of 4 were finished before" in again.err
    assert Path("masks/a.labels.nii.gz").stat().st_mtime_ns == before
    other = typed(f"segment scans --model {model} --out masks --resume --overlap 0.25")
    assert (other.code, other.out) == (2, "")
    assert "holds results of other settings (overlap: None, now 0.25)" in other.err


def test_one_scan_into_one_file_by_its_ending(typed, model):
    affine = affine_at("RAS", SPACING, SIZE)
    save(Path("scan.nii.gz"), ellipsoids(affine, SIZE), affine)
    for name in ("out.nii.gz", "out.nii", "out.csv"):
        done = typed(f"segment scan.nii.gz -m {model} -o {name}")
        assert (done.code, done.err) == (0, ""), name
        assert Path(name).stat().st_size
    assert Path("out.nii").read_bytes() == gzip.decompress(Path("out.nii.gz").read_bytes())
    done = typed(f"segment scan.nii.gz -m {model} -o scan.nii.gz --overwrite")
    assert done.code == 2
    assert "would overwrite its own input" in done.err
    for words, says in (
        ("--format labels", "of a volume, nifti, nrrd, dicom-seg, montage, npy, overlay"),
        ("--mask organ", "got mask of organ"),
        ("-o out.png", "cannot tell a format from 'out.png'"),
        ("--flip horizontal", "flips of columns, rows, slices"),
        ("--flip columns,vertical", "flips are of pictures, horizontal and vertical, or of volumes"),
        ("--rotate 90", "no rotations or scales"),
        ("--slices", "takes volumes whole"),
        ("--assume-orientation RAS", "got an assumed orientation RAS; leave it out"),
        ("--seams --tile 32", "no videos or volumes"),
        ("--max-memory-mb 1 --tile 400", "needs about"),
    ):
        done = typed(f"segment scan.nii.gz -m {model} -o other {words}")
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done.err
        assert says in done.err
    assert not Path("other").exists()


def test_what_takes_pictures_takes_volumes_slice_by_slice_when_asked(typed, colors_model):
    affine = affine_at("PIR", (1, 1, 4), (10, 12, 6))
    values = np.zeros((10, 12, 6), np.int16)
    values[:, :, 3:] = 1000
    save(Path("scan.nii.gz"), values, affine)
    done = typed(f"segment scan.nii.gz -m {colors_model} -o out")
    assert (done.code, done.out) == (2, "")
    assert "scan.nii.gz is a volume, and colors takes pictures" in done.err
    assert "--slices" in done.err
    done = typed(f"segment scan.nii.gz -m {colors_model} -o out --slices --scale 0,1000")
    assert done.code == 0
    labels = read_labels("out/scan.labels.nii.gz", TISSUES)
    np.testing.assert_array_equal(labels, np.where(values, 1, 0))  # white is as red as it is green
    segmenter = Segmenter(colors_model)
    found = segmenter.slices("scan.nii.gz", value_range=(0, 1000))
    np.testing.assert_array_equal(found.labels, labels)
    for i in range(6):  # the axis of 4 mm
        picture = np.repeat(np.where(values[:, :, i], 255, 0).astype(np.uint8)[..., None], 3, axis=2)
        np.testing.assert_array_equal(segmenter(picture).labels, labels[:, :, i])
    with pytest.raises(InputError, match=r"is a volume, and colors takes pictures.*segmenter.slices"):
        segmenter("scan.nii.gz")
    with pytest.raises(InputError, match="is a volume, and colors takes pictures"):
        segmenter(Volume(values))


# The grid of the scan ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned_deg", [pytest.param(0, marks=pytest.mark.slow), 25])
def test_the_same_body_in_all_48_orientations_has_the_same_labels_in_the_world(tmp_path, turned_deg):
    """Ellipsoids are given in world millimetres, and the network looks to one side: each scan is labelled as the one
    that is stored as the network wants it, voxel for voxel, and lies where the scan does."""
    skewed = Segmenter(model_of(tmp_path / "m.onnx", IN_RAS, shift=(1, 0, -1)))
    unturned = affine_at("RAS", SPACING, SIZE, turned_deg)
    reference = skewed(Volume.of(ellipsoids(unturned, SIZE), unturned)).labels
    assert len(np.unique(reference)) > 1
    geometry = Geometry.of(unturned)
    for letters in ORIENTATIONS:
        turn = geometry.turn_to(letters) if turned_deg == 0 else _turn(unturned, letters)
        values = np.ascontiguousarray(turn(ellipsoids(unturned, SIZE)))
        affine = _affine_after(unturned, turn, SIZE)
        path = save(tmp_path / f"{letters}.nii", values, affine)
        found = skewed(path)
        np.testing.assert_array_equal(found.labels, turn(reference), err_msg=letters)
        out = found.save(tmp_path / f"{letters}.labels.nii")
        scan, read = nibabel.load(path), nibabel.load(out)
        assert read.shape == scan.shape
        np.testing.assert_array_equal(read.affine, scan.affine)
        np.testing.assert_array_equal(np.asarray(read.dataobj).T, found.labels)
        theirs, before = sitk.ReadImage(str(out)), sitk.ReadImage(str(path))
        for ask in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(theirs, ask)(), getattr(before, ask)(), atol=1e-6)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), found.labels)


def _turn(affine: np.ndarray, letters: str) -> Any:
    return Geometry.of(affine).turn_to(letters)


def _affine_after(affine: np.ndarray, turn: Any, size: tuple[int, int, int]) -> np.ndarray:
    """Where the voxels of a turned array lie: by following its first voxel and the neighbours of that."""
    index = np.stack(np.meshgrid(*(np.arange(side) for side in size), indexing="ij"))
    turned = turn(index)  # (3, ...) of d, h, w as it was
    first = turned[:, 0, 0, 0]
    steps = [turned[:, 0, 0, 1] - first, turned[:, 0, 1, 0] - first, turned[:, 1, 0, 0] - first]
    found = np.eye(4)
    found[:3, :3] = np.stack([affine[:3, :3] @ step[::-1] for step in steps], axis=1)
    found[:3, 3] = affine[:3, :3] @ first[::-1] + affine[:3, 3]
    return found


def test_turning_and_turning_back_is_exact_with_spacing_and_deviation_too(tmp_path):
    """segment(flip(x)) == flip(segment(x)), bit for bit in the logits, where the network's grid is another."""
    volume = VolumePreprocess(
        (Normalise("zscore"),), spacing=(2, 1.5, 1.5), orientation="LPI", patch=(8, 12, 16)
    )
    segmenter = Segmenter(model_of(tmp_path / "m.onnx", volume, shift=(1, 0, -1)))
    affine = affine_at("RAS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE) + np.random.default_rng(0).normal(0, 5, SIZE).astype(np.float32)
    options, wanted = SegmentOptions(), {"logits": True, "confidence": True}
    reference = segmenter.segment(Volume.of(values, affine), options, **wanted)
    assert reference.logits.shape == (3, *SIZE)
    for letters in ("LPS", "IAR", "SLP", "ARS"):
        turn = _turn(affine, letters)
        found = segmenter.segment(
            Volume.of(turn(values), _affine_after(affine, turn, SIZE)), options, **wanted
        )
        np.testing.assert_array_equal(found.logits, turn(reference.logits))
        np.testing.assert_array_equal(found.labels, turn(reference.labels))
        np.testing.assert_array_equal(found.confidence, turn(reference.confidence))


def test_logits_are_brought_back_linearly_and_labels_follow_from_them(tmp_path, model):
    """By the plain definition: scipy's linear interpolation there, the network, and back."""
    ndimage = pytest.importorskip("scipy.ndimage")
    segmenter = Segmenter(model_of(tmp_path / "m.onnx", RESPACED))
    affine = affine_at("RAS", (3.0, 1.0, 1.25), SIZE)
    values = ellipsoids(affine, SIZE).astype(np.float32)
    shown = tuple(round(n * a / b) for n, a, b in zip(SIZE, (3.0, 1.0, 1.25), (1.5,) * 3, strict=True))

    def resized(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        zoom = [b / a for a, b in zip(array.shape, size, strict=True)]
        return ndimage.zoom(array, zoom, order=1, mode="nearest", grid_mode=True)

    there = resized(values, shown)
    logits = np.stack(
        [resized(plane, SIZE) for plane in (np.full(shown, 40.0, np.float32), there, 2 * there - 100)]
    )
    found = segmenter(Volume.of(values, affine), logits=True, probabilities=True, confidence=True)
    np.testing.assert_allclose(found.logits, logits, atol=1e-3)
    assert (found.labels == logits.argmax(axis=0)).mean() > 0.9999
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(found.probabilities.max(axis=0), found.confidence, atol=1e-5)
    assert (found.labels == tissues(values)).mean() > 0.97


def test_mirrored_views_are_those_of_the_networks_own_axes(tmp_path, typed):
    """A network that looks to one side, in scans that are stored another way: the mean over each subset of the axes,
    which are the network's, by hand."""
    skewed = model_of(tmp_path / "m.onnx", IN_RAS, shift=(1, -1, 1))
    affine = affine_at("RAS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE).astype(np.int16)
    turn = _turn(affine, "SPL")
    stored, lies = np.ascontiguousarray(turn(values)), _affine_after(affine, turn, SIZE)
    whole = Segmenter(model_of(tmp_path / "w.onnx", replace(IN_RAS, patch=SIZE), shift=(1, -1, 1)))
    for flips, axes in (
        (("columns",), (2,)),
        (("rows", "slices"), (0, 1)),
        (("slices", "rows", "columns"), (0, 1, 2)),
    ):
        subsets = [some for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]
        views = [
            np.flip(
                whole(Volume.of(np.flip(values, some).copy(), affine), logits=True).logits,
                [a + 1 for a in some],
            )
            for some in subsets
        ]
        found = whole(Volume.of(stored, lies), flips=flips, logits=True)
        np.testing.assert_allclose(found.logits, turn(np.mean(views, axis=0)), atol=1e-3)
    save(Path("scan.nii"), stored, lies)
    done = typed(f"segment scan.nii -m {skewed} -o out --flip columns,rows,slices --format nifti")
    assert (done.code, done.err) == (0, "")
    expected = Segmenter(skewed)(Volume.of(stored, lies), flips=("columns", "rows", "slices")).labels
    np.testing.assert_array_equal(read_labels("out/scan.labels.nii", TISSUES), expected)
    assert (expected != Segmenter(skewed)(Volume.of(stored, lies)).labels).any()


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1), (2, 4)])
def test_a_label_volume_keeps_every_field_that_says_where_its_voxels_lie(tmp_path, model, kind, order, codes):
    affine = affine_at("PSR", SPACING, SIZE, 30)
    values = ellipsoids(affine, SIZE)
    header = kind.header_class(endianness=order)
    image = kind(values.T, affine, header)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"drawn"
    image.header["cal_max"] = 900
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    path = tmp_path / "scan.nii"
    image.to_filename(path)
    found = Segmenter(model)(path)
    out = found.save(tmp_path / "out.nii.gz")
    before, after = header_of(path), header_of(out)
    assert type(after) is type(before)
    assert after.endianness == before.endianness == order
    for name in f"{PLACE} xyzt_units descrip".split():
        assert before[name].tobytes() == after[name].tobytes(), name
    assert after.get_intent()[0] == "label"
    assert (after.get_data_dtype(), after.get_slope_inter(), float(after["cal_max"])) == (
        np.dtype(np.uint8).newbyteorder(order), (None, None), 0.0
    )  # fmt: skip
    assert after.extensions[0].get_content() == b"kept"
    assert nibabel.load(out).shape == nibabel.load(path).shape
    np.testing.assert_array_equal(nibabel.load(out).affine, nibabel.load(path).affine)
    if kind is nibabel.Nifti1Image:  # the only one that SimpleITK reads
        theirs, scan = sitk.ReadImage(str(out)), sitk.ReadImage(str(path))
        for ask in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(theirs, ask)(), getattr(scan, ask)(), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(nibabel.load(out).dataobj).T, tissues(values))


@pytest.mark.parametrize("dtype", "int8 uint8 int16 uint16 int32 uint32 int64 float32 float64".split())
@pytest.mark.parametrize("order", "<>")
def test_values_are_those_that_the_file_means(tmp_path, model, dtype, order):
    affine = affine_at("RAS", SPACING, SIZE)
    values = np.minimum(ellipsoids(affine, SIZE), 120).astype(dtype)
    image = nibabel.Nifti1Image(values.T, affine, nibabel.Nifti1Header(endianness=order), dtype=dtype)
    for slope, intercept in ((None, None), (1, 0), (0, 5), (0.5, -3)):
        path = tmp_path / f"{dtype}-{slope}.nii.gz"
        image.to_filename(path)
        numbers = (np.nan, np.nan) if slope is None else (slope, intercept)
        patched(path, scl_slope=numbers[0], scl_inter=numbers[1])
        read = read_volume(path)
        assert read.values.dtype.isnative
        expected = np.asarray(nibabel.load(path).dataobj).T
        np.testing.assert_array_equal(read.values, expected)
        means = values * slope + intercept if slope else values
        np.testing.assert_array_equal(Segmenter(model)(path).labels, tissues(means))


def test_a_file_of_one_frame_and_of_metres_is_taken(tmp_path, model):
    affine = affine_at("RAS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    path = save(tmp_path / "frame.nii.gz", values[None], affine)
    found = Segmenter(model)(path)
    assert found.labels.shape == SIZE
    assert nibabel.load(found.save(tmp_path / "out.nii.gz")).shape == SIZE[::-1]
    for unit, factor in ((1, 1e3), (3, 1e-3), (0, 1), (10, 1)):
        in_unit = affine.copy()
        in_unit[:3] /= factor
        path = patched(save(tmp_path / "unit.nii.gz", values, in_unit), xyzt_units=unit)
        found = Segmenter(model)(path)
        assert found.spacing == pytest.approx(SPACING, rel=1e-5)
        (organ,) = (one for one in found.to_dict()["classes"] if one["name"] == "organ")
        assert organ["mm3"] == pytest.approx((tissues(values) == 1).sum() * np.prod(SPACING), rel=1e-5)
        out = found.save(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(nibabel.load(out).affine, nibabel.load(path).affine)


def test_several_channels_lie_in_the_fourth_dimension(tmp_path):
    torch = pytest.importorskip("torch")
    from pixelwise.models.nonewnet import NoNewNet

    torch.manual_seed(0)
    network = NoNewNet(2, 3, width=2, levels=2, probabilities="softmax").eval()
    card = Card.of(
        TISSUES, volume=VolumePreprocess((Normalise("zscore"), Normalise("rescale")), patch=(8, 8, 16))
    )
    segmenter = Segmenter(network, card=card)
    affine = affine_at("RAS", SPACING, SIZE)
    values = np.random.default_rng(0).normal(size=(2, *SIZE)).astype(np.float32)
    found = segmenter(save(tmp_path / "two.nii.gz", values, affine))
    np.testing.assert_array_equal(found.labels, segmenter(values).labels)
    assert found.labels.shape == SIZE
    with pytest.raises(InputError, match=r"takes volumes of 2 channels, and .*one.nii.gz has 1"):
        segmenter(save(tmp_path / "one.nii.gz", values[0], affine))


# Networks ------------------------------------------------------------------------------------------------------


NAMES = {
    "exclusive": ["background", "organ", "lesion"],
    "binary": ["background", "organ"],
    "regions": ["background", "organ", "lesion"],
}


def network_of_ours(outputs: str) -> tuple[Any, Card]:
    torch = pytest.importorskip("torch")
    import pixelwise

    torch.manual_seed(1)
    channels = {"exclusive": 3, "binary": 1, "regions": 2}[outputs]
    network = pixelwise.create_model(
        "nonewnet", width=2, levels=2, in_channels=1, num_classes=channels
    ).eval()
    volume = VolumePreprocess(spacing=(2, 1.5, 1.5), orientation="LPS", patch=(16, 16, 32))
    return network, Card.of(NAMES[outputs], outputs=outputs, volume=volume)


def noisy_scan(path: Path) -> Path:
    affine = affine_at("SLA", (1.5, 2, 1.5), (20, 18, 24), 10)
    return save(path, np.random.default_rng(0).normal(size=(20, 18, 24)).astype(np.float32), affine)


@pytest.mark.slow
def test_a_network_of_ours_and_its_exported_file_say_the_same(tmp_path, typed):
    import pixelwise

    network, card = network_of_ours("exclusive")
    scan, file = noisy_scan(tmp_path / "scan.nii.gz"), tmp_path / "net.safetensors"
    segmenter = Segmenter(network, card=card)
    pixelwise.save(network, file, card=segmenter.card)
    assert Segmenter(file).card.volume == card.volume
    found = segmenter(scan, logits=True)
    done = typed(f"export {file} -o {tmp_path / 'net.onnx'}")
    assert done.code == 0, done.err
    exported = Segmenter(tmp_path / "net.onnx")
    assert exported.card.volume == card.volume
    again = exported(scan, logits=True)
    np.testing.assert_allclose(again.logits, found.logits, atol=1e-3)
    assert (again.labels == found.labels).mean() > 0.999
    for words, name in (
        ("--bake", "b.onnx"),
        ("--precision float16", "h.onnx"),
        ("", "x.xml"),
        ("", "x.pt2"),
    ):
        done = typed(f"export {file} -o {tmp_path / name} {words}")
        assert done.code == 2
        assert "takes volumes, and any other file than plain ONNX in float32" in done.err


@pytest.mark.parametrize("kind", NAMES)
def test_a_network_of_ours_answers_as_its_outputs_mean(tmp_path, kind):
    network, card = network_of_ours(kind)
    scan = noisy_scan(tmp_path / "scan.nii.gz")
    found = Segmenter(network, card=card)(scan, confidence=True, logits=True, probabilities=True)
    assert found.logits.shape == (card.channels, 20, 18, 24)
    assert found.confidence.min() >= (1 / 3 if kind == "exclusive" else 0.5) - 1e-6
    if kind == "binary":
        np.testing.assert_array_equal(found.labels, found.logits[0] > 0)
        assert found.probabilities.shape[0] == 2
    elif kind == "regions":
        np.testing.assert_array_equal(found.mask("organ"), found.logits[0] > 0)
        np.testing.assert_array_equal(found.mask("lesion"), found.logits[1] > 0)
        assert (found.labels == np.where(found.logits[1] > 0, 2, found.logits[0] > 0)).all()
    else:
        np.testing.assert_array_equal(found.labels, found.logits.argmax(axis=0))


def test_a_card_without_volume_reads_as_before_and_one_with_it_comes_back(tmp_path):
    plain = Card.of(["a", "b"])
    assert "volume" not in plain.to_dict()
    assert Card.from_json(plain.to_json()) == plain
    ct = Normalise("ct", low=-100, high=200, mean=20.0, std=40.0)
    volume = VolumePreprocess((ct, Normalise("zscore", nonzero=True)), (3, 1, 1), "las", (32, 64, 64))
    card = Card.of(["a", "b"], volume=volume)
    assert Card.from_json(card.to_json()) == card
    assert (card.volume.orientation, len(card.preprocess.mean)) == ("LAS", 2)
    assert VolumePreprocess.from_dict(volume.to_dict()) == volume
    for wrong in (
        lambda: Normalise("ct", low=1, high=0, mean=0, std=1),
        lambda: Normalise("zscore", low=1),
        lambda: Normalise("rescale", nonzero=True),
        lambda: Normalise("other"),
        lambda: VolumePreprocess(()),
        lambda: VolumePreprocess(spacing=(1, 1, 0)),
        lambda: VolumePreprocess(orientation="RRS"),
        lambda: VolumePreprocess(patch=(0, 1, 1)),
        lambda: VolumePreprocess(patch=(4096, 4096, 4096)),
        lambda: card.replace(preprocess=Preprocess()),
        lambda: Card.from_json(card.to_json().replace('"LAS"', '"LXS"')),
    ):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Normalise("zscore"), lambda x: (x - x.mean()) / x.std()),
        (Normalise("rescale"), lambda x: (x - x.min()) / (x.max() - x.min())),
        (Normalise("ct", low=20, high=100, mean=50, std=7), lambda x: (np.clip(x, 20, 100) - 50) / 7),
        (Normalise("none"), lambda x: x),
        (Normalise("zscore", nonzero=True),
         lambda x: np.where(x == 0, 0, (x - x[x != 0].mean()) / x[x != 0].std())),
    ],
)  # fmt: skip
def test_the_network_sees_what_the_card_says(tmp_path, how, expected):
    segmenter = Segmenter(model_of(tmp_path / "m.onnx", VolumePreprocess((how,), patch=(8, 12, 16))))
    values = np.random.default_rng(0).integers(0, 200, SIZE).astype(np.int16)
    values[3:6, :9] = 0
    found = segmenter(values, logits=True)
    np.testing.assert_allclose(found.logits[1], expected(values.astype(np.float64)), atol=1e-4)


def test_an_array_goes_where_neither_spacing_nor_orientation_is_needed(tmp_path, model):
    values = ellipsoids(affine_at("RAS", SPACING, SIZE), SIZE)
    found = Segmenter(model)(values)
    assert found.geometry is found.spacing is None
    assert found.to_dict()["classes"][0]["mm3"] is None
    with pytest.raises(InputError, match="a NIfTI file says where its voxels lie, and this volume does not"):
        found.save(tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match="does not say how it lies in the body"):
        Segmenter(model_of(tmp_path / "o.onnx", IN_RAS))(values)
    with pytest.raises(InputError, match="does not say its spacing"):
        Segmenter(model_of(tmp_path / "s.onnx", VolumePreprocess(spacing=(1, 1, 1))))(values)
    found = Segmenter(model)(Volume.of(values, spacing=SPACING))
    assert found.to_dict()["voxel_mm3"] == pytest.approx(np.prod(SPACING))
    with pytest.raises(InputError, match=r"takes volumes: a path, a pixelwise.Volume or an array"):
        Segmenter(model)(Image.new("L", (8, 8)))
    with pytest.raises(InputError, match=r"an array of real numbers \(d, h, w\)"):
        Segmenter(model)(np.zeros((8, 8)))


def test_a_list_and_a_stream_of_scans_give_what_each_gives_alone(tmp_path, model):
    affine = affine_at("RAS", SPACING, SIZE)
    scans = [ellipsoids(affine, SIZE), ellipsoids(affine, SIZE)[::-1].copy()]
    segmenter = Segmenter(model)
    alone = [segmenter(scan).labels for scan in scans]
    for found in (segmenter(scans), list(segmenter.map(scans, batch=2))):
        for one, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one.labels, expected)
    bad = list(segmenter.map([scans[0], tmp_path / "none.nii"], on_error="return"))
    np.testing.assert_array_equal(bad[0].labels, alone[0])
    assert isinstance(bad[1], PixelwiseError)


def test_windows_blend_into_what_one_window_gives(tmp_path):
    """A network that sees one voxel around is the same in windows as in one that holds the scan."""
    values = np.random.default_rng(0).normal(60, 40, SIZE).astype(np.float32)
    small, large = (
        Segmenter(
            model_of(tmp_path / f"{patch[0]}.onnx", VolumePreprocess((Normalise("none"),), patch=patch))
        )
        for patch in ((6, 8, 8), (32, 32, 32))
    )
    np.testing.assert_array_equal(small(values).labels, large(values).labels)
    np.testing.assert_array_equal(small(values, tile=10, overlap=0.25).labels, large(values).labels)


@pytest.mark.parametrize("spacing", [None, (2.0, 1.5, 1.5)])
def test_memory_beside_scan_and_label_map_does_not_grow_with_the_slices(tmp_path, spacing):
    volume = VolumePreprocess(spacing=spacing, orientation="LPS" if spacing else None, patch=(8, 32, 32))
    segmenter = Segmenter(model_of(tmp_path / "m.onnx", volume))

    def beside(depth: int) -> int:
        values = np.random.default_rng(0).normal(size=(depth, 64, 64)).astype(np.float32)
        scan = Volume.of(values, affine_of("RAS", (2.5, 1.0, 1.0)))
        tracemalloc.start()
        found = segmenter(scan)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - found.labels.nbytes

    beside(20)  # what is loaded on first use
    assert beside(240) < 1.1 * beside(60)


def test_what_is_for_pictures_says_so(tmp_path, model):
    segmenter = Segmenter(model)
    found = segmenter(ellipsoids(affine_at("RAS", SPACING, SIZE), SIZE))
    for call in (found.polygons, found.cutout, found.to_coco, found.to_geojson, found.to_pil):
        with pytest.raises(InputError, match="are of pictures, and this is the segmentation of a volume"):
            call()
    with pytest.raises(PixelwiseError, match=r"no format|expected|geotiff"):
        found.save(tmp_path / "x.tif", format="geotiff")
    for option, says in (
        ({"tile": "auto"}, "a tile of one number"),
        ({"tile": (8, 8)}, "a tile of one number"),
        ({"overlap": "auto"}, "an overlap in voxels"),
        ({"crf": "vgg"}, "no CRF"),
        ({"rotations": [90]}, "no rotations or scales"),
        ({"flips": ["vertical"]}, "flips of columns, rows, slices"),
    ):
        with pytest.raises(InputError, match=f"volumes are segmented with {says}"):
            segmenter(np.zeros(SIZE), **option)
    assert found.planes().labels.ndim == 2
    assert found.planes().image.shape == found.overlay().shape == found.contours().shape
    assert "data:image/png" in found._repr_html_()
    for name, row in VOLUME_FORMATS.items():
        if name not in ("nifti", "nrrd", "dicom-seg"):
            assert found.save(tmp_path / f"x{row.ending}", format=name).stat().st_size
            assert found.to_bytes(name)
    with pytest.raises(InputError, match="takes volumes, and what comes in rows"):
        next(segmenter.bands(lambda top, bottom: None, (8, 8)))


@pytest.mark.slow
def test_commands_that_are_for_pictures_refuse_a_model_of_volumes(typed, model):
    Path("pictures").mkdir()
    Image.new("RGB", (32, 32)).save("pictures/a.png")
    for line in (
        f"segment pictures -m {model} -o out",
        f"serve --model {model}",
        f"bench {model} --data pictures",
        f"quantize {model} --data pictures --out q.onnx",
    ):
        done = typed(line)
        assert done.code == 2, (line, done.err)
        assert "volume" in done.err, (line, done.err)


# What cannot be used -------------------------------------------------------------------------------------------

AFFINE = affine_of("RAS", SPACING)
SCAN = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def damaged(path: Path, change: Any) -> Path:
    content = bytearray(save(path.with_name("whole.nii"), SCAN, AFFINE).read_bytes())
    content = change(content) or content
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def with_fields(**fields: Any) -> Any:
    return lambda path: patched(save(path, SCAN, AFFINE), **fields)


def coded(**fields: Any) -> Any:
    """A scan that says by its qform alone where it lies."""
    return with_fields(sform_code=0, qform_code=1, **fields)


def gz_flipped(path: Path) -> Path:
    content = bytearray(gzip.compress(save(path.with_name("w.nii"), SCAN, AFFINE).read_bytes(), mtime=0))
    content[-6] ^= 0xFF  # in the sum of what was compressed
    path.write_bytes(content)
    return path


def bomb(path: Path) -> Path:
    content = save(path.with_name("w.nii"), SCAN, AFFINE).read_bytes()
    path.write_bytes(gzip.compress(content + bytes(2**25)))
    return path


def rgb(path: Path) -> Path:
    values = np.zeros((6, 5, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(values, AFFINE).to_filename(path)
    return path


def complex_numbers(path: Path) -> Path:
    nibabel.Nifti1Image(SCAN.T.astype(np.complex64), AFFINE).to_filename(path)
    return path


HOSTILE: dict[str, tuple[Any, str]] = {
    "empty": (lambda p: (p.write_bytes(b""), p)[1], "is empty"),
    "missing": (lambda p: p, "no such file"),
    "truncated gz": (lambda p: damaged(p, lambda c: None) and _cut(p, 60), "damaged or was cut off"),
    "gz with a wrong sum": (gz_flipped, "damaged or was cut off"),
    "gz that goes on": (bomb, "goes on behind its voxels"),
    "header alone": (lambda p: damaged(p, lambda c: c[:352]), "damaged|cut off|cannot be read"),
    "half a header": (lambda p: damaged(p, lambda c: c[:200]), "was cut off, it has 200 bytes"),
    "no NIfTI": (lambda p: damaged(p, lambda c: b"\x89PNG" + bytes(600)), "is no NIfTI file"),
    "no magic": (lambda p: damaged(p, lambda c: c.__setitem__(slice(344, 348), b"\0\0\0\0")), "Analyze 7.5"),
    "half of a pair": (lambda p: damaged(p, lambda c: c.__setitem__(slice(344, 348), b"ni1\0")), "pair of files"),
    "wrong dims": (with_fields(dim__1=-3), "its header speaks of sides"),
    "no dims": (with_fields(dim__0=0), "its header speaks of sides"),
    "many dims": (with_fields(dim__0=9), "its header speaks of sides"),
    "larger than the file": (with_fields(dim__1=600), "cut off|cannot be read|damaged"),
    "larger than memory": (with_fields(dim__1=32767, dim__2=32767, dim__3=32767), "of memory, more than"),
    "NaN in the sform": (with_fields(srow_x__0=np.nan), "its sform is singular or not finite"),
    "singular sform": (with_fields(srow_x__0=0), "its sform is singular or not finite"),
    "infinite offset": (with_fields(srow_z__3=np.inf), "its sform is singular or not finite"),
    "zero spacing": (coded(pixdim__1=0), r"expected\s+positive numbers"),
    "negative spacing": (coded(pixdim__2=-1), "positive numbers"),
    "NaN spacing": (coded(pixdim__3=np.nan), "positive numbers"),
    "quaternion that is none": (coded(quatern_b=3.0), "qform that cannot be"),
    "NaN quaternion": (coded(quatern_c=np.nan), "qform|singular or not finite"),
    "unknown unit": (with_fields(xyzt_units=7), "unit of length has the number 7"),
    "unknown kind of voxel": (with_fields(datatype=999), "damaged, or no volume"),
    "infinite slope": (with_fields(scl_slope=np.inf), "its scl_slope is inf"),
    "no intercept": (with_fields(scl_slope=2, scl_inter=np.nan), "scl_inter nan"),
    "voxels inside the header": (with_fields(vox_offset=100), "its voxels begin at byte 100"),
    "voxels nowhere": (with_fields(vox_offset=1e20), "its voxels begin at byte 1e"),
    "RGB": (rgb, r"holds colours \(RGB\)"),
    "complex": (complex_numbers, "holds complex numbers"),
    "five dimensions": (lambda p: save(p, np.zeros((2, 3, 4, 5, 6), np.int16), AFFINE), "has 5 dimensions"),
    "a series over time": (lambda p: save(p, np.zeros((7, 4, 5, 6), np.int16), AFFINE), "give one volume"),
    "NaN voxels": (lambda p: save(p, np.where(SCAN == 7, np.nan, SCAN), AFFINE), "no finite numbers, the first in "
    "slice 0"),
    "infinite voxels": (lambda p: save(p, np.where(SCAN == 60, np.inf, SCAN), AFFINE), "no finite numbers"),
}  # fmt: skip


def _cut(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:-count])
    return path


@pytest.fixture(scope="module")
def segmenter(model: Path) -> Segmenter:
    return Segmenter(model)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_scan_that_cannot_be_used_is_refused_in_a_sentence_with_its_name(name, segmenter, tmp_path):
    make, says = HOSTILE[name]
    path = make(tmp_path / "bad.nii.gz")
    with pytest.raises(InputError, match=says) as refused:
        segmenter(path)
    assert "bad.nii.gz" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_command_refuses_such_scans_in_one_line_and_writes_nothing(model, typed):
    for name in ("truncated gz", "singular sform", "RGB"):
        path = HOSTILE[name][0](Path("bad.nii.gz"))
        done = typed(f"segment {path} --model {model} --out out")
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
        assert re.search(HOSTILE[name][1], done.err)
        assert not list(Path().rglob("*.labels.nii*"))


def test_two_places_that_disagree_are_said_and_the_one_of_nibabel_counts(tmp_path, model):
    affine = affine_at("LPS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    image = nibabel.Nifti1Image(values.T, affine)
    other = affine.copy()
    other[0, 3] += 5
    image.set_qform(other, code=1)
    image.set_sform(affine, code=1)
    image.to_filename(tmp_path / "two.nii.gz")
    with pytest.warns(
        PixelwiseWarning, match=r"two.nii.gz: its sform and its qform differ by up to 5 voxels"
    ):
        found = Segmenter(model)(tmp_path / "two.nii.gz")
    np.testing.assert_allclose(found.geometry.affine, affine)
    path = patched(save(tmp_path / "zooms.nii.gz", values, affine), pixdim__1=7)
    with pytest.warns(PixelwiseWarning, match=r"by its sform and 7 x 1 x 2.5 by its pixdim"):
        assert Segmenter(model)(path).spacing == pytest.approx(SPACING)


def test_a_scan_that_does_not_say_how_it_lies_needs_to_be_told_where_that_matters(typed, model, tmp_path):
    affine = affine_at("RAS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    path = patched(save(Path("bare.nii.gz"), values, affine), sform_code=0, qform_code=0)
    assert Segmenter(model)(path).spacing == pytest.approx(SPACING)  # which looks at scans as they are stored
    assert Segmenter(model)(path).geometry.affine is None
    oriented = model_of(tmp_path / "o.onnx", IN_RAS, shift=(1, 0, -1))
    done = typed(f"segment bare.nii.gz -m {oriented} -o out")
    assert (done.code, done.out) == (2, "")
    assert "does not say how it lies in the body, and this model takes volumes in RAS" in done.err
    assert "--assume-orientation" in done.err
    done = typed(f"segment bare.nii.gz -m {oriented} -o out --assume-orientation LAS")
    assert done.code == 0
    lies = affine_of("LAS", SPACING)
    expected = Segmenter(oriented)(Volume.of(values, lies)).labels
    np.testing.assert_array_equal(read_labels("out/bare.labels.nii.gz", TISSUES), expected)
    before, after = header_of(path), header_of(Path("out/bare.labels.nii.gz"))
    for name in PLACE.split():  # the label volume says no more than the scan
        assert before[name].tobytes() == after[name].tobytes(), name


def test_a_sheared_scan_is_taken_where_nothing_is_measured_along_its_axes(tmp_path, model):
    affine = affine_at("RAS", SPACING, SIZE)
    affine[0, 2] = 0.4
    values = ellipsoids(affine, SIZE)
    image = nibabel.Nifti1Image(values.T, affine)
    image.set_qform(None, code=0)
    image.to_filename(tmp_path / "tilted.nii.gz")
    found = Segmenter(model)(tmp_path / "tilted.nii.gz")
    np.testing.assert_array_equal(found.labels, tissues(values))
    assert found.geometry.voxel_mm3 == pytest.approx(abs(np.linalg.det(affine[:3, :3])), rel=1e-6)
    out = found.save(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(nibabel.load(out).affine, nibabel.load(tmp_path / "tilted.nii.gz").affine)
    with pytest.raises(InputError, match="are not at right angles"):
        Segmenter(model_of(tmp_path / "s.onnx", RESPACED))(tmp_path / "tilted.nii.gz")


def test_a_spacing_that_would_fill_any_disk_is_refused(tmp_path):
    segmenter = Segmenter(model_of(tmp_path / "s.onnx", VolumePreprocess(spacing=(1, 1, 1))))
    with pytest.raises(InputError, match="look at the spacing in the file"):
        segmenter(Volume.of(np.zeros((4, 4, 4)), spacing=(1e5, 1e5, 1)))
    for affine in (np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), "x", np.diag([1, 1, 0, 1])):
        with pytest.raises(InputError, match="affine"):
            Volume.of(np.zeros((4, 4, 4)), affine)
    for spacing in ((1, 1, 0), (1, np.nan, 1), (1, 1)):
        with pytest.raises(InputError, match="spacing is 3 positive numbers"):
            Volume.of(np.zeros((4, 4, 4)), spacing=spacing)


def test_more_than_255_classes_are_16_bits(tmp_path):
    labels = LabelSet.of([f"c{i}" for i in range(3)], ids=[0, 300, 40000])
    segmenter = Segmenter(write_tissues_model(tmp_path / "m.onnx", card_of(AS_STORED, labels)))
    affine = affine_at("RAS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    found = segmenter(Volume.of(values, affine))
    out = found.save(tmp_path / "x.nii.gz")
    assert nibabel.load(out).get_data_dtype() == np.uint16
    read = read_labels(out, labels)
    np.testing.assert_array_equal(read, np.array([0, 300, 40000])[tissues(values)])
    np.testing.assert_allclose(nibabel.load(out).affine, affine)
    assert (int(header_of(out)["sform_code"]), int(header_of(out)["qform_code"])) == (1, 1)


def test_a_file_of_five_dimensions_without_a_card_says_what_is_missing(tmp_path):
    bare = write_tissues_model(tmp_path / "bare.onnx", has_card=False)
    with pytest.raises(InputError, match="takes volumes and has no card"):
        Segmenter(bare)
    values = ellipsoids(affine_at("RAS", SPACING, SIZE), SIZE)
    np.testing.assert_array_equal(Segmenter(bare, card=card_of())(values).labels, tissues(values))
    older = write_tissues_model(tmp_path / "older.onnx", Card.of(TISSUES, mean=[0], std=[1]))
    with pytest.warns(PixelwiseWarning, match="does not say how volumes are prepared"):
        assert Segmenter(older).card.volume == VolumePreprocess()


# Its page ------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "volumes.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_what_the_page_says_is_so(typed, colors_model):
    for name in ("tissues", "fold0", "fold1"):
        write_tissues_model(Path(f"{name}.onnx"))
    shutil.copy(colors_model, "colors.onnx")
    affine = affine_at("LAS", SPACING, SIZE)
    values = ellipsoids(affine, SIZE)
    Path("scans").mkdir()
    for name in ("scan.nii.gz", "scans/one.nii.gz", "scans/two.nii"):
        save(Path(name), values, affine)
    lines = [line for block in blocks("console") if "Task04" not in block for line in block.splitlines()]
    import dicom_by_hand as drawn

    for place in ("ct", "patients/a", "patients/b"):
        drawn.write(Path(place), drawn.series(values, affine))
    for number in ("1", "2"):
        drawn.write(Path("study"), drawn.series(values, affine), name=number + "-{}")
    save(Path("beating.nii.gz"), np.stack([values] * 4), affine)
    assert len(lines) == 11
    for line in lines:
        done = typed(line.removeprefix("pixelwise "))
        assert done.code == 0, (line, done.err)
    assert Path("masks/scan.labels.nii.gz").is_file()
    assert Path("masks/scan.contours.png").is_file()
    for name in ("dicom/ct", "dicom-all/b", "dicom-one/study", "beating/beating"):
        assert Path(f"{name}.labels.nii.gz").is_file(), name
    assert Path("all/two.labels.nii").is_file()
    python = blocks("python")
    assert len(python) == 4
    network = Path("tissues.onnx")
    names: dict[str, Any] = {"network": network, "values": values, "affine": affine}
    for block in python:
        exec(block, names)
    assert Path("scan.csv").read_text().startswith("class,id,voxels,percent,mm3,mm2\n")
    assert names["card"].volume == names["wants"] == names["segmenter"].card.volume
