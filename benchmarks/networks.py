"""A JPEG file to a label map with whole networks: torchvision's documented pipeline, and transformers', against ours.

    python benchmarks/networks.py                       # all, about ten minutes on two cores
    python benchmarks/networks.py --only lraspp,fcn_resnet50 --repeats 5

Peers: decode_image, weights.transforms(), the model, argmax of "out" (whose map has the size of the network's input);
and SegformerImageProcessor, the model, post_process_semantic_segmentation at its size. Ours: Segmenter on the
exported file, its map as large as the picture, in ONNX Runtime in float32, OpenVINO in bfloat16, and for those on
ResNet-50 what `pixelwise quantize` makes of the file in int8. Every network has random weights under which its classes
vary over the picture, the same on both sides; the pictures are scikit-image's, 1024x683. Beside the time: in how many
pixels each answer is that of our float32, the network's operations a second as a share of the most that this machine
does in one large convolution in the same run, and how much of the time lies outside of the network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from skimage import data
from torchvision.io import decode_image
from torchvision.models import segmentation

from pixelwise import Segmenter, from_checkpoint, models
from pixelwise.catalog import card_for, entry
from pixelwise.errors import InputError
from pixelwise.export.onnx import export_onnx
from timing import alternately, record

NETWORKS = {
    "lraspp": ("lraspp_mobilenet_v3_large", "LRASPP_MobileNet_V3_Large_Weights"),
    "deeplabv3_mobilenet": ("deeplabv3_mobilenet_v3_large", "DeepLabV3_MobileNet_V3_Large_Weights"),
    "deeplabv3_resnet50": ("deeplabv3_resnet50", "DeepLabV3_ResNet50_Weights"),
    "fcn_resnet50": ("fcn_resnet50", "FCN_ResNet50_Weights"),
}
"""Of torchvision: the name of the network and of its weights."""

INT8 = ("deeplabv3_resnet50", "fcn_resnet50")


def varied(network: torch.nn.Module) -> torch.nn.Module:
    """The network with random weights under which its classes vary over a picture."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
    return network.eval()


def photo(folder: Path) -> Path:
    path = folder / "photo.jpg"
    Image.fromarray(data.astronaut()).resize((1024, 683), Image.Resampling.LANCZOS).save(path, quality=90)
    return path


def calibration(folder: Path) -> Path:
    """A folder of pictures to quantise with."""
    there = folder / "pictures"
    there.mkdir()
    for name in (
        "coffee",
        "chelsea",
        "rocket",
        "cat",
        "colorwheel",
        "hubble_deep_field",
        "immunohistochemistry",
    ):
        picture = Image.fromarray(getattr(data, name)()).convert("RGB")
        picture.resize((780, 520), Image.Resampling.LANCZOS).save(there / f"{name}.png")
    return there


def peak_gflops(threads: int) -> Callable[[], float]:
    """A function that runs one convolution, 512 to 512 channels, 3x3 at 64x96, and returns its GFLOP."""
    weights = np.zeros((512, 512, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4, kernel_shape=[3, 3])],
        "peak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 512, 64, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = np.zeros((1, 512, 64, 96), np.float32)

    def run() -> float:
        session.run(None, {"x": image})
        return 2 * 9 * 512 * 512 * 64 * 96 / 1e9

    return run


def torchvisions(name: str, folder: Path, picture: Path) -> tuple[Callable[[], Any], Path]:
    """torchvision's pipeline, and the same network as a file of ours."""
    kind, weights = NETWORKS[name]
    theirs = varied(getattr(segmentation, kind)(weights=None, weights_backbone=None, num_classes=21))
    transforms = getattr(segmentation, weights).DEFAULT.transforms()
    ours = getattr(models, kind)(weights=None, weights_backbone=None)
    ours.load_state_dict(theirs.state_dict())
    path = folder / f"{name}.onnx"
    export_onnx(ours, entry(kind).card, path)

    def documented() -> torch.Tensor:
        batch = transforms(decode_image(str(picture))).unsqueeze(0)
        return theirs(batch)["out"].argmax(dim=1)

    return documented, path


def transformers_segformer(folder: Path, picture: Path) -> tuple[Callable[[], Any], Path]:
    """transformers' SegFormer-B0 of 150 classes, as its documentation runs it, and the same as a file of ours."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=150, depths=[2, 2, 2, 2], hidden_sizes=[32, 64, 160, 256], decoder_hidden_size=256
    )
    theirs = varied(SegformerForSemanticSegmentation(config))
    processor = SegformerImageProcessor(
        do_resize=True, size={"height": 512, "width": 512}, do_reduce_labels=False
    )
    theirs.save_pretrained(folder / "segformer")
    processor.save_pretrained(folder / "segformer")
    ours = from_checkpoint(folder / "segformer")
    export_onnx(ours, card_for(ours), folder / "segformer.onnx")

    def documented() -> torch.Tensor:
        image = Image.open(picture)
        outputs = theirs(**processor(images=image, return_tensors="pt"))
        return processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])[0]

    return documented, folder / "segformer.onnx"


def plain(path: Path) -> Path:
    """The file without the rewriting that is ONNX Runtime's alone."""
    from pixelwise.export import winograd

    model = onnx.load(path)
    winograd.restore(model)
    onnx.save(model, path.with_suffix(".plain.onnx"))
    return path.with_suffix(".plain.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join([*NETWORKS, "segformer"]))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--without-int8", action="store_true")
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    folder = Path(tempfile.mkdtemp())
    picture = photo(folder)
    for name in asked.only.split(","):
        if name == "segformer":
            (documented, path), peer = transformers_segformer(folder, picture), "transformers"
        else:
            (documented, path), peer = torchvisions(name, folder, picture), "torchvision"
        segmenters = {
            "pixelwise": Segmenter(path),
            "pixelwise without rewriting": Segmenter(plain(path)),
        }
        try:
            segmenters["pixelwise bfloat16"] = Segmenter(path, engine="openvino", precision="bfloat16")
        except InputError as error:  # not on a processor without it
            print(error)
        if name in INT8 and not asked.without_int8:
            from pixelwise.quantizing import quantize_model

            out = folder / f"{name}.int8.xml"
            print(
                quantize_model(
                    plain(path), calibration(folder) if name == INT8[0] else folder / "pictures", out
                )
            )
            segmenters["pixelwise int8"] = Segmenter(out)
        expected = segmenters["pixelwise"](picture).labels
        agreement = {
            who: float((segmenter(picture).labels == expected).mean())
            for who, segmenter in segmenters.items()
        }
        found = np.asarray(documented())
        found = found[0] if found.ndim == 3 else found
        at_their_size = Image.fromarray(expected).resize(found.shape[::-1], Image.Resampling.NEAREST)
        agreement[peer] = float((found == np.asarray(at_their_size)).mean())
        image = segmenters["pixelwise"].card.preprocess(np.asarray(Image.open(picture)))
        peak = peak_gflops(threads)
        contenders: dict[str, Callable[[], object]] = {peer: documented}
        contenders |= {who: (lambda s=segmenter: s(picture)) for who, segmenter in segmenters.items()}
        contenders["network alone"] = lambda e=segmenters["pixelwise"].engine, i=image: e(i)
        contenders["convolution"] = peak
        times = alternately(contenders, repeats=asked.repeats, warmup=2)
        medians = {who: statistics.median(values) for who, values in times.items()}
        card = segmenters["pixelwise"].card
        details = {
            "picture_hw": (683, 1024), "network_hw": image.shape[2:], "threads": threads, "agreement": agreement,
            "peak_gflops": round(peak() / medians["convolution"] * 1e3, 1),
            "outside_network_ms": round(medians["pixelwise"] - medians["network alone"], 2),
            "multiply_adds": card.multiply_adds, "torchvision_version": torchvision.__version__,
        }  # fmt: skip
        for who in segmenters:
            record("networks", f"{name}, JPEG file to label map", peer, who, times, **details)


if __name__ == "__main__":
    main()
