"""Scans made ready once for a run: turned, normalised and at the network's spacing, on disk, so that a patch is cut out
of a file without reading the rest of it.

They lie in the run's folder, named by what they were made from, and are made again where they are not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pixelwise.datasets.opening import PairSamples
from pixelwise.datasets.sample import Sample
from pixelwise.errors import OutputError
from pixelwise.files import writing
from pixelwise.inference.volume_preprocess import VolumePreprocess
from pixelwise.inference.volumes import fitting, normalised

FOLDER = "prepared"

MOST_PLACES, SHARE = 10_000, 0.01
"""Voxels of a class that are kept to lay patches about: so many, or that share where it is more."""

FORM = 1
"""Of what is written; another makes it again."""


class Prepared:
    """The scans of `samples` as a network sees them. Each sample: image float32 (c, d, h, w), mask (d, h, w) class
    indices, `places`. With `keep_in` they are files, mapped into memory; without, each is made when asked for."""

    def __init__(self, samples: PairSamples, wanted: VolumePreprocess, background: int = 0) -> None:
        self.samples, self.wanted, self.background = samples, wanted, background
        self.folder: Path | None = None

    def keep_in(self, folder: Path) -> None:
        """Keep what is made in that folder."""
        self.folder = folder

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if self.folder is None:
            return self._made(index)
        path = self.folder / f"{self._key(index)}.npz"
        stem = path.with_suffix("")
        files = [stem.with_suffix(f".{part}.npy") for part in ("image", "mask", "places")]
        if not files[-1].is_file():  # it is written last
            made = self._made(index)
            assert made.places is not None
            self._write(files, made)
        image, mask = (np.load(file, mmap_mode="r") for file in files[:2])
        flat = np.load(files[2])
        places = {int(c): flat[1][flat[0] == c] for c in np.unique(flat[0])}
        return Sample(image, mask, self.samples.pairs[index].name, places=places)

    def _write(self, files: list[Path], made: Sample) -> None:
        assert self.folder is not None
        assert made.places is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder} ({error.strerror})") from error
        rows = [np.stack([np.full(len(v), c, np.int64), v]) for c, v in made.places.items()]
        flat = np.concatenate(rows, axis=1) if rows else np.zeros((2, 0), np.int64)
        for file, values in zip(files, (made.image, made.mask, flat), strict=True):
            with writing(file) as temporary, open(temporary, "wb") as out:
                np.save(out, values)

    def _key(self, index: int) -> str:
        """Of what a scan is made from and how: names, sizes and times of its files, as make does."""
        pair = self.samples.pairs[index]
        files = [path for path in (*(pair.channels or (pair.image,)), pair.mask) if path is not None]
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        classes = self.samples.classes
        labels = None if classes is None else classes.to_dict()
        said = json.dumps([FORM, stats, self.wanted.to_dict(), labels, repr(pair.ids)], default=str)
        return f"{pair.name}.{hashlib.blake2b(said.encode(), digest_size=8).hexdigest()}"

    def _made(self, index: int) -> Sample:
        sample = self.samples[index]
        fit = fitting(sample.mask.shape, sample.geometry, self.wanted, sample.name)
        image = normalised(sample.image, fit, self.wanted, sample.name)
        mask = resampled(np.ascontiguousarray(fit.turn(sample.mask)), fit.shown)
        ignored = np.iinfo(mask.dtype).max
        return Sample(image, mask, sample.name, places=places_of(mask, {self.background, int(ignored)}))


def resampled(mask: NDArray[Any], size: tuple[int, int, int]) -> NDArray[Any]:
    """A label map on another grid: each class by itself linearly, the largest winning, as the logits come back."""
    if mask.shape == size:
        return mask
    best, found = None, np.zeros(size, mask.dtype)
    for one in np.unique(mask):
        share = F.interpolate(
            torch.from_numpy((mask == one).astype(np.float32))[None, None],
            size,
            mode="trilinear",
            align_corners=False,
        )[0, 0].numpy()
        if best is None:
            best, found[:] = share, one
        else:
            higher = share > best
            found[higher], best = one, np.maximum(best, share)
    return found


def places_of(mask: NDArray[Any], without: set[int]) -> Mapping[int, NDArray[np.int64]]:
    """Flat numbers of voxels of each class, at most `MOST_PLACES` or `SHARE` of them, the same every time."""
    flat, found = mask.reshape(-1), {}
    for one in np.unique(flat):
        if int(one) not in without:
            voxels = np.flatnonzero(flat == one)
            most = max(MOST_PLACES, int(SHARE * len(voxels)))
            if len(voxels) > most:
                voxels = np.sort(np.random.default_rng(1234).choice(voxels, most, replace=False))
            found[int(one)] = voxels.astype(np.int64)
    return found
