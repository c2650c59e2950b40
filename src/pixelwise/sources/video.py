"""Videos, frame by frame, through PyAV: every frame once, upright, with its time; and cameras by number.

Letters: t a frame's number from 0, h w its size as it is to be shown, after the turn that phones write into a file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, MissingExtraError, OutputError
from pixelwise.images import MAX_PIXELS, check_file, check_regular
from pixelwise.sources import CAMERA
from pixelwise.sources.gdal import refuse_offline

ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "h264": {}, "mpeg4": {"qscale": "3"}}
"""What overlay videos are encoded with: the first that is there. H.264 plays everywhere."""

FILES_ONLY = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,gif,mjpeg,h264,hevc,mpegvideo,ivf,mxf,nut,dv",
}
"""Kinds of files that hold their own frames. Left out: playlists, which would have other files or addresses read."""


WITH_OTHERS = {"protocol_whitelist": "file,crypto,data,http,https,tcp,tls"}
"""Where what a playlist names may lie, if it may name others."""


@dataclass(frozen=True)
class Frame:
    """image: uint8 RGB (h, w, 3). time: seconds since the first frame."""

    image: NDArray[np.uint8]
    time: Fraction


class Video:
    """An open video or camera ("camera:0"); iterate over it for its frames, once. Use it with `with`.

    count: how many frames the file announces, or None; what comes may differ. rate: frames a second on average.
    allow_remote: playlists too, and what they name in other files or on the network. Raises ImageError for what cannot
    be opened or decoded, with the frame's number, and for frames of more than max_pixels.
    """

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS, allow_remote: bool = False) -> None:
        try:
            import av
        except ModuleNotFoundError as error:
            raise MissingExtraError("reading a video", "video") from error
        self._av, self.path, self._max_pixels = av, path, max_pixels
        self.is_camera = str(path).startswith(CAMERA)
        if not self.is_camera:
            check_file(path)
            check_regular(path)
        if allow_remote:
            refuse_offline(path)
        try:
            self._file = (
                self._open_camera()
                if self.is_camera
                # The prefix, because FFmpeg takes a name with a colon for an address.
                else av.open(f"file:{path}", options=dict(WITH_OTHERS if allow_remote else FILES_ONLY))
            )
        except (av.error.FFmpegError, OSError, UnicodeError) as error:
            reason = "; another program may be using it" if self.is_camera else ""
            raise ImageError(f"{path} is not a video that can be read ({_reason(error)}){reason}") from error
        if not self._file.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in self._file.streams})) or "nothing"
            self._file.close()
            raise ImageError(f"{path} holds no video, only {kinds}")
        try:
            stream = self._file.streams.video[0]
            if stream.codec_context is None:
                raise ImageError(f"{path} holds a video of a kind that this FFmpeg cannot decode")
            stream.thread_type = "AUTO"
            # What the file says of itself may be nothing, or not so: the decoder refuses larger frames by itself.
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
            self._refuse_large(stream.codec_context.width, stream.codec_context.height)
        except BaseException:
            self._file.close()
            raise
        self._stream: Any = stream
        self.rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.pixel_aspect: Fraction | None = stream.sample_aspect_ratio
        self.count: int | None = stream.frames or None
        if self.count is None and stream.duration and stream.time_base and not self.is_camera:
            self.count = max(1, round(stream.duration * stream.time_base * self.rate))

    def __iter__(self) -> Iterator[Frame]:
        first: Fraction | None = None
        last, number = Fraction(-1), 0
        frames = self._file.decode(self._stream)
        while True:
            try:
                frame = next(frames, None)
            except self._av.error.FFmpegError as error:
                raise ImageError(
                    f"{self.path} is damaged after frame {number} ({_reason(error)}); "
                    "cut it there, or repair it with ffmpeg"
                ) from error
            if frame is None:
                break
            self._refuse_large(frame.width, frame.height)
            image = frame.to_ndarray(format="rgb24")
            quarter_turns = round(frame.rotation / 90) % 4
            if quarter_turns:
                image = np.ascontiguousarray(np.rot90(image, quarter_turns))
            if frame.pts is None or frame.time_base is None:
                time = last + 1 / self.rate if number else Fraction(0)
            else:
                time = frame.pts * frame.time_base
            first = time if first is None else first
            last = time
            number += 1
            yield Frame(image, time - first)
        if number == 0:
            raise ImageError(f"{self.path} holds no frames; it is damaged or cut short")

    def _refuse_large(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise ImageError(
                f"{self.path} has frames of {height} x {width} pixels, more than the limit of {self._max_pixels:,}; "
                "if it is to be trusted, raise the limit (max_pixels, --max-pixels)"
            )

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open_camera(self) -> Any:
        number = str(self.path).removeprefix(CAMERA)
        if not number.isdigit():
            raise ImageError(f"a camera is named by its number, such as camera:0, got {self.path}")
        if sys.platform == "darwin":
            return self._av.open(number, format="avfoundation", options={"framerate": "30"})
        if sys.platform == "win32":
            return self._av.open(f"video={number}", format="dshow")
        device = Path(f"/dev/video{number}")
        if not device.exists():
            there = sorted(p.name.removeprefix("video") for p in Path("/dev").glob("video[0-9]*"))
            raise ImageError(
                f"there is no camera {number} ({device}); "
                + (f"found: {', '.join(there)}" if there else "no camera is connected")
            )
        return self._av.open(str(device), format="v4l2")


class VideoWriter:
    """Write frames of one size as MP4, each at its own time. Use it with `with`; the file is whole after that.

    Sides are made even by repeating the last row or column, which common players need. rate: of the frames on
    average; their times decide. pixel_aspect: width of a pixel over its height.
    """

    def __init__(
        self,
        path: Path,
        size_hw: tuple[int, int],
        rate: Fraction,
        *,
        pixel_aspect: Fraction | None = None,
    ) -> None:
        try:
            import av
        except ModuleNotFoundError as error:
            raise MissingExtraError("writing a video", "video") from error
        self._av = av
        self._size_hw = size_hw
        encoder = next(
            (name for name in ENCODERS if name in av.codec.codecs_available and _encodes(name)), None
        )
        if encoder is None:
            raise OutputError(f"this PyAV has none of the encoders {', '.join(ENCODERS)}; reinstall av")
        self._file = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        stream: Any = self._file.add_stream(encoder, rate=rate, options=dict(ENCODERS[encoder]))
        h, w = size_hw
        stream.height, stream.width, stream.pix_fmt = h + h % 2, w + w % 2, "yuv420p"
        # A tick that divides a second as finely as any camera's clock, and the rates of film and television.
        self._tick = Fraction(1, 90_000)
        stream.codec_context.time_base = self._tick
        stream.time_base = self._tick
        for name, value in (("colorspace", 1), ("color_primaries", 1), ("color_trc", 1), ("color_range", 1)):
            setattr(stream.codec_context, name, value)  # BT.709, of limited range: what players assume
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        self._stream = stream

    def add(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """One frame, uint8 RGB (h, w, 3), at `time` seconds, later than the one before."""
        h, w = self._size_hw
        if image.shape != (h, w, 3):
            raise OutputError(
                f"the frames of a video have one size, ({h}, {w}), got {image.shape[:2]}; "
                "cut it where the size changes"
            )
        if h % 2 or w % 2:
            image = np.pad(image, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = round(time / self._tick), self._tick
        self._file.mux(self._stream.encode(frame))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.mux(self._stream.encode(None))
        finally:
            self._file.close()


def _encodes(name: str) -> bool:
    import av

    try:
        return bool(av.codec.Codec(name, "w").is_encoder)
    except (av.error.FFmpegError, ValueError):
        return False


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0].rstrip(".")
