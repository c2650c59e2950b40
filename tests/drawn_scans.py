"""Drawn scans of a few voxels: a bright ellipsoid and a darker one beside it, in noise, as NIfTI files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np

from pixelwise.geometry import affine_of

CLASSES = ("background", "organ", "lesion")


def drawn(seed, size=(14, 18, 16), shift=1.5):
    """(values float32 (d, h, w), ids uint8 (d, h, w))."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in size), indexing="ij"), axis=-1)
    ids = np.zeros(size, np.uint8)
    middle = np.array(size) / 2 + random.uniform(-shift, shift, 3)
    for id, beside, radii in ((1, (0, -2.5, 0), (4, 3.5, 4)), (2, (0, 3.5, 1), (3, 2.5, 3))):
        radii = np.array(radii) * random.uniform(0.85, 1.15, 3)
        ids[(((grid - middle - beside) / radii) ** 2).sum(-1) < 1] = id
    values = np.array([100, 180, 40])[ids] + random.normal(0, 12, size)
    return values.astype(np.float32), ids


def write_volume(path, values, *, orientation="RAS", spacing=(1.0, 1.0, 1.0), affine=None, dtype=None):
    """values (d, h, w), or with channels (c, d, h, w)."""
    affine = affine_of(orientation, spacing) if affine is None else affine
    array = values.T if values.ndim == 3 else np.moveaxis(values, 0, -1).transpose(2, 1, 0, 3)
    image = nibabel.Nifti1Image(array if dtype is None else array.astype(dtype), affine)
    image.set_sform(affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, str(path))
    return path


def draw_scans(root, count=8, *, size=(14, 18, 16), about=True, spacing=(1.0, 1.0, 1.0), shift=1.5):
    """imagesTr/ and labelsTr/ of `count` scans, with a dataset.json as nnU-Net writes it."""
    root = Path(root)
    for i in range(count):
        values, ids = drawn(i, size, shift)
        write_volume(root / "imagesTr" / f"case_{i:02}.nii.gz", values, spacing=spacing)
        write_volume(root / "labelsTr" / f"case_{i:02}.nii.gz", ids, spacing=spacing)
    if about:
        labels = {name: i for i, name in enumerate(CLASSES)}
        said = {"labels": labels, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
        (root / "dataset.json").write_text(json.dumps(said))
    return root
