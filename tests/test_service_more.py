"""The edges of the service: what is just allowed, what comes at the wrong moment, and what a browser may do."""

from __future__ import annotations

import asyncio
import hmac
import io
import os
import time
import warnings
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import httpx
import numpy as np
import onnxruntime
import pytest

from pixelwise import Segmenter
from pixelwise.cli import serve
from pixelwise.engines import onnxruntime as engine
from pixelwise.errors import InputError, PixelwiseWarning, UnknownNameError
from pixelwise.exporting import export_model
from pixelwise.inference.plan import BYTES_A_PIXEL
from pixelwise.service import Limits, create_app
from pixelwise.service.guard import Guard
from pixelwise.service.metrics import Metrics
from pixelwise.service.notes import collected, keep_notes
from serving import PATIENCE_S, ask, client, error_of, gated, limits, png, running
from test_service_faults import HEAD, answer, connected
from tiny import CARD, quadrants, write_colors_model


@pytest.fixture(scope="module")
def app(colors_model):
    return create_app(Segmenter(colors_model), limits(workers=1))


def in_parts(content: bytes, read: list[int]):
    async def parts():
        for start in range(0, len(content), 500):
            read.append(start)
            yield content[start : start + 500]

    return parts()


def npy(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, picture)
    return file.getvalue()


# Limits -------------------------------------------------------------------------------------------------------------


def test_a_limit_is_what_may_just_be(colors_model):
    app = create_app(Segmenter(colors_model), limits(workers=1, max_bytes=5000))
    content = png().ljust(5000, b"\0")
    assert ask(app, "POST", "/segment", content=content).status_code == 200
    assert ask(app, "POST", "/segment", content=in_parts(content, [])).status_code == 200
    app = create_app(Segmenter(colors_model), limits(workers=1, max_pixels=40 * 60))
    assert ask(app, "POST", "/segment", content=npy(quadrants())).status_code == 200
    found = ask(app, "POST", "/segment", content=npy(np.zeros((49, 49, 3), np.uint8)))
    assert "2,401 pixels" in error_of(found, 413, "too_large")


def test_tiles_overlap_by_half_at_most(app):
    for query in ("tile=64&overlap=32", "tile=64&overlap=0.5", "tile=64&overlap=1"):
        assert ask(app, "POST", f"/segment?{query}", content=png()).status_code == 200, query
    for query in ("tile=64&overlap=33", "tile=64&overlap=0.51"):
        found = ask(app, "POST", f"/segment?{query}", content=png())
        assert "at most half of a tile" in error_of(found, 422, "invalid")


def test_each_worker_has_its_part_of_the_memory(colors_model, monkeypatch):
    segmenter = Segmenter(colors_model)
    height, width = segmenter.card.preprocess.size_hw(40, 60)
    need = height * width * BYTES_A_PIXEL

    def is_tiled(**given) -> bool:
        found = ask(create_app(segmenter, limits(**given)), "POST", "/segment", content=png())
        return "x-pixelwise-note" in found.headers

    assert [is_tiled(workers=2, max_memory=2 * need + more) for more in (0, -1)] == [False, True]
    for free, expected in ((2 * need, False), (2 * need - 1, True)):  # of which half is taken
        monkeypatch.setattr("pixelwise.service.app.free_memory", lambda free=free: free)
        assert is_tiled(workers=1) is expected


def test_a_network_that_is_shown_one_size_takes_any_picture(tmp_path):
    card = CARD.replace(preprocess=replace(CARD.preprocess, size=64))
    segmenter = Segmenter(write_colors_model(tmp_path / "fixed.onnx", card))
    height, width = segmenter.card.preprocess.size_hw(700, 900)
    app = create_app(segmenter, limits(workers=1, max_memory=height * width * BYTES_A_PIXEL))
    found = ask(app, "POST", "/segment", content=png(np.zeros((700, 900, 3), np.uint8)))
    assert (found.status_code, found.headers.get("x-pixelwise-note")) == (200, None)


def test_a_baked_model_is_served_and_never_tiled(colors_model, tmp_path):
    export_model(colors_model, tmp_path / "baked.onnx", bake=True)
    segmenter = Segmenter(tmp_path / "baked.onnx")
    app = create_app(segmenter, limits(workers=1, max_memory=100 * 100 * BYTES_A_PIXEL))
    found = ask(app, "POST", "/segment", content=png())
    assert found.content == segmenter(png()).to_bytes("labels")
    large = ask(app, "POST", "/segment", content=png(np.zeros((200, 200, 3), np.uint8)))
    assert "send a smaller picture" in error_of(large, 413, "too_large")


def test_the_crf_takes_small_pictures(app, monkeypatch):
    monkeypatch.setattr("pixelwise.service.app.MAX_CRF_PIXELS", 2399)
    sentence = error_of(ask(app, "POST", "/segment?crf=vgg", content=png()), 413, "too_large")
    assert "at most 2,399 pixels here, got 40 x 60" in sentence


def test_what_a_large_picture_took_is_given_back(app, monkeypatch):
    given: list[int] = []
    monkeypatch.setattr("pixelwise.service.app._give_back", lambda: given.append(1))
    for large, times in ((2401, 0), (2400, 1)):
        monkeypatch.setattr("pixelwise.service.app.LARGE", large)
        assert ask(app, "POST", "/segment", content=png()).status_code == 200
        assert len(given) == times


def test_four_workers_at_most_and_one_a_core(monkeypatch):
    for cores, expected in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert Limits().at_once == expected
        assert Limits(workers=9).at_once == 9


# What is sent -------------------------------------------------------------------------------------------------------


def test_the_type_of_each_part_of_a_form_counts(app):
    found = ask(app, "POST", "/segment", files={"picture": ("a.png", png(), "text/html")})
    assert "got 'text/html'" in error_of(found, 415, "not_a_picture")


def test_a_type_that_is_no_pictures_is_refused_before_the_body_is_read(app):
    read: list[int] = []
    head = {"Content-Type": "text/html"}
    found = ask(app, "POST", "/segment", content=in_parts(b"x" * 50_000, read), headers=head)
    assert error_of(found, 415, "not_a_picture")
    assert len(read) <= 1


def test_large_and_small_letters_of_a_type_are_one_and_no_encoding_is_one(app):
    for head in ({"Content-Type": "Image/PNG"}, {"Content-Encoding": "Identity"}):
        assert ask(app, "POST", "/segment", content=png(), headers=head).status_code == 200


def test_parameters_of_every_address_are_known(app):
    assert "did you mean 'model'?" in error_of(ask(app, "GET", "/labels?modle=x"), 422, "invalid")


def test_a_refusal_repeats_no_more_than_a_line(app):
    assert (
        len(error_of(ask(app, "POST", f"/segment?tile={'9x' * 2000}", content=png()), 422, "invalid")) < 250
    )


# What is answered ---------------------------------------------------------------------------------------------------


def test_of_types_that_are_equally_welcome_the_first_is_given(app):
    for accept in ("image/jpeg, application/json", "application/json, image/jpeg"):
        found = ask(app, "POST", "/segment", content=png(), headers={"Accept": accept})
        assert found.headers["content-type"] == accept.partition(",")[0]


def test_a_format_that_is_named_twice_is_one(app):
    once, twice = (
        ask(app, "POST", f"/segment?format={one}", content=png()).content for one in ("ids", "ids,ids")
    )
    assert once == twice


def test_the_files_in_an_archive_are_stored(app):
    content = ask(app, "POST", "/segment?format=ids,csv", content=png()).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert [one.compress_type for one in archive.infolist()] == [zipfile.ZIP_STORED] * 2


def test_bytes_of_a_format_that_there_is_not_are_refused(colors_model):
    with pytest.raises(UnknownNameError, match="did you mean 'labels'"):
        Segmenter(colors_model)(quadrants()).to_bytes("label")


def test_warnings_that_are_not_for_the_sender_go_where_they_went(monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr("warnings.showwarning", lambda message, *_: seen.append(str(message)))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        keep_notes()
        with collected() as said:
            warnings.warn("of a library", UserWarning, stacklevel=1)
            warnings.warn("of the picture", PixelwiseWarning, stacklevel=1)
        warnings.warn("of nobody", PixelwiseWarning, stacklevel=1)
    assert (said, seen) == (["of the picture"], ["of a library", "of nobody"])


# Places, time and the end -------------------------------------------------------------------------------------------


def at_the_gate(colors_model, come: int, **given) -> tuple[int, list[httpx.Response]]:
    """How many of three requests are being segmented once so many have come, and what became of all."""
    segmenter, gate = gated(colors_model)
    app = create_app(segmenter, limits(**given))

    async def talk():
        async with client(app) as asking:
            tasks = [asyncio.create_task(asking.post("/segment", content=png())) for _ in range(3)]
            end = time.monotonic() + PATIENCE_S
            while gate.came < come and time.monotonic() < end:
                await asyncio.sleep(0.005)
            while "pixelwise_accepted 3.0" not in (await asking.get("/metrics")).text:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)  # in which another would come
            came = gate.came
            gate.gate.set()
            return came, await asyncio.gather(*tasks)

    return asyncio.run(talk())


def test_as_many_are_segmented_at_once_as_there_are_workers_and_pixels_for(colors_model):
    for come, more in ((2, {}), (1, {"max_pixels": 4799})):
        came, found = at_the_gate(colors_model, come, workers=2, **more)
        assert came == come
        assert [one.status_code for one in found] == [200] * 3


def test_time_runs_from_the_place_on_and_not_from_each_picture(colors_model, monkeypatch):
    (segmenter, gate), now = gated(colors_model), [0.0]  # not done at once
    monkeypatch.setattr("pixelwise.service.desk.time", SimpleNamespace(monotonic=lambda: now[0]))
    app = create_app(segmenter, limits(workers=1, timeout_s=60))

    async def late():
        yield png()[:50]
        now[0] += 61
        yield png()[50:]

    assert error_of(ask(app, "POST", "/segment", content=late()), 503, "too_late")
    gate.gate.set()


def test_where_the_time_is_up_there_is_no_archive_of_what_was_not_done(colors_model):
    segmenter, gate = gated(colors_model)
    app = create_app(segmenter, limits(workers=1, timeout_s=0.2))
    found = ask(app, "POST", "/segment", files=[("picture", ("a.png", png()))] * 2)
    gate.gate.set()
    assert error_of(found, 503, "too_late")


def test_what_is_still_being_read_at_the_end_is_told_so(colors_model):
    app = create_app(Segmenter(colors_model), limits(workers=1))

    async def talk():
        begun, ended = asyncio.Event(), asyncio.Event()

        async def slow():
            yield png()[:50]
            begun.set()
            await ended.wait()
            yield png()[50:]

        async with client(app) as asking:
            async with app.router.lifespan_context(app):
                task = asyncio.create_task(asking.post("/segment", content=slow()))
                while "pixelwise_accepted 1.0" not in (await asking.get("/metrics")).text:
                    await asyncio.sleep(0.005)
            ended.set()
            return await task

    assert error_of(asyncio.run(talk()), 503, "closing")


# The door -----------------------------------------------------------------------------------------------------------


def test_a_token_is_compared_in_constant_time_and_sample_pictures_ask_for_none(colors_model, monkeypatch):
    app = create_app(Segmenter(colors_model), limits(workers=1), token="s3cret")
    compared: list[tuple[bytes, bytes]] = []
    plain = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *both: compared.append(both) or plain(*both))
    assert ask(app, "GET", "/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert compared == [(b"wrong", b"s3cret")]
    assert ask(app, "GET", "/samples/none.jpg").status_code == 404


def test_an_id_of_sixty_four_letters_is_kept(app):
    assert ask(app, "GET", "/health", headers={"X-Request-ID": "x" * 64}).headers["x-request-id"] == "x" * 64


def test_browsers_are_kept_in_bounds_by_every_header(app):
    headers = ask(app, "GET", "/").headers
    assert headers["permissions-policy"] == "camera=(self), microphone=(), geolocation=()"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    directives = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= {
        *directives
    }


def test_sample_pictures_are_one_address_in_the_metrics(app):
    ask(app, "GET", "/samples/aunt-emma.jpg")
    found = ask(app, "GET", "/metrics").text
    assert 'pixelwise_requests_total{path="/samples",status="404"} 1.0' in found
    assert "emma" not in found


def test_who_asks_before_sending_is_not_told_to_send_what_is_refused(colors_model):
    with running(create_app(Segmenter(colors_model), limits(workers=1))) as port, connected(port) as asking:
        head = HEAD.replace(b"image/png", b"text/html") + b"Expect: 100-continue\r\nConnection: close\r\n"
        asking.sendall(head + b"Content-Length: 1000000\r\n\r\n")
        assert answer(asking)[0] == 415  # and no 100 before it


def test_an_answer_that_fails_halfway_is_not_followed_by_another(app):
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("broken")

    sent: list[str] = []

    async def send(message):
        sent.append(message["type"])

    desk = SimpleNamespace(accepted=0, limits=limits(workers=1))
    door = Guard(broken, metrics=Metrics(desk), shown=str, token=None, hosts=None, policy="")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="broken"):
        asyncio.run(door({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send))
    assert sent == ["http.response.start"]


# The command --------------------------------------------------------------------------------------------------------


def served(colors_model, monkeypatch, host: str):
    """What the command would have uvicorn serve."""
    found = []
    monkeypatch.setattr(serve.Server, "run", lambda self, sockets: found.append(self.config))
    monkeypatch.setattr(serve, "_end", lambda code: None)
    for name in ("log_to_stderr", "keep_notes"):
        monkeypatch.setattr(serve, name, lambda: None)
    monkeypatch.setattr(serve, "_for_good", SimpleNamespace(enter_context=lambda _: None))
    serve.run(
        [str(colors_model)], host, 0, limits(workers=1, timeout_s=90), engine="auto", precision=None,
        threads=1, device=None, token_file=None, processes=1, browser=False,
    )  # fmt: skip
    return found[0]


def test_another_name_of_this_machine_is_one_of_its_names(colors_model, monkeypatch):
    config = served(colors_model, monkeypatch, "127.0.0.2")
    for host, status in (("127.0.0.2:80", 200), ("localhost", 200), ("127.0.0.3", 400)):
        assert ask(config.app, "GET", "/health", headers={"Host": host}).status_code == status
    assert config.timeout_graceful_shutdown > 90
    assert config.http.keywords == {"reading_s": 90}
    assert config.timeout_keep_alive == serve.HEAD_S
    assert config.server_header is False


def test_addresses_of_this_machine_alone_are_local():
    for host, expected in (
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False),
        ("10.0.0.5", False), ("192.168.1.2", False), ("::", False), ("localhost.example", False),
    ):  # fmt: skip
        assert serve._is_local(host) is expected, host


def test_a_token_is_of_ascii_letters_and_a_name_is_not_empty(tmp_path):
    (tmp_path / "token").write_text("sécret", encoding="utf-8")
    with pytest.raises(InputError, match=r"the one in .*token is not"):
        serve._token(tmp_path / "token")
    assert serve.name_models(["=x"]) == (("=x", "=x"),)


# Threads ------------------------------------------------------------------------------------------------------------


def test_one_call_has_all_threads_and_several_have_their_part(colors_model, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    made: list[tuple[int, bool]] = []
    ran: list[int] = []
    plain = engine._session

    class Session:
        def __init__(self, session: onnxruntime.InferenceSession, threads: int) -> None:
            self._session, self._threads = session, threads

        def run(self, *given):
            ran.append(self._threads)
            return self._session.run(*given)

        def __getattr__(self, name):
            return getattr(self._session, name)

    def session(model, threads, *more, spins=True):
        made.append((threads, spins))
        return Session(plain(model, threads, *more, spins=spins), threads)

    monkeypatch.setattr(engine, "_session", session)
    path = tmp_path / "colors.onnx"
    path.write_bytes(colors_model.read_bytes())
    opened, alone = Segmenter(path, threads=4), [True]
    assert opened.engine.share(2, lambda: alone[0]) == 2
    assert made[-2:] == [(4, False), (2, False)]
    expected = opened(quadrants()).labels
    alone[0] = False
    np.testing.assert_array_equal(opened(quadrants()).labels, expected)
    assert ran[-2:] == [4, 2]
    made.clear()
    assert Segmenter(path, threads=1).engine.share(2) == 1
    replaced = Segmenter(path, threads=4)
    write_colors_model(path, CARD.replace(name="another"))
    os.utime(path, ns=(1, 1))
    assert replaced.engine.share(2) == 1
    assert made == [(1, True), (4, True)]
