"""Journal: what a run has finished, in the folder of its results, so that interrupted work continues.

The file is JSON lines. A line with "settings" names settings by their hash, and comes before the first result that is
made under them. A line with "source" says that this file, of this size and time of change, was finished under them and
where its results lie, and the engine that made them. It is added after these are in place, synced, so whatever an
interruption leaves, no line promises too much; a torn last line is ignored. Runs that share the folder add to one
journal; that they write no file of each other's sees `files.claimed`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pixelwise.errors import InputError, OutputError
from pixelwise.files import make_folder, refuse_link, sync_folder
from pixelwise.sources.dicom import files_in
from pixelwise.untrusted import MAX_BYTES, Plain, read

JOURNAL = ".pixelwise-journal.jsonl"

MAX_JOURNAL_BYTES = 2**30
"""A source takes some 250."""


class Journal:
    """The journal of a folder.

    folder: of the results. settings: everything that decides what the results are, plain values for JSON. resume:
    take what was finished under the same settings as done; otherwise only write down what this run finishes.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(folder) / JOURNAL
        self.hash = fingerprint(settings)
        self.resume = resume
        self._settings = dict(settings)
        self._known: dict[str, Any] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        for line in _read(self.path):
            if "settings" in line:
                self._known[line["hash"]] = line["settings"]
            else:
                self._entries[line["source"]] = line
        self._adding = threading.Lock()
        self.made_by: Callable[[], dict[str, str]] = dict
        """Gives name and precision of the engine that is at work."""

    def exists(self) -> bool:
        """Whether an earlier run has written anything here."""
        return bool(self._entries or self._known)

    @staticmethod
    def asked(folder: str | os.PathLike[str]) -> tuple[str, str | None] | None:
        """Engine and precision that the last run in a folder was asked for, None where there was none."""
        found = [line["settings"] for line in _read(Path(folder) / JOURNAL) if "settings" in line]
        if not found or not isinstance(found[-1].get("engine"), str):
            return None
        precision = found[-1].get("precision")
        return found[-1]["engine"], precision if isinstance(precision, str) else None

    def engine(self) -> tuple[str, str] | None:
        """Name and precision of the engine that made what was finished last under these settings; None where that is
        not known."""
        found = [(e["engine"], e["precision"]) for e in self._entries.values() if e["hash"] == self.hash]
        return next((one for one in reversed(found) if all(one)), None)

    def done(self, source: Path, files: Mapping[str, Path], parts: Sequence[Path] = ()) -> bool:
        """Whether, under resume, these results of this very source, and of its `parts`, are already there.

        Raises OutputError when they are, but were made under other settings; the message names those.
        """
        entry = self._entries.get(os.path.abspath(source))
        if (
            not self.resume
            or entry is None
            or not source.exists()
            or entry["file"] != tuple(_identity(source, parts))
        ):
            return False
        if any(not path.exists() for path in files.values()):
            return False
        if entry["hash"] != self.hash:
            raise OutputError(
                f"{self.path.parent} holds results of other settings ({self._differences(entry['hash'])}); "
                "resume with those, pass --overwrite in place of --resume to replace them, or choose another --out"
            )
        return True

    def add(self, source: Path, files: Mapping[str, Path], parts: Sequence[Path] = ()) -> None:
        """Write down that `source` is finished and its results are at `files`."""
        names = {kind: os.path.relpath(path, self.path.parent) for kind, path in files.items()}
        entry = {
            "source": os.path.abspath(source),
            "file": _identity(source, parts),
            "hash": self.hash,
            "files": names,
            **self.made_by(),
        }
        self.begin()
        with self._adding:
            self._append(entry)

    def begin(self) -> None:
        """Write down the settings, before the first result is there: whatever lies here from then on may be ours."""
        with self._adding:
            if self.hash not in self._known:
                self._append({"settings": self._settings, "hash": self.hash})
                self._known[self.hash] = self._settings

    def _append(self, line: dict[str, Any]) -> None:
        """One write of a whole line, after a newline where an interruption tore the last one; synced, so that what is
        finished stays so."""
        text = json.dumps(line) + "\n"
        is_new = not self.path.exists()
        try:
            make_folder(self.path.parent)
            _refuse_other_kinds(self.path)
            with open(self.path, "ab+") as file:
                if file.tell() and not _ends_with_newline(file):
                    text = "\n" + text
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _differences(self, other: str) -> str:
        before = self._known.get(other)
        if before is None:
            return "unknown ones"
        names = [n for n in {**before, **self._settings} if before.get(n) != self._settings.get(n)]
        return ", ".join(f"{n}: {before.get(n)}, now {self._settings.get(n)}" for n in names)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that differ where the settings do."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _identity(source: Path, parts: Sequence[Path] = ()) -> list[int]:
    """Bytes and time of change (ns): a source that was edited since is not the one that was finished. Of a folder of
    DICOM, and of a source of several files, their bytes in all, and a number that names, bytes and times are hashed
    to."""
    is_folder = source.is_dir() and source.suffix.lower() != ".zarr"
    if not is_folder and not parts:
        about = source.stat()
        return [about.st_size, about.st_mtime_ns]
    files = list(files_in(source)) if is_folder else [source, *parts]
    size, hashed = 0, hashlib.sha256()
    for file in sorted(files):
        if file.exists():
            about = file.stat()
            size += about.st_size
            name = os.path.relpath(file, source.parent)
            hashed.update(json.dumps([name, about.st_size, about.st_mtime_ns]).encode())
    return [size, int(hashed.hexdigest()[:15], 16)]


@dataclass(frozen=True)
class _Finished:
    """A line that says that a source is finished."""

    source: str
    file: tuple[int, int]
    hash: str
    files: dict[str, str] = field(default_factory=dict)
    engine: str = ""
    precision: str = ""


@dataclass(frozen=True)
class _Settings:
    """A line that says which settings a hash is of."""

    settings: dict[str, Plain]
    hash: str


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole; whatever else an interruption, or anybody, left there counts for nothing."""
    _refuse_other_kinds(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_JOURNAL_BYTES:
                raise OutputError(
                    f"the journal {path} has {size:,} bytes, expected at most {MAX_JOURNAL_BYTES:,}; remove it, or "
                    "choose another --out"
                )
            for text in _lines(file):
                kind: type[Any] = _Settings if '"settings"' in text else _Finished
                with suppress(InputError):  # names of files that are no UTF-8 have surrogates
                    yield asdict(read(text, kind, "a line", unknown="leave", surrogates=True))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"cannot read the journal {path}: {error.strerror or error}") from error


def _lines(file: BinaryIO) -> Iterator[str]:
    """The lines, one in memory at a time, without those that are longer than any of ours."""
    is_rest = False  # of a line whose beginning was too long
    while line := file.readline(MAX_BYTES):
        ends = line.endswith(b"\n")
        if not is_rest and (ends or len(line) < MAX_BYTES):
            yield line.decode("utf-8", errors="replace")
        is_rest = not ends


def _refuse_other_kinds(path: Path) -> None:
    """Raise OutputError for a link, and for a pipe or a device, which may never end."""
    refuse_link(path)
    if path.exists() and not path.is_file():
        raise OutputError(
            f"{path} is no file, expected the journal of earlier runs; remove it, or choose another --out"
        )


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    ended: bool = file.read(1) == b"\n"
    return ended
