"""Weight files: found, fetched, checked, read and loaded; and one clear sentence for all that can go wrong."""

from __future__ import annotations

import argparse
import base64
import errno
import hashlib
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import pixelwise
from pixelwise import caches, models
from pixelwise.errors import DownloadError, WeightsError
from pixelwise.weights import store

FILE = "lraspp_random.pth"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of torchvision's making: LRASPP with random weights, 13 MB."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("made") / FILE
    torch.save(lraspp_mobilenet_v3_large(weights_backbone=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def sha256(weights: Path) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one body under every name; what it shall do wrong is set by a test."""

    daemon_threads = True
    body = b""
    ranges = True  # honours Range
    cut: list[int]  # for each coming request: bytes after which the connection is dropped
    statuses: list[int]  # for each coming request: an error status
    other_part = False  # answers Range with all of it, as a part that begins at 0
    tell_length = True
    asked: list[tuple[str, str | None]]  # path and Range of each request
    authorized: list[str | None]  # Authorization of each request
    elsewhere = ""  # where each request is sent on to

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append((self.path, asked))
        self.server.authorized.append(self.headers["Authorization"])
        if self.server.elsewhere:
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere + FILE)
            return self.end_headers()
        if self.server.statuses:
            return self.send_error(self.server.statuses.pop(0))
        body, start = self.server.body, 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                return self.end_headers()
            start = 0 if self.server.other_part else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if self.server.tell_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + self.server.cut.pop(0) if self.server.cut else len(body)
        self.wfile.write(body[start:end])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(weights: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.body, running.cut, running.statuses, running.asked = weights.read_bytes(), [], [], []
        running.authorized = []
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no other folder, and no pause between tries."""
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for name in ("PIXELWISE_WEIGHTS", "PIXELWISE_OFFLINE", "PIXELWISE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store, "PAUSE_S", 0.001)
    return tmp_path / "cache" / "weights"


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_mirrors_password_goes_to_the_mirror_and_nowhere_else(
    server: Server, sha256: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIXELWISE_MIRROR", server.url.replace("//", "//me:s%40crt@"))
    store.fetch(FILE, "http://unused.invalid/" + FILE, sha256, progress=False)
    assert server.authorized == ["Basic " + base64.b64encode(b"me:s@crt").decode()]
    with Server(("127.0.0.1", 0), Handler) as other:
        other.body, other.cut, other.statuses, other.asked, other.authorized = server.body, [], [], [], []
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.elsewhere = other.url
        store.fetch("copy.pth", "http://unused.invalid/copy.pth", None, progress=False)
        assert other.authorized == [None]
        other.shutdown()


@pytest.mark.parametrize("status", [404, 401, 503, None])
def test_no_message_shows_the_password_of_an_address(
    status: int | None, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.statuses = [status] * 5 if status else []
    monkeypatch.setenv("PIXELWISE_MIRROR", server.url.replace("//", "//me:secret@"))
    with pytest.raises((DownloadError, WeightsError), match=r"127\.0\.0\.1") as error:
        store.fetch(FILE, "http://unused.invalid/" + FILE, "deadbeef", progress=False)
    assert "secret" not in str(error.value)
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1") as error:
        store.fetch(FILE, "http://unused.invalid/" + FILE, None, progress=False)
    assert "secret" not in str(error.value)
    monkeypatch.setenv("PIXELWISE_MIRROR", "ftp://me:secret@host/?token=secret")
    with pytest.raises(DownloadError, match="must begin with") as error:
        store.fetch(FILE, "http://unused.invalid/" + FILE, None, progress=False)
    assert "secret" not in str(error.value)


# Fetching ----------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_checked(server: Server, cache: Path, weights: Path, sha256: str):
    path = store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert path == cache / FILE
    assert path.read_bytes() == weights.read_bytes()
    assert leftovers(cache) == [FILE]
    assert store.fetch(FILE, server.url + FILE, sha256[:8].upper(), progress=False) == path
    assert server.asked == [(f"/models/{FILE}", None)]


def test_progress_goes_to_stderr(server: Server, sha256: str, capfd: pytest.CaptureFixture[str]):
    store.fetch(FILE, server.url + FILE, sha256)
    out, err = capfd.readouterr()
    assert out == ""
    assert FILE in err
    assert "MB" in err
    store.fetch("quiet.pth", server.url + FILE, sha256, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_dropped_connection_is_taken_up_where_it_broke_off(server: Server, weights: Path, sha256: str):
    server.cut = [4_000_000, 3_000_000, 0]
    path = store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert path.read_bytes() == weights.read_bytes()
    assert [asked for _, asked in server.asked] == [
        None,
        "bytes=4000000-",
        "bytes=7000000-",
        "bytes=7000000-",
    ]


def test_an_interrupted_download_is_resumed_by_the_next_call(server: Server, cache: Path, sha256: str):
    server.cut = [5_000_000] + [0] * 10
    with pytest.raises(
        DownloadError, match=r"broke off after 5000000 of \d+ bytes, 5 tries\); get it from http"
    ):
        store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert leftovers(cache) == [f"{FILE}.part"]
    server.cut, server.asked = [], []
    store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert [asked for _, asked in server.asked] == ["bytes=5000000-"]
    assert leftovers(cache) == [FILE]


def test_a_server_that_ignores_ranges_sends_it_all_again(server: Server, weights: Path, sha256: str):
    server.ranges, server.cut = False, [4_000_000]
    path = store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert path.read_bytes() == weights.read_bytes()
    assert len(server.asked) == 2


def test_a_server_that_sends_another_part_than_was_asked_for(server: Server, weights: Path):
    server.other_part, server.cut = True, [1_000_000]
    assert store.fetch(FILE, server.url + FILE, None, progress=False).read_bytes() == weights.read_bytes()
    assert len(server.asked) == 2


def test_a_server_that_tells_no_length(server: Server, weights: Path, sha256: str):
    server.tell_length = False
    assert store.fetch(FILE, server.url + FILE, sha256, progress=False).read_bytes() == weights.read_bytes()


@pytest.mark.parametrize("part", ["complete", "foreign", "too long"])
def test_whatever_an_earlier_try_left_behind(
    part: str, server: Server, cache: Path, weights: Path, sha256: str
):
    body = weights.read_bytes()
    cache.mkdir(parents=True)
    left = {"complete": body, "foreign": b"x" * 1000, "too long": body + b"more"}[part]
    (cache / f"{FILE}.part").write_bytes(left)
    path = store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert path.read_bytes() == body
    assert leftovers(cache) == [FILE]


def test_errors_of_the_server(server: Server, cache: Path, sha256: str):
    server.statuses = [503, 429]
    store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert len(server.asked) == 3
    server.statuses, server.asked = [404], []
    with pytest.raises(DownloadError, match=r"HTTP 404 Not Found.*get it from http.*put it into") as error:
        store.fetch("other.pth", server.url + "other.pth", None, progress=False)
    assert isinstance(error.value, OSError)
    assert len(server.asked) == 1
    assert leftovers(cache) == [FILE]


def test_no_server_at_all(sha256: str):
    with pytest.raises(DownloadError, match=r"refused.*5 tries.*PIXELWISE_WEIGHTS"):
        store.fetch(FILE, f"http://127.0.0.1:9/{FILE}", sha256, progress=False)


def test_a_wrong_hash_leaves_nothing(server: Server, cache: Path):
    with pytest.raises(WeightsError, match=r"gave a file with SHA-256 [0-9a-f]{8}\.\.\., expected deadbeef"):
        store.fetch(FILE, server.url + FILE, "deadbeef", progress=False)
    assert leftovers(cache) == []


def test_several_processes_fetch_a_file_once(server: Server, cache: Path, sha256: str):
    code = f"from pixelwise.weights import store; print(store.fetch({FILE!r}, {server.url + FILE!r}, {sha256!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        for _ in range(3)
    ]
    answers = [process.communicate()[0].decode().strip() for process in running]
    assert answers == [str(cache / FILE)] * 3
    if os.name != "nt":
        assert len(server.asked) == 1
    assert leftovers(cache) == [FILE]


# Where files are looked for ----------------------------------------------------------------------------------


def test_offline_names_the_file_its_address_and_its_place(
    monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path, weights: Path, sha256: str
):
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    with pytest.raises(DownloadError) as error:
        store.fetch(FILE, server.url + FILE, sha256)
    for part in (FILE, "PIXELWISE_OFFLINE", server.url + FILE, str(cache), "PIXELWISE_WEIGHTS"):
        assert part in str(error.value)
    assert server.asked == []
    assert not cache.exists()
    cache.mkdir(parents=True)
    (cache / FILE).write_bytes(weights.read_bytes())
    assert store.fetch(FILE, server.url + FILE, sha256) == cache / FILE
    monkeypatch.setenv("PIXELWISE_OFFLINE", "0")
    store.fetch("new.pth", server.url + FILE, sha256, progress=False)


def test_a_local_folder_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server, weights: Path, sha256: str
):
    monkeypatch.setenv("PIXELWISE_WEIGHTS", str(weights.parent))
    assert store.fetch(FILE, server.url + FILE, sha256) == weights
    with pytest.raises(
        WeightsError, match=r"lraspp_random.pth has SHA-256 .* expected 0000: it is damaged or"
    ):
        store.fetch(FILE, server.url + FILE, "0000")
    assert server.asked == []
    monkeypatch.setenv("PIXELWISE_WEIGHTS", str(tmp_path))  # not in there: fetched as ever
    assert store.fetch(FILE, server.url + FILE, sha256, progress=False) != weights


def test_torch_hubs_cache_is_used(tmp_path: Path, server: Server, cache: Path, weights: Path, sha256: str):
    shared = tmp_path / "hub" / "checkpoints" / FILE
    shared.parent.mkdir(parents=True)
    shared.write_bytes(weights.read_bytes())
    assert store.fetch(FILE, server.url + FILE, sha256) == shared
    assert server.asked == []
    shared.write_bytes(b"half a file")  # not ours to mend, so it is passed over
    assert store.fetch(FILE, server.url + FILE, sha256, progress=False) == cache / FILE


def test_torch_hubs_cache_is_found_without_torch(monkeypatch: pytest.MonkeyPatch):
    from torch import hub

    monkeypatch.undo()
    for variables in ({"TORCH_HOME": "/a"}, {"XDG_CACHE_HOME": "/b"}, {}):
        for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        expected = Path(hub.get_dir()) / "checkpoints"
        with monkeypatch.context() as without:
            without.delitem(sys.modules, "torch.hub")
            assert store.torch_hub_dir() == expected


def test_a_mirror_replaces_the_address(monkeypatch: pytest.MonkeyPatch, server: Server, sha256: str):
    monkeypatch.setenv("PIXELWISE_MIRROR", server.url)
    store.fetch(FILE, "http://unreachable.invalid/models/x.pth", sha256, progress=False)
    assert server.asked == [(f"/models/{FILE}", None)]
    monkeypatch.setenv("PIXELWISE_MIRROR", "/srv/weights")
    with pytest.raises(DownloadError, match="for a folder use PIXELWISE_WEIGHTS"):
        store.fetch("other.pth", "http://unreachable.invalid/x.pth", sha256)


def test_an_official_network_from_a_server(monkeypatch: pytest.MonkeyPatch, server: Server, weights: Path):
    """The whole way: builder, enum, download, hash, strict loading."""
    monkeypatch.setenv("PIXELWISE_MIRROR", server.url)
    with pytest.raises(WeightsError, match="expected d234d4ea"):  # random weights are not the official ones
        models.lraspp_mobilenet_v3_large(weights="DEFAULT", progress=False)
    monkeypatch.setattr(store, "digest", lambda path: "d234d4ea")
    network = models.lraspp_mobilenet_v3_large(weights="DEFAULT", progress=False)
    expected = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_the_cache_is_in_the_systems_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PIXELWISE_CACHE")
    assert caches.cache_dir().name.lower() in ("pixelwise", "cache")  # Windows ends in Cache
    monkeypatch.setenv("PIXELWISE_CACHE", "~/somewhere")
    assert caches.cache_dir() == Path.home() / "somewhere"


def test_a_path_is_no_file_name():
    with pytest.raises(WeightsError, match="plain name"):
        store.fetch("../other.pth", "http://127.0.0.1/", None)


def test_an_unwritable_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server, sha256: str):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match=r"cannot be kept in .*: Not a directory; .*PIXELWISE_CACHE"):
        store.fetch(FILE, server.url + FILE, sha256, progress=False)


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path, sha256: str):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DownloadError, match=r"cannot be kept in .*: No space left on device; make room"):
        store.fetch(FILE, server.url + FILE, sha256, progress=False)
    assert FILE not in leftovers(cache)


# Reading -----------------------------------------------------------------------------------------------------


class Code:
    """What a malicious pickle holds."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran",)


def test_torch_files_and_safetensors_give_the_same_tensors(tmp_path: Path, weights: Path):
    expected = torch.load(weights, weights_only=True)
    save_file(expected, tmp_path / "a.safetensors")
    save_file(expected, tmp_path / "without_suffix")
    torch.save(expected, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (weights, tmp_path / "a.safetensors", tmp_path / "without_suffix", tmp_path / "old.pth"):
        state = store.load_state_dict(path)
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_of_training_scripts_are_unwrapped(tmp_path: Path, wrapper: str, prefix: str):
    state = nn.Linear(3, 2).state_dict()
    checkpoint = {
        wrapper: {prefix + key: value for key, value in state.items()},
        "optimizer": {"lr": 0.1},
        "epoch": 3,
        "best": np.float64(0.7),
        "steps": np.int64(3),
        "args": argparse.Namespace(lr=0.1, data="coco"),
    }
    torch.save(checkpoint, tmp_path / "c.pth")
    loaded = store.load_state_dict(tmp_path / "c.pth")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_the_network_of_a_lightning_module_is_found(tmp_path: Path):
    network = pixelwise.create_model("lraspp_mobilenet_v3_large", num_classes=3)
    held = network.state_dict()
    around = {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1), "loss.weight": torch.ones(3)}
    lightning = {"epoch": 1, "pytorch-lightning_version": "2.5.0", "hyper_parameters": {"classes": 3}}
    for prefix in ("model.", "net.module.", "", "model._orig_mod."):
        state = {prefix + name: value for name, value in held.items()} | (around if prefix else {})
        torch.save(lightning | {"state_dict": state}, tmp_path / "last.ckpt")
        opened = pixelwise.from_checkpoint(tmp_path / "last.ckpt").state_dict()
        assert opened.keys() == held.keys()
        assert all(torch.equal(opened[name], held[name]) for name in held)
    two = {f"{part}.{name}": value for part in ("student", "teacher") for name, value in held.items()}
    torch.save(lightning | {"state_dict": two}, tmp_path / "two.ckpt")
    with pytest.raises(WeightsError, match="two networks of one kind, student, teacher") as caught:
        pixelwise.from_checkpoint(tmp_path / "two.ckpt")
    assert "begin with 'student.', without that" in str(caught.value)
    one = {name.removeprefix("student."): value for name, value in two.items() if name.startswith("student.")}
    assert pixelwise.from_checkpoint(one).num_classes == 3


def test_code_in_a_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(2), "x": Code()}, "code.pth")
    with pytest.raises(
        WeightsError, match=r"would run code \(\w+\.mkdir\).*from_checkpoint\(path, allow_pickle=True"
    ):
        store.load_state_dict("code.pth")
    assert not Path("ran").exists()
    torch.save(nn.Linear(3, 2), "network.pth")
    with pytest.raises(WeightsError, match=r"would run code \(torch.nn.modules.linear.Linear\)"):
        store.load_state_dict("network.pth")
    assert store.load_state_dict("network.pth", allow_pickle=True).keys() == {"weight", "bias"}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("beside", [False, True])
def test_what_a_plain_pickle_would_run_is_named(protocol, beside, tmp_path: Path, monkeypatch):
    """Whatever its protocol, and whatever harmless things it holds before; torch reads none of them, allowed or not."""
    monkeypatch.chdir(tmp_path)
    before = {"a": np.zeros(3, np.float32), "b": np.float64(1), "c": "words"} if beside else {}
    Path("plain.pt").write_bytes(pickle.dumps({**before, "w": Code(), "again": Code()}, protocol))
    with pytest.raises(WeightsError, match=r"torch did not write .* would run code \(\w+\.mkdir\), expected"):
        store.load_state_dict("plain.pt")
    assert not Path("ran").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_what_torchs_pickle_of_a_new_protocol_would_run_is_named(zipped, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"weight": torch.zeros(2), "x": Code()}
    torch.save(content, "it.pt", pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        WeightsError, match=r"would run code \(\w+\.mkdir\).*pixelwise convert it.pt it.safetensors"
    ):
        store.load_state_dict("it.pt")
    assert not Path("ran").exists()


def test_files_that_are_no_weights(tmp_path: Path, weights: Path):
    body = weights.read_bytes()
    safe = tmp_path / "whole.safetensors"
    save_file({"a": torch.zeros(999)}, safe)
    torch.save(torch.load(weights, weights_only=True), tmp_path / "o", _use_new_zipfile_serialization=False)
    cases = {
        "empty.pth": (b"", "are an empty file"),
        "truncated.pth": (body[: len(body) // 2], "damaged or incomplete"),
        "old_truncated.pth": ((tmp_path / "o").read_bytes()[:500_000], "damaged"),
        "truncated.safetensors": (safe.read_bytes()[:900], "damaged or incomplete"),
        "short.safetensors": (b"abc", "damaged or incomplete"),
        "page.pth": (b"<html>Not found</html>", "is no weights file"),
        "plain.pth": (pickle.dumps({"a": 1}), "pickle that torch did not write"),
        "number.pth": (None, "holds a int, expected a state dict"),
        "list.pth": ([torch.zeros(2)], "holds a list, expected a state dict"),
        "nothing.pth": ({}, "holds an empty dictionary"),
        "odd.pth": ({"a": torch.zeros(2), "lr": 0.1}, "lr is no tensor"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(3 if content is None else content, path)
        with pytest.raises(WeightsError, match=message) as error:
            store.load_state_dict(path)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match=r"missing.pth cannot be read: No such file"):
        store.load_state_dict(tmp_path / "missing.pth")


# Loading -----------------------------------------------------------------------------------------------------


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def refused(network: nn.Module, state: dict[str, torch.Tensor], **options: tuple[str, ...]) -> str:
    """The sentence with which `state` is refused; nothing of it may have been copied."""
    before = snapshot(network)
    with pytest.raises(WeightsError) as error:
        store.load_into(network, state, source="some.pth", **options)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert str(error.value).startswith("some.pth does not fit")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def state(weights: Path) -> dict[str, torch.Tensor]:
    return torch.load(weights, weights_only=True)


def lraspp(num_classes: int = 21) -> models.LRASPP:
    return models.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=num_classes)


def test_weights_that_fit_are_copied(state: dict[str, torch.Tensor]):
    network = lraspp()
    store.load_into(network, state, source="some.pth")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    store.load_into(network, old, source="from before torch 0.4.1")


@pytest.mark.parametrize(
    ("theirs", "ours", "right"),
    [
        (torch.float16, torch.float32, True),
        (torch.float64, torch.float32, True),
        (torch.int8, torch.float32, False),  # quantised: their scale is not in them
        (torch.bool, torch.float32, False),
        (torch.complex64, torch.float32, False),
        (torch.float32, torch.int64, True),
        (torch.int32, torch.int64, True),
        (torch.complex64, torch.int64, False),
    ],
)
def test_numbers_of_a_kind_that_weights_are_not_are_refused(theirs, ours, right):
    network = nn.Module()
    network.register_buffer("x", torch.zeros(2, dtype=ours))
    given = {"x": torch.ones(2).to(theirs)}
    if right:
        store.load_into(network, given, source="some.pth")
        assert network.x.tolist() == [1, 1]
    else:
        with pytest.raises(
            WeightsError, match=rf"holds {theirs} in x, where {ours} is".replace("torch.", "")
        ):
            store.load_into(network, given, source="some.pth")
        assert network.x.tolist() == [0, 0]


@pytest.mark.parametrize("number", [0.5, float("nan"), float("inf")])
def test_floats_that_are_not_whole_are_no_counters(number):
    network = nn.Module()
    network.register_buffer("x", torch.zeros(1, dtype=torch.int64))
    with pytest.raises(WeightsError, match="holds float32 in x, where int64 is expected"):
        store.load_into(network, {"x": torch.tensor([number])}, source="some.pth")


def test_missing_surplus_and_wrong_shapes_are_named(state: dict[str, torch.Tensor]):
    network = lraspp()
    missing = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    message = refused(network, missing)
    assert "LRASPP: 10 keys missing (classifier.cbr.0.weight, classifier.cbr.1.weight" in message
    assert "and 7 more" in message
    assert "2 keys surplus (a, b)" in refused(network, {**state, "a": torch.zeros(1), "b": torch.zeros(1)})
    message = refused(network, {**state, "classifier.cbr.0.weight": torch.zeros(64, 960, 1, 1)})
    assert (
        "1 tensors of another shape (classifier.cbr.0.weight (64, 960, 1, 1) instead of (128, 960, 1, 1))"
        in message
    )
    assert refused(network, {})


def test_a_wrong_number_of_classes_is_recognised(state: dict[str, torch.Tensor]):
    message = refused(lraspp(5), state)
    expected = (
        "these weights have 21 classes, the network 5; build it with num_classes=21 or load the backbone only"
    )
    assert message == f"some.pth does not fit LRASPP: {expected}"


def test_the_auxiliary_head_is_advised_on():
    def build(aux_loss: bool, num_classes: int = 21) -> nn.Module:
        return models.deeplabv3_mobilenet_v3_large(
            weights_backbone=None, aux_loss=aux_loss, num_classes=num_classes
        )

    whole, without = build(True).state_dict(), build(False)
    message = refused(without, whole)
    assert re.search(
        r"8 keys surplus .*build the network with aux_loss=True.*ignore=\(\"aux_classifier", message
    )
    store.load_into(without, whole, source="some.pth", ignore=("aux_classifier.",))
    assert all(torch.equal(value, whole[key]) for key, value in without.state_dict().items())
    message = refused(build(True), without.state_dict())
    assert "7 keys missing" in message
    assert "aux_loss=False" in message
    assert "have 21 classes, the network 4" in refused(build(False, 4), whole)
    other = {"x": torch.zeros(1)}
    assert "surplus" in refused(without, {**whole, **other}, ignore=("aux_classifier.",))
