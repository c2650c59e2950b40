"""ADE20K. Scene Parsing through ADE20K Dataset. Zhou et al., 2017."""

from __future__ import annotations

from pathlib import Path

from pixelwise.datasets.folder import match
from pixelwise.datasets.sample import Pair
from pixelwise.errors import InputError


def ade20k_pairs(root: Path) -> list[Pair]:
    """ADE20K's scene parsing release: images/training beside annotations/training, and validation."""
    splits = {"training": "train", "validation": "val"}
    found = [s for s in splits if (root / "images" / s).is_dir() and (root / "annotations" / s).is_dir()]
    if not found:
        raise InputError(
            f"{root} has no images/validation beside annotations/validation, so it is not in ADE20K's layout"
        )
    return [p for s in found for p in match(root / "images" / s, root / "annotations" / s, splits[s])]
