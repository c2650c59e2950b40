"""docs/service.md and the Containerfile say what is so: examples run against the command, tables are the code's."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra serve")

from pixelwise import Segmenter, images, service
from pixelwise.service import Limits, answers, create_app
from pixelwise.service.refusals import STATUSES
from serving import serving
from tiny import quadrants, write_colors_model

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SERVE = COMMANDS.partition("## pixelwise serve")[2].partition("\n## ")[0]
CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8")
TOKEN = "a-token-of-the-test"


def blocks(kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text for given, text in found if given == kind]


def rows(head: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = PAGE.partition(f"\n| {head}")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    for name in ("photo.jpg", "cat.png"):
        Image.fromarray(quadrants()).save(folder / name)
    (folder / "token").write_text(f"{TOKEN}\n")
    return folder


def curl(line: str, folder: Path, port: int) -> str:
    line = line.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    done = subprocess.run(
        ["bash", "-c", f"{line} --fail-with-body -sS"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_what_the_page_types_into_a_shell_and_into_python_works(place):
    first, with_token = blocks("bash")
    model = write_colors_model(place / "colors.onnx")
    with serving(place, "--model", model) as command:
        said = [curl(line, place, command.port) for line in first.splitlines()]
        script = blocks("python")[0].replace("127.0.0.1:8000", f"127.0.0.1:{command.port}")
        done = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (healthy,) = re.findall(r'"-c", "(.*?)"\]', CONTAINER)
        subprocess.run([sys.executable, "-c", healthy.replace("8000", str(command.port))], check=True)
    assert images.read(place / "labels.png", channels=1).shape[:2] == (40, 60)
    assert {one["name"] for one in json.loads(said[1])["classes"]} >= {"red", "green", "blue"}
    assert images.read(place / "overlay.png").shape == (40, 60, 3)
    names = zipfile.ZipFile(place / "results.zip").namelist()
    assert sorted(names) == ["cat.json", "cat.labels.png", "photo.json", "photo.labels.png"]
    assert re.search(r"^red: 2\d\.\d%$", done.stdout, re.MULTILINE)
    (place / "labels.png").unlink()
    with serving(place, "--model", model, "--token-file", "token") as command:
        curl(with_token.strip(), place, command.port)
    assert images.read(place / "labels.png", channels=1).shape[:2] == (40, 60)


def test_the_example_of_an_application_answers_below_its_path(monkeypatch, colors_model):
    from fastapi.testclient import TestClient

    names: dict[str, object] = {}
    exec(blocks("python")[1].replace('Segmenter("everyday")', f"Segmenter({str(colors_model)!r})"), names)
    with TestClient(names["app"]) as asking:  # type: ignore[arg-type]
        assert asking.get("/segmentation/models").json()["default"] == "everyday"


def test_limits_on_the_page_are_the_defaults_and_their_options_exist():
    usual = Limits()
    values = [
        usual.max_bytes,
        usual.max_pixels,
        usual.max_pictures,
        None,
        None,
        usual.body_timeout_s,
        usual.timeout_s,
        None,
    ]
    table = rows("limit | default")
    assert len(table) == len(values)
    for (_, default, option, beyond), value in zip(table, values, strict=True):
        if value is not None:
            assert float(default.replace(",", "")) == value, option
        assert re.search(rf"^ +{option.strip('`')} ", SERVE, re.MULTILINE), option
        assert not beyond.isdecimal() or int(beyond) in STATUSES
    assert Limits(workers=3).places == 3 + 8 * 3


def test_every_status_and_code_of_a_refusal_is_on_the_page():
    told = {int(number): codes for cells in rows("status | codes") for number, codes in _split(cells)}
    assert set(told) == set(STATUSES)
    assert {code for codes in told.values() for code in codes} == _codes_in_the_source()


def _split(cells: list[str]) -> list[tuple[str, list[str]]]:
    return [(number, re.findall(r"`(\w+)`", cells[1])) for number in cells[0].split(", ")]


def _codes_in_the_source() -> set[str]:
    """The second argument of every Refused, and what `refusal` makes of errors."""
    found = set()
    for path in Path(service.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
                found |= {one.value for one in node.args[1:2] if isinstance(one, ast.Constant)}
            elif isinstance(node, ast.Tuple) and [type(one) for one in node.elts[1:]] == [ast.Constant] * 2:
                status, code = (one.value for one in node.elts[1:])  # type: ignore[attr-defined]
                found |= {code} if status in STATUSES else set()
    return found


def test_addresses_parameters_and_types_on_the_page_are_those_of_the_service(colors_model):
    schema = create_app(Segmenter(colors_model)).openapi()
    addresses = {
        path for cells in rows("address") for path in re.findall(r"`(?:GET|POST) ([^?`]+)", cells[0])
    }
    assert addresses == {*schema["paths"], "/", "/openapi.json"}
    parameters = {name for cells in rows("parameter of") for name in re.findall(r"`(\w+)`", cells[0])}
    assert parameters == {one["name"] for one in schema["paths"]["/segment"]["post"]["parameters"]}
    types = {kind: cells[1] for cells in rows("`Accept`") for kind in re.findall(r"`([\w/+*-]+)`", cells[0])}
    assert {*types} == {*answers.BY_TYPE, "*/*"}
    for kind, cell in types.items():
        wanted, zipped = answers.by_accept(kind)
        assert f"`{wanted.format}`" in cell
        assert zipped is ("archive" in cell)


def test_the_container_copies_what_is_there_and_starts_the_command_with_options_that_exist():
    for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINER, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1]), line
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", CONTAINER, re.MULTILINE)
    words = json.loads(entry)
    assert words[:2] == ["pixelwise", "serve"]
    for word in words[2::2]:
        assert re.search(rf"^ +{word} ", SERVE, re.MULTILINE), word
    assert re.search(r"^USER (?!root|0\b)", CONTAINER, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", CONTAINER, re.MULTILINE)
    for block in blocks(""):
        for line in block.replace("\\\n", "").splitlines():
            for word in shlex.split(line.partition("#")[0]):
                if line.startswith("pixelwise serve") and word.startswith("--"):
                    assert re.search(rf"^ +(?:-\w, )?{word} ", SERVE, re.MULTILINE), line
