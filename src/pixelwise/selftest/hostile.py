"""Files made to break whoever reads them, all made here, and what reads each: nothing of ours may do anything but
refuse them in one sentence.

`python -m pixelwise.selftest.hostile GROUP FOLDER` makes those of a group in a folder and prints a line of JSON for
each: its name, and what went wrong or null. It is run as a process of its own, since what it looks for may end one.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise import images
from pixelwise.errors import PixelwiseError
from pixelwise.files import plain_name
from pixelwise.labels import LabelSet
from pixelwise.outputs.reading import read_labels
from pixelwise.pipeline.journal import JOURNAL, Journal
from pixelwise.selftest import reference
from pixelwise.weights.card import Card

MOST_MEGABYTES, MOST_SECONDS = 300, 20
"""What one file may take of memory, and of this process's own time."""

Reader = Callable[[Path], Any]
Case = tuple[Reader, Callable[[], bytes]]
"""What reads the file, and what makes its bytes."""


class Broken(Exception):
    """What a reader did that it should not."""


# Pictures ----------------------------------------------------------------------------------------------------


def _picture(kind: str, values: Any = None, **options: Any) -> bytes:
    file = io.BytesIO()
    y, x = np.mgrid[:40, :60]
    drawn = np.stack([x * 4, y * 6, x * y % 256], axis=-1).astype(np.uint8) if values is None else values
    Image.fromarray(drawn).save(file, kind, **options)
    return file.getvalue()


def _png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(more)
        + _chunk(b"IDAT", zlib.compress(data))
        + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _tiff(*tags: tuple[int, int, int], following: int = 0) -> bytes:
    """One directory of tags (number, count, value), all of them LONG, at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following)


def _grey(
    width: int, height: int, strip: int, length: int, compression: int = 1
) -> tuple[tuple[int, int, int], ...]:
    return (
        (256, 1, width), (257, 1, height), (258, 1, 8), (259, 1, compression), (262, 1, 1), (273, 1, strip),
        (277, 1, 1), (278, 1, height), (279, 1, length),
    )  # fmt: skip


def _npy(header: str, data: bytes = b"") -> bytes:
    line = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(line)) + line + data


def _npy_of(shape: str, kind: str = "|u1", data: bytes = b"") -> bytes:
    return _npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}", data)


PICTURES: dict[str, Callable[[], bytes]] = {
    "bomb.png": lambda: _png(60_000, 60_000, b"\0" * 9),
    "bomb.gif": lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;",
    "bomb.bmp": lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 2**30, -(2**30), 1, 24, 0, 0, 0, 0, 0, 0),
    "bomb.tif": lambda: _tiff(*_grey(2**20, 2**20, 8, 4)),
    "bomb.webp": lambda: b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + b"VP8 \0\0\0\0",
    "bomb_text.png": lambda: _png(9, 9, b"\0" * 9, *3 * [_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**25)))]),
    "bomb.npy": lambda: _npy_of("(1000000, 1000000, 3)"),
    "cut.png": lambda: _picture("PNG")[:600],
    "cut.jpg": lambda: _picture("JPEG")[:500],
    "cut.webp": lambda: _picture("WEBP")[:80],
    "cut.npy": lambda: _npy_of("(40, 60, 3)", data=b"\0" * 99),
    "lying_strip.tif": lambda: _tiff(*_grey(100, 100, 2**31, 2**31)),
    "lying_zip.tif": lambda: _tiff(*_grey(3_000, 3_000, 8, 40, compression=8)),
    "bad_sum.png": lambda: _picture("PNG")[:-20] + b"\xff" * 20,
    "ring.tif": lambda: _tiff((254, 1, 0), following=8),
    "pickle.npy": lambda: _npy_of("(1,)", "|O", pickle.dumps([_Runs("npy")])),
    "header.npy": lambda: _npy("{'descr': " + "(" * 3_000),
    "negative.npy": lambda: _npy_of("(-1, 4, 3)"),
    "volume.npy": lambda: _npy_of("(2, 2, 2, 3)", data=bytes(24)),
    "nan.tif": lambda: _picture("TIFF", np.full((9, 9), np.nan, np.float32)),
    "empty.png": lambda: b"",
    "page.jpg": lambda: b"<!DOCTYPE html><title>404</title>",
    "program.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
}  # fmt: skip


# Label files, cards, models, journals, names -----------------------------------------------------------------

CLASSES = LabelSet.of(["ground", "water", "wood", "house"])


def _card(**changes: Any) -> bytes:
    values = reference.CARD.to_dict()
    for name, value in changes.items():
        part, _, inner = name.partition("__")
        if inner:
            values[part] = {**values[part], inner: value}
        else:
            values[part] = value
    return json.dumps(values).encode()


def _coco(annotation: dict[str, Any], **image: Any) -> bytes:
    categories = [{"id": 1, "name": "water"}]
    about = {"id": 1, "width": 8, "height": 8, **image}
    return json.dumps({"images": [about], "categories": categories, "annotations": [annotation]}).encode()


def _object(segmentation: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 1,
        "bbox": [0, 0, 8, 8],
        "segmentation": segmentation,
    }


def _open_onnx(path: Path) -> None:
    from pixelwise.segmenter import Segmenter

    Segmenter(path, threads=1)(np.zeros((8, 8, 3), np.uint8))


def _onnx(
    tensor: bytes | None = None,
    *,
    outputs: bool = True,
    kind: str = "Relu",
    more: str = "",
    card: str | None = None,
) -> bytes:
    node = reference._node(kind, ["image", *([more] if more else [])], "logits")
    logits = reference._value("logits", "n", 3, "h", "w") if outputs else None
    tensors = [] if tensor is None else [tensor]
    return reference.model([node], tensors, reference._value("image", "n", 3, "h", "w"), logits, card)


def _elsewhere(place: str) -> bytes:
    """A TensorProto (1, 3, 1, 1) whose values are to be read from another file."""
    entries = (("location", place), ("length", "12"))
    notes = b"".join(reference._bytes(13, reference._text(1, k) + reference._text(2, v)) for k, v in entries)
    sides = b"".join(reference._int(1, side) for side in (1, 3, 1, 1))
    return sides + reference._int(2, 1) + reference._text(8, "there") + notes + reference._int(14, 1)


def _read_journal(path: Path) -> None:
    """A damaged journal promises nothing, and is refused or ignored."""
    path.rename(path.with_name(JOURNAL))
    if Journal(path.parent, {}, resume=True).done(Path(sys.executable), {"labels": Path(sys.executable)}):
        raise Broken("the journal was believed")
    raise PixelwiseError("ignored")


def _read_name(path: Path) -> None:
    name = plain_name(path.read_text(encoding="utf-8"))
    if name in ("", ".", "..") or set(name) & set("/\\:\0\n\r\x1b") or Path(name).name != name:
        raise Broken(f"a file would be called {name!r}")
    raise PixelwiseError("made harmless")


def _line(**values: Any) -> bytes:
    return json.dumps(values).encode() + b"\n"


_ANSWER: Reader = partial(read_labels, classes=CLASSES)


def _read_card(path: Path) -> Card:
    return Card.from_json(path.read_text(encoding="utf-8"))


FILES: dict[str, Case] = {
    "size.coco.json": (_ANSWER, lambda: _coco(_object({"size": [8, 8], "counts": [64]}), width=10**9, height=10**9)),
    "counts.coco.json": (_ANSWER, lambda: _coco(_object({"size": [8, 8], "counts": [1, 10**12]}))),
    "negative.coco.json": (_ANSWER, lambda: _coco(_object({"size": [8, 8], "counts": [-5, 69]}))),
    "nan.coco.json": (_ANSWER, lambda: _coco(_object([[0, 0, float("nan"), 4, 4, 4]]))),
    "far.coco.json": (_ANSWER, lambda: _coco(_object([[0, 0, 1e300, 4, 4, 4]]))),
    "words.coco.json": (_ANSWER, lambda: _coco(_object("water"))),
    "list.coco.json": (_ANSWER, lambda: b"[1, 2, 3]"),
    "deep.coco.json": (_ANSWER, lambda: b"[" * 100_000),
    "cut.coco.json": (_ANSWER, lambda: _coco(_object([[0, 0, 4, 4, 8, 0]]))[:-30]),
    "floats.npy": (_ANSWER, lambda: _npy_of("(2, 2)", "<f8", bytes(32))),
    "pickle.labels.npy": (_ANSWER, lambda: _npy_of("(1,)", "|O", pickle.dumps([_Runs("labels")]))),
    "bomb.labels.png": (_ANSWER, lambda: _png(60_000, 60_000, b"\0" * 9)),
    "cut.labels.png": (_ANSWER, lambda: _picture("PNG")[:600]),
    "kind.labels.exe": (_ANSWER, lambda: b"MZ" + bytes(60)),
    "nan.card": (_read_card, lambda: _card(preprocess__mean=[float("nan")] * 3)),
    "infinite.card": (_read_card, lambda: _card(preprocess__std=[float("inf")] * 3)),
    "channels.card": (_read_card, lambda: _card(preprocess__std=[1.0])),
    "size.card": (_read_card, lambda: _card(preprocess__size=[0, -1])),
    "stride.card": (_read_card, lambda: _card(stride=-4)),
    "names.card": (_read_card, lambda: _card(labels__names=["one"])),
    "twice.card": (_read_card, lambda: _card(labels__ids=[1, 1, 1, 1])),
    "outputs.card": (_read_card, lambda: _card(outputs="__import__('os')")),
    "surplus.card": (_read_card, lambda: _card(cache_dir="/")),
    "list.card": (_read_card, lambda: b"[]"),
    "deep.card": (_read_card, lambda: b"[" * 100_000),
    "words.onnx": (_open_onnx, lambda: b"not a network"),
    "cut.onnx": (_open_onnx, lambda: reference.in_onnx()[:1_500]),
    "no_output.onnx": (_open_onnx, lambda: _onnx(outputs=False)),
    "nan_card.onnx": (_open_onnx, lambda: reference.in_onnx(_card(preprocess__mean=[float("nan")] * 3).decode())),
    "few_classes.onnx": (_open_onnx, lambda: reference.in_onnx(_card(**{
        f"labels__{part}": reference.CARD.to_dict()["labels"][part][:2] for part in ("names", "colors", "ids")
    }).decode())),
    "unknown_layer.onnx": (_open_onnx, lambda: _onnx(kind="Shell")),
    "above.onnx": (_open_onnx, lambda: _onnx(_elsewhere("../../there"), kind="Add", more="there")),
    "absolute.onnx": (_open_onnx, lambda: _onnx(_elsewhere(os.path.abspath(os.__file__)), kind="Add", more="there")),
    "torn.journal": (_read_journal, lambda: b'{"source": "a", "fi\x00\xff'),
    "types.journal": (_read_journal, lambda: _line(source=sys.executable, file=7, hash={}, files=[])),
    "settings.journal": (_read_journal, lambda: _line(settings=3, hash="0")),
    "binary.journal": (_read_journal, lambda: bytes(range(256)) * 8),
    **{
        f"{number}.name": (_read_name, name.encode)
        for number, name in enumerate((
            "../../above", "/etc/passwd", "..\\above", "C:\\above", "..", "", ".hidden", "two\nlines", "\x1b[31mred",
            "nul\0", "x" * 5_000,
        ))
    },
}  # fmt: skip


# Checkpoints, rasters, videos: with extras -------------------------------------------------------------------


class _Runs:
    """Unpickled, it makes the folder `ran-NAME` where it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return os.mkdir, (f"ran-{self.name}",)


def _zipped(data: bytes, name: str = "archive/data.pkl") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def _safetensors(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(start: int, end: int, *shape: int, kind: str = "F32") -> dict[str, Any]:
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": [start, end]}}


CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "pickle.pt": lambda: pickle.dumps(_Runs("pt"), 2),
    "pickle.pth": lambda: _zipped(pickle.dumps({"state_dict": _Runs("pth")}, 2)),
    "pickle.bin": lambda: pickle.dumps({"state_dict": [_Runs("bin")]}, 4),
    "pickle.safetensors": lambda: pickle.dumps(_Runs("safetensors"), 2),
    "no_pickle.pt": lambda: _zipped(b"not a pickle"),
    "cut.pt": lambda: _zipped(pickle.dumps({}, 2))[:90],
    "above.pt": lambda: _zipped(b"\x80\x02}.", "../../above/data.pkl"),
    "lying_length.safetensors": lambda: _safetensors({}, length=2**60),
    "lying_offsets.safetensors": lambda: _safetensors(_tensor(0, 2**40, 2**38)),
    "lying_shape.safetensors": lambda: _safetensors(_tensor(0, 16, 2**31, 2**31)),
    "kind.safetensors": lambda: _safetensors(_tensor(0, 16, 4, kind="PICKLE")),
    "deep.safetensors": lambda: _safetensors(b"{" + b'"a":[' * 20_000),
    "no_tensors.safetensors": lambda: _safetensors({"__metadata__": {"pixelwise.card": "{}"}}, b""),
    "unknown.safetensors": lambda: _safetensors(_tensor(0, 16, 4)),
}


def _open_raster(path: Path) -> None:
    from pixelwise.sources.raster import open_raster

    raster = open_raster(path)
    raster.read(0, raster.size_hw[0])


def _vrt(source: str, side: int = 8) -> bytes:
    return (
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    ).encode()


def rasters(address: str) -> dict[str, Callable[[], bytes]]:
    """address: of a server that notes who asks it."""
    return {
        "fetching.vrt": lambda: _vrt(f"/vsicurl/{address}/a.tif"),
        "fetching.tif": lambda: _vrt(f"/vsicurl/{address}/b.tif"),
        "streaming.vrt": lambda: _vrt(f"/vsicurl_streaming/{address}/c.tif"),
        "reading.vrt": lambda: _vrt(os.path.abspath("elsewhere.png")),
        "service.img": lambda: f'<GDAL_WMS><Service name="WMS"><ServerUrl>{address}/d?</ServerUrl></Service>'
        "<DataWindow><SizeX>8</SizeX><SizeY>8</SizeY></DataWindow></GDAL_WMS>".encode(),
        "cut.tif": lambda: _picture("TIFF")[:300],
        "lying.tif": lambda: _tiff(*_grey(100, 100, 2**31, 2**31)),
        "empty.vrt": lambda: b"",
    }  # fmt: skip


def _open_video(path: Path) -> None:
    from pixelwise.sources.video import Video

    with Video(path) as video:
        for _ in video:
            pass


def videos(address: str) -> dict[str, Callable[[], bytes]]:
    """address: of a server that notes who asks it."""
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}/e.ts\n#EXT-X-ENDLIST\n"
    return {
        "fetching.mp4": playlist.encode,
        "list.mkv": f"ffconcat version 1.0\nfile '{address}/f.mp4'\n".encode,
        "description.mov": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\nu={address}\n".encode,
        "cut.mp4": lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\1\0moov",
        "words.avi": lambda: b"RIFF\xff\xff\xff\x7fAVI LIST" + bytes(40),
        "empty.mp4": lambda: b"",
    }


# Running them ------------------------------------------------------------------------------------------------


def cases(group: str, address: str) -> dict[str, Case]:
    """Those of a group: what they are called, what reads them, and what makes them."""
    reader: Reader
    if group == "files":
        return FILES
    if group == "pictures":
        reader, made = images.read, PICTURES
    elif group == "checkpoints":
        from pixelwise.checkpoints.loading import from_checkpoint

        reader, made = from_checkpoint, CHECKPOINTS
    elif group == "rasters":
        reader, made = _open_raster, rasters(address)
    else:
        reader, made = _open_video, videos(address)
    return {name: (reader, make) for name, make in made.items()}


def verdict(reader: Reader, path: Path) -> str | None:
    """What went wrong when the file was read; None where it was refused as it should be."""
    before, began = _megabytes(), time.process_time()
    try:
        reader(path)
        wrong: str | None = "was read, expected to be refused"
    except PixelwiseError as error:
        wrong = None if len(str(error).splitlines()) == 1 else "was refused in more than one line"
    except Exception as error:
        wrong = f"ended as {type(error).__name__}, expected an error of pixelwise: {str(error)[:200]}"
    megabytes, seconds = _megabytes() - before, time.process_time() - began
    if wrong is None and (megabytes > MOST_MEGABYTES or seconds > MOST_SECONDS):
        wrong = (
            f"took {megabytes:.0f} MB and {seconds:.1f} s, allowed are {MOST_MEGABYTES} and {MOST_SECONDS}"
        )
    if ran := list(path.parent.glob("ran-*")):
        wrong = f"ran code that the file brought ({ran[0].name})"
        ran[0].rmdir()
    return wrong


def _megabytes() -> float:
    """The most memory that this process has had, 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def _server() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and what was asked for there."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def main(group: str, folder: Path) -> None:
    os.chdir(folder)
    Path("elsewhere.png").write_bytes(_picture("PNG"))
    with _server() as (address, asked):
        for number, (name, (reader, make)) in enumerate(cases(group, address).items()):
            path = folder / str(number) / name
            path.parent.mkdir()
            os.chdir(path.parent)
            path.write_bytes(make())
            wrong = verdict(reader, path)
            if asked:
                wrong = f"had {asked.pop()} fetched from the address in it"
                asked.clear()
            print(json.dumps([name, wrong]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
