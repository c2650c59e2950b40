"""One video: frames are decoded ahead and encoded behind by threads of their own, the network runs between."""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import InputError
from pixelwise.files import held, writing
from pixelwise.inference.options import DEFAULTS, SegmentOptions
from pixelwise.pipeline.options import READ_DEFAULTS, RUN_DEFAULTS, ReadOptions, RunOptions
from pixelwise.segmentation import Segmentation
from pixelwise.sources.video import Frame, Video, VideoWriter

if TYPE_CHECKING:
    from pixelwise.engines import Engine
    from pixelwise.precision import Precision
    from pixelwise.segmenter import Segmenter

AHEAD = 2
"""Frames that wait, decoded, for the network, and behind it for the encoder."""


class Smoothed:
    """An engine that mixes the logits of a frame with those of the frames before: an exponential average,

        smooth_t = weight smooth_(t-1) + (1 - weight) logits_t,    smooth_0 = logits_0.

    Flicker of single frames goes, and moving borders lag by about weight / (1 - weight) frames. A frame may take
    several calls (tiles, flips), the same ones in every frame: `next_frame` says where one begins.
    """

    def __init__(self, engine: Engine, weight: float) -> None:
        if not 0 <= weight < 1:
            raise InputError(f"the weight of the frames before must be in [0, 1), got {weight}; try 0.6")
        self.card = engine.card
        self._engine, self._weight = engine, weight
        self._before: list[Any] = []
        self._call = 0

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def precision(self) -> Precision:
        return self._engine.precision

    def next_frame(self) -> None:
        self._call = 0

    def __call__(self, images: Any) -> Any:
        logits = self._engine(images)
        if self._weight == 0:
            return logits
        if self._call < len(self._before) and self._before[self._call].shape == logits.shape:
            logits = self._before[self._call] * self._weight + logits * (1 - self._weight)
            self._before[self._call] = logits
        else:
            self._before[self._call :] = [logits]
        self._call += 1
        return logits


def segment_video(
    segmenter: Segmenter,
    path: Path,
    files: dict[str, Path],
    options: SegmentOptions = DEFAULTS,
    reading: ReadOptions = READ_DEFAULTS,
    run: RunOptions = RUN_DEFAULTS,
    *,
    smooth: float = 0.0,
) -> dict[str, Any]:
    """Segment every frame of a video or camera; return the size, frames, rate, seconds and mean share of each class.

    files: "overlay", an MP4 with as many frames at the same times and no sound, and "json", a line of JSON a frame:
    its number, its time in seconds, and its classes as in `Segmentation.to_dict`. smooth: see `Smoothed`; 0 takes
    each frame alone. run: progress gets the share that is done; a video is not gone on with, so resume does nothing.
    A camera is read until Ctrl-C. Files appear whole or not at all. Raises ImageError for a video that cannot be read,
    OutputError where another run is at work on the same files.
    """
    options.refuse_auto("a video", "frames")
    engine = Smoothed(segmenter.engine, smooth)
    segmenter = copy.copy(segmenter)
    segmenter.engine = engine
    pixels: Counter[int] = Counter()
    count, seconds, size_hw = 0, Fraction(0), (0, 0)
    with ExitStack() as stack:
        video = stack.enter_context(
            Video(path, max_pixels=reading.max_pixels, allow_remote=reading.allow_remote)
        )
        first = next(iter(files.values()))
        stack.enter_context(held(first.with_name(f".{first.name}.lock"), str(first)))
        places = {
            name: stack.enter_context(writing(file, overwrite=run.overwrite)) for name, file in files.items()
        }
        lines = stack.enter_context(open(places["json"], "w", encoding="utf-8")) if "json" in places else None
        writer: VideoWriter | None = None

        def finish(segmentation: Segmentation, time: Fraction, number: int) -> None:
            if writer is not None:
                writer.add(segmentation.overlay(), time)
            about = segmentation.to_dict()
            pixels.update({entry["id"]: entry["pixels"] for entry in about["classes"]})
            if lines is not None:
                line = {"frame": number, "time": round(float(time), 6), "classes": about["classes"]}
                lines.write(json.dumps(line) + "\n")

        frames = iter(video)
        decoding: deque[Future[Frame | None]] = deque()
        encoding: deque[Future[None]] = deque()
        decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")
        encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        try:
            while True:
                while len(decoding) < AHEAD:
                    decoding.append(decoder.submit(next, frames, None))
                frame = decoding.popleft().result()
                if frame is None:
                    break
                if count == 0:
                    size_hw = (frame.image.shape[0], frame.image.shape[1])
                    if "overlay" in places:
                        writer = stack.enter_context(
                            VideoWriter(
                                places["overlay"], size_hw, video.rate, pixel_aspect=video.pixel_aspect
                            )
                        )
                engine.next_frame()
                segmentation = segmenter.segment(frame.image, options, max_pixels=reading.max_pixels)
                encoding.append(encoder.submit(finish, segmentation, frame.time, count))
                while len(encoding) > AHEAD:
                    encoding.popleft().result()
                count, seconds = count + 1, frame.time
                if video.count:
                    run.progress(min(1.0, count / video.count))
        except KeyboardInterrupt:
            if not video.is_camera or count == 0:
                raise
        finally:
            decoder.shutdown(wait=True, cancel_futures=True)
            if sys.exc_info()[0] is not None:
                encoder.shutdown(wait=True, cancel_futures=True)
        encoder.shutdown(wait=True)
        for future in encoding:
            future.result()
        if run.journal is not None:
            run.journal.begin()
    total = count * size_hw[0] * size_hw[1]
    classes = segmenter.classes
    found = [
        {"id": i, "name": name, "color": list(color), "pixels": pixels[i], "share": pixels[i] / total}
        for name, i, color in zip(classes.names, classes.ids, classes.colors, strict=True)
        if pixels[i]
    ]
    return {
        "height": size_hw[0],
        "width": size_hw[1],
        "frames": count,
        "rate": float(video.rate),
        "seconds": float(seconds + 1 / video.rate),
        "classes": sorted(found, key=lambda entry: -pixels[entry["id"]]),
    }
