"""Engines: the table, what each can compute in, OpenVINO's files, forked and pickled."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pixelwise import Segmenter, open_engine
from pixelwise.engines.openvino import OpenVinoEngine
from pixelwise.errors import InputError, MissingExtraError, UnknownNameError
from pixelwise.opening import open_network
from test_segmenter import Colors
from tiny import CARD, quadrant_labels, quadrants, write_colors_model

NOISE = np.random.default_rng(0).standard_normal((2, 3, 37, 51)).astype(np.float32)


@pytest.fixture(scope="session")
def colors_xml(colors_model, tmp_path_factory) -> Path:
    """The same model as OpenVINO writes it, with its card."""
    network = openvino.Core().read_model(colors_model)
    network.set_rt_info(CARD.to_json(), "pixelwise_card")
    path = tmp_path_factory.mktemp("openvino") / "colors.xml"
    openvino.save_model(network, path, compress_to_fp16=False)
    return path


def test_openvino_computes_float32_unless_asked_for_bfloat16(colors_model):
    exact = open_engine(colors_model, threads=1)(NOISE)
    engine = open_engine(colors_model, "openvino", threads=1)
    assert (engine.name, engine.precision, engine.card) == ("openvino", "float32", CARD)
    np.testing.assert_allclose(engine(NOISE), exact, atol=1e-6)
    small = np.ascontiguousarray(NOISE[:1, :, ::2, ::2])  # sizes stay free
    np.testing.assert_allclose(engine(small), open_engine(colors_model, threads=1)(small), atol=1e-6)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(InputError, match="in float32 on this processor, got precision 'bfloat16'"):
            open_engine(colors_model, "openvino", precision="bfloat16")
        return
    rough = open_engine(colors_model, "openvino", threads=1, precision="bfloat16")
    far = np.abs(rough(NOISE) - exact).max()
    assert rough.precision == "bfloat16"
    assert 1e-4 < far < 0.05


def test_auto_takes_the_first_engine_that_has_the_precision(colors_model):
    assert open_engine(colors_model).name == "onnxruntime"
    assert open_engine(colors_model, precision="float32").name == "onnxruntime"
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert open_engine(colors_model, precision="bfloat16").name == "openvino"
    network = open_engine(Colors(), card=CARD, precision="bfloat16")
    assert (network.name, network.precision) == ("pytorch", "bfloat16")
    exact = open_engine(Colors(), card=CARD)(NOISE)
    assert exact.dtype == network(NOISE).dtype == np.float32
    assert 1e-4 < np.abs(network(NOISE) - exact).max() < 0.05


@pytest.mark.parametrize(
    ("engine", "precision", "says"),
    [
        (
            "onnxruntime",
            "bfloat16",
            "computes in float32, int8, got precision 'bfloat16'; take engine openvino",
        ),
        ("openvino", "float16", "got precision 'float16'; leave it out"),
        ("auto", "int8", "quantise it first: pixelwise quantize .*colors.onnx --data DIR --out FILE"),
        ("openvino", "int8", "quantise it first"),
    ],
)
def test_a_precision_that_cannot_be_had_is_a_sentence(engine, precision, says, colors_model):
    with pytest.raises(InputError, match=says):
        open_engine(colors_model, engine, precision=precision)


def test_names_of_engines_and_precisions_are_known(colors_model):
    with pytest.raises(UnknownNameError, match="did you mean 'openvino'"):
        open_engine(colors_model, "openvin")
    with pytest.raises(UnknownNameError, match="did you mean 'bfloat16'"):
        open_engine(colors_model, precision="bfloat-16")
    with pytest.raises(InputError, match="engine 'onnxruntime' runs files"):
        open_engine(Colors(), "onnxruntime", card=CARD)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_threads_are_a_whole_number_from_one_up(threads, colors_model):
    with pytest.raises(InputError, match=f"threads must be a whole number from 1 up.*, got {threads!r}"):
        open_engine(colors_model, threads=threads)


def test_a_network_of_half_precision_is_one_and_is_not_called_float32():
    network = Colors().bfloat16()
    assert open_engine(network, card=CARD).precision == "bfloat16"
    with pytest.raises(
        InputError, match=r"parameters are bfloat16, got precision 'float32'; call its \.float"
    ):
        open_engine(network, card=CARD, precision="float32")


def test_files_of_openvino_open_by_name_and_by_command(colors_xml, typed):
    segmenter = Segmenter(colors_xml, threads=1)
    assert segmenter.engine.name == "openvino"
    np.testing.assert_array_equal(segmenter(quadrants()).labels, quadrant_labels())
    assert segmenter.card == CARD
    with pytest.raises(InputError, match=r"is a \.xml file; there is no torch network to open"):
        open_network(colors_xml)
    Image.fromarray(quadrants()).save("photo.png")
    assert typed(f"segment photo.png -m {colors_xml} --threads 1 -o a.npy").code == 0
    np.testing.assert_array_equal(np.load("a.npy"), quadrant_labels())


def test_an_onnx_file_that_openvino_converted_keeps_its_card(colors_model, tmp_path):
    openvino.save_model(
        openvino.Core().read_model(colors_model), tmp_path / "mine.xml", compress_to_fp16=False
    )
    assert Segmenter(tmp_path / "mine.xml", threads=1).card == CARD


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.onnx", b"hello"),
        ("a.xml", b"<hello/>"),
        ("a.xml", b"<?xml version='1.0'?><net name='x' version='11'/>"),
    ],
)
def test_what_openvino_cannot_read_is_a_sentence_and_nothing_is_printed(name, content, tmp_path, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        InputError, match=r"is not a model that OpenVINO can load|no input or no output"
    ) as raised:
        open_engine(tmp_path / name, "openvino")
    assert len(str(raised.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_missing_extra_is_named(colors_model, monkeypatch):
    monkeypatch.delitem(sys.modules, "pixelwise.engines.openvino", raising=False)
    monkeypatch.delitem(sys.modules, "pixelwise.silent", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixelwise\[openvino\]'"):
        open_engine(colors_model, "openvino")


def test_engines_of_files_are_pickled_with_their_files(colors_model, colors_xml, tmp_path):
    for place, engine in ((colors_model, "openvino"), (colors_xml, "auto")):
        copies = [tmp_path / f"c{path.suffix}" for path in sorted(place.parent.glob("colors.*"))]
        for path, copy in zip(sorted(place.parent.glob("colors.*")), copies, strict=True):
            copy.write_bytes(path.read_bytes())
        engine = open_engine(tmp_path / f"c{place.suffix}", engine, threads=1, precision="float32")
        kept = pickle.dumps(engine)
        for copy in copies:
            copy.unlink()
        again = pickle.loads(kept)
        np.testing.assert_array_equal(again(NOISE), engine(NOISE))
        assert (again.name, again.precision, again.card) == ("openvino", "float32", CARD)
        assert pickle.loads(pickle.dumps(again))(NOISE).shape == (2, 4, 18, 25)
        with pytest.raises(InputError, match="has changed since it was opened"):
            pickle.dumps(engine)


def test_an_engine_whose_weights_were_replaced_is_not_pickled(colors_xml, tmp_path):
    for path in colors_xml.parent.glob("colors.*"):
        shutil.copy(path, tmp_path)
    engine = open_engine(tmp_path / "colors.xml", threads=1)
    (tmp_path / "colors.bin").write_bytes(bytes(4096))
    with pytest.raises(InputError, match="has changed since it was opened"):
        pickle.dumps(engine)


def test_weights_in_another_file_are_not_pickled(tmp_path):
    path = write_colors_model(tmp_path / "a.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(
        InputError, match="keeps its weights in another file, and cannot be pickled; export it"
    ):
        pickle.dumps(open_engine(path, threads=1))


def test_a_file_without_a_card_is_held_to_the_ratio_that_it_gave_at_first(tmp_path):
    """One whose logits have the same size whatever it is shown."""
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["found"]),
        helper.make_node("Resize", ["found", "", "", "sizes"], ["logits"], mode="nearest"),
    ]
    weights = {"weight": np.eye(4, 3, dtype=np.float32)[..., None, None], "sizes": np.array([1, 4, 128, 160])}
    graph = helper.make_graph(
        nodes, "fixed", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "h2", "w2"])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "fixed.onnx")
    segmenter = Segmenter(
        tmp_path / "fixed.onnx", classes=list("abcd"), mean=[0, 0, 0], std=[1, 1, 1], threads=1
    )
    for one in (segmenter, pickle.loads(pickle.dumps(segmenter))):
        assert one(np.zeros((256, 320, 3), np.uint8)).labels.shape == (256, 320)
        with pytest.raises(
            InputError, match="gave logits of 128x160 for 90x110 pixels, and before one for 2 of"
        ):
            one(np.zeros((90, 110, 3), np.uint8))


def test_the_precision_that_was_asked_for_travels_along(colors_model, monkeypatch):
    """On a processor with bfloat16; here it is told so, and runs in float32."""
    hints, compiled = [], OpenVinoEngine._compiled
    monkeypatch.setattr(
        OpenVinoEngine, "_compiled", lambda *given: hints.append(given[2]) or compiled(*given[:2], "f32")
    )
    engine = OpenVinoEngine(colors_model, threads=1, precision="bfloat16")
    assert pickle.loads(pickle.dumps(engine)).precision == "bfloat16"
    assert hints == ["bf16", "bf16"]


def _answer(connection, engine):
    connection.send(engine(NOISE))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openvino_answers_in_a_forked_process(colors_model):
    engine = open_engine(colors_model, "openvino", threads=2)
    expected = engine(NOISE)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_answer, args=(there, engine), daemon=True)
    process.start()
    try:
        assert here.poll(60)
        np.testing.assert_array_equal(here.recv(), expected)
    finally:
        process.kill()
        process.join()


def test_openvino_says_which_size_a_file_takes(tmp_path):
    model = onnx.load(write_colors_model(tmp_path / "any.onnx"))
    for side, size in ((2, 32), (3, 64)):
        model.graph.input[0].type.tensor_type.shape.dim[side].dim_value = size
    onnx.save(model, tmp_path / "one.onnx")
    for engine in ("onnxruntime", "openvino"):
        opened = open_engine(tmp_path / "one.onnx", engine, threads=1)
        assert opened.size_hw == (32, 64)
        with pytest.raises(InputError, match=r"takes pictures of 32x64 pixels and no others, got 37x51"):
            opened(NOISE)


def test_openvino_is_called_from_many_threads(colors_model):
    from concurrent.futures import ThreadPoolExecutor

    engine = open_engine(colors_model, "openvino", threads=1)
    expected = engine(NOISE)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(engine, [NOISE] * 32):
            np.testing.assert_array_equal(found, expected)


def test_torch_tensors_are_taken_by_engines_of_files(colors_model):
    np.testing.assert_allclose(
        open_engine(colors_model, "openvino", threads=1)(torch.from_numpy(NOISE)),
        open_engine(colors_model, threads=1)(NOISE),
        atol=1e-6,
    )


def test_openvino_tells_its_makers_nothing(tmp_path):
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry" / "__init__.py").write_text("open('sent', 'w')")
    model = write_colors_model(tmp_path / "colors.onnx")
    code = (
        "import numpy as np, pixelwise\n"
        f"found = pixelwise.Segmenter({str(model)!r}, engine='openvino')(np.zeros((8, 8, 3), np.uint8))\n"
        "print(found.engine)"
    )
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "openvino", done.stderr
    assert not (tmp_path / "sent").exists()


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx2 avx512_vnni", False),
        ("AMD64", "flags : avx2 avx_vnni", False),
        ("x86_64", "flags : avx2 avx512f", True),
        ("AMD64", None, True),
        ("aarch64", "Features : asimd", False),
    ],
)
def test_int8_takes_the_exact_way_where_a_processor_may_run_over(
    machine, flags, expected, monkeypatch, tmp_path
):
    from pixelwise.engines import onnxruntime as engine

    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(engine.platform, "machine", lambda: machine)
    monkeypatch.setattr(engine, "open", lambda *_, **__: (tmp_path / "cpuinfo").open(), raising=False)
    engine._saturates.cache_clear()
    try:
        assert engine._saturates() is expected
        picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        found = Segmenter("everyday", precision="int8", threads=1)(picture)  # opens with that option
        assert found.precision == "int8"
    finally:
        engine._saturates.cache_clear()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such signals here")
def test_an_interrupted_call_leaves_no_answer_behind_for_the_next_one(colors_model, monkeypatch):
    def interrupt(*_):
        raise TimeoutError

    monkeypatch.setattr("pixelwise.engines.openvino._cores", {-1: None})  # as in a forked process
    engine = OpenVinoEngine(colors_model, threads=1)
    images = [np.full((1, 3, 8, 8), value, np.float32) for value in (1.0, 2.0)]
    expected = open_engine(colors_model, "onnxruntime", threads=1)(images[1])
    before = signal.signal(signal.SIGALRM, interrupt)
    process = engine._loaded.held._process
    os.kill(process.pid, signal.SIGSTOP)  # it takes its time
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError):
            engine(images[0])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert process.poll() is not None
    np.testing.assert_allclose(engine(images[1]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (None, ["CPUExecutionProvider"]),
        ("cpu", ["CPUExecutionProvider"]),
        ("auto", [("CUDAExecutionProvider", {"device_id": 0, "use_tf32": "0"}), "CPUExecutionProvider"]),
        ("cuda", [("CUDAExecutionProvider", {"device_id": 0, "use_tf32": "0"}), "CPUExecutionProvider"]),
        ("cuda:12", [("CUDAExecutionProvider", {"device_id": 12, "use_tf32": "0"}), "CPUExecutionProvider"]),
    ],
)
def test_onnx_runtime_is_asked_for_that_gpu_and_for_all_bits_of_float32(device, expected, monkeypatch):
    from pixelwise.engines import onnxruntime as engine

    here = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(engine.onnxruntime, "get_available_providers", lambda: here)
    assert engine._providers(device) == expected
    monkeypatch.setattr(engine.onnxruntime, "get_available_providers", lambda: here[1:])
    if device in (None, "cpu", "auto"):
        assert engine._providers(device) == ["CPUExecutionProvider"]
    else:
        with pytest.raises(InputError, match="ONNX Runtime has no CUDA here"):
            engine._providers(device)


def test_a_network_that_is_training_answers_many_threads_and_goes_on_training():
    network = Colors().train()
    network.conv.eval()  # frozen
    both = threading.Barrier(2)
    inside = network.coarse

    def coarse(image):
        both.wait(20)  # one comes while the other is at work
        found = inside(image)
        if threading.current_thread() is second:
            first.join(20)  # and stays when it has gone
            found = inside(image)
        return found

    network.coarse = coarse
    segmenter, answers = Segmenter(network, card=CARD), []

    def ask():
        answers.append(segmenter(quadrants()).labels)

    first, second = threading.Thread(target=ask), threading.Thread(target=ask)
    first.start()
    second.start()
    second.join(40)
    assert len(answers) == 2
    assert all((answer == quadrant_labels()).all() for answer in answers)
    assert (network.training, network.noise.training, network.conv.training) == (True, True, False)


def test_what_an_engine_or_a_shipped_model_does_not_have_is_said_before_anything_is_tried(monkeypatch):
    monkeypatch.setattr("pixelwise.engines.trials.trial", lambda *_: pytest.fail("a trial"))
    with pytest.raises(
        InputError, match=r"'openvino' runs on the CPU here, got device 'cuda:1'; .*: onnxruntime or pytorch"
    ):
        Segmenter("everyday", engine="openvino", device="cuda:1")
    with pytest.raises(
        InputError, match=r"nuclei ships in float32, .*: pixelwise quantize nuclei --data DIR --out"
    ):
        Segmenter("nuclei", precision="int8")
