"""`pixelwise serve` as people type it: a process of its own, its socket, its signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from pixelwise import Segmenter
from pixelwise.cli.serve import name_models
from pixelwise.errors import InputError
from serving import PATIENCE_S, Command, encoded, png, serving, until
from tiny import quadrants


@pytest.fixture(scope="module")
def command(tmp_path_factory, colors_model) -> Iterator[Command]:
    """Two models, everything else as it comes."""
    with serving(tmp_path_factory.mktemp("serve"), "-m", colors_model, "-m", "photos=everyday") as command:
        yield command


def post(command: Command, path: str = "/segment", content: bytes | None = None, **more) -> httpx.Response:
    content = png() if content is None else content
    return httpx.post(f"{command.url}{path}", content=content, timeout=PATIENCE_S, verify=False, **more)


def test_the_command_serves_the_models_that_it_names(command, colors_model):
    assert command.said().startswith(f"pixelwise serves colors, photos at http://127.0.0.1:{command.port}\n")
    for name, segmenter in (("colors", Segmenter(colors_model)), ("photos", Segmenter())):
        assert post(command, f"/segment?model={name}").content == segmenter(quadrants()).to_bytes("labels")
    assert post(command).headers["x-pixelwise-model"] == "colors"
    listed = httpx.get(f"{command.url}/models", verify=False).json()
    assert (listed["default"], [one["name"] for one in listed["models"]]) == ("colors", ["colors", "photos"])


def test_the_page_is_there(command):
    found = httpx.get(f"{command.url}/", verify=False)
    assert found.headers["content-type"].startswith("text/html")
    assert "<!doctype html>" in found.text.lower()


def test_a_page_whose_name_leads_here_is_refused(command):
    found = httpx.get(f"{command.url}/", headers={"Host": f"evil.example:{command.port}"}, verify=False)
    assert (found.status_code, found.json()["error"]["code"]) == (400, "wrong_host")


def test_it_says_what_the_sender_should_know(command):
    deep = encoded(np.random.default_rng(0).integers(0, 4000, (40, 50)).astype(np.uint16), "PNG")
    for _ in range(2):
        assert "more than 8 bits" in post(command, content=deep).headers["x-pixelwise-note"]


def test_each_line_of_the_log_is_json(command):
    post(command, headers={"X-Request-ID": "of-the-log"})
    lines = until(lambda: [line for line in command.said().splitlines()[1:] if "of-the-log" in line])
    assert json.loads(lines[0])["status"] == 200
    with socket.create_connection(("127.0.0.1", command.port)) as connection:
        connection.sendall(b"no request\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 400"
    until(lambda: "Invalid HTTP request" in command.said())
    for line in command.said().splitlines()[1:]:
        assert {"time", "level"} <= json.loads(line).keys()


def test_a_port_that_is_taken_is_one_sentence(command, typed):
    result = typed(f"serve --port {command.port}")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(
        f"pixelwise: cannot listen at port {command.port} of 127.0.0.1 (Address already in use); "
    )
    assert f"--port {command.port + 1 if command.port < 65535 else 8001}, or 0" in result.err
    assert len(result.err.splitlines()) == 1


def test_what_cannot_be_served_is_one_sentence(typed, tmp_path, monkeypatch):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two words").write_text("two words\n")
    for line, says in (
        ("serve -m evryday --port 0", "did you mean 'everyday'?"),
        ("serve --host no.such.host.invalid --port 0", "no such host: no.such.host.invalid"),
        ("serve --token-file missing --port 0", "cannot read the token in missing"),
        ("serve --token-file empty --port 0", "the token in empty is empty"),
        ("serve --timeout-s inf --port 0", "timeout_s takes a number"),
        ("serve --max-mb inf --port 0", "--max-mb takes megabytes"),
        ("serve --max-mb nan --port 0", "--max-mb takes megabytes"),
        ("serve --timeout-s 0 --port 0", "timeout_s takes a number"),
        ("serve -m everyday -m everyday --port 0", "both be called 'everyday'"),
    ):
        result = typed(line)
        assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1), result
        assert says in result.err
    monkeypatch.setenv("PIXELWISE_TOKEN", "two words")
    assert "the one in PIXELWISE_TOKEN is not" in typed("serve --port 0").err


def test_models_are_called_by_their_files_unless_they_are_named(tmp_path, colors_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.1").mkdir()
    (tmp_path / "a=b.onnx").write_bytes(b"")
    assert name_models([str(colors_model), "everyday", "run.1", "x=everyday", "a=b.onnx", "owner/name"]) == (
        ("colors", str(colors_model)), ("everyday", "everyday"), ("run.1", "run.1"), ("x", "everyday"),
        ("a=b", "a=b.onnx"), ("owner/name", "owner/name"),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"--model everyday2=everyday$"):
        name_models(["everyday", "everyday"])


@pytest.mark.slow
def test_without_the_extra_it_says_what_to_install(tmp_path, typed):
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['pixelwise', 'serve'];"
        "from pixelwise.cli import main; main()"
    )
    import subprocess
    import sys

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "pixelwise: the service needs an optional part of pixelwise; run: pip install 'pixelwise[serve]'\n"
    )


def load(command: Command, count: int) -> tuple[list[threading.Thread], list[object]]:
    """So many requests at once, each in a thread; what came of them."""
    found: list[object] = []
    content = encoded(np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8), "PNG")

    def ask() -> None:
        try:
            found.append(post(command, content=content).status_code)
        except httpx.TransportError as error:
            found.append(type(error))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def accepted(command: Command) -> int:
    text = httpx.get(f"{command.url}/metrics", timeout=PATIENCE_S, verify=False).text
    return int(float(text.partition("\npixelwise_accepted ")[2].partition("\n")[0]))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_what_was_accepted_finished(number, tmp_path, colors_model):
    with serving(tmp_path, "-m", colors_model, "--workers", 1, "--queue", 8) as command:
        threads, found = load(command, 6)
        until(lambda: accepted(command) + len(found) >= 6)
        command.signal(number)
        for thread in threads:
            thread.join()
        assert found == [200] * 6
        assert command.ended() == 0
        assert "Traceback" not in command.said()
        assert "pixelwise: " not in command.said()
        with pytest.raises(httpx.ConnectError):
            post(command)


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path, colors_model):
    with serving(tmp_path, "-m", colors_model, "--workers", 1, "--queue", 60, "--timeout-s", 1000) as command:
        threads, found = load(command, 60)
        until(lambda: accepted(command) >= 30)
        command.signal(signal.SIGTERM)
        until(lambda: closed(command))
        command.signal(signal.SIGTERM)
        assert command.ended() == 128 + signal.SIGTERM
        for thread in threads:
            thread.join()
        assert any(one != 200 for one in found)


def closed(command: Command) -> bool:
    """Whether nobody can connect any more."""
    try:
        socket.create_connection(("127.0.0.1", command.port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_all_end_together(tmp_path, colors_model):
    with serving(tmp_path, "-m", colors_model, "--processes", 2) as command:
        right = Segmenter(colors_model)(quadrants()).to_bytes("labels")
        assert until(lambda: post(command).content) == right
        first = until(lambda: len(children(command)) == 2 and children(command))
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(set(children(command)) - {first[0]}) == 2)

        def answered() -> bool:
            try:
                return post(command).content == right
            except httpx.TransportError:  # it was on the way to the one that is gone
                return False

        for _ in range(10):
            until(answered)
        assert "Traceback" not in command.said()
        command.signal(signal.SIGTERM)
        assert command.ended() == 0
        assert children(command) == []


@pytest.mark.slow
def test_processes_end_when_the_one_that_watches_over_them_is_killed(tmp_path, colors_model):
    with serving(tmp_path, "-m", colors_model, "--processes", 2) as command:
        until(lambda: len(children(command)) == 2 and post(command).status_code == 200)
        mine = children(command)
        command.signal(signal.SIGKILL)
        command.ended()
        until(lambda: not any(Path(f"/proc/{one}").exists() for one in mine))
        assert closed(command)


@pytest.mark.slow
def test_after_the_start_nothing_is_left_to_be_compiled(tmp_path, colors_model):
    kernels = tmp_path / "kernels"
    with serving(tmp_path, "-m", colors_model, NUMBA_CACHE_DIR=str(kernels)) as command:
        rest = subprocess.run(
            [sys.executable, "-c", "import sys; from pixelwise import Segmenter; from pixelwise.cli.serve import "
             "_warm_up_the_rest; _warm_up_the_rest(Segmenter(sys.argv[1]))", str(colors_model)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(kernels)}, check=True,
        )  # fmt: skip
        assert rest.returncode == 0
        before = {path.name for path in kernels.rglob("*.nbc")}
        for query in (
            "min_area=20",
            "fill_holes=red&format=geojson",
            "tile=64&format=coco-polygons,cutout",
            "crf=vgg",
        ):
            assert post(command, f"/segment?{query}").status_code == 200
        assert {path.name for path in kernels.rglob("*.nbc")} == before


def children(command: Command) -> list[int]:
    """The processes that serve: of those that the command has started the ones that hold its port."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                line = (entry / "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == command.process.pid and b"spawn_main" in line:
                found.append(int(entry.name))
    return sorted(found)


@pytest.mark.slow
def test_a_token_is_read_from_a_file_or_the_environment_and_other_addresses_ask_for_one(
    tmp_path, colors_model
):
    (tmp_path / "token").write_text("s3cret\n")
    for more, environment in ((["--token-file", "token"], {}), ([], {"PIXELWISE_TOKEN": "s3cret"})):
        with serving(tmp_path, "-m", colors_model, "--host", "0.0.0.0", *more, **environment) as command:
            url = f"http://127.0.0.1:{command.port}"
            assert httpx.get(f"{url}/models", verify=False).status_code == 401
            bearer = {"Authorization": "Bearer s3cret", "Host": "any.name"}
            assert httpx.get(f"{url}/models", headers=bearer, verify=False).status_code == 200
            assert "s3cret" not in command.said()
            assert "whoever reaches" not in command.said()
    with serving(tmp_path, "-m", colors_model, "--host", "0.0.0.0") as command:
        until(lambda: "whoever reaches 0.0.0.0 may send pictures; --token-file FILE" in command.said())


@pytest.mark.slow
def test_the_page_opens_in_the_browser(tmp_path, colors_model):
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho $1 > {tmp_path}/opened\n")
    browser.chmod(0o755)
    with serving(tmp_path, "-m", colors_model, "--open", BROWSER=f"{browser} %s") as command:
        until(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text())
        assert (tmp_path / "opened").read_text().strip() == command.url


@pytest.mark.slow
def test_the_folder_of_a_run_is_served(tmp_path):
    from drawn import draw_folder

    draw_folder(tmp_path / "data", count=8)
    line = "train --data data --out run --model unet --encoder resnet10t --weights none --steps 2 --no-check"
    command = [sys.executable, "-m", "pixelwise", *line.split(), "--batch-size", "2"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with serving(tmp_path, "--model", "run") as command:
        content = png(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8))
        assert command.said().startswith("pixelwise serves run at ")
        assert post(command, content=content).content == Segmenter(tmp_path / "run")(content).to_bytes(
            "labels"
        )


@pytest.mark.exhaustive
def test_twelve_thousand_by_nine_thousand_pixels_take_a_stated_memory(tmp_path):
    """24 bytes a pixel beyond what the service takes by itself, with the formats that the page asks for; and it is
    given back."""
    draw = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    content = encoded(np.asarray(draw.resize((12_000, 9_000), Image.Resampling.BICUBIC)), "JPEG")
    pixels = 12_000 * 9_000
    with serving(tmp_path, "--workers", 2) as command:
        post(command)
        before = memory(command, "VmRSS")
        found = post(command, "/segment?format=ids,confidence,json", content)
        assert found.status_code == 200, found.text
        assert memory(command, "VmHWM") - before < 24 * pixels
        until(lambda: memory(command, "VmRSS") - before < 3 * pixels)


def memory(command: Command, which: str) -> int:
    """Bytes that the process holds (VmRSS), or has held at most (VmHWM)."""
    status = Path(f"/proc/{command.process.pid}/status").read_text()
    return 1024 * int(status.partition(f"{which}:")[2].split()[0])
