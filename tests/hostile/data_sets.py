"""Data sets in every layout, which `check` examines and `evaluate` reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hostile.cases import Case, Gives, Place, Refused, Right, accepted, colors_model, encoded, flat, typed
from hostile.pictures import bomb, npy_with

MASK = np.zeros((12, 16), np.uint8)
PHOTO = flat((9, 9, 9))

evaluate = typed("evaluate", "--data", "data", "--model", "colors.onnx", "--json")
check = typed("check", "data")
unsafe = accepted("not safe to train")


def jpg() -> bytes:
    return encoded(PHOTO, "JPEG")


def png() -> bytes:
    return encoded(PHOTO, "PNG")


def mask(values: np.ndarray = MASK) -> bytes:
    return encoded(values, "PNG")


def mat(content: dict[str, Any]) -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, content)
    return file.getvalue()


def files(of: Callable[[Place], dict[str, bytes | str]]) -> Callable[[Place], None]:
    """A data set of these files, and the model."""

    def make(place: Place) -> None:
        colors_model(place)
        for name, data in of(place).items():
            place.write(f"data/{name}", data)

    return make


def folder(**more: bytes | str) -> dict[str, bytes | str]:
    whole: dict[str, bytes | str] = {}
    for i in range(3):
        whole |= {f"images/{i}.png": png(), f"masks/{i}.png": mask()}
    return {**whole, **more}


def voc(
    names: str = "a\n", picture: bytes | None = None, label: bytes | None = None
) -> dict[str, bytes | str]:
    return {
        "ImageSets/Segmentation/val.txt": names,
        "JPEGImages/a.jpg": picture or jpg(),
        "SegmentationClass/a.png": label or mask(),
    }


def sbd(label: bytes, names: str = "a\n") -> dict[str, bytes | str]:
    return {"val.txt": names, "img/a.jpg": jpg(), "cls/a.mat": label}


def pet(names: str = "a 1 1 1\n", label: bytes | None = None) -> dict[str, bytes | str]:
    return {
        "annotations/test.txt": names,
        "images/a.jpg": jpg(),
        "annotations/trimaps/a.png": label or mask(MASK + 1),
    }


CATEGORIES = [{"id": 1, "name": "person"}, {"id": 72, "name": "tv"}]


def coco(outline: Any = None, **changes: Any) -> dict[str, bytes | str]:
    square = [[0, 0, 8, 0, 8, 8, 0, 8]]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}],
        "categories": CATEGORIES,
        "annotations": [
            {
                "id": 3,
                "image_id": 1,
                "category_id": 1,
                "area": 64,
                "segmentation": square if outline is None else outline,
            }
        ],
        **changes,
    }
    return {"annotations/instances_val2017.json": json.dumps(content), "val2017/a.jpg": jpg()}


def _cases() -> Iterator[Case]:
    def one(
        name: str,
        of: Callable[[Place], dict[str, bytes | str]],
        right: Right,
        do: Any = evaluate,
        **more: Any,
    ) -> Case:
        return Case(name, files(of), do, right, **more)

    named = Refused(r"data")

    # folder
    yield one("folder: whole", lambda p: folder(), accepted("mean_iou|mean IoU|iou"))
    yield one("folder: nothing in it", lambda p: {"readme": ""}, named)
    yield one(
        "folder: a picture without a label map", lambda p: folder(**{"images/z.png": png()}), unsafe, check
    )
    yield one(
        "folder: a label map without a picture", lambda p: folder(**{"masks/z.png": mask()}), unsafe, check
    )
    yield one(
        "folder: a label map of another size",
        lambda p: folder(**{"masks/0.png": mask(MASK[:5])}),
        unsafe,
        check,
    )
    yield one("folder: a label map in colours", lambda p: folder(**{"masks/0.png": png()}), unsafe, check)
    yield one(
        "folder: a label map of 16 bits",
        lambda p: folder(**{"masks/0.png": encoded(MASK.astype("uint16") + 900, "PNG")}),
        unsafe,
        typed("check", "data", "--num-classes", "3"),
    )
    yield one("folder: pictures that are none", lambda p: folder(**{"images/0.png": "404"}), unsafe, check)
    yield one("folder: a label map that is none", lambda p: folder(**{"masks/1.png": "404"}), unsafe, check)
    yield one(
        "folder: a picture of 60000 x 60000", lambda p: folder(**{"images/0.png": bomb()}), unsafe, check
    )
    yield one(
        "folder: a label map of 60000 x 60000", lambda p: folder(**{"masks/0.png": bomb()}), unsafe, check
    )
    yield one(
        "folder: a label map whose header is a program",
        lambda p: {
            **{k: v for k, v in folder().items() if k != "masks/0.png"},
            "masks/0.npy": npy_with("((((("),
        },
        unsafe,
        check,
    )
    yield one(
        "folder: a label map of a terabyte",
        lambda p: {
            **{k: v for k, v in folder().items() if k != "masks/0.png"},
            "masks/0.npy": npy_with(
                "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000), }"
            ),
        },
        unsafe,
        check,
    )
    yield Case("folder: a link in a circle", _circle, check, unsafe)
    yield Case("folder: images that are a link in a circle", _circles, check, Refused("data"))
    yield one(
        "folder: names with control characters",
        lambda p: folder(**{"images/\x1b[31m\n.png": png()}),
        _plain,
        check,
    )
    yield one("folder: a file for a folder", lambda p: {"images": "", "masks": ""}, named, check)
    yield Case("a file for a data set", lambda p: p.write("data", "x"), check, named)
    # VOC and its kin: lists
    yield one("voc: whole", lambda p: voc(), accepted("safe to train"), check)
    yield one(
        "voc: names that lead outside", lambda p: voc("../../outside/secret\n"), Refused("plain name"), check
    )
    yield one(
        "voc: names that begin at the root",
        lambda p: voc(f"{p.outside}/secret\n"),
        Refused("plain name"),
        check,
    )
    yield one("voc: a list that is no text", lambda p: voc(b"\xff\xfe\x00"), Refused(r"val\.txt"), check)  # type: ignore[arg-type]
    yield one("voc: an empty list", lambda p: voc("\n\n"), named, check)
    yield one("voc: names that are not there", lambda p: voc("a\nb\nc\n"), unsafe, check)
    yield one("voc: one name twice", lambda p: voc("a\na\n"), Gives(lambda a, q: None), check)
    yield one("voc: a list with a byte of nothing", lambda p: voc("a\x00b\n"), Refused("plain name"), check)
    yield one("voc: ids of nobody", lambda p: voc(label=mask(MASK + 99)), unsafe, check)
    yield one("pet: whole", lambda p: pet(), accepted("safe to train"), check)
    yield one(
        "pet: names that lead outside",
        lambda p: pet("../../../outside/secret 1\n"),
        Refused("plain name"),
        check,
    )
    yield one("pet: ids of nobody", lambda p: pet(label=mask(MASK + 9)), unsafe, check)
    yield one(
        "sbd: whole", lambda p: sbd(mat({"GTcls": {"Segmentation": MASK}})), accepted("safe to train"), check
    )
    yield one("sbd: another structure", lambda p: sbd(mat({"other": MASK})), unsafe, check)
    yield one("sbd: a field of another kind", lambda p: sbd(mat({"GTcls": "words"})), unsafe, check)
    yield one("sbd: numbers for a structure", lambda p: sbd(mat({"GTcls": MASK})), unsafe, check)
    yield one("sbd: no MATLAB", lambda p: sbd(b"MATLAB 5.0 MAT-file" + bytes(300)), unsafe, check)
    yield one("sbd: cut short", lambda p: sbd(mat({"GTcls": {"Segmentation": MASK}})[:200]), unsafe, check)
    yield one("sbd: nothing in it", lambda p: sbd(b""), unsafe, check)
    # CamVid, Cityscapes, ADE20K
    yield one(
        "camvid: ids of nobody",
        lambda p: {"train/a.png": png(), "trainannot/a.png": mask(MASK + 77)},
        unsafe,
        check,
    )
    yield one("camvid: nothing in it", lambda p: {"train/readme": "", "trainannot/readme": ""}, named, check)
    yield one(
        "camvid-rgb: colours of nobody",
        lambda p: {"701_StillsRaw_full/0016E5_1.png": png(), "LabeledApproved_full/0016E5_1_L.png": png()},
        unsafe,
        check,
    )
    yield one(
        "camvid-rgb: ids for colours",
        lambda p: {"701_StillsRaw_full/a.png": png(), "LabeledApproved_full/a_L.png": mask()},
        unsafe,
        check,
    )
    yield one(
        "camvid-rgb: a frame of ten thousand digits",
        lambda p: {
            f"701_StillsRaw_full/0016E5_{'9' * 200}.png": png(),
            f"LabeledApproved_full/0016E5_{'9' * 200}_L.png": mask(),
        },
        unsafe,
        check,
    )
    yield one(
        "cityscapes: a label map that is none",
        lambda p: {"leftImg8bit/val/x/a_leftImg8bit.png": png(), "gtFine/val/x/a_gtFine_labelIds.png": "404"},
        unsafe,
        check,
    )
    yield one("cityscapes: nothing in it", lambda p: {"leftImg8bit/val/readme": ""}, named, check)
    yield one(
        "ade20k: ids of nobody",
        lambda p: {"images/validation/a.jpg": jpg(), "annotations/validation/a.png": mask(MASK + 250)},
        unsafe,
        check,
    )
    yield one(
        "ade20k: nothing in it", lambda p: {"images/readme": "", "annotations/readme": ""}, named, check
    )
    # COCO
    refused = Refused(r"instances_val2017\.json")
    yield one("coco: whole", lambda p: coco(), accepted("safe to evaluate on"), check)
    yield one(
        "coco: no JSON", lambda p: {**coco(), "annotations/instances_val2017.json": "{"}, refused, check
    )
    yield one(
        "coco: nested without end",
        lambda p: {**coco(), "annotations/instances_val2017.json": "[" * 100_000},
        refused,
        check,
    )
    yield one(
        "coco: a list", lambda p: {**coco(), "annotations/instances_val2017.json": "[]"}, refused, check
    )
    yield one(
        "coco: categories of its own", lambda p: coco(categories=[{"id": 1, "name": "cell"}]), refused, check
    )
    yield one(
        "coco: categories of numbers", lambda p: coco(categories=[{"id": 1, "name": 5}]), refused, check
    )
    yield one(
        "coco: a category that is a list",
        lambda p: coco(categories=[{"id": [1], "name": "person"}]),
        refused,
        check,
    )
    yield one(
        "coco: a picture outside",
        lambda p: coco(
            images=[{"id": 1, "file_name": "../../outside/secret.png", "height": 12, "width": 16}]
        ),
        unsafe,
        check,
    )
    yield one(
        "coco: a picture of no name",
        lambda p: coco(images=[{"id": 1, "file_name": None, "height": 12, "width": 16}]),
        refused,
        check,
    )
    yield one(
        "coco: pictures of mixed ids",
        lambda p: coco(images=[{"id": i, "file_name": "a.jpg", "height": 12, "width": 16} for i in (1, "b")]),
        refused,
        check,
    )
    for what, outline in {
        "a missing number": [[1, 1, None, 1, 10, 10]],
        "not a number": [[1, 1, float("nan"), 1, 10, 10]],
        "a billion": [[0, 0, 1e9, 0, 1e9, 1e9]],
        "-1e308": [[0, 0, -1e308, 0, 8, 8]],
        "run lengths of another size": {"size": [40_000, 40_000], "counts": [0, 1_600_000_000]},
        "run lengths beyond any number": {"size": [12, 16], "counts": [10**30]},
        "a word": "polygon",
        "nothing": None,
    }.items():
        yield one(
            f"coco: an outline of {what}",
            lambda p, o=outline: coco(
                annotations=[{"id": 3, "image_id": 1, "category_id": 1, "area": 64, "segmentation": o}]
            ),
            unsafe,
            check,
        )
    yield one(
        "coco: an area of words",
        lambda p: coco(
            annotations=[{"id": 3, "image_id": 1, "category_id": 1, "area": "x", "segmentation": []}]
        ),
        refused,
        check,
    )
    # Hugging Face
    yield one("huggingface: no JSON", lambda p: {"dataset_info.json": "{"}, named, check, needs=("datasets",))
    yield one(
        "huggingface: splits that are not there",
        lambda p: {"dataset_dict.json": '{"splits": ["train"]}'},
        named,
        check,
        needs=("datasets",),
    )
    yield one(
        "huggingface: another structure",
        lambda p: {"dataset_info.json": "[]", "state.json": "[]"},
        named,
        check,
        needs=("datasets",),
    )
    yield one(
        "huggingface: splits outside",
        lambda p: {"dataset_dict.json": '{"splits": ["../../outside"]}'},
        named,
        check,
        needs=("datasets",),
    )


def _circle(place: Place) -> None:
    files(lambda p: folder())(place)
    for name in ("images/loop.png", "masks/loop.png"):
        (place.folder / "data" / name).symlink_to("loop.png")


def _circles(place: Place) -> None:
    place.write("data/masks/0.png", mask())
    (place.folder / "data/images").symlink_to("images")


def _no_controls(answer: Any, _: Place) -> None:
    assert "\x1b" not in answer.out, f"control characters: {answer.out!r:.300}"


_plain = Gives(_no_controls)
CASES = list(_cases())
