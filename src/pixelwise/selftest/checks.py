"""What `pixelwise selftest` looks at: one function a check, in the order of `all_checks`.

A check returns what it found in a few words. It raises `Failed` with what was expected, what came and what to do; any
other exception is a failure too. What may crash, hang or be killed runs in a process of its own (`children.py`,
`hostile.py`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pixelwise
from pixelwise.caches import cache_dir, private_folder
from pixelwise.catalog.embedded import ROWS
from pixelwise.engines import ENGINES
from pixelwise.engines.trials import version_of
from pixelwise.errors import OutputError
from pixelwise.files import held, writing
from pixelwise.opening import Said, open_model
from pixelwise.pipeline.journal import JOURNAL
from pixelwise.segmenter import Segmenter
from pixelwise.selftest import answers, children, hostile, machine, reference
from pixelwise.weights.store import digest

PATIENCE_S = 120
"""How long a process that is started here may take; none should need a tenth of it."""

FAR = 1e-4
"""How far an engine's logits may be from the definition, as a share of their range."""

PARTS = {"torch": "torch", "raster": "rasterio", "video": "av"}
"""Extras that a check may need, and what is there when they are."""


REINSTALL = "run: pip install --force-reinstall --no-deps pixelwise"
"""What to do where a file of pixelwise is not what it was."""


class Failed(Exception):
    """A check found something wrong."""


@dataclass(frozen=True)
class Bench:
    """Where the checks work. folder: for their files. engines: what the report says of each engine."""

    folder: Path
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """run: see the module. extra: of pixelwise, without which there is nothing to check."""

    name: str
    run: Callable[[Bench], str]
    extra: str | None = None

    @property
    def possible(self) -> bool:
        return self.extra is None or find_spec(PARTS.get(self.extra, self.extra)) is not None


def all_checks() -> list[Check]:
    """All of them; an engine or a model that is added to its table is among them."""
    return [
        Check("installation", installation),
        *(
            Check(f"engine {name}", partial(engine, name), row.extra)
            for name, row in ENGINES.items()
            if not row.compiles  # which would take longer than all the others
        ),
        Check("engine fastest", fastest),
        *(Check(f"model {name}", partial(embedded, name)) for name in ROWS),
        Check("kernels", kernels),
        Check("hostile pictures", partial(refused, "pictures")),
        Check("hostile files", partial(refused, "files")),
        Check("hostile checkpoints", partial(refused, "checkpoints"), "torch"),
        Check("hostile rasters", partial(refused, "rasters"), "raster"),
        Check("hostile videos", partial(refused, "videos"), "video"),
        Check("caches", caches),
        Check("processes", processes),
        Check("atomic writing", atomic_writing),
        Check("kill and resume", kill_and_resume),
    ]


def installation(bench: Bench) -> str:
    """What is installed is new enough, and the files of pixelwise are those of the wheel."""
    asked = machine.requirements()
    if not asked:
        return "runs from a folder without being installed, so there is nothing to compare with"
    versions = machine.versions()
    old = [
        f"{name} {versions[name]} (needed: {least} or newer)" for name, (least, _) in asked.items()
        if versions[name] is not None and _numbers(str(versions[name])) < _numbers(least)
    ]  # fmt: skip
    missing = [name for name, (_, extra) in asked.items() if extra is None and versions[name] is None]
    if old or missing:
        raise Failed(
            f"too old or missing: {', '.join([*old, *missing])}; run: pip install --upgrade pixelwise"
        )
    changed, count = _changed_files()
    if changed:
        raise Failed(
            f"{len(changed)} files of pixelwise are not those of the wheel ({', '.join(changed[:3])}); "
            f"{REINSTALL}"
        )
    words = f"{sum(version is not None for version in versions.values())} packages are new enough"
    if count:
        return f"{words}, {count} files are those of the wheel"
    if not _in_place():
        raise Failed(
            "the list of pixelwise's files (RECORD in its .dist-info folder) is missing or has no hash of them, "
            "expected one of a wheel, so that no file can be compared; run: pip install --ignore-installed --no-deps "
            "pixelwise"
        )
    return f"{words}; it is installed in place (editable), so no file was compared with a hash"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _changed_files() -> tuple[list[str], int]:
    """Files of the package that differ from the wheel's record of hashes, and how many were compared: none where the
    package lies elsewhere, as in a development environment."""
    changed, count = [], 0
    for file in metadata.files("pixelwise") or []:
        path = Path(str(file.locate()))
        if file.hash is None or file.parts[0] != "pixelwise" or not path.is_relative_to(_package().parent):
            continue
        count += 1
        if not path.is_file() or digest(path) != _hexadecimal(file.hash.value):
            changed.append(file.as_posix())
    return changed, count


def _in_place() -> bool:
    """Whether the package lies elsewhere than an installed wheel has it: an editable installation, or PYTHONPATH."""
    return Path(str(metadata.distribution("pixelwise").locate_file("pixelwise"))).resolve() != _package()


def _hexadecimal(hash: str) -> str:
    """Of a hash as a wheel's record has it."""
    import base64

    return base64.urlsafe_b64decode(hash + "=" * (-len(hash) % 4)).hex()


def _package() -> Path:
    return Path(pixelwise.__file__).resolve().parent


def engine(name: str, bench: Bench) -> str:
    """Its logits of a small network are those of the definition."""
    row = ENGINES[name]
    path = bench.folder / "reference.onnx"
    path.write_bytes(reference.in_onnx())
    opened = open_model(path if row.files else reference.in_torch(), name, Said(card=reference.CARD))
    far = 0.0
    for size_hw in ((64, 96), (37, 51), (1, 2)):
        images = np.stack([answers.picture()[: size_hw[0], : size_hw[1]]] * 2).transpose(
            0, 3, 1, 2
        ) / np.float32(255)
        expected = reference.by_definition(images)
        logits = np.asarray(opened(np.ascontiguousarray(images)))
        if logits.shape != expected.shape:
            raise Failed(
                f"logits of {size_hw} pixels have the shape {logits.shape}, expected {expected.shape}"
            )
        if not np.isfinite(logits).all():
            raise Failed(f"logits of {size_hw} pixels are not all finite numbers")
        far = max(far, float(np.abs(logits - expected).max() / np.ptp(expected)))
    bench.engines[name] = {"version": version_of(row.package), "largest_difference": far}
    if far > FAR:
        raise Failed(f"logits differ from the definition by {far:.2g} of their range, allowed is {FAR:g}")
    return f"logits differ from the definition by {far:.1g} of their range"


RACED, RACED_HW = "everyday", (513, 684)
"""A model of the package and the size of a photo as it takes it, by which engines are compared."""


def fastest(bench: Bench) -> str:
    """Which engine `fastest` takes for a model of the package, and how long each needs for a photo."""
    images = np.random.default_rng(0).random((1, 3, *RACED_HW), np.float32)
    opened: Any = open_model(RACED, "fastest")
    opened(images)
    for entry in opened.race.entries:
        about = bench.engines.setdefault(entry.name, {})
        about |= {"ms": entry.ms} if entry.ms is not None else {"left_out": entry.says}
    if find_spec("torch") is not None:
        network = open_model(RACED, "pytorch")
        times = []
        for _ in range(4):
            began = time.perf_counter()
            network(images)
            times.append(time.perf_counter() - began)
        bench.engines.setdefault("pytorch", {})["ms"] = round(1000 * statistics.median(times[1:]), 3)
    height, width = RACED_HW
    return f"takes {opened.name} for {RACED} at {height} x {width} pixels; {opened.race}"


def embedded(name: str, bench: Bench) -> str:
    """The file is the one that was stored, byte by byte, and so is the answer for a picture made by code."""
    stored = answers.ANSWERS.get(name)
    if stored is None:
        raise Failed("there is no stored answer for this model; add one to selftest/answers.py")
    _same_file(str(ROWS[name].asset), stored.sha256)
    found = Segmenter(name, threads=1)(answers.picture(), confidence=True)
    rows = answers.sampled(found.labels)
    pairs = [
        pair
        for row, expected in zip(rows, stored.rows, strict=True)
        for pair in zip(row, expected, strict=True)
    ]
    share = sum(a != b for a, b in pairs) / len(pairs)
    assert found.confidence is not None
    far = abs(float(found.confidence.mean()) - stored.confidence)
    if share > answers.SHARE or not far <= answers.CONFIDENCE:  # NaN is not
        raise Failed(
            f"{share:.1%} of the pixels have another class than stored, the mean confidence is {far:.4f} off; allowed "
            f"are {answers.SHARE:.0%} and {answers.CONFIDENCE}, though its file is right; reinstall the "
            "engine, or report it"
        )
    found_out = (
        f"{len(pairs)} pixels have the stored classes" if share == 0 else f"{share:.1%} of the pixels differ"
    )
    return f"the file has the stored hash, {found_out}"


def _same_file(asset: str, sha256: str) -> None:
    """Raise Failed where the file of a model in the package is not there, or another one than was stored."""
    with resources.as_file(resources.files("pixelwise") / "assets" / asset) as path:
        try:
            found = digest(path)
        except OSError as error:
            raise Failed(
                f"the model's file {path} cannot be read ({error.strerror or error}); {REINSTALL}"
            ) from error
        if found != sha256:
            raise Failed(
                f"the model's file {path} has the SHA-256 {found[:8]}..., expected {sha256[:8]}...: it is damaged or "
                f"was changed; {REINSTALL}"
            )


def kernels(bench: Bench) -> str:
    """The loops that numba compiles give what NumPy gives."""
    import pixelwise.kernels  # noqa: F401  (once it is imported, the functions compared take the compiled path)
    from pixelwise.selftest.definitions import COMPARED

    wrong = [f"{what}: {found}" for what, compare in COMPARED.items() if (found := compare()) is not None]
    if wrong:
        raise Failed(f"compiled loops and NumPy disagree ({'; '.join(wrong)}); reinstall numba, or report it")
    return f"{len(COMPARED)} compiled loops agree with NumPy"


def refused(group: str, bench: Bench) -> str:
    """Files made to break what reads them are refused, within limits of memory and time."""
    folder = bench.folder / group
    folder.mkdir()
    names = list(hostile.cases(group, ""))
    done = _child(bench, "pixelwise.selftest.hostile", group, str(folder), check=False)
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    left = [name for name in names if name not in found]
    if left:
        raise Failed(f"reading {left[0]} ended the process: {_how(done)}")
    wrong = [f"{name} {what}" for name, what in found.items() if what is not None]
    if wrong:
        raise Failed(f"{len(wrong)} of {len(found)} files were not refused: {'; '.join(wrong[:5])}")
    return f"{len(found)} files were refused"


def caches(bench: Bench) -> str:
    """What is kept between runs can be written, and nobody else can put something in its place."""
    folder = cache_dir()
    probe = folder / f"selftest-{os.getpid()}"
    try:
        with writing(probe) as temporary:
            temporary.write_bytes(b"written")
        probe.unlink()
    except OutputError as error:
        advice = (
            "PIXELWISE_CACHE names it: make it one that can be written, or name another"
            if os.environ.get("PIXELWISE_CACHE")
            else "it is for caches: make it one that can be written, or name another in PIXELWISE_CACHE"
        )
        raise Failed(f"{error}; {advice}") from error
    try:
        loops = private_folder(folder / "kernels")
    except OSError as error:
        raise Failed(
            f"{folder / 'kernels'}, for compiled loops, cannot be used ({error.strerror or error}); remove it, or name "
            "another folder in PIXELWISE_CACHE"
        ) from error
    if os.name == "posix":
        for place in (loops, *loops.resolve().parents):
            _refuse_open(place)
    return "the folder for models and compiled loops can be written, by this user alone"


def _refuse_open(folder: Path) -> None:
    """Raise Failed where somebody else owns the folder or could rename what lies in it. Groups are trusted: on many
    systems each user has one, which may write what the user makes."""
    about = folder.stat()
    if about.st_uid not in (os.getuid(), 0):
        raise Failed(f"{folder} belongs to another user; name a folder of your own in PIXELWISE_CACHE")
    if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        raise Failed(
            f"other users may write in {folder} (mode {stat.S_IMODE(about.st_mode):o}); run: chmod o-w on it, or name "
            "another folder in PIXELWISE_CACHE"
        )


def processes(bench: Bench) -> str:
    """A Segmenter works in processes of every kind that the system starts."""
    import multiprocessing

    path = bench.folder / "processes.onnx"
    path.write_bytes(reference.in_onnx())
    methods = multiprocessing.get_all_start_methods()
    for method in methods:
        done = _child(bench, "pixelwise.selftest.children", "answer", str(path), method, check=False)
        if done.returncode:
            raise Failed(f"a Segmenter in a process of {method}: {_how(done)}")
    return f"a Segmenter answers the same in processes of {', '.join(methods)}"


def atomic_writing(bench: Bench) -> str:
    """A reader meets a whole file whenever it looks, also after a kill; and a lock holds until its owner has ended."""
    path = bench.folder / "versions"
    seen: set[bytes] = set()
    with _killed_at_the_end(bench, "write", path):
        while len(seen) < 8:
            seen.add(_whole(path))
    _whole(path)
    lock = bench.folder / "lock"
    with _killed_at_the_end(bench, "hold", lock):
        try:
            with held(lock, "the folder"):
                raise Failed(
                    "a lock that another process holds was given away; do not work on one folder twice here"
                )
        except OutputError:
            pass
    with held(lock, "the folder"):
        pass
    return "files are replaced whole, also by a process that is killed; locks hold until their owner ends"


def _whole(path: Path) -> bytes:
    """The version that the file holds."""
    content = path.read_bytes()
    version = content[: children.BLOCK]
    if content != version * children.BLOCKS:
        raise Failed(
            f"a file was met half written ({len(content)} bytes); write results on another file system"
        )
    return version


def kill_and_resume(bench: Bench) -> str:
    """A folder run that is killed and gone on with gives the files of one that was not."""
    model = bench.folder / "resume.onnx"
    model.write_bytes(reference.in_onnx())
    for count in (24, 96, 384):
        pictures = bench.folder / f"pictures{count}"
        pictures.mkdir()
        for i in range(count):
            Image.fromarray(np.roll(np.tile(answers.picture(), (4, 4, 1)), 7 * i, axis=1)).save(
                pictures / f"{i}.png"
            )
        outs = [bench.folder / f"{name}{count}" for name in ("cut", "whole")]
        command = ["segment", str(pictures), "--model", str(model), "--format", "labels,json", "--out"]
        with _started(bench, "pixelwise", *command, str(outs[0])) as run:
            assert run.stdout is not None
            lines = [run.stdout.readline() for _ in range(3)]
        finished = _entries(outs[0])
        if not all(lines):
            raise Failed(f"the run ended before it was killed: {_how(run)}")
        if finished == count:
            continue  # it was quicker than the kill
        _child(bench, "pixelwise", *command, str(outs[0]), "--resume")
        _child(bench, "pixelwise", *command, str(outs[1]))
        cut, whole = (
            {path.name: path.read_bytes() for path in out.iterdir() if path.name != JOURNAL} for out in outs
        )
        different = [name for name in sorted({*cut, *whole}) if cut.get(name) != whole.get(name)]
        if different:
            raise Failed(f"after a kill and --resume {len(different)} files differ, such as {different[0]}")
        return f"killed after {finished} of {count} pictures and gone on with, the {len(whole)} files are the same"
    raise Failed("a run over 384 pictures ended before it could be killed; nothing was found out")


def _entries(out: Path) -> int:
    """Pictures that the journal of a folder has as finished."""
    journal = out / JOURNAL
    return journal.read_bytes().count(b'"source"') if journal.is_file() else 0


# Other processes ---------------------------------------------------------------------------------------------


def _command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """To run a module of ours in another Python, from a folder of ours, with the packages of this one."""
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path)
    return [sys.executable, "-m", module, *arguments], {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONIOENCODING": "utf-8",
    }


def _child(
    bench: Bench, module: str, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    command, environment = _command(module, *arguments)
    try:
        done = subprocess.run(
            command, cwd=bench.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", timeout=PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(
            f"{module} {arguments[0]} was not done after {PATIENCE_S} seconds and was ended"
        ) from None
    if check and done.returncode:
        raise Failed(f"{module} {arguments[0]}: {_how(done)}")
    return done


@contextmanager
def _started(bench: Bench, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed when the block ends."""
    command, environment = _command(module, *arguments)
    with subprocess.Popen(
        command, cwd=bench.folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _killed_at_the_end(bench: Bench, what: str, path: Path) -> Iterator[None]:
    """One of `children`, once it has said that it has begun."""
    with _started(bench, "pixelwise.selftest.children", what, str(path)) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Failed(f"a process that was to {what} a file ended by itself: {_how(process)}")
        yield


def _how(done: subprocess.CompletedProcess[str] | subprocess.Popen[str]) -> str:
    """How a process ended, with the last line that it wrote to stderr."""
    code = done.returncode
    said = done.stderr.strip().splitlines()[-1:] if isinstance(done, subprocess.CompletedProcess) else []
    return ": ".join([f"signal {-code}" if code is not None and code < 0 else f"code {code}", *said])
