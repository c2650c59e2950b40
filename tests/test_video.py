"""Videos: every frame once, at its time, upright; and overlays to look at."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pixelwise import SegmentOptions
from pixelwise.errors import ImageError, InputError, OutputError
from pixelwise.pipeline.options import ReadOptions
from pixelwise.pipeline.video import Smoothed, segment_video
from pixelwise.segmenter import Segmenter
from pixelwise.sources.video import FILES_ONLY, Video, VideoWriter
from tiny import quadrants, write_colors_model

av = pytest.importorskip("av", reason="videos need av (pixelwise[video])")

TICK = Fraction(1, 1000)


def write_video(
    path: Path, frames: list[np.ndarray], *, times: list[Fraction] | None = None, codec: str = "libx264",
    rate: Fraction = Fraction(25), rotation: int = 0,
) -> Path:  # fmt: skip
    """A video by other code than ours."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "5"}
        if times is not None:
            stream.codec_context.time_base = TICK
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a turned video")
            stream.set_display_rotation(rotation)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[i] / TICK), TICK
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def moving(count: int, size_hw: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """A red square that goes right over blue, a step of two pixels a frame."""
    frames = []
    for t in range(count):
        image = np.full((*size_hw, 3), (0, 0, 255), np.uint8)
        image[16:32, 2 * t % size_hw[1] : 2 * t % size_hw[1] + 16] = (255, 0, 0)
        frames.append(image)
    return frames


def read(path: Path) -> tuple[np.ndarray, list[Fraction]]:
    with Video(path) as video:
        frames = list(video)
    return np.stack([f.image for f in frames]), [f.time for f in frames]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(write_colors_model(tmp_path_factory.mktemp("models") / "colors.onnx"))


@pytest.mark.parametrize(
    ("codec", "name"), [("libx264", "a.mp4"), ("mpeg4", "a.avi"), ("libvpx-vp9", "a.webm")]
)
def test_every_frame_is_read_once_in_order_and_in_colour(codec, name, tmp_path):
    frames = moving(23)
    images, times = read(write_video(tmp_path / name, frames, codec=codec))
    assert images.shape == (23, 48, 64, 3)
    assert times == [pytest.approx(t / 25, abs=1e-3) for t in range(23)]
    red = images[:, 24, :, 0] > 128
    for t in range(20):
        centre = np.flatnonzero(red[t]).mean()
        assert centre == pytest.approx(2 * t + 7.5, abs=1.1)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_turned_film_is_shown_upright(turn, tmp_path):
    """Stored lying on its side with a note how far to turn it (counterclockwise), as phones do."""
    upright = quadrants()
    stored = np.ascontiguousarray(np.rot90(upright, -turn // 90))
    images, _ = read(write_video(tmp_path / "a.mp4", [stored] * 3, rotation=turn))
    assert images.shape == (3, *upright.shape)
    assert np.abs(images[1].astype(int) - upright).mean() < 12


def test_what_the_writer_writes_reads_back_with_times_and_colours(tmp_path):
    rate = Fraction(30000, 1001)
    frames = moving(31)
    with VideoWriter(tmp_path / "a.mp4", (48, 64), rate) as writer:
        for t, image in enumerate(frames):
            writer.add(image, t / rate)
    images, times = read(tmp_path / "a.mp4")
    assert len(images) == 31
    assert all(abs(time - t / rate) <= Fraction(1, 90_000) for t, time in enumerate(times))
    with Video(tmp_path / "a.mp4") as video:
        assert float(video.rate) == pytest.approx(float(rate), rel=1e-3)
        assert video.count == 31
    flat = images[:, 4:12, 4:12].reshape(-1, 3).astype(int)
    assert np.abs(flat - (0, 0, 255)).max() <= 8


def test_uneven_times_and_odd_sizes_are_kept(tmp_path):
    times = [Fraction(n, 1000) for n in (0, 40, 90, 500, 505, 1300)]
    with VideoWriter(tmp_path / "a.mp4", (31, 45), Fraction(25)) as writer:
        for time, image in zip(times, moving(6, (31, 45)), strict=True):
            writer.add(image, time)
        with pytest.raises(OutputError, match="one size"):
            writer.add(np.zeros((31, 46, 3), np.uint8), Fraction(2))
    images, read_times = read(tmp_path / "a.mp4")
    assert images.shape == (6, 32, 46, 3)
    assert read_times == [pytest.approx(time, abs=2e-5) for time in times]


def test_an_overlay_has_the_frames_and_times_of_its_film(segmenter, tmp_path):
    times = [Fraction(n, 1000) for n in (0, 33, 70, 100, 400, 433, 466, 501, 520, 560)]
    source = write_video(tmp_path / "a.mp4", moving(10), times=times)
    files = {"overlay": tmp_path / "a.overlay.mp4", "json": tmp_path / "a.jsonl"}
    about = segment_video(segmenter, source, files)
    assert (about["frames"], about["height"], about["width"]) == (10, 48, 64)
    images, new_times = read(files["overlay"])
    assert len(images) == 10
    assert new_times == [pytest.approx(time, abs=2e-3) for time in times]
    lines = [json.loads(line) for line in files["json"].read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(10))
    assert [line["time"] for line in lines] == [pytest.approx(float(time), abs=2e-3) for time in times]
    for line in lines:
        shares = {entry["name"]: entry["share"] for entry in line["classes"]}
        assert shares["red"] == pytest.approx(256 / (48 * 64), abs=0.01)
        assert shares["blue"] == pytest.approx(1 - 256 / (48 * 64), abs=0.01)
    assert about["classes"][0]["share"] == pytest.approx(
        np.mean([line["classes"][0]["share"] for line in lines]), abs=1e-9
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "a.mp4", "a.overlay.mp4"]


class Ramp:
    """An engine that answers its input, whose only use is to be smoothed."""

    name, card = "ramp", None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images


def test_smoothing_is_the_exponential_average_of_each_call():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(6, 2, 1, 4, 3, 3)).astype(np.float32)
    smooth = Smoothed(Ramp(), 0.6)
    expected = [frames[0, 0], frames[0, 1]]
    for t, frame in enumerate(frames):
        smooth.next_frame()
        for call in range(2):
            if t:
                expected[call] = 0.6 * expected[call] + 0.4 * frame[call]
            np.testing.assert_allclose(smooth(frame[call]), expected[call], rtol=1e-5, atol=1e-6)
    larger = np.ones((1, 4, 5, 5), np.float32)
    smooth.next_frame()
    np.testing.assert_array_equal(smooth(larger), larger)
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        Smoothed(Ramp(), 1.0)


def test_smoothing_hides_the_flash_of_one_frame(segmenter, tmp_path):
    """One frame of ten is all green; without smoothing its label map is, with it the film goes on."""
    frames = [np.full((32, 32, 3), (0, 0, 255), np.uint8)] * 10
    frames[5] = np.full((32, 32, 3), (0, 255, 0), np.uint8)
    source = write_video(tmp_path / "a.mp4", frames)
    for weight, expected in ((0.0, ["blue"] * 5 + ["green"] + ["blue"] * 4), (0.6, ["blue"] * 10)):
        files = {"json": tmp_path / f"{weight}.jsonl"}
        segment_video(segmenter, source, files, SegmentOptions(tile=16), smooth=weight)
        lines = [json.loads(line) for line in files["json"].read_text().splitlines()]
        assert [line["classes"][0]["name"] for line in lines] == expected


def test_every_frame_is_cleaned_up(segmenter, tmp_path):
    frames = [frame.copy() for frame in moving(4)]
    for i, frame in enumerate(frames):
        frame[2 + 8 * i : 6 + 8 * i, 50:54] = (0, 255, 0)  # a speck, somewhere else in every frame
    source = write_video(tmp_path / "a.mp4", frames)
    decoded, _ = read(source)
    counts = {}
    for name, options in {"as it is": SegmentOptions(), "cleaned": SegmentOptions(min_area=40)}.items():
        segment_video(segmenter, source, {"json": tmp_path / f"{name}.jsonl"}, options)
        lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        counts[name] = [line["classes"] for line in lines]
        expected = [segmenter.segment(frame, options).to_dict()["classes"] for frame in decoded]
        assert counts[name] == expected
    assert all(any(c["name"] == "green" for c in frame) for frame in counts["as it is"])
    assert not any(c["name"] == "green" for frame in counts["cleaned"] for c in frame)


def test_what_a_video_names_is_asked_for_on_no_network():
    """No kind of file that is read by default names others; if one did, FFmpeg would not go there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for protocol in ("http", "tcp"):
            with pytest.raises((av.error.FFmpegError, OSError)):
                av.open(
                    f"{protocol}://127.0.0.1:{server.getsockname()[1]}", options=dict(FILES_ONLY), timeout=2
                )
        assert select.select([server], [], [], 0)[0] == []


def test_what_is_no_video_gets_a_sentence_and_leaves_nothing(segmenter, tmp_path):
    whole = write_video(tmp_path / "a.mp4", moving(30)).read_bytes()
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    for name, says in {
        "text.mp4": "not a video",
        "cut.mp4": "not a video|damaged",
        "empty.mp4": "is empty",
        "playlist.mp4": "not a video",
        "none.mp4": "no such file",
        "sound.mp4": "no video, only audio",
        "camera:99": "no camera 99|not a video",
        "camera:front": "named by its number",
    }.items():
        path = Path(name) if name.startswith("camera") else tmp_path / name
        with pytest.raises(ImageError, match=says):
            segment_video(segmenter, path, {"overlay": tmp_path / "out" / "a.mp4"})
    files = {"overlay": tmp_path / "out" / "a.mp4"}
    with pytest.raises(ImageError, match="limit of 3,000"):
        segment_video(segmenter, tmp_path / "a.mp4", files, reading=ReadOptions(max_pixels=3000))
    with pytest.raises(InputError, match="fixed --tile"):
        segment_video(segmenter, tmp_path / "a.mp4", files, SegmentOptions(tile="auto"))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_damage_in_the_middle_is_named_or_passed_over(segmenter, tmp_path):
    """FFmpeg conceals most damage; whatever it makes of it, the answer is a film or a sentence."""
    whole = bytearray(write_video(tmp_path / "a.avi", moving(40), codec="mpeg4").read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(whole) // 3, len(whole) // 2, 300):
        whole[at] = rng.integers(256)
    (tmp_path / "b.avi").write_bytes(whole)
    out = tmp_path / "b.mp4"
    with suppress(ImageError):
        about = segment_video(segmenter, tmp_path / "b.avi", {"overlay": out})
        assert len(read(out)[0]) == about["frames"]
        return
    assert not out.exists()


def test_a_network_that_fails_leaves_nothing(segmenter, tmp_path):
    class Fails:
        name, precision, card, calls = "fails", "float32", segmenter.card, 0

        def __call__(self, images: np.ndarray) -> np.ndarray:
            self.calls += 1
            if self.calls == 8:
                raise RuntimeError("no more")
            return segmenter.engine(images)

    failing = Segmenter.__new__(Segmenter)
    failing.engine, failing.card, failing.classes = Fails(), segmenter.card, segmenter.classes
    source = write_video(tmp_path / "a.mp4", moving(20))
    with pytest.raises(RuntimeError, match="no more"):
        segment_video(failing, source, {"overlay": tmp_path / "out" / "a.mp4"})
    assert not (tmp_path / "out").exists()


def test_a_video_through_the_command_line(colors_model, tmp_path):
    write_video(tmp_path / "a.mp4", moving(12))
    run = [
        sys.executable,
        "-m",
        "pixelwise",
        "segment",
        "a.mp4",
        "--model",
        str(colors_model),
        "--out",
        "out",
    ]

    def pixelwise(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*run, *more], capture_output=True, text=True, cwd=tmp_path)

    result = pixelwise("--format", "overlay,json", "--smooth", "0.5")
    assert result.returncode == 0, result.stderr
    assert "blue" in result.stdout
    assert len(read(tmp_path / "out" / "a.overlay.mp4")[0]) == 12
    assert len((tmp_path / "out" / "a.frames.jsonl").read_text().splitlines()) == 12
    flash = [np.full((32, 32, 3), (0, 255 * (i == 5), 255 * (i != 5)), np.uint8) for i in range(10)]
    write_video(tmp_path / "flash.mp4", flash)
    smooth = [*run[:4], "flash.mp4", *run[5:], "--format", "json", "--smooth", "0.6"]
    result = subprocess.run(smooth, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "out" / "flash.frames.jsonl").read_text().splitlines()
    assert [json.loads(line)["classes"][0]["name"] for line in lines] == ["blue"] * 10
    refused = pixelwise("--format", "geojson")
    assert refused.returncode == 2
    assert "overlay and json can be written, got geojson" in refused.stderr
    camera = subprocess.run([*run[:4], "camera:99", *run[5:]], capture_output=True, text=True, cwd=tmp_path)
    assert camera.returncode == 2
    assert "camera 99" in camera.stderr or "camera:99" in camera.stderr
