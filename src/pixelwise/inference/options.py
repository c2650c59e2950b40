"""SegmentOptions: how to segment, as one value that pictures, rasters, videos and evaluations hand on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.inference.cleanup import Cleanup
from pixelwise.inference.terms import CRF, preset
from pixelwise.inference.tiling import Tiling, Window, check_window
from pixelwise.inference.tta import Average, Flip, check_views

if TYPE_CHECKING:
    from pixelwise.labels import LabelSet

Tile = int | tuple[int, int] | Literal["auto"]
Overlap = int | float | Literal["auto"]

TILE_PX = 512
"""The tile of what cannot be shown whole: the same on every machine, so that results are the same too."""

CLEANS: dict[str, bool] = {"cleans": True}


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment; the keywords of `Segmenter.__call__`.

    tile: None shows the network the whole picture, resized by the card's rule (what is streamed gets tiles of
    TILE_PX). Otherwise the picture is taken at its own scale, in overlapping tiles of this size (height, width; as near
    as the network allows) whose answers are blended: the card's resize rule does not apply, its normalisation does.
    "auto" takes the largest tile that fits half of the free memory and prints the plan to stderr. overlap: an int is
    pixels, a float a share of the tile; "auto" measures where neighbouring tiles agree; None is a quarter of the tile.
    window: see `inference.tiling.Tiling`.

    flips, rotations, scales, average: test-time augmentation, see `inference.tta.augmented`; of volumes flips of
    "columns", "rows" and "slices" of what the network sees. crf: "vgg", "resnet" or a
    CRF of `inference.crf`, which moves borders to the picture's edges; with tiles, each is refined alone and the
    answers are blended.

    What cleans up the answer, see `inference.cleanup`: min_area: regions of fewer pixels (of a volume: voxels) go.
    min_mm3: of volumes, regions of fewer cubic millimetres go, in place of min_area. fill_holes, largest_only:
    names of classes; holes in their regions are filled, in the order given, and only the largest region stays.
    min_confidence, last: pixels whose class, before any clean-up, had a lower probability (`Segmentation.confidence`)
    become the ignore id. Where regions overlap, each one's mask is cleaned up by itself, doubtful pixels are in none,
    and what is streamed is not cleaned up; a CRF is refused there.

    Raises InputError for what makes no sense, UnknownNameError for a name that is not known.
    """

    tile: Tile | None = None
    overlap: Overlap | None = None
    window: Window = "gaussian"
    flips: tuple[Flip, ...] = ()
    rotations: tuple[int, ...] = ()
    scales: tuple[float, ...] = (1.0,)
    average: Average = "logits"
    crf: CRF | str | None = None
    min_confidence: float = field(default=0.0, metadata=CLEANS)
    min_area: int = field(default=0, metadata=CLEANS)
    fill_holes: tuple[str, ...] = field(default=(), metadata=CLEANS)
    largest_only: tuple[str, ...] = field(default=(), metadata=CLEANS)
    min_mm3: float = field(default=0.0, metadata=CLEANS)

    def __post_init__(self) -> None:
        if isinstance(self.tile, str) and self.tile != "auto":
            raise InputError(f"tile takes a number of pixels, or auto, got {self.tile!r}")
        if isinstance(self.overlap, str) and self.overlap != "auto":
            raise InputError(f"overlap takes pixels, a share below 1, or auto, got {self.overlap!r}")
        check_window(self.window)
        try:
            Tiling(TILE_PX if self.tile is None or self.tile == "auto" else self.tile, self.share)
        except TypeError as error:
            raise InputError(
                f"tile is a number of pixels or (height, width), overlap a number, got {self.tile!r} and "
                f"{self.overlap!r}"
            ) from error
        check_views(self.flips, self.rotations, self.scales, self.average)
        if self.crf is not None:
            preset(self.crf)
        if not 0 <= self.min_confidence <= 1:
            raise InputError(f"min_confidence is a probability from 0 to 1, got {self.min_confidence}")
        Cleanup(self.min_area)
        if not (isinstance(self.min_mm3, (int, float)) and 0 <= self.min_mm3 < math.inf):
            raise InputError(f"min_mm3 is a number of cubic millimetres, at least 0, got {self.min_mm3!r}")
        if self.min_area and self.min_mm3:
            raise InputError(
                f"the smallest region that stays is said in voxels (min_area) or in mm3 (min_mm3), got "
                f"{self.min_area} and {self.min_mm3:g}; give one of them"
            )
        names: Any
        for names in (self.fill_holes, self.largest_only):
            if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
                raise InputError(f"classes are named in a tuple, such as ('cat', 'dog'), got {names!r}")

    @property
    def share(self) -> int | float:
        """The overlap as a number: a quarter where none is given, or it is still to be measured."""
        return 0.25 if self.overlap is None or self.overlap == "auto" else self.overlap

    @property
    def augments(self) -> bool:
        """Whether the network is shown more than the picture as it is."""
        return bool(self.flips or self.rotations or tuple(self.scales) != (1.0,))

    def as_decided(self) -> SegmentOptions:
        """The same without what cleans up."""
        idle: dict[str, Any] = {f.name: f.default for f in fields(self) if f.metadata == CLEANS}
        return replace(self, **idle)

    def refuse_auto(self, what: str, parts: str) -> None:
        """Raise InputError for a tile or an overlap that would follow from the memory or the part."""
        for name, value in (("tile", self.tile), ("overlap", self.overlap)):
            if value == "auto":
                raise InputError(
                    f"{what} takes a fixed --{name}, so that all {parts} are treated alike, got auto"
                )

    def cleanup(self, classes: LabelSet, voxel_mm3: float | None = None) -> Cleanup:
        """What cleans up a map of these classes; raises UnknownNameError for a name that is none of them, and
        InputError for min_confidence where they have no ignore id. voxel_mm3: of a volume that says its spacing, the
        volume of a voxel; without it InputError for min_mm3."""
        if self.min_mm3 > 0 and voxel_mm3 is None:
            raise InputError(
                "min_mm3 is for volumes that say their spacing; give min_area, a number of pixels or voxels"
            )
        if self.min_confidence > 0 and classes.ignore_id is None:
            raise InputError(
                "min_confidence gives doubtful pixels the ignore id, and these classes have none (ignore_id is None); "
                "leave it out, or take a LabelSet that has one"
            )
        return Cleanup(
            min_area=self.min_area
            if voxel_mm3 is None
            else max(self.min_area, _voxels(self.min_mm3, voxel_mm3)),
            fill_holes=_indices(self.fill_holes, classes),
            largest_only=_indices(self.largest_only, classes),
        )

    def mark_doubtful(
        self, ids: NDArray[Any], confidence: NDArray[np.float32] | None, classes: LabelSet
    ) -> NDArray[Any]:
        """File ids, the ignore id where the confidence (needed for that) is below min_confidence; any shape."""
        if self.min_confidence == 0:
            return ids
        assert confidence is not None
        assert classes.ignore_id is not None
        return np.where(confidence < self.min_confidence, ids.dtype.type(classes.ignore_id), ids)

    def to_dict(self, *, defaults: bool = False) -> dict[str, Any]:
        """Plain values for JSON, of what differs from the default; with defaults, of all but idle clean-up."""
        given = ((f, getattr(self, f.name)) for f in fields(self))
        return {
            f.name: _plain(value)
            for f, value in given
            if value != f.default or (defaults and f.metadata != CLEANS)
        }


DEFAULTS = SegmentOptions()


def _voxels(mm3: float, voxel_mm3: float) -> int:
    """The fewest voxels that make up so many cubic millimetres, to a billionth of them."""
    return math.ceil(mm3 / voxel_mm3 * (1 - 1e-9))


def _indices(names: tuple[str, ...], classes: LabelSet) -> tuple[int, ...]:
    return tuple(classes.index(name) for name in names)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, CRF) else value
