"""What survives when the power goes: results whole or not at all, and no line of a journal without its results.

A disk that may forget whatever was not synced is played in two ways, after each call that syncs or renames. Under the
strict one nothing is there but what was synced, contents and names of each folder by themselves; under the eager one
all names are there, and what was not synced of a file's content is zeros.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pixelwise
from drawn import draw_folder
from pixelwise import files
from pixelwise.cli.app import app
from pixelwise.files import writing
from pixelwise.outputs.formats import FORMATS
from pixelwise.pipeline.journal import JOURNAL, Journal
from test_leftovers import noise, write_map
from tiny import COLORS, quadrants

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are synced on Unix")


class Disk:
    """What is under `root`, and what of it would survive. contents: by inode, as last synced; names: the same of
    folders. states: after each call, (what had been renamed to, what is left strictly, what is left eagerly), files
    and their bytes."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.states: list[tuple[dict[Path, bytes], dict[Path, bytes]]] = []
        self.renamed: list[Path] = []
        self._pins: dict[int, int] = {}
        fsync, replace = os.fsync, os.replace
        self._keep(root)

        def synced(handle: int) -> None:
            fsync(handle)
            about = os.fstat(handle)
            for path in [root, *root.rglob("*")]:
                with suppress(FileNotFoundError):  # another thread's, which is done with it
                    if path.lstat().st_ino == about.st_ino:
                        self._keep(path)
            self._note()

        def renamed(source: Path, target: Path) -> None:
            if root in Path(target).parents:
                assert self.contents.get(source.stat().st_ino) == source.read_bytes(), (
                    f"{target} was not synced"
                )
                self.renamed.append(Path(target))
            replace(source, target)
            self._note()

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", renamed)

    def _keep(self, path: Path) -> None:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            with os.scandir(path) as inside:
                entries = list(inside)
            self.names[about.st_ino] = {entry.name: entry.inode() for entry in entries}
            for entry in entries:
                self._pin(Path(entry.path))
        else:
            self._pin(path)
            self.contents[about.st_ino] = path.read_bytes()

    def _pin(self, path: Path) -> None:
        """Keep it open, so that no other file is given the number of one that was removed."""
        with suppress(FileNotFoundError):
            number = path.lstat().st_ino
            if number not in self._pins:
                self._pins[number] = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        for handle in self._pins.values():
            os.close(handle)

    def _note(self) -> None:
        eager = {}
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):
                about = path.stat()
                if stat.S_ISREG(about.st_mode):
                    kept = self.contents.get(about.st_ino, b"")
                    eager[path] = kept + bytes(max(0, about.st_size - len(kept)))
        self.states.append((self.strict(), eager))

    def strict(self) -> dict[Path, bytes]:
        return dict(self._strict(self.root, self.root.stat().st_ino))

    def _strict(self, folder: Path, number: int) -> Iterator[tuple[Path, bytes]]:
        for name, inside in self.names.get(number, {}).items():
            if inside in self.names:
                yield from self._strict(folder / name, inside)
            elif inside in self.contents:
                yield folder / name, self.contents[inside]

    def survives(self, path: Path) -> bool:
        """Whether a file is there, as it is now, whatever happens from here on."""
        return self.strict().get(path) == path.read_bytes()


def command(*arguments: object) -> None:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, (result.exception, result.output)


def tree(root: Path) -> dict[Path, bytes]:
    """Files but for the journal, and for locks, which may come back when the power goes, and hold nobody up."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != JOURNAL)
    return {path: path.read_bytes() for path in found if not path.name.endswith(".lock")}


def goes_on_from_each(disk: Disk, run: list[object], count: int) -> None:
    """Cut the power at `count` of the calls, each time both ways, and resume: the same files, and nothing beside."""
    expected = tree(disk.root)
    assert expected
    places = np.linspace(0, len(disk.states) - 1, count).astype(int)
    for state in (state for place in places for state in disk.states[place]):
        shutil.rmtree(disk.root)
        disk.root.mkdir()
        for path, content in state.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        files._looked_through.clear()  # as in a process of its own
        command(*run, "--resume")
        assert tree(disk.root) == expected


def network() -> object:
    return pixelwise.create_model("unet_bilinear", num_classes=2, width=4)


def card() -> pixelwise.Card:
    return pixelwise.Card.of(["ground", "thing"], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def segmentation(path: Path, name: str) -> None:
    answer = np.random.default_rng(0).integers(0, 4, (40, 60)).astype(np.uint8)
    certain = np.full((40, 60), 0.5, np.float32) if name == "confidence" else None
    kept = {"names": ("red",)} if name == "cutout" else {}
    pixelwise.Segmentation(answer, COLORS, quadrants(), certain).save(path, format=name, **kept)


def video(path: Path) -> None:
    from fractions import Fraction

    from pixelwise.sources.video import VideoWriter

    pytest.importorskip("av")
    with writing(path) as temporary, VideoWriter(temporary, (40, 60), Fraction(10)) as writer:
        writer.add(quadrants(), Fraction(0))


def state(path: Path) -> None:
    import torch

    from pixelwise.training.state import save_state

    save_state({"weights": torch.arange(9.0)}, path)


@pytest.fixture
def disk_at():
    """A `Disk`, closed in the end."""
    made = []

    def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
        made.append(Disk(root, monkeypatch))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


WRITERS: dict[str, Callable[[Path], object]] = {
    **{format.ending: lambda path, name=name: segmentation(path, name) for name, format in FORMATS.items()},
    ".mp4": video,
    ".pt": state,
    ".safetensors": lambda path: pixelwise.save(network(), path, card=card()),
    ".onnx": lambda path: pixelwise.export_onnx(network(), card(), path, traced_at=(32, 32), dynamic=False),
}


@pytest.mark.parametrize(
    "ending", [pytest.param(end, marks=pytest.mark.slow if end == ".onnx" else []) for end in WRITERS]
)
def test_what_is_written_survives_and_is_never_there_in_part(ending, tmp_path, monkeypatch, disk_at):
    disk = disk_at(tmp_path, monkeypatch)
    path = tmp_path / "new" / "folders" / f"it{ending}"
    WRITERS[ending](path)
    assert disk.survives(path)
    whole = path.read_bytes()
    assert disk.renamed == [path]
    for kept in (kept for state in disk.states for kept in state):
        assert kept.get(path, whole) == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_recorder_sees_what_is_not_synced(tmp_path, monkeypatch, disk_at):
    """A writer as it should not be."""
    disk = disk_at(tmp_path, monkeypatch)
    (tmp_path / "half").write_text("half")
    with pytest.raises(AssertionError, match="was not synced"):
        os.replace(tmp_path / "half", tmp_path / "whole")
    assert not disk.survives(tmp_path / "half")
    with open(tmp_path / "half") as file:
        os.fsync(file.fileno())
    assert not disk.survives(tmp_path / "half")  # whose name is not
    files.sync_folder(tmp_path)
    assert disk.survives(tmp_path / "half")


@pytest.fixture
def promises():
    """(disk, monkeypatch) -> the lines of all journals, each seen to speak of what survives there."""
    append = Journal._append

    def watch(disk: Disk, patched: pytest.MonkeyPatch) -> list[dict]:
        lines = []

        def checked(journal: Journal, line: dict) -> None:
            assert all(disk.survives(journal.path.parent / name) for name in line.get("files", {}).values())
            lines.append(line)
            append(journal, line)

        patched.setattr(Journal, "_append", checked)
        return lines

    return watch


@pytest.mark.parametrize("cuts", [4, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_a_folder_goes_on_wherever_the_power_went(
    cuts, colors_model, tmp_path, monkeypatch, promises, disk_at
):
    for name in ("a/a", "a/b", "b/c"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(quadrants()).save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    out.mkdir()
    run = ["segment", tmp_path / "in", "--model", colors_model, "--out", out, "--format", "npy,labels,json"]
    with monkeypatch.context() as patched:
        disk = disk_at(out, patched)
        lines = promises(disk, patched)
        command(*run)
    assert len(lines) == 4
    goes_on_from_each(disk, run, cuts)


@pytest.mark.parametrize("cuts", [5, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_a_raster_goes_on_wherever_the_power_went(
    cuts, colors_model, tmp_path, monkeypatch, promises, disk_at
):
    write_map(tmp_path / "map.tif", noise(400, 100))
    out = tmp_path / "out"
    out.mkdir()
    run = ["segment", tmp_path / "map.tif", "--model", colors_model, "--out", out, "--tile", 64]
    run += ["--format", "geotiff,npy", "--min-area", 5]
    with monkeypatch.context() as patched:
        disk = disk_at(out, patched)
        lines = promises(disk, patched)
        command(*run)
    assert len(lines) == 2
    row, tops = 100, []
    for kept, _ in disk.states:
        found = {path.name: content for path, content in kept.items()}
        if "pending.npz" in found:
            with np.load(io.BytesIO(found["pending.npz"])) as sums:
                tops.append(json.loads(str(sums["about"]))["top"])
            assert len(found["labels"]) >= tops[-1] * row
    assert len(set(tops)) > 3
    goes_on_from_each(disk, run, cuts)


@pytest.mark.slow
def test_a_training_run_keeps_what_it_goes_on_from_wherever_the_power_went(tmp_path, monkeypatch, disk_at):
    """Its log reaches as far as its checkpoint, and the best weights lie there before a checkpoint says so."""
    import torch

    config = {
        "steps": 4, "batch_size": 2, "model": "unet", "model_options": {"width": 4}, "image_size": 64, "workers": 0,
        "validate_every": 2, "save_minutes": 0, "data": str(draw_folder(tmp_path / "data", 4)),
    }  # fmt: skip
    (tmp_path / "wanted.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patched:
        disk = disk_at(out, patched)
        command("train", "--config", tmp_path / "wanted.json", "--no-check", "--out", out)
        for path in out.iterdir():
            assert disk.survives(path), path
    steps = []
    for kept, _ in disk.states:
        found = {path.name: content for path, content in kept.items()}
        if "checkpoint.pt" in found:
            state = torch.load(io.BytesIO(found["checkpoint.pt"]), weights_only=True)
            lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
            assert [line["step"] for line in lines if "loss" in line][-1:] >= [state["step"]][: state["step"]]
            assert state["best"] == -math.inf or "best.pt" in found
            steps.append(state["step"])
    assert set(steps) == {0, 1, 2, 3, 4}


def test_a_data_set_that_init_writes_is_there_whole_or_not_at_all(tmp_path, monkeypatch, disk_at):
    source, there = tmp_path / "mine", tmp_path / "there"
    there.mkdir()
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    for i in range(3):
        Image.fromarray(noise(20, 30)[..., :3]).save(source / f"images/{i}.png")
        Image.fromarray(np.uint8(255) * (noise(20, 30)[..., 0] > 99)).save(source / f"masks/{i}.png")
    np.save(source / "images/2.npy", noise(20, 30)[..., 0])  # written as PNG, the others are copied
    (source / "images/2.png").unlink()
    disk = disk_at(there, monkeypatch)
    command("init", source, "--out", there / "out", "--yes")
    written = tree(there / "out")
    assert len(written) == 8
    assert {path: content for path, content in disk.strict().items() if path in written} == written
    for state in (state for states in disk.states for state in states):
        of_it = {path: content for path, content in state.items() if there / "out" in path.parents}
        assert of_it in ({}, written)
