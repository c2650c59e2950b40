"""Label volumes as DICOM-SEG objects, which lie in the archive beside the series that they were made of.

The binary kind, one bit a voxel, a frame for each segment and slice where it is: what viewers read. highdicom writes
it from the headers of the very files that were segmented, in their order, so nothing is turned.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pixelwise
from pixelwise.codes import has
from pixelwise.errors import InputError, MissingExtraError, first_line
from pixelwise.labels import LabelSet
from pixelwise.outputs.ids import background_of
from pixelwise.sources.voxels import ScanFiles, told

MAX_NAME = 64
"""Characters of a segment's label in DICOM."""

SAYS = "label map of {} slices"
"""The description of the content: a source of many frames is not said to have more than those that a segment is on."""


def refuse_origin(origin: ScanFiles | None) -> None:
    """InputError where a volume did not come from DICOM."""
    if origin is None or origin.kind != "dicom" or not origin.slices:
        what = "what came as an array" if origin is None else str(origin.path)
        raise InputError(
            f"a DICOM-SEG belongs to the DICOM series that it was made of, and {what} is none; save it as nifti or nrrd"
        )


def dicom_seg(
    labels: NDArray[Any], classes: LabelSet, origin: ScanFiles | None, codes: NDArray[Any] | None = None
) -> bytes:
    """The bytes of a DICOM-SEG of a label map (d, h, w) that was made of the DICOM files `origin`. Every class but the
    background is a segment, in the order of the classes, with its name and colour; overlapping regions (codes,
    `pixelwise.codes`) are whole.

    Raises InputError where the volume did not come from DICOM, where voxels are to be ignored, which the format cannot
    say, and for files that lack what it must repeat; MissingExtraError without highdicom.
    """
    refuse_origin(origin)
    assert origin is not None
    from pixelwise.sources.dicom import read_headers

    return of_headers(labels, classes, read_headers(origin), [frame for _, frame in origin.slices], codes)


def of_headers(
    labels: NDArray[Any],
    classes: LabelSet,
    headers: list[Any],
    frames: list[int],
    codes: NDArray[Any] | None = None,
) -> bytes:
    """The same of pydicom's datasets: one a slice, or one with a frame a slice, whose numbers from 0 are `frames`."""
    hd = _highdicom("writing DICOM-SEG")
    from pydicom.uid import generate_uid

    if classes.ignore_id is not None and (ignored := np.count_nonzero(labels == classes.ignore_id)):
        raise InputError(
            f"a DICOM-SEG cannot say that a voxel is to be ignored, and {ignored} are; "
            "leave out what marks them (min_confidence), or save as nifti"
        )
    several = len(headers) == 1 and int(headers[0].get("NumberOfFrames", 1)) > 1
    if not several and len(headers) != len(labels):
        raise InputError(
            f"a DICOM-SEG is of one file with frames, or of files of one frame each, got {len(headers)} files of "
            f"{len(labels)} slices; save it as nifti or nrrd"
        )
    names, pixels = [], np.zeros(labels.shape, np.uint16)
    planes: list[NDArray[np.bool_]] = []
    colors = []
    for index, (id, name) in enumerate(zip(classes.ids, classes.names, strict=True)):
        if id == background_of(classes):
            continue
        names.append(" ".join(name.split())[:MAX_NAME])
        colors.append(classes.colors[index])
        if codes is None:
            pixels[labels == id] = len(names)
        else:
            planes.append(has(codes, index - 1))
    values: NDArray[Any] = pixels if codes is None else np.stack(planes, axis=-1)
    if several:  # in the order of its frames, of which some may not have been taken
        whole = np.zeros((int(headers[0].NumberOfFrames), *values.shape[1:]), values.dtype)
        whole[frames] = values
        values = whole
    version = pixelwise.__version__
    learned = _code("123110", "DCM", "Artificial Intelligence")
    made_by = hd.AlgorithmIdentificationSequence("pixelwise", version=version, family=learned)
    tissue = _code("85756007", "SCT", "Tissue")  # what viewers take where nobody says more than a name
    segments = [
        hd.seg.SegmentDescription(
            number,
            name,
            tissue,
            tissue,
            "AUTOMATIC",
            made_by,
            display_color=hd.color.CIELabColor.from_rgb(*color),
        )
        for number, (name, color) in enumerate(zip(names, colors, strict=True), start=1)
    ]
    content = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
    seed = [str(headers[0].get("SeriesInstanceUID", "")), *names, content]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = hd.seg.Segmentation(
                headers, values, "BINARY", segments,
                series_instance_uid=generate_uid(entropy_srcs=["series", *seed]),
                series_number=int(headers[0].get("SeriesNumber") or 0) % 10_000 * 100 + 1,
                sop_instance_uid=generate_uid(entropy_srcs=["instance", *seed]), instance_number=1,
                manufacturer="pixelwise", manufacturer_model_name="pixelwise", software_versions=version,
                device_serial_number="0", content_label="PIXELWISE", series_description="pixelwise",
                content_description=SAYS.format(len(values)),
            )  # fmt: skip
            file = io.BytesIO()
            found.save_as(file)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the DICOM files lack what a DICOM-SEG must repeat ({first_line(error)}); save it as nifti or nrrd"
        ) from error
    return file.getvalue()


def read_dicom_seg(path: Path, classes: LabelSet) -> NDArray[Any]:
    """The label map (d, h, w) of a DICOM-SEG, on the slices of its series, in their order there: where no segment is,
    the background; later segments over earlier ones. InputError for a segment that is no class."""
    hd = _highdicom(f"reading {path.name}")
    with told(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = hd.seg.segread(path)
    known = {
        " ".join(name.split())[:MAX_NAME]: id for name, id in zip(classes.names, classes.ids, strict=True)
    }
    uids = found.get_source_image_uids()
    instances = [uid for *_, uid in uids]
    labels: NDArray[Any] | None = None
    for number in found.segment_numbers:
        name = found.get_segment_description(number).segment_label
        if name not in known:
            raise InputError(
                f"{path} has a segment {name!r}, which is no class; pass the LabelSet that belongs to it"
            )
        mask = _masks(found, instances, number)
        if labels is None:
            labels = np.full(mask.shape, background_of(classes), classes.dtype)
        labels[mask] = known[name]
    if labels is None:
        raise InputError(f"{path} has no segments")
    return labels


def _masks(found: Any, instances: list[str], number: int) -> NDArray[np.bool_]:
    """Where a segment is, on all slices of the series."""
    how = {
        "segment_numbers": [number],
        "ignore_spatial_locations": True,
        "assert_missing_frames_are_empty": True,
    }
    if len(instances) == 1:
        said = re.fullmatch(SAYS.format(r"(\d{1,6})"), str(found.get("ContentDescription", "")))
        count = int(said[1]) if said else _frames_of(found)
        planes = found.get_pixels_by_source_frame(instances[0], range(1, count + 1), **how)
    else:
        planes = found.get_pixels_by_source_instance(instances, **how)
    return np.asarray(planes[..., 0]) > 0


def _frames_of(found: Any) -> int:
    """The last frame of the source that is spoken of."""
    numbers = [1]
    for frame in found.PerFrameFunctionalGroupsSequence:
        for derivation in frame.get("DerivationImageSequence", ()):
            for source in derivation.SourceImageSequence:
                said = source.get("ReferencedFrameNumber", 1)
                numbers += [int(said)] if isinstance(said, (int, str)) else [int(one) for one in said]
    return max(numbers)


def _code(value: str, scheme: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value, scheme, meaning)


def _highdicom(task: str) -> Any:
    try:
        import highdicom
        import highdicom.color
        import highdicom.seg
    except ModuleNotFoundError as error:
        raise MissingExtraError(task, "volume") from error
    return highdicom
