"""The service's page, in a real browser that reaches no other host, before `pixelwise serve` as it is typed.

The browser is the system's chromium (Debian: apt-get install chromium); without it these tests are skipped.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pixelwise import LabelSet, Segmenter, images
from pixelwise.errors import ImageKindError, PixelwiseWarning
from pixelwise.outputs.formats import FORMATS
from pixelwise.service import app
from tiny import CARD, COLORS, write_colors_model

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

HERE = Path(app.__file__).parent
SAMPLES = HERE / "samples"
ALBUM = SAMPLES / "album.jpg"
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
SAFE = {
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
}
"""Okabe and Ito's."""

FAR = LabelSet.of(
    ["dark", "red", "green", "blue"], colors=COLORS.colors, ids=[0, 300, 70, 1000], ignore_id=65535
)
LAYERS = LabelSet.of(["outside", "all", "red", "green", "blue"])
"""For the model of `tiny.py` with regions: `all` is everywhere, a colour where there is any of it."""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path | str]:
    folder = tmp_path_factory.mktemp("models")
    weight = np.zeros((4, 3, 2, 2), np.float32)
    for channel in range(3):
        weight[channel + 1, channel] = 0.25
    commas = LabelSet.of(["dark", "red, or so", "green", "blue"], colors=COLORS.colors)
    return {
        "everyday": "everyday",
        "nuclei": "nuclei",
        "colors": write_colors_model(folder / "colors.onnx"),
        "twin": folder / "colors.onnx",
        "commas": write_colors_model(
            folder / "commas.onnx", CARD.replace(name="commas", labels=commas, scores=())
        ),
        "far": write_colors_model(folder / "far.onnx", CARD.replace(name="far", labels=FAR, scores=())),
        "layers": write_colors_model(
            folder / "layers.onnx",
            CARD.replace(name="layers", labels=LAYERS, outputs="regions", scores=()),
            (weight, np.array([1, -0.5, -0.5, -0.5], np.float32)),
        ),
    }


class Server:
    """`pixelwise serve`, until it is ended."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        line = [sys.executable, "-m", "pixelwise", "serve", "--port", "0", *options]
        kept = os.environ | {"PIXELWISE_CACHE": str(folder / "cache")} | environment
        self.log = open(folder / "log", "w+")  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=kept)
        assert self.process.stderr is not None
        found = None
        for line_said in self.process.stderr:
            self.log.write(line_said)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line_said):
                break
        assert found, Path(self.log.name).read_text()
        self.address = found[0]
        self._drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=self.log)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self._drain.wait(30)
        self.process.stderr.close()
        self.log.close()


@pytest.fixture(scope="module")
def server(models, tmp_path_factory) -> Iterator[Server]:
    given = [part for name, model in models.items() for part in ("--model", f"{name}={model}")]
    running = Server(tmp_path_factory.mktemp("server"), *given)
    yield running
    running.end()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # No name leads anywhere, so that what the page would fetch elsewhere fails
        flags = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


class Visit:
    """One visit of the page, and what the tests do there. said: what the console reports as errors."""

    def __init__(self, browser, address: str, **how) -> None:
        self.address = address
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        self.context.set_default_timeout(20_000)
        self.asked: list[str] = []
        self.said: list[str] = []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on(
            "console", lambda said: said.type in ("error", "warning") and self.said.append(said.text)
        )
        self.context.on("weberror", lambda error: self.said.append(str(error.error)))
        self.page = self.context.new_page()

    def open(self, *, model: str | None = None) -> Visit:
        self.page.goto(self.address)
        self.page.wait_for_selector("#samples img")
        if model is not None:
            self.page.select_option("#model", model)
        return self

    def drop(self, *files: Path) -> None:
        """As if files were dropped on the page."""
        given = self.page.evaluate_handle("() => new DataTransfer()")
        for file in files:
            content = list(file.read_bytes()) if file.stat().st_size < 2**20 else None
            assert content is not None, "use `choose` for large files"
            self.page.evaluate(
                "([given, name, bytes]) => given.items.add(new File([new Uint8Array(bytes)], name))",
                [given, file.name, content],
            )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("body", event, {"dataTransfer": given})

    def choose(self, *files: Path) -> None:
        self.page.set_input_files("#files", files)

    def done(self) -> None:
        self.page.wait_for_selector("#legend li")
        box = self.page.locator("#canvas").bounding_box()
        self.left, self.top, self.width, self.height = (box[of] for of in ("x", "y", "width", "height"))
        self.page.evaluate(
            "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
        )

    def drawn(self) -> np.ndarray:
        """What the canvas shows (h, w, 3), one pixel for one of the screen's."""
        self.page.evaluate(
            "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
        )
        data = self.page.evaluate("document.querySelector('#canvas').toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB"))

    def colours(self, at: np.ndarray) -> np.ndarray:
        """The same at some rows and columns (n, 2): (n, 3)."""
        found = self.page.evaluate(
            """(at) => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => {
                const canvas = document.querySelector("#canvas");
                const copy = new OffscreenCanvas(canvas.width, canvas.height);
                const context = copy.getContext("2d", { willReadFrequently: true });
                context.drawImage(canvas, 0, 0);
                const all = context.getImageData(0, 0, canvas.width, canvas.height).data;
                go(at.map(([y, x]) => [...all.subarray(4 * (y * canvas.width + x)).subarray(0, 3)]));
            })))""",
            at.tolist(),
        )
        return np.array(found)

    def read(self, x: float, y: float) -> tuple[str, str, int, int]:
        """What the page says of a place of the canvas: class, confidence, column and row."""
        self.page.mouse.move(self.left + x, self.top + y)
        name, sure, at = self.page.eval_on_selector_all(
            "#readout b, #readout span", "all => all.map((one) => one.textContent)"
        )
        column, row = map(int, re.fullmatch(r"x (\d+), y (\d+)", at).groups())
        return name, sure, column, row

    def download(self, click: str) -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.click(click)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def overflows(self) -> bool:
        """Whether the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")

    def refused(self, *statuses: int) -> None:
        """The browser's own lines about refusals are expected."""
        expected = [f"status of {status} " for status in statuses]
        assert [any(text in line for text in expected) for line in self.said] == [True] * len(statuses), (
            self.said
        )
        self.said.clear()

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        hosts = {urlsplit(url).netloc for url in self.asked if not url.startswith(("blob:", "data:"))}
        assert hosts <= {urlsplit(self.address).netloc}


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    visiting = Visit(browser, server.address)
    yield visiting
    visiting.close()


@pytest.fixture
def on_phone(browser, server) -> Iterator[Visit]:
    visiting = Visit(browser, server.address, **PHONE)
    yield visiting
    visiting.close()


def white(content: bytes) -> np.ndarray:
    """A mask as it looks, 0 or 255."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def ids_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# What ships


def test_the_page_is_one_small_file_that_needs_nothing_else():
    page = (HERE / "page.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 100_000
    outside = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", page)
    assert set(outside) <= {"http://www.w3.org", "//www.w3.org"}  # the name of SVG, which is no address
    assert not re.search(r'\sstyle="|\son\w+="', page), "the service's policy does not let these run"
    for file in SAMPLES.glob("*.jpg"):
        assert file.name.removesuffix(".jpg") in page
        assert file.name in (SAMPLES / "README.md").read_text(), "where it comes from is to be said"
    assert sum(file.stat().st_size for file in SAMPLES.glob("*.jpg")) < 400_000


def test_every_format_can_be_taken_away(visit):
    visit.open()
    offered = visit.page.eval_on_selector_all("[data-format]", "all => all.map((one) => one.dataset.format)")
    assert sorted(offered) == sorted(FORMATS)


# From a picture to its mask


def test_a_dropped_picture_is_answered_and_what_is_downloaded_is_what_the_command_writes(
    visit, typed, tmp_path
):
    visit.open().drop(ALBUM)
    visit.done()
    page = visit.page
    assert page.inner_text("#title") == "album.jpg"
    assert "960 × 640" in page.inner_text("#facts")
    formats = "labels,overlay,geojson,json,ids,confidence"
    assert typed(f"segment {ALBUM} --out out --format {formats} --mask person").code == 0
    found = json.loads((tmp_path / "out/album.json").read_text())["classes"]
    assert page.locator("#legend .name").all_inner_texts() == [one["name"] for one in found]
    shares = page.locator("#legend .share").all_inner_texts()
    assert float(shares[0].removesuffix(" %")) == round(100 * found[0]["share"])
    for format in ("labels", "overlay", "geojson"):
        name, content = visit.download(f"[data-format={format}]")
        assert name == f"album{FORMATS[format].ending}"
        assert content == (tmp_path / "out" / name).read_bytes()
    page.click("#legend [data-id='15'] .class")
    assert page.inner_text("#kept") == "The cut-out keeps person; the mask of that is white on black."
    assert page.inner_text("#only") == "Mask of person"
    name, content = visit.download("#only")
    assert name == "album.person.png"
    assert Image.open(io.BytesIO(content)).mode == "L"
    np.testing.assert_array_equal(white(content), white((tmp_path / "out" / name).read_bytes()))
    name, content = visit.download("[data-format=cutout]")
    cut = Segmenter()(ALBUM).cutout("person")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), cut)
    # Under the pointer is what the label map has there
    ids, names = ids_of(tmp_path / "out/album.ids.png"), {one["id"]: one["name"] for one in found}
    sure = ids_of(tmp_path / "out/album.confidence.png") / 255
    seen = set()
    for across in (0.1, 0.62, 0.75, 0.9):
        for down in (0.2, 0.45, 0.7):
            name, confidence, x, y = visit.read(across * visit.width, down * visit.height)
            assert name == names[ids[y, x]]
            assert abs(float(confidence.removesuffix(" % sure")) - 100 * sure[y, x]) <= 0.5
            assert page.get_attribute("#legend .here", "data-id") == str(ids[y, x])
            seen.add(name)
    assert seen >= {"cat", "person", "background"}


def test_opacity_isolation_outline_and_divider_change_the_pixels_that_they_should(visit):
    visit.open().drop(ALBUM)
    visit.done()
    page = visit.page
    page.uncheck("#safe")  # the model's own colours
    places = [(x, y) for x in np.linspace(0.1, 0.9, 7) for y in np.linspace(0.15, 0.85, 6)]
    at = np.array([(round(y * visit.height), round(x * visit.width)) for x, y in places])
    names = np.array([visit.read(x, y)[0] for y, x in at.tolist()])
    page.mouse.move(5, 5)
    cat, person, ground = (names == name for name in ("cat", "person", "background"))
    assert min(cat.sum(), person.sum(), ground.sum()) > 3

    def colours() -> np.ndarray:
        return visit.colours(at)

    half = colours()
    page.fill("#opacity", "0")
    photo = colours()
    page.fill("#opacity", "100")
    full = colours()
    assert page.inner_text("#opaque") == "100 %"
    assert (full[cat] == (64, 0, 0)).all()
    assert (full[person] == (192, 128, 128)).all()
    assert (full[ground] == photo[ground]).all()
    assert abs(half - (photo + full) / 2).max() <= 1.5

    page.click("#legend [data-id='8'] .class")
    assert page.get_attribute("#legend [data-id='8'] .class", "aria-pressed") == "true"
    alone = colours()
    assert (alone[cat] == (64, 0, 0)).all()
    assert (alone[~cat].sum(1) <= photo[~cat].sum(1) * 0.5 + 60).all()  # the rest steps back
    page.click("#legend [data-id='15'] .add")  # and one more
    both = colours()
    assert (both[person] == (192, 128, 128)).all()
    assert (both[ground] == alone[ground]).all()
    page.click("#all")
    assert (colours() == full).all()

    page.check("#safe")  # as it is at first
    safe = colours()
    assert (safe[ground] == photo[ground]).all()
    one, other = ({tuple(map(int, color)) for color in safe[of]} for of in (cat, person))
    assert len(one) == len(other) == 1
    assert one != other
    assert one | other <= SAFE
    page.uncheck("#safe")

    page.check("[name=mode][value=outline]")
    lined = colours()
    assert 0 < (lined[cat] != photo[cat]).any(1).sum() < 0.5 * cat.sum() or (lined[cat] == photo[cat]).all()
    assert (visit.drawn() == (64, 0, 0)).all(2).sum() > 300

    page.check("[name=mode][value=compare]")
    page.fill("#opacity", "100")
    middle = float(page.evaluate("parseFloat(document.querySelector('#divider').style.left)"))
    left, right = at[:, 1] < middle - 3, at[:, 1] > middle + 3
    compared = colours()
    assert (compared[left] == photo[left]).all()
    assert (compared[right] == full[right]).all()
    handle = page.locator("#divider").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(visit.left + 5, visit.top + 200, steps=3)
    page.mouse.up()
    assert page.get_attribute("#divider", "aria-valuenow") == "0"
    right = at[:, 1] > 40
    assert (colours()[right] == full[right]).all()

    page.check("[name=mode][value=cutout]")
    all_but_the_background = colours()
    assert (all_but_the_background[cat | person] == photo[cat | person]).all()
    page.click("#legend [data-id='15'] .class")
    cut = colours()
    assert (cut[person] == photo[person]).all()
    assert (np.ptp(cut[~person], axis=1) == 0).all(), "grey, as a checkerboard"
    assert set(cut[~person].flat) >= {246, 210}
    assert cut[~person].min() >= 210


@pytest.mark.slow
def test_zoom_and_pan_keep_what_is_under_the_pointer(visit, tmp_path):
    visit.open().drop(ALBUM)
    visit.done()
    page = visit.page
    place = (0.4 * visit.width, 0.5 * visit.height)
    before = visit.read(*place)
    assert page.inner_text("#scale") == f"{round(100 * (visit.width - 32) / 960)} %"
    for _ in range(3):
        page.mouse.wheel(0, -400)
    near = visit.read(*place)
    assert np.hypot(near[2] - before[2], near[3] - before[3]) <= 2
    assert int(page.inner_text("#scale").removesuffix(" %")) > 200
    page.mouse.down()
    page.mouse.move(visit.left + place[0] + 100, visit.top + place[1] + 60, steps=4)
    page.mouse.up()
    panned = visit.read(place[0] + 100, place[1] + 60)
    assert np.hypot(panned[2] - near[2], panned[3] - near[3]) <= 2
    page.dblclick("#canvas")
    assert visit.read(*place) == before
    page.dblclick("#canvas", position={"x": place[0], "y": place[1]})
    closer = visit.read(*place)
    assert np.hypot(closer[2] - before[2], closer[3] - before[3]) <= 2
    page.click("#scale")
    assert visit.read(*place) == before


def test_with_the_keyboard_alone(visit, typed, tmp_path):
    visit.open()
    page = visit.page

    def tab_to(selector: str, key: str = "Tab") -> None:
        for _ in range(60):
            page.keyboard.press(key)
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"no way to {selector} with the keyboard")

    tab_to("#samples li:nth-child(4) button")
    page.keyboard.press("Enter")
    visit.done()
    assert page.evaluate("document.activeElement.id") == "canvas"
    frame = "getComputedStyle(document.querySelector('#canvas')).outlineStyle"
    assert page.evaluate(frame) == "solid"
    page.mouse.click(5, 400)
    page.focus("#canvas")
    assert page.evaluate(frame) == "none", "without the keyboard it is but a green frame"
    live = page.locator("#live")
    expect(live).to_have_text(re.compile("^Done. cat 55 %, background 31 %, person 14 %"))
    page.keyboard.press("ArrowRight")
    expect(live).to_have_text(re.compile(r"sure, x \d+, y \d+$"))
    first = live.text_content()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    expect(live).not_to_have_text(first)
    words = re.fullmatch(r"(\w+), (\d+) % sure, x (\d+), y (\d+)", live.text_content())
    assert typed(f"segment {ALBUM} --out out --format ids").code == 0
    ids = ids_of(tmp_path / "out/album.ids.png")
    assert Segmenter().classes.names[ids[int(words[4]), int(words[3])]] == words[1]
    scale = page.inner_text("#scale")
    page.keyboard.press("+")
    expect(page.locator("#scale")).not_to_have_text(scale)
    page.keyboard.press("0")
    expect(page.locator("#scale")).to_have_text(scale)
    page.keyboard.press("Enter")
    assert live.text_content() == f"Only {words[1]}"
    page.keyboard.press("Escape")
    assert page.locator("#legend [aria-pressed=true]").count() == 0
    tab_to("[name=mode]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    tab_to("#divider", "Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#divider", "aria-valuenow") == "52"
    tab_to("#legend .class")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('#legend .class')"), "where it was pressed it stays"
    tab_to("[data-format=cutout]")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert waiting.value.suggested_filename == "album.cutout.png"


def test_models_are_called_as_requests_call_them_and_samples_fit_them(visit, models):
    page = visit.open().page
    names = page.eval_on_selector_all("#model option", "all => all.map((one) => one.value)")
    assert names == list(models)
    shown = page.eval_on_selector_all("#model option", "all => all.map((one) => one.textContent)")
    assert [one.split(" ")[0] for one in shown] == names
    assert len(set(shown)) == len(shown)
    assert shown[names.index("twin")] == "twin (colors)", "what its card calls it helps to know it again"
    samples = page.locator("#samples .name")
    assert samples.all_inner_texts() == ["A cat", "An astronaut", "A photographer", "A page of an album"]
    page.select_option("#model", "nuclei")
    assert samples.all_inner_texts() == ["Nuclei"]
    page.select_option("#model", "colors")
    assert samples.count() == 0
    assert page.inner_text("#none").startswith(
        "There is no sample picture here that shows a class of the model"
    )


def test_several_pictures_are_taken_away_together_and_one_is_removed(visit, models, typed, tmp_path):
    paths = [tmp_path / name for name in ("one/p.png", "two/p.png", "q.x.png")]
    picture = np.zeros((40, 60, 3), np.uint8)
    for i, path in enumerate(paths):
        picture[4 * i :, 30:, i] = 255
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
        assert (
            typed(f"segment {path} --model {models['colors']} --out out/{i} --mask red --format labels").code
            == 0
        )
    visit.open(model="colors").drop(*paths)
    page = visit.page
    expect(page.locator("#strip [data-state=done]")).to_have_count(3)
    visit.done()
    page.check("#every")
    assert page.is_disabled("#as-shown")
    name, content = visit.download("[data-format=labels]")
    assert name == "labels.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["p.labels.png", "p-2.labels.png", "q.x.labels.png"]
        for i, entry in enumerate(archive.namelist()):
            written = tmp_path / "out" / str(i) / entry.replace("-2", "")
            assert archive.read(entry) == written.read_bytes()
    page.click("#legend [data-id='1'] .class")
    with zipfile.ZipFile(io.BytesIO(visit.download("#only")[1])) as archive:
        assert archive.namelist() == ["p.red.png", "p-2.red.png", "q.x.red.png"]
        for i, entry in enumerate(archive.namelist()):
            written = tmp_path / "out" / str(i) / entry.replace("-2", "")
            np.testing.assert_array_equal(white(archive.read(entry)), white(written.read_bytes()))
    # What is around a thumbnail is seen too
    strip, current = (page.locator(of).bounding_box() for of in ("#strip", "#strip [aria-current=true]"))
    assert current["y"] + current["height"] + 4 <= strip["y"] + strip["height"] <= 800
    page.click("#strip li:nth-child(1) .remove")
    assert page.inner_text("#title") == "p.png"
    assert page.locator("#strip li").count() == 2
    page.focus("#strip li:nth-child(2) .look")
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("q.x.png")
    assert page.evaluate("document.activeElement.matches('#strip li:nth-child(2) .look')"), "it stays there"
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#title")).to_have_text("p.png")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    expect(page.locator("#title")).to_have_text("p.png")
    assert not page.is_visible("#strip")
    assert not page.is_visible("#every")
    assert page.evaluate("document.activeElement.id") == "canvas"
    # The logo leads to the start, but not without asking
    page.click(".brand")
    page.click("#leave button >> text=Keep it")
    assert page.is_visible("#work")
    page.click(".brand")
    page.click("#leave button >> text=Start again")
    expect(page.locator("#invite")).to_be_visible()


def test_what_is_no_picture_is_answered_with_the_services_sentence(visit, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture at all")
    visit.open().drop(tmp_path / "notes.txt")
    visit.page.wait_for_selector("#problem:not([hidden])")
    said = visit.page.inner_text("#problem p")
    with pytest.raises(ImageKindError) as refused:
        images.read((tmp_path / "notes.txt").read_bytes())
    assert said.removesuffix(".").casefold() == str(refused.value).casefold()
    assert not visit.page.is_visible("#retry"), "the same file would be refused again"
    visit.refused(415)
    visit.choose(SAMPLES / "cat.jpg")
    visit.done()
    assert visit.page.inner_text("#title") == "cat.jpg"


def test_it_fits_a_phone(on_phone):
    visit = on_phone.open()
    assert not visit.overflows()
    visit.page.click("#classes summary")
    assert not visit.overflows()
    visit.page.tap("#samples li:nth-child(2) button")
    visit.done()
    assert not visit.overflows()
    visit.page.tap("#canvas", position={"x": 190, "y": 190})
    assert visit.page.inner_text("#readout b") == "person"
    visit.page.tap("#more summary")
    ends = [visit.page.locator(of).bounding_box() for of in ("#stage", "#more ul")]
    assert ends[0]["y"] + ends[0]["height"] <= ends[1]["y"] <= 844 - 100, "what was opened is in view"
    for one in visit.page.locator("button:visible, summary:visible, select:visible, .modes label").all():
        assert one.bounding_box()["height"] >= 32, "for a finger"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, server, scheme):
    axe_core = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    visit = Visit(browser, server.address, color_scheme=scheme, reduced_motion="reduce").open()
    visit.page.click("#classes summary")
    states = {"first": axe_core.Axe().run(visit.page)}
    visit.drop(ALBUM, SAMPLES / "cat.jpg")
    visit.done()
    expect(visit.page.locator("#strip [data-state=done]")).to_have_count(2)
    visit.page.check("[name=mode][value=compare]")
    visit.page.click("#legend .class")
    visit.page.click("#more summary")
    states["result"] = axe_core.Axe().run(visit.page)
    visit.page.check("[name=mode][value=cutout]")
    visit.page.check("#every")
    visit.page.hover("#strip li:nth-child(2)")
    visit.page.click(".brand")
    states["leaving"] = axe_core.Axe().run(visit.page)
    visit.close()
    found = [
        (state, one["id"], one["impact"], one["nodes"][0]["html"])
        for state, results in states.items()
        for one in results.response["violations"]
    ]
    assert found == []


# Pictures of every kind


@pytest.mark.slow
def test_pictures_are_done_one_after_the_other_and_can_be_looked_at_in_any_order(visit):
    visit.open()
    together: list[int] = []
    running = 0

    def count(change):
        def counted(request):
            nonlocal running
            if "segment?" in request.url:
                running += change
                together.append(running)

        return counted

    visit.page.on("request", count(1))
    visit.page.on("requestfinished", count(-1))
    visit.drop(SAMPLES / "cat.jpg", SAMPLES / "astronaut.jpg", SAMPLES / "photographer.jpg")
    expect(visit.page.locator("#strip [data-state=done]")).to_have_count(3)
    assert max(together) == 1
    assert visit.page.inner_text("#title") == "cat.jpg"
    visit.page.click("#strip li:nth-child(2) .look")
    visit.done()
    assert visit.page.inner_text("#title") == "astronaut.jpg"
    visit.page.fill("#opacity", "0")
    place = (visit.width / 2, visit.height / 2)
    x, y = visit.read(*place)[2:]
    photo = np.asarray(Image.open(SAMPLES / "astronaut.jpg")).astype(int)
    seen = visit.colours(np.array([place[::-1]], int))[0]
    assert abs(seen - photo[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3)).sum(1).min() <= 24
    assert (
        visit.page.get_attribute("#strip [aria-current=true]", "aria-label") == "2 of 3: astronaut.jpg, done"
    )
    name, content = visit.download("[data-format=labels]")
    assert name == "astronaut.labels.png"
    assert Image.open(io.BytesIO(content)).size == (512, 512)
    assert len(together) == 8, "what was segmented is not asked for again when it is looked at"


@pytest.mark.slow
def test_what_was_cancelled_is_gone_and_the_rest_goes_on(visit):
    visit.open()
    held = []

    def hold_one(route):
        if held:
            route.continue_()
        else:
            held.append(route)

    visit.page.route("**/segment?*", hold_one)
    visit.drop(SAMPLES / "cat.jpg", SAMPLES / "astronaut.jpg")
    expect(visit.page.locator("#panel")).to_have_attribute("inert", "")
    visit.page.click("#cancel")
    visit.done()
    assert visit.page.inner_text("#title") == "astronaut.jpg"
    held.clear()
    visit.open().drop(SAMPLES / "cat.jpg")
    visit.page.click("#cancel")
    expect(visit.page.locator("#invite")).to_be_visible()
    assert visit.page.evaluate("document.activeElement.id") == "choose"


def page_has_cutouts(visit: Visit) -> bool:
    return visit.page.locator(".modes label:has([value=cutout])").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["far", "layers", "nuclei", "colors", "commas"])
def test_ids_of_sixteen_bits_regions_and_two_classes(visit, models, model, tmp_path):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20, 30:, 0], picture[20:, :30, 1], picture[20:, 30:] = 255, 255, (255, 0, 200)
    path = SAMPLES / "nuclei.jpg" if model == "nuclei" else tmp_path / "p.png"
    Image.fromarray(picture).save(tmp_path / "p.png")
    visit.open(model=model).drop(path)
    visit.done()
    found = Segmenter(str(models[model]))(path, confidence=True)
    assert visit.page.locator("#legend .name").all_inner_texts() == list(found.areas())
    names = dict(zip(found.classes.ids, found.classes.names, strict=True))
    edge = (visit.width - visit.height * found.labels.shape[1] / found.labels.shape[0]) / 2
    for x, y in ((0.2, 0.2), (0.7, 0.2), (0.3, 0.8), (0.8, 0.9), (0.55, 0.45)):
        name, sure, column, row = visit.read(
            max(20, edge) + x * (visit.width - 2 * max(20, edge)), 30 + y * (visit.height - 60)
        )
        assert name == names[found.labels[row, column]]
        assert abs(float(sure.removesuffix(" % sure")) - 100 * found.confidence[row, column]) <= 0.8
    chosen = list(found.areas())[-1]
    visit.page.click("#legend li:last-child .class")
    _, content = visit.download("[data-format=cutout]")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), found.cutout(chosen))
    _, content = visit.download("#only")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), 255 * found.mask(chosen))
    assert page_has_cutouts(visit) == (model != "layers"), (
        "which the ids alone do not show where regions overlap"
    )
    if model == "commas":
        visit.page.click("#legend li:first-child .add")
        _, content = visit.download("[data-format=cutout]")
        both = found.cutout(chosen, next(iter(found.areas())))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), both)


@pytest.mark.slow
def test_another_model_segments_the_picture_again(visit):
    visit.open(model="colors").drop(SAMPLES / "cat.jpg", ALBUM)
    visit.done()
    expect(visit.page.locator("#strip [data-state=done]")).to_have_count(2)
    visit.page.click("#legend .class")
    visit.page.select_option("#model", "everyday")
    assert not visit.page.is_visible("#every"), "none is of that model yet"
    expect(visit.page.locator("#facts")).to_contain_text("everyday")
    visit.done()
    expect(visit.page.locator("#strip [data-state=done]")).to_have_count(2)
    assert visit.page.inner_text("#every + span") == "All 2 pictures, as a zip"
    assert visit.page.locator("#legend .name").all_inner_texts() == ["cat", "background"]
    assert visit.page.locator("#legend [aria-pressed=true]").count() == 0


@pytest.mark.slow
def test_what_is_ignored_is_said(visit):
    visit.open()
    visit.page.route(
        "**/segment?*", lambda route: route.continue_(url=route.request.url + "&min_confidence=0.9")
    )
    visit.drop(SAMPLES / "astronaut.jpg")
    visit.done()
    assert visit.page.inner_text("#legend li:last-child .name") == "ignored"
    found = Segmenter()(SAMPLES / "astronaut.jpg", min_confidence=0.9)
    seen = set()
    for x, y in [(x, y) for x in np.linspace(0.35, 0.65, 5) for y in (0.1, 0.3, 0.8)]:
        name, sure, column, row = visit.read(x * visit.width, y * visit.height)
        ignored = found.labels[row, column] == 255
        assert (name == "ignored", sure == "") == (ignored, ignored)
        seen.add(ignored)
    assert seen == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["turned.jpg", "rows.tif", "deep.png"])
def test_turned_pictures_and_kinds_that_a_browser_does_not_know(visit, tmp_path, kind):
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[:30, :45, 0], picture[30:, :, 1], picture[:30, 45:, 2] = 230, 240, 250
    path = tmp_path / kind
    if kind == "turned.jpg":  # lies on its side in the file
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(picture)).save(path, quality=95, subsampling=0, exif=exif)
    elif kind == "rows.tif":
        Image.fromarray(picture).save(path)
    else:
        grey = np.full((60, 90), 60000, np.uint16)
        grey[:, 45:] = 200
        Image.fromarray(grey).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PixelwiseWarning)  # which of 16 bits it shows
        expected = Segmenter("everyday")(path).image
    visit.open(model="colors").drop(path)
    visit.done()
    assert "90 × 60" in visit.page.inner_text("#facts")
    visit.page.fill("#opacity", "0")
    drawn = visit.drawn().astype(int)
    for x, y in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        column, row = visit.read(x * visit.width, y * visit.height)[2:]
        assert abs(drawn[round(y * visit.height), round(x * visit.width)] - expected[row, column]).max() <= 6
    visit.download("#as-shown")


@pytest.mark.slow
def test_what_the_service_notes_of_a_picture_is_said(visit, tmp_path):
    pages = [Image.fromarray(np.full((40, 60, 3), value, np.uint8)) for value in (90, 200)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    visit.open(model="colors").drop(tmp_path / "stack.tif", SAMPLES / "cat.jpg")
    visit.done()
    visit.page.click("#strip li:nth-child(1) .look")
    expect(visit.page.locator("#note")).not_to_be_empty()
    with pytest.warns(PixelwiseWarning) as said:
        images.read((tmp_path / "stack.tif").read_bytes())
    note = visit.page.inner_text("#note").removesuffix(".").casefold()
    assert note == str(said[0].message).casefold()
    expect(visit.page.locator("#strip li:first-child .look > canvas")).to_be_visible()  # no mere "TIF"
    visit.page.click("#strip li:nth-child(2) .look")
    visit.done()
    assert not visit.page.is_visible("#note")


@pytest.mark.slow
def test_of_a_very_large_picture_every_id_is_read_and_drawn_exactly(visit, models, tmp_path):
    """24 megapixels, which the page draws at every second pixel, and exactly where it is looked at closely."""
    picture = np.zeros((4000, 6000, 3), np.uint8)
    picture[:, ::500, 0] = 255
    picture[:, 1::500, 0] = 255  # red lines of two pixels, as fine as the model sees
    picture[1980:2020, 2980:3020, 1] = 255
    Image.fromarray(picture).save(tmp_path / "large.png", compress_level=1)
    labels = Segmenter(models["colors"])(tmp_path / "large.png").labels
    visit.open(model="colors").choose(tmp_path / "large.png")
    visit.page.wait_for_selector("#legend li", timeout=60_000)
    visit.done()
    for x, y in ((0.2, 0.3), (0.5, 0.5), (0.77, 0.6)):
        name, _, column, row = visit.read(x * visit.width, y * visit.height)
        assert name == COLORS.names[labels[row, column]]
    visit.page.fill("#opacity", "100")
    visit.page.uncheck("#safe")
    place = (visit.width / 2, visit.height / 2)
    visit.page.mouse.move(visit.left + place[0], visit.top + place[1])
    for _ in range(11):
        visit.page.mouse.wheel(0, -120)
    visit.page.wait_for_timeout(600)  # the part in view is painted when the view rests
    drawn, colours = visit.drawn(), np.array(COLORS.colors)
    for dx in range(-200, 200, 21):
        _, _, column, row = visit.read(place[0] + dx, place[1] + 60)
        assert (drawn[round(place[1] + 60), round(place[0] + dx)] == colours[labels[row, column]]).all()
    assert int(visit.page.inner_text("#scale").removesuffix(" %")) > 150
    assert {tuple(c) for c in drawn.reshape(-1, 3)} >= {(255, 0, 0), (0, 255, 0)}


# What goes wrong


@pytest.mark.slow
def test_a_busy_service_is_asked_again_and_a_silent_one_is_named(visit):
    visit.open()
    answers = iter([429, 429])

    def busy(route):
        if (status := next(answers, None)) is None:
            route.continue_()
        else:
            body = {"error": {"code": "busy", "message": "as many requests wait as may", "request_id": "x"}}
            route.fulfill(status=status, json=body, headers={"Retry-After": "1"})

    visit.page.route("**/segment?*", busy)
    visit.drop(SAMPLES / "cat.jpg")
    expect(visit.page.locator("#doing")).to_contain_text("busy, next try in 1 s")
    visit.done()
    visit.refused(429, 429)
    visit.context.set_offline(True)
    visit.drop(SAMPLES / "astronaut.jpg")
    expect(visit.page.locator("#problem p")).to_contain_text("does not answer")
    visit.page.click("#strip li:first-child .look")
    visit.page.click("[data-format=labels]")
    expect(visit.page.locator("#toast")).to_contain_text("does not answer")
    visit.context.set_offline(False)
    visit.page.click("#strip li:nth-child(2) .look")
    visit.page.click("#retry")
    visit.done()
    assert all("ERR_INTERNET_DISCONNECTED" in line for line in visit.said)
    visit.said.clear()


@pytest.mark.slow
def test_what_takes_long_is_said_to_and_the_first_picture_to_take_longest(visit):
    visit.page.add_init_script("""{
        const { send } = XMLHttpRequest.prototype; // sent, and the answer held back
        window.held = [];
        XMLHttpRequest.prototype.send = function (body) {
            this.upload.dispatchEvent(new Event("load"));
            held.push(() => send.call(this, body));
        };
    }""")
    visit.page.clock.install()
    visit.open(model="colors")
    doing = visit.page.locator("#doing")
    visit.drop(SAMPLES / "cat.jpg")
    expect(doing).to_have_text("Finding the classes")
    visit.page.clock.fast_forward(20_000)
    longest = ". The first picture of a model takes longest."
    expect(doing).to_have_text(re.compile(rf"^Still at work, \d+ s{re.escape(longest)}$"))
    visit.page.evaluate("held.pop()()")
    visit.done()
    visit.drop(SAMPLES / "astronaut.jpg")
    expect(doing).to_have_text("Finding the classes")
    visit.page.clock.fast_forward(20_000)
    expect(doing).to_have_text(re.compile(r"^Still at work, \d+ s$"))
    visit.page.evaluate("held.pop()()")
    expect(visit.page.locator("#strip [data-state=done]")).to_have_count(2)


@pytest.mark.slow
def test_what_is_removed_while_it_is_segmented_stays_away(visit):
    visit.open(model="colors")
    held = []
    visit.page.route("**/segment?*", lambda route: route.continue_() if held else held.append(route))
    visit.drop(SAMPLES / "cat.jpg", SAMPLES / "astronaut.jpg", SAMPLES / "photographer.jpg")
    expect(visit.page.locator("#strip [data-state=working]")).to_have_count(1)
    visit.page.hover("#strip li:nth-child(3)")
    visit.page.click("#strip li:nth-child(3) .remove")  # it waits
    visit.page.click("#strip li:nth-child(1) .remove")  # it is at work
    visit.done()
    assert visit.page.inner_text("#title") == "astronaut.jpg"
    assert not visit.page.is_visible("#strip")


@pytest.mark.slow
def test_a_picture_that_fails_is_missing_in_the_archive_and_named(visit):
    visit.open(model="colors").drop(SAMPLES / "cat.jpg", SAMPLES / "astronaut.jpg")
    expect(visit.page.locator("#strip [data-state=done]")).to_have_count(2)
    answers = iter([422])

    def once(route):
        if status := next(answers, None):
            body = {"error": {"code": "x", "message": "it went wrong", "request_id": "x"}}
            route.fulfill(status=status, json=body)
        else:
            route.continue_()

    visit.page.route("**/segment?*", once)
    visit.page.check("#every")
    _, content = visit.download("[data-format=labels]")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["astronaut.labels.png"]
    assert visit.page.inner_text("#toast") == "cat.jpg: It went wrong."
    visit.refused(422)


@pytest.mark.slow
def test_a_token_is_asked_for_once_and_what_is_too_large_is_not_sent(browser, tmp_path):
    (tmp_path / "token").write_text("open-sesame\n")
    running = Server(tmp_path, "--token-file", str(tmp_path / "token"), "--max-mb", "0.06")
    visit = Visit(browser, running.address)
    page = visit.page
    page.goto(running.address)
    expect(page.locator("#token")).to_be_visible()
    page.click("#token button >> text=Not now")
    expect(page.locator("#trouble")).to_contain_text("those who have its token")
    page.click("#trouble button")
    page.fill("#secret", "guess")
    page.keyboard.press("Enter")
    expect(page.locator("#token-why")).to_contain_text("not accepted")
    page.fill("#secret", "open-sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#samples img")
    visit.refused(401, 401, 401)
    page.click("#programs summary")
    assert "Bearer TOKEN" in page.inner_text("#programs pre")
    assert json.loads(visit.download("#api")[1])["openapi"]
    visit.drop(SAMPLES / "cat.jpg")
    visit.done()
    assert visit.download("[data-format=labels]")[0] == "cat.labels.png"
    page.reload()
    page.wait_for_selector("#samples img")
    assert not page.is_visible("#token")
    sent = len(visit.asked)
    visit.drop(ALBUM)
    expect(page.locator("#problem p")).to_have_text(
        re.compile("^The picture has 0.1 MB, more than the 0.1 MB ")
    )
    assert not [url for url in visit.asked[sent:] if "segment" in url]
    visit.close()
    running.end()


@pytest.mark.slow
def test_a_service_that_ends_is_named(browser, tmp_path):
    running = Server(tmp_path)
    visit = Visit(browser, running.address).open()
    running.end()
    visit.drop(SAMPLES / "cat.jpg")
    expect(visit.page.locator("#problem p")).to_contain_text("does not answer")
    visit.page.goto("about:blank")
    visit.said.clear()
    visit.close()


# Ways in, and settings


@pytest.mark.slow
def test_pictures_can_be_pasted_and_addresses_cannot(visit):
    visit.open()
    paste = """([text, bytes]) => {
        const clipboardData = new DataTransfer();
        if (text) clipboardData.setData("text", text);
        else clipboardData.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
        document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
    }"""
    visit.page.evaluate(paste, ["https://example.org/cat.jpg", []])
    expect(visit.page.locator("#toast")).to_contain_text("fetches nothing")
    file = io.BytesIO()
    Image.open(SAMPLES / "cat.jpg").save(file, "PNG")
    visit.page.evaluate(paste, ["", list(file.getvalue())])
    visit.done()
    assert visit.page.inner_text("#legend li:first-child .name") == "cat"


@pytest.mark.slow
def test_settings_are_kept_and_motion_is_left_out_where_it_is_not_wanted(browser, server):
    visit = Visit(browser, server.address, reduced_motion="reduce", color_scheme="light").open()
    page = visit.page
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.click("#theme")
    dark = page.evaluate(paper)
    assert light != dark
    visit.drop(SAMPLES / "cat.jpg")
    visit.done()
    page.uncheck("#safe")
    assert page.evaluate("document.getAnimations().filter((one) => one.playState === 'running').length") == 0
    visit.open()
    assert page.evaluate(paper) == dark
    assert not page.is_checked("#safe")
    page.click("#theme")
    assert page.evaluate(paper) == light
    visit.close()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_commands_that_the_page_shows_work_as_they_are_typed(visit, tmp_path):
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "photo.jpg")
    visit.open(model="colors")
    visit.page.click("#programs summary")
    lines = visit.page.inner_text("#programs pre").splitlines()
    assert len(lines) == 3
    for line in lines:
        subprocess.run(shlex.split(line) + ["-sS", "--fail"], cwd=tmp_path, check=True)
    assert ids_of(tmp_path / "photo.labels.png").shape == ids_of(SAMPLES / "cat.jpg").shape[:2]
    names = {one["name"] for one in json.loads((tmp_path / "photo.json").read_text())["classes"]}
    assert names <= set(COLORS.names)


@pytest.mark.slow
def test_it_holds_with_letters_of_twice_the_size(browser, server, tmp_path):
    (tmp_path / "Default").mkdir()
    preferences = {"webkit": {"webprefs": {"default_font_size": 32}}}
    (tmp_path / "Default/Preferences").write_text(json.dumps(preferences))
    window = {"width": 768, "height": 1024}
    context = browser.browser_type.launch_persistent_context(
        tmp_path, executable_path=CHROMIUM, args=["--no-sandbox"], viewport=window
    )
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_selector("#samples img")
    assert page.evaluate("getComputedStyle(document.documentElement).fontSize") == "32px"
    page.set_input_files("#files", ALBUM)
    page.wait_for_selector("#legend li")
    assert page.evaluate("document.documentElement.scrollWidth") <= 768
    boxes = [page.locator(of).bounding_box() for of in (".brand", "#model", "#again", "#theme")]
    for left, right in pairwise(boxes):
        assert left["x"] + left["width"] <= right["x"], "nothing lies over anything"
    last = page.locator(".modes label:has([value=cutout])").bounding_box()
    assert last["x"] + last["width"] <= 768
    context.close()


@pytest.mark.slow
def test_nothing_sticks_out_at_any_width(visit, tmp_path):
    sizes = [(360, 640), (768, 1024), (844, 390), (1280, 720), (2200, 1200)]
    visit.open()
    for width, height in sizes:
        visit.page.set_viewport_size({"width": width, "height": height})
        assert not visit.overflows()
    long = tmp_path / ("a_name_without_any_place_to_break_it_" * 4 + ".jpg")
    shutil.copy(ALBUM, long)
    visit.drop(long, SAMPLES / "cat.jpg")
    for width, height in sizes:
        visit.page.set_viewport_size({"width": width, "height": height})
        visit.done()
        assert visit.height > 150
        for selector in ("#zoom", "#title", "[name=mode] >> nth=0", "#theme", "#again"):
            box = visit.page.locator(selector).bounding_box()
            assert 0 <= box["x"] <= width - box["width"]
        visit.page.click("#more summary")
        visit.page.locator("[data-format=geotiff]").scroll_into_view_if_needed()
        assert not visit.overflows()
        visit.page.click("#more summary")
