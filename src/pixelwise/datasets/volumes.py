"""Data sets of scans: imagesTr/ and labelsTr/ as the Medical Segmentation Decathlon and nnU-Net have them, and folders
of one's own with images/ and masks/ (or labels/) of volumes.

A dataset.json beside them says what the ids mean and how many channels a scan has. Channels lie in the fourth dimension
of one file (Decathlon) or in files NAME_0000, NAME_0001, ... (nnU-Net).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.datasets.folder import MASK_FOLDERS
from pixelwise.datasets.sample import Ids, Pair
from pixelwise.errors import InputError
from pixelwise.geometry import Geometry
from pixelwise.labels import LabelSet
from pixelwise.sources.volume import ENDINGS, Volume, ids_of, read_volume, stem_of
from pixelwise.sources.voxels import apart as affines_apart
from pixelwise.untrusted import read

ABOUT = "dataset.json"

CHANNEL = re.compile(r"_(\d{4})$")
"""What nnU-Net puts behind the name of a case: the number of a channel."""

NEARLY = 1e-2
"""Share of a voxel by which a scan and its label map may lie apart: programs write their headers anew."""


@dataclass(frozen=True)
class About:
    """What a dataset.json says, in the Decathlon's words (labels by id, modality) or nnU-Net's (labels by name,
    channel_names). training: the cases that it lists, in the Decathlon's form."""

    labels: dict[str, Any]
    modality: dict[str, Any] = field(default_factory=dict)
    channel_names: dict[str, Any] = field(default_factory=dict)
    training: list[Any] = field(default_factory=list)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels in their order; none where it does not say."""
        named = self.channel_names or self.modality
        return tuple(str(named[key]) for key in sorted(named, key=lambda key: key.zfill(6)))

    @property
    def listed(self) -> tuple[str, ...]:
        """The names of the cases that it lists to learn from."""
        files = (one.get("image") if isinstance(one, dict) else one for one in self.training)
        return tuple(stem_of(Path(file)) for file in files if isinstance(file, str))

    def classes(self, place: Path) -> LabelSet:
        """Raises InputError for labels that are no classes, each a number."""
        by_name = {
            (str(value) if key.isdigit() and isinstance(value, str) else key): (
                int(key) if key.isdigit() and isinstance(value, str) else value
            )
            for key, value in self.labels.items()
        }
        for name, value in by_name.items():
            if isinstance(value, list):
                raise InputError(
                    f"{place} makes {name!r} of several labels ({value}), regions that overlap: such data are not "
                    "trained on here; name each label by one number"
                )
            if type(value) is not int or not 0 <= value < 2**16:
                raise InputError(
                    f"{place} gives {name!r} the label {value!r}, expected a number from 0 to 65535"
                )
        if len(by_name) != len(self.labels) or len(set(by_name.values())) != len(by_name):
            raise InputError(f"{place} names a label twice; give each number one name")
        ignored = by_name.pop("ignore", None)
        ordered = sorted(by_name.items(), key=lambda item: item[1])
        if ignored is None and all(id != 255 for _, id in ordered):
            ignored = 255
        return LabelSet.of([name for name, _ in ordered], ids=[id for _, id in ordered], ignore_id=ignored)


def read_about(root: Path) -> About | None:
    """The dataset.json of a folder, None where there is none. Raises InputError, with the file."""
    path = root / ABOUT
    if not path.is_file():
        return None
    advice = 'correct it: labels such as {"background": 0, "liver": 1}, channel_names such as {"0": "CT"}'
    return read(path, About, str(path), advice=advice, unknown="leave")


def looks_like_volumes(root: Path) -> bool:
    """Whether a folder holds pairs of volumes, by the names in it."""
    if (root / "imagesTr").is_dir():
        return True
    return any(_files(images) for _, images, _ in _parts(root))


def volume_pairs(root: Path) -> list[Pair]:
    """All pairs of a data set of scans. Raises InputError for folders that hold none."""
    about = read_about(root)
    if (root / "imagesTr").is_dir():
        parts = [("all", root / "imagesTr", root / "labelsTr")]
        if (root / "imagesTs").is_dir() and _files(root / "labelsTs"):
            parts = [("train", *parts[0][1:]), ("test", root / "imagesTs", root / "labelsTs")]
        if not (root / "labelsTr").is_dir():
            raise InputError(f"{root} has imagesTr/ and no labelsTr/; put the label volumes there")
    else:
        parts = list(_parts(root))
    found = [pair for part in parts for pair in _match(*part, about)]
    if not found:
        raise InputError(
            f"{root} holds no volumes: expected imagesTr/ and labelsTr/, or images/ and masks/, of files such as "
            ".nii.gz"
        )
    return found


def _parts(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """(split, scans, label volumes) of a folder of one's own."""
    if not root.is_dir():
        return
    for split, folder in (("all", root), *((p.name, p) for p in sorted(root.iterdir()) if p.is_dir())):
        masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
        if (folder / "images").is_dir() and masks is not None:
            yield split, folder / "images", masks
            if split == "all":
                return


def _files(folder: Path) -> dict[str, Path]:
    """The volumes of a folder by their stems, but hidden ones, such as the ._NAME that macOS leaves."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {stem_of(p): p for p in files if p.name.lower().endswith(ENDINGS) and not p.name.startswith(".")}


def _match(split: str, images: Path, masks: Path, about: About | None) -> list[Pair]:
    scans, labels = _files(images), _files(masks)
    for stem in [stem for stem in labels if stem.endswith(".labels") and stem not in scans]:
        labels[stem.removesuffix(".labels")] = labels.pop(stem)  # as `pixelwise segment` names them
    by_case: dict[str, list[Path]] = {}
    apart = bool(scans) and all(CHANNEL.search(stem) and stem not in labels for stem in scans)
    for stem, path in scans.items():
        by_case.setdefault(CHANNEL.sub("", stem) if apart else stem, []).append(path)
    pairs = []
    for name in sorted(by_case.keys() | labels.keys()):
        files = tuple(by_case.get(name, ()))
        pairs.append(
            Pair(name, split, files[0] if files else None, labels.get(name), volume=True, channels=files)
        )
    return pairs


def read_scan(pair: Pair) -> Volume:
    """The scan of a pair, its channels together. Raises InputError and ImageError, with the file."""
    if pair.image is None:
        raise InputError(f"{pair.name} ({pair.split}) lacks its scan; see `pixelwise check`")
    first, *others = [read_volume(path) for path in pair.channels or (pair.image,)]
    if not others:
        return first
    for path, other in zip(pair.channels[1:], others, strict=True):
        if other.size != first.size or apart(first.geometry, other.geometry, first.size) > NEARLY:
            raise InputError(
                f"{path} and {pair.channels[0]} are channels of one scan and do not lie alike ({_place(other)}, and "
                f"{_place(first)}); resample one to the other"
            )
    return Volume(np.concatenate([one.channels for one in (first, *others)]), first.geometry, first.name)


def read_labels(pair: Pair) -> tuple[Ids, Geometry | None]:
    """The ids (d, h, w) of a label volume, unsigned, and where it lies. Raises InputError and ImageError, with the
    file, for what is none."""
    if pair.mask is None:
        raise InputError(f"{pair.name} ({pair.split}) lacks its label volume; see `pixelwise check`")
    volume = read_volume(pair.mask)
    return ids_of(volume), volume.geometry


def refuse_apart(pair: Pair, scan: Volume, ids: Ids, where: Geometry | None) -> None:
    """Raise InputError where a label volume does not lie voxel for voxel on its scan."""
    if ids.shape != scan.size:
        raise InputError(
            f"{pair.mask} has {_sides(ids.shape)} voxels and its scan {_sides(scan.size)} (slices, rows, columns); "
            "bring the label volume to the scan's grid with nearest neighbours"
        )
    far = apart(scan.geometry, where, scan.size)
    if far > NEARLY:
        raise InputError(
            f"{pair.mask} lies up to {far:.3g} voxels away from its scan, by what the two files say (affine); if their "
            "voxels do belong together, copy the scan's header, else bring the label volume to the scan's grid"
        )


def apart(first: Geometry | None, second: Geometry | None, size: tuple[int, ...]) -> float:
    """How far two geometries put a corner of a volume apart, in the smallest voxel side of the first; 0 where one does
    not say."""
    if first is None or second is None:
        return 0.0
    if first.affine is None or second.affine is None:
        return float(
            max(abs(a - b) / min(first.spacing) for a, b in zip(first.spacing, second.spacing, strict=True))
        )
    return affines_apart(first.affine, second.affine, size[::-1])


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _place(volume: Volume) -> str:
    return _sides(volume.size) + (
        "" if volume.spacing is None else f" of {' x '.join(f'{side:.3g}' for side in volume.spacing)} mm"
    )
