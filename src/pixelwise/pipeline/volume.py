"""One volume: read, segmented slab by slab, written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import InputError
from pixelwise.inference.options import DEFAULTS, SegmentOptions
from pixelwise.pipeline.options import READ_DEFAULTS, RUN_DEFAULTS, ReadOptions, RunOptions
from pixelwise.sources.volume import read_volume

if TYPE_CHECKING:
    from pixelwise.segmenter import Segmenter


PLACE = {"nifti": "how far apart its voxels are", "nrrd": "how it lies in the body"}
"""What a format of volumes says, and so needs to know."""


def segment_volume_file(
    segmenter: Segmenter,
    path: Path,
    files: dict[str, Path],
    options: SegmentOptions = DEFAULTS,
    reading: ReadOptions = READ_DEFAULTS,
    run: RunOptions = RUN_DEFAULTS,
) -> dict[str, Any]:
    """Segment a volume into `files` (format to path) and return a summary like `Segmentation.to_dict`.

    reading.slices: by a model of pictures, slice by slice. run.progress gets the share that is done.
    """
    wants = segmenter.card.volume
    volume = read_volume(
        path,
        frame=reading.frame,
        series=reading.series,
        channels=1 if wants is None else len(wants.channels),
        assume_orientation=reading.assume_orientation,
        max_memory=reading.max_memory,
    )
    for name, said in (("nifti", volume.geometry), ("nrrd", volume.affine)):
        if said is None and name in files:
            raise InputError(
                f"{path} does not say {PLACE[name]}, which a file of format {name} says; write its labels otherwise, "
                "such as with --format npy,contours"
            )
    if "dicom-seg" in files:
        from pixelwise.outputs.dicom_seg import refuse_origin

        refuse_origin(volume.origin)
    if reading.slices:
        found = segmenter.slices(volume, options, value_range=reading.scale, progress=run.progress)
    else:
        found = segmenter.volume(volume, options, progress=run.progress, max_memory=reading.max_memory)
    if run.journal is not None:
        run.journal.begin()
    for name, file in files.items():
        found.save(file, format=name, overwrite=run.overwrite or run.resume)
    return found.to_dict()
