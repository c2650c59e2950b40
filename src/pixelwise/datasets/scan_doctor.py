"""The data doctor for scans: what is wrong with a data set of volumes, in which file, at which voxel, and what to do.

One scan and its label volume are in memory at a time. Nothing is changed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.findings import Finding, Report, finding_of
from pixelwise.datasets.opening import DataSet, learned_from
from pixelwise.datasets.sample import Ids, Pair
from pixelwise.datasets.scan_fingerprint import ScanFingerprint, ScanMeasuring
from pixelwise.datasets.volumes import ABOUT, read_about, read_labels, read_scan, refuse_apart
from pixelwise.errors import ImageError, InputError, PixelwiseError
from pixelwise.sources.volume import Volume
from pixelwise.terminal import counted

FEW = 5
"""Scans to validate on below which scores are rough."""


def examine_scans(
    data: DataSet,
    *,
    num_classes: int | None = None,
    ignore_id: int | None = 255,
    progress: Callable[[list[Pair]], Iterable[Pair]] = iter,
) -> Report:
    """Look at every scan and label volume of a data set; the arguments are those of `doctor.examine`."""
    report = Report(scans=ScanFingerprint())
    classes = data.classes if num_classes is None else None
    ignore_id = classes.ignore_id if classes is not None else ignore_id
    known = set(range(num_classes)) if num_classes is not None else set(classes.ids) if classes else None
    about = read_about(data.root)
    names = () if about is None else about.channels
    measuring = ScanMeasuring(data.classes, names)
    learned = learned_from(data.pairs)
    report.splits = dict(Counter(pair.split for pair in data.pairs if pair.image is not None))
    counts: Counter[int] = Counter()
    digests: dict[str, list[Pair]] = defaultdict(list)
    channels: dict[int, list[Pair]] = defaultdict(list)
    oriented: dict[bool, list[Pair]] = defaultdict(list)
    for pair in progress(data.pairs):
        scan, labels = _scan(pair, report), _labels(pair, report)
        if scan is not None:
            digests[hashlib.sha256(np.ascontiguousarray(scan.values).tobytes()).hexdigest()].append(pair)
            channels[len(scan.channels)].append(pair)
            oriented[scan.affine is not None].append(pair)
        if labels is None:
            continue
        ids, where = labels
        ids = ids if data.map_ids is None else data.map_ids(ids)
        if scan is not None and not _add(
            report, pair.mask, "does not lie on its scan", refuse_apart, pair, scan, ids, where
        ):
            continue
        found, places, occurrences = np.unique(ids, return_index=True, return_counts=True)
        here = dict(zip(found.tolist(), occurrences.tolist(), strict=True))
        counts.update(here)
        _examine_values(
            pair, ids, dict(zip(found.tolist(), places.tolist(), strict=True)), known, ignore_id, report
        )
        if scan is not None and id(pair) in learned:
            measuring.add(scan, ids, here)
    report.pixels = {id: counts[id] for id in sorted(counts) if id != ignore_id}
    report.scans = measuring.done()
    _examine_channels(channels, names, data.root, report)
    if len(oriented) == 2:
        few = min(oriented.values(), key=len)
        does = "say" if oriented[True] is few else "do not say"
        message = f"{counted(len(few), 'scan')} of {len(data.pairs)} {does} how they lie in the body ({few[0].name})"
        _say(
            report,
            "orientation differs",
            "warning",
            message,
            "give all a header that says it (sform, qform)",
            None,
        )
    _examine_list(data, about, report)
    _examine_set(data, report, digests, known, classes is None and num_classes is None)
    return report


def measure_scans(data: DataSet, most: int = 64) -> ScanFingerprint:
    """The fingerprint alone, of at most so many of the scans to learn from; what cannot be read is passed over."""
    learned = learned_from(data.pairs)
    pairs = [pair for pair in data.pairs if id(pair) in learned]
    about = read_about(data.root)
    measuring = ScanMeasuring(data.classes, () if about is None else about.channels)
    for pair in pairs[:: max(1, -(-len(pairs) // most))]:
        with suppress(ImageError, InputError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scan, (ids, where) = read_scan(pair), read_labels(pair)
            ids = ids if data.map_ids is None else data.map_ids(ids)
            refuse_apart(pair, scan, ids, where)
            found, occurrences = np.unique(ids, return_counts=True)
            measuring.add(scan, ids, dict(zip(found.tolist(), occurrences.tolist(), strict=True)))
    return measuring.done()


def _scan(pair: Pair, report: Report) -> Volume | None:
    """The scan, looked at; None where there is none to use."""
    if pair.image is None:
        message = f"{pair.name} ({pair.split}) has a label volume but no scan"
        _say(report, "missing scan", "error", message, "add it, or take the label volume away", pair.mask)
        return None
    scan: Volume | None = _add(report, pair.image, "unreadable", read_scan, pair)
    if scan is None:
        return None
    for i, channel in enumerate(scan.channels):
        which = f" in channel {i}" if len(scan.channels) > 1 else ""
        if channel.dtype.kind == "f" and not np.isfinite(channel).all():
            place = _place(np.argwhere(~np.isfinite(channel))[0])
            message = f"voxels are no finite numbers{which}, the first at {place}"
            fix = "replace them, such as by np.nan_to_num, and write the scan anew"
            _say(report, "not finite", "error", message, fix, pair.image)
        elif channel.min() == channel.max():
            message = f"all voxels are {channel.min()}{which}: there is nothing to see"
            _say(report, "empty scan", "warning", message, "look at the scan; leave it out", pair.image)
    return scan


def _labels(pair: Pair, report: Report) -> tuple[Ids, Any] | None:
    if pair.mask is None:
        message = f"{pair.name} ({pair.split}) has a scan but no label volume"
        _say(report, "missing label volume", "error", message, "add it, or take the scan away", pair.image)
        return None
    found: tuple[Ids, Any] | None = _add(report, pair.mask, "unusable label volume", read_labels, pair)
    return found


def _add(report: Report, file: Path | None, kind: str, what: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, None (of one that gives nothing True) and a finding where it refuses; warnings are
    findings too."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = what(*arguments)
        except PixelwiseError as error:
            _say(report, kind, "error", str(error), "mend the file, or leave the pair out", file)
            return None
    for one in said:
        fix = "nothing, if the scan lies as it should; else mend its header"
        _say(report, "two ways to read it", "warning", str(one.message), fix, file)
    return True if found is None else found


def _examine_values(
    pair: Pair,
    ids: NDArray[Any],
    first: dict[int, int],
    known: set[int] | None,
    ignore_id: int | None,
    report: Report,
) -> None:
    """Ids that no class has, and label volumes that say nothing. first: where each id is, as a flat number."""
    for id, place in first.items():
        if known is not None and id not in known and id != ignore_id:
            at = _place(np.array(np.unravel_index(place, ids.shape)))
            names = ", ".join(map(str, sorted(known)))
            message = f"id {id} at {at} is no class: known are {names}"
            message += "" if ignore_id is None else f", and {ignore_id} counts for nothing"
            fix = f"name it in {ABOUT}, or change it: --map-ids {id}=0"
            _say(report, "unknown id", "error", message, fix, pair.mask)
    classes = set(first) - {ignore_id}
    if not classes:
        message = f"every voxel is {ignore_id}, which is ignored"
        _say(report, "nothing to learn", "warning", message, "leave the pair out", pair.mask)
    elif len(classes) == 1:
        message = f"every voxel is {classes.pop()}: nothing is labelled"
        fix = "look whether that is so; a label volume that was forgotten teaches the wrong thing"
        _say(report, "empty label volume", "warning", message, fix, pair.mask)


def _examine_channels(
    found: dict[int, list[Pair]], names: tuple[str, ...], root: Path, report: Report
) -> None:
    if len(found) > 1:
        few = min(found, key=lambda n: len(found[n]))
        most = max(found, key=lambda n: len(found[n]))
        one = found[few][0]
        message = (
            f"it has {counted(few, 'channel')}, and {counted(len(found[most]), 'other scan')} have {most}"
        )
        if few != 1 and most == 1:
            message += "; if it is a series over time, take one volume of it"
        _say(report, "channels differ", "error", message, "give every scan the same channels", one.image)
    elif names and found and len(names) not in found:
        message = f"{ABOUT} names {counted(len(names), 'channel')}, and the scans have {next(iter(found))}"
        _say(
            report,
            "channels differ",
            "error",
            message,
            "name each channel once, in their order",
            root / ABOUT,
        )


def _examine_list(data: DataSet, about: Any, report: Report) -> None:
    """Cases that dataset.json lists and that are not there."""
    if about is None:
        return
    there = {pair.name for pair in data.pairs}
    gone = [name for name in about.listed if name not in there]
    if gone:
        message = f"it lists {counted(len(gone), 'scan')} that are not in imagesTr ({', '.join(gone[:3])})"
        _say(
            report,
            "listed and missing",
            "error",
            message,
            "add them, or take them off its list",
            data.root / ABOUT,
        )


def _examine_set(
    data: DataSet, report: Report, digests: dict[str, list[Pair]], known: set[int] | None, unnamed: bool
) -> None:
    """What is wrong with the whole."""
    for pairs in digests.values():
        if len(pairs) > 1:
            splits = {pair.split for pair in pairs}
            severity: Literal["error", "warning"] = "error" if len(splits) > 1 else "warning"
            message = f"the same scan as {pairs[0].name} ({pairs[0].split})"
            fix = "keep one of them" + (", in one part" if len(splits) > 1 else "")
            _say(report, "duplicate", severity, message, fix, pairs[1].image)
    if unnamed:
        message = "nothing says what the ids mean"
        fix = f'put a {ABOUT} there, with labels such as {{"background": 0, "liver": 1}}, or a classes.txt'
        _say(report, "no classes", "error", message, fix, data.root)
    for id in sorted((known or set()) - report.pixels.keys()):
        name = data.classes.names[data.classes.ids.index(id)] if data.classes is not None else str(id)
        _say(
            report,
            "class never occurs",
            "warning",
            f"no voxel is {name!r} ({id})",
            "look whether it should",
            None,
        )
    if known is not None and len(known) < 2:
        _say(report, "nothing to tell apart", "error", "there is one class", "name what is looked for", None)
    if {pair.split for pair in data.pairs} <= {"all"} and len(data.pairs) < 2:
        message = f"{counted(len(data.pairs), 'scan')} cannot be divided into those to learn from and those held out"
        _say(report, "nothing to divide", "error", message, "add scans", None)


def _say(
    report: Report,
    kind: str,
    severity: Literal["error", "warning"],
    message: str,
    fix: str,
    file: Path | None,
) -> None:
    text = message.removeprefix(f"{file}: ").removeprefix(f"{file} ")
    report.findings.append(finding_of(kind, severity, text, fix, file))


def _place(place: NDArray[Any]) -> str:
    """A voxel, for people."""
    d, h, w = (int(i) for i in place)
    return f"slice {d}, row {h}, column {w}"


__all__ = ["Finding", "examine_scans", "measure_scans"]
