"""What `pixelwise init` does: it surveys what is there, says what it would make of it, and writes that.

Everything is read once before anything is written, so that what is wrong is said while it costs nothing. Sources are
never changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pixelwise.datasets.adopt.choices import choices_of, chosen, no_pairs
from pixelwise.datasets.adopt.items import Progress, items_of, kept, size_of_labels
from pixelwise.datasets.adopt.palettes import Painted, has_colors, read_palette
from pixelwise.datasets.adopt.reading import BACKGROUND, IGNORE, OBJECT, Wishes, settle
from pixelwise.datasets.adopt.settling import (
    are_single_objects,
    read_one,
    settle_classes,
    settle_objects,
    settle_outlines,
)
from pixelwise.datasets.adopt.sources import Found, find
from pixelwise.datasets.adopt.writing import Adoption, give_names
from pixelwise.datasets.label_codes import color_of
from pixelwise.datasets.manifest import read_manifest
from pixelwise.datasets.opening import map_of, read_class_list
from pixelwise.datasets.values import Census
from pixelwise.errors import InputError
from pixelwise.labels import VOC, LabelSet, voc_colors


def survey(
    sources: Sequence[str | os.PathLike[str]],
    out: Path,
    wishes: Wishes | None = None,
    *,
    regions: bool = False,
    progress: Progress = iter,
) -> Adoption:
    """Read what is in `sources` and say what `out` would become. regions: the files of one class each may overlap.

    Raises InputError where there is nothing to pair, where several things label the pictures, and where nobody can tell
    what their values mean; each with what to say. A file that cannot be read is left out, and said.
    """
    wishes = wishes or Wishes()
    found = find(sources, but=Path(out).absolute())
    if (manifest := read_manifest(found.root)) is not None:  # a data set of ours, to be made anew
        regions = regions or manifest.regions
        if not (wishes.names or wishes.listed or wishes.palette):
            wishes = replace(wishes, listed=manifest.labels)
        if wishes.map_ids is None and manifest.map_ids is not None:
            wishes = replace(wishes, map_ids=map_of(manifest, found.root))
    series = chosen(found, sources, out)
    outlines = found.outlines[0] if found.outlines else None
    adoption = Adoption(found.root, [], LabelSet.of([BACKGROUND, OBJECT]), lambda item: np.zeros(0), "")
    adoption.left_out += found.notes
    items = items_of(found, series, outlines, adoption.left_out)
    if not items:
        raise InputError(no_pairs(found, adoption.left_out))
    censuses = [Census() for _ in series]
    adoption.items = kept(items, adoption.left_out, partial(size_of_labels, wishes, censuses), progress)
    if not adoption.items:
        raise InputError(no_pairs(found, adoption.left_out))
    if outlines is not None:
        adoption.truths = outlines.label
        adoption.left_out += outlines.notes
        settle_outlines(adoption, outlines, wishes, regions)
    elif are_single_objects(series, len(found.pictures)):
        settle_objects(adoption, wishes)
    elif len(series) > 1 or regions:
        settle_classes(adoption, series, censuses, wishes, regions, choices_of(found, sources, out))
    else:
        reading = settle(censuses[0], _with_lists(wishes, censuses[0], found))
        adoption.labels, adoption.said = reading.labels, [*reading.said]
        adoption.ids = partial(read_one, reading, wishes)
    give_names(adoption)
    adoption.manifest()  # refuses names that cannot be written
    return adoption


def _with_lists(wishes: Wishes, census: Census, found: Found) -> Wishes:
    """The wishes with what lists in the sources say, where nobody said otherwise; colours where the label maps have
    some."""
    colored = census.verdict().colored or any(look.colors for look in census.looks)
    listed = found.classes_file()
    if wishes.palette and not colored and any(len(set(one.color)) > 1 for one in wishes.palette):
        return replace(wishes, palette=(), listed=_as_labels(wishes.palette))
    if wishes.names or wishes.listed or wishes.palette:
        return wishes
    if listed is None:
        return replace(wishes, listed=VOC) if _is_voc(census, found) else wishes
    if not has_colors(listed):
        return replace(wishes, listed=read_class_list(listed))
    palette = tuple(read_palette(listed))
    return replace(wishes, palette=palette) if colored else replace(wishes, listed=_as_labels(palette))


def _as_labels(palette: Sequence[Painted]) -> LabelSet:
    ids = [place if one.id is None else one.id for place, one in enumerate(palette)]
    return LabelSet.of([one.name for one in palette], colors=[one.color for one in palette], ids=ids)


def _is_voc(census: Census, found: Found) -> bool:
    """Whether the label maps lie where VOC's do and are painted in its colours, each as the index of its class."""
    colors = dict(enumerate(voc_colors(21))) | {IGNORE: (224, 224, 192)}
    painted = all(
        look.colors is not None and all(colors.get(i) == color_of(color) for i, color in look.colors.items())
        for look in census.looks
    )
    return painted and any(
        "SegmentationClass" in name.parts for one in found.series for name in one.masks.values()
    )
