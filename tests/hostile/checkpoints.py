"""Files of weights (.safetensors, .pt), opened with `from_checkpoint`."""

from __future__ import annotations

import collections
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile.cases import Case, Gives, Place, Refused, Right
from pixelwise.errors import InputError, WeightsError

WARM = (
    "torch",
    "torchvision",
    "timm",
    "pixelwise.checkpoints.loading",
    "pixelwise.models",
    "safetensors.torch",
)
NETWORKS = Path(__file__).parents[1] / "written_before" / "networks"
OURS = NETWORKS / "nonewnet.safetensors"


def opened(name: str) -> Callable[[Place], Any]:
    def do(_: Place) -> Any:
        from pixelwise import from_checkpoint

        return from_checkpoint(name)

    return do


def a_network(network: Any, _: Place) -> None:
    assert sum(p.numel() for p in network.parameters()) > 0


def head(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file of this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def ours(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file of ours whose header was changed."""
    data = OURS.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    return head(header, data[8 + length :])


def plan(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file of ours that says otherwise how its network is built."""

    def edit(header: dict[str, Any]) -> None:
        said = json.loads(header["__metadata__"]["pixelwise.plan"])
        change(said)
        header["__metadata__"]["pixelwise.plan"] = json.dumps(said)

    return ours(edit)


def said(key: str, text: str) -> bytes:
    return ours(lambda header: header["__metadata__"].update({key: text}))


def torch_file(content: Any, old: bool = False) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


class Runs:
    """Of which a pickle runs a program."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.what = function, arguments

    def __reduce__(self) -> Any:
        return self.what


def zipped(members: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _weights() -> dict[str, Any]:
    import torch

    return {"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}


def _opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def _cases() -> Iterator[Case]:
    import os

    def one(
        name: str, file: str, make: Callable[[Place], bytes], right: Right | None = None, **more: Any
    ) -> Case:
        right = right or Refused(file.replace(".", r"\."), WeightsError)
        return Case(name, lambda place: place.write(file, make(place)), opened(file), right, **more)

    good = Gives(a_network)
    safe, pt = "x.safetensors", "x.pt"
    yield one("ours", safe, lambda p: OURS.read_bytes(), good)
    yield one("nothing in it", safe, lambda p: b"")
    yield one("text", safe, lambda p: b"not weights at all")
    yield one("a page of HTML", pt, lambda p: b"<!DOCTYPE html><title>404</title>")
    yield one(
        "a pointer of Git LFS",
        safe,
        lambda p: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    )
    yield one("cut short", safe, lambda p: OURS.read_bytes()[:-100])
    yield one("cut in its header", safe, lambda p: OURS.read_bytes()[:200])
    yield one("junk behind its end", safe, lambda p: OURS.read_bytes() + b"junk" * 100)
    yield one("a header of 2^63 bytes", safe, lambda p: struct.pack("<Q", 2**63) + b"{}")
    yield one("a header that is no JSON", safe, lambda p: head(b"{" * 50))
    yield one("a header that is nested without end", safe, lambda p: head(b'{"a":' * 100_000))
    yield one("a header that is a list", safe, lambda p: head([]))
    yield one("an empty header", safe, lambda p: head({}))
    yield one(
        "an unknown type",
        safe,
        lambda p: head({"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    )
    yield one(
        "a tensor of 2^60 numbers",
        safe,
        lambda p: head({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]}}, bytes(4)),
    )
    yield one(
        "a negative shape",
        safe,
        lambda p: head({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
    )
    yield one(
        "a tensor beyond the end",
        safe,
        lambda p: head({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(4)),
    )
    yield one(
        "tensors in one place",
        safe,
        lambda p: head({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
    )
    yield one("metadata of numbers", safe, lambda p: head({"__metadata__": {"pixelwise.plan": 7}}))
    yield one(
        "names with control characters",
        safe,
        lambda p: head({"\x1b[31m\n": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        Refused("1 tensors|x.safetensors", WeightsError),
    )
    # What it says of its network
    yield one("a plan that is no JSON", safe, lambda p: said("pixelwise.plan", "{"))
    yield one("a plan that is nested without end", safe, lambda p: said("pixelwise.plan", "[" * 100_000))
    yield one("a plan that is a list", safe, lambda p: said("pixelwise.plan", "[]"))
    named = Refused("nonewnet|x.safetensors|the file|argument|network", InputError)
    yield one(
        "a network of nobody",
        safe,
        lambda p: plan(lambda s: s.update(model="nonet")),
        Refused("nonet", InputError),
    )
    yield one("a network that is a number", safe, lambda p: plan(lambda s: s.update(model=7)))
    yield one(
        "a network that is a module of Python",
        safe,
        lambda p: plan(lambda s: s.update(model="os.system")),
        Refused("os.system", InputError),
    )
    yield one("arguments that are a list", safe, lambda p: plan(lambda s: s.update(arguments=[])))
    yield one("an argument of nobody", safe, lambda p: plan(lambda s: s["arguments"].update(colour=1)), named)
    yield one(
        "weights that would be fetched",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(weights="DEFAULT")),
        good,
    )
    yield one(
        "weights of an address",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(weights=f"http://{p.address}/x.pt")),
        good,
    )
    yield one(
        "weights of a file outside",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(weights_backbone=f"{p.outside}/secret.png")),
        good,
    )
    yield one(
        "an encoder that would be fetched",
        safe,
        lambda p: plan(
            lambda s: s.update(
                model="unet",
                arguments={"encoder": "tf_efficientnet_b0", "encoder_options": {"pretrained": True}},
            )
        ),
        Refused("", InputError),
    )
    yield one(
        "an encoder of a file outside",
        safe,
        lambda p: plan(
            lambda s: s.update(
                model="unet",
                arguments={
                    "encoder": "tf_efficientnet_b0",
                    "encoder_options": {"checkpoint_path": f"{p.outside}/secret.png"},
                },
            )
        ),
        Refused("", InputError),
    )
    yield one(
        "an encoder of the Hub",
        safe,
        lambda p: plan(lambda s: s.update(model="unet", arguments={"encoder": "hf-hub:nobody/nothing"})),
        Refused("", InputError),
    )
    yield one(
        "a width of a billion",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(width=10**9)),
        Refused("", InputError),
    )
    yield one(
        "a width beyond any number",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(width=10**400)),
        Refused("", InputError),
    )
    yield one(
        "a negative width",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(width=-2)),
        Refused("", InputError),
    )
    yield one(
        "a width of words",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(width="wide")),
        Refused("", InputError),
    )
    yield one(
        "a hundred million classes",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(num_classes=10**8)),
        Refused("", InputError),
    )
    yield one(
        "a thousand levels",
        safe,
        lambda p: plan(lambda s: s["arguments"].update(levels=1000)),
        Refused("", InputError),
    )
    yield one(
        "a card that is no JSON", safe, lambda p: said("pixelwise.card", "{"), Refused("card", InputError)
    )
    yield one(
        "a card of another network", safe, lambda p: said("pixelwise.card", "{}"), Refused("card", InputError)
    )
    # Tensors that fit nothing
    yield one(
        "a tensor that is missing", safe, lambda p: ours(lambda h: h.pop(next(k for k in h if "weight" in k)))
    )
    yield one(
        "a tensor under another name",
        safe,
        lambda p: ours(lambda h: h.update(other=h.pop(next(k for k in h if "weight" in k)))),
        Refused("", WeightsError),
    )
    yield one(
        "tensors of nobody",
        pt,
        lambda p: torch_file(_weights()),
        Refused("belong to no family", WeightsError),
    )
    # Pickles
    yield one(
        "a pickle that runs a program",
        pt,
        lambda p: torch_file({"a": Runs(os.system, f"touch {p.outside}/came")}),
    )
    yield one(
        "an old pickle that runs a program",
        pt,
        lambda p: torch_file(Runs(os.system, f"touch {p.outside}/came"), True),
    )
    yield one(
        "a bare pickle that runs a program",
        pt,
        lambda p: pickle.dumps(Runs(eval, f"open('{p.outside}/came', 'w')")),
    )
    yield one(
        "a pickle that opens a file", pt, lambda p: torch_file({"a": Runs(open, f"{p.outside}/came", "w")})
    )
    yield one("a pickle of a class of nobody", pt, lambda p: pickle.dumps(collections.Counter("abc")))
    yield one("a pickle of a module of nobody", pt, lambda p: _opcodes(b"cnothing.at.all\nNothing\n)R"))
    yield one("a pickle that fetches from a memo", pt, lambda p: _opcodes(b"h\x07"))
    yield one("a pickle of an empty stack", pt, lambda p: _opcodes(b"00000"))
    yield one("a pickle without an end", pt, lambda p: b"\x80\x02" + b"(" * 100_000)
    yield one("a pickle of lists in lists", pt, lambda p: _opcodes(b"]" * 100_000 + b"a" * 99_999))
    yield one(
        "a pickle of a number of a gigabyte", pt, lambda p: _opcodes(b"\x8b" + struct.pack("<i", 2**30))
    )
    yield one("a pickle of another protocol", pt, lambda p: b"\x80\x63" + b"N.")
    yield one("a word", pt, lambda p: torch_file("word"), Refused(r"x\.pt", WeightsError))
    yield one("nothing for tensors", pt, lambda p: torch_file({}), Refused(r"x\.pt", WeightsError))
    yield one(
        "words for tensors", pt, lambda p: torch_file({"a": "b"}), Refused(r"x\.pt|no family", WeightsError)
    )
    yield one(
        "numbers for names",
        pt,
        lambda p: torch_file({1: _weights()["bias"]}),
        Refused(r"x\.pt|no family", WeightsError),
    )
    # Archives
    yield one("an archive without a pickle", pt, lambda p: zipped({"x/version": b"3\n"}))
    yield one("an archive of nothing", pt, lambda p: zipped({}))
    yield one("an archive cut short", pt, lambda p: torch_file(_weights())[:-200])
    yield one(
        "an archive without its data",
        pt,
        lambda p: zipped({k: v for k, v in members(torch_file(_weights())).items() if "/data/" not in k}),
    )
    yield one(
        "an archive whose data is short",
        pt,
        lambda p: zipped(
            {k: v[:4] if "/data/" in k else v for k, v in members(torch_file(_weights())).items()}
        ),
    )
    yield one(
        "an archive of two folders",
        pt,
        lambda p: zipped({**members(torch_file(_weights())), "other/data.pkl": b"\x80\x02N."}),
        Refused("", WeightsError),
    )
    yield one("an archive that unpacks to a thousand times its size", pt, lambda p: _bomb(), slow=True)
    yield one(
        "an archive of names outside",
        pt,
        lambda p: zipped({"../outside/came": b"x", "../outside/data.pkl": b"\x80\x02N."}),
    )
    yield Case(
        "a folder", lambda p: (p.folder / "x.pt").mkdir(), opened("x.pt"), Refused(r"x\.pt", WeightsError)
    )
    yield Case(
        "a link in a circle",
        lambda p: (p.folder / "x.pt").symlink_to("x.pt"),
        opened("x.pt"),
        Refused(r"x\.pt", WeightsError),
    )
    yield Case("a file that is not there", lambda p: None, opened("x.pt"), Refused(r"x\.pt", WeightsError))


def _bomb() -> bytes:
    """A pickle of a list of 20 million numbers, in 40 kilobytes."""
    return zipped(
        {"x/data.pkl": _opcodes(b"](" + b"K\x01" * 20_000_000 + b"e"), "x/version": b"3\n"},
        zipfile.ZIP_DEFLATED,
    )


CASES = list(_cases())
