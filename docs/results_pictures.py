"""Draw the pictures of results.md from finished runs: `python docs/results_pictures.py ../shared/data runs`.

The data sets' own pictures are not shown, as their licences do not allow it: what a model says, and where it errs.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise import Segmenter, draw
from pixelwise.labels import LabelSet
from pixelwise.metrics import ConfusionMatrix
from pixelwise.recipes import camvid, coco128, isbi

OUT = Path(__file__).with_name("results")
VERDICT = LabelSet.of(
    ("right", "wrong", "not scored"), colors=((225, 225, 225), (200, 30, 30), (255, 255, 255))
)


def pictures(segmenter, samples):
    """The held-out pictures with the lowest, the middle and the highest mean IoU: the answer, and where it errs."""
    answers = [segmenter.classes.to_indices(segmenter(sample.image).labels) for sample in samples]
    scores = [
        ConfusionMatrix(segmenter.classes.num_classes).update(answer, sample.mask).mean_iou()
        for answer, sample in zip(answers, samples, strict=True)
    ]
    order = np.argsort(scores)
    shown, captions = [], []
    for place in (order[0], order[len(order) // 2], order[-1]):
        answer, mask = answers[place], samples[int(place)].mask
        verdict = np.where(mask == 255, 2, answer != mask).astype(np.uint8)
        shown += [
            draw.colorize(segmenter.classes.to_ids(answer), segmenter.classes),
            draw.colorize(verdict, VERDICT),
        ]
        captions += [f"mean IoU {scores[place]:.2f}", "wrong in red"]
    rows = [draw.side_by_side(*shown[i : i + 2], captions=captions[i : i + 2], text_px=18) for i in (0, 2, 4)]
    widest = max(row.shape[1] for row in rows)
    filled = [np.pad(r, ((0, 0), (0, widest - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return np.concatenate(filled, axis=0)


def main() -> None:
    data, runs = Path(sys.argv[1]), Path(sys.argv[2])
    OUT.mkdir(exist_ok=True)
    runs_of = {"camvid": camvid.samples(data), "coco128": coco128.samples(data), "isbi": isbi.slices(data)}
    for name, (_, held_out) in runs_of.items():
        run = runs / name
        if not (run / "model.onnx").is_file():
            continue
        shutil.copy(run / "curves.png", OUT / f"{name}_curves.png")
        shutil.copy(run / "confusion.png", OUT / f"{name}_confusion.png")
        picture = Image.fromarray(pictures(Segmenter(run / "model.onnx"), held_out))
        picture.thumbnail((1000, 1400))
        picture.save(OUT / f"{name}_pictures.png", optimize=True)


if __name__ == "__main__":
    main()
