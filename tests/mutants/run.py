"""Do the tests see small wrong changes? `make mutants` draws some, runs the matching tests on each, lists survivors.

    python tests/mutants/run.py --draw 400 --seed 15

First each matching test file runs once by itself, and it is noted which lines of the package each test runs through and
how long it takes. Then, for one change after the other, a fork of a process that has torch and the like imported puts
the changed file into a copy of the package and runs the tests that go through the changed line, the quickest first,
until one fails. Results are kept, by what the file and the change are, so the same command goes on where it was
stopped, and a survivor is tried again when one of its test files has changed.

The order is drawn by the seed with the packages interleaved: any beginning of it is a fair sample of the whole.
A tool of our own, because those there are start pytest, and with it torch, anew for each change, or leave out defaults
and what stands outside of functions.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import hashlib
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mutants.mutations import Mutant, mutants

ROOT = Path(__file__).parents[2]

MATCHING = {
    package: f"wrong_signs {files}".split()
    for package, files in (
        (
            "inference",
            "tta tiling decide preprocess segmenter cleanup options crf meaning opening segmentation sources cli",
        ),
        ("metrics", "metrics boundary_scores calibration membranes evaluate"),
        ("losses", "losses loss_values training"),
        ("transforms", "transforms preprocess training recipes train_cli"),
        ("training", "training train_cli plan watching recipes crash"),
        ("datasets", "adopted init manifest doctor mends plan depth layouts matlab words"),
        ("report", "report words corrupted evaluate"),
        ("smp", "smp smp_encoders smp_hub smp_losses smp_metrics smp_parts smp_scripting smp_words"),
        ("outputs", "outputs segmentation meaning files journal sources cli"),
        (
            "weights",
            "store checkpoint catalog_files catalog names front_door written_before torchvision_networks",
        ),
    )
}
"""Package: the test files that are about it. What no test of these sees counts as unseen."""

PRELOADED = (
    "torch torch._dynamo torchvision.transforms.v2 timm numba onnx onnxruntime safetensors.torch skimage.data "
    "scipy.ndimage scipy.optimize PIL.ImageDraw rasterio rasterio.features shapely tifffile zarr av pycocotools.mask "
    "torchmetrics transformers segmentation_models_pytorch monai.losses monai.metrics sklearn.metrics accelerate "
    "hypothesis.extra.numpy matplotlib.pyplot datasets pydensecrf.densecrf typer rich.progress"
)
"""What is imported once for all; of what is missing the tests say so themselves."""

MEMORY = 14 << 30
"""Bytes of addresses that the tests of one change may take, and the programs they start."""


OVERTIME = 124

AROUND = 3
"""Lines around one that no test runs through."""


@dataclass(frozen=True)
class Traced:
    """One test: its node id, how long it took, and the lines by file it went through."""

    name: str
    seconds: float
    lines: dict[str, frozenset[int]]


class Lines:
    """A plugin of pytest that notes which lines of the package each test runs through."""

    def __init__(self, package: Path, out: Path, children: Path) -> None:
        self.package, self.out, self.children = f"{package}{os.sep}", out, children
        self.found: dict[str, set[int]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def enter(self, frame: Any, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(self.package):
            return None
        lines = self.found.setdefault(file[len(self.package) :].replace(os.sep, "/"), set())
        lines.add(frame.f_lineno)

        def within(frame: Any, event: str, _: Any) -> Any:
            lines.add(frame.f_lineno)
            return within

        return within

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        import threading

        self.found, began = {}, time.monotonic()
        threading.settrace(self.enter)
        sys.settrace(self.enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            for line in self._of_children():
                for file, numbers in line.items():
                    self.found.setdefault(file, set()).update(numbers)
            if item.nodeid not in self.failed:
                seconds = self.seconds.get(item.nodeid, time.monotonic() - began)
                with open(self.out, "a", encoding="utf-8") as file:
                    found = {name: sorted(lines) for name, lines in self.found.items() if lines}
                    file.write(json.dumps({"name": item.nodeid, "seconds": seconds, "lines": found}) + "\n")

    def _of_children(self) -> list[dict[str, list[int]]]:
        if not self.children.exists():
            return []
        text = self.children.read_text(encoding="utf-8")
        self.children.unlink()
        return [json.loads(line) for line in text.splitlines()]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


class Chosen:
    """A plugin of pytest that runs these tests of what was collected, in this order."""

    def __init__(self, names: list[str]) -> None:
        self.place = {name: i for i, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda i: self.place[i.nodeid])


IN_CHILDREN = """
import os
if "MUTANTS_LINES" in os.environ:
    import atexit, json, sys, threading
    package, found = os.environ["MUTANTS_PACKAGE"] + os.sep, {}
    def enter(frame, event, _):
        file = frame.f_code.co_filename
        if not file.startswith(package):
            return None
        lines = found.setdefault(file[len(package):].replace(os.sep, "/"), set())
        lines.add(frame.f_lineno)
        def within(frame, event, _):
            lines.add(frame.f_lineno)
            return within
        return within
    def keep():
        sys.settrace(None)
        with open(os.environ["MUTANTS_LINES"], "a", encoding="utf-8") as out:
            out.write(json.dumps({name: sorted(lines) for name, lines in found.items()}) + "\\n")
    atexit.register(keep)
    threading.settrace(enter)
    sys.settrace(enter)
"""
"""sitecustomize.py of the copy: the same in the programs that tests start."""


class Fork:
    """`work` in a fork of this process, with a log and a process group of its own, ended when its time is over."""

    def __init__(self, work: Callable[[], int], log: Path, limit_s: float) -> None:
        sys.stdout.flush()
        self.log, self.began, self.limit_s = log, time.monotonic(), limit_s
        self.child = os.fork()
        if self.child == 0:
            status = 70
            try:
                self._alone()
                status = work()
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)

    def _alone(self) -> None:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(self.limit_s) + 1, int(self.limit_s) + 2)
        )  # an orphan ends too
        with open(self.log, "w", encoding="utf-8") as out, open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)

    def poll(self) -> int | None:
        """Its exit status, minus a signal's number, 124 where its time was over; None while it goes on."""
        child, status = os.waitpid(self.child, os.WNOHANG)
        late = time.monotonic() > self.began + self.limit_s
        if not child and not late:
            return None
        self.end()
        return os.waitstatus_to_exitcode(status) if child else OVERTIME

    def end(self) -> None:
        """And whatever it started and left behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.child, 0)

    def wait(self) -> int:
        try:
            while (status := self.poll()) is None:
                time.sleep(0.02)
            return status
        finally:
            self.end()


def run_pytest(slot: Slot, files: Iterable[str], plugin: Any, *, trace_children: Path | None = None) -> int:
    """Run everyday tests of these files on the copy of the package, in this process."""
    source = slot.package.parent
    os.chdir(slot.root)
    os.environ["PYTHONPATH"] = str(source)
    sys.path[:0] = [str(source)]
    if trace_children is None:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    else:
        os.environ |= {"MUTANTS_LINES": str(trace_children), "MUTANTS_PACKAGE": str(slot.package)}
    options = ["-x"] if trace_children is None else []
    return int(
        pytest.main(
            [*options, "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not exhaustive",
             "-W", "ignore::pytest.PytestAssertRewriteWarning", "--tb=short", f"--basetemp={source}.tmp", *files],
            plugins=[plugin],
        )
    )  # fmt: skip


class Slot:
    """A copy of the package in which one file at a time is changed; its path stays, so numba's cache holds."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.package, self.turn = root, folder / "pixelwise", 0
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(root / "src", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "sitecustomize.py").write_text(IN_CHILDREN, encoding="utf-8")

    def change(self, mutant: Mutant) -> None:
        self.path = self.package / mutant.path
        self.source, self.stat = self.path.read_text(encoding="utf-8"), self.path.stat()
        self.turn += 1
        later = self.stat.st_mtime + 10 * self.turn  # compiled files go by it
        self.path.write_text(mutant.applied(self.source), encoding="utf-8")
        os.utime(self.path, (later, later))

    def restore(self) -> None:
        self.path.write_text(self.source, encoding="utf-8")
        os.utime(self.path, ns=(self.stat.st_atime_ns, self.stat.st_mtime_ns))


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def sources(root: Path) -> dict[str, str]:
    """The files that are changed, by their path below the package."""
    package = root / "src" / "pixelwise"
    return {
        path.relative_to(package).as_posix(): path.read_text(encoding="utf-8")
        for name in MATCHING
        for path in sorted((package / name).rglob("*.py"))
    }


def drawn(files: dict[str, str], count: int, seed: int, least: int) -> list[Mutant]:
    """`count` changes: `least` of each package, the others from wherever they fall; interleaved.

    Each change has its place by a hash of itself: a larger count goes on from a smaller one, and where the code changes
    the others stay.
    """
    by_package: dict[str, list[Mutant]] = {name: [] for name in MATCHING}
    places: dict[Mutant, str] = {}
    for path, text in files.items():
        found = mutants(text, path)
        by_package[path.partition("/")[0]] += found
        times: Counter[str] = Counter()
        for mutant in found:
            change = f"{seed} {path} {mutant.before} {mutant.after}"
            times[change] += 1
            places[mutant] = digest(f"{change} {times[change]}".encode())
    for found in by_package.values():
        found.sort(key=places.__getitem__)
    share = Counter({name: min(least, len(found)) for name, found in by_package.items()})
    rest = [mutant for name, found in by_package.items() for mutant in found[share[name] :]]
    rest.sort(key=places.__getitem__)
    share.update(m.path.partition("/")[0] for m in rest[: max(0, count - sum(share.values()))])
    order = [
        ((i + 0.5) / share[name], name, mutant)
        for name, found in by_package.items()
        for i, mutant in enumerate(found[: share[name]])
    ]
    order.sort(key=lambda place: place[:2])
    return [mutant for _, _, mutant in order]


def accepted(root: Path) -> dict[tuple[str, str, str], str]:
    """Changes that no test can see, or none need see: (path, before, after) and the reason."""
    text = (root / "tests" / "mutants" / "accepted.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if line]
    return {(line["path"], line["before"], line["after"]): line["reason"] for line in lines}


def recorded(name: str, slot: Slot, work: Path, package_hash: str) -> list[Traced]:
    """What the everyday tests of a file go through; run now unless it is known of this file and this package."""
    tests = slot.root / "tests"
    file = tests / f"test_{name}.py"
    shared = [path.read_bytes() for path in sorted(tests.glob("*.py")) if not path.name.startswith("test_")]
    key = digest(package_hash.encode(), file.read_bytes(), *shared)
    kept = work / "lines" / f"{name}-{key}.jsonl"
    if not kept.exists():
        print(f"lines of {file.name}", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        out, children = kept.with_suffix(".part"), kept.with_suffix(".children")
        out.unlink(missing_ok=True)
        plugin = Lines(slot.package, out, children)
        status = Fork(
            lambda: run_pytest(slot, [f"tests/{file.name}"], plugin, trace_children=children),
            kept.with_suffix(".log"),
            3600,
        ).wait()
        if status not in (0, 1, 5):  # 5: it has no everyday tests
            sys.exit(f"{file.name} cannot be run, see {kept.with_suffix('.log')}")
        if status == 1:
            print(
                f"some tests of {file.name} fail by themselves and are left out, see {kept.with_suffix('.log')}"
            )
        out.touch()
        os.replace(out, kept)
    found = []
    for line in map(json.loads, kept.read_text(encoding="utf-8").splitlines()):
        lines = {path: frozenset(numbers) for path, numbers in line["lines"].items()}
        found.append(Traced(line["name"], line["seconds"], lines))
    return found


def run_at_import(
    slot: Slot, files: Iterable[str], work: Path, package_hash: str
) -> dict[str, frozenset[int]]:
    """The lines by file that run when all files are imported, of which no test can be said to go through them."""
    kept = work / "lines" / f"imports-of-all-{package_hash}.json"

    def importing() -> int:
        sys.path[:0] = [str(slot.package.parent)]
        sys.dont_write_bytecode = True
        seen = Lines(slot.package, kept, kept)
        sys.settrace(seen.enter)
        for path in files:
            importlib.import_module(
                "pixelwise." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            )
        sys.settrace(None)
        text = json.dumps({path: sorted(lines) for path, lines in seen.found.items()})
        kept.write_text(text, encoding="utf-8")
        return 0

    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        if Fork(importing, kept.with_suffix(".log"), 600).wait():
            sys.exit(f"the package cannot be imported, see {kept.with_suffix('.log')}")
    return {path: frozenset(lines) for path, lines in json.loads(kept.read_text(encoding="utf-8")).items()}


def matching(
    mutant: Mutant, tests: Iterable[Traced], budget_s: float, imported: Mapping[str, frozenset[int]]
) -> list[Traced]:
    """The tests through the lines where a change shows, or where its line runs at import all tests, the quickest first,
    as long as there is time. A part of a longer literal may have no line of its own: then those of the lines around."""
    (first, last), tests = mutant.scope, sorted(tests, key=lambda test: (test.seconds, test.name))
    everywhere = mutant.line in imported.get(mutant.path, ())
    found = tests if everywhere else through(tests, mutant.path, first, last)
    found = found or through(tests, mutant.path, first - AROUND, last + AROUND)
    spent = itertools.accumulate(test.seconds for test in found)
    return [t for t, seconds in zip(found, spent, strict=True) if seconds <= budget_s or t is found[0]]


def through(tests: Iterable[Traced], path: str, first: int, last: int) -> list[Traced]:
    """Those that run through one of these lines."""
    return [test for test in tests if any(first <= n <= last for n in test.lines.get(path, ()))]


def files_of(tests: Iterable[Traced]) -> list[str]:
    return sorted({test.name.partition("::")[0] for test in tests})


@dataclass
class Task:
    """A change to try. number: its place in the draw. key: of the change; tried: of the change and its tests."""

    number: int
    mutant: Mutant
    tests: list[Traced]
    key: str
    tried: str

    def start(self, slot: Slot) -> Fork:
        slot.change(self.mutant)
        files, plugin = files_of(self.tests), Chosen([test.name for test in self.tests])
        limit = 60 + 6 * sum(test.seconds for test in self.tests)
        return Fork(lambda: run_pytest(slot, files, plugin), slot.package.parent.with_suffix(".log"), limit)


def verdicts_of(tasks: list[Task], slots: list[Slot], ends: float) -> Iterator[tuple[Task, str, str, float]]:
    """Of each task in turn, as long as there is time, its verdict, by which test, and after how many seconds.

    Verdicts: "killed", "killed by time", "survived", and "unseen" where no test goes through the line.
    """
    waiting, free, at_work = list(reversed(tasks)), list(slots), {}
    try:
        while waiting or at_work:
            while waiting and free and time.monotonic() < ends:
                task = waiting.pop()
                if task.tests:
                    slot = free.pop()
                    at_work[slot] = task, task.start(slot)
                else:
                    yield task, "unseen", "", 0.0
            if not at_work:
                return
            for slot, (task, fork) in list(at_work.items()):
                if (status := fork.poll()) is not None:
                    del at_work[slot]
                    slot.restore()
                    free.append(slot)
                    verdict = {0: "survived", 5: "unseen", OVERTIME: "killed by time"}.get(status, "killed")
                    lines = fork.log.read_text(encoding="utf-8", errors="replace").splitlines()
                    by = next(
                        (line for line in lines if line.startswith(("FAILED ", "ERROR "))), f"exit {status}"
                    )
                    yield task, verdict, by[:200] if status else "", time.monotonic() - fork.began
            time.sleep(0.02)
    finally:
        for _, fork in at_work.values():
            fork.end()


def shown(mutant: Mutant) -> str:
    return f"src/pixelwise/{mutant.path}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draw", type=int, default=400, help="number of changes (default: 400)")
    parser.add_argument("--seed", type=int, default=15, help="of the draw (default: 15)")
    parser.add_argument("--least", type=int, default=40, help="of each package at least (default: 40)")
    parser.add_argument(
        "--budget-s", type=float, default=60, help="seconds of tests per change (default: 60)"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after that time, to go on later"
    )
    parser.add_argument(
        "--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="changes at a time"
    )
    parser.add_argument(
        "--only", default="", help="changes of files whose path begins so, such as src/pixelwise/losses"
    )
    parser.add_argument("--again", action="store_true", help="try survivors again, whatever is known of them")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="of the repository; results are in its .mutants"
    )
    parser.add_argument("--preload", default=PRELOADED, help="modules to import once for all changes")
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended; the same command goes on"))
    root = options.root.resolve()
    work = root / ".mutants"
    work.mkdir(exist_ok=True)
    held = open(work / "lock", "w")  # noqa: SIM115  (for as long as this runs)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"another run is at work in {work}")

    files, reasons = sources(root), accepted(root)
    chosen = [
        m for m in drawn(files, options.draw, options.seed, options.least) if m.path.startswith(options.only)
    ]
    if not chosen:
        sys.exit(f"no change is drawn of files whose path in {root} begins with {options.only!r}")
    whole = sorted(
        path for path in (root / "src" / "pixelwise").rglob("*") if path.suffix in (".py", ".onnx")
    )
    package_hash = digest(*(path.read_bytes() for path in whole))
    os.environ |= {
        "NUMBA_CACHE_DIR": str(work / "numba"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(work / "hypothesis"),
    }
    for name in options.preload.split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # pytest collects garbage at its end, and need not look through all of that
    slots = [Slot(root, work / f"copy{i}") for i in range(options.jobs)]
    names = {name for m in chosen for name in MATCHING[m.path.partition("/")[0]]}
    tests_of = {name: recorded(name, slots[0], work, package_hash) for name in sorted(names)}

    package = root / "src" / "pixelwise"
    modules = [p.relative_to(package).as_posix() for p in whole if p.suffix == ".py" and p.stem != "__main__"]
    imported = run_at_import(slots[0], modules, work, package_hash)

    def read(file: str) -> bytes:
        return (root / file).read_bytes()

    results = work / "results.jsonl"
    known = {}
    if results.exists():
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        known = {line["key"]: line["verdict"] for line in lines}
    verdicts: dict[Mutant, str] = {}
    tasks = []
    for number, mutant in enumerate(chosen, 1):
        if (mutant.path, mutant.before, mutant.after) in reasons:
            verdicts[mutant] = "accepted"
            continue
        names = MATCHING[mutant.path.partition("/")[0]]
        tests = matching(mutant, (t for name in names for t in tests_of[name]), options.budget_s, imported)
        change = f"{mutant.path} {mutant.start} {mutant.end} {mutant.text}"
        key = digest(files[mutant.path].encode(), change.encode())
        with_tests = digest(
            *(test.name.encode() for test in tests), *(read(file) for file in files_of(tests))
        )
        task = Task(number, mutant, tests, key, f"{key} {with_tests}")
        verdict = known.get(task.key, None if options.again else known.get(task.tried))
        if verdict is None:
            tasks.append(task)
        else:
            verdicts[mutant] = verdict
    for task, verdict, by, seconds in verdicts_of(tasks, slots, ends):
        mutant, killed = task.mutant, verdict.startswith("killed")
        verdicts[mutant] = verdict
        line = {"key": task.key if killed else task.tried, "verdict": verdict, "by": by, "path": mutant.path,
                "line": mutant.line, "kind": mutant.kind, "before": mutant.before, "after": mutant.after,
                "tests": len(task.tests), "seconds": round(seconds, 1)}  # fmt: skip
        with open(results, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{task.number}/{len(chosen)} {verdict} {mutant.path}:{mutant.line} {mutant.kind}, "
              f"{len(task.tests)} tests, {seconds:.1f} s", flush=True)  # fmt: skip

    print("\nsurvivors:")
    for mutant, verdict in verdicts.items():
        if verdict in ("survived", "unseen"):
            print(f"{shown(mutant)}\n  ({verdict})")
    print(f"\n{'package':<12} {'tried':>5} {'killed':>6} {'accepted':>8} {'survived':>8} {'unseen':>6}")
    for package in (*MATCHING, ""):
        counts = Counter(v.partition(" ")[0] for m, v in verdicts.items() if m.path.startswith(package))
        cells = (counts["killed"], counts["accepted"], counts["survived"], counts["unseen"])
        print(
            f"{package or 'all':<12} {sum(cells):>5} {cells[0]:>6} {cells[1]:>8} {cells[2]:>8} {cells[3]:>6}"
        )
    if len(verdicts) < len(chosen):
        print(f"{len(chosen) - len(verdicts)} of {len(chosen)} are not tried yet; the same command goes on")


if __name__ == "__main__":
    main()
