"""`everyday` in int8, from the file in the package and the data folder to the file that lies beside it.

    python -m pixelwise.recipes.everyday_int8 --data ../shared/data --out runs/everyday_int8

Measured on the 445 val pictures as `everyday` is: mIoU of the seven populated classes 0.8449 (float32: 0.8446), of all
that occur 0.5950 (0.5997), pixel accuracy 0.9423 (0.9430). One of its 55 layers is in float32. Takes two minutes on two
cores of an AMD EPYC.
"""

from __future__ import annotations

import onnx

from pixelwise.exporting import with_card
from pixelwise.quantizing import quantize_model
from pixelwise.recipes.everyday import measured
from pixelwise.recipes.folders import folders
from pixelwise.segmenter import Segmenter


def main() -> None:
    does = "Quantise and measure the embedded model `everyday`."
    data, out = folders(does, "everyday_int8", holds="voc2012_animals", gets="everyday.int8.onnx")
    path = out / "everyday.int8.onnx"
    print(quantize_model("everyday", data / "voc2012_animals", path, overwrite=True))
    segmenter = Segmenter(path)
    scores = measured(segmenter, data)
    onnx.save(with_card(onnx.load(path), segmenter.card.replace(scores=scores)), path)
    for score in scores:
        print(f"{score.metric}: {score.value:.4f}")


if __name__ == "__main__":
    main()
