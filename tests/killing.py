"""Commands that are killed at random and called again, until their results are compared with those of one that was not.

python tests/killing.py KIND OUT KILLS SEED     KIND: folder, raster, train or export

A script, because it forks: what is slow to import is imported once, and each command runs in a child of its own as
`pixelwise.cli` runs it. The seed draws when each is killed, from the time that a whole one takes; how far it has come
by then is up to the machine, and whatever that was, the result must be the same, bit for bit, with nothing left beside.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.cli import main
from pixelwise.pipeline.journal import JOURNAL
from tiny import write_colors_model

FORMATS = "labels,ids,npy,geotiff,geojson,coco,coco-polygons,overlay,contours,legend,confidence,csv,json"


def folder(place: Path) -> list[str]:
    """Pictures in two folders, each written in every format."""
    draw = np.random.default_rng(0)
    for i in range(8):
        path = place / "in" / ("a", "b")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (40, 60, 3), np.uint8)).save(path)
    write_colors_model(place / "model.onnx")
    return ["segment", "in", "--model", "model.onnx", "--out", "out", "--format", FORMATS]


def raster(place: Path) -> list[str]:
    """A raster in many tiles, cleaned up, as a GeoTIFF and whole."""
    import rasterio

    values = np.random.default_rng(0).integers(0, 255, (3, 700, 300), np.uint8)
    profile = {"driver": "GTiff", "height": 700, "width": 300, "count": 3, "dtype": "uint8"}
    with rasterio.open(
        place / "map.tif", "w", **profile, transform=rasterio.Affine(2, 0, 0, 0, -2, 0)
    ) as file:
        file.write(values)
    write_colors_model(place / "model.onnx")
    how = ["--tile", "64", "--overlap", "0.25", "--min-area", "9", "--format", "geotiff,npy,json"]
    return ["segment", "map.tif", "--model", "model.onnx", "--out", "out", *how]


def train(place: Path) -> list[str]:
    """A run with averaged weights, which validates and keeps every step."""
    from drawn import draw_folder

    draw_folder(place / "data", 6)
    config = {
        "steps": 8, "batch_size": 2, "model": "unet", "model_options": {"width": 4}, "image_size": 64, "workers": 0,
        "ema_decay": 0.9, "validate_every": 2, "save_minutes": 0, "data": "data", "seed": 3,
    }  # fmt: skip
    (place / "wanted.json").write_text(json.dumps(config))
    return ["train", "--config", "wanted.json", "--out", "out"]


def export(place: Path) -> list[str]:
    """A small network to ONNX."""
    import torch

    import pixelwise

    torch.manual_seed(0)
    card = pixelwise.Card.of(["ground", "thing"], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    network = pixelwise.create_model("unet_bilinear", num_classes=2, width=4)
    pixelwise.save(network, place / "it.safetensors", card=card)
    return ["export", "it.safetensors", "--out", "out/it.onnx"]


KINDS = {"folder": folder, "raster": raster, "train": train, "export": export}


def started(place: Path, command: list[str]) -> int:
    """Run a command in a child, in the folder `place`; its process id."""
    if child := os.fork():
        return child
    try:
        os.chdir(place)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = ["pixelwise", *command]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        code = 70
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(code or 0)


def ended(child: int, after_s: float) -> int | None:
    """The exit code of a child, or None where it had to be killed after so many seconds."""
    until = time.monotonic() + after_s
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return None if code == -signal.SIGKILL else code
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(found[1])


def again(kind: str, command: list[str], place: Path) -> list[str]:
    """What somebody types after a kill."""
    if kind == "train":  # a run that had not begun says so, and then it is as the first time
        return [*command[:1], "--out", "out", "--resume"] if (place / "out/config.json").exists() else command
    return [*command, "--overwrite"] if kind == "export" else [*command, "--resume"]


def content(path: Path) -> object:
    """What must be the same: the bytes; of a journal, a checkpoint and a log what does not tell of time and place."""
    if path.name == JOURNAL:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return sorted(
            {json.dumps({k: v for k, v in line.items() if k in ("hash", "files")}) for line in lines}
        )
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    if path.suffix == ".pt":
        import torch

        return listed(torch.load(path, weights_only=True))
    return path.read_bytes()


def listed(value: object) -> object:
    """Tensors as bytes, in dictionaries and lists of any depth."""
    import torch

    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), value.contiguous().numpy().tobytes()]
    if isinstance(value, dict):
        return [
            [str(key), listed(inner)] for key, inner in sorted(value.items(), key=lambda pair: str(pair[0]))
        ]
    return [listed(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def tree(place: Path) -> dict[str, object]:
    return {str(p.relative_to(place)): content(p) for p in sorted((place / "out").rglob("*")) if p.is_file()}


def said(place: Path) -> str:
    return (place / "said.txt").read_text(errors="replace")


def kill_again_and_again(kind: str, out: Path, wanted: int, seed: int) -> dict[str, int]:
    """Kill until there were so many, each time some of one run; how many kills, and how many runs were compared."""
    whole = out / "whole"
    whole.mkdir(parents=True)
    command = KINDS[kind](whole)
    shutil.copytree(whole, out / "plain")
    began = time.monotonic()
    assert ended(started(whole, command), 1e9) == 0, said(whole)
    seconds = (
        time.monotonic() - began
    )  # of the fastest so far, so that a busy machine does not put off every kill
    expected = tree(whole)
    assert expected
    chance, kills, runs = random.Random(seed), 0, 0
    while kills < wanted:
        place, code, now = out / "cut", None, command
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(out / "plain", place)
        for left in range(5, -1, -1):
            delay = 1e9 if left == 0 or kills == wanted else chance.random() * seconds
            began = time.monotonic()
            code = ended(started(place, now), delay)
            if code is not None:
                seconds = min(seconds, time.monotonic() - began) if now is command else seconds * 0.8
                break
            kills += 1
            now = again(kind, command, place)
        assert code == 0, (kills, now, said(place))
        found = tree(place)
        wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        assert not wrong, (kills, wrong)
        runs += 1
    return {"kills": kills, "runs": runs}


if __name__ == "__main__":
    kind, out, wanted, seed = sys.argv[1:]
    with contextlib.suppress(ModuleNotFoundError):
        import torch

        torch.set_num_threads(1)
        if kind in ("train", "export"):
            import onnx  # noqa: F401

            import pixelwise.export.onnx
            import pixelwise.training.runner  # noqa: F401
    print(json.dumps(kill_again_and_again(kind, Path(out), int(wanted), int(seed))))
