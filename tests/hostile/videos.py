"""Videos, segmented by the command."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator

import numpy as np

from hostile.cases import Answer, Case, Gives, Place, Refused, Right, colors_model, encoded, flat, segmented
from pixelwise.errors import ImageError

LEFT = ("out/*.frames.jsonl", "out/*.mp4", "out/.pixelwise-journal.jsonl")


def video(
    count: int = 3, size_hw: tuple[int, int] = (16, 20), container: str = "mp4", codec: str = "mpeg4"
) -> bytes:
    """Frames of red."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=10)
        stream.height, stream.width = size_hw
        stream.pix_fmt = layout = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for _ in range(count):
            frame = av.VideoFrame.from_ndarray(flat((255, 0, 0), size_hw), format="rgb24")
            out.mux(stream.encode(frame.reformat(format=layout)))
        out.mux(stream.encode(None))
    return file.getvalue()


def sound() -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def motion_jpeg(width: int, height: int) -> bytes:
    """An AVI whose frames say another size than they have."""
    data = bytearray(video(container="avi", codec="mjpeg"))
    at = -1
    while (at := data.find(b"\xff\xc0", at + 1)) >= 0:
        struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def unknown_codec() -> bytes:
    """An AVI of no codec that is known, and no size."""
    data = bytearray(
        video(container="avi", codec="mjpeg").replace(b"MJPG", b"ABCD").replace(b"mjpg", b"ABCD")
    )
    at = data.index(b"strf") + 8 + 4
    struct.pack_into("<ii", data, at, 0, 0)
    return bytes(data)


def file(name: str, make: Callable[[], bytes | str]) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        colors_model(place)
        data = make()
        if isinstance(data, str):
            data = data.replace("OUTSIDE", str(place.outside)).replace("ADDRESS", place.address)
        place.write(name, data)

    return write


def frames(count: int) -> Gives:
    def check(_: Answer, place: Place) -> None:
        (path,) = (place.folder / "out").glob("*.frames.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == count, f"{len(lines)} frames"

    return Gives(check)


def _cases() -> Iterator[Case]:
    def one(name: str, source: str, make: Callable[[], bytes | str], right: Right | None = None) -> Case:
        right = right or Refused(source.replace(".", r"\."), ImageError)
        return Case(name, file(source, make), segmented(source, "--format", "json"), right, LEFT)

    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n"
    yield one("whole", "x.mp4", video, frames(3))
    yield one("another kind than it is called", "x.avi", video, frames(3))
    yield one("junk behind its end", "x.avi", lambda: video(container="avi") + b"junk" * 100, frames(3))
    yield one(
        "odd sides", "x.avi", lambda: video(size_hw=(15, 19), codec="mjpeg", container="avi"), frames(3)
    )
    yield one("nothing in it", "x.mp4", lambda: b"", Refused("empty", ImageError))
    yield one("text", "x.mp4", lambda: "not a video at all\n" * 50)
    yield one("a page of HTML", "x.webm", lambda: "<!DOCTYPE html><title>404</title>" * 20)
    yield one("its index cut off", "x.mp4", lambda: video()[: len(video()) // 2])
    yield one("its frames turned over", "x.avi", lambda: _broken(video(container="avi", codec="mjpeg")))
    yield one("no frames", "x.mp4", lambda: video(0))
    yield one("sound alone", "x.mkv", sound, Refused("no video", ImageError))
    yield one("a list that names an address", "x.mp4", lambda: playlist.format("http://ADDRESS/x.ts"))
    yield one("a list that names another file", "x.ts", lambda: playlist.format("file:OUTSIDE/secret.png"))
    yield one("a script of files", "x.mkv", lambda: "ffconcat version 1.0\nfile 'OUTSIDE/secret.png'\n")
    yield one(
        "a session description",
        "x.mov",
        lambda: "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    )
    yield one(
        "a manifest of a stream",
        "x.mp4",
        lambda: (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            '<Representation id="1"><BaseURL>http://ADDRESS/x.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
        ),
    )
    yield one("frames of four billion pixels", "x.avi", lambda: motion_jpeg(65_000, 65_000))
    yield one("frames without a width", "x.avi", lambda: motion_jpeg(0, 16))
    yield one("a codec of nobody, and no size", "x.avi", unknown_codec)
    yield one("a picture", "x.mp4", lambda: encoded(flat((255, 0, 0)), "PNG"))
    yield one(
        "a box that contains itself", "x.mp4", lambda: struct.pack(">I4sI4s", 16, b"moov", 16, b"moov") * 50
    )
    yield one(
        "a box of 2^63 bytes", "x.mov", lambda: video()[:32] + struct.pack(">I4sQ", 1, b"moov", 2**63 - 1)
    )


def _broken(data: bytes) -> bytes:
    begin = data.index(b"movi") + 20
    return data[:begin] + bytes(255 - byte for byte in data[begin:-40]) + data[-40:]


CASES = list(_cases())
