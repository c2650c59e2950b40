"""`pixelwise serve`: loaded models behind an address, with a page."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import webbrowser
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from pixelwise.errors import InputError, MissingExtraError, PixelwiseError
from pixelwise.segmenter import Segmenter
from pixelwise.service import Limits, create_app
from pixelwise.service.logs import end_log, log_to_stderr
from pixelwise.service.notes import keep_notes
from pixelwise.terminal import libraries_silenced, note, say

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.supervisors import Multiprocess
except ModuleNotFoundError as error:
    raise MissingExtraError("pixelwise serve", "serve") from error

TOKEN = "PIXELWISE_TOKEN"
"""The variable of the environment that may hold the token."""

LOCAL = ("localhost", "127.0.0.1", "::1")

HEAD_S = 10
"""Seconds that a connection may keep a server waiting for a request."""

READING_S = 60.0
"""Seconds in which the rest of an answer is to be read, where nothing else is said."""

LAST_READING_S = 5.0
"""The same once the server ends."""

BACKLOG = 512

HEALTH_S = 60
"""Seconds in which one of several processes must show that it lives, of which the start takes some."""

READ_BYTES = 16_384
"""That are taken from a connection at a time: of bodies in chunks of a byte they take some 30 ms, in which no other
connection is heard."""


@dataclass(frozen=True)
class Serving:
    """What each process serves; called, it makes the application there."""

    models: tuple[tuple[str, str], ...]
    engine: str
    precision: Any
    threads: int | None
    device: str | None
    limits: Limits
    token: str | None
    hosts: tuple[str, ...] | None

    def __call__(self) -> Any:
        _for_good.enter_context(libraries_silenced())
        log_to_stderr()
        keep_notes()
        if (parent := multiprocessing.parent_process()) is None:
            segmenters = self.open()
        else:
            threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
            try:
                segmenters = self.open()
            except PixelwiseError as error:  # a file that was there when the first ones started
                logging.getLogger("uvicorn.error").error("a process of the service cannot start: %s", error)
                sys.exit(error.exit_code)
        return create_app(segmenters, self.limits, token=self.token, hosts=self.hosts)

    def open(self) -> dict[str, Segmenter]:
        """The models by their names, each having answered once, so that the first picture need not wait."""
        found = {}
        for name, model in self.models:
            segmenter = Segmenter(
                model, engine=self.engine, precision=self.precision, threads=self.threads, device=self.device
            )
            segmenter.card.refuse_volumes("the service")
            if self.engine != "fastest":  # of which the first picture is the size to race at
                _warm_up(segmenter)
            found[name] = segmenter
        if self.engine != "fastest":
            threading.Thread(
                target=_warm_up_the_rest, args=(next(iter(found.values())),), daemon=True
            ).start()
        return found


def _end_with(parent: Any) -> None:
    """End when the process that watches over this one is gone, also where it was killed."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


_for_good = ExitStack()
"""Of a process that serves: what holds until it ends."""


def _warm_up(segmenter: Segmenter) -> None:
    """What the page asks for, before anybody does."""
    from pixelwise import kernels as kernels  # compiled loops, from now on

    with suppress(PixelwiseError):  # a size that it does not take
        found = segmenter.segment(_noise(segmenter), confidence=not segmenter.card.baked)
        for format in ("labels", "ids", "json", "overlay"):
            found.to_bytes(format)


def _warm_up_the_rest(segmenter: Segmenter) -> None:
    """What is asked for more seldom, while requests are answered already: loops that nobody has run on this machine are
    compiled for seconds each. They are kept for the next start."""
    from pixelwise.inference.options import SegmentOptions

    noise, classes = _noise(segmenter), segmenter.classes.names[-1]
    given: dict[str, Any]
    for given in (
        {"min_area": 9, "fill_holes": (classes,), "largest_only": (classes,)},
        {"tile": 64},
        {"crf": "vgg"},
    ):
        with suppress(PixelwiseError, RuntimeError):  # the latter where the process ends meanwhile
            found = segmenter.segment(noise, SegmentOptions(**given))
            for format in ("geojson", "coco", "coco-polygons"):
                found.to_bytes(format)


def _noise(segmenter: Segmenter) -> Any:
    channels = len(segmenter.card.preprocess.mean)
    return np.random.default_rng(0).integers(0, 256, (96, 96, channels), np.uint8)


def run(
    models: list[str], host: str, port: int, limits: Limits, *, engine: str, precision: Any, threads: int | None,
    device: str | None, token_file: Path | None, processes: int, browser: bool,
) -> None:  # fmt: skip
    """Serve until told to end. What can be wrong is refused before anything listens for long."""
    named = name_models(models)
    token = _token(token_file)
    local = _is_local(host)
    hosts = tuple(dict.fromkeys((*LOCAL, host.lower()))) if local else None
    serving = Serving(named, engine, precision, threads, device, limits, token, hosts)
    with _listening(host, port) as listener:
        # Of several processes each opens them again; what cannot be opened is said here, once
        app = serving if processes > 1 and serving.open() else serving()
        port = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        names = ", ".join(name for name, _ in named)
        everywhere = host in ("0.0.0.0", "::")
        where = f"http://{'127.0.0.1' if everywhere else shown}:{port}"
        at = "on all addresses of this machine, here at" if everywhere else "at"
        say(f"pixelwise serves {names} {at} {where}", file=sys.stderr)
        if not local and token is None:
            note(
                f"whoever reaches {host} may send pictures; --token-file FILE asks them for a token, and --host "
                "127.0.0.1 keeps to this machine"
            )
        config = uvicorn.Config(
            app, factory=processes > 1, workers=processes, http=patient(limits), ws="none", log_config=None,
            access_log=False, server_header=False, timeout_keep_alive=HEAD_S, backlog=BACKLOG,
            timeout_graceful_shutdown=math.ceil(limits.timeout_s) + 1, timeout_worker_healthcheck=HEALTH_S,
        )  # fmt: skip
        if browser:
            threading.Thread(target=webbrowser.open, args=(where,), daemon=True).start()
        if processes > 1:
            log_to_stderr(logging.INFO)  # of processes that die and are started again
            Supervisor(config, [listener]).run()
        else:
            Server(config).run([listener])
    if processes == 1:
        end_log()
        sys.stderr.flush()
        sys.stdout.flush()
        _end(0)


def name_models(given: list[str]) -> tuple[tuple[str, str], ...]:
    """What requests call each model, and what it is: NAME=MODEL, else the file's or folder's name without its ending,
    or the catalog's. InputError where two have one name."""
    found: dict[str, str] = {}
    for text in given:
        name, is_named, model = text.partition("=")
        if not is_named or not name or Path(text).exists():
            model = text
            path = Path(text).resolve()
            name = path.name if path.is_dir() else path.stem if path.exists() else text
        if name in found:
            raise InputError(
                f"{found[name]} and {model} would both be called {name!r}; give one of them another name, such as "
                f"--model {name}2={model}"
            )
        found[name] = model
    return tuple(found.items())


def _token(file: Path | None) -> str | None:
    """The token of the file, else of the environment; it is never typed, as others on the machine could read it."""
    if file is None:
        token = os.environ.get(TOKEN)
        where = TOKEN
    else:
        where = str(file)
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot read the token in {file} ({error}); write one line of text there"
            ) from error
    if token is not None and not token.strip():
        raise InputError(f"the token in {where} is empty; write one word of ASCII letters and digits there")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise InputError(f"a token is one word of ASCII letters and digits, and the one in {where} is not")
    return token


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any that is free."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise InputError(
                f"no such host: {host}; 127.0.0.1 is this machine, 0.0.0.0 all its addresses"
            ) from error
        raise InputError(
            f"cannot listen at port {port} of {host} ({_reason(error)}); another program may have it: choose "
            f"another, such as --port {port + 1 if 1023 < port < 65535 else 8001}, or 0 for one that is free"
        ) from error


def _reason(error: OSError) -> str:
    """In the system's words, to which Python adds the address."""
    return str(error) if error.errno is None else os.strerror(error.errno)


class Patient(H11Protocol):
    """uvicorn's own protocol, whose patience with a connection ends.

    Without a request: the clock starts with the connection and with the end of each answer, and what is no whole head
    of a request does not stop it. With an answer that is not read: it starts when something of it has to wait here, and
    stops when all of that has been taken. Closing alone would wait for the reader."""

    reading_s = READING_S

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        with suppress(AttributeError):  # of another event loop than Python's
            transport.max_size = READ_BYTES
        self._unread: asyncio.TimerHandle | None = None
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        self.conn.receive_data(data)
        self.handle_events()

    def timeout_keep_alive_handler(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader(self.reading_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._await_reader(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._await_reader(None)
        super().connection_lost(error)

    def shutdown(self) -> None:
        super().shutdown()
        if self._unread is not None and self.cycle.response_complete:
            self._await_reader(min(self.reading_s, LAST_READING_S))

    def _await_reader(self, seconds: float | None) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._unread = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def patient(limits: Limits) -> Any:
    """The protocol that gives who reads an answer as long as the service has for it."""
    return partial(_patient, reading_s=limits.timeout_s)


def _patient(*, reading_s: float, **given: Any) -> Patient:
    protocol = Patient(**given)
    protocol.reading_s = reading_s
    return protocol


class Server(uvicorn.Server):
    """A first signal has what was accepted finished, a second one ends at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            _end(128 + sig)
        self.should_exit = True


class Supervisor(Multiprocess):
    """The same for several processes; one that dies is started again."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._told = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            process.child_conn.close()  # so that one that dies is not waited for as one that is slow
        super().keep_subprocess_alive()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._told:
            for process in self.processes:
                process.kill()
            _end(128 + number)
        self._told = True
        self.signal_queue.append(number)


def _end(code: int) -> None:
    """End now, also where a thread is at work for somebody who has gone."""
    os._exit(code)
