"""images.read: anything that holds a picture to uint8 RGB (h, w, 3), or other channels, safely.

Size is checked before decoding; EXIF orientation is applied; transparency is laid over white; grey, palette, CMYK, Lab
and 1-bit pictures are brought to 8-bit RGB by value. Pictures of more than 8 bits a channel, as microscopes, scanners
and satellites give them, are stretched to 8 bits: linearly, from a range that is given or from their own percentiles
(`DARKEST`, `BRIGHTEST`), which is said. Of an animation or a multi-page file the first picture is taken, which is said
as well. Files are told apart by their content, not by their name, and whatever a damaged or hostile one does to a
decoder ends as one ImageError.
"""

from __future__ import annotations

import io
import math
import os
import re
import select
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pixelwise.errors import ImageError, ImageKindError, ImageSizeError, InputError, PixelwiseWarning
from pixelwise.terminal import without_secrets

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | Tensor"
"""A path, the bytes of a file, an open file, a PIL image, a NumPy array or a torch tensor: see `read`."""

MAX_PIXELS = 89_478_485
"""Default limit on height x width, Pillow's own: 256 MiB of RGB, which is what stays of a picture; see `read`."""

FILE_BYTES = 8
"""Bytes for each of max_pixels that are read from what has no size, such as a pipe: RGBA of 16 bits, as it is."""

RAISE_IT = "if it is to be trusted, raise the limit (max_pixels, --max-pixels)"
"""What the owner of a picture above the limit is told."""

PIPE_WAIT_S = 60.0
"""How long a named pipe may keep silent."""

SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .dib .gif .jp2 .ppm .pgm .pbm .pnm .avif .heic .heif"
    ).split()
)
"""What counts as a picture when a folder is searched."""

DECODERS = tuple("AVIF BMP DDS DIB GIF JPEG JPEG2000 PCX PNG PPM QOI SGI TGA TIFF WEBP".split())
"""The kinds that Pillow is asked to try. Left out: what starts other programs (EPS), what it decodes before it says how
large that is (ICO), and what nobody photographs."""

USUAL = {b"\xff\xd8\xff": ("JPEG",), b"\x89PNG\r\n\x1a\n": ("PNG",)}
"""First bytes of what most pictures are to the kind that they can only be: for any other Pillow imports all decoders
that it has."""


ValueRange: TypeAlias = tuple[float, float]
"""(low, high): the values of a picture of more than 8 bits a channel that are shown as 0 and 255; see `stretched`."""

DARKEST, BRIGHTEST = 0.5, 99.5
"""Percentiles of a picture's own values that are shown as 0 and 255 where no range is given."""

SAMPLE = 2**20
"""Pixels, at most, that are looked at to find them."""

UNSTATED = (
    f"pictures of more than 8 bits a channel are shown from their {DARKEST:g}th to their {BRIGHTEST:g}th percentile, "
    "each for itself, because nothing says which values to show; a range shows all alike: --scale LOW,HIGH of "
    "pixelwise segment, value_range=(low, high) in Python"
)


NOT_DEEP = (
    "pictures of 8 bits a channel are taken as they are: a range of values (value_range, --scale) is only for those of "
    "more"
)

_said: set[str] = set()

_said_here: ContextVar[set[str] | None] = ContextVar("said_here", default=None)
"""Of a thread that has called `say_again`."""


def _say_once(sentence: str) -> None:
    """A warning, once a process. Python would say it for each picture again, as every `catch_warnings` makes it forget
    what it has said."""
    here = _said_here.get()
    said = _said if here is None else here
    if sentence not in said:
        warnings.warn(sentence, PixelwiseWarning, stacklevel=2)
        said.add(sentence)


def say_again() -> None:
    """What is said once a process may be said once more in this thread: to another person, such as the next one whom a
    service answers."""
    _said_here.set(set())


def _say_of_range(how: _How) -> None:
    if how.value_range is not None:
        _say_once(NOT_DEEP)


@dataclass(frozen=True)
class _How:
    """The arguments of `read`. unscaled: values of more than 8 bits as they are, transparency left out."""

    channels: int = 3
    max_pixels: int = MAX_PIXELS
    value_range: ValueRange | None = None
    unscaled: bool = False


def read(
    source: ImageLike,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
) -> NDArray[np.uint8]:
    """A picture as uint8 (h, w, channels), contiguous: RGB for 3, grey for 1.

    source: a path, the bytes of a file (one that Pillow knows, or .npy), a file open for reading in binary mode, from
    where it stands to its end, a PIL image, an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or a torch tensor of
    these shapes or with the channels first, on any device; arrays and tensors are uint8, uint16, bool, or float.
    channels: 1 is Pillow's "L" of the RGB picture. Of any other number the source must have just as many, an array (h,
    w, channels), a tensor (channels, h, w) or a file: an RGBA picture is 4 channels then, and nothing is laid over
    white. Raises ImageError, with the file's name, for what cannot be used.

    value_range: of what has more than 8 bits a channel (files of 16 bits or floats, arrays of uint16), the values that
    become 0 and 255; what lies outside is cut off. None: from the 0.5th to the 99.5th percentile of the picture's own
    values, all channels together, over at most a million of its pixels, with a PixelwiseWarning, once a process. Where
    they are equal, the smallest and the largest value; a picture of a single value is black then. Pictures of 8 bits
    stay as they are, and a range for them is said to do nothing, once a process. Floats in arrays and tensors are
    values in [0, 1] to show from black to white, unless a range says otherwise.

    At its peak it takes up to 12 bytes a pixel, its result of 3 and what Pillow decodes to included (8 for PNG and JPEG
    of 8 bits, 17 for WebP, 20 for JPEG 2000): 0.7 to 1.8 GB at the default limit. What comes through a pipe lies in
    memory besides, at most 8 bytes for each of max_pixels.
    """
    how = _How(channels, max_pixels, None if value_range is None else check_range(value_range))
    if channels == 1:
        rgb = _read(source, replace(how, channels=3))
        return _in_strips(
            rgb.shape[:2],
            1,
            lambda top, end: np.asarray(Image.fromarray(rgb[top:end]).convert("L"))[..., None],
        )
    return _read(source, how)


def read_unscaled(source: ImageLike, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """A picture as uint8 RGB (h, w, 3), as `read` gives it; or, of one with more than 8 bits a channel, its own values,
    (h, w, 1) or (h, w, 3), of which `stretched` makes what `read` gives. Transparency is left out of those."""
    return _read(source, _How(max_pixels=max_pixels, unscaled=True))


def check_range(given: Any) -> ValueRange:
    """(low, high) as floats; InputError for anything but two finite numbers, the smaller first."""
    try:
        low, high = (float(number) for number in given)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(
            f"value_range takes two numbers, the smaller first, such as (0, 4095), got {given!r:.60}"
        )
    return low, high


def range_of(values: NDArray[Any], name: str) -> ValueRange:
    """The 0.5th and the 99.5th percentile of real values of any shape, over at most a million of them, evenly
    spread; of a single value that and one more. Raises ImageError, with the name, where there are no finite ones."""
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLE)]
    if not np.isfinite(sample).all():
        raise ImageError(
            f"{name} holds NaN or infinite values; replace them first, such as by numpy.nan_to_num"
        )
    low, high = (float(value) for value in np.percentile(sample, (DARKEST, BRIGHTEST)))
    if low < high:
        return low, high
    low, high = float(flat.min()), float(flat.max())
    return (low, high) if low < high else (low, low + 1)


def stretched(values: NDArray[Any], value_range: ValueRange) -> NDArray[np.uint8]:
    """Values of any real type to uint8: 255 (value - low)/(high - low), rounded, and cut off below 0 and above 255."""
    low, high = value_range
    if values.dtype == np.uint16:  # each value once
        table = stretched(np.arange(2**16, dtype=np.float64), value_range)
        return np.asarray(table[values])
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.asarray(np.clip(np.round(scaled, out=scaled), 0, 255, out=scaled), np.uint8)


def _read(source: ImageLike, how: _How) -> NDArray[Any]:
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array", how)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image", how)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(source, "the picture", how)
    if isinstance(source, (str, os.PathLike)):
        refuse_address(source)
        path = Path(source)
        return _open(path, lambda file: _decode(file, str(path), how), how.max_pixels)
    if is_torch_array(source):
        return _from_array(_channels_last(source, how.channels), "the tensor", how)
    if callable(getattr(source, "read", None)):
        return _from_file(source, how)
    raise ImageError(
        f"expected a path, bytes, a file open in binary mode, a PIL image, a NumPy array (h, w, {how.channels}) or a "
        f"torch tensor ({how.channels}, h, w), got {type(source).__name__}"
    )


def read_values(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[NDArray[Any], str]:
    """The numbers in a picture or a .npy file, or in its bytes, as they are, (h, w) or (h, w, c), and Pillow's mode, or
    "npy".

    For label maps: nothing is scaled or turned, and of a palette the indices count. Of several frames or pages the
    first is read, with a PixelwiseWarning. Raises ImageError as `read` does.
    """

    name = "the label map" if isinstance(source, bytes) else str(source)

    def of_image(image: Image.Image) -> tuple[NDArray[Any], str]:
        _check_size(image, name, max_pixels)
        _say_of_frames(image, name)
        return np.asarray(image), image.mode

    def values_of(file: Any) -> tuple[NDArray[Any], str]:
        return _decoded(file, name, max_pixels, lambda values: (values, "npy"), of_image)

    return (
        values_of(io.BytesIO(source)) if isinstance(source, bytes) else _open(source, values_of, max_pixels)
    )


def declared_size(
    data: bytes, *, max_pixels: int = MAX_PIXELS, max_slow_pixels: int | None = None
) -> tuple[int, int]:
    """Height and width of a picture as its bytes declare them, before it is decoded, and before it is turned upright.

    max_slow_pixels: of what Pillow decodes in Python, at some microseconds a pixel, whatever the size of the file; None
    for no other limit. Raises ImageError as `read` does: ImageKindError for what is no picture, ImageSizeError above a
    limit.
    """
    name = "the picture"
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")

    def of_image(image: Image.Image) -> tuple[int, int]:
        _check_size(image, name, max_pixels)
        pixels, decoders = image.width * image.height, [tile[0] for tile in getattr(image, "tile", ())]
        if max_slow_pixels is not None and pixels > max_slow_pixels and {*decoders} & {*Image.DECODERS}:
            raise ImageSizeError(
                f"{name} is a {image.format} of a kind that is decoded slowly, of which at most {max_slow_pixels:,} "
                f"pixels are taken, got {pixels:,}; save it as PNG"
            )
        return image.height, image.width

    def of_array(values: NDArray[Any]) -> tuple[int, int]:
        if values.ndim < 2 or values.shape[0] * values.shape[1] == 0:
            raise ImageError(
                f"{name} has no height and width, expected an array (h, w, c), got {values.shape}"
            )
        if values.shape[0] * values.shape[1] > max_pixels:
            raise _too_large(name, f"{values.shape[0] * values.shape[1]:,}", max_pixels)
        return values.shape[0], values.shape[1]

    return _decoded(io.BytesIO(data), name, max_pixels, of_array, of_image)


def shown(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What people see of a picture (h, w, c): uint8 RGB (h, w, 3), its first three channels, or of fewer the first one
    in grey."""
    if picture.shape[2] == 3:
        return picture
    kept = picture[..., :3] if picture.shape[2] > 3 else np.repeat(picture[..., :1], 3, axis=2)
    return np.ascontiguousarray(kept)


def _from_file(file: Any, how: _How) -> NDArray[Any]:
    """From where it stands to its end; whether it can go back makes no difference."""
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "the file"
    try:
        data = _limited(file, name, how.max_pixels)
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: it is closed, or text that is no UTF-8
        if isinstance(file, io.TextIOBase) and not file.closed:
            data = ""
        else:
            raise ImageError(f"cannot read {name}: {error}") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        kind = "text" if isinstance(data, str) else type(data).__name__
        raise ImageError(f'{name} gives {kind}, expected bytes; open it in binary mode: open(path, "rb")')
    return _from_bytes(data, name, how)


def _limited(file: Any, name: str, max_pixels: int) -> Any:
    """All that comes, which may be endless; whatever else than bytes comes first."""
    limit, size = max_pixels * FILE_BYTES + 2**20, 0
    parts: list[Any] = []
    while part := file.read(2**20):
        if not isinstance(part, (bytes, bytearray, memoryview)):
            return part
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _endless(name, limit)
    return b"".join(parts)


def _endless(name: str, limit: int) -> ImageError:
    return ImageSizeError(
        f"{name} goes on after {limit:,} bytes, more than a picture of the largest size that is allowed can have; "
        f"{RAISE_IT}"
    )


def _from_pipe(path: Path, max_pixels: int) -> bytes:
    """All that comes through a named pipe: to open one without a writer would wait for ever."""
    limit, size = max_pixels * FILE_BYTES + 2**20, 0
    parts: list[bytes] = []
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(pipe, select.POLLIN | select.POLLHUP)
        while poll.poll(PIPE_WAIT_S * 1000):
            if not (part := os.read(pipe, 2**20)):
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise _endless(str(path), limit)
    finally:
        os.close(pipe)
    raise ImageError(
        f"{path} is a pipe into which nobody wrote for {PIPE_WAIT_S:g} seconds; start the program that does"
    )


def _from_bytes(data: bytes | bytearray | memoryview, name: str, how: _How) -> NDArray[Any]:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    return _decode(io.BytesIO(data), name, how)


def refuse_address(given: str | os.PathLike[str]) -> None:
    """Raise ImageError for the address of something elsewhere."""
    if (
        isinstance(given, str)
        and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", given)
        and not os.path.exists(given)
    ):
        raise ImageError(f"{without_secrets(given)} is an address, and only files are read; fetch it first")


def check_file(path: Path) -> None:
    """Raise ImageError when there is no file to read at `path`."""
    try:
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise ImageError(f"no permission to search the folder {path}")
            raise ImageError(f"{path} is a folder, expected a picture")
        if not path.exists():
            if path.is_symlink():
                raise ImageError(f"{path} is a link that leads nowhere")
            raise ImageError(f"no such file: {path}")
        if path.is_file() and path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes)")
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def check_regular(path: Path) -> None:
    """Raise ImageError for a pipe, a device or a socket, for which a reader of files may wait without end.
    What is not there is left to others."""
    try:
        other = path.exists() and not path.is_file() and not path.is_dir()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    if other:
        raise ImageError(
            f"{path} is a pipe or a device, expected a file; write what it gives to a file first"
        )


def find(inputs: Iterable[str | os.PathLike[str]], *, also: tuple[str, ...] = ()) -> list[tuple[Path, Path]]:
    """The pictures that `inputs` name: (path, its name below the input), sorted within each folder.

    An input is a file (taken whatever its suffix), a folder (searched through, hidden files left out) or a
    pattern such as `photos/**/*.jpg`. Links to folders are not followed, so there is no endless search; links that
    lead nowhere and folders that may not be searched are returned like pictures, for `read` to name them. also: what
    else names in folders may end in, in small letters. Raises ImageError when an input names nothing.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        refuse_address(given)
        path = Path(given)
        if path.is_dir():
            inside = sorted(_inside(path, also))
            if not inside:
                raise ImageError(f"no pictures in {path}; looked for {', '.join([*sorted(SUFFIXES), *also])}")
            for p in inside:
                found.setdefault(p, p.relative_to(path))
        elif any(c in str(given) for c in "*?[") and not path.exists():
            root = Path(path.anchor) if path.anchor else Path()
            matches = sorted(p for p in root.glob(str(path.relative_to(path.anchor))) if p.is_file())
            if not matches:
                raise ImageError(f"no file matches {given}")
            for p in matches:
                found.setdefault(p, Path(p.name))
        else:
            check_file(path)
            found.setdefault(path, Path(path.name))
    return list(found.items())


def _inside(folder: Path, also: tuple[str, ...]) -> Iterator[Path]:
    closed: list[Path] = []
    for here, folders, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(here, name)
            known = path.suffix.lower() in SUFFIXES or (also and name.lower().endswith(also))
            if not known or name.startswith("."):
                continue
            if path.is_file() or (path.is_symlink() and not path.exists()):
                yield path
    yield from closed


_opening = threading.Lock()


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Pillow refuses at twice its own limit, also where the caller allows more; its limit is global."""
    with _opening:
        before = Image.MAX_IMAGE_PIXELS
        if before is not None:
            Image.MAX_IMAGE_PIXELS = max(before, max_pixels)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _open(path: Path, then: Callable[[Any], T], max_pixels: int) -> T:
    """What `then` makes of the open file, which can go back; ImageError where it cannot be read."""
    check_file(path)
    try:
        if path.is_fifo():
            whole = _from_pipe(path, max_pixels)
            if not whole:
                raise ImageError(f"{path} is empty (0 bytes)")
            return then(io.BytesIO(whole))
        with open(path, "rb") as file:
            # A pipe cannot go back, which decoders must.
            return then(file if file.seekable() else io.BytesIO(_limited(file, str(path), max_pixels)))
    except PermissionError as error:
        raise ImageError(f"no permission to read {path}") from error
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def _decode(file: Any, name: str, how: _How) -> NDArray[Any]:
    return _decoded(
        file,
        name,
        how.max_pixels,
        lambda values: _from_array(values, name, how),
        lambda image: _from_pil(image, name, how, file),
    )


def _decoded(
    file: Any,
    name: str,
    max_pixels: int,
    of_array: Callable[[NDArray[Any]], T],
    of_image: Callable[[Image.Image], T],
) -> T:
    """What one of the two makes of a file's array, or of its picture, which is not yet decoded."""
    try:
        if file.read(6) == b"\x93NUMPY":
            file.seek(0)
            return of_array(_load_npy(file, name))
        file.seek(0)
        with warnings.catch_warnings():
            # Pillow warns of large and odd files; the limit below decides
            warnings.filterwarnings("ignore", module="PIL|pillow_heif")
            with _pillow_limit(max_pixels):
                image = _image(file, name)
            with image:
                return of_image(image)
    except Image.DecompressionBombError:
        raise _too_large(name, "far more", max_pixels) from None
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory than there is") from error
    except (ImageError, PixelwiseWarning):  # which somebody may have made an error
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        raise ImageError(f"{name} is damaged or cut short ({str(error).rstrip('.')})") from error


HEIC = frozenset(b"heic heix heim heis hevc hevx mif1 msf1".split())
"""Brands of the pictures of phones that Pillow reads with pillow-heif only."""


def _image(file: Any, name: str) -> Image.Image:
    """The picture in a file, not yet decoded; ImageError, with what it is instead, where there is none."""
    start = file.read(8)
    file.seek(0)
    kinds = next((kinds for mark, kinds in USUAL.items() if start.startswith(mark)), DECODERS)
    try:
        image = Image.open(file, formats=kinds)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(512)
        if start[4:8] == b"ftyp" and start[8:12] in HEIC:
            return _heic(file, name)
        other = _other_kind(start, name)
        raise ImageKindError(
            f"{name} is not a picture, or of a kind that Pillow cannot read"
            if other is None
            else f"{name} is {other.says}, which is not read; {other.advice}"
        ) from None
    if image.format == "TIFF" and _is_camera_raw(image, name):
        raise ImageKindError(f"{name} is {CAMERA_RAW.says}, which is not read; {CAMERA_RAW.advice}")
    return image


def _heic(file: Any, name: str) -> Image.Image:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageKindError(
            f"{name} is a HEIC picture, which needs pillow-heif; run: pip install pillow-heif"
        ) from error
    register_heif_opener()
    file.seek(0)
    return Image.open(file, formats=("HEIF",))


@dataclass(frozen=True)
class _Other:
    """A kind of file that people take for a picture. says: what it is; advice: what to do; suffixes: of its names;
    starts: bytes and where they stand in it."""

    says: str
    advice: str
    suffixes: str
    starts: tuple[tuple[int, bytes], ...] = ()


CAMERA_RAW = _Other(
    "a camera's raw file", "develop it to TIFF or PNG first, as darktable and RawTherapee do",
    ".cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .raw",
    ((8, b"CR\x02"), (8, b"crx "), (0, b"FUJIFILMCCD-RAW"), (0, b"IIRO"), (0, b"IIRS"), (0, b"IIU\0"), (0, b"FOVb")),
)  # fmt: skip
ARCHIVE = _Other(
    "an archive", "unpack it first", ".zip .tar .tgz .gz .7z .rar .xz",
    ((0, b"PK\3\4"), (0, b"\x1f\x8b"), (0, b"7z\xbc\xaf"), (0, b"Rar!"), (257, b"ustar")),
)  # fmt: skip
OTHERS = (
    CAMERA_RAW,
    _Other("a DICOM file", "save its pictures as PNG or TIFF of 16 bits, as pydicom and dcmtk do", ".dcm .dicom",
           ((128, b"DICM"),)),
    _Other("a volume (NIfTI)", "save its slices as PNG or TIFF, as nibabel does", ".nii .nii.gz",
           ((344, b"n+1\0"), (344, b"ni1\0"))),
    _Other("a volume (NRRD or MetaImage)", "save its slices as PNG or TIFF, as SimpleITK does", ".nrrd .nhdr .mha .mhd",
           ((0, b"NRRD0"), (0, b"ObjectType"))),
    _Other("a microscope's own file", "save it as OME-TIFF, as Fiji with Bio-Formats does",
           ".czi .lif .nd2 .oib .oif .vsi .lsm5 .ims", ((0, b"ZISRAWFILE"), (0, b"\xda\xce\xbe\x0a"))),
    _Other("a Photoshop document", "save it as PNG", ".psd .psb", ((0, b"8BPS"),)),
    _Other("a PDF", "save its pages as pictures, as pdftoppm -png does", ".pdf .ai", ((0, b"%PDF"),)),
    _Other("a drawing of lines (SVG or PostScript)", "save it as PNG, as Inkscape does", ".svg .svgz .eps .ps",
           ((0, b"<svg"), (0, b"%!PS"), (0, b"\xc5\xd0\xd3\xc6"))),
    _Other("a JPEG XL picture", "save it as PNG, as djxl does", ".jxl",
           ((0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL "))),
    _Other("an icon", "save it as PNG, as ImageMagick does", ".ico", ((0, b"\0\0\1\0"),)),
    _Other("an HDF5 or MATLAB file", "save the array in it as .npy or TIFF", ".h5 .hdf5 .mat",
           ((0, b"\x89HDF"), (0, b"MATLAB"))),
    ARCHIVE,
    _Other("a list of other files", "give the files that it names", ".m3u8 .m3u .ffconcat .pls .mpd",
           ((0, b"#EXTM3U"), (0, b"ffconcat"))),
)  # fmt: skip
"""Told by their first bytes, else by their names."""


def _other_kind(start: bytes, name: str) -> _Other | None:
    lower = name.lower()
    named = next((other for other in OTHERS if lower.endswith(tuple(other.suffixes.split()))), None)
    for other in OTHERS:
        if any(start[at : at + len(mark)] == mark for at, mark in other.starts):
            return named if named is not None and other is ARCHIVE else other  # .nii.gz, .svgz
    return named


DNG_VERSION, SUB_PAGES = 50706, 330


def _is_camera_raw(image: Any, name: str) -> bool:
    """Whether a TIFF is a camera's, whose first page is no more than a small preview."""
    tags = image.tag_v2
    preview = bool(tags.get(REDUCED, 0) & 1) and SUB_PAGES in tags
    return preview or DNG_VERSION in tags or name.lower().endswith(tuple(CAMERA_RAW.suffixes.split()))


def _load_npy(file: Any, name: str) -> NDArray[Any]:
    _check_npy(file, name)
    try:
        values: NDArray[Any] = np.load(file, allow_pickle=False)
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise ImageError(
            f"{name} holds Python objects, which are not read because they can run code; save it as an array "
            "of numbers"
        ) from None
    return values


def _check_npy(file: Any, name: str) -> None:
    """Raise ImageError where the header of an array says more than the file holds, for which memory would be taken."""
    heads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if (head := heads.get(np.lib.format.read_magic(file))) is not None:
        shape, _, kind = head(file)
        begin, said = file.tell(), math.prod(shape) * kind.itemsize
        holds = file.seek(0, io.SEEK_END) - begin
        if said > holds and not kind.hasobject:
            raise ImageError(
                f"{name} is cut short: its header says {said:,} bytes {shape}, and it holds {holds:,}"
            )
    file.seek(0)


def _too_large(name: str, pixels: object, max_pixels: int) -> ImageError:
    return ImageSizeError(f"{name} has {pixels} pixels, more than the limit of {max_pixels:,}; {RAISE_IT}")


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _too_large(name, f"{image.height} x {image.width} = {image.width * image.height:,}", max_pixels)
    if image.width * image.height == 0:
        raise ImageError(f"{name} has no pixels ({image.height} x {image.width})")


def _from_pil(image: Image.Image, name: str, how: _How, file: Any = None) -> NDArray[Any]:
    """file: what the image was opened from, in which case it may be changed."""
    _check_size(image, name, how.max_pixels)
    lower = None
    if file is None:
        image.load()
    else:
        _say_of_frames(image, name)
        stored = _stored(image)
        image.load()
        lower = _lower_bytes(file, image, stored, name, how.max_pixels)
    picture = _upright(image, ours=file is not None)
    size_hw = (picture.height, picture.width)

    def part(top: int, end: int, of: Image.Image = picture) -> Image.Image:
        return of.crop((0, top, of.width, end))

    if how.channels != 3 and picture.mode not in PLAIN.get(how.channels, ()):
        raise _other_channels(name, f"{len(picture.getbands())} ({picture.mode})", how.channels)
    if lower is not None:
        behind = _upright(lower, ours=True)

        def deep(top: int, end: int) -> NDArray[Any]:
            upper = np.asarray(part(top, end)).astype(np.uint16)
            return np.asarray(upper << 8 | np.asarray(part(top, end, behind)))

        return _of_depth(deep, size_hw, len(picture.getbands()), name, how)
    if how.channels == 3 and (picture.mode in ("I", "F") or picture.mode.startswith("I;")):
        return _of_depth(lambda top, end: np.asarray(part(top, end))[..., None], size_hw, 1, name, how)
    _say_of_range(how)
    if how.channels != 3:
        return _in_strips(size_hw, how.channels, lambda top, end: np.asarray(part(top, end)))
    return _in_strips(size_hw, 3, lambda top, end: np.asarray(_opaque(part(top, end))))


def _upright(image: Image.Image, *, ours: bool) -> Image.Image:
    """Turned as its EXIF block says; ours: it may be changed."""
    with suppress(Exception):  # a damaged EXIF block does not spoil the picture
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            if ours:
                ImageOps.exif_transpose(image, in_place=True)
            else:
                return ImageOps.exif_transpose(image)
    return image


def _stored(image: Any) -> str:
    """How the samples of a picture that is not yet decoded lie in its file, in Pillow's words, such as "RGB;16B"."""
    for tile in image.tile[:1]:
        words = tile.args if isinstance(tile.args, tuple) and tile.args else (tile.args,)
        if image.format == "PPM" and isinstance(words[-1], int) and words[-1] > 255:  # the largest value
            return f"{words[0]};16"
        return str(words[0])
    return ""


def _lower_bytes(file: Any, image: Any, stored: str, name: str, max_pixels: int) -> Image.Image | None:
    """The lower bytes of a picture whose channels have 16 bits; None where they have 8, or Pillow keeps all.

    Of two bytes a channel Pillow keeps the upper one. Told that they come in the other order, it keeps the lower.
    """
    if ";16" not in stored or image.mode not in ("RGB", "RGBA", "LA", "CMYK"):
        return None
    mode, _, order = stored.rpartition(";16")
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    if mode not in ("RGB", "RGBA", "RGBX") or order not in ("L", "B"):
        warnings.warn(
            f"of the 16 bits a channel that {name} has, only the upper 8 are used, as Pillow reads it; save it as PNG "
            "or TIFF, grey or RGB, for all of them",
            PixelwiseWarning,
            stacklevel=1,
        )
        return None
    other = f"{mode};16{'B' if order == 'L' else 'L'}"
    file.seek(0)
    with _pillow_limit(max_pixels):
        again: Any = Image.open(file, formats=(image.format,))
    again.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
        for tile in again.tile
    ]
    again.load()
    found: Image.Image = again
    return found


def _say_of_frames(image: Any, name: str) -> None:
    """A warning where a file holds further pictures. Smaller copies of the first, as maps and scans have them, are
    none, nor are the previews and depths behind a JPEG."""
    if image.format not in ("TIFF", "GIF", "PNG", "WEBP", "AVIF", "HEIF") or not getattr(
        image, "is_animated", False
    ):
        return
    kind, pages = "frames", None
    if image.format == "TIFF":
        kind = "pages"
        smaller = True
        with suppress(Exception):  # a page that cannot be read is none
            image.seek(1)
            smaller = bool(image.tag_v2.get(REDUCED, 0) & 1)
        image.seek(0)
        if smaller:
            return
    elif image.format in ("WEBP", "PNG", "AVIF", "HEIF"):
        pages = image.n_frames
    warnings.warn(
        f"{name} holds {'more than one picture' if pages is None else f'{pages} pictures'}; the first is used, and to "
        f"use the others save its {kind} as files",
        PixelwiseWarning,
        stacklevel=1,
    )


REDUCED = 254
"""The tag of a TIFF page that says, by its lowest bit, that it is a smaller copy of another."""


def _of_depth(
    rows: Callable[[int, int], NDArray[Any]], size_hw: tuple[int, int], channels: int, name: str, how: _How
) -> NDArray[Any]:
    """A picture of more than 8 bits a channel as `how` says. rows: its rows top .. end, (rows, w, channels); a fourth
    one is transparency where RGB is wanted."""
    colors = 3 if how.channels == 3 and channels == 4 else channels
    step = max(1, int(np.ceil(np.sqrt(size_hw[0] * size_hw[1] / SAMPLE))))
    sample, low, high = [], np.inf, -np.inf
    whole: NDArray[Any] | None = None
    for top, end in _strips(size_hw):
        values = rows(top, end)[..., :colors]
        least, most = float(values.min()), float(values.max())
        if not np.isfinite([least, most]).all():
            raise _not_finite(values, name, top)
        low, high = min(low, least), max(high, most)
        if how.unscaled:
            whole = np.empty((*size_hw, colors), values.dtype) if whole is None else whole
            whole[top:end] = values
        else:
            sample.append(values[-top % step :: step, ::step].reshape(-1))
    if whole is not None:
        return whole
    shown = _shown_range(np.concatenate(sample), (low, high), name, how)
    del sample

    def part(top: int, end: int) -> NDArray[np.uint8]:
        values = rows(top, end)
        found = stretched(values[..., :colors], shown)
        if channels > colors:
            alpha = (values[..., colors:] >> 8).astype(np.uint8)
            return np.asarray(_opaque(Image.fromarray(np.concatenate([found, alpha], axis=2), "RGBA")))
        return found

    return _in_strips(size_hw, how.channels, part)


def _not_finite(values: NDArray[Any], name: str, top: int = 0) -> ImageError:
    """top: the row at which these values (h, w, c) begin."""
    row, column = np.argwhere(~np.isfinite(values))[0][:2]
    return ImageError(
        f"{name} holds NaN or infinite values, first at row {top + row}, column {column}; write numbers there, such as "
        "numpy.nan_to_num does, and where it is labelled 255 (ignored) in its label map"
    )


def _shown_range(sample: NDArray[Any], extremes: ValueRange, name: str, how: _How) -> ValueRange:
    """Which values are shown as black and white; what may be a mistake is said."""
    (low, high), shown = extremes, how.value_range
    doubt = ""
    if shown is None:
        _say_once(UNSTATED)
        first, last = (float(value) for value in np.percentile(sample, (DARKEST, BRIGHTEST)))
        if first < last:
            return first, last
        if low < high:
            return low, high
        shown = (low, low + 1)
        doubt = f"{name} holds the value {low:g} everywhere, and is shown black"
    elif high < shown[0] or low > shown[1] or (0 < high <= 1 and shown[0] >= 0 and shown[1] >= 255):
        colour = "white" if low > shown[1] else "black"
        doubt = (
            f"{name} holds values from {low:g} to {high:g}, and {shown[0]:g} to {shown[1]:g} are to be shown, so it is "
            f"all {colour}; bring it to the same units, or give the range of these (value_range, --scale)"
        )
    if doubt:
        warnings.warn(doubt, PixelwiseWarning, stacklevel=1)
    return shown


def _opaque(image: Image.Image) -> Image.Image:
    """As RGB, over white."""
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


STRIP_PIXELS = 250_000
"""Pixels that are converted at a time: of the whole there are only the decoder's picture and the result."""


def _strips(size_hw: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    height, width = size_hw
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _in_strips(
    size_hw: tuple[int, ...], channels: int, part: Callable[[int, int], NDArray[Any]]
) -> NDArray[np.uint8]:
    """(h, w, channels), from what `part` gives for rows top .. end."""
    whole = np.empty((*size_hw, channels), np.uint8)
    for top, end in _strips(size_hw):
        whole[top:end] = part(top, end)
    return whole


PLAIN = {2: ("LA",), 4: ("RGBA", "RGBX")}
"""Modes of Pillow that are so many channels as they stand."""


def _other_channels(name: str, got: str, channels: int) -> ImageError:
    return ImageError(
        f"this model takes pictures of {channels} channels, and {name} has {got}; pass an array (h, w, {channels}), a "
        f"tensor ({channels}, h, w), or a file that has {channels}"
    )


def _channels_last(tensor: Any, channels: int) -> NDArray[Any]:
    """A torch tensor (c, h, w), (h, w, c) or (h, w) as an array with the channels last."""
    if tensor.ndim == 3 and tensor.shape[0] in ((1, 3, 4) if channels == 3 else (channels,)):
        tensor = tensor.permute(1, 2, 0)
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    values: NDArray[Any] = tensor.detach().cpu().numpy()
    return values


def _from_array(values: NDArray[Any], name: str, how: _How) -> NDArray[Any]:
    channels = how.channels
    if values.ndim == 2:
        values = values[..., None]
    known = (1, 3, 4) if channels == 3 else (channels,)
    if values.ndim != 3 or values.shape[2] not in known:
        if channels != 3 and values.ndim == 3 and values.shape[0] != channels:
            raise _other_channels(name, f"the shape {values.shape}", channels)
        hint = "; move the channels last" if values.ndim == 3 and values.shape[0] in known else ""
        hint = "; pass one picture at a time" if values.ndim == 4 else hint
        shapes = "(h, w, 3), (h, w, 4) or (h, w)" if channels == 3 else f"(h, w, {channels})"
        raise ImageError(f"{name} must have the shape {shapes}, got {values.shape}{hint}")
    size_hw = (values.shape[0], values.shape[1])
    if size_hw[0] * size_hw[1] > how.max_pixels:
        raise _too_large(name, f"{size_hw[0] * size_hw[1]:,}", how.max_pixels)
    if values.size == 0:
        raise ImageError(f"{name} has no pixels: shape {values.shape}")
    kind = values.dtype
    floats = np.issubdtype(kind, np.floating)
    if not floats and kind not in (np.uint8, np.uint16, bool):
        raise ImageError(
            f"{name} holds {kind} values, expected uint8, uint16, bool or float; convert to uint8"
        )
    clear = channels == 3 and values.shape[2] == 4
    if kind == np.uint16 or (floats and how.value_range is not None and not clear):
        return _of_depth(lambda top, end: values[top:end], size_hw, values.shape[2], name, how)
    if floats and not np.isfinite([values.min(), values.max()]).all():
        raise _not_finite(values, name)
    if floats and not (values.min() >= 0 and values.max() <= 1):
        raise ImageError(
            f"{name} holds floats from {values.min():g} to {values.max():g}, expected [0, 1]; divide by 255, or say "
            "which values to show as black and white (value_range)"
        )
    if kind == np.uint8:
        _say_of_range(how)
    if kind == np.uint8 and values.shape[2] == channels:
        return np.ascontiguousarray(values)

    def part(top: int, end: int) -> NDArray[np.uint8]:
        rows = _to_uint8(values[top:end])
        if rows.shape[2] == 4 and channels == 3:
            return np.asarray(_opaque(Image.fromarray(np.ascontiguousarray(rows), "RGBA")))
        return rows

    return _in_strips(size_hw, channels, part)


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """bool, and floats in [0, 1], by value."""
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        values = np.round(values * 255)
    return np.asarray(values, np.uint8)
