"""A soak of `pixelwise serve`: thousands of requests of every kind, a tenth of them hostile, by several at a time.

    python tests/soaking.py --requests 10000

Each good answer is compared with the files that `pixelwise segment` writes, each hostile one with what it may get; the
service must live, and hold as much memory after as before.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise import LabelSet
from serving import serving
from tiny import CARD, write_colors_model

FORMATS = (
    "labels ids npy geojson coco overlay side-by-side contours cutout legend confidence csv json".split()
)
"""Of which the commands' files are compared."""

BY_ACCEPT = {
    "application/json": "json",
    "application/geo+json": "geojson",
    "text/csv": "csv",
    "*/*": "labels",
}

MOST_BYTES = 4_000_000
"""That a request may have here."""


@dataclass(frozen=True)
class Good:
    """A request and the file, or the files of the archive, that answer it."""

    target: str
    headers: dict[str, str]
    body: bytes
    expected: bytes | dict[str, bytes]


def pictures(folder: Path, count: int) -> list[Path]:
    """Pictures of every kind that people send, blots and noise, of many sizes."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(count):
        h, w = (int(side) for side in draw.integers(20, 400, 2))
        y, x = np.mgrid[:h, :w] / draw.uniform(9, 40)
        blots = np.stack([np.sin(x + i) * np.cos(y * s) for s in draw.uniform(0.5, 2, 3)], axis=2)
        picture = np.clip(128 + 100 * blots + draw.normal(0, 20, (h, w, 3)), 0, 255).astype(np.uint8)
        image, turned = Image.fromarray(picture), Image.Exif()
        turned[0x0112] = 6
        kind = i % 9
        if kind == 0:
            image.save(folder / f"p{i}.jpg", quality=90)
        elif kind == 1:
            image.save(folder / f"p{i}.jpg", quality=70, exif=turned)
        elif kind == 2:
            image.save(folder / f"p{i}.png")
        elif kind == 3:
            image.convert("L").save(folder / f"p{i}.png")
        elif kind == 4:
            image.convert("RGBA").save(folder / f"p{i}.webp", lossless=True)
        elif kind == 5:
            image.save(folder / f"p{i}.gif", save_all=True, append_images=[image.rotate(90)] * 3)
        elif kind == 6:
            Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(folder / f"p{i}.png")
        elif kind == 7:
            image.convert("CMYK").save(folder / f"p{i}.jpg", quality=90)
        else:
            image.save(folder / f"p{i}.tif")
    return sorted(folder.iterdir())


OPTIONS = (
    ("", ()),
    ("&min_area=30", ("--min-area", "30")),
    ("&flip=horizontal", ("--flip", "horizontal")),
    ("&tile=64&overlap=16", ("--tile", "64", "--overlap", "16")),
)
"""How the service is asked, and the command."""


def good_requests(folder: Path, models: dict[str, str], count: int) -> list[Good]:
    """Each picture in each format, of each model in turn; many with options, some several at once."""
    paths, found = pictures(folder / "pictures", count), []
    written: dict[tuple[str, str], Path] = {}
    for name, model in models.items():
        for number, (_, words) in enumerate(OPTIONS):
            out = folder / f"{name}-{number}"
            command = [
                sys.executable,
                "-m",
                "pixelwise",
                "segment",
                str(folder / "pictures"),
                "--model",
                model,
            ]
            subprocess.run(
                [*command, "--out", str(out), "--format", ",".join(FORMATS), *words],
                check=True,
                capture_output=True,
            )
            written[name, OPTIONS[number][0]] = out
    endings = _endings()
    draw = random.Random(0)
    for path in paths:
        for name in models:
            for asked, _ in OPTIONS:
                out, format = written[name, asked], draw.choice(FORMATS)
                content = (out / f"{path.stem}{endings[format]}").read_bytes()
                target = f"/segment?model={name}&format={format}{asked}"
                found.append(Good(target, {"Content-Type": "image/any"}, path.read_bytes(), content))
            accept, format = draw.choice([*BY_ACCEPT.items()])
            content = (written[name, ""] / f"{path.stem}{endings[format]}").read_bytes()
            found.append(Good(f"/segment?model={name}", {"Accept": accept}, path.read_bytes(), content))
            chosen, formats = draw.sample(paths, 3), draw.sample(FORMATS, 2)
            files = {
                f"{one.stem}{endings[format]}": (
                    written[name, ""] / f"{one.stem}{endings[format]}"
                ).read_bytes()
                for one in chosen
                for format in formats
            }
            body, kind = form([(one.name, one.read_bytes()) for one in chosen])
            target = f"/segment?model={name}&format={','.join(formats)}"
            found.append(Good(target, {"Content-Type": kind}, body, files))
    return found


def _endings() -> dict[str, str]:
    from pixelwise.outputs.formats import FORMATS as known

    return {name: known[name].ending for name in FORMATS}


def form(parts: Sequence[tuple[str, bytes]], name: str = "picture") -> tuple[bytes, str]:
    """Files as a form, and its type."""
    head = 'Content-Disposition: form-data; name="{}"; filename="{}"\r\nContent-Type: image/any\r\n\r\n'
    whole = b"".join(
        b"--edge\r\n" + head.format(name, file).encode() + content + b"\r\n" for file, content in parts
    )
    return whole + b"--edge--\r\n", "multipart/form-data; boundary=edge"


# Hostile ones


@dataclass(frozen=True)
class Hostile:
    """send: to a port, what is answered, None where the connection ended without. may: the statuses that it may get,
    None for no answer."""

    name: str
    send: Callable[[int], bytes | None]
    may: tuple[int | None, ...]


def exchange(port: int, *parts: bytes | float, hang_up: bool = False) -> bytes | None:
    """Send the parts, waiting where one is a number of seconds; the answer up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=90) as connection:
        try:
            for part in parts:
                if isinstance(part, bytes):
                    connection.sendall(part)
                else:
                    time.sleep(part)
            if hang_up:
                return None
            return b"".join(iter(lambda: connection.recv(65536), b"")) or None
        except (ConnectionResetError, BrokenPipeError):
            return None


def post(body: bytes, target: str = "/segment", method: str = "POST", **headers: object) -> bytes:
    """A request as its bytes; the connection ends with it."""
    given = {"Host": "localhost", "Connection": "close", "Content-Length": len(body)}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [
        f"{method} {target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in given.items() if value is not None),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def png(w: int, h: int, data: bytes = b"") -> bytes:
    """A PNG that declares a size, whatever is in it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def hostile_requests(photo: bytes, gray: bytes) -> list[Hostile]:
    """photo, gray: a JPEG and a PNG that are whole."""
    broken = bytearray(photo)
    broken[len(photo) // 3 : len(photo) // 2] = bytes(len(photo) // 2 - len(photo) // 3)
    many, kind = form([("p.png", gray)] * 40)
    other, _ = form([("p.png", gray)], name="image")
    path, _ = form([("../../etc/passwd\x00.png", gray)])
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p.png", bytes(10**7))
    endless = b"f4240\r\n" + bytes(10**6) + b"\r\n"
    requests: dict[str, tuple[tuple[bytes | float, ...], tuple[int | None, ...]]] = {
        "nothing": ((post(b""),), (415, 422)),
        "cut off": ((post(photo[: len(photo) // 2]),), (422,)),
        "a head alone": ((post(photo[:20]),), (415, 422)),
        "zeros in the middle": ((post(bytes(broken)),), (200, 422)),  # a decoder may go on
        "a PNG without its end": ((post(gray[:-40]),), (422,)),
        "a bomb of declared size": ((post(png(100_000, 100_000)),), (413,)),
        "a bomb within the limit": ((post(png(10_000, 9_000, zlib.compress(bytes(10**7)))),), (422,)),
        "a side of 2^31": ((post(png(2**31 - 1, 1)),), (413, 415, 422)),
        "no pixels": ((post(png(0, 5)),), (413, 415, 422)),
        "text": ((post(b"<html>", Content_Type="text/html"),), (415,)),
        "text that is called a picture": ((post(b"<html>" * 99, Content_Type="image/png"),), (415, 422)),
        "SVG": ((post(b"<svg xmlns='http://www.w3.org/2000/svg'/>", Content_Type="image/svg+xml"),), (415, 422)),
        "a zip": ((post(zipped.getvalue()),), (415, 422)),
        "JSON": ((post(b'{"url": "http://127.0.0.1/"}', Content_Type="application/json"),), (415,)),
        "compressed": ((post(zlib.compress(photo), Content_Encoding="gzip"),), (415,)),
        "unknown parameter": ((post(photo, "/segment?formt=labels"),), (422,)),
        "unknown format": ((post(photo, "/segment?format=lables"),), (422,)),
        "unknown model": ((post(photo, "/segment?model=../secret"),), (422,)),
        "a number that is none": ((post(photo, "/segment?min_area=nan"),), (422,)),
        "a negative tile": ((post(photo, "/segment?tile=-5"),), (422,)),
        "an endless overlap": ((post(photo, "/segment?tile=64&overlap=inf"),), (422,)),
        "twice the same": ((post(photo, "/segment?format=ids&format=json"),), (422,)),
        "zero bytes": ((post(photo, "/segment?format=%00%ff"),), (422,)),
        "a long query": ((post(photo, "/segment?names=" + "a," * 20_000),), (400, 414, 422, 431, None)),
        "a type that there is none": ((post(photo, Accept="audio/mpeg"),), (406,)),
        "a broken Accept": ((post(photo, Accept=";;q=x,,/"),), (200, 406)),
        "another method": ((post(b"", method="DELETE"),), (405,)),
        "another address": ((post(photo, "/../../etc/passwd"),), (404,)),
        "another host": ((post(photo, Host="evil.example"),), (400,)),
        "no host": ((post(photo, Host=None),), (400, None)),
        "a page elsewhere": ((post(photo, Sec_Fetch_Site="cross-site"),), (403,)),
        "large by its word": ((post(b"x", Content_Length=10**12),), (413,)),
        "large in deed": ((post(bytes(MOST_BYTES + 1)),), (413, None)),
        "large without a word": (
            (post(b"", Content_Length=None, Transfer_Encoding="chunked"), *[endless] * 5), (413, None),
        ),
        "a length that is none": ((post(photo, Content_Length="-5"),), (400, None)),
        "two lengths": ((post(photo, content_length=5),), (400, None)),
        "a chunk that is none": ((post(b"zz\r\nab", Content_Length=None, Transfer_Encoding="chunked"),), (400, None)),
        "a huge header": ((post(photo, X_Padding="a" * 200_000),), (400, 431, None)),
        "many headers": ((post(photo, **{f"X_{i}": "a" * 100 for i in range(2000)}),), (400, 431, None)),
        "no HTTP": ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,), (400, None)),
        "too many pictures": ((post(many, Content_Type=kind),), (413,)),
        "another part": ((post(other, Content_Type=kind),), (422,)),
        "a path for a name": ((post(path, Content_Type=kind),), (200, 400, 422)),
        "a form without an edge": ((post(many, Content_Type="multipart/form-data"),), (400,)),
        "a form that ends early": ((post(many[:500], Content_Type=kind),), (400, 415, 422)),
        "a form of nothing": ((post(b"--edge--\r\n", Content_Type=kind),), (400, 422)),
        "a request id of control characters": ((post(photo, X_Request_ID="a\tb" * 50),), (200,)),
    }  # fmt: skip
    found = [
        Hostile(name, lambda port, parts=parts: exchange(port, *parts), may)  # type: ignore[misc]
        for name, (parts, may) in requests.items()
    ]
    gone: dict[str, tuple[bytes | float, ...]] = {
        "gone in the middle": (post(photo)[:-200],),
        "gone after a while": (post(photo)[:-200], 0.05),
        "gone before the answer": (post(photo),),
        "gone while it is made": (post(photo), 0.01),
        "gone at once": (),
        "gone within the head": (post(photo)[:30],),
    }
    return found + [
        Hostile(name, lambda port, parts=parts: exchange(port, *parts, hang_up=True), (None,))  # type: ignore[misc]
        for name, parts in gone.items()
    ]


# The soak


def fault_of_good(one: Good, connection: http.client.HTTPConnection, keep: Path | None = None) -> str | None:
    """What is wrong with the answer. keep: a folder for files that are not the command's, and for the command's."""
    for _ in range(1000):
        connection.request("POST", one.target, one.body, one.headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 429:  # hostile ones may hold all places for a moment
            break
        time.sleep(0.05)
    if answer.status != 200:
        return f"{one.target}: {answer.status} {content[:300]!r}"
    if isinstance(one.expected, bytes):
        found, expected = {"file": content}, {"file": one.expected}
    else:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found, expected = {name: archive.read(name) for name in archive.namelist()}, one.expected
    differ = [name for name in sorted(found.keys() | expected) if found.get(name) != expected.get(name)]
    for name in differ if keep is not None else []:
        assert keep is not None
        for which, files in (("came", found), ("expected", expected)):
            (keep / f"{time.time_ns()}.{which}.{name}").write_bytes(files.get(name, b""))
    said = [
        found[name].decode("utf-8", "replace")
        for name in differ
        if name.endswith(".error.json") and name in found
    ]
    return f"{one.target}: not the command's: {', '.join(differ)} {' '.join(said)}" if differ else None


def fault_of_hostile(one: Hostile, port: int) -> str | None:
    answer = one.send(port)
    if answer is None:
        return None if None in one.may else f"{one.name}: no answer"
    status = int(answer[9:12])
    if status == 429:  # it came while others held all places
        return None
    if status not in one.may:
        return f"{one.name}: {answer[:400]!r}"
    head, _, body = answer.partition(b"\r\n\r\n")
    if status >= 400 and b"x-request-id" in head:  # else it is the server's own, of what is no HTTP
        error = json.loads(body)["error"]
        if set(error) != {"code", "message", "request_id"} or "\n" in error["message"]:
            return f"{one.name}: {body[:300]!r}"
    if status >= 400 and b"Traceback" in answer:
        return f"{one.name}: {body[:300]!r}"
    return None


def resident_mb(process: int, times: int = 10) -> float:
    """The least of so many readings, two a second, for work for those who have gone may still be done."""
    readings = []
    for _ in range(times):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
        assert found is not None
        readings.append(int(found[1]) / 1000)
        time.sleep(0.5)
    return min(readings)


def soak(
    folder: Path,
    requests: int,
    clients: int = 4,
    models: dict[str, str] | None = None,
    count: int = 18,
    keep: Path | None = None,
) -> dict[str, object]:
    """What became of so many requests. models: by name; a tiny one is always there. count: of different pictures."""
    labels = LabelSet.of(["background", "red", "green", "blue"], colors=CARD.labels.colors)
    tiny = write_colors_model(folder / "colors.onnx", CARD.replace(labels=labels))
    models = {"colors": str(tiny), **(models or {})}
    good = good_requests(folder, models, count)
    whole = {path.suffix: path.read_bytes() for path in (folder / "pictures").glob("p[02].*")}
    hostile = hostile_requests(whole[".jpg"], whole[".png"])
    draw = random.Random(1)
    todo = [
        hostile[i // 10 % len(hostile)] if i % 10 == 9 else draw.choice(good) for i in range(requests)
    ]  # fmt: skip
    faults: list[str] = []
    counts: Counter[str] = Counter()
    coming, lock = iter(todo), threading.Lock()
    words = [word for name, model in models.items() for word in ("--model", f"{name}={model}")]
    with serving(folder, *words, "--max-mb", MOST_BYTES / 1e6) as service:

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=90)
            while True:
                with lock:
                    one = next(coming, None)
                if one is None:
                    connection.close()
                    return
                try:
                    fault = (
                        fault_of_good(one, connection, keep)
                        if isinstance(one, Good)
                        else fault_of_hostile(one, service.port)
                    )
                except Exception as error:  # a connection that breaks is a fault too
                    what = one.target if isinstance(one, Good) else one.name
                    fault = f"{what}: {type(error).__name__}: {error}"
                    connection.close()
                with lock:
                    counts["good" if isinstance(one, Good) else "hostile"] += 1
                    if fault is not None:
                        faults.append(fault)

        def work() -> None:
            threads = [threading.Thread(target=client) for _ in range(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(1)

        # Everything once, and a tenth of the requests: what is kept is there, for as many at a time as come.
        coming = iter([*good, *hostile, *todo[: requests // 10]])
        work()
        counts.clear()
        before = resident_mb(service.process.pid)
        began, between, parts = time.monotonic(), [], min(10, max(1, requests // 500))
        for i in range(parts):
            coming = iter(todo[i * requests // parts : (i + 1) * requests // parts])
            work()
            if service.process.poll() is None:
                between.append(round(resident_mb(service.process.pid, 1)))
        took, lives = time.monotonic() - began, service.process.poll() is None
        after = resident_mb(service.process.pid) if lives else float("nan")
        said = [line for line in service.said().splitlines() if '"traceback"' in line]
    return {
        **counts, "faults": faults, "lives": lives, "tracebacks": said, "seconds": round(took, 1),
        "before_mb": round(before, 1), "after_mb": round(after, 1),
        "between_mb": between,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--model", default="everyday", help="that is served beside the tiny one")
    parser.add_argument("--keep", type=Path, help="a folder for wrong answers, and for what was expected")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(
            Path(folder), options.requests, options.clients, {"other": options.model}, keep=options.keep
        )
    print(json.dumps(found, indent=1))
    if found["faults"] or found["tracebacks"] or not found["lives"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
