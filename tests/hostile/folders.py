"""Folders as Hugging Face and SMP write them, opened with `from_checkpoint`."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile.cases import Case, Gives, Place, Refused, Right
from hostile.checkpoints import NETWORKS, a_network, head, opened
from pixelwise.errors import InputError, WeightsError

WARM = ("torch", "torchvision", "timm", "pixelwise.checkpoints.saving", "safetensors.torch")
SEGFORMER: dict[str, Any] = {
    "model_type": "segformer",
    "architectures": ["SegformerForSemanticSegmentation"],
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [4, 6, 5, 8],
    "decoder_hidden_size": 8,
    "id2label": {str(i): f"c{i}" for i in range(6)},
    "num_channels": 3,
    "num_encoder_blocks": 4,
    "sr_ratios": [8, 4, 2, 1],
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "num_attention_heads": [1, 2, 5, 8],
    "mlp_ratios": [4, 4, 4, 4],
    "hidden_act": "gelu",
}
PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "SegformerImageProcessor",
    "do_resize": False,
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 1 / 255,
}


@functools.cache
def tensors() -> bytes:
    from pixelwise.checkpoints.saving import convert_file

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "model.safetensors")
        convert_file(NETWORKS / "huggingface_converted.safetensors", out, to="huggingface.segformer")
        return out.read_bytes()


@functools.cache
def smp() -> tuple[bytes, dict[str, Any]]:
    """SMP's tensors and configuration."""
    from pixelwise.checkpoints.saving import convert_file

    with tempfile.TemporaryDirectory() as folder:
        convert_file(NETWORKS / "unet_on_mobilenetv3.safetensors", Path(folder, "out"), to="smp")
        return Path(folder, "out", "model.safetensors").read_bytes(), json.loads(
            Path(folder, "out", "config.json").read_text()
        )


def hugging(
    config: str | bytes | None = None, preprocessor: Any = PREPROCESSOR, **changes: Any
) -> Callable[[Place], None]:
    """A folder of a small SegFormer; config: the text of its configuration, or the whole one with changes."""

    def make(place: Place) -> None:
        place.write("x/model.safetensors", tensors())
        text = json.dumps({**SEGFORMER, **changes}) if config is None else config
        place.write("x/config.json", text)
        if preprocessor is not None:
            said = preprocessor if isinstance(preprocessor, str) else json.dumps(preprocessor)
            place.write("x/preprocessor_config.json", said)

    return make


def of_smp(**changes: Any) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        data, config = smp()
        place.write("x/model.safetensors", data)
        place.write("x/config.json", json.dumps({**config, **changes}))

    return make


def shards(index: Any) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.write("x/model.safetensors.index.json", index if isinstance(index, str) else json.dumps(index))
        place.write("x/config.json", json.dumps(SEGFORMER))

    return make


def _cases() -> Iterator[Case]:
    def one(name: str, make: Callable[[Place], None], right: Right | None = None) -> Case:
        return Case(name, make, opened("x"), right or Refused(r"config\.json", WeightsError))

    good = Gives(a_network)
    yield one("whole", hugging(), good)
    yield one("no JSON", hugging("{"))
    yield one("a list", hugging("[]"))
    yield one("a number", hugging("7"))
    yield one("nested without end", hugging("[" * 100_000))
    yield one("another byte than text has", hugging(b"\xff\xfe{}"))
    yield one("a configuration of 20 MB", hugging(json.dumps({**SEGFORMER, "x": "a" * 20_000_000})))
    yield one("a number of a million digits", hugging('{"model_type": ' + "9" * 1_000_000 + "}"))
    yield one(
        "a model of nobody",
        hugging(model_type="nothing", architectures=["Nothing"]),
        Refused("Nothing", WeightsError),
    )
    yield one(
        "a model that is code of its own",
        hugging(auto_map={"AutoModel": "evil.Model"}, model_type="evil"),
        Refused("evil", WeightsError),
    )
    yield one("a depth of words", hugging(depths=["a"] * 4))
    yield one("a depth of a billion", hugging(depths=[10**9] * 4))
    yield one("a width of a billion", hugging(hidden_sizes=[10**9] * 4))
    yield one("five stages", hugging(num_encoder_blocks=5))
    yield one("a million labels", hugging(id2label={str(i): str(i) for i in range(1_000_000)}))
    yield one("labels that are a list", hugging(id2label=["a"]))
    yield one("labels of other numbers", hugging(id2label={"a": "b"}))
    yield one("an activation of nobody", hugging(hidden_act="os.system"))
    yield one(
        "a preprocessor that is no JSON",
        hugging(preprocessor="{"),
        Refused(r"preprocessor_config\.json", WeightsError),
    )
    yield one(
        "a preprocessor that is a list",
        hugging(preprocessor=[]),
        Refused(r"preprocessor_config\.json", WeightsError),
    )
    yield one(
        "means of words",
        hugging(preprocessor={**PREPROCESSOR, "image_mean": ["a", "b", "c"]}),
        Refused(r"preprocessor_config\.json", WeightsError),
    )
    yield one(
        "deviations of nothing",
        hugging(preprocessor={**PREPROCESSOR, "image_std": [0, 0, 0]}),
        Refused(r"preprocessor_config\.json", WeightsError),
    )
    yield one(
        "a size of a billion",
        hugging(preprocessor={**PREPROCESSOR, "do_resize": True, "size": 10**9}),
        Refused(r"preprocessor_config\.json", WeightsError),
    )
    yield one(
        "weights of nobody",
        lambda p: (hugging()(p), p.write("x/model.safetensors", head({}))),
        Refused("", WeightsError),
    )  # type: ignore[func-returns-value]
    yield one(
        "no weights",
        lambda p: (hugging()(p), (p.folder / "x/model.safetensors").unlink()),
        Refused("holds none of", WeightsError),
    )  # type: ignore[func-returns-value]
    yield one("nothing in it", lambda p: (p.folder / "x").mkdir(), Refused("holds none of", WeightsError))
    yield one(
        "a configuration that is a folder",
        lambda p: (p.write("x/model.safetensors", tensors()), (p.folder / "x/config.json").mkdir()),
        Gives(a_network),
    )  # type: ignore[arg-type,func-returns-value]
    # Lists of shards
    index = Refused(r"index\.json", WeightsError)
    yield one("a list that is no JSON", shards("{"), index)
    yield one("a list of numbers", shards({"weight_map": {"a": 7}}), index)
    yield one("a list nested without end", shards("[" * 100_000), index)
    yield one("a list that leads outside", shards({"weight_map": {"a": "../../outside/secret.png"}}), index)
    yield one("a list of files that are not there", shards({"weight_map": {"a": "none.safetensors"}}), index)
    yield one(
        "a list of itself",
        shards({"weight_map": {"a": "model.safetensors.index.json"}}),
        Refused("", WeightsError),
    )
    # SMP
    yield one("smp: whole", of_smp(), good)
    yield one("smp: a model of nobody", of_smp(_model_class="Nothing"), Refused("Nothing", InputError))
    yield one("smp: a model that is a number", of_smp(_model_class=7), Refused("", InputError))
    yield one("smp: an encoder of nobody", of_smp(encoder_name="nonet"), Refused("nonet", InputError))
    yield one(
        "smp: an encoder of the Hub", of_smp(encoder_name="tu-hf-hub:nobody/nothing"), Refused("", InputError)
    )
    yield one(
        "smp: an encoder that is a path",
        of_smp(encoder_name="../outside/secret.png"),
        Refused("", InputError),
    )
    yield one("smp: an encoder that is a list", of_smp(encoder_name=["resnet18"]), Refused("", InputError))
    yield one("smp: weights that would be fetched", of_smp(encoder_weights="imagenet"), good)
    yield one("smp: classes of words", of_smp(classes="many"), Refused("", InputError))
    yield one("smp: classes of a billion", of_smp(classes=10**9), Refused("", InputError))
    yield one("smp: a depth of a thousand", of_smp(encoder_depth=1000), Refused("", InputError))
    yield one("smp: an argument of nobody", of_smp(colour=1), Refused("colour", InputError))
    yield one("smp: an activation that is a program", of_smp(activation="os.system"), Refused("", InputError))
    yield one("smp: channels beyond any number", of_smp(in_channels=10**400), Refused("", InputError))


CASES = list(_cases())
