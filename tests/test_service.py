"""The service in this process: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import io
import json
import logging
import re
import struct
import sys
import tempfile
import threading
import warnings
import weakref
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from pixelwise import LabelSet, Segmentation, Segmenter, images
from pixelwise.errors import InputError
from pixelwise.outputs.formats import FORMATS
from pixelwise.service import Limits, answers, create_app, logs
from pixelwise.service.app import _asked
from pixelwise.service.notes import keep_notes
from pixelwise.service.refusals import Refused
from serving import PATIENCE_S, ask, client, encoded, error_of, gated, limits, png, until, unzipped
from tiny import CARD, write_colors_model

ONE = limits(workers=1, queue=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The tiny model, of whose classes one is the background."""
    labels = LabelSet.of(["background", "red", "green", "blue"], colors=CARD.labels.colors)
    path = tmp_path_factory.mktemp("service") / "colors.onnx"
    return write_colors_model(path, CARD.replace(labels=labels))


@pytest.fixture(scope="module")
def app(model):
    return create_app(Segmenter(model), limits(workers=2))


@cache
def everyday() -> Segmenter:
    return Segmenter()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def pictures() -> dict[str, bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "photo.jpg": encoded(noise(45, 60, 3), "JPEG", quality=90),
        "turned.jpg": encoded(noise(45, 60, 3), "JPEG", quality=90, exif=turned),
        "grey.png": encoded(noise(33, 50), "PNG"),
    }


# Answers ------------------------------------------------------------------------------------------------------------


def test_every_format_is_what_the_command_writes_byte_for_byte(app, model, typed):
    given = pictures()
    Path("in").mkdir()
    for name, content in given.items():
        Path("in", name).write_bytes(content)
    assert typed(f"segment in --model {model} --out out --format {','.join(FORMATS)}").code == 0
    for name, content in given.items():
        files = unzipped(
            ask(
                app, "POST", f"/segment?format={','.join(FORMATS)}", files={"picture": (name, content)}
            ).content
        )
        written = {path.name: path.read_bytes() for path in Path("out").glob(f"{Path(name).stem}.*")}
        assert files.keys() == written.keys()
        assert len(files) == len(FORMATS)
        for file in files:
            assert files[file] == written[file], file
        for format in FORMATS if name == "photo.jpg" else ("labels", "geojson"):
            alone = ask(app, "POST", f"/segment?format={format}", content=content)
            assert alone.status_code == 200
            assert alone.content == files[f"{Path(name).stem}{FORMATS[format].ending}"]
            assert (
                alone.headers["content-disposition"]
                == f'attachment; filename="picture{FORMATS[format].ending}"'
            )
        assert typed(f"segment in/{name} --model {model} --out {name}.overlay.jpg").code == 0
        overlay = ask(app, "POST", "/segment", content=content, headers={"Accept": "image/jpeg"})
        assert overlay.content == Path(f"{name}.overlay.jpg").read_bytes()
        assert overlay.headers["content-type"] == "image/jpeg"


def test_what_belongs_to_a_format_alone_is_what_saving_writes(app, model, tmp_path):
    content = pictures()["photo.jpg"]
    found = Segmenter(model)(content)
    for query, format, how in (
        ("format=cutout&names=red,blue", "cutout", {"names": ["red", "blue"]}),
        ("format=geojson&simplify_px=2", "geojson", {"simplify_px": 2}),
    ):
        path = found.save(tmp_path / f"a{FORMATS[format].ending}", format=format, **how)
        assert ask(app, "POST", f"/segment?{query}", content=content).content == path.read_bytes()
    sentence = error_of(ask(app, "POST", "/segment?names=red", content=content), 422, "invalid")
    assert sentence == "names is for format 'cutout', got format 'labels'"


def test_how_to_segment_is_as_typed(app, model):
    content = png(noise(64, 200, 3))
    for query, how in (
        ("tile=64&overlap=0.25", {"tile": 64, "overlap": 0.25}),
        ("tile=64&overlap=16", {"tile": 64, "overlap": 16}),
        ("min_area=40", {"min_area": 40}),
        ("min_confidence=0.3", {"min_confidence": 0.3}),
        ("fill_holes=red,blue&largest_only=green", {"fill_holes": ["red", "blue"], "largest_only": "green"}),
        ("flip=horizontal,vertical", {"flips": ["horizontal", "vertical"]}),
        ("fill_holes=red&fill_holes=blue,red&crf=off", {"fill_holes": ["red", "blue"]}),
        ("crf=vgg", {"crf": "vgg"}),
    ):
        found = ask(app, "POST", f"/segment?{query}", content=content)
        assert found.content == Segmenter(model)(content, **how).to_bytes("labels"), query


@pytest.mark.slow
def test_a_segmenter_gives_equal_answers_from_several_threads():
    segmenter = Segmenter()
    given = [noise(120 + 10 * i, 160, 3) for i in range(6)]
    given = [np.asarray(Image.fromarray(one).resize((200, 150), 0)) for one in given]
    alone = [segmenter(one, confidence=True) for one in given]
    segmenter.engine.share()
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda one: segmenter(one, confidence=True), given * 3))
    for i, found in enumerate(together):
        np.testing.assert_array_equal(found.labels, alone[i % 6].labels)
        np.testing.assert_array_equal(found.confidence, alone[i % 6].confidence)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("", "image/png"),
        ("image/*", "image/png"),
        ("application/json", "application/json"),
        ("application/geo+json", "application/geo+json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("application/zip", "application/zip"),
        ("text/html, application/json;q=0.4, image/jpeg;q=0.6, */*;q=0.1", "image/jpeg"),
        ("*/*, application/json", "application/json"),
        ("image/png;q=0, application/*", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("image/png;q=x, text/csv;q=0.1", "text/csv; charset=utf-8"),
    ],
)
def test_the_type_that_is_accepted_decides_where_no_format_is_named(accept, kind, app):
    found = ask(app, "POST", "/segment", content=png(), headers={"Accept": accept})
    assert (found.status_code, found.headers["content-type"]) == (200, kind)
    named = ask(app, "POST", "/segment?format=ids", content=png(), headers={"Accept": accept})
    assert named.headers["content-type"] == "image/png"
    assert named.content == ask(app, "POST", "/segment?format=ids", content=png()).content


def test_types_that_there_are_not_are_refused(app):
    for accept in ("text/html", "image/png;q=0", "x"):
        found = ask(app, "POST", "/segment", content=png(), headers={"Accept": accept})
        assert "none of image/png, application/json" in error_of(found, 406, "not_acceptable")


def test_each_format_has_a_type():
    for format in FORMATS.values():
        assert answers.type_of(format.ending)


def test_several_pictures_come_in_an_archive_and_one_that_fails_does_not_stop_the_rest(app):
    names = ["a.png", "A.jpg", "../../b.png", "c:\\d.png", "", "..", "é/ü .png", "a.tar.png", "a-2.png"]
    files = [("picture", (name or "x", png() if i != 3 else b"no picture")) for i, name in enumerate(names)]
    found = ask(app, "POST", "/segment?format=ids,json", files=files)
    assert found.headers["content-type"] == "application/zip"
    assert found.headers["x-pixelwise-failed"] == "1"
    inside = unzipped(found.content)
    stems = ["a", "A-2", "b", "d", "x", "_.", "ü ", "a.tar", "a-2-2"]
    expected = [f"{stem}{end}" for stem in stems if stem != "d" for end in (".ids.png", ".json")]
    assert sorted(inside) == sorted([*expected, "d.error.json"])
    error = json.loads(inside["d.error.json"])["error"]
    assert (error["code"], error["request_id"]) == ("not_a_picture", found.headers["x-request-id"])
    assert inside["a.ids.png"] == ask(app, "POST", "/segment?format=ids", content=png()).content
    assert ask(app, "POST", "/segment?format=ids,json", files=files).content != b""


@pytest.mark.parametrize(
    ("names", "formats", "expected"),
    [
        (("x.png", "x.coco.png"), "json,coco", "x.json x.coco.json x.coco-2.json x.coco-2.coco.json"),
        (("x.polygons.png", "x.png"), "json,coco-polygons",
         "x.polygons.json x.polygons.polygons.json x-2.json x-2.polygons.json"),
        (("x.png", "X.error.png"), "json", "x.error.json X.error-2.json"),
    ],
)  # fmt: skip
def test_no_two_results_in_an_archive_have_one_name(names, formats, expected, app):
    contents = [b"no picture" if "x.error.json" in expected else png(), png()]
    files = [("picture", one) for one in zip(names, contents, strict=True)]
    found = ask(app, "POST", f"/segment?format={formats}", files=files)
    with zipfile.ZipFile(io.BytesIO(found.content)) as archive:
        assert sorted(archive.namelist()) == sorted(expected.split())


@pytest.mark.parametrize("name", ["模型", "line\nbreak", "a b%", "owner/name-1.0_x"])
def test_a_model_may_have_any_name_and_a_failing_answer_keeps_no_place(name, model, monkeypatch):
    app = create_app({name: Segmenter(model)}, ONE)
    for _ in range(3):
        found = ask(app, "POST", "/segment", content=png(), params={"model": name})
        assert found.status_code == 200
        assert unquote(found.headers["x-pixelwise-model"]) == name
    assert name != "owner/name-1.0_x" or found.headers["x-pixelwise-model"] == name
    monkeypatch.setattr("pixelwise.service.app.printable", lambda text: 1 / 0)
    monkeypatch.setattr("pixelwise.service.app.quote", lambda text: 1 / 0)
    for _ in range(3):
        assert error_of(ask(app, "POST", "/segment", content=png()), 500, "failed")


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "utf-16", "rot13", "base64", "none"])
def test_a_form_may_say_that_its_names_are_in_any_charset(charset, app):
    body = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="\xff.png"\r\n\r\n'
    head = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    found = ask(app, "POST", "/segment", content=body + png() + b"\r\n--x--\r\n", headers=head)
    assert found.status_code in (200, 400, 422), found.text


def test_what_nobody_foresaw_of_one_picture_is_its_entry_alone(model, monkeypatch, caplog):
    app = create_app(Segmenter(model), ONE)
    whole = Segmentation.to_bytes
    monkeypatch.setattr(
        "pixelwise.segmentation.Segmentation.to_bytes",
        lambda self, *given, **more: whole(self, *given, **more) if self.labels.shape[0] > 30 else 1 / 0,
    )
    files = [("picture", (name, png(noise(h, 50, 3)))) for name, h in (("a.png", 40), ("b.png", 30))]
    found = ask(app, "POST", "/segment?format=ids", files=files)
    inside = unzipped(found.content)
    assert (found.status_code, sorted(inside)) == (200, ["a.ids.png", "b.error.json"])
    assert json.loads(inside["b.error.json"])["error"]["code"] == "failed"
    failed = [json.loads(logs.Lines().format(one)) for one in caplog.records if one.levelname == "ERROR"]
    assert [one["id"] for one in failed] == [found.headers["x-request-id"]]
    assert "ZeroDivisionError" in failed[0]["traceback"]


def test_an_archive_is_stored_and_the_same_each_time(app):
    first, second = (ask(app, "POST", "/segment?format=ids,csv", content=png()).content for _ in range(2))
    assert first == second
    assert png(np.zeros((2, 2, 3), np.uint8))  # a form of one picture is one picture
    alone = ask(app, "POST", "/segment?format=ids", files={"picture": ("é.png", png())})
    assert alone.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A9.ids.png"


def test_models_and_labels_are_listed(model):
    app = create_app({"first": Segmenter(model), "everyday": Segmenter()}, limits(workers=1))
    listed = ask(app, "GET", "/models").json()
    assert listed["default"] == "first"
    assert [one["name"] for one in listed["models"]] == ["first", "everyday"]
    assert listed["models"][0]["classes"][1] == {"id": 1, "name": "red", "color": [255, 0, 0]}
    assert listed["models"][0]["title"] == "colors"
    assert listed["models"][1] | {"classes": []} == {
        "name": "everyday", "title": "everyday", "classes": [], "ignore_id": 255, "outputs": "exclusive",
        "engine": "onnxruntime", "precision": "float32", "confidence": True, "licence": "Apache-2.0",
        "parameters": Segmenter().card.parameters,
    }  # fmt: skip
    labels = ask(app, "GET", "/labels", params={"model": "everyday"}).json()
    assert (labels["model"], len(labels["classes"])) == ("everyday", 21)
    assert ask(app, "GET", "/labels").json()["model"] == "first"
    for name in ("first", "everyday"):
        found = ask(app, "POST", f"/segment?model={name}", content=png())
        assert found.headers["x-pixelwise-model"] == name
        expected = Segmenter(model) if name == "first" else Segmenter()
        assert found.content == expected(png()).to_bytes("labels")
    sentence = error_of(ask(app, "POST", "/segment?model=evryday", content=png()), 422, "invalid")
    assert sentence == "Unknown model 'evryday'; did you mean 'everyday'?"


def test_a_picture_too_large_for_the_memory_is_tiled_and_that_is_said(model):
    segmenter, content = Segmenter(model), png(noise(700, 900, 3))
    app = create_app(segmenter, limits(workers=1, max_memory=600 * 600 * 4096))
    found = ask(app, "POST", "/segment", content=content)
    assert found.headers["x-pixelwise-note"].startswith("the network was shown tiles of 512 pixels")
    assert found.content == segmenter(content, tile=512).to_bytes("labels")
    small = ask(app, "POST", "/segment", content=png())
    assert "x-pixelwise-note" not in small.headers
    sentence = error_of(ask(app, "POST", "/segment?tile=1024", content=png()), 413, "too_large")
    assert "shown 1024 x 1024 pixels at once" in sentence


def test_what_is_said_of_a_picture_goes_to_its_sender(model, monkeypatch):
    monkeypatch.setattr("warnings.showwarning", lambda *_: pytest.fail("said to nobody"))
    app = create_app(Segmenter(model), limits(workers=2))
    deep = encoded((noise(20, 30).astype(np.uint16) << 8), "PNG")
    moving = encoded(
        noise(20, 30, 3), "GIF", save_all=True, append_images=[Image.fromarray(noise(20, 30, 3) // 2)]
    )
    with warnings.catch_warnings():
        keep_notes()
        for _ in range(2):
            said = [
                ask(app, "POST", "/segment", content=one).headers.get("x-pixelwise-note", "")
                for one in (deep, moving, png())
            ]
            assert images.UNSTATED in said[0]
            assert "holds more than one picture; the first is used" in said[1]
            assert said[2] == ""


def test_each_of_many_at_a_time_is_said_what_is_to_be_said(model):
    app = create_app(Segmenter(model), limits(workers=4))
    deep = encoded((noise(20, 30).astype(np.uint16) << 8), "PNG")
    at_once = threading.Barrier(4)

    async def talk():
        async with client(app) as asking:
            return await asyncio.gather(*(asking.post("/segment", content=deep) for _ in range(24)))

    before = images._say_once

    def say(sentence):
        with contextlib.suppress(threading.BrokenBarrierError):
            at_once.wait(0.2)
        before(sentence)
        with contextlib.suppress(threading.BrokenBarrierError):
            at_once.wait(0.2)

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patched:
        keep_notes()
        patched.setattr("pixelwise.images._say_once", say)
        found = asyncio.run(talk())
    assert [images.UNSTATED in one.headers.get("x-pixelwise-note", "") for one in found] == [True] * 24


# Refusals -----------------------------------------------------------------------------------------------------------


def test_addresses_and_methods_that_there_are_not_are_refused_in_our_shape(app):
    assert error_of(ask(app, "GET", "/segmnt"), 404, "not_found").startswith("there is no such address")
    assert error_of(ask(app, "GET", "/samples/..%2fapp.py"), 404, "not_found")
    for path in ("/docs", "/segment/", "/models/"):
        assert error_of(ask(app, "GET", path), 404, "not_found")
    found = ask(app, "GET", "/segment")
    assert error_of(found, 405, "wrong_method") == "this address takes POST"
    assert found.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("formt=ids", "Unknown parameter 'formt'; did you mean 'format'?"),
        ("format=idz", "Unknown format 'idz'; did you mean 'ids'?"),
        ("format=", "Unknown format ''"),
        ("format=ids&format=json", "parameter format is given twice; join its values with commas"),
        ("tile=x", "tile: input should be a valid integer"),
        ("tile=1", "tile: input should be greater than or equal to 64, got '1'"),
        ("tile=64&overlap=0.75", "overlap is at most half of a tile, got 0.75"),
        ("tile=64&overlap=40", "overlap is at most half of a tile, got 40"),
        ("tile=64&overlap=nan", "overlap: input should be a finite number"),
        ("simplify_px=inf&format=geojson", "simplify_px: input should be a finite number"),
        ("crf=x", "crf: input should be 'off', 'vgg' or 'resnet', got 'x'"),
        ("flip=diagonal", "diagonal"),
        ("flips=horizontal", "Unknown parameter 'flips'; did you mean 'flip'?"),
        ("tile=auto", "what takes too much memory is tiled also without it, got auto"),
        ("overlap=0.25", "overlap is of tiles; ask for them as well, such as tile=512"),
        ("tile=64&overlap=20.5", "overlap is a whole number of pixels, or a share up to 0.5, got 20.5"),
        ("model=colors&model=colors", "parameter model is given twice; give it once"),
        ("min_confidence=2", "min_confidence: input should be less than or equal to 1"),
        ("fill_holes=rde", "Unknown class 'rde'; did you mean 'red'?"),
        ("format=cutout&names=rde", "Unknown class 'rde'; did you mean 'red'?"),
        ("names=red", "names is for format 'cutout'"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused_in_one_sentence(query, says, app):
    assert says in error_of(ask(app, "POST", f"/segment?{query}", content=png()), 422, "invalid")


def test_what_is_no_picture_is_refused_by_what_is_in_it(app):
    for content, status, code, says in (
        (b"", 422, "bad_picture", "is empty"),
        (b"hello", 415, "not_a_picture", "is not a picture"),
        (b"%PDF-1.7 and so on", 415, "not_a_picture", "is a PDF"),
        (png(noise(40, 60, 3))[:4000], 422, "bad_picture", "damaged or cut short"),
        (pictures()["photo.jpg"][:900], 422, "bad_picture", "damaged or cut short"),
    ):
        for kind in (
            "image/png",
            "application/octet-stream",
            "application/x-www-form-urlencoded",
            "image/jpeg",
        ):
            found = ask(app, "POST", "/segment", content=content, headers={"Content-Type": kind})
            assert says in error_of(found, status, code)
    for kind in ("text/html", "application/json", "multipart/mixed"):
        found = ask(app, "POST", "/segment", content=png(), headers={"Content-Type": kind})
        assert repr(kind) in error_of(found, 415, "not_a_picture")
    found = ask(app, "POST", "/segment", content=png(), headers={"Content-Encoding": "gzip"})
    assert "without Content-Encoding" in error_of(found, 415, "encoded")


def test_what_curl_sends_with_d_is_told_from_a_file(app):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    spoilt = png().replace(b"\r", b"").replace(b"\n", b"")
    for content, is_spoilt in ((spoilt, True), (png(), False)):
        found = ask(app, "POST", "/segment", content=content, headers=form)
        if is_spoilt:
            assert "--data-binary @FILE" in error_of(found, 415, "not_a_picture")
        else:
            assert found.status_code == 200
    assert "curl" not in error_of(ask(app, "POST", "/segment", content=spoilt), 415, "not_a_picture")


def test_a_picture_of_a_phone_that_cannot_be_read_here_is_no_fault_of_its_sender(app, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)
    sentence = error_of(ask(app, "POST", "/segment", content=heic), 501, "not_installed")
    assert sentence.endswith("send it as JPEG or PNG")
    assert "pip" not in sentence


def test_where_all_of_several_pictures_fail_that_is_no_success(app):
    files = [("picture", (name, b"no picture")) for name in ("a.png", "b.png")]
    found = ask(app, "POST", "/segment", files=files)
    assert (found.status_code, found.headers["x-pixelwise-failed"]) == (422, "2")
    assert sorted(unzipped(found.content)) == ["a.error.json", "b.error.json"]


def slow_pictures() -> dict[str, bytes]:
    """Of 1,200,000 pixels, and decoded by Pillow in Python."""
    grey = noise(1000, 1200)
    lines = b"\0\0" * 1000  # each ends at once
    head = struct.pack("<IiiHHIIiiII", 40, 1200, 1000, 1, 8, 1, len(lines), 0, 0, 256, 0) + bytes(1024)
    bitmap = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(lines), 0, 0, 14 + len(head)) + head + lines
    return {
        "of 100 greys": b"P5 1200 1000 99\n" + (grey // 3).tobytes(),
        "in letters": b"P2 1200 1000 255\n" + b"7 " * grey.size,
        "run lengths": bitmap,
        "QOI": b"qoif" + struct.pack(">IIBB", 1200, 1000, 3, 0) + b"\xfd" * 20_000,
    }


@pytest.mark.parametrize("kind", slow_pictures())
def test_large_pictures_that_are_decoded_slowly_are_not_decoded(kind, app, monkeypatch):
    for name in ("PIL.Image.Image.load", "PIL.ImageFile.ImageFile.load"):
        monkeypatch.setattr(name, lambda self: pytest.fail("decoded"))
    sentence = error_of(ask(app, "POST", "/segment", content=slow_pictures()[kind]), 413, "too_large")
    assert "decoded slowly, of which at most 1,000,000 pixels are taken, got 1,200,000" in sentence


def test_small_pictures_that_are_decoded_slowly_are_answered(app):
    content = b"P5 60 40 99\n" + (noise(40, 60) // 3).tobytes()
    assert ask(app, "POST", "/segment", content=content).status_code == 200


def test_borders_without_end_are_not_outlined(app, monkeypatch):
    monkeypatch.setattr("pixelwise.service.app.MAX_OUTLINE_PX", 200)
    noisy = png(noise(60, 60, 3) // 200 * 255)
    for format in ("geojson", "labels,coco-polygons"):
        found = ask(app, "POST", f"/segment?format={format}", content=noisy)
        assert "pixels long, and at most 200 are outlined here" in error_of(found, 413, "too_large")
        assert ask(app, "POST", f"/segment?format={format}", content=png()).status_code == 200
    assert ask(app, "POST", "/segment", content=noisy).status_code == 200


def test_classes_may_have_commas_in_their_names(tmp_path):
    labels = LabelSet.of(["background", "red", "green", "b,lue"], colors=CARD.labels.colors)
    segmenter = Segmenter(write_colors_model(tmp_path / "commas.onnx", CARD.replace(labels=labels)))
    app, found = create_app(segmenter, ONE), segmenter(png())
    for query, names in (
        ("names=b,lue", ["b,lue"]),
        ("names=b,lue&names=red,green&names=red", labels.names[1:]),
    ):
        answer = ask(app, "POST", f"/segment?format=cutout&{query}", content=png())
        assert answer.content == found.to_bytes("cutout", names=[*names])
    answer = ask(app, "POST", "/segment?fill_holes=b,lue&largest_only=b,lue", content=png())
    assert answer.content == segmenter(png(), fill_holes="b,lue", largest_only="b,lue").to_bytes("labels")


def test_a_name_many_times_is_a_name_once():
    asked = _asked(fill_holes=["b,b", *["b"] * 1000], largest_only=["a,a", "b"]).of(LabelSet.of(["a", "b"]))
    assert (asked.options.fill_holes, asked.options.largest_only) == (("b",), ("a", "b"))


def test_a_raster_is_refused_with_who_takes_it(app, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    profile = {
        "driver": "GTiff",
        "height": 30,
        "width": 40,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32633",
    }
    with rasterio.open(
        tmp_path / "a.tif", "w", **profile, transform=rasterio.Affine(2, 0, 5, 0, -2, 9)
    ) as file:
        file.write(noise(3, 30, 40))
    found = ask(app, "POST", "/segment", content=(tmp_path / "a.tif").read_bytes())
    assert "`pixelwise segment` takes it" in error_of(found, 415, "not_a_picture")
    assert ask(app, "POST", "/segment", content=encoded(noise(30, 40, 3), "TIFF")).status_code == 200


def test_forms_that_are_none_are_refused(app):
    sentence = error_of(ask(app, "POST", "/segment", files={"image": ("a.png", png())}), 422, "bad_form")
    assert "files in parts named 'picture'" in sentence
    assert "got another name" in sentence
    found = ask(app, "POST", "/segment", files={"x": ("a.png", png())}, data={"picture": "a"})
    assert error_of(found, 422, "bad_form")
    for content, kind, status in (
        (b"", "multipart/form-data; boundary=x", 400), (b"--x--\r\n", "multipart/form-data; boundary=x", 422),
        (b"--x\r\nno", "multipart/form-data; boundary=x", 400), (png(), "multipart/form-data", 400),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", "multipart/form-data; boundary=x", 400),
    ):  # fmt: skip
        assert error_of(
            ask(app, "POST", "/segment", content=content, headers={"Content-Type": kind}), status, "bad_form"
        )


def counted(content: bytes, read: list[int], step: int = 1000):
    async def parts():
        for start in range(0, len(content), step):
            read.append(step)
            yield content[start : start + step]

    return parts()


def test_bytes_are_counted_and_what_declares_too_many_is_not_read(model):
    app = create_app(Segmenter(model), limits(workers=1, max_bytes=5000))
    read: list[int] = []
    head = {"Content-Length": "5001"}
    found = ask(app, "POST", "/segment", content=counted(b"x" * 5001, read), headers=head)
    assert "at most 5,000 bytes, got 5,001" in error_of(found, 413, "too_large")
    assert read == [] or len(read) <= 1
    read.clear()
    found = ask(app, "POST", "/segment", content=counted(b"x" * 1_000_000, read))
    assert error_of(found, 413, "too_large")
    big = ask(app, "POST", "/segment", files=[("picture", ("a.png", b"x" * 3000))] * 2)
    assert error_of(big, 413, "too_large")
    assert ask(app, "POST", "/segment", content=png()).status_code == 200
    assert ask(app, "GET", "/ready").status_code == 200


def test_no_kind_of_picture_is_decoded_to_learn_its_size(model, monkeypatch):
    """An icon would be: it says 16 x 16 and holds a picture of any size."""
    picture = png(noise(1000, 1000, 3))
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture
    small = create_app(
        Segmenter(write_colors_model(Path("colors.onnx"))), limits(workers=1, max_pixels=10_000)
    )
    files = {"ICO": icon}
    for kind in images.DECODERS:
        with contextlib.suppress(OSError, KeyError, ValueError):  # kinds that Pillow only reads
            files[kind] = encoded(noise(110, 110, 3), kind)
    assert len(files) > 10
    for name in ("PIL.Image.Image.load", "PIL.ImageFile.ImageFile.load"):
        monkeypatch.setattr(name, lambda self: pytest.fail("decoded"))
    for kind, content in files.items():
        found = ask(small, "POST", "/segment", content=content)
        assert found.status_code == (415 if kind == "ICO" else 413), (kind, found.text)


@pytest.mark.parametrize("shape", [(), (5,), (0, 5, 3), (5, 0, 3)])
def test_an_array_without_a_height_and_a_width_is_refused(shape):
    app = create_app({"everyday": everyday()}, ONE)
    file = io.BytesIO()
    np.save(file, np.zeros(shape, np.uint8))
    sentence = error_of(ask(app, "POST", "/segment", content=file.getvalue()), 422, "bad_picture")
    assert f"got {shape}" in sentence


def test_pixels_are_counted_before_they_are_decoded(model, monkeypatch):
    app = create_app(Segmenter(model), limits(workers=1, max_pixels=10_000))
    assert ask(app, "POST", "/segment", content=png(noise(100, 100, 3))).status_code == 200
    large, bomb = png(noise(100, 101, 3)), bytearray(png())
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with monkeypatch.context() as patched:
        patched.setattr("PIL.Image.Image.load", lambda self: pytest.fail("decoded"))
        patched.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
        found = ask(app, "POST", "/segment", content=large)
        sentence = error_of(found, 413, "too_large")
        assert sentence.endswith(
            "100 x 101 = 10,100 pixels, more than the limit of 10,000; send a smaller one"
        )
        assert error_of(ask(app, "POST", "/segment", content=bytes(bomb)), 413, "too_large")
    several = [("picture", (f"{i}.png", png(noise(60, 100, 3)))) for i in range(2)]
    inside = unzipped(ask(app, "POST", "/segment", files=several).content)
    assert sorted(inside) == ["0.labels.png", "1.error.json"]
    assert "10,000 pixels together" in json.loads(inside["1.error.json"])["error"]["message"]
    array = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1, 3), np.uint8))
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {**array, "shape": (10**7, 10**7, 3)})
    assert ask(app, "POST", "/segment", content=file.getvalue() + b"\0" * 100).status_code in (413, 422)


def test_pictures_are_counted(model):
    app = create_app(Segmenter(model), limits(workers=1, max_pictures=2))
    files = [("picture", ("a.png", png()))]
    assert ask(app, "POST", "/segment", files=files * 2).status_code == 200
    assert "at most 2 pictures" in error_of(ask(app, "POST", "/segment", files=files * 3), 413, "too_many")
    assert error_of(
        ask(app, "POST", "/segment", data={f"{i}": "a" for i in range(9)}, files=files), 400, "bad_form"
    )


def test_nothing_is_written_to_disk(model, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is no such folder"))
    app = create_app(Segmenter(model), limits(workers=1))
    content = png(noise(650, 700, 3) // 2 + np.array([128, 0, 0], np.uint8))  # red all over
    assert len(content) > 2**20
    formats = ",".join(FORMATS)
    found = ask(
        app, "POST", f"/segment?format={formats}&min_area=9", files=[("picture", ("a.png", content))] * 2
    )
    assert len(unzipped(found.content)) == 2 * len(FORMATS)


def test_more_than_the_desk_has_places_for_are_refused_before_they_are_read(model):
    segmenter, gate = gated(model)
    app = create_app(segmenter, ONE)
    read: list[int] = []

    async def talk():
        async with client(app) as asking:
            first, second = (asyncio.create_task(asking.post("/segment", content=png())) for _ in range(2))
            while (await asking.get("/ready")).status_code == 200:
                await asyncio.sleep(0.005)
            refused = await asking.post("/segment", content=counted(b"x" * 50_000, read))
            metrics = (await asking.get("/metrics")).text
            gate.gate.set()
            return refused, metrics, await first, await second, await asking.get("/ready")

    refused, metrics, first, second, ready = asyncio.run(talk())
    assert (
        error_of(refused, 429, "busy")
        == "2 requests wait or are at work, as many as may; try again in a moment"
    )
    assert refused.headers["retry-after"] == "1"
    assert len(read) <= 1
    assert "pixelwise_accepted 2.0" in metrics
    assert (first.status_code, second.status_code, ready.status_code) == (200, 200, 200)


def raw(app, path: str, body: bytes, gone: asyncio.Event):
    """A request whose other side goes when `gone` says so; what was sent to it."""
    sent: list[dict] = []
    bodies = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if bodies:
            return bodies.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http", "root_path": "",
        "server": ("localhost", 80), "client": ("localhost", 9),
    }  # fmt: skip
    return asyncio.create_task(app(scope, receive, send)), sent


def test_who_goes_while_waiting_leaves_the_queue_and_is_never_segmented(model, caplog):
    segmenter, gate = gated(model)
    app = create_app(segmenter, limits(workers=1, queue=2))
    caplog.set_level(logging.INFO, "pixelwise.requests")

    async def talk():
        gone, never = asyncio.Event(), asyncio.Event()
        async with client(app) as asking:
            working, _ = raw(app, "/segment", png(), never)
            while gate.came == 0:
                await asyncio.sleep(0.005)
            waiting, _ = raw(app, "/segment", png(), gone)
            other, sent = raw(app, "/segment", png(), never)
            while (await asking.get("/ready")).status_code == 200:
                await asyncio.sleep(0.005)
            gone.set()
            await waiting
            assert (await asking.get("/ready")).status_code == 200  # its place is free
            gate.gate.set()
            await asyncio.gather(working, other)
            assert sent[0]["status"] == 200

    asyncio.run(talk())
    assert gate.came == 2
    assert [record.about["status"] for record in caplog.records if record.about["path"] == "/segment"] == [
        499,
        200,
        200,
    ]


def test_who_goes_while_being_segmented_keeps_the_place_until_that_ends(model):
    segmenter, gate = gated(model)
    app = create_app(segmenter, limits(workers=1, queue=0))

    async def talk():
        gone = asyncio.Event()
        async with client(app) as asking:
            working, _ = raw(app, "/segment", png(), gone)
            while gate.came == 0:
                await asyncio.sleep(0.005)
            gone.set()
            await working
            assert (await asking.get("/ready")).status_code == 503
            gate.gate.set()
            while (await asking.get("/ready")).status_code != 200:
                await asyncio.sleep(0.005)

    asyncio.run(talk())


def test_tiles_of_somebody_who_has_gone_are_left(model):
    segmenter, gate = gated(model)
    app = create_app(segmenter, limits(workers=1, queue=0, timeout_s=0.2))
    while gate.came == 0:
        found = ask(app, "POST", "/segment?tile=64", content=png(noise(300, 300, 3)))
        assert error_of(found, 503, "too_late").startswith("there was no answer within 0.2 seconds")
    gate.gate.set()
    until(lambda: ask(app, "GET", "/ready").status_code == 200)
    assert gate.came == 1


def test_what_takes_too_long_is_answered_in_time_and_its_answer_dropped(model):
    segmenter, gate = gated(model)
    app = create_app(segmenter, limits(workers=1, queue=0, timeout_s=0.2))
    while gate.came == 0:
        assert error_of(ask(app, "POST", "/segment", content=png()), 503, "too_late")
    assert ask(app, "POST", "/segment", content=png()).status_code == 429  # it is still at it
    gate.gate.set()
    until(lambda: ask(app, "GET", "/ready").status_code == 200)


def test_after_the_end_nothing_is_accepted(model):
    app = create_app(Segmenter(model), ONE)

    async def talk():
        async with app.router.lifespan_context(app), client(app) as asking:
            assert (await asking.post("/segment", content=png())).status_code == 200
        async with client(app) as asking:
            return (
                await asking.post("/segment", content=png()),
                await asking.get("/ready"),
                await asking.get("/health"),
            )

    refused, ready, health = asyncio.run(talk())
    assert error_of(refused, 503, "closing")
    assert error_of(ready, 503, "closing")
    assert health.json() == {"status": "ok"}


def test_what_nobody_foresaw_is_one_sentence_and_a_traceback_in_the_log(model, caplog, monkeypatch):
    segmenter = Segmenter(model)
    app = create_app(segmenter, ONE)
    monkeypatch.setattr("pixelwise.segmentation.Segmentation.to_bytes", lambda *_, **__: 1 / 0)
    sentence = error_of(ask(app, "POST", "/segment", content=png()), 500, "failed")
    assert "ZeroDivisionError" in sentence
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "ZeroDivisionError" in json.loads(logs.Lines().format(record))["traceback"]
    assert ask(app, "GET", "/ready").status_code == 200
    monkeypatch.setattr(
        "pixelwise.segmentation.Segmentation.to_bytes", lambda *_, **__: (_ for _ in ()).throw(MemoryError)
    )
    assert error_of(ask(app, "POST", "/segment", content=png()), 503, "out_of_memory")


def test_a_request_that_fails_keeps_nothing_of_its_picture(model, monkeypatch):
    """Its exception would, and is not found by the collector for a long time, as arrays do not count for it."""
    app = create_app(Segmenter(model), ONE)
    kept = []

    def fails(kind, *words):
        def to_bytes(self, *_, **__):
            kept.append(weakref.ref(self.image))
            raise kind(*words)

        return to_bytes

    gc.collect()
    gc.disable()
    try:
        for error in ((ZeroDivisionError,), (MemoryError,), (InputError, "so it is")):
            monkeypatch.setattr("pixelwise.segmentation.Segmentation.to_bytes", fails(*error))
            assert ask(app, "POST", "/segment", content=png()).status_code in (422, 500, 503)
            files = [("picture", ("a.png", png()))] * 2
            assert ask(app, "POST", "/segment", files=files).status_code in (422, 503)
        assert len(kept) >= 5
        assert sum(one() is not None for one in kept) == 0
    finally:
        gc.enable()


def test_a_picture_without_the_memory_for_it_is_none_that_is_bad(app, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: (_ for _ in ()).throw(MemoryError))
    assert error_of(ask(app, "POST", "/segment", content=png()), 503, "out_of_memory")


def test_names_are_looked_at_before_the_picture_is_segmented(model):
    segmenter, gate = gated(model)
    for query in ("format=cutout&names=rde", "fill_holes=rde", "largest_only=rde"):
        found = ask(create_app(segmenter, ONE), "POST", f"/segment?{query}", content=png())
        assert "did you mean 'red'?" in error_of(found, 422, "invalid")
    assert gate.came == 0


def test_a_log_that_nobody_reads_holds_nobody_up(monkeypatch):
    written, reader = [], threading.Event()

    class Pipe(io.StringIO):
        def write(self, text):
            assert reader.wait(PATIENCE_S)
            written.append(text)

    monkeypatch.setattr("sys.stderr", Pipe())
    monkeypatch.setattr("pixelwise.service.logs.MOST_LINES", 10)
    handler = logs.ToStderr()
    for _ in range(30):
        handler.emit(logging.makeLogRecord({"msg": "a line"}))
    reader.set()
    until(lambda: not handler._lines.unfinished_tasks)
    handler.end()
    lines = [json.loads(line)["message"] for text in written for line in text.splitlines()]
    lost = next(line for line in lines if "were lost" in line)
    assert lines.count("a line") + int(lost.split()[0]) == 30


def test_that_there_are_no_file_descriptors_is_said_once_a_minute():
    sparing, record = logs.Sparing(), logging.makeLogRecord
    said = [
        sparing.filter(record({"name": "asyncio", "msg": "socket.accept() out of system resource\nsocket: x",
                               "created": at, "exc_info": (OSError, OSError(), None)}))
        for at in (100, 100.1, 130, 161, 161)
    ]  # fmt: skip
    assert said == [True, False, False, True, False]
    assert sparing.filter(record({"name": "asyncio", "msg": "something else"}))


def test_a_format_that_is_not_installed_says_what_to_install(app, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    sentence = error_of(ask(app, "POST", "/segment?format=geotiff", content=png()), 501, "not_installed")
    assert "pip install 'pixelwise[raster]'" in sentence


# The door -----------------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_everywhere_but_where_there_is_nothing_to_see(model):
    app = create_app(Segmenter(model), ONE, token="s3cret")
    for path in ("/", "/health", "/ready"):
        assert ask(app, "GET", path).status_code == 200
    for path in ("/models", "/labels", "/metrics", "/openapi.json", "/nowhere", "/healthy"):
        found = ask(app, "GET", path)
        assert "Authorization: Bearer TOKEN" in error_of(found, 401, "unauthorized")
        assert found.headers["www-authenticate"] == "Bearer"
    for given in ("s3cret", "Bearer s3cre", "Bearer s3crets", "Bearer", "Basic s3cret", "Bearer é"):
        found = ask(app, "POST", "/segment", content=png(), headers={"Authorization": given.encode()})
        assert error_of(found, 401, "unauthorized")
    for given in ("Bearer s3cret", "bearer  s3cret "):
        assert (
            ask(app, "POST", "/segment", content=png(), headers={"Authorization": given}).status_code == 200
        )


def test_only_by_its_own_names_is_it_called(model):
    app = create_app(Segmenter(model), ONE, hosts=("localhost", "127.0.0.1", "::1"))
    for host in ("localhost", "localhost.", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "[::1]"):
        assert ask(app, "GET", "/health", headers={"Host": host}).status_code == 200
    for host in (
        "evil.example",
        "localhost.evil.example:8000",
        "",
        "127.0.0.1.nip.example",
        "[::2]",
        "[localhost].evil.example",
    ):
        assert "called by 127.0.0.1 or ::1" in error_of(
            ask(app, "GET", "/", headers={"Host": host}), 400, "wrong_host"
        )


def test_pages_of_other_sites_get_nothing(app):
    found = ask(app, "POST", "/segment", content=png(), headers={"Sec-Fetch-Site": "cross-site"})
    assert error_of(found, 403, "cross_site")
    for site in ("same-origin", "none"):
        assert (
            ask(app, "POST", "/segment", content=png(), headers={"Sec-Fetch-Site": site}).status_code == 200
        )
    found = ask(app, "GET", "/", headers={"Origin": "https://evil.example"})
    assert not any(name.startswith("access-control") for name in found.headers)


def test_pages_are_ours_by_their_own_host_where_browsers_say_no_more(app):
    """Which they do only to addresses that they trust."""
    for origin, more, status in (
        ("http://localhost", {}, 200),
        ("http://LOCALHOST", {}, 200),
        ("http://evil.example", {}, 403),
        ("http://localhost:8931", {}, 403),
        ("null", {}, 403),
        ("https://maps.example", {"X-Forwarded-Host": "maps.example"}, 200),
        ("https://evil.example", {"X-Forwarded-Host": "maps.example"}, 403),
        ("https://maps.example", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("http://localhost", {"Sec-Fetch-Site": "same-site"}, 403),
    ):
        found = ask(app, "POST", "/segment", content=png(), headers={"Origin": origin, **more})
        assert found.status_code == status, (origin, more)


def test_head_is_answered_where_get_is_and_without_a_body(app):
    for path in ("/", "/health", "/ready", "/models", "/labels", "/openapi.json", "/samples/cat.jpg"):
        got, head = ask(app, "GET", path), ask(app, "HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length", "content-security-policy"):
            assert head.headers[name] == got.headers[name]
    assert ask(app, "HEAD", "/segment").status_code == 405


def test_every_answer_has_the_headers_that_keep_browsers_in_bounds(app):
    page = ask(app, "GET", "/")
    for found in (page, ask(app, "GET", "/nowhere"), ask(app, "POST", "/segment", content=png())):
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["x-frame-options"] == "DENY"
        assert found.headers["referrer-policy"] == "no-referrer"
        assert found.headers["cache-control"] == "no-store"
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
    for tag in ("script", "style"):
        for inside in re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page.text, re.DOTALL):
            hash = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"'sha256-{hash}'" in policy


def test_a_request_keeps_its_id_and_gets_one_where_it_has_none(app):
    assert (
        ask(app, "GET", "/health", headers={"X-Request-ID": "a-1_b.C"}).headers["x-request-id"] == "a-1_b.C"
    )
    made = [ask(app, "GET", "/health", headers={"X-Request-ID": given}).headers["x-request-id"] for given in
            ("", "x" * 65, "a b", "a\tb", "<script>")]  # fmt: skip
    assert len(set(made)) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in made)


def test_the_log_says_what_it_was_and_nothing_of_what_was_in_it(app, caplog):
    caplog.set_level(logging.INFO, "pixelwise.requests")
    files = {"picture": ("aunt-emma.png", png())}
    ask(app, "POST", "/segment?format=ids,json&names=", files=files, headers={"X-Request-ID": "r1"})
    ask(app, "POST", "/segment?aunt=emma", files=files)
    ask(app, "GET", "/aunt/emma")
    ask(app, "AUNTEMMA", "/health")
    lines = [json.loads(logs.Lines().format(record)) for record in caplog.records]
    first = lines[0]
    assert first.pop("time").endswith("Z")
    assert first.pop("ms") > 0
    assert first.pop("received_bytes") > len(png())
    assert first.pop("sent_bytes") > 100
    assert first == {
        "level": "info", "id": "r1", "method": "POST", "path": "/segment", "status": 200, "model": "colors",
        "formats": ["ids", "json"], "pictures": [[40, 60]],
    }  # fmt: skip
    assert [(one["path"], one["status"], one.get("error")) for one in lines[1:]] == [
        ("/segment", 422, "invalid"), ("other", 404, "not_found"), ("/health", 405, "wrong_method")
    ]  # fmt: skip
    assert "emma" not in "".join(map(json.dumps, lines)).lower()


def test_metrics_count(model):
    app = create_app(Segmenter(model), ONE)
    ask(app, "POST", "/segment", content=png())
    ask(app, "POST", "/segment", content=b"no picture")
    ask(app, "GET", "/x")
    found = ask(app, "GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    for line in (
        'pixelwise_requests_total{path="/segment",status="200"} 1.0',
        'pixelwise_requests_total{path="/segment",status="415"} 1.0',
        'pixelwise_requests_total{path="other",status="404"} 1.0',
        'pixelwise_request_seconds_count{path="/segment"} 2.0',
        "pixelwise_pictures_total 1.0",
        "pixelwise_pixels_total 2400.0",
        "pixelwise_accepted 0.0",
        "pixelwise_places 2.0",
    ):
        assert line in found.text.splitlines()


def test_the_openapi_has_every_address_format_and_refusal(app):
    described = ask(app, "GET", "/openapi.json").json()
    assert set(described["paths"]) == {"/segment", "/models", "/labels", "/health", "/ready", "/metrics"}
    segment = described["paths"]["/segment"]["post"]
    assert {"200", "401", "406", "408", "413", "415", "422", "429", "503"} <= set(segment["responses"])
    assert {"image/*", "application/octet-stream", "multipart/form-data"} == set(
        segment["requestBody"]["content"]
    )
    (format,) = (one for one in segment["parameters"] if one["name"] == "format")
    assert all(name in format["description"] for name in FORMATS)
    assert segment["responses"]["200"]["content"]["application/json"]["example"]["classes"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_whatever_the_openapi_allows_or_forbids_is_answered_as_it_says(mode, model):
    """Requests drawn from it, those that it allows with a picture for a body; statuses, types and shapes are in it."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(Segmenter(model), limits(workers=2)))
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode == "negative" and operation.label not in ("POST /segment", "GET /labels"):
            continue  # which take nothing that could be wrong
        strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

        @given(case=strategy)
        @settings(
            max_examples=40,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=[*HealthCheck],
        )
        def holds(case) -> None:
            if mode == "positive" and case.method == "POST":
                case.body, case.media_type = png(), "application/octet-stream"
                for name in (
                    "model",
                    "names",
                    "fill_holes",
                    "largest_only",
                    "simplify_px",
                ):  # of which it knows less
                    case.query.pop(name, None)
            response = case.call(timeout=PATIENCE_S)
            statuses[response.status_code] += 1
            case.validate_response(
                response,
                checks=[
                    not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                    checks.response_headers_conformance,
                ],
            )

        holds()
    assert statuses[200 if mode == "positive" else 422] >= 20, statuses


def test_what_makes_no_service_is_refused(model):
    with pytest.raises(InputError, match="at least one model"):
        create_app({})
    with pytest.raises(InputError, match="at least one letter"):
        create_app(Segmenter(model), token=" ")
    for wrong in (
        {"workers": 0},
        {"queue": -1},
        {"timeout_s": 0},
        {"max_bytes": 0},
        {"max_pixels": float("nan")},
        {"timeout_s": float("inf")},
        {"max_bytes": float("inf")},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Limits(**wrong)
    assert limits(workers=3).places == 27
    assert limits(workers=3, queue=0).places == 3


def test_refusals_name_their_headers():
    assert Refused(401, "x", "y", WWW_Authenticate="Bearer").headers == {"WWW-Authenticate": "Bearer"}
    assert Refused(429, "x", "y").headers == {"Retry-After": "1"}
