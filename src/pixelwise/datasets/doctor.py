"""The data doctor: what is wrong with a data set, in which file, at which pixel, and how to mend it.

Most failed trainings fail here: label maps that are pictures, ids that no class has, photos turned by their
EXIF tag, the same photo in train and val. Nothing is changed; every finding says what to do.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import has, highest
from pixelwise.datasets.findings import Finding, Mends, Report, finding_of
from pixelwise.datasets.fingerprint import Fingerprint, Measuring
from pixelwise.datasets.folder import init_command
from pixelwise.datasets.manifest import contradiction
from pixelwise.datasets.numbered import may_be_objects
from pixelwise.datasets.opening import DataSet, learned_from, read_classes
from pixelwise.datasets.pair_faults import examine_mask, examine_picture, sizes_differ
from pixelwise.datasets.sample import Pair
from pixelwise.datasets.scan_doctor import examine_scans
from pixelwise.datasets.set_faults import (
    colour_coded,
    duplicates,
    examine_ids,
    names_differ,
    no_ids,
    no_training,
    small_validation,
)
from pixelwise.datasets.values import Census
from pixelwise.errors import ImageError, InputError
from pixelwise.labels import LabelSet


def examine(
    data: DataSet,
    *,
    num_classes: int | None = None,
    ignore_id: int | None = 255,
    progress: Callable[[list[Pair]], Iterable[Pair]] = iter,
) -> Report:
    """Look at every picture and label map of a data set.

    num_classes: ids 0 .. num_classes - 1 are classes; None: those of the data set, or where it has none the ids below
    the first large gap. ignore_id: the id that counts for nothing, unless the classes have their own. progress: wraps
    the list of pairs, to draw a bar.
    """
    if data.volumes:
        return examine_scans(data, num_classes=num_classes, ignore_id=ignore_id, progress=progress)
    report = Report()
    pairs, map_ids, mends = data.pairs, data.map_ids, Mends(data)
    classes = data.classes if num_classes is None else None
    if classes is not None:
        ignore_id = classes.ignore_id
    report.splits = dict(Counter(pair.split for pair in pairs if pair.image is not None))
    first_seen: dict[int, tuple[str, tuple[int, int]]] = {}
    counts: Counter[int] = Counter()
    digests: dict[str, list[Pair]] = defaultdict(list)
    modes: Counter[str] = Counter()
    learned = learned_from(pairs)
    measuring = Measuring(classes, ignore_id, len(learned))
    census = Census()
    unread = 0
    misnamed = names_differ(pairs, mends)
    report.findings += misnamed
    for pair in progress(pairs):
        if misnamed and (pair.image is None or pair.mask is None):
            unread += pair.mask is not None
            continue
        picture = examine_picture(pair, report, mends)
        if picture is not None:
            digests[
                hashlib.sha256(picture.tobytes() + bytes(str(picture.shape), "ascii")).hexdigest()
            ].append(pair)
        labels = examine_mask(pair, report, modes, mends)
        if labels is None:
            unread += pair.mask is not None
            continue
        labels = labels if map_ids is None else map_ids(labels)
        if picture is not None and labels.shape != picture.shape[:2]:
            report.findings.append(sizes_differ(pair, picture.shape[:2], labels.shape, mends))
        if data.regions and classes is not None:
            found = _pixels_of_regions(labels, classes)
            counts.update(found)
            if picture is not None and id(pair) in learned:
                measuring.add(picture, as_map(labels, classes), found)
            continue
        if labels.size and 0 <= labels.min() <= labels.max() < 2**32:
            census.add(labels.astype(np.uint32))
        ids, places, occurrences = np.unique(labels, return_index=True, return_counts=True)
        if picture is not None and id(pair) in learned:
            counted = dict(zip(ids.tolist(), occurrences.tolist(), strict=True))
            measuring.add(picture, labels, counted)
        for one, place, count in zip(ids.tolist(), places.tolist(), occurrences.tolist(), strict=True):
            counts[one] += count
            row, column = divmod(place, labels.shape[1])
            first_seen.setdefault(one, (pair.place, (row, column)))
        if ignore_id is not None and ids.tolist() == [ignore_id]:
            message = f"every pixel is {ignore_id}, which is ignored"
            report.findings.append(
                finding_of("nothing to learn", "warning", message, "leave the pair out", pair.mask)
            )
    if data.manifest is not None and (said := contradiction(data.manifest.labels, read_classes(data.root))):
        fix = "pixelwise.json is obeyed: correct it, or remove classes.txt"
        report.findings.append(
            Finding("two lists of classes", "error", said, fix, str(data.root / "classes.txt"))
        )
    known = set(range(num_classes)) if num_classes is not None else set(classes.ids) if classes else None
    trouble = no_ids(census, first_seen, known, ignore_id, mends)
    unnamed = classes is None or classes.names == tuple(f"class {i}" for i in classes.ids)
    if not trouble and num_classes is None and unnamed and map_ids is None and may_be_objects(census.looks):
        most = max(one for one in counts if one != ignore_id)
        message = f"each picture's ids run from 1 to another end, up to {most}: they may number objects, not classes"
        fix = f"if they do, one class for all of them: {mends.change(f'1-{most}=1')}"
        if classes is not None and mends.own:
            fix = f"if they do, one class for all of them: {mends.merged(f'1-{most}=1')}"
        report.findings.append(Finding("perhaps object ids", "warning", message, fix))
    form = [f for f in report.findings if f.severity == "error" and f.fix == mends.in_place]
    if trouble and form and mends.own:  # one command for both
        report.findings = [finding for finding in report.findings if finding not in form]
        fix = f"{init_command(mends.root)}, which mends their form too ({form[0].message})"
        trouble = [replace(finding, fix=fix) for finding in trouble]
    if any(finding.kind == "object ids" for finding in trouble):  # which may need 16 bits elsewhere
        report.findings = [finding for finding in report.findings if finding.kind != "16-bit label map"]
    report.findings += trouble
    report.are_ids = not trouble
    examine_ids(
        report, counts, first_seen, known, ignore_id, classes, mends, trusted=not trouble, whole=not unread
    )
    report.fingerprint = measuring.done(list(report.pixels))
    report.findings.extend(duplicates(digests))
    report.findings.extend(colour_coded(modes, report, mends))
    report.findings.extend(small_validation(pairs))
    if report.safe:
        report.findings.extend(no_training(data, report, classes, mends))
    return report


def measure(data: DataSet, most: int = 64) -> Fingerprint:
    """The fingerprint alone, of at most so many of the pictures to learn from; what cannot be read is passed over."""
    learned = learned_from(data.pairs)
    pairs = [pair for pair in data.pairs if id(pair) in learned]
    pairs = pairs[:: max(1, -(-len(pairs) // most))]
    measuring = Measuring(data.classes, 255, len(pairs))
    for pair in pairs:
        with suppress(ImageError, InputError):
            labels = pair.read_ids()
            labels = labels if data.map_ids is None else data.map_ids(labels)
            if data.regions and data.classes is not None:
                labels = as_map(labels, data.classes)
            measuring.add(pair.read_unscaled(), labels)
    return measuring.done()


def as_map(codes: NDArray[Any], classes: LabelSet) -> NDArray[Any]:
    """The label map, in ids, that the order of overlapping regions makes of their codes."""
    ids: NDArray[Any] = classes.to_ids(highest(codes, len(classes) - 1))
    return ids


def _pixels_of_regions(codes: NDArray[Any], classes: LabelSet) -> dict[int, int]:
    """How many pixels each class has, by its id: the first those of no region."""
    found = [int((codes == 0).sum()), *(int(has(codes, i).sum()) for i in range(len(classes) - 1))]
    return dict(zip(classes.ids, found, strict=True))
