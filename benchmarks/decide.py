"""Coarse logits to a label map: `decide` against interpolate + argmax, on real logits and on noise.

Real logits are those of the embedded `everyday` model for scikit-image's photographs. Noise is the worst case:
every cell is a border.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch.nn import functional as F

from pixelwise import Segmenter
from pixelwise.inference.decide import decide
from pixelwise.inference.preprocess import normalize
from timing import alternately, record


def real_logits(coarse_hw: tuple[int, int]) -> np.ndarray:
    """Logits (21, h, w) of a photograph of a cat, scaled so that the network gives that many of them."""
    segmenter = Segmenter()
    rule = segmenter.card.preprocess
    size = [(side - 1) * segmenter.card.stride + 1 for side in coarse_hw]
    image = np.asarray(Image.fromarray(data.chelsea()).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return segmenter.engine(normalize(image, rule.mean, rule.std))[0]


def compare(work: str, logits: np.ndarray, size_hw: tuple[int, int], repeats: int) -> None:
    tensor = torch.from_numpy(logits)[None]

    def peer() -> torch.Tensor:
        full = F.interpolate(tensor, size=size_hw, mode="bilinear", align_corners=False)
        return full.argmax(dim=1)

    def ours() -> np.ndarray:
        return decide(logits, size_hw, align_corners=False)[0]

    agree = float((peer()[0].numpy() == ours()).mean())
    times = alternately({"interpolate + argmax": peer, "decide": ours}, repeats=repeats)
    record(
        "decide", work, "interpolate + argmax", "decide", times,
        classes=len(logits), coarse_hw=logits.shape[1:], size_hw=size_hw, equal_pixels=agree,
        torch_threads=torch.get_num_threads(),
    )  # fmt: skip


def main() -> None:
    import pixelwise.kernels  # noqa: F401  (numba is loaded, as in any process that decides more than a few)

    torch.set_grad_enabled(False)
    noise = np.random.default_rng(0).normal(size=(150, 256, 512)).astype(np.float32)
    small = real_logits((65, 65))
    compare("real logits, 21 x 65 x 65 to 520 x 520", small, (520, 520), 40)
    compare("real logits, 21 x 128 x 256 to 1024 x 2048", real_logits((128, 256)), (1024, 2048), 10)
    compare("noise, 21 x 65 x 65 to 520 x 520", noise[:21, :65, :65].copy(), (520, 520), 40)
    compare("noise, 150 x 256 x 512 to 1024 x 2048", noise, (1024, 2048), 3)


if __name__ == "__main__":
    main()
