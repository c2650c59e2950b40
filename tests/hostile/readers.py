"""All that reads what somebody else wrote, as functions of bytes: what is fuzzed, and what replays what was found.

A reader returns, or raises a PixelwiseError; anything else is a finding. Its file lies in the working directory.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hostile import (
    adopted,
    cards,
    coco,
    configs,
    data_sets,
    folders,
    geojson,
    pictures,
    rasters,
    videos,
    volumes,
)
from hostile.cases import Failed, Place, encoded, npy, typed
from hostile.checkpoints import OURS, _weights, head, torch_file
from hostile.label_files import MAP
from hostile.runs import BEFORE


@dataclass(frozen=True)
class Reader:
    """read: takes the bytes. seeds: whole inputs to begin with. json: they are JSON, and are changed as such too."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    json: bool = False


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def written(name: str, data: bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return name


def labels(name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from pixelwise.outputs.reading import read_labels
        from tiny import COLORS

        return read_labels(written(name, data), COLORS)

    return read


def picture(channels: int) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from pixelwise import images

        return images.read(data, channels=channels, max_pixels=1_000_000)

    return read


def raster(name: str, source: str | None = None) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from pixelwise.sources.raster import open_raster

        written(name, data)
        found = open_raster(Path(source or name))
        try:
            height, width = found.size_hw
            return found.read(0, min(height, 64)) if width < 10_000 else None
        finally:
            found.close()

    return read


def video(data: bytes) -> object:
    from pixelwise.sources.video import Video

    with Video(Path(written("x.avi", data)), max_pixels=1_000_000) as found:
        return [frame.image.shape for frame, _ in zip(found, range(8), strict=False)]


def volume(name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from pixelwise import read_volume

        return read_volume(written(name, data), max_memory=2**26).values.shape

    return read


def slices(data: bytes) -> object:
    """A series, one of whose slices is these bytes."""
    from pixelwise import read_volume

    for i, whole in enumerate(volumes.slices()):
        written(f"series/{i}.dcm", data if i == 1 else whole)
    return read_volume("series", max_memory=2**26).values.shape


def card(data: bytes) -> object:
    from pixelwise import Card

    return Card.from_json(text(data)).to_json()


def class_list(data: bytes) -> object:
    from pixelwise.datasets.opening import read_classes

    written("data/classes.txt", data)
    return read_classes(Path("data"))


def manifest(data: bytes) -> object:
    from pixelwise.datasets.manifest import read_manifest

    written("data/pixelwise.json", data)
    found = read_manifest(Path("data"))
    return found and found.to_json()


def palette(data: bytes) -> object:
    from pixelwise.datasets.adopt.palettes import read_palette

    return read_palette(Path(written("palette.txt", data)))


def outlines(name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from pathlib import PurePath

        from pixelwise.datasets.adopt.outlines import find_outlines
        from pixelwise.datasets.adopt.shapes import draw

        files = {PurePath(name): Path(written(f"outlines/{name}", data)).absolute()}
        found = find_outlines(files, [PurePath("a.png")])
        return [
            draw(shapes, (12, 16), len(one.names), codes=codes)[0].max()
            for one in found
            for shapes in one.shapes.values()
            for codes in (False, True)
        ]

    return read


def label_pages(data: bytes) -> object:
    from pixelwise.datasets.adopt.pages import count_pages, orientation, read_page

    path = Path(written("pages.tif", data))
    return count_pages(path), orientation(path), read_page(path)[0].shape


def name_list(data: bytes) -> object:
    from pixelwise.datasets.lists import names_in

    return names_in(Path(written("names.txt", data)))


def coco_set(data: bytes) -> object:
    from pixelwise.datasets.opening import open_data

    written("coco/annotations/instances_val2017.json", data)
    written("coco/val2017/a.jpg", data_sets.jpg())
    return [pair.read_ids().shape for pair in open_data(Path("coco"), "coco").pairs if pair.image is not None]


def sbd_set(data: bytes) -> object:
    from pixelwise.datasets.opening import open_data

    for name, whole in data_sets.sbd(data).items():
        written(f"sbd/{name}", whole if isinstance(whole, bytes) else whole.encode())
    return [pair.read_ids().shape for pair in open_data(Path("sbd"), "sbd").pairs]


def label_array(data: bytes) -> object:
    from pixelwise.datasets.sample import Pair

    return Pair("a", "all", None, Path(written("mask.npy", data))).read_ids()


def journal(data: bytes) -> object:
    from pixelwise.pipeline.journal import Journal

    written("out/.pixelwise-journal.jsonl", data)
    written("a.png", b"x")
    found = Journal("out", {"model": "everyday"}, resume=True)
    return found.exists(), found.done(Path("a.png"), {"labels": Path("a.png")})


def pending(data: bytes) -> object:
    from pixelwise.inference.tiling import Pending

    return Pending.load(written("pending.npz", data))


def checkpoint(name: str, source: str | None = None) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from pixelwise import from_checkpoint

        written(name, data)
        return from_checkpoint(source or name)

    return read


def plan(data: bytes) -> object:
    from pixelwise import from_checkpoint

    said = {
        "__metadata__": {"pixelwise.plan": text(data)},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }
    return from_checkpoint(written("plan.safetensors", head(said, bytes(4))))


def hugging(name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from pixelwise.checkpoints.huggingface.folder import open_folder

        folders.hugging()(Place(Path.cwd() / name, Path.cwd(), ""))
        written(f"{name}/x/{name}.json", data)
        found = open_folder(f"{name}/x")
        return found and found.labels

    return read


def smp_folder(data: bytes) -> object:
    from pixelwise import from_checkpoint

    tensors, _ = folders.smp()
    if not Path("smp/model.safetensors").exists():
        written("smp/model.safetensors", tensors)
    written("smp/config.json", data)
    return from_checkpoint("smp")


def shard_list(data: bytes) -> object:
    from pixelwise.checkpoints.reading import read

    return read(str(Path(written("shards/model.safetensors.index.json", data)).parent))


def onnx(data: bytes) -> object:
    from pixelwise.engines import open_engine

    return open_engine(Path(written("x.onnx", data)))


def train_config(data: bytes) -> object:
    from pixelwise.training.start import read_config

    return read_config(Path(written("config.json", data))).to_json()


def run_state(data: bytes) -> object:
    from pixelwise.training.state import load_state

    return load_state(Path(written("checkpoint.pt", data)))


def metrics(data: bytes) -> object:
    from pixelwise.training.progress import read_metrics

    return read_metrics(Path(written("metrics.jsonl", data)))


def id_map(data: bytes) -> object:
    from pixelwise.datasets.opening import parse_map

    return parse_map(text(data))(MAP)


def command_line(data: bytes) -> object:
    words = [word for word in text(data).replace("\0", "").split("\n") if word][:12]
    if any(word.startswith("--d") for word in words):  # --debug, in all that click takes for it
        return None
    try:
        return typed("segment", "none.png", *(word.replace("{", "").replace("}", "") for word in words))(
            Place(Path.cwd(), Path.cwd(), "")
        )
    except Failed as failed:
        if "this is a bug" in str(failed) or "Traceback" in str(failed):
            raise
        return failed.code


def color(data: bytes) -> object:
    from pixelwise import LabelSet

    values = json_of(data)
    return LabelSet.of(["a", "b"], colors=values) if isinstance(values, list) else None


def model_name(data: bytes) -> object:
    from pixelwise.opening import located
    from pixelwise.weights.hub import is_hub_name

    name = text(data)
    return None if is_hub_name(name) else located(name)


def json_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def plain(value: Any) -> list[bytes]:
    return [json.dumps(value).encode()]


@cache
def _pictures() -> list[bytes]:
    y, x = np.mgrid[:20, :30]
    drawn = np.stack([x * 8, y * 12, x * y % 256], axis=-1).astype(np.uint8)
    kinds = "PNG JPEG TIFF GIF WEBP BMP PPM JPEG2000 AVIF TGA SGI PCX ICO DDS".split()
    return [encoded(drawn, kind) for kind in kinds] + [
        make() for make, *_ in pictures.RIGHT.values() if len(make()) < 20_000
    ]


@cache
def _colors() -> list[bytes]:
    folder = Path.cwd() / "model"
    folder.mkdir(exist_ok=True)
    from hostile.cases import colors_model

    return [colors_model(Place(folder, folder, "")).read_bytes()]


def _pending() -> list[bytes]:
    folder = BEFORE / "raster" / "out" / ".map.labels.tif.unfinished"
    with np.load(folder / "pending.npz") as file:
        about = str(file["about"])
    small = io.BytesIO()
    np.savez(small, sums=np.zeros((2, 1, 3), np.float32), about=about)
    return [small.getvalue()]


def _npy() -> list[bytes]:
    return [
        npy(MAP),
        npy(MAP.astype(">u2")),
        npy(np.asfortranarray(MAP)),
        pictures.npy_with("{'descr': '|u1', 'fortran"),
    ]


def _run_state() -> list[bytes]:
    return [torch_file({**_weights(), "step": 3}), torch_file({"step": 3, "config": "{}"}, True)]


JOURNAL = (
    '{"settings": {"model": "x"}, "hash": "0123456789abcdef"}\n'
    '{"source": "/a.png", "file": [1, 2], "hash": "0123456789abcdef", "files": {"labels": "a.labels.png"}}\n'
)
SHARDS = {"metadata": {"total_size": 1}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
MANIFEST = {
    "version": 1,
    "classes": [{"id": 0, "name": "ground", "color": [0, 0, 0]}, {"id": 7, "name": "cell"}],
    "ignore_id": 255,
    "done": ["255 became 1"],
    "map_ids": "255=1",
    "value_range": [12, 4000.5],
    "regions": True,
}
COMMANDS = [
    "--tile\n512\n--overlap\n0.25\n--window\ngaussian",
    "--flip\nhorizontal,vertical\n--rotate\n90,180\n--scales\n0.75,1",
    "--bands\n4,3,2\n--scale\n0,3000\n--max-pixels\n1000",
    "--format\nlabels,overlay\n--mask\ncat\n--smooth\n0.5",
    "--min-confidence\n0.5\n--min-area\n9\n--fill-holes\na,b\n--largest-only\nc",
    "--crf\nvgg\n--engine\nauto\n--threads\n2",
]

READERS: dict[str, Reader] = {
    "pictures": Reader(picture(3), _pictures),
    "pictures of four channels": Reader(picture(4), _pictures),
    "label maps: PNG": Reader(labels("x.png"), lambda: [encoded(MAP, "PNG"), *_pictures()[:1]]),
    "label maps: NumPy": Reader(labels("x.npy"), _npy),
    "label maps: GeoTIFF": Reader(labels("x.tif"), lambda: [rasters.geotiff(MAP[None])]),
    "label maps: COCO": Reader(
        labels("x.json"),
        lambda: plain(coco.WHOLE) + plain(coco.with_outline({"size": [12, 16], "counts": "0P6"})),
        json=True,
    ),
    "label maps: GeoJSON": Reader(labels("x.geojson"), lambda: plain(geojson.WHOLE), json=True),
    "rasters: GeoTIFF": Reader(
        raster("r.tif"),
        lambda: [
            rasters.geotiff(rasters.red()),
            rasters.geotiff(rasters.red(dtype="uint16"), compress="deflate"),
        ],
    ),
    "rasters: other drivers": Reader(
        raster("r.img"),
        lambda: [rasters.vrt("x.tif").encode(), rasters.WMS.encode(), rasters.GRID.format(side=3).encode()],
    ),
    "rasters: OME-TIFF": Reader(raster("r.ome.tif"), lambda: [rasters.ome((3, 16, 20), "CYX")]),
    "rasters: Zarr": Reader(raster("r.zarr/zarr.json", "r.zarr"), lambda: plain(rasters.ABOUT), json=True),
    "videos": Reader(video, lambda: [videos.video(2), videos.video(2, container="avi", codec="mjpeg")]),
    "volumes: NIfTI": Reader(volume("v.nii"), lambda: [volumes.nifti(), volumes.nifti(2)]),
    "volumes: NIfTI, compressed": Reader(volume("v.nii.gz"), lambda: [gzip.compress(volumes.nifti())]),
    "volumes: NRRD": Reader(volume("v.nrrd"), volumes.nrrds),
    "volumes: MetaImage": Reader(volume("v.mha"), volumes.metaimages),
    "volumes: DICOM": Reader(slices, lambda: [volumes.slices()[1]]),
    "volumes: DICOM of many frames": Reader(volume("v.dcm"), lambda: [volumes.frames()]),
    "volumes: DICOM in a zip": Reader(volume("v.zip"), lambda: [volumes.packed()]),
    "cards": Reader(card, lambda: plain(cards.whole()), json=True),
    "class lists": Reader(class_list, lambda: [b"0 ground\n1, road\n2: sky\n", b"ground\nroad\nvoid\n"]),
    "what data sets say of themselves": Reader(manifest, lambda: plain(MANIFEST), json=True),
    "palettes": Reader(palette, lambda: [b"road 128 64 128\n", b"name,r,g,b\na,1,2,3\n", b"0 #800000 a\n"]),
    "outlines: COCO": Reader(
        outlines("a.json"),
        lambda: [adopted.outlined()["labels.json"].encode()],  # type: ignore[union-attr]
        json=True,
    ),
    "outlines: LabelMe": Reader(
        outlines("a.json"),
        lambda: [adopted.labelme()["a.json"].encode()],  # type: ignore[union-attr]
        json=True,
    ),
    "outlines: YOLO": Reader(
        outlines("a.txt"), lambda: [b"0 0.1 0.1 0.5 0.1 0.5 0.5\n1 .2 .2 .3 .3 .4 .2 .1 .1\n"]
    ),
    "label maps with pages": Reader(label_pages, lambda: [encoded(MAP, "TIFF"), encoded(MAP, "GIF")]),
    "lists of names": Reader(name_list, lambda: [b"a\nb 1 2\n# c\n", b"2007_000032\n"]),
    "data sets: COCO": Reader(
        coco_set,
        lambda: [data_sets.coco()["annotations/instances_val2017.json"].encode()],
        json=True,  # type: ignore[union-attr]
    ),
    "data sets: MATLAB": Reader(sbd_set, lambda: [data_sets.mat({"GTcls": {"Segmentation": MAP}})]),
    "data sets: NumPy": Reader(label_array, _npy),
    "journals": Reader(journal, lambda: [JOURNAL.encode()], json=False),
    "unfinished sums": Reader(pending, _pending),
    "weights: safetensors": Reader(
        checkpoint("x.safetensors"), lambda: [OURS.read_bytes()[:4000], head({}), OURS.read_bytes()]
    ),
    "weights: torch": Reader(
        checkpoint("x.pt"), lambda: [torch_file(_weights()), torch_file(_weights(), True)]
    ),
    "weights: how they are built": Reader(
        plan, lambda: plain({"model": "unet", "arguments": {"width": 2, "num_classes": 3}}), json=True
    ),
    "folders: config.json": Reader(hugging("config"), lambda: plain(folders.SEGFORMER), json=True),
    "folders: preprocessor_config.json": Reader(
        hugging("preprocessor_config"), lambda: plain(folders.PREPROCESSOR), json=True
    ),
    "folders: SMP": Reader(smp_folder, lambda: plain(folders.smp()[1]), json=True),
    "folders: shards": Reader(shard_list, lambda: plain(SHARDS), json=True),
    "ONNX": Reader(onnx, _colors),
    "training configurations": Reader(train_config, lambda: plain(configs.WHOLE), json=True),
    "training states": Reader(run_state, _run_state),
    "training metrics": Reader(metrics, lambda: [b'{"step": 1, "loss": 0.5}\n{"step": 2, "score": 1}\n']),
    "changes of ids": Reader(id_map, lambda: [b"1-65535=1,7=255", b"0=1"]),
    "command line": Reader(command_line, lambda: [command.encode() for command in COMMANDS]),
    "colours": Reader(color, lambda: plain([[0, 0, 0], [255, 128, 3]]), json=True),
    "names of models": Reader(model_name, lambda: [b"everyday", b"deeplabv3_resnet50", b"run/model.onnx"]),
}

JUNK: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    255,
    256,
    65536,
    2**31,
    2**63,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x00",
    "\x1b[31m\n",
    "../x",
    "/etc/passwd",
    "\ud800",
    [],
    [[]],
    [0],
    [None],
    {},
    {"": {}},
    [1e9] * 4,
]


def changed_as_json(data: bytes, draw: random.Random) -> bytes | None:
    """The JSON with a value, or a key, replaced, doubled or left out; None where it is none."""
    content = json_of(data)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value.keys() if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], (dict, list)):
                walk(value[key])

    if not isinstance(content, (dict, list)):
        return None
    walk(content)
    if not places:
        return None
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        where, key = draw.choice(places)
        kind = draw.randrange(5)
        try:
            if kind == 0:
                del where[key]
            elif kind == 1 and isinstance(where, list):
                where.extend([where[key]] * draw.choice([1, 3, 100]))
            elif kind == 2:
                other, name = draw.choice(places)
                where[key] = json.loads(json.dumps(other[name]))
            elif kind == 3 and isinstance(where, dict):
                where[draw.choice(["x", "", "__class__", key + "s"])] = where.pop(key)
            else:
                where[key] = draw.choice(JUNK)
        except (KeyError, IndexError, ValueError):
            continue  # it went with an earlier change
    return json.dumps(content).encode("utf-8", "surrogatepass")


def changed(data: bytes, draw: random.Random) -> bytes:
    """A few bytes turned, left out, doubled or replaced by what numbers end at."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(found) + 1)
        kind = draw.randrange(5)
        if kind == 0:
            del found[at : at + draw.choice([1, 2, 4, 50])]
        elif kind == 1:
            found[at:at] = found[at : at + draw.choice([1, 4, 16])]
        elif kind == 2:
            found[at : at + 4] = struct.pack(
                draw.choice("<>") + "I", draw.choice([0, 1, 2**31, 2**32 - 1, 2**16])
            )
        elif kind == 3:
            del found[at:]
        else:
            found[at : at + 1] = bytes([draw.choice([0, 255, draw.randrange(256)])])
    return bytes(found)
