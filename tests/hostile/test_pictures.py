"""Pictures as people have them, beside the corpus: names, links, pipes, devices, and a folder of all of them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hostile.cases import encoded, flat
from hostile.pictures import BLUE, GREEN, RED, RIGHT, WRONG
from pixelwise import images
from pixelwise.errors import ImageError
from pixelwise.inference.preprocess import Preprocess
from tiny import CARD, write_colors_model


def test_links_that_lead_nowhere_folders_and_impossible_names_are_named(tmp_path):
    loop, dangling, folder = tmp_path / "loop.png", tmp_path / "dangling.png", tmp_path / "folder.png"
    loop.symlink_to(loop)
    dangling.symlink_to("nothing")
    folder.mkdir()
    for path, says in {
        loop: "leads nowhere",
        dangling: "leads nowhere",
        folder: "is a folder",
        tmp_path / ("x" * 300): "cannot read",
        tmp_path / "a\0b.png": "no such file|cannot read",
    }.items():
        with pytest.raises(ImageError, match=says):
            images.read(path)


def test_a_file_without_permission_is_named(tmp_path, monkeypatch):
    """The refusal is played, because root may read everything."""
    path = tmp_path / "mine.png"
    path.write_bytes(encoded(flat(RED), "PNG"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"no permission to read .*mine\.png"):
        images.read(path)


def test_a_device_that_fails_in_the_middle_is_named(tmp_path, monkeypatch):
    path = tmp_path / "worn.png"
    path.write_bytes(encoded(flat(RED), "PNG"))

    class Worn(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", lambda *_: Worn())
    with pytest.raises(ImageError, match=r"worn\.png .*Input/output error"):
        images.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_to_its_end(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = tmp_path / "source.png"
    source.write_bytes(encoded(flat(GREEN), "PNG"))
    writer = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(images.read(pipe), flat(GREEN))
    writer.join()


def test_the_callers_limit_may_be_above_pillows(monkeypatch):
    """With a low limit of Pillow's own, as it is for a picture of 200 million pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    data = encoded(flat(RED), "PNG")
    assert images.read(data, max_pixels=192).shape == (12, 16, 3)
    assert Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(ImageError, match="limit of 100"):
        images.read(data, max_pixels=100)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "JPEG2000", "AVIF"])
def test_no_flipped_byte_escapes_as_another_error(kind):
    y, x = np.mgrid[:20, :30]
    whole = encoded(np.stack([x * 8, y * 12, x * y % 256], axis=-1).astype(np.uint8), kind)
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), int(rng.choice([40, 10_000]))), rng.integers(1, 6)):
            data[at] = rng.choice([0, 255, rng.integers(0, 256)])
        with suppress(ImageError):
            assert images.read(bytes(data)).dtype == np.uint8


@pytest.mark.parametrize("size_hw", [(1, 50_000), (50_000, 1)])
def test_a_line_is_not_enlarged_until_memory_ends(size_hw):
    """By its shorter side it would become 520 x 26,000,000."""
    with pytest.raises(ImageError, match=r"26000000.*--tile"):
        Preprocess(size=520)(flat(RED, size_hw))
    assert Preprocess(size=520, side="longer")(flat(RED, size_hw)).size == 3 * 520


@pytest.fixture(scope="module")
def even_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colours model for any size: pictures are first brought to even sides."""
    card = CARD.replace(preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1), multiple=2))
    return write_colors_model(tmp_path_factory.mktemp("models") / "even.onnx", card)


def test_a_folder_of_all_of_them_is_got_through(even_model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    right, wrong = ([n for n in names if Path(n).suffix in images.SUFFIXES] for names in (RIGHT, WRONG))
    wrong.remove("wide_strip.tif")  # which counts as a raster
    for name, (make, *_) in {**RIGHT, **WRONG}.items():
        if name in right or name in wrong:
            (folder / name).write_bytes(make())
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "up").symlink_to(folder)
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside.png").write_bytes(encoded(flat(BLUE), "PNG"))
    odd = b"na\xefve.png" if sys.platform == "linux" else b"naive.png"
    Path(os.fsdecode(os.fsencode(folder) + b"/" + odd)).write_bytes(encoded(flat(GREEN), "PNG"))
    run = ["segment", "in", "--model", str(even_model), "--out", "out", "--format", "ids,npy"]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as on a terminal in most languages
    result = subprocess.run(
        [sys.executable, "-m", "pixelwise", *run], capture_output=True, cwd=tmp_path, env=strict
    )
    errors = result.stderr.decode(errors="replace").splitlines()
    assert result.returncode == 2, errors
    bad = {*wrong, "loop.png"}
    warned = ("the first is used", "is shown black", "99.5th percentile")
    errors = [line for line in errors if not any(words in line for words in warned)]
    assert len(errors) == len(bad) + 1
    for name in bad:
        assert sum(f"in/{name}" in line for line in errors) == 1, name
    assert errors[-1].endswith(f"{len(bad)} of {len(bad) + len(right) + 2} pictures failed, listed above")
    assert len(result.stdout.splitlines()) == len(right) + 2
    answers = {p.name.removesuffix(".npy"): np.load(p) for p in (tmp_path / "out").glob("*.npy")}
    assert len(answers) == len(right) + 1
    assert (answers["one_pixel"] == 3).all()
    assert answers["wide"].shape == (1, 50_000)
    assert (answers["wide"] == 2).all()
    assert (answers["rotated"][:, :7] == 3).all()
    assert (answers["rotated"][:, 9:] == 1).all()
    assert (answers["cmyk"] == 1).all()
    assert (np.load(tmp_path / "out" / "folder.png" / "inside.npy") == 3).all()
