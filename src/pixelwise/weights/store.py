"""Where weight files lie, how they get there, and how they are read. Standard library only until one is
loaded.

A file is looked for, in this order, in the folder that PIXELWISE_WEIGHTS names, in pixelwise's cache
(PIXELWISE_CACHE, or the system's place for caches) and in torch hub's cache; then it is downloaded, unless
PIXELWISE_OFFLINE=1 forbids it. PIXELWISE_MIRROR replaces the folder part of every address by one of your own, which may
have a user and password (https://user:password@host/folder); those go to that host only and stand in no message.
Whatever is handed out has the right SHA-256, which is looked at each time that a file is asked for; a download gets its
name only after that was checked. Files that others publish without a hash (some of SMP's encoders, and what timm and
huggingface-hub fetch into caches of their own) are not compared with anything.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import pickle
import re
import shlex
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pixelwise.caches import cache_dir
from pixelwise.errors import DownloadError, MissingExtraError, WeightsError, first_line
from pixelwise.terminal import without_secrets
from pixelwise.weights import programs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pixelwise.weights.renames import Renames

PROMISES = 8
"""How many times more bytes a file of weights may promise than it has, for tensors that share their numbers."""

RETRIES = 4
"""Times that a download is tried again in a row without a byte having come."""

PAUSE_S = 0.5
"""Seconds before the first new try; doubled each time."""

TIMEOUT_S = 30.0
"""Seconds without a byte after which a connection counts as dropped."""


def offline(*others: str) -> bool:
    """Whether PIXELWISE_OFFLINE, or another switch in the environment, forbids the network."""
    return any(
        os.environ.get(switch, "").lower() in ("1", "true", "yes", "on")
        for switch in ("PIXELWISE_OFFLINE", *others)
    )


def fetch(file: str, url: str, sha256: str | None, *, progress: bool = True) -> Path:
    """The path of weights `file` on this machine, downloaded from `url` if need be.

    file: a plain file name. sha256: the full digest or its first digits; None skips the check. progress: draw
    a bar on stderr while downloading.

    Raises WeightsError for a local file or a download with another hash, DownloadError when the file can
    neither be found nor fetched nor kept.
    """
    if Path(file).name != file:
        raise WeightsError(f"a weights file is asked for by its plain name, got {file!r}")
    own = os.environ.get("PIXELWISE_WEIGHTS")
    for folder in filter(None, (Path(own).expanduser() if own else None, cache_dir() / "weights")):
        if (folder / file).is_file():
            check_hash(folder / file, sha256)
            return folder / file
    with suppress(WeightsError):  # a damaged file in torch hub's cache, not ours to mend, counts for nothing
        if (shared := torch_hub_dir() / file).is_file():
            check_hash(shared, sha256)
            return shared
    path, url = cache_dir() / "weights" / file, _mirrored(file, url)
    if offline():
        raise DownloadError(
            f"{file} is not on this machine and PIXELWISE_OFFLINE forbids fetching it; {_by_hand(url)}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_one(path.with_name(path.name + ".part")) as part:
            if not path.is_file():  # else another process fetched it while this one waited
                _download(part, url, sha256, progress)
                if os.name == "nt":
                    part.close()  # Windows renames no open file
                os.replace(part.name, path)
    except (DownloadError, WeightsError):
        raise
    except OSError as error:
        raise DownloadError(
            f"{file} cannot be kept in {path.parent}: {error.strerror or error}; "
            "make room or permission there, or name another folder in PIXELWISE_CACHE"
        ) from error
    return path


def torch_hub_dir() -> Path:
    """The folder in which torch.hub keeps checkpoints, found without importing torch."""
    if hub := sys.modules.get("torch.hub"):
        return Path(hub.get_dir()) / "checkpoints"  # torch.hub.set_dir may have moved it
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def is_path(weights: object) -> bool:
    """Whether `weights` name a file, not a member of an enum ("FCN_ResNet50_Weights.DEFAULT" has a dot too)."""
    if not isinstance(weights, str):
        return isinstance(weights, os.PathLike)
    return Path(weights).suffix != "" and not weights.partition(".")[0].endswith("_Weights")


def check_hash(path: Path, sha256: str | None) -> None:
    """Raise WeightsError unless the file's SHA-256 begins with `sha256` (None: anything will do)."""
    try:
        found = "" if sha256 is None else digest(path)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror or error}") from error
    if sha256 is not None and not found.startswith(sha256.lower()):
        raise WeightsError(
            f"{path} has SHA-256 {found[: max(8, len(sha256))]}..., expected {sha256}: it is damaged or "
            "another file; delete it to have it fetched again"
        )


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    sha = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _mirrored(file: str, url: str) -> str:
    mirror = os.environ.get("PIXELWISE_MIRROR")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise DownloadError(
            f"PIXELWISE_MIRROR must begin with http:// or https://, got {without_secrets(mirror)!r}; "
            "for a folder use PIXELWISE_WEIGHTS"
        )
    return f"{mirror.rstrip('/')}/{file}" if mirror else url


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    """A request with what is before an @ in the address as its authorization, which no redirection carries on."""
    request = urllib.request.Request(re.sub(r"^([^/?#]*//)[^/?#]*@", r"\1", url), headers=dict(headers))
    if (who := urllib.parse.urlsplit(url).netloc.rpartition("@")[0]) != "":
        token = base64.b64encode(urllib.parse.unquote(who).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _by_hand(url: str) -> str:
    folder = cache_dir() / "weights"
    place = f"{folder}, or into a folder that you name in PIXELWISE_WEIGHTS"
    return f"get it from {without_secrets(url)} and put it into {place}"


# Download ---------------------------------------------------------------------------------------------------


@contextmanager
def only_one(part: Path) -> Iterator[BinaryIO]:
    """The unfinished file, open to read and append; a second process waits here until the first is done.

    An unfinished file that holds something is kept for the next try, an empty one is removed.
    """
    while True:
        stream = open(part, "a+b")  # noqa: SIM115  (closed below, whichever way it goes)
        _lock(stream)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), os.stat(part)):
                break
        stream.close()  # while we waited the other process finished and renamed the file that we hold
    try:
        yield stream
    finally:
        stream.close()
        with suppress(FileNotFoundError):
            if part.stat().st_size == 0:
                part.unlink()


def _lock(stream: BinaryIO) -> None:
    """Wait for an exclusive lock where there is one; elsewhere the hash finds what two writers did."""
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(stream, fcntl.LOCK_EX)


def _download(part: BinaryIO, url: str, sha256: str | None, progress: bool) -> None:
    """Complete the unfinished file `part` and check its hash; a wrong one empties it."""
    resumed = part.seek(0, os.SEEK_END) > 0
    with _bar(Path(url).name, progress) as show:
        _receive_all(part, url, show)
        if resumed and not _matches(part, sha256):  # what lay there was the beginning of some other file
            part.truncate(0)
            _receive_all(part, url, show)
    if not _matches(part, sha256):
        found = digest(Path(part.name))
        part.truncate(0)
        raise WeightsError(
            f"{without_secrets(url)} gave a file with SHA-256 {found[: max(8, len(sha256 or ''))]}..., expected "
            f"{sha256}; nothing was kept, try again later or get the file elsewhere"
        )
    os.fsync(part.fileno())


def _matches(part: BinaryIO, sha256: str | None) -> bool:
    part.flush()
    return sha256 is None or digest(Path(part.name)).startswith(sha256.lower())


def _receive_all(part: BinaryIO, url: str, show: Callable[[int, int | None], None]) -> None:
    """Append to `part` until it is whole; dropped connections are taken up again where they broke off."""
    failures, reason = 0, ""
    while failures <= RETRIES:
        if failures:
            time.sleep(PAUSE_S * 2 ** (failures - 1))
        before = part.seek(0, os.SEEK_END)
        try:
            total = _receive(part, url, show)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(
                    f"{without_secrets(url)} cannot be fetched (HTTP {error.code} {error.reason}); {_by_hand(url)}"
                ) from None
            reason = f"HTTP {error.code} {error.reason}"
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        else:
            size = part.seek(0, os.SEEK_END)
            if total is None or size >= total:
                return
            reason = f"the connection broke off after {size} of {total} bytes"
        failures = 1 if part.seek(0, os.SEEK_END) > before else failures + 1
    raise DownloadError(
        f"{without_secrets(url)} cannot be fetched ({reason}, {RETRIES + 1} tries); {_by_hand(url)}"
    )


def _receive(part: BinaryIO, url: str, show: Callable[[int, int | None], None]) -> int | None:
    """One request for what `part` lacks; returns the whole file's size where the server tells it."""
    have = part.seek(0, os.SEEK_END)
    headers = {"User-Agent": "pixelwise"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(_request(url, headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        # Nothing lies beyond what we have: either that is all, or it is another file, and we begin again.
        size = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if size is None or int(size[1]) != have:
            part.truncate(0)
            return have + 1  # more than there is now: the caller tries again
        return have
    with response:
        length = response.headers.get("Content-Length")
        begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if have and not (response.status == 206 and begins and int(begins[1]) == have):
            part.truncate(0)  # the server sends the file from its beginning
            have = 0
        total = have + int(length) if length else None
        show(have, total)
        for block in _blocks(response):
            part.write(block)
            have += len(block)
            show(have, total)
    return total


def _blocks(response: BinaryIO) -> Iterator[bytes]:
    """The body in pieces; trouble on the way is a ConnectionError, so that it is not taken for our disk's."""
    while True:
        try:
            block = response.read(1 << 18)
        except OSError as error:
            raise ConnectionError(str(error)) from error
        if not block:
            return
        yield block


@contextmanager
def _bar(name: str, progress: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr; yields show(bytes so far, bytes in all or None)."""
    if not progress:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# Reading ----------------------------------------------------------------------------------------------------


def load_state_dict(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Names and tensors, on the CPU, from a safetensors file or a torch checkpoint.

    A training script's checkpoint is unwrapped: the state dict may lie under "model", "state_dict" or
    "model_state_dict", and its keys may begin with "module." or "_orig_mod.". allow_pickle: also run the code
    in a pickle that holds more than tensors and plain values; do that only with files whose maker you trust.

    Raises WeightsError for a missing, empty, truncated or foreign file, one that holds code, or no tensors.
    """
    return unwrap(load_content(path, allow_pickle=allow_pickle), path)


def load_content(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> Any:
    """What is in such a file, with all that lies beside the tensors; otherwise as `load_state_dict`."""
    path = Path(path)
    kind = _kind(path)
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading weights", "torch") from error
    if kind == "torch" and programs.is_program(path):
        refuse_inflated(path)
        return programs.tensors(path)
    return _read_safetensors(path) if kind == "safetensors" else _read_torch(path, allow_pickle)


def _kind(path: Path) -> str:
    """What the first bytes say: "safetensors" or "torch"."""
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path} is no file, expected weights")
        with open(path, "rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise WeightsError(f"weights {path} are an empty file; get it again")
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return "safetensors"
    if path.suffix.lower() == ".onnx":
        raise WeightsError(
            f"{path} is an ONNX file, whose weights have no names any more; expected the weights it was made of"
        )
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    raise WeightsError(
        f"{path} is no weights file: expected safetensors or a torch checkpoint, it begins {head!r}"
    )


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading safetensors", "torch") from error
    try:
        return load_file(path)
    except (
        SafetensorError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise WeightsError(  # the others: kinds of numbers that torch does not have
            f"weights {path} are damaged or incomplete ({first_line(error)[:120]}); get the file again"
        ) from error


def _read_torch(path: Path, allow_pickle: bool) -> Any:
    """torch.load with tensors, plain values and what training scripts keep beside them: options and NumPy
    scalars.
    """
    import argparse
    import warnings

    import numpy as np
    import torch

    refuse_inflated(path)
    types = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    scalar = np.float64(0).__reduce__()[0]  # moved between NumPy 1 and 2
    data: list[Any] = [argparse.Namespace, np.dtype, *types]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals([*data, *names]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: they are read or refused
            return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        raise WeightsError(_refusal(path, str(error))) from error
    except Exception as error:  # whatever the reader of a damaged file met
        raise WeightsError(
            f"weights {path} are damaged or incomplete ({first_line(error)[:120]}); get the file again"
        ) from error


def _refusal(path: Path, error: str) -> str:
    """Why torch would not read a pickle, and what to do; error: what it says."""
    ours, imports = _imports(path)
    said = re.search(r"GLOBAL ([\w.]+)", error)
    named = next((name for name in imports if name not in _HARMLESS), None)
    if said and (
        ours or named is None
    ):  # torch says what it refused first, which in a file of its own is what matters
        named = said[1]
    if named is None:
        return f"{path} is a damaged file or a pickle that torch did not write; get it again"
    if not ours:  # which torch does not read, whatever it is allowed to
        return (
            f"{path} is a pickle that torch did not write and that would run code ({named}), expected safetensors or a "
            "torch checkpoint with tensors only; get the weights as one of these"
        )
    new = shlex.quote(str(path.with_suffix(".safetensors")))
    return (
        f"{path} is a pickle that would run code ({named}), expected tensors only; if you trust its maker, run: "
        f"pixelwise convert {shlex.quote(str(path))} {new} --allow-pickle, or open it with "
        "from_checkpoint(path, allow_pickle=True)"
    )


_HARMLESS = {
    "collections.OrderedDict", "_codecs.encode", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    "numpy.ndarray", "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *(f"torch.{kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Bool", "Byte")),
}  # fmt: skip
"""What pickles of tensors and arrays import, which is not named as what would run."""

_MOST_PICKLE = 2**20
"""Bytes of a pickle that are looked at for what it imports."""


def _imports(path: Path) -> tuple[bool, list[str]]:
    """Whether torch wrote the file, and what its pickle imports, in order; nothing of it is run."""
    import io
    import pickletools
    import zipfile

    import torch

    content, ours = b"", False
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(name) as member:
            content, ours = member.read(_MOST_PICKLE), True
    if not ours:
        with open(path, "rb") as file:
            content = file.read(_MOST_PICKLE)
    imports: list[str] = []
    texts: list[Any] = ["", ""]  # the strings before, of which the last two are the module and the name
    memo: dict[Any, Any] = {}
    stream = io.BytesIO(content)
    with suppress(Exception):  # it ends, or is damaged
        while True:  # old files of torch are several pickles
            for code, argument, _ in pickletools.genops(stream):
                ours = ours or argument == torch.serialization.MAGIC_NUMBER
                if code.name.endswith(("UNICODE", "UNICODE8", "STRING")):
                    texts.append(argument)
                elif code.name == "MEMOIZE":
                    memo[len(memo)] = texts[-1]
                elif code.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                    memo[argument] = texts[-1]
                elif code.name in ("GET", "BINGET", "LONG_BINGET"):
                    texts.append(memo.get(argument, ""))
                elif code.name in ("GLOBAL", "INST"):
                    imports.append(str(argument).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    imports.append(f"{texts[-2]}.{texts[-1]}")
    return ours, [name for name in imports if re.fullmatch(r"[\w.]{1,200}", name)]


def refuse_inflated(path: Path) -> None:
    """WeightsError for a torch file that promises far more bytes than it has; torch writes them uncompressed."""
    import zipfile

    with open(path, "rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            promised = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # a damaged directory has as many faces as fields
        raise WeightsError(
            f"weights {path} are damaged or incomplete ({first_line(error)[:120]}); get the file again"
        ) from error
    if promised > PROMISES * path.stat().st_size + 2**20:
        raise WeightsError(
            f"{path} has {path.stat().st_size:,} bytes and would unfold to {promised:,}, which no file of weights does"
        )


def unwrap(content: Any, where: object) -> dict[str, Tensor]:
    """Names and tensors out of what a training script saved; `where` names it in errors.

    The wrappers and prefixes of `load_state_dict` are taken off. Arrays and lists of numbers become tensors,
    and a list of arrays, as Caffe has its blobs, becomes "name.0", "name.1", ...
    """
    import torch

    if isinstance(content, torch.nn.Module):  # a whole network, which only allow_pickle=True lets through
        content = content.state_dict()
    lightning = isinstance(content, Mapping) and any(key in content for key in LIGHTNING)
    for wrapper in ("model", "state_dict", "model_state_dict", "model_state"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{where} holds {_describe(content)}, expected a state dict: names and tensors")
    tensors: dict[str, Tensor] = {}
    odd = []
    for name, value in content.items():
        blobs = isinstance(value, (list, tuple)) and any(hasattr(blob, "__array__") for blob in value)
        for key, one in [(f"{name}.{i}", blob) for i, blob in enumerate(value)] if blobs else [(name, value)]:
            tensor = _tensor(one)
            if tensor is None or not isinstance(name, str):
                odd.append(str(key))
            else:
                tensors[key] = tensor
    if odd:
        raise WeightsError(
            f"{where} holds no plain state dict: {_few(odd)} {'is' if len(odd) == 1 else 'are'} no tensors; "
            "pass the part that holds the network's state dict"
        )
    _refuse_empty_promises(tensors, where)
    for prefix in ("module.", "_orig_mod."):  # DistributedDataParallel, torch.compile
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return unwrap(_of_module(tensors, where), where) if lightning else tensors


LIGHTNING = ("pytorch-lightning_version", "lightning_version")
"""What Lightning writes beside "state_dict"."""


def _of_module(tensors: dict[str, Tensor], where: object) -> dict[str, Tensor]:
    """The network among the parts of a LightningModule, without the name that it has there; as it is where the module
    is a network itself.

    Beside the network there may be single tensors, such as the mean and std of SMP's examples, and parts that hold no
    more than four, such as losses and metrics; WeightsError for two of the same kind, as a teacher and its student.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    large = {part: held for part, held in parts.items() if len(held) > 4}
    alike = [part for part in large if sum(held.keys() == large[part].keys() for held in large.values()) > 1]
    if alike:
        raise WeightsError(
            f"{where} is Lightning's and holds two networks of one kind, {_few(alike)}; pass the state dict of one: "
            f"the tensors whose names begin with {alike[0] + '.'!r}, without that"
        )
    if len(large) == 1 and not large.keys() & {"encoder", "backbone"}:
        (held,) = large.values()
        return held
    return tensors


def _refuse_empty_promises(tensors: Mapping[str, Tensor], where: object) -> None:
    """WeightsError for tensors that together have far more numbers than lie in memory, as strides of 0 make them."""
    kept = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors.values()}
    promised = sum(tensor.nbytes for tensor in tensors.values())
    if promised > PROMISES * sum(kept.values()) + 2**20:
        raise WeightsError(
            f"the tensors of {where} would have {promised:,} bytes, and {sum(kept.values()):,} are there; get the file "
            "again"
        )


def _tensor(value: Any) -> Tensor | None:
    """A tensor as it is, an array or plain numbers as a tensor; None for anything else."""
    import numpy as np
    import torch

    if torch.is_tensor(value):
        return value if value.layout is torch.strided and not value.is_quantized else None
    if not isinstance(value, (np.ndarray, np.generic, list, tuple)):
        return None
    try:
        array = np.array(value)
    except ValueError:  # a list of unequal lists
        return None
    return torch.from_numpy(array) if array.dtype.kind in "fiub" else None


def _describe(content: Any) -> str:
    return "an empty dictionary" if isinstance(content, Mapping) else f"a {type(content).__name__}"


def load_into(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, source: str, ignore: tuple[str, ...] = ()
) -> None:
    """Copy every tensor of `state_dict` into `model`; every key and shape must match, or nothing is copied.

    source: what to call the weights in an error. ignore: beginnings of names that the weights may have too
    many, such as "aux_classifier.". Counters of batch norm ("num_batches_tracked") may be missing, as in
    files from before torch 0.4.1. Floats of another width are converted to the model's, and floats that are whole where
    the model counts in integers; integers, booleans and complex numbers where floats are expected are refused. Raises
    WeightsError naming missing, surplus and wrong-shaped keys, and those of another kind.
    """
    model.load_state_dict(fitting(model, state_dict, source=source, ignore=ignore), strict=True)


def fitting(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, source: str, ignore: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """The tensors that `load_into` copies, for a model that need hold no values yet; raises as that."""
    state_dict, own = under_names_of(model, state_dict), model.state_dict()
    given = {
        name: tensor for name, tensor in state_dict.items() if name in own or not name.startswith(ignore)
    }
    given = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | given
    missing = [name for name in own if name not in given]
    surplus = [name for name in given if name not in own]
    misshapen = [name for name in own if name in given and own[name].shape != given[name].shape]
    if not (missing or surplus or misshapen):
        check_kinds(given, own, source)
        return given
    parts = []
    if missing:
        parts.append(f"{len(missing)} keys missing ({_few(missing)})")
    if surplus:
        parts.append(f"{len(surplus)} keys surplus ({_few(surplus)})")
    if theirs := _classes_of_weights(model, misshapen, given, own):
        parts.insert(0, f"these weights have {theirs} classes, the network {own[misshapen[0]].shape[0]}")
        advice = f"build it with num_classes={theirs} or load the backbone only"
    elif misshapen:
        shapes = [
            f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}" for name in misshapen
        ]
        parts.append(f"{len(misshapen)} tensors of another shape ({_few(shapes)})")
        advice = "they belong to another network, or to another configuration of it"
    elif all(name.startswith("aux_classifier.") for name in missing + surplus):
        advice = f"build the network with aux_loss={bool(surplus)}"
        advice += ', or pass ignore=("aux_classifier.",)' if surplus else ""
    else:
        advice = "they belong to another network, or to another configuration of it"
    raise WeightsError(f"{source} does not fit {type(model).__name__}: {', '.join(parts)}; {advice}")


def under_names_of(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as `model` names them, where parts of it had other names in files written earlier."""
    renamed = dict(tensors)
    for path, part in model.named_modules():
        rename_older(part, renamed, f"{path}." if path else "")
    return renamed


def rename_older(part: nn.Module, tensors: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give the tensors of `part` the names that they have in it; it has a table of the older ones, `names_before`."""
    table: Renames | None = vars(part).get("names_before")
    if table is None:
        return
    own = {prefix + name for name, _ in [*part.named_parameters(), *part.named_buffers()]}
    for name in [name for name in tensors if name.startswith(prefix) and name not in own]:
        new = table.to_theirs(name.removeprefix(prefix))
        if new is not None:
            tensors[prefix + new] = tensors.pop(name)


def check_kinds(given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """WeightsError, which names it, for a tensor whose numbers are of a kind that the model's cannot be made of."""
    for name, tensor in given.items():
        if name not in own or tensor.dtype == own[name].dtype:
            continue
        floats, here = own[name].is_floating_point(), tensor.is_floating_point()
        if here and not floats and not tensor.is_meta:
            here = not bool((tensor.float() % 1 == 0).all())  # false for NaN and infinity as well
        if here != floats or tensor.is_complex():
            kind, wanted = (str(t.dtype).removeprefix("torch.") for t in (tensor, own[name]))
            raise WeightsError(
                f"{source} holds {kind} in {name}, where {wanted} is expected; if they are quantised, take the file "
                "with floats"
            )


def _classes_of_weights(
    model: nn.Module, misshapen: list[str], given: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> int | None:
    """How many classes the weights have, if nothing but that explains every wrong shape."""
    rows = {given[name].shape[0] for name in misshapen if given[name].ndim}
    fits = [
        own[name].ndim > 0
        and own[name].shape[0] == getattr(model, "num_classes", None)
        and own[name].shape[1:] == given[name].shape[1:]
        for name in misshapen
    ]
    return rows.pop() if len(rows) == 1 and all(fits) else None


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
