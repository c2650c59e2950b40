"""Made this folder: files as pixelwise wrote them at one commit (expected.json says which), which every later version
has to open alike. It imports that commit's modules; a later version need not be able to run it, but for `unpack`.

    PYTHONPATH=<tree>/src python make.py            makes all of it again, beside this script (a few minutes)
    from make import unpack                         for tests: a copy of the folder that can be gone on with

What is here:

    networks/*.safetensors      written by save() and convert_file(), with plan and card in their metadata
                                smp_converted and huggingface_converted are made of folders that SMP and
                                transformers themselves wrote, which are too large to keep
    onnx/*.onnx                 written by export_onnx(), with cards
    data/                       six drawn pictures and label maps, for the runs
    run/                        a finished run of `pixelwise train` (without its checkpoint, pictures and report)
    run_cut/                    a run of 8 steps, killed in the sixth: checkpoint.pt is of the fifth step
    pictures/, segmented/       a folder, and what `pixelwise segment` wrote of two thirds of it before it was stopped
    raster/                     a raster, and the folder of unfinished work of `pixelwise segment raster/map.tif`
    expected.json, expected.npz what that commit answers to each of these files

Journals and work.json name sources by absolute path and by the time of their last change. Both are pinned: paths
begin with ROOT, every file is as old as MTIME_NS. `unpack` puts the copy's own path in and sets the times. All commands
in expected.json are to be run in the copy's root, so that relative paths are what they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = "/written_before"
MTIME_NS = 1_700_000_000_000_000_000
NAMES_PATHS = (".pixelwise-journal.jsonl", "work.json")
STEP = 8
"""Of logits and confidences only every eighth value along each side is kept."""


def unpack(destination: Path, source: Path = HERE) -> Path:
    """A copy of this folder at `destination`, with its own path where paths are named, and the pinned times."""
    destination = Path(destination).absolute()
    shutil.copytree(source, destination, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in destination.rglob("*"):
        if path.name in NAMES_PATHS:
            path.write_text(path.read_text().replace(f'"{ROOT}/', f'"{destination.as_posix()}/'))
        if path.is_file():
            os.utime(path, ns=(MTIME_NS, MTIME_NS))
    return destination


def fixed_input(*shape: int) -> np.ndarray:
    """The input of a network: (1, c, h, w) or (1, c, d, h, w)."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def drawn_picture(h: int = 60, w: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture (h, w, 3) and its labels (h, w): on noisy ground a red disc (1) and a blue square (2)."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:h, :w]
    mask = np.zeros((h, w), np.uint8)
    y, x, radius = draw.integers(h // 4, 3 * h // 4), draw.integers(w // 5, w // 2), h // 5
    mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
    top, left = draw.integers(2, h - h // 3), draw.integers(w // 2, w - w // 4)
    mask[top : top + h // 4, left : left + h // 4] = 2
    image = draw.integers(2, 6, (h, w, 1)) * 16 + np.array([[0, 0, 0], [130, 0, 0], [0, 0, 130]])[mask]
    return image.astype(np.uint8), mask


def thinned(array: np.ndarray) -> np.ndarray:
    """Of an array (n, k, sides...) or (h, w) every eighth value along each side."""
    sides = array.ndim - 2 if array.ndim > 2 else 2
    return np.ascontiguousarray(array[(..., *[slice(None, None, STEP)] * sides)])


def hashes(file: Path) -> dict[str, str]:
    """SHA-256 of each tensor of a safetensors file."""
    from safetensors.numpy import load_file

    return {
        k: hashlib.sha256(np.ascontiguousarray(v).tobytes()).hexdigest() for k, v in load_file(file).items()
    }


def fill(network: Any) -> Any:
    """Every tensor from its name, so that nothing is 0 and no score map is flat."""
    import torch

    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(
                    tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))
                )
                if key.endswith("running_var"):
                    values = values.abs() * 0.5 + 0.5
                elif tensor.ndim > 1:
                    values *= 1.5 / max(1, tensor[0].numel()) ** 0.5
                else:
                    values = values * 0.1 + (1.0 if key.endswith("weight") else 0.0)
                tensor.copy_(values)
    return network.eval()


def command(*arguments: str, cwd: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """`pixelwise` with these arguments, after some Python in the same process."""
    code = f"import sys; sys.dont_write_bytecode = True; sys.argv = ['pixelwise', *sys.argv[1:]]\n{before}\n"
    code += "from pixelwise.cli import main\nsys.exit(main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PIXELWISE_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


# What is made ------------------------------------------------------------------------------------------------------

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    # file: name, arguments, input channels
    "nonewnet": (
        "nonewnet",
        {"width": 2, "levels": 2, "deep_supervision": True, "cotraining_classes": 2, "in_channels": 2},
        2,
    ),
    "unetplusplus_ds": ("unetplusplus_ds", {"filters": (2, 2, 4, 4, 4), "num_classes": 2, "mode": "fast"}, 3),
    "upernet_convnext_tiny": (
        "upernet_convnext_tiny",
        {"channels": (4, 4, 8, 8), "depths": (1, 1, 1, 1), "width": 4, "aux_loss": False, "num_classes": 5},
        3,
    ),
    "deeplabv1_vgg16_largefov": ("deeplabv1_vgg16_largefov", {"width_mult": 1 / 64, "num_classes": 21}, 3),
    "unet_on_mobilenetv3": (
        "unet",
        {
            "encoder": "timm-mobilenetv3_small_minimal_100", "encoder_depth": 2, "decoder_channels": (4, 4),
            "num_classes": 3, "in_channels": 4, "aux_loss": True,
        },
        4,
    ),
    "fpn_on_mobilenetv3": (
        "fpn",
        {
            "encoder": "tu-tf_mobilenetv3_small_minimal_100", "encoder_depth": 2, "pyramid_channels": 8,
            "segmentation_channels": 4, "merge": "cat", "num_classes": 4, "encoder_options": {"drop_path_rate": 0.1},
        },
        3,
    ),
}  # fmt: skip


def make_networks() -> None:
    from pixelwise.weights.checkpoint import save
    from pixelwise.weights.convert.family import Plan

    import pixelwise
    from pixelwise.labels import LabelSet
    from pixelwise.segmenter import default_card
    from pixelwise.weights.card import Score

    for file, (name, arguments, channels) in NETWORKS.items():
        network = fill(pixelwise.create_model(name, **arguments))
        card = default_card(network)
        if file in ("unetplusplus_ds", "unet_on_mobilenetv3"):  # as somebody's own network would have it
            classes = int(network.num_classes)
            card = card.replace(
                name=f"mine of {file}",
                labels=LabelSet.of([f"kind {i}" for i in range(classes)], ids=[10 * i + 7 for i in range(classes)]),
                preprocess=pixelwise.Preprocess(
                    mean=(0.1, 0.2, 0.3, 0.4)[:channels], std=(0.5, 0.25, 0.2, 0.125)[:channels], size=64,
                    side="longer", multiple=16, offset=1,
                ),
                scores=(Score("mean IoU", 0.5, "drawn pictures", "as they are", "measured here"),),
                licence="CC0",
                notes=("A note.",),
            )  # fmt: skip
        save(network, HERE / "networks" / f"{file}.safetensors", plan=Plan(name, dict(arguments)), card=card)


def make_foreign() -> None:
    """Two networks that other libraries write, and what convert_file makes of them."""
    import segmentation_models_pytorch as smp
    import transformers
    from pixelwise.weights.checkpoint import convert_file

    theirs = fill(
        smp.Unet("tu-tf_mobilenetv3_small_minimal_100", encoder_depth=2, encoder_weights=None, decoder_channels=(4, 4),
                 classes=3, decoder_interpolation="bilinear", activation="softmax")
    )  # fmt: skip
    theirs.save_pretrained(HERE / "networks/smp")
    config = transformers.SegformerConfig(
        hidden_sizes=[4, 6, 5, 8], depths=[1, 1, 1, 1], decoder_hidden_size=8, num_labels=6, num_channels=3
    )
    theirs = fill(transformers.SegformerForSemanticSegmentation(config))
    theirs.save_pretrained(HERE / "networks/huggingface")
    for name in ("smp", "huggingface"):
        convert_file(HERE / "networks" / name, HERE / "networks" / f"{name}_converted.safetensors")
        shutil.rmtree(HERE / "networks" / name)


def make_onnx() -> None:
    import pixelwise
    from pixelwise.export.onnx import export_onnx
    from pixelwise.labels import LabelSet
    from pixelwise.segmenter import default_card
    from pixelwise.weights.card import Score

    small = {"traced_at": (96, 128), "checked_at": ((97, 130), (130, 97))}
    two = fill(pixelwise.create_model("unet", encoder="timm-mobilenetv3_small_minimal_100", encoder_depth=2,
                                      decoder_channels=(4, 4), num_classes=2))  # fmt: skip
    export_onnx(two, default_card(two).replace(
        name="two", labels=LabelSet.of(["ground", "thing"], colors=[(0, 0, 0), (200, 30, 60)]),
        preprocess=pixelwise.Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), multiple=4)),
        HERE / "onnx/two.onnx", **small)  # fmt: skip
    many = fill(pixelwise.create_model("nonewnet_2d", width=3, levels=2, in_channels=3, num_classes=270))
    export_onnx(many, default_card(many).replace(
        name="many", labels=LabelSet.of([f"kind {i}" for i in range(270)], ids=range(1, 271), ignore_id=0),
        preprocess=pixelwise.Preprocess(size=96, multiple=4), multiply_adds=12345, multiply_adds_hw=(96, 96),
        licence="CC0", scores=(Score("mean IoU", 0.25, "drawn pictures", "as they are", "by construction"),),
        notes=("One.", "Two.")),
        HERE / "onnx/many.onnx", **small)  # fmt: skip
    aligned = fill(pixelwise.create_model("deeplabv1_vgg16_largefov", width_mult=1 / 64, num_classes=4))
    export_onnx(aligned, default_card(aligned).replace(
        name="aligned", preprocess=pixelwise.Preprocess(size=97, side="longer", multiple=8, offset=1)),
        HERE / "onnx/aligned.onnx", **small)  # fmt: skip


CONFIG = {
    "steps": 8, "batch_size": 2, "image_size": 32, "data": "data", "workers": 0, "seed": 1, "validate_every": 4,
    "save_minutes": 0,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "run": {
        "model": "unet", "encoder": "timm-mobilenetv3_small_minimal_100",
        "model_options": {"encoder_depth": 2, "decoder_channels": [4, 4]}, "class_balanced": True,
    },
    "run_cut": {
        "model": "nonewnet_2d", "model_options": {"width": 2, "levels": 2, "in_channels": 3}, "ema_decay": 0.9,
        "accumulate": 2, "clip_norm": 1.0, "warmup_steps": 2, "losses": {"cross_entropy": 1.0, "dice": 1.0},
    },
}  # fmt: skip
KEPT = {
    "run": ("config.json", "metrics.jsonl", "card.json", "weights.safetensors"),
    "run_cut": ("config.json", "metrics.jsonl", "checkpoint.pt", "best.pt"),
}

KILL = """
import os, signal
from pixelwise.training.progress import Metrics
add = Metrics.add
def add_and_die(self, values):
    add(self, values)
    if values["step"] == 6:
        os.kill(os.getpid(), signal.SIGKILL)
Metrics.add = add_and_die
"""


def make_runs(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The finished run, the killed one, and the tensors that both end with: hashes, which hold on a CPU of the same
    kind and with the same torch, and of the killed run the tensors themselves."""
    from PIL import Image
    from safetensors.numpy import load_file

    for folder in ("images", "masks"):
        (HERE / "data" / folder).mkdir(parents=True)
    for i in range(6):
        image, mask = drawn_picture(36, 44, seed=i)
        Image.fromarray(image).save(HERE / f"data/images/drawn{i}.png", optimize=True)
        Image.fromarray(mask).save(HERE / f"data/masks/drawn{i}.png", optimize=True)
    (HERE / "data/classes.txt").write_text("ground\ndisc\nsquare\n")
    expected = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        shutil.copytree(HERE / "data", root / "data")
        for name, fields in RUNS.items():
            (root / f"{name}.json").write_text(json.dumps(CONFIG | fields))
            started = ("train", "--config", f"{name}.json", "--out", name)
            whole = command(*started, cwd=root)
            assert whole.returncode == 0, whole.stderr
            expected[name] = {
                "config": CONFIG | fields,
                "files": sorted(path.name for path in (root / name).iterdir()),
                "tensors": hashes(root / name / "weights.safetensors"),
                "losses": losses(root / name),
                "scores": json.loads((root / name / "card.json").read_text())["scores"],
            }
            if name == "run_cut":
                first = hashes(root / name / "weights.safetensors")
                for key, value in load_file(root / name / "weights.safetensors").items():
                    arrays[f"runs/{name}/{key}"] = value
                shutil.rmtree(root / name)
                killed = command(*started, cwd=root, before=KILL)
                assert killed.returncode == -signal.SIGKILL, killed.stderr
                shutil.copytree(root / name, root / "kept")
                resume = ("train", "--out", name, "--resume")
                resumed = command(*resume, cwd=root)
                assert resumed.returncode == 0, resumed.stderr
                assert hashes(root / name / "weights.safetensors") == first, "resuming gave other weights"
                assert losses(root / name) == expected[name]["losses"]
                expected[name]["resume"] = ["pixelwise", *resume]
                shutil.rmtree(root / name)
                (root / "kept").rename(root / name)
            (HERE / name).mkdir()
            for path in (root / name).iterdir():
                if path.name in KEPT[name]:
                    shutil.copy(path, HERE / name)
    return expected


def losses(run: Path) -> list[list[Any]]:
    """[step, loss or score] of each line of metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [[line["step"], line.get("loss", line.get("score"))] for line in lines]


STOP = """
import pixelwise.pipeline.raster as raster
class Stops:
    def __init__(self, predict):
        self.predict, self.asked = predict, 0
    def __call__(self, images):
        if self.asked == {tiles}:
            raise KeyboardInterrupt
        self.asked += 1
        return self.predict(images)
remembered = raster._Work.remembered
raster._Work.remembered = lambda self, predict: remembered(self, Stops(predict))
"""


def make_segmented() -> dict[str, Any]:
    """A folder of which four of six pictures are done; and a raster stopped in its second row of tiles."""
    import rasterio
    from PIL import Image
    from rasterio.transform import from_origin

    (HERE / "pictures/below").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "below/c.png", "below/d.png", "e.png", "f.png")):
        Image.fromarray(drawn_picture(48, 64, seed=10 + i)[0]).save(HERE / "pictures" / name, optimize=True)
    land = np.concatenate([drawn_picture(128, 72, seed=20)[0], drawn_picture(32, 72, seed=21)[0]])
    land[40:60, 30:50] = 0
    (HERE / "raster").mkdir()
    with rasterio.open(
        HERE / "raster/map.tif", "w", driver="GTiff", height=160, width=72, count=3, dtype="uint8", crs="EPSG:32633",
        transform=from_origin(500_000, 4_600_000, 10, 10), nodata=0, compress="deflate",
    ) as file:  # fmt: skip
        file.write(land.transpose(2, 0, 1))

    expected = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = unpack(Path(scratch) / "root")
        pictures = tuple(
            "segment pictures --out segmented --model onnx/two.onnx --format labels,overlay,json".split()
        )
        pictures += ("--flip", "horizontal")
        for name in ("e.png", "f.png"):  # not there yet, so not done
            (root / "pictures" / name).rename(root / name)
        ran = command(*pictures, cwd=root)
        assert ran.returncode == 0, ran.stderr
        for name in ("e.png", "f.png"):
            (root / name).rename(root / "pictures" / name)
        shutil.copytree(root / "segmented", HERE / "segmented")
        ran = command(*pictures, "--resume", cwd=root)
        assert ran.returncode == 0, ran.stderr
        assert "4 of 6 were finished before" in ran.stderr
        expected["segmented"] = {
            "resume": ["pixelwise", *pictures, "--resume"],
            "says": "4 of 6 were finished before",
            "labels": labels_in(root / "segmented"),
        }

        raster = tuple("segment raster/map.tif --out raster/out --model onnx/aligned.onnx --tile 64".split())
        raster += ("--overlap", "16")
        straight = command(*raster[:3], "raster/straight", *raster[4:], cwd=root)
        assert straight.returncode == 0, straight.stderr
        ran = command(*raster, cwd=root, before=STOP.format(tiles=3))
        assert ran.returncode != 0, "it was not stopped"
        assert (root / "raster/out").is_dir(), ran.stderr
        shutil.copytree(root / "raster/out", HERE / "raster/out")
        ran = command(*raster, "--resume", cwd=root)
        assert ran.returncode == 0, ran.stderr
        assert "continuing at row" in ran.stderr
        done = (root / "raster/out/map.labels.tif").read_bytes()
        assert done == (root / "raster/straight/map.labels.tif").read_bytes(), "resuming gave other bytes"
        with rasterio.open(root / "raster/out/map.labels.tif") as file:
            ids = file.read(1)
        expected["raster"] = {
            "resume": ["pixelwise", *raster, "--resume"],
            "says": next(line for line in ran.stderr.splitlines() if "continuing" in line).partition(
                "map.tif: "
            )[2],
            "geotiff_sha256": hashlib.sha256(done).hexdigest(),
            "labels_sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
            "ids": {str(i): int(n) for i, n in zip(*np.unique(ids, return_counts=True), strict=True)},
        }
        for path in [*(HERE / "segmented").rglob("*"), *(HERE / "raster").rglob("*")]:
            if path.name in NAMES_PATHS:
                path.write_text(path.read_text().replace(f'"{root.as_posix()}/', f'"{ROOT}/'))
    return expected


def labels_in(folder: Path) -> dict[str, str]:
    """SHA-256 of the class ids in each label map of a folder."""
    from PIL import Image

    found = {}
    for path in sorted(folder.rglob("*.labels.png")):
        with Image.open(path) as opened:
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(
                np.asarray(opened).tobytes()
            ).hexdigest()
    return found


# What is expected --------------------------------------------------------------------------------------------------


def shape_of(file: str, channels: int) -> tuple[int, ...]:
    return (1, channels, 16, 16, 16) if file == "nonewnet" else (1, channels, 48, 64)


def expect_networks(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch
    from safetensors import safe_open

    from pixelwise import from_checkpoint

    expected = {}
    files = [f"{name}.safetensors" for name in NETWORKS]
    files += ["smp_converted.safetensors", "huggingface_converted.safetensors"]
    for file in files:
        path = HERE / "networks" / file
        network = from_checkpoint(path)
        name = path.stem
        channels = NETWORKS[name][2] if name in NETWORKS else 3
        shape = shape_of(name, channels)
        with torch.no_grad():
            logits = network(torch.from_numpy(fixed_input(*shape)))
        logits = logits if isinstance(logits, dict) else {"out": logits}
        for key, value in logits.items():
            if isinstance(value, torch.Tensor):
                arrays[f"networks/{file}/{key}"] = thinned(value.numpy())
        expected[file] = {
            "input": list(shape),
            "outputs": {
                key: list(value.shape) for key, value in logits.items() if isinstance(value, torch.Tensor)
            },
            "stride": network.stride,
            "align_corners": network.align_corners,
            "num_classes": network.num_classes,
            "parameters": sum(p.numel() for p in network.parameters()),
            "tensors": len(network.state_dict()),
        }
        if path.is_file():
            with safe_open(path, "np") as opened:
                card = json.loads(opened.metadata()["pixelwise.card"])
            expected[file]["card"] = about(card)
    return expected


def about(card: dict[str, Any]) -> dict[str, Any]:
    labels = card["labels"]
    few = labels["names"] if len(labels["names"]) < 40 else None
    return {
        "name": card["name"],
        "architecture": card["architecture"],
        "names": few,
        "labels_sha256": hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest(),
        "ids": labels["ids"] if few else [labels["ids"][0], labels["ids"][-1]],
        "ignore_id": labels["ignore_id"],
        "preprocess": card["preprocess"],
        "stride": card["stride"],
        "align_corners": card["align_corners"],
        "parameters": card["parameters"],
        "scores": card["scores"],
        "notes": card["notes"],
        "licence": card["licence"],
    }


def expect_onnx(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    from pixelwise import Segmenter

    picture, _ = drawn_picture()
    expected = {}
    for path in sorted((HERE / "onnx").glob("*.onnx")):
        segmenter = Segmenter(path, threads=1)
        found = segmenter(picture, confidence=True)
        arrays[f"onnx/{path.name}/labels"] = found.labels
        arrays[f"onnx/{path.name}/confidence"] = thinned(np.asarray(found.confidence))
        expected[path.name] = about(json.loads(json.dumps(segmenter.card.to_dict())))
    return expected


def main() -> None:
    import torch

    import pixelwise

    torch.set_num_threads(1)
    for path in HERE.iterdir():
        if path.name != Path(__file__).name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    tree = Path(pixelwise.__file__).parents[2]
    commit = subprocess.run(
        ["git", "-C", tree, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    expected: dict[str, Any] = {"commit": commit.stdout.strip(), "torch": torch.__version__}
    arrays: dict[str, np.ndarray] = {}
    with contextlib.redirect_stdout(sys.stderr):
        make_networks()
        make_foreign()
        expected["networks"] = expect_networks(arrays)
        make_onnx()
        expected["onnx"] = expect_onnx(arrays)
        expected["runs"] = make_runs(arrays)
        expected |= make_segmented()
    np.savez_compressed(HERE / "expected.npz", **arrays)
    text = json.dumps(expected, indent=1)
    (HERE / "expected.json").write_text(text + "\n")
    for path in HERE.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(MTIME_NS, MTIME_NS))


if __name__ == "__main__":
    main()
