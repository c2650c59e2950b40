"""images.read: anything that holds a picture to uint8 RGB (h, w, 3), or other channels, safely.

Size is checked before decoding; EXIF orientation is applied; transparency is laid over white; grey, palette,
CMYK, Lab, 1-bit, 16-bit and float pictures are brought to 8-bit RGB by value (65535 becomes 255), not cut off.
Of an animation or a multi-page file the first picture is taken. Files are told apart by their content, not by
their name, and whatever a damaged or hostile one does to a decoder ends as one ImageError.
"""

from __future__ import annotations

import io
import os
import re
import select
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pixelwise.errors import ImageError
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

PIPE_WAIT_S = 60.0
"""How long a named pipe may keep silent."""

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .dib .gif .jp2 .ppm .pgm .pbm .pnm .avif".split()
)
"""What counts as a picture when a folder is searched."""

DECODERS = tuple("AVIF BMP DDS DIB GIF ICO JPEG JPEG2000 PCX PNG PPM QOI SGI TGA TIFF WEBP".split())
"""The kinds that Pillow is asked to try. Left out: what starts other programs (EPS), and what nobody photographs."""


def read(source: ImageLike, *, channels: int = 3, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """A picture as uint8 (h, w, channels), contiguous: RGB for 3, grey for 1.

    source: a path, the bytes of a file (one that Pillow knows, or .npy), a file open for reading in binary mode, from
    where it stands to its end, a PIL image, an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or a torch tensor of
    these shapes or with the channels first, on any device; arrays and tensors are uint8, uint16, bool, or float in
    [0, 1]. channels: 1 is Pillow's "L" of the RGB picture. Of any other number the source must have just as many, an
    array (h, w, channels), a tensor (channels, h, w) or a file: an RGBA picture is 4 channels then, and nothing is laid
    over white. Raises ImageError, with the file's name, for what cannot be used.

    At its peak it takes up to 12 bytes a pixel, its result of 3 and what Pillow decodes to included (8 for PNG and JPEG
    of 8 bits, 17 for WebP, 20 for JPEG 2000): 0.7 to 1.8 GB at the default limit. What comes through a pipe lies in
    memory besides, at most 8 bytes for each of max_pixels.
    """
    if channels == 1:
        rgb = read(source, max_pixels=max_pixels)
        return _in_strips(
            rgb.shape[:2],
            1,
            lambda top, end: np.asarray(Image.fromarray(rgb[top:end]).convert("L"))[..., None],
        )
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array", channels, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image", channels, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(source, "the picture", channels, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        refuse_address(source)
        path = Path(source)
        return _open(path, lambda file: _decode(file, str(path), channels, max_pixels), max_pixels)
    if is_torch_array(source):
        return _from_array(_channels_last(source, channels), "the tensor", channels, max_pixels)
    if callable(getattr(source, "read", None)):
        return _from_file(source, channels, max_pixels)
    raise ImageError(
        f"expected a path, bytes, a file open in binary mode, a PIL image, a NumPy array (h, w, {channels}) or a torch "
        f"tensor ({channels}, h, w), got {type(source).__name__}"
    )


def read_values(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[NDArray[Any], str]:
    """The numbers in a picture or a .npy file, or in its bytes, as they are, (h, w) or (h, w, c), and Pillow's mode, or
    "npy".

    For label maps: nothing is scaled or turned, and of a palette the indices count. Raises ImageError as `read` does.
    """

    name = "the label map" if isinstance(source, bytes) else str(source)

    def of_image(image: Image.Image) -> tuple[NDArray[Any], str]:
        _check_size(image, name, max_pixels)
        return np.asarray(image), image.mode

    def values_of(file: Any) -> tuple[NDArray[Any], str]:
        return _decoded(file, name, max_pixels, lambda values: (values, "npy"), of_image)

    return (
        values_of(io.BytesIO(source)) if isinstance(source, bytes) else _open(source, values_of, max_pixels)
    )


def shown(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What people see of a picture (h, w, c): uint8 RGB (h, w, 3), its first three channels, or of fewer the first one
    in grey."""
    if picture.shape[2] == 3:
        return picture
    kept = picture[..., :3] if picture.shape[2] > 3 else np.repeat(picture[..., :1], 3, axis=2)
    return np.ascontiguousarray(kept)


def _from_file(file: Any, channels: int, max_pixels: int) -> NDArray[np.uint8]:
    """From where it stands to its end; whether it can go back makes no difference."""
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "the file"
    try:
        data = _limited(file, name, max_pixels)
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
    return _from_bytes(data, name, channels, max_pixels)


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
    return ImageError(
        f"{name} goes on after {limit:,} bytes, more than a picture of the largest size that is allowed can have; "
        "if it is to be trusted, raise the limit (max_pixels, --max-pixels)"
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


def _from_bytes(
    data: bytes | bytearray | memoryview, name: str, channels: int, max_pixels: int
) -> NDArray[np.uint8]:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    return _decode(io.BytesIO(data), name, channels, max_pixels)


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


def find(inputs: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, Path]]:
    """The pictures that `inputs` name: (path, its name below the input), sorted within each folder.

    An input is a file (taken whatever its suffix), a folder (searched through, hidden files left out) or a
    pattern such as `photos/**/*.jpg`. Links to folders are not followed, so there is no endless search; links that
    lead nowhere and folders that may not be searched are returned like pictures, for `read` to name them. Raises
    ImageError when an input names nothing.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        refuse_address(given)
        path = Path(given)
        if path.is_dir():
            inside = sorted(_inside(path))
            if not inside:
                raise ImageError(f"no pictures in {path}; looked for {', '.join(sorted(SUFFIXES))}")
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


def _inside(folder: Path) -> Iterator[Path]:
    closed: list[Path] = []
    for here, folders, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(here, name)
            if path.suffix.lower() not in SUFFIXES or name.startswith("."):
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


def _decode(file: Any, name: str, channels: int, max_pixels: int) -> NDArray[np.uint8]:
    return _decoded(
        file,
        name,
        max_pixels,
        lambda values: _from_array(values, name, channels, max_pixels),
        lambda image: _from_pil(image, name, channels, max_pixels, ours=True),
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
            warnings.simplefilter("ignore")  # Pillow warns of large and odd files; the limit below decides
            with _pillow_limit(max_pixels):
                image = Image.open(file, formats=DECODERS)
            with image:
                return of_image(image)
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture, or of a kind that Pillow cannot read") from None
    except Image.DecompressionBombError:
        raise _too_large(name, "far more", max_pixels) from None
    except MemoryError:
        raise ImageError(f"{name} needs more memory than there is") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        raise ImageError(f"{name} is damaged or cut short ({str(error).rstrip('.')})") from error


def _load_npy(file: Any, name: str) -> NDArray[Any]:
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


def _too_large(name: str, pixels: object, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name} has {pixels} pixels, more than the limit of {max_pixels:,}; "
        "if it is to be trusted, raise the limit (max_pixels, --max-pixels)"
    )


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _too_large(name, f"{image.width} x {image.height} = {image.width * image.height:,}", max_pixels)
    if image.width * image.height == 0:
        raise ImageError(f"{name} has no pixels ({image.width} x {image.height})")


def _from_pil(
    image: Image.Image, name: str, channels: int, max_pixels: int, *, ours: bool = False
) -> NDArray[np.uint8]:
    """ours: the image may be changed."""
    _check_size(image, name, max_pixels)
    image.load()
    with suppress(Exception):  # a damaged EXIF block does not spoil the picture
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            if ours:
                ImageOps.exif_transpose(image, in_place=True)
            else:
                image = ImageOps.exif_transpose(image)
    size_hw = (image.height, image.width)

    def part(top: int, end: int) -> Image.Image:
        return image.crop((0, top, image.width, end))

    if channels != 3:
        if image.mode not in PLAIN.get(channels, ()):
            raise _other_channels(name, f"{len(image.getbands())} ({image.mode})", channels)
        return _in_strips(size_hw, channels, lambda top, end: np.asarray(part(top, end)))
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.empty(size_hw, np.asarray(part(0, 1)).dtype)
        for top, end in _strips(size_hw):
            values[top:end] = np.asarray(part(top, end))
        return _from_array(_to_unit_range(values, name), name, channels, max_pixels)
    return _in_strips(size_hw, 3, lambda top, end: np.asarray(_opaque(part(top, end))))


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


def _to_unit_range(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Grey values of more than 8 bits to uint16, or to float in [0, 1]."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError(f"{name} holds NaN or infinite values; replace them first")
    if low >= 0 and np.issubdtype(values.dtype, np.integer) and high <= 65535:
        return values.astype(np.uint16)
    if low >= 0 and np.issubdtype(values.dtype, np.floating) and high <= 1:
        return values
    if low >= 0 and np.issubdtype(values.dtype, np.floating) and high <= 255:
        return values / 255
    raise ImageError(
        f"{name} holds values from {low:g} to {high:g}; expected integers in 0..65535 or floats in 0..1 or 0..255; "
        "say which range to show (--scale MIN,MAX) or convert it first"
    )


def _channels_last(tensor: Any, channels: int) -> NDArray[Any]:
    """A torch tensor (c, h, w), (h, w, c) or (h, w) as an array with the channels last."""
    if tensor.ndim == 3 and tensor.shape[0] in ((1, 3, 4) if channels == 3 else (channels,)):
        tensor = tensor.permute(1, 2, 0)
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    values: NDArray[Any] = tensor.detach().cpu().numpy()
    return values


def _from_array(values: NDArray[Any], name: str, channels: int, max_pixels: int) -> NDArray[np.uint8]:
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
    if values.shape[0] * values.shape[1] > max_pixels:
        raise _too_large(name, f"{values.shape[0] * values.shape[1]:,}", max_pixels)
    if values.size == 0:
        raise ImageError(f"{name} has no pixels: shape {values.shape}")
    kind = values.dtype
    if np.issubdtype(kind, np.floating):
        if not (values.min() >= 0 and values.max() <= 1):  # false for NaN as well
            raise ImageError(
                f"{name} holds floats from {values.min():g} to {values.max():g}, expected [0, 1]; "
                "divide by 255 or convert to uint8"
            )
    elif kind not in (np.uint8, np.uint16, bool):
        raise ImageError(
            f"{name} holds {kind} values, expected uint8, uint16, bool or float; convert to uint8"
        )
    if kind == np.uint8 and values.shape[2] == channels:
        return np.ascontiguousarray(values)

    def part(top: int, end: int) -> NDArray[np.uint8]:
        rows = _to_uint8(values[top:end])
        if rows.shape[2] == 4 and channels == 3:
            return np.asarray(_opaque(Image.fromarray(np.ascontiguousarray(rows), "RGBA")))
        return rows

    return _in_strips(values.shape[:2], channels, part)


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16, bool and floats in [0, 1] by value."""
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) + 128) // 257
    elif values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        values = np.round(values * 255)
    return np.asarray(values, np.uint8)
