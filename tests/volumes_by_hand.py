"""A 3-D network of a few bytes with known answers, and drawn scans: bright ellipsoids, given in world millimetres."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pixelwise.geometry import affine_of
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.labels import LabelSet
from pixelwise.weights.card import CARD_KEY, Card

TISSUES = LabelSet.of(["background", "organ", "lesion"], colors=[(0, 0, 0), (255, 0, 0), (0, 0, 255)])

AS_STORED = VolumePreprocess((Normalise("none"),), patch=(8, 12, 16))

ORIENTATIONS = [
    "".join(letters)
    for signs in itertools.product("RL", "AP", "SI")
    for letters in itertools.permutations(signs)
]
"""All 48."""


def card_of(volume: VolumePreprocess = AS_STORED, labels: LabelSet = TISSUES) -> Card:
    return Card.of(labels, volume=volume, name="tissues")


def write_tissues_model(
    path: Path, card: Card | None = None, *, shift: tuple[int, int, int] = (0, 0, 0), has_card: bool = True
) -> Path:
    """One convolution of 3x3x3 with weight at a single place: logits are 40, the value, and 2 x value - 100 (organ from
    40 on, lesion from 100 on). shift: (d, h, w) of that place from the middle, so that a network is not symmetric."""
    weight = np.zeros((3, 1, 3, 3, 3), np.float32)
    at = tuple(1 + step for step in shift)
    weight[1, 0][at], weight[2, 0][at] = 1, 2
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["logits"], kernel_shape=[3] * 3, pads=[1] * 6)
    ]
    graph = helper.make_graph(
        nodes,
        "tissues",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "d", "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "d", "h", "w"])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([40, 0, -100], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if has_card:
        model.metadata_props.add(key=CARD_KEY, value=(card or card_of()).to_json())
    onnx.save(model, str(path))
    return path


def tissues(values: np.ndarray) -> np.ndarray:
    """What the model says of those values, by its definition."""
    return np.where(values > 100, 2, np.where(values > 40, 1, 0)).astype(np.uint8)


def affine_at(
    orientation: str, spacing: tuple[float, float, float], size: tuple[int, int, int], turned_deg: float = 0.0
) -> np.ndarray:
    """An affine with its middle at the world's origin, oblique by a rotation about an axis of its own."""
    affine = affine_of(orientation, spacing)
    if turned_deg:
        axis = np.array([1, 2, 3]) / np.sqrt(14)
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        a = np.deg2rad(turned_deg)
        affine[:3, :3] = (np.eye(3) + np.sin(a) * cross + (1 - np.cos(a)) * cross @ cross) @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(size[::-1]) - 1) / 2)
    return affine


def ellipsoids(affine: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """A scan (d, h, w) int16 of two ellipsoids that are given in world mm: 70 in the organ, 130 in the lesion, 10
    elsewhere."""
    d, h, w = size
    k, j, i = np.meshgrid(np.arange(d), np.arange(h), np.arange(w), indexing="ij")
    x, y, z = (affine @ np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)]))[:3].reshape(3, *size)
    values = np.full(size, 10, np.int16)
    values[(x / 9) ** 2 + (y / 7) ** 2 + ((z - 1) / 6) ** 2 < 1] = 70
    values[((x - 4) / 3) ** 2 + ((y + 1) / 3) ** 2 + ((z - 2) / 3) ** 2 < 1] = 130
    return values
