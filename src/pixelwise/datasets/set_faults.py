"""What is wrong with a data set as a whole: names, what its ids are, classes, parts, copies."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from pixelwise.datasets.findings import Finding, FirstSeen, Mends, Report, finding_at, finding_of
from pixelwise.datasets.folder import init_command
from pixelwise.datasets.looks import LARGEST_PLAIN_ID
from pixelwise.datasets.opening import DataSet, choose_split, divided
from pixelwise.datasets.sample import Pair
from pixelwise.datasets.values import Census, Verdict
from pixelwise.errors import InputError
from pixelwise.labels import LabelSet, ranges
from pixelwise.terminal import counted

RARE = 0.001
"""Below this share of all labelled pixels a class counts as rare."""

FEW = 10
"""Pictures of a validation part; fewer are called too few."""


def no_training(
    data: DataSet, report: Report, classes: LabelSet | None, mends: Mends
) -> Iterator[Finding]:  # fmt: skip
    """Data without a fault from which nothing can be learned all the same: nothing to divide, or to tell apart."""
    try:
        divided(data, None)
    except InputError as error:
        said, _, fix = str(error).rpartition("; ")
        # A published set may be there to be evaluated on only
        severity: Literal["error", "warning"] = "error" if data.layout == "folder" else "warning"
        yield Finding("nothing to divide", severity, said, fix)
    there = [i for i, pixels in report.pixels.items() if pixels]
    if len(there) > 1:
        return
    message = "no pixel of the label maps is of any class: there is nothing to learn"
    if there:
        name = "" if classes is None else f" ({classes.names[classes.ids.index(there[0])]})"
        message = f"all pixels that count are of class {there[0]}{name}: there is nothing to tell apart"
    fix = "label what is to be found with another id than the rest"
    if data.map_ids is not None:
        fix += ", or change the ids in another way (--map-ids, or map_ids in pixelwise.json)"
    yield Finding("nothing to tell apart", "error", message, fix)


def names_differ(pairs: Sequence[Pair], mends: Mends) -> list[Finding]:
    """Pictures and label maps that both lack a partner are one finding: they are called otherwise."""
    pictures = [pair for pair in pairs if pair.mask is None and pair.image is not None]
    masks = [pair for pair in pairs if pair.image is None and pair.mask is not None]
    if not pictures or not masks or not mends.own or pictures[0].image is None or masks[0].mask is None:
        return []
    message = (
        f"{counted(len(pictures), 'picture')} without a label map of the same name, and "
        f"{counted(len(masks), 'label map')} without a picture: such as {pictures[0].image.name} "
        f"and {masks[0].mask.name}"
    )
    fix = (
        f"{init_command(mends.root)}, which pairs them by what their names share; or give both the same names"
    )
    return [Finding("names differ", "error", message, fix, str(masks[0].mask))]


def no_ids(
    census: Census, first_seen: FirstSeen, known: set[int] | None, ignore_id: int | None, mends: Mends
) -> list[Finding]:  # fmt: skip
    """Label maps that hold something else than ids: black and white, with or without what is between, or objects."""
    if not census.looks:
        return []
    verdict = census.verdict()
    levels = verdict.levels
    counting = [level for level in levels if level != ignore_id]
    named = known is not None and len(counting) > 1 and set(counting) <= known
    if verdict.kind == "objects" and not named:
        message = (
            f"the label maps number objects, up to {max(counting)}, and do not say of which class they are"
        )
        one = mends.change(f"1-{max(counting)}=1")
        fix = f"one class for all of them: {one}; or once and for all: {mends.anew('give each its class')}"
        return [finding_at(first_seen, counting[-1], "object ids", message, fix)]
    if verdict.kind == "two values" and verdict.exact and not named:
        low, high = levels
        if high <= LARGEST_PLAIN_ID:
            return []
        changes = ",".join(f"{a}={b}" for a, b in ((low, 0), (high, 1)) if a != b)
        ignored = f", and {high} means ignore" if high == ignore_id else ""
        message = f"the label maps hold {low} and {high} only{ignored}: black and white, not the ids 0 and 1"
        fix = f"{mends.change(changes)}; or once and for all: {mends.anew(f'write 1 for {high}')}"
        kind = "0/255 label maps" if levels == (0, 255) else "black and white label maps"
        return [finding_at(first_seen, high, kind, message, fix)]
    if verdict.exact or verdict.kind not in ("two values", "levels") or named:
        return []
    return [_between(verdict, first_seen, mends)]


def _between(
    verdict: Verdict, first_seen: FirstSeen, mends: Mends
) -> Finding:  # fmt: skip
    """Antialiased label maps, or such as JPEG has changed."""
    levels = verdict.levels
    strange = next(value for value in sorted(first_seen) if value not in levels)
    shown = " and ".join(map(str, levels)) if len(levels) == 2 else ", ".join(map(str, levels))
    message = (
        f"the label maps hold {len(first_seen)} values, {shown} and what antialiasing or JPEG puts between them; "
        f"{verdict.in_doubt:.2%} of the pixels are nearly as far from one as from another"
    )
    middles = [(a + b) // 2 for a, b in itertools.pairwise(levels)]
    ends = [0, *(middle + 1 for middle in middles)], [*middles, max(*first_seen, levels[-1])]
    changes = ",".join(f"{a}-{b}={i}" for i, (a, b) in enumerate(zip(*ends, strict=True)))
    fix = (
        f"{init_command(mends.root)} takes the nearest; or {mends.change(changes)}"
        if mends.own
        else mends.change(changes)
    )
    return finding_at(first_seen, strange, "antialiased label maps", message, fix)


def small_validation(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """A score on a few pictures hangs on each of them."""
    pairs = [pair for pair in pairs if pair.image is not None and pair.mask is not None]
    try:
        count = len(choose_split(pairs, "val")[1]) if pairs else FEW
    except InputError:  # no such part, or too few to make one
        return
    if count < FEW:
        message = (
            f"{counted(count, 'picture')} to validate on: each is {1 / count:.0%} of the score, so a difference of a "
            "few percent between two models says nothing"
        )
        yield Finding(
            "small validation part", "warning", message, f"label more pictures, {FEW} or more for this part"
        )


def examine_ids(
    report: Report,
    counts: Counter[int],
    first_seen: FirstSeen,
    known: set[int] | None,
    ignore_id: int | None,
    classes: LabelSet | None,
    mends: Mends,
    *,
    trusted: bool,
    whole: bool,
) -> None:
    """trusted: the numbers are ids, of which those of no class are said. whole: every label map was read, so that what
    does not occur can be said too."""
    ids = sorted(i for i in counts if i != ignore_id)
    known = set(range(_classes_in(ids))) if known is None else known
    for one in (i for i in ids if trusted and i not in known):
        file, pixel = first_seen[one]
        ignored = "" if ignore_id is None else f" or {ignore_id} to ignore"
        expected = f"expected {ranges(sorted(known))}{ignored}"
        message = f"id {one} belongs to no class ({expected}); {counts[one]} pixels in all"
        fix = f"correct the map, or ignore the id: {mends.change(f'{one}={255 if ignore_id is None else ignore_id}')}"
        report.findings.append(Finding("stray id", "error", message, fix, file, pixel))
    report.pixels = {i: counts[i] for i in sorted(known)}
    total = sum(report.pixels.values())
    for i, pixels in report.pixels.items() if trusted and whole else ():
        name = f"class {i}" + (f" ({classes.names[classes.ids.index(i)]})" if classes else "")
        if pixels == 0:
            message = f"{name} never occurs"
            report.findings.append(
                Finding("empty class", "warning", message, "add pictures of it, or drop the class")
            )
        elif pixels < RARE * total:
            message = f"{name} has {pixels / total:.4%} of the pixels"
            fix = "weight it, sample its pictures more often, or merge it"
            report.findings.append(Finding("rare class", "warning", message, fix))


def _classes_in(ids: list[int]) -> int:
    """How many classes, if nobody says: ids from 0 on, up to the first gap of more than ten."""
    end = 0
    for i in ids:
        if i - end > 10:
            break
        end = i
    return end + 1


def duplicates(digests: dict[str, list[Pair]]) -> Iterator[Finding]:
    for pairs in digests.values():
        names = {pair.name for pair in pairs}
        splits = sorted({pair.split for pair in pairs})
        others = ", ".join(str(pair.image) for pair in pairs[1:])
        if len(splits) > 1 and not {"trainval", "all"} & set(splits):
            message = f"equal pixels in {' and '.join(splits)}: also {others}"
            fix = "keep it in one split; a score on the other would be too good"
            yield finding_of("duplicate across splits", "error", message, fix, pairs[0].image)
        elif len(names) > 1:
            message = f"equal pixels under {len(names)} names: also {others}"
            yield finding_of("duplicate", "warning", message, "keep one of them", pairs[0].image)


def colour_coded(modes: Counter[str], report: Report, mends: Mends) -> Iterator[Finding]:
    if modes["colour"] and modes["ids"]:
        message = f"colours are in {counted(modes['colour'], 'label map')}, and ids in {modes['ids']}"
        yield Finding("mixed label maps", "error", message, mends.anew("bring all of them to ids"))
