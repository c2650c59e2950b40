"""What `pixelwise init` finds in folders that somebody else made: label maps, files of outlines, lists, odd names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from hostile.cases import Answer, Case, Gives, Place, Refused, Right, accepted, encoded, typed
from hostile.pictures import bomb

init = typed("init", "data", "--out", "made", "--yes")
MADE = ("made*",)


def photo(seed: int = 1) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8), "PNG")


def mask() -> bytes:
    values = np.zeros((12, 16), np.uint8)
    values[3:9, 4:12] = 255
    return encoded(values, "PNG")


def folder(**more: bytes | str) -> dict[str, bytes | str]:
    """Three pictures and label maps; more: other files, or others of these names."""
    whole: dict[str, bytes | str] = {}
    for i in range(3):
        whole |= {f"images/{i}.png": photo(i), f"masks/{i}.png": mask()}
    return {**whole, **more}


def outlined(**changes: Any) -> dict[str, bytes | str]:
    """A picture and COCO's outlines of a category of one's own."""
    square = [[0, 0, 8, 0, 8, 8, 0, 8]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 16}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 3, "image_id": 1, "category_id": 1, "segmentation": square}],
        **changes,
    }
    return {"a.png": photo(), "labels.json": json.dumps(content)}


def outline(segmentation: Any) -> dict[str, bytes | str]:
    return outlined(annotations=[{"id": 3, "image_id": 1, "category_id": 1, "segmentation": segmentation}])


def labelme(**changes: Any) -> dict[str, bytes | str]:
    shape = {"label": "cell", "points": [[0, 0], [8, 0], [8, 8]], "shape_type": "polygon", **changes}
    return {"a.png": photo(), "a.json": json.dumps({"imagePath": "a.png", "shapes": [shape]})}


def yolo(line: str, yaml: str = "names: [cell]\n") -> dict[str, bytes | str]:
    return {"images/a.png": photo(), "labels/a.txt": line, "data.yaml": yaml}


def _cases() -> Iterator[Case]:
    def one(name: str, of: dict[str, bytes | str], right: Right, do: Any = init, **more: Any) -> Case:
        def make(place: Place) -> None:
            for file, data in of.items():
                place.write(f"data/{file}", data)

        return Case(name, make, do, right, **{"leaves": MADE if isinstance(right, Gives) else (), **more})

    def left(name: str, of: dict[str, bytes | str], says: str) -> Case:
        return one(name, of, accepted(f"left out: .*{says}", "wrote 2 pairs"))

    yield one("whole", folder(), accepted("wrote 3 pairs"))
    yield left("a picture that is cut", folder(**{"images/0.png": photo()[:60]}), "images/0.png")
    yield left("a picture of 60000 x 60000", folder(**{"images/0.png": bomb()}), "images/0.png")
    yield left("a label map of 60000 x 60000", folder(**{"masks/0.png": bomb()}), "images/0.png")
    yield left("a label map that is none", folder(**{"masks/0.png": "404"}), "images/0.png")
    yield left("a label map of nothing", folder(**{"masks/0.png": ""}), "images/0.png")
    yield one("names with control characters", folder(**{"images/\x1b[31m\n.png": photo(9)}), _plain())
    yield one(
        "pairs whose names would be links, hidden or of the system",
        {f"{d}/{n}.png": photo(i) if d == "images" else mask()
         for i, n in enumerate(("CON", "a:b", "x" * 200, "é\u202e", "a b")) for d in ("images", "masks")},
        Gives(_names),
    )  # fmt: skip
    yield one("only label maps that are photographs", {f"{d}/{i}.png": photo(i) for i in range(3) for d in
              ("images", "masks")}, Refused("data|label maps"))  # fmt: skip
    yield one(
        "a list of classes that is no text",
        folder(**{"classes.txt": b"\xff\xfe\x00"}),
        Refused(r"classes\.txt"),
    )
    yield one("a palette of words", folder(**{"p.txt": "a b c\nd\n"}), Refused(r"p\.txt"),
              typed("init", "data", "--out", "made", "--yes", "--palette", "data/p.txt"))  # fmt: skip
    yield one("a palette of huge numbers", folder(**{"p.txt": "a 999 0 0\n"}), Refused(r"p\.txt"),
              typed("init", "data", "--out", "made", "--yes", "--palette", "data/p.txt"))  # fmt: skip
    yield one("a pattern that matches nothing", folder(), Refused("there is no"),
              typed("init", "data/*.xyz", "--out", "made", "--yes"))  # fmt: skip
    yield one("a source that is an address", folder(), Refused("there is no"),
              typed("init", "{address}", "--out", "made", "--yes"))  # fmt: skip
    # outlines
    yield one("coco: whole", outlined(), accepted("wrote 1 pair ", "1 cell"))
    yield one("coco: no JSON", {**outlined(), "labels.json": '{"images" "annotations" "categories"'},
              Refused(r"labels\.json"))  # fmt: skip
    nested = '"images""annotations""categories"' + "[" * 10**5
    yield one("coco: nested without end", {**outlined(), "labels.json": nested},
              Refused(r"labels\.json"))  # fmt: skip
    yield one(
        "coco: a picture outside",
        outlined(images=[{"id": 1, "file_name": "../../outside/secret.png", "height": 12, "width": 16}]),
        Refused("data"),
    )
    yield one(
        "coco: a picture of another size",
        outlined(images=[{"id": 1, "file_name": "a.png", "height": 10**9, "width": 10**9}]),
        Refused("data"),
    )
    yield one("coco: categories without end", outlined(categories=[{"id": i, "name": str(i)} for i in range(70_000)]),
              Refused("at most 65536"))  # fmt: skip
    yield one(
        "coco: an annotation of a category of nobody", outlined(categories=[]), Refused(r"labels\.json")
    )
    for what, said in {
        "not a number": [[1, 1, float("nan"), 1, 10, 10]],
        "a billion": [[0, 0, 1e9, 0, 1e9, 1e9]],
        "10**400": [[0, 0, 10**400, 0, 8, 8]],
        "run lengths of another size": {"size": [40_000, 40_000], "counts": [0, 1_600_000_000]},
        "run lengths beyond any number": {"size": [12, 16], "counts": [10**30]},
        "a word": "polygon",
        "three numbers": [[1, 2, 3]],
    }.items():
        yield one(f"coco: an outline of {what}", outline(said), Refused(r"labels\.json|data"))
    yield one("labelme: whole", labelme(), accepted("wrote 1 pair "))
    yield one("labelme: points of words", labelme(points=[["a", "b"]]), Refused(r"a\.json"))
    yield one(
        "labelme: a name with control characters", labelme(label="a\x1b[31m\n"), Refused("a.x1b|control|name")
    )
    yield one("yolo: whole", yolo("0 0.1 0.1 0.5 0.1 0.5 0.5\n"), accepted("wrote 1 pair ", "1 cell"))
    yield one("yolo: numbers beyond the picture", yolo("0 0.1 0.1 9e9 0.1 0.5 0.5\n"), Refused(r"a\.txt"))
    yield one("yolo: not a number", yolo("0 0.1 nan 0.5 0.1 0.5 0.5\n"), Refused(r"a\.txt|data"))
    yield one("yolo: a class of 10**30", yolo("1e30 0.1 0.1 0.5 0.1 0.5 0.5\n"), Refused(r"a\.txt"))
    code = "names: !!python/object:os.system x"
    yield one(
        "yolo: a data.yaml that runs code",
        yolo("0 0.1 0.1 0.5 0.1 0.5 0.5\n", code),
        Refused(r"data\.yaml"),
    )
    yield Case(
        "links that lead outside, in a circle and nowhere",
        _links,
        init,
        accepted("wrote 3 pairs"),
        leaves=MADE,
    )
    yield Case("a place of the results that is a link", _link_out, init, Refused("exists already"))


def _plain() -> Gives:
    def check(answer: Answer, _: Place) -> None:
        assert "\x1b" not in answer.out

    return Gives(check)


def _names(answer: Answer, place: Place) -> None:
    assert "wrote 5 pairs" in answer.out
    assert "\u202e" not in answer.out
    names = sorted(p.stem for p in (place.folder / "made/images").iterdir())
    assert len(names) == 5
    assert not any(name.startswith(".") for name in names)
    assert all(ord(c) < 0x2000 and c not in ":/\\" for name in names for c in name)


def _links(place: Place) -> None:
    for file, data in folder().items():
        place.write(f"data/{file}", data)
    (place.folder / "data/images/7.png").symlink_to("7.png")
    (place.folder / "data/images/8.png").symlink_to("nowhere.png")
    (place.folder / "data/all").symlink_to(place.outside)


def _link_out(place: Place) -> None:
    for file, data in folder().items():
        place.write(f"data/{file}", data)
    (place.folder / "made").symlink_to(place.outside)


CASES = list(_cases())
