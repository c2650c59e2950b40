"""The service behind a socket, and those who do not keep to the rules."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import socket
import struct
import threading
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from pixelwise import Segmenter
from pixelwise.cli.serve import Patient, patient
from pixelwise.service import create_app
from serving import PATIENCE_S, ask, encoded, gated, limits, png, running, until
from tiny import quadrants

HEAD = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def answer(connection: socket.socket) -> tuple[int, dict]:
    """Status and JSON of what comes back."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    with response:
        return response.status, json.loads(response.read())


def posted(port: int, content: bytes, path: str = "/segment") -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}{path}", content=content, timeout=PATIENCE_S, verify=False)


def accepted(port: int) -> int:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S, verify=False).text
    return int(float(text.partition("\npixelwise_accepted ")[2].partition("\n")[0]))


@pytest.fixture(scope="module")
def right(colors_model) -> bytes:
    """The label map of the quadrants."""
    return Segmenter(colors_model)(quadrants()).to_bytes("labels")


def test_the_same_over_a_socket_and_a_connection_serves_many(colors_model, right):
    with running(create_app(Segmenter(colors_model), limits())) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        with closing(connection):
            for _ in range(3):
                for method, path, body, status in (
                ("POST", "/segment", png(), 200), ("POST", "/segment?x=1", png(), 422), ("GET", "/nowhere", None, 404),
                ("POST", "/segment", b"x" * 200_000, 415), ("GET", "/health", None, 200),
            ):  # fmt: skip
                    connection.request(method, path, body)
                    response = connection.getresponse()
                    content = response.read()
                    assert response.status == status
                    assert status != 200 or path != "/segment" or content == right
                    assert "server" not in response.headers


def test_an_upload_that_does_not_come_is_ended_and_its_place_is_free(colors_model, right):
    few = limits(workers=1, queue=1, body_timeout_s=0.3)
    with running(create_app(Segmenter(colors_model), few)) as port:
        slow = [connected(port) for _ in range(2)]
        for connection in slow:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n12")
        for connection in slow:
            status, body = answer(connection)
            assert (status, body["error"]["code"]) == (408, "too_slow")
            connection.close()
        chunked = connected(port)
        chunked.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        assert answer(chunked)[0] == 408
        chunked.close()
        assert posted(port, png()).content == right
        until(lambda: accepted(port) == 0)


def test_a_connection_that_asks_nothing_is_closed(colors_model):
    """Also one that goes on to send a header now and then, or more of a body that was refused."""
    app = create_app(Segmenter(colors_model), limits())
    with running(app, timeout_keep_alive=0.5) as port, ExitStack() as together:
        silent, slow, refused = (together.enter_context(connected(port)) for _ in range(3))
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        refused.sendall(HEAD.replace(b"image/png", b"text/html") + b"Content-Length: 60000000\r\n\r\n")
        assert answer(refused)[0] == 415
        gone: set[socket.socket] = set()

        def trickle() -> bool:
            for connection, more in ((slow, b"X-A: b\r\n"), (refused, b"x")):
                try:
                    connection.sendall(more)
                except OSError:
                    gone.add(connection)
            return gone == {slow, refused}

        until(trickle)
        assert silent.recv(1) == b""


def test_who_leaves_in_the_middle_takes_nobodys_place(colors_model, right):
    segmenter, gate = gated(colors_model)
    with running(create_app(segmenter, limits(workers=1, queue=3))) as port:
        halfway = [connected(port) for _ in range(2)]
        for connection in halfway:
            connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000)
        until(lambda: accepted(port) == 2)
        halfway[0].close()
        halfway[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        halfway[1].close()  # with a reset
        until(lambda: accepted(port) == 0)
        working, waiting = (connected(port) for _ in range(2))
        for i, connection in enumerate((working, waiting)):
            connection.sendall(HEAD + f"Content-Length: {len(png())}\r\n\r\n".encode() + png())
            until(lambda i=i: accepted(port) == i + 1)
        until(lambda: gate.came == 1)
        waiting.close()
        until(lambda: accepted(port) == 1)
        working.close()
        gate.gate.set()
        until(lambda: accepted(port) == 0)
        assert posted(port, png()).content == right
        assert gate.came == 2


@pytest.mark.slow
def test_who_does_not_read_the_answer_is_left(colors_model):
    """Nothing of a large answer piles up, and the place is free once the time for reading is over."""
    content = png(np.full((3000, 4000, 3), 200, np.uint8))
    few = limits(workers=1, queue=0, timeout_s=3)
    with running(create_app(Segmenter(colors_model), few)) as port:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        head = HEAD.replace(b"/segment", b"/segment?format=npy")
        deaf.sendall(head + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        until(lambda: accepted(port) == 1)
        until(lambda: accepted(port) == 0)
        deaf.close()


def test_who_does_not_read_holds_neither_a_connection_nor_the_end(colors_model, caplog):
    """Neither one that asks for small answers without end, nor one whose only answer waits here when it is closed, nor
    one who is still being answered."""
    content = png(np.full((300, 400, 3), 200, np.uint8))
    few = limits(workers=1, timeout_s=0.5)
    asked = [
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000,
        HEAD.replace(b"/segment", b"/segment?format=npy")
        + f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content,
    ]
    caplog.set_level(logging.INFO)
    with (
        running(create_app(Segmenter(colors_model), few), http=patient(few)) as port,
        ExitStack() as together,
    ):
        for lines in asked:
            deaf = together.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", port))
            deaf.settimeout(0.2)
            with suppress(OSError):
                deaf.sendall(lines)
        until(lambda: connections(port) == 0)
    assert "Traceback" not in caplog.text


def test_of_a_connection_little_is_read_at_a_time(colors_model, right, monkeypatch):
    """So that one who sends chunks of a byte does not keep the others waiting for long."""
    sizes: list[int] = []
    before = Patient.data_received
    monkeypatch.setattr(
        Patient, "data_received", lambda self, data: (sizes.append(len(data)), before(self, data))[1]
    )
    with running(create_app(Segmenter(colors_model), limits())) as port, closing(connected(port)) as other:
        chunks = b"1\r\na\r\n" * 20_000
        other.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert answer(other)[0] == 415
        assert posted(port, png()).content == right
    assert max(sizes) <= 16_384


def connections(port: int) -> int:
    """How many there are to that port of this machine which the server has not closed."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@pytest.mark.slow
def test_sixty_four_at_once_are_answered_rightly_or_refused(colors_model, right):
    app = create_app(Segmenter(colors_model), limits(workers=2, queue=6))

    async def all_at_once(port: int) -> list[httpx.Response]:
        many = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, limits=many
        ) as asking:
            return await asyncio.gather(*(asking.post("/segment", content=png()) for _ in range(64)))

    with running(app) as port:
        found = asyncio.run(all_at_once(port))
        statuses = Counter(one.status_code for one in found)
        assert statuses.keys() <= {200, 429}
        assert statuses[200] >= 8
        for one in found:
            if one.status_code == 200:
                assert one.content == right
            else:
                assert one.json()["error"]["code"] == "busy"
                assert int(one.headers["retry-after"]) >= 1
        until(lambda: accepted(port) == 0)
        assert posted(port, png()).content == right


def test_when_many_come_at_a_closed_gate_exactly_those_with_places_get_in(colors_model, right):
    segmenter, gate = gated(colors_model)
    with running(create_app(segmenter, limits(workers=2, queue=3))) as port:
        found: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: found.append(posted(port, png()))) for _ in range(20)]
        for thread in threads:
            thread.start()
        until(lambda: len(found) == 15)
        gate.gate.set()
        for thread in threads:
            thread.join()
        assert Counter(one.status_code for one in found) == {429: 15, 200: 5}
        assert all(one.content == right for one in found if one.status_code == 200)


def test_what_was_accepted_is_answered_when_the_server_ends(colors_model, right):
    segmenter, gate = gated(colors_model)
    found: list[httpx.Response] = []
    with running(create_app(segmenter, limits(workers=1, queue=4))) as port:
        threads = [threading.Thread(target=lambda: found.append(posted(port, png()))) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: accepted(port) == 3)
        threading.Timer(0.3, gate.gate.set).start()
    for thread in threads:
        thread.join()
    assert [one.content for one in found] == [right] * 3
    with pytest.raises(httpx.ConnectError):
        posted(port, png())


def bombs() -> dict[str, bytes]:
    """Small files that say of themselves that they are large."""
    found = {}
    head = bytearray(encoded(np.zeros((16, 16, 3), np.uint8), "BMP"))
    head[18:26] = struct.pack("<ii", 100_000, 100_000)
    found["bmp"] = bytes(head)
    jpeg = bytearray(encoded(np.zeros((16, 16, 3), np.uint8), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    found["jpeg"] = bytes(jpeg)
    gif = bytearray(encoded(np.zeros((16, 16), np.uint8), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    found["gif"] = bytes(gif)
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")  # whole, and zeros all over
    found["png"] = file.getvalue()
    found["npy"] = b"\x93NUMPY\x01\x00v\x00" + (
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 3)}".ljust(117) + b"\n"
    )
    return found


def test_bombs_do_not_go_off(colors_model, right):
    import resource

    with running(create_app(Segmenter(colors_model), limits(workers=2))) as port:
        all_of_them = bombs()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, content in all_of_them.items():
            found = posted(port, content)
            assert found.status_code in (413, 422), (name, found.text)
            assert found.json()["error"]["code"] in ("too_large", "bad_picture")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
        assert posted(port, png()).content == right


def test_ten_thousand_pixels_a_side_are_a_picture_like_any_other(colors_model, tmp_path):
    for shape in ((32, 10_000, 3), (10_000, 32, 3)):
        content = encoded(np.full(shape, 200, np.uint8), "PNG")
        with running(create_app(Segmenter(colors_model), limits(workers=1))) as port:
            found = posted(port, content, "/segment?format=npy")
        assert found.status_code == 200, found.text
        np.testing.assert_array_equal(
            np.load(io.BytesIO(found.content)), Segmenter(colors_model)(content).labels
        )


def hostile() -> list[bytes]:
    """Requests that are none, or want too much."""
    body = png()
    return [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,  # TLS
        b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 2_000_000 + b"\r\n\r\n",
        b"GET /%00%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /samples/../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /samples/..%2f..%2fapp.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /segment HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        HEAD + b"X-Request-ID: \xff\xfe\r\nContent-Length: 3\r\n\r\nabc",
        HEAD.replace(b"image/png", b"multipart/form-data; boundary=" + b"b" * 5000)
        + b"Content-Length: 3\r\n\r\nabc",
        HEAD.replace(b"/segment", b"/segment?format=%ff%00&tile=%F0%9F%98%80")
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body,
        HEAD.replace(b"/segment", b"/segment?" + b"a=b&" * 5000) + b"Content-Length: 0\r\n\r\n",
    ]


def test_what_is_no_request_gets_no_answer_that_matters(colors_model, right):
    with running(create_app(Segmenter(colors_model), limits(workers=1)), timeout_keep_alive=1) as port:
        for line in hostile():
            got = b""
            with connected(port) as connection, suppress(OSError):  # closed before all of it was sent
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    got += part
            assert got == b"" or 400 <= int(got.split()[1]) < 500, (line[:60], got[:200])
            assert b"root:" not in got
            assert b"Traceback" not in got
        assert posted(port, png()).content == right
        until(lambda: accepted(port) == 0)


@pytest.mark.slow
def test_hundreds_of_requests_a_tenth_of_them_hostile_leave_everything_as_it_was(colors_model, right):
    draw = np.random.default_rng(0)
    bad = [b"", b"hello", png()[:100], *bombs().values()]
    with running(
        create_app(Segmenter(colors_model), limits(workers=2, queue=64)), timeout_keep_alive=1
    ) as port:
        plan = [draw.integers(10) == 0 for _ in range(600)]
        wrong: list[object] = []

        def ask_all(mine: list[bool], seed: int) -> None:
            pick = np.random.default_rng(seed)
            for is_bad in mine:
                if is_bad and pick.integers(2):
                    with connected(port) as connection, suppress(OSError):
                        connection.sendall(hostile()[pick.integers(len(hostile()))])
                elif is_bad:
                    found = posted(port, bad[pick.integers(len(bad))])
                    if found.status_code not in (413, 415, 422):
                        wrong.append((found.status_code, found.text[:100]))
                else:
                    found = posted(port, png())
                    if found.content != right:
                        wrong.append((found.status_code, found.text[:100]))

        threads = [threading.Thread(target=ask_all, args=(plan[i::6], i)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        until(lambda: accepted(port) == 0)


def test_files_of_a_form_are_counted_as_they_come(colors_model, tmp_path: Path):
    """A form of a hundred thousand parts is refused at the seventeenth."""
    part = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n\r\n'
    with running(create_app(Segmenter(colors_model), limits(workers=1))) as port:
        found = httpx.post(
            f"http://127.0.0.1:{port}/segment", content=part * 100_000 + b"--x--\r\n", timeout=PATIENCE_S,
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )  # fmt: skip
        assert (found.status_code, found.json()["error"]["code"]) == (413, "too_many")


@pytest.mark.parametrize("more", ["Connection: close", "Connection: keep-alive", "Connection: close, TE"])
def test_who_sends_a_large_body_reads_why_it_is_refused(more, colors_model):
    """Closed with something unread, a connection is reset, and the answer is lost on its way."""
    with running(create_app(Segmenter(colors_model))) as port, closing(connected(port)) as connection:
        connection.sendall(HEAD.replace(b"/segment", b"/segment?formt=x") + f"{more}\r\n".encode())
        connection.sendall(b"Content-Length: 30000000\r\n\r\n")
        for _ in range(30):
            connection.sendall(bytes(1_000_000))
        status, found = answer(connection)
    assert (status, found["error"]["code"]) == (422, "invalid")


def test_below_the_path_of_another_application_the_same_is_open(colors_model):
    outer = FastAPI()
    outer.mount("/below", create_app(Segmenter(colors_model), token="secret"))
    found = {
        path: ask(outer, "GET", f"/below{path}").status_code for path in ("/", "/health", "/ready", "/models")
    }
    assert found == {"/": 200, "/health": 200, "/ready": 200, "/models": 401}
