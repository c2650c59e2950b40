"""A JPEG file to a label map: torchvision's documented pipeline against ours, with the same network and weights.

torchvision: decode_image, weights.transforms(), model, argmax of "out" (its map has the size of the network's
input; ours that of the picture). Ours: Segmenter on the exported network. The weights are random, since the
official ones cannot be assumed to be on the machine: every layer's work is the same as with trained ones, and
the label map is noisier than a trained one, which is to our disadvantage. Also: the networks alone under the
same engine, `everyday` beside LRASPP.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from skimage import data
from torchvision.io import decode_image
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights, lraspp_mobilenet_v3_large

from pixelwise import Segmenter, models
from pixelwise.catalog import entry
from pixelwise.export.onnx import export_onnx
from timing import alternately, record


def random_torchvision_lraspp() -> torch.nn.Module:
    """torchvision's network with random weights under which its classes vary over the picture."""
    torch.manual_seed(0)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
    return network


def main() -> None:
    torch.set_grad_enabled(False)
    folder = Path(tempfile.mkdtemp())
    photo = folder / "coffee.jpg"
    Image.fromarray(data.coffee()).save(photo, quality=92)
    theirs = random_torchvision_lraspp()
    transforms = LRASPP_MobileNet_V3_Large_Weights.DEFAULT.transforms()
    ours = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    ours.load_state_dict(theirs.state_dict())
    export_onnx(ours, entry("lraspp_mobilenet_v3_large").card, folder / "lraspp.onnx")
    segmenter = Segmenter(folder / "lraspp.onnx")

    def documented() -> torch.Tensor:
        batch = transforms(decode_image(str(photo))).unsqueeze(0)
        return theirs(batch)["out"].argmax(dim=1)

    for _ in range(20):  # past the point where numba pays, as in any run over more than a few pictures
        segmenter(photo)
    height, width = data.coffee().shape[:2]
    at_their_size = np.asarray(
        Image.fromarray(segmenter(photo).labels).resize(documented().shape[:0:-1], Image.Resampling.NEAREST)
    )
    agree = float((documented()[0].numpy() == at_their_size).mean())
    everyday = Segmenter()
    contenders = {
        "torchvision": documented,
        "pixelwise": lambda: segmenter(photo),
        "pixelwise everyday": lambda: everyday(photo),
    }
    times = alternately(contenders, repeats=25, warmup=3)
    record(
        "pipeline", "LRASPP, JPEG file to label map, float32", "torchvision", "pixelwise", times,
        picture_hw=(height, width), network_hw=tuple(transforms(decode_image(str(photo))).shape[1:]),
        equal_pixels_at_their_size=agree, torch_threads=torch.get_num_threads(),
        torchvision_version=torchvision.__version__,
    )  # fmt: skip

    same = np.random.default_rng(0).normal(size=(1, 3, 513, 513)).astype(np.float32)
    times = alternately(
        {"lraspp": lambda: segmenter.engine(same), "everyday": lambda: everyday.engine(same)},
        repeats=25,
        warmup=3,
    )
    record("pipeline", "networks alone, ONNX Runtime, 1 x 3 x 513 x 513", "lraspp", "everyday", times)
    picture = data.coffee()
    mine, its = everyday.card.preprocess(picture), segmenter.card.preprocess(picture)
    times = alternately(
        {"lraspp": lambda: segmenter.engine(its), "everyday": lambda: everyday.engine(mine)},
        repeats=25,
        warmup=3,
    )
    record(
        "pipeline", "networks alone, ONNX Runtime, each at its own size for a 400 x 600 picture", "lraspp",
        "everyday", times, lraspp_hw=its.shape[2:], everyday_hw=mine.shape[2:],
    )  # fmt: skip


if __name__ == "__main__":
    main()
