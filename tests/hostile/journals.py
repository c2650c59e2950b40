"""Journals and folders of unfinished work, which `segment --resume` goes on with."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hostile.cases import (
    Case,
    Gives,
    Place,
    Refused,
    Right,
    accepted,
    colors_model,
    encoded,
    flat,
    segmented,
    typed,
)
from hostile.runs import BEFORE, unpacked

JOURNAL = "out/.pixelwise-journal.jsonl"
RESULTS = ("out/*.png", "out/.pixelwise-journal.jsonl", "out/*/*.png")
RASTER = ("raster/out/*.tif", "raster/out/.pixelwise-journal.jsonl")
GONE = ("raster/out/.map.labels.tif.unfinished/*",)
RESUMED = typed(
    *"segment raster/map.tif --out raster/out --model onnx/aligned.onnx --tile 64 --overlap 16 --resume".split()
)
resumed = segmented("in", "--resume")
fresh = segmented("in")


def finished(place: Place) -> list[dict[str, Any]]:
    """A folder of two pictures that was segmented, of which one result is gone; the lines of its journal."""
    import os

    colors_model(place)
    for name, color in {"a": (255, 0, 0), "b": (0, 255, 0)}.items():
        place.write(f"in/{name}.png", encoded(flat(color), "PNG"))
    before = os.getcwd()
    os.chdir(place.folder)
    try:
        fresh(place)
    finally:
        os.chdir(before)
    (place.folder / "out" / "b.labels.png").unlink()
    (place.folder / "out" / "b.overlay.png").unlink()
    return [json.loads(line) for line in (place.folder / JOURNAL).read_text().splitlines()]


def journal(text: str | bytes) -> Callable[[Place], None]:
    """That folder with another journal, which says nothing of the results that are there; they are gone too."""

    def make(place: Place) -> None:
        finished(place)
        for path in (place.folder / "out").glob("*.png"):
            path.unlink()
        place.write(JOURNAL, text)

    return make


def lines(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Place], None]:
    """That folder whose journal was changed."""

    def make(place: Place) -> None:
        found = finished(place)
        change(found)
        place.write(JOURNAL, "".join(json.dumps(line) + "\n" for line in found))

    return make


def unfinished(change: Callable[[Path], object]) -> Callable[[Place], None]:
    """A raster of which some rows were finished, whose folder of unfinished work was changed."""

    def make(place: Place) -> None:
        unpacked(place)
        change(place.folder / "raster" / "out" / ".map.labels.tif.unfinished")

    return make


def pending(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Callable[[Path], None]:
    """Its sums with other arrays (by name) or other words about them."""

    def edit(folder: Path) -> None:
        with np.load(folder / "pending.npz") as file:
            arrays = dict(file)
        about = json.loads(str(arrays["about"]))
        change(arrays, about)
        file = io.BytesIO()
        np.savez(file, **{**arrays, "about": json.dumps(about)})
        (folder / "pending.npz").write_bytes(file.getvalue())

    return edit


def the_same_map(_: Any, place: Place) -> None:
    want = json.loads((BEFORE / "expected.json").read_text())["raster"]["geotiff_sha256"]
    found = hashlib.sha256((place.folder / "raster" / "out" / "map.labels.tif").read_bytes()).hexdigest()
    assert found == want, "another map than without interruption"


def text(name: str, data: bytes | str) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode()) and None
    )


def _cases() -> Iterator[Case]:
    def one(name: str, make: Callable[[Place], object], right: Right, **more: Any) -> Case:
        return Case(name, make, resumed, right, RESULTS, deletes=(JOURNAL, "out/a.*.png"), **more)

    both = accepted(r"in/a\.png: red", r"in/b\.png: green")
    second = accepted(r"in/b\.png: green")
    says = Refused(r"journal")
    yield one("journal: whole", finished, second)
    yield one("journal: torn in its last line", lines(lambda found: found[-1].pop("hash")), both_or_second())
    for name, content in {
        "nothing in it": "",
        "text": "not a journal\n",
        "numbers": "7\n8\n",
        "lists": "[]\n[1]\n",
        "nested without end": "[" * 100_000,
        "another byte than text has": b"\xff\xfe\x00\n",
        "a number of a million digits": "9" * 1_000_000,
        "a line of a source that is a list": '{"source": [], "file": [1, 2], "hash": "x"}\n',
        "a line of settings without a hash": '{"settings": {}}\n',
        "a line of a hash that is a list": '{"settings": {}, "hash": []}\n',
        "a line of settings that are a list": '{"settings": [], "hash": "x"}\n',
        "half a character": '{"source": "\\ud800", "file": [1, 2], "hash": "x"}\n',
    }.items():
        yield one(f"journal: {name}", journal(content), both)
    yield one("journal: another hash, and no settings", lines(_other_hash), Refused("other settings"))
    yield one("journal: settings that are a list", lines(_listed), Refused("other settings|journal"))
    yield one(
        "journal: files outside",
        lines(lambda f: f[-1].update(files={"labels": "../outside/secret.png"})),
        both_or_second(),
    )
    yield one("journal: a folder", _folder, says)
    yield one("journal: a link outside", _link, says)
    yield one("journal: a link to nowhere", _nowhere, says)
    yield Case("results: a folder in their place", _occupied, resumed, Refused(r"b\.labels\.png"), RESULTS)

    def raster(name: str, change: Callable[[Path], object], right: Right, **more: Any) -> Case:
        return Case(f"unfinished: {name}", unfinished(change), RESUMED, right, RASTER, deletes=GONE, **more)

    good, other = Gives(the_same_map), Refused("the unfinished work")
    yield raster("whole", lambda folder: None, good)
    yield raster("work.json that is no JSON", text("work.json", "{"), good)
    yield raster("work.json that is a list", text("work.json", "[]"), good)
    yield raster("work.json that is a number", text("work.json", "7"), good)
    yield raster("work.json nested without end", text("work.json", "[" * 100_000), good)
    yield raster("work.json of another byte than text has", text("work.json", b"\xff\xfe"), good)
    yield raster("work.json of another source", text("work.json", '{"source": "x", "file": [], "settings": ""}'),
                 Refused("unfinished"))  # fmt: skip
    yield raster("sums that are text", text("pending.npz", "text"), good)
    yield raster("no sums", lambda folder: (folder / "pending.npz").unlink(), good)
    yield raster(
        "sums cut short",
        lambda f: (f / "pending.npz").write_bytes((f / "pending.npz").read_bytes()[:-99]),
        good,
    )
    yield raster("sums that are a pickle", lambda folder: _pickled(folder), good)
    yield raster("sums of a terabyte", lambda folder: _terabyte(folder), good)
    yield raster("sums whose archive is locked", lambda folder: _locked(folder), good)
    yield raster("sums of another shape", pending(lambda a, b: a.update(sums=a["sums"][:, :1])), other)
    yield raster("sums that are not numbers", pending(lambda a, b: a.update(sums=a["sums"] * np.nan)), good)
    yield raster("sums of another type", pending(lambda a, b: a.update(sums=a["sums"].astype("U5"))), good)
    yield raster("sums beyond the end", pending(lambda a, b: b.update(top=10**9)), good)
    yield raster("sums of a negative row", pending(lambda a, b: b.update(top=-1)), good)
    yield raster("sums of a row that is a word", pending(lambda a, b: b.update(top="first")), good)
    yield raster("sums of another tiling", pending(lambda a, b: b["tiling"].update(tile=[7, 7])), good)
    yield raster("sums of a tiling that is a list", pending(lambda a, b: b.update(tiling=[])), good)
    yield raster("sums of another size", pending(lambda a, b: b.update(size=[5, 5])), other)
    yield raster("labels that are cut short", lambda f: (f / "labels").write_bytes(b"\0" * 7), good)
    yield raster("no labels", lambda folder: (folder / "labels").unlink(), good)
    yield raster("answers that are text", text("answers", "not answers at all" * 100), good)
    yield raster("answers of a terabyte", text("answers", b"\xff" * 1000), good)
    yield raster("a link outside", _linked, Refused("unfinished"))
    yield raster("labels that lead outside", _linked_labels, Refused("unfinished|labels"))


def both_or_second() -> Right:
    return accepted(r"in/b\.png: green")


def _other_hash(found: list[dict[str, Any]]) -> None:
    for line in found:
        if "source" in line:
            line["hash"] = "another"
    del found[0]


def _listed(found: list[dict[str, Any]]) -> None:
    found[0]["settings"] = []
    found[0]["hash"] = "another"
    for line in found[1:]:
        line["hash"] = "another"


def _folder(place: Place) -> None:
    journal("")(place)
    (place.folder / JOURNAL).unlink()
    (place.folder / JOURNAL).mkdir()


def _link(place: Place) -> None:
    journal("")(place)
    (place.folder / JOURNAL).unlink()
    (place.outside / "log").write_text('{"precious": 1}\n')
    (place.folder / JOURNAL).symlink_to(place.outside / "log")


def _nowhere(place: Place) -> None:
    journal("")(place)
    (place.folder / JOURNAL).unlink()
    (place.folder / JOURNAL).symlink_to(place.outside / "none")


def _occupied(place: Place) -> None:
    finished(place)
    (place.folder / "out" / "b.labels.png").mkdir()


def _pickled(folder: Path) -> None:
    file = io.BytesIO()
    np.savez(file, sums=np.array([{}], object), about="{}")
    (folder / "pending.npz").write_bytes(file.getvalue())


def _terabyte(folder: Path) -> None:
    from hostile.checkpoints import zipped
    from hostile.pictures import npy_with

    header = npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 500000, 500000), }")
    with np.load(folder / "pending.npz") as file:
        about = io.BytesIO()
        np.save(about, file["about"])
    (folder / "pending.npz").write_bytes(zipped({"sums.npy": header, "about.npy": about.getvalue()}))


def _locked(folder: Path) -> None:
    """Both members say that a password is needed."""
    data = bytearray((folder / "pending.npz").read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + place] |= 1
    (folder / "pending.npz").write_bytes(bytes(data))


def _linked(folder: Path) -> None:
    outside = folder.parents[3] / "outside"
    shutil.move(folder, outside / "work")
    folder.symlink_to(outside / "work")


def _linked_labels(folder: Path) -> None:
    outside = folder.parents[3] / "outside"
    shutil.move(folder / "labels", outside / "labels")
    (folder / "labels").symlink_to(outside / "labels")


CASES = list(_cases())
