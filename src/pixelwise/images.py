"""images.read: anything that holds a picture to uint8 RGB (h, w, 3), safely.

Size is checked before decoding; EXIF orientation is applied; transparency is laid over white; grey, palette,
CMYK, Lab, 1-bit, 16-bit and float pictures are brought to 8-bit RGB by value (65535 becomes 255), not cut off.
Of an animation or a multi-page file the first picture is taken.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pixelwise.errors import ImageError

ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

MAX_PIXELS = 89_478_485
"""Default limit on height x width, Pillow's own: about 256 MiB of RGB."""

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .dib .gif .jp2 .ppm .pgm .pbm .pnm .avif".split()
)
"""What counts as a picture when a folder is searched."""


def read(source: ImageLike, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """A picture as uint8 RGB (h, w, 3), contiguous.

    source: a path, the bytes of a file, a PIL image, or an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of
    uint8, uint16, bool, or float in [0, 1]. Raises ImageError, with the file's name, for what cannot be used.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "the picture", io.BytesIO(source)
        if not source:
            raise ImageError("the picture is empty (0 bytes)")
        return _decode(data, name, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        check_file(path)
        try:
            with open(path, "rb") as file:
                return _decode(file, str(path), max_pixels)
        except PermissionError as error:
            raise ImageError(f"no permission to read {path}") from error
    raise ImageError(
        f"expected a path, bytes, a PIL image or a NumPy array (h, w, 3), got {type(source).__name__}; "
        "turn a torch tensor (3, h, w) into an array with tensor.permute(1, 2, 0).numpy()"
    )


def check_file(path: Path) -> None:
    """Raise ImageError when there is no file to read at `path`."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder, expected a picture")
    if not path.exists():
        raise ImageError(f"no such file: {path}")
    if path.is_file() and path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes)")


def find(inputs: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, Path]]:
    """The pictures that `inputs` name: (path, its name below the input), sorted within each folder.

    An input is a file (taken whatever its suffix), a folder (searched through, hidden files left out) or a
    pattern such as `photos/**/*.jpg`. Raises ImageError when one of them names nothing.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and _visible(p, path))
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


def _visible(path: Path, root: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)


def _decode(file: Any, name: str, max_pixels: int) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large and odd files; the limit below decides
            with Image.open(file) as image:
                return _from_pil(image, name, max_pixels)
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture, or of a kind that Pillow cannot read") from None
    except Image.DecompressionBombError:
        raise _too_large(name, "far more", max_pixels) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError) as error:
        if isinstance(error, ImageError):
            raise
        # Pillow's decoders raise all of these for damaged files.
        raise ImageError(f"{name} is damaged or cut short ({str(error).rstrip('.')})") from error


def _too_large(name: str, pixels: object, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name} has {pixels} pixels, more than the limit of {max_pixels:,}; "
        "if it is to be trusted, raise the limit (max_pixels, --max-pixels)"
    )


def _from_pil(image: Image.Image, name: str, max_pixels: int) -> NDArray[np.uint8]:
    if image.width * image.height > max_pixels:
        raise _too_large(name, f"{image.width} x {image.height} = {image.width * image.height:,}", max_pixels)
    if image.width * image.height == 0:
        raise ImageError(f"{name} has no pixels ({image.width} x {image.height})")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _from_array(_to_unit_range(np.asarray(image), name))
    if image.mode == "RGB":
        return np.array(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


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
        f"{name} holds values from {low:g} to {high:g}; expected integers in 0..65535 or floats in 0..1 or 0..255"
    )


def _from_array(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4):
        hint = "; move the channels last" if values.ndim == 3 and values.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"expected an array (h, w, 3), (h, w, 4) or (h, w), got shape {values.shape}{hint}")
    if values.size == 0:
        raise ImageError(f"the array has no pixels: shape {values.shape}")
    if values.dtype == np.uint16:
        values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        if not (values.min() >= 0 and values.max() <= 1):  # false for NaN as well
            raise ImageError(
                f"float pictures hold values in [0, 1], got {values.min():g} to {values.max():g}; "
                "divide by 255 or convert to uint8"
            )
        values = np.round(values * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ImageError(
            f"expected uint8, uint16, bool or float values, got {values.dtype}; convert to uint8"
        )
    if values.shape[2] == 4:
        return _from_pil(Image.fromarray(np.ascontiguousarray(values), "RGBA"), "the array", values.size)
    if values.shape[2] == 1:
        values = np.broadcast_to(values, (*values.shape[:2], 3))
    return np.ascontiguousarray(values)
