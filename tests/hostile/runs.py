"""Folders of training runs that were cut off, which `train --resume` goes on with."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile.cases import Case, Place, Refused, Right, accepted, typed
from hostile.checkpoints import Runs, torch_file, zipped

WARM = ("torch", "torchvision", "timm", "accelerate", "pixelwise.training.runner", "matplotlib.pyplot")
BEFORE = Path(__file__).parents[1] / "written_before"
RESUME = typed("train", "--out", "run_cut", "--resume")


def unpacked(place: Place) -> Path:
    """The runs, rasters and data of `written_before` in the place; returns the run that was cut off."""
    about = importlib.util.spec_from_file_location("written_before_make", BEFORE / "make.py")
    assert about is not None
    assert about.loader is not None
    make = importlib.util.module_from_spec(about)
    about.loader.exec_module(make)
    make.unpack(place.folder)
    return place.folder / "run_cut"


def with_file(name: str, data: bytes | str | None) -> Callable[[Place], None]:
    """The run with another file in it; None: without that file."""

    def make(place: Place) -> None:
        run = unpacked(place)
        if data is None:
            (run / name).unlink()
        else:
            place.write(f"run_cut/{name}", data)

    return make


def with_state(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], None]:
    """The run whose checkpoint was changed."""

    def make(place: Place) -> None:
        import torch

        path = unpacked(place) / "checkpoint.pt"
        state = torch.load(path, weights_only=True)
        change(state)
        path.write_bytes(torch_file(state))

    return make


def _reversed(state: dict[str, Any]) -> None:
    kept = state["optimizer"]["state"]
    state["optimizer"]["state"] = dict(zip(kept, reversed(list(kept.values())), strict=True))


def config(**changes: Any) -> str:
    return json.dumps({**json.loads((BEFORE / "run_cut" / "config.json").read_text()), **changes})


def _cases() -> Iterator[Case]:
    def one(name: str, make: Callable[[Place], object], right: Right, **more: Any) -> Case:
        return Case(name, make, RESUME, right, **{"deletes": ("run_cut/config.json",), **more})

    def data(name: str, content: str) -> Case:
        return one(name, with_file("data.json", content), Refused(r"data\.json"))

    state = Refused(r"checkpoint\.pt|run_cut")
    settings = Refused(r"configuration|config\.json")
    results = ("run_cut/*",)
    yield one("whole", unpacked, accepted("mean IoU"), leaves=results, deletes=results, slow=True)
    yield one("a run elsewhere", lambda p: None, Refused("run_cut"))
    yield one("no checkpoint", with_file("checkpoint.pt", None), Refused(r"checkpoint\.pt"))
    yield one("an empty checkpoint", with_file("checkpoint.pt", b""), state)
    yield one("a checkpoint that is text", with_file("checkpoint.pt", "text"), state)
    yield one("a checkpoint that is a list", with_file("checkpoint.pt", torch_file_lazily([1, 2])), state)
    yield one("a checkpoint of nothing", with_file("checkpoint.pt", torch_file_lazily({})), state)
    yield one(
        "a checkpoint that runs a program",
        lambda p: with_file("checkpoint.pt", torch_file(Runs(os.system, f"touch {p.outside}/came")))(p),
        state,
    )
    yield one(
        "a checkpoint cut short",
        lambda p: with_file("checkpoint.pt", (BEFORE / "run_cut/checkpoint.pt").read_bytes()[:-500])(p),
        state,
    )
    yield one(
        "a checkpoint that is an archive of something", with_file("checkpoint.pt", zipped({"a": b"b"})), state
    )
    yield one("no network in it", with_state(lambda s: s.pop("network")), state)
    yield one("a network that is a word", with_state(lambda s: s.update(network="word")), state)
    yield one("a network of other tensors", with_state(lambda s: s["network"].popitem()), state)
    yield one("no optimiser in it", with_state(lambda s: s.pop("optimizer")), state)
    yield one("an optimiser of another shape", with_state(lambda s: s.update(optimizer={"state": 7})), state)
    yield one("an optimiser of parameters in another order", with_state(_reversed), state)
    yield one("an average of another shape", with_state(lambda s: s.update(average=[1])), state)
    yield one("a step of words", with_state(lambda s: s.update(step="third")), state)
    yield one("a negative step", with_state(lambda s: s.update(step=-3)), state)
    yield one("a step beyond the last", with_state(lambda s: s.update(step=10**9)), state)
    yield one("a best score of words", with_state(lambda s: s.update(best="high")), state)
    yield one(
        "another number of pictures",
        with_state(lambda s: s.update(samples=99)),
        accepted("mean IoU"),
        leaves=results,
        deletes=results,
        slow=True,
    )
    yield data("a data.json that is no JSON", "{")
    yield data("a data.json nested without end", "[" * 100_000)
    yield data("a data.json of numbers", "[1, 2]")
    yield data("a data.json of other values", '{"train": {"a": 7}, "val": {}}')
    yield one(
        "a configuration of words in it",
        with_state(lambda s: s.update(config="{")),
        Refused("configuration|checkpoint"),
    )
    yield one("no configuration in it", with_state(lambda s: s.pop("config")), state)
    yield one("no config.json", with_file("config.json", None), settings)
    yield one("a config.json that is no JSON", with_file("config.json", "{"), settings)
    yield one("a config.json nested without end", with_file("config.json", "[" * 100_000), settings)
    yield one("a config.json of another byte than text has", with_file("config.json", b"\xff\xfe"), settings)
    yield one(
        "a config.json of another network",
        with_file("config.json", config(model="segnet_basic")),
        Refused("model|segnet|network|argument"),
    )
    yield one(
        "metrics.jsonl of numbers",
        with_file("metrics.jsonl", "7\n8\n"),
        accepted("mean IoU"),
        leaves=results,
        deletes=results,
        slow=True,
    )
    yield one(
        "metrics.jsonl of other objects",
        with_file("metrics.jsonl", '{"a": 1}\n'),
        accepted("mean IoU"),
        leaves=results,
        deletes=results,
        slow=True,
    )
    yield one(
        "metrics.jsonl nested without end",
        with_file("metrics.jsonl", "[" * 100_000),
        accepted("mean IoU"),
        leaves=results,
        deletes=results,
        slow=True,
    )
    yield one("metrics.jsonl that is a folder", _folder, Refused(r"metrics\.jsonl"))
    yield one(
        "metrics.jsonl that leads outside",
        _link,
        accepted("mean IoU"),
        leaves=results,
        deletes=results,
        slow=True,
    )
    yield one("a checkpoint that leads outside", _linked_checkpoint, state)


def torch_file_lazily(content: Any) -> bytes:
    import pickle

    return pickle.dumps(content, 2)


def _folder(place: Place) -> None:
    with_file("metrics.jsonl", None)(place)
    (place.folder / "run_cut" / "metrics.jsonl").mkdir()


def _link(place: Place) -> None:
    with_file("metrics.jsonl", None)(place)
    (place.folder / "run_cut" / "metrics.jsonl").symlink_to(place.outside / "secret.png")


def _linked_checkpoint(place: Place) -> None:
    with_file("checkpoint.pt", None)(place)
    (place.folder / "run_cut" / "checkpoint.pt").symlink_to(place.outside / "secret.png")


CASES = list(_cases())
