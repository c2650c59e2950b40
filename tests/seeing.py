"""Colours as people see them who lack one of the three kinds of cones, and how far apart colours look."""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

CONES = {
    "all": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no medium": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""From linear RGB to linear RGB. Source: Machado, Oliveira and Fernandes (2009), severity 1.0."""


def least_difference(colors, among=None):
    """The least CIEDE2000 between two of the colours, or between one of them and one of `among`, over all kinds of
    sight."""
    return min(_least(colors, among, np.asarray(matrix)) for matrix in CONES.values())


def _least(colors, among, matrix):
    ours = _seen(colors, matrix)
    others = ours if among is None else _seen(among, matrix)
    differences = deltaE_ciede2000(ours[:, None], others[None])
    if among is None:
        differences = differences[~np.eye(len(ours), dtype=bool)]
    return differences.min()


def _seen(colors, matrix):
    values = np.asarray(colors, float) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ matrix.T, 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
