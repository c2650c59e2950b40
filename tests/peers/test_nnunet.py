"""Windows and tiles of scans against nnU-Net v2 itself (`make peers`; nnunetv2 lives in an environment of its own)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pixelwise.inference.tiling import Tiling, window

sliding = pytest.importorskip(
    "nnunetv2.inference.sliding_window_prediction", reason="nnunetv2 is not here; run `make peers`"
)


@pytest.mark.parametrize("tile", [(32, 32), (40, 56), (24, 32, 48)])
def test_the_gaussian_window_is_nnunets_but_for_the_floor_at_the_corners(tile: tuple[int, ...]):
    import torch

    theirs = sliding.compute_gaussian(
        tile, sigma_scale=1 / 8, dtype=torch.float64, device=torch.device("cpu")
    ).numpy()
    ours = window(tile, "gaussian").astype(np.float64)
    theirs = theirs / theirs.max()
    ours = ours / ours.max()
    # They put a peak on one pixel, which for even sides is half a pixel off the middle; we are symmetric.
    sides = [np.arange(side) - side // 2 for side in tile]
    distance = sum(
        (np.meshgrid(*sides, indexing="ij")[axis] / (side / 8)) ** 2 for axis, side in enumerate(tile)
    )
    far = np.exp(-distance / 2) > 2e-3
    np.testing.assert_allclose(theirs[far], np.exp(-distance / 2)[far], rtol=0.05)
    centred = [np.arange(side) - (side - 1) / 2 for side in tile]
    at = sum((np.meshgrid(*centred, indexing="ij")[axis] / (side / 8)) ** 2 for axis, side in enumerate(tile))
    expected = np.exp(-at / 2)
    expected /= expected.max()
    seen = expected > 2e-3
    np.testing.assert_allclose(ours[seen], expected[seen], rtol=1e-3)


@pytest.mark.parametrize("size", [(100, 128), (64, 65), (33, 200)])
def test_tiles_reach_every_pixel_and_are_as_many_as_nnunets(size: tuple[int, int]):
    tile = (64, 64)
    padded = tuple(max(side, edge) for side, edge in zip(size, tile, strict=True))
    theirs = sliding.compute_steps_for_sliding_window(padded, tile, 0.5)
    grid = Tiling(64, 0.5).grid(padded)
    assert [len(starts) for starts in grid.starts] == [len(starts) for starts in theirs]
    for ours, others, side in zip(grid.starts, theirs, padded, strict=True):
        assert (ours[0], ours[-1]) == (others[0], others[-1]) == (0, side - 64)
        assert all(b - a <= 32 for a, b in itertools.pairwise(ours))
