"""Configurations of training (`train --config`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from hostile.cases import Case, Place, Refused, typed
from hostile.data_sets import folder

WARM = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "pixelwise.training.runner",
    "pixelwise.training.probes",
)
TRAIN = typed("train", "--config", "x.json", "--out", "run", "--data", "data", "--no-check")
WHOLE: dict[str, Any] = {
    "steps": 1,
    "batch_size": 2,
    "model": "unet",
    "encoder": "resnet18",
    "data": "data",
    "workers": 0,
    "image_size": 32,
    "losses": {"cross_entropy": 1.0},
    "weights": None,
}


def _cases() -> Iterator[Case]:
    def text(name: str, make: Callable[[], str | bytes], says: str = r"configuration|x\.json") -> Case:
        def write(place: Place) -> None:
            for file, data in folder(**{"classes.txt": "a\nb\n"}).items():
                place.write(f"data/{file}", data)
            place.write("x.json", make())

        return Case(name, write, TRAIN, Refused(says))

    def one(name: str, says: str | None = None, **changes: Any) -> Case:
        says = says or next(iter(changes))
        return text(name, lambda: json.dumps({**WHOLE, **changes}), says)

    yield text("nothing in it", lambda: "")
    yield text("no JSON", lambda: "{")
    yield text("a list", lambda: "[]")
    yield text("a number", lambda: "7")
    yield text("TOML", lambda: 'model = "unet"\nsteps = 3\n')
    yield text("another byte than text has", lambda: b"\xff\xfe{}")
    yield text("nested without end", lambda: '{"a":' * 100_000)
    yield text("a number of a million digits", lambda: '{"steps": ' + "9" * 1_000_000 + "}")
    yield one("an unknown key", "colour", colour=1)
    yield one("a program for a key", "__class__", __class__="os.system")
    yield one("neither steps nor epochs", "steps", steps=None)
    yield one("both steps and epochs", "steps", epochs=3)
    yield one("steps of words", "steps", steps="many")
    yield one("steps of a list", "steps", steps=[1])
    yield one("steps of a fraction", "steps", steps=1.5)
    yield one("steps that are true", "steps", steps=True)
    yield one("steps that are not a number", "steps", steps=float("nan"))
    yield one("epochs without end", "epochs", steps=None, epochs=float("inf"))
    yield one("a batch of nothing", batch_size=0)
    yield one("a batch of one small picture", "batch of 1 picture", batch_size=1)
    yield one("a batch of words", batch_size="1")
    yield one("a batch beyond any number", batch_size=10**400)
    yield one("a batch larger than the data set", "pictures|batch", batch_size=10**9)
    yield one("a negative picture", image_size=-5)
    yield one("a picture of a billion", "image_size|image size|memory|pixels", image_size=10**9)
    yield one("a picture of words", image_size="large")
    yield one("a seed of words", seed="one")
    yield one("a negative seed", seed=-1)
    yield one("a rate that is not a number", peak_lr=float("nan"))
    yield one("a rate without end", peak_lr=float("inf"))
    yield one("a rate of a list", peak_lr=[])
    yield one("a decay that is not a number", ema_decay=float("nan"))
    yield one("a network of nobody", "nonet", model="nonet")
    yield one("a network that is a list", model=["unet"])
    yield one("an encoder of nobody", "nonet", encoder="nonet")
    yield one("an encoder that is a path", "secret", encoder="../outside/secret.png")
    yield one("options that are a list", model_options=[])
    yield one("an option of nobody", "colour", model_options={"colour": 1})
    yield one(
        "a network of a billion channels",
        "channels|memory|decoder",
        model_options={"decoder_channels": [10**9] * 5},
    )
    yield one("losses of nobody", "nothing", losses={"nothing": 1})
    yield one("losses that are a list", losses=["dice"])
    yield one("losses of words", losses={"dice": "much"})
    yield one("no losses", losses={})
    yield one("options of a loss that is not there", "loss", loss_options={"focal": {"gamma": 2}})
    yield one("augmentation of nobody", "nothing", augment={"nothing": 1})
    yield one("augmentation that is a word", augment="much")
    yield one("a split of nobody", "format|camvid|data", format="nothing")
    yield one("weights that are not there", "none.pt", weights="none.pt")
    yield one("weights outside that are none", "secret", weights="../outside/secret.png")
    yield one("an optimiser of nobody", optimizer="none")
    yield one("a precision of nobody", precision="int4")
    yield one("trackers of nobody", "nobody", trackers=["nobody"])
    yield one("workers of a fraction", workers=0.5)
    yield one("workers beyond any machine", workers=10**9)
    yield one("a change of ids that is none", "parts", map_ids="words")


CASES = list(_cases())
