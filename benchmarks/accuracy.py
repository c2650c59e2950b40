"""How right a model is, measured at the pictures' own size through `pixelwise.Segmenter`.

    python benchmarks/accuracy.py voc ../shared/data/voc2012_animals                    # everyday on the
    val list python benchmarks/accuracy.py voc FOLDER --split val --model deeplabv3_resnet50 --json python
    benchmarks/accuracy.py nuclei ../shared/data                                 # nuclei on its held-out
    tiles

voc: FOLDER in Pascal VOC's layout. One 64-bit confusion matrix over the whole list; 255 is ignored; a class
that neither truth nor answer holds is NaN and left out of means. nuclei: Dice of the nucleus class.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from pixelwise import Segmenter
from pixelwise.datasets.voc import VOCSegmentation
from pixelwise.errors import InputError
from pixelwise.labels import VOC
from pixelwise.metrics import ConfusionMatrix
from pixelwise.recipes import everyday, nuclei


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["voc", "nuclei"])
    parser.add_argument(
        "folder", type=Path, help="voc: the VOC folder; nuclei: the folder that holds dsb2018_nuclei"
    )
    parser.add_argument("--model", help="a name or an ONNX file (default: everyday or nuclei)")
    parser.add_argument(
        "--split", default="val", help="voc: a list under ImageSets/Segmentation (default: val)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    try:
        result = (score_voc if arguments.task == "voc" else score_nuclei)(arguments)
    except InputError as error:
        sys.exit(f"accuracy.py: {error}")
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for inner, number in value.items():
                print(f"  {inner:<14}{'absent' if number is None else format(number, '.4f')}")
        else:
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


def score_voc(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pixel accuracy and IoU of a model of VOC's 21 classes on one list."""
    samples = VOCSegmentation(arguments.folder, arguments.split)
    segmenter = Segmenter(arguments.model or "everyday")
    if segmenter.classes.num_classes != VOC.num_classes:
        raise InputError(
            f"{segmenter.card.name} knows {segmenter.classes.num_classes} classes, the folder VOC's "
            f"{VOC.num_classes}; choose a model of VOC's classes"
        )
    confusion = ConfusionMatrix(VOC.num_classes)
    for done, sample in enumerate(samples, start=1):
        confusion.update(segmenter(sample.image).labels, sample.mask)
        if done % 50 == 0 or done == len(samples):
            print(f"{done}/{len(samples)}", file=sys.stderr)
    return {
        "model": segmenter.card.name,
        "pictures": len(samples),
        "pixels": int(confusion.matrix.sum()),
        "pixel_accuracy": confusion.pixel_accuracy(),
        "mean_iou_populated": confusion.mean_iou(VOC.index(name) for name in everyday.POPULATED),
        "mean_iou_present": confusion.mean_iou(),
        "iou": {
            name: None if math.isnan(value) else value
            for name, value in zip(VOC.names, confusion.iou().tolist(), strict=True)
        },
    }


def score_nuclei(arguments: argparse.Namespace) -> dict[str, Any]:
    """Dice of a nucleus model on the tiles that `recipes/nuclei.py` held out."""
    training, held_out = nuclei.tiles(arguments.folder)
    segmenter = Segmenter(arguments.model or "nuclei")
    whole, mean = nuclei.score(segmenter, held_out)
    return {
        "model": segmenter.card.name,
        "tiles_training": len(training),
        "tiles": len(held_out),
        "dice": whole,
        "dice_mean_per_tile": mean,
    }


if __name__ == "__main__":
    main()
