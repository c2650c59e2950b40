"""What is kept to be quick the next time: nobody else's, whole or made again, also where two processes fill it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from pixelwise import Segmenter, compiling, opening
from pixelwise.caches import private_folder
from pixelwise.errors import OutputError, PixelwiseWarning
from pixelwise.export import onnx
from pixelwise.weights import store
from tiny import CARD, quadrant_labels, quadrants, write_colors_model

LOOPS = """
import sys, warnings
import numpy as np
from pixelwise import kernels
labels, best = np.zeros((4, 5), np.int64), np.zeros((4, 5), np.float32)
logits = np.random.default_rng(0).random((3, 4, 5), np.float32)
kernels.coarse_argmax(logits, best, labels, 0, 4)
assert (labels == logits.argmax(axis=0)).all()
kernels.coarse_argmax(logits, best, labels.astype(np.uint8), 0, 4)
print(kernels.coarse_argmax.stats.cache_hits and sum(kernels.coarse_argmax.stats.cache_hits.values()))
"""


def loops(cache: Path, **environment: str) -> tuple[str, str]:
    """stdout and stderr of a process that uses a loop with two sets of types."""
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", LOOPS], capture_output=True, text=True, check=False,
        env={**kept, "PIXELWISE_CACHE": str(cache), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of compiled loops, empty."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def doubled(x: int) -> int:
    return x + x


def calls() -> int:
    """What a process that has just started gets from the cache: 1 if the loop was in it, 0 if it had to be compiled."""
    from pixelwise.compiling import compiled

    function = compiled(doubled)
    assert function(3) == 6
    return sum(function.stats.cache_hits.values())


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_compiled_loop_is_kept_for_its_user_alone_and_made_again_where_it_is_not_what_was_written(kept):
    assert [calls(), calls()] == [0, 1]
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    for damage in (whole[:100], bytes(flipped), b"", b"no pickle"):
        file.write_bytes(damage)
        kept.chmod(0o755)
        with pytest.warns(PixelwiseWarning, match=f"{file} is not the compiled loop that was written"):
            assert calls() == 0
        assert kept.stat().st_mode & 0o777 == 0o700
        assert [calls(), list(kept.iterdir())] == [1, [file]]


def test_loops_of_other_types_another_processor_source_or_numba_are_not_taken_for_these(kept, monkeypatch):
    def path(types: str = "int64(int64)", processor: str = "haswell") -> Path:
        codegen = SimpleNamespace(magic_tuple=lambda: ("x86_64", processor))
        return compiling._Kept(doubled)._path(types, codegen)

    paths = [path(), path(types="int8(int8)"), path(processor="skylake")]
    for of, name, value in (
        (compiling, "_source", lambda file: "0" * 64),
        (compiling.numba, "__version__", "9"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(of, name, value)
            paths.append(path())
    assert len(set(paths)) == 5
    assert path() == paths[0]


def test_constants_from_other_files_are_of_the_source(kept):
    """They are frozen into the machine code."""
    from pixelwise import kernels
    from pixelwise.inference import lattice

    names = [{Path(file).name for file in compiling._files(module)} for module in (kernels, lattice)]
    assert names == [{"kernels.py", "exponential.py"}, {"lattice.py"}]


def test_code_that_is_of_this_process_alone_is_not_kept(kept):
    for lifted, dynamic in (((), True), ((1,), False)):  # addresses that it holds; loops of it outside of it
        code = SimpleNamespace(lifted=lifted, library=SimpleNamespace(has_dynamic_globals=dynamic))
        compiling._Kept(doubled).save_overload("int64(int64)", code)
    assert not kept.exists()


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_without_a_folder_of_ones_own_loops_work_and_a_sentence_says_what_to_do(kept, tmp_path):
    compiling._warn_once.cache_clear()
    kept.parent.mkdir()
    kept.symlink_to(tmp_path)
    with pytest.warns(
        PixelwiseWarning, match=r"cannot be kept \(it is a link, not a folder of its own\).*PIXELWISE_CACHE"
    ):
        assert calls() == 0
    assert list(tmp_path.iterdir()) == [kept.parent]
    assert calls() == 0  # said once


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_damaged_loops_are_named_and_made_again_by_the_next_process(tmp_path):
    assert loops(tmp_path)[1] == ""
    folder = tmp_path / "kernels"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted(folder.iterdir())
    assert len(files) == 2
    whole = [file.read_bytes() for file in files]
    files[0].write_bytes(whole[0][:100])
    flipped = bytearray(whole[1])
    flipped[len(flipped) // 2] ^= 1
    files[1].write_bytes(flipped)
    folder.chmod(0o755)
    said = loops(tmp_path)[1]
    assert all(f"{file} is not the compiled loop that was written" in said for file in files)
    assert sorted(folder.iterdir()) == files
    assert folder.stat().st_mode & 0o777 == 0o700
    assert loops(tmp_path) == ("2", "")  # both come from the cache


@pytest.mark.slow
def test_a_folder_that_the_user_chose_for_numba_is_taken_as_it_is_and_two_processes_fill_it(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    chosen = {"NUMBA_CACHE_DIR": str(tmp_path / "chosen")}
    with ThreadPoolExecutor(3) as pool:
        assert {said for _, said in pool.map(lambda _: loops(tmp_path, **chosen), range(3))} == {""}
    assert loops(tmp_path, **chosen) == ("2", "")
    assert len(list((tmp_path / "chosen" / "pixelwise").iterdir())) == 2
    assert not (tmp_path / "kernels").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to give a folder away")
def test_the_folder_of_another_user_is_not_used(tmp_path):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(PermissionError, match="another user"):
        private_folder(tmp_path / "theirs")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """A named model whose export is the tiny one; each time that it is made is noted."""
    made: list[Path] = []

    def export(network: nn.Module, card: object, path: Path) -> float:
        made.append(path)
        write_colors_model(path)
        return 0.0

    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(onnx, "export_onnx", export)
    monkeypatch.setattr(opening, "_trained", lambda name: nn.Identity())
    return made


NAMED = "lraspp_mobilenet_v3_large"


def test_an_exported_model_that_is_not_the_one_that_was_written_is_made_again(exports, tmp_path):
    def answer() -> Path:
        np.testing.assert_array_equal(Segmenter(NAMED)(quadrants()).labels, quadrant_labels())
        (file,) = (tmp_path / "cache" / "onnx").iterdir()
        return file

    file = answer()
    assert store.digest(file) == file.name.split(".")[-2]
    assert answer() == file
    assert len(exports) == 1
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    write_colors_model(other := tmp_path / "other.onnx", CARD.replace(name="another"))
    for damage in (whole[:-9], bytes(flipped), b"", other.read_bytes()):
        file.write_bytes(damage)
        with pytest.warns(PixelwiseWarning, match=rf"{file.name} is not the exported model that was written"):
            assert answer() == file
        assert file.read_bytes() == whole
    assert len(exports) == 5


def test_what_an_earlier_version_kept_without_a_hash_is_not_used_and_goes(exports, tmp_path):
    Segmenter(NAMED)
    (file,) = (tmp_path / "cache" / "onnx").iterdir()
    old = file.with_name(file.name.split(".")[0] + ".onnx")
    file.rename(old)
    Segmenter(NAMED)
    assert list((tmp_path / "cache" / "onnx").iterdir()) == [file]
    assert len(exports) == 2


def test_a_cache_that_cannot_be_written_is_one_sentence_that_says_where_to_go(exports, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match=r"cannot be kept in .*PIXELWISE_CACHE"):
        Segmenter(NAMED)


def test_threads_that_ask_for_an_export_at_once_make_it_once(exports):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda _: Segmenter(NAMED), range(4)))
    assert len(exports) == 1
    assert len({engine.card for engine in engines}) == 1
