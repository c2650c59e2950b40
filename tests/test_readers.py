"""Files that anybody wrote: every reader gives a value or one of the errors that it promises, whatever the bytes."""

from __future__ import annotations

import functools
import io
import json
import os
import socket
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from pixelwise import Card, LabelSet, Segmenter, create_model, from_checkpoint, load_checkpoint, save, smp
from pixelwise.checkpoints.huggingface.folder import open_folder
from pixelwise.checkpoints.reading import ORIGIN_KEY
from pixelwise.checkpoints.smp.config import config_of
from pixelwise.datasets.coco import coco_pairs
from pixelwise.datasets.opening import read_classes
from pixelwise.engines import open_engine
from pixelwise.errors import InputError, PixelwiseError, WeightsError
from pixelwise.inference.tiling import Pending, Tiling
from pixelwise.outputs.coco import to_coco
from pixelwise.outputs.geo import to_geojson
from pixelwise.outputs.reading import read_labels
from pixelwise.pipeline.journal import JOURNAL, Journal
from pixelwise.training.config import TrainConfig
from pixelwise.training.progress import Metrics, read_metrics
from pixelwise.training.state import load_state, save_state
from pixelwise.weights.store import load_state_dict
from tiny import CARD, write_colors_model

CLASSES = LabelSet.of(["ground", "tree", "car"])
MAP = np.array([[0, 1, 1, 2], [0, 0, 1, 2], [255, 0, 2, 2]], np.uint8)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(MAP).save(file, "PNG")
    return file.getvalue()


def npy(values: Any = MAP) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def pending() -> bytes:
    path = Path(os.environ["PIXELWISE_CACHE"]).parent / "pending.npz"
    Pending(1, 2, np.ones((2, 2, 4), np.float32), (3, 4), Tiling(2, 1), False).save(path)
    return path.read_bytes()


def checkpoint() -> bytes:
    file = io.BytesIO()
    state: dict[str, Any] = {
        "network": {"a": torch.ones(2)}, "average": None, "optimizer": {"state": {}}, "scaler": None, "step": 3,
        "best": 0.5, "samples": 4, "processes": 1, "config": TrainConfig(steps=3).to_json(),
    }  # fmt: skip
    torch.save(state, file)
    return file.getvalue()


def tensors() -> bytes:
    path = Path(os.environ["PIXELWISE_CACHE"]).parent / "tensors.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.float16)}, path, metadata={"x": "y"})
    return path.read_bytes()


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.ones(2, 3), "b": torch.zeros(4)}, file)
    return file.getvalue()


def onnx_file() -> bytes:
    path = Path(os.environ["PIXELWISE_CACHE"]).parent / "colors.onnx"
    return write_colors_model(path).read_bytes()


def journal(path: Path) -> None:
    found = Journal(path.parent, {"a": 1}, resume=True)
    for source in list(found._entries):
        with suppress(OSError, ValueError):
            found.done(Path(source), {})
    found.add(path, {"x": path})


def metrics(path: Path) -> None:
    for line in read_metrics(path):
        assert line["step"] >= 0
    Metrics(path, 3).close()


def coco() -> bytes:
    return json.dumps(to_coco(np.where(MAP == 255, 0, MAP).astype(np.uint8), CLASSES, kind="counts")).encode()


SEGFORMER = {
    "architectures": ["SegformerForSemanticSegmentation"], "model_type": "segformer", "num_channels": 3,
    "id2label": {"0": "wall", "1": "sky"}, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 3, 4], "hidden_act": "gelu", "mlp_ratios": [4, 4, 4, 4], "sr_ratios": [8, 4, 2, 1],
    "decoder_hidden_size": 16, "classifier_dropout_prob": 0.1, "reshape_last_stage": True,
}  # fmt: skip
UPERNET = {
    "architectures": ["UperNetForSemanticSegmentation"], "model_type": "upernet", "id2label": {"0": "a", "1": "b"},
    "pool_scales": [1, 2, 3, 6], "hidden_size": 16, "use_auxiliary_head": True, "auxiliary_channels": 8,
    "backbone_config": {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8],
                        "out_features": ["stage1", "stage2", "stage3", "stage4"], "window_size": 7},
}  # fmt: skip
PREPROCESSOR = {
    "image_processor_type": "SegformerImageProcessor", "do_resize": True, "do_normalize": True, "do_rescale": True,
    "rescale_factor": 1 / 255, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "resample": 2,
    "size": {"height": 64, "width": 64}, "do_reduce_labels": True,
}  # fmt: skip


def preprocessor(path: Path) -> None:
    (path.parent / "config.json").write_text(json.dumps(SEGFORMER))
    open_folder(path.parent)


@functools.cache
def network() -> torch.nn.Module:
    return create_model("unet", width=2)


def own_header(path: Path) -> None:
    where = path.with_name("it.safetensors")
    save_file(network().state_dict(), where, metadata={ORIGIN_KEY: path.read_text("utf-8", "replace")})
    from_checkpoint(where)


def smp_config(path: Path) -> None:
    model = smp_model()
    save_file(model.state_dict(), path.with_name("model.safetensors"))
    smp.from_pretrained(path.parent)


@functools.cache
def smp_model() -> Any:
    return smp.FPN("resnet18", encoder_weights=None, encoder_depth=4, decoder_segmentation_channels=32,
                   decoder_pyramid_channels=8)  # fmt: skip


def coco_data(path: Path) -> None:
    (path.parent / "annotations").mkdir(exist_ok=True)
    moved = path.parent / "annotations" / path.name
    path.replace(moved)
    try:
        for pair in coco_pairs(path.parent):
            pair.read_ids()
    finally:
        moved.replace(path)
        moved.parent.rmdir()


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}],
    "categories": [{"id": 1, "name": "person"}, {"id": 72, "name": "tv"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "area": 12.0, "segmentation": [[0, 0, 3, 0, 3, 3]]},
                    {"id": 2, "image_id": 1, "category_id": 72, "area": 12.0,
                     "segmentation": {"size": [4, 5], "counts": [5, 5, 10]}}],
}  # fmt: skip

READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], Any]]] = {
    # name: the file, a good one, what reads it
    "card": ("card.json", lambda: CARD.to_json().encode(), lambda p: Card.from_json(p.read_text("utf-8", "replace"))),
    "png": ("m.png", png, lambda p: read_labels(p, CLASSES)),
    "npy": ("m.npy", npy, lambda p: read_labels(p, CLASSES)),
    "geojson": ("m.geojson", lambda: json.dumps(to_geojson(MAP, CLASSES)).encode(), lambda p: read_labels(p, CLASSES)),
    "coco": ("m.coco.json", coco, lambda p: read_labels(p, CLASSES)),
    "classes": ("classes.txt", lambda: b"0 ground\n1 tree\n", lambda p: read_classes(p.parent)),
    "journal": (JOURNAL, lambda: b'{"settings": {"a": 1}, "hash": "x"}\n'
                b'{"source": "/x", "file": [1, 2], "hash": "x", "files": {"a": "b"}}\n', journal),
    "metrics": ("metrics.jsonl", lambda: b'{"step": 1, "loss": NaN, "parts": {"a": 1.0}}\n{"step": 2, "score": 1}\n',
                metrics),
    "config": ("config.json", lambda: TrainConfig(steps=3).to_json().encode(),
               lambda p: TrainConfig.from_json(p.read_text("utf-8", "replace"))),
    "pending": ("p.npz", pending, Pending.load),
    "state": ("checkpoint.pt", checkpoint, load_state),
    "safetensors": ("w.safetensors", tensors, load_state_dict),
    "torch": ("w.pt", torch_file, load_state_dict),
    "segformer": ("config.json", lambda: json.dumps(SEGFORMER).encode(), lambda p: open_folder(p.parent)),
    "upernet": ("config.json", lambda: json.dumps(UPERNET).encode(), lambda p: open_folder(p.parent)),
    "preprocessor": ("preprocessor_config.json", lambda: json.dumps(PREPROCESSOR).encode(), preprocessor),
    "header": ("it.json", lambda: json.dumps(
        {"model": network().origin.model, "arguments": dict(network().origin.arguments)}).encode(), own_header),
    "smp": ("config.json", lambda: json.dumps(
        {**config_of(smp_model().origin), "activation": None, "aux_params": None}).encode(), smp_config),
    "coco data": ("instances_val2017.json", lambda: json.dumps(COCO).encode(), coco_data),
    "onnx": ("m.onnx", onnx_file, lambda p: open_engine(p, threads=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_good_file_is_read(name: str, tmp_path: Path):
    file, make, read = READERS[name]
    (tmp_path / file).write_bytes(make())
    read(tmp_path / file)


def mutated(data: st.DataObject, good: bytes) -> bytes:
    """The bytes cut, changed, doubled, or others altogether."""
    kind = data.draw(st.sampled_from(["flip", "flip", "flip", "cut", "insert", "swap", "random"]))
    if kind == "random":
        return data.draw(st.binary(max_size=200))
    if kind == "cut":
        return good[: data.draw(st.integers(0, len(good)))]
    at = data.draw(st.integers(0, len(good) - 1))
    if kind == "insert":
        return good[:at] + data.draw(st.binary(max_size=8)) + good[at:]
    if kind == "swap":
        to = data.draw(st.integers(0, len(good) - 1))
        return good[:at] + good[to : to + 12] + good[at + 12 :]
    out = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        out[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    return bytes(out)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70_000) | st.floats() | st.text(max_size=4)
    | st.sampled_from([10**400, -(2**63), 2**31, 10**12, "\ud800", "", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def changed(data: st.DataObject, value: Any) -> Any:
    """A value of JSON in which something is another value, missing, or there besides."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 5)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: changed(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.integers(0, 4)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], changed(data, value[at]), *value[at + 1 :]]
    return data.draw(JSON)


def survive(name: str, data: st.DataObject, folder: Path) -> None:
    file, make, read = READERS[name]
    good = GOOD.setdefault(name, make())
    lines = good.split(b"\n") if name in ("journal", "metrics") else [good]
    if good.startswith(b"{") and data.draw(st.booleans()):
        content = b"\n".join(
            json.dumps(changed(data, json.loads(line))).encode() if line else line for line in lines
        )
    else:
        content = mutated(data, good)
    for old in folder.iterdir():
        old.unlink()
    (folder / file).write_bytes(content)
    with warnings.catch_warnings(), suppress(PixelwiseError):
        warnings.simplefilter("ignore")
        read(folder / file)


GOOD: dict[str, bytes] = {}
FIXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused(name: str, tmp_path: Path):
    many = {"smp": 4, "header": 12, "onnx": 25, "journal": 25}.get(name, 40)

    @settings(max_examples=many, deadline=None, suppress_health_check=FIXED, database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        survive(name, data, tmp_path)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_more_bytes_are_read_or_refused(name: str, tmp_path: Path):
    many = {"smp": 40, "header": 150}.get(name, 600)

    @settings(max_examples=many, deadline=None, suppress_health_check=FIXED, database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        survive(name, data, tmp_path)

    run()


def zipped(content: bytes, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr("a/data.pkl", content)
    return file.getvalue()


def header(shape: str) -> bytes:
    said = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("m.npy", header("(1000000, 1000000)"), "damaged"),
        ("m.npy", header("(3, 4"), "damaged"),
        ("m.npy", zipped(b""), "damaged"),
        ("m.png", b"", "empty|damaged"),
        ("m.geojson", b'{"raster": {"height": 1e400, "width": 1}, "features": []}', "inf"),
        ("m.geojson", b'{"raster": {"height": 1000000, "width": 1000000}, "features": []}', "pixels cannot be read"),
        ("m.geojson", b"[" * 100_000, "nested too deeply"),
        ("m.coco.json", b'{"images": [{"id": 1, "height": 1000000, "width": 1000000}], "categories": [], '
         b'"annotations": []}', "pixels cannot be read"),
        ("m.coco.json", b'{"images": [{"id": 1, "height": 3, "width": 3}], "categories": [{"id": 1, "name": "car"}], '
         b'"annotations": [{"image_id": 1, "category_id": 1, "segmentation": {"size": [99999, 99999], "counts": '
         b'[9999800001]}}]}', "run lengths are of the size"),
    ],
)  # fmt: skip
def test_label_files_that_promise_more_than_there_is_are_refused_by_name(file, content, says, tmp_path):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_labels(tmp_path / file, CLASSES)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_classes_that_are_no_utf8_are_told_with_their_file(tmp_path):
    (tmp_path / "classes.txt").write_bytes("0 Straße\n".encode("latin-1"))
    with pytest.raises(
        InputError, match=r"classes\.txt is no list of classes: it is no UTF-8 at byte 6; save it as UTF-8"
    ):
        read_classes(tmp_path)
    (tmp_path / "classes.txt").write_text("0 Straße\n", encoding="utf-8-sig")
    found = read_classes(tmp_path)
    assert found is not None
    assert found.names == ("Straße",)


def test_a_torch_file_that_unfolds_is_refused_before_it_does(tmp_path):
    path = tmp_path / "bomb.pt"
    path.write_bytes(zipped(bytes(2**26)))
    with pytest.raises(WeightsError, match=r"has [\d,]+ bytes and would unfold to 67,108,864"):
        load_state_dict(path)
    path.write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        load_state_dict(path)


def test_tensors_that_are_not_there_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(1).expand(2**40)}, path)
    with pytest.raises(WeightsError, match=r"would have 4,398,046,511,104 bytes, and 4 are there"):
        load_state_dict(path)
    tied = torch.zeros(2**18)
    torch.save({"a": tied, "b": tied, "c": tied[:4]}, path)  # as tied weights are
    assert len(load_state_dict(path)) == 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.ones(2, 3, 1, 1, dtype=torch.int64), "holds int64 in head.weight, where float32 is expected"),
        (torch.ones(2, 3, 1, 1, dtype=torch.complex64), "holds complex64"),
        (torch.ones(2, 3, 1, 1, dtype=torch.bool), "holds bool"),
    ],
)
def test_numbers_of_another_kind_are_refused(given: torch.Tensor, says: str, tmp_path):
    from pixelwise.weights.store import load_into

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Conv2d(3, 2, 1, bias=False)
            self.register_buffer("index", torch.zeros(2, dtype=torch.int64))

    network, index = Net(), torch.zeros(2)
    before = network.head.weight.detach().clone()
    with pytest.raises(WeightsError, match=says):
        load_into(network, {"head.weight": given, "index": index}, source="it")
    with pytest.raises(WeightsError, match="holds float32 in index, where int64"):
        load_into(network, {"head.weight": before, "index": index + 0.5}, source="it")
    assert torch.equal(network.head.weight, before)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        load_into(network, {"head.weight": before.to(kind), "index": index + 7}, source="it")
    assert network.index.tolist() == [7, 7]


def test_a_checkpoint_of_integers_or_complex_numbers_is_not_loaded(tmp_path):
    network = create_model("unet", width=2)
    for kind in (torch.int32, torch.complex64):
        state = {k: t.to(kind) if t.is_floating_point() else t for k, t in network.state_dict().items()}
        with pytest.raises(WeightsError, match=f"holds {str(kind)[6:]} in"):
            load_checkpoint(network, state)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """No network; and the files that were opened while the list was switched on, by names."""
    opened: list[str] = []
    on = [True]

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if on[0] and event == "open" and isinstance(arguments[0], str):
            opened.append(arguments[0])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    sys.addaudithook(look)
    yield opened
    on[0] = False


FETCHES: tuple[dict[str, Any], ...] = (
    {"weights": "DEFAULT", "weights_backbone": "IMAGENET1K_V1", "encoder_weights": "imagenet", "pretrained": True},
    {"weights": "/etc/hostname", "encoder_weights": "/etc/hostname"},
    {"encoder_options": {"pretrained": True}},
    {"encoder_options": {"checkpoint_path": "/etc/hostname"}},
    {"encoder_options": {"pretrained_cfg": {"file": "/etc/hostname"}}},
    {"encoder_options": {"pretrained_cfg_overlay": {"hf_hub_id": "a/b"}}},
    {"encoder_options": {"weights": "/etc/hostname"}},
    {"encoder_options": {"cache_dir": "/etc"}},
    *({"encoder": name} for name in ("hf-hub:a/b", "tu-hf-hub:a/b", "timm/hf-hub:a/b", "hf_hub:a/b", "local-dir:/etc",
                                     "tu-local-dir:/etc", "/etc/hostname", "../x", "https://x.invalid/a")),
)  # fmt: skip


def test_no_file_of_ours_asks_the_network_or_opens_another_file(alone, tmp_path):
    network = create_model(
        "unet", encoder="tu-test_resnet", num_classes=2, encoder_depth=4, decoder_channels=(8, 8, 8, 8)
    )
    state, whole = network.state_dict(), dict(network.origin.arguments)
    for more in FETCHES:
        path = tmp_path / "it.safetensors"
        save_file(
            state, path, metadata={ORIGIN_KEY: json.dumps({"model": "unet", "arguments": whole | more})}
        )
        with suppress(PixelwiseError):
            from_checkpoint(path)
        assert not any(name.startswith("/etc/hostname") for name in alone), more


def test_no_folder_of_smp_asks_the_network_or_opens_another_file_and_oddities_are_sentences(alone, tmp_path):
    model = smp.Unet("tu-test_resnet", encoder_weights=None, encoder_depth=4, decoder_channels=(8, 8, 8, 8))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    odd: list[dict[str, Any]] = [
        {"weights": "DEFAULT"}, {"pretrained": True}, {"checkpoint_path": "/etc/hostname"},
        {"pretrained_cfg": {"file": "/etc/hostname"}}, {"encoder_name": "tu-hf-hub:a/b"},
        {"encoder_name": "hf-hub:a/b"}, {"encoder_name": 5}, {"encoder_name": ["x"]}, {"aux_params": 5},
        {"aux_params": {"classes": 10**9}}, {"aux_params": {"classes": "x"}}, {"activation": ["x"]},
        {"activation": {"a": 1}}, {"classes": 2_000_000}, {"classes": 60_000}, {"classes": {"a": 1}},
        {"decoder_channels": 5}, {"decoder_channels": [65_000] * 4}, {"decoder_channels": ["x"] * 4},
        {"decoder_use_norm": {"type": ["x"]}}, {"decoder_use_norm": {"type": "batchnorm", "eps": "x"}},
        {"encoder_depth": 60_000}, {"in_channels": 60_000}, {"_model_class": ["Unet"]}, {"_model_class": None},
        {"_model_class": {"Unet": 1}}, {"upsampling": "x"}, {"depths": [60_000] * 4}, {"encoder_output_indices": 5},
    ]  # fmt: skip
    for i, more in enumerate(odd):
        (tmp_path / "config.json").write_text(json.dumps(config | more))
        for read in (smp.from_pretrained, from_checkpoint) if i < 12 else (smp.from_pretrained,):
            with warnings.catch_warnings(), suppress(PixelwiseError):
                warnings.simplefilter("ignore")
                read(tmp_path)
    assert not any(name.startswith("/etc/hostname") for name in alone)
    for text in (
        "[1]",
        "{",
        "[" * 100_000,
        '{"_model_class": "Unet", "_model_class": "FPN"}',
        "\ud800".encode(errors="surrogatepass"),
    ):
        (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(PixelwiseError):
            smp.from_pretrained(tmp_path)


def test_a_header_that_asks_for_more_than_the_file_offers_takes_no_memory(tmp_path):
    resource = pytest.importorskip("resource")
    network = create_model("unet", width=2)
    whole = dict(network.origin.arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for more in (
        {"num_classes": 2_000_000},
        {"num_classes": 65_536},
        {"width": 65_536},
        {"in_channels": 65_536},
    ):
        path = tmp_path / "it.safetensors"
        said = json.dumps({"model": network.origin.model, "arguments": whole | more})
        save_file(network.state_dict(), path, metadata={ORIGIN_KEY: said})
        with pytest.raises(WeightsError):
            from_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_what_was_saved_opens_as_before(tmp_path):
    network = create_model("unet", width=2, num_classes=3).eval()
    save(network, tmp_path / "it.safetensors")
    again = from_checkpoint(tmp_path / "it.safetensors")
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(image)["out"], network(image)["out"])


def onnx_of(path: Path, takes: list[Any], gives: list[list[Any]], kind: int = 1) -> Path:
    """A file of one node that does nothing, without a card."""
    import onnx
    from onnx import helper

    value = helper.make_tensor_value_info
    outputs = [value("logits", kind, shape) for shape in gives]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])], "g", [value("image", kind, takes)], outputs
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    assert isinstance(model, onnx.ModelProto)
    return path


@pytest.mark.parametrize(
    ("takes", "gives", "kind", "says"),
    [
        (["n", 3, "h", "w"], [], 1, "no input or no output|cannot be loaded|can load"),
        (
            ["n", 3, 10**6, 10**6],
            [["n", 3, 10**6, 10**6]],
            1,
            "takes pictures of 1000000 x 1000000 pixels alone",
        ),
        (["n", 3, 2**62, 2**62], [["n", 3, 2**62, 2**62]], 1, "pixels alone"),
        (["n", 3, 0, 0], [["n", 3, 0, 0]], 1, "pixels alone"),
        (["n", 3, "h", "w"], [["n", 3, "h", "w"]], 7, "fails at a picture"),
        (["n"], [["n"]], 1, r"takes arrays of 1 dimensions; expected pictures"),
    ],
)
def test_onnx_files_of_odd_shapes_are_one_sentence(takes, gives, kind, says, tmp_path):
    with pytest.raises(InputError, match=says) as caught:
        Segmenter(onnx_of(tmp_path / "odd.onnx", takes, gives, kind))
    assert "odd.onnx" in str(caught.value)


@pytest.mark.parametrize("where", ["/etc/hostname", "../hostname", "sub/../../hostname"])
def test_an_onnx_file_takes_no_tensors_from_elsewhere(where, tmp_path):
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=where)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])], "g", [value("image", 1, ["n", 3, "h", "w"])],
        [value("logits", 1, ["n", 3, "h", "w"]), value("w", 2, [3])], [tensor],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "in").mkdir()
    (tmp_path / "hostname").write_bytes(b"abc")
    (tmp_path / "in" / "it.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="is not a model that ONNX Runtime can load"):
        Segmenter(tmp_path / "in" / "it.onnx")


def test_a_checkpoint_of_a_run_of_another_shape_is_one_sentence(tmp_path):
    path = tmp_path / "checkpoint.pt"
    good = torch.load(io.BytesIO(checkpoint()))
    for name in good:
        save_state(good | {name: ["x"]}, path)
        with pytest.raises(InputError, match=f"its '{name}' is none"):
            load_state(path)
        save_state({key: value for key, value in good.items() if key != name}, path)
        if good[name] is not None:
            with pytest.raises(InputError, match=f"its '{name}' is none"):
                load_state(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="no checkpoint of a training run"):
        load_state(path)
