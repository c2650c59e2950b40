"""Asking the service: in this process, over a socket in a thread, and as the command that people type."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from pixelwise import Segmenter
from pixelwise.cli.serve import Patient, Server
from pixelwise.service import Limits
from tiny import quadrants

PATIENCE_S = 60.0
"""Until what must happen is taken for something that never will."""


def limits(**given: Any) -> Limits:
    """As given; where nothing is said of time there is plenty, also on a machine that stands still for a while."""
    return Limits(**{"timeout_s": 3600, "body_timeout_s": 3600, **given})


def png(picture: np.ndarray | None = None) -> bytes:
    return encoded(quadrants() if picture is None else picture, "PNG")


def encoded(picture: np.ndarray, format: str, **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format, **how)
    return file.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def ask(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    """One request, in this process."""

    async def one() -> httpx.Response:
        async with client(app) as asking:
            return await asking.request(method, path, **more)

    return asyncio.run(one())


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=PATIENCE_S
    )


def error_of(response: httpx.Response, status: int, code: str) -> str:
    """The sentence of a refusal."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "request_id"}
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"]
    assert "\n" not in error["message"]
    return str(error["message"])


def until(done: Callable[[], Any]) -> Any:
    """What `done` gives once it is true."""
    end = time.monotonic() + PATIENCE_S
    while not (found := done()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
    return found


class Gated:
    """An engine that waits at a gate, and says how many came to it."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.gate, self.came = engine, threading.Event(), 0

    def __call__(self, images: Any) -> Any:
        self.came += 1
        assert self.gate.wait(PATIENCE_S)
        return self._engine(images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def gated(model: Path) -> tuple[Segmenter, Gated]:
    segmenter = Segmenter(model)
    segmenter.engine = gate = Gated(segmenter.engine)  # type: ignore[assignment]
    return segmenter, gate


@contextmanager
def running(app: Any, **config: Any) -> Iterator[int]:
    """The application behind a port of this machine, in a thread, until the block ends and all is answered."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    how = {
        "http": Patient,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        **config,
    }
    server = Server(uvicorn.Config(app, **how))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Command:
    """`pixelwise serve` in a process of its own, at a free port."""

    def __init__(self, folder: Path, *arguments: object, **environment: str) -> None:
        self._log = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
        line = [sys.executable, "-m", "pixelwise", "serve", "--port", "0", "--timeout-s", "3600"]
        line += ["--body-timeout-s", "3600", *map(str, arguments)]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd=folder,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
        self.url = until(self._address)

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.said()
        first = self.said().partition("\n")[0]
        if not first.startswith("pixelwise serves "):
            return None
        return first.rpartition(" ")[2] if self.said().partition("\n")[1] else None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def said(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """With all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def serving(folder: Path, *arguments: object, **environment: str) -> Iterator[Command]:
    command = Command(folder, *arguments, **environment)
    try:
        yield command
    finally:
        command.kill()
