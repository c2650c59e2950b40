"""A folder of nnU-Net v2, a scan to its label map: nnunetv2's own predictor against `Segmenter`, seconds per case.

Needs nnunetv2: run it with the Python of `.venv-peers-nnunet` (`make peers`). The folder is made by nnU-Net's trainer,
of a network that nobody has trained, half as wide as it plans for the hippocampus (16 to 128 features in four stages);
the scan is drawn. Both are open before the clock starts, take the array and its spacing, mirror eightfold and give
labels at the scan's own size; alternately in one process, with as many threads as there are cores. Beside it the same
without mirroring, and ours in float16 sums, whose labels are compared with theirs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from timing import alternately, record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

REPEATS = 3
SIZE, SPACING, PATCH = (40, 56, 48), (1.2, 1.0, 1.0), [40, 56, 40]
FEATURES = [16, 32, 64, 128]


def main() -> None:
    import torch

    from nnunet_by_hand import architecture, configuration, dataset_of, plans_of, scan
    from peers import test_nnunet as peer
    from pixelwise import Segmenter, Volume

    network = architecture(
        n_stages=4, features_per_stage=FEATURES, kernel_sizes=[[3] * 3] * 4, strides=[[1] * 3, *[[2] * 3] * 3],
        n_conv_per_stage=[2] * 4, n_conv_per_stage_decoder=[2] * 3,
    )  # fmt: skip
    plans = plans_of(configuration(patch_size=PATCH, spacing=[1.0] * 3, architecture=network))
    name = "Dataset900_Benchmark"
    peer.CASES[name] = (plans, dataset_of(), SPACING, 1)
    folder = peer.trained(name)
    values = scan(SIZE, smooth=4, noise=1)
    volume = Volume.of(values, spacing=SPACING)
    segmenter = Segmenter(folder)
    others = {"pytorch": Segmenter(folder, engine="pytorch")}
    found = {}
    for mirrors in (True, False):
        predictor = peer.predictor_of(folder, 1)
        predictor.use_mirroring = mirrors
        flips = () if mirrors else ("none",)

        def theirs(predictor=predictor):
            with peer.silent():
                return predictor.predict_single_npy_array(
                    values, {"spacing": list(SPACING)}, None, None, False
                )

        contenders = {
            "nnunetv2": theirs,
            "pixelwise": lambda flips=flips: segmenter(volume, flips=flips).labels,
        }
        contenders["pixelwise, float16 sums"] = lambda flips=flips: (
            segmenter(volume, flips=flips, accumulate="float16").labels
        )
        for engine, other in others.items():
            contenders[f"pixelwise, {engine}"] = lambda flips=flips, other=other: (
                other(volume, flips=flips).labels
            )
        found = {who: call() for who, call in contenders.items()}
        same = {who: float((labels == found["nnunetv2"]).mean()) for who, labels in found.items()}
        print(same, np.bincount(found["nnunetv2"].ravel()))
        times = alternately(contenders, REPEATS if mirrors else 3 * REPEATS, warmup=0)
        record(
            "nnunet", f"scan to labels, {'eight mirrored views' if mirrors else 'one view'}", "nnunetv2", "pixelwise",
            times, size=SIZE, patch=PATCH, features=FEATURES, threads=torch.get_num_threads(), equal_labels=same,
        )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        import os

        os.environ["PIXELWISE_CACHE"] = cache
        main()
