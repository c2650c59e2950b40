"""CamVid: as SegNet's authors made it smaller, and as its makers publish it, 701 frames of 720x960 in 32 colours.

Semantic object classes in video: a high-definition ground truth database. Brostow, Fauqueur, Cipolla, 2009. The 32
classes are joined to 11 and the frames split as SegNet's authors did it (Badrinarayanan et al., 2015), which is
what published tables use.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.folder import match
from pixelwise.datasets.sample import Pair, read_label_file
from pixelwise.errors import InputError
from pixelwise.labels import CAMVID

VOID = CAMVID.ignore_id or 0
COLOURS: dict[tuple[int, int, int], int] = {
    (128, 128, 128): 0,  # Sky
    (192, 0, 128): 1, (0, 128, 64): 1, (128, 0, 0): 1, (64, 0, 64): 1,  # Archway, Bridge, Building, Tunnel
    (64, 192, 0): 1,  # Wall
    (192, 192, 128): 2, (0, 0, 64): 2,  # Column_Pole, TrafficCone
    (128, 64, 128): 3, (128, 0, 192): 3, (192, 0, 64): 3,  # Road, LaneMkgsDriv, LaneMkgsNonDriv
    (0, 0, 192): 4, (64, 192, 128): 4, (128, 128, 192): 4,  # Sidewalk, ParkingBlock, RoadShoulder
    (128, 128, 0): 5, (192, 192, 0): 5,  # Tree, VegetationMisc
    (192, 128, 128): 6, (128, 128, 64): 6, (0, 64, 64): 6,  # SignSymbol, Misc_Text, TrafficLight
    (64, 64, 128): 7,  # Fence
    (64, 0, 128): 8, (64, 128, 192): 8, (192, 128, 192): 8,  # Car, SUVPickupTruck, Truck_Bus
    (192, 64, 128): 8, (128, 64, 64): 8,  # Train, OtherMoving
    (64, 64, 0): 9, (192, 128, 64): 9, (64, 0, 192): 9, (64, 128, 64): 9,  # Pedestrian, Child, Cart, Animal
    (0, 128, 192): 10, (192, 0, 192): 10,  # Bicyclist, MotorcycleScooter
    (0, 0, 0): VOID,
}  # fmt: skip
"""The 32 colours, each with the id of `pixelwise.labels.CAMVID`."""


def camvid_pairs(root: Path) -> list[Pair]:
    """SegNet's CamVid: train, val and test, each beside a folder of label maps, trainannot and so on."""
    splits = [s for s in ("train", "val", "test") if (root / s).is_dir() and (root / f"{s}annot").is_dir()]
    if not splits:
        raise InputError(
            f"{root} has no train/ beside trainannot/, so it is not in CamVid's layout (SegNet's)"
        )
    return [pair for split in splits for pair in match(root / split, root / f"{split}annot", split)]


def camvid_rgb_pairs(root: Path) -> list[Pair]:
    """701_StillsRaw_full/NAME.png beside LabeledApproved_full/NAME_L.png; the splits are SegNet's."""
    photos, maps = root / "701_StillsRaw_full", root / "LabeledApproved_full"
    if not photos.is_dir() or not maps.is_dir():
        raise InputError(
            f"{root} has no 701_StillsRaw_full/ beside LabeledApproved_full/, so it is not CamVid's original"
        )
    by_name = {p.stem: p for p in photos.glob("*.png")}
    labels = {p.stem.removesuffix("_L"): p for p in maps.glob("*_L.png")}
    return [
        Pair(
            name, split_of(name), by_name.get(name), labels.get(name),
            partial(ids_of_colours, labels[name]) if name in labels else None,
        )
        for name in sorted(by_name.keys() | labels.keys())
    ]  # fmt: skip


def split_of(name: str) -> str:
    """SegNet's split of a frame such as 0016E5_08159: by drive and, within two of them, by time."""
    drive, _, frame = name.partition("_")
    number = int("".join(filter(str.isdigit, frame)) or 0)
    if drive == "Seq05VD" or (drive == "0001TP" and number >= 8550):
        return "test"
    return "val" if drive == "0016E5" and 7959 <= number <= 8159 else "train"


def ids_of_colours(path: Path) -> NDArray[np.uint8]:
    """A label map in the 32 colours as ids (h, w); another colour raises InputError with its place."""
    values = read_label_file(path)
    if values.ndim != 3 or values.shape[2] != 3:
        raise InputError(f"it should hold colours (h, w, 3), got {values.shape}")
    table = np.full(64, 254, np.uint8)  # every colour has its own two highest bits a channel
    for (r, g, b), class_id in COLOURS.items():
        table[r >> 6 << 4 | g >> 6 << 2 | b >> 6] = class_id
    top = values >> 6
    ids: NDArray[np.uint8] = table[top[..., 0] << 4 | top[..., 1] << 2 | top[..., 2]]
    stray = (values & 63).any(axis=2) | (ids == 254)
    if stray.any():
        row, column = (int(i) for i in np.argwhere(stray)[0])
        raise InputError(
            f"colour {tuple(values[row, column].tolist())} at ({row}, {column}) is none of CamVid's 32"
        )
    return ids
