"""The fastest engine: who is left out and why, who wins by a clock of ours, what is kept, and when nobody races."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pixelwise import Segmenter, engines, open_engine
from pixelwise.engines import Known, racing, trials
from pixelwise.engines.racing import Candidate, FastestEngine, race
from pixelwise.errors import ExportError, InputError
from test_segmenter import Colors
from tiny import CARD, quadrant_labels, quadrants, write_colors_model

IMAGES = np.random.default_rng(0).standard_normal((1, 3, 8, 12)).astype(np.float32)


class Clock:
    """Time that passes only where an engine says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """An engine that takes the seconds it is told to, one after the other, and answers the picture plus `off`."""

    card, precision = CARD, "float32"

    def __init__(self, name: str, clock: Clock, *seconds: float, off: float = 0.0) -> None:
        self.name, self.clock, self.seconds, self.off, self.calls = name, clock, [*seconds], off, 0

    def __call__(self, images):
        if self.calls > 1:  # those before show its answer, and are not timed
            self.clock.now += self.seconds[min(self.calls - 2, len(self.seconds) - 1)]
        self.calls += 1
        return images + self.off * np.ptp(images)


def raced(clock: Clock, *fakes: Fake, **more):
    return race([Candidate(f.name, lambda f=f: f) for f in fakes], IMAGES, IMAGES, 1e-4, clock=clock, **more)


def test_the_median_wins_and_the_first_of_the_table_where_it_makes_no_odds():
    clock = Clock()
    steady, spiky = Fake("steady", clock, 2.0), Fake("spiky", clock, 1.5, 9, 1.5, 9, 1.5)
    found, engine = raced(clock, steady, spiky)
    assert (found.winner, engine) == ("spiky", spiky)
    assert [(entry.name, entry.ms) for entry in found.entries] == [("steady", 2000.0), ("spiky", 1500.0)]
    found, _ = raced(clock, Fake("first", clock, 2.0), Fake("second", clock, 1.96))
    assert found.winner == "first"


def test_engines_take_turns_and_those_far_behind_run_once():
    clock, order = Clock(), []

    class Noted(Fake):
        def __call__(self, images):
            order.append(self.name)
            return super().__call__(images)

    raced(clock, Noted("a", clock, 1.0), Noted("b", clock, 1.2), Noted("slow", clock, 5.0), rounds=3)
    assert order[6:] == ["a", "b", "slow", "a", "b", "a", "b"]


def test_a_fast_and_wrong_engine_is_left_out_before_anything_is_timed():
    clock = Clock()
    wrong = Fake("wrong", clock, 0.001, off=0.01)
    found, engine = raced(clock, Fake("right", clock, 5.0), wrong)
    assert engine.name == "right"
    assert (found.entries[1].outcome, wrong.calls) == ("wrong", 1)
    assert str(found) == (
        "fastest at 8 x 12: right (5000.0 ms; wrong left out: its logits differ by 0.01 of their range)"
    )


def test_what_raises_and_what_is_not_installed_is_left_out():
    clock = Clock()

    def fails():
        raise RuntimeError("no such instruction\nand more")

    candidates = [
        Candidate("failing", fails),
        Candidate("absent", fails, missing="the engine absent needs"),
        Candidate("right", lambda: Fake("right", clock, 1.0)),
    ]
    found, _ = race(candidates, IMAGES, IMAGES, 1e-4, clock=clock)
    assert str(found) == (
        "fastest at 8 x 12: right (1000.0 ms; failing left out: no such instruction; absent is not installed)"
    )
    nobody, engine = race(candidates[:2], IMAGES, IMAGES, 1e-4, clock=clock)
    assert (nobody.winner, engine) == ("", None)
    assert (
        str(nobody)
        == "fastest at 8 x 12: nobody (failing left out: no such instruction; absent is not installed)"
    )


@pytest.fixture
def table(monkeypatch):
    """A table with the engines of `racers`, and no patience."""

    def use(*names: str) -> None:
        rows = {
            name: Known(f"racers:{name.capitalize()}", "files (.onnx)", (".onnx",), tried=name != "right")
            for name in names
        }
        monkeypatch.setattr(engines, "ENGINES", {"onnxruntime": engines.ENGINES["onnxruntime"], **rows})
        monkeypatch.setattr(engines, "NAMES", ("auto", "onnxruntime", *names, "fastest"))

    return use


def test_crashing_and_wrong_engines_are_left_out_remembered_and_named(
    table, colors_model, capsys, monkeypatch
):
    table("wrong", "crashing", "right")
    segmenter = Segmenter(colors_model, engine="fastest", threads=1)
    assert segmenter.engine.name == "fastest"
    np.testing.assert_array_equal(segmenter(quadrants()).labels, quadrant_labels())
    assert segmenter.engine.name in ("onnxruntime", "right")
    said = capsys.readouterr().err
    assert "wrong left out: gave logits that differ by" in said
    assert "crashing left out: ended with SIGABRT" in said
    # and so it is kept: nobody is tried again
    monkeypatch.setattr(racing, "race", None)
    again = Segmenter(colors_model, engine="fastest", threads=1)
    again(quadrants())
    assert again.engine.name == segmenter.engine.name
    assert {e.name: e.outcome for e in again.engine.race.entries} == {
        "onnxruntime": "ok", "wrong": "wrong", "crashing": "crashed", "right": "ok",
    }  # fmt: skip
    assert capsys.readouterr().err == ""
    assert pickle.loads(pickle.dumps(again)).engine.name == segmenter.engine.name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("crashing", "ended with SIGABRT"),
        ("hanging", "gave no answer within 4 seconds"),
        ("wrong", "differ by"),
    ],
)
def test_an_engine_that_fails_its_trial_is_not_let_near_the_file(name, says, table, tmp_path, monkeypatch):
    table(name)
    if name == "hanging":
        monkeypatch.setattr(trials, "PATIENCE_S", 4.0)
    model = write_colors_model(tmp_path / "a.onnx", CARD.replace(name=name))
    with pytest.raises(InputError, match=f"engine '{name}' .*{says}.* in a process of its own") as first:
        open_engine(model, name, threads=1)
    once = trials.trial
    monkeypatch.setattr(trials, "trial", None)  # for it is remembered
    with pytest.raises(InputError) as second:
        open_engine(model, name, threads=1)
    assert str(second.value) == str(first.value)
    monkeypatch.setattr(trials, "trial", once)
    kept = Path(str(first.value).split("remove ")[1].split(" to try")[0])
    content = json.loads(kept.read_text())
    assert content["outcome"] == {"crashing": "crashed", "hanging": "hung", "wrong": "wrong"}[name]
    kept.write_text(json.dumps({**content, "says": "ended \x1b[31m"}))
    with pytest.raises(InputError, match=r"ended \\x1b\[31m when"):
        open_engine(model, name, threads=1)
    kept.write_text("{")  # what is not what was written counts for nothing
    with pytest.raises(InputError, match=says):
        open_engine(model, name, threads=1)


def test_a_trial_is_kept_for_one_file_engine_version_processor_and_precision(table, tmp_path, monkeypatch):
    table("wrong")
    tried = []
    monkeypatch.setattr(trials, "trial", lambda order, reference: tried.append(order) or trials.Trial("ok"))
    path = write_colors_model(tmp_path / "a.onnx", CARD.replace(name=str(tmp_path)))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.data", size_threshold=0)
    row = engines.ENGINES["wrong"]
    monkeypatch.setitem(
        engines.ENGINES, "wrong", dataclasses.replace(row, precisions=("float32", "bfloat16"))
    )

    def is_tried(**how):
        before = len(tried)
        for _ in range(2):
            open_engine(path, "wrong", threads=1, **how)
        return len(tried) - before

    assert is_tried() == 1
    assert is_tried(precision="bfloat16") == 1
    (tmp_path / "a.data").write_bytes((tmp_path / "a.data").read_bytes()[::-1])
    assert is_tried() == 1  # other weights
    monkeypatch.setattr(trials, "processor", lambda: ("another",))
    assert is_tried() == 1
    monkeypatch.setattr(trials, "version_of", lambda package: "2")
    assert is_tried() == 1
    assert is_tried() == 0


def test_a_race_is_kept_for_one_size_number_of_threads_precision_and_all_versions(
    table, tmp_path, monkeypatch
):
    table("right")
    for name, row in [*engines.ENGINES.items()]:
        both = dataclasses.replace(row, precisions=("float32", "bfloat16"))
        monkeypatch.setitem(engines.ENGINES, name, both)
    races = []

    def won_by_the_first(candidates, images, *_, **__):
        races.append(images.shape)
        first = candidates[0].open()
        return racing.Race(first.name, images.shape, (racing.Entry(first.name, "ok", 1.0),)), first

    monkeypatch.setattr(racing, "race", won_by_the_first)
    path = write_colors_model(tmp_path / "a.onnx", CARD.replace(name=str(tmp_path)))

    def is_run(shape=(1, 3, 40, 60), threads=1, **how):
        before = len(races)
        for _ in range(2):
            open_engine(path, "fastest", threads=threads, **how)(np.zeros(shape, np.float32))
        return len(races) - before

    assert is_run() == 1
    assert is_run((1, 3, 38, 60)) == 0  # about as large
    assert is_run((1, 3, 60, 60)) == 1
    assert is_run((2, 3, 40, 60)) == 1
    assert is_run(threads=2) == 1
    assert is_run(precision="bfloat16") == 1
    monkeypatch.setattr(trials, "version_of", lambda package: f"{package} 2")
    assert is_run() == 1
    assert is_run() == 0


def test_what_a_library_prints_is_no_answer(table, tmp_path):
    table("printing")
    model = write_colors_model(tmp_path / "a.onnx", CARD.replace(name="printing"))
    assert open_engine(model, "printing", threads=1).name == "printing"


def test_of_a_single_logit_its_sign_is_the_class():
    clock, images = Clock(), IMAGES[:, :1]
    fakes = [
        Candidate(f.name, lambda f=f: f) for f in (Fake("a", clock, 1.0), Fake("b", clock, 1.0, off=0.1))
    ]
    found, _ = race(fakes, images, images, 0.2, clock=clock)
    expected = ((images > 0) != (images + 0.1 * np.ptp(images) > 0)).mean()
    assert 0 < expected == found.entries[1].changed
    assert found.entries[0].changed == 0


def test_a_single_picture_takes_what_is_known_or_the_default_and_never_races(
    tmp_path, typed, monkeypatch, capsys
):
    from PIL import Image

    model = write_colors_model(tmp_path / "single.onnx", CARD.replace(name="single"))
    for i in range(2):
        Image.fromarray(quadrants()).save(f"{i}.png")
    before = race
    monkeypatch.setattr(racing, "race", None)
    alone = typed(f"segment 0.png -m {model} --engine fastest --threads 1 -o a --json")
    assert (alone.code, json.loads(alone.out)["engine"]) == (0, "onnxruntime")
    assert "nobody has raced at this size yet, and a single picture takes onnxruntime" in alone.err
    monkeypatch.setattr(racing, "race", before)
    both = typed(f"segment 0.png 1.png -m {model} --engine fastest --threads 1 -o b --json")
    assert both.code == 0
    assert "fastest at 40 x 60: " in both.err
    taken = json.loads(both.out.splitlines()[0])["engine"]
    assert taken in ("onnxruntime", "openvino")
    alone = typed(f"segment 1.png -m {model} --engine fastest --threads 1 -o c --json")
    assert (json.loads(alone.out)["engine"], alone.err) == (taken, "")


def test_a_network_in_memory_races_with_its_own_export(quick_export):
    network = Colors()
    segmenter = Segmenter(network, card=CARD, engine="fastest", threads=1)
    np.testing.assert_array_equal(segmenter(quadrants()).labels, quadrant_labels())
    assert {entry.name for entry in segmenter.engine.race.entries} == {"onnxruntime", "openvino", "pytorch"}
    assert all(entry.outcome == "ok" for entry in segmenter.engine.race.entries)


def test_a_network_of_half_precision_races_against_those_that_compute_in_it(quick_export):
    segmenter = Segmenter(Colors().bfloat16(), card=CARD, engine="fastest", threads=1)
    found = segmenter(quadrants())
    assert found.precision == "bfloat16"
    assert {entry.name for entry in segmenter.engine.race.entries} == {"openvino", "pytorch"}


def change(network: torch.nn.Module, how: str) -> None:
    layer = network.conv
    if how == "a training step":
        network(torch.rand(2, 3, 8, 8))["out"].square().mean().backward()
        torch.optim.SGD(network.parameters(), lr=1.0).step()
    elif how == "a state dict":
        network.load_state_dict({name: value.flip(0) for name, value in network.state_dict().items()})
    elif how == "a replaced layer":
        torch.manual_seed(1)
        network.conv = torch.nn.Conv2d(3, 4, 2, stride=2)
    elif how == "numbers behind its back":
        layer.bias.data.mul_(-3.0)
    elif how == "small numbers pruned":
        layer.weight.data[layer.weight.data.abs() < 0.2] = 0.5 * layer.weight.data.abs().max()
    elif how == "classes in another order, by NumPy":
        array = layer.weight.detach().numpy()
        array[:] = array[::-1].copy()
    elif how == "numbers put in place":
        layer.weight.data = layer.weight.data.flip(0).contiguous()


@pytest.fixture
def quick_export(monkeypatch) -> None:
    """The exporter takes a second even for one layer."""

    def write(network, card, path):
        numbers = (network.conv.weight, network.conv.bias)
        write_colors_model(path, card, tuple(tensor.detach().numpy() for tensor in numbers))

    monkeypatch.setattr("pixelwise.in_memory.export_onnx", write)


@pytest.mark.parametrize(
    "how",
    [
        "a training step",
        "a state dict",
        "a replaced layer",
        "numbers behind its back",
        "small numbers pruned",
        "classes in another order, by NumPy",
        "numbers put in place",
    ],
)
def test_an_exported_network_that_has_changed_is_exported_again(how, quick_export):
    network = Colors()
    ours = Segmenter(network, card=CARD, export=True, threads=1)
    assert (ours.engine.name, ours.engine.precision) == ("onnxruntime", "float32")
    noise = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    before = ours(noise, logits=True).logits
    first = ours.engine._engine
    assert np.array_equal(ours(noise, logits=True).logits, before)
    assert ours.engine._engine is first  # the same file still
    change(network, how)
    expected = Segmenter(network, card=CARD)(noise, logits=True).logits
    assert np.abs(expected - before).max() > 0.01
    np.testing.assert_allclose(ours(noise, logits=True).logits, expected, rtol=1e-5, atol=1e-5)
    change(network, how)  # before it is sent elsewhere too
    expected = Segmenter(network, card=CARD)(noise, logits=True).logits
    np.testing.assert_allclose(
        pickle.loads(pickle.dumps(ours))(noise, logits=True).logits, expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "__class__", type("Other", (Colors,), {})),
        lambda net: net.conv.register_forward_hook(lambda layer, given, answer: -answer),
        lambda net: net.conv.register_forward_pre_hook(lambda layer, given: None),
        lambda net: setattr(net.conv, "forward", lambda image: image),
        lambda net: setattr(net.conv, "padding", (1, 1)),
        lambda net: setattr(net, "gain", -1.0),
        lambda net: net.sizes.append(3),
        lambda net: net.plain.neg_(),
        lambda net: net.plain.numpy().put(0, 5.0),
        lambda net: net.plain.numpy().put(2, 5.0),  # the last four bytes
        lambda net: net.gaps.numpy().put(1, 5.0),
    ],
)
def test_a_network_that_has_changed_in_what_is_no_parameter_is_exported_again(change, quick_export):
    network = Colors()
    network.gain, network.sizes, network.plain = 1.0, [1, 2], torch.ones(3)
    network.gaps = torch.ones(6)[::2]
    ours = Segmenter(network, card=CARD, export=True, threads=1)
    ours(quadrants())
    first = ours.engine._engine
    network.train()
    network.gain, network.name = float("1"), "a new one"
    del network.name  # nothing has changed
    ours(quadrants())
    assert ours.engine._engine is first
    change(network)
    ours(quadrants())
    assert ours.engine._engine is not first


def test_threads_that_find_a_network_changed_export_it_once(monkeypatch):
    made = []

    def write(network, card, path):
        made.append(path)
        time.sleep(0.05)  # the others come in the meantime
        write_colors_model(path, card)

    monkeypatch.setattr("pixelwise.in_memory.export_onnx", write)
    network = Colors()
    engine = Segmenter(network, card=CARD, export=True, threads=1).engine
    network.conv.bias.data += 1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(engine, [IMAGES] * 4))
    assert len(made) == 2


def test_an_export_that_fails_leaves_nothing_behind(monkeypatch, tmp_path):
    def fails(network, card, path):
        path.write_bytes(b"a beginning")
        raise ExportError("it cannot")

    monkeypatch.setattr("pixelwise.in_memory.export_onnx", fails)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ExportError, match="it cannot") as raised:
        Segmenter(Colors(), card=CARD, export=True)
    assert list(tmp_path.iterdir()) == []
    del raised  # with which the engine goes, and whatever it has


def test_an_engine_of_files_exports_a_network_and_one_of_networks_does_not():
    assert Segmenter(Colors(), card=CARD, engine="openvino", threads=1).engine.name == "openvino"
    with pytest.raises(InputError, match="engine 'pytorch' runs networks as they are, got export=True"):
        Segmenter(Colors(), card=CARD, engine="pytorch", export=True)


def test_a_file_is_not_exported(colors_model):
    with pytest.raises(
        InputError, match=r"colors.*\.onnx is run as it is, got export=True; leave export out"
    ):
        Segmenter(colors_model, export=True)


def test_a_network_of_inference_mode_is_not_exported():
    with torch.inference_mode():
        network = Colors()
    with pytest.raises(InputError, match=r"made in torch.inference_mode.*leave out export"):
        Segmenter(network, card=CARD, export=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_neither_removes_the_export_nor_waits_for_a_lock(quick_export, colors_model):
    network = Colors()
    ours = [Segmenter(network, card=CARD, export=True, threads=1)]
    file = ours[0].engine._path
    racing = Segmenter(colors_model, engine="fastest", threads=1).engine
    with ours[0].engine._changing, racing._deciding:  # as another thread does
        child = os.fork()
        if not child:
            signal.alarm(20)
            free = not (ours[0].engine._changing.locked() or racing._deciding.locked())
            right = (ours[0](quadrants()).labels == quadrant_labels()).all()
            ours.clear()
            gc.collect()
            os._exit(0 if free and right else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert file.is_file()
    with torch.no_grad():
        network.conv.bias += 0.01
    ours[0](quadrants())
    assert not file.parent.exists()  # the old one
    file = ours[0].engine._path
    assert file.is_file()
    ours.clear()
    gc.collect()
    assert not file.parent.exists()


def test_a_race_that_is_kept_is_believed_where_its_winner_ran_and_can_be_opened(
    colors_model, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    clock = Clock()
    first, second, says = Fake("first", clock, 1.0), Fake("second", clock, 9.0), "ended \x1b[31m"

    def fails():
        raise RuntimeError("it hung")

    def asked(*candidates):
        engine = FastestEngine(candidates, first, first, "a model", [], clock)
        engine(IMAGES)
        return engine

    both = Candidate("first", lambda: first), Candidate("second", lambda: second)
    assert asked(*both).name == "first"
    (kept,) = (tmp_path / "engines").iterdir()
    good = json.loads(kept.read_text())
    well, wrong = good["entries"][1], {**good["entries"][1], "outcome": "wrong", "ms": None, "says": says}
    for entries, believed in (([well], True), ([wrong], False), ([], False)):
        kept.write_text(json.dumps({**good, "winner": "second", "entries": entries}))
        assert asked(*both).name == ("second" if believed else "first")
        assert json.loads(kept.read_text())["winner"] == ("second" if believed else "first")
    kept.write_text(json.dumps({**good, "winner": "second"}))
    assert asked(both[0], Candidate("second", fails)).name == "first"
    assert "second, which won before, cannot be opened: it hung" in capsys.readouterr().err
    found = {entry["name"]: entry["outcome"] for entry in json.loads(kept.read_text())["entries"]}
    assert found == {"first": "ok", "second": "failed"}
    kept.write_text(json.dumps({**good, "winner": "", "entries": [wrong]}))
    engine = asked(*both)
    assert (engine.name, str(engine.race)) == (
        "first",
        "fastest at 8 x 12: nobody (second left out: ended \\x1b[31m)",
    )
