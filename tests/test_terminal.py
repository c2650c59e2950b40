"""What is printed: a name can do nothing to the terminal, and printing fails for no name."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from PIL import Image

from pixelwise.terminal import note, printable, say
from tiny import quadrants

EVIL = "a\x1b]0;owned\x07\r\nhttps:\u202egnp\u2028.png"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain, ümlaut, 写真, 👩‍🚀.png", "plain, ümlaut, 写真, 👩‍🚀.png"),
        ("\x1b[2J", r"\x1b[2J"),
        ("two\nlines\ttab\r", r"two\nlines\ttab\r"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("exe\u202egnp", r"exe\u202egnp"),
        ("a\u2028b\u2066c", r"a\u2028b\u2066c"),
        ("a\u200eb\u200fc\u061c", r"a\u200eb\u200fc\u061c"),
        ("raw byte \udcff", "raw byte \udcff"),
        ("\udc9b31m and \U000e0041", r"\udc9b31m and \U000e0041"),
    ],
)
def test_controls_become_escapes_and_letters_stay(raw, shown):
    assert printable(raw) == shown


def test_say_is_one_line_and_note_one_sentence(capsys):
    file = io.StringIO()
    say("x\ny", file=file)
    note("it\n  broke\x1b[1m ")
    assert file.getvalue() == "x\\ny\n"
    assert capsys.readouterr() == ("", "pixelwise: it broke\\x1b[1m\n")


def _raw(stream: bytes) -> list[bytes]:
    """The bytes of a stream that are controls, but for the ends of lines."""
    return [bytes([b]) for b in stream if (b < 32 and b != 10) or b == 127]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("names", [[EVIL], [EVIL, "b\x1b[2J.png", "\udcff.png"]])
def test_names_of_files_do_nothing_to_the_terminal(names, colors_model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in names:
        Image.fromarray(quadrants()).save(folder / name)
    (folder / "broken\x1b[5m.png").write_bytes(b"\x89PNG no")
    run = [
        sys.executable,
        "-m",
        "pixelwise",
        "segment",
        folder,
        "--model",
        colors_model,
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(run, capture_output=True)
    assert _raw(done.stdout + done.stderr) == []
    assert "\u202e".encode() not in done.stdout
    assert len(done.stdout.splitlines()) == len(names)
    assert rb"a\x1b]0;owned\x07\r\nhttps:\u202egnp\u2028.png" in done.stdout
    assert rb"broken\x1b[5m.png" in done.stderr
    assert b"Traceback" not in done.stderr
    if len(names) > 1:
        assert b"\xff.png" in done.stdout
    checked = subprocess.run([*run[:3], "check", folder, "--layout", "folder"], capture_output=True)
    assert _raw(checked.stdout + checked.stderr) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_terminal_without_these_letters_gets_escapes(colors_model, tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "写真.png")
    done = subprocess.run(
        [sys.executable, "-m", "pixelwise", "segment", "写真.png", "--model", colors_model, "--out", "out"],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(rb"\u5199\u771f.png: dark 25.0%, red 25.0%")


@pytest.mark.parametrize(
    "typed",
    [["segment", "{}"], ["segment", "photo.png", "--model", "{}"], ["segment", "{}", "--allow-remote"]],
)
def test_addresses_are_not_fetched_and_their_passwords_not_shown(typed, tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "photo.png")
    address = "https://me:secret@127.0.0.1:1/x.png?token=abc"
    done = subprocess.run(
        [sys.executable, "-m", "pixelwise", *(word.format(address) for word in typed)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "https://127.0.0.1:1/x.png is an address" in done.stderr
    assert "secret" not in done.stderr
    assert "abc" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
