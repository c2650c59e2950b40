"""What is promised about memory, measured in a process of its own; and what is refused before it is allocated."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pixelwise import SegmentOptions, images, limits
from pixelwise.errors import ImageError, InputError, OutputError, PixelwiseError
from pixelwise.outputs.geo import read_raster
from pixelwise.pipeline.options import ReadOptions, RunOptions
from pixelwise.pipeline.raster import segment_raster
from pixelwise.segmenter import Segmenter
from pixelwise.sources.raster import open_raster
from test_sources import land, rasterio, tifffile, write_tiff, zarr
from tiny import write_colors_model

numcodecs = pytest.importorskip("numcodecs", reason="Zarr needs numcodecs (pixelwise[raster])")
on_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from /proc")

MEASURE = """
import sys, os
from pathlib import Path
from types import SimpleNamespace
def status(name): return 1024 * int(Path("/proc/self/status").read_text().split(name)[1].split()[0])
def peak(work):
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS:")
    result = work()
    return status("VmHWM:") - before, result
"""


def measured(code: str, *arguments: object) -> list[float]:
    """What a child that begins with MEASURE prints, as numbers; of memory it has 4 GB."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURE + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    assert result.returncode == 0, result.stderr
    return [float(line) for line in result.stdout.split()]


# Pictures -------------------------------------------------------------------------------------------------------

SIDE = 1600


def picture() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x * 7 % 256, y * 3 % 256, (x // 16 * (y // 16)) % 256], -1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PICTURES: dict[str, tuple[Callable[[Image.Image], bytes], float]] = {
    # name: the file, and how many bytes a pixel may be taken
    "rgb.png": (lambda i: saved(i, "PNG", compress_level=1), 8),
    "rgb.jpg": (lambda i: saved(i, "JPEG"), 8),
    "progressive.jpg": (lambda i: saved(i, "JPEG", progressive=True, subsampling=0), 12),
    "turned.jpg": (lambda i: saved(i, "JPEG", exif=turned()), 8.5),
    "cmyk.jpg": (lambda i: saved(i.convert("CMYK"), "JPEG"), 8),
    "palette.png": (lambda i: saved(i.quantize(64, method=Image.Quantize.FASTOCTREE), "PNG"), 8),
    "palette_clear.png": (
        lambda i: saved(i.quantize(64, method=Image.Quantize.FASTOCTREE), "PNG", transparency=3), 8),
    "rgba.png": (lambda i: saved(i.convert("RGBA"), "PNG", compress_level=1), 8),
    "grey.png": (lambda i: saved(i.convert("L"), "PNG", compress_level=1), 8),
    "bits.png": (lambda i: saved(i.convert("1"), "PNG"), 8),
    "sixteen.png": (lambda i: saved(Image.fromarray(np.asarray(i.convert("L"), np.uint16) * 257), "PNG",
                                    compress_level=1), 12),
    "float.tif": (lambda i: saved(Image.fromarray(np.asarray(i.convert("L")) / np.float32(255)), "TIFF"), 12),
    "pages.tif": (lambda i: saved(i, "TIFF", compression="tiff_adobe_deflate", save_all=True, append_images=[i, i]), 8),
    "moving.gif": (lambda i: saved(i.quantize(16), "GIF", save_all=True, append_images=[i.rotate(2).quantize(16)]), 8),
    "moving.png": (lambda i: saved(i, "PNG", compress_level=1, save_all=True, append_images=[i.rotate(2)]), 8),
    "moving.webp": (lambda i: saved(i, "WEBP", method=0, quality=20, save_all=True, append_images=[i.rotate(2)]), 17),
    "jpeg2000.jp2": (lambda i: saved(i, "JPEG2000", quality_mode="rates", quality_layers=[20]), 20),
    "avif.avif": (lambda i: saved(i, "AVIF", speed=10, quality=30), 12),
    "array.npy": (lambda i: npy(np.asarray(i)), 8),
    "floats.npy": (lambda i: npy(np.asarray(i.convert("L")) / np.float32(255)), 12),
    "sixteen.npy": (lambda i: npy(np.asarray(i, np.uint16)), 12),
}  # fmt: skip

USUAL = ("rgb.png", "rgb.jpg", "turned.jpg", "sixteen.png", "array.npy")

READ = """
from pixelwise import images
import PIL.Image
PIL.Image.init()
images.read(sys.argv[1] + "/small.png")
for path in sys.argv[2:]:
    taken, result = peak(lambda: images.read(path))
    print(taken / (result.shape[0] * result.shape[1]))
    del result
"""


@on_linux
@pytest.mark.parametrize(
    "names", [USUAL, pytest.param(tuple(PICTURES), marks=pytest.mark.slow)], ids=["usual", "all"]
)
def test_reading_a_picture_takes_the_memory_that_is_promised(names, tmp_path):
    """What a strip takes while it is converted comes on top."""
    image = Image.fromarray(picture())
    image.resize((8, 8)).save(tmp_path / "small.png")
    for name in names:
        (tmp_path / name).write_bytes(PICTURES[name][0](image))
    found = measured(READ, tmp_path, *(tmp_path / name for name in names))
    for name, taken in zip(names, found, strict=True):
        allowed = PICTURES[name][1] + 27 * images.STRIP_PIXELS / SIDE**2
        assert taken <= allowed, (name, taken, allowed)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_without_a_writer_and_one_that_never_ends_are_given_up(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(images, "PIPE_WAIT_S", 0.05)
    with pytest.raises(ImageError, match=r"pipe is a pipe into which nobody wrote for 0\.05 seconds"):
        images.read(pipe)
    monkeypatch.setattr(images, "PIPE_WAIT_S", 60)

    def write() -> None:
        with open(pipe, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\x89PNG" + bytes(2**16))
            except BrokenPipeError:
                pass

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(ImageError, match=r"pipe goes on after .* raise the limit"):
        images.read(pipe, max_pixels=1000)
    writer.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.img", "a.vrt", "a.nc", "a.zarr", "a.ome.tif", "a.mp4", "a.tif"])
def test_a_pipe_is_no_raster_and_no_video_and_nobody_waits_for_it(name, tmp_path):
    """A TIFF that is a pipe is a picture, for which one waits a minute."""
    os.mkfifo(tmp_path / name)
    code = (
        "from pixelwise import images; images.PIPE_WAIT_S = 0.1\n"
        "from pixelwise.cli import main; import sys; sys.exit(main())"
    )
    model = write_colors_model(tmp_path / "colors.onnx")
    run = [sys.executable, "-c", code, "segment", name, "--model", str(model), "--out", "out"]
    result = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"{name} is a pipe" in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("ending", [".tif.aux.xml", ".tfw", ".tif.ovr"])
def test_a_pipe_beside_a_raster_is_not_waited_for(ending, tmp_path):
    write_tiff(tmp_path / "a.tif", land(), place=None)
    os.mkfifo(tmp_path / f"a{ending}")
    code = (
        "import sys; from pathlib import Path; from pixelwise.sources.raster import open_raster\n"
        "open_raster(Path(sys.argv[1]))"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert f"a{ending} is a pipe or a device, expected a file" in result.stderr


class Endless(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def test_an_open_file_that_never_ends_is_given_up():
    with pytest.raises(ImageError, match="goes on after"):
        images.read(Endless(), max_pixels=1000)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without end")
def test_endless_standard_input_ends_in_a_sentence(tmp_path):
    model = write_colors_model(tmp_path / "colors.onnx")
    run = [sys.executable, "-m", "pixelwise", "segment", "-", "--model", str(model), "--max-pixels", "100000"]
    with open("/dev/zero", "rb") as endless:
        result = subprocess.run(run, stdin=endless, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert "goes on after" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# Rasters --------------------------------------------------------------------------------------------------------


def sparse(path: Path, h: int, w: int, *, count: int = 3, dtype: str = "uint8", **profile: object) -> Path:
    """A TIFF of which nothing is stored."""
    place = rasterio.Affine(10, 0, 0, 0, -10, 0)
    with rasterio.open(
        path, "w", driver="GTiff", height=h, width=w, count=count, dtype=dtype, sparse_ok=True, bigtiff="YES",
        crs="EPSG:32633", transform=place, **profile,
    ):  # fmt: skip
        pass
    return path


def ome(path: Path, *, channels: int = 1, extra: str = "", data: str = "<TiffData/>") -> Path:
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="P:0" '
        f'DimensionOrder="XYCZT" Type="uint8" SizeX="32" SizeY="32" SizeC="{channels}" SizeZ="1" SizeT="1">{data}'
        f"</Pixels></Image>{extra}</OME>"
    )
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8), description=text, metadata=None, ome=False)
    return path


def zarr_of(path: Path, sides: tuple[int, ...], chunks: tuple[int, ...], **changes: object) -> Path:
    """A folder of zarr (version 3) whose description says whatever we like."""
    about = {
        "zarr_format": 3, "node_type": "array", "shape": sides, "data_type": "uint8", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes"}], "attributes": {},
    }  # fmt: skip
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps(about | changes))
    return path


def shard(inner: tuple[int, ...], **changes: object) -> list[dict[str, object]]:
    about = {"chunk_shape": inner, "codecs": [{"name": "bytes"}], "index_location": "start",
             "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}  # fmt: skip
    return [{"name": "sharding_indexed", "configuration": about | changes}]


BOMB = bytes(100_000_000)
"""What a chunk of 64 x 64 bytes unfolds to."""


def zstd_without_size(blocks: int) -> bytes:
    """Blocks that repeat a byte 2^17 times, and a header that does not say how many."""
    block = int.to_bytes(2**17 << 3 | 1 << 1, 3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\0\x38" + block * blocks + b"\1\0\0"


FOLDED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: gzip.compress(BOMB)),
    "gzip in two parts": ("gzip", lambda: gzip.compress(b"") + gzip.compress(BOMB)),
    "zlib": ("numcodecs.zlib", lambda: zlib.compress(BOMB)),
    "bz2": ("numcodecs.bz2", lambda: bz2.compress(BOMB)),
    "lzma": ("numcodecs.lzma", lambda: lzma.compress(BOMB)),
    "lz4": ("numcodecs.lz4", lambda: numcodecs.get_codec({"id": "lz4"}).encode(BOMB)),
    "blosc": ("blosc", lambda: numcodecs.get_codec({"id": "blosc"}).encode(BOMB)),
    "zstd": ("zstd", lambda: numcodecs.get_codec({"id": "zstd"}).encode(BOMB)),
    "zstd without its size": ("zstd", lambda: zstd_without_size(800)),
}
"""A codec, and a chunk that it would unfold to far more than a chunk."""


def with_chunk(path: Path, make: Callable[[Path], None]) -> Path:
    """A zarr with its only chunk."""
    (path / "c" / "0").mkdir(parents=True)
    make(path / "c" / "0" / "0")
    return path


def folded(path: Path, name: str) -> Path:
    codec, make = FOLDED[name]
    about = {"gzip": {"level": 1}, "zstd": {"level": 1, "checksum": False}}.get(codec, {})
    if codec == "blosc":
        about = {"typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0}
    codecs = [{"name": "bytes"}, {"name": codec, "configuration": about}]
    return with_chunk(
        zarr_of(path, (64, 64), (64, 64), codecs=codecs), lambda p: p.write_bytes(make()) and None
    )


def folded_in_a_shard(path: Path, size_hw: tuple[int, int]) -> Path:
    """The shard is read as a whole where all of it is asked for, and in parts elsewhere."""
    codecs = shard((64, 64), codecs=[{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}])
    data, count = gzip.compress(BOMB), size_hw[0] * size_hw[1] // 64**2
    index = struct.pack("<QQ", 16 * count, len(data)) * count
    return with_chunk(
        zarr_of(path, size_hw, size_hw, codecs=codecs), lambda p: p.write_bytes(index + data) and None
    )


def folded_ome(path: Path, compression: int, data: bytes, order: int = 1) -> Path:
    """Of 64 x 64 pixels in one strip."""
    text = (
        b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        b'<Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" SizeC="1" SizeZ="1" SizeT="1">'
        b'<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>\0'
    )
    place = 8 + 2 + 12 * 10 + 4
    tags = [(256, 64), (257, 64), (258, 8), (259, compression), (262, 1), (266, order), (270, place),
            (273, place + len(text)), (278, 64), (279, len(data))]  # fmt: skip
    rows = b"".join(
        struct.pack("<HHII", tag, 2 if tag == 270 else 4, len(text) if tag == 270 else 1, value)
        for tag, value in tags
    )
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + bytes(4) + text + data)
    return path


def turned_bits(data: bytes) -> bytes:
    return data.translate(bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256)))


def description(path: Path, make: Callable[[Path], None]) -> Path:
    path.mkdir()
    make(path / "zarr.json")
    return path


RASTERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    # name: what makes it, and what is said; all of them are a few kilobytes
    "a quarter of a million rows": (
        lambda d: sparse(d / "a.tif", 250_000, 250_000, tiled=True, blockxsize=16384, blockysize=16384,
                         compress="deflate"), "62,500,000,000 pixels.*--max-raster-pixels"),
    "tiles that are not there": (
        lambda d: sparse(d / "a.tif", 100_000, 100_000, tiled=True, blockxsize=512, blockysize=512),
        "most of it is not there.*--max-raster-pixels"),
    "one strip of all rows": (
        lambda d: sparse(d / "a.tif", 60_000, 60_000, blockysize=60_000, dtype="uint16", compress="deflate"),
        "GB of memory.*--max-memory-mb"),
    "one huge tile": (
        lambda d: sparse(d / "a.tif", 100, 100, tiled=True, blockxsize=65536, blockysize=65536, compress="deflate"),
        "GB of memory.*--max-memory-mb"),
    "a billion columns": (
        lambda d: sparse(d / "a.tif", 9, 1_000_000_000, count=1, blockysize=1), "GB of memory.*--max-memory-mb"),
    "a million planes": (lambda d: ome(d / "a.ome.tif", channels=1_000_000), "more planes than the 1"),
    "a plane a billion times": (
        lambda d: ome(d / "a.ome.tif", data='<TiffData IFD="0" PlaneCount="1000000000"/>'), "more planes than the 1"),
    "a negative plane": (lambda d: ome(d / "a.ome.tif", data='<TiffData IFD="-5"/>'), "more planes than the 1"),
    "an axis divided": (
        lambda d: ome(d / "a.ome.tif", extra='<StructuredAnnotations><XMLAnnotation ID="A:0" Namespace="openmicros'
                      'copy.org/omero/dimension/modulo"><Value><Modulo><ModuloAlongT Type="phase" Start="0" '
                      'End="1000000000000"/></Modulo></Value></XMLAnnotation></StructuredAnnotations>'), "Modulo"),
    "no number": (lambda d: ome(d / "a.ome.tif", data='<TiffData IFD="x"/>'), "not an OME-TIFF"),
    "a chunk of a tebibyte": (
        lambda d: zarr_of(d / "a.zarr", (9, 9, 3), (2**20, 2**20, 1)), "of memory.*--max-memory-mb"),
    "a zarr of a terapixel": (lambda d: zarr_of(d / "a.zarr", (2**20, 2**20), (64, 64)), "--max-raster-pixels"),
    "a chunk for each pixel": (
        lambda d: zarr_of(d / "a.zarr", (30_000, 30_000), (1, 1)), "900,000,000 pieces.*--max-raster-pixels"),
    "a strip that unfolds": (
        lambda d: folded_ome(d / "a.ome.tif", 8, zlib.compress(BOMB)), "strip .* unfolds to more than the 270,336"),
    "a strip that unfolds, of the old number": (
        lambda d: folded_ome(d / "a.ome.tif", 32946, zlib.compress(BOMB)), "strip .* unfolds to more than the 270,336"),
    "a strip that unfolds, its bits turned": (
        lambda d: folded_ome(d / "a.ome.tif", 8, turned_bits(zlib.compress(BOMB)), 2), "unfolds to more than"),
    "a strip of LZMA that unfolds": (
        lambda d: folded_ome(d / "a.ome.tif", 34925, lzma.compress(BOMB)), "strip .* unfolds to more than the 270,336"),
    "a strip that is too long": (
        lambda d: folded_ome(d / "a.ome.tif", 1, bytes(500_000)), "more bytes than it may have"),
    "a chunk for each pixel, in a shard": (
        lambda d: zarr_of(d / "a.zarr", (1024, 1024), (1024, 1024), codecs=shard((1, 1))),
        "1,048,576 pieces.*--max-raster-pixels"),
    "the index of a shard": (
        lambda d: zarr_of(d / "a.zarr", (64, 64), (40_000, 40_000), codecs=shard((1, 1))), "GB of memory"),
    **{f"a chunk that unfolds, {name}": (
        lambda d, name=name: folded(d / "a.zarr", name), "0/0 .*more than (the )?270,336")
        for name in FOLDED},
    "a shard whose only chunk unfolds": (
        lambda d: folded_in_a_shard(d / "a.zarr", (64, 64)), "0/0 .*more than (the )?270,336"),
    "a shard of chunks that unfold": (
        lambda d: folded_in_a_shard(d / "a.zarr", (128, 128)), "0/0 .*more than (the )?270,336"),
    "a chunk that is a link": (
        lambda d: with_chunk(zarr_of(d / "a.zarr", (64, 64), (64, 64)), lambda p: p.symlink_to("/dev/zero")),
        "0/0 is a link that leads out.*--allow-remote"),
    "a chunk that is a pipe": (
        lambda d: with_chunk(zarr_of(d / "a.zarr", (64, 64), (64, 64)), os.mkfifo), "0/0 is a pipe"),
    "a description that is a pipe": (lambda d: description(d / "a.zarr", os.mkfifo), "zarr.json is a pipe"),
    "a description that is a link": (
        lambda d: description(d / "a.zarr", lambda p: p.symlink_to("/dev/zero")), "zarr.json is a link that leads out"),
    "a description without end": (
        lambda d: description(d / "a.zarr", lambda p: p.write_bytes(b"") or os.truncate(p, 6 << 30)),
        "zarr.json has 6,442,450,944 bytes, more than the 16,777,216"),
    "a codec outside of the one that unfolds": (
        lambda d: zarr_of(d / "a.zarr", (64, 64), (64, 64), codecs=[{"name": "bytes"}, *[
            {"name": "gzip", "configuration": {"level": 1}}] * 2]), "compressed twice"),
    "no pixels": (lambda d: zarr_of(d / "a.zarr", (0, 5), (1, 1)), "no pixels"),
    "a chunk of nothing": (lambda d: zarr_of(d / "a.zarr", (5, 5), (0, 0)), "not a Zarr array|no pixels"),
    "five bands of one row": (lambda d: zarr_of(d / "a.zarr", (5,), (5,)), "expected rows, columns and bands"),
    "strings": (lambda d: zarr_of(d / "a.zarr", (5, 5), (5, 5), data_type="string", fill_value="",
                                  codecs=[{"name": "vlen-utf8"}]), "values, expected|not a Zarr array"),
    "objects": (lambda d: zarr_of(d / "a.zarr", (5, 5), (5, 5), data_type="object"), "not a Zarr array"),
    "a codec of nobody": (
        lambda d: zarr_of(d / "a.zarr", (5, 5), (5, 5), codecs=[{"name": "nobody"}]), "not a Zarr array"),
    "a fill value of another kind": (
        lambda d: zarr_of(d / "a.zarr", (5, 5), (5, 5), fill_value="red"), "not a Zarr array"),
    "a shape of text": (lambda d: zarr_of(d / "a.zarr", (5, 5), (5, 5), shape="large"), "not a Zarr array"),
    "a negative shape": (lambda d: zarr_of(d / "a.zarr", (5, 5), (5, 5), shape=[-5, 5]), "not a Zarr array|no pixels"),
    "chunks of fewer axes": (lambda d: zarr_of(d / "a.zarr", (5, 5), (5,)), "not a Zarr array"),
}  # fmt: skip

REFUSE = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from pixelwise.errors import PixelwiseError
from pixelwise.sources.raster import open_raster
import warnings
for path in map(Path, sys.argv[1:]):
    try:
        raster = open_raster(path, max_memory=1_000_000_000)
        raster.read(0, 1)
        print(path, "was read")
    except PixelwiseError as error:
        print(path, " ".join(str(error).split()))
    print(status("VmHWM:"))
"""


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
def test_zarr_of_every_codec_and_in_shards_is_read(tmp_path):
    """What is looked at before zarr gets it is all there."""
    import zarr.codecs.numcodecs as others
    from zarr import codecs

    values = np.random.default_rng(0).integers(0, 9, (500, 300, 3), np.uint8)
    compressors: list[tuple[int, object, object]] = [
        (2, numcodecs.get_codec({"id": name}), None)
        for name in ("zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4")
    ]
    for codec in (
        [],
        codecs.GzipCodec(),
        codecs.ZstdCodec(),
        codecs.BloscCodec(),
        others.LZMA(),
        others.LZ4(),
    ):
        for shards in (None, (400, 400, 3)):
            compressors.append((3, codec, shards))
            if codec != []:
                compressors.append((3, [codec, codecs.Crc32cCodec()], shards))
    for i, (version, codec, shards) in enumerate(compressors):
        path = tmp_path / f"{i}.zarr"
        zarr.create_array(
            str(path),
            data=values,
            chunks=(200, 100, 3),
            shards=shards,
            zarr_format=version,
            compressors=codec,
        )
        raster = open_raster(path)
        np.testing.assert_array_equal(raster.read(0, 500)[0], values)
        np.testing.assert_array_equal(raster.read(199, 203)[0], values[199:203])
        raster.close()


def test_an_ome_tiff_of_every_compression_that_comes_with_python_is_read(tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (500, 300, 3), np.uint8)
    for i, (compression, more) in enumerate(
        (compression, more)
        for compression in (None, "zlib", "lzma")
        for more in ({}, {"tile": (128, 128)}, {"rowsperstrip": 64}, {"rowsperstrip": 500})
    ):
        path = tmp_path / f"{i}.ome.tif"
        tifffile.imwrite(
            path, values, metadata={"axes": "YXS"}, photometric="rgb", compression=compression, **more
        )
        raster = open_raster(path)
        np.testing.assert_array_equal(raster.read(0, 500)[0], values)
        raster.close()


def test_a_link_out_of_a_zarr_is_followed_with_the_option_it_names(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=land(), chunks=land().shape)
    chunk = next(p for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file())
    chunk.rename(tmp_path / "chunk").is_file() and chunk.symlink_to(tmp_path / "chunk")
    with pytest.raises(ImageError, match="leads out"):
        open_raster(tmp_path / "a.zarr").read(0, 1)
    raster = open_raster(tmp_path / "a.zarr", allow_remote=True)
    np.testing.assert_array_equal(raster.read(0, 9)[0], land()[:9])
    inside = tmp_path / "a.zarr" / "elsewhere"
    chunk.unlink()
    (tmp_path / "chunk").rename(inside)
    chunk.symlink_to(inside)
    np.testing.assert_array_equal(open_raster(tmp_path / "a.zarr").read(0, 9)[0], land()[:9])


@on_linux
def test_what_declares_too_much_is_refused_before_it_is_allocated(tmp_path):
    """All in one process of 4 GB, whose peak stays that of a small raster."""
    paths = {}
    for i, (name, (make, _)) in enumerate(RASTERS.items()):
        folder = tmp_path / str(i)
        folder.mkdir()
        paths[name] = make(folder)
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        assert size < 2**20 or "columns" in name or "without end" in name, (name, size)
    result = subprocess.run(
        [sys.executable, "-c", MEASURE + REFUSE, *map(str, paths.values())], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    for (name, (_, says)), sentence, peak in zip(RASTERS.items(), lines[::2], lines[1::2], strict=True):
        assert re.search(says, sentence), (name, sentence)
        assert str(paths[name]) in sentence
        assert int(peak) < 400_000_000, (name, peak)


READ_RASTER = """
from pixelwise.sources.raster import open_raster
raster = open_raster(Path(sys.argv[1]), scale=(0, 255) if "16" in sys.argv[1] else None)
raster.read(0, 1)
rows = int(sys.argv[2])
taken, _ = peak(lambda: raster.read(100, 100 + rows))
print(taken, raster.needs(rows))
"""


@on_linux
@pytest.mark.parametrize("kind", ["strips", "tiles 16", "one block", "zarr", "ome"])
def test_rows_take_no_more_memory_than_was_expected(kind, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (1200, 2500, 3), np.uint8)
    if kind == "zarr":
        path = tmp_path / "a.zarr"
        zarr.create_array(str(path), data=values, chunks=(400, 400, 3))
    elif kind == "ome":
        path = tmp_path / "a.ome.tif"
        tifffile.imwrite(path, values, metadata={"axes": "YXS"}, photometric="rgb", tile=(512, 512))
    elif kind == "tiles 16":
        path = write_tiff(tmp_path / "16.tif", values.astype(np.uint16), tiled=True, compress="deflate")
    else:
        path = write_tiff(
            tmp_path / "a.tif", values, compress="lzw", blockysize=1200 if kind == "one block" else 16
        )
    taken, expected = measured(READ_RASTER, path, 600)
    assert taken <= 1.1 * expected + 4_000_000
    assert expected <= 4 * taken + 100_000_000  # or it would refuse what could be done


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(write_colors_model(tmp_path_factory.mktemp("models") / "colors.onnx"))


def test_limits_are_refused_with_the_option_that_raises_them(segmenter, tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", land())
    out = {"geotiff": tmp_path / "out" / "a.tif"}

    def segment(**reading: object) -> None:
        segment_raster(
            segmenter, path, out, SegmentOptions(tile=64), ReadOptions(**reading), RunOptions(overwrite=True)
        )

    with pytest.raises(InputError, match=r"200 x 170 = 34,000 pixels.*33,999.*--max-raster-pixels"):
        segment(max_raster_pixels=33_999)
    segment(max_raster_pixels=34_000)
    with pytest.raises(InputError, match=r"of memory, more than the limit, 100 kB; pass --max-memory-mb"):
        segment(max_memory=100_000)
    monkeypatch.setattr(limits, "free_memory", lambda: 200_000)
    with pytest.raises(InputError, match="more than half of the free memory, 100 kB"):
        segment()
    segment(max_memory=1_000_000_000)


def test_free_memory_is_what_a_container_has_left(tmp_path, monkeypatch):
    places = {"/proc/meminfo": tmp_path / "meminfo", "/sys/fs/cgroup": tmp_path}
    monkeypatch.setattr(limits, "Path", lambda path: places[path])
    assert limits.free_memory() == 4_000_000_000
    (tmp_path / "meminfo").write_text("MemTotal:  9000000 kB\nMemFree:  1000 kB\nMemAvailable:  8000000 kB\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    for allowed, free in (("max", 8_192_000_000), ("1000000000", 300_000_000), ("600000000", 0)):
        (tmp_path / "memory.max").write_text(f"{allowed}\n")
        assert limits.free_memory() == free
    (tmp_path / "memory.max").write_text("90000000000\n")
    assert limits.free_memory() == 8_192_000_000


def test_room_on_disk_is_looked_at_before_the_work(segmenter, tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", land())
    out = tmp_path / "out" / "a.tif"
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda folder: SimpleNamespace(free=34_000 - 1))
    with pytest.raises(OutputError, match=r"a\.tif needs about 34 kB on disk .* has 34 kB free"):
        segment_raster(segmenter, path, {"geotiff": out}, SegmentOptions(tile=64))
    assert not out.parent.exists()
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda folder: SimpleNamespace(free=34_000))
    segment_raster(segmenter, path, {"geotiff": out}, SegmentOptions(tile=64))
    assert out.exists()


def test_what_a_large_raster_will_take_is_said_before_the_first_tile(segmenter, tmp_path):
    path = write_tiff(tmp_path / "a.tif", land())
    notes: list[str] = []
    run = RunOptions(note=notes.append)
    segment_raster(
        segmenter,
        path,
        {"geotiff": tmp_path / "b.tif"},
        SegmentOptions(tile=64),
        ReadOptions(max_pixels=9),
        run,
    )
    assert any(" 200 x 170 pixels, 30 tiles, about " in note and "34 kB on disk" in note for note in notes), (
        notes
    )


def test_a_raster_that_is_mostly_empty_is_read_where_the_limit_that_is_named_is_passed(tmp_path):
    path = sparse(tmp_path / "a.tif", 4000, 3000, tiled=True, blockxsize=2048, blockysize=2048)
    with pytest.raises(InputError, match="most of it is not there") as error:
        open_raster(path, max_pixels=1_000_000_000)
    raster = open_raster(path, max_pixels=int(re.findall(r"the limit to (\d+)", str(error.value))[0]))
    assert raster.size_hw == (4000, 3000)
    raster.close()
    full = tmp_path / "full.tif"
    with (
        rasterio.open(path) as file,
        rasterio.open(full, "w", **{**file.profile, "compress": "deflate"}) as copy,
    ):
        copy.write(np.zeros((3, 4000, 3000), np.uint8))
    open_raster(full, max_pixels=1_000_000_000).close()  # a thousandth of its values, but all there


def test_a_label_map_of_one_large_piece_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", land(20, 30)[..., 0], tiled=True, blockxsize=4096, blockysize=4096)
    assert read_raster(path).shape == (20, 30)
    monkeypatch.setattr(limits, "free_memory", lambda: 90_000_000)  # of which half; the piece takes 50 MB
    with pytest.raises(InputError, match="needs about 50 MB of memory, more than half of the free memory"):
        read_raster(path)


def test_a_label_file_that_declares_too_much_is_refused(tmp_path):
    from pixelwise.outputs.reading import read_labels
    from tiny import CARD

    path = sparse(
        tmp_path / "a.tif", 2_000_000, 2_000_000, count=1, tiled=True, blockxsize=8192, blockysize=8192
    )
    with pytest.raises(InputError, match="TB of memory"):
        read_labels(path, CARD.labels)


# Videos ---------------------------------------------------------------------------------------------------------


def test_a_video_of_a_kind_that_nobody_decodes_or_without_a_size_gets_a_sentence(tmp_path):
    pytest.importorskip("av", reason="videos need av (pixelwise[video])")
    from pixelwise.sources.video import Video
    from test_video import moving, write_video

    whole = write_video(tmp_path / "a.mp4", moving(4)).read_bytes()
    no_size = bytearray(whole)
    at = whole.index(b"avc1", whole.index(b"stsd")) + 28
    assert struct.unpack(">HH", whole[at : at + 4]) == (64, 48)
    no_size[at : at + 4] = bytes(4)
    for name, content in {"kind": whole.replace(b"avc1", b"zzzz"), "size": bytes(no_size)}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        with (
            pytest.raises(PixelwiseError, match=f"{name}.mp4"),
            Video(tmp_path / f"{name}.mp4", max_pixels=48 * 64 - 1) as video,
        ):
            list(video)


# What libraries say of damaged files ----------------------------------------------------------------------------


def test_libraries_say_nothing_beside_our_sentence(tmp_path):
    """libtiff writes to standard error by itself, tifffile logs; what is seen are lines of ours."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    folder = tmp_path / "in"
    folder.mkdir()
    for kind, options in {"lzw": {"compression": "tiff_lzw"}, "jpg": {"compression": "jpeg"}}.items():
        whole = saved(image, "TIFF", **options)
        damaged = bytearray(whole)
        damaged[40:80] = bytes(40)
        damaged[300:340] = b"\xff" * 40
        (folder / f"{kind}.tif").write_bytes(damaged)
        (folder / f"{kind}_cut.tif").write_bytes(whole[: len(whole) // 2])
    cut = write_tiff(tmp_path / "map.tif", np.asarray(image), compress="lzw").read_bytes()
    (folder / "map.tif").write_bytes(cut[: len(cut) * 2 // 3])
    ome(folder / "planes.ome.tif")
    damaged = bytearray((folder / "planes.ome.tif").read_bytes())
    damaged[60:90] = b"\x27" * 30
    (folder / "planes.ome.tif").write_bytes(damaged)
    (folder / "good.tif").write_bytes(saved(image, "TIFF"))
    model = write_colors_model(tmp_path / "colors.onnx")
    run = [sys.executable, "-m", "pixelwise", "segment", "in", "--model", str(model), "--out", "out"]
    result = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr
    assert [line for line in result.stderr.splitlines() if not line.startswith("pixelwise: ")] == []
    assert "good.tif" in result.stdout
