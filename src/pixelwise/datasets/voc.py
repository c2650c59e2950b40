"""Pascal VOC's layout: JPEGImages, SegmentationClass and lists under ImageSets/Segmentation.

The PASCAL Visual Object Classes Challenge 2012. Everingham, Van Gool, Williams, Winn, Zisserman. Label
files are palette PNGs of ids 0-20 with 255 for void, the outline of objects.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.datasets.folder import FolderDataset
from pixelwise.errors import InputError


class VOCSegmentation(FolderDataset):
    """Samples of one list of a VOC folder, `root`/ImageSets/Segmentation/`split`.txt, in its order."""

    def __init__(self, root: Path, split: str) -> None:
        root = Path(root)
        lists = root / "ImageSets" / "Segmentation"
        if not (lists / f"{split}.txt").is_file():
            known = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "nothing"
            raise InputError(
                f"{root} has no split {split!r}: {lists} should hold {split}.txt and holds {known}"
            )
        names = (lists / f"{split}.txt").read_text().split()
        super().__init__(root / "JPEGImages", root / "SegmentationClass", names=names)
