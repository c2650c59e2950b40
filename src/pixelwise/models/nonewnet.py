"""No New-Net: a 3-D U-Net, well trained.

Isensee, Kickingereder, Wick, Bendszus, Maier-Hein, BraTS 2018, 1809.10483.

The network is that of the authors' released inference code (modelhub-ai/mic-dkfz-brats) and of their weights,
of which the sizes follow: at most 320 filters (others read 480 off the paper's text; `cap` chooses), max
pooling, linear up-sampling, and the second block before each up-sampling already narrowed to the next level's
width. The same definition makes the 2-D network, with nnU-Net's cap of 480. Sides that are multiples of 16
give the release's numbers; for others the up-sampled map gets the size of the skip, which the release does
not allow.

Two ways of reading the output: three overlapping tumour regions, a sigmoid each (the final model;
`regions_to_labels` decodes them), or four exclusive classes and a softmax (the paper's baseline). Co-training
gives every head a twin for a second data set with labels of its own.

Letters: n batch, c channels, k classes or regions, d h w voxels (h w in 2-D), u level of the decoder, deepest
first.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.models.building import builder, variant

REGIONS = ("whole tumour", "tumour core", "enhancing tumour")
"""What the three sigmoids mean, in the order of the release's outputs."""

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
"""The four input channels, in the release's order; each z-scored within the brain, zero outside."""

EDEMA, NECROSIS, ENHANCING = 2, 1, 4
"""BraTS label codes; 0 is everything else."""


class NoNewNet(nn.Module):
    """A U-Net of two blocks a level, for volumes or pictures (`dims` 3 or 2) with sides of at least 16.

    image (n, in_channels, d, h, w), float -> {"out": logits (n, num_classes, d, h, w)}; with
    `deep_supervision` also "aux1" .. "aux3", heads of the second finest level and down, enlarged; with
    `cotraining_classes` also their twins, "aux_cotraining" next to "out" and "aux1_cotraining" and so on;
    every head sees the whole batch, and a loss takes for each image the head of its data set. One side at
    least must be 32 or more, as instance norm needs two values at the bottom. It normalises each image for
    itself, so any batch size trains.

    width: filters of the finest level, doubled at each of the `levels` poolings up to `cap` (None: 320 in
    3-D, 480 in 2-D). probabilities: how the logits are meant, "sigmoid" for overlapping regions or "softmax"
    for exclusive classes; it changes nothing but `labels`.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        in_channels: int = 4,
        num_classes: int = 3,
        *,
        dims: int = 3,
        width: int = 30,
        cap: int | None = None,
        levels: int = 4,
        deep_supervision: bool = False,
        cotraining_classes: int | None = None,
        probabilities: str = "sigmoid",
    ) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise ValueError(f"dims must be 2 or 3, got {dims}")
        if probabilities not in ("sigmoid", "softmax"):
            raise ValueError(f"probabilities must be 'sigmoid' or 'softmax', got {probabilities!r}")
        self.num_classes, self.probabilities = num_classes, probabilities
        self.dims, self.levels = dims, levels
        widths = filters(width, levels, CAPS[dims] if cap is None else cap)  # 30, 60, 120, 240, 320
        self.down = nn.ModuleList()
        for before, here in zip((in_channels, *widths), widths[:-1], strict=False):
            self.down.append(nn.Sequential(Block(before, here, dims), Block(here, here, dims)))
        *skips, bottom = widths
        narrowed = [*reversed(skips), skips[0]]  # what is handed up: to level u, and after the last level
        self.bottom = nn.Sequential(Block(skips[-1], bottom, dims), Block(bottom, narrowed[0], dims))
        self.up = nn.ModuleList()
        for here, above in pairwise(narrowed):
            self.up.append(nn.Sequential(Block(2 * here, here, dims), Block(here, above, dims)))
        tasks = (num_classes,) if cotraining_classes is None else (num_classes, cotraining_classes)
        self.heads = nn.ModuleList()  # finest level first, as many as are in use
        for features in [*reversed(narrowed[1:])][: levels if deep_supervision else 1]:
            self.heads.append(nn.ModuleList(CONV[dims](features, k, 1, bias=False) for k in tasks))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, d, h, w) -> logits (n, k, d, h, w) under "out" and "aux..."."""
        finest_first = reversed(self._decode(image))
        logits = OrderedDict()
        for depth, (features, heads) in enumerate(zip(finest_first, self.heads, strict=False)):
            for task, head in enumerate(heads.children()):  # the data set's own, then the co-training one's
                small = head(features)  # (n, k, d/2^depth, h/2^depth, w/2^depth)
                logits[_name(depth, task)] = self._enlarge(small, image) if depth else small
        return logits

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, d, h, w) -> logits (n, k, d, h, w): stride 1, nothing is left to upsample."""
        *_, finest = self._decode(image)
        own, *_ = self.heads[0].children()
        logits: Tensor = own(finest)
        return logits

    def labels(self, logits: Tensor) -> Tensor:
        """Logits (n, k, d, h, w) of a network for BraTS to label codes uint8 (n, d, h, w), as it was trained.

        Raises ValueError for another number of outputs than three regions (sigmoid) or four classes
        (softmax).
        """
        if self.probabilities == "sigmoid":
            return regions_to_labels(logits.sigmoid())
        if logits.shape[1] != 4:
            raise ValueError(
                f"the classes of BraTS are 4, nothing and three tissues, got {logits.shape[1]} logits"
            )
        codes = torch.tensor([0, EDEMA, ENHANCING, NECROSIS], dtype=torch.uint8, device=logits.device)
        return codes[logits.argmax(1)]

    def _decode(self, image: Tensor) -> list[Tensor]:
        """image (n, c, d, h, w) -> the decoder's features, coarsest first, the last (n, width, d, h, w)."""
        self._check_sides(image)
        x, skips, decoded = image, [], []
        for down in self.down:
            skips.append(down(x))  # (n, 30 2^i, d/2^i, h/2^i, w/2^i)
            x = POOL[self.dims](skips[-1], 2)
        x = self.bottom(x)  # (n, 240, d/16, h/16, w/16)
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([self._enlarge(x, skip), skip], dim=1))
            decoded.append(x)
        return decoded

    def _enlarge(self, x: Tensor, like: Tensor) -> Tensor:
        mode = "trilinear" if self.dims == 3 else "bilinear"
        return F.interpolate(x, size=like.shape[2:], mode=mode, align_corners=False)

    def _check_sides(self, image: Tensor) -> None:
        sides, least = image.shape[2:], 2**self.levels
        if torch.compiler.is_compiling() or (min(sides) >= least and max(sides) >= 2 * least):
            return
        padded = [max(side, least) for side in sides]
        padded[-1] = max(padded[-1], 2 * least) if max(padded) < 2 * least else padded[-1]
        raise ValueError(
            f"NoNewNet needs sides of at least {least}, one of them {2 * least} or more, got "
            f"{'x'.join(map(str, sides))}; pad to {'x'.join(map(str, padded))}"
        )


class Block(nn.Module):
    """3x3x3 convolution, instance norm, leaky ReLU: (n, in, d, h, w) -> (n, out, d, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, dims: int) -> None:
        super().__init__()
        self.conv = CONV[dims](in_channels, out_channels, 3, padding=1)
        self.norm = NORM[dims](out_channels, eps=1e-5, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.01)


CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
NORM: dict[int, type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]] = {
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}
POOL: dict[int, Callable[[Tensor, int], Tensor]] = {2: F.max_pool2d, 3: F.max_pool3d}
CAPS = {2: 480, 3: 320}
"""The largest number of filters, by dimensions: constants of the release, and of nnU-Net after it."""


def filters(width: int, levels: int, cap: int) -> tuple[int, ...]:
    """The number of filters of each level, finest first.

    >>> filters(30, 4, 320)
    (30, 60, 120, 240, 320)
    """
    return tuple(min(width * 2**level, cap) for level in range(levels + 1))


def regions_to_labels(probabilities: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Decode the three overlapping regions to BraTS label codes, smaller regions painted over larger ones.

    probabilities (n, 3, ...), sigmoids of (whole tumour, tumour core, enhancing tumour), averaged over flips
    and folds if there are several -> uint8 (n, ...) of 0, NECROSIS 1, EDEMA 2, ENHANCING 4. A region counts
    where its probability exceeds the threshold, also outside the region that should contain it, as in the
    release.
    """
    if probabilities.ndim < 3 or probabilities.shape[1] != len(REGIONS):
        raise ValueError(
            f"probabilities must be (n, 3, ...), one channel each for {', '.join(REGIONS)}, "
            f"got {tuple(probabilities.shape)}"
        )
    labels = torch.zeros_like(probabilities[:, 0], dtype=torch.uint8)
    for region, code in enumerate((EDEMA, NECROSIS, ENHANCING)):
        labels[probabilities[:, region] > threshold] = code
    return labels


def labels_to_regions(labels: Tensor) -> Tensor:
    """BraTS label codes, integers (n, ...), to targets for the three regions, float32 (n, 3, ...) of 0 and 1."""
    whole = labels != 0
    return torch.stack([whole, whole & (labels != EDEMA), labels == ENHANCING], dim=1).float()


def _name(depth: int, task: int) -> str:
    """ "out", "aux1", ... for the own heads, "aux_cotraining", "aux1_cotraining", ... for their twins."""
    level = f"aux{depth}" if depth else "aux"
    if task:
        return f"{level}_cotraining"
    return level if depth else "out"


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _nonewnet(
    name: str,
    *,
    num_classes: int = 3,
    in_channels: int = 4,
    weights: str | os.PathLike[str] | None = None,
    width: int = 30,
    cap: int | None = None,
    levels: int = 4,
    deep_supervision: bool = False,
    cotraining_classes: int | None = None,
) -> NoNewNet:
    """num_classes, in_channels: of the task; three regions, which may overlap, and the four `MODALITIES`. weights: the
    path of a checkpoint, or None. The rest: see `NoNewNet`.

    Raises TypeError for an unknown argument, ValueError for counts below 1, WeightsError for weights that do
    not fit.
    """
    return NoNewNet(
        in_channels,
        num_classes,
        dims=2 if name == "nonewnet_2d" else 3,
        width=width,
        cap=cap,
        levels=levels,
        deep_supervision=deep_supervision,
        cotraining_classes=cotraining_classes,
    )


nonewnet = variant(_nonewnet, "nonewnet", "The 3-D network for the three regions of BraTS.")
nonewnet_2d = variant(_nonewnet, "nonewnet_2d", "The network for slices or pictures, with a `cap` of 480.")


@builder
def nonewnet_softmax(
    *,
    num_classes: int = 4,
    in_channels: int = 4,
    weights: str | os.PathLike[str] | None = None,
    width: int = 30,
    cap: int | None = None,
    levels: int = 4,
    deep_supervision: bool = False,
    cotraining_classes: int | None = None,
) -> NoNewNet:
    """The 3-D network for exclusive classes, the paper's baseline; arguments as in `nonewnet`."""
    return NoNewNet(
        in_channels,
        num_classes,
        probabilities="softmax",
        width=width,
        cap=cap,
        levels=levels,
        deep_supervision=deep_supervision,
        cotraining_classes=cotraining_classes,
    )
