"""The process in which cases run, one after the other: `python -m hostile.child FD_IN FD_OUT`, a line of JSON each way.

A line that comes names a kind, a case and a folder, or a reader and inputs; the one that goes lists what was wrong,
nothing if all was right. What a table names in WARM is imported before the limits begin.
Limits are those of this process, so that what breaks them ends it, and not the tests.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hostile.cases import Answer, Case, Failed, Gives, Place, find
from pixelwise.errors import PixelwiseError

MEMORY = 1500 * 2**20
"""Bytes of address space that a case may ask for above what the process has."""

RESIDENT = 700 * 2**20
"""Bytes of memory that it may really take."""

SECONDS = 20
"""Of the processor; the reader of a hostile file gives up far earlier."""

LONGEST = 1200
"""Letters of a sentence."""


class Watch:
    """What Python is asked to do: no requests, no programs, no writing outside of the place."""

    def __init__(self) -> None:
        self.on, self.root, self.found = False, "", []
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            self.found.append(f"asked the network ({event} {arguments[-2:]!r:.80})")
            raise PermissionError(13, "no network here")
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
            self.found.append(f"started a program ({event} {arguments!r:.80})")
        if event == "open" and isinstance(arguments[0], (str, bytes)) and isinstance(arguments[1], str):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            kept = [os.environ[name] for name in ("PIXELWISE_CACHE", "NUMBA_CACHE_DIR") if name in os.environ]
            mine = (self.root, *kept, "/dev/", "/proc/")
            if set(arguments[1]) & set("wax+") and not path.startswith(mine) and "__pycache__" not in path:
                self.found.append(f"wrote {path}")


watch = Watch()


def run(kind: str, name: str, root: Path, address: str) -> list[str]:
    """What is wrong with what the case gave; root: an empty folder."""
    case = find(kind, name)
    place = Place(root / "here", root / "outside", address)
    for folder in (place.folder, place.outside, root / "tmp", root / "home"):
        folder.mkdir()
    (place.outside / "secret.png").write_bytes(b"secret")
    case.make(place)
    before = tree(root)
    for module in getattr(importlib.import_module(f"hostile.{kind}"), "WARM", ()):
        importlib.import_module(module)
    wrong: list[str] = []
    value: Any = None
    error: BaseException | None = None
    start = memory()
    os.chdir(place.folder)
    watch.root, watch.found = str(root), []
    environment = {**os.environ}
    os.environ.update(HOME=str(root / "home"), TMPDIR=str(root / "tmp"))
    tempfile.tempdir = None
    with noise() as heard, limits():
        watch.on = True
        try:
            value = case.do(place)
        except BaseException as caught:  # whatever a user would see
            error = caught
        watch.on = False
    os.chdir("/")
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    wrong += watch.found
    if (taken := memory("VmHWM") - start) > RESIDENT:
        wrong.append(f"took {taken / 2**20:.0f} MiB")
    wrong += judged(case, place, value, error)
    if text := unexpected(heard[0]):
        wrong.append(f"library noise: {text[:200]!r}")
    after = tree(root)
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        if path in before:
            if any(fnmatch(path.removeprefix("here/"), pattern) for pattern in case.deletes):
                continue
            wrong.append(f"{'changed' if path in after else 'deleted'} {path}")
        elif not any(fnmatch(path.removeprefix("here/"), pattern) for pattern in case.leaves):
            wrong.append(f"left {path}")
    return wrong


def replayed(name: str, inputs: list[bytes], count: int) -> list[str]:
    """What is wrong with what a reader makes of these inputs, and of so many that are made of its seeds."""
    from hostile.readers import READERS, changed, changed_as_json

    reader, wrong = READERS[name], []
    draw = random.Random(0)
    scratch = tempfile.mkdtemp(prefix="reader-")
    os.chdir(scratch)
    seeds = reader.seeds() if count else []
    for seed in seeds:
        with contextlib.suppress(PixelwiseError):
            reader.read(seed)  # imports what it needs
    for i in range(count):
        data = draw.choice(seeds)
        other = changed_as_json(data, draw) if reader.json and i % 2 else None
        inputs.append(changed(data, draw) if other is None else other)
    watch.root, watch.found = scratch, []
    with noise(), limits():
        watch.on = True
        for data in inputs:
            more_seconds()  # each has its own: together they may take longer on a slow machine
            try:
                reader.read(data)
            except PixelwiseError:
                continue
            except Exception as error:
                wrong.append(f"{described(error)} of {data[:200]!r}")
        watch.on = False
    os.chdir("/")
    shutil.rmtree(scratch, ignore_errors=True)
    return wrong + watch.found


def judged(case: Case, place: Place, value: Any, error: BaseException | None) -> list[str]:
    """Whether the value or the sentence is what is right."""
    if isinstance(case.right, Gives):
        if error is not None:
            return [f"refused or failed: {described(error)}"]
        try:
            case.right.check(value, place)
        except AssertionError as wrong:
            return [f"a wrong value: {wrong}"]
        return []
    if error is None:
        got = value.out[:200] if isinstance(value, Answer) else repr(value)[:200]
        return [f"was taken, and gave {got!r}"]
    if isinstance(error, Failed):
        lines = str(error).splitlines()
        wrong = [f"said {line!r:.300}" for line in lines if not line.startswith("pixelwise: ")]
        if error.code != case.right.error.exit_code:
            wrong.append(
                f"exit code {error.code}, expected {case.right.error.exit_code}: {lines[-1:]!r:.400}"
            )
    elif not isinstance(error, case.right.error):
        return [f"expected {case.right.error.__name__}, got {described(error)}"]
    else:
        lines, wrong = [str(error)], []
    text = "\n".join(lines)
    if not re.search(case.right.says, text):
        wrong.append(f"does not say {case.right.says!r}: {text[:400]!r}")
    if "this is a bug" in text or "Traceback" in text:
        wrong.append(f"calls itself a bug: {text[:400]!r}")
    if any(len(line) > LONGEST for line in lines):
        wrong.append(f"a sentence of {max(map(len, lines))} letters")
    if re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) or (not isinstance(error, Failed) and "\n" in text):
        wrong.append(f"control characters in {text[:300]!r}")
    return wrong


def described(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)
    ours = [f for f in where if "/pixelwise/" in f.filename] or where[-1:]
    at = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    name = type(error).__name__ if not isinstance(error, Failed) else f"exit code {error.code}"
    return f"{name}: {str(error)[:300]}{at}"


def tree(root: Path) -> dict[str, Any]:
    """Every file and link below a folder with what it holds."""
    found: dict[str, Any] = {}
    for here, _, names in os.walk(root):
        for name in names:
            path = Path(here, name)
            about = path.lstat()
            if path.is_symlink():
                found[str(path.relative_to(root))] = os.readlink(path)
            elif path.is_file():
                found[str(path.relative_to(root))] = (about.st_size, about.st_mtime_ns, about.st_mode)
    return found


def memory(what: str = "VmRSS") -> int:
    """Bytes, from the kernel; 0 where it does not say. VmRSS also begins a new VmHWM."""
    try:
        if what == "VmRSS":
            Path("/proc/self/clear_refs").write_text("5")
        (line,) = re.findall(rf"^{what}:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)
        return int(line) * 1024
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """So much memory and time more than were used so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
    was = {which: resource.getrlimit(which) for which in (resource.RLIMIT_AS, resource.RLIMIT_CPU)}
    more_seconds()
    if pages:
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, was[resource.RLIMIT_AS][1]))
    try:
        yield
    finally:
        for which, before in was.items():
            resource.setrlimit(which, before)


def more_seconds() -> None:
    """From here on the processor may be used for `SECONDS`."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


@contextlib.contextmanager
def noise() -> Iterator[list[str]]:
    """What is written to the process's own standard output and error, past Python's."""
    heard = [""]
    kept = [os.dup(1), os.dup(2)]
    with open(os.environ["HOSTILE_NOISE"], "w+b") as file, warnings.catch_warnings():
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield heard
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            heard[0] = file.read().decode("utf-8", "replace")


def unexpected(text: str) -> str:
    """What is no warning of our own. Python puts the line of source beside a warning."""
    lines = text.splitlines()
    kept = [
        i for i, line in enumerate(lines) if "PixelwiseWarning: " in line or line.startswith("pixelwise: ")
    ]
    return "\n".join(line for i, line in enumerate(lines) if i not in kept and i - 1 not in kept)


def main() -> None:
    os.chdir("/")
    inlet, outlet = (os.fdopen(int(fd), mode) for fd, mode in zip(sys.argv[1:3], "rw", strict=True))
    for line in inlet:
        asked = json.loads(line)
        try:
            if "reader" in asked:
                wrong = replayed(
                    asked["reader"], [Path(file).read_bytes() for file in asked["files"]], asked["count"]
                )
                outlet.write(json.dumps(wrong) + "\n")
                outlet.flush()
                continue
            root = Path(asked["root"])
            wrong = run(asked["kind"], asked["name"], root, asked["address"])
        except Exception:
            wrong = [f"the case itself fails: {traceback.format_exc()}"]
        outlet.write(json.dumps(wrong) + "\n")
        outlet.flush()


if __name__ == "__main__":
    main()
