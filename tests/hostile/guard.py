"""Runs cases in a child process that may die of them, and starts another one when it did."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from hostile.cases import Case

SECONDS = 60.0
"""After which a case that neither ends nor computes is a hang."""

TESTS = Path(__file__).parents[1]


class Guard:
    """Use it with `with`; `run` gives what was wrong with a case. scratch: a folder for all that cases write."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guard:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._asked = 0
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._server.close()

    def run(self, kind: str, case: Case) -> list[str]:
        """What was wrong: nothing, if all was right."""
        root = Path(tempfile.mkdtemp(prefix="case-", dir=self._scratch))
        before = self._asked
        wrong = self.ask({"kind": kind, "name": case.name, "root": str(root), "address": self.address})
        if self._asked != before:
            wrong.append(f"asked the network {self._asked - before} times")
        shutil.rmtree(root, ignore_errors=True)
        return wrong

    def replay(self, reader: str, files: list[Path], count: int = 0) -> list[str]:
        """What was wrong with these inputs of a reader of `readers.py`, and with so many made of its seeds."""
        return self.ask({"reader": reader, "files": [str(path) for path in files], "count": count})

    def ask(self, question: dict[str, object], seconds: float = SECONDS) -> list[str]:
        """The child's answer, or how it ended."""
        if self._child is None:
            self._start()
        assert self._child is not None
        os.write(self._write, (json.dumps(question) + "\n").encode())
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._read], [], [], seconds)
            if not ready:
                self._end()
                return [f"did not end in {seconds:.0f} s"]
            part = os.read(self._read, 1 << 16)
            if not part:
                code = self._child.wait()
                self._end()
                return [f"killed the process ({signal.Signals(-code).name if code < 0 else code})"]
            text += part
        answer: list[str] = json.loads(text)
        return answer

    def _start(self) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MALLOC_ARENA_MAX": "2",
            "OMP_NUM_THREADS": "1",
            "PIXELWISE_CACHE": str(self._scratch / "cache"),
            "HOSTILE_NOISE": str(self._scratch / f"noise-{os.getpid()}"),
            "MPLCONFIGDIR": str(self._scratch / "cache"),
            "TERM": "dumb",
        }
        for name in (
            "PIXELWISE_OFFLINE",
            "PIXELWISE_MIRROR",
            "PIXELWISE_WEIGHTS",
            "http_proxy",
            "https_proxy",
        ):
            environment.pop(name, None)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "hostile.child", str(theirs_in), str(theirs_out)],
            pass_fds=(theirs_in, theirs_out),
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            os.close(self._write)
            os.close(self._read)
            self._child = None

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._asked += 1
            connection.close()
