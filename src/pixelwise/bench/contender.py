"""One contender of a benchmark: a process that opens a model in its own way, and answers on demand.

The two sides speak in lines of JSON, over the process' standard input and output; what else it prints goes to standard
error, and from there nowhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import InputError, PixelwiseError
from pixelwise.weights.beside import beside

PATIENCE_S = 900.0
"""How long a contender may take for opening a model and answering for all pictures, or for one turn."""


@dataclass(frozen=True)
class Contender:
    """A model and how it is to run. precision: None for what the model is."""

    model: str
    engine: str
    precision: str | None
    batch: int
    threads: int

    def __str__(self) -> str:
        return " ".join(
            filter(
                None,
                [self.model, self.engine, self.precision, f"batch {self.batch}" if self.batch > 1 else ""],
            )
        )


class Running:
    """A contender at work, as the benchmark sees it; a context that ends its process.

    seconds: of each turn. agreement: with the first of the model.
    """

    def __init__(self, contender: Contender, folder: Path) -> None:
        self.contender, self.seconds = contender, list[float]()
        self.engine = self.precision = ""
        self.file_mb, self.agreement, self.mean_iou = 0.0, 1.0, None
        self._answers = folder / f"answers-{id(self)}.npz"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Running:
        surroundings = {**os.environ, "OMP_NUM_THREADS": str(self.contender.threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pixelwise.bench.contender"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=surroundings,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for end in (self._process.stdin, self._process.stdout):
                if end is not None:
                    with suppress(OSError):
                        end.close()
            self._process = None

    def open(self, pictures: list[str], labelled: str | None) -> None:
        """Open the model and answer for every picture once; InputError says why not."""
        said = self._ask(
            do="open",
            **asdict(self.contender),
            pictures=pictures,
            labelled=labelled,
            answers=str(self._answers),
        )
        self.engine, self.precision = said["engine"], said["precision"]
        self.file_mb, self.mean_iou = said["file_mb"], said["mean_iou"]

    def time(self, number: int) -> None:
        """One turn."""
        self.seconds.append(float(self._ask(do="time", number=number)["seconds"]))

    def peak_mb(self) -> float:
        """Most memory that the process has held, in MB."""
        return float(self._ask(do="memory")["peak_mb"])

    def is_as(self, other: Running) -> bool:
        """Whether both run the same thing."""
        return (self.contender.model, self.engine, self.precision, self.contender.batch) == (
            other.contender.model, other.engine, other.precision, other.contender.batch,
        )  # fmt: skip

    def agrees_with(self, other: Running) -> float:
        """Share of all pixels in which both give the same class."""
        with np.load(self._answers) as mine, np.load(other._answers) as theirs:
            same = [(mine[name] == theirs[name]) for name in theirs.files]
        return float(sum(int(one.sum()) for one in same) / sum(one.size for one in same))

    def _ask(self, **words: Any) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        watch = threading.Timer(PATIENCE_S, end)
        watch.start()
        try:
            process.stdin.write(json.dumps(words).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            watch.cancel()
        if late.is_set():
            raise InputError(f"it gave no answer within {PATIENCE_S:.0f} seconds")
        if not line:
            code = process.wait()
            raise InputError(f"its process died ({f'signal {-code}' if code < 0 else f'exit code {code}'})")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise InputError(said["error"])
        return said


def main() -> None:
    """The process: a line of JSON in, one out, until there are no more."""
    answer = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no answer
    state: dict[str, Any] = {}
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            said = WHAT[asked.pop("do")](state, **asked)
        except PixelwiseError as error:
            said = {"error": str(error)}
        except Exception as error:  # what an engine raises says why this contender is left out
            said = {"error": f"{type(error).__name__}: {error}"}
        answer.write(json.dumps(said).encode() + b"\n")


def _open(
    state: dict[str, Any], model: str, engine: str, precision: Any, batch: int, threads: int,
    pictures: list[str], labelled: str | None, answers: str,
) -> dict[str, Any]:  # fmt: skip
    from pixelwise.segmenter import Segmenter

    segmenter = Segmenter(model, engine=engine, precision=precision, threads=threads)
    segmenter.card.refuse_volumes("the benchmark")
    given: dict[str, Any] = {}
    shown: list[Any] = []
    mean_iou = None
    if labelled is None:
        for number, picture in enumerate(pictures):
            found = segmenter(picture)
            shown.append(found.image)
            given[str(number)] = found.labels
    else:
        from pixelwise.datasets.opening import PairSamples, open_samples
        from pixelwise.evaluation import evaluate

        samples = open_samples(Path(labelled))
        some = PairSamples(
            [p for p in samples.pairs if p.name in set(pictures)], samples.classes, samples.split
        )

        def look(name: str, image: Any, labels: Any, _: Any) -> None:
            shown.append(image)
            given[str(len(given))] = np.asarray(labels)

        result = evaluate(segmenter, some, classes=samples.classes or segmenter.classes, look=look)
        mean_iou = result.to_dict()["mean_iou"]
    np.savez(answers, **given)
    state.update(segmenter=segmenter, shown=shown, batch=batch)
    _time(state, 0)  # the first call of a batch may compile
    opened: Any = segmenter.engine
    path = getattr(opened, "path", None)
    if path is not None:
        size = sum(file.stat().st_size for file in (path, *beside(path)))
    else:
        tensors = opened.network.state_dict().values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return {
        "engine": segmenter.engine.name, "precision": segmenter.engine.precision, "file_mb": size / 1e6,
        "mean_iou": mean_iou,
    }  # fmt: skip


def _time(state: dict[str, Any], number: int) -> dict[str, Any]:
    shown, batch = state["shown"], state["batch"]
    pictures = [shown[(number * batch) % len(shown)]] * batch  # of one size, so that they go through together
    begun = time.perf_counter()
    for _ in state["segmenter"].map(pictures, batch=batch):
        pass
    return {"seconds": time.perf_counter() - begun}


def _memory(_: dict[str, Any]) -> dict[str, Any]:
    try:
        import resource
    except ImportError:  # Windows has none
        return {"peak_mb": float("nan")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_mb": peak / (1e6 if sys.platform == "darwin" else 1e3)}


WHAT: dict[str, Callable[..., dict[str, Any]]] = {"open": _open, "time": _time, "memory": _memory}
"""What the other side may ask for."""


if __name__ == "__main__":
    main()
